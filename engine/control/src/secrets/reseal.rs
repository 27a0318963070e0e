//! Sealing all that control.db holds of a tenant under another key of the tenant's, in one transaction.
//!
//! Called when a tenant's key is rotated: afterwards nothing here needs the older one.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params, params_from_iter, types::Value};
use sepal_crypto::{Aad, Key};
use sepal_types::TenantId;

use crate::{
    ControlError, Scope,
    control_error::Result,
    tenants::environment_names,
    vault::{Vault, open_bytes, open_json, seal_bytes},
};

use super::{certificates::CertificateBody, safe::Safe, secret::SecretBody};

/// A table whose rows belong to an environment.
struct Table {
    name: &'static str,
    /// What tells a row from others of the environment.
    key: &'static [&'static str],
    sealed: &'static [&'static str],
}

const SECRETS: Table = Table { name: "secrets", key: &["name_mac"], sealed: &["body"] };
const VERSIONS: Table = Table { name: "secret_versions", key: &["name_mac", "version"], sealed: &["value"] };
const CERTIFICATES: Table = Table { name: "certificates", key: &["name_mac"], sealed: &["body", "pem"] };
const GRANTS: Table = Table { name: "secret_grants", key: &["name_mac", "grantee"], sealed: &["body"] };
const USES: Table = Table { name: "secret_uses", key: &["number"], sealed: &["body"] };

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
    /// With every kept version, whose place needs the secret's name.
    fn secrets(&self) -> Result<()> {
        let keys = (&self.old.secrets, &self.new.secrets);
        let mut names: HashMap<[u8; 32], String> = HashMap::new();
        self.renew(&SECRETS, |row| {
            let (name_mac, variable_mac): ([u8; 32], [u8; 32]) =
                (row.get("name_mac")?, row.get("variable_mac")?);
            let aad = || self.old.secret_aad(&name_mac, &variable_mac);
            let sealed: Vec<u8> = row.get("body")?;
            let body: SecretBody = open_json(keys.0, "a secret", aad(), &sealed)?;
            names.insert(name_mac, body.name);
            Ok(vec![again(keys, "a secret", &aad, &sealed)?])
        })?;
        self.renew(&VERSIONS, |row| {
            const WHAT: &str = "a secret's value";
            let (name_mac, version): ([u8; 32], i64) = (row.get("name_mac")?, row.get("version")?);
            let name = names
                .get(&name_mac)
                .ok_or_else(|| ControlError::Corrupt { what: WHAT, why: "its secret is not there".into() })?;
            let aad = || self.old.value_aad(name, version.unsigned_abs());
            Ok(vec![again(keys, WHAT, &aad, &row.get::<_, Vec<u8>>("value")?)?])
        })
    }

    fn certificates(&self) -> Result<()> {
        let keys = (&self.old.certificates, &self.new.certificates);
        self.renew(&CERTIFICATES, |row| {
            let name_mac: [u8; 32] = row.get("name_mac")?;
            let (body, pem): (Vec<u8>, Vec<u8>) = (row.get("body")?, row.get("pem")?);
            let body_aad = || self.old.certificate_aad(&name_mac);
            let known: CertificateBody = open_json(keys.0, "a certificate", body_aad(), &body)?;
            let pem_aad = || self.old.pem_aad(&known.name, known.version);
            let body = again(keys, "a certificate", &body_aad, &body)?;
            Ok(vec![body, again(keys, "a certificate's key", &pem_aad, &pem)?])
        })
    }

    fn grants(&self) -> Result<()> {
        let keys = (&self.old.records, &self.new.records);
        self.renew(&GRANTS, |row| {
            let (name_mac, grantee): ([u8; 32], [u8; 32]) = (row.get("name_mac")?, row.get("grantee")?);
            let aad = || self.old.grant_aad(&name_mac, &grantee);
            Ok(vec![again(keys, "a grant", &aad, &row.get::<_, Vec<u8>>("body")?)?])
        })
    }

    fn uses(&self) -> Result<()> {
        let keys = (&self.old.records, &self.new.records);
        self.renew(&USES, |row| {
            let number: i64 = row.get("number")?;
            let aad = || self.old.use_aad(number);
            Ok(vec![again(keys, "a use of a secret", &aad, &row.get::<_, Vec<u8>>("body")?)?])
        })
    }

    /// Writes the environment's rows of a table anew. `seal` gives what a row's sealed columns are to be.
    fn renew(&self, table: &Table, mut seal: impl FnMut(&Row<'_>) -> Result<Vec<Vec<u8>>>) -> Result<()> {
        let Table { name, key, sealed } = table;
        let select = format!("SELECT * FROM {name} WHERE tenant = ?1 AND environment = ?2");
        let mut select = self.database.prepare_cached(&select)?;
        let here = [self.old.tenant.as_bytes().to_vec(), self.old.environment_mac.to_vec()];
        let rows = select.query_and_then(params![here[0], here[1]], |row| -> Result<Vec<Value>> {
            let renewed = seal(row)?;
            let mut values: Vec<Value> = renewed.into_iter().chain(here.clone()).map(Value::Blob).collect();
            for column in *key {
                values.push(row.get(*column)?);
            }
            Ok(values)
        })?;
        // A table is not written while it is read.
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let update = format!(
            "UPDATE {name} SET {} = ? WHERE tenant = ? AND environment = ? AND {} = ?",
            sealed.join(" = ?, "),
            key.join(" = ? AND ")
        );
        let mut update = self.database.prepare_cached(&update)?;
        for row in rows {
            update.execute(params_from_iter(row))?;
        }
        Ok(())
    }
}

/// Opens under the first key and seals under the second, in the same place.
fn again(keys: (&Key, &Key), what: &'static str, aad: &dyn Fn() -> Aad, sealed: &[u8]) -> Result<Vec<u8>> {
    let plain = open_bytes(keys.0, what, aad(), sealed)?;
    Ok(seal_bytes(keys.1, aad(), &plain))
}
