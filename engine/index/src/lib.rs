//! Vector search over slices: nothing here does I/O, holds a key, or knows Arrow.
//!
//! Callers are `query` (search, distances for SQL) and `database/maintain` (build). An index belongs to one
//! immutable segment: `n` vectors of `dim` `f32` (or `f16`: [`Vectors`]) each, row-major, which the caller keeps and
//! hands to every search. It is built from `f32`. No index holds a second copy of them; what it holds is how to find
//! the near ones quickly.
//!
//! # The journey of an index
//! 1. A segment is written. [`build`] reads `USING hnsw | graph | ivfflat | flat | faiss` from `VectorIndexOptions`
//!    and calls `graph`, `ivf`, `flat` or `faiss`, or `signs` for one over `binary_quantize`. Rows that are NULL
//!    ([`BuildParams::valid`]) and, for cosine, vectors of length zero have no place in an index and are left out, as in
//!    pgvector.
//!    Then `calibration` measures how much of the truth it finds at which effort. Where segments were merged, a
//!    graph goes on from one of theirs ([`Seed`]), until too many rows came and went (`wear`).
//! 2. [`VectorIndex::serialize_into`] writes bytes (drawn in `layout` and in each kind's `layout`); storage seals
//!    them beside the segment.
//! 3. After a restart [`open_stored`] reads them back. It checks every length and every position, so that bytes that
//!    are not an index are an [`IndexError`], never a panic or a wild allocation. [`open_in_place`] leaves there what is
//!    large and can be read by a search: the codes of `ivf`.
//!
//! # The journey of a query
//! 1. The filter, the deletion vector and NULLs become one [`Bits`]: the allowed rows.
//! 2. [`search_parts`] searches all segments of a table (`parts`): graphs by walks on `quantize`'s codes, whose
//!    candidates then compete, the others one after the other ([`VectorIndex::search`]), where `ivf` scans the codes of
//!    some cells, `faiss` asks FAISS, and `flat` scans all. With no index, [`search_exact`] does what `flat` does.
//!    Bit strings, a column's or the signs of one, are all compared ([`search_bits`]).
//! 3. Distances are computed from the original vectors by `distance`'s kernels (AVX-512, AVX2, NEON or
//!    scalar, resolved once), so that a row's distance has the same bits whichever way the row was found.
//!    Where the vectors are not all at hand, an index names the rows to fetch ([`VectorIndex::candidates`]). Those
//!    of graphs compete, and are fetched as far as it takes ([`search_named`]); of other indexes all are, and are the
//!    part that is searched ([`Part::rows`]).
//! 4. The `k` nearest of all segments come back ascending as [`Found`], with the [`Work`] that it took.
//!
//! # Invariants
//! - A filter never costs rows: `k` are returned whenever that many allowed rows are indexed.
//! - Distances are pgvector's: `f32` sums, the last step in `f64`, NaN (a cosine with length zero) last.

mod bits;
mod calibration;
mod check;
mod distance;
mod error;
mod faiss;
mod flat;
mod graph;
mod ivf;
mod layout;
mod memory;
mod neighbor;
mod parts;
mod permute;
mod prefetch;
mod quantize;
mod signs;
mod vectors;
mod wear;

use std::io;

use sepal_types::{Metric, VectorIndexOptions};

pub use bits::Bits;
pub use check::verify;
pub use distance::{
    KernelLevel, distance, distances, hamming, jaccard, kernel_level, sparse_distance, sparse_l2_squared,
};
pub use error::IndexError;
pub use faiss::{check_factory, faiss_is_free};
pub use flat::{Stopped, search_exact, search_exact_until};
pub use graph::search_named;
pub use layout::Stored;
pub use memory::{BuildMeans, BuildMemory, build_memory, is_worth_a_seed};
pub use neighbor::{Found, Neighbor};
pub use parts::{Allowed, Effort, Part, Query, Work, search_parts, search_parts_until};
pub use signs::{BitRows, Signs, append_signs, search_bits};
pub use vectors::Vectors;
pub use wear::Wear;

use crate::calibration::{Calibrated, Calibration, calibrated, calibrated_with};
use crate::faiss::Faiss;
use crate::flat::Flat;
use crate::graph::Graph;
use crate::ivf::IvfFlat;
use crate::layout::{Kind, Source};

