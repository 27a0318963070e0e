//! One index over one segment: what it takes, what of other indexes it can go on from, and the build.
//!
//! Storage calls [`SegmentIndexer`] when a flush or a merge has written a segment. CREATE INDEX and whoever builds
//! what is missing do a [`Work`] themselves. Nothing here commits anything.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::array::ArrayRef;
use sepal_index::{BuildMeans, BuildMemory, BuildParams, IndexError, Seed, VectorIndex};
use sepal_storage::{BlobBuilder, BlobBytes, Chunk, MergeInput, StoreError};
use sepal_types::{
    ColumnDef, Error, IndexDef, IndexMethod, Result, SqlState, SqlType, TableDef, TableId, VectorIndexOptions,
};

use super::LEAST_INDEXED_ROWS;
use crate::{
    background::{self, Share},
    builds::Posted,
    check::present,
    tenant::OpenTenant,
};

const MIB: u64 = 1 << 20;
/// How long a flush waits for FAISS, which builds one index at a time, whosever it is: as long as a small one takes.
const FAISS_WAIT: Duration = Duration::from_secs(1);

/// A build that is to be done.
pub(super) struct Work<'a> {
    pub options: &'a VectorIndexOptions,
    pub column: &'a ColumnDef,
    pub segment: &'a Chunk,
    pub posted: &'a Posted,
    /// Whether to give up.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

impl Work<'_> {
    fn rows(&self) -> usize {
        self.segment.rows() as usize
    }

    fn dim(&self) -> usize {
        match self.column.ty {
            SqlType::Vector(dimensions) | SqlType::HalfVec(dimensions) => dimensions.map_or(0, usize::from),
            _ => 0,
        }
    }

    /// Of a `halfvec` column a build has a copy of twice its size, for as long as it lasts.
    fn copied_bytes(&self) -> u64 {
        match self.column.ty {
            SqlType::HalfVec(_) => (self.rows() * self.dim() * size_of::<f32>()) as u64,
            _ => 0,
        }
    }

    /// What it takes beside the rows. Decodes none of them: who waits for memory must not hold any.
    pub(super) fn need(&self) -> BuildMemory {
        let BuildMemory { usual, least } = sepal_index::build_memory(self.options, self.rows(), self.dim());
        let copied = self.copied_bytes();
        BuildMemory { usual: usual + copied, least: least + copied }
    }

    /// Waits until so much memory can be had; `None` when it is to give up.
    pub(super) fn wait<'b>(&self, tenant: &'b OpenTenant, bytes: u64) -> Option<Share<'b>> {
        let budget = &tenant.background.build_budget;
        let wait = || self.posted.waiting(|| budget.take(tenant.id, bytes, self.stop));
        budget.try_take(bytes).or_else(wait)
    }

    /// `column`: the segment's.
    ///
    /// Errors: 57014 when it was to give up, 0A000 for a metric the method has not.
    pub(super) fn run(
        &self,
        column: &ArrayRef,
        threads: usize,
        means: &BuildMeans<'_>,
    ) -> Result<Box<dyn VectorIndex>> {
        let (vectors, dim) = sepal_query::vector::elements(column)?;
        let memory_bytes = means.memory_bytes.saturating_sub(self.copied_bytes());
        let vectors = vectors.widened();
        let valid = present(column);
        let params = BuildParams {
            metric: self.options.metric(),
            dim,
            vectors: &vectors,
            valid: valid.as_ref(),
            threads,
            progress: &|done, total| self.posted.report(done, total),
            cancelled: self.stop,
        };
        let means = BuildMeans { memory_bytes, ..*means };
        sepal_index::build_with(self.options, &params, &means).map_err(|problem| match problem {
            IndexError::Cancelled => cancelled(),
            IndexError::UnsupportedMetric { .. } => Error::unsupported(problem.to_string()),
            other => Error::new(SqlState::InternalError, format!("the index could not be built: {other}")),
        })
    }
}

pub(super) fn cancelled() -> Error {
    Error::new(SqlState::QueryCanceled, "canceling statement due to user request")
}

/// An index that is there, to be written.
pub(super) struct Built(Arc<dyn VectorIndex>);

impl Built {
    pub(super) fn into_index(self) -> Arc<dyn VectorIndex> {
        self.0
    }
}

impl From<Box<dyn VectorIndex>> for Built {
    fn from(index: Box<dyn VectorIndex>) -> Self {
        Self(Arc::from(index))
    }
}

