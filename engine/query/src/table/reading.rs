//! What a partition of a scan reads at a time, and when.
//!
//! Called by `TableScan`. Segments are decrypted and decoded off the async threads: whole columns by way of storage's
//! cache, which keeps them, or, where those would fill it, runs of rows past it. Of runs one is read ahead while the
//! rows of another go their way, from the second on: whoever wants a few rows stops at the first. What is being read
//! when the stream is dropped is read to its end, a run at most, and nothing is begun after it. Never filters.

use std::{
    collections::VecDeque,
    mem,
    ops::{Range, RangeInclusive},
    sync::{Arc, OnceLock},
};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions, UInt64Array,
        },
        compute::filter_record_batch,
        datatypes::SchemaRef,
    },
    common::runtime::SpawnedTask,
    error::{DataFusionError, Result},
    execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
};
use sepal_storage::{Chunk, ChunkRef, Run, RunSpace, StoreError, TableVersion};
use sepal_types::{ColumnId, Error};

use super::{scan::ScanColumn, user_table::ShownRows};
use crate::error::{carry, carry_store};

/// A run of each partition of a scan, all together. Each partition has two, and those whose rows are on their way out.
const SCAN_BYTES: usize = 64 << 20;
/// A run. A row group is about as much as the most.
const RUN_BYTES: RangeInclusive<usize> = 256 << 10..=16 << 20;
/// What the runs of a scan are of the tenant's memory for queries, at most: sorts and joins need the rest.
const POOL_PART: usize = 16;
/// Rows of a run: they may have columns of which nothing is stored.
const RUN_ROWS: u32 = 1 << 18;
/// Rows that go out as they come are streamed from here on, or from this part of the cache on: what encodes them takes
/// longer than to decode them anew, and who waits for the first wants few.
const OUT_BYTES: u64 = 64 << 20;
const OUT_PART: u64 = 8;
const ROW_ID_BYTES: u64 = 8;

/// Rows of a chunk that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub chunk: usize,
    pub rows: Range<u32>,
}

/// What a partition reads from.
pub(super) struct Source {
    pub version: Arc<TableVersion>,
    pub columns: Arc<[ScanColumn]>,
    pub schema: SchemaRef,
    pub shown: Option<Arc<ShownRows>>,
    /// `None`: whole columns.
    pub runs: Option<Runs>,
}

/// How a scan reads that may be too large for the cache.
pub(super) struct Runs {
    /// It is if its columns take more.
    bound: u64,
    /// Whether they do, once a partition has looked.
    large: Arc<OnceLock<bool>>,
    most_bytes: usize,
    /// Of the first run.
    first_rows: u32,
    space: RunSpace,
    memory: MemoryReservation,
}

/// Columns of a chunk, all of them or of a run.
struct Held {
    chunk: usize,
    rows: Range<u32>,
    columns: Vec<ArrayRef>,
    /// Where rows are hidden by their ids.
    ids: Option<Arc<UInt64Array>>,
    /// What a run counts for.
    _memory: Option<MemoryReservation>,
}

/// One partition's way through its rows.
pub(super) struct Reader {
    source: Arc<Source>,
    /// What is still to come.
    spans: VecDeque<Span>,
    batch_rows: u32,
    /// Of a column that the cache has no room for, all that would be decoded anew for every batch.
    held: Option<Held>,
    ahead: Option<SpawnedTask<Result<Held>>>,
    begun: bool,
}

impl Runs {
    /// `None`: all columns can stay in the cache. `goes_out`: nobody but the client wants the rows. `limit`: of rows
    /// that are wanted at most, as far as that is known.
    pub(super) fn of(
        version: &TableVersion,
        columns: &[ScanColumn],
        (goes_out, limit): (bool, Option<usize>),
        (large, partitions): (&Arc<OnceLock<bool>>, usize),
        pool: &Arc<dyn MemoryPool>,
    ) -> Option<Self> {
        let room = sealed(version).find_map(|chunk| chunk.decoded_most_bytes())? as u64;
        let bound = if goes_out { OUT_BYTES.min(room / OUT_PART) } else { room };
        // Most tables are small as a whole.
        let all = sealed(version).map(Chunk::plain_bytes).fold(0, u64::saturating_add);
        let most = || sealed(version).map(|chunk| most_decoded(chunk, columns)).fold(0, u64::saturating_add);
        if all <= bound || most() <= bound {
            return None;
        }
        let of_pool = match pool.memory_limit() {
            MemoryLimit::Finite(bytes) => bytes / POOL_PART,
            MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
        };
        let most_bytes = SCAN_BYTES.min(of_pool) / partitions.max(1);
        let first_rows = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(RUN_ROWS);
        Some(Self {
            bound,
            large: Arc::clone(large),
            most_bytes: most_bytes.clamp(*RUN_BYTES.start(), *RUN_BYTES.end()),
            first_rows: first_rows.clamp(1, RUN_ROWS),
            space: RunSpace::default(),
            memory: MemoryConsumer::new("TableScan").register(pool),
        })
    }

