//! One query: choose between scan and walk, find candidates, score the best of them exactly.
//!
//! Called by [`super::Graph`]'s `search`. A filter decides the plan. Few allowed rows: compute their
//! distances. More, but fewer than twice what a walk would score (a walk has to score `1 / share` nodes for
//! each allowed one it keeps, and they lie all over memory): scan their codes. Else walk over all nodes and
//! keep the allowed ones. A walk that meets more than it was chosen for (the allowed rows lie far from the
//! query) gives way to the scan, and whenever fewer than `k` rows came out, all allowed rows are scored: a
//! filter never costs rows.

use std::borrow::Cow;
use std::collections::BinaryHeap;

use sepal_types::Metric;

use super::Graph;
use super::beam::Walk;
use super::nodes::NONE;
use super::scratch::sortable;
use super::space::{Estimate, Exact, Space, Without};
use crate::distance::{Scorer, has_direction};
use crate::flat::{finish, scan_positions};
use crate::neighbor::TopK;
use crate::quantize::{Codes, QueryRef};
use crate::{Bits, Neighbor, SearchParams, Vectors, search_exact};

/// So few allowed rows are scored from their vectors: a walk costs more.
const FEW_ROWS: usize = 128;
/// A scan scores two rows in the time of one met on a walk.
const SCAN_ADVANTAGE: usize = 2;
/// Codes scored together by a scan.
const BATCH: usize = 64;

pub(super) fn search(graph: &Graph, vectors: Vectors, query: &[f32], params: &SearchParams) -> Vec<Neighbor> {
    search_without(graph, vectors, query, params, NONE)
}

/// The same for a query that equals a row, past the row's node: as if the row had never been indexed, but that its
/// node's place in other nodes' links stays empty.
pub(super) fn search_unseen(
    graph: &Graph,
    vectors: Vectors,
    row: usize,
    params: &SearchParams,
) -> Vec<Neighbor> {
    let query = vectors.row(row, graph.dim).widened();
    search_without(graph, vectors, &query, params, graph.nodes.node_of(row))
}

fn search_without(
    graph: &Graph,
    vectors: Vectors,
    query: &[f32],
    params: &SearchParams,
    hidden: u32,
) -> Vec<Neighbor> {
    assert!(
        vectors.len() == graph.nodes.rows() * graph.dim && query.len() == graph.dim,
        "a graph over {} × {} searched with {} elements and a query of {}",
        graph.nodes.rows(),
        graph.dim,
        vectors.len(),
        query.len()
    );
    assert!(
        params.allowed.is_none_or(|allowed| allowed.len() <= graph.nodes.rows()),
        "a filter of more rows than the graph's {}: two segments were mixed up",
        graph.nodes.rows()
    );
    Search { hidden, ..Search::new(graph, vectors, query, params) }.run()
}

struct Search<'a> {
    graph: &'a Graph,
    vectors: Vectors<'a>,
    query: &'a [f32],
    k: usize,
    ef: usize,
    /// Indexed rows that may be returned; `None` means all indexed ones.
    filter: Option<Cow<'a, Bits>>,
    /// How many those are.
    count: usize,
    /// A node that is not to be found; [`NONE`] but for measurements.
    hidden: u32,
}

impl<'a> Search<'a> {
    fn new(graph: &'a Graph, vectors: Vectors<'a>, query: &'a [f32], params: &SearchParams<'a>) -> Self {
        let indexed = graph.nodes.indexed_rows();
        let filter = params.allowed.map(|allowed| match graph.nodes.indexed() {
            None => Cow::Borrowed(allowed),
            Some(indexed) => {
                let mut both = indexed.clone();
                both.and(allowed);
                Cow::Owned(both)
            }
        });
        let count = filter.as_ref().map_or(indexed, |filter| filter.count());
        let filter = filter.filter(|_| count < indexed);
        let k = params.k.min(count);
        Self { graph, vectors, query, k, ef: params.ef_search.max(k), filter, count, hidden: NONE }
    }

    fn run(&self) -> Vec<Neighbor> {
        if self.k == 0 {
            return Vec::new();
        }
        if self.count <= FEW_ROWS.max(2 * self.k) {
            return self.exact();
        }
        let found = match &self.graph.codes {
            Some(codes) => match codes.query(self.query) {
                Some(query) => self.by_codes(codes, &query.borrow()),
                None => return self.exact(),
            },
            None => {
                let no_direction = self.graph.metric == Metric::Cosine && !has_direction(self.query);
                if no_direction || self.count <= SCAN_ADVANTAGE * self.walk_cost() {
                    return self.exact();
                }
                let Graph { metric, dim, nodes, .. } = self.graph;
                let space = Exact { metric: *metric, dim: *dim, vectors: self.vectors, nodes };
                let scorer = Scorer::new(self.graph.metric, self.query);
                match self.walk(&space, &scorer, self.ef, self.ef.min(self.k + 10)) {
                    Some(rows) => self.rescore(&rows),
                    None => return self.exact(),
                }
            }
        };
        if found.len() < self.k { self.exact() } else { found }
    }

