//! Tenants' keys: one row for each epoch, the newest seals, older ones open what was sealed before.
//!
//! ```text
//! tenant       16
//! epoch        from 1
//! generation   of the root key that wraps it
//! own          1: what is wrapped here was wrapped by the tenant's own provider before
//! wrapped_key  88; longer where `own` is 1
//! body         sealed JSON: when it was made, the key's check value
//! ```
//! A new epoch is made here, and all that control.db holds of the tenant is sealed under it in the same transaction.
//! Files follow in storage; when none is left under an older epoch, [`Control::retire_tenant_keys`] destroys that.

use rusqlite::{Connection, TransactionBehavior, params};
use sepal_crypto::{Aad, Key, KeyRing, hex};
use sepal_types::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    AuditAction, Control, ControlError, Provider,
    audit::{NewAuditEvent, append},
    control_error::Result,
    integer::{from_column, to_column},
    secrets::reseal,
    tenants::{read_body, require_tenant},
    vault::Vault,
};

use super::root::key_from;

pub(crate) const KEY_WHAT: &str = "a tenant's key";

/// What may be told about one epoch of a tenant's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantKeyStatus {
    /// From 1.
    pub epoch: u64,
    /// Unix seconds.
    pub created_at: i64,
    /// Tells this key from others without revealing it, lower-case hexadecimal.
    pub check: String,
    /// New things are sealed under it.
    pub current: bool,
    /// The tenant's own provider is needed to open it.
    pub own: bool,
}

/// The sealed part of a row. Fields are only ever added, with a default.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyBody {
    pub(crate) created_at: i64,
    pub(crate) check: String,
}

/// A row with its outer wrapping taken off.
pub(super) struct Unwrapped {
    pub(super) epoch: u64,
    pub(super) own: bool,
    /// The key; or, where `own`, what the tenant's provider made of it.
    pub(super) secret: Zeroizing<Vec<u8>>,
    pub(super) body: KeyBody,
}

impl Control {
    /// The keys under which a tenant's files are sealed. Asks the tenant's own provider, if it has one, which may block
    /// on the network.
    ///
    /// Errors: 42704 no such tenant; 55000 its keys are not here (a restored control.db); 57P03 and 58000 its own
    /// provider does not answer, or refuses.
    pub fn tenant_keys(&self, tenant: TenantId) -> Result<KeyRing> {
        let read = self.read_keys(tenant)?;
        let (newest, ring) = (read.newest(), read.ring()?);
        if read.provider.is_some() {
            let database = self.database.lock();
            // A rotation may have been faster than the provider: what it made current must stay so.
            if newest_epoch(&database, tenant)? == newest {
                self.vault.own.hold(tenant, ring.clone());
            }
        }
        Ok(ring)
    }

    /// Which epoch new things are sealed under, from 1.
    pub fn tenant_key_epoch(&self, tenant: TenantId) -> Result<u64> {
        let database = self.database.lock();
        require_tenant(&database, tenant)?;
        newest_epoch(&database, tenant)
    }

    /// All epochs that can still open something, the newest first. Asks no provider.
    pub fn tenant_key_status(&self, tenant: TenantId) -> Result<Vec<TenantKeyStatus>> {
        let rows = unwrap_rows(&self.database.lock(), &self.vault, tenant)?;
        Ok(rows.into_iter().enumerate().map(|(position, row)| row.into_status(position == 0)).collect())
    }

