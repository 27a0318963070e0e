//! Which log files there are, how long they are, and who still needs which: pipelines here, the past from `history`.
//!
//! Kept in memory beside the files: `group` says how far the newest is durable, a checkpoint that a new one begins and
//! what a recovery needs from then on. Holds answer to it without I/O, and without waiting for a commit. Never
//! removes a file: it says from which on they must stay.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sepal_types::{LogEnd, Lsn};

use crate::{StoreError, wal::FileSpan};

/// The log's files when a store opens.
pub(crate) struct Kept {
    /// By number, without a gap up to `current`.
    pub older: Vec<FileSpan>,
    pub current: FileSpan,
    /// The first that a recovery needs.
    pub needed_from: u64,
    /// Whether files that nobody holds may go.
    pub released: bool,
    /// What stands before `older` and cannot be read.
    pub damage: Option<StoreError>,
}

/// The files of one log, and its holds.
pub(crate) struct LogFiles {
    state: Mutex<State>,
    retention_bytes: u64,
}

struct State {
    files: Kept,
    /// Those that are still there; the dead ones are swept out by the next trim.
    holds: Vec<Weak<Held>>,
    /// The first file that one of them keeps, or nobody has let go of yet.
    held_from: u64,
}

/// Keeps the log's files from a commit on. Dropping it lets them go, once no [`crate::ChangeReader`] of it is left.
pub struct LogHold(pub(super) Arc<Held>);

/// A hold, shared with its readers.
pub(super) struct Held {
    files: Arc<LogFiles>,
    /// The first file, of a hold of all of them that has not moved yet: those without a commit, which every opening
    /// leaves, stand before the one with the next commit. `u64::MAX` otherwise.
    first: AtomicU64,
    /// An lsn, which only grows.
    after: AtomicU64,
    broken: AtomicBool,
}

impl LogFiles {
    pub(crate) fn new(files: Kept, retention_bytes: u64) -> Arc<Self> {
        let state = State { files, holds: Vec::new(), held_from: 0 };
        Arc::new(Self { state: Mutex::new(state), retention_bytes })
    }

    /// The current file is durable up to here.
    pub(crate) fn written(&self, bytes: u64) {
        self.state.lock().files.current.bytes = bytes;
    }

    /// Bytes of all files that are there.
    pub(crate) fn bytes(&self) -> u64 {
        let state = self.state.lock();
        state.files.older.iter().chain([&state.files.current]).map(|file| file.bytes).sum()
    }

    /// The current file is followed by a new one.
    pub(crate) fn rotate(&self, next: FileSpan) {
        let mut state = self.state.lock();
        let finished = std::mem::replace(&mut state.files.current, next);
        state.files.older.push(finished);
    }

    /// The last file, and how far it is durable and known to be.
    pub(crate) fn durable(&self) -> LogEnd {
        let state = self.state.lock();
        LogEnd { file: state.files.current.number, bytes: state.files.current.bytes }
    }

    /// The files with this number and above, oldest first, and the newest one's number.
    pub(super) fn spans(&self, from: u64) -> (Vec<FileSpan>, u64) {
        let state = self.state.lock();
        let older = state.files.older.iter().filter(|file| file.number >= from);
        (older.chain([&state.files.current]).copied().collect(), state.files.current.number)
    }

    /// Files that a recovery would read, and their bytes.
    pub(crate) fn needed(&self) -> (u64, u64) {
        let state = self.state.lock();
        let files = state.files.older.iter().filter(|file| file.number >= state.files.needed_from);
        files.chain([&state.files.current]).fold((0, 0), |(count, sum), file| (count + 1, sum + file.bytes))
    }

    /// Bytes of files that no recovery needs any more, but a hold, as of the last trim.
    pub(crate) fn held_bytes(&self) -> u64 {
        let state = self.state.lock();
        let held = state.held_from..state.files.needed_from;
        state.files.older.iter().filter(|file| held.contains(&file.number)).map(|file| file.bytes).sum()
    }

    /// Bytes of finished files from one number to below another.
    pub(crate) fn bytes_between(&self, from: u64, to: u64) -> u64 {
        let state = self.state.lock();
        let between = state.files.older.iter().filter(|file| (from..to).contains(&file.number));
        between.map(|file| file.bytes).sum()
    }

    /// A recovery needs the files from this one on. Older ones go with the next trim.
    pub(crate) fn begins_at(&self, needed_from: u64) {
        self.state.lock().files.needed_from = needed_from;
    }

    /// The first file that is there.
    pub(crate) fn oldest(&self) -> u64 {
        self.state.lock().files.oldest().number
    }

    /// From now on a trim removes what nobody holds.
    pub(super) fn release(&self) {
        self.state.lock().files.released = true;
    }

