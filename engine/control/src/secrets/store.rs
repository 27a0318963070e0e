//! Secrets' rows: making, changing, dropping, finding and listing them.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};

use crate::{
    Control, ControlError, Scope,
    control_error::Result,
    vault::{open_json, seal_json},
};

use super::{
    MAX_PER_ENVIRONMENT, NewSecret, Secret, SecretChange, SecretOrigin, grants, safe::Safe,
    secret::SecretBody, versions,
};

impl Control {
    /// Makes a secret. Errors: 42710 the name is taken, or as an environment variable it would be another secret; where
    /// the latter is allowed ([`super::EnvNames::is_compatible`]), [`Secret::collides_with`] tells and the log warns.
    pub fn create_secret(&self, scope: &Scope<'_>, new: NewSecret<'_>) -> Result<Secret> {
        let body = SecretBody::new(&new, self.clock.unix_seconds())?;
        let rival = self.in_safe(scope, |transaction, safe| {
            if find(transaction, safe, new.name)?.is_some() {
                return Err(ControlError::AlreadyExists { what: "secret", name: new.name.to_string() });
            }
            check_room(transaction, safe, "secrets")?;
            let rival = rival(transaction, safe, new.name)?;
            if let Some(first) = &rival {
                let (name, variable) = (new.name.to_string(), self.env_names.of(new.name));
                if !self.env_names.is_compatible() {
                    return Err(ControlError::SecretCollision { name, variable, first: first.clone() });
                }
                tracing::warn!(
                    tenant = %scope.tenant, environment = scope.environment, name, first, variable,
                    "two secrets are one environment variable: the last in alphabetical order counts"
                );
            }
            let (name_mac, variable_mac) = (safe.secret_mac(new.name), safe.variable_mac(new.name));
            transaction.execute(
                "INSERT INTO secrets (tenant, environment, name_mac, variable_mac, body) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    safe.tenant.as_bytes(),
                    safe.environment_mac,
                    name_mac,
                    variable_mac,
                    seal_json(&safe.secrets, safe.secret_aad(&name_mac, &variable_mac), &body),
                ],
            )?;
            if let Some(value) = new.value {
                versions::insert(transaction, safe, &name_mac, &body, value)?;
            }
            Ok(rival)
        })?;
        body.into_secret(scope.environment, &self.env_names, rival)
    }

    /// Changes a secret: a new value is a new version, and so is another origin. Errors: 42704 there is none.
    pub fn set_secret(&self, scope: &Scope<'_>, name: &str, change: SecretChange<'_>) -> Result<Secret> {
        let (body, rival) = self.in_safe(scope, |transaction, safe| {
            let mut body = find(transaction, safe, name)?.ok_or_else(|| no_secret(name))?;
            let value = change.value;
            body.change(change, self.clock.unix_seconds())?;
            let (name_mac, variable_mac) = (safe.secret_mac(name), safe.variable_mac(name));
            transaction.execute(
                "UPDATE secrets SET body = ?4 WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
                params![
                    safe.tenant.as_bytes(),
                    safe.environment_mac,
                    name_mac,
                    seal_json(&safe.secrets, safe.secret_aad(&name_mac, &variable_mac), &body),
                ],
            )?;
            if let Some(value) = value {
                versions::insert(transaction, safe, &name_mac, &body, value)?;
            } else if body.origin != SecretOrigin::Stored {
                versions::wipe(transaction, safe, &name_mac, body.version)?;
            }
            let rival = rival(transaction, safe, name)?;
            Ok((body, rival))
        })?;
        body.into_secret(scope.environment, &self.env_names, rival)
    }

    /// Removes a secret, all its versions and what was granted on it. Errors: 42704 there is none.
    pub fn drop_secret(&self, scope: &Scope<'_>, name: &str) -> Result<()> {
        self.in_safe(scope, |transaction, safe| {
            let name_mac = safe.secret_mac(name);
            let removed = transaction.execute(
                "DELETE FROM secrets WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
                params![safe.tenant.as_bytes(), safe.environment_mac, name_mac],
            )?;
            if removed == 0 {
                return Err(no_secret(name));
            }
            grants::forget(transaction, safe, &name_mac)
        })
    }

    /// The secret of that name; any text may be asked for.
    pub fn secret(&self, scope: &Scope<'_>, name: &str) -> Result<Option<Secret>> {
        self.hold_keys(scope.tenant)?;
        let database = self.database.lock();
        let safe = Safe::open(&database, &self.vault, scope)?;
        let Some(body) = find(&database, &safe, name)? else { return Ok(None) };
        let rival = rival(&database, &safe, name)?;
        body.into_secret(scope.environment, &self.env_names, rival).map(Some)
    }

    /// An environment's secrets, by name.
    pub fn list_secrets(&self, scope: &Scope<'_>) -> Result<Vec<Secret>> {
        self.hold_keys(scope.tenant)?;
        let database = self.database.lock();
        let safe = Safe::open(&database, &self.vault, scope)?;
        let mut bodies = select(&database, &safe, "", None)?;
        bodies.sort_by(|one, other| one.name.cmp(&other.name));
        let mut called: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for body in &bodies {
            called.entry(self.env_names.of(&body.name)).or_default().push(body.name.clone());
        }
        let rival_of = |name: &str| {
            called.get(&self.env_names.of(name)).into_iter().flatten().find(|other| *other != name).cloned()
        };
        bodies
            .into_iter()
            .map(|body| {
                let rival = rival_of(&body.name);
                body.into_secret(scope.environment, &self.env_names, rival)
            })
            .collect()
    }
}

