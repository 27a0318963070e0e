//! How much of the truth an index finds at which effort, measured when it is built.
//!
//! `ef_search` and `probes` are efforts; what a user wants is recall, and how the one buys the other depends on the
//! rows. So a build asks a few of the rows for their neighbours (`measure`), exactly and through the index at a ladder
//! of efforts, and keeps what was found as [`Curve`]s behind the index's bytes (`layout`).
//! [`crate::VectorIndex::effort_for`] reads them backwards.
//!
//! A row that asks is not in the index for its own question ([`crate::VectorIndex::search_unseen`]): its node's links
//! lead to its very neighbours, which a stranger has to find. Over one HNSW layer of 60,000 × 384 sentence embeddings a
//! walk with `ef_search` 20 finds 0.93 of a stranger's ten nearest, 0.99 of an indexed row's, and 0.90 of a row's whose
//! node is passed over; 0.987, 0.993 and 0.981 with 80. The last errs on the safe side: where a stranger comes, no links
//! were spent on it (docs/decisions/0009-target-recall.md).

mod layout;
mod measure;

use std::io;

pub(crate) use self::measure::FEWEST_ROWS;
use crate::graph::{Graph, Reach};
use crate::layout::{self as blob, join};
use crate::{
    BuildParams, Candidates, IndexError, Neighbor, SearchParams, Stopped, Stored, VectorIndex, Vectors, Wear,
    Work,
};

/// The counts of neighbours that are asked for. How much wider a walk must be for more neighbours follows no rule:
/// three times as wide for ten times as many on those embeddings, and ten times where the hundredth lies in another
/// cluster.
const NARROW: usize = 10;
const WIDE: usize = 100;

/// What a kind of index says of itself, so that it can be calibrated.
pub(crate) trait Measured: VectorIndex {
    /// The efforts to measure for `k` neighbours: ascending, from 1 on, at least one, at most [`layout::MOST_RUNGS`].
    fn efforts(&self, k: usize) -> Vec<u32>;

    /// Measures what its searches go by, before any effort is tried. `rows` ask.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`]
    fn prepare(&mut self, _params: &BuildParams, _rows: &[usize]) -> Result<Reach, IndexError> {
        Ok(Reach::default())
    }

    /// How many of `truth`, the rows nearest to `row` without those equal to it, nearest first, a search for as many
    /// finds at each of `efforts`.
    fn hits(&self, params: &BuildParams, row: usize, truth: &[Neighbor], efforts: &[u32]) -> Vec<u32>;
}

/// Measures what was built. A small index is returned as it is: to search all of it costs little.
///
/// # Errors
/// [`IndexError::Cancelled`]
pub(crate) fn calibrated(
    index: impl Measured + 'static,
    params: &BuildParams,
) -> Result<Box<dyn VectorIndex>, IndexError> {
    calibrated_with(index, params, Wear::NONE)
}

/// The same for one that goes on from others.
///
/// # Errors
/// The same.
pub(crate) fn calibrated_with(
    mut index: impl Measured + 'static,
    params: &BuildParams,
    wear: Wear,
) -> Result<Box<dyn VectorIndex>, IndexError> {
    Ok(match measure::measure(&mut index, params, wear)? {
        Some(calibration) => Box::new(Calibrated { index: Box::new(index), calibration }),
        None => Box::new(index),
    })
}

/// An index that knows its recall.
pub(crate) struct Calibrated {
    index: Box<dyn VectorIndex>,
    calibration: Calibration,
}

impl Calibrated {
    pub(crate) fn new(index: Box<dyn VectorIndex>, calibration: Calibration) -> Self {
        Self { index, calibration }
    }
}

impl VectorIndex for Calibrated {
    fn search(&self, vectors: Vectors, query: &[f32], params: &SearchParams) -> Vec<Neighbor> {
        self.index.search(vectors, query, params)
    }

    fn search_counted(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        work: &mut Work,
    ) -> Vec<Neighbor> {
        self.index.search_counted(vectors, query, params, work)
    }

    fn search_until(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        stopped: &Stopped<'_>,
        work: &mut Work,
    ) -> Vec<Neighbor> {
        self.index.search_until(vectors, query, params, stopped, work)
    }

    fn search_unseen(&self, vectors: Vectors, row: usize, params: &SearchParams) -> Vec<Neighbor> {
        self.index.search_unseen(vectors, row, params)
    }

    fn candidates(
        &self,
        stored: Option<&dyn Stored>,
        query: &[f32],
        params: &SearchParams,
    ) -> Result<Option<Candidates>, IndexError> {
        self.index.candidates(stored, query, params)
    }

    fn is_in_place(&self) -> bool {
        self.index.is_in_place()
    }

    fn leavable_bytes(&self) -> usize {
        self.index.leavable_bytes()
    }

    fn graph(&self) -> Option<&Graph> {
        self.index.graph()
    }

    fn effort_for(&self, recall: f64, k: usize) -> Option<usize> {
        self.calibration.effort_for(recall, k)
    }

    fn wear(&self) -> Option<Wear> {
        Some(self.calibration.wear)
    }

