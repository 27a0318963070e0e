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
};

use arrow::array::{Array, ArrayRef};
use sepal_index::{BuildMeans, BuildMemory, BuildParams, IndexError, Seed, VectorIndex, Vectors};
use sepal_storage::{BlobBuilder, BlobBytes, Chunk, MergeInput};
use sepal_types::{Error, IndexDef, IndexMethod, Result, SqlState, TableDef, TableId, VectorIndexOptions};

use super::LEAST_INDEXED_ROWS;
use crate::{background, builds::Posted, check::present, tenant::OpenTenant};

const MIB: u64 = 1 << 20;

/// A build that is to be done.
pub(super) struct Work<'a> {
    pub options: &'a VectorIndexOptions,
    /// The segment's whole column.
    pub column: &'a ArrayRef,
    pub posted: &'a Posted,
    /// Whether to give up.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

impl Work<'_> {
    /// What it takes beside the rows.
    pub(super) fn need(&self) -> Result<BuildMemory> {
        let (vectors, dim) = sepal_query::vector::elements(self.column)?;
        let BuildMemory { usual, least } = sepal_index::build_memory(self.options, self.column.len(), dim);
        let copied = copied_bytes(vectors);
        Ok(BuildMemory { usual: usual + copied, least: least + copied })
    }

    /// Errors: 57014 when it was to give up, 0A000 for a metric the method has not.
    pub(super) fn run(&self, threads: usize, means: &BuildMeans<'_>) -> Result<Box<dyn VectorIndex>> {
        let (vectors, dim) = sepal_query::vector::elements(self.column)?;
        let memory_bytes = means.memory_bytes.saturating_sub(copied_bytes(vectors));
        let vectors = vectors.widened();
        let valid = present(self.column);
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

/// Of a `halfvec` column a build has a copy of twice its size, for as long as it lasts.
fn copied_bytes(vectors: Vectors<'_>) -> u64 {
    match vectors {
        Vectors::F32(_) => 0,
        Vectors::F16(elements) => (elements.len() * size_of::<f32>()) as u64,
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
    /// Writers wait for a flush: where builds of others have the memory, its segments are left without indexes, and get
    /// them like others that lack theirs.
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

    /// `None` where there is no memory now.
    fn built(
        &self,
        work: &Work<'_>,
        index: TableId,
        inputs: &[MergeInput<'_>],
    ) -> Result<Option<Box<dyn VectorIndex>>> {
        let budget = &self.tenant.background.build_budget;
        let need = work.need()?;
        let base = base(work, inputs);
        let bytes = need.within(budget.bytes()) + base.map_or(0, |base| base.chunk.index_bytes(index));
        let waits = self.merging.is_some_and(|merging| merging.load(Ordering::Relaxed));
        let share = if waits { budget.take(bytes, self.stop) } else { budget.try_take(bytes) };
        let Some(_share) = share else { return Ok(None) };
        if need.usual > budget.bytes() {
            let (needed, allowed) = (need.usual, budget.bytes());
            tracing::warn!(needed, allowed, "an index build needs more memory than index_build_mib lends");
        }
        let opened = base.and_then(|base| self.open(work, index, base));
        let seeds: Vec<Seed<'_>> =
            opened.iter().map(|(index, positions)| Seed { index: &**index, positions }).collect();
        work.run(self.tenant.threads, &BuildMeans { memory_bytes: budget.bytes(), seeds: &seeds }).map(Some)
    }

    /// An index that does not open is none to go on from.
    fn open<'b>(
        &self,
        work: &Work<'_>,
        index: TableId,
        base: &'b MergeInput<'_>,
    ) -> Option<(Arc<dyn VectorIndex>, &'b [u32])> {
        let (_, dim) = sepal_query::vector::elements(work.column).ok()?;
        match self.tenant.indexes.get_once(base.chunk, index, dim) {
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

/// The input whose graph the new one can go on from, if there is one.
fn base<'a, 'b>(work: &Work<'_>, inputs: &'a [MergeInput<'b>]) -> Option<&'a MergeInput<'b>> {
    if !is_graph(work.options) {
        return None;
    }
    let known = |input: &MergeInput<'_>| input.positions.iter().filter(|place| **place != u32::MAX).count();
    let (known, base) = inputs.iter().map(|input| (known(input), input)).max_by_key(|(known, _)| *known)?;
    sepal_index::is_worth_a_seed(known, work.column.len()).then_some(base)
}

impl BlobBuilder for SegmentIndexer<'_> {
    fn build(
        &self,
        def: &TableDef,
        index: &IndexDef,
        column: &ArrayRef,
        inputs: &[MergeInput<'_>],
    ) -> Option<Box<dyn BlobBytes>> {
        let IndexMethod::Vector(options) = &index.method else {
            return None;
        };
        if !index.valid || column.len() < LEAST_INDEXED_ROWS {
            return None;
        }
        if let Some((task, phase)) = self.told {
            task.phase(phase);
        }
        let posted = self.tenant.builds.post(0, def.id, index.id, column.len() as u64);
        let work = Work { options, column, posted: &posted, stop: self.stop };
        match self.built(&work, index.id, inputs) {
            Ok(Some(built)) => Some(Box::new(Built::from(built))),
            Ok(None) => {
                tracing::debug!(index = %index.name, table = %def.name, "no memory for an index now; it comes later");
                None
            }
            Err(_) if (self.stop)() => None,
            Err(error) => {
                // The segment is searched exactly meanwhile: no row is lost to a search.
                tracing::error!(index = %index.name, table = %def.name, %error, "an index could not be built");
                None
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
                let opened = segment.column(column).map_err(Error::from).and_then(|vectors| {
                    let (_, dim) = sepal_query::vector::elements(&vectors)?;
                    self.tenant.indexes.get(segment, index.id, dim)
                });
                if let Err(error) = opened {
                    tracing::error!(index = %index.name, segment = %file, %error, "a new index does not open");
                }
            }
        }
    }
}
