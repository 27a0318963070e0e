//! Whether the codes can tell these rows apart.
//!
//! Called once a build, and once more where 4 bits an element turn out to be too few. A code's error grows with a
//! row's distance from the centre, not with the distance to its neighbours: where rows sit in tight groups far apart,
//! all of a group look alike. So the build asks a few rows for their nearest by code and by vector, takes 8 bits when
//! the two disagree, and does without codes when they still do.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sepal_types::Metric;

use super::scratch::Candidate;
use super::space::{Estimate, Space};
use crate::BuildParams;
use crate::distance::Scorer;
use crate::quantize::{Codes, QueryRef, mix, on_threads};

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
pub(super) fn fits(codes: &Codes, params: &BuildParams, rows: &[u32]) -> bool {
    debug_assert!(params.metric != Metric::L1, "L1 has no codes");
    let questions = QUESTIONS.min(MOST_ESTIMATES / rows.len()).max(4);
    let (next, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
    on_threads(params.threads.min(questions), || {
        loop {
            let question = next.fetch_add(1, Relaxed);
            if question >= questions {
                break;
            }
            let node = (mix(question as u64) % rows.len() as u64) as u32;
            found.fetch_add(found_of(codes, params, rows, node), Relaxed);
        }
    });
    found.into_inner() as f64 >= SHARE * (questions * NEAREST) as f64
}

/// How many of the nearest to a node's row are among those that a search scores exactly.
fn found_of(codes: &Codes, params: &BuildParams, rows: &[u32], node: u32) -> usize {
    let vector = |node: u32| params.vector(rows[node as usize] as usize);
    // A row whose estimates mean nothing is not told apart from others.
    let Some(query) = codes.query(vector(node)) else { return 0 };
    let by_code = nearest_by_code(&Estimate { codes }, &query.borrow(), node, rows.len());
    let scorer = Scorer::new(params.metric, vector(node));
    let mut by_vector: Vec<(f64, usize)> =
        by_code.iter().enumerate().map(|(rank, node)| (scorer.score(vector(*node)), rank)).collect();
    by_vector.sort_by(|a, b| a.0.total_cmp(&b.0));
    by_vector.iter().take(NEAREST).filter(|(_, rank)| *rank < RESCORED).count()
}

/// The nearest nodes by code, nearest first, without the node itself.
fn nearest_by_code<'a>(space: &Estimate<'a>, query: &QueryRef<'a>, node: u32, nodes: usize) -> Vec<u32> {
    let (mut batch, mut scores) = (Vec::with_capacity(1024), Vec::new());
    let mut best: Vec<Candidate> = Vec::with_capacity(LOOKED_AT + 1024);
    for first in (0..nodes as u32).step_by(1024) {
        batch.clear();
        batch.extend((first..(nodes as u32).min(first + 1024)).filter(|other| *other != node));
        space.score(query, &batch, &mut scores);
        best.extend(batch.iter().zip(&scores).map(|(node, score)| Candidate::new(*score, *node)));
        if best.len() > LOOKED_AT {
            best.select_nth_unstable(LOOKED_AT - 1);
            best.truncate(LOOKED_AT);
        }
    }
    best.sort_unstable();
    best.into_iter().map(Candidate::node).collect()
}
