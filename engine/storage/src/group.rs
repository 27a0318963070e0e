//! Group commit: many sessions, one write, one fdatasync.
//!
//! [`TenantStore::commit`] queues its ops and takes the writer's lock. Whoever gets it first leads: it commits all
//! that is queued. Those who waited find their outcome when they get the lock. While a leader waits for the disk,
//! the next group gathers. [`TenantStore::submit`] queues too, but does not wait: one thread, which its callers provide,
//! leads group after group as long as there are any ([`TenantStore::lead_submitted`]), and tells each of its end.

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

/// Commits that wait for a leader.
#[derive(Default)]
pub(crate) struct Queue {
    pending: Vec<Arc<Pending>>,
    /// Somebody is in, or on the way to, [`TenantStore::lead_submitted`].
    led: bool,
}

#[cfg(test)]
impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }
}

/// Gives up the lead when the leader panics, so that the next one finds out and stops the store.
struct Leading<'a> {
    queue: &'a Mutex<Queue>,
    over: bool,
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.queue.lock().led = false;
        }
    }
}

/// A commit on its way.
pub(crate) struct Pending {
    base: Snapshot,
    ops: Vec<Op>,
    encoded: EncodedOps,
    outcome: Mutex<Outcome>,
}

/// What became of a commit, and who is to know.
enum Outcome {
    /// Whoever waits for the writer's lock looks here.
    Awaited(Option<Result<Snapshot, StoreError>>),
    /// To be called once.
    Told(Option<Told>),
}

/// Learns what became of a submitted commit. Runs on the leader's thread: it must not wait.
pub type Told = Box<dyn FnOnce(Result<Snapshot, StoreError>) + Send>;

impl Pending {
    fn settle(&self, settled: Result<Snapshot, StoreError>) {
        let told = match &mut *self.outcome.lock() {
            Outcome::Awaited(outcome) => {
                *outcome = Some(settled);
                return;
            }
            Outcome::Told(told) => told.take(),
        };
        if let Some(told) = told {
            told(settled);
        }
    }

    fn take(&self) -> Option<Result<Snapshot, StoreError>> {
        match &mut *self.outcome.lock() {
            Outcome::Awaited(outcome) => outcome.take(),
            Outcome::Told(_) => None,
        }
    }

    /// What the leader left.
    fn settled(&self) -> Result<Snapshot, StoreError> {
        self.take().unwrap_or_else(|| {
            Err(StoreError::Bug("a commit's leader left it without an outcome".to_owned()))
        })
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
        let pending = self.prepare(base, ops, Outcome::Awaited(None))?;
        self.queue.lock().pending.push(Arc::clone(&pending));
        let mut writer = self.writer.lock();
        if let Some(outcome) = pending.take() {
            return outcome;
        }
        let group = std::mem::take(&mut self.queue.lock().pending);
        self.lead(&mut writer, group);
        pending.settled()
    }

    /// Commits several transactions as one group, as if they had gathered while a leader was at work. `commit` gives
    /// a group to chance, and a simulation may not.
    #[cfg(test)]
    pub(crate) fn commit_together(
        &self,
        transactions: Vec<(Snapshot, Vec<Op>)>,
    ) -> Vec<Result<Snapshot, StoreError>> {
        let queued: Vec<_> = transactions
            .into_iter()
            .map(|(base, ops)| {
                let pending = self.prepare(&base, ops, Outcome::Awaited(None))?;
                self.queue.lock().pending.push(Arc::clone(&pending));
                Ok::<_, StoreError>(pending)
            })
            .collect();
        let mut writer = self.writer.lock();
        let group = std::mem::take(&mut self.queue.lock().pending);
        self.lead(&mut writer, group);
        drop(writer);
        queued.into_iter().map(|pending| pending.and_then(|pending| pending.settled())).collect()
    }

    /// Like [`Self::commit`], but returns at once: `told` learns of the end. When this gives `true`, nobody leads: the
    /// caller must see to it that a thread which may block calls [`Self::lead_submitted`]. On error `told` is not called.
    pub fn submit(&self, base: &Snapshot, ops: Vec<Op>, told: Told) -> Result<bool, StoreError> {
        if ops.is_empty() {
            told(Ok(self.snapshot()));
            return Ok(false);
        }
        let pending = self.prepare(base, ops, Outcome::Told(Some(told)))?;
        let mut queue = self.queue.lock();
        queue.pending.push(pending);
        Ok(!std::mem::replace(&mut queue.led, true))
    }

