//! What a build takes beside the rows, told before it begins.
//!
//! `database` asks, to let builds wait for each other and to say when `maintenance_work_mem` is small. A careful count
//! of what is allocated, not a promise.

use sepal_types::VectorIndexOptions;

use crate::calibration::FEWEST_ROWS;
use crate::faiss::Faiss;
use crate::graph::Graph;
use crate::ivf::IvfFlat;
use crate::{Seed, Wear};

/// Bytes of heap at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildMemory {
    /// For the quickest build.
    pub usual: u64,
    /// For one that makes do with less and takes longer; the same where there is none.
    pub least: u64,
}

impl BuildMemory {
    /// What a build takes that is allowed so much.
    pub fn within(&self, allowed: u64) -> u64 {
        if self.usual <= allowed { self.usual } else { self.least }
    }
}

/// Whether an index over `before` rows, of which `survivors` are among the `after` of a build, is worth being a
/// [`Seed`] of it, where it is as a fresh build left it. A small one never is: it has no calibration, and building
/// afresh is quick.
pub fn is_worth_a_seed(survivors: usize, before: usize, after: usize) -> bool {
    let knows_half = survivors * 2 >= after;
    before >= FEWEST_ROWS && knows_half && !Wear::NONE.merged(survivors, before).is_too_much()
}

/// What a build has beside its rows.
#[derive(Clone, Copy)]
pub struct BuildMeans<'a> {
    /// Memory to make do with where less than [`BuildMemory::usual`] is enough: at the price of time, never of the
    /// build.
    pub memory_bytes: u64,
    /// Indexes over some of the rows. A graph is made from one of them, where that is quicker and loses little
    /// ([`Wear`]).
    pub seeds: &'a [Seed<'a>],
}

impl Default for BuildMeans<'_> {
    fn default() -> Self {
        Self { memory_bytes: u64::MAX, seeds: &[] }
    }
}

/// What [`crate::build`] takes for so many rows, the index that comes out included.
pub fn build_memory(options: &VectorIndexOptions, rows: usize, dim: usize) -> BuildMemory {
    let bytes = match options {
        VectorIndexOptions::Hnsw { metric, m, .. } | VectorIndexOptions::Graph { metric, m, .. } => {
            return Graph::build_memory(*metric, *m, rows, dim);
        }
        VectorIndexOptions::Flat { .. } => rows.div_ceil(8) as u64,
        VectorIndexOptions::IvfFlat { metric, lists } => IvfFlat::build_bytes(*metric, *lists, rows, dim),
        VectorIndexOptions::Faiss { factory, .. } => Faiss::build_bytes(factory, rows, dim),
        VectorIndexOptions::Signs { .. } => (rows.div_ceil(8) + rows * dim.div_ceil(8)) as u64,
    };
    BuildMemory { usual: bytes, least: bytes }
}
