//! A snapshot of the past: a version's tables, and the log after it up to the moment.
//!
//! Called by whoever asks for a moment. Waits for no checkpoint: it holds the version while it reads. What it returns
//! is a snapshot like any other, whose chunks keep their files by being held. Never writes.

use std::{collections::VecDeque, sync::Arc};

use sepal_types::LogEnd;

use super::{AsOf, Until, Version};
use crate::{
    Snapshot, StoreError, TenantStore,
    disk::MISSING,
    manifest,
    store::load::{Opened, Opener},
    wal::{Cursor, LogFile, Next},
};

/// Past snapshots are remembered up to this many, and this much of their rows in memory: a report asks for the same
/// moment again and again.
const REMEMBERED: usize = 4;
const REMEMBERED_BYTES: u64 = 64 << 20;

/// Past snapshots that were asked for last, the newest first.
#[derive(Default)]
pub(crate) struct Past(VecDeque<Remembered>);

struct Remembered {
    snapshot: Snapshot,
    /// When the commit after it was made; if that is not known, just after its own.
    until_us: i64,
    bytes: u64,
}

impl Past {
    fn find(&self, until: Until) -> Option<Snapshot> {
        let is_it = |past: &&Remembered| match until {
            Until::Commit(lsn) => past.snapshot.lsn() == lsn,
            Until::Time(time_us) => (past.snapshot.time_us()..past.until_us).contains(&time_us),
        };
        self.0.iter().find(is_it).map(|past| past.snapshot.clone())
    }

    fn put(&mut self, snapshot: &Snapshot, until_us: i64) {
        let chunks = snapshot.tables().flat_map(|table| &table.chunks);
        let bytes = chunks.filter_map(|chunk| chunk.chunk.as_memory()).map(|memory| memory.bytes()).sum();
        self.0.push_front(Remembered { snapshot: snapshot.clone(), until_us, bytes });
        let mut sum = 0;
        let fits = |past: &Remembered| {
            sum += past.bytes;
            sum <= REMEMBERED_BYTES
        };
        let count = self.0.iter().take(REMEMBERED).map(fits).take_while(|fits| *fits).count();
        self.0.truncate(count);
    }

    /// What is remembered keeps files: nothing may, once history is trimmed.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

impl TenantStore {
    /// All tables as they were. Blocks for reading: the newest checkpoint before the moment, and the log from there.
    ///
    /// Errors: [`StoreError::NoSuchPast`] for a moment that is not kept any more, [`StoreError::NotYet`] for one in
    /// the future, [`StoreError::NoSuchSnapshot`]; [`StoreError::Corrupt`] where what is kept cannot be read. A named
    /// snapshot is there without the tables of which something is damaged ([`Snapshot::unreadable`]).
    pub fn snapshot_as_of(&self, at: &AsOf) -> Result<Snapshot, StoreError> {
        let until = match (Until::of(at), at) {
            (None, AsOf::Named { environment, name }) => return self.named_snapshot(environment, name),
            (until, _) => until.ok_or_else(|| StoreError::Bug(format!("{at:?} has no place in the log")))?,
        };
        // Together, and not in the middle of a group: the head never is ahead of what is durable.
        let (head, durable) = {
            let _writer = self.writer.lock();
            (self.snapshot(), self.log.durable())
        };
        let newest_us = head.time_us().max(self.clock.now_us());
        match until {
            Until::Commit(lsn) if lsn > head.lsn() => {
                let newest = Until::Commit(head.lsn()).to_string();
                return Err(StoreError::NotYet { asked: until.to_string(), newest });
            }
            Until::Time(time_us) if time_us > newest_us => {
                let newest = Until::Time(newest_us).to_string();
                return Err(StoreError::NotYet { asked: until.to_string(), newest });
            }
            _ => {}
        }
        let is_head = match until {
            Until::Commit(lsn) => lsn == head.lsn(),
            Until::Time(time_us) => time_us >= head.time_us(),
        };
        if is_head {
            return Ok(head);
        }
        if let Some(found) = self.past.lock().find(until) {
            return Ok(found);
        }
        let (base, _hold) = self.history.base(until, || self.log.oldest())?;
        let keys = self.keys();
        let opener = self.opener(&keys);
        let mut opened = self.open_version(opener, base.number)?;
        if !until.is_at(&base) {
            let read = self.replay_until(opener, &mut opened, until, base.wal_from, durable);
            read.map_err(|error| self.unkept(&base, until, error))?;
        }
        if let Until::Commit(lsn) = until
            && opened.state.lsn != lsn
        {
            let why = format!("reading on to commit {lsn} ended at commit {}", opened.state.lsn);
            return Err(StoreError::Bug(why));
        }
        let next_us = opened.ended_by_us.unwrap_or(opened.state.time_us.saturating_add(1));
        let snapshot = opened.into_past();
        self.past.lock().put(&snapshot, next_us);
        Ok(snapshot)
    }

