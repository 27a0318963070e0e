//! The walk: from a node, always on to the nearest node met so far whose links have not been followed.
//!
//! Called by `build`, `repair` and `search`. Three forms: [`Walk::descend`] keeps one candidate (upper layers),
//! [`beam`] the best `ef`, [`beam_admitted`] the best `ef` that a filter admits while walking over all. The last two
//! walk over several graphs as over one: each graph's nodes are numbered on from the last one's, a start is given for
//! each, and from then on the nearest candidate of all is followed. The work is that of one graph, plus a dozen hops
//! for each of the others, where a walk over each by itself would be as much work again.
//!
//! A hop first asks for every unmet neighbour's code, then scores them together: the loads overlap, which is
//! worth more than anything else here, because a node's code is almost never in cache (117,659 × 384: a walk
//! with all its codes in L2 takes a quarter of the time). Following two or more candidates a hop was tried
//! and gained nothing: what limits is how many cache lines arrive a second, no longer how long the first one
//! takes.

use std::cmp::Reverse;
use std::sync::atomic::Ordering::Relaxed;

use super::links::Layers;
use super::scratch::{Candidate, Scratch, Visited};
use super::space::Space;

/// A query on its way through a graph.
pub(super) struct Walk<'a, S: Space> {
    pub(super) space: &'a S,
    pub(super) layers: &'a Layers,
    pub(super) query: &'a S::Query,
    /// What its nodes' numbers are raised by in [`Candidate`]s and [`Visited`]: the nodes of the graphs before it.
    pub(super) base: u32,
}

impl<S: Space> Walk<'_, S> {
    /// A node of this graph as the start of a walk.
    pub(super) fn start(&self, node: u32, scratch: &mut Scratch) -> Candidate {
        self.space.score(self.query, &[node], &mut scratch.scores);
        Candidate::new(scratch.scores[0], self.base + node)
    }

    /// Follows the nearest link while it leads nearer, in each of `layers`, the highest first.
    pub(super) fn descend(
        &self,
        mut nearest: Candidate,
        layers: std::ops::Range<usize>,
        scratch: &mut Scratch,
    ) -> Candidate {
        let Scratch { fresh, scores, .. } = scratch;
        for layer in layers.rev() {
            loop {
                let here = nearest;
                fresh.clear();
                for link in self.layers.links(layer, here.node() - self.base) {
                    self.space.prefetch(link);
                    fresh.push(link);
                }
                self.space.score(self.query, fresh, scores);
                for (node, score) in fresh.iter().zip(scores.iter()) {
                    nearest = nearest.min(Candidate::new(*score, self.base + *node));
                }
                if nearest == here {
                    break;
                }
            }
        }
        nearest
    }

    /// Leaves the nearest `ef` nodes that a walk over this graph alone met in `scratch.best`.
    pub(super) fn beam(&self, layer: usize, start: Candidate, ef: usize, scratch: &mut Scratch) {
        beam(std::slice::from_ref(self), layer, &[start], ef, scratch);
    }

    fn prefetch_links(&self, layer: usize, candidate: Candidate) {
        self.layers.prefetch(layer, candidate.node() - self.base);
    }

    /// Scores the neighbours of `candidate`, a node of this graph, that this walk has not met.
    #[inline(always)]
    fn hop(
        &self,
        layer: usize,
        candidate: Candidate,
        visited: &mut Visited,
        fresh: &mut Vec<u32>,
        scores: &mut Vec<f32>,
    ) {
        fresh.clear();
        let slots = self.layers.slots(layer, candidate.node() - self.base);
        visited.insert(slots.iter().map(|slot| slot.load(Relaxed)), self.base, fresh);
        for node in fresh.iter() {
            self.space.prefetch(*node);
        }
        self.space.score(self.query, fresh, scores);
    }

    /// The candidates among those that [`Walk::hop`] scored which are nearer than `limit`.
    ///
    /// Sorted out without a branch: whether a neighbour is near enough is hard to guess.
    #[inline(always)]
    fn nearer(
        &self,
        limit: f32,
        fresh: &mut [u32],
        scores: &mut [f32],
    ) -> impl Iterator<Item = Candidate> {
        let mut count = 0;
        for index in 0..fresh.len().min(scores.len()) {
            let (node, score) = (fresh[index], scores[index]);
            (fresh[count], scores[count]) = (node, score);
            count += usize::from(score < limit);
        }
        let base = self.base;
        fresh[..count].iter().zip(&scores[..count]).map(move |(node, score)| Candidate::new(*score, base + node))
    }
}

