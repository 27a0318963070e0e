//! What can go wrong in control, in detail; [`sepal_types::Error`] is what leaves the engine.
//!
//! Wrong secret, unknown key id, revoked and expired key are one variant on purpose: the caller must not be
//! able to tell them apart.

use std::{io::ErrorKind, path::PathBuf};

use rusqlite::ErrorCode;
use sepal_types::{Error, SqlState, TenantId};
use thiserror::Error as ThisError;

use crate::keys::WrapperError;

pub(crate) type Result<T, E = ControlError> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, ThisError)]
pub enum ControlError {
    /// The root key's file. The process should exit with 78 (`EX_CONFIG`).
    #[error(transparent)]
    RootKey(#[from] RootKeyError),
    /// The boot canary did not open. Nothing was written. The process should exit with 78 (`EX_CONFIG`).
    #[error(
        "the root key does not open {}: the data directory is under another one. Nothing was written. Start with \
         the key that `init` made for this directory, or that replaced it; if it is lost, have it back from the \
         recovery key (sepal recover)", .database.display()
    )]
    WrongRootKey { database: PathBuf },
    #[error(
        "{} does not exist. If it did, restore it from a backup: nothing opens without it. Otherwise look at --data, \
         or make a database with `sepal init`", .0.display()
    )]
    NoDatabase(PathBuf),
    #[error("{} exists already and is not overwritten: open it, or initialise another directory", .0.display())]
    DatabaseExists(PathBuf),
    #[error(
        "{} is not a control database this version reads (format {format}, expected {expected}): \
         start the version of Sepal that wrote it, or a newer one", .database.display()
    )]
    UnsupportedFormat { database: PathBuf, format: i64, expected: i64 },
    /// Wrong secret, unknown, revoked or expired key.
    #[error("authentication failed")]
    NotAuthenticated,
    #[error("{what} \"{name}\" does not exist")]
    NotFound { what: &'static str, name: String },
    #[error("{what} \"{name}\" already exists")]
    AlreadyExists { what: &'static str, name: String },
    #[error("\"{name}\" is no name for {what}: use 1 to 63 of a-z, 0-9, '-' and '_'")]
    InvalidName { what: &'static str, name: String },
    #[error(
        "\"{0}\" is no name for a secret or a certificate: begin with a letter or a digit, go on with letters, \
         digits, '-' and '_', 63 at most"
    )]
    InvalidSecretName(String),
    /// As environment variables two secrets would be the same one.
    #[error(
        "secret \"{name}\" would be the environment variable {variable}, which secret \"{first}\" is already: \
         choose a name that differs in more than '-', '_' and case"
    )]
    SecretCollision { name: String, variable: String, first: String },
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    LimitReached(String),
    /// Somebody else is at it, or was faster.
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    NotInState(String),
    /// A control.db from a backup, whose tenants' keys lie apart.
    #[error(
        "the keys of tenant {0} are not in control.db: restore them from the backup that this file is from"
    )]
    NoTenantKeys(TenantId),
    /// The tenant's own provider does not answer, or refuses.
    #[error("the key of tenant {tenant} cannot be had from the tenant's own provider: {why}")]
    OwnKey { tenant: TenantId, why: WrapperError },
    /// A stored value does not open or parse.
    #[error("control.db is damaged: {what} does not open ({why}). Restore the file from a backup")]
    Corrupt { what: &'static str, why: String },
    #[error("control.db: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// Why a key's file was not read. Which key's, whoever asked for it says before.
#[derive(Debug, ThisError)]
pub enum KeyFileError {
    #[error("key file {} cannot be opened: {source}", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("key file {} is not a regular file", .path.display())]
    NotAFile { path: PathBuf },
    #[error(
        "key file {path} has mode {mode:04o}, so others than its owner may use it. Run: chmod 600 {path}",
        path = .path.display()
    )]
    ModeTooWide { path: PathBuf, mode: u32 },
    #[error(
        "key file {path} belongs to user {owner}, but this process runs as user {user}. Run: chown {user} {path}",
        path = .path.display()
    )]
    WrongOwner { path: PathBuf, owner: u32, user: u32 },
    #[error(
        "key file {} does not hold 64 hexadecimal digits and a newline. Restore it from its backup", .path.display()
    )]
    Malformed { path: PathBuf },
}

