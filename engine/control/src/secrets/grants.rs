//! Who may use a secret or a certificate: its owner, the API keys it was granted to, or all of the tenant's.
//!
//! A grant is found by HMAC like everything here, and counts only if its sealed part opens: a row copied from another
//! secret grants nothing.
//!
//! A right ends with its key: what was defined under a key that was revoked or has expired gets no value any more, or
//! whoever held the key would go on reading through the sinks that it left behind.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::{
    Control, ControlError, Scope,
    api_keys::KeyRow,
    control_error::Result,
    vault::{open_json, seal_json},
};

use super::{MAX_GRANTS, OPERATOR, certificates, safe::Safe, store};

/// Stands for every API key of the tenant.
pub const PUBLIC: &str = "public";

/// What can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grantable {
    Secret,
    Certificate,
}

/// The sealed part of a grant's row.
#[derive(Serialize, Deserialize)]
struct GrantBody {
    grantee: String,
    granted_at: i64,
}

impl Control {
    /// Lets an API key of the tenant, or [`PUBLIC`], use a secret or certificate. Granting twice changes nothing.
    ///
    /// Errors: 42704 the secret, the certificate or the key does not exist.
    pub fn grant_usage(&self, scope: &Scope<'_>, kind: Grantable, name: &str, grantee: &str) -> Result<()> {
        self.in_safe(scope, |transaction, safe| {
            require(transaction, safe, kind, name)?;
            if grantee != PUBLIC {
                let mut key =
                    transaction.prepare_cached("SELECT 1 FROM api_keys WHERE id = ?1 AND tenant = ?2")?;
                if !key.exists(params![grantee, safe.tenant.as_bytes()])? {
                    return Err(ControlError::NotFound { what: "API key", name: grantee.to_owned() });
                }
            }
            let (name_mac, grantee_mac) = (kind.mac(safe, name), safe.grantee_mac(grantee));
            check_room(transaction, safe, &name_mac, name)?;
            let body = GrantBody { grantee: grantee.to_owned(), granted_at: self.clock.unix_seconds() };
            transaction.execute(
                "INSERT OR IGNORE INTO secret_grants (tenant, environment, name_mac, grantee, body) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    safe.tenant.as_bytes(),
                    safe.environment_mac,
                    name_mac,
                    grantee_mac,
                    seal_json(&safe.records, safe.grant_aad(&name_mac, &grantee_mac), &body),
                ],
            )?;
            Ok(())
        })
    }

    /// Takes a grant back. One that was not given is no error, as in Postgres.
    ///
    /// Errors: 42704 the secret or certificate does not exist.
    pub fn revoke_usage(&self, scope: &Scope<'_>, kind: Grantable, name: &str, grantee: &str) -> Result<()> {
        self.in_safe(scope, |transaction, safe| {
            require(transaction, safe, kind, name)?;
            transaction.execute(
                "DELETE FROM secret_grants WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3 AND grantee = ?4",
                params![
                    safe.tenant.as_bytes(),
                    safe.environment_mac,
                    kind.mac(safe, name),
                    safe.grantee_mac(grantee),
                ],
            )?;
            Ok(())
        })
    }

    /// Whether an API key owns the secret or certificate or was granted its use, and still counts
    /// ([`Self::is_live_key`]). What does not exist nobody may use.
    pub fn may_use(&self, scope: &Scope<'_>, kind: Grantable, name: &str, key_id: &str) -> Result<bool> {
        self.hold_keys(scope.tenant)?;
        let database = self.database.lock();
        let safe = Safe::open(&database, &self.vault, scope)?;
        let Some(owner) = owner(&database, &safe, kind, name)? else { return Ok(false) };
        let permitted = owner == key_id
            || is_granted(&database, &safe, kind, name, key_id)?
            || is_granted(&database, &safe, kind, name, PUBLIC)?;
        Ok(permitted && self.counts(&database, scope, key_id)?)
    }

    /// Whether a key is one of the tenant's that reaches the environment, neither revoked nor expired. The operator,
    /// who has no key, always is.
    pub fn is_live_key(&self, scope: &Scope<'_>, key_id: &str) -> Result<bool> {
        self.counts(&self.database.lock(), scope, key_id)
    }

    fn counts(&self, database: &Connection, scope: &Scope<'_>, key_id: &str) -> Result<bool> {
        if key_id == OPERATOR {
            return Ok(true);
        }
        let Some(row) = KeyRow::find(database, key_id)?.filter(|row| row.tenant == scope.tenant) else {
            return Ok(false);
        };
        let body = row.open_body(&self.vault)?;
        let reaches = body.environment.as_deref().is_none_or(|only| only == scope.environment);
        Ok(reaches && body.is_live(self.clock.unix_seconds()))
    }

    /// Whom a secret or certificate was granted to, in order.
    pub fn grantees(&self, scope: &Scope<'_>, kind: Grantable, name: &str) -> Result<Vec<String>> {
        self.hold_keys(scope.tenant)?;
        let database = self.database.lock();
        let safe = Safe::open(&database, &self.vault, scope)?;
        let name_mac = kind.mac(&safe, name);
        let mut statement = database.prepare_cached(
            "SELECT grantee, body FROM secret_grants WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
        )?;
        let rows = statement.query_and_then(
            params![safe.tenant.as_bytes(), safe.environment_mac, name_mac],
            |row| -> Result<String> {
                let (grantee_mac, sealed): ([u8; 32], Vec<u8>) = (row.get(0)?, row.get(1)?);
                Ok(open(&safe, &name_mac, &grantee_mac, &sealed)?.grantee)
            },
        )?;
        let mut grantees = rows.collect::<Result<Vec<_>>>()?;
        grantees.sort();
        Ok(grantees)
    }
}

