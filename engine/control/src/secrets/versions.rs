//! The kept values of a stored secret: one row a version, the newest ten.

use rusqlite::{Connection, OptionalExtension, params};
use zeroize::Zeroizing;

use crate::{
    Control, Scope,
    control_error::Result,
    vault::{open_bytes, seal_bytes},
};

use super::{
    KEPT_VERSIONS, SecretOrigin,
    safe::{Safe, integer},
    secret::SecretBody,
    store::find,
};

impl Control {
    /// The value of a stored secret with its version; `version` `None`: the newest. `None` when there is no such
    /// secret, when it is not stored here ([`super::Secret::source`]), or when that version is not kept any more.
    ///
    /// Whoever calls this for someone asks [`Control::may_use`] before and records it with
    /// [`Control::record_secret_use`].
    pub fn secret_value(
        &self,
        scope: &Scope<'_>,
        name: &str,
        version: Option<u64>,
    ) -> Result<Option<(u64, Zeroizing<Vec<u8>>)>> {
        self.hold_keys(scope.tenant)?;
        let database = self.database.lock();
        let safe = Safe::open(&database, &self.vault, scope)?;
        let Some(body) = find(&database, &safe, name)? else { return Ok(None) };
        let version = version.unwrap_or(body.version);
        // One above the secret's own is none of ours, whatever its row says.
        if body.origin != SecretOrigin::Stored || version > body.version {
            return Ok(None);
        }
        let mut statement = database.prepare_cached(
            "SELECT value FROM secret_versions \
             WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3 AND version = ?4",
        )?;
        let sealed: Option<Vec<u8>> = statement
            .query_row(
                params![
                    safe.tenant.as_bytes(),
                    safe.environment_mac,
                    safe.secret_mac(name),
                    integer(version)
                ],
                |row| row.get(0),
            )
            .optional()?;
        let Some(sealed) = sealed else { return Ok(None) };
        let value =
            open_bytes(&safe.secrets, "a secret's value", safe.value_aad(&body.name, version), &sealed)?;
        Ok(Some((version, value)))
    }
}

/// Adds the value of the version that `body` is at, and wipes those that are no longer kept.
pub(super) fn insert(
    database: &Connection,
    safe: &Safe<'_>,
    name_mac: &[u8; 32],
    body: &SecretBody,
    value: &[u8],
) -> Result<()> {
    let sealed = seal_bytes(&safe.secrets, safe.value_aad(&body.name, body.version), value);
    database.execute(
        "INSERT INTO secret_versions (tenant, environment, name_mac, version, value) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![safe.tenant.as_bytes(), safe.environment_mac, name_mac, integer(body.version), sealed],
    )?;
    wipe(database, safe, name_mac, body.version.saturating_sub(KEPT_VERSIONS))
}

/// Deletes the versions up to `last`; SQLite's `secure_delete` overwrites their bytes.
pub(super) fn wipe(database: &Connection, safe: &Safe<'_>, name_mac: &[u8; 32], last: u64) -> Result<()> {
    database.execute(
        "DELETE FROM secret_versions WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3 AND version <= ?4",
        params![safe.tenant.as_bytes(), safe.environment_mac, name_mac, integer(last)],
    )?;
    Ok(())
}
