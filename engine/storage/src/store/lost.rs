//! What went with damage: rows and files that a replay must not stumble over.
//!
//! `check` and `repair` leave damaged segments out. The log may still delete rows of theirs, and a clone that it names
//! may share them; everywhere else a row or a file that is not there is damage. An opening store has none of these.

use std::{borrow::Cow, collections::BTreeSet};

use sepal_types::{FileId, RowId, TableId};

use crate::{Op, StoreError, ops::CloneSource, paths::DataKind, snapshot::State};

/// Ranges of row ids, and files. Other segments may have rows within the ranges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost {
    rows: Vec<(TableId, RowId, RowId)>,
    files: BTreeSet<(DataKind, FileId)>,
}

impl Lost {
    pub(crate) fn add(&mut self, table: TableId, first: RowId, last: RowId) {
        self.rows.push((table, first, last));
    }

    /// A segment or an index that does not open, whoever names it.
    pub(crate) fn add_file(&mut self, kind: DataKind, file: FileId) {
        self.files.insert((kind, file));
    }

    pub(crate) fn has_file(&self, file: &(DataKind, FileId)) -> bool {
        self.files.contains(file)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.files.is_empty()
    }

    /// Takes what is gone out of what a clone shares.
    pub(crate) fn leave_out(&mut self, table: TableId, source: &mut CloneSource) {
        let Self { rows, files } = self;
        if files.is_empty() {
            return;
        }
        source.segments.retain_mut(|segment| {
            let entry = &mut segment.entry;
            if files.contains(&(DataKind::Segment, entry.file)) {
                rows.push((table, entry.first_row, entry.last_row));
                return false;
            }
            entry.indexes.retain(|index| !files.contains(&(DataKind::Index, index.blob.file)));
            true
        });
    }

    /// The op without the lost rows that it deletes.
    pub(crate) fn without<'a>(&self, state: &State, op: &'a Op) -> Result<Cow<'a, Op>, StoreError> {
        let Op::Delete { table, rows } = op else { return Ok(Cow::Borrowed(op)) };
        let ranges: Vec<_> = self.rows.iter().filter(|(of, _, _)| of == table).collect();
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
