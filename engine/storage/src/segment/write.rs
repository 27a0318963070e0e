//! Rows to a segment's file.
//!
//! Called by checkpoints with the chunks to gather. Rows come out in row-id order, deleted ones left behind.

use std::{io, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray},
    compute,
    datatypes::{DataType, Field, Schema, UInt64Type},
    record_batch::RecordBatch,
};
use sepal_types::{RowId, TableDef};

use super::{Identity, ROW_ID, encode::encode, layout};
use crate::{
    ChunkRef, StoreError,
    arrow_types::stored_name,
    checkpoint::{Pace, Phase},
    chunk,
    disk::{Disk, NewFile, io_error},
    pieces,
    row_bytes::array_bytes,
};

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub rows: u32,
    pub first_row: RowId,
    pub last_row: RowId,
    /// The file's length.
    pub bytes: u64,
    /// The arrays' size in memory.
    pub plain_bytes: u64,
    /// Of them, those of columns whose values vary in length.
    pub variable_bytes: u64,
}

/// Rows that are taken together, at most: about a megabyte of vectors.
const ROWS_AT_ONCE: usize = 1024;
const BYTES_AT_ONCE: usize = 2 << 20;
/// A file is synced so often: the log's next sync does not wait for a gigabyte of it.
const UNSYNCED_BYTES: u64 = 32 << 20;
/// Pieces that may be sealed and not yet written.
const AHEAD: usize = 4;

/// Writes the live rows of `inputs`, no faster than `pace` lets it; `None`, and no file, when none lives. The file's
/// bytes are durable on return, its name is not.
///
/// Errors: [`StoreError::Stopped`] when the pace says so.
pub(crate) fn write(
    disk: &Disk,
    path: &Path,
    identity: &Identity,
    def: &TableDef,
    inputs: &[ChunkRef],
    pace: &dyn Pace,
) -> Result<Option<Written>, StoreError> {
    pace.phase(Phase::Reading);
    let Some(gathered) = gather(def, inputs, pace)? else { return Ok(None) };
    pace.phase(Phase::Writing);
    let written = write_file(disk, path, identity, &gathered, pace);
    if written.is_err() {
        disk.discard("segment", path);
    }
    written.map(Some)
}

/// A table's rows, in parts that share memory with the chunks.
pub(super) struct Gathered {
    schema: Arc<Schema>,
    parts: Vec<Part>,
    /// Part and position of each row, where the parts' row ids interleave; `None`: part after part.
    order: Option<Vec<(u32, u32)>>,
    rows: u32,
    first_row: RowId,
    last_row: RowId,
}

/// The rows of one chunk. Deleted ones are left out as they are written, some at a time: a second copy of the others
/// would take as much memory again.
struct Part {
    /// Row ids, then the columns.
    arrays: Vec<ArrayRef>,
    /// `None`: all.
    live: Option<BooleanArray>,
}

fn gather(def: &TableDef, inputs: &[ChunkRef], pace: &dyn Pace) -> Result<Option<Gathered>, StoreError> {
    let mut inputs: Vec<ChunkRef> = inputs.iter().filter(|input| input.live_rows() > 0).cloned().collect();
    inputs.sort_by_key(|input| input.chunk.first_row());
    let overlapping = inputs.windows(2).any(|pair| pair[0].chunk.last_row() >= pair[1].chunk.first_row());
    // Concurrent transactions interleave their row ids.
    let order = if overlapping { Some(order(&inputs)?) } else { None };
    let Some((first_row, last_row)) = edges(&inputs, order.as_deref())? else { return Ok(None) };
    let rows: u64 = inputs.iter().map(|input| u64::from(input.live_rows())).sum();
    let rows = u32::try_from(rows).map_err(|_| StoreError::Bug(format!("{rows} rows for one segment")))?;
    let parts = inputs.iter().map(|input| columns(def, input, pace)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Gathered { schema: schema(def, &parts), parts, order, rows, first_row, last_row }))
}

