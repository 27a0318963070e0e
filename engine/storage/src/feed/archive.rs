//! The log's files as whoever copies them needs to know them: which there are, and how far each will never change.
//!
//! `database::backup` asks. It reads the files itself, by their names, while a [`crate::LogHold`] or a pinned manifest
//! keeps them. Nothing here opens a frame.

use std::path::Path;

use sepal_types::{FileId, Lsn};

use crate::{
    StoreError, TenantStore,
    disk::io_error,
    paths::{Paths, number},
    wal::{self, LogFile},
};

/// A log file, as far as it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFileInfo {
    pub number: u64,
    /// The random id in its header: two files of one number, from before and after a restore, differ in it.
    pub file: FileId,
    /// The last commit before it.
    pub base_lsn: Lsn,
    /// Up to here its bytes are durable and stay as they are.
    pub bytes: u64,
    /// A newer file follows: it will not grow.
    pub finished: bool,
}

/// The log files of a store that nobody has open, by what stands in their directory: nothing is opened. Empty for a
/// store that was never made. After a crash the last one may end in a torn frame.
pub fn closed_log_files(dir: &Path) -> Result<Vec<LogFileInfo>, StoreError> {
    let paths = Paths::new(dir);
    let failed = |error: std::io::Error| io_error("read", &paths.wal(), &error);
    let entries = match std::fs::read_dir(paths.wal()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let Some(number) = number(&entry.file_name().to_string_lossy(), "wal") else { continue };
        let bytes = entry.metadata().map_err(failed)?.len();
        if let Some((file, base_lsn)) = wal::peek(&entry.path()).map_err(failed)? {
            files.push(LogFileInfo { number, file, base_lsn, bytes, finished: true });
        }
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

impl TenantStore {
    /// The log files with this number and above, without a gap up to the newest.
    ///
    /// Errors: [`StoreError::Corrupt`] for a file whose header does not open.
    pub fn log_files(&self, from: u64) -> Result<Vec<LogFileInfo>, StoreError> {
        let (spans, current) = self.log.spans(from);
        spans
            .into_iter()
            .map(|span| {
                let file = LogFile::open(&self.wal_log(), span.number)?.id();
                let finished = span.number != current;
                Ok(LogFileInfo {
                    number: span.number,
                    file,
                    base_lsn: span.base_lsn,
                    bytes: span.bytes,
                    finished,
                })
            })
            .collect()
    }
}