    /// Commits group after group until nothing is queued. Blocks for the disk.
    pub fn lead_submitted(&self) {
        let mut leading = Leading { queue: &self.queue, over: false };
        loop {
            let mut writer = self.writer.lock();
            let group = {
                let mut queue = self.queue.lock();
                if queue.pending.is_empty() {
                    queue.led = false;
                    // Under the queue's lock: whoever comes next leads.
                    leading.over = true;
                    return;
                }
                std::mem::take(&mut queue.pending)
            };
            self.lead(&mut writer, group);
        }
    }

    fn prepare(&self, base: &Snapshot, ops: Vec<Op>, outcome: Outcome) -> Result<Arc<Pending>, StoreError> {
        self.poison.check()?;
        let before = before_images(base, &ops, MAX_BEFORE_BYTES)?;
        let encoded = encode_ops(&ops, &before)?;
        Ok(Arc::new(Pending { base: base.clone(), ops, encoded, outcome: Mutex::new(outcome) }))
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
            let checked = next_state(&head, &pending, rules, self.clock.now_us());
            let snapshot = match checked.and_then(|state| self.name_cloned(state, &pending.ops)) {
                Ok(state) => Snapshot::new(state),
                Err(error) => {
                    pending.settle(Err(error));
                    continue;
                }
            };
            let mut marks = self.counters.take_unlogged(&pending.ops);
            marks.retain(|mark| !was_set(&accepted, mark));
            match self.append(writer, &snapshot, &pending, &marks) {
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
        snapshot: &Snapshot,
        pending: &Pending,
        marks: &[SequenceMark],
    ) -> Result<(), StoreError> {
        let mut parts = Vec::with_capacity(1 + pending.encoded.parts.len());
        parts.push(encode_head(&pending.encoded, marks, snapshot.time_us()));
        parts.extend(pending.encoded.parts.iter().cloned());
        writer.wal.append(snapshot.lsn(), &parts).map_err(|error| self.write_failed(writer, &error))
    }

    fn make_durable(&self, writer: &mut Writer) -> Result<(), StoreError> {
        writer.wal.flush().map_err(|error| self.write_failed(writer, &error))?;
        writer.wal.sync().map_err(|error| {
            // Even for want of room: an fdatasync that failed has lost an unknown part, and the next recovery may find
            // the commit in the page cache.
            self.poison.stop(StoreError::io("sync", &show(writer.wal.path()), &error))
        })
    }

    /// A full device: the group is taken back and the store goes on. Anything else stops it.
    fn write_failed(&self, writer: &mut Writer, error: &std::io::Error) -> StoreError {
        self.counters.forget_logged();
        let failure = StoreError::io("write", &show(writer.wal.path()), error);
        if !matches!(failure, StoreError::DiskFull { .. }) {
            return self.poison.stop(failure);
        }
        match writer.wal.roll_back() {
            Ok(()) => failure,
            // What was written may be there again after a restart.
            Err(error) => {
                let path = show(writer.wal.path());
                self.poison.stop(StoreError::io("take back a commit in", &path, &error))
            }
        }
    }
}

/// The head with one commit more, if it still fits. Its time is the clock's, unless that went back or stands still.
fn next_state(head: &Snapshot, pending: &Pending, rules: Rules, now_us: i64) -> Result<State, StoreError> {
    pending.ops.iter().try_for_each(|op| head.check_base(&pending.base, op))?;
    let mut state = head.state().clone();
    state.lsn = Lsn(head.lsn().0 + 1);
    state.time_us = now_us.max(head.time_us().saturating_add(1));
    pending.ops.iter().try_for_each(|op| state.apply(op, rules))?;
    Ok(state)
}

/// A serial that an earlier commit of the group set: the mark counts from before that, and would undo it.
fn was_set(accepted: &[Accepted], mark: &SequenceMark) -> bool {
    accepted.iter().flat_map(|earlier| &earlier.pending.ops).any(|op| {
        matches!(op, Op::SetSequence { table, column, .. } if *table == mark.table && *column == mark.column)
    })
}
