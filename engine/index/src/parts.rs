//! One search over all segments of a table.
//!
//! Called by the query engine with every segment's vectors, the rows that qualify, and its index if it has one. The
//! candidates of all graphs are scored exactly in one go (`graph::search_all`); everything else is searched one after
//! the other. What graphs have named whose vectors are not at hand is the matter of `graph::search_named`.
//! Tells how much work it was ([`Work`]), for EXPLAIN, calibration and benchmarks.

use sepal_types::Metric;

use crate::graph::{GraphPart, search_all};
use crate::quantize::Width;
use crate::{
    Bits, Found, Neighbor, SearchParams, Stopped, VectorIndex, Vectors, search_exact, search_exact_until,
};

/// What is searched for.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    pub metric: Metric,
    /// As many elements as the vectors have dimensions.
    pub vector: &'a [f32],
    /// Most rows to return.
    pub k: usize,
}

/// One segment.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// With how hard it tries. `None`: every row is scored.
    pub index: Option<(&'a dyn VectorIndex, Effort)>,
    /// `n × dim`, row-major: what the index was built from, or the `f16` that those were widened from.
    pub vectors: Vectors<'a>,
    /// Rows that may be returned; `None` means all.
    pub allowed: Option<Allowed<'a>>,
    /// Where an index has named the rows ([`VectorIndex::candidates`]): which they are, one for each of `vectors`,
    /// ascending. All are scored, and neither `index` nor `allowed` counts.
    pub rows: Option<&'a [u32]>,
}

/// Rows that may be returned, and how many they are.
#[derive(Clone, Copy)]
pub struct Allowed<'a> {
    pub bits: &'a Bits,
    /// `bits.count()`: whoever has it need not count again.
    pub count: usize,
}

/// How hard an index tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort {
    /// Of graphs: candidates that a walk keeps. Counts as at least `k`.
    pub ef_search: usize,
    /// Of cells: how many are read first; 0 counts as 1.
    pub probes: usize,
}

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Segments whose graphs were walked over,
    pub walked: u32,
    /// whose codes were all scanned, those of the allowed rows,
    pub scanned: u32,
    /// whose indexes of another kind were asked,
    pub asked: u32,
    /// whose allowed rows were all scored. A segment may be searched twice: when the first way found too few.
    pub exact: u32,
    /// Of all these, segments of which only rows that their indexes named were read.
    pub fetched: u32,
    /// Nodes whose links walks followed.
    pub hops: u64,
    /// Distances estimated from codes, but for those by FAISS,
    pub codes: u64,
    /// and how many of these from codes of 8 bits an element; the others have 4.
    pub wide_codes: u64,
    /// Distances computed from vectors, but for those by FAISS.
    pub distances: u64,
}

impl<'a> Allowed<'a> {
    pub fn new(bits: &'a Bits) -> Self {
        Self { bits, count: bits.count() }
    }
}

impl Work {
    /// Adds so many distances estimated from codes.
    pub(crate) fn add_codes(&mut self, width: Width, scored: u64) {
        self.codes += scored;
        self.wide_codes += if width == Width::Eight { scored } else { 0 };
    }

    /// Adds what another search did.
    pub fn add(&mut self, other: &Self) {
        self.walked += other.walked;
        self.scanned += other.scanned;
        self.asked += other.asked;
        self.exact += other.exact;
        self.fetched += other.fetched;
        self.hops += other.hops;
        self.codes += other.codes;
        self.wide_codes += other.wide_codes;
        self.distances += other.distances;
    }
}

impl Part<'_> {
    fn count(&self, dim: usize) -> usize {
        self.allowed.map_or(self.vectors.len() / dim.max(1), |allowed| allowed.count)
    }
}

/// The `k` nearest of the allowed rows that were found, ascending by exact distance (NaN last). Fewer only when there
/// are fewer allowed rows, those without a distance (a cosine with length zero) included.
///
/// # Panics
/// When a part is not of the query's dimensions, or its index not of its rows: callers compare
/// [`VectorIndex::shape`] once.
pub fn search_parts(query: &Query, parts: &[Part], work: &mut Work) -> Vec<Found> {
    search_parts_until(query, parts, &|| false, work)
}

/// The same that may be given up while rows are scored one by one: once `stopped`, what it gives is not the answer.
///
/// # Panics
/// As [`search_parts`].
pub fn search_parts_until(
    query: &Query,
    parts: &[Part],
    stopped: &Stopped<'_>,
    work: &mut Work,
) -> Vec<Found> {
    let (mut graphs, mut others, mut fetched) = (Vec::new(), Vec::new(), Vec::new());
    for (number, part) in parts.iter().enumerate() {
        if let Some(rows) = part.rows {
            extend(&mut fetched, number, score(query, part, rows, work));
            continue;
        }
        let graph = part.index.and_then(|(index, effort)| index.graph().map(|graph| (graph, effort)));
        match graph {
            Some((graph, effort)) => graphs.push(GraphPart {
                number: number as u32,
                graph,
                vectors: part.vectors,
                allowed: part.allowed,
                ef: effort.ef_search,
            }),
            None => others.push(number),
        }
    }
    let mut found = search_all(query.vector, query.k, &graphs, work);
    // What has no distance has no place in an index, but LIMIT is filled with it too.
    let in_graphs: usize =
        graphs.iter().map(|graph| parts[graph.number as usize].count(query.vector.len())).sum();
    if found.len() < query.k.min(in_graphs) {
        found.clear();
        for graph in &graphs {
            let number = graph.number as usize;
            extend(&mut found, number, exact(query, &parts[number], stopped, work));
        }
    }
    for number in others {
        extend(&mut found, number, search_other(query, &parts[number], stopped, work));
    }
    found.append(&mut fetched);
    found.sort_unstable();
    found.truncate(query.k);
    found
}

/// All rows that an index has named.
fn score(query: &Query, part: &Part, rows: &[u32], work: &mut Work) -> Vec<Neighbor> {
    work.fetched += 1;
    work.distances += rows.len() as u64;
    let Query { metric, vector, k } = *query;
    let mut nearest = search_exact(metric, vector.len(), part.vectors, vector, k, None);
    nearest.iter_mut().for_each(|neighbor| neighbor.position = rows[neighbor.position as usize]);
    nearest
}

/// Of a part without a graph.
fn search_other(query: &Query, part: &Part, stopped: &Stopped<'_>, work: &mut Work) -> Vec<Neighbor> {
    let Some((index, Effort { ef_search, probes })) = part.index else {
        return exact(query, part, stopped, work);
    };
    if stopped() {
        return Vec::new();
    }
    work.asked += 1;
    let allowed = part.allowed.map(|allowed| allowed.bits);
    let wanted = SearchParams { k: query.k, ef_search, probes, allowed };
    let neighbors = index.search_until(part.vectors, query.vector, &wanted, stopped, work);
    if neighbors.len() < query.k.min(part.count(query.vector.len())) {
        return exact(query, part, stopped, work);
    }
    neighbors
}

fn exact(query: &Query, part: &Part, stopped: &Stopped<'_>, work: &mut Work) -> Vec<Neighbor> {
    work.exact += 1;
    work.distances += part.count(query.vector.len()) as u64;
    let allowed = part.allowed.map(|allowed| allowed.bits);
    let Query { metric, vector, k } = *query;
    search_exact_until(metric, vector.len(), part.vectors, vector, k, allowed, stopped)
}

fn extend(found: &mut Vec<Found>, number: usize, neighbors: Vec<Neighbor>) {
    found.extend(neighbors.into_iter().map(|neighbor| Found { neighbor, part: number as u32 }));
}

#[cfg(test)]
mod tests;
