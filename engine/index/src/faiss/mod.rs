//! `USING faiss`: any index that FAISS makes on a processor of the strings that [`check_factory`] takes.
//!
//! Called by [`crate::build`] and [`crate::open`], and by CREATE INDEX, which has the string checked before anything is
//! built. `sys` and `cells` serve `ivf` too.
//!
//! - `factory` (and `token`): which strings, and what they say about an index.
//! - `rows`, `cells`, `build`: the rows as FAISS may see them, training, adding.
//! - `search`: FAISS finds candidates, their distances are computed from the table's vectors as everywhere.
//! - `stream`, `layout`: FAISS' bytes, behind ours.
//! - `sys`: the C API. The only C++ that sees a tenant's bytes.
//!
//! FAISS compares vectors of length one by L2 for cosine, which is the same order: more kinds know L2 than the inner
//! product. There is no taxicab distance, as there is none for `ivfflat`. A segment with fewer rows than a factory can
//! be trained on has an index without FAISS in it, which is scanned: a table's string is right for its large segments.

mod build;
pub(crate) mod cells;
mod check;
mod factory;
mod layout;
mod rows;
mod search;
mod stream;
pub(crate) mod sys;
mod token;

use std::{fmt, io};

use parking_lot::RwLock;
use sepal_types::Metric;

use crate::calibration::{self, Measured};
use crate::{Bits, BuildParams, IndexError, Neighbor, SearchParams, VectorIndex, Vectors, Work};
use factory::Factory;

pub(crate) use rows::{Rows, sample_rows, stratified};
pub use sys::faiss_is_free;

/// Efforts at which a build measures recall; where there are more cells, up to all of them.
const EFFORTS: [u32; 20] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000];
/// An effort that finds nine tenths of the ten nearest on the data at hand.
const CAREFUL: usize = 64;
/// The part of the cells that does, as for `ivfflat`.
const CAREFUL_SHARE: usize = 10;

/// `USING faiss`.
pub(crate) struct Faiss {
    metric: Metric,
    rows: usize,
    dim: usize,
    factory: Factory,
    /// Every element of a row was multiplied by this on its way to FAISS, and of a query is; 1 unless magnitudes are
    /// extreme.
    scale: f32,
    /// The rows that are indexed; `None`: all.
    held: Option<Held>,
    /// `None`: too few rows for the factory, which are scanned.
    engine: Option<Engine>,
}

/// Rows that are indexed where some are not. FAISS numbers them without gaps.
struct Held {
    bits: Bits,
    /// The row of each number.
    positions: Vec<u32>,
}

/// What FAISS holds.
struct Engine {
    /// Locked for reading by searches, for writing by those that walk with another width than the last one.
    walk: RwLock<Walk>,
    /// Bytes that FAISS writes of it, and about what it holds besides a table.
    written: usize,
    /// Bytes of its table for residuals.
    table: usize,
}

struct Walk {
    index: sys::Index,
    /// The width that was set last; 0 before that.
    width: usize,
}

/// Whether CREATE INDEX … USING faiss may take this factory for vectors of `dim` elements. FAISS makes an empty index
/// of it to find out.
///
/// # Errors
/// [`IndexError::Factory`] with Sepal's or FAISS' own words, [`IndexError::UnsupportedMetric`] for L1.
pub fn check_factory(factory: &str, metric: Metric, dim: usize) -> Result<(), IndexError> {
    known_metric(metric)?;
    let factory = Factory::parse(factory, dim)?;
    empty(&factory, metric, dim).map(drop)
}

fn known_metric(metric: Metric) -> Result<(), IndexError> {
    match metric {
        Metric::L1 => Err(IndexError::UnsupportedMetric { method: "faiss", metric }),
        _ => Ok(()),
    }
}

/// The metric of what FAISS gets.
fn engine_metric(metric: Metric) -> Metric {
    match metric {
        Metric::InnerProduct => Metric::InnerProduct,
        Metric::Cosine | Metric::L1 | Metric::L2 => Metric::L2,
    }
}

fn empty(factory: &Factory, metric: Metric, dim: usize) -> Result<sys::Index, IndexError> {
    sys::Index::described(&factory.written, dim, engine_metric(metric)).map_err(|problem| match problem {
        IndexError::Faiss { message, .. } => {
            IndexError::Factory { factory: factory.given.to_string(), why: format!("FAISS says: {message}") }
        }
        other => other,
    })
}