impl Grantable {
    /// As a statement calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Certificate => "certificate",
        }
    }

    fn mac(self, safe: &Safe<'_>, name: &str) -> [u8; 32] {
        match self {
            Self::Secret => safe.secret_mac(name),
            Self::Certificate => safe.certificate_mac(name),
        }
    }
}

/// Removes all grants on what was dropped: one of the same name made later is another one.
pub(super) fn forget(database: &Connection, safe: &Safe<'_>, name_mac: &[u8; 32]) -> Result<()> {
    database.execute(
        "DELETE FROM secret_grants WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
        params![safe.tenant.as_bytes(), safe.environment_mac, name_mac],
    )?;
    Ok(())
}

fn is_granted(
    database: &Connection,
    safe: &Safe<'_>,
    kind: Grantable,
    name: &str,
    grantee: &str,
) -> Result<bool> {
    let (name_mac, grantee_mac) = (kind.mac(safe, name), safe.grantee_mac(grantee));
    let mut statement = database.prepare_cached(
        "SELECT body FROM secret_grants WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3 AND grantee = ?4",
    )?;
    let sealed: Option<Vec<u8>> = statement
        .query_row(params![safe.tenant.as_bytes(), safe.environment_mac, name_mac, grantee_mac], |row| {
            row.get(0)
        })
        .optional()?;
    match sealed {
        Some(sealed) => Ok(open(safe, &name_mac, &grantee_mac, &sealed)?.grantee == grantee),
        None => Ok(false),
    }
}

fn open(safe: &Safe<'_>, name_mac: &[u8; 32], grantee_mac: &[u8; 32], sealed: &[u8]) -> Result<GrantBody> {
    open_json(&safe.records, "a grant", safe.grant_aad(name_mac, grantee_mac), sealed)
}

fn owner(database: &Connection, safe: &Safe<'_>, kind: Grantable, name: &str) -> Result<Option<String>> {
    Ok(match kind {
        Grantable::Secret => store::find(database, safe, name)?.map(|body| body.owner),
        Grantable::Certificate => certificates::find(database, safe, name)?.map(|found| found.body.owner),
    })
}

fn require(database: &Connection, safe: &Safe<'_>, kind: Grantable, name: &str) -> Result<()> {
    match owner(database, safe, kind, name)? {
        Some(_) => Ok(()),
        None => Err(ControlError::NotFound { what: kind.name(), name: name.to_owned() }),
    }
}

fn check_room(database: &Connection, safe: &Safe<'_>, name_mac: &[u8; 32], name: &str) -> Result<()> {
    let mut statement = database.prepare_cached(
        "SELECT count(*) FROM secret_grants WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
    )?;
    let count: i64 = statement
        .query_row(params![safe.tenant.as_bytes(), safe.environment_mac, name_mac], |row| row.get(0))?;
    if count.unsigned_abs() < MAX_GRANTS {
        return Ok(());
    }
    Err(ControlError::LimitReached(format!(
        "\"{name}\" is granted to {count} API keys, which is the most it may be: grant it to {PUBLIC}, or revoke some"
    )))
}
