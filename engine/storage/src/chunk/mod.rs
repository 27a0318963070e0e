//! A chunk: an immutable run of a table's rows, in memory or in a sealed segment.
//!
//! `query` scans chunks and asks them for columns and index blobs; `snapshot` looks up rows and keys in them.
//! A chunk never changes. What is deleted stands beside it, in the [`ChunkRef`] of each snapshot.

mod cache;
mod deletions;
mod fair;
mod keys;
mod memory;
mod missing;
mod near;
mod sealed;

use std::{fmt, ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, UInt32Array, UInt64Array},
    datatypes::DataType,
};
use parking_lot::Mutex;
use sepal_types::{ColumnDef, ColumnId, FileId, RowId, SqlType, TableDef, TableId};

use crate::{
    StoreError,
    arrow_types::{arrow_type, has_arrow_type},
    blob::BlobReader,
    segment::{Run, RunSpace},
};

pub(crate) use cache::CacheKey;
pub use cache::{ColumnCache, Counted};
pub use deletions::{Deletions, Live};
pub use fair::FairCache;
pub(crate) use keys::{KeyColumns, KeyMap};
pub(crate) use memory::{MemoryChunk, live_mask, merge, row_count};
pub(crate) use missing::{check_missing, default_bytes};
pub use near::Near;
pub(crate) use sealed::{SealedChunk, SealedParts};

/// A chunk as one snapshot sees it.
#[derive(Clone, Debug)]
pub struct ChunkRef {
    pub chunk: Arc<Chunk>,
    /// Positions within the chunk that this snapshot no longer sees.
    pub deleted: Arc<Deletions>,
}

impl ChunkRef {
    pub(crate) fn new(chunk: Chunk) -> Self {
        Self { chunk: Arc::new(chunk), deleted: Arc::default() }
    }

    /// Rows that the snapshot sees.
    pub fn live_rows(&self) -> u32 {
        self.chunk.rows() - u32::try_from(self.deleted.len()).unwrap_or(u32::MAX).min(self.chunk.rows())
    }

    /// Which rows those are; `None` when all are. Made once for all snapshots with the same deletions.
    pub fn live(&self) -> Option<&Live> {
        (!self.deleted.is_empty()).then(|| self.deleted.live(self.chunk.rows()))
    }
}

/// Rows of one table, immutable. Row ids ascend with the position.
pub struct Chunk {
    kind: Kind,
    /// One map per asked-for key, built when first needed.
    key_maps: Mutex<Vec<(KeyColumns, Arc<KeyMap>)>>,
}

enum Kind {
    Memory(MemoryChunk),
    Sealed(Box<SealedChunk>),
}

impl Chunk {
    pub(crate) fn memory(chunk: MemoryChunk) -> Self {
        Self { kind: Kind::Memory(chunk), key_maps: Mutex::default() }
    }

    pub(crate) fn sealed(chunk: SealedChunk) -> Self {
        Self { kind: Kind::Sealed(Box::new(chunk)), key_maps: Mutex::default() }
    }

    /// Rows, deleted ones included: the length of every array that this chunk gives.
    pub fn rows(&self) -> u32 {
        match &self.kind {
            Kind::Memory(chunk) => chunk.rows(),
            Kind::Sealed(chunk) => chunk.rows(),
        }
    }

    /// The least row id.
    pub fn first_row(&self) -> RowId {
        match &self.kind {
            Kind::Memory(chunk) => chunk.first_row(),
            Kind::Sealed(chunk) => chunk.first_row(),
        }
    }

    /// The greatest row id.
    pub fn last_row(&self) -> RowId {
        match &self.kind {
            Kind::Memory(chunk) => chunk.last_row(),
            Kind::Sealed(chunk) => chunk.last_row(),
        }
    }

    /// The row id of every position, ascending.
    pub fn row_ids(&self) -> Result<Arc<UInt64Array>, StoreError> {
        match &self.kind {
            Kind::Memory(chunk) => Ok(chunk.row_ids()),
            Kind::Sealed(chunk) => chunk.row_ids(),
        }
    }

    /// The whole column, typed [`arrow_type`]`(column.ty)`. Rows older than the column have its `missing` value
    /// or NULL. Free for a memory chunk; a segment decodes the column once and keeps it in the [`ColumnCache`].
    pub fn column(&self, column: &ColumnDef) -> Result<ArrayRef, StoreError> {
        let stored = match &self.kind {
            Kind::Memory(chunk) => chunk.column(column.id),
            Kind::Sealed(chunk) => chunk.column(column.id, &column.ty)?,
        };
        self.complete(column, stored)
    }

