//! Sealing all that control.db holds of a tenant under another key of the tenant's, in one transaction.
//!
//! Called when a tenant's key is rotated: afterwards nothing here needs the older one.

use rusqlite::{Connection, params};
use sepal_crypto::{Aad, Key};
use sepal_types::TenantId;

use crate::{
    Scope,
    control_error::Result,
    tenants::environment_names,
    vault::{Vault, open_bytes, open_json, seal_bytes},
};

use super::{
    certificates::CertificateBody,
    safe::{Safe, integer},
    secret::SecretBody,
};

/// From `old` to `new`. The caller's transaction.
pub(crate) fn tenant(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
    old: &Key,
    new: &Key,
) -> Result<()> {
    for environment in environment_names(database, vault, tenant)? {
        let scope = Scope { tenant, environment: &environment };
        let move_ =
            Move { database, old: Safe::under(old, vault, &scope), new: Safe::under(new, vault, &scope) };
        move_.secrets()?;
        move_.certificates()?;
        move_.grants()?;
        move_.uses()?;
    }
    Ok(())
}

/// One environment's rows on their way.
struct Move<'a> {
    database: &'a Connection,
    old: Safe<'a>,
    new: Safe<'a>,
}

impl Move<'_> {
    fn secrets(&self) -> Result<()> {
        let mut statement = self.database.prepare_cached(
            "SELECT name_mac, variable_mac, body FROM secrets WHERE tenant = ?1 AND environment = ?2",
        )?;
        let rows = statement
            .query_map(params![self.old.tenant.as_bytes(), self.old.environment_mac], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let rows = rows.collect::<rusqlite::Result<Vec<([u8; 32], [u8; 32], Vec<u8>)>>>()?;
        for (name_mac, variable_mac, sealed) in rows {
            let aad = || self.old.secret_aad(&name_mac, &variable_mac);
            let body: SecretBody = open_json(&self.old.secrets, "a secret", aad(), &sealed)?;
            let sealed = again((&self.old.secrets, &self.new.secrets), "a secret", &aad, &sealed)?;
            self.database.execute(
                "UPDATE secrets SET body = ?4 WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
                params![self.old.tenant.as_bytes(), self.old.environment_mac, name_mac, sealed],
            )?;
            self.versions(&name_mac, &body.name)?;
        }
        Ok(())
    }

    fn versions(&self, name_mac: &[u8; 32], name: &str) -> Result<()> {
        let mut statement = self.database.prepare_cached(
            "SELECT version, value FROM secret_versions \
             WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
        )?;
        let rows = statement
            .query_map(params![self.old.tenant.as_bytes(), self.old.environment_mac, name_mac], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let rows = rows.collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()?;
        for (version, sealed) in rows {
            let version = version.unsigned_abs();
            let aad = || self.old.value_aad(name, version);
            let sealed = again((&self.old.secrets, &self.new.secrets), "a secret's value", &aad, &sealed)?;
            self.database.execute(
                "UPDATE secret_versions SET value = ?5 \
                 WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3 AND version = ?4",
                params![
                    self.old.tenant.as_bytes(),
                    self.old.environment_mac,
                    name_mac,
                    integer(version),
                    sealed
                ],
            )?;
        }
        Ok(())
    }

    fn certificates(&self) -> Result<()> {
        let mut statement = self.database.prepare_cached(
            "SELECT name_mac, body, pem FROM certificates WHERE tenant = ?1 AND environment = ?2",
        )?;
        let rows = statement
            .query_map(params![self.old.tenant.as_bytes(), self.old.environment_mac], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let rows = rows.collect::<rusqlite::Result<Vec<([u8; 32], Vec<u8>, Vec<u8>)>>>()?;
        let keys = (&self.old.certificates, &self.new.certificates);
        for (name_mac, body, pem) in rows {
            let body_aad = || self.old.certificate_aad(&name_mac);
            let known: CertificateBody = open_json(keys.0, "a certificate", body_aad(), &body)?;
            let pem_aad = || self.old.pem_aad(&known.name, known.version);
            let body = again(keys, "a certificate", &body_aad, &body)?;
            let pem = again(keys, "a certificate's key", &pem_aad, &pem)?;
            self.database.execute(
                "UPDATE certificates SET body = ?4, pem = ?5 \
                 WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
                params![self.old.tenant.as_bytes(), self.old.environment_mac, name_mac, body, pem],
            )?;
        }
        Ok(())
    }

    fn grants(&self) -> Result<()> {
        let mut statement = self.database.prepare_cached(
            "SELECT name_mac, grantee, body FROM secret_grants WHERE tenant = ?1 AND environment = ?2",
        )?;
        let rows = statement
            .query_map(params![self.old.tenant.as_bytes(), self.old.environment_mac], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let rows = rows.collect::<rusqlite::Result<Vec<([u8; 32], [u8; 32], Vec<u8>)>>>()?;
        for (name_mac, grantee, sealed) in rows {
            let aad = || self.old.grant_aad(&name_mac, &grantee);
            let sealed = again((&self.old.records, &self.new.records), "a grant", &aad, &sealed)?;
            self.database.execute(
                "UPDATE secret_grants SET body = ?5 \
                 WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3 AND grantee = ?4",
                params![self.old.tenant.as_bytes(), self.old.environment_mac, name_mac, grantee, sealed],
            )?;
        }
        Ok(())
    }

    fn uses(&self) -> Result<()> {
        let mut statement = self
            .database
            .prepare_cached("SELECT number, body FROM secret_uses WHERE tenant = ?1 AND environment = ?2")?;
        let rows = statement
            .query_map(params![self.old.tenant.as_bytes(), self.old.environment_mac], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let rows = rows.collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()?;
        let mut update = self
            .database
            .prepare_cached("UPDATE secret_uses SET body = ?3 WHERE tenant = ?1 AND number = ?2")?;
        for (number, sealed) in rows {
            let aad = || self.old.use_aad(number);
            let keys = (&self.old.records, &self.new.records);
            let sealed = again(keys, "a use of a secret", &aad, &sealed)?;
            update.execute(params![self.old.tenant.as_bytes(), number, sealed])?;
        }
        Ok(())
    }
}

/// Opens under the first key and seals under the second, in the same place.
fn again(keys: (&Key, &Key), what: &'static str, aad: &dyn Fn() -> Aad, sealed: &[u8]) -> Result<Vec<u8>> {
    let plain = open_bytes(keys.0, what, aad(), sealed)?;
    Ok(seal_bytes(keys.1, aad(), &plain))
}
