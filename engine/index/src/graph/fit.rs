//! Whether the codes can tell these rows apart.
//!
//! Called once a build. A code's error grows with a row's distance from the centre, not with the distance to
//! its neighbours: where rows sit in tight groups far apart, all of a group look alike. So the build asks a
//! few rows for their nearest by code and by vector, and does without codes when the two disagree.

use sepal_types::Metric;

use super::scratch::Candidate;
use super::space::{EstimateRows, RowSpace, Space};
use crate::BuildParams;
use crate::distance::Scorer;
use crate::quantize::{Codes, RowQueries, mix};

/// Rows asked; fewer when there are so many that asking would take longer than a second.
const QUESTIONS: usize = 32;
const MOST_ESTIMATES: usize = 32_000_000;
/// The best by code whose exact distances are looked at. Were the code blind, the true nearest of these would
/// lie anywhere among them.
const LOOKED_AT: usize = 256;
/// The k of the recall that is measured.
const NEAREST: usize = 10;
/// How many of the best by code a search with k = 10 scores exactly at least.
const RESCORED: usize = 20;
/// The share of true neighbours that those must hold. Real embeddings of 384 dimensions reach 1.000.
const SHARE: f64 = 0.96;

/// `rows` are the rows of the nodes, at least [`RESCORED`] of them.
pub(super) fn fits(codes: &Codes, row_queries: &RowQueries, params: &BuildParams, rows: &[u32]) -> bool {
    let space = EstimateRows { codes, rows: row_queries };
    let questions = QUESTIONS.min(MOST_ESTIMATES / rows.len()).max(4);
    let mut found = 0;
    for question in 0..questions {
        let node = (mix(question as u64) % rows.len() as u64) as u32;
        let by_code = nearest_by_code(&space, node, rows.len());
        let scorer = Scorer::new(params.metric, params.vector(rows[node as usize] as usize));
        let mut by_vector: Vec<(f64, usize)> = by_code
            .iter()
            .enumerate()
            .map(|(rank, node)| (scorer.score(params.vector(rows[*node as usize] as usize)), rank))
            .collect();
        by_vector.sort_by(|a, b| a.0.total_cmp(&b.0));
        found += by_vector.iter().take(NEAREST).filter(|(_, rank)| *rank < RESCORED).count();
    }
    debug_assert!(params.metric != Metric::L1, "L1 has no codes");
    found as f64 >= SHARE * (questions * NEAREST) as f64
}

/// The nearest nodes by code, nearest first, without the node itself.
fn nearest_by_code(space: &EstimateRows, node: u32, nodes: usize) -> Vec<u32> {
    let query = space.row(node);
    let (mut batch, mut scores) = (Vec::with_capacity(1024), Vec::new());
    let mut best: Vec<Candidate> = Vec::with_capacity(LOOKED_AT + 1024);
    for first in (0..nodes as u32).step_by(1024) {
        batch.clear();
        batch.extend((first..(nodes as u32).min(first + 1024)).filter(|other| *other != node));
        space.score(&query, &batch, &mut scores);
        best.extend(batch.iter().zip(&scores).map(|(node, score)| Candidate::new(*score, *node)));
        if best.len() > LOOKED_AT {
            best.select_nth_unstable(LOOKED_AT - 1);
            best.truncate(LOOKED_AT);
        }
    }
    best.sort_unstable();
    best.into_iter().map(Candidate::node).collect()
}