    /// [`Self::column`] for one who needs it once: what is not in the cache does not get there.
    pub fn column_once(&self, column: &ColumnDef) -> Result<ArrayRef, StoreError> {
        let stored = match &self.kind {
            Kind::Memory(chunk) => chunk.column(column.id),
            Kind::Sealed(chunk) => chunk.column_once(column.id, &column.ty)?,
        };
        self.complete(column, stored)
    }

    /// Of [`Self::column`] the rows at `positions`, which ascend. A segment reads only the pages that they lie on,
    /// where the column is not decoded already and they are few; nothing gets into the cache.
    ///
    /// Errors: [`StoreError::Bug`] for positions that do not ascend, or past the end.
    pub fn column_rows(&self, column: &ColumnDef, positions: &[u32]) -> Result<ArrayRef, StoreError> {
        if !positions.is_sorted_by(|one, next| one < next) || positions.last() >= Some(&self.rows()) {
            let why = format!("{} positions that do not ascend below {}", positions.len(), self.rows());
            return Err(StoreError::Bug(why));
        }
        let stored = match &self.kind {
            Kind::Memory(_) => return taken(&self.column(column)?, positions),
            Kind::Sealed(chunk) => chunk.column_rows(column.id, &column.ty, positions)?,
        };
        match stored {
            Some(array) => fit(array, &column.ty),
            None => missing::constant(column, positions.len()),
        }
    }

    /// The first of `rows`, as many as are well read together where about `most_bytes` of these columns may be in
    /// memory at a time; one at least. `None` is the row ids. A memory chunk's are all.
    ///
    /// Errors: [`StoreError::Bug`] without rows, or for rows past the end.
    pub fn run(
        &self,
        columns: &[Option<ColumnId>],
        rows: Range<u32>,
        most_bytes: usize,
    ) -> Result<Run, StoreError> {
        self.check_run(&rows)?;
        match &self.kind {
            Kind::Memory(_) => Ok(Run { rows, bytes: 0 }),
            Kind::Sealed(chunk) => chunk.run(columns, rows, most_bytes),
        }
    }

    /// [`Self::column`] of some rows, for one who needs them once: a segment reads only these, and nothing gets into
    /// the cache. What it reads of vectors lies in `space`.
    ///
    /// Errors: [`StoreError::Bug`] as for [`Self::run`].
    pub fn column_run(
        &self,
        column: &ColumnDef,
        rows: Range<u32>,
        space: &RunSpace,
    ) -> Result<ArrayRef, StoreError> {
        self.check_run(&rows)?;
        let stored = match &self.kind {
            Kind::Memory(_) => return Ok(self.column(column)?.slice(rows.start as usize, rows.len())),
            Kind::Sealed(chunk) => chunk.column_run(column.id, &column.ty, &rows, space)?,
        };
        match stored {
            Some(array) => fit(array, &column.ty),
            None => missing::constant(column, rows.len()),
        }
    }

    /// [`Self::row_ids`] of some rows. Nothing gets into the cache.
    ///
    /// Errors: [`StoreError::Bug`] as for [`Self::run`].
    pub fn row_ids_run(&self, rows: Range<u32>) -> Result<Arc<UInt64Array>, StoreError> {
        self.check_run(&rows)?;
        let (first, last) = (self.first_row().0, self.last_row().0);
        match &self.kind {
            Kind::Memory(chunk) => Ok(Arc::new(chunk.row_ids().slice(rows.start as usize, rows.len()))),
            // None is missing, as in most segments.
            Kind::Sealed(_) if last - first + 1 == u64::from(self.rows()) => {
                let ids = first + u64::from(rows.start)..first + u64::from(rows.end);
                Ok(Arc::new(UInt64Array::from_iter_values(ids)))
            }
            Kind::Sealed(chunk) => chunk.row_ids_run(&rows),
        }
    }

    fn check_run(&self, rows: &Range<u32>) -> Result<(), StoreError> {
        if rows.is_empty() || rows.end > self.rows() {
            return Err(StoreError::Bug(format!("rows {rows:?} of a chunk of {}", self.rows())));
        }
        Ok(())
    }

