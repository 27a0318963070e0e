//! Insertion, by several threads at once, and what follows it.
//!
//! 1. Nodes above the lowest layer go in by falling level, so that the upper layers stand before the many nodes of the
//!    lowest one look for their place, and the first node is the entry for good. A node first finds its neighbours in
//!    all its layers and only then is linked, lowest layer first: whoever can meet it in a layer can go on from it in
//!    every layer below.
//! 2. The upper layers tell which region each node lies in (`regions`). All others go in region by region, so that
//!    what one node's search loaded into the caches is what the next one's reads; in rounds of growing size, so that
//!    nodes all the same find the graph about as they would in random order.
//! 3. Whoever cannot be reached is linked to (`repair`).
//! 4. Nodes are numbered anew, so that a search finds neighbours side by side (`arrange`).
//!
//! `linker` changes the links that several threads may want to change at once, `work` shares nodes out to threads.

mod linker;
mod regions;
mod work;

use sepal_types::Metric;

use super::arrange::arrange;
use super::beam::Walk;
use super::links::Layers;
use super::nodes::Nodes;
use super::repair;
use super::scratch::Scratch;
use super::space::{EstimateRows, Exact, RowSpace};
use super::{Graph, fit};
use crate::quantize::{Codes, RowQueries, Width};
use crate::{BuildMemory, BuildParams, IndexError};
use linker::{LinkRoom, Linker};
use regions::Regions;
use work::{Progress, in_chunks};

/// Nodes that one thread inserts before the others join: nodes inserted at the same time do not see each
/// other, which a small graph would notice.
const HEAD: usize = 1024;
/// Rounds in which the nodes of the lowest layer are inserted, by region in each.
const ROUNDS: u32 = 4;
/// Bytes a row while equal rows are grouped: hashes, groups and their order.
const GROUPING_BYTES: u64 = 96;
/// Bytes a node beside its code and links: its rows, its row's node, its lock, its home, its place in the order, and
/// what the order is sorted by.
const NODE_BYTES: u64 = 37;
/// Bytes that a row as a query has beside its values.
const QUERY_HEAD_BYTES: u64 = 12;
/// With fewer nodes a search scans the vectors themselves.
const FEWEST_CODES: usize = 256;

/// `thrifty`: on exact distances, for want of memory.
///
/// # Errors
/// [`IndexError::Cancelled`] and [`IndexError::Resources`].
pub(super) fn graph(m: usize, ef: usize, params: &BuildParams, thrifty: bool) -> Result<Graph, IndexError> {
    let (nodes, counts) = Nodes::build(params, m)?;
    let layers = Layers::empty(m, &counts)?;
    let coded = Coded::new(params, &nodes.first_rows(), thrifty)?;
    let all = Order { nodes: None, stranded: &[] };
    match coded.space() {
        Some(space) => Insertion::new(&space, &layers, ef, params, &all).run()?,
        None => Insertion::new(&exact(params, &nodes), &layers, ef, params, &all).run()?,
    }
    (params.progress)(params.rows() as u64, params.rows() as u64);
    finished(params, nodes, layers, coded)
}

/// The graph of nodes that are all linked.
pub(super) fn finished(
    params: &BuildParams,
    nodes: Nodes,
    mut layers: Layers,
    coded: Coded,
) -> Result<Graph, IndexError> {
    let Coded { mut codes, rows } = coded;
    drop(rows);
    let nodes = arrange(&nodes, &mut layers, codes.as_mut())
        .ok_or_else(|| IndexError::Shape("nodes were arranged wrongly; report this".into()))?;
    Ok(Graph::new(params.metric, params.dim, nodes, layers, codes))
}

/// What a build takes at most. The least is without the rows as queries, and with the wider codes, which may turn out
/// to be needed: those and no queries are less than the narrow ones with them.
pub(super) fn memory(metric: Metric, m: usize, rows: usize, dim: usize) -> BuildMemory {
    let (rows, m) = (rows as u64, m.max(2) as u64);
    // One node in m is in the next layer, and one in m of those.
    let links = rows * 4 * (2 * m + m.div_ceil(m - 1));
    let codes = |width| match Codes::worthwhile(metric, dim, width) {
        true => rows * Codes::bytes_per_code(dim, width) as u64,
        false => 0,
    };
    let queries = match codes(Width::Four) {
        0 => 0,
        _ => rows * (Width::Eight.stride(dim) as u64 + QUERY_HEAD_BYTES),
    };
    let with = |walked: u64| rows * NODE_BYTES + walked.max(rows * GROUPING_BYTES);
    let least = codes(Width::Four).max(codes(Width::Eight));
    BuildMemory { usual: with(links + codes(Width::Four) + queries), least: with(links + least) }
}

/// The codes, unless the graph is better off without, and the rows as queries, unless there is no room for them: then
/// the graph is built on exact distances, which takes several times as long. There never is beside codes of 8 bits an
/// element.
pub(super) struct Coded {
    pub(super) codes: Option<Codes>,
    rows: Option<RowQueries>,
}

