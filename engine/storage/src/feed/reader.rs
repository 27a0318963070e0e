//! Reads the log along, commit by commit, up to what is durable.
//!
//! One per pipeline. It never looks beyond the length that the writer knows to be durable: what lies there may be
//! taken back. So nothing that it meets can be a torn write, and whatever does not open is damage.

use std::{fmt, sync::Arc};

use arrow::buffer::Buffer;
use sepal_types::{LogEnd, Lsn, TableId};

use super::{Commit, LogHold, net, retention::Held};
use crate::{
    StoreError, TenantStore,
    ops::decode_wanted,
    wal::{Cursor, LogFile, Next},
};

/// Commits in order. Opened by [`TenantStore::changes`].
pub struct ChangeReader {
    store: Arc<TenantStore>,
    held: Arc<Held>,
    wanted: Box<dyn Fn(TableId) -> bool + Send>,
    /// The last commit that was given, or that the reading began after.
    after: Lsn,
    file: LogFile,
    cursor: Cursor,
    /// The file after it, once one has begun.
    successor: Option<LogFile>,
    /// A commit that was read and does not decode: it must not be passed over.
    failed: Option<StoreError>,
}

/// A step of the reading.
enum Step {
    Commit(Lsn, Buffer),
    NextFile,
    CaughtUp,
}

impl ChangeReader {
    pub(super) fn open(
        store: Arc<TenantStore>,
        after: Lsn,
        hold: &LogHold,
        wanted: Box<dyn Fn(TableId) -> bool + Send>,
    ) -> Result<Self, StoreError> {
        let held = Arc::clone(&hold.0);
        let file = held.file_after(after)?;
        let file = store.log_file(file).map_err(|error| held.lost(after).unwrap_or(error))?;
        let cursor = Cursor::new(&file);
        Ok(Self { store, held, wanted, after, file, cursor, successor: None, failed: None })
    }

    /// The next durable commit; `None` when there is none yet, which costs no system call. Blocks for reading.
    ///
    /// Errors stay: the next call meets the same place again.
    #[expect(clippy::should_implement_trait, reason = "after None there may be more, unlike an iterator")]
    pub fn next(&mut self) -> Result<Option<Commit>, StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        loop {
            if let Some(lost) = self.held.lost(self.after) {
                return Err(lost);
            }
            let durable = self.store.log.durable();
            match self.step(durable) {
                // The file may begin before what was asked for.
                Ok(Step::Commit(lsn, _)) if lsn <= self.after => {}
                Ok(Step::Commit(lsn, payload)) => return self.decode(lsn, &payload).map(Some),
                Ok(Step::NextFile) => {}
                Ok(Step::CaughtUp) => return Ok(None),
                // A file that was removed while this read it is no damage.
                Err(error) => return Err(self.held.lost(self.after).unwrap_or(error)),
            }
        }
    }

    fn decode(&mut self, lsn: Lsn, payload: &Buffer) -> Result<Commit, StoreError> {
        let commit = decode_wanted(payload, &*self.wanted).and_then(|wanted| {
            let changes = net::changes(wanted.records)?;
            Ok(Commit { lsn, time_us: wanted.time_us, changes })
        });
        match commit {
            Ok(commit) => {
                self.after = lsn;
                Ok(commit)
            }
            Err(why) => {
                let error = self.file.corrupt(format!("commit {lsn}: {why}"));
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn step(&mut self, durable: LogEnd) -> Result<Step, StoreError> {
        let last = self.file.number() == durable.file;
        let end = if last { durable.bytes } else { self.successor()?.previous_length() };
        if self.cursor.offset() < end {
            match self.cursor.next(&self.file, end)? {
                Next::Commit(lsn, payload) => return Ok(Step::Commit(lsn, payload)),
                Next::Bad => {
                    let why = format!("the frame at byte {} does not open", self.cursor.offset());
                    return Err(self.file.corrupt(why));
                }
                Next::End => {}
            }
        }
        let (whole, lsn) = self.cursor.whole();
        if whole != end {
            let why = format!("its commits end at byte {whole}, but reached byte {end}");
            return Err(self.file.corrupt(why));
        }
        if last {
            return Ok(Step::CaughtUp);
        }
        let follows = self.successor()?.base_lsn();
        if follows != lsn {
            let why = format!("it is followed by a file after commit {follows}, but ends with commit {lsn}");
            return Err(self.file.corrupt(why));
        }
        if let Some(next) = self.successor.take() {
            self.cursor = Cursor::new(&next);
            self.file = next;
        }
        Ok(Step::NextFile)
    }

    /// The file after this one, which is not the last. Its header says how far this one is valid.
    fn successor(&mut self) -> Result<&LogFile, StoreError> {
        let next = match self.successor.take() {
            Some(next) => next,
            None => self.store.log_file(self.file.number() + 1)?,
        };
        Ok(self.successor.insert(next))
    }
}

impl fmt::Debug for ChangeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeReader")
            .field("after", &self.after)
            .field("file", &self.file.name())
            .finish_non_exhaustive()
    }
}

const _: fn() = || {
    fn sent<T: Send>() {}
    sent::<ChangeReader>();
};
