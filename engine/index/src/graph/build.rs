//! Insertion, by several threads at once.
//!
//! Nodes go in by falling level, so that the upper layers stand before the many nodes of the lowest one look
//! for their place, and the first node is the entry for good. A node first finds its neighbours in all its
//! layers and only then is linked, lowest layer first: whoever can meet it in a layer can go on from it in
//! every layer below.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use sepal_types::Metric;

use super::beam::Walk;
use super::links::Layers;
use super::nodes::{NONE, Nodes};
use super::repair;
use super::scratch::{Candidate, Scratch};
use super::select::Selection;
use super::space::{EstimateRows, Exact, RowSpace};
use super::{Graph, fit};
use crate::quantize::{Codes, RowQueries, on_threads};
use crate::{BuildMemory, BuildParams, IndexError};

/// Nodes that one thread inserts before the others join: nodes inserted at the same time do not see each
/// other, which a small graph would notice.
const HEAD: usize = 1024;
/// Bytes a row while equal rows are grouped: hashes, groups and their order.
const GROUPING_BYTES: u64 = 96;
/// Bytes a node beside its code and links: its rows, its row's node, its lock.
const NODE_BYTES: u64 = 13;
/// Bytes that a row as a query has beside its values.
const QUERY_HEAD_BYTES: u64 = 12;
/// Nodes that a thread takes at a time.
const CHUNK: usize = 32;
/// Rows between two reports of progress.
const REPORT: usize = 1000;
/// With fewer nodes a search scans the vectors themselves.
const FEWEST_CODES: usize = 256;

/// `thrifty`: on exact distances, for want of memory.
///
/// # Errors
/// [`IndexError::Cancelled`] and [`IndexError::Resources`].
pub(super) fn graph(
    metric: Metric,
    m: usize,
    ef: usize,
    params: &BuildParams,
    thrifty: bool,
) -> Result<Graph, IndexError> {
    let (nodes, counts) = Nodes::build(params, m)?;
    let layers = Layers::empty(m, &counts)?;
    let coded = Coded::new(params, &nodes.first_rows(), thrifty)?;
    let all = Order { nodes: None, stranded: &[] };
    match coded.space() {
        Some(space) => Insertion::new(&space, &layers, ef, params, &all).run()?,
        None => Insertion::new(&exact(params, &nodes), &layers, ef, params, &all).run()?,
    }
    (params.progress)(params.rows() as u64, params.rows() as u64);
    Ok(Graph::new(metric, params.dim, nodes, layers, coded.codes))
}

/// What a build takes at most. The least is without the rows as queries.
pub(super) fn memory(metric: Metric, m: usize, rows: usize, dim: usize) -> BuildMemory {
    let (rows, m) = (rows as u64, m.max(2) as u64);
    // One node in m is in the next layer, and one in m of those.
    let links = rows * 4 * (2 * m + m.div_ceil(m - 1));
    let (codes, queries) = match Codes::worthwhile(metric, dim) {
        true => {
            let stride = Codes::stride(dim) as u64;
            (rows * Codes::bytes_per_code(dim) as u64, rows * (2 * stride + QUERY_HEAD_BYTES))
        }
        false => (0, 0),
    };
    let with = |walked: u64| rows * NODE_BYTES + walked.max(rows * GROUPING_BYTES);
    BuildMemory { usual: with(links + codes + queries), least: with(links + codes) }
}

/// The codes, unless the graph is better off without, and the rows as queries, unless there is no room for them: then
/// the graph is built on exact distances, which takes several times as long.
pub(super) struct Coded {
    pub(super) codes: Option<Codes>,
    rows: Option<RowQueries>,
}

impl Coded {
    /// `rows` are those of the nodes.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`] and [`IndexError::Resources`].
    pub(super) fn new(params: &BuildParams, rows: &[u32], thrifty: bool) -> Result<Self, IndexError> {
        let without = Self { codes: None, rows: None };
        if rows.len() < FEWEST_CODES || !Codes::worthwhile(params.metric, params.dim) {
            return Ok(without);
        }
        let coded = match thrifty {
            true => Codes::build_alone(params, rows)?.map(|codes| Self { codes: Some(codes), rows: None }),
            false => Codes::build(params, rows)?
                .map(|(codes, queries)| Self { codes: Some(codes), rows: Some(queries) }),
        };
        let fits = |coded: &Self| coded.codes.as_ref().is_some_and(|codes| fit::fits(codes, params, rows));
        Ok(coded.filter(fits).unwrap_or(without))
    }

    /// `None`: build on [`exact`] distances.
    pub(super) fn space(&self) -> Option<EstimateRows<'_>> {
        let (codes, rows) = (self.codes.as_ref()?, self.rows.as_ref()?);
        Some(EstimateRows { codes, rows })
    }
}

pub(super) fn exact<'a>(params: &BuildParams<'a>, nodes: &'a Nodes) -> Exact<'a> {
    Exact { metric: params.metric, dim: params.dim, vectors: params.vectors.into(), nodes }
}

/// Which nodes are inserted.
pub(super) struct Order<'a> {
    /// By falling level, where the others are in the graph; `None`: all but the first, which is the entry.
    pub(super) nodes: Option<&'a [u32]>,
    /// Of them, ascending, those that others link to already: a descent might end with the node itself, which leads
    /// nowhere.
    pub(super) stranded: &'a [u32],
}

