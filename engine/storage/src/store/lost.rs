//! Rows that went with their segment: what a replay must not stumble over.
//!
//! `check` and `repair` leave damaged segments out. The log may still delete rows of theirs; everywhere else a deletion
//! of a row that is not there is damage. An opening store has none of these.

use std::borrow::Cow;

use sepal_types::{RowId, TableId};

use crate::{Op, StoreError, snapshot::State};

/// Ranges of row ids. Other segments may have rows within them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost(Vec<(TableId, RowId, RowId)>);

impl Lost {
    pub(crate) fn add(&mut self, table: TableId, first: RowId, last: RowId) {
        self.0.push((table, first, last));
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The op without the lost rows that it deletes.
    pub(crate) fn without<'a>(&self, state: &State, op: &'a Op) -> Result<Cow<'a, Op>, StoreError> {
        let Op::Delete { table, rows } = op else { return Ok(Cow::Borrowed(op)) };
        let ranges: Vec<_> = self.0.iter().filter(|(of, _, _)| of == table).collect();
        let (false, Some(version)) = (ranges.is_empty(), state.tables.get(table)) else {
            return Ok(Cow::Borrowed(op));
        };
        let mut present = vec![false; rows.len()];
        version.find_rows(rows, |place, _, _| present[place] = true)?;
        let is_lost = |row: &RowId| ranges.iter().any(|(_, first, last)| (first..=last).contains(&row));
        let rows = rows.iter().zip(&present).filter(|(row, present)| **present || !is_lost(row));
        let rows = rows.map(|(row, _)| *row).collect();
        Ok(Cow::Owned(Op::Delete { table: *table, rows }))
    }
}