    fn named_snapshot(&self, environment: &str, name: &str) -> Result<Snapshot, StoreError> {
        let (named, _hold) = self.history.named(environment, name)?;
        if let Some(found) = self.past.lock().find(Until::Commit(named.lsn)) {
            return Ok(found);
        }
        let keys = self.keys();
        let opener = self.opener(&keys);
        let (manifest, _) =
            manifest::read(&self.disk, &self.paths, self.tenant, opener.keys, named.manifest)?;
        // A name may keep what a repair had no way with: the tables that do not need it are there.
        let snapshot = opener.readable(&manifest)?.into_past();
        let next_us = snapshot.time_us().saturating_add(1);
        // What could not be read now may be readable the next time.
        if snapshot.damage().is_none() {
            self.past.lock().put(&snapshot, next_us);
        }
        Ok(snapshot)
    }

    /// A name promises nothing of what came after it. Where somebody else still keeps that log, a file that a clone
    /// names in it may be gone with the past.
    fn unkept(&self, base: &Version, until: Until, error: StoreError) -> StoreError {
        let is_gone = matches!(&error, StoreError::Corrupt { why, .. } if why == MISSING);
        match self.history.after_named(base.number) {
            Some(next) if is_gone => {
                StoreError::NoSuchPast { asked: until.to_string(), oldest: until.moment(next) }
            }
            _ => error,
        }
    }

    fn open_version(&self, opener: Opener<'_>, number: u64) -> Result<Opened, StoreError> {
        let (manifest, _) = manifest::read(&self.disk, &self.paths, self.tenant, opener.keys, number)?;
        opener.manifest(&manifest)
    }

    /// Applies the log from its file `from` on. What is durable can be read: anything else is damage.
    fn replay_until(
        &self,
        opener: Opener<'_>,
        opened: &mut Opened,
        until: Until,
        from: u64,
        durable: LogEnd,
    ) -> Result<(), StoreError> {
        let mut file = self.log_file(from)?;
        loop {
            let next =
                if file.number() < durable.file { Some(self.log_file(file.number() + 1)?) } else { None };
            let end = next.as_ref().map_or(durable.bytes, LogFile::previous_length);
            if file.base_lsn() != opened.state.lsn {
                let (follows, lsn) = (file.base_lsn(), opened.state.lsn);
                return Err(
                    file.corrupt(format!("it follows commit {follows}, but commit {lsn} came before"))
                );
            }
            let mut cursor = Cursor::new(&file);
            while cursor.offset() < end {
                match cursor.next(&file, end)? {
                    Next::Commit(lsn, payload) => {
                        if opened.replay(opener, Some(until), (file.name(), lsn), &payload)?.is_break() {
                            return Ok(());
                        }
                    }
                    Next::End => break,
                    Next::Bad => {
                        let why = format!("the frame at byte {} does not open", cursor.offset());
                        return Err(file.corrupt(why));
                    }
                }
            }
            if cursor.whole().0 != end {
                let why = format!("its commits end at byte {}, but reached byte {end}", cursor.whole().0);
                return Err(file.corrupt(why));
            }
            match next {
                Some(next) => file = next,
                None => return Ok(()),
            }
        }
    }
}

impl Opened {
    /// To be read, not to be gone on from.
    fn into_past(self) -> Snapshot {
        let mut state = self.state;
        state.past_sequences = Some(Arc::new(self.counters.values().sequences));
        Snapshot::new(state)
    }
}