/// What an index is built from.
pub struct BuildParams<'a> {
    pub metric: Metric,
    /// Elements of one vector, 1 to 16,000.
    pub dim: usize,
    /// `n × dim`, row-major; at most `u32::MAX` rows. A NULL row's elements may hold anything.
    pub vectors: &'a [f32],
    /// Rows that are not NULL; `None` means all.
    pub valid: Option<&'a Bits>,
    /// Threads to use; 0 counts as 1.
    pub threads: usize,
    /// Called now and then with rows done and rows in all, from any thread.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Asked now and then; once true, `build` ends with [`IndexError::Cancelled`].
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// An index over rows of which some, or all, are among those of a build.
#[derive(Clone, Copy)]
pub struct Seed<'a> {
    pub index: &'a dyn VectorIndex,
    /// Where each of its rows is now; `u32::MAX` for one that is gone. Where that is wrong (two rows at one place, other
    /// elements there), the graph finds less or the build takes longer, and nothing worse.
    pub positions: &'a [u32],
}

/// What one search wants.
#[derive(Clone, Copy)]
pub struct SearchParams<'a> {
    /// Most neighbours to return.
    pub k: usize,
    /// `hnsw.ef_search`: candidates that a graph search keeps, or that FAISS is asked for; counts as at least `k`.
    pub ef_search: usize,
    /// `ivfflat.probes`: cells an IVF search reads first; 0 counts as 1.
    pub probes: usize,
    /// Rows that may be returned; `None` means all.
    pub allowed: Option<&'a Bits>,
}

/// Rows that an index names, to be scored from their vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidates {
    /// Ascending.
    pub rows: Vec<u32>,
    /// How far each of them is by its code, where they are more than have to be scored: [`search_named`] finds out how
    /// many. Empty where all are to be.
    pub estimates: Vec<f32>,
    /// How many of the allowed rows the index holds: these, or more.
    pub indexed: usize,
    /// What naming them took.
    pub work: Work,
}

/// An index over the vectors of one segment.
pub trait VectorIndex: Send + Sync {
    /// The `k` nearest of the allowed rows that the index found, ascending by exact distance (NaN last, then
    /// by position), all of them different. Fewer than `k` only when fewer allowed rows are indexed.
    ///
    /// `vectors` are the very `n × dim` the index was built from, or the `f16` that those were widened from, and
    /// `query` has `dim` elements: anything else is a bug of the caller and panics. Compare [`VectorIndex::shape`]
    /// once, after [`open`].
    fn search(&self, vectors: Vectors, query: &[f32], params: &SearchParams) -> Vec<Neighbor>;

    /// [`VectorIndex::search`], which adds the codes and distances that it took to `work`, where the index can tell.
    fn search_counted(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        _work: &mut Work,
    ) -> Vec<Neighbor> {
        self.search(vectors, query, params)
    }

    /// The same for an index that scores all rows: it may be given up, with whatever it has found by then.
    fn search_until(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        _stopped: &Stopped<'_>,
        work: &mut Work,
    ) -> Vec<Neighbor> {
        self.search_counted(vectors, query, params, work)
    }

    /// As [`VectorIndex::search`] with the vector of `row`, for a reader to whom that row and those equal to it are
    /// not there: what a query finds that is like the rows but is none of them. For measuring recall.
    fn search_unseen(&self, vectors: Vectors, row: usize, params: &SearchParams) -> Vec<Neighbor> {
        let dim = self.shape().1;
        let question = vectors.row(row, dim).widened();
        calibration::without_equals(vectors, &question, params.k, |k| {
            self.search(vectors, &question, &SearchParams { k, ..*params })
        })
    }

    /// For a caller that has to fetch the vectors that are scored: rows among which are those that a search finds, at
    /// least `k` where so many allowed ones are indexed. `None` where all rows are to be scored, or for an index that
    /// reads vectors on its way.
    ///
    /// `stored`: what [`open_in_place`] was given, for an index that left something there. [`VectorIndex::search`] does
    /// without that, and reads vectors instead.
    ///
    /// # Errors
    /// [`IndexError::Unreadable`] with what `stored` says; [`IndexError::Shape`] where it is missing.
    fn candidates(
        &self,
        _stored: Option<&dyn Stored>,
        _query: &[f32],
        _params: &SearchParams,
    ) -> Result<Option<Candidates>, IndexError> {
        Ok(None)
    }

    /// Whether it left something where it is stored.
    fn is_in_place(&self) -> bool {
        false
    }

    /// Of [`VectorIndex::memory_bytes`] what [`open_in_place`] would leave where it is stored.
    fn leavable_bytes(&self) -> usize {
        0
    }

    /// The graph, where it is one: the candidates of several segments' graphs compete.
    fn graph(&self) -> Option<&Graph> {
        None
    }

    /// The signs of its rows, where it is of those: a search compares them ([`search_bits`]).
    fn signs(&self) -> Option<&Signs> {
        None
    }

