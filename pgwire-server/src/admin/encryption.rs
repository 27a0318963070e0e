//! What the operator asks about encryption keys and the audit trail: the requests, their answers, and how they are
//! answered.
//!
//! A recovery key crosses the socket once, when it is made, and towards the server when it is shown to be there.

use std::{fmt, sync::Arc};

use sepal_database::{
    AuditCheckpoint, AuditEntry, AuditReport, Database, DestructionCertificate, Error, Provider, RecoveryKey,
    RecoveryShare, RecoveryStatus, Result, SqlState, TenantKeyStatus, keys::RotationProgress,
    rotation::TenantKeyProgress,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{Answer, handler::tenant_named};

/// Most entries of the audit trail in one answer: it is one line of at most a MiB.
pub const AUDIT_PAGE: usize = 200;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EncryptionAction {
    /// Begins to replace the root key.
    RootRotate,
    RootStatus,
    RecoveryCreate {
        /// How many are needed of how many; `None`: the whole key.
        shares: Option<(u8, u8)>,
        replace: bool,
    },
    /// A recovery key, or enough shares.
    RecoveryVerify {
        secrets: Vec<SecretText>,
    },
    RecoveryStatus,
    TenantKeys {
        tenant: String,
    },
    /// Makes a new key for a tenant; with `files`, its files get other keys as well.
    TenantKeyRotate {
        tenant: String,
        files: bool,
    },
    TenantKeyStatus {
        tenant: String,
    },
    ByokSet {
        tenant: String,
        provider: Provider,
    },
    ByokRemove {
        tenant: String,
    },
    /// The entries after a number; `None`: the newest ones.
    Audit {
        after: Option<u64>,
        limit: usize,
    },
    AuditCheckpoints,
    /// Number and hash of a checkpoint that was kept elsewhere.
    AuditVerify {
        expected: Option<(u64, String)>,
    },
    /// Of a dropped tenant, by name or id.
    Certificate {
        tenant: String,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EncryptionAnswer {
    Rotation(Rotation),
    /// The key, or its shares; and what may be known of it.
    Recovery {
        secrets: Vec<SecretText>,
        status: RecoveryStatus,
    },
    RecoveryStatus(Option<RecoveryStatus>),
    TenantKeys(TenantKeys),
    TenantKeyRotation(TenantKeyRotation),
    Audit(Vec<AuditLine>),
    AuditCheckpoints(Vec<AuditCheckpoint>),
    AuditReport(AuditReport),
    Certificate(Option<DestructionCertificate>),
}

/// How far the replacement of the root key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Where the root key is kept, in words.
    pub kept_in: Option<String>,
    /// Which root key of the directory it is, from 1.
    pub generation: u64,
    pub keys: u64,
    pub under_old: u64,
    pub running: bool,
    pub failed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantKeys {
    pub tenant: String,
    pub keys: Vec<TenantKeyStatus>,
    /// The tenant's own provider.
    pub provider: Option<Provider>,
}

/// How far the replacement of a tenant's key is, and that of its files' keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantKeyRotation {
    pub tenant: String,
    /// The newest first.
    pub keys: Vec<TenantKeyStatus>,
    /// Manifests and log files under older keys; `None`: not counted yet.
    pub under_older: Option<usize>,
    /// How often the files' keys were replaced, or began to be.
    pub file_generation: u64,
    pub files_running: bool,
    /// Of the files that get other keys; 0 where none do now.
    pub files: usize,
    pub files_left: usize,
    pub bytes: u64,
    pub bytes_left: u64,
    pub log_files_left: usize,
    /// One of the two is under way.
    pub running: bool,
    /// Why it did not go on when it was tried last.
    pub failed: Option<String>,
}

/// An entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    pub number: u64,
    pub hash: String,
    /// The JSON that was hashed, byte for byte.
    pub event: String,
}

/// A recovery key or a share on its way. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub Zeroizing<String>);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// Blocking.
pub(super) fn answer(database: &Arc<Database>, action: EncryptionAction) -> Result<Answer> {
    use EncryptionAnswer as A;
    let control = database.control();
    let answer = match action {
        EncryptionAction::RootRotate => A::Rotation(database.rotate_root()?.into()),
        EncryptionAction::RootStatus => A::Rotation(database.root_rotation()?.into()),
        EncryptionAction::RecoveryCreate { shares, replace } => create_recovery(database, shares, replace)?,
        EncryptionAction::RecoveryVerify { secrets } => {
            let key = recovery_key(secrets.iter().map(|secret| secret.0.as_str())).map_err(wrong)?;
            A::RecoveryStatus(Some(control.verify_recovery(&key)?))
        }
        EncryptionAction::RecoveryStatus => A::RecoveryStatus(control.recovery_status()?),
        EncryptionAction::TenantKeys { tenant } => tenant_keys(database, tenant)?,
        EncryptionAction::TenantKeyRotate { tenant, .. }
        | EncryptionAction::TenantKeyStatus { tenant }
        | EncryptionAction::ByokSet { tenant, .. } => {
            return Err(Error::bug(format!("the key of tenant {tenant} is looked after elsewhere")));
        }
        EncryptionAction::ByokRemove { tenant } => {
            control.remove_tenant_provider(tenant_named(database, &tenant)?.id)?;
            tenant_keys(database, tenant)?
        }
        EncryptionAction::Audit { after, limit } => {
            let limit = limit.min(AUDIT_PAGE);
            let entries = match after {
                Some(after) => control.audit_events(after, limit)?,
                None => control.newest_audit_events(limit)?,
            };
            A::Audit(entries.into_iter().map(AuditLine::from).collect())
        }
        EncryptionAction::AuditCheckpoints => {
            control.checkpoint_audit()?;
            A::AuditCheckpoints(control.audit_checkpoints()?)
        }
        EncryptionAction::AuditVerify { expected } => {
            let expected = expected.as_ref().map(|(number, hash)| (*number, hash.as_str()));
            A::AuditReport(control.verify_audit(expected)?)
        }
        EncryptionAction::Certificate { tenant } => A::Certificate(control.destruction_certificate(&tenant)?),
    };
    Ok(Answer::Encryption(answer))
}

/// What opens the tenant first. `None`: another action.
pub(super) async fn rotation(database: &Arc<Database>, action: &EncryptionAction) -> Result<Option<Answer>> {
    let (tenant, progress) = match action {
        EncryptionAction::TenantKeyRotate { tenant, files } => {
            let rotated = database.rotate_tenant_key(tenant).await?;
            (tenant, if *files { database.rotate_tenant_files(tenant).await? } else { rotated })
        }
        EncryptionAction::TenantKeyStatus { tenant } => (tenant, database.tenant_key_progress(tenant).await?),
        EncryptionAction::ByokSet { tenant, provider } => {
            database.set_tenant_provider(tenant, provider.clone()).await?;
            let (database, tenant) = (Arc::clone(database), tenant.clone());
            let keys = tokio::task::spawn_blocking(move || tenant_keys(&database, tenant)).await;
            let keys = keys.map_err(|error| Error::bug(format!("an admin request ended early: {error}")))?;
            return Ok(Some(Answer::Encryption(keys?)));
        }
        _ => return Ok(None),
    };
    let TenantKeyProgress { keys, under_older, files, running, failed } = progress;
    Ok(Some(Answer::Encryption(EncryptionAnswer::TenantKeyRotation(TenantKeyRotation {
        tenant: tenant.clone(),
        keys,
        under_older,
        file_generation: files.generation,
        files_running: files.running,
        files: files.files,
        files_left: files.files_left,
        bytes: files.bytes,
        bytes_left: files.bytes_left,
        log_files_left: files.log_files_left,
        running,
        failed,
    }))))
}

/// Puts together what people kept. Also for `sepal recover`, which has no server to ask.
pub fn recovery_key<'a>(secrets: impl Iterator<Item = &'a str>) -> Result<RecoveryKey, String> {
    let mut shares = Vec::new();
    for (position, text) in (1..).zip(secrets) {
        if let Some(key) = RecoveryKey::parse(text) {
            return Ok(key);
        }
        match RecoveryShare::parse(text) {
            Some(share) => shares.push(share),
            None => {
                return Err(format!(
                    "line {position} is neither a recovery key (sepal_rec_...) nor a share of one (sepal_share_...), \
                     or has a typing error"
                ));
            }
        }
    }
    RecoveryKey::combine(&shares)
}

