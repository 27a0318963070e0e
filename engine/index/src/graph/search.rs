//! One query: choose between scan and walk, find candidates, score the best of them exactly.
//!
//! Called by [`super::Graph`]'s `search` for one graph and by `parts` for all graphs of a table at once. A filter
//! decides a graph's plan. Few allowed rows: compute their distances. More, but fewer than twice what a walk would
//! score (a walk has to score `1 / share` nodes for each allowed one it keeps, and they lie all over memory): scan
//! their codes. Else walk over all nodes and keep the allowed ones; where a third or more is allowed, walk as if all were
//! and leave out the others afterwards. A walk that meets more than it was chosen for (the allowed rows lie far from
//! the query) gives way to the scan, and whenever fewer than `k` rows came out, all allowed rows are scored: a filter
//! never costs rows.
//!
//! Candidates of all graphs are scored exactly in one order, nearest by estimate first, until the next estimate is so
//! far behind the `k`-th distance that its error cannot make up for it. One walk over all graphs, on from whatever
//! candidate is nearest in any, was tried: at equal recall it is as much work as a walk over each (117,659 × 384 in
//! three graphs: 1,630 codes for 0.95 either way, twice a single graph's), for each graph has to be searched widely
//! enough by itself.
//!
//! Where the vectors are not at hand, `nominate` names the candidates, and `contest` has those fetched that are to be
//! scored.

mod contest;
mod nominate;

use std::borrow::Cow;
use std::collections::BinaryHeap;

use sepal_types::Metric;

use super::Graph;
use super::beam::{Likely, Walk};
use super::nodes::NONE;
use super::reach::unit;
use super::scratch::{Candidate, Scratch, with_scratch};
use super::space::{Estimate, Exact, Space, Without};
use crate::distance::{Scorer, has_direction, prefetch};
use crate::neighbor::{Found, TopK, of_sortable, sortable};
use crate::quantize::{Codes, Query, QueryRef};
use crate::{Allowed, Bits, Neighbor, SearchParams, Vectors, Work, search_exact};

pub use contest::search_named;

/// So few allowed rows are scored from their vectors: a walk costs more.
const FEW_ROWS: usize = 128;
/// A scan scores two rows in the time of one met on a walk.
const SCAN_ADVANTAGE: usize = 2;
/// Codes scored together by a scan.
const BATCH: usize = 64;
/// Where at least one row in so many is allowed, a walk is as wide as the others ask for, and does not look at rows while
/// it is under way: so it need not wait (`beam`), and stops when it is worth no more (`reach`).
const COMMON: usize = 3;
/// Rows asked for ahead of the one being scored.
const AHEAD: usize = 4;
/// How many deviations of the estimates' error a candidate may lie behind and still be scored.
const DEVIATIONS: f64 = 3.0;

/// One graph as a search over several sees it.
pub(crate) struct GraphPart<'a> {
    /// The caller's number for it, in [`Found`].
    pub(crate) number: u32,
    pub(crate) graph: &'a Graph,
    /// The vectors it was built from.
    pub(crate) vectors: Vectors<'a>,
    pub(crate) allowed: Option<Allowed<'a>>,
    /// Candidates that a walk keeps; counts as at least `k`.
    pub(crate) ef: usize,
}

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

/// The estimated distances of the nearest `ef` nodes that a plain beam meets on its way to a row, past the row's own:
/// ascending, in whatever measure walks of this graph compare. None of a row that is in no place to ask.
pub(super) fn met_unseen(graph: &Graph, vectors: Vectors, row: usize, ef: usize) -> Vec<f32> {
    let query = vectors.row(row, graph.dim).widened();
    let part = GraphPart { number: 0, graph, vectors, allowed: None, ef };
    let side = Side { hidden: graph.nodes.node_of(row), ..Side::new(&part, &query) };
    match &graph.codes {
        Some(codes) => match codes.query(&query) {
            Some(query) => side.met(&Estimate { codes }, &query.borrow()),
            None => Vec::new(),
        },
        None => side.met(&side.exact_space(), &Scorer::new(graph.metric, &*query)),
    }
}

