//! A second look: nodes that went in early search their surroundings once more, and choose their links anew.
//!
//! Called once all nodes are in. A node that went in early saw few others, and what linked back to it since was never
//! weighed against its other links, for as long as it had slots left: a walk pays for both, by ways that are longer and
//! by links that lead where others lead. So a node
//! 1. looks around on the lowest layer, by a narrow beam from where it is;
//! 2. chooses its links among what it found and those it has, in different directions (`select`);
//! 3. is linked to by all of them.
//!
//! Upper layers stay as they are: few nodes, and few of a walk's hops.

use super::linker::{LinkRoom, Linker};
use super::work::{Progress, in_chunks};
use crate::graph::beam::Walk;
use crate::graph::scratch::Scratch;
use crate::graph::space::RowSpace;
use crate::{BuildParams, IndexError};

/// Graphs with no more nodes stay as they were inserted: segments under 1,000 rows are scanned in any case.
const FEWEST: usize = 1024;
/// The `m` that [`Refinement::width`] is meant for; for another it is wider or narrower in proportion.
const USUAL_M: usize = 16;

/// Links that a node is left with at least, if there are so many candidates: percent of `m`.
const LEAST: usize = 50;

/// In which order a build inserts, and how it looks again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refinement {
    /// In how many rounds nodes of the lowest layer are inserted, by region in each; 0: by number.
    pub(super) rounds: u32,
    /// Candidates that a node's second look keeps; 0: none takes one.
    pub(super) width: usize,
    /// Percent of the nodes that take one: those that went in first, when there was least to find.
    pub(super) share: usize,
}

impl Refinement {
    /// On 117,659 × 384 embeddings a second look of all nodes saves 17 % of the distances of searches at a recall of 0.95
    /// and 13 % at 0.99, and takes half as long as the build before it. One of the first quarter alone saves 8 % at 0.95
    /// and hardly anything at 0.99.
    pub(super) fn usual() -> Self {
        Self { rounds: 4, width: 48, share: 25 }
    }

    /// How many of so many inserted nodes take a second look, in a graph of `count`.
    pub(super) fn of(&self, inserted: usize, count: usize) -> usize {
        if self.width == 0 || count <= FEWEST { 0 } else { inserted * self.share / 100 }
    }
}

pub(super) struct Refining<'a, S> {
    linker: &'a Linker<'a, S>,
    params: &'a BuildParams<'a>,
    progress: &'a Progress<'a>,
    /// Candidates that are kept, and links at least, for this graph's `m`.
    width: usize,
    least: usize,
}

/// What one thread works with.
struct Room {
    scratch: Scratch,
    linking: LinkRoom,
    /// Nodes that are to link back.
    back: Vec<u32>,
}

impl<'a, S: RowSpace> Refining<'a, S> {
    pub(super) fn new(
        linker: &'a Linker<S>,
        refinement: &'a Refinement,
        params: &'a BuildParams,
        progress: &'a Progress,
    ) -> Self {
        let m = linker.layers.m();
        let width = (refinement.width * m).div_ceil(USUAL_M);
        let least = (m * LEAST).div_ceil(100);
        Self { linker, params, progress, width, least }
    }

    /// Best sorted by region: what one node's look loads into the caches is what the next one's reads.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`].
    pub(super) fn run(&self, nodes: &[u32]) -> Result<(), IndexError> {
        let room = || {
            let scratch = Scratch::new(self.linker.layers.count(0));
            Room { scratch, linking: LinkRoom::default(), back: Vec::new() }
        };
        in_chunks(self.params, self.params.threads, nodes, room, |nodes: &[u32], room: &mut Room| {
            for node in nodes {
                self.refine(*node, room);
            }
            self.progress.refined(nodes.len());
        })
    }

    fn refine(&self, node: u32, room: &mut Room) {
        let Room { scratch, linking, back } = room;
        self.look(node, scratch);
        self.linker.renew(node, &scratch.best, self.least, linking);
        back.clear();
        back.extend_from_slice(&linking.selection.chosen);
        for neighbour in back.iter() {
            self.linker.link_back(0, *neighbour, node, linking);
        }
    }

    /// Leaves nodes near this one in `scratch.best`, perhaps itself among them.
    fn look(&self, node: u32, scratch: &mut Scratch) {
        let Linker { space, layers, .. } = *self.linker;
        let query = space.row(node);
        let walk = Walk { space, layers, query: &query };
        let start = walk.start(node, scratch);
        walk.beam(0, start, self.width, scratch);
    }
}

#[cfg(test)]
mod tests;
