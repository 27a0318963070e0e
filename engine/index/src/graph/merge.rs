//! The graph of merged segments, made from that of one of them.
//!
//! Called by the crate's `build_with` where there are indexes over some of the rows ([`Seed`]). The rows that the
//! graph which wears least by it knows keep their levels and links, under new numbers; all others, those of the other
//! graphs too, are inserted as ever. Where links led to rows that are gone, a node gets others, to those that the lost
//! ones linked to:
//! - Of each lost node the first that is left, its heir, unless the walk gets there through another link already: so a
//!   link that led far still does, and no cluster drifts away.
//! - The nearest of all of them, in different directions, for the rest, and a quarter more than were lost.
//!
//! A node that is left without links is inserted anew. With a fifth of the rows replaced, all this takes a quarter of
//! a fresh build's distances and finds as much where rows have some structure (docs/decisions/0003-vector-index.md has
//! numbers). What it loses adds up from merge to merge, so it is counted ([`Wear`]): once more than a quarter of the
//! rows went since the last fresh build, the next is a fresh one. Codes are made anew in any case, because their
//! centre has moved; that takes a few hundredths of the time.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::Graph;
use super::build::{Coded, Insertion, Order, exact, finished};
use super::links::Layers;
use super::nodes::{NONE, Nodes};
use super::scratch::Candidate;
use super::select::Selection;
use super::space::RowSpace;
use crate::quantize::{Codes, on_threads};
use crate::{Bits, BuildParams, IndexError, Seed, VectorIndex, Wear};

/// Nodes that a thread takes at a time.
const CHUNK: usize = 256;
/// Lost nodes through whose links a node looks for others: past them, it is inserted anew.
const MOST_LOST: usize = 256;
/// The nearest of so many for each link that is wanted are weighed against each other.
const POOL: usize = 4;

/// A graph that goes on from another.
pub(crate) struct Merged<'a> {
    pub(crate) graph: Graph,
    pub(crate) wear: Wear,
    /// The index that it goes on from.
    pub(crate) base: &'a dyn VectorIndex,
}

/// `None` where a fresh build is the better choice. `thrifty`: build on exact distances. A seed that tells of no wear
/// counts as fresh.
///
/// # Errors
/// [`IndexError::Cancelled`] and [`IndexError::Resources`].
pub(super) fn graph<'a>(
    m: usize,
    ef: usize,
    params: &BuildParams,
    seeds: &[Seed<'a>],
    thrifty: bool,
) -> Result<Option<Merged<'a>>, IndexError> {
    let bases = seeds.iter().filter_map(|seed| Base::of(seed, m, params));
    let usable = bases.filter(|base| !base.wear.is_too_much() && base.carries(params));
    let Some(base) = usable.max_by_key(|base| base.survivors) else { return Ok(None) };
    let (nodes, counts) = Nodes::merge(params, m, &base.levels(params.rows()))?;
    let layers = Layers::empty(m, &counts)?;
    let coded = Coded::new(params, &nodes.first_rows(), thrifty)?;
    let widths = [&base.graph.codes, &coded.codes].map(|codes| codes.as_ref().map(Codes::width));
    if let [Some(before), now] = widths
        && now.is_none_or(|now| now > before)
    {
        // Such codes no longer tell the rows apart: nor did they when these links were chosen, perhaps.
        return Ok(None);
    }
    let merge = Merge { base: &base, ef, params, nodes: &nodes, layers: &layers };
    let merged = match coded.space() {
        Some(space) => merge.run(&space)?,
        None => merge.run(&exact(params, &nodes))?,
    };
    if !merged {
        return Ok(None);
    }
    (params.progress)(params.rows() as u64, params.rows() as u64);
    let graph = finished(params, nodes, layers, coded)?;
    Ok(Some(Merged { graph, wear: base.wear, base: base.index }))
}

/// A graph over some of the rows.
struct Base<'a> {
    index: &'a dyn VectorIndex,
    graph: &'a Graph,
    /// The new position of each of its rows.
    positions: &'a [u32],
    /// How many of its rows are still there.
    survivors: usize,
    /// What a graph has that goes on from it.
    wear: Wear,
}

