//! The log's files as whoever copies them needs to know them: which there are, and how far each will never change.
//!
//! `database::backup` asks. It reads the files itself, by their names, while a [`crate::LogHold`] or a pinned manifest
//! keeps them. Nothing here opens a frame.

use std::path::Path;

use sepal_types::{FileId, Lsn};

use crate::{
    StoreError, TenantStore,
    disk::{Disk, io_error},
    manifest,
    paths::{Paths, number},
    wal,
};

/// A log file, as far as it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFileInfo {
    pub number: u64,
    /// The random id in its header: two files of one number, from before and after a restore, differ in it.
    pub file: FileId,
    /// The last commit before it.
    pub base_lsn: Lsn,
    /// How long the file before it was when this one was begun. Nothing that replays both does with less of it.
    pub previous_bytes: u64,
    /// Up to here its bytes are durable and stay as they are.
    pub bytes: u64,
    /// A newer file follows: it will not grow.
    pub finished: bool,
}

/// The log files of a store that nobody has open, by what stands in their directory: nothing is opened. Empty for a
/// store that was never made. After a crash the last one may end in a torn frame.
pub fn closed_log_files(dir: &Path) -> Result<Vec<LogFileInfo>, StoreError> {
    let paths = Paths::new(dir);
    let logs = paths.wal();
    if !logs.try_exists().map_err(|error| io_error("read", &logs, &error))? {
        return Ok(Vec::new());
    }
    let local = Disk::default();
    let mut files = Vec::new();
    for name in local.list(&logs)? {
        let Some(number) = number(&name, "wal") else { continue };
        let path = paths.wal_file(number);
        let bytes = local.length(&path)?;
        if let Some((file, base_lsn, previous_bytes)) = wal::peek(&local, &path)? {
            files.push(LogFileInfo { number, file, base_lsn, previous_bytes, bytes, finished: true });
        }
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// The number of the newest manifest of such a store: what a name of a snapshot, a merge or another key of a file makes
/// of it is in no log. `None` for a store that was never made.
pub fn closed_manifest(dir: &Path) -> Result<Option<u64>, StoreError> {
    let paths = Paths::new(dir);
    let manifests = paths.manifests();
    if !manifests.try_exists().map_err(|error| io_error("read", &manifests, &error))? {
        return Ok(None);
    }
    Ok(manifest::numbers(&Disk::default(), &paths)?.last().copied())
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
                let file = self.log_file(span.number)?;
                Ok(LogFileInfo {
                    number: span.number,
                    file: file.id(),
                    base_lsn: span.base_lsn,
                    previous_bytes: file.previous_length(),
                    bytes: span.bytes,
                    finished: span.number != current,
                })
            })
            .collect()
    }
}
