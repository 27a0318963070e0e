//! One tenant's files at one commit, kept as long as somebody copies them.
//!
//! The manifest is pinned first, and the log from it on with it; the snapshot is taken last: what is copied then is the
//! manifest, its files, and the log up to the snapshot's commit. Writers go on meanwhile; what they add comes after.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sepal_storage::{LogFileInfo, ManifestPin, PinnedFile, Snapshot};
use sepal_types::{FileId, Lsn, Result, TenantId};

use super::TableFacts;
use crate::{
    Database,
    tenant::{OpenTenant, directory},
    tenants::Seat,
};

/// A file to copy, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedFile {
    /// Within the tenant's directory, with `/`: `segments/<id>.parquet`.
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
}

/// A log file to copy, up to a length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    pub number: u64,
    pub file: FileId,
    pub path: PathBuf,
    /// Up to here it will not change.
    pub bytes: u64,
    /// The last commit before it.
    pub base_lsn: Lsn,
    /// How long the file before it was when this one was begun.
    pub previous_bytes: u64,
    pub finished: bool,
}

/// See the module. Dropping it lets the files go.
pub struct TenantPin {
    pub tenant: TenantId,
    /// The commit that a restore ends with.
    pub lsn: Lsn,
    /// When that was, in microseconds since 1970.
    pub time_us: i64,
    /// The newest manifest, and those of named snapshots.
    pub manifests: Vec<CopiedFile>,
    /// Segments, deletion vectors, indexes.
    pub files: Vec<CopiedFile>,
    pub log: Vec<LogPiece>,
    snapshot: Snapshot,
    /// The tenant stays open as long as its files are copied.
    _seat: Seat,
    manifest: ManifestPin,
}

impl TenantPin {
    /// Blocks.
    pub(super) fn take(database: &Database, (opened, seat): (Arc<OpenTenant>, Seat)) -> Result<Self> {
        let store = &opened.store;
        let mut pinned = store.pin_manifest()?;
        let snapshot = store.snapshot();
        // Waits for the commit that the snapshot ends with to be known as durable.
        store.log_end();
        let root = directory(database.data_dir(), opened.id);
        let log = store.log_files(pinned.wal_from)?;
        // A clone that was committed since the pin may share what is newer than the manifest.
        store.pin_cloned(&mut pinned);
        let (manifests, files) = pinned
            .files
            .iter()
            .map(|file| CopiedFile::new(&root, file))
            .partition(|file: &CopiedFile| file.name.starts_with("manifest/"));
        Ok(Self {
            tenant: opened.id,
            lsn: snapshot.lsn(),
            time_us: snapshot.time_us(),
            manifests,
            files,
            log: log.iter().map(|info| LogPiece::new(&root, info)).collect(),
            snapshot,
            _seat: seat,
            manifest: pinned,
        })
    }

    /// Reads every row of every table. Blocks.
    pub fn facts(&self) -> Result<Vec<TableFacts>> {
        self.snapshot.tables().map(|version| TableFacts::of(self.tenant, version)).collect()
    }
}

impl CopiedFile {
    pub(super) fn new(root: &Path, file: &PinnedFile) -> Self {
        Self { name: file.path.display().to_string(), path: root.join(&file.path), bytes: file.bytes }
    }
}

impl LogPiece {
    pub(super) fn new(root: &Path, info: &LogFileInfo) -> Self {
        Self {
            number: info.number,
            file: info.file,
            path: root.join("wal").join(format!("{:016x}.wal", info.number)),
            bytes: info.bytes,
            base_lsn: info.base_lsn,
            previous_bytes: info.previous_bytes,
            finished: info.finished,
        }
    }
}

impl std::fmt::Debug for TenantPin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantPin")
            .field("tenant", &self.tenant)
            .field("lsn", &self.lsn)
            .field("manifest", &self.manifest.number)
            .finish_non_exhaustive()
    }
}
