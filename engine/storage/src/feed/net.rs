//! From a commit's records to its changes: what came and went within it is left out.
//!
//! Called by `reader`. A transaction may insert a row and delete it again; the row has no before-image, and nobody
//! else has ever seen it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{datatypes::Schema, record_batch::RecordBatch};
use sepal_types::{RowId, TableId};

use super::{Change, OwnRows};
use crate::{Op, ops::Record};

/// Rows that the commit both inserts and deletes.
type Passing = HashMap<TableId, BTreeSet<u64>>;

/// The changes, or why the records are not those of a commit.
pub(super) fn changes(records: Vec<Record>) -> Result<Vec<Change>, String> {
    let passing = passing(&records);
    let mut changes = Vec::with_capacity(records.len());
    let mut image: Option<(TableId, RecordBatch)> = None;
    for record in records {
        let op = match record {
            Record::Op(op) => op,
            Record::Before { table, rows } => {
                if image.replace((table, rows)).is_some() {
                    return Err(format!("two before-images of table {table} for one delete"));
                }
                continue;
            }
        };
        if let Some((table, _)) = &image
            && !matches!(&op, Op::Delete { table: of, .. } if of == table)
        {
            return Err(format!("a before-image of table {table} without its delete"));
        }
        let before = image.take().map(|(_, rows)| rows);
        match op {
            Op::CreateTable(def) | Op::AlterTable(def) | Op::Clone { def, .. } => {
                changes.push(Change::Define(def));
            }
            Op::DropTable(table) => changes.push(Change::Drop(table)),
            Op::Truncate(table) => changes.push(Change::Truncate(table)),
            Op::Insert { table, first_row, rows } => {
                inserted(table, first_row, &rows, passing.get(&table), &mut changes);
            }
            Op::Delete { table, rows } => {
                changes.extend(deleted(table, rows, before, passing.get(&table))?);
            }
            Op::SetSequence { .. } => {}
        }
    }
    match image {
        Some((table, _)) => Err(format!("a before-image of table {table} without its delete")),
        None => Ok(changes),
    }
}

fn passing(records: &[Record]) -> Passing {
    let mut own = OwnRows::default();
    let mut passing = Passing::new();
    for record in records {
        match record {
            Record::Op(Op::Insert { table, first_row, rows }) => {
                own.insert(*table, *first_row, rows.num_rows());
            }
            Record::Op(Op::Delete { table, rows }) => {
                for row in rows.iter().filter(|row| own.contains(*table, **row)) {
                    passing.entry(*table).or_default().insert(row.0);
                }
            }
            Record::Op(_) | Record::Before { .. } => {}
        }
    }
    passing
}

/// The rows that stay. What goes splits them, because the rows of an insert count up from its first.
fn inserted(
    table: TableId,
    first_row: RowId,
    rows: &RecordBatch,
    passing: Option<&BTreeSet<u64>>,
    changes: &mut Vec<Change>,
) {
    let count = rows.num_rows();
    let end = first_row.0.saturating_add(count as u64);
    let gone = passing.into_iter().flat_map(|passing| passing.range(first_row.0..end));
    let gone = gone.map(|row| usize::try_from(row - first_row.0).unwrap_or(count));
    let mut from = 0;
    for to in gone.chain([count]) {
        if to > from {
            let first_row = RowId(first_row.0.saturating_add(from as u64));
            changes.push(Change::Insert { table, first_row, rows: rows.slice(from, to - from) });
        }
        from = to + 1;
    }
}

/// The rows that were there before the commit, if any.
fn deleted(
    table: TableId,
    mut rows: Vec<RowId>,
    before: Option<RecordBatch>,
    passing: Option<&BTreeSet<u64>>,
) -> Result<Option<Change>, String> {
    if let Some(passing) = passing {
        rows.retain(|row| !passing.contains(&row.0));
    }
    let before = match before {
        Some(before) if before.num_rows() != rows.len() => {
            return Err(format!(
                "{} rows deleted from table {table}, {} before-images",
                rows.len(),
                before.num_rows()
            ));
        }
        Some(before) => before,
        None => RecordBatch::new_empty(Arc::new(Schema::empty())),
    };
    Ok((!rows.is_empty()).then_some(Change::Delete { table, rows, before }))
}
