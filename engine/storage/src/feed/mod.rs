//! What was committed, read back from the log: inserted rows, deleted rows, definitions.
//!
//! `database` delivers it to where tenants want their changes. Nothing is logged twice for it: the feed is the log,
//! kept as long as somebody holds it. A table whose definition says `captured` logs the rows that a commit deletes
//! besides their ids (`before`), because the segments that had them may be gone when somebody reads of it.
//!
//! 1. [`TenantStore::hold_log`] keeps the log's files from a commit on (`retention` knows the files and the holds).
//! 2. [`TenantStore::changes`] opens the file that the commit after it is in. [`ChangeReader::next`] reads on to what
//!    is durable, file after file, and gives a [`Commit`] at a time (`reader`), without rows that came and went
//!    within it (`net`).
//! 3. Whoever has made the changes of a commit durable elsewhere says so with [`LogHold::advance`]; the next
//!    checkpoint removes the files that nobody needs any more.
//! 4. A hold that keeps more than [`crate::StoreOptions::log_retention_bytes`] is broken by that checkpoint: its reader
//!    gets [`StoreError::LogGone`].
//!
//! Never writes. Never gives a commit that a crash could take back, and never one that no snapshot shows yet.

mod archive;
mod before;
mod net;
mod reader;
mod retention;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use arrow::record_batch::RecordBatch;
use roaring::RoaringTreemap;
use sepal_types::{Lsn, RowId, TableDef, TableId};

use crate::{StoreError, TenantStore};

pub use archive::{LogFileInfo, closed_log_files, closed_manifest};
pub(crate) use before::{MAX_BEFORE_BYTES, before_images};
pub use reader::ChangeReader;
pub use retention::LogHold;
pub(crate) use retention::{Kept, LogFiles};

/// One commit's changes, in the order in which it made them.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    pub lsn: Lsn,
    /// When it was made, in microseconds since 1970; `None` for one of a log that does not know.
    pub time_us: Option<i64>,
    /// Of the tables that were asked for; there may be none.
    pub changes: Vec<Change>,
}

/// What a commit did to a table. An UPDATE is a delete and an insert.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Rows `first_row`, `first_row + 1`, … with the columns that the table had then, named by
    /// [`crate::stored_name`], typed by [`crate::arrow_type`].
    Insert {
        table: TableId,
        first_row: RowId,
        rows: RecordBatch,
    },
    /// `before`: what the rows were, in the order of `rows`, with columns as in an insert. Without rows and columns
    /// where the table was not captured when they were deleted.
    Delete {
        table: TableId,
        rows: Vec<RowId>,
        before: RecordBatch,
    },
    /// The table was created or altered: its definition from here on. Of a clone's first rows, which it shares with
    /// another table, nothing is said.
    Define(TableDef),
    Drop(TableId),
    /// All rows went at once. A captured table's TRUNCATE is a delete of its rows instead.
    Truncate(TableId),
}

impl TenantStore {
    /// The commits after `after`, which `hold` keeps. Only changes of tables that `wanted` says yes to are decoded.
    /// Blocks for reading.
    ///
    /// Errors: [`StoreError::LogGone`] when the hold is broken; [`StoreError::Corrupt`].
    pub fn changes(
        self: &Arc<Self>,
        after: Lsn,
        hold: &LogHold,
        wanted: Box<dyn Fn(TableId) -> bool + Send>,
    ) -> Result<ChangeReader, StoreError> {
        ChangeReader::open(Arc::clone(self), after, hold, wanted)
    }

    /// Keeps the log's files from the commit after `after` on, until the hold and every reader of it are dropped, or a
    /// checkpoint breaks it for keeping too much.
    ///
    /// Whoever is to see everything since a commit of its own takes the hold at the head before that commit.
    ///
    /// Errors: [`StoreError::LogGone`] when the files are gone already, [`StoreError::Corrupt`] when they are damaged.
    pub fn hold_log(&self, after: Lsn) -> Result<LogHold, StoreError> {
        let head = self.snapshot().lsn();
        if after > head {
            return Err(StoreError::Bug(format!(
                "changes after commit {after} of a log that ends at {head}"
            )));
        }
        self.log.hold(after)
    }

    /// Keeps every log file that is there, for whoever does not know yet what of it he needs. Opens none: where the
    /// process has no descriptor left, or a device fails for a moment, the log is kept as well.
    pub fn hold_whole_log(&self) -> LogHold {
        self.log.hold_whole()
    }

    /// A store that was opened keeps every log file that it found until this is called: by then its owner has taken
    /// its holds. Later calls remove what holds have let go since the last checkpoint. Waits for one that is under way.
    pub fn release_unheld_log(&self) -> Result<(), StoreError> {
        let maintenance = self.maintenance.lock();
        self.poison.check()?;
        self.log.release();
        self.trim_log(maintenance.manifest.wal_from).map(drop)
    }
}

/// The rows that a commit inserts: deleted by the same commit, nobody outside has ever seen them.
#[derive(Default)]
struct OwnRows(HashMap<TableId, RoaringTreemap>);

impl OwnRows {
    fn insert(&mut self, table: TableId, first: RowId, count: usize) {
        if count > 0 {
            let end = first.0.saturating_add(count as u64);
            self.0.entry(table).or_default().insert_range(first.0..end);
        }
    }

    fn contains(&self, table: TableId, row: RowId) -> bool {
        self.0.get(&table).is_some_and(|rows| rows.contains(row.0))
    }
}