impl<'a> Base<'a> {
    /// `None` for an index of another kind or with other options.
    fn of(seed: &Seed<'a>, m: usize, params: &BuildParams) -> Option<Self> {
        let graph = seed.index.graph()?;
        let positions = seed.positions;
        let alike = graph.metric == params.metric && graph.dim == params.dim && graph.layers.m() == m;
        if !alike || graph.nodes.rows() != positions.len() {
            return None;
        }
        // Of rows that are indexed: no others have links.
        let indexed = graph.nodes.positions().iter();
        let survivors = indexed.filter(|row| (positions[**row as usize] as usize) < params.rows()).count();
        let wear = seed.index.wear().unwrap_or_default();
        let wear = wear.merged(survivors, graph.nodes.indexed_rows());
        Some(Self { index: seed.index, graph, positions, survivors, wear })
    }

    /// Whether it knows enough of the rows to save what it takes to go on from it.
    fn carries(&self, params: &BuildParams) -> bool {
        self.survivors * 2 >= params.valid.map_or(params.rows(), Bits::count)
    }

    /// Where the rows of one of its nodes are now, of so many.
    fn rows_of(&self, node: u32, rows: usize) -> impl Iterator<Item = usize> + '_ {
        let old = self.graph.nodes.rows_of(node).iter();
        old.map(move |row| self.positions[*row as usize] as usize).filter(move |position| *position < rows)
    }

    /// The level and one of the node that each row belongs to; 0 for rows of no node.
    fn levels(&self, rows: usize) -> Vec<u8> {
        let mut levels = vec![0; rows];
        for node in 0..self.graph.nodes.count() as u32 {
            // At most 23.
            let level = self.graph.layers.top_of(node) as u8 + 1;
            self.rows_of(node, rows).for_each(|row| levels[row] = level.max(levels[row]));
        }
        levels
    }
}

/// A merge on its way.
struct Merge<'a> {
    base: &'a Base<'a>,
    ef: usize,
    params: &'a BuildParams<'a>,
    nodes: &'a Nodes,
    layers: &'a Layers,
}

impl Merge<'_> {
    /// False where the base does not carry: its entry has lost all that it led to.
    fn run<S: RowSpace>(&self, space: &S) -> Result<bool, IndexError> {
        let renumbered = self.renumbered();
        let stranded = Relink::new(self, space, &renumbered).all()?;
        if stranded.first() == Some(&0) {
            return Ok(false);
        }
        let mut kept = Bits::new(self.nodes.count());
        renumbered.iter().filter(|node| **node != NONE).for_each(|node| kept.set(*node as usize));
        stranded.iter().for_each(|node| kept.clear(*node as usize));
        let rest: Vec<u32> =
            (0..self.nodes.count() as u32).filter(|node| !kept.get(*node as usize)).collect();
        let order = Order { nodes: Some(&rest), stranded: &stranded };
        Insertion::new(space, self.layers, self.ef, self.params, &order).run()?;
        Ok(true)
    }

    /// The new node of each of the base's; [`NONE`] where all its rows are gone.
    fn renumbered(&self) -> Vec<u32> {
        let mut taken = Bits::new(self.nodes.count());
        let rows = self.nodes.rows();
        let old = 0..self.base.graph.nodes.count() as u32;
        old.map(|node| {
            let mut places = self.base.rows_of(node, rows).map(|row| self.nodes.node_of(row));
            let found = places.find(|new| *new != NONE && !taken.get(*new as usize));
            found.inspect(|new| taken.set(*new as usize)).unwrap_or(NONE)
        })
        .collect()
    }
}

/// The base's links under the new numbers.
struct Relink<'a, S> {
    base: &'a Layers,
    layers: &'a Layers,
    space: &'a S,
    params: &'a BuildParams<'a>,
    /// The new node of each of the base's.
    renumbered: &'a [u32],
    /// Nodes of the base in each layer of the new graph.
    counts: Vec<usize>,
    /// Nodes without links in a layer where there are others.
    stranded: Mutex<Vec<u32>>,
    next: AtomicUsize,
}