impl BlobBytes for Built {
    fn length(&self) -> u64 {
        self.0.serialized_bytes()
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.serialize_into(out)
    }
}

/// A build that had less memory than it could have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shortage {
    pub needed: u64,
    pub allowed: u64,
    /// Whether it made do with less, at the price of time.
    slower: bool,
}

impl Shortage {
    pub(super) fn of(options: &VectorIndexOptions, need: BuildMemory, allowed: u64) -> Option<Self> {
        let slower = is_graph(options) && need.least < need.usual;
        (need.usual > allowed).then_some(Self { needed: need.usual, allowed, slower })
    }

    /// As pgvector tells it.
    pub fn notice(&self) -> Error {
        let needed = format!("{} MB", self.needed.div_ceil(MIB));
        let allowed = match self.allowed / MIB {
            0 => format!("{} kB", self.allowed >> 10),
            allowed => format!("{allowed} MB"),
        };
        if self.slower {
            let message = "hnsw graph does not fit into maintenance_work_mem";
            return Error::new(SqlState::SuccessfulCompletion, message)
                .with_detail(format!("It needs {needed}, and was built in {allowed}. That takes longer."))
                .with_hint("Increase maintenance_work_mem to speed up builds.");
        }
        let message = format!("memory required is {needed}, maintenance_work_mem is {allowed}");
        Error::new(SqlState::SuccessfulCompletion, message)
    }
}

/// Builds the indexes of the segments that a flush or a merge writes.
pub(super) struct SegmentIndexer<'a> {
    tenant: &'a OpenTenant,
    /// Whether to give up: the caller is about to, too.
    stop: &'a (dyn Fn() -> bool + Sync),
    /// Once true, builds wait for memory; `None`: never.
    merging: Option<&'a AtomicBool>,
    /// Whoever waits for the flush sees that it has come to the indexes, in words of its own.
    told: Option<(&'a background::Posted, &'static str)>,
}

impl<'a> SegmentIndexer<'a> {
    /// Writers wait for a flush: where builds of others have the memory, or FAISS, its segments are left without
    /// indexes, and get them like others that lack theirs.
    pub(super) fn of_flush(tenant: &'a OpenTenant, stop: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { tenant, stop, merging: None, told: None }
    }

    pub(super) fn telling(self, task: &'a background::Posted, phase: &'static str) -> Self {
        Self { told: Some((task, phase)), ..self }
    }

    /// Nobody waits for a merge. `merging`: whether the flush before it, if there is one, is over.
    pub(super) fn of_merge(
        tenant: &'a OpenTenant,
        stop: &'a (dyn Fn() -> bool + Sync),
        merging: &'a AtomicBool,
    ) -> Self {
        Self { tenant, stop, merging: Some(merging), told: None }
    }

    /// Memory for a build, with what is opened of `base` to go on from. `None` where there is none now, or where nobody
    /// wants the index any more.
    fn room(
        &self,
        work: &Work<'_>,
        of: (TableId, TableId),
        base: Option<&MergeInput<'_>>,
    ) -> Option<Share<'a>> {
        let budget = &self.tenant.background.build_budget;
        let (table, index) = of;
        let bytes = work.need().within(budget.bytes()) + base.map_or(0, |base| base.chunk.index_bytes(index));
        let waits = self.merging.is_some_and(|merging| merging.load(Ordering::Relaxed));
        if !waits {
            let free = !is_by_faiss(work.options) || sepal_index::faiss_is_free(FAISS_WAIT);
            return free.then(|| budget.try_take(bytes)).flatten();
        }
        let share = work.wait(self.tenant, bytes)?;
        let head = self.tenant.store.snapshot();
        let known = |def: &TableDef| def.indexes.iter().any(|known| known.id == index);
        head.table(table).is_some_and(|version| known(&version.def)).then_some(share)
    }

    fn built(
        &self,
        work: &Work<'_>,
        column: &ArrayRef,
        index: TableId,
        base: Option<&MergeInput<'_>>,
    ) -> Result<Box<dyn VectorIndex>> {
        let allowed = self.tenant.background.build_budget.bytes();
        let needed = work.need().usual;
        if needed > allowed {
            tracing::warn!(needed, allowed, "an index build needs more memory than index_build_mib lends");
        }
        let opened = base.and_then(|base| self.open(work, index, base));
        let seeds: Vec<Seed<'_>> =
            opened.iter().map(|(index, positions)| Seed { index: &**index, positions }).collect();
        work.run(column, self.tenant.threads, &BuildMeans { memory_bytes: allowed, seeds: &seeds })
    }

    /// An index that does not open is none to go on from.
    fn open<'b>(
        &self,
        work: &Work<'_>,
        index: TableId,
        base: &'b MergeInput<'_>,
    ) -> Option<(Arc<dyn VectorIndex>, &'b [u32])> {
        match self.tenant.indexes.get_once(base.chunk, index, work.dim()) {
            Ok(opened) => opened.map(|opened| (opened, base.positions.as_slice())),
            Err(error) => {
                tracing::warn!(%error, "the index of a segment that is merged does not open; a new one is built");
                None
            }
        }
    }
}