    /// Makes a new epoch, seals what control.db holds of the tenant under it, and gives its number. The older ones stay
    /// until [`Self::retire_tenant_keys`]. Durable on return.
    pub fn rotate_tenant_key(&self, tenant: TenantId) -> Result<u64> {
        let old = self.read_keys(tenant)?;
        let (key, epoch, provider) = (Key::random(), old.newest() + 1, &old.provider);
        // Before the transaction: a provider may take its time.
        let secret = match provider {
            Some(provider) => Zeroizing::new(
                self.own_wrapper(tenant, provider)?
                    .wrap(&own_context(tenant, epoch), key.expose())
                    .map_err(|why| ControlError::own_key(tenant, why))?,
            ),
            None => Zeroizing::new(key.expose().to_vec()),
        };
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        old.check_present(&transaction, &self.vault, tenant)?;
        let now = self.clock.unix_seconds();
        let new = NewKey { epoch, own: provider.is_some(), secret: &secret, key: &key, now };
        begin_epoch(&transaction, &self.vault, tenant, old.current()?, &new)?;
        transaction.commit()?;
        // Control is locked still: whoever changes the keys next holds them next.
        if provider.is_some() {
            self.vault.own.hold(tenant, KeyRing::new(key, old.keys));
        }
        Ok(epoch)
    }

    /// Destroys the epochs before `epoch`, and gives how many there were. The caller knows that nothing is sealed under
    /// them any more.
    ///
    /// Errors: 22023 `epoch` is beyond the newest: nothing could be opened; 55006 somebody needs the older ones
    /// ([`Self::hold_tenant_keys`]).
    pub fn retire_tenant_keys(&self, tenant: TenantId, epoch: u64) -> Result<usize> {
        let mut database = self.database.lock();
        if self.holds_tenant_keys() {
            let why =
                "a backup that is being made may need the tenant's older keys: try again when it is done";
            return Err(ControlError::Busy(why.into()));
        }
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        require_tenant(&transaction, tenant)?;
        let newest = newest_epoch(&transaction, tenant)?;
        if epoch > newest {
            return Err(ControlError::InvalidArgument(format!(
                "the newest key of tenant {tenant} is number {newest}: keys before {epoch} include it"
            )));
        }
        let retired = transaction.execute(
            "DELETE FROM tenant_keys WHERE tenant = ?1 AND epoch < ?2",
            params![tenant.as_bytes(), to_column(epoch)],
        )?;
        if retired > 0 {
            let event = NewAuditEvent::new(AuditAction::TenantKeysRetired, "tenant key")
                .of(tenant)
                .with(json!({ "before": epoch, "keys": retired }));
            append(&transaction, &self.vault, self.now(), event)?;
        }
        transaction.commit()?;
        if retired > 0 {
            self.clear_journal(&mut database);
        }
        // Control is locked still. What the tenant's own provider gave stays as long as the tenant is open, but for
        // what is destroyed; which keys those are shows where one alone is left.
        if epoch == newest {
            self.vault.own.forget_older(tenant);
        } else {
            self.vault.own.forget(tenant);
        }
        Ok(retired)
    }

    /// Keeps no key of a tenant's own provider any more: the next use asks it. The database calls it when it closes
    /// the tenant.
    pub fn forget_tenant_keys(&self, tenant: TenantId) {
        self.vault.own.forget(tenant);
    }

    /// A tenant's rows and the keys in them, of one moment. Asks the tenant's own provider, while nothing is locked.
    pub(super) fn read_keys(&self, tenant: TenantId) -> Result<ReadKeys> {
        let (rows, provider) = {
            let database = self.database.lock();
            (unwrap_rows(&database, &self.vault, tenant)?, self.own_provider(&database, tenant)?)
        };
        let wrapper = match &provider {
            Some(provider) if rows.iter().any(|row| row.own) => Some(self.own_wrapper(tenant, provider)?),
            _ => None,
        };
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            keys.push(match (&wrapper, row.own) {
                (_, false) => key_from(KEY_WHAT, &row.secret)?,
                (Some(wrapper), true) => {
                    let plain = wrapper.unwrap(&own_context(tenant, row.epoch), &row.secret);
                    key_from(KEY_WHAT, &plain.map_err(|why| ControlError::own_key(tenant, why))?)?
                }
                (None, true) => {
                    let why = "the tenant's own provider is not recorded".into();
                    return Err(ControlError::Corrupt { what: KEY_WHAT, why });
                }
            });
        }
        Ok(ReadKeys { rows, keys, provider })
    }

    /// Before secrets of a tenant are touched: asks its own provider, if it has one, while nothing is locked.
    pub(crate) fn hold_keys(&self, tenant: TenantId) -> Result<()> {
        if self.vault.own.must_ask(tenant) { self.tenant_keys(tenant).map(drop) } else { Ok(()) }
    }
}

