//! `USING hnsw` and `USING graph`: a graph whose walk leads from anywhere to a query's neighbourhood in a few dozen hops.
//!
//! [`Graph`] is built and opened by the crate's `build` and `open`, searched through [`VectorIndex`]. It is
//! HNSW (Malkov and Yashunin 2018) with four changes:
//! - The walk reads 4-bit codes (`quantize`), an eighth of the vectors' bytes, and only the best candidates
//!   are scored from the vectors. Where those cannot tell the rows apart (`fit` measures it), it reads 8-bit codes;
//!   where neither can, for L1, and below 17 dimensions, it walks on exact distances instead.
//! - A walk goes on as long as its query is worth it (`reach`), not for as many nodes whatever the query.
//! - Equal vectors are one node with several rows (`nodes`), so that a thousand copies are not an island.
//! - Nodes are numbered by falling level, so node 0 is the entry and each layer is one flat array (`links`).
//!
//! The files, in the order of a build: `nodes`, `space` (how far apart are two nodes), `fit`, `build` (insertion),
//! `select` (which neighbours to link), `repair` (nobody unreachable), `arrange` (neighbours side by side), and where
//! segments are merged `merge` (the largest one's graph goes on); of a query: `search` (scan or walk, then exact
//! distances, over one graph or several; where vectors have to be fetched, which), `beam` (the walk), `reach` (how long
//! it goes on), `scratch` (its reused memory). `layout` has the bytes, `check` asks whether they belong to their rows.
//!
//! It never holds the vectors, and never returns an estimated distance.

mod arrange;
mod beam;
mod build;
mod check;
mod fit;
mod layout;
mod links;
mod merge;
mod nodes;
mod reach;
mod repair;
mod scratch;
mod search;
mod select;
mod space;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use sepal_types::Metric;

use crate::calibration::{self, Measured};
use crate::layout::Reader;
use crate::quantize::{Codes, on_threads};
use crate::{
    BuildMeans, BuildMemory, BuildParams, Candidates, IndexError, Neighbor, SearchParams, Stored,
    VectorIndex, Vectors,
};

use links::Layers;
use merge::Merged;
use nodes::Nodes;
pub(crate) use reach::{Reach, Step};
pub use search::search_named;
pub(crate) use search::{GraphPart, search_all};

/// The efforts at which a build measures recall: each half as much again, up to pgvector's greatest `ef_search`.
const EFFORTS: [u32; 14] = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 1000];
/// The greatest effort whose reach is measured. Past it walks are plain beams: they find nearly all anyway.
const MOST_REACHED: usize = 640;
/// An `ef_search` that finds nine tenths of the ten nearest on all data at hand.
const CAREFUL: usize = 56;

/// An HNSW graph over the rows of one segment.
pub struct Graph {
    metric: Metric,
    dim: usize,
    nodes: Nodes,
    layers: Layers,
    /// `None`: the walk uses exact distances.
    codes: Option<Codes>,
    /// Measured by a build's end, where it was.
    reach: Reach,
}

impl Graph {
    /// `m` links a node and layer (twice as many on the lowest), `ef_construction` candidates each. Both are
    /// raised to what makes a graph at all: 2 links, and as many candidates as links.
    ///
    /// The same rows, options and one thread give the same graph; several threads insert in varying order. With less
    /// than `memory_bytes` for the quickest way it is built on exact distances.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`], and [`IndexError::Resources`] when memory or node numbers run out.
    pub(crate) fn build_within(
        metric: Metric,
        m: u16,
        ef_construction: u16,
        params: &BuildParams,
        memory_bytes: u64,
    ) -> Result<Self, IndexError> {
        let thrifty = memory_bytes < Self::build_memory(metric, m, params.rows(), params.dim).usual;
        let (m, ef) = options(m, ef_construction);
        build::graph(m, ef, params, thrifty)
    }

    #[cfg(test)]
    pub(crate) fn build(
        metric: Metric,
        m: u16,
        ef_construction: u16,
        params: &BuildParams,
    ) -> Result<Self, IndexError> {
        Self::build_within(metric, m, ef_construction, params, u64::MAX)
    }

