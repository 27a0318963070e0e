//! What became of replaced rows: an UPDATE deletes a row and inserts another, and who waited for the first wants the
//! second.
//!
//! Noted at commit, before the transaction's locks are given back, and only while some statement watches: one that
//! took its snapshot before that commit. Statements that end let go of what nobody else needs.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use sepal_types::{RowId, TableId};

/// The replacements of one tenant that somebody may still ask for.
#[derive(Debug, Default)]
pub struct Updates(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The number of the next commit's records.
    next: u64,
    /// How many watch from a number on.
    watching: BTreeMap<u64, usize>,
    records: VecDeque<Record>,
}

/// What one commit replaced in one table: old and new ids, by old id.
#[derive(Debug)]
struct Record {
    number: u64,
    table: TableId,
    pairs: Vec<(RowId, RowId)>,
}

/// As long as it lives, every replacement since it was made is remembered.
#[derive(Debug)]
pub struct Watch {
    updates: Arc<Updates>,
    from: u64,
}

impl Updates {
    /// To be called before the snapshot is taken.
    pub fn watch(self: &Arc<Self>) -> Watch {
        let mut inner = self.0.lock();
        let from = inner.next;
        *inner.watching.entry(from).or_default() += 1;
        Watch { updates: Arc::clone(self), from }
    }

    /// A commit is done; its locks are still held.
    pub fn record(&self, replaced: Vec<(TableId, Vec<(RowId, RowId)>)>) {
        if replaced.is_empty() {
            return;
        }
        let mut tables: HashMap<TableId, Vec<(RowId, RowId)>> = HashMap::new();
        for (table, pairs) in replaced {
            tables.entry(table).or_default().extend(pairs);
        }
        for pairs in tables.values_mut() {
            pairs.sort_unstable();
        }
        let mut inner = self.0.lock();
        let number = inner.next;
        inner.next += 1;
        if !inner.watching.is_empty() {
            inner.records.extend(tables.into_iter().map(|(table, pairs)| Record { number, table, pairs }));
        }
    }

    /// The row that stands in the place of this one now; `None` when nothing took its place.
    pub fn newest(&self, table: TableId, row: RowId) -> Option<RowId> {
        let inner = self.0.lock();
        let mut newest = None;
        // One pass is enough: a row's replacement is replaced later, or by the same commit.
        for record in inner.records.iter().filter(|record| record.table == table) {
            let mut row = newest.unwrap_or(row);
            while let Ok(at) = record.pairs.binary_search_by_key(&row, |(old, _)| *old) {
                row = record.pairs[at].1;
                newest = Some(row);
            }
        }
        newest
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut inner = self.updates.0.lock();
        if let Some(count) = inner.watching.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                inner.watching.remove(&self.from);
            }
        }
        let oldest = inner.watching.keys().next().copied();
        while inner.records.front().is_some_and(|record| oldest.is_none_or(|from| record.number < from)) {
            inner.records.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(20_000);

    fn pairs(of: &[(u64, u64)]) -> Vec<(TableId, Vec<(RowId, RowId)>)> {
        vec![(TABLE, of.iter().map(|(old, new)| (RowId(*old), RowId(*new))).collect())]
    }

    #[test]
    fn a_row_is_followed_through_commits_for_as_long_as_somebody_watches() {
        let updates = Arc::new(Updates::default());
        updates.record(pairs(&[(1, 2)]));
        assert_eq!(updates.newest(TABLE, RowId(1)), None, "nobody watched");
        let first = updates.watch();
        updates.record(pairs(&[(2, 3), (3, 4)]));
        let second = updates.watch();
        updates.record(pairs(&[(4, 9), (7, 8)]));
        assert_eq!(updates.newest(TABLE, RowId(2)), Some(RowId(9)));
        assert_eq!(updates.newest(TABLE, RowId(5)), None);
        assert_eq!(updates.newest(TableId(1), RowId(2)), None);
        drop(first);
        assert_eq!(updates.newest(TABLE, RowId(2)), None);
        assert_eq!(updates.newest(TABLE, RowId(4)), Some(RowId(9)));
        drop(second);
        assert!(updates.0.lock().records.is_empty());
    }
}