/// A tenant's keys as one look at control.db found them.
pub(super) struct ReadKeys {
    /// The newest first; at least one.
    pub(super) rows: Vec<Unwrapped>,
    /// Those in `rows`, in the same order.
    pub(super) keys: Vec<Key>,
    pub(super) provider: Option<Provider>,
}

impl ReadKeys {
    pub(super) fn newest(&self) -> u64 {
        self.rows.first().map_or(0, |row| row.epoch)
    }

    pub(super) fn current(&self) -> Result<&Key> {
        self.keys.first().ok_or_else(|| ControlError::Corrupt { what: KEY_WHAT, why: "there is none".into() })
    }

    pub(super) fn ring(&self) -> Result<KeyRing> {
        Ok(KeyRing::new(self.current()?.clone(), self.keys[1..].to_vec()))
    }

    /// Refuses to change keys that somebody else has changed since: the caller's transaction sees other rows, or
    /// another provider.
    pub(super) fn check_present(
        &self,
        transaction: &Connection,
        vault: &Vault,
        tenant: TenantId,
    ) -> Result<()> {
        let present = unwrap_rows(transaction, vault, tenant)?;
        let same = |(one, other): (&Unwrapped, &Unwrapped)| {
            one.epoch == other.epoch
                && one.own == other.own
                && one.secret.as_slice() == other.secret.as_slice()
        };
        let unchanged = present.len() == self.rows.len()
            && present.iter().zip(&self.rows).all(same)
            && read_body(transaction, vault, tenant)?.1.own_provider == self.provider;
        if unchanged {
            return Ok(());
        }
        Err(ControlError::Busy("the tenant's key was changed by somebody else: try again".into()))
    }
}

impl Unwrapped {
    pub(super) fn into_status(self, current: bool) -> TenantKeyStatus {
        let KeyBody { created_at, check } = self.body;
        TenantKeyStatus { epoch: self.epoch, created_at, check, current, own: self.own }
    }
}

/// A key that gets a row.
pub(crate) struct NewKey<'a> {
    pub(crate) epoch: u64,
    pub(crate) own: bool,
    /// As [`Unwrapped::secret`].
    pub(crate) secret: &'a [u8],
    pub(crate) key: &'a Key,
    pub(crate) now: i64,
}

pub(crate) fn insert(database: &Connection, vault: &Vault, tenant: TenantId, new: &NewKey<'_>) -> Result<()> {
    let body = KeyBody { created_at: new.now, check: hex(&new.key.check_value()) };
    insert_row(database, vault, tenant, (new.epoch, new.own), new.secret, &body)
}

/// The caller's transaction: `new` becomes the key that all of a tenant's is sealed under.
pub(super) fn begin_epoch(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
    old: &Key,
    new: &NewKey<'_>,
) -> Result<()> {
    insert(database, vault, tenant, new)?;
    reseal::tenant(database, vault, tenant, old, new.key)?;
    let event = NewAuditEvent::new(AuditAction::TenantKeyRotated, "tenant key")
        .of(tenant)
        .with(json!({ "epoch": new.epoch }));
    append(database, vault, new.now, event).map(drop)
}

/// `which`: epoch and `own`.
pub(super) fn insert_row(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
    which: (u64, bool),
    secret: &[u8],
    body: &KeyBody,
) -> Result<()> {
    let (epoch, own) = which;
    let roots = vault.roots.read();
    roots.check_present(database)?;
    let wrapped = roots.wrap(aad(tenant, epoch, roots.generation, own), secret);
    database.execute(
        "INSERT INTO tenant_keys (tenant, epoch, generation, own, wrapped_key, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            tenant.as_bytes(),
            to_column(epoch),
            to_column(roots.generation),
            own,
            wrapped,
            vault.seal_json(body_aad(tenant, epoch), body),
        ],
    )?;
    Ok(())
}

