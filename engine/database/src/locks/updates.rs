//! What became of replaced rows: an UPDATE deletes a row and inserts another, and who waited for the first wants the
//! second.
//!
//! Noted at commit, before the transaction's locks are given back, and only while some statement watches: one that
//! took its snapshot before that commit. Statements that end let go of what nobody else needs.
//!
//! A statement that waits for a lock may wait for hours, and takes no snapshot meanwhile: it can ask only for rows that
//! were there when it fell asleep. Of a row that is replaced again and again its oldest version and its newest are
//! kept then, and nothing of rows that are younger than every such wait.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use sepal_types::{RowId, TableId};

/// As few replacements are not worth a look at what of them is needed.
const FEW: usize = 4_096;

/// Above every row's id, by table. A table without rows may be left out.
type RowEnds = HashMap<TableId, RowId>;

/// The replacements of one tenant that somebody may still ask for.
#[derive(Debug, Default)]
pub struct Updates(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The number of the next commit's records.
    next: u64,
    next_watch: u64,
    /// In the order in which they began.
    watches: BTreeMap<u64, Watching>,
    /// Of commits before those of `records`: what somebody asleep may ask for.
    settled: HashMap<(TableId, RowId), Settled>,
    records: VecDeque<Record>,
    /// Those of all `records`.
    pairs: usize,
    /// With as many pairs comes the next look at what is needed.
    look_at: usize,
}

/// What one commit replaced in one table: old and new ids, by old id.
#[derive(Debug)]
struct Record {
    number: u64,
    table: TableId,
    pairs: Vec<(RowId, RowId)>,
}

/// What stands in the place of a row, as far as commits are settled.
#[derive(Debug)]
struct Settled {
    newest: RowId,
    /// Of the commit that replaced the row itself.
    number: u64,
}

#[derive(Debug)]
struct Watching {
    from: u64,
    /// Of what was there from this commit on it may have seen anything. `None` while it waits.
    awake_from: Option<u64>,
    /// What it has seen before it last fell asleep is below these.
    ends: Option<Arc<RowEnds>>,
}

/// As long as it lives, every replacement since it was made is remembered.
#[derive(Debug)]
pub struct Watch {
    updates: Arc<Updates>,
    number: u64,
}

/// The watches of one session's statement, so that all fall asleep while it waits.
#[derive(Debug, Default)]
pub struct Watches(Vec<Weak<Watch>>);

/// As long as it lives, whoever watches takes no snapshot and asks for nothing.
#[derive(Debug)]
pub struct Asleep(Vec<Arc<Watch>>);

impl Updates {
    /// To be called before the snapshot is taken.
    pub fn watch(self: &Arc<Self>) -> Watch {
        let mut inner = self.0.lock();
        let (from, number) = (inner.next, inner.next_watch);
        inner.next_watch += 1;
        inner.watches.insert(number, Watching { from, awake_from: Some(from), ends: None });
        Watch { updates: Arc::clone(self), number }
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
        if inner.watches.is_empty() {
            return;
        }
        inner.pairs += tables.values().map(Vec::len).sum::<usize>();
        inner.records.extend(tables.into_iter().map(|(table, pairs)| Record { number, table, pairs }));
        if inner.pairs >= inner.look_at.max(FEW) {
            inner.settle();
        }
    }

    /// The row that stands in the place of this one now; `None` when nothing took its place.
    pub fn newest(&self, table: TableId, row: RowId) -> Option<RowId> {
        let inner = self.0.lock();
        let mut newest = inner.settled.get(&(table, row)).map(|settled| settled.newest);
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

    /// How many replacements are kept.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        let inner = self.0.lock();
        inner.settled.len() + inner.pairs
    }
}

impl Inner {
    /// The first commit that somebody has not seen.
    fn oldest(&self) -> Option<u64> {
        self.watches.values().next().map(|watching| watching.from)
    }

    /// Keeps of what everybody slept through the way from rows that somebody may ask for to the newest.
    fn settle(&mut self) {
        let oldest = self.oldest().unwrap_or(self.next);
        let awake = self.watches.values().filter_map(|watching| watching.awake_from).min();
        let slept_through =
            self.records.partition_point(|record| awake.is_none_or(|from| record.number < from));
        // From the last to the first: where a row's replacement went is known by then.
        let mut forward: HashMap<(TableId, RowId), RowId> = HashMap::new();
        for record in self.records.iter().take(slept_through).rev() {
            for (old, new) in record.pairs.iter().rev() {
                let newest = follow(&forward, record.table, *new);
                forward.insert((record.table, *old), newest);
            }
        }
        self.settled.retain(|_, settled| settled.number >= oldest);
        for ((table, _), settled) in &mut self.settled {
            settled.newest = follow(&forward, *table, settled.newest);
        }
        let mut ends: HashMap<TableId, Option<RowId>> = HashMap::new();
        for record in self.records.drain(..slept_through) {
            self.pairs -= record.pairs.len();
            let Record { number, table, pairs } = record;
            let watches = &self.watches;
            let end = *ends.entry(table).or_insert_with(|| seen_below(watches, table));
            let seen = pairs.into_iter().filter(|(old, _)| number >= oldest && Some(*old) < end);
            self.settled.extend(seen.map(|(old, new)| {
                let newest = follow(&forward, table, new);
                ((table, old), Settled { newest, number })
            }));
        }
        // What could not be settled is not looked at again with every commit.
        self.look_at = self.settled.len() + 2 * self.pairs;
    }
}