impl Faiss {
    /// `indexed` has one bit a row.
    fn new(
        (metric, rows, dim): (Metric, usize, usize),
        factory: Factory,
        scale: f32,
        indexed: Bits,
        engine: Option<Engine>,
    ) -> Self {
        let all = indexed.count() == rows;
        let held = (!all).then(|| {
            let positions = indexed.iter().map(|position| position as u32).collect();
            Held { bits: indexed, positions }
        });
        Self { metric, rows, dim, factory, scale, held, engine }
    }
}

impl Engine {
    /// `index` was read from so many bytes.
    fn new(index: sys::Index, written: usize, factory: &Factory) -> Self {
        let table = if with_table(factory) { factory.table_bytes } else { 0 };
        Self { walk: RwLock::new(Walk { index, width: 0 }), written, table }
    }
}

/// Whether FAISS computes its table for residuals: a large one takes more memory than the index.
fn with_table(factory: &Factory) -> bool {
    const MOST_TABLE_BYTES: usize = 64 << 20;
    factory.table_bytes <= MOST_TABLE_BYTES
}

impl VectorIndex for Faiss {
    fn search(&self, vectors: Vectors, query: &[f32], params: &SearchParams) -> Vec<Neighbor> {
        self.search_counted(vectors, query, params, &mut Work::default())
    }

    fn search_counted(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        work: &mut Work,
    ) -> Vec<Neighbor> {
        assert_eq!(vectors.len(), self.rows * self.dim, "search in another segment's vectors");
        assert_eq!(query.len(), self.dim, "a query of other dimensions than the index");
        self.find(vectors, query, params, work)
    }

    fn effort_for(&self, recall: f64, k: usize) -> Option<usize> {
        if self.engine.is_none() {
            // Whatever the effort, all rows are scanned.
            return Some(1);
        }
        let least = self.factory.cells.map_or(CAREFUL, |cells| cells.div_ceil(CAREFUL_SHARE).max(CAREFUL));
        calibration::guess(least, recall, k)
    }

    fn serialize(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        self.encode(&mut bytes).expect("memory for the bytes of an index that FAISS holds");
        bytes
    }

    fn serialized_bytes(&self) -> u64 {
        self.encoded_bytes() as u64
    }

    fn serialize_into(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.encode(out)
    }

    fn memory_bytes(&self) -> usize {
        let held = self.held.as_ref();
        size_of::<Self>()
            + held.map_or(0, |held| size_of_val(held.bits.words()) + size_of_val(&held.positions[..]))
            + self.engine.as_ref().map_or(0, |engine| engine.written + engine.table)
    }

    fn len(&self) -> usize {
        self.held.as_ref().map_or(self.rows, |held| held.positions.len())
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.dim)
    }

    fn check(&self, rows: &BuildParams) -> Result<(), IndexError> {
        self.check_rows(rows)
    }

    /// A factory may be as poor as its user likes.
    fn least_recall(&self) -> f64 {
        0.0
    }
}

impl Measured for Faiss {
    fn efforts(&self, _k: usize) -> Vec<u32> {
        let mut efforts = EFFORTS.to_vec();
        let most = self.factory.cells.unwrap_or(0) as u32;
        while let Some(last) = efforts.last().copied()
            && last < most
        {
            efforts.push((last * 2).min(most));
        }
        efforts
    }

    /// A question that has found all is not asked again: more effort finds no less, but for rare chance.
    fn hits(&self, params: &BuildParams, row: usize, truth: &[Neighbor], efforts: &[u32]) -> Vec<u32> {
        if let Some(hits) = self.hits_of_scan(params, row, truth, efforts) {
            return hits;
        }
        let mut hits = vec![truth.len() as u32; efforts.len()];
        let Some(furthest) = truth.last() else { return hits };
        for (effort, hits) in efforts.iter().zip(&mut hits) {
            let effort = *effort as usize;
            let wanted = SearchParams { k: truth.len(), ef_search: effort, probes: effort, allowed: None };
            let found = self.search_unseen(params.vectors.into(), row, &wanted);
            // By distance: of rows equally far any will do.
            let near = found.iter().filter(|neighbor| neighbor.distance <= furthest.distance).count();
            if near >= truth.len() {
                break;
            }
            *hits = near as u32;
        }
        hits
    }
}

impl fmt::Debug for Faiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faiss").field("factory", &self.factory.given).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