    /// What the footers say, of as many segments as it takes. Blocking.
    fn are_wanted(&self, version: &TableVersion, columns: &[Option<ColumnId>]) -> bool {
        *self.large.get_or_init(|| {
            let mut bytes = 0;
            sealed(version).any(|chunk| {
                // Who reads the segment says what is wrong with it.
                let run = chunk.run(columns, 0..chunk.rows(), usize::MAX);
                bytes += run.map_or(0, |run| run.bytes as u64);
                bytes > self.bound
            })
        })
    }

    /// The next run. Where the tenant's queries hold all of their memory already, as little as can be, uncounted: the
    /// scan has nothing that it could put aside, and once did not count at all.
    fn next(
        &self,
        chunk: &Chunk,
        columns: &[Option<ColumnId>],
        rows: Range<u32>,
    ) -> Result<(Run, MemoryReservation), StoreError> {
        let memory = self.memory.new_empty();
        let run = chunk.run(columns, rows.clone(), self.most_bytes)?;
        if memory.try_grow(run.bytes).is_ok() {
            return Ok((run, memory));
        }
        Ok((chunk.run(columns, rows, *RUN_BYTES.start())?, memory))
    }
}

fn sealed(version: &TableVersion) -> impl Iterator<Item = &Chunk> {
    version.chunks.iter().map(|held| held.chunk.as_ref()).filter(|chunk| chunk.segment().is_some())
}

/// What columns of a segment take decoded, at most: told without its footer.
fn most_decoded(chunk: &Chunk, columns: &[ScanColumn]) -> u64 {
    let bytes = columns.iter().map(|column| match column {
        ScanColumn::RowId => ROW_ID_BYTES * u64::from(chunk.rows()),
        ScanColumn::Stored(column) => chunk.decoded_bytes(column),
    });
    // Each one of variable width is told with all others.
    bytes.fold(0, u64::saturating_add).min(chunk.plain_bytes())
}

impl Source {
    fn chunk(&self, span: &Span) -> &ChunkRef {
        &self.version.chunks[span.chunk]
    }

    /// Whether to read a span waits for a file, or for the processor.
    fn blocks(&self, span: &Span) -> bool {
        self.chunk(span).chunk.segment().is_some()
    }

    /// Whether runs are read, as far as is known.
    fn streams(&self) -> bool {
        self.runs.as_ref().is_some_and(|runs| runs.large.get() == Some(&true))
    }

    /// The columns of a span's first rows, or of its chunk. Blocking.
    fn load(&self, span: &Span, first: bool) -> Result<Held> {
        let chunk = &self.chunk(span).chunk;
        let Some(runs) = self.runs.as_ref().filter(|_| self.blocks(span)) else { return self.whole(span) };
        let row_ids = self.shown.as_ref().map(|_| None);
        let columns = self.columns.iter().map(|column| match column {
            ScanColumn::RowId => None,
            ScanColumn::Stored(column) => Some(column.id),
        });
        let columns: Vec<Option<ColumnId>> = columns.chain(row_ids).collect();
        if !runs.are_wanted(&self.version, &columns) {
            return self.whole(span);
        }
        let most_rows = if first { runs.first_rows } else { RUN_ROWS };
        let Range { start, end } = span.rows;
        let (Run { rows, .. }, memory) = runs
            .next(chunk, &columns, start..end.min(start.saturating_add(most_rows)))
            .map_err(carry_store)?;
        let read = |column: &ScanColumn| match column {
            ScanColumn::RowId => chunk.row_ids_run(rows.clone()).map(|ids| ids as ArrayRef),
            ScanColumn::Stored(column) => chunk.column_run(column, rows.clone(), &runs.space),
        };
        let columns = self.columns.iter().map(read).collect::<Result<_, _>>().map_err(carry_store)?;
        let ids = self.shown.as_ref().map(|_| chunk.row_ids_run(rows.clone()));
        let ids = ids.transpose().map_err(carry_store)?;
        Ok(Held { chunk: span.chunk, rows, columns, ids, _memory: Some(memory) })
    }