/// Input and position of every live row, by row id.
fn order(inputs: &[ChunkRef]) -> Result<Vec<(u32, u32)>, StoreError> {
    let mut rows: Vec<(u64, u32, u32)> = Vec::new();
    for (input, number) in inputs.iter().zip(0..) {
        let ids = input.chunk.row_ids()?;
        let live = (0..input.chunk.rows()).filter(|position| !input.deleted.contains(*position));
        rows.extend(live.map(|position| (ids.value(position as usize), number, position)));
    }
    rows.sort_unstable();
    Ok(rows.into_iter().map(|(_, input, position)| (input, position)).collect())
}

/// The least and the greatest live row id; `None` without any.
fn edges(inputs: &[ChunkRef], order: Option<&[(u32, u32)]>) -> Result<Option<(RowId, RowId)>, StoreError> {
    let row_at = |(input, position): (u32, u32)| inputs[input as usize].chunk.row_at(position);
    let Some(order) = order else {
        let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return Ok(None) };
        return Ok(Some((live_edge(first, false)?, live_edge(last, true)?)));
    };
    let (Some(first), Some(last)) = (order.first(), order.last()) else { return Ok(None) };
    Ok(Some((row_at(*first)?, row_at(*last)?)))
}

/// The least or greatest live row id.
fn live_edge(input: &ChunkRef, last: bool) -> Result<RowId, StoreError> {
    let live = |position: &u32| !input.deleted.contains(*position);
    let mut positions = 0..input.chunk.rows();
    let position = if last { positions.rev().find(live) } else { positions.find(live) };
    input.chunk.row_at(position.ok_or_else(|| StoreError::Bug("a chunk without live rows".to_owned()))?)
}

/// Row ids and columns of one chunk, as Parquet stores them. The cache stays with what queries ask for.
fn columns(def: &TableDef, input: &ChunkRef, pace: &dyn Pace) -> Result<Part, StoreError> {
    let live =
        (!input.deleted.is_empty()).then(|| chunk::live_mask(&input.deleted, 0, input.chunk.rows() as usize));
    let mut arrays: Vec<ArrayRef> = vec![input.chunk.row_ids()?];
    for column in &def.columns {
        check(pace)?;
        let array = input.chunk.column_once(column)?;
        if input.chunk.segment().is_some() {
            pace.spend(array.get_buffer_memory_size() as u64);
        }
        arrays.push(layout::to_stored(&array).map_err(StoreError::Bug)?);
    }
    Ok(Part { arrays, live })
}

impl Part {
    fn rows(&self) -> usize {
        self.arrays.first().map_or(0, |ids| ids.len())
    }

    /// What lives of `count` rows from `first` on.
    fn some(&self, schema: &Arc<Schema>, first: usize, count: usize) -> Result<RecordBatch, StoreError> {
        let live = self.live.as_ref().map(|live| live.slice(first, count));
        let piece = |array: &ArrayRef| match &live {
            Some(live) => compute::filter(&array.slice(first, count), live),
            None => Ok(array.slice(first, count)),
        };
        let arrays = self.arrays.iter().map(piece).collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(schema), arrays)?)
    }

    /// Whether a row that is written has a NULL there.
    fn has_nulls(&self, index: usize) -> bool {
        let Some(nulls) = self.arrays[index].nulls() else { return false };
        match &self.live {
            None => nulls.null_count() > 0,
            Some(live) => (&!nulls.inner() & live.values()).count_set_bits() > 0,
        }
    }
}

/// A column is nullable in the file only if it has a NULL there: without levels it decodes several times faster.
fn schema(def: &TableDef, parts: &[Part]) -> Arc<Schema> {
    let data_type =
        |index: usize| parts.first().map_or(DataType::Null, |part| part.arrays[index].data_type().clone());
    let nullable = |index: usize| parts.iter().any(|part| part.has_nulls(index));
    let mut fields = vec![Field::new(ROW_ID, DataType::UInt64, false)];
    for (index, column) in def.columns.iter().enumerate() {
        fields.push(Field::new(stored_name(column.id), data_type(index + 1), nullable(index + 1)));
    }
    Arc::new(Schema::new(fields))
}

