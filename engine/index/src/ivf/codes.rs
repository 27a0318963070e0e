//! Codes in the order of the lists: making them, finding out whether they can tell the rows apart, and what they find.
//!
//! Called by `build`, and by the calibration that follows it.

use super::IvfFlat;
use super::search::{Nearest, rescored};
use crate::calibration::same_bits;
use crate::distance::Scorer;
use crate::faiss::stratified;
use crate::quantize::{Codes, Width};
use crate::{BuildParams, IndexError, Neighbor, SearchParams, Work};

/// So few rows are read from their vectors in less time than a query takes to be rounded.
const FEWEST_ROWS: usize = 256;
/// Rows asked for their nearest, by code and by vector.
const QUESTIONS: usize = 32;
/// How many nearest: ten and the row itself.
const NEAREST: usize = 11;
/// Cells read for each.
const PROBES: usize = 8;
/// The share of the nearest that must be found by code. A code's error grows with a row's distance from the centre of
/// all rows, not with the distance to its neighbours: rows in tight groups far apart look alike.
const SHARE: f64 = 0.98;
/// Rows equal to a question lie in its nearest cell, or, where two are equally near, in the next.
const HOME_CELLS: usize = 2;

impl IvfFlat {
    /// Encodes the rows, cell after cell, and keeps the codes if they are good: of 4 bits an element, else of 8.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`] and [`IndexError::Resources`].
    pub(super) fn make_codes(&mut self, params: &BuildParams) -> Result<(), IndexError> {
        // A single cell is always read exactly.
        let useful = self.lists() > 1 && self.positions.len() >= FEWEST_ROWS;
        for width in [Width::Four, Width::Eight] {
            if !useful || !Codes::worthwhile(self.metric, self.dim, width) {
                break;
            }
            self.codes = Codes::build_alone(params, &self.positions, width)?;
            if self.codes.is_none() || self.tells_apart(params) {
                break;
            }
            self.codes = None;
        }
        Ok(())
    }

    /// Whether a few rows' neighbours by code are those by vector. There are two cells at least.
    fn tells_apart(&mut self, params: &BuildParams) -> bool {
        let probes = PROBES.min(self.lists() - 1);
        let wanted = SearchParams { k: NEAREST, ef_search: 0, probes, allowed: None };
        let questions = stratified(self.positions.len(), QUESTIONS.min(self.positions.len()));
        let questions: Vec<&[f32]> =
            questions.map(|place| params.vector(self.positions[place] as usize)).collect();
        let ask = |index: &Self| -> Vec<Vec<Neighbor>> {
            let probe = |question: &&[f32]| {
                index.probe(params.vectors.into(), question, &wanted, &mut Work::default())
            };
            questions.iter().map(probe).collect()
        };
        let by_code = ask(self);
        let codes = self.codes.take();
        let by_vector = ask(self);
        self.codes = codes;
        let (mut found, mut expected) = (0, 0);
        for (by_code, by_vector) in by_code.iter().zip(&by_vector) {
            let Some(furthest) = by_vector.last() else { continue };
            expected += by_vector.len();
            // By distance: of rows equally far any will do.
            found += by_code.iter().filter(|near| near.distance <= furthest.distance).count();
        }
        found as f64 >= SHARE * expected as f64
    }

    /// What lies in a cell is found when the cell is read.
    pub(super) fn hits_by_vectors(
        &self,
        params: &BuildParams,
        row: usize,
        truth: &[Neighbor],
        efforts: &[u32],
    ) -> Vec<u32> {
        let cells = self.sorted_cells(params.vector(row));
        let mut hits = vec![0; efforts.len()];
        for neighbor in truth {
            let holds =
                |cell: &Neighbor| self.list(cell.position as usize).binary_search(&neighbor.position).is_ok();
            let Some(rank) = cells.iter().position(holds) else { continue };
            let reaching = efforts.iter().zip(&mut hits).filter(|(effort, _)| **effort as usize > rank);
            reaching.for_each(|(_, hits)| *hits += 1);
        }
        hits
    }

    /// One pass over the cells, nearest first: what has been found by code when so many of them are read. `None` where
    /// there are no codes. A question that has found all reads no further.
    pub(super) fn hits_by_codes(
        &self,
        params: &BuildParams,
        row: usize,
        truth: &[Neighbor],
        efforts: &[u32],
    ) -> Option<Vec<u32>> {
        let (codes, question) = (self.codes.as_ref()?, params.vector(row));
        let query = codes.query(question)?;
        let furthest = truth.last()?.distance;
        let scorer = Scorer::new(self.metric, question);
        let mut nearest = Nearest::default();
        nearest.reset(rescored(truth.len()));
        let (mut nodes, mut scores) = (Vec::new(), Vec::new());
        // All cells are read exactly.
        let mut hits = vec![truth.len() as u32; efforts.len()];
        let mut next = 0;
        for (rank, cell) in self.sorted_cells(question).iter().enumerate() {
            let stranger = |place: &u32| {
                let position = self.positions[*place as usize] as usize;
                position != row && (rank >= HOME_CELLS || !same_bits(question, params.vector(position)))
            };
            let places = self.places(cell.position as usize);
            nodes.clear();
            nodes.extend((places.start as u32..places.end as u32).filter(stranger));
            codes.score(&query.borrow(), &nodes, &mut scores);
            nodes.iter().zip(&scores).for_each(|(place, score)| nearest.offer(*score, *place));
            if efforts.get(next).is_some_and(|effort| *effort as usize == rank + 1) {
                let distance = |place: &u32| {
                    let position = self.positions[*place as usize] as usize;
                    scorer.finish(scorer.score(params.vector(position)))
                };
                let near = nearest.places().filter(|place| distance(place) <= furthest).count();
                if near >= truth.len() || rank + 1 == self.lists() {
                    break;
                }
                hits[next] = near as u32;
                next += 1;
            }
        }
        Some(hits)
    }

    /// All cells, nearest first.
    pub(super) fn sorted_cells(&self, query: &[f32]) -> Vec<Neighbor> {
        let mut cells = Vec::new();
        self.rank(query, &mut cells);
        cells.sort_unstable();
        cells
    }
}
