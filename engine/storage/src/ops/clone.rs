//! What a clone shares with the table that it was made from: segments by name, each with what was deleted of it.
//!
//! `history` makes it, the log carries it, `store::load` finds the named files again. The deletion vectors travel in
//! the log itself: a checkpoint may have replaced the source's meanwhile.

use roaring::RoaringBitmap;
use sepal_types::{RowId, TableDef, TableId};
use serde::{Deserialize, Serialize};

use crate::{
    ChunkRef, StoreError,
    manifest::{FileSizes, SegmentEntry, hex},
};

/// Where a clone's rows come from. Opaque: made by [`crate::TenantStore::clone_ops`].
#[derive(Clone, Debug)]
pub struct CloneSource {
    /// The table that was cloned.
    pub(crate) table: TableId,
    /// Above every row id of the segments.
    pub(crate) next_row: RowId,
    pub(crate) segments: Vec<ClonedSegment>,
    /// The segments, opened, in their order. Empty in what was just read from the log.
    pub(crate) chunks: Vec<ChunkRef>,
}

/// A segment, and what the clone does not see of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClonedSegment {
    /// Without a deletion vector; with the clone's own index ids.
    pub entry: SegmentEntry,
    /// A serialised roaring bitmap of positions; empty for none.
    #[serde(with = "hex")]
    pub deleted: Vec<u8>,
}

/// The op's body in the log.
#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    def: TableDef,
    of: TableId,
    next_row: RowId,
    segments: Vec<ClonedSegment>,
}

impl Body {
    pub(super) fn of(def: &TableDef, source: &CloneSource) -> Self {
        Self {
            def: def.clone(),
            of: source.table,
            next_row: source.next_row,
            segments: source.segments.clone(),
        }
    }

    pub(super) fn into_parts(self) -> (TableDef, CloneSource) {
        let Self { def, of, next_row, segments } = self;
        (def, CloneSource { table: of, next_row, segments, chunks: Vec::new() })
    }
}

/// The chunks are what the segments name, opened: they say nothing more.
impl PartialEq for CloneSource {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table && self.next_row == other.next_row && self.segments == other.segments
    }
}

impl CloneSource {
    /// The clone's first chunks.
    ///
    /// Errors: [`StoreError::Bug`] when nobody has opened the segments.
    pub(crate) fn opened(&self) -> Result<Vec<ChunkRef>, StoreError> {
        if self.chunks.len() != self.segments.len() {
            return Err(StoreError::Bug(format!(
                "a clone of table {} has {} segments, {} of them open",
                self.table,
                self.segments.len(),
                self.chunks.len()
            )));
        }
        Ok(self.chunks.clone())
    }

    /// Every file under `segments/` that it names.
    pub(crate) fn files(&self) -> FileSizes {
        let mut files = FileSizes::new();
        self.segments.iter().for_each(|segment| segment.entry.add_files(&mut files));
        files
    }
}

impl ClonedSegment {
    pub(crate) fn new(entry: SegmentEntry, deleted: &RoaringBitmap) -> Result<Self, StoreError> {
        let mut bytes = Vec::new();
        if !deleted.is_empty() {
            bytes.reserve(deleted.serialized_size());
            deleted.serialize_into(&mut bytes).map_err(|error| StoreError::Bug(error.to_string()))?;
        }
        Ok(Self { entry, deleted: bytes })
    }

    pub(crate) fn deleted(&self) -> Result<RoaringBitmap, String> {
        if self.deleted.is_empty() {
            return Ok(RoaringBitmap::new());
        }
        RoaringBitmap::deserialize_from(self.deleted.as_slice()).map_err(|error| error.to_string())
    }
}
