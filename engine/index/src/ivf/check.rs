//! Whether the cells are those of the rows.

use super::IvfFlat;
use crate::check::{disagrees, same_metric, same_rows, sample};
use crate::faiss::stratified;
use crate::{BuildParams, IndexError};

/// Rows that are looked for in their cells.
const SAMPLE: usize = 256;
/// How many cells may be as near as the nearest, by the rounding of FAISS' sums and ours.
const NEAR_CELLS: usize = 2;
/// The least share of the sample that lies where it should. Rows that were assigned by other rows' cells lie anywhere.
const LEAST_SHARE: f64 = 0.8;

impl IvfFlat {
    pub(super) fn check_cells(&self, rows: &BuildParams) -> Result<(), IndexError> {
        same_metric(self.metric, rows)?;
        same_rows(Some(&self.held), rows)?;
        if !self.centroids.iter().all(|element| element.is_finite()) {
            return Err(disagrees("a cell's centre is not a finite number".to_owned()));
        }
        let mut cell_of = vec![0; self.rows];
        for list in 0..self.lists() {
            self.list(list).iter().for_each(|position| cell_of[*position as usize] = list);
        }
        let sample = sample(rows, SAMPLE);
        let at_home = |position: &&usize| {
            let cells = self.sorted_cells(rows.vector(**position));
            cells.iter().take(NEAR_CELLS).any(|cell| cell.position as usize == cell_of[**position])
        };
        let found = sample.iter().filter(at_home).count();
        if (found as f64) < LEAST_SHARE * sample.len() as f64 {
            let why =
                format!("of {} rows only {found} lie in the cell that is nearest to them", sample.len());
            return Err(disagrees(why));
        }
        self.check_codes(rows)
    }

    fn check_codes(&self, rows: &BuildParams) -> Result<(), IndexError> {
        let Some(codes) = &self.codes else { return Ok(()) };
        for place in stratified(self.positions.len(), SAMPLE.min(self.positions.len())) {
            let row = self.positions[place] as usize;
            if !codes.are_of(place as u32, rows.vector(row)) {
                return Err(disagrees(format!("the code of row {row} is another row's")));
            }
        }
        Ok(())
    }
}
