//! Segments whose index could not be built: those that are left alone, and those that are tried again, and when.
//!
//! Kept by the task that builds what is missing. Reads no clock and builds nothing.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use sepal_types::{FileId, TableId};

/// How long after a first failure comes another try; each further one takes twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// A segment and an index that it lacks.
pub(super) type Gap = (FileId, TableId);

/// What is known of gaps since the tenant was opened.
#[derive(Debug, Default)]
pub struct Gaps {
    /// Not to be looked at again: built, impossible, or gone from the head.
    done: HashSet<Gap>,
    failed: HashMap<Gap, Failed>,
}

#[derive(Debug)]
struct Failed {
    table: TableId,
    pause: Duration,
    again: Instant,
}

impl Gaps {
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.failed.is_empty()
    }

    /// Whether a gap is one to close at that time.
    pub(super) fn is_due(&self, gap: &Gap, now: Instant) -> bool {
        !self.done.contains(gap) && self.failed.get(gap).is_none_or(|failed| failed.again <= now)
    }

    /// Not to be looked at again, however it went.
    pub(super) fn leave(&mut self, gap: Gap) {
        self.failed.remove(&gap);
        self.done.insert(gap);
    }

    /// It could not be closed now. How long it rests.
    pub(super) fn fail(&mut self, gap: Gap, table: TableId, now: Instant) -> Duration {
        let known = self.failed.get(&gap);
        let pause = known.map_or(FIRST_PAUSE, |failed| (failed.pause * 2).min(LONGEST_PAUSE));
        self.failed.insert(gap, Failed { table, pause, again: now + pause });
        pause
    }

    /// When the next one is to be tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.failed.values().map(|failed| failed.again).min()
    }

    /// Tables and indexes that wait for another try.
    pub(super) fn failed(&self) -> Vec<(TableId, TableId)> {
        let mut failed: Vec<_> =
            self.failed.iter().map(|((_, index), failed)| (failed.table, *index)).collect();
        failed.sort_unstable();
        failed.dedup();
        failed
    }

    /// Forgets gaps that there are not any more.
    pub(super) fn retain(&mut self, is_open: impl Fn(&Gap) -> bool) {
        self.done.retain(&is_open);
        self.failed.retain(|gap, _| is_open(gap));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let (gap, other) = ((FileId([1; 16]), TableId(2)), (FileId([2; 16]), TableId(2)));
        let mut gaps = Gaps::default();
        let now = Instant::now();
        assert!(gaps.is_due(&gap, now) && gaps.next().is_none());
        let pauses: Vec<u64> = (0..11).map(|_| gaps.fail(gap, TableId(1), now).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let last = now + LONGEST_PAUSE;
        assert!(!gaps.is_due(&gap, now) && gaps.is_due(&gap, last) && gaps.is_due(&other, now));
        assert_eq!((gaps.next(), gaps.failed()), (Some(last), vec![(TableId(1), TableId(2))]));
        gaps.leave(gap);
        assert!(!gaps.is_due(&gap, last) && gaps.next().is_none() && gaps.failed().is_empty());
        gaps.fail(other, TableId(1), now);
        gaps.retain(|_| false);
        assert!(gaps.is_empty());
    }
}