/// The newest first; at least one.
pub(super) fn unwrap_rows(database: &Connection, vault: &Vault, tenant: TenantId) -> Result<Vec<Unwrapped>> {
    require_tenant(database, tenant)?;
    let roots = vault.roots.read();
    let mut statement = database.prepare_cached(
        "SELECT epoch, generation, own, wrapped_key, body FROM tenant_keys WHERE tenant = ?1 \
         ORDER BY epoch DESC",
    )?;
    let rows = statement.query_and_then(params![tenant.as_bytes()], |row| -> Result<Unwrapped> {
        let (epoch, generation): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (epoch, generation) = (from_column(KEY_WHAT, epoch)?, from_column(KEY_WHAT, generation)?);
        let (own, wrapped, sealed): (bool, Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let secret = roots.unwrap(KEY_WHAT, generation, aad(tenant, epoch, generation, own), &wrapped)?;
        let body = vault.open_json("what is known of a tenant's key", body_aad(tenant, epoch), &sealed)?;
        Ok(Unwrapped { epoch, own, secret, body })
    })?;
    let rows = rows.collect::<Result<Vec<_>>>()?;
    if rows.is_empty() { Err(ControlError::NoTenantKeys(tenant)) } else { Ok(rows) }
}

/// The key that control.db's values of a tenant are sealed under.
pub(crate) fn current_key(database: &Connection, vault: &Vault, tenant: TenantId) -> Result<Key> {
    if let Some(key) = vault.own.held(tenant) {
        return Ok(key);
    }
    let newest = unwrap_rows(database, vault, tenant)?.swap_remove(0);
    if newest.own {
        return Err(ControlError::own_key_not_asked(tenant));
    }
    key_from(KEY_WHAT, &newest.secret)
}

fn newest_epoch(database: &Connection, tenant: TenantId) -> Result<u64> {
    let mut statement =
        database.prepare_cached("SELECT min(epoch), max(epoch) FROM tenant_keys WHERE tenant = ?1")?;
    let ends: (Option<i64>, Option<i64>) =
        statement.query_row(params![tenant.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(oldest), Some(newest)) = ends else { return Err(ControlError::NoTenantKeys(tenant)) };
    from_column(KEY_WHAT, oldest).and_then(|_| from_column(KEY_WHAT, newest))
}

/// What a wrapped key is bound to.
pub(crate) fn aad(tenant: TenantId, epoch: u64, generation: u64, own: bool) -> Aad {
    Aad::new("tenant-key 2").tenant(tenant).u64(epoch).u64(generation).flag(own)
}

/// What a tenant's own provider binds its wrapping to, if it can.
pub(super) fn own_context(tenant: TenantId, epoch: u64) -> Vec<u8> {
    Aad::new("tenant-key own 1").tenant(tenant).u64(epoch).finish()
}

fn body_aad(tenant: TenantId, epoch: u64) -> Aad {
    Aad::new("tenant-key-body 1").tenant(tenant).u64(epoch)
}

/// Epochs with their keys' check values, the newest first, for a certificate. None at all is no error here.
pub(crate) fn check_values(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
) -> Result<Vec<(u64, String)>> {
    let mut statement = database
        .prepare_cached("SELECT epoch, body FROM tenant_keys WHERE tenant = ?1 ORDER BY epoch DESC")?;
    let rows = statement.query_and_then(params![tenant.as_bytes()], |row| -> Result<(u64, String)> {
        let (epoch, sealed): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let epoch = from_column(KEY_WHAT, epoch)?;
        let body: KeyBody =
            vault.open_json("what is known of a tenant's key", body_aad(tenant, epoch), &sealed)?;
        Ok((epoch, body.check))
    })?;
    rows.collect()
}