fn search_without(
    graph: &Graph,
    vectors: Vectors,
    query: &[f32],
    params: &SearchParams,
    hidden: u32,
) -> Vec<Neighbor> {
    let allowed = params.allowed.map(Allowed::new);
    let part = GraphPart { number: 0, graph, vectors, allowed, ef: params.ef_search };
    let side = Side { hidden, ..Side::new(&part, query) };
    let found = Search { query, k: params.k, sides: vec![side] }.run(&mut Work::default());
    found.into_iter().map(|found| found.neighbor).collect()
}

/// The `k` nearest of the allowed rows that the graphs found, ascending; fewer only when fewer allowed rows are indexed.
/// All graphs are of one metric and as many dimensions as the query.
pub(crate) fn search_all(query: &[f32], k: usize, parts: &[GraphPart], work: &mut Work) -> Vec<Found> {
    let sides = parts.iter().map(|part| Side::new(part, query)).collect();
    Search { query, k, sides }.run(work)
}

struct Search<'a> {
    query: &'a [f32],
    k: usize,
    sides: Vec<Side<'a>>,
}

/// One graph of a search.
struct Side<'a> {
    number: u32,
    graph: &'a Graph,
    vectors: Vectors<'a>,
    /// Indexed rows that may be returned; `None` means all indexed ones.
    filter: Option<Cow<'a, Bits>>,
    /// How many those are.
    count: usize,
    ef: usize,
    /// A node that is not to be found; [`NONE`] but for measurements.
    hidden: u32,
}

/// How a side is searched.
enum Plan {
    /// Its codes, in this form of the query, by a scan.
    Scan(Query),
    /// Its codes by a walk.
    Walk(Query),
    /// Its vectors by a walk.
    WalkVectors,
    /// All its rows.
    Exact,
}

/// What is to be scored exactly: its rows are looked up when its turn comes, which for most it never does.
#[derive(Clone, Copy)]
struct Choice {
    estimate: f32,
    /// Position in `Search::sides`.
    side: u32,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Row(u32),
    /// All its allowed rows.
    Node(u32),
}

impl<'a> Side<'a> {
    fn new(part: &GraphPart<'a>, query: &[f32]) -> Self {
        let GraphPart { graph, vectors, .. } = *part;
        assert!(
            vectors.len() == graph.nodes.rows() * graph.dim && query.len() == graph.dim,
            "a graph over {} × {} searched with {} elements and a query of {}",
            graph.nodes.rows(),
            graph.dim,
            vectors.len(),
            query.len()
        );
        Self::over(part)
    }

    /// The same where the vectors may be missing.
    fn over(part: &GraphPart<'a>) -> Self {
        let GraphPart { number, graph, vectors, allowed, ef } = *part;
        assert!(
            allowed.is_none_or(|allowed| allowed.bits.len() <= graph.nodes.rows()),
            "a filter of more rows than the graph's {}: two segments were mixed up",
            graph.nodes.rows()
        );
        let indexed = graph.nodes.indexed_rows();
        let (filter, count) = match (allowed, graph.nodes.indexed()) {
            (None, _) => (None, indexed),
            (Some(allowed), None) => (Some(Cow::Borrowed(allowed.bits)), allowed.count),
            (Some(allowed), Some(indexed)) => {
                let mut both = indexed.clone();
                both.and(allowed.bits);
                let count = both.count();
                (Some(Cow::Owned(both)), count)
            }
        };
        let filter = filter.filter(|_| count < indexed);
        Self { number, graph, vectors, filter, count, ef, hidden: NONE }
    }