/// Where a row has gone in the end.
fn follow(forward: &HashMap<(TableId, RowId), RowId>, table: TableId, mut row: RowId) -> RowId {
    while let Some(newer) = forward.get(&(table, row)) {
        row = *newer;
    }
    row
}

/// Above all rows of the table that somebody had seen when he fell asleep.
fn seen_below(watches: &BTreeMap<u64, Watching>, table: TableId) -> Option<RowId> {
    watches.values().filter_map(|watching| watching.ends.as_ref()?.get(&table).copied()).max()
}

impl Watch {
    fn fall_asleep(&self, ends: &Arc<RowEnds>) {
        let mut inner = self.updates.0.lock();
        if let Some(watching) = inner.watches.get_mut(&self.number) {
            watching.awake_from = None;
            watching.ends = Some(Arc::clone(ends));
        }
    }

    fn wake(&self) {
        let mut inner = self.updates.0.lock();
        let next = inner.next;
        if let Some(watching) = inner.watches.get_mut(&self.number) {
            watching.awake_from = Some(next);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut inner = self.updates.0.lock();
        inner.watches.remove(&self.number);
        let Some(oldest) = inner.oldest() else {
            let Inner { next, next_watch, .. } = *inner;
            *inner = Inner { next, next_watch, ..Inner::default() };
            return;
        };
        while inner.records.front().is_some_and(|record| record.number < oldest) {
            let gone = inner.records.pop_front().map_or(0, |record| record.pairs.len());
            inner.pairs -= gone;
        }
    }
}

impl Watches {
    pub fn begin(&mut self, updates: &Arc<Updates>) -> Arc<Watch> {
        let watch = Arc::new(updates.watch());
        self.0.retain(|known| known.strong_count() > 0);
        self.0.push(Arc::downgrade(&watch));
        watch
    }

    /// The statement waits. `ends`: what is above all rows now.
    pub fn sleep(&self, ends: impl FnOnce() -> RowEnds) -> Asleep {
        let watches: Vec<Arc<Watch>> = self.0.iter().filter_map(Weak::upgrade).collect();
        if !watches.is_empty() {
            let ends = Arc::new(ends());
            watches.iter().for_each(|watch| watch.fall_asleep(&ends));
        }
        Asleep(watches)
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.0.iter().for_each(|watch| watch.wake());
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

    /// A row, replaced so often, by a commit each time.
    fn replace_often(updates: &Updates, first: u64, times: u64) {
        (first..first + times).for_each(|row| updates.record(pairs(&[(row, row + 1)])));
    }

    #[test]
    fn while_all_wait_little_is_kept() {
        let updates = Arc::new(Updates::default());
        let mut watches = Watches::default();
        let _watch = watches.begin(&updates);
        updates.record(pairs(&[(5, 90)]));
        let asleep = watches.sleep(|| RowEnds::from([(TABLE, RowId(101))]));
        replace_often(&updates, 100, 20_000);
        // Rows that came after it fell asleep, each replaced once.
        (0..10_000).for_each(|row| updates.record(pairs(&[(100_000 + 2 * row, 100_001 + 2 * row)])));
        replace_often(&updates, 90, 1);
        assert!(updates.kept() < 2 * FEW, "{}", updates.kept());
        assert_eq!(updates.newest(TABLE, RowId(100)), Some(RowId(20_100)));
        assert_eq!(updates.newest(TABLE, RowId(5)), Some(RowId(91)));
        // It may have seen anything that was there from now on.
        drop(asleep);
        replace_often(&updates, 20_100, 20_000);
        assert_eq!(updates.newest(TABLE, RowId(30_000)), Some(RowId(40_100)));
        assert_eq!(updates.newest(TABLE, RowId(100)), Some(RowId(40_100)));
        let _asleep = watches.sleep(|| RowEnds::from([(TABLE, RowId(40_101))]));
        replace_often(&updates, 40_100, 2 * 45_000);
        assert_eq!(
            updates.newest(TABLE, RowId(30_000)),
            Some(RowId(130_100)),
            "seen before the second sleep"
        );
    }

    #[test]
    fn waits_that_overlap_for_ever_keep_only_what_is_theirs() {
        let updates = Arc::new(Updates::default());
        let mut before: Option<(Watches, Arc<Watch>, Asleep)> = None;
        for round in 0..20_u64 {
            let first = 1 + round * 5_000;
            let mut watches = Watches::default();
            let watch = watches.begin(&updates);
            let asleep = watches.sleep(|| RowEnds::from([(TABLE, RowId(1_000_000 + first))]));
            // Let go in the order of their waits.
            before = Some((watches, watch, asleep));
            (0..5_000).for_each(|row| updates.record(pairs(&[(first + row, 1_000_000 + first + row)])));
        }
        assert_eq!(updates.newest(TABLE, RowId(95_001)), Some(RowId(1_095_001)));
        assert!(updates.kept() < 2 * FEW, "{}", updates.kept());
        drop(before);
        assert_eq!(updates.kept(), 0);
    }
}
