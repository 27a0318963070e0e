//! The walk: from a node, always on to the nearest node met so far whose links have not been followed.
//!
//! Called by `build` and `search`. Four forms: [`Walk::descend`] keeps one candidate (upper layers), [`Walk::beam`] the
//! best `ef`, [`Walk::explore`] as many as a query is worth (`reach`), [`Walk::beam_admitted`] the best `ef` that a filter
//! admits while walking over all.
//!
//! A hop first asks for every unmet neighbour's code, then scores them together: the loads overlap, which is
//! worth more than anything else here, because a node's code is almost never in cache (117,659 × 384: a walk
//! with all its codes in L2 takes a quarter of the time). Following two or more candidates a hop was tried
//! and gained nothing.
//!
//! [`Walk::explore`] moreover never waits for what it has only just asked for: while the codes that one node's links
//! led to are on their way, it follows the next node. So it chooses where to go on without the last node's neighbours,
//! which costs hops at the start and none later (117,659 × 384, in one process: the same recall from as many codes, in
//! 8 to 16 % less time). One-bit codes read first, to leave out the four-bit codes of three neighbours in four, were
//! tried on top: half as many cache lines, and no less time.

use std::cmp::Reverse;
use std::sync::atomic::Ordering::Relaxed;

use super::links::Layers;
use super::reach::Effort;
use super::scratch::{Candidate, Scratch, Visited, limit};
use super::space::Space;

/// A query on its way through a graph.
pub(super) struct Walk<'a, S: Space> {
    pub(super) space: &'a S,
    pub(super) layers: &'a Layers,
    pub(super) query: &'a S::Query,
}

/// What a walk tells of the nodes that will probably be scored exactly.
pub(super) trait Likely {
    /// Starts loading what leads to its vector: three calls, a hop apart, `times` 0, 1 and 2. Each finds what the one
    /// before has asked for.
    fn hear(&self, node: u32, times: usize);
}