fn create_recovery(database: &Database, shares: Option<(u8, u8)>, replace: bool) -> Result<EncryptionAnswer> {
    if let Some((threshold, count)) = shares
        && (threshold < 2 || threshold > count)
    {
        return Err(Error::new(
            SqlState::InvalidParameterValue,
            format!("{threshold} of {count} shares: at least 2 must be needed, and not more than there are"),
        ));
    }
    let control = database.control();
    let key = control.create_recovery(shares, replace).map_err(|error| match Error::from(error) {
        error if error.state() == SqlState::DuplicateObject => error.with_hint(
            "`sepal recovery verify` shows that it can be found; `sepal recovery create --replace` makes another.",
        ),
        error => error,
    })?;
    let status = control.recovery_status()?.ok_or_else(|| Error::bug("the recovery key was just made"))?;
    let secrets = match shares {
        None => vec![SecretText(key.expose())],
        Some((threshold, count)) => {
            let shares = key.split(threshold, count).ok_or_else(|| Error::bug("the numbers were checked"))?;
            shares.iter().map(|share| SecretText(share.expose())).collect()
        }
    };
    Ok(EncryptionAnswer::Recovery { secrets, status })
}

fn tenant_keys(database: &Database, tenant: String) -> Result<EncryptionAnswer> {
    let id = tenant_named(database, &tenant)?.id;
    let control = database.control();
    Ok(EncryptionAnswer::TenantKeys(TenantKeys {
        keys: control.tenant_key_status(id)?,
        provider: control.tenant_provider(id)?,
        tenant,
    }))
}

fn wrong(why: String) -> Error {
    Error::new(SqlState::InvalidParameterValue, why)
}

impl From<RotationProgress> for Rotation {
    fn from(progress: RotationProgress) -> Self {
        Self {
            kept_in: progress.kept_in,
            generation: progress.status.generation,
            keys: progress.status.keys,
            under_old: progress.status.under_old,
            running: progress.running || progress.status.rotating,
            failed: progress.failed,
        }
    }
}

impl From<AuditEntry> for AuditLine {
    fn from(entry: AuditEntry) -> Self {
        Self { number: entry.number, hash: entry.hash, event: entry.text }
    }
}
