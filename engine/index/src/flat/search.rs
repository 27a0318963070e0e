//! The scan itself: score, keep the best `k`, read ahead.

use sepal_types::Metric;

use crate::distance::{Scorer, prefetch};
use crate::neighbor::TopK;
use crate::{Bits, Neighbor, Vectors};

/// Rows asked for ahead of the one being scored, where the next row is not the next address. Four rows are 6
/// KB at 384 dimensions: enough to cover a miss, little enough to stay in L1 until used.
const AHEAD: usize = 4;

/// Rows between two looks at whether to give up: a millisecond or two at 768 dimensions.
pub(crate) const BLOCK_ROWS: usize = 4_096;

/// Whether nobody waits for the search any more.
pub type Stopped<'a> = dyn Fn() -> bool + 'a;

/// The `k` nearest of the allowed rows, ascending by distance (NaN last, then by position).
///
/// `vectors` is `n × dim`, row-major; `allowed` has `n` bits, and the caller has cleared NULL rows in it.
///
/// # Panics
/// When `query` has not `dim` elements or `vectors` is not whole rows: SQL has checked dimensions before.
pub fn search_exact<'v>(
    metric: Metric,
    dim: usize,
    vectors: impl Into<Vectors<'v>>,
    query: &[f32],
    k: usize,
    allowed: Option<&Bits>,
) -> Vec<Neighbor> {
    search_exact_until(metric, dim, vectors, query, k, allowed, &|| false)
}

/// The same that may be given up: it asks `stopped` every some thousand rows, and then gives the nearest of those that
/// it has scored, which nobody should take for the answer.
///
/// # Panics
/// As [`search_exact`].
pub fn search_exact_until<'v>(
    metric: Metric,
    dim: usize,
    vectors: impl Into<Vectors<'v>>,
    query: &[f32],
    k: usize,
    allowed: Option<&Bits>,
    stopped: &Stopped<'_>,
) -> Vec<Neighbor> {
    let vectors = vectors.into();
    assert!(query.len() == dim && dim > 0, "a query of {} dimensions for vectors of {dim}", query.len());
    assert!(vectors.len().is_multiple_of(dim), "{} elements are not rows of {dim}", vectors.len());
    let rows = vectors.len() / dim;
    if k == 0 {
        return Vec::new();
    }
    let scorer = Scorer::new(metric, query);
    let mut top = TopK::new(k, allowed.map_or(rows, Bits::count));
    match allowed {
        Some(allowed) => {
            let positions = allowed.iter().take_while(|position| *position < rows);
            scan_positions(&scorer, dim, vectors, until(stopped, positions), &mut top);
        }
        None => scan_all(&scorer, dim, vectors, stopped, &mut top),
    }
    finish(&scorer, top)
}

/// The positions up to where it is `stopped`, which is asked every [`BLOCK_ROWS`].
pub(crate) fn until(
    stopped: &Stopped<'_>,
    positions: impl Iterator<Item = usize>,
) -> impl Iterator<Item = usize> {
    let mut seen = 0_usize;
    positions.take_while(move |_| {
        let looks = seen.is_multiple_of(BLOCK_ROWS);
        seen += 1;
        !looks || !stopped()
    })
}

/// Offers every row, in order: the hardware reads ahead by itself.
fn scan_all(scorer: &Scorer, dim: usize, vectors: Vectors, stopped: &Stopped<'_>, top: &mut TopK) {
    let rows = vectors.len() / dim;
    for first in (0..rows).step_by(BLOCK_ROWS) {
        if stopped() {
            return;
        }
        for position in first..rows.min(first + BLOCK_ROWS) {
            let distance = scorer.score(vectors.row(position, dim));
            top.offer(Neighbor { position: position as u32, distance });
        }
    }
}

/// Offers the rows at `positions`, asking for each [`AHEAD`] rows before it is scored.
pub(crate) fn scan_positions(
    scorer: &Scorer,
    dim: usize,
    vectors: Vectors,
    mut positions: impl Iterator<Item = usize>,
    top: &mut TopK,
) {
    let row = |position: usize| vectors.row(position, dim);
    // A ring of the rows asked for and not yet scored: `waiting` of them, the oldest at `oldest`.
    let mut ring = [0; AHEAD];
    let mut waiting = 0;
    for (slot, position) in ring.iter_mut().zip(positions.by_ref()) {
        prefetch(row(position));
        *slot = position;
        waiting += 1;
    }
    let mut oldest = 0;
    while waiting > 0 {
        let position = ring[oldest];
        match positions.next() {
            Some(next) => {
                prefetch(row(next));
                ring[oldest] = next;
            }
            None => waiting -= 1,
        }
        oldest = (oldest + 1) % AHEAD;
        top.offer(Neighbor { position: position as u32, distance: scorer.score(row(position)) });
    }
}

/// Scores become distances.
pub(crate) fn finish(scorer: &Scorer, top: TopK) -> Vec<Neighbor> {
    let mut neighbors = top.into_sorted();
    neighbors.iter_mut().for_each(|neighbor| neighbor.distance = scorer.finish(neighbor.distance));
    neighbors
}
