//! What leaves the directory with a backup, and how it comes back.
//!
//! The copy of control.db has no tenant's key in it: those are one sealed object per tenant, so that dropping a tenant
//! can reach them (docs/decisions/0007-keys.md).
//!
//! ```text
//! object  := "SEPLTKEY" 8 | sealed JSON, under the instance key `backup`: epochs with their keys in hexadecimal
//! ```
//! The instance key does not change when the root does, so older objects open beside newer copies of control.db. A key
//! that the tenant's own provider wrapped stays wrapped by it.

use std::{collections::HashMap, path::Path, sync::Arc};

use rusqlite::{Connection, TransactionBehavior, params};
use sepal_crypto::{Aad, Key, hex, sha256, unhex};
use sepal_types::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    AuditAction, Control, ControlError, Provider,
    audit::{NewAuditEvent, append},
    control::{journal_of, remove_if_there},
    control_error::Result,
    schema,
    secrets::reseal,
    tenants::require_tenant,
    vault,
};

use super::{
    key_file,
    tenant_keys::{self, KEY_WHAT, KeyBody, unwrap_rows},
};

const MAGIC: &[u8; 8] = b"SEPLTKEY";

/// Parents before those that refer to them.
const COPIED: [&str; 11] = [
    "meta",
    "tenants",
    "environments",
    "api_keys",
    "secrets",
    "secret_versions",
    "certificates",
    "secret_grants",
    "secret_uses",
    "audit",
    "audit_checkpoints",
];

#[derive(Serialize, Deserialize)]
struct Epoch {
    epoch: u64,
    own: bool,
    created_at: i64,
    check: String,
    /// Hexadecimal.
    secret: String,
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// As long as one lives, [`Control::retire_tenant_keys`] destroys none.
#[derive(Debug)]
pub struct HeldKeys {
    _counted: Arc<()>,
}

impl Control {
    /// Keeps every tenant's older keys from being destroyed. What a backup copies is sealed under the keys of one
    /// moment after the other; with this from before the first of them on, the keys of the last one open all of it.
    pub fn hold_tenant_keys(&self) -> HeldKeys {
        // Not while they are being destroyed.
        let _database = self.database.lock();
        HeldKeys { _counted: Arc::clone(&self.held_keys) }
    }

    /// Whether somebody does. Control is locked.
    pub(super) fn holds_tenant_keys(&self) -> bool {
        Arc::strong_count(&self.held_keys) > 1
    }

    /// Writes a copy of control.db to `to`, which must not exist: one moment of it, without tenants' keys. Durable on
    /// return. It opens with the root key of that moment; tenants open when their keys are back. Gives the providers
    /// that tenants had brought by then: keys that only another one opens are of no use beside the copy.
    pub fn backup_copy(&self, to: &Path) -> Result<HashMap<TenantId, Provider>> {
        key_file::write_private(to, &[])?;
        let mut copy = schema::connect(to)?;
        schema::settle(&copy)?;
        schema::create_tables(&mut copy)?;
        copy.close().map_err(|(_, error)| error)?;
        let io = |source| ControlError::Io { path: journal_of(to), source };
        remove_if_there(&journal_of(to)).map_err(io)?;
        let path = to.to_str().ok_or_else(|| {
            ControlError::InvalidArgument(format!("\"{}\" is no path in UTF-8", to.display()))
        })?;
        let database = self.database.lock();
        let providers = self.own_providers(&database)?;
        database.execute("ATTACH DATABASE ?1 AS copy", params![path])?;
        let copied = copy_tables(&database);
        database.execute_batch("DETACH DATABASE copy")?;
        copied?;
        remove_if_there(&journal_of(to)).map_err(io)?;
        key_file::sync_parent(to)?;
        Ok(providers)
    }

