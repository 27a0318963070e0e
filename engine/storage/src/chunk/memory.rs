//! Rows that are durable in the log only: the batch of an `Insert`, or several merged.
//!
//! Made by `snapshot::insert` and `snapshot::merge`, read through [`super::Chunk`]. Never touches a file.

use std::sync::{Arc, OnceLock};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, UInt64Array},
    buffer::BooleanBuffer,
    compute,
    record_batch::RecordBatch,
};
use roaring::RoaringBitmap;
use sepal_types::{ColumnDef, ColumnId, RowId, TableDef};

use super::{ChunkRef, missing::default_bytes};
use crate::{
    StoreError,
    arrow_types::stored_column,
    row_bytes::{array_bytes, varying_bytes},
};

/// A run of rows with the arrays as they were inserted.
pub(crate) struct MemoryChunk {
    /// The log file's count when the rows were committed: only chunks of one generation are merged, so that a
    /// checkpoint finds what it froze unchanged.
    generation: u64,
    ids: Ids,
    columns: Vec<(ColumnId, ArrayRef)>,
    bytes: u64,
    /// Of columns whose values vary in length, as [`varying_bytes`] counts them.
    variable_bytes: u64,
}

enum Ids {
    Run { first: u64, rows: u32, array: OnceLock<Arc<UInt64Array>> },
    List(Arc<UInt64Array>),
}

impl MemoryChunk {
    /// The rows of an `Insert`. The batch is not empty and its columns are named by [`crate::stored_name`].
    pub(crate) fn inserted(
        first_row: RowId,
        batch: &RecordBatch,
        generation: u64,
    ) -> Result<Self, StoreError> {
        let rows = row_count(first_row, batch)?;
        let named = |(field, array): (&Arc<arrow::datatypes::Field>, &ArrayRef)| {
            let id = stored_column(field.name())
                .ok_or_else(|| StoreError::Bug(format!("an inserted column named \"{}\"", field.name())))?;
            Ok((id, Arc::clone(array)))
        };
        let columns: Vec<_> = batch
            .schema_ref()
            .fields()
            .iter()
            .zip(batch.columns())
            .map(named)
            .collect::<Result<_, StoreError>>()?;
        let ids = Ids::Run { first: first_row.0, rows, array: OnceLock::new() };
        Ok(Self::new(generation, ids, columns))
    }

    fn merged(ids: UInt64Array, columns: Vec<(ColumnId, ArrayRef)>, generation: u64) -> Self {
        Self::new(generation, Ids::List(Arc::new(ids)), columns)
    }

    fn new(generation: u64, ids: Ids, columns: Vec<(ColumnId, ArrayRef)>) -> Self {
        let (mut bytes, mut variable_bytes) = (0, 0);
        for (_, array) in &columns {
            bytes += array_bytes(array.as_ref()) as u64;
            variable_bytes += varying_bytes(array.as_ref()) as u64;
        }
        Self { generation, ids, columns, bytes, variable_bytes }
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) const fn variable_bytes(&self) -> u64 {
        self.variable_bytes
    }

    /// What it takes when it is merged: with what its rows have in columns that were added after them.
    pub(crate) fn complete_bytes(&self, def: &TableDef) -> u64 {
        let absent = |column: &&ColumnDef| column.missing.is_some() && self.column(column.id).is_none();
        let absent = def.columns.iter().filter(absent);
        self.bytes.saturating_add(default_bytes(absent).saturating_mul(u64::from(self.rows())))
    }

