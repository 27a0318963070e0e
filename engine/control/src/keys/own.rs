//! Tenants that bring a provider of their own (BYOK): their keys are wrapped by it first, then under the root, and
//! both are needed. For the keys from before that is only true here, not of their copies in backups: so a provider
//! comes with a new key, and what was sealed before is put under it.
//!
//! The provider is asked when the tenant is opened, and when its key is rotated; what it gave is held while the tenant
//! is open. One that does not answer, or refuses, closes this tenant and no other. Taking the right away takes effect
//! at the next opening.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior, params};
use sepal_crypto::{Key, KeyRing, constant_time_eq, hex};
use sepal_types::TenantId;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    AuditAction, Control, ControlError,
    audit::{NewAuditEvent, append},
    control_error::Result,
    tenants::{change_body, read_body},
    vault::Vault,
};

use super::{
    KeyWrapper, Provider, WrapperError,
    tenant_keys::{self, KEY_WHAT, NewKey, Unwrapped, own_context},
};

/// Which tenants have a provider, and the keys it gave for those that are in use.
#[derive(Default)]
pub(crate) struct OwnKeys(Mutex<Known>);

#[derive(Default)]
struct Known {
    tenants: HashSet<TenantId>,
    held: HashMap<TenantId, KeyRing>,
}

impl OwnKeys {
    /// Reads which tenants have one.
    pub(crate) fn load(database: &Connection) -> Result<Self> {
        let tenants = with_one(database)?;
        Ok(Self(Mutex::new(Known { tenants, held: HashMap::new() })))
    }

    pub(super) fn hold(&self, tenant: TenantId, keys: KeyRing) {
        let mut known = self.0.lock();
        known.tenants.insert(tenant);
        known.held.insert(tenant, keys);
    }

    /// A tenant whose keys came back with a backup.
    pub(super) fn add(&self, tenant: TenantId) {
        self.0.lock().tenants.insert(tenant);
    }

    pub(super) fn forget(&self, tenant: TenantId) {
        self.0.lock().held.remove(&tenant);
    }

    /// The keys before the present one are destroyed.
    pub(super) fn forget_older(&self, tenant: TenantId) {
        if let Some(keys) = self.0.lock().held.get_mut(&tenant) {
            *keys = keys.without_older();
        }
    }

    fn remove(&self, tenant: TenantId) {
        let mut known = self.0.lock();
        known.tenants.remove(&tenant);
        known.held.remove(&tenant);
    }

    pub(super) fn held(&self, tenant: TenantId) -> Option<Key> {
        self.0.lock().held.get(&tenant).map(|keys| keys.current().clone())
    }

    pub(crate) fn must_ask(&self, tenant: TenantId) -> bool {
        let known = self.0.lock();
        known.tenants.contains(&tenant) && !known.held.contains_key(&tenant)
    }
}

/// The tenants whose keys are under a provider of their own.
fn with_one(database: &Connection) -> Result<HashSet<TenantId>> {
    let mut statement = database.prepare("SELECT DISTINCT tenant FROM tenant_keys WHERE own")?;
    let rows = statement.query_map([], |row| Ok(TenantId(row.get(0)?)))?;
    Ok(rows.collect::<rusqlite::Result<HashSet<_>>>()?)
}

/// What a key of an epoch becomes before the root wraps it.
type Secret<'a> = &'a dyn Fn(u64, &Key) -> Result<Zeroizing<Vec<u8>>>;

impl Control {
    /// The provider that a tenant brought, if it has one.
    pub fn tenant_provider(&self, tenant: TenantId) -> Result<Option<Provider>> {
        self.own_provider(&self.database.lock(), tenant)
    }

    /// Puts the tenant's keys under a provider of its own, or under another one, and makes a new epoch: the keys so far
    /// stand in older backups and copies of control.db without this provider. They are retired as after
    /// [`Self::rotate_tenant_key`]. Both the present provider and the new one are asked; what the new one wrapped is
    /// unwrapped again before anything is written. Durable on return.
    ///
    /// Errors: 57P03 and 58000 a provider does not answer, or refuses; 22023 its description is wrong; 55006 somebody
    /// else changed the keys meanwhile.
    pub fn set_tenant_provider(&self, tenant: TenantId, provider: &Provider) -> Result<()> {
        let wrapper = self.own_wrapper(tenant, provider)?;
        let wrap = |epoch: u64, key: &Key| -> Result<Option<Vec<u8>>, WrapperError> {
            let context = own_context(tenant, epoch);
            let wrapped = wrapper.wrap(&context, key.expose())?;
            let again = wrapper.unwrap(&context, &wrapped)?;
            Ok((again.as_slice() == key.expose().as_slice()).then_some(wrapped))
        };
        let wrapped = |epoch, key: &Key| -> Result<Zeroizing<Vec<u8>>> {
            let wrapped = wrap(epoch, key).map_err(|why| ControlError::own_key(tenant, why))?;
            let wrapped = wrapped.ok_or_else(|| {
                ControlError::InvalidArgument(format!("{provider} gave back another key than it was given"))
            })?;
            Ok(Zeroizing::new(wrapped))
        };
        self.rewrite_keys(tenant, Some(provider), &wrapped)
    }