    fn whole(&self, span: &Span) -> Result<Held> {
        let chunk = &self.chunk(span).chunk;
        let read = |column: &ScanColumn| match column {
            ScanColumn::RowId => chunk.row_ids().map(|ids| ids as ArrayRef),
            ScanColumn::Stored(column) => chunk.column(column),
        };
        let columns = self.columns.iter().map(read).collect::<Result<_, _>>().map_err(carry_store)?;
        let ids = self.shown.as_ref().map(|_| chunk.row_ids()).transpose().map_err(carry_store)?;
        Ok(Held { chunk: span.chunk, rows: 0..chunk.rows(), columns, ids, _memory: None })
    }

    /// Those of some rows that are neither deleted nor hidden.
    fn batch(&self, held: &Held, rows: Range<u32>) -> Result<RecordBatch> {
        let (first, count) = ((rows.start - held.rows.start) as usize, rows.len());
        let arrays = held.columns.iter().map(|column| column.slice(first, count)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        let live = live(&self.version.chunks[held.chunk], rows);
        let kept = match (&self.shown, &held.ids) {
            (Some(shown), Some(ids)) => {
                let is_live = |row: usize| live.as_ref().is_none_or(|live| live.value(row));
                let kept = (0..count).map(|row| Some(is_live(row) && shown.shows(ids.value(first + row))));
                Some(kept.collect::<BooleanArray>())
            }
            _ => live,
        };
        match kept {
            Some(kept) => Ok(filter_record_batch(&batch, &kept)?),
            None => Ok(batch),
        }
    }
}

/// Which of some rows are not deleted; `None` when all are.
fn live(reference: &ChunkRef, rows: Range<u32>) -> Option<BooleanArray> {
    if reference.deleted.range_cardinality(rows.clone()) == 0 {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(rows.len());
    bits.append_n(rows.len(), true);
    for position in reference.deleted.range(rows.clone()) {
        bits.set_bit((position - rows.start) as usize, false);
    }
    Some(BooleanArray::new(bits.finish(), None))
}

impl Held {
    fn has(&self, span: &Span) -> bool {
        self.chunk == span.chunk && self.rows.contains(&span.rows.start)
    }
}

impl Reader {
    /// `spans`: none is empty. `batch_rows`: at most.
    pub(super) fn new(source: Source, spans: VecDeque<Span>, batch_rows: u32) -> Self {
        let source = Arc::new(source);
        Self { source, spans, batch_rows: batch_rows.max(1), held: None, ahead: None, begun: false }
    }

    /// The next rows, none of which may be there any more. An error is the last that comes.
    pub(super) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let span = self.spans.front()?.clone();
        let batch = self.step(&span).await;
        if batch.is_err() {
            self.spans.clear();
            self.ahead = None;
        }
        Some(batch)
    }

    async fn step(&mut self, span: &Span) -> Result<RecordBatch> {
        let held = match self.held.take().filter(|held| held.has(span)) {
            Some(held) => held,
            None => self.hold(span).await?,
        };
        let start = span.rows.start;
        let end = span.rows.end.min(held.rows.end).min(start.saturating_add(self.batch_rows));
        let batch = self.source.batch(&held, start..end)?;
        if end == span.rows.end {
            self.spans.pop_front();
        } else if let Some(front) = self.spans.front_mut() {
            front.rows.start = end;
        }
        // What is done with belongs to those who have its rows.
        self.held = (end < held.rows.end && !self.spans.is_empty()).then_some(held);
        Ok(batch)
    }

    async fn hold(&mut self, span: &Span) -> Result<Held> {
        let first = !mem::replace(&mut self.begun, true);
        let reading =
            self.ahead.take().or_else(|| self.source.blocks(span).then(|| self.read(span.clone(), first)));
        let held = match reading {
            Some(task) => task.await.map_err(|problem| DataFusionError::External(Box::new(problem)))??,
            // A memory chunk's column is a pointer.
            None => self.source.load(span, first)?,
        };
        if !held.has(span) {
            return Err(carry(Error::bug(format!("rows {:?} were read for {span:?}", held.rows))));
        }
        if !first && self.source.streams() {
            self.ahead = self.after(&held, span).map(|next| self.read(next, false));
        }
        Ok(held)
    }

    fn read(&self, span: Span, first: bool) -> SpawnedTask<Result<Held>> {
        let source = Arc::clone(&self.source);
        SpawnedTask::spawn_blocking(move || source.load(&span, first))
    }

    /// What will be wanted behind this, if it is worth a thread.
    fn after(&self, held: &Held, span: &Span) -> Option<Span> {
        if held.rows.end < span.rows.end {
            return Some(Span { chunk: span.chunk, rows: held.rows.end..span.rows.end });
        }
        self.spans.get(1).filter(|next| self.source.blocks(next)).cloned()
    }
}

#[cfg(test)]
mod tests;
