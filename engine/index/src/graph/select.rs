//! Which of the candidates to link to: near ones, but in different directions (the paper's algorithm 4).
//!
//! A candidate that is nearer to an already chosen one than to the node itself is left out: the walk gets
//! there through the chosen one. It is what keeps a cluster's nodes from linking only to each other.

use super::scratch::Candidate;
use super::space::RowSpace;

/// The room that choosing needs.
#[derive(Default)]
pub(super) struct Selection {
    /// What was chosen last.
    pub(super) chosen: Vec<u32>,
    rest: Vec<u32>,
    /// How far each of `rest` is from the node.
    own: Vec<f32>,
    scores: Vec<f32>,
}

impl Selection {
    /// Chooses up to `most` of `candidates`, nearest first, into `chosen`. All of them when there are no
    /// more.
    pub(super) fn choose<S: RowSpace>(&mut self, space: &S, candidates: &[Candidate], most: usize) {
        self.chosen.clear();
        if candidates.len() <= most {
            self.chosen.extend(candidates.iter().map(|candidate| candidate.node()));
            return;
        }
        self.rest.clear();
        self.own.clear();
        self.rest.extend(candidates.iter().map(|candidate| candidate.node()));
        self.own.extend(candidates.iter().map(|candidate| candidate.score()));
        while let Some(nearest) = self.rest.first().copied() {
            self.chosen.push(nearest);
            if self.chosen.len() == most {
                return;
            }
            // The first one leaves too: it is nearer to itself than to anything.
            space.score(&space.row(nearest), &self.rest, &mut self.scores);
            let mut kept = 0;
            for index in 1..self.rest.len() {
                self.rest[kept] = self.rest[index];
                self.own[kept] = self.own[index];
                kept += usize::from(self.scores[index] >= self.own[index]);
            }
            self.rest.truncate(kept);
            self.own.truncate(kept);
        }
    }
}