/// What one thread works with.
#[derive(Default)]
struct Room {
    selection: Selection,
    links: Vec<u32>,
    /// Nodes of the base that are gone, and whose links are looked through.
    lost: Vec<u32>,
    heirs: Vec<u32>,
    found: Vec<u32>,
    scores: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl<'a, S: RowSpace> Relink<'a, S> {
    fn new(merge: &Merge<'a>, space: &'a S, renumbered: &'a [u32]) -> Self {
        let Merge { base, layers, params, .. } = *merge;
        let mut counts = vec![0; layers.len()];
        for node in renumbered.iter().filter(|node| **node != NONE) {
            counts[..=layers.top_of(*node)].iter_mut().for_each(|count| *count += 1);
        }
        let (stranded, next) = (Mutex::default(), AtomicUsize::new(0));
        Self { base: &base.graph.layers, layers, space, params, renumbered, counts, stranded, next }
    }

    /// Gives the nodes that are left without links, ascending.
    fn all(self) -> Result<Vec<u32>, IndexError> {
        on_threads(self.params.threads, || {
            let mut room = Room::default();
            loop {
                let first = self.next.fetch_add(CHUNK, Relaxed);
                if first >= self.renumbered.len() || (self.params.cancelled)() {
                    return;
                }
                for old in first..self.renumbered.len().min(first + CHUNK) {
                    self.node(old as u32, &mut room);
                }
            }
        });
        if (self.params.cancelled)() {
            return Err(IndexError::Cancelled);
        }
        let mut stranded = self.stranded.into_inner();
        stranded.sort_unstable();
        stranded.dedup();
        Ok(stranded)
    }

    fn node(&self, old: u32, room: &mut Room) {
        let new = self.renumbered[old as usize];
        if new == NONE {
            return;
        }
        for layer in 0..=self.base.top_of(old).min(self.layers.top_of(new)) {
            room.links.clear();
            room.lost.clear();
            for link in self.base.links(layer, old) {
                match self.renumbered[link as usize] {
                    NONE => room.lost.push(link),
                    link => room.links.push(link),
                }
            }
            if !room.lost.is_empty() {
                self.replace(layer, new, room);
            }
            self.layers.set(layer, new, &room.links);
            if room.links.is_empty() && self.counts[layer] > 1 {
                self.stranded.lock().push(new);
            }
        }
    }

    /// Adds links in the place of those that were lost.
    fn replace(&self, layer: usize, node: u32, room: &mut Room) {
        let wanted = room.lost.len();
        let slots = self.layers.slots(layer, node).len();
        let most = (wanted + wanted / 4).min(slots - room.links.len());
        self.look(layer, node, room);
        let Room { selection, links, heirs, found, scores, candidates, .. } = room;
        self.space.score(&self.space.row(node), found, scores);
        candidates.clear();
        candidates.extend(found.iter().zip(scores.iter()).map(|(node, score)| Candidate::new(*score, *node)));
        candidates.sort_unstable();
        let before = links.len();
        candidates.retain(|candidate| {
            if !heirs.contains(&candidate.node()) {
                return true;
            }
            // Nearer to another that is linked to than to the node: the walk gets there through that.
            self.space.score(&self.space.row(candidate.node()), links, scores);
            let leads_on = scores.iter().all(|score| *score >= candidate.score());
            if leads_on {
                links.push(candidate.node());
            }
            !leads_on
        });
        let rest = most - (links.len() - before);
        candidates.truncate(POOL * rest);
        if rest > 0 {
            selection.choose(self.space, candidates, rest);
            links.extend_from_slice(&selection.chosen);
        }
    }

    /// Finds nodes that lost ones linked to, and their heirs.
    fn look(&self, layer: usize, node: u32, room: &mut Room) {
        let Room { links, lost, heirs, found, .. } = room;
        let wanted = lost.len();
        heirs.clear();
        found.clear();
        // Through all that were lost, and on from them only while everything there is gone, too.
        let mut at = 0;
        while at < lost.len() && (at < wanted || found.is_empty()) {
            let mut heir = None;
            for link in self.base.links(layer, lost[at]) {
                match self.renumbered[link as usize] {
                    NONE if lost.len() < MOST_LOST && !lost.contains(&link) => lost.push(link),
                    NONE => {}
                    new if new != node && !links.contains(&new) => {
                        found.push(new);
                        heir = heir.or(Some(new).filter(|new| !heirs.contains(new)));
                    }
                    _ => {}
                }
            }
            heirs.extend(heir);
            at += 1;
        }
        found.sort_unstable();
        found.dedup();
    }
}

#[cfg(test)]
mod tests;
