//! Which rows took the places of which, in an open transaction.
//!
//! `write` notes it statement by statement, `locking` asks whose places rows took, and the commit tells everybody. A
//! savepoint that is gone back to takes what was noted since.

use std::collections::HashMap;

use roaring::RoaringTreemap;
use sepal_types::{RowId, TableId};

/// The replacements of a transaction.
#[derive(Debug, Default)]
pub struct Replaced {
    /// Old and new ids, by statement.
    statements: Vec<(TableId, Vec<(RowId, RowId)>)>,
    /// By table, each row that took a place, ascending, with the row that stood there when the transaction began.
    origins: HashMap<TableId, Vec<(RowId, RowId)>>,
}

impl Replaced {
    /// What a statement has replaced: old and new ids. Ids are given out in ascending order, so the new ones are above
    /// those of all statements before.
    pub fn push(&mut self, table: TableId, pairs: Vec<(RowId, RowId)>) {
        let origins = self.origins.entry(table).or_default();
        let mut new: Vec<(RowId, RowId)> =
            pairs.iter().map(|(old, new)| (*new, origin(origins, *old).unwrap_or(*old))).collect();
        new.sort_unstable();
        debug_assert!(
            origins.last() < new.first() || new.is_empty(),
            "ids ascend from statement to statement"
        );
        origins.extend(new);
        self.statements.push((table, pairs));
    }

    /// How many statements have replaced rows, for [`Self::truncate`].
    pub fn mark(&self) -> usize {
        self.statements.len()
    }

    /// Forgets what came after the first `statements`.
    pub fn truncate(&mut self, statements: usize) {
        for (table, pairs) in self.statements.drain(statements.min(self.statements.len())..) {
            if let Some(origins) = self.origins.get_mut(&table) {
                origins.truncate(origins.len().saturating_sub(pairs.len()));
            }
        }
    }

    /// Rows, and those whose places they took in this transaction: others see these still, and may rely on their keys.
    /// Of a row that was replaced more than once that is the first: whoever relies on one between relies on it, too.
    pub fn with_origins(&self, table: TableId, mut rows: RoaringTreemap) -> RoaringTreemap {
        let Some(origins) = self.origins.get(&table) else { return rows };
        let Some((first, _)) = origins.first() else { return rows };
        // Most often all rows are older than the first that took a place.
        if rows.max().is_none_or(|last| last < first.0) {
            return rows;
        }
        let old: Vec<u64> =
            rows.iter().filter_map(|row| origin(origins, RowId(row))).map(|origin| origin.0).collect();
        rows.extend(old);
        rows
    }

    /// Old and new ids, statement by statement.
    pub fn into_statements(self) -> Vec<(TableId, Vec<(RowId, RowId)>)> {
        self.statements
    }
}

/// The row that stood where this one stands, if it took a place.
fn origin(origins: &[(RowId, RowId)], row: RowId) -> Option<RowId> {
    origins.binary_search_by_key(&row, |(new, _)| *new).ok().map(|at| origins[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(20_000);
    const OTHER: TableId = TableId(20_001);

    fn push(replaced: &mut Replaced, table: TableId, pairs: &[(u64, u64)]) {
        replaced.push(table, pairs.iter().map(|(old, new)| (RowId(*old), RowId(*new))).collect());
    }

    fn asked(replaced: &Replaced, table: TableId, rows: &[u64]) -> Vec<u64> {
        replaced.with_origins(table, rows.iter().copied().collect()).iter().collect()
    }

    #[test]
    fn rows_come_with_those_that_others_see_in_their_places() {
        let mut replaced = Replaced::default();
        assert_eq!(asked(&replaced, TABLE, &[1, 2]), [1, 2]);
        push(&mut replaced, TABLE, &[(3, 10), (1, 11)]);
        push(&mut replaced, OTHER, &[(2, 10)]);
        // What ON CONFLICT inserts stands between what it replaces, and their order is the statement's.
        push(&mut replaced, TABLE, &[(10, 17), (4, 15)]);
        push(&mut replaced, TABLE, &[(17, 20)]);
        assert_eq!(asked(&replaced, TABLE, &[1, 2, 3]), [1, 2, 3], "older than any that took a place");
        assert_eq!(asked(&replaced, TABLE, &[11]), [1, 11]);
        assert_eq!(asked(&replaced, TABLE, &[15, 16, 20]), [3, 4, 15, 16, 20]);
        assert_eq!(asked(&replaced, OTHER, &[10]), [2, 10]);
        assert_eq!(asked(&replaced, TABLE, &[]), [0; 0]);
    }

    #[test]
    fn what_is_rolled_back_took_no_place() {
        let mut replaced = Replaced::default();
        push(&mut replaced, TABLE, &[(1, 10), (2, 11)]);
        let mark = replaced.mark();
        push(&mut replaced, TABLE, &[(10, 12)]);
        push(&mut replaced, OTHER, &[(5, 6)]);
        push(&mut replaced, TABLE, &[(12, 13), (3, 14)]);
        replaced.truncate(mark);
        assert_eq!(asked(&replaced, TABLE, &[11, 12, 13, 14]), [2, 11, 12, 13, 14]);
        assert_eq!(asked(&replaced, OTHER, &[6]), [6]);
        push(&mut replaced, TABLE, &[(10, 15)]);
        assert_eq!(asked(&replaced, TABLE, &[15]), [1, 15]);
        let statements: Vec<usize> =
            replaced.into_statements().iter().map(|(_, pairs)| pairs.len()).collect();
        assert_eq!(statements, [2, 1]);
    }
}