impl Coded {
    /// Codes of 4 bits an element if they can tell the rows apart, else of 8 if these can. `rows` are those of the
    /// nodes.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`] and [`IndexError::Resources`].
    pub(super) fn new(params: &BuildParams, rows: &[u32], thrifty: bool) -> Result<Self, IndexError> {
        if rows.len() >= FEWEST_CODES {
            for width in [Width::Four, Width::Eight] {
                let coded = Self::of_width(params, rows, width, thrifty)?;
                if coded.codes.as_ref().is_some_and(|codes| fit::fits(codes, params, rows)) {
                    return Ok(coded);
                }
            }
        }
        Ok(Self { codes: None, rows: None })
    }

    /// Without codes where such are not worthwhile, or not possible.
    fn of_width(params: &BuildParams, rows: &[u32], width: Width, thrifty: bool) -> Result<Self, IndexError> {
        if !Codes::worthwhile(params.metric, params.dim, width) {
            return Ok(Self { codes: None, rows: None });
        }
        if thrifty || width == Width::Eight {
            return Ok(Self { codes: Codes::build_alone(params, rows, width)?, rows: None });
        }
        let (codes, rows) = Codes::build(params, rows)?.unzip();
        Ok(Self { codes, rows })
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
    linker: Linker<'a, S>,
    ef: usize,
    params: &'a BuildParams<'a>,
    order: &'a Order<'a>,
}

/// What one thread works with.
struct Room {
    scratch: Scratch,
    linking: LinkRoom,
    /// The neighbours found for the node at hand, by layer.
    neighbours: Vec<Vec<u32>>,
}

impl<'a, S: RowSpace> Insertion<'a, S> {
    pub(super) fn new(
        space: &'a S,
        layers: &'a Layers,
        ef: usize,
        params: &'a BuildParams,
        order: &'a Order,
    ) -> Self {
        Self { linker: Linker::new(space, layers), ef, params, order }
    }

    /// # Errors
    /// [`IndexError::Cancelled`].
    pub(super) fn run(&self) -> Result<(), IndexError> {
        let Linker { space, layers, .. } = self.linker;
        let count = layers.count(0);
        // The entry is there before the first.
        let (mut nodes, first) = match self.order.nodes {
            Some(nodes) => (nodes.to_vec(), 0),
            None => ((0..count as u32).collect(), count.min(1)),
        };
        let upper = nodes.partition_point(|node| (*node as usize) < layers.above_lowest()).max(first);
        let there = count - nodes.len();
        let progress = Progress::new(self.params, there + first, nodes.len() - first);
        self.insert_all(&nodes[first..upper], there + first, None, &progress)?;
        let regions = Regions::find(space, layers, self.params, &nodes[upper..])?;
        regions.sort(&mut nodes[upper..], ROUNDS);
        self.insert_all(&nodes[upper..], there + upper, Some(&regions), &progress)?;
        repair::reach_all(space, layers, self.ef, self.params)
    }

    /// Inserts `nodes` into a graph of so many.
    fn insert_all(
        &self,
        nodes: &[u32],
        there: usize,
        regions: Option<&Regions>,
        progress: &Progress,
    ) -> Result<(), IndexError> {
        let (head, rest) = nodes.split_at(nodes.len().min(HEAD.saturating_sub(there)));
        let room = || Room {
            scratch: Scratch::new(self.linker.layers.count(0)),
            linking: LinkRoom::default(),
            neighbours: vec![Vec::new(); self.linker.layers.len()],
        };
        let work = |nodes: &[u32], room: &mut Room| {
            for node in nodes {
                self.insert(*node, regions.map(|regions| regions.home(*node)), room);
            }
            progress.inserted(nodes.len());
        };
        in_chunks(self.params, 1, head, room, work)?;
        in_chunks(self.params, self.params.threads, rest, room, work)
    }

    /// `home`: where a descent ends, where that is known.
    fn insert(&self, node: u32, home: Option<u32>, room: &mut Room) {
        let Linker { space, layers, .. } = self.linker;
        let Room { scratch, linking, neighbours } = room;
        let query = space.row(node);
        let walk = Walk { space, layers, query: &query };
        let level = layers.top_of(node);
        let is_stranded = self.order.stranded.binary_search(&node).is_ok();
        let start = walk.start(home.filter(|_| !is_stranded).unwrap_or(0), scratch);
        let mut near = match home {
            None if !is_stranded => walk.descend(start, level + 1..layers.len(), scratch),
            _ => start,
        };
        for layer in (0..=level).rev() {
            walk.beam(layer, near, self.ef, scratch);
            // A stranded one meets itself.
            scratch.best.retain(|candidate| candidate.node() != node);
            near = scratch.best.first().copied().unwrap_or(near);
            linking.selection.choose(space, &scratch.best, layers.m());
            neighbours[layer].clone_from(&linking.selection.chosen);
        }
        for (layer, neighbours) in neighbours[..=level].iter().enumerate() {
            layers.set(layer, node, neighbours);
            for neighbour in neighbours {
                self.linker.link_back(layer, *neighbour, node, linking);
            }
        }
    }
}