/// The body of the secret of that name.
pub(super) fn find(database: &Connection, safe: &Safe<'_>, name: &str) -> Result<Option<SecretBody>> {
    Ok(select(database, safe, "AND name_mac = ?3", Some(safe.secret_mac(name)))?.pop())
}

/// The first secret made that is the same environment variable as `name` and is another one.
fn rival(database: &Connection, safe: &Safe<'_>, name: &str) -> Result<Option<String>> {
    let same = select(database, safe, "AND variable_mac = ?3", Some(safe.variable_mac(name)))?;
    let others = same.into_iter().filter(|body| body.name != name);
    let first = others.min_by(|one, other| (one.created_at, &one.name).cmp(&(other.created_at, &other.name)));
    Ok(first.map(|body| body.name))
}

/// The bodies of an environment that `condition` picks with the HMAC `?3`.
fn select(
    database: &Connection,
    safe: &Safe<'_>,
    condition: &str,
    mac: Option<[u8; 32]>,
) -> Result<Vec<SecretBody>> {
    let sql = format!(
        "SELECT name_mac, variable_mac, body FROM secrets WHERE tenant = ?1 AND environment = ?2 {condition}"
    );
    let mut statement = database.prepare_cached(&sql)?;
    let read = |row: &Row<'_>| read(row, safe);
    match mac {
        Some(mac) => statement
            .query_and_then(params![safe.tenant.as_bytes(), safe.environment_mac, mac], read)?
            .collect(),
        None => {
            statement.query_and_then(params![safe.tenant.as_bytes(), safe.environment_mac], read)?.collect()
        }
    }
}

fn read(row: &Row<'_>, safe: &Safe<'_>) -> Result<SecretBody> {
    let (name_mac, variable_mac, sealed): ([u8; 32], [u8; 32], Vec<u8>) =
        (row.get(0)?, row.get(1)?, row.get(2)?);
    open_json(&safe.secrets, "a secret", safe.secret_aad(&name_mac, &variable_mac), &sealed)
}

/// Whether one more row fits into `table`, `secrets` or `certificates`.
pub(super) fn check_room(database: &Connection, safe: &Safe<'_>, table: &str) -> Result<()> {
    let sql = format!("SELECT count(*) FROM {table} WHERE tenant = ?1 AND environment = ?2");
    let mut statement = database.prepare_cached(&sql)?;
    let count: i64 =
        statement.query_row(params![safe.tenant.as_bytes(), safe.environment_mac], |row| row.get(0))?;
    if count.unsigned_abs() < MAX_PER_ENVIRONMENT {
        return Ok(());
    }
    Err(ControlError::LimitReached(format!(
        "environment \"{}\" has {count} {table}, which is the most it may have: drop some that are not used",
        safe.environment
    )))
}

fn no_secret(name: &str) -> ControlError {
    ControlError::NotFound { what: "secret", name: name.to_owned() }
}