    /// Every allowed row.
    fn exact(&self) -> Vec<Neighbor> {
        let Graph { metric, dim, nodes, .. } = self.graph;
        let allowed = self.filter.as_deref().or(nodes.indexed());
        let nearest = |k| search_exact(*metric, *dim, self.vectors, self.query, k, allowed);
        if self.hidden == NONE {
            return nearest(self.k);
        }
        let mut found = nearest(self.k + nodes.rows_of(self.hidden).len());
        found.retain(|neighbor| nodes.node_of(neighbor.position as usize) != self.hidden);
        found.truncate(self.k);
        found
    }

    fn by_codes(&self, codes: &Codes, query: &QueryRef) -> Vec<Neighbor> {
        // Rows to score exactly: the codes' error shuffles the order, the more of them the larger k is. A
        // caller who asks for a wide walk asks for recall, so the number grows with it.
        let rescored = (2 * self.k).max(self.k + 10).max(self.ef / 4);
        if self.count > SCAN_ADVANTAGE * self.walk_cost() {
            let ef = self.ef.max(self.k + (self.k / 4).max(10));
            if let Some(rows) = self.walk(&Estimate { codes }, query, ef, rescored) {
                return self.rescore(&rows);
            }
        }
        let kept = rescored.max(self.ef);
        let rows = match &self.filter {
            Some(filter) => self.scan(codes, query, filter.iter(), kept),
            None => {
                let all = self.graph.nodes.positions().iter().map(|position| *position as usize);
                self.scan(codes, query, all, kept)
            }
        };
        self.rescore(&rows)
    }

    /// About how many nodes a walk will score: it follows `ef` allowed ones and all others on the way, and
    /// half of a node's links, `m`, lead to nodes not yet met.
    fn walk_cost(&self) -> usize {
        let nodes = self.graph.nodes.count();
        let unfiltered = self.ef.saturating_mul(self.graph.layers.m());
        let cost = unfiltered as u128 * self.graph.nodes.indexed_rows() as u128 / self.count.max(1) as u128;
        cost.min(nodes as u128) as usize
    }

    /// The allowed rows of the nearest `kept` nodes, by nodes nearest first; `None` when the walk gave up.
    fn walk<S: Space>(&self, space: &S, query: &S::Query, ef: usize, kept: usize) -> Option<Vec<usize>> {
        match self.hidden {
            NONE => self.walk_in(space, query, ef, kept),
            node => self.walk_in(&Without { space, node }, query, ef, kept),
        }
    }

    fn walk_in<S: Space>(&self, space: &S, query: &S::Query, ef: usize, kept: usize) -> Option<Vec<usize>> {
        let Graph { nodes, layers, scratch, .. } = self.graph;
        let walk = Walk { space, layers, query };
        scratch.with(|scratch| {
            let entry = walk.start(0, scratch);
            let near = walk.descend(entry, 1..layers.len(), scratch);
            match &self.filter {
                None => walk.beam(0, near, ef, scratch),
                Some(filter) => {
                    let admit = |node| nodes.rows_of(node).iter().any(|row| filter.get(*row as usize));
                    if !walk.beam_admitted(near, ef, self.count, admit, scratch) {
                        return None;
                    }
                }
            }
            let mut rows = Vec::with_capacity(kept);
            let best = scratch.best.iter().filter(|candidate| candidate.node() != self.hidden);
            for candidate in best.take(kept) {
                let allowed = nodes.rows_of(candidate.node()).iter().map(|row| *row as usize);
                let allowed =
                    allowed.filter(|row| self.filter.as_ref().is_none_or(|filter| filter.get(*row)));
                // More copies of one vector than k cannot all be returned.
                rows.extend(allowed.take(self.k));
                if rows.len() >= 4 * kept {
                    break;
                }
            }
            Some(rows)
        })
    }

    /// The `kept` of `rows` that are nearest by their codes, in no order.
    fn scan(
        &self,
        codes: &Codes,
        query: &QueryRef,
        rows: impl Iterator<Item = usize>,
        kept: usize,
    ) -> Vec<usize> {
        // Each is a sortable score above a position; the worst is on top.
        let mut best: BinaryHeap<u64> = BinaryHeap::with_capacity(kept.min(self.count) + 1);
        let node_of = |row: usize| self.graph.nodes.node_of(row);
        let mut rows = rows.filter(|row| node_of(*row) != NONE && node_of(*row) != self.hidden);
        let (mut positions, mut nodes, mut scores) =
            (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        loop {
            positions.clear();
            nodes.clear();
            for row in rows.by_ref().take(BATCH) {
                let node = self.graph.nodes.node_of(row);
                codes.prefetch(node);
                positions.push(row as u64);
                nodes.push(node);
            }
            if nodes.is_empty() {
                return best.into_iter().map(|entry| entry as u32 as usize).collect();
            }
            codes.score(query, &nodes, &mut scores);
            for (position, score) in positions.iter().zip(&scores) {
                let entry = u64::from(sortable(*score)) << 32 | position;
                if best.len() < kept {
                    best.push(entry);
                } else if let Some(mut worst) = best.peek_mut()
                    && entry < *worst
                {
                    *worst = entry;
                }
            }
        }
    }

    /// Exact distances; the nearest `k`, ascending.
    fn rescore(&self, rows: &[usize]) -> Vec<Neighbor> {
        let scorer = Scorer::new(self.graph.metric, self.query);
        let mut top = TopK::new(self.k, rows.len());
        scan_positions(&scorer, self.graph.dim, self.vectors, rows.iter().copied(), &mut top);
        finish(&scorer, top)
    }
}