    /// Puts the tenant's keys under the root alone again. Asks the provider once more. Durable on return.
    ///
    /// Errors: 55000 it has none; 57P03 and 58000 it does not answer, or refuses.
    pub fn remove_tenant_provider(&self, tenant: TenantId) -> Result<()> {
        if self.tenant_provider(tenant)?.is_none() {
            return Err(ControlError::NotInState(format!("tenant {tenant} has no provider of its own")));
        }
        self.rewrite_keys(tenant, None, &|_, key| Ok(Zeroizing::new(key.expose().to_vec())))
    }

    pub(super) fn own_provider(&self, database: &Connection, tenant: TenantId) -> Result<Option<Provider>> {
        Ok(read_body(database, &self.vault, tenant)?.1.own_provider)
    }

    /// Those of all tenants that have one, as [`Self::tenant_provider`] gives them: a restored tenant may have one that
    /// none of its keys is under.
    pub(super) fn own_providers(&self, database: &Connection) -> Result<HashMap<TenantId, Provider>> {
        let mut statement = database.prepare_cached("SELECT id FROM tenants")?;
        let tenants = statement.query_map([], |row| row.get(0).map(TenantId))?;
        let mut providers = HashMap::new();
        for tenant in tenants {
            let tenant = tenant?;
            providers.extend(self.own_provider(database, tenant)?.map(|provider| (tenant, provider)));
        }
        Ok(providers)
    }

    pub(super) fn own_wrapper(&self, tenant: TenantId, provider: &Provider) -> Result<Arc<dyn KeyWrapper>> {
        self.wrappers.open(provider).map_err(|why| ControlError::own_key(tenant, why))
    }

    /// Writes all rows of a tenant's keys anew, with what `secret` makes of each. Under a provider, a new epoch begins.
    fn rewrite_keys(&self, tenant: TenantId, provider: Option<&Provider>, secret: Secret<'_>) -> Result<()> {
        // Rows and keys of one moment: a key that went into another key's row would be lost with it.
        let read = self.read_keys(tenant)?;
        let mut secrets = Vec::with_capacity(read.rows.len());
        for (row, key) in read.rows.iter().zip(&read.keys) {
            check_value(row, key)?;
            secrets.push(secret(row.epoch, key)?);
        }
        let (now, epoch) = (self.now(), read.newest() + 1);
        let next = match provider {
            Some(_) => {
                let key = Key::random();
                Some((secret(epoch, &key)?, key))
            }
            None => None,
        };
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        read.check_present(&transaction, &self.vault, tenant)?;
        transaction.execute("DELETE FROM tenant_keys WHERE tenant = ?1", params![tenant.as_bytes()])?;
        for (row, secret) in read.rows.iter().zip(&secrets) {
            let which = (row.epoch, provider.is_some());
            tenant_keys::insert_row(&transaction, &self.vault, tenant, which, secret, &row.body)?;
        }
        change_body(&transaction, &self.vault, tenant, |body| body.own_provider = provider.cloned())?;
        let action =
            if provider.is_some() { AuditAction::OwnProviderSet } else { AuditAction::OwnProviderRemoved };
        let event = NewAuditEvent::new(action, "tenant key")
            .of(tenant)
            .with(json!({ "provider": provider.map(ToString::to_string) }));
        append(&transaction, &self.vault, now, event)?;
        if let Some((secret, key)) = &next {
            let new = NewKey { epoch, own: true, secret, key, now };
            tenant_keys::begin_epoch(&transaction, &self.vault, tenant, read.current()?, &new)?;
        }
        transaction.commit()?;
        self.clear_journal(&mut database);
        // Control is locked still: whoever changes the keys next holds them next.
        match next {
            Some((_, key)) => self.vault.own.hold(tenant, KeyRing::new(key, read.keys)),
            None => self.vault.own.remove(tenant),
        }
        Ok(())
    }
}

/// Refuses to write a row anew with a key that is not its own: its provider gave back another one.
fn check_value(row: &Unwrapped, key: &Key) -> Result<()> {
    if constant_time_eq(hex(&key.check_value()).as_bytes(), row.body.check.as_bytes()) {
        return Ok(());
    }
    let why = format!("what is in the row of epoch {} is another key", row.epoch);
    Err(ControlError::Corrupt { what: KEY_WHAT, why })
}

impl Vault {
    /// What a dropped tenant leaves in memory.
    pub(crate) fn forget_tenant(&self, tenant: TenantId) {
        self.own.remove(tenant);
    }
}
