//! The first step of a checkpoint: the point up to which it writes.
//!
//! Holds the writer's lock for the creation of one small file.

use super::{Maintenance, plan};
use crate::{
    Snapshot, StoreError, TenantStore,
    counters::CounterValues,
    disk::PublishError,
    wal::{WalFile, WalStart},
};

/// The head at the freeze.
pub(super) struct Frozen {
    pub snapshot: Snapshot,
    /// The log file that begins after it.
    pub wal_from: u64,
    pub counters: CounterValues,
}

impl TenantStore {
    /// Starts a new log file and gives the head before it. `None` when the newest manifest says it all.
    pub(super) fn freeze(&self, maintenance: &Maintenance) -> Result<Option<Frozen>, StoreError> {
        let mut writer = self.writer.lock();
        self.poison.check()?;
        let snapshot = self.snapshot();
        let oldest = maintenance.manifest.rekey.as_ref().map_or(0, |rekey| rekey.wal_from);
        let settled = snapshot.lsn() == maintenance.manifest.lsn
            && writer.wal.number() == maintenance.manifest.wal_from
            // A rotation of keys wants another log file.
            && writer.wal.is_under(&self.keys())
            && writer.wal.number() >= oldest;
        let busy = self.untouched();
        if settled
            && snapshot.tables().all(|table| plan::flush(table, &busy, self.segment_bytes).rewrite.is_empty())
        {
            // The log has no commit yet: what is noted of clones is of commits that came to nothing.
            self.cloned.lock().clear();
            return Ok(None);
        }
        // A flush before this one began it and came to nothing: where flushes fail for hours, each would leave a file.
        let is_begun = writer.generation > 1
            && writer.wal.is_fresh()
            && writer.wal.number() > maintenance.manifest.wal_from
            && writer.wal.is_under(&self.keys())
            && writer.wal.number() >= oldest;
        if is_begun {
            let wal_from = writer.wal.number();
            return Ok(Some(Frozen { snapshot, wal_from, counters: self.counters.values() }));
        }
        let start = WalStart {
            number: writer.wal.number() + 1,
            base_lsn: snapshot.lsn(),
            previous_length: writer.wal.synced_length(),
        };
        let next = match WalFile::create(&self.disk, &self.paths, self.tenant, &self.keys(), start) {
            Ok(next) => next,
            Err(PublishError::Before(error)) => return Err(error),
            Err(PublishError::Unknown(error)) => {
                // The new file may exist after a restart, and its header bounds the old one: no more appends.
                return Err(self.poison.stop(error));
            }
        };
        self.log.rotate(start.span());
        writer.generation += 1;
        writer.wal = next;
        Ok(Some(Frozen { snapshot, wal_from: start.number, counters: self.counters.values() }))
    }
}
