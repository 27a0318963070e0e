//! A second look: every node searches its surroundings once more, and chooses its links anew.
//!
//! Called once all nodes are in. A node that went in early saw few others, and what linked back to it since was never
//! weighed against its other links, for as long as it had slots left: a walk pays for both, by ways that are longer and
//! by links that lead where others lead. So each node
//! 1. looks around on the lowest layer, from where it is: by a narrow beam, or through the links of its nearest links;
//! 2. chooses its links among what it found and those it has, in different directions (`select`);
//! 3. is linked to by those that it has not linked to before.
//!
//! Upper layers stay as they are: few nodes, and few of a walk's hops.

use std::sync::atomic::Ordering::Relaxed;

use super::linker::{LinkRoom, Linker};
use super::work::{Progress, in_chunks};
use crate::graph::beam::Walk;
use crate::graph::scratch::{Candidate, Scratch};
use crate::graph::space::RowSpace;
use crate::{BuildParams, IndexError};

/// Graphs with no more nodes stay as they were inserted: segments under 1,000 rows are scanned in any case.
const FEWEST: usize = 1024;
/// The `m` that [`Refinement::width`] is meant for; for another it is wider or narrower in proportion.
const USUAL_M: usize = 16;

/// In which order a build inserts, and how it looks again. All numbers in one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refinement {
    /// In how many rounds nodes of the lowest layer are inserted, by region in each; 0: by number.
    pub(super) rounds: u32,
    /// Candidates that a node's second look keeps; 0: none takes one.
    pub(super) width: usize,
    /// Look through the links of so many nearest links, all together; 0: by a beam.
    pub(super) followed: usize,
    /// Percent of the nodes that take a second look: those that went in first, when there was least to find.
    pub(super) share: usize,
    /// How strictly links are chosen, as `select` has it.
    pub(super) slack: f32,
    /// Links that a node is left with at least, if there are so many candidates: percent of `m`.
    pub(super) least: usize,
    /// Whether all that a node links to link back, not those alone that it has not linked to before.
    pub(super) all_link_back: bool,
}

impl Refinement {
    pub(super) fn usual() -> Self {
        Self { rounds: 4, width: 32, followed: 0, share: 100, slack: 0.0, least: 50, all_link_back: false }
    }

    /// How many of so many inserted nodes take a second look, in a graph of `count`.
    pub(super) fn of(&self, inserted: usize, count: usize) -> usize {
        if self.width == 0 || count <= FEWEST { 0 } else { inserted * self.share / 100 }
    }
}

pub(super) struct Refining<'a, S> {
    linker: &'a Linker<'a, S>,
    refinement: &'a Refinement,
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
        let least = (m * refinement.least).div_ceil(100);
        Self { linker, refinement, params, progress, width, least }
    }

    /// Best sorted by region: what one node's look loads into the caches is what the next one's reads.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`].
    pub(super) fn run(&self, nodes: &[u32]) -> Result<(), IndexError> {
        let room = || {
            let scratch = Scratch::new(self.linker.layers.count(0));
            let mut linking = LinkRoom::default();
            linking.selection.slack = self.refinement.slack;
            Room { scratch, linking, back: Vec::new() }
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
        let LinkRoom { selection, links, .. } = &*linking;
        back.clear();
        let is_new = |link: &u32| self.refinement.all_link_back || !links.contains(link);
        back.extend(selection.chosen.iter().copied().filter(is_new));
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
        match self.refinement.followed {
            0 => walk.beam(0, start, self.width, scratch),
            followed => look_through(&walk, start, followed, self.width, scratch),
        }
    }
}

/// Leaves in `scratch.best`, in no order, the nearest `width` of what `start` links to and of what the nearest of
/// those, as many as are `followed`, link to.
///
/// A hop of a beam waits for the one before it, and each node that it meets is put in its place; here is one wait for
/// all codes, and one selection.
fn look_through<S: RowSpace>(
    walk: &Walk<S>,
    start: Candidate,
    followed: usize,
    width: usize,
    scratch: &mut Scratch,
) {
    scratch.begin(start);
    meet(walk, &[start], scratch);
    scratch.best.sort_unstable();
    let nearest = scratch.best[..followed.min(scratch.best.len())].to_vec();
    nearest.iter().for_each(|candidate| walk.layers.prefetch(0, candidate.node()));
    meet(walk, &nearest, scratch);
    if scratch.best.len() > width {
        scratch.best.select_nth_unstable(width);
        scratch.best.truncate(width);
    }
}

/// Adds to `scratch.best` what these link to and was not met before.
fn meet<S: RowSpace>(walk: &Walk<S>, from: &[Candidate], scratch: &mut Scratch) {
    let Scratch { visited, best, fresh, scores, .. } = scratch;
    fresh.clear();
    for candidate in from {
        let met = fresh.len();
        let slots = walk.layers.slots(0, candidate.node());
        visited.insert(slots.iter().map(|slot| slot.load(Relaxed)), fresh);
        fresh[met..].iter().for_each(|node| walk.space.prefetch(*node));
    }
    walk.space.score(walk.query, fresh, scores);
    best.extend(fresh.iter().zip(scores.iter()).map(|(node, score)| Candidate::new(*score, *node)));
}

#[cfg(test)]
mod tests;
