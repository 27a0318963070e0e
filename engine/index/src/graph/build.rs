//! Insertion, by several threads at once.
//!
//! Nodes go in by falling level, so that the upper layers stand before the many nodes of the lowest one look
//! for their place, and the first node is the entry for good. A node first finds its neighbours in all its
//! layers and only then is linked, lowest layer first: whoever can meet it in a layer can go on from it in
//! every layer below.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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
use crate::{BuildParams, IndexError};

/// Nodes that one thread inserts before the others join: nodes inserted at the same time do not see each
/// other, which a small graph would notice.
const HEAD: usize = 1024;
/// Nodes that a thread takes at a time.
const CHUNK: usize = 32;
/// Rows between two reports of progress.
const REPORT: usize = 1000;
/// With fewer nodes a search scans the vectors themselves.
const FEWEST_CODES: usize = 256;

pub(super) fn graph(
    metric: Metric,
    m: u16,
    ef_construction: u16,
    params: &BuildParams,
) -> Result<Graph, IndexError> {
    let m = usize::from(m).max(2);
    let ef = usize::from(ef_construction).max(m);
    let (nodes, counts) = Nodes::build(params, m)?;
    let layers = Layers::empty(m, &counts)?;
    let rows = nodes.first_rows();
    let codes = match encode(params, &rows)? {
        Some((codes, row_queries)) => {
            let space = EstimateRows { codes: &codes, rows: &row_queries };
            Insertion::new(&space, &layers, ef, params).run()?;
            Some(codes)
        }
        None => {
            let space = Exact { metric, dim: params.dim, vectors: params.vectors.into(), nodes: &nodes };
            Insertion::new(&space, &layers, ef, params).run()?;
            None
        }
    };
    (params.progress)(params.rows() as u64, params.rows() as u64);
    Ok(Graph::new(metric, params.dim, nodes, layers, codes))
}

/// The codes, unless the graph is better off without.
fn encode(params: &BuildParams, rows: &[u32]) -> Result<Option<(Codes, RowQueries)>, IndexError> {
    if rows.len() < FEWEST_CODES || !Codes::worthwhile(params.metric, params.dim) {
        return Ok(None);
    }
    let Some((codes, row_queries)) = Codes::build(params, rows)? else { return Ok(None) };
    let fits = fit::fits(&codes, &row_queries, params, rows);
    Ok(fits.then_some((codes, row_queries)))
}

struct Insertion<'a, S> {
    space: &'a S,
    layers: &'a Layers,
    ef: usize,
    params: &'a BuildParams<'a>,
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
    fn new(space: &'a S, layers: &'a Layers, ef: usize, params: &'a BuildParams) -> Self {
        let locks = (0..layers.count(0)).map(|_| Mutex::new(())).collect();
        Self { space, layers, ef, params, locks, done: AtomicUsize::new(1) }
    }

    fn run(&self) -> Result<(), IndexError> {
        let nodes = self.layers.count(0);
        let head = nodes.min(HEAD);
        self.insert_range(&AtomicUsize::new(1), head);
        let next = AtomicUsize::new(head);
        on_threads(self.params.threads, || self.insert_range(&next, nodes));
        if (self.params.cancelled)() {
            return Err(IndexError::Cancelled);
        }
        repair::reach_all(self.space, self.layers, self.ef, self.params)
    }

    /// Takes nodes off `next` up to `end`; stops early when cancelled.
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
            for node in first..last {
                self.insert(node as u32, &mut room);
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
        let mut near = walk.descend(entry, level + 1..self.layers.len(), &mut room.scratch);
        for layer in (0..=level).rev() {
            walk.beam(layer, near, self.ef, &mut room.scratch);
            near = room.scratch.best[0];
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

    /// Links `from` to `to`. When `from` has no slot left, its links are chosen anew.
    fn link_back(&self, layer: usize, from: u32, to: u32, room: &mut Room) {
        let Room { selection, links, scores, candidates, .. } = room;
        let _guard = self.locks[from as usize].lock();
        let slots = self.layers.slots(layer, from);
        if let Some(free) = slots.iter().find(|slot| slot.load(Relaxed) == NONE) {
            free.store(to, Relaxed);
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
