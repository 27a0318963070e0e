//! Replacing the root key while the server runs.
//!
//! 1. [`Control::begin_root_rotation`], one transaction: instance keys, recovery key and package under the new root,
//!    and what the old one wrapped with as well. From its commit on the new root opens control.db, the old one does
//!    not.
//! 2. [`Control::resume_root_rotation`], a transaction per batch: tenants' keys. Whoever dies in between goes on here.
//! 3. When none is left under the old root, what it wrapped with is deleted.
//!
//! [`super::RootStore::rotate`] has the file's part.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use sepal_crypto::{Key, constant_time_eq};
use sepal_types::TenantId;
use serde_json::json;

use crate::{
    AuditAction, Control, ControlError,
    audit::{NewAuditEvent, append},
    control_error::Result,
    integer::{from_column, to_column},
};

use super::{
    RootKeys, recovery,
    tenant_keys::{self, KEY_WHAT},
};

/// How many keys one transaction wraps anew.
pub(super) const BATCH: usize = 500;

/// How far the replacement of the root key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootStatus {
    /// Which root key of this directory it is, from 1.
    pub generation: u64,
    /// Tenants' keys.
    pub keys: u64,
    /// Of these, the ones that are still wrapped under the root key before.
    pub under_old: u64,
    /// The key before is still needed.
    pub rotating: bool,
}

impl Control {
    /// Both steps. `progress` hears after each batch.
    ///
    /// Errors: 55006 a rotation is under way; 22023 it is the same key.
    pub fn rotate_root(&self, new: &Key, progress: &mut dyn FnMut(RootStatus)) -> Result<RootStatus> {
        self.begin_root_rotation(new)?;
        self.resume_root_rotation(progress)
    }

    /// Makes `new` the root key. Durable on return; `new` must be so already, or nothing opens any more.
    pub fn begin_root_rotation(&self, new: &Key) -> Result<()> {
        let mut database = self.database.lock();
        let mut roots = self.vault.roots.write();
        if roots.previous.is_some() {
            return Err(ControlError::Busy(
                "the root key is being replaced already: wait for the end (`sepal root status`)".into(),
            ));
        }
        if constant_time_eq(&new.check_value(), &roots.key.check_value()) {
            return Err(ControlError::InvalidArgument("the new root key is the present one".into()));
        }
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        roots.check_present(&transaction)?;
        let next = roots.succeeded_by(new);
        next.store(&transaction)?;
        self.vault.instance.store(&transaction, &next)?;
        recovery::carry_over(&transaction, &roots, &next)?;
        let event = NewAuditEvent::new(AuditAction::RootRotationBegun, "root key")
            .with(json!({ "generation": next.generation }));
        append(&transaction, &self.vault, self.now(), event)?;
        transaction.commit()?;
        *roots = next;
        Ok(())
    }

    /// Goes on where a rotation stopped; does nothing where none is under way.
    pub fn resume_root_rotation(&self, progress: &mut dyn FnMut(RootStatus)) -> Result<RootStatus> {
        loop {
            let (status, done) = self.rotate_batch()?;
            progress(status);
            if done {
                return Ok(status);
            }
        }
    }

    /// Reads only.
    pub fn root_status(&self) -> Result<RootStatus> {
        let database = self.database.lock();
        status(&database, &self.vault.roots.read())
    }

    fn rotate_batch(&self) -> Result<(RootStatus, bool)> {
        let mut database = self.database.lock();
        let mut roots = self.vault.roots.write();
        if roots.previous.is_none() {
            return Ok((status(&database, &roots)?, true));
        }
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        roots.check_present(&transaction)?;
        let wrapped = wrap_anew(&transaction, &roots)?;
        let mut now = status(&transaction, &roots)?;
        if wrapped == 0 {
            let event = NewAuditEvent::new(AuditAction::RootRotated, "root key")
                .with(json!({ "generation": now.generation, "keys": now.keys, "under_old": now.under_old }));
            append(&transaction, &self.vault, self.now(), event)?;
            let settled = RootKeys::new(roots.generation, &roots.key);
            settled.store(&transaction)?;
            transaction.commit()?;
            self.clear_journal(&mut database);
            *roots = settled;
            now.rotating = false;
            return Ok((now, true));
        }
        transaction.commit()?;
        Ok((now, false))
    }
}

/// One batch; gives how many keys it had.
fn wrap_anew(transaction: &Transaction<'_>, roots: &RootKeys) -> Result<usize> {
    let mut select = transaction.prepare_cached(
        "SELECT tenant, epoch, generation, own, wrapped_key FROM tenant_keys WHERE generation < ?1 LIMIT ?2",
    )?;
    let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
    let rows = select.query_map(params![to_column(roots.generation), limit], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<([u8; 16], i64, i64, bool, Vec<u8>)>>>()?;
    let mut update = transaction.prepare_cached(
        "UPDATE tenant_keys SET wrapped_key = ?1, generation = ?2 WHERE tenant = ?3 AND epoch = ?4",
    )?;
    for (id, epoch, generation, own, wrapped) in &rows {
        let (tenant, number) = (TenantId(*id), from_column(KEY_WHAT, *epoch)?);
        let generation = from_column(KEY_WHAT, *generation)?;
        let old = tenant_keys::aad(tenant, number, generation, *own);
        let new = tenant_keys::aad(tenant, number, roots.generation, *own);
        let secret = roots.unwrap(KEY_WHAT, generation, old, wrapped)?;
        update.execute(params![roots.wrap(new, &secret), to_column(roots.generation), id, epoch])?;
    }
    Ok(rows.len())
}

fn status(database: &Connection, roots: &RootKeys) -> Result<RootStatus> {
    let mut statement = database
        .prepare_cached("SELECT count(*), count(*) FILTER (WHERE generation < ?1) FROM tenant_keys")?;
    let (keys, under_old): (i64, i64) =
        statement.query_row(params![to_column(roots.generation)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(RootStatus {
        generation: roots.generation,
        keys: keys.unsigned_abs(),
        under_old: under_old.unsigned_abs(),
        rotating: roots.previous.is_some(),
    })
}
