//! How long objects may be that are read into memory: whoever can write to a repository must not end the server with one.
//! What we store ourselves is checked before, so that nothing is stored that would not be read again.

use sepal_database::{Error, Result, SqlState};

/// An entry, a census: some kilobytes for each tenant.
pub(crate) const ENTRY_BYTES: u64 = 256 << 20;
/// All sets of one tenant's keys: some hundred bytes for each epoch of each set.
pub(crate) const KEYS_BYTES: u64 = 4 << 20;
/// A recovery package, what a verification found, the repository's identity.
pub(crate) const SMALL_BYTES: u64 = 64 << 10;
/// A part of a log file: it is hashed before it is named.
pub(crate) const LOG_PART_BYTES: u64 = 16 << 20;

/// Errors: 54000 it is longer than what is read.
pub(crate) fn check(name: &str, bytes: &[u8], most: u64) -> Result<()> {
    if bytes.len() as u64 <= most {
        return Ok(());
    }
    let why = format!("{name} would have {} bytes, and no more than {most} are read", bytes.len());
    Err(Error::new(SqlState::ProgramLimitExceeded, why)
        .with_hint("Back up fewer tenants with one server, or prune old backups."))
}
