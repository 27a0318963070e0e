//! Rows that are to be scored from their vectors, named without having those: by the codes in memory, or by codes that
//! were left where the index is stored.
//!
//! Called for tables that are larger than memory (`VectorIndex::candidates`). A cell's codes are one range of the
//! stored bytes; a cell without allowed rows is not read. Whoever asked fetches the rows named, of which a page each
//! is read: so they are few, also where `search` would score more.

use super::IvfFlat;
use super::search::{Probe, ROOM, Room, rescored};
use crate::quantize::{Codes, QueryRef, StoredCodes, Width};
use crate::{Bits, Candidates, IndexError, SearchParams, Stored, Work};

/// As many allowed rows are all named. More are first scored by their codes.
const FEW_ROWS: usize = 1_024;

impl IvfFlat {
    /// What [`IvfFlat::probe`] would score from vectors. Where it would score all rows that a filter leaves, and these
    /// are many: the best of all of them by code.
    ///
    /// # Errors
    /// [`IndexError::Unreadable`]; [`IndexError::Shape`] without `stored` where codes were left there.
    pub(super) fn nominate(
        &self,
        stored: Option<&dyn Stored>,
        query: &[f32],
        params: &SearchParams,
    ) -> Result<Option<Candidates>, IndexError> {
        let allowed = params.allowed;
        let indexed = allowed.map_or(self.positions.len(), |allowed| allowed.count_and(&self.held));
        let k = params.k.min(indexed);
        let named = |rows: Vec<u32>, codes: u64| {
            let mut work = Work { asked: 1, ..Work::default() };
            work.add_codes(self.width(), codes);
            Candidates { rows, indexed, work, ..Candidates::default() }
        };
        if k == 0 {
            return Ok(Some(Candidates { indexed, ..Candidates::default() }));
        }
        let probes = params.probes.clamp(1, self.lists());
        let rare = allowed.filter(|_| indexed <= self.rows_in(probes).max(k));
        if let Some(allowed) = rare.filter(|_| indexed <= FEW_ROWS) {
            return Ok(Some(named(self.all_of(allowed), 0)));
        }
        if probes == self.lists() {
            return Ok(None);
        }
        let least_met = if rare.is_some() { indexed } else { k };
        let probe = Probe { index: self, query, k, probes, allowed, least_met };
        ROOM.with_borrow_mut(|room| {
            let Some(codes) = self.look(&probe, stored, room)? else {
                return Ok(None);
            };
            let mut rows: Vec<u32> = self.positions_of(&mut room.nearest).collect();
            rows.sort_unstable();
            Ok(Some(named(rows, codes)))
        })
    }

    /// Of its codes, wherever they are.
    fn width(&self) -> Width {
        let left = || self.left_codes.as_ref().map(StoredCodes::width);
        self.codes.as_ref().map(Codes::width).or_else(left).unwrap_or_default()
    }

    /// The allowed rows that are indexed.
    fn all_of(&self, allowed: &Bits) -> Vec<u32> {
        let indexed = allowed.iter().filter(|position| self.held.get(*position));
        indexed.map(|position| position as u32).collect()
    }

    /// Fills `room.nearest` by codes, and says by how many; `None` where there are none, or none for this query.
    fn look(
        &self,
        probe: &Probe,
        stored: Option<&dyn Stored>,
        room: &mut Room,
    ) -> Result<Option<u64>, IndexError> {
        if let Some(codes) = &self.codes {
            let Some(query) = codes.query(probe.query) else { return Ok(None) };
            return Ok(Some(probe.by_codes(codes, &query.borrow(), room)));
        }
        let Some(codes) = &self.left_codes else { return Ok(None) };
        let Some(query) = codes.query(probe.query) else { return Ok(None) };
        let stored = stored.ok_or_else(|| {
            IndexError::Shape("an index that was opened in place needs its bytes in a search".to_owned())
        })?;
        probe.by_stored_codes((codes, stored), &query.borrow(), room).map(Some)
    }
}

impl Probe<'_> {
    /// As [`Probe::by_codes`], with the cells read as they come.
    fn by_stored_codes(
        &self,
        (codes, stored): (&StoredCodes, &dyn Stored),
        query: &QueryRef,
        room: &mut Room,
    ) -> Result<u64, IndexError> {
        let Room { cells, nodes, scores, nearest, piece } = room;
        nearest.reset(rescored(self.k));
        let mut met = 0;
        self.visit(cells, |list| {
            let places = self.index.places(list);
            for first in places.clone().step_by(codes.at_once()) {
                let last = places.end.min(first + codes.at_once());
                let allowed = (first..last).filter(|place| self.is_allowed(*place as u32));
                nodes.clear();
                nodes.extend(allowed.map(|place| (place - first) as u32));
                if nodes.is_empty() {
                    continue;
                }
                codes.fetch(stored, first..last, piece)?;
                codes.score(query, (first, &piece[..]), nodes, scores);
                nodes
                    .iter()
                    .zip(scores.iter())
                    .for_each(|(node, score)| nearest.offer(*score, first as u32 + *node));
                met += nodes.len();
            }
            Ok::<bool, IndexError>(met >= self.least_met)
        })?;
        Ok(met as u64)
    }
}

#[cfg(test)]
mod tests;
