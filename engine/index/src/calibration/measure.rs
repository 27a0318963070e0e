//! Asking: which rows, what their neighbours truly are, and how many of those a search finds.
//!
//! Called once a build, and small beside it: the truth is one pass over the rows for all questions together, a question
//! that has found everything climbs no further, and few ask for many neighbours.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use sepal_types::Metric;

use super::{Calibration, Curve, Measured, NARROW, Rung, WIDE, same_bits};
use crate::distance::{Scorer, has_direction};
use crate::flat::finish;
use crate::neighbor::TopK;
use crate::quantize::{mix, on_threads};
use crate::{BuildParams, IndexError, Neighbor, Wear};

/// An index over fewer rows is not measured.
pub(crate) const FEWEST_ROWS: usize = 2048;
/// Rows for each question: a small build is short.
const ROWS_PER_QUESTION: usize = 128;
const MOST_QUESTIONS: usize = 128;
/// Rows times questions; but no fewer than [`FEWEST_QUESTIONS`], where that many rows allow so many. With 64 the
/// standard error is about 0.012 at a recall of 0.95 and 0.005 at 0.99.
const MOST_PAIRS: usize = 8_000_000;
const FEWEST_QUESTIONS: usize = 64;
/// One question of so many asks for [`WIDE`].
const WIDE_EVERY: usize = 4;
const MOST_WIDE: usize = 16;
/// Rows that all questions are held against before the next: they stay in the second-level cache meanwhile.
const BLOCK_BYTES: usize = 256 << 10;

/// A row, and the rows nearest to it that do not equal it: as many as it asks for if there are.
struct Question {
    row: usize,
    truth: Vec<Neighbor>,
}

/// `None` for an index that is too small, or whose rows are all equal.
pub(super) fn measure(
    index: &mut impl Measured,
    params: &BuildParams,
    wear: Wear,
) -> Result<Option<Calibration>, IndexError> {
    if index.len() < FEWEST_ROWS {
        return Ok(None);
    }
    let rows = ask(params, index.len());
    let questions = answer(params, &rows)?;
    let reach = index.prepare(params, &rows)?;
    let index = &*index;
    let mut curves = Vec::new();
    for k in [NARROW, WIDE] {
        curves.extend(curve(index, params, &questions, k)?);
    }
    Ok((!curves.is_empty()).then_some(Calibration { wear, curves, reach }))
}

/// Rows, one drawn from each of as many equal stretches: rows that came in batches of one kind are all asked. The seed
/// is fixed: the same rows ask the same.
fn ask(params: &BuildParams, indexed: usize) -> Vec<usize> {
    let most = (MOST_PAIRS / indexed).clamp(FEWEST_QUESTIONS, MOST_QUESTIONS);
    let count = (indexed / ROWS_PER_QUESTION).clamp(1, most);
    let indexable = |row: &usize| {
        params.valid.is_none_or(|valid| valid.get(*row))
            && (params.metric != Metric::Cosine || has_direction(params.vector(*row)))
    };
    let rows = params.rows();
    (0..count)
        .filter_map(|stretch| {
            let (start, end) = (stretch * rows / count, (stretch + 1) * rows / count);
            let drawn = start + (mix(stretch as u64) % (end - start) as u64) as usize;
            (drawn..end).chain(start..drawn).find(indexable)
        })
        .collect()
}

/// What a question by its number asks for.
fn wanted(number: usize) -> usize {
    if number.is_multiple_of(WIDE_EVERY) && number / WIDE_EVERY < MOST_WIDE { WIDE } else { NARROW }
}

/// The exact scan, for all rows that ask at once.
fn answer(params: &BuildParams, rows: &[usize]) -> Result<Vec<Question>, IndexError> {
    let empty = || -> Vec<TopK> { (0..rows.len()).map(|number| TopK::new(wanted(number), WIDE)).collect() };
    let scorers: Vec<Scorer> =
        rows.iter().map(|row| Scorer::new(params.metric, params.vector(*row))).collect();
    let block = (BLOCK_BYTES / (params.dim * size_of::<f32>())).max(1);
    let (next, merged) = (AtomicUsize::new(0), Mutex::new(empty()));
    on_threads(params.threads, || {
        let mut nearest = empty();
        loop {
            let first = next.fetch_add(block, Relaxed);
            if first >= params.rows() || (params.cancelled)() {
                break;
            }
            let last = params.rows().min(first + block);
            for (number, top) in nearest.iter_mut().enumerate() {
                compare(params, rows[number], &scorers[number], first..last, top);
            }
        }
        for (all, own) in merged.lock().iter_mut().zip(nearest) {
            own.into_sorted().into_iter().for_each(|neighbor| all.offer(neighbor));
        }
    });
    if (params.cancelled)() {
        return Err(IndexError::Cancelled);
    }
    let answered = rows.iter().zip(&scorers).zip(merged.into_inner());
    Ok(answered.map(|((row, scorer), top)| Question { row: *row, truth: finish(scorer, top) }).collect())
}

/// Offers the rows of a block.
fn compare(params: &BuildParams, row: usize, scorer: &Scorer, block: std::ops::Range<usize>, top: &mut TopK) {
    let question = params.vector(row);
    for position in block {
        let other = params.vector(position);
        let neighbor = Neighbor { position: position as u32, distance: scorer.score(other) };
        // Few rows are near enough; only of those the rest is asked.
        if top.worst().is_none_or(|worst| neighbor < *worst)
            && params.valid.is_none_or(|valid| valid.get(position))
            && !same_bits(question, other)
        {
            top.offer(neighbor);
        }
    }
}

/// `None` where no row has so many others, or where distances leave the numbers.
fn curve(
    index: &impl Measured,
    params: &BuildParams,
    questions: &[Question],
    k: usize,
) -> Result<Option<Curve>, IndexError> {
    let is_known = |question: &&Question| {
        question.truth.get(k - 1).is_some_and(|furthest| furthest.distance.is_finite())
    };
    let asked: Vec<&Question> = questions.iter().filter(is_known).collect();
    if asked.is_empty() {
        return Ok(None);
    }
    let efforts = index.efforts(k);
    let rung = |effort: &u32| Rung { effort: *effort, ..Rung::default() };
    let rungs: Mutex<Vec<Rung>> = Mutex::new(efforts.iter().map(rung).collect());
    let next = AtomicUsize::new(0);
    on_threads(params.threads, || {
        while let Some(question) = asked.get(next.fetch_add(1, Relaxed)) {
            if (params.cancelled)() {
                return;
            }
            let hits = index.hits(params, question.row, &question.truth[..k], &efforts);
            for (rung, hits) in rungs.lock().iter_mut().zip(hits) {
                rung.found += hits;
                rung.squares += hits * hits;
            }
        }
    });
    if (params.cancelled)() {
        return Err(IndexError::Cancelled);
    }
    let mut rungs = rungs.into_inner();
    let everything = rungs.iter().position(|rung| rung.found as usize == asked.len() * k);
    rungs.truncate(everything.map_or(rungs.len(), |rung| rung + 1));
    // At most 128 questions for at most 100.
    Ok(Some(Curve { k: k as u16, questions: asked.len() as u16, rungs }))
}