    /// The least effort at which searches for `k` rows are expected to find the share `recall` of the nearest, as the
    /// build measured it, or as a careful guess where it did not: `ef_search` of a graph, `probes` of cells. `None`
    /// where only the exact scan will do, as for a recall of 1.
    fn effort_for(&self, recall: f64, k: usize) -> Option<usize>;

    /// How far it is from a fresh build; `None` where nobody knows: it has no calibration.
    fn wear(&self) -> Option<Wear> {
        None
    }

    /// The bytes for [`open`].
    fn serialize(&self) -> Vec<u8>;

    /// How many those are.
    fn serialized_bytes(&self) -> u64 {
        self.serialize().len() as u64
    }

    /// Writes them as they are made.
    ///
    /// # Errors
    /// Those of `out`.
    fn serialize_into(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.serialize())
    }

    /// Heap bytes held, for the memory budget.
    fn memory_bytes(&self) -> usize;

    /// Indexed rows: those that were neither NULL nor, for cosine, of length zero.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `(n, dim)` of the vectors it was built from.
    fn shape(&self) -> (usize, usize);

    /// Whether what it holds is an index over these rows, which have its [`VectorIndex::shape`]. [`verify`] asks, and
    /// searches it besides.
    ///
    /// # Errors
    /// [`IndexError::Disagrees`]
    fn check(&self, rows: &BuildParams) -> Result<(), IndexError>;

    /// The share of the nearest rows below which [`verify`] takes it for an index over other rows, which finds hardly
    /// any. One over these rows finds nine of ten, except where the rows themselves defeat it.
    fn least_recall(&self) -> f64 {
        0.5
    }
}

/// Builds what `USING` names.
///
/// # Errors
/// [`IndexError::UnsupportedMetric`] for `ivfflat` and `faiss` with L1, [`IndexError::Factory`],
/// [`IndexError::Shape`] when the slices do not fit together, [`IndexError::Cancelled`], and [`IndexError::Faiss`]
/// when FAISS gives up.
pub fn build(options: &VectorIndexOptions, params: &BuildParams) -> Result<Box<dyn VectorIndex>, IndexError> {
    build_with(options, params, &BuildMeans::default())
}

/// The same with what there is of memory, and of indexes over some of the rows.
///
/// # Errors
/// The same.
pub fn build_with(
    options: &VectorIndexOptions,
    params: &BuildParams,
    means: &BuildMeans,
) -> Result<Box<dyn VectorIndex>, IndexError> {
    params.check()?;
    if options.metric() != params.metric {
        return Err(IndexError::Shape(format!(
            "the index is for {} but the build for {}; pass the index's own metric",
            options.metric().opclass(),
            params.metric.opclass()
        )));
    }
    Ok(match options {
        VectorIndexOptions::Flat { .. } => Box::new(Flat::build(params)?),
        VectorIndexOptions::Hnsw { metric, m, ef_construction }
        | VectorIndexOptions::Graph { metric, m, ef_construction } => {
            let (metric, m, ef) = (*metric, *m, *ef_construction);
            match merged(metric, (m, ef), params, means)? {
                Some(merged) => merged,
                None => calibrated(Graph::build_within(metric, m, ef, params, means.memory_bytes)?, params)?,
            }
        }
        VectorIndexOptions::IvfFlat { lists, .. } => calibrated(IvfFlat::build(*lists, params)?, params)?,
        VectorIndexOptions::Faiss { factory, .. } => calibrated(Faiss::build(factory, params)?, params)?,
        VectorIndexOptions::Signs { .. } => Box::new(Signs::build(params)?),
    })
}

/// A graph that goes on from a seed's; `None` where a fresh one is the better choice, before or after.
fn merged(
    metric: Metric,
    (m, ef_construction): (u16, u16),
    params: &BuildParams,
    means: &BuildMeans,
) -> Result<Option<Box<dyn VectorIndex>>, IndexError> {
    // What is not calibrated is small, and tells of no wear.
    let seeds: Vec<Seed> = means.seeds.iter().copied().filter(|seed| seed.index.wear().is_some()).collect();
    let means = BuildMeans { memory_bytes: means.memory_bytes, seeds: &seeds };
    let Some(merged) = Graph::merge(metric, m, ef_construction, params, &means)? else { return Ok(None) };
    let base = merged.base;
    let merged = calibrated_with(merged.graph, params, merged.wear)?;
    Ok((!finds_less(&*merged, base)).then_some(merged))
}