    /// A tenant's keys, sealed for a backup. They open only beside a control.db of this directory.
    ///
    /// Errors: 42704 no such tenant.
    pub fn sealed_tenant_keys(&self, tenant: TenantId) -> Result<Vec<u8>> {
        let rows = unwrap_rows(&self.database.lock(), &self.vault, tenant)?;
        let epochs: Vec<Epoch> = rows
            .into_iter()
            .map(|row| Epoch {
                epoch: row.epoch,
                own: row.own,
                created_at: row.body.created_at,
                check: row.body.check.clone(),
                secret: hex(&row.secret),
            })
            .collect();
        let sealed = vault::seal_json(&self.vault.instance.backup, aad(tenant), &epochs);
        Ok([MAGIC.as_slice(), &sealed].concat())
    }

    /// Tells what [`Self::sealed_tenant_keys`] gives from what it gave before, without telling the keys: sealing the
    /// same ones twice gives different bytes. The same keys under another provider of the tenant's are another set:
    /// that provider cannot open the one before. Asks no provider.
    ///
    /// Errors: 42704 no such tenant.
    pub fn tenant_keys_tag(&self, tenant: TenantId) -> Result<String> {
        let rows = unwrap_rows(&self.database.lock(), &self.vault, tenant)?;
        let told = rows.iter().map(|row| {
            let KeyBody { created_at, check } = &row.body;
            let key = format!("{} {check} {} {created_at}", row.epoch, row.own);
            // What the provider made of it: only its ciphertext tells which one it was.
            if row.own { format!("{key} {}", hex(&sha256(&row.secret))) } else { key }
        });
        Ok(hex(&sha256(told.collect::<Vec<_>>().join("\n").as_bytes())[..8]))
    }

    /// The keys in what [`Self::sealed_tenant_keys`] gave, to read what was sealed under them while they were in force.
    /// Nothing is put back. Those that the tenant's own provider wrapped are not among them.
    ///
    /// Errors: XX001 they are another tenant's or directory's, or damaged.
    pub fn backed_up_keys(&self, tenant: TenantId, sealed: &[u8]) -> Result<Vec<Key>> {
        let epochs = self.open_epochs(tenant, sealed)?;
        let plain = epochs.iter().filter(|epoch| !epoch.own);
        plain
            .map(|epoch| {
                let secret = unhex(epoch.secret.as_bytes());
                let secret = secret.ok_or_else(|| damaged("a key is not hexadecimal"))?;
                let bytes: [u8; 32] =
                    secret.as_slice().try_into().map_err(|_| damaged("a key has not 32 bytes"))?;
                Ok(Key::from_bytes(*Zeroizing::new(bytes)))
            })
            .collect()
    }

    /// Puts keys back that [`Self::sealed_tenant_keys`] gave, into a control.db that [`Self::backup_copy`] wrote.
    ///
    /// Errors: 42704 no such tenant; 42710 it has keys; XX001 they are another tenant's or directory's, or damaged.
    pub fn restore_tenant_keys(&self, tenant: TenantId, sealed: &[u8]) -> Result<()> {
        let epochs = self.open_epochs(tenant, sealed)?;
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        require_tenant(&transaction, tenant)?;
        if transaction
            .prepare_cached("SELECT 1 FROM tenant_keys WHERE tenant = ?1")?
            .exists(params![tenant.as_bytes()])?
        {
            return Err(ControlError::AlreadyExists { what: "keys of tenant", name: tenant.to_string() });
        }
        let epochs: Vec<&Epoch> = epochs.iter().collect();
        self.put_back(&transaction, tenant, &epochs)?;
        transaction.commit()?;
        if epochs.iter().any(|epoch| epoch.own) {
            self.vault.own.add(tenant);
        }
        Ok(())
    }

