//! Reads a table's chunks: memory chunks and segments alike, whole columns, deleted rows left out.
//!
//! Work is cut into morsels of at most [`MORSEL_ROWS`] rows of one chunk and dealt to the partitions in order.
//! A column of a segment is decrypted and decoded once, off the async threads, and kept in storage's cache.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, BooleanArray, BooleanBufferBuilder, MutableArrayData, RecordBatch,
            RecordBatchOptions, make_array,
        },
        compute::filter_record_batch,
        datatypes::{Schema, SchemaRef},
    },
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};
use sepal_storage::{Chunk, ChunkRef, TableVersion, arrow_field};
use sepal_types::{ColumnDef, Error};

use super::user_table::ShownRows;

use crate::error::{carry, carry_store};

/// Rows of one unit of work: small enough that a LIMIT stops early, large enough to amortise the loop.
const MORSEL_ROWS: u32 = 8192;

/// A column of a scan.
#[derive(Clone, Debug)]
pub enum ScanColumn {
    RowId,
    Stored(ColumnDef),
}

#[derive(Clone, Copy, Debug)]
struct Morsel {
    chunk: usize,
    start: u32,
    rows: u32,
}

/// The physical scan.
#[derive(Debug)]
pub struct TableScan {
    version: Arc<TableVersion>,
    columns: Arc<[ScanColumn]>,
    schema: SchemaRef,
    partitions: Vec<Vec<Morsel>>,
    limit: Option<usize>,
    /// Batches are kept: they are copies of their own, and no larger than the task says.
    copied: AtomicBool,
    /// Rows that are left out although they are there.
    shown: Option<Arc<ShownRows>>,
    properties: Arc<PlanProperties>,
}

impl TableScan {
    pub fn new(
        version: Arc<TableVersion>,
        columns: Vec<ScanColumn>,
        schema: SchemaRef,
        partitions: usize,
        limit: Option<usize>,
    ) -> Self {
        let morsels = morsels(&version);
        let wanted = partitions.clamp(1, morsels.len().max(1));
        let share = morsels.len().div_ceil(wanted).max(1);
        let mut partitions: Vec<Vec<Morsel>> = morsels.chunks(share).map(<[Morsel]>::to_vec).collect();
        if partitions.is_empty() {
            partitions.push(Vec::new());
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let copied = AtomicBool::new(false);
        let columns = columns.into();
        Self {
            version,
            columns,
            schema,
            partitions,
            limit,
            copied,
            shown: None,
            properties: Arc::new(properties),
        }
    }

    /// Makes batches that can be kept without keeping what they were cut from.
    pub(super) fn copy_out(&self) {
        self.copied.store(true, Ordering::Relaxed);
    }

    /// Bytes of a stored row on average, of all columns.
    pub(super) fn row_bytes(&self) -> usize {
        let sum = |of: fn(&Chunk) -> u64| self.version.chunks.iter().map(|held| of(&held.chunk)).sum::<u64>();
        let (bytes, rows) = (sum(Chunk::plain_bytes), sum(|chunk| u64::from(chunk.rows())));
        usize::try_from(bytes.div_ceil(rows.max(1))).unwrap_or(usize::MAX)
    }

    /// All stored columns.
    pub(super) fn stored_schema(&self) -> Schema {
        Schema::new(self.version.def.columns.iter().map(arrow_field).collect::<Vec<_>>())
    }

    pub fn showing(self, shown: Option<Arc<ShownRows>>) -> Self {
        Self { shown, ..self }
    }
}

fn morsels(version: &TableVersion) -> Vec<Morsel> {
    let mut morsels = Vec::new();
    for (chunk, reference) in version.chunks.iter().enumerate() {
        let rows = reference.chunk.rows();
        let mut start = 0;
        while start < rows {
            let count = MORSEL_ROWS.min(rows - start);
            morsels.push(Morsel { chunk, start, rows: count });
            start += count;
        }
    }
    morsels
}

impl DisplayAs for TableScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seq Scan on {}", self.version.def.name)?;
        match self.limit {
            Some(limit) => write!(f, " (at most {limit} rows)"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for TableScan {
    fn name(&self) -> &'static str {
        "TableScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let dealt = self
            .partitions
            .get(partition)
            .ok_or_else(|| carry(Error::bug(format!("the scan has no partition {partition}"))))?;
        let copied = self.copied.load(Ordering::Relaxed);
        let morsels = if copied { smaller(dealt, task.session_config().batch_size()) } else { dealt.clone() };
        let (version, columns, schema) =
            (Arc::clone(&self.version), Arc::clone(&self.columns), Arc::clone(&self.schema));
        let shown = self.shown.clone();
        let source = Source { version, columns, schema, shown };
        let batches = stream::unfold((morsels.into_iter(), None), move |(mut morsels, held)| {
            let source = source.clone();
            async move {
                let morsel = morsels.next()?;
                match read(source, held, morsel).await {
                    Ok((batch, held)) => Some((Ok(batch), (morsels, Some(held)))),
                    Err(error) => Some((Err(error), (morsels, None))),
                }
            }
        });
        let batches = batches
            .map(move |batch| if copied { batch.and_then(|batch| own(&batch)) } else { batch })
            .filter(|batch| {
                let keep = batch.as_ref().map_or(true, |batch| batch.num_rows() > 0);
                async move { keep }
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches)))
    }
}

/// The same rows in pieces of at most `most`.
fn smaller(morsels: &[Morsel], most: usize) -> Vec<Morsel> {
    let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
    let cut = |morsel: &Morsel| {
        let Morsel { chunk, start, rows } = *morsel;
        let pieces = (0..rows).step_by(most as usize);
        pieces.map(move |from| Morsel { chunk, start: start + from, rows: most.min(rows - from) })
    };
    morsels.iter().flat_map(cut).collect()
}

/// A copy that shares nothing.
fn own(batch: &RecordBatch) -> Result<RecordBatch> {
    let copy = |array: &ArrayRef| -> Result<ArrayRef> {
        let data = array.to_data();
        let mut copy = MutableArrayData::new(vec![&data], false, data.len());
        copy.try_extend(0, 0, data.len())?;
        Ok(make_array(copy.freeze()))
    };
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let arrays = batch.columns().iter().map(copy).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new_with_options(batch.schema(), arrays, &options)?)
}

