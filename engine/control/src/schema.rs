//! control.db: its tables, its settings, how an older file becomes one of today, and how a right root key is told from
//! a wrong one.
//!
//! Blobs named `mac`, `*_mac`, `environment` or `grantee` are HMACs, `body`, `value`, `pem`, `verifier` and `last_used`
//! are sealed, `wrapped_key` is wrapped; ids are random. So the file holds no plaintext of a user. The bytes are drawn
//! in docs/format/control.md.
//!
//! The journal mode is PERSIST with synchronous=FULL: a commit is durable when it returns, without a WAL whose
//! checkpoints happen later, and the journal's end is synced too, which DELETE mode leaves to luck. The journal holds
//! pages as they were, wrapped keys among them. Its blocks are never given back, so that [`wipe_journal`] reaches them
//! when a key is destroyed.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use sepal_crypto::{Aad, Key, unwrap_key};
use sepal_types::TenantId;
use serde_json::json;

use crate::{
    AuditAction, ControlError,
    audit::{self, NewAuditEvent, append},
    control::journal_of,
    control_error::Result,
    keys::{
        InstanceKeys,
        tenant_keys::{self, KEY_WHAT, NewKey},
    },
    vault::Vault,
};

/// Written to the file's header; told by `file control.db`.
const APPLICATION_ID: i64 = 0x5345_504c;
/// Rises with every change of the tables or of what is sealed in them, but not with a field that has a default.
const FORMAT: i64 = 4;
/// From this format on the instance keys are rows, wrapped under the root.
const FIRST_WITH_KEYS: i64 = 3;
/// The first format that can be brought to [`FORMAT`].
const OLDEST_FORMAT: i64 = 1;
/// In the associated data of the canary that formats 1 and 2 had.
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

/// What format 3 added. `own`: wrapped by the tenant's own provider before. A tenant's key stood in its row before.
const KEY_TABLES: &str = "
    CREATE TABLE tenant_keys (
        tenant BLOB NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        epoch INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        own INTEGER NOT NULL,
        wrapped_key BLOB NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (tenant, epoch)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tenant_keys_by_generation ON tenant_keys (generation);
    CREATE TABLE audit (number INTEGER PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL) STRICT;
    CREATE TABLE audit_checkpoints (
        number INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        hash BLOB NOT NULL,
        signature BLOB NOT NULL
    ) STRICT;
";

/// Once its keys are in `tenant_keys`. `secure_delete` overwrites the bytes.
const TENANT_KEY_LEAVES: &str = "ALTER TABLE tenants DROP COLUMN wrapped_key;";

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
        "PRAGMA journal_mode = PERSIST;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;",
    )?;
    Ok(())
}

/// Makes the end of a transaction durable whose commit did not say so: a journal that came back after a power cut would
/// undo it.
pub(crate) fn sync_journal(database: &Path) -> Result<()> {
    let path = journal_of(database);
    match File::open(&path).and_then(|journal| journal.sync_all()) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(ControlError::Io { path, source }),
        _ => Ok(()),
    }
}

/// Overwrites the journal, when no transaction needs it: a key that is gone from its row is there still, in the page
/// that the row was on. Durable on return.
pub(crate) fn wipe_journal(connection: &mut Connection, database: &Path) -> Result<()> {
    // While this is held nobody else writes, and so no journal counts.
    let held = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let path = journal_of(database);
    let wiped = OpenOptions::new().write(true).open(&path).and_then(|mut journal| {
        let zeros = vec![0; usize::try_from(journal.metadata()?.len()).unwrap_or(0)];
        journal.write_all(&zeros)?;
        journal.sync_data()
    });
    held.rollback()?;
    match wiped {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(ControlError::Io { path, source }),
        _ => Ok(()),
    }
}

/// Fills an empty file.
pub(crate) fn create(connection: &mut Connection, root: &Key) -> Result<()> {
    create_tables(connection)?;
    let transaction = connection.transaction()?;
    let vault = Vault::fresh(root);
    let roots = vault.roots.read();
    roots.store(&transaction)?;
    vault.instance.store(&transaction, &roots)?;
    audit::begin(&transaction, &vault)?;
    transaction.commit()?;
    Ok(())
}

/// Tables without rows, in an empty file. They are made as a file of an older format gets them, so that both are alike.
pub(crate) fn create_tables(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction()?;
    for step in [TABLES, SECRET_TABLES, KEY_TABLES, TENANT_KEY_LEAVES] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()?;
    Ok(())
}

