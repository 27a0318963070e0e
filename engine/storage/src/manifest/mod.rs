//! What is durable besides the log: tables, their segments, and where the log begins.
//!
//! Checkpoints and `attach_index` commit manifests, `open` reads the newest. Committing one is the only way a
//! segment, a blob or the removal of a log file becomes visible after a restart.
//!
//! ```text
//! <number>.manifest := header | sealed                        numbers are big-endian
//! header := magic "sepalman" 8 | version u16 = 2 or 3 | zero 6 | tenant 16 | number u64
//! sealed := XAES-256-GCM under key {tenant key, "manifest"} of the JSON of [`Manifest`]
//!           associated data = {"manifest 1", header}
//! ```
//! The JSON holds the SHA-256 of the previous manifest's file, so that a chain of kept manifests can be checked.
//! Fields are only ever added, with `#[serde(default)]`. Version 1, which is still read, has none of `time_us`,
//! `snapshots`, `cloned` and `sealed_for`: a program that knows only version 1 would remove what these keep. Version 3
//! is written where a table has CHECK or FOREIGN KEY constraints, which a program from before would leave out.

mod commit;
mod encode;
mod keys;

use std::collections::BTreeMap;

use sepal_types::{ColumnId, FileId, Lsn, RowId, TableDef, TableId};
use serde::{Deserialize, Serialize};

use crate::{arrow_type, paths::DataKind, row_bytes::varies};

#[cfg(test)]
pub(crate) use commit::all_named;
pub(crate) use commit::{commit, newest, numbers, read, remove_others};
#[cfg(test)]
pub(crate) use encode::HEADER_BYTES;
pub(crate) use encode::hex;

/// Files under `segments/` with their lengths.
pub(crate) type FileSizes = BTreeMap<(DataKind, FileId), u64>;

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
    /// When the last commit was made, in microseconds since 1970; 0 in version 1, which does not know.
    #[serde(default)]
    pub time_us: i64,
    /// Manifests that stay until they are dropped by name.
    #[serde(default)]
    pub snapshots: Vec<NamedEntry>,
    /// Files that clones name in the log between the last manifest of an earlier commit and this one: whoever replays
    /// that log needs them.
    #[serde(default)]
    pub cloned: Vec<NamedFile>,
    /// SHA-256, in hex, of the file that this manifest was committed as, where it was sealed anew since: that is what its
    /// successor calls `previous`. Empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub committed: String,
    /// How often it was begun to give all files new keys.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub key_generation: u64,
    /// As long as that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekey: Option<Rekey>,
}

/// What the rotation of file keys has to do away with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rekey {
    /// Every file under `segments/` that was there when it began.
    pub files: Vec<NamedFile>,
    /// The log files before this one.
    pub wal_from: u64,
}

/// A named snapshot: a manifest that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamedEntry {
    pub environment: String,
    pub name: String,
    /// The manifest's number.
    pub manifest: u64,
    pub lsn: Lsn,
    pub time_us: i64,
    pub created_us: i64,
    /// Who created it.
    pub by: String,
    pub comment: Option<String>,
    /// Live rows of the environment's tables.
    pub rows: u64,
}

/// A file under `segments/` that some log names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamedFile {
    pub kind: DataKind,
    #[serde(with = "encode::file_id")]
    pub file: FileId,
    pub bytes: u64,
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
    /// The table under whose id the segment, its deletion vectors and its indexes are sealed; `None`: the table that
    /// the entry is of. A clone's segments are sealed under the id of the table that wrote them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_for: Option<TableId>,
    /// Of `plain_bytes`, those of columns whose values vary in length; `None`: an earlier program wrote it, and the table
    /// has such columns, so all may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable_bytes: Option<u64>,
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
    /// Says of segments that an earlier program wrote what their table tells: where no column varies in length, none of
    /// their bytes do. Else a gigabyte of vectors would count as a full segment of text, and never be merged.
    fn infer_variable_bytes(&mut self) {
        for table in &mut self.tables {
            let varies = table.def.columns.iter().any(|column| varies(&arrow_type(&column.ty)));
            let unknown = table.segments.iter_mut().filter(|segment| segment.variable_bytes.is_none());
            if !varies {
                unknown.for_each(|segment| segment.variable_bytes = Some(0));
            }
        }
    }

    /// Every file under `segments/` that its tables name.
    pub(crate) fn files(&self) -> FileSizes {
        let mut files = FileSizes::new();
        let segments = self.tables.iter().flat_map(|table| &table.segments);
        segments.for_each(|segment| segment.add_files(&mut files));
        files
    }

    /// The hash that the manifest after it has in `previous`; `hash` is its file's.
    pub(crate) fn committed_as<'a>(&'a self, hash: &'a str) -> &'a str {
        if self.committed.is_empty() { hash } else { &self.committed }
    }

    /// Tables may share a segment, each with a deletion vector and indexes of its own.
    pub(crate) fn segment(&self, table: TableId, file: FileId) -> Option<&SegmentEntry> {
        let table = self.tables.iter().find(|entry| entry.def.id == table)?;
        table.segments.iter().find(|segment| segment.file == file)
    }

    pub(crate) fn segment_mut(&mut self, table: TableId, file: FileId) -> Option<&mut SegmentEntry> {
        let table = self.tables.iter_mut().find(|entry| entry.def.id == table)?;
        table.segments.iter_mut().find(|segment| segment.file == file)
    }

    /// Live rows of an environment's tables.
    pub(crate) fn rows(&self, environment: &str) -> u64 {
        let tables = self.tables.iter().filter(|table| table.def.environment == environment);
        let deleted = |segment: &SegmentEntry| segment.deleted.as_ref().map_or(0, |deleted| deleted.rows);
        tables
            .flat_map(|table| &table.segments)
            .map(|segment| u64::from(segment.rows).saturating_sub(deleted(segment)))
            .sum()
    }
}

impl SegmentEntry {
    /// The table under whose id everything of it is sealed, for an entry of `table`.
    pub(crate) fn sealed_for(&self, table: TableId) -> TableId {
        self.sealed_for.unwrap_or(table)
    }

    /// The most that columns whose values vary in length may take in memory.
    pub(crate) fn variable_bytes(&self) -> u64 {
        self.variable_bytes.unwrap_or(self.plain_bytes)
    }

    /// Its files.
    pub(crate) fn add_files(&self, files: &mut FileSizes) {
        files.insert((DataKind::Segment, self.file), self.bytes);
        files.extend(
            self.deleted.iter().map(|vector| ((DataKind::Deleted, vector.blob.file), vector.blob.bytes)),
        );
        files.extend(self.indexes.iter().map(|index| ((DataKind::Index, index.blob.file), index.blob.bytes)));
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// In the form of a manifest.
pub(crate) fn named(files: &FileSizes) -> Vec<NamedFile> {
    files.iter().map(|((kind, file), bytes)| NamedFile { kind: *kind, file: *file, bytes: *bytes }).collect()
}

#[cfg(test)]
mod tests;