    /// Bytes that decoded columns of the tenant's segments may take at most; `None` for a memory chunk.
    pub fn decoded_most_bytes(&self) -> Option<usize> {
        match &self.kind {
            Kind::Memory(_) => None,
            Kind::Sealed(chunk) => Some(chunk.decoded_most_bytes()),
        }
    }

    /// The same, whatever else is held. Takes no lock.
    pub fn decoded_least_bytes(&self) -> Option<usize> {
        match &self.kind {
            Kind::Memory(_) => None,
            Kind::Sealed(chunk) => Some(chunk.decoded_least_bytes()),
        }
    }

    /// Whether the column is in memory.
    pub fn is_decoded(&self, column: ColumnId) -> bool {
        match &self.kind {
            Kind::Memory(_) => true,
            Kind::Sealed(chunk) => chunk.is_decoded(column),
        }
    }

    /// Whether [`Self::column`] reads nothing.
    pub fn is_at_hand(&self, column: ColumnId) -> bool {
        match &self.kind {
            Kind::Memory(_) => true,
            Kind::Sealed(chunk) => chunk.is_at_hand(column),
        }
    }

    /// Whether its rows are older than the column. May open a segment's footer; one that does not open may be older.
    pub(crate) fn lacks(&self, column: ColumnId) -> bool {
        match &self.kind {
            Kind::Memory(chunk) => chunk.column(column).is_none(),
            Kind::Sealed(chunk) => chunk.lacks(column),
        }
    }

    fn complete(&self, column: &ColumnDef, stored: Option<ArrayRef>) -> Result<ArrayRef, StoreError> {
        match stored {
            Some(array) => fit(array, &column.ty),
            None => missing::constant(column, self.rows() as usize),
        }
    }

    /// The segment's file, `None` for a memory chunk.
    pub fn segment(&self) -> Option<FileId> {
        match &self.kind {
            Kind::Memory(_) => None,
            Kind::Sealed(chunk) => Some(chunk.file()),
        }
    }

    /// Whether the segment has this vector index's bytes, and nothing is known against them.
    pub fn has_index(&self, index: TableId) -> bool {
        match &self.kind {
            Kind::Memory(_) => false,
            Kind::Sealed(chunk) => chunk.has_index(index),
        }
    }

    /// The file of this vector index, unless it was given up.
    pub fn index_file(&self, index: TableId) -> Option<FileId> {
        match &self.kind {
            Kind::Memory(_) => None,
            Kind::Sealed(chunk) => chunk.index_file(index),
        }
    }

    /// The index in that file does not open, or is not this segment's. From here on the segment counts as one without
    /// it.
    pub fn give_up_index(&self, file: FileId, why: &dyn std::fmt::Display) {
        if let Kind::Sealed(chunk) = &self.kind {
            chunk.give_up_index(file, why);
        }
    }

    /// Bytes of this vector index's file, 0 where it has none.
    pub fn index_bytes(&self, index: TableId) -> u64 {
        match &self.kind {
            Kind::Memory(_) => 0,
            Kind::Sealed(chunk) => chunk.index_bytes(index),
        }
    }

    /// Opens the vector index's sealed bytes: one pass over the file, not cached here.
    pub fn index_blob(&self, index: TableId) -> Option<Result<Vec<u8>, StoreError>> {
        match &self.kind {
            Kind::Memory(_) => None,
            Kind::Sealed(chunk) => chunk.index_blob(index),
        }
    }

    /// The same to be read in pieces. The file is open: it stays readable when the index is dropped meanwhile.
    pub fn index_reader(&self, index: TableId) -> Option<Result<BlobReader, StoreError>> {
        match &self.kind {
            Kind::Memory(_) => None,
            Kind::Sealed(chunk) => chunk.index_reader(index),
        }
    }