    /// Puts keys back besides those that are there: of epochs that began after the copy of control.db, for files that
    /// were written since. [`Self::settle_restored_keys`] comes after.
    ///
    /// Errors: as of [`Self::restore_tenant_keys`]; 55000 none are there.
    pub fn restore_later_tenant_keys(&self, tenant: TenantId, sealed: &[u8]) -> Result<()> {
        let epochs = self.open_epochs(tenant, sealed)?;
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known = unwrap_rows(&transaction, &self.vault, tenant)?;
        let is_new = |epoch: &&Epoch| known.iter().all(|row| row.epoch != epoch.epoch);
        let missing: Vec<&Epoch> = epochs.iter().filter(is_new).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.put_back(&transaction, tenant, &missing)?;
        transaction.commit()?;
        if missing.iter().any(|epoch| epoch.own) {
            self.vault.own.add(tenant);
        }
        Ok(())
    }

    /// Seals what control.db holds of a tenant under its newest key, from whichever of the others it is under: a copy
    /// of control.db may be older than the keys that were put back.
    ///
    /// Errors: as of [`Self::tenant_keys`]; XX001 none of the keys opens it.
    pub fn settle_restored_keys(&self, tenant: TenantId) -> Result<()> {
        let ring = self.tenant_keys(tenant)?;
        let mut refused = None;
        for key in ring.keys() {
            let mut database = self.database.lock();
            let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            match reseal::tenant(&transaction, &self.vault, tenant, key, ring.current()) {
                Ok(()) => return Ok(transaction.commit()?),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Takes a tenant out of a copy that others of its tenants are restored to: its keys, API keys and environments. It
    /// was not dropped, and the audit trail does not say so. Durable on return.
    ///
    /// Errors: 42704 no such tenant.
    pub fn leave_out_tenant(&self, tenant: TenantId) -> Result<()> {
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        require_tenant(&transaction, tenant)?;
        transaction.execute("DELETE FROM tenants WHERE id = ?1", params![tenant.as_bytes()])?;
        let event = NewAuditEvent::new(AuditAction::TenantLeftOut, "tenant").of(tenant);
        append(&transaction, &self.vault, self.now(), event)?;
        transaction.commit()?;
        self.vault.forget_tenant(tenant);
        self.revoke_trust();
        Ok(())
    }

    fn open_epochs(&self, tenant: TenantId, sealed: &[u8]) -> Result<Vec<Epoch>> {
        let body = sealed
            .strip_prefix(MAGIC.as_slice())
            .ok_or_else(|| damaged("it does not begin with SEPLTKEY"))?;
        vault::open_json(&self.vault.instance.backup, KEY_WHAT, aad(tenant), body)
    }

    /// The caller's transaction.
    fn put_back(&self, database: &Connection, tenant: TenantId, epochs: &[&Epoch]) -> Result<()> {
        for epoch in epochs {
            let secret = unhex(epoch.secret.as_bytes()).ok_or_else(|| damaged("a key is not hexadecimal"))?;
            let body = KeyBody { created_at: epoch.created_at, check: epoch.check.clone() };
            let which = (epoch.epoch, epoch.own);
            tenant_keys::insert_row(database, &self.vault, tenant, which, &secret, &body)?;
        }
        let event = NewAuditEvent::new(AuditAction::TenantKeysRestored, "tenant key")
            .of(tenant)
            .with(json!({ "epochs": epochs.len() }));
        append(database, &self.vault, self.now(), event).map(drop)
    }
}

fn damaged(why: &str) -> ControlError {
    ControlError::Corrupt { what: KEY_WHAT, why: why.into() }
}

/// In one transaction, so that the copy is of one moment.
fn copy_tables(database: &Connection) -> Result<()> {
    let inserts = COPIED.map(|table| format!("INSERT INTO copy.{table} SELECT * FROM main.{table};"));
    let copied = database.execute_batch(&format!("BEGIN; {} COMMIT;", inserts.concat()));
    if copied.is_err() && !database.is_autocommit() {
        database.execute_batch("ROLLBACK")?;
    }
    Ok(copied?)
}

fn aad(tenant: TenantId) -> Aad {
    Aad::new("backup-tenant-keys 1").tenant(tenant)
}