/// Brings a file that [`check`] accepted to today's format, in one transaction: a crash leaves the old file.
/// Versions of Sepal that knew the old format alone refuse it from then on. Gives whether it did.
pub(crate) fn migrate(connection: &mut Connection, root: &Key, now: i64) -> Result<bool> {
    if format_of(connection)? == FORMAT {
        return Ok(false);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it in between.
    let format = format_of(&transaction)?;
    if format == 1 {
        transaction.execute_batch(SECRET_TABLES)?;
    }
    if format < FORMAT {
        let vault = if format < FIRST_WITH_KEYS {
            with_keys(&transaction, root, now)?
        } else {
            with_head(&transaction, root, now)?
        };
        let event = NewAuditEvent::new(AuditAction::FormatChanged, "control.db")
            .with(json!({ "from": format, "to": FORMAT }));
        append(&transaction, &vault, now, event)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    transaction.commit()?;
    Ok(format < FORMAT)
}

/// From formats 1 and 2: instance keys get rows, each tenant's key becomes its first epoch, the audit trail begins.
fn with_keys(transaction: &Transaction<'_>, root: &Key, now: i64) -> Result<Vault> {
    transaction.execute_batch(KEY_TABLES)?;
    let vault = Vault::of_an_older_format(root);
    {
        let roots = vault.roots.read();
        roots.store(transaction)?;
        vault.instance.store(transaction, &roots)?;
    }
    let wrapping = root.derive("control tenant-key wrapping 1", &[]);
    let mut tenants = transaction.prepare("SELECT id, wrapped_key FROM tenants")?;
    let mut rows = tenants.query([])?;
    while let Some(row) = rows.next()? {
        let (tenant, wrapped): (TenantId, Vec<u8>) = (TenantId(row.get(0)?), row.get(1)?);
        let key = unwrap_key(&wrapping, &Aad::new("tenant-key").tenant(tenant).finish(), &wrapped)
            .map_err(|error| ControlError::Corrupt { what: KEY_WHAT, why: error.to_string() })?;
        let new = NewKey { epoch: 1, own: false, secret: key.expose(), key: &key, now };
        tenant_keys::insert(transaction, &vault, tenant, &new)?;
    }
    drop(rows);
    drop(tenants);
    transaction.execute_batch(TENANT_KEY_LEAVES)?;
    transaction.execute("DELETE FROM meta WHERE name = 'canary'", [])?;
    audit::begin(transaction, &vault)?;
    Ok(vault)
}

/// From format 3: instance keys are bound anew, the audit trail has an end from its beginning.
fn with_head(transaction: &Transaction<'_>, root: &Key, now: i64) -> Result<Vault> {
    let vault = Vault::of_format_3(transaction, root)?;
    vault.instance.store(transaction, &vault.roots.read())?;
    audit::resume(transaction, &vault, now)?;
    Ok(vault)
}

/// Whether the file is ours and of a format we read. Reads only.
pub(crate) fn check_format(connection: &Connection, path: &Path) -> Result<i64> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let format = format_of(connection)?;
    if application != APPLICATION_ID || !(OLDEST_FORMAT..=FORMAT).contains(&format) {
        let format = if application == APPLICATION_ID { format } else { 0 };
        return Err(ControlError::UnsupportedFormat { database: path.to_owned(), format, expected: FORMAT });
    }
    Ok(format)
}

/// The same, and whether it is under this root key now. Reads only.
pub(crate) fn check(connection: &Connection, path: &Path, root: &Key) -> Result<()> {
    let format = check_format(connection, path)?;
    let fits = if format >= FIRST_WITH_KEYS {
        InstanceKeys::are_under(connection, root)?
    } else {
        canary_opens(connection, root)?
    };
    if fits { Ok(()) } else { Err(ControlError::WrongRootKey { database: path.to_owned() }) }
}

/// How formats 1 and 2 told.
fn canary_opens(connection: &Connection, root: &Key) -> Result<bool> {
    let canary: Option<Vec<u8>> = connection
        .query_row("SELECT value FROM meta WHERE name = 'canary'", [], |row| row.get(0))
        .optional()?;
    let aad = Aad::new("control-canary").u64(CANARY_VERSION);
    let opened =
        Vault::of_an_older_format(root).open_bytes("the boot canary", aad, &canary.unwrap_or_default());
    Ok(opened.is_ok_and(|plain| plain.as_slice() == CANARY))
}

fn format_of(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

const _: () = assert!(OLDEST_FORMAT == 1 && FORMAT == 4, "a fifth format needs its own step in `migrate`");

#[cfg(test)]
mod tests;