/// What a partition reads from.
#[derive(Clone)]
struct Source {
    version: Arc<TableVersion>,
    columns: Arc<[ScanColumn]>,
    schema: SchemaRef,
    shown: Option<Arc<ShownRows>>,
}

/// The columns of the chunk that a partition reads: of one that the cache has no room for each would be decoded anew
/// for every morsel.
struct Held {
    chunk: usize,
    columns: Vec<ArrayRef>,
}

async fn read(source: Source, held: Option<Held>, morsel: Morsel) -> Result<(RecordBatch, Held)> {
    let held = held.filter(|held| held.chunk == morsel.chunk);
    // Decoding a segment's column takes milliseconds; a memory chunk's column is a pointer.
    if held.is_none() && source.version.chunks[morsel.chunk].chunk.segment().is_some() {
        return tokio::task::spawn_blocking(move || read_now(&source, held, morsel))
            .await
            .map_err(|problem| DataFusionError::External(Box::new(problem)))?;
    }
    read_now(&source, held, morsel)
}

fn read_now(source: &Source, held: Option<Held>, morsel: Morsel) -> Result<(RecordBatch, Held)> {
    let reference = &source.version.chunks[morsel.chunk];
    let (start, rows) = (morsel.start as usize, morsel.rows as usize);
    let held = match held {
        Some(held) => held,
        None => Held { chunk: morsel.chunk, columns: whole(reference, &source.columns)? },
    };
    let arrays = held.columns.iter().map(|whole| whole.slice(start, rows)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&source.schema), arrays, &options)?;
    let shown = source.shown.as_deref();
    let live = live(reference, morsel);
    let kept = match shown {
        None => live,
        Some(shown) => {
            let ids = reference.chunk.row_ids().map_err(carry_store)?;
            let is_live = |row: usize| live.as_ref().is_none_or(|live| live.value(row));
            let kept = (0..rows).map(|row| Some(is_live(row) && shown.shows(ids.value(start + row))));
            Some(kept.collect::<BooleanArray>())
        }
    };
    match kept {
        Some(kept) => Ok((filter_record_batch(&batch, &kept)?, held)),
        None => Ok((batch, held)),
    }
}

fn whole(reference: &ChunkRef, columns: &[ScanColumn]) -> Result<Vec<ArrayRef>> {
    let read = |column: &ScanColumn| -> Result<ArrayRef> {
        match column {
            ScanColumn::RowId => Ok(reference.chunk.row_ids().map_err(carry_store)?),
            ScanColumn::Stored(column) => reference.chunk.column(column).map_err(carry_store),
        }
    };
    columns.iter().map(read).collect()
}

/// Which rows of a morsel are not deleted; `None` when all are.
fn live(reference: &ChunkRef, morsel: Morsel) -> Option<BooleanArray> {
    let range = morsel.start..morsel.start + morsel.rows;
    if reference.deleted.range_cardinality(range.clone()) == 0 {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(morsel.rows as usize);
    bits.append_n(morsel.rows as usize, true);
    for position in reference.deleted.range(range) {
        bits.set_bit((position - morsel.start) as usize, false);
    }
    Some(BooleanArray::new(bits.finish(), None))
}