pub(super) struct Insertion<'a, S> {
    space: &'a S,
    layers: &'a Layers,
    ef: usize,
    params: &'a BuildParams<'a>,
    order: &'a Order<'a>,
    /// One a node: who holds it may change the node's links, in any layer.
    locks: Vec<Mutex<()>>,
    /// Nodes in the graph.
    done: AtomicUsize,
}

/// What one thread works with.
struct Room {
    scratch: Scratch,
    selection: Selection,
    /// The neighbours found for the node at hand, by layer.
    neighbours: Vec<Vec<u32>>,
    links: Vec<u32>,
    scores: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl<'a, S: RowSpace> Insertion<'a, S> {
    pub(super) fn new(
        space: &'a S,
        layers: &'a Layers,
        ef: usize,
        params: &'a BuildParams,
        order: &'a Order,
    ) -> Self {
        let locks = (0..layers.count(0)).map(|_| Mutex::new(())).collect();
        // The entry is there before the first.
        let done = order.nodes.map_or(1, |nodes| layers.count(0) - nodes.len());
        Self { space, layers, ef, params, order, locks, done: AtomicUsize::new(done) }
    }

    /// # Errors
    /// [`IndexError::Cancelled`].
    pub(super) fn run(&self) -> Result<(), IndexError> {
        let (first, end) = self.order.nodes.map_or((1, self.layers.count(0)), |nodes| (0, nodes.len()));
        let there = self.done.load(Relaxed);
        let head = end.min(first + HEAD.saturating_sub(there));
        self.insert_range(&AtomicUsize::new(first), head);
        let next = AtomicUsize::new(head.max(first));
        on_threads(self.params.threads, || self.insert_range(&next, end));
        if (self.params.cancelled)() {
            return Err(IndexError::Cancelled);
        }
        repair::reach_all(self.space, self.layers, self.ef, self.params)
    }

    /// Takes places in the order off `next` up to `end`; stops early when cancelled.
    fn insert_range(&self, next: &AtomicUsize, end: usize) {
        let mut room = Room {
            scratch: Scratch::new(self.layers.count(0)),
            selection: Selection::default(),
            neighbours: vec![Vec::new(); self.layers.len()],
            links: Vec::new(),
            scores: Vec::new(),
            candidates: Vec::new(),
        };
        loop {
            let first = next.fetch_add(CHUNK, Relaxed);
            if first >= end || (self.params.cancelled)() {
                return;
            }
            let last = end.min(first + CHUNK);
            for place in first..last {
                self.insert(self.order.nodes.map_or(place as u32, |nodes| nodes[place]), &mut room);
            }
            self.report(last - first);
        }
    }

    fn report(&self, inserted: usize) {
        let before = self.done.fetch_add(inserted, Relaxed);
        let after = before + inserted;
        if before / REPORT != after / REPORT {
            // In rows: some nodes stand for several, some rows have none.
            let (rows, nodes) = (self.params.rows() as u64, self.layers.count(0) as u64);
            (self.params.progress)(after as u64 * rows / nodes.max(1), rows);
        }
    }

    fn insert(&self, node: u32, room: &mut Room) {
        let query = self.space.row(node);
        let walk = Walk { space: self.space, layers: self.layers, query: &query };
        let level = self.layers.top_of(node);
        let entry = walk.start(0, &mut room.scratch);
        let mut near = match self.order.stranded.binary_search(&node) {
            Ok(_) => entry,
            Err(_) => walk.descend(entry, level + 1..self.layers.len(), &mut room.scratch),
        };
        for layer in (0..=level).rev() {
            walk.beam(layer, near, self.ef, &mut room.scratch);
            // A stranded one meets itself.
            room.scratch.best.retain(|candidate| candidate.node() != node);
            near = room.scratch.best.first().copied().unwrap_or(near);
            room.selection.choose(self.space, &room.scratch.best, self.layers.m());
            room.neighbours[layer].clone_from(&room.selection.chosen);
        }
        for layer in 0..=level {
            let neighbours = std::mem::take(&mut room.neighbours[layer]);
            self.layers.set(layer, node, &neighbours);
            for neighbour in &neighbours {
                self.link_back(layer, *neighbour, node, room);
            }
            room.neighbours[layer] = neighbours;
        }
    }

    /// Links `from` to `to`, unless it is. When `from` has no slot left, its links are chosen anew.
    fn link_back(&self, layer: usize, from: u32, to: u32, room: &mut Room) {
        let Room { selection, links, scores, candidates, .. } = room;
        let _guard = self.locks[from as usize].lock();
        let slots = self.layers.slots(layer, from);
        // Its own or a free one: free ones come last.
        let is_for = |slot: &&AtomicU32| [to, NONE].contains(&slot.load(Relaxed));
        if let Some(slot) = slots.iter().find(is_for) {
            slot.store(to, Relaxed);
            return;
        }
        links.clear();
        links.extend(self.layers.links(layer, from).chain([to]));
        self.space.score(&self.space.row(from), links, scores);
        candidates.clear();
        candidates.extend(links.iter().zip(scores.iter()).map(|(node, score)| Candidate::new(*score, *node)));
        candidates.sort_unstable();
        selection.choose(self.space, candidates, slots.len());
        self.layers.set(layer, from, &selection.chosen);
    }
}