    fn exact_space(&self) -> Exact<'a> {
        let Graph { metric, dim, nodes, .. } = self.graph;
        Exact { metric: *metric, dim: *dim, vectors: self.vectors, nodes }
    }

    /// The scores that a plain beam ends with, past the hidden node.
    fn met<S: Space>(&self, space: &S, query: &S::Query) -> Vec<f32> {
        let space = &Without { space, node: self.hidden };
        let walk = Walk { space, layers: &self.graph.layers, query };
        with_scratch(self.graph.nodes.count(), |scratch| {
            let entry = walk.start(0, scratch);
            let near = walk.descend(entry, 1..walk.layers.len(), scratch);
            walk.beam(0, near, self.ef, scratch);
            let scores = scratch.best.iter().map(|candidate| candidate.score());
            scores.filter(|score| score.is_finite()).collect()
        })
    }

    fn plan(&self, query: &[f32], k: usize) -> Plan {
        let k = k.min(self.count);
        let ef = self.ef.max(k);
        if self.is_few(k) {
            return Plan::Exact;
        }
        let walked = self.count > SCAN_ADVANTAGE * self.walk_cost(ef);
        match &self.graph.codes {
            Some(codes) => match codes.query(query) {
                Some(query) if walked => Plan::Walk(query),
                Some(query) => Plan::Scan(query),
                None => Plan::Exact,
            },
            None if walked && (self.graph.metric != Metric::Cosine || has_direction(query)) => {
                Plan::WalkVectors
            }
            None => Plan::Exact,
        }
    }

    /// Whether so few rows are allowed that each is scored.
    fn is_few(&self, k: usize) -> bool {
        self.count <= FEW_ROWS.max(2 * k.min(self.count))
    }

    /// About how many nodes a walk will score: it follows `ef` allowed ones and all others on the way, and
    /// half of a node's links, `m`, lead to nodes not yet met.
    fn walk_cost(&self, ef: usize) -> usize {
        let nodes = self.graph.nodes.count();
        let unfiltered = ef.saturating_mul(self.graph.layers.m());
        let cost = unfiltered as u128 * self.graph.nodes.indexed_rows() as u128 / self.count.max(1) as u128;
        cost.min(nodes as u128) as usize
    }

    /// Adds the nodes that a walk scored, by their codes where there are any.
    fn tell(&self, scored: u64, work: &mut Work) {
        match &self.graph.codes {
            Some(codes) => work.add_codes(codes.width(), scored),
            None => work.distances += scored,
        }
    }

    fn admits(&self, node: u32) -> bool {
        match &self.filter {
            None => true,
            Some(filter) => self.graph.nodes.rows_of(node).iter().any(|row| filter.get(*row as usize)),
        }
    }

    /// For a walk that looks at no rows: as much wider as those that are not allowed ask for. `None` where they are too
    /// many for that.
    fn widened(&self, ef: usize) -> Option<usize> {
        let indexed = self.graph.nodes.indexed_rows();
        if self.filter.is_none() {
            return Some(ef);
        }
        (self.count * COMMON >= indexed).then(|| (ef.saturating_mul(indexed) / self.count).saturating_add(2))
    }

    /// The nearest of every allowed row.
    fn exact(&self, query: &[f32], k: usize, work: &mut Work) -> Vec<Neighbor> {
        work.exact += 1;
        work.distances += self.count as u64;
        let Graph { metric, dim, nodes, .. } = self.graph;
        let allowed = self.filter.as_deref().or(nodes.indexed());
        let nearest = |k| search_exact(*metric, *dim, self.vectors, query, k, allowed);
        if self.hidden == NONE {
            return nearest(k);
        }
        let mut found = nearest(k.saturating_add(nodes.rows_of(self.hidden).len()));
        found.retain(|neighbor| nodes.node_of(neighbor.position as usize) != self.hidden);
        found.truncate(k);
        found
    }

    /// The `kept` of the allowed rows that are nearest by their codes, in no order.
    fn scan(&self, codes: &Codes, query: &QueryRef, kept: usize) -> Vec<(f32, u32)> {
        match &self.filter {
            Some(filter) => self.scan_rows(codes, query, filter.iter(), kept),
            None => {
                let all = self.graph.nodes.positions().iter().map(|position| *position as usize);
                self.scan_rows(codes, query, all, kept)
            }
        }
    }

    fn scan_rows(
        &self,
        codes: &Codes,
        query: &QueryRef,
        rows: impl Iterator<Item = usize>,
        kept: usize,
    ) -> Vec<(f32, u32)> {
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
                let node = node_of(row);
                codes.prefetch(node);
                positions.push(row as u64);
                nodes.push(node);
            }
            if nodes.is_empty() {
                return best
                    .into_iter()
                    .map(|entry| (of_sortable((entry >> 32) as u32), entry as u32))
                    .collect();
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
}

/// The vectors that estimates will be replaced with.
impl Likely for Side<'_> {
    #[inline(always)]
    fn hear(&self, node: u32, times: usize) {
        let nodes = &self.graph.nodes;
        match times {
            _ if self.graph.codes.is_none() || self.vectors.is_empty() => {}
            0 => nodes.prefetch_start(node),
            1 => nodes.prefetch_rows(node),
            _ => prefetch(self.vectors.row(nodes.first_row(node), self.graph.dim)),
        }
    }
}