    fn serialize(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.serialized_bytes()).unwrap_or(0));
        self.serialize_into(&mut bytes).expect("a Vec takes every write");
        bytes
    }

    fn serialized_bytes(&self) -> u64 {
        self.index.serialized_bytes() + layout::encode(&self.calibration).len() as u64
    }

    fn serialize_into(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let calibration = layout::encode(&self.calibration);
        join(|out| self.index.serialize_into(out), &calibration, self.calibration.measured(), out)
    }

    fn memory_bytes(&self) -> usize {
        let rungs = self.calibration.curves.iter().map(|curve| size_of_val(&curve.rungs[..]));
        size_of::<Self>()
            + size_of_val(&self.calibration.curves[..])
            + rungs.sum::<usize>()
            + size_of_val(self.calibration.reach.steps())
            + self.index.memory_bytes()
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn shape(&self) -> (usize, usize) {
        self.index.shape()
    }

    fn check(&self, rows: &BuildParams) -> Result<(), IndexError> {
        self.index.check(rows)
    }

    fn least_recall(&self) -> f64 {
        self.index.least_recall()
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Calibration {
    wear: Wear,
    /// Ascending by `k`, at least one.
    curves: Vec<Curve>,
    /// Of a graph's walks.
    reach: Reach,
}

/// The recall of searches for `k` neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Curve {
    k: u16,
    /// How many rows asked, at least one.
    questions: u16,
    /// Ascending by effort, at least one. Ends where everything was found.
    rungs: Vec<Rung>,
}

/// What was found at one effort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rung {
    effort: u32,
    /// Neighbours found, of `questions · k`.
    found: u32,
    /// The sum of the squares of what each question found.
    squares: u32,
}

impl Calibration {
    /// `bytes` are those that [`crate::layout::split`] has taken off the index's, which tell of `measured`.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`]
    pub(crate) fn decode(bytes: &[u8], measured: blob::Measured) -> Result<Self, IndexError> {
        layout::decode(bytes, measured)
    }

    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Which of the versions its bytes are of.
    fn measured(&self) -> blob::Measured {
        if !self.reach.steps().is_empty() {
            blob::Measured::Reach
        } else if self.wear != Wear::NONE {
            blob::Measured::Wear
        } else {
            blob::Measured::Recall
        }
    }

    /// Between two curves, and between two rungs, the effort is interpolated. Past the last curve it grows as `k`.
    fn effort_for(&self, recall: f64, k: usize) -> Option<usize> {
        if recall >= 1.0 {
            return None;
        }
        let (fewer, others) =
            self.curves.split_at(self.curves.partition_point(|curve| usize::from(curve.k) < k));
        let effort = match (fewer.last(), others.first()) {
            (_, Some(curve)) if usize::from(curve.k) == k => curve.effort(recall)?,
            (None, Some(curve)) => curve.effort(recall)?,
            (Some(fewer), Some(more)) => {
                let (low, high) = (f64::from(fewer.k).ln(), f64::from(more.k).ln());
                let share = ((k as f64).ln() - low) / (high - low);
                between(fewer.effort(recall)?, more.effort(recall)?, share)
            }
            (Some(curve), None) => curve.effort(recall)? * k as f64 / f64::from(curve.k),
            (None, None) => return None,
        };
        Some(effort.round() as usize)
    }
}

impl Curve {
    /// The least effort whose recall, less its sampling error, reaches `recall`. Where the sample is too small to
    /// promise that, the greatest, if at least its mean does.
    fn effort(&self, recall: f64) -> Option<f64> {
        let mut below: Option<(f64, f64)> = None;
        for rung in &self.rungs {
            let (bound, effort) = (self.mean(rung) - self.error(rung), f64::from(rung.effort));
            if bound >= recall {
                return Some(match below {
                    Some((low, least)) => between(least, effort, (recall - low) / (bound - low)),
                    None => effort,
                });
            }
            // A rung that found less than the one below it did so by chance.
            below = Some((below.map_or(bound, |(low, _)| bound.max(low)), effort));
        }
        let last = self.rungs.last()?;
        (self.mean(last) >= recall).then(|| f64::from(last.effort))
    }

    fn mean(&self, rung: &Rung) -> f64 {
        f64::from(rung.found) / (f64::from(self.questions) * f64::from(self.k))
    }

    /// The standard error of the mean: questions differ in how hard they are.
    fn error(&self, rung: &Rung) -> f64 {
        let questions = f64::from(self.questions);
        let mean = f64::from(rung.found) / questions;
        let variance = (f64::from(rung.squares) / questions - mean * mean).max(0.0);
        (variance / (questions - 1.0).max(1.0)).sqrt() / f64::from(self.k)
    }
}

/// Efforts grow by factors, so between two of them lies their weighted geometric mean.
fn between(low: f64, high: f64, share: f64) -> f64 {
    low * (high / low).powf(share)
}

/// The effort of an index that was never measured: `least` buys nine tenths of the truth, and the tenth that is missing
/// shrinks somewhat faster than the effort grows. Two to four times what measured ones ask for on the data at hand.
pub(crate) fn guess(least: usize, recall: f64, k: usize) -> Option<usize> {
    if recall >= 1.0 {
        return None;
    }
    let missing = ((1.0 - recall) / 0.1).min(1.0);
    let effort = least as f64 * missing.powf(-0.75) * (k as f64 / NARROW as f64).max(1.0);
    Some(effort.round() as usize)
}

/// [`VectorIndex::search_unseen`] for a row like `question` by `search`, which takes a count and nothing else: more are
/// asked for until enough of them are not the row itself or its equals. For indexes whose searches pass through no row
/// on their way.
pub(crate) fn without_equals(
    vectors: Vectors,
    question: &[f32],
    k: usize,
    search: impl Fn(usize) -> Vec<Neighbor>,
) -> Vec<Neighbor> {
    let mut wanted = k.saturating_add(1);
    loop {
        let mut found = search(wanted);
        let all = found.len() < wanted;
        found.retain(|other| !vectors.row(other.position as usize, question.len()).equals(question));
        if all || found.len() >= k {
            found.truncate(k);
            return found;
        }
        wanted = wanted.saturating_mul(2);
    }
}

pub(crate) fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[cfg(test)]
mod tests;
