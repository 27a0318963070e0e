//! The memory of one walk, kept by each thread from query to query.
//!
//! Clearing a mark for each node before each query would cost as much as a short query; so a walk lists the
//! nodes it met and takes their marks back. A mark is one bit: those of a million nodes fit into L2, where
//! one number each (the usual "epoch" stamps) would not.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::nodes::NONE;
use crate::neighbor::{of_sortable, sortable};

/// A node and how far it is, in one integer that sorts by distance, then by node.
///
/// ```text
/// bits 32-63  the distance, its bits mapped so that they sort as the number does
/// bits 1-31   the node
/// bit 0       1 once its links have been followed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate(u64);

impl Candidate {
    /// NaN counts as infinitely far. `node` is below 2^31.
    #[inline(always)]
    pub(super) fn new(score: f32, node: u32) -> Self {
        Self(u64::from(sortable(score)) << 32 | u64::from(node) << 1)
    }

    #[inline(always)]
    pub(super) fn node(self) -> u32 {
        self.0 as u32 >> 1
    }

    #[inline(always)]
    pub(super) fn score(self) -> f32 {
        of_sortable((self.0 >> 32) as u32)
    }

    #[inline(always)]
    pub(super) fn is_followed(self) -> bool {
        self.0 & 1 == 1
    }

    #[inline(always)]
    pub(super) fn set_followed(&mut self) {
        self.0 |= 1;
    }
}

/// Only what is nearer than this can still be among the nearest `ef`, of which `best` has those so far.
#[inline(always)]
pub(super) fn limit(best: &[Candidate], ef: usize) -> f32 {
    match best.last() {
        Some(worst) if best.len() >= ef => worst.score(),
        _ => f32::INFINITY,
    }
}

/// What one walk writes to. One walk at a time.
pub(super) struct Scratch {
    pub(super) visited: Visited,
    /// The best candidates so far, nearest first.
    pub(super) best: Vec<Candidate>,
    /// Candidates yet to follow, for filtered walks only.
    pub(super) frontier: BinaryHeap<Reverse<Candidate>>,
    /// The neighbours that a hop meets first.
    pub(super) fresh: Vec<u32>,
    /// Those of the hop before, where a walk does not wait for them.
    pub(super) here: Vec<u32>,
    /// Distances of those that are scored.
    pub(super) scores: Vec<f32>,
    /// Nodes whose links the last walk followed.
    pub(super) hops: usize,
}

/// Which nodes this walk has met.
pub(super) struct Visited {
    /// One bit a node.
    marks: Vec<u64>,
    /// The nodes whose bits are set.
    met: Vec<u32>,
}

impl Scratch {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            visited: Visited { marks: vec![0; nodes.div_ceil(64)], met: Vec::new() },
            best: Vec::new(),
            frontier: BinaryHeap::new(),
            fresh: Vec::new(),
            here: Vec::new(),
            scores: Vec::new(),
            hops: 0,
        }
    }

    /// Forgets the last walk; `start` is the first node that the next one meets.
    pub(super) fn begin(&mut self, start: Candidate) {
        self.visited.begin();
        self.visited.mark(start.node());
        self.best.clear();
        self.frontier.clear();
        self.hops = 0;
    }

    /// Room for marks of so many nodes.
    fn fit(&mut self, nodes: usize) {
        let words = nodes.div_ceil(64);
        if self.visited.marks.len() < words {
            self.visited.marks.resize(words, 0);
        }
    }
}

impl Visited {
    /// Forgets all marks.
    pub(super) fn begin(&mut self) {
        for node in self.met.drain(..) {
            self.marks[node as usize / 64] = 0;
        }
    }

    /// How many nodes this walk has met, its starts included.
    pub(super) fn met(&self) -> usize {
        self.met.len()
    }

    /// Marks one node.
    pub(super) fn mark(&mut self, node: u32) {
        self.marks[node as usize / 64] |= 1 << (node % 64);
        self.met.push(node);
    }

    /// Marks `nodes` and adds those that were not marked to `fresh`.
    ///
    /// Written without a branch on the mark: whether a neighbour was met before is as good as random.
    #[inline(always)]
    pub(super) fn insert(&mut self, nodes: impl ExactSizeIterator<Item = u32>, fresh: &mut Vec<u32>) {
        let before = fresh.len();
        fresh.resize(before + nodes.len(), 0);
        let mut count = before;
        for node in nodes {
            if node == NONE {
                break;
            }
            let (word, bit) = (&mut self.marks[node as usize / 64], 1u64 << (node % 64));
            fresh[count] = node;
            count += usize::from(*word & bit == 0);
            *word |= bit;
        }
        fresh.truncate(count);
        self.met.extend_from_slice(&fresh[before..]);
    }
}

thread_local! {
    /// One bit for each node of the largest graphs that this thread has walked over, and little else.
    static IDLE: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Lends this thread's scratch to `work`, with room for so many nodes.
pub(super) fn with_scratch<T>(nodes: usize, work: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = IDLE.take().unwrap_or_else(|| Box::new(Scratch::new(nodes)));
    scratch.fit(nodes);
    let result = work(&mut scratch);
    IDLE.set(Some(scratch));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn candidates_sort_by_distance_then_node(a in any::<f32>(), b in any::<f32>(), node in 0u32..1 << 31) {
            let (first, second) = (Candidate::new(a, node), Candidate::new(b, node));
            prop_assert_eq!(first.node(), node);
            if !a.is_nan() && !b.is_nan() {
                prop_assert_eq!(first.score().to_bits(), a.to_bits());
                if a != b {
                    prop_assert_eq!(first.cmp(&second), a.partial_cmp(&b).unwrap());
                }
            }
            prop_assert!(Candidate::new(f32::NAN, node) >= first);
            prop_assert!(Candidate::new(a, 3) < Candidate::new(a, 4));
        }
    }

    #[test]
    fn marks_last_for_one_walk() {
        let mut visited = Scratch::new(130).visited;
        let mut fresh = Vec::new();
        for _ in 0..3 {
            visited.begin();
            visited.mark(3);
            visited.insert([1, 129, 1, 64, NONE, 5].into_iter(), &mut fresh);
            visited.insert([5, 64, 1, 3].into_iter(), &mut fresh);
            assert_eq!((fresh.as_slice(), visited.met()), (&[1, 129, 64, 5][..], 5));
            fresh.clear();
        }
    }
}
