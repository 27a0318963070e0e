//! Changes of links that several threads may want to change at once.
//!
//! Called by insertion. Who changes the links of a node that others know holds the node's lock, and
//! never two; reading asks for none.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::graph::links::Layers;
use crate::graph::nodes::NONE;
use crate::graph::scratch::Candidate;
use crate::graph::select::Selection;
use crate::graph::space::RowSpace;

pub(super) struct Linker<'a, S> {
    pub(super) space: &'a S,
    pub(super) layers: &'a Layers,
    /// One a node: who holds it may change the node's links, in any layer.
    locks: Vec<Mutex<()>>,
}

/// What one thread chooses links with.
#[derive(Default)]
pub(super) struct LinkRoom {
    pub(super) selection: Selection,
    /// The links that the last node had.
    pub(super) links: Vec<u32>,
    scores: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl<'a, S: RowSpace> Linker<'a, S> {
    pub(super) fn new(space: &'a S, layers: &'a Layers) -> Self {
        Self { space, layers, locks: (0..layers.count(0)).map(|_| Mutex::new(())).collect() }
    }

    /// Links `from` to `to`, unless it is. When `from` has no slot left, its links are chosen anew.
    pub(super) fn link_back(&self, layer: usize, from: u32, to: u32, room: &mut LinkRoom) {
        let LinkRoom { selection, links, scores, candidates } = room;
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
