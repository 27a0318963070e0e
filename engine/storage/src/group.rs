//! Group commit: many sessions, one write, one fdatasync.
//!
//! [`TenantStore::commit`] queues its ops and takes the writer's lock. Whoever gets it first leads: it commits all
//! that is queued. Those who waited find their outcome when they get the lock. While a leader waits for the disk,
//! the next group gathers.

mod mark;

use std::sync::Arc;

use parking_lot::Mutex;
use sepal_types::Lsn;

use crate::{
    Op, Snapshot, StoreError, TenantStore,
    feed::{MAX_BEFORE_BYTES, before_images},
    ops::{EncodedOps, SequenceMark, encode_head, encode_ops},
    paths::show,
    snapshot::{Rules, State},
    wal::WalFile,
};

/// The one place that appends to the log.
pub(crate) struct Writer {
    pub wal: WalFile,
    /// Counts log files of this run: the memory chunks committed into one belong together.
    pub generation: u64,
    /// A leader is at work. Found set, it means that one panicked and left the log in an unknown state.
    busy: bool,
}

impl Writer {
    pub(crate) const fn new(wal: WalFile) -> Self {
        Self { wal, generation: 1, busy: false }
    }
}

/// A commit on its way.
pub(crate) struct Pending {
    base: Snapshot,
    ops: Vec<Op>,
    encoded: EncodedOps,
    outcome: Mutex<Option<Result<Snapshot, StoreError>>>,
}

impl Pending {
    fn settle(&self, outcome: Result<Snapshot, StoreError>) {
        *self.outcome.lock() = Some(outcome);
    }
}

/// A commit that was appended and waits for the sync.
struct Accepted {
    pending: Arc<Pending>,
    snapshot: Snapshot,
    marks: Vec<SequenceMark>,
}

impl TenantStore {
    /// Makes `ops` durable and visible, all or none. `base` is the snapshot that the transaction read from: a row
    /// that was deleted since is a [`StoreError::WriteConflict`], and so is a definition that was changed since.
    /// Returns the snapshot that ends with this commit. Blocks for one fdatasync, shared with other sessions.
    ///
    /// Of a captured table every deleted row is read from `base`, to be logged. Its rows go by [`Op::Delete`] or with
    /// the table: [`Op::Truncate`] is refused.
    pub fn commit(&self, base: &Snapshot, ops: Vec<Op>) -> Result<Snapshot, StoreError> {
        if ops.is_empty() {
            return Ok(self.snapshot());
        }
        self.poison.check()?;
        let before = before_images(base, &ops, MAX_BEFORE_BYTES)?;
        let encoded = encode_ops(&ops, &before)?;
        let pending = Arc::new(Pending { base: base.clone(), ops, encoded, outcome: Mutex::new(None) });
        self.queue.lock().push(Arc::clone(&pending));
        let mut writer = self.writer.lock();
        if let Some(outcome) = pending.outcome.lock().take() {
            return outcome;
        }
        let group = std::mem::take(&mut *self.queue.lock());
        self.lead(&mut writer, group);
        let outcome = pending.outcome.lock().take();
        outcome.unwrap_or_else(|| {
            Err(StoreError::Bug("a commit's leader left it without an outcome".to_owned()))
        })
    }

    fn lead(&self, writer: &mut Writer, group: Vec<Arc<Pending>>) {
        if writer.busy {
            self.poison.set("a commit ended in the middle".to_owned());
        }
        if let Err(error) = self.poison.check() {
            group.iter().for_each(|pending| pending.settle(Err(error.clone())));
            return;
        }
        writer.busy = true;
        let outcome = self.append_all(writer, group);
        writer.busy = false;
        let Some(last) = outcome.last() else { return };
        // One store of the head for the whole group: readers between would gain nothing.
        self.set_head(last.snapshot.clone());
        // After the head: what the feed gives, a snapshot shows.
        self.log.written(writer.wal.synced_length());
        for accepted in outcome {
            self.counters.committed(&accepted.marks, &accepted.pending.ops);
            accepted.pending.settle(Ok(accepted.snapshot));
        }
    }

    /// Checks and appends each commit, then syncs. Whoever is not among the returned has got an error.
    fn append_all(&self, writer: &mut Writer, group: Vec<Arc<Pending>>) -> Vec<Accepted> {
        let rules = Rules { generation: writer.generation, trusted: false };
        let mut head = self.snapshot();
        let mut accepted: Vec<Accepted> = Vec::new();
        let mut failure = None;
        for pending in group {
            if let Some(error) = &failure {
                pending.settle(Err(StoreError::clone(error)));
                continue;
            }
            let snapshot = match next_state(&head, &pending, rules) {
                Ok(state) => Snapshot::new(state),
                Err(error) => {
                    pending.settle(Err(error));
                    continue;
                }
            };
            let mut marks = self.counters.take_unlogged(&pending.ops);
            marks.retain(|mark| !was_set(&accepted, mark));
            match self.append(writer, snapshot.lsn(), &pending, &marks) {
                Ok(()) => {
                    head = snapshot.clone();
                    accepted.push(Accepted { pending, snapshot, marks });
                }
                Err(error) => {
                    pending.settle(Err(error.clone()));
                    failure = Some(error);
                }
            }
        }
        if failure.is_none() && !accepted.is_empty() {
            failure = self.make_durable(writer).err();
        }
        if let Some(error) = failure {
            accepted.iter().for_each(|accepted| accepted.pending.settle(Err(error.clone())));
            return Vec::new();
        }
        accepted
    }

    fn append(
        &self,
        writer: &mut Writer,
        lsn: Lsn,
        pending: &Pending,
        marks: &[SequenceMark],
    ) -> Result<(), StoreError> {
        let mut parts = vec![encode_head(&pending.encoded, marks)];
        parts.extend(pending.encoded.parts.iter().cloned());
        writer.wal.append(lsn, &parts).map_err(|error| self.write_failed(writer, &error))
    }

    fn make_durable(&self, writer: &mut Writer) -> Result<(), StoreError> {
        writer.wal.flush().map_err(|error| self.write_failed(writer, &error))?;
        writer.wal.sync().map_err(|error| {
            // Even for want of room: an fdatasync that failed has lost an unknown part.
            let failure = StoreError::io("sync", &show(writer.wal.path()), &error);
            self.poison.set(failure.to_string());
            failure
        })
    }

    /// A full device: the group is taken back and the store goes on. Anything else stops it.
    fn write_failed(&self, writer: &mut Writer, error: &std::io::Error) -> StoreError {
        self.counters.forget_logged();
        let failure = StoreError::io("write", &show(writer.wal.path()), error);
        if !matches!(failure, StoreError::DiskFull { .. }) || writer.wal.roll_back().is_err() {
            self.poison.set(failure.to_string());
        }
        failure
    }
}

/// The head with one commit more, if it still fits.
fn next_state(head: &Snapshot, pending: &Pending, rules: Rules) -> Result<State, StoreError> {
    pending.ops.iter().try_for_each(|op| head.check_base(&pending.base, op))?;
    let mut state = head.state().clone();
    state.lsn = Lsn(head.lsn().0 + 1);
    pending.ops.iter().try_for_each(|op| state.apply(op, rules))?;
    Ok(state)
}

/// A serial that an earlier commit of the group set: the mark counts from before that, and would undo it.
fn was_set(accepted: &[Accepted], mark: &SequenceMark) -> bool {
    accepted.iter().flat_map(|earlier| &earlier.pending.ops).any(|op| {
        matches!(op, Op::SetSequence { table, column, .. } if *table == mark.table && *column == mark.column)
    })
}