    pub(crate) fn rows(&self) -> u32 {
        match &self.ids {
            Ids::Run { rows, .. } => *rows,
            Ids::List(ids) => u32::try_from(ids.len()).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn first_row(&self) -> RowId {
        match &self.ids {
            Ids::Run { first, .. } => RowId(*first),
            Ids::List(ids) => RowId(ids.values().first().copied().unwrap_or(0)),
        }
    }

    pub(crate) fn last_row(&self) -> RowId {
        match &self.ids {
            Ids::Run { first, rows, .. } => RowId(first + u64::from(*rows) - 1),
            Ids::List(ids) => RowId(ids.values().last().copied().unwrap_or(0)),
        }
    }

    pub(crate) fn row_ids(&self) -> Arc<UInt64Array> {
        match &self.ids {
            Ids::Run { first, rows, array } => {
                let make = || Arc::new(UInt64Array::from_iter_values(*first..first + u64::from(*rows)));
                Arc::clone(array.get_or_init(make))
            }
            Ids::List(ids) => Arc::clone(ids),
        }
    }

    pub(crate) fn column(&self, column: ColumnId) -> Option<ArrayRef> {
        self.columns.iter().find(|(id, _)| *id == column).map(|(_, array)| Arc::clone(array))
    }
}

/// The rows of an `Insert`, which are not none, and not more than there are ids.
pub(crate) fn row_count(first_row: RowId, batch: &RecordBatch) -> Result<u32, StoreError> {
    let rows = u32::try_from(batch.num_rows())
        .map_err(|_| StoreError::Bug(format!("{} rows in one insert", batch.num_rows())))?;
    if rows == 0 || first_row.0.checked_add(u64::from(rows)).is_none() {
        return Err(StoreError::Bug(format!("an insert of {rows} rows from row {first_row}")));
    }
    Ok(rows)
}

/// The live rows of several chunks as one memory chunk in row-id order; `None` when no row lives.
pub(crate) fn merge(
    def: &TableDef,
    parts: &[ChunkRef],
    generation: u64,
) -> Result<Option<MemoryChunk>, StoreError> {
    let live: Vec<&ChunkRef> = parts.iter().filter(|part| part.live_rows() > 0).collect();
    if live.is_empty() {
        return Ok(None);
    }
    let mut ids: Vec<u64> = Vec::new();
    live.iter().try_for_each(|part| live_ids(part, &mut ids))?;
    let ascending = ids.is_sorted();
    let ids: ArrayRef = Arc::new(UInt64Array::from(ids));
    let order = if ascending { None } else { Some(compute::sort_to_indices(&ids, None, None)?) };
    let arrange = |array: ArrayRef| -> Result<ArrayRef, StoreError> {
        match &order {
            Some(order) => Ok(compute::take(&array, order, None)?),
            None => Ok(array),
        }
    };
    let mut columns = Vec::with_capacity(def.columns.len());
    for column in &def.columns {
        let arrays = live
            .iter()
            .map(|part| live_rows(part, &part.chunk.column(column)?))
            .collect::<Result<Vec<_>, _>>()?;
        columns.push((column.id, arrange(concat(&arrays)?)?));
    }
    let ids = arrange(ids)?;
    let ids = ids.as_any().downcast_ref::<UInt64Array>();
    let ids = ids.ok_or_else(|| StoreError::Bug("row ids of another type than u64".to_owned()))?.clone();
    Ok(Some(MemoryChunk::merged(ids, columns, generation)))
}

/// Appends the ids of the part's live rows, in their order.
fn live_ids(part: &ChunkRef, out: &mut Vec<u64>) -> Result<(), StoreError> {
    if let Some(Ids::Run { first, rows, .. }) = part.chunk.as_memory().map(|memory| &memory.ids) {
        let live = (0..*rows).filter(|row| part.deleted.is_empty() || !part.deleted.contains(*row));
        out.extend(live.map(|row| first + u64::from(row)));
        return Ok(());
    }
    let ids = part.chunk.row_ids()?;
    let live = (0..)
        .zip(ids.values().iter())
        .filter(|(row, _)| part.deleted.is_empty() || !part.deleted.contains(*row));
    out.extend(live.map(|(_, id)| *id));
    Ok(())
}

fn concat(arrays: &[ArrayRef]) -> Result<ArrayRef, StoreError> {
    if let [single] = arrays {
        return Ok(Arc::clone(single));
    }
    Ok(compute::concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>())?)
}

fn live_rows(part: &ChunkRef, array: &ArrayRef) -> Result<ArrayRef, StoreError> {
    if part.deleted.is_empty() {
        return Ok(Arc::clone(array));
    }
    Ok(compute::filter(array, &live_mask(&part.deleted, 0, array.len()))?)
}

/// True for the positions `start..start + length` that are not deleted.
pub(crate) fn live_mask(deleted: &RoaringBitmap, start: u32, length: usize) -> BooleanArray {
    let end = u64::from(start) + length as u64;
    let mut live = arrow::array::BooleanBufferBuilder::new(length);
    live.append_n(length, true);
    for position in deleted.range(start..).take_while(|position| u64::from(*position) < end) {
        live.set_bit((position - start) as usize, false);
    }
    let live: BooleanBuffer = live.finish();
    BooleanArray::new(live, None)
}