impl Search<'_> {
    fn run(&self, work: &mut Work) -> Vec<Found> {
        if self.k == 0 {
            return Vec::new();
        }
        let (mut exact, mut choices) = (Vec::new(), Vec::new());
        for (place, side) in self.sides.iter().enumerate().filter(|(_, side)| side.count > 0) {
            match side.plan(self.query, self.k) {
                Plan::Exact => exact.push(place),
                Plan::WalkVectors => {
                    if !self.walk_vectors(place, &mut choices, work) {
                        exact.push(place);
                    }
                }
                Plan::Scan(query) => self.scan(place, &query, &mut choices, work),
                Plan::Walk(query) => self.walk_codes(place, &query, &mut choices, work),
            }
        }
        let mut found = self.rescored(&mut choices, work);
        let searched = |place: &usize| !exact.contains(place);
        let promised: usize =
            (0..self.sides.len()).filter(searched).map(|place| self.sides[place].count).sum();
        if found.len() < self.k.min(promised) {
            found.clear();
            exact = (0..self.sides.len()).collect();
        }
        for place in exact {
            let side = &self.sides[place];
            let of_it = side.exact(self.query, self.k, work).into_iter();
            found.extend(of_it.map(|neighbor| Found { neighbor, part: side.number }));
        }
        found.sort_unstable();
        found.truncate(self.k);
        found
    }

    fn scan(&self, place: usize, query: &Query, choices: &mut Vec<Choice>, work: &mut Work) {
        let side = &self.sides[place];
        let Some(codes) = &side.graph.codes else { return };
        work.scanned += 1;
        work.add_codes(codes.width(), side.count as u64);
        let kept = side.ef.max(self.k.saturating_mul(2)).max(self.k.saturating_add(10));
        let rows = side.scan(codes, &query.borrow(), kept);
        let choice = |(estimate, row)| Choice { estimate, side: place as u32, place: Place::Row(row) };
        choices.extend(rows.into_iter().map(choice));
    }

    /// Looks for candidates by codes: by a walk, or where that meets more than it was chosen for, by a scan.
    fn walk_codes(&self, place: usize, query: &Query, choices: &mut Vec<Choice>, work: &mut Work) {
        let Some(codes) = &self.sides[place].graph.codes else { return };
        if !self.walk(place, &Estimate { codes }, &query.borrow(), choices, work) {
            self.scan(place, query, choices, work);
        }
    }

    /// The same by vectors. False when the walk gave up: it leaves nothing, and all rows are to be scored.
    fn walk_vectors(&self, place: usize, choices: &mut Vec<Choice>, work: &mut Work) -> bool {
        let side = &self.sides[place];
        let scorer = Scorer::new(side.graph.metric, self.query);
        self.walk(place, &side.exact_space(), &scorer, choices, work)
    }

    /// False when the walk gave up.
    fn walk<S: Space>(
        &self,
        place: usize,
        space: &S,
        query: &S::Query,
        choices: &mut Vec<Choice>,
        work: &mut Work,
    ) -> bool {
        let side = &self.sides[place];
        let layers = &side.graph.layers;
        with_scratch(side.graph.nodes.count(), |scratch| {
            let done = match side.hidden {
                NONE => self.walk_from(side, &Walk { space, layers, query }, scratch, work),
                node => {
                    let space = &Without { space, node };
                    self.walk_from(side, &Walk { space, layers, query }, scratch, work)
                }
            };
            if done {
                self.choose(place, &scratch.best, choices);
            }
            done
        })
    }

    /// Leaves allowed nodes in the scratch, with others where many are allowed.
    fn walk_from<S: Space>(
        &self,
        side: &Side,
        walk: &Walk<S>,
        scratch: &mut Scratch,
        work: &mut Work,
    ) -> bool {
        work.walked += 1;
        let mut count = |scratch: &Scratch| {
            work.hops += scratch.hops as u64;
            side.tell(scratch.visited.met() as u64, work);
        };
        let ef = side.ef.max(self.k.saturating_add((self.k / 4).max(10)));
        let entry = walk.start(0, scratch);
        let near = walk.descend(entry, 1..walk.layers.len(), scratch);
        let admit = |node: u32| side.admits(node);
        if let Some(wider) = side.widened(ef) {
            let Graph { metric, reach, .. } = side.graph;
            let effort = reach.effort(*metric, wider, self.k, unit(*metric, self.query));
            let effort = if side.filter.is_none() { effort } else { effort.keeping_far() };
            walk.explore(near, effort, side, scratch);
            count(scratch);
            let enough = self.k.saturating_mul(2).max(ef / 2);
            let admitted = || scratch.best.iter().filter(|candidate| admit(candidate.node())).count();
            if side.filter.is_none() || admitted() >= enough {
                return true;
            }
        }
        let done = walk.beam_admitted(near, ef, side.count, admit, scratch);
        count(scratch);
        done
    }

    /// The nodes that a walk left.
    fn choose(&self, place: usize, best: &[Candidate], choices: &mut Vec<Choice>) {
        let hidden = self.sides[place].hidden;
        let left = best.iter().filter(|candidate| candidate.node() != hidden);
        choices.extend(left.map(|candidate| Choice {
            estimate: candidate.score(),
            side: place as u32,
            place: Place::Node(candidate.node()),
        }));
    }

    /// The allowed rows of a choice.
    fn rows<'b>(&'b self, choice: &'b Choice) -> impl Iterator<Item = u32> + 'b {
        let side = &self.sides[choice.side as usize];
        let rows = match &choice.place {
            Place::Row(row) => std::slice::from_ref(row),
            Place::Node(node) => side.graph.nodes.rows_of(*node),
        };
        let allowed = rows
            .iter()
            .copied()
            .filter(|row| side.filter.as_ref().is_none_or(|filter| filter.get(*row as usize)));
        // More copies of one vector than k cannot all be returned.
        allowed.take(self.k)
    }

    /// Exact distances of those that may be among the nearest `k`, in no order.
    ///
    /// How far estimates are from distances is seen while they are made: for this query, on these rows.
    fn rescored(&self, choices: &mut [Choice], work: &mut Work) -> Vec<Found> {
        let Some(first) = choices.first() else { return Vec::new() };
        let scorer = Scorer::new(self.sides[first.side as usize].graph.metric, self.query);
        choices.sort_by(|a, b| a.estimate.total_cmp(&b.estimate));
        let vector = |choice: &Choice, row: u32| {
            let Side { graph, vectors, .. } = self.sides[choice.side as usize];
            vectors.row(row as usize, graph.dim)
        };
        let load = |choice: &Choice| {
            if let Some(row) = self.rows(choice).next() {
                prefetch(vector(choice, row));
            }
        };
        choices.iter().take(AHEAD).for_each(load);
        let at_least = scored_at_least(self.k);
        let mut top: TopK<Found> = TopK::new(self.k, choices.len());
        let (mut scored, mut squares) = (0, 0.0);
        for (index, choice) in choices.iter().enumerate() {
            let estimate = f64::from(choice.estimate);
            if scored >= at_least && is_beyond(choice.estimate, &top, scored, squares) {
                break;
            }
            if let Some(later) = choices.get(index + AHEAD) {
                load(later);
            }
            for row in self.rows(choice) {
                let distance = scorer.score(vector(choice, row));
                scored += 1;
                squares += (distance - estimate).powi(2);
                let neighbor = Neighbor { position: row, distance };
                top.offer(Found { neighbor, part: self.sides[choice.side as usize].number });
            }
        }
        work.distances += scored as u64;
        let mut found = top.into_sorted();
        found.iter_mut().for_each(|found| found.neighbor.distance = scorer.finish(found.neighbor.distance));
        found
    }
}

/// Whether an estimate is so far behind the `k`-th distance that its error cannot make up for it. `squares`: the sum of
/// the squared errors of the estimates of `scored` rows.
#[inline]
fn is_beyond(estimate: f32, nearest: &TopK<Found>, scored: usize, squares: f64) -> bool {
    let least = f64::from(estimate) - DEVIATIONS * (squares / scored as f64).sqrt();
    nearest.worst().is_some_and(|worst| least > worst.neighbor.distance)
}

/// How many candidates are scored before the error of their estimates counts as known.
fn scored_at_least(k: usize) -> usize {
    k.saturating_add((k / 5).max(2))
}
