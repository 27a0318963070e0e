//! Rows to a segment's file.
//!
//! Called by checkpoints with the chunks to gather. Rows come out in row-id order, deleted ones left behind.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute,
    datatypes::{DataType, Field, Schema, UInt64Type},
    record_batch::RecordBatch,
};
use parquet::arrow::ArrowWriter;
use sepal_types::{RowId, TableDef};

use super::{Identity, ROW_ID, layout};
use crate::{
    ChunkRef, StoreError,
    arrow_types::stored_name,
    checkpoint::{Pace, Phase},
    chunk,
    disk::{Disk, NewFile, io_error},
    paths::show,
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
}

/// Rows between two looks at the pace: some megabytes of vectors.
const ROWS_AT_ONCE: usize = 1024;
/// A paced file is synced so often: the log's next sync does not wait for a gigabyte of it.
const UNSYNCED_BYTES: u64 = 16 << 20;

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

/// A table's rows, in parts that share memory with the chunks wherever nothing is deleted.
pub(super) struct Gathered {
    schema: Arc<Schema>,
    parts: Vec<RecordBatch>,
    rows: u32,
    first_row: RowId,
    last_row: RowId,
}

fn gather(def: &TableDef, inputs: &[ChunkRef], pace: &dyn Pace) -> Result<Option<Gathered>, StoreError> {
    let mut inputs: Vec<ChunkRef> = inputs.iter().filter(|input| input.live_rows() > 0).cloned().collect();
    inputs.sort_by_key(|input| input.chunk.first_row());
    let overlapping = inputs.windows(2).any(|pair| pair[0].chunk.last_row() >= pair[1].chunk.first_row());
    if overlapping {
        // Concurrent transactions interleaved their row ids: put them in order in memory.
        let merged = chunk::merge(def, &inputs, 0)?;
        inputs = merged.map(|merged| ChunkRef::new(chunk::Chunk::memory(merged))).into_iter().collect();
    }
    let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return Ok(None) };
    let (first_row, last_row) = (live_edge(first, false)?, live_edge(last, true)?);
    let rows: u64 = inputs.iter().map(|input| u64::from(input.live_rows())).sum();
    let rows = u32::try_from(rows).map_err(|_| StoreError::Bug(format!("{rows} rows for one segment")))?;
    let columns = inputs.iter().map(|input| columns(def, input, pace)).collect::<Result<Vec<_>, _>>()?;
    let schema = schema(def, &columns);
    let parts = columns
        .into_iter()
        .map(|columns| RecordBatch::try_new(Arc::clone(&schema), columns))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Gathered { schema, parts, rows, first_row, last_row }))
}

/// The least or greatest live row id.
fn live_edge(input: &ChunkRef, last: bool) -> Result<RowId, StoreError> {
    let live = |position: &u32| !input.deleted.contains(*position);
    let mut positions = 0..input.chunk.rows();
    let position = if last { positions.rev().find(live) } else { positions.find(live) };
    input.chunk.row_at(position.ok_or_else(|| StoreError::Bug("a chunk without live rows".to_owned()))?)
}

/// Row ids and columns of one chunk's live rows, as Parquet stores them. The cache stays with what queries ask for.
fn columns(def: &TableDef, input: &ChunkRef, pace: &dyn Pace) -> Result<Vec<ArrayRef>, StoreError> {
    let mask =
        (!input.deleted.is_empty()).then(|| chunk::live_mask(&input.deleted, 0, input.chunk.rows() as usize));
    let live = |array: ArrayRef| -> Result<ArrayRef, StoreError> {
        match &mask {
            Some(mask) => Ok(compute::filter(&array, mask)?),
            None => Ok(array),
        }
    };
    let mut arrays = vec![live(input.chunk.row_ids()?)?];
    for column in &def.columns {
        check(pace)?;
        let array = live(input.chunk.column_once(column)?)?;
        if input.chunk.segment().is_some() {
            pace.spend(array.get_buffer_memory_size() as u64);
        }
        arrays.push(layout::to_stored(&array).map_err(StoreError::Bug)?);
    }
    Ok(arrays)
}

/// A column is nullable in the file only if it has a NULL there: without levels it decodes several times faster.
fn schema(def: &TableDef, parts: &[Vec<ArrayRef>]) -> Arc<Schema> {
    let nullable = |index: usize| parts.iter().any(|columns| columns[index].null_count() > 0);
    let data_type =
        |index: usize| parts.first().map_or(DataType::Null, |columns| columns[index].data_type().clone());
    let mut fields = vec![Field::new(ROW_ID, DataType::UInt64, false)];
    for (index, column) in def.columns.iter().enumerate() {
        fields.push(Field::new(stored_name(column.id), data_type(index + 1), nullable(index + 1)));
    }
    Arc::new(Schema::new(fields))
}

impl Gathered {
    /// What a segment has stored, as it is.
    pub(super) fn stored(rows: RecordBatch) -> Result<Self, StoreError> {
        let bug = || StoreError::Bug("a segment does not begin with its row ids".to_owned());
        let ids =
            rows.columns().first().and_then(|ids| ids.as_primitive_opt::<UInt64Type>()).ok_or_else(bug)?;
        let (first, last) = ids.values().first().zip(ids.values().last()).ok_or_else(bug)?;
        Ok(Self {
            schema: rows.schema(),
            rows: u32::try_from(rows.num_rows()).map_err(|_| bug())?,
            first_row: RowId(*first),
            last_row: RowId(*last),
            parts: vec![rows],
        })
    }
}

pub(super) fn write_file(
    disk: &Disk,
    path: &Path,
    identity: &Identity,
    gathered: &Gathered,
    pace: &dyn Pace,
) -> Result<Written, StoreError> {
    // Parquet's errors wrap the file's; the file's own, kept aside, tells a full device from a bug.
    let failed = |error: parquet::errors::ParquetError| parquet_error(path, error);
    let properties = layout::writer_properties(&gathered.schema, identity).map_err(failed)?;
    let file = PacedFile { file: disk.stream("segment", path)?, pace, unsynced: 0 };
    let mut writer =
        ArrowWriter::try_new(file, Arc::clone(&gathered.schema), Some(properties)).map_err(failed)?;
    let mut plain_bytes = 0;
    for part in &gathered.parts {
        plain_bytes += part
            .columns()
            .iter()
            .map(|array| array.to_data().get_slice_memory_size().unwrap_or(0) as u64)
            .sum::<u64>();
        for first in (0..part.num_rows()).step_by(ROWS_AT_ONCE) {
            check(pace)?;
            let rows = ROWS_AT_ONCE.min(part.num_rows() - first);
            writer.write(&part.slice(first, rows)).map_err(failed)?;
        }
    }
    let file = writer.into_inner().map_err(failed)?;
    let bytes = file.file.finish()?;
    let Gathered { rows, first_row, last_row, .. } = *gathered;
    Ok(Written { rows, first_row, last_row, bytes, plain_bytes })
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

impl Write for PacedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.unsynced >= UNSYNCED_BYTES {
            self.unsynced = 0;
            self.file.sync_so_far()?;
        }
        self.pace.spend(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn parquet_error(path: &Path, error: parquet::errors::ParquetError) -> StoreError {
    use std::error::Error;
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return io_error("write", path, io);
        }
        source = inner.source();
    }
    StoreError::Io { action: "write", file: show(path), why: error.to_string() }
}
