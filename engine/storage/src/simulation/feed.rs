//! A commit as the feed gives it, held against what was committed.

use std::collections::{BTreeMap, BTreeSet};

use arrow::{array::AsArray, datatypes::Int64Type};
use sepal_types::TableId;

use super::{
    model::{Change as Made, State},
    world::Verdict,
};
use crate::{Change, Commit};

type Rows = BTreeMap<TableId, BTreeSet<u64>>;

/// `earlier`: the state before the commit, where deleted rows had their keys.
pub(super) fn compare_commit(commit: &Commit, number: u64, earlier: &State, made: &[Made]) -> Verdict {
    if commit.lsn.0 != number {
        return Err(format!("commit {} of the log where {number} was expected", commit.lsn));
    }
    let (mut inserted, mut deleted) = (Rows::new(), Rows::new());
    for change in &commit.changes {
        match change {
            Change::Insert { table, first_row, rows } => {
                let end = first_row.0 + rows.num_rows() as u64;
                inserted.entry(*table).or_default().extend(first_row.0..end);
            }
            Change::Delete { table, rows, before } => {
                deleted.entry(*table).or_default().extend(rows.iter().map(|row| row.0));
                if before.num_columns() == 0 {
                    continue;
                }
                let keys: Vec<i64> = before.column(0).as_primitive::<Int64Type>().values().to_vec();
                let had = |row: &u64| earlier.tables.get(table)?.rows.get(row).map(|row| row.id);
                let expected: Vec<Option<i64>> = rows.iter().map(|row| had(&row.0)).collect();
                if keys.into_iter().map(Some).collect::<Vec<_>>() != expected {
                    return Err(format!("commit {number}: wrong images of what was deleted from {table}"));
                }
            }
            Change::Define(_) | Change::Drop(_) | Change::Truncate(_) => {}
        }
    }
    if (inserted, deleted) == net(made) {
        return Ok(());
    }
    Err(format!("commit {number} of the log is not what was committed"))
}

/// Inserted and deleted rows, without those that came and went.
fn net(made: &[Made]) -> (Rows, Rows) {
    let (mut inserted, mut deleted) = (Rows::new(), Rows::new());
    for change in made {
        match change {
            Made::Insert { table, first_row, rows } => {
                let end = first_row + rows.len() as u64;
                inserted.entry(*table).or_default().extend(*first_row..end);
            }
            Made::Delete { table, rows } => {
                for row in rows {
                    if !inserted.get_mut(table).is_some_and(|inserted| inserted.remove(row)) {
                        deleted.entry(*table).or_default().insert(*row);
                    }
                }
            }
            Made::Create(_)
            | Made::Clone(_)
            | Made::Alter(_)
            | Made::Drop(_)
            | Made::Truncate(_)
            | Made::SetSequence { .. } => {}
        }
    }
    inserted.retain(|_, rows| !rows.is_empty());
    (inserted, deleted)
}