/// Why the root key was not read or made.
#[derive(Debug, ThisError)]
pub enum RootKeyError {
    #[error("the root {0}")]
    File(KeyFileError),
    #[error(
        "there is no root key file {}. If the key is kept elsewhere, name its file (--root-key-file); if a passphrase \
         or a provider wraps it, root.seal is missing from the data directory. Restore the file from its backup, or \
         use the recovery key (sepal recover): without one of them the data cannot be opened", .path.display()
    )]
    Missing { path: PathBuf },
    #[error(
        "the root key file {} does not hold 64 hexadecimal digits and a newline. Restore it from its backup, or use \
         the recovery key (sepal recover): without one of them the data cannot be opened", .path.display()
    )]
    Malformed { path: PathBuf },
    #[error(
        "{} exists already: a root key is never overwritten, because all data under it would be lost. \
         Use it, or name another file", .path.display()
    )]
    Exists { path: PathBuf },
    #[error("the root key file {} cannot be written: {source}", .path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error(
        "the root key file {} cannot be replaced: {source}. Nothing was changed. A file that is mounted by itself, as \
         into a container, never can: mount its directory instead", .path.display()
    )]
    NotReplaceable { path: PathBuf, source: std::io::Error },
    /// It is replaced, but the file with it has not taken its place.
    #[error(
        "the root key is replaced, but {staged}, which holds it, cannot take the place of {path}: {source}. Keep \
         {staged}: without it nothing opens. The next start takes it, and so does `sepal root rotate`",
        staged = .staged.display(), path = .path.display()
    )]
    NotInPlace { path: PathBuf, staged: PathBuf, source: std::io::Error },
    /// Nobody knows yet which of two files counts.
    #[error(
        "whether the root key was replaced is not known: {why}. One key is in {path}, the other in {staged}: keep \
         both, and start the server again, which takes the one that opens control.db",
        staged = .staged.display(), path = .path.display()
    )]
    Unsettled { path: PathBuf, staged: PathBuf, why: String },
    /// The provider that wraps it.
    #[error("the root key cannot be had from {provider}: {why}")]
    Provider { provider: String, why: WrapperError },
    #[error(
        "{} cannot be used: {why}. Restore it from its backup, or use the recovery key (sepal recover)",
        .path.display()
    )]
    BadSeal { path: PathBuf, why: String },
}

impl From<KeyFileError> for RootKeyError {
    fn from(error: KeyFileError) -> Self {
        match error {
            // There is another way to the root key.
            KeyFileError::Malformed { path } => Self::Malformed { path },
            KeyFileError::Unreadable { path, source } if source.kind() == ErrorKind::NotFound => {
                Self::Missing { path }
            }
            other => Self::File(other),
        }
    }
}

