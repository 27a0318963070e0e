//! What can go wrong in a tenant's store, and how that looks from outside.
//!
//! Every public call of this crate returns [`StoreError`]; `query` and `database` turn it into
//! [`sepal_types::Error`] with `?`. Messages never hold key material or row bytes, except the key of a unique
//! violation, which Postgres shows too.

use std::io;

use arrow::error::ArrowError;
use sepal_crypto::OpenError;
use sepal_types::{Error, Lsn, SqlState, TableId};
use thiserror::Error as ThisError;

/// An error of a [`crate::TenantStore`]. Cloned to every commit of a group that failed together.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum StoreError {
    /// A row with this key exists. `columns` and `key_text` are comma-separated, as Postgres' DETAIL shows them.
    #[error("duplicate key value violates unique constraint \"{constraint}\" of table \"{table}\"")]
    UniqueViolation { schema: Box<str>, table: String, constraint: String, columns: String, key_text: String },
    /// A column that is to become NOT NULL has NULLs.
    #[error("column \"{column}\" of relation \"{table}\" contains null values")]
    NullValues { table: String, column: String },
    /// A row or definition that this transaction changes was changed since the transaction's snapshot.
    #[error("table \"{table}\" was changed by a concurrent transaction")]
    WriteConflict { table: String },
    /// A table or index of that name exists in the environment.
    #[error("relation \"{0}\" already exists")]
    DuplicateTable(String),
    /// The table was dropped, or never existed.
    #[error("table {0} does not exist")]
    NoSuchTable(TableId),
    /// A pipeline reads the table, so the log would have to carry what the commit deletes.
    #[error(
        "a transaction deletes more than {limit_mib} MiB of table \"{table}\", whose changes a pipeline reads"
    )]
    TooMuchDeleted { table: String, limit_mib: u64 },
    /// The tenant has more tables and segments than one manifest names.
    #[error("the tenant's tables and segments need a manifest of {bytes} bytes, {limit} are the most")]
    ManifestTooLarge { bytes: usize, limit: usize },
    /// Log files that somebody wanted to read changes from were removed.
    #[error("the log no longer has the changes after commit {after}: it begins after commit {oldest}")]
    LogGone { after: Lsn, oldest: Lsn },
    /// A moment of the past that was let go of.
    #[error("the past at {asked} is not kept: it begins at {oldest}")]
    NoSuchPast { asked: String, oldest: String },
    /// A moment in the future.
    #[error("{asked} lies in the future: now is {newest}")]
    NotYet { asked: String, newest: String },
    /// No snapshot of that name.
    #[error("snapshot \"{name}\" does not exist")]
    NoSuchSnapshot { name: String },
    /// A snapshot of that name exists in the environment.
    #[error("snapshot \"{name}\" already exists")]
    DuplicateSnapshot { name: String },
    /// No room on the device. The commit left nothing behind; the store works on once room is made.
    #[error("no space left on the device while writing {file}")]
    DiskFull { file: String },
    /// The operating system refused a read or write.
    #[error("cannot {action} {file}: {why}")]
    Io { action: &'static str, file: String, why: String },
    /// Stored bytes are damaged, missing or from elsewhere. Nothing was changed.
    #[error("{file} is damaged: {why}")]
    Corrupt { file: String, why: String },
    /// An earlier write or fsync failed, so what is on disk is unknown: the store must be opened again.
    #[error("the store takes no more writes: {why}")]
    Poisoned { why: String },
    /// Background work was told to end. It left nothing behind.
    #[error("canceling statement due to user request")]
    Stopped,
    /// The caller broke this crate's contract (a batch that does not match its table, say).
    #[error("{0}")]
    Bug(String),
    /// The schema was dropped, or never existed.
    #[error("schema \"{0}\" does not exist")]
    NoSuchSchema(String),
    /// A schema of that name exists in the environment.
    #[error("schema \"{0}\" already exists")]
    DuplicateSchema(String),
    /// A column that is added has a default that so many rows, which are together, cannot all have.
    #[error("the default of column \"{column}\" takes more than 2 GiB in {rows} rows")]
    DefaultTooLarge { column: String, rows: u32 },
    /// A row that is inserted has a value that no segment can hold.
    #[error("a value of column \"{column}\" is larger than 1 GiB")]
    ValueTooLarge { column: String },
}