    /// Bytes in memory, or of the segment's file.
    pub fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::Memory(chunk) => chunk.bytes(),
            Kind::Sealed(chunk) => chunk.file_bytes(),
        }
    }

    /// Bytes of the rows uncompressed: what merging this chunk costs in memory.
    pub fn plain_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Memory(chunk) => chunk.bytes(),
            Kind::Sealed(chunk) => chunk.plain_bytes(),
        }
    }

    /// Of them, the most that columns whose values vary in length may have: their offsets end at 2 GiB.
    pub(crate) fn variable_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Memory(chunk) => chunk.variable_bytes(),
            Kind::Sealed(chunk) => chunk.entry().variable_bytes(),
        }
    }

    /// What a column takes decoded; of one whose values vary in length, what all such columns take together.
    pub fn decoded_bytes(&self, column: &ColumnDef) -> u64 {
        match width(&arrow_type(&column.ty)) {
            Some(bytes) => bytes as u64 * u64::from(self.rows()),
            None => self.variable_bytes(),
        }
    }

    pub(crate) fn as_memory(&self) -> Option<&MemoryChunk> {
        match &self.kind {
            Kind::Memory(chunk) => Some(chunk),
            Kind::Sealed(_) => None,
        }
    }

    pub(crate) fn as_sealed(&self) -> Option<&SealedChunk> {
        match &self.kind {
            Kind::Memory(_) => None,
            Kind::Sealed(chunk) => Some(chunk),
        }
    }

    /// Where a row is, `None` when it is not in this chunk.
    pub(crate) fn position(&self, row: RowId) -> Result<Option<u32>, StoreError> {
        let (first, last) = (self.first_row().0, self.last_row().0);
        if row.0 < first || row.0 > last {
            return Ok(None);
        }
        if last - first + 1 == u64::from(self.rows()) {
            return Ok(u32::try_from(row.0 - first).ok());
        }
        let ids = self.row_ids()?;
        Ok(ids.values().binary_search(&row.0).ok().and_then(|position| u32::try_from(position).ok()))
    }

    /// The row id at a position, which must be below [`Self::rows`].
    pub(crate) fn row_at(&self, position: u32) -> Result<RowId, StoreError> {
        let (first, last) = (self.first_row().0, self.last_row().0);
        if last - first + 1 == u64::from(self.rows()) {
            return Ok(RowId(first + u64::from(position)));
        }
        Ok(RowId(self.row_ids()?.value(position as usize)))
    }

    /// The map from key to positions, built on first use.
    pub(crate) fn keys(&self, def: &TableDef, columns: &KeyColumns) -> Result<Arc<KeyMap>, StoreError> {
        if let Some((_, map)) = self.key_maps.lock().iter().find(|(known, _)| known == columns) {
            return Ok(Arc::clone(map));
        }
        // Built outside the lock: two callers may build the same map, which is wasteful but never wrong.
        let arrays =
            columns.columns(def)?.iter().map(|column| self.column(column)).collect::<Result<Vec<_>, _>>()?;
        let map = KeyMap::build(&arrays)?;
        let map = Arc::new(match &self.kind {
            Kind::Memory(_) => map,
            Kind::Sealed(chunk) => chunk.counted(map),
        });
        self.remember_keys(columns.clone(), Arc::clone(&map));
        Ok(map)
    }

    /// Takes over the maps of a chunk that has the same rows at the same positions.
    pub(crate) fn inherit_keys(&self, from: &Self) {
        let maps = from.key_maps.lock().clone();
        *self.key_maps.lock() = maps;
    }

    /// Keeps a map that the uniqueness check of an insert has built anyway.
    pub(crate) fn remember_keys(&self, columns: KeyColumns, map: Arc<KeyMap>) {
        let mut maps = self.key_maps.lock();
        maps.retain(|(known, _)| *known != columns);
        maps.push((columns, map));
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("segment", &self.segment())
            .field("rows", &self.rows())
            .field("first_row", &self.first_row())
            .field("last_row", &self.last_row())
            .finish_non_exhaustive()
    }
}

/// The rows of an array at some positions.
fn taken(array: &ArrayRef, positions: &[u32]) -> Result<ArrayRef, StoreError> {
    Ok(arrow::compute::take(array, &UInt32Array::from(positions.to_vec()), None)?)
}

/// A column whose declared type changed without a rewrite (`varchar(10)` to `text`, `vector` to `vector(3)`).
fn fit(array: ArrayRef, ty: &SqlType) -> Result<ArrayRef, StoreError> {
    if has_arrow_type(array.data_type(), ty) {
        return Ok(array);
    }
    Ok(arrow::compute::cast(&array, &arrow_type(ty))?)
}

/// Bytes of a value, where all have as many.
fn width(ty: &DataType) -> Option<usize> {
    match ty {
        DataType::Boolean | DataType::Null => Some(1),
        DataType::FixedSizeBinary(bytes) => usize::try_from(*bytes).ok(),
        DataType::FixedSizeList(item, count) => {
            Some(width(item.data_type())? * usize::try_from(*count).ok()?)
        }
        other => other.primitive_width(),
    }
}

#[cfg(test)]
mod tests;