    /// A graph made from one of the seeds, that of least wear; `None` where a fresh one is the better choice.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn merge<'a>(
        metric: Metric,
        m: u16,
        ef_construction: u16,
        params: &BuildParams,
        means: &BuildMeans<'a>,
    ) -> Result<Option<Merged<'a>>, IndexError> {
        let thrifty = means.memory_bytes < Self::build_memory(metric, m, params.rows(), params.dim).usual;
        let (m, ef) = options(m, ef_construction);
        merge::graph(m, ef, params, means.seeds, thrifty)
    }

    /// What a build takes.
    pub(crate) fn build_memory(metric: Metric, m: u16, rows: usize, dim: usize) -> BuildMemory {
        build::memory(metric, usize::from(m), rows, dim)
    }

    /// Reads what [`VectorIndex::serialize`] wrote.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for bytes that no build writes, [`IndexError::Resources`] without memory.
    #[cfg(test)]
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        layout::decode(Reader::new(bytes))
    }

    /// The same from wherever they are stored; `reader` stands at the header and ends with the graph.
    ///
    /// # Errors
    /// The same, and [`IndexError::Unreadable`].
    pub(crate) fn read(reader: Reader) -> Result<Self, IndexError> {
        layout::decode(reader)
    }

    fn new(metric: Metric, dim: usize, nodes: Nodes, layers: Layers, codes: Option<Codes>) -> Self {
        Self { metric, dim, nodes, layers, codes, reach: Reach::default() }
    }

    /// With what was measured of it, which its own bytes do not tell.
    pub(crate) fn with_reach(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }
}

/// Links a node and candidates, raised to what makes a graph at all.
fn options(m: u16, ef_construction: u16) -> (usize, usize) {
    let m = usize::from(m).max(2);
    (m, usize::from(ef_construction).max(m))
}

impl VectorIndex for Graph {
    fn search(&self, vectors: Vectors, query: &[f32], params: &SearchParams) -> Vec<Neighbor> {
        search::search(self, vectors, query, params)
    }

    fn search_unseen(&self, vectors: Vectors, row: usize, params: &SearchParams) -> Vec<Neighbor> {
        search::search_unseen(self, vectors, row, params)
    }

    fn candidates(
        &self,
        _: Option<&dyn Stored>,
        query: &[f32],
        params: &SearchParams,
    ) -> Result<Option<Candidates>, IndexError> {
        Ok(self.nominate(query, params))
    }

    fn graph(&self) -> Option<&Graph> {
        Some(self)
    }

    fn effort_for(&self, recall: f64, k: usize) -> Option<usize> {
        calibration::guess(CAREFUL, recall, k)
    }

    fn serialize(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.serialized_bytes()).unwrap_or(0));
        layout::encode(self, &mut bytes).expect("a Vec takes every write");
        bytes
    }

    fn serialized_bytes(&self) -> u64 {
        layout::encoded_bytes(self)
    }

    fn serialize_into(&self, out: &mut dyn io::Write) -> io::Result<()> {
        layout::encode(self, out)
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.nodes.memory_bytes()
            + self.layers.memory_bytes()
            + self.codes.as_ref().map_or(0, Codes::memory_bytes)
    }

    fn len(&self) -> usize {
        self.nodes.indexed_rows()
    }

    fn shape(&self) -> (usize, usize) {
        (self.nodes.rows(), self.dim)
    }

    fn check(&self, rows: &BuildParams) -> Result<(), IndexError> {
        check::check(self, rows)
    }
}

impl Measured for Graph {
    fn efforts(&self, k: usize) -> Vec<u32> {
        EFFORTS.into_iter().filter(|effort| *effort as usize >= k).collect()
    }

    fn prepare(&mut self, params: &BuildParams, rows: &[usize]) -> Result<Reach, IndexError> {
        let efforts: Vec<u32> =
            EFFORTS.into_iter().filter(|effort| *effort as usize <= MOST_REACHED).collect();
        let questions: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::with_capacity(rows.len()));
        let next = AtomicUsize::new(0);
        on_threads(params.threads, || {
            while let Some(row) = rows.get(next.fetch_add(1, Relaxed)) {
                if (params.cancelled)() {
                    return;
                }
                let mut met = search::met_unseen(self, params.vectors.into(), *row, 2 * MOST_REACHED);
                let unit = reach::unit(self.metric, &params.vectors[row * self.dim..][..self.dim]);
                met.iter_mut().for_each(|score| *score /= unit);
                questions.lock().push(met);
            }
        });
        if (params.cancelled)() {
            return Err(IndexError::Cancelled);
        }
        self.reach = Reach::measure(self.metric, &efforts, &questions.into_inner());
        Ok(self.reach.clone())
    }

    /// A question that has found all is not asked again: wider walks find no less, but for rare chance.
    fn hits(&self, params: &BuildParams, row: usize, truth: &[Neighbor], efforts: &[u32]) -> Vec<u32> {
        let mut hits = vec![truth.len() as u32; efforts.len()];
        let Some(furthest) = truth.last() else { return hits };
        for (effort, hits) in efforts.iter().zip(&mut hits) {
            let wanted =
                SearchParams { k: truth.len(), ef_search: *effort as usize, probes: 1, allowed: None };
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

#[cfg(test)]
mod tests;
