//! What a backup needs of the engine, and nothing about where it goes: pinned files, facts about rows, keys, and the
//! way back from copied files to a store.
//!
//! `sepal-backup` is the caller. It copies the files that a [`TenantPin`] names as they are: they are sealed, and none
//! of them changes. What it must not see it gets sealed: a tenant's facts under a key derived from that tenant's, so
//! that they end with the tenant.
//!
//! | going out | coming back |
//! |---|---|
//! | [`Source::tenants`], [`Source::copy_control`] | [`Restoring::open`], [`Restoring::on_trial`] |
//! | [`Source::pin`]: manifest, segments, log up to a commit | [`Restoring::open_tenant`]: replays up to it |
//! | [`TenantPin::facts`]: rows, content, golden answers | [`RestoredTenant::compare`] |
//! | [`Source::open_logs`], [`Source::closed_log`]: the log, as it grows | [`Until::Time`] |

mod facts;
mod pin;
mod restoring;
mod source;

use std::path::Path;

use async_trait::async_trait;
use sepal_control::{AuditAction, NewAuditEvent, RootStore};
use sepal_crypto::{Aad, hmac_sha256, open, seal};
use sepal_types::{Error, Result, SqlState};

pub use facts::{Difference, Golden, TableFacts};
pub use pin::{CopiedFile, LogPiece, TenantPin};
pub use restoring::{RestoredTenant, Restoring, Until};
pub use sepal_control::{HeldKeys, RecoveryKey, RecoveryShare, Wrappers, open_recovery_package};
pub use sepal_types::{FileId, Lsn};
pub use source::{OpenLog, Source};

pub use crate::blocking::blocking;
use crate::{Control, Key, TenantId};

/// Stands in a data directory as long as a restore into it is not done: such a directory is not opened.
pub const UNFINISHED: &str = "restore.unfinished";

/// Refuses a directory that is half restored. `Database::open` asks as well; commands ask first, for which half a
/// directory has other faults.
///
/// Errors: 55000 it is.
pub fn check_finished(data: &Path) -> Result<()> {
    if !data.join(UNFINISHED).exists() {
        return Ok(());
    }
    let why = format!("{} holds a restore that did not end ({UNFINISHED} is there)", data.display());
    Err(Error::new(SqlState::ObjectNotInPrerequisiteState, why)
        .with_hint("Remove the directory and run `sepal backup restore` again."))
}

/// The authentication of an entry of a repository, by the instance that made it.
pub fn entry_mac(control: &Control, entry: &[u8]) -> [u8; 32] {
    hmac_sha256(&control.backup_key(), &Aad::new("backup-entry 1").bytes(entry).finish())
}

/// Seals what a backup or a census says of a tenant. `what` is bound to it: the backup's id, the census' day.
pub fn seal_facts(control: &Control, tenant: TenantId, what: &str, facts: &[u8]) -> Result<Vec<u8>> {
    let key = control.tenant_keys(tenant)?.current().derive("backup facts 1", &[]);
    Ok(seal(&key, &facts_aad(tenant, what), facts))
}

/// Opens what [`seal_facts`] gave, under whichever of the tenant's keys it was.
pub fn open_facts(control: &Control, tenant: TenantId, what: &str, sealed: &[u8]) -> Result<Vec<u8>> {
    let ring = control.tenant_keys(tenant)?;
    opened(ring.keys(), tenant, what, sealed).ok_or_else(|| {
        let why = format!("what {what} says of tenant {tenant} does not open");
        Error::new(SqlState::DataCorrupted, why)
            .with_hint(
                "It was changed, it belongs to another backup or tenant, or the tenant's key that it is under was \
                 replaced and destroyed since (sepal tenant rotate-key).",
            )
    })
}

/// The same under keys that a backup has ([`Source::sealed_keys`]), which may be retired here. `None`: under none of
/// them.
pub fn open_older_facts(
    control: &Control,
    tenant: TenantId,
    keys: &[u8],
    (what, sealed): (&str, &[u8]),
) -> Result<Option<Vec<u8>>> {
    let keys = control.backed_up_keys(tenant, keys)?;
    Ok(opened(keys.iter(), tenant, what, sealed))
}

fn opened<'a>(
    mut keys: impl Iterator<Item = &'a Key>,
    tenant: TenantId,
    what: &str,
    sealed: &[u8],
) -> Option<Vec<u8>> {
    let aad = facts_aad(tenant, what);
    keys.find_map(|key| open(&key.derive("backup facts 1", &[]), &aad, sealed).ok())
}

fn facts_aad(tenant: TenantId, what: &str) -> Vec<u8> {
    Aad::new("backup-facts 1").tenant(tenant).text(what).finish()
}

/// What the audit trail is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    Made,
    Verified,
    Restored,
    Removed,
}

/// Appends to the audit trail what happened to a backup. `facts`: numbers and ids, as JSON. Blocks.
pub fn note(control: &Control, what: Noted, backup: &str, facts: serde_json::Value) -> Result<()> {
    let action = match what {
        Noted::Made => AuditAction::BackupMade,
        Noted::Verified => AuditAction::BackupVerified,
        Noted::Restored => AuditAction::BackupRestored,
        Noted::Removed => AuditAction::BackupRemoved,
    };
    control.audit(NewAuditEvent::new(action, backup).with(facts))?;
    Ok(())
}

/// Keeps a root key that a recovery key gave back, in a file of its own, 0600. Never overwrites.
pub fn keep_root(path: &Path, root: &Key) -> Result<()> {
    Ok(RootStore::file(path).save(root)?)
}

/// Whoever holds copies of tenants' wrapped keys elsewhere: a dropped tenant's must go there, too.
#[async_trait]
pub trait KeyCopies: Send + Sync {
    /// Before a tenant is dropped: remembers it durably, so that a crash in between is made good for.
    async fn intend(&self, tenant: TenantId) -> Result<()>;
    /// The tenant's keys are gone here: removes the copies, now or as soon as their place can be reached.
    async fn destroy(&self, tenant: TenantId) -> Reached;
}

/// From where copies of a tenant's keys were removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub places: Vec<String>,
    /// Places that did not answer, with the reason: until they do, what they hold can still be opened.
    pub not_reached: Vec<String>,
}
