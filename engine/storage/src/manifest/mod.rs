//! What is durable besides the log: tables, their segments, and where the log begins.
//!
//! Checkpoints and `attach_index` commit manifests, `open` reads the newest. Committing one is the only way a
//! segment, a blob or the removal of a log file becomes visible after a restart.
//!
//! ```text
//! <number>.manifest := header | sealed                        numbers are big-endian
//! header := magic "sepalman" 8 | version u16 = 1 | zero 6 | tenant 16 | number u64
//! sealed := XAES-256-GCM under key {tenant key, "manifest"} of the JSON of [`Manifest`]
//!           associated data = {"manifest 1", header}
//! ```
//! The JSON holds the SHA-256 of the previous manifest's file, so that a chain of kept manifests can be checked.
//! Fields are only ever added, with `#[serde(default)]`.

mod commit;
mod encode;
mod read;

use std::collections::BTreeSet;

use sepal_types::{ColumnId, FileId, Lsn, RowId, TableDef, TableId};
use serde::{Deserialize, Serialize};

use crate::paths::DataKind;

pub(crate) use commit::{commit, newest, remove_older};
pub(crate) use read::read;

/// Everything that recovery needs besides the log files from `wal_from` on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Counts up by one; also the file's name.
    pub number: u64,
    /// SHA-256 of the previous manifest's file, in hex; empty for the first.
    pub previous: String,
    /// The last commit whose effects the segments hold.
    pub lsn: Lsn,
    /// The first log file to replay.
    pub wal_from: u64,
    pub next_object: u32,
    pub tables: Vec<TableEntry>,
    /// Next values of serials: table, column, value.
    pub sequences: Vec<(TableId, ColumnId, i64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableEntry {
    pub def: TableDef,
    pub next_row: RowId,
    pub segments: Vec<SegmentEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SegmentEntry {
    #[serde(with = "encode::file_id")]
    pub file: FileId,
    pub rows: u32,
    pub first_row: RowId,
    pub last_row: RowId,
    /// The file's length.
    pub bytes: u64,
    /// The rows' size in memory.
    pub plain_bytes: u64,
    /// The file's key, wrapped under the tenant's.
    #[serde(with = "encode::hex")]
    pub key: Vec<u8>,
    #[serde(default)]
    pub deleted: Option<DeletedEntry>,
    #[serde(default)]
    pub indexes: Vec<IndexEntry>,
}

/// A segment's deletion vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeletedEntry {
    /// Deleted rows. Vectors only grow, so equal counts mean equal vectors.
    pub rows: u64,
    pub blob: BlobEntry,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct IndexEntry {
    pub index: TableId,
    pub blob: BlobEntry,
}

/// A sealed file with its wrapped key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BlobEntry {
    #[serde(with = "encode::file_id")]
    pub file: FileId,
    pub bytes: u64,
    #[serde(with = "encode::hex")]
    pub key: Vec<u8>,
}

impl Manifest {
    /// Every file under `segments/` that this manifest names.
    pub(crate) fn files(&self) -> BTreeSet<(DataKind, FileId)> {
        let mut files = BTreeSet::new();
        for segment in self.tables.iter().flat_map(|table| &table.segments) {
            files.insert((DataKind::Segment, segment.file));
            files.extend(segment.deleted.iter().map(|deleted| (DataKind::Deleted, deleted.blob.file)));
            files.extend(segment.indexes.iter().map(|index| (DataKind::Index, index.blob.file)));
        }
        files
    }

    pub(crate) fn segment(&self, file: FileId) -> Option<&SegmentEntry> {
        self.tables.iter().flat_map(|table| &table.segments).find(|segment| segment.file == file)
    }

    pub(crate) fn segment_mut(&mut self, file: FileId) -> Option<&mut SegmentEntry> {
        self.tables.iter_mut().flat_map(|table| &mut table.segments).find(|segment| segment.file == file)
    }
}

#[cfg(test)]
mod tests;