impl ControlError {
    /// Whether the operator must mend the configuration before starting again (exit status 78, `EX_CONFIG`).
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::RootKey(_) | Self::WrongRootKey { .. })
    }

    /// The error for a client that tried to log in as `user`.
    pub fn for_login(self, user: &str) -> Error {
        match self {
            Self::NotAuthenticated => Error::new(
                SqlState::InvalidPassword,
                format!("password authentication failed for user \"{user}\""),
            ),
            other => other.into(),
        }
    }

    pub(crate) fn own_key(tenant: TenantId, why: WrapperError) -> Self {
        Self::OwnKey { tenant, why }
    }

    /// Its keys are used, but nobody opened it.
    pub(crate) fn own_key_not_asked(tenant: TenantId) -> Self {
        Self::own_key(tenant, WrapperError::Unavailable("it was not asked yet".into()))
    }

    /// What clients are told instead: which file it is and where the key lies is the operator's to know.
    fn for_clients(&self) -> Option<String> {
        match self {
            Self::OwnKey { tenant, .. } => {
                Some(format!("the key of tenant {tenant} cannot be had from the tenant's own provider"))
            }
            Self::RootKey(_)
            | Self::WrongRootKey { .. }
            | Self::NoDatabase(_)
            | Self::DatabaseExists(_)
            | Self::UnsupportedFormat { .. }
            | Self::NoTenantKeys(_)
            | Self::Corrupt { .. }
            | Self::Database(_)
            | Self::Io { .. } => Some("the server's control data cannot be used".to_owned()),
            Self::NotAuthenticated
            | Self::NotFound { .. }
            | Self::AlreadyExists { .. }
            | Self::InvalidName { .. }
            | Self::InvalidSecretName(_)
            | Self::SecretCollision { .. }
            | Self::InvalidArgument(_)
            | Self::LimitReached(_)
            | Self::Busy(_)
            | Self::NotInState(_) => None,
        }
    }

    const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::OwnKey { why: WrapperError::Unavailable(_), .. } => {
                Some("Other tenants are not affected. Try again when the provider answers.")
            }
            Self::OwnKey { .. } => Some(
                "Other tenants are not affected. `sepal tenant byok status` shows the provider; whoever runs it \
                 decides.",
            ),
            _ => None,
        }
    }

    fn state(&self) -> SqlState {
        match self {
            Self::RootKey(_) | Self::WrongRootKey { .. } => SqlState::InvalidAuthorization,
            Self::NoDatabase(_) | Self::DatabaseExists(_) => SqlState::ObjectNotInPrerequisiteState,
            Self::UnsupportedFormat { .. } => SqlState::FeatureNotSupported,
            Self::NotAuthenticated => SqlState::InvalidPassword,
            Self::NotFound { .. } => SqlState::UndefinedObject,
            Self::AlreadyExists { .. } | Self::SecretCollision { .. } => SqlState::DuplicateObject,
            Self::InvalidName { .. } | Self::InvalidSecretName(_) => SqlState::InvalidName,
            Self::InvalidArgument(_) => SqlState::InvalidParameterValue,
            Self::LimitReached(_) => SqlState::ProgramLimitExceeded,
            Self::Busy(_) => SqlState::ObjectInUse,
            Self::NotInState(_) | Self::NoTenantKeys(_) => SqlState::ObjectNotInPrerequisiteState,
            Self::OwnKey { why: WrapperError::Unavailable(_), .. } => SqlState::CannotConnectNow,
            Self::OwnKey { .. } => SqlState::SystemError,
            Self::Corrupt { .. } => SqlState::DataCorrupted,
            Self::Database(error) => sqlite_state(error),
            Self::Io { .. } => SqlState::IoError,
        }
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        let hint = error.hint();
        let known = match error.for_clients() {
            Some(message) => Self::new(error.state(), message).with_private(error.to_string()),
            None => Self::new(error.state(), error.to_string()),
        };
        if let Some(hint) = hint { known.with_hint(hint) } else { known }
    }
}

impl From<RootKeyError> for Error {
    fn from(error: RootKeyError) -> Self {
        ControlError::from(error).into()
    }
}

fn sqlite_state(error: &rusqlite::Error) -> SqlState {
    if matches!(
        error,
        rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::SqlInputError { .. }
    ) {
        return SqlState::DataCorrupted;
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => SqlState::DiskFull,
        Some(ErrorCode::OutOfMemory) => SqlState::OutOfMemory,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SqlState::LockNotAvailable,
        // The last: what SQLite is asked is always the same, so a file that it does not fit has another schema than was
        // made.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            SqlState::DataCorrupted
        }
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied,
        ) => SqlState::IoError,
        _ => SqlState::InternalError,
    }
}
