//! One environment's safe: what finds a row of it, and what its values are sealed with and bound to.
//!
//! Every operation opens it inside its transaction, so the environment exists and the keys are the tenant's. The keys
//! are derived anew each time: secrets are read when something opens, not per row.

use rusqlite::{Connection, Transaction, TransactionBehavior};
use sepal_crypto::{Aad, Key};
use sepal_types::TenantId;

use crate::{
    Control, ControlError, Scope, control_error::Result, keys::tenant_keys::current_key,
    tenants::environment_exists, vault::Vault,
};

use super::env_names::normalised;

/// An environment that exists, with the keys of its tenant's secrets.
pub(crate) struct Safe<'a> {
    vault: &'a Vault,
    pub(crate) tenant: TenantId,
    pub(crate) environment: &'a str,
    /// The environment's own row; the first part of every key here, after the tenant.
    pub(crate) environment_mac: [u8; 32],
    pub(crate) secrets: Key,
    pub(crate) certificates: Key,
    pub(crate) records: Key,
}

impl Control {
    /// Changes what is in an environment's safe, in a transaction of its own.
    pub(super) fn in_safe<T>(
        &self,
        scope: &Scope<'_>,
        change: impl FnOnce(&Transaction<'_>, &Safe<'_>) -> Result<T>,
    ) -> Result<T> {
        self.hold_keys(scope.tenant)?;
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let safe = Safe::open(&transaction, &self.vault, scope)?;
        let changed = change(&transaction, &safe)?;
        transaction.commit()?;
        Ok(changed)
    }
}

impl<'a> Safe<'a> {
    /// Errors: the tenant or the environment does not exist.
    pub(crate) fn open(database: &Connection, vault: &'a Vault, scope: &Scope<'a>) -> Result<Self> {
        let key = current_key(database, vault, scope.tenant)?;
        if !environment_exists(database, vault, scope.tenant, scope.environment)? {
            return Err(ControlError::NotFound { what: "environment", name: scope.environment.to_owned() });
        }
        Ok(Self::under(&key, vault, scope))
    }

    /// The safe that an environment has under a given key of its tenant.
    pub(crate) fn under(key: &Key, vault: &'a Vault, scope: &Scope<'a>) -> Self {
        Self {
            vault,
            tenant: scope.tenant,
            environment: scope.environment,
            environment_mac: vault.environment_mac(scope.tenant, scope.environment),
            secrets: key.derive("secrets 1", &[]),
            certificates: key.derive("certificates 1", &[]),
            records: key.derive("secret records 1", &[]),
        }
    }

    pub(crate) fn secret_mac(&self, name: &str) -> [u8; 32] {
        self.vault.name_mac(self.here("secret-name").text(name))
    }

    pub(crate) fn certificate_mac(&self, name: &str) -> [u8; 32] {
        self.vault.name_mac(self.here("certificate-name").text(name))
    }

    /// The same for two secrets that would be one environment variable, whatever the prefix.
    pub(crate) fn variable_mac(&self, name: &str) -> [u8; 32] {
        self.vault.name_mac(self.here("secret-variable").text(&normalised(name)))
    }

    pub(crate) fn grantee_mac(&self, grantee: &str) -> [u8; 32] {
        self.vault.name_mac(self.here("secret-grantee").text(grantee))
    }

    /// Of what is known about a secret. Bound to both HMACs by which its row is found.
    pub(crate) fn secret_aad(&self, name_mac: &[u8; 32], variable_mac: &[u8; 32]) -> Aad {
        self.here("secret").bytes(name_mac).bytes(variable_mac)
    }

    /// Of a value.
    pub(crate) fn value_aad(&self, name: &str, version: u64) -> Aad {
        self.here("secret-value").text(name).u64(version)
    }

    pub(crate) fn certificate_aad(&self, name_mac: &[u8; 32]) -> Aad {
        self.here("certificate").bytes(name_mac)
    }

    /// Of a chain with its key.
    pub(crate) fn pem_aad(&self, name: &str, version: u64) -> Aad {
        self.here("certificate-pem").text(name).u64(version)
    }

    pub(crate) fn grant_aad(&self, name_mac: &[u8; 32], grantee_mac: &[u8; 32]) -> Aad {
        self.here("secret-grant").bytes(name_mac).bytes(grantee_mac)
    }

    pub(crate) fn use_aad(&self, number: i64) -> Aad {
        self.here("secret-use").u64(number.unsigned_abs())
    }

    fn here(&self, format: &str) -> Aad {
        Aad::new(format).tenant(self.tenant).text(self.environment)
    }
}

/// SQLite's integers are signed; versions are far from their end.
pub(crate) fn integer(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
