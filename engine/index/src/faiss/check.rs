//! Whether FAISS holds the rows.

use super::search::Ask;
use super::{Faiss, stratified};
use crate::check::{disagrees, same_metric, same_rows};
use crate::distance::Scorer;
use crate::{BuildParams, IndexError};

/// Rows that are asked for.
const SAMPLE: usize = 128;
/// How many of FAISS' own candidates are looked at.
const CANDIDATES: usize = 16;
const WIDTH: usize = 200;
/// Rows whose distances say what is near and what is far; odd.
const OTHERS: usize = 31;
/// The least share of candidates that are nearer than half of all rows. Codes may be poor, but of an index over other
/// rows only every second candidate is.
const LEAST_SHARE: f64 = 0.75;
const LEAST_ROWS: usize = 10 * CANDIDATES;

impl Faiss {
    pub(super) fn check_rows(&self, rows: &BuildParams) -> Result<(), IndexError> {
        same_metric(self.metric, rows)?;
        same_rows(self.held.as_ref().map(|held| &held.bits), rows)?;
        let held = self.held.as_ref().map_or(self.rows, |held| held.positions.len());
        let Some(engine) = self.engine.as_ref().filter(|_| held >= LEAST_ROWS) else { return Ok(()) };
        let vector = |number: usize| self.position(number as i64).map(|position| rows.vector(position));
        let probes = self.factory.cells.unwrap_or(1);
        let ask = Ask { candidates: CANDIDATES, probes, width: WIDTH.min(held), bitmap: None };
        let (mut candidates, mut near) = (0u32, 0u32);
        for row in stratified(held, SAMPLE.min(held)).filter_map(vector) {
            let Some(labels) = self.ask(engine, row, &ask) else { continue };
            let scorer = Scorer::new(self.metric, row);
            let mut others: Vec<f64> =
                stratified(held, OTHERS).filter_map(vector).map(|other| scorer.score(other)).collect();
            let (_, middle, _) = others.select_nth_unstable_by(OTHERS / 2, f64::total_cmp);
            for position in labels.into_iter().filter_map(|label| self.position(label)) {
                candidates += 1;
                near += u32::from(scorer.score(rows.vector(position)) <= *middle);
            }
        }
        if f64::from(near) < LEAST_SHARE * f64::from(candidates) {
            let why = format!("of {candidates} rows that FAISS finds near others only {near} are");
            return Err(disagrees(why));
        }
        Ok(())
    }
}