impl StoreError {
    pub(crate) fn corrupt(file: &str, why: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), why: why.into() }
    }

    /// A failed system call. Full devices and quotas are told apart because the store survives them.
    pub(crate) fn io(action: &'static str, file: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { file: file.to_owned() }
            }
            _ => Self::Io { action, file: file.to_owned(), why: error.to_string() },
        }
    }

    /// Sealed bytes that did not open.
    pub(crate) fn sealed(file: &str, error: OpenError) -> Self {
        Self::corrupt(file, error.to_string())
    }
}

/// An Arrow kernel refused arrays that this crate itself made or checked.
impl From<ArrowError> for StoreError {
    fn from(error: ArrowError) -> Self {
        Self::Bug(format!("arrow: {error}"))
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::UniqueViolation { schema, table, constraint, columns, key_text } => {
                let message = format!("duplicate key value violates unique constraint \"{constraint}\"");
                Error::new(SqlState::UniqueViolation, message)
                    .with_detail(format!("Key ({columns})=({key_text}) already exists."))
                    .with_constraint(schema.as_ref(), table, constraint)
            }
            StoreError::NullValues { .. } => Error::new(SqlState::NotNullViolation, text),
            StoreError::WriteConflict { table } => {
                let message = "could not serialize access due to concurrent update";
                Error::new(SqlState::SerializationFailure, message)
                    .with_detail(format!("Table \"{table}\" was changed since the transaction's snapshot."))
                    .with_hint("Retry the transaction.")
            }
            StoreError::DuplicateTable(_) => Error::new(SqlState::DuplicateTable, text),
            StoreError::NoSuchTable(_) => Error::new(SqlState::UndefinedTable, text),
            StoreError::TooMuchDeleted { .. } => Error::new(SqlState::ProgramLimitExceeded, text)
                .with_hint("Delete in parts, each a transaction of its own."),
            StoreError::ManifestTooLarge { .. } => Error::new(SqlState::ProgramLimitExceeded, text)
                .with_hint("Drop tables, or move some to another tenant."),
            StoreError::LogGone { .. } => Error::new(SqlState::ObjectNotInPrerequisiteState, text).with_hint(
                "Reset the pipeline, so that it starts again from the table as it is. If it fell behind, give it more \
                 room in the log.",
            ),
            StoreError::NoSuchPast { .. } => Error::new(SqlState::ObjectNotInPrerequisiteState, text).with_hint(
                "The past is kept for some time only (history_minutes). What is to stay longer needs a name: \
                 CREATE SNAPSHOT.",
            ),
            StoreError::NotYet { .. } => Error::new(SqlState::InvalidParameterValue, text),
            StoreError::NoSuchSnapshot { .. } => Error::new(SqlState::UndefinedObject, text)
                .with_hint("SELECT name FROM sepal_snapshots shows those of this environment."),
            StoreError::DuplicateSnapshot { .. } => Error::new(SqlState::DuplicateObject, text),
            StoreError::DiskFull { .. } => Error::new(SqlState::DiskFull, text)
                .with_hint("Make room on the device and repeat the statement."),
            StoreError::Io { .. } => Error::new(SqlState::IoError, text)
                .with_hint("Check the device and the server's log, then restart the server."),
            StoreError::Corrupt { .. } => Error::new(SqlState::DataCorrupted, text)
                .with_hint("Restore the named file from a backup. Nothing was changed."),
            StoreError::Poisoned { .. } => Error::new(SqlState::IoError, text)
                .with_hint("Restart the server: it recovers every acknowledged write from the log."),
            StoreError::Stopped => Error::new(SqlState::QueryCanceled, text),
            StoreError::Bug(_) => Error::bug(text),
            StoreError::NoSuchSchema(_) => Error::new(SqlState::InvalidSchemaName, text),
            StoreError::DuplicateSchema(_) => Error::new(SqlState::DuplicateSchema, text),
            StoreError::DefaultTooLarge { .. } => Error::new(SqlState::ProgramLimitExceeded, text)
                .with_hint("Add the column without a default, set the default, and update the rows."),
            StoreError::ValueTooLarge { .. } => Error::new(SqlState::ProgramLimitExceeded, text),
        }
    }
}

#[cfg(test)]
mod tests;