/// The walk whose graph a candidate is of. `walks` ascend by their base.
#[inline(always)]
fn of<'w, 'a, S: Space>(walks: &'w [Walk<'a, S>], candidate: Candidate) -> &'w Walk<'a, S> {
    let mut found = &walks[0];
    for walk in &walks[1..] {
        if walk.base <= candidate.node() {
            found = walk;
        }
    }
    found
}

/// Leaves the nearest `ef` nodes that the walk met in `scratch.best`. One start for each graph, at least one.
pub(super) fn beam<S: Space>(
    walks: &[Walk<S>],
    layer: usize,
    starts: &[Candidate],
    ef: usize,
    scratch: &mut Scratch,
) {
    let Scratch { visited, best, fresh, scores, hops, .. } = scratch;
    visited.begin();
    best.clear();
    for start in starts {
        visited.mark(start.node());
        keep(best, *start, ef);
    }
    *hops = 0;
    // All before `next` have been followed.
    let mut next = 0;
    while let Some(candidate) = best.get_mut(next) {
        candidate.set_followed();
        let candidate = *candidate;
        next += 1;
        *hops += 1;
        // Likely the next to follow: its links load while this one's neighbours are scored.
        if let Some(candidate) = best.get(next) {
            of(walks, *candidate).prefetch_links(layer, *candidate);
        }
        let walk = of(walks, candidate);
        walk.hop(layer, candidate, visited, fresh, scores);
        for candidate in walk.nearer(limit(best, ef), fresh, scores) {
            if let Some(place) = keep(best, candidate, ef)
                && place <= next
            {
                walk.prefetch_links(layer, candidate);
                next = place;
            }
        }
        while best.get(next).is_some_and(|candidate| candidate.is_followed()) {
            next += 1;
        }
    }
}

/// Leaves the nearest `ef` admitted nodes that the walk met on the lowest layer in `scratch.best`. Gives up and
/// returns false after scoring more than `budget` nodes.
pub(super) fn beam_admitted<S: Space>(
    walks: &[Walk<S>],
    starts: &[Candidate],
    ef: usize,
    budget: usize,
    admit: impl Fn(u32) -> bool,
    scratch: &mut Scratch,
) -> bool {
    let Scratch { visited, best, frontier, fresh, scores, hops } = scratch;
    visited.begin();
    best.clear();
    frontier.clear();
    for start in starts {
        visited.mark(start.node());
        frontier.push(Reverse(*start));
        if admit(start.node()) {
            keep(best, *start, ef);
        }
    }
    *hops = 0;
    let mut scored = 0;
    while let Some(Reverse(candidate)) = frontier.pop() {
        if best.len() >= ef && best.last().is_some_and(|worst| candidate > *worst) {
            break;
        }
        if let Some(Reverse(candidate)) = frontier.peek() {
            of(walks, *candidate).prefetch_links(0, *candidate);
        }
        *hops += 1;
        let walk = of(walks, candidate);
        walk.hop(0, candidate, visited, fresh, scores);
        scored += fresh.len();
        if scored > budget {
            return false;
        }
        for candidate in walk.nearer(limit(best, ef), fresh, scores) {
            frontier.push(Reverse(candidate));
            if admit(candidate.node()) {
                keep(best, candidate, ef);
            }
        }
        if let Some(Reverse(candidate)) = frontier.peek() {
            of(walks, *candidate).prefetch_links(0, *candidate);
        }
    }
    true
}

/// Only what is nearer than this can still be among the nearest `ef`.
#[inline(always)]
fn limit(best: &[Candidate], ef: usize) -> f32 {
    match best.last() {
        Some(worst) if best.len() >= ef => worst.score(),
        _ => f32::INFINITY,
    }
}

/// Puts a candidate in its place among the nearest `ef`; `None` when it is not one of them.
#[inline(always)]
fn keep(best: &mut Vec<Candidate>, candidate: Candidate, ef: usize) -> Option<usize> {
    if best.len() >= ef {
        if best.last().is_none_or(|worst| candidate >= *worst) {
            return None;
        }
        best.pop();
    }
    let place = best.partition_point(|other| *other < candidate);
    best.insert(place, candidate);
    Some(place)
}