/// Whether an index has to try half as hard again as the one before, to find what a build measures both by: a cluster
/// may have lost the last good way to it. Tells nothing of small ones, which are not measured.
fn finds_less(index: &dyn VectorIndex, before: &dyn VectorIndex) -> bool {
    const RECALL: f64 = 0.95;
    const NEAREST: usize = 10;
    match (before.effort_for(RECALL, NEAREST), index.effort_for(RECALL, NEAREST)) {
        // Where little is tried, a rung more is chance.
        (Some(before), Some(now)) => 2 * now > 3 * before + 2 * NEAREST,
        (before, now) => before.is_some() && now.is_none(),
    }
}

/// Reads the bytes of [`VectorIndex::serialize`].
///
/// # Errors
/// [`IndexError::Corrupt`] or [`IndexError::Version`]: drop the bytes and build the index anew.
pub fn open(bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
    opened(Source::Bytes(bytes), Left::Nothing)
}

/// The same bytes from wherever they are stored, with no copy of them in memory beside what a search reads.
///
/// # Errors
/// Those of [`open`], and [`IndexError::Unreadable`].
pub fn open_stored(stored: &dyn Stored) -> Result<Box<dyn VectorIndex>, IndexError> {
    opened(Source::Stored(stored), Left::Nothing)
}

/// The same without what a search can read from there: the codes of `ivfflat`, which are most of it. All other kinds
/// are opened as ever. [`VectorIndex::is_in_place`] tells.
///
/// # Errors
/// Those of [`open_stored`].
pub fn open_in_place(stored: &dyn Stored) -> Result<Box<dyn VectorIndex>, IndexError> {
    opened(Source::Stored(stored), Left::Codes)
}

/// What stays where it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    Codes,
}

fn opened(source: Source, left: Left) -> Result<Box<dyn VectorIndex>, IndexError> {
    let (header, body, measured) = layout::split(source)?;
    let calibration = match measured.remaining() {
        0 => None,
        _ => Some(Calibration::decode(&measured.rest()?, header.measured)?),
    };
    let index: Box<dyn VectorIndex> = match header.kind {
        Kind::Flat => Box::new(Flat::decode(&body.rest()?)?),
        Kind::Graph => {
            let reach = calibration.as_ref().map(|calibration| calibration.reach().clone());
            Box::new(Graph::read(body)?.with_reach(reach.unwrap_or_default()))
        }
        Kind::IvfFlat | Kind::IvfCodes => Box::new(IvfFlat::read(body, left)?),
        Kind::Faiss => Box::new(Faiss::read(body)?),
        Kind::Signs => Box::new(Signs::read(body)?),
    };
    Ok(match calibration {
        None => index,
        Some(calibration) => Box::new(Calibrated::new(index, calibration)),
    })
}

impl BuildParams<'_> {
    /// `n`, the number of rows.
    pub fn rows(&self) -> usize {
        self.vectors.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Row `position`'s elements.
    pub fn vector(&self, position: usize) -> &[f32] {
        &self.vectors[position * self.dim..][..self.dim]
    }

    /// The rows that an index holds: not NULL and, for cosine, not of length zero (it has no direction).
    pub fn indexable(&self) -> Bits {
        let mut bits = self.valid.cloned().unwrap_or_else(|| Bits::full(self.rows()));
        if self.metric == Metric::Cosine {
            for position in 0..self.rows() {
                if bits.get(position) && !distance::has_direction(self.vector(position)) {
                    bits.clear(position);
                }
            }
        }
        bits
    }

    /// Tells how far a builder is, and ends it when nobody wants the index any more.
    pub(crate) fn report(&self, done: usize) -> Result<(), IndexError> {
        if (self.cancelled)() {
            return Err(IndexError::Cancelled);
        }
        (self.progress)(done as u64, self.rows() as u64);
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<(), IndexError> {
        if self.dim == 0 || self.dim > sepal_types::limits::MAX_DIMENSIONS {
            return Err(IndexError::Shape(format!(
                "dim is {}; pass 1 to {}",
                self.dim,
                sepal_types::limits::MAX_DIMENSIONS
            )));
        }
        if !self.vectors.len().is_multiple_of(self.dim) || self.rows() > u32::MAX as usize {
            return Err(IndexError::Shape(format!(
                "{} floats are not a whole number of rows of {} (or more than 2^32 - 1 rows)",
                self.vectors.len(),
                self.dim
            )));
        }
        match self.valid {
            Some(valid) if valid.len() != self.rows() => Err(IndexError::Shape(format!(
                "`valid` has {} bits for {} rows; pass one bit a row",
                valid.len(),
                self.rows()
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