impl<S: Space> Walk<'_, S> {
    /// A node as the start of a walk.
    pub(super) fn start(&self, node: u32, scratch: &mut Scratch) -> Candidate {
        self.space.score(self.query, &[node], &mut scratch.scores);
        Candidate::new(scratch.scores[0], node)
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
                for link in self.layers.links(layer, here.node()) {
                    self.space.prefetch(link);
                    fresh.push(link);
                }
                self.space.score(self.query, fresh, scores);
                for (node, score) in fresh.iter().zip(scores.iter()) {
                    nearest = nearest.min(Candidate::new(*score, *node));
                }
                if nearest == here {
                    break;
                }
            }
        }
        nearest
    }

    /// Leaves the nearest `ef` nodes that the walk met in `scratch.best`.
    pub(super) fn beam(&self, layer: usize, start: Candidate, ef: usize, scratch: &mut Scratch) {
        scratch.begin(start);
        let Scratch { visited, best, fresh, scores, hops, .. } = scratch;
        best.push(start);
        // All before `next` have been followed.
        let mut next = 0;
        while let Some(candidate) = best.get_mut(next) {
            candidate.set_followed();
            let node = candidate.node();
            next += 1;
            *hops += 1;
            // Likely the next to follow: its links load while this one's neighbours are scored.
            if let Some(candidate) = best.get(next) {
                self.layers.prefetch(layer, candidate.node());
            }
            self.hop(layer, node, visited, fresh, scores);
            for candidate in nearer(limit(best, ef), fresh, scores) {
                if let Some(place) = keep(best, candidate, ef)
                    && place <= next
                {
                    self.layers.prefetch(layer, candidate.node());
                    next = place;
                }
            }
            while best.get(next).is_some_and(|candidate| candidate.is_followed()) {
                next += 1;
            }
        }
    }

    /// Leaves the nearest nodes that the walk met on the lowest layer in `scratch.best`, `effort.most` of them or
    /// fewer.
    ///
    /// Three nodes are under way at a time: of the one chosen last the links are loading, of the one before it the
    /// neighbours' codes (`fresh`), and the neighbours of the one before that are scored (`here`).
    ///
    /// `likely` hears of nodes that will probably be among the nearest, one a hop, while there is still something else
    /// to wait for, and of each again in the next two.
    pub(super) fn explore(
        &self,
        start: Candidate,
        effort: Effort,
        likely: &impl Likely,
        scratch: &mut Scratch,
    ) {
        scratch.begin(start);
        let Scratch { visited, best, fresh, here, scores, hops, .. } = scratch;
        best.push(start);
        fresh.clear();
        here.clear();
        let mut chosen: Option<u32> = None;
        // Those that `likely` has heard of once, and twice.
        let mut told = [None; 2];
        // All before `next` have been followed.
        let mut next = 0;
        loop {
            if !here.is_empty() {
                self.space.score(self.query, here, scores);
                for candidate in nearer(effort.limit(best), here, scores) {
                    if let Some(place) = keep(best, candidate, effort.most) {
                        next = next.min(place);
                    }
                }
            }
            std::mem::swap(fresh, here);
            fresh.clear();
            if let Some(node) = chosen.take() {
                *hops += 1;
                visited.insert(self.layers.slots(0, node).iter().map(|slot| slot.load(Relaxed)), fresh);
                fresh.iter().for_each(|node| self.space.prefetch(*node));
                let soon =
                    effort.likely(*hops).and_then(|place| best.get(place)).map(|candidate| candidate.node());
                let [once, twice] = told;
                [soon, once, twice].into_iter().enumerate().for_each(|(times, node)| {
                    node.into_iter().for_each(|node| likely.hear(node, times));
                });
                told = [soon, once];
            }
            while best.get(next).is_some_and(|candidate| candidate.is_followed()) {
                next += 1;
            }
            match best.get(next).copied() {
                Some(candidate) if !effort.is_spent(*hops, best, candidate) => {
                    best[next].set_followed();
                    self.layers.prefetch(0, candidate.node());
                    chosen = Some(candidate.node());
                }
                _ if fresh.is_empty() && here.is_empty() => break,
                _ => {}
            }
        }
    }

    /// Leaves the nearest `ef` admitted nodes that the walk met on the lowest layer in `scratch.best`. Gives
    /// up and returns false after meeting more than `budget` nodes.
    pub(super) fn beam_admitted(
        &self,
        start: Candidate,
        ef: usize,
        budget: usize,
        admit: impl Fn(u32) -> bool,
        scratch: &mut Scratch,
    ) -> bool {
        scratch.begin(start);
        let Scratch { visited, best, frontier, fresh, scores, hops, .. } = scratch;
        frontier.push(Reverse(start));
        if admit(start.node()) {
            best.push(start);
        }
        while let Some(Reverse(candidate)) = frontier.pop() {
            if best.len() >= ef && best.last().is_some_and(|worst| candidate > *worst) {
                break;
            }
            if let Some(Reverse(candidate)) = frontier.peek() {
                self.layers.prefetch(0, candidate.node());
            }
            *hops += 1;
            self.hop(0, candidate.node(), visited, fresh, scores);
            if visited.met() > budget {
                return false;
            }
            for candidate in nearer(limit(best, ef), fresh, scores) {
                frontier.push(Reverse(candidate));
                if admit(candidate.node()) {
                    keep(best, candidate, ef);
                }
            }
            if let Some(Reverse(candidate)) = frontier.peek() {
                self.layers.prefetch(0, candidate.node());
            }
        }
        true
    }

    /// Scores the neighbours of `node` that this walk has not met.
    #[inline(always)]
    fn hop(
        &self,
        layer: usize,
        node: u32,
        visited: &mut Visited,
        fresh: &mut Vec<u32>,
        scores: &mut Vec<f32>,
    ) {
        fresh.clear();
        visited.insert(self.layers.slots(layer, node).iter().map(|slot| slot.load(Relaxed)), fresh);
        for node in fresh.iter() {
            self.space.prefetch(*node);
        }
        self.space.score(self.query, fresh, scores);
    }
}

/// The candidates among nodes just scored that are nearer than `limit`.
///
/// Sorted out without a branch: whether a neighbour is near enough is hard to guess.
#[inline(always)]
fn nearer(limit: f32, fresh: &mut [u32], scores: &mut [f32]) -> impl Iterator<Item = Candidate> {
    let mut count = 0;
    for index in 0..fresh.len().min(scores.len()) {
        let (node, score) = (fresh[index], scores[index]);
        (fresh[count], scores[count]) = (node, score);
        count += usize::from(score < limit);
    }
    fresh[..count].iter().zip(&scores[..count]).map(|(node, score)| Candidate::new(*score, *node))
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