fn is_graph(options: &VectorIndexOptions) -> bool {
    matches!(options, VectorIndexOptions::Hnsw { .. } | VectorIndexOptions::Graph { .. })
}

fn is_by_faiss(options: &VectorIndexOptions) -> bool {
    matches!(options, VectorIndexOptions::IvfFlat { .. } | VectorIndexOptions::Faiss { .. })
}

/// The input whose graph the new one can go on from, if there is one.
fn base<'a, 'b>(work: &Work<'_>, inputs: &'a [MergeInput<'b>]) -> Option<&'a MergeInput<'b>> {
    if !is_graph(work.options) {
        return None;
    }
    let known = |input: &MergeInput<'_>| input.positions.iter().filter(|place| **place != u32::MAX).count();
    let (known, base) = inputs.iter().map(|input| (known(input), input)).max_by_key(|(known, _)| *known)?;
    sepal_index::is_worth_a_seed(known, base.positions.len(), work.rows()).then_some(base)
}

impl BlobBuilder for SegmentIndexer<'_> {
    fn build(
        &self,
        def: &TableDef,
        index: &IndexDef,
        segment: &Chunk,
        inputs: &[MergeInput<'_>],
    ) -> Result<Option<Box<dyn BlobBytes>>, StoreError> {
        let column = index.columns.first().and_then(|column| def.column_by_id(*column));
        let (IndexMethod::Vector(options), Some(column)) = (&index.method, column) else {
            return Ok(None);
        };
        if !index.valid || (segment.rows() as usize) < LEAST_INDEXED_ROWS {
            return Ok(None);
        }
        let posted = self.tenant.builds.post(0, def.id, index.id, u64::from(segment.rows()));
        let work = Work { options, column, segment, posted: &posted, stop: self.stop };
        let base = base(&work, inputs);
        let Some(_share) = self.room(&work, (def.id, index.id), base) else {
            tracing::debug!(index = %index.name, table = %def.name, "no memory for an index now, or it is dropped");
            return Ok(None);
        };
        if let Some((task, phase)) = self.told {
            task.phase(phase);
        }
        // Not before: while it waits, it holds no rows.
        let vectors = segment.column(column)?;
        match self.built(&work, &vectors, index.id, base) {
            Ok(built) => Ok(Some(Box::new(Built::from(built)))),
            Err(_) if (self.stop)() => Ok(None),
            Err(error) => {
                // The segment is searched exactly meanwhile: no row is lost to a search.
                tracing::error!(index = %index.name, table = %def.name, %error, "an index could not be built");
                Ok(None)
            }
        }
    }

    /// Opens the indexes that queries have had open of the segments before.
    fn ready(&self, def: &TableDef, segment: &Chunk, replaced: &[&Chunk]) {
        let Some(file) = segment.segment() else { return };
        for column in &def.columns {
            for (index, _) in def.vector_indexes(column.id) {
                let mut before = replaced.iter().filter_map(|chunk| chunk.segment());
                if !segment.has_index(index.id)
                    || !before.any(|file| self.tenant.indexes.holds(file, index.id))
                {
                    continue;
                }
                let Some(dim) = column.ty.dimensions() else { continue };
                // Of the table's other segments a merge knows nothing.
                let all_bytes = || segment.index_bytes(index.id);
                let opened = self.tenant.indexes.get(segment, index.id, usize::from(dim), all_bytes);
                if let Err(error) = opened {
                    tracing::error!(index = %index.name, segment = %file, %error, "a new index does not open");
                }
            }
        }
    }
}
