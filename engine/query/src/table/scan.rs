//! Reads a table's chunks: memory chunks and segments alike, deleted rows left out.
//!
//! Work is cut into morsels of at most [`MORSEL_ROWS`] rows of one chunk and dealt to the partitions in order. What
//! each reads at a time, `reading` says. Never filters by what WHERE says.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, MutableArrayData, RecordBatch, RecordBatchOptions, make_array},
        datatypes::{Schema, SchemaRef},
    },
    common::tree_node::TreeNodeRecursion,
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};
use sepal_storage::{Chunk, TableVersion, arrow_field};
use sepal_types::{ColumnDef, Error};

use super::{
    reading::{Reader, Runs, Source, Span},
    user_table::ShownRows,
};
use crate::error::carry;

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
    /// Rows go to the client as they come.
    passed_on: AtomicBool,
    /// Whether its columns are too much for the cache, once somebody has looked.
    large: Arc<OnceLock<bool>>,
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
        let columns = columns.into();
        Self {
            version,
            columns,
            schema,
            partitions,
            limit,
            copied: AtomicBool::new(false),
            passed_on: AtomicBool::new(false),
            large: Arc::default(),
            shown: None,
            properties: Arc::new(properties),
        }
    }

    /// Makes batches that can be kept without keeping what they were cut from.
    pub(super) fn copy_out(&self) {
        self.copied.store(true, Ordering::Relaxed);
    }

    /// Its rows go to the client as they come: nobody will ask for the columns again soon.
    pub(super) fn pass_on(&self) {
        self.passed_on.store(true, Ordering::Relaxed);
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
        let most = if copied { task.session_config().batch_size() } else { MORSEL_ROWS as usize };
        let asked = (self.passed_on.load(Ordering::Relaxed), self.limit);
        let together = (&self.large, self.partitions.len());
        let source = Source {
            version: Arc::clone(&self.version),
            columns: Arc::clone(&self.columns),
            schema: Arc::clone(&self.schema),
            shown: self.shown.clone(),
            runs: Runs::of(&self.version, &self.columns, asked, together, task.memory_pool()),
        };
        let most = u32::try_from(most).unwrap_or(MORSEL_ROWS).min(MORSEL_ROWS);
        let reader = Reader::new(source, joined(dealt), most);
        let batches = stream::unfold(reader, |mut reader| async move {
            let batch = reader.next().await?;
            Some((batch, reader))
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

/// The same rows, neighbours as one.
fn joined(morsels: &[Morsel]) -> VecDeque<Span> {
    let mut spans: VecDeque<Span> = VecDeque::new();
    for morsel in morsels {
        let rows = morsel.start..morsel.start + morsel.rows;
        match spans.back_mut() {
            Some(last) if last.chunk == morsel.chunk && last.rows.end == rows.start => {
                last.rows.end = rows.end
            }
            _ => spans.push_back(Span { chunk: morsel.chunk, rows }),
        }
    }
    spans
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
