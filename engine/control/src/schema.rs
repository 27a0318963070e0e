//! control.db: its tables, its settings, and the canary that tells a right root key from a wrong one.
//!
//! Blobs named `mac` or `name_mac` are HMACs, `body`, `verifier`, `last_used` and `canary` are sealed,
//! `wrapped_key` is wrapped; ids are random. So the file holds no plaintext of a user.
//!
//! The journal mode is TRUNCATE with synchronous=FULL: a commit is durable when it returns, without a WAL
//! whose checkpoints happen later, and the truncated journal is synced too, which DELETE mode leaves to luck.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use sepal_crypto::Aad;

use crate::{ControlError, control_error::Result, vault::Vault};

/// Written to the file's header; told by `file control.db`.
const APPLICATION_ID: i64 = 0x5345_504c;
/// Rises with every change of the tables or of what is sealed in them, but not with a field that has a default.
const FORMAT: i64 = 1;
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
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    let canary = vault.seal_bytes(canary_aad(), CANARY);
    transaction.execute("INSERT INTO meta (name, value) VALUES ('canary', ?1)", params![canary])?;
    transaction.commit()?;
    Ok(())
}

/// Whether the file is ours, of this format, and made under this root key. Reads only.
pub(crate) fn check(connection: &Connection, path: &Path, vault: &Vault) -> Result<()> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, format) = (pragma("application_id")?, pragma("user_version")?);
    if application != APPLICATION_ID || format != FORMAT {
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
    Aad::new("control-canary").u64(FORMAT.unsigned_abs())
}