    /// A recovery needs the files from `needed_from` on, whoever asks for the past those from `past_from` on. Breaks
    /// the holds that keep too much before what a recovery needs, and returns the first file that must stay. The ones
    /// below are forgotten here.
    pub(crate) fn trim(&self, needed_from: u64, past_from: u64) -> u64 {
        let mut state = self.state.lock();
        state.files.needed_from = needed_from;
        if !state.files.released {
            return 0;
        }
        let State { files, holds, held_from } = &mut *state;
        holds.retain(|held| held.strong_count() > 0);
        // The oldest first, so that the log tells of them in that order.
        let mut open: Vec<(Lsn, Arc<Held>)> = holds
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|held| !held.is_broken())
            .map(|held| (held.after(), held))
            .collect();
        open.sort_by_key(|(after, _)| *after);
        let mut keep_from = needed_from;
        for (after, hold) in open {
            let (held, limit) = (files.held_bytes(after, needed_from), self.retention_bytes);
            if held > limit {
                hold.broken.store(true, Ordering::Release);
                tracing::warn!(%after, held, limit, "the log is no longer kept for a pipeline that fell behind");
                continue;
            }
            if held > limit - limit / 5 {
                tracing::warn!(%after, held, limit, "a pipeline that falls behind keeps much of the log");
            }
            let wanted = files.file_after(after).unwrap_or(needed_from).min(hold.first());
            keep_from = keep_from.min(wanted);
        }
        *held_from = keep_from;
        let keep_from = keep_from.min(past_from);
        files.older.retain(|file| file.number >= keep_from);
        files.damage = None;
        keep_from
    }

    pub(super) fn hold(self: &Arc<Self>, after: Lsn) -> Result<LogHold, StoreError> {
        let mut state = self.state.lock();
        if state.files.file_after(after).is_none() {
            return Err(state.files.gone(after));
        }
        Ok(self.enlist(&mut state, after, u64::MAX))
    }

    /// From the first file that is there on.
    pub(super) fn hold_whole(self: &Arc<Self>) -> LogHold {
        let mut state = self.state.lock();
        let FileSpan { base_lsn, number, .. } = state.files.oldest();
        self.enlist(&mut state, base_lsn, number)
    }

    fn enlist(self: &Arc<Self>, state: &mut State, after: Lsn, first: u64) -> LogHold {
        let held = Arc::new(Held {
            files: Arc::clone(self),
            first: AtomicU64::new(first),
            after: AtomicU64::new(after.0),
            broken: AtomicBool::new(false),
        });
        state.holds.push(Arc::downgrade(&held));
        LogHold(held)
    }
}

impl Kept {
    /// The first file that is there.
    fn oldest(&self) -> FileSpan {
        self.older.first().copied().unwrap_or(self.current)
    }

    /// The file in which the commit after this one is, or will be.
    fn file_after(&self, after: Lsn) -> Option<u64> {
        if self.current.base_lsn <= after {
            return Some(self.current.number);
        }
        let following = self.older.partition_point(|file| file.base_lsn <= after);
        following.checked_sub(1).map(|index| self.older[index].number)
    }

    /// Bytes of the files from that one to the one with the number `end`, which would be there anyway.
    fn held_bytes(&self, after: Lsn, end: u64) -> u64 {
        let held = self.file_after(after).unwrap_or(0)..end;
        self.older.iter().filter(|file| held.contains(&file.number)).map(|file| file.bytes).sum()
    }

    fn gone(&self, after: Lsn) -> StoreError {
        let oldest = self.oldest().base_lsn;
        self.damage.clone().unwrap_or(StoreError::LogGone { after, oldest })
    }
}

impl LogHold {
    /// Nothing up to this commit is needed any more. A hold never moves back.
    pub fn advance(&self, after: Lsn) {
        self.0.after.fetch_max(after.0, Ordering::AcqRel);
        self.0.first.store(u64::MAX, Ordering::Release);
    }

    /// Whether a checkpoint has taken away what this hold asked to keep.
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }

    /// Bytes of finished log files that stay for this hold, or will after the next checkpoint: what that compares
    /// with [`crate::StoreOptions::log_retention_bytes`]. 0 for a broken one.
    pub fn held_bytes(&self) -> u64 {
        if self.is_broken() {
            return 0;
        }
        let state = self.0.files.state.lock();
        state.files.held_bytes(self.0.after(), state.files.current.number)
    }
}

impl Held {
    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    fn after(&self) -> Lsn {
        Lsn(self.after.load(Ordering::Acquire))
    }

    /// Why the commit after this one can no longer be read, `None` as long as it can.
    pub(super) fn lost(&self, after: Lsn) -> Option<StoreError> {
        self.is_broken().then(|| self.files.state.lock().files.gone(after))
    }

    /// The file in which the commit after this one is, or will be.
    pub(super) fn file_after(&self, after: Lsn) -> Result<u64, StoreError> {
        let kept = self.after();
        if after < kept {
            return Err(StoreError::Bug(format!(
                "changes after commit {after} of a hold after commit {kept}"
            )));
        }
        let state = self.files.state.lock();
        let found = if self.is_broken() { None } else { state.files.file_after(after) };
        found.ok_or_else(|| state.files.gone(after))
    }
}

impl fmt::Debug for LogHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHold")
            .field("after", &self.0.after())
            .field("broken", &self.0.is_broken())
            .finish_non_exhaustive()
    }
}
