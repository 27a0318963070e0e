//! control.db: its tables, its settings, how an older file becomes one of today, and the canary that tells a right
//! root key from a wrong one.
//!
//! Blobs named `mac`, `*_mac`, `environment` or `grantee` are HMACs, `body`, `value`, `pem`, `verifier`, `last_used`
//! and `canary` are sealed, `wrapped_key` is wrapped; ids are random. So the file holds no plaintext of a user. The
//! bytes are drawn in docs/format/control.md.
//!
//! The journal mode is TRUNCATE with synchronous=FULL: a commit is durable when it returns, without a WAL
//! whose checkpoints happen later, and the truncated journal is synced too, which DELETE mode leaves to luck.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use sepal_crypto::Aad;

use crate::{ControlError, control_error::Result, vault::Vault};

/// Written to the file's header; told by `file control.db`.
const APPLICATION_ID: i64 = 0x5345_504c;
/// Rises with every change of the tables or of what is sealed in them, but not with a field that has a default.
const FORMAT: i64 = 2;
/// The first format that can be brought to [`FORMAT`].
const OLDEST_FORMAT: i64 = 1;
/// In the canary's associated data. It stays as it was in format 1: an older file must be known before it is changed.
const CANARY_VERSION: u64 = 1;
const CANARY: &[u8] = b"sepal control database";
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE tenants (
        id BLOB PRIMARY KEY,
        name_mac BLOB NOT NULL UNIQUE,
        wrapped_key BLOB NOT NULL,
        body BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE environments (
        tenant BLOB NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        name_mac BLOB NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (tenant, name_mac)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        tenant BLOB NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        mac BLOB NOT NULL,
        verifier BLOB NOT NULL,
        body BLOB NOT NULL,
        last_used BLOB
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX api_keys_by_tenant ON api_keys (tenant);
";

/// What format 2 added. `environment` is `environments.name_mac`; what is granted is found by the `name_mac` of a
/// secret or of a certificate, which never coincide.
const SECRET_TABLES: &str = "
    CREATE TABLE secrets (
        tenant BLOB NOT NULL,
        environment BLOB NOT NULL,
        name_mac BLOB NOT NULL,
        variable_mac BLOB NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (tenant, environment, name_mac),
        FOREIGN KEY (tenant, environment) REFERENCES environments (tenant, name_mac) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX secrets_by_variable ON secrets (tenant, environment, variable_mac);
    CREATE TABLE secret_versions (
        tenant BLOB NOT NULL,
        environment BLOB NOT NULL,
        name_mac BLOB NOT NULL,
        version INTEGER NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (tenant, environment, name_mac, version),
        FOREIGN KEY (tenant, environment, name_mac) REFERENCES secrets ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE certificates (
        tenant BLOB NOT NULL,
        environment BLOB NOT NULL,
        name_mac BLOB NOT NULL,
        body BLOB NOT NULL,
        pem BLOB NOT NULL,
        PRIMARY KEY (tenant, environment, name_mac),
        FOREIGN KEY (tenant, environment) REFERENCES environments (tenant, name_mac) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE secret_grants (
        tenant BLOB NOT NULL,
        environment BLOB NOT NULL,
        name_mac BLOB NOT NULL,
        grantee BLOB NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (tenant, environment, name_mac, grantee),
        FOREIGN KEY (tenant, environment) REFERENCES environments (tenant, name_mac) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE secret_uses (
        tenant BLOB NOT NULL,
        number INTEGER NOT NULL,
        environment BLOB NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (tenant, number),
        FOREIGN KEY (tenant, environment) REFERENCES environments (tenant, name_mac) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
";

/// Opens an existing file and changes nothing in it.
pub(crate) fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// The settings of a connection that may write. `secure_delete` overwrites deleted rows (a dropped tenant's
/// wrapped key); temporary data stays in memory.
pub(crate) fn settle(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "PRAGMA journal_mode = TRUNCATE;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;",
    )?;
    Ok(())
}

/// Fills an empty file.
pub(crate) fn create(connection: &mut Connection, vault: &Vault) -> Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(SECRET_TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    let canary = vault.seal_bytes(canary_aad(), CANARY);
    transaction.execute("INSERT INTO meta (name, value) VALUES ('canary', ?1)", params![canary])?;
    transaction.commit()?;
    Ok(())
}

/// Brings a file that [`check`] accepted to today's format, in one transaction: a crash leaves the old file.
/// Versions of Sepal that knew the old format alone refuse it from then on.
pub(crate) fn migrate(connection: &mut Connection) -> Result<()> {
    if format_of(connection)? == FORMAT {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it in between.
    if format_of(&transaction)? == OLDEST_FORMAT {
        transaction.execute_batch(SECRET_TABLES)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Whether the file is ours, of a format we read, and made under this root key. Reads only.
pub(crate) fn check(connection: &Connection, path: &Path, vault: &Vault) -> Result<()> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let format = format_of(connection)?;
    if application != APPLICATION_ID || !(OLDEST_FORMAT..=FORMAT).contains(&format) {
        let format = if application == APPLICATION_ID { format } else { 0 };
        return Err(ControlError::UnsupportedFormat { database: path.to_owned(), format, expected: FORMAT });
    }
    let canary: Option<Vec<u8>> = connection
        .query_row("SELECT value FROM meta WHERE name = 'canary'", [], |row| row.get(0))
        .optional()?;
    let canary = canary.unwrap_or_default();
    match vault.open_bytes("the boot canary", canary_aad(), &canary) {
        Ok(plain) if plain.as_slice() == CANARY => Ok(()),
        _ => Err(ControlError::WrongRootKey { database: path.to_owned() }),
    }
}

fn canary_aad() -> Aad {
    Aad::new("control-canary").u64(CANARY_VERSION)
}

fn format_of(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

const _: () = assert!(OLDEST_FORMAT == 1 && FORMAT == 2, "a third format needs its own step in `migrate`");

#[cfg(test)]
mod tests;