impl Gathered {
    /// In memory, about.
    fn bytes(&self) -> usize {
        self.parts.iter().flat_map(|part| &part.arrays).map(|array| array_bytes(array.as_ref())).sum()
    }

    /// What a segment has stored, as it is.
    pub(super) fn stored(rows: RecordBatch) -> Result<Self, StoreError> {
        let bug = || StoreError::Bug("a segment does not begin with its row ids".to_owned());
        let ids =
            rows.columns().first().and_then(|ids| ids.as_primitive_opt::<UInt64Type>()).ok_or_else(bug)?;
        let (first, last) = ids.values().first().zip(ids.values().last()).ok_or_else(bug)?;
        let (first_row, last_row) = (RowId(*first), RowId(*last));
        let (schema, arrays, rows) = rows.into_parts();
        let parts = vec![Part { arrays, live: None }];
        let rows = u32::try_from(rows).map_err(|_| bug())?;
        Ok(Self { schema, parts, order: None, rows, first_row, last_row })
    }

    /// The rows, some at a time.
    fn batches(&self) -> Box<dyn Iterator<Item = Result<RecordBatch, StoreError>> + '_> {
        let schema = &self.schema;
        let rows = self.parts.iter().map(Part::rows).sum::<usize>().max(1);
        let rows = (BYTES_AT_ONCE / (self.bytes() / rows).max(1)).clamp(1, ROWS_AT_ONCE);
        match &self.order {
            Some(order) => Box::new(order.chunks(rows).map(|rows| self.interleaved(rows))),
            None => Box::new(self.parts.iter().flat_map(move |part| {
                let firsts = (0..part.rows()).step_by(rows);
                firsts.map(move |first| part.some(schema, first, rows.min(part.rows() - first)))
            })),
        }
    }

    fn interleaved(&self, rows: &[(u32, u32)]) -> Result<RecordBatch, StoreError> {
        let rows: Vec<(usize, usize)> =
            rows.iter().map(|(part, position)| (*part as usize, *position as usize)).collect();
        let column = |index: usize| {
            let arrays: Vec<&dyn Array> = self.parts.iter().map(|part| part.arrays[index].as_ref()).collect();
            compute::interleave(&arrays, &rows)
        };
        let arrays = (0..self.schema.fields().len()).map(column).collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }
}

pub(super) fn write_file(
    disk: &Disk,
    path: &Path,
    identity: &Identity,
    gathered: &Gathered,
    pace: &dyn Pace,
) -> Result<Written, StoreError> {
    let mut file = PacedFile { file: disk.stream("segment", path)?, pace, unsynced: 0 };
    let ahead = if gathered.bytes() < pieces::APART_BYTES { 0 } else { AHEAD };
    let encoded = pieces::made_and_written(
        ahead,
        |out| encode(out, path, identity, &gathered.schema, gathered.batches()),
        |piece| {
            check(pace)?;
            file.put(piece).map_err(|error| io_error("write", path, &error))
        },
    );
    let plain = encoded??;
    let bytes = file.file.finish()?;
    let Gathered { rows, first_row, last_row, .. } = *gathered;
    Ok(Written { rows, first_row, last_row, bytes, plain_bytes: plain.all, variable_bytes: plain.variable })
}

fn check(pace: &dyn Pace) -> Result<(), StoreError> {
    if pace.is_stopped() { Err(StoreError::Stopped) } else { Ok(()) }
}

/// A file that is written no faster than its pace.
struct PacedFile<'a> {
    file: NewFile,
    pace: &'a dyn Pace,
    unsynced: u64,
}

impl PacedFile<'_> {
    fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        // Before, not behind: the medium has had the time since the last write for what is to be synced.
        if self.unsynced >= UNSYNCED_BYTES {
            self.unsynced = 0;
            self.file.sync_so_far()?;
        }
        self.file.put(piece)?;
        self.unsynced += piece.len() as u64;
        self.pace.spend(piece.len() as u64);
        Ok(())
    }
}
