//! Where a pipeline's events come from: the rows that the table had at the start, then the tenant's log.
//!
//! Owned by `producer`, which moves it to a blocking thread for each call. A source only reads: writers never wait
//! for it.

use std::{collections::VecDeque, sync::Arc};

use arrow::{array::AsArray, datatypes::DataType};
use sepal_storage::{Change, ChangeReader, Commit, LogHold, TenantStore};
use sepal_types::{Lsn, Result, TableId};

use super::{
    event::{Events, View},
    position::Position,
    scan::Scan,
};

/// Rows of the table that are read at once in the snapshot phase.
const WINDOW_ROWS: usize = 4096;

/// Where a pipeline begins to read.
#[derive(Clone, Debug)]
pub struct Begin {
    /// The commit as of which the snapshot is, or after which the feed begins.
    pub start: Lsn,
    /// Whether the table's rows come first.
    pub snapshot: bool,
    /// Acknowledged up to here.
    pub position: Option<Position>,
    /// The pipeline begins with the commit after the one that made it, which is after `start`.
    pub creation: Option<Creation>,
}

/// How the commit that made a pipeline is recognised: it inserts its definition, which has its id.
#[derive(Clone, Debug)]
pub struct Creation {
    /// The system table `objects`.
    pub objects: TableId,
    pub id: String,
}

/// See the module.
pub struct Source {
    view: Arc<View>,
    store: Arc<TenantStore>,
    hold: Arc<LogHold>,
    stage: Stage,
    start: Lsn,
    creation: Option<Creation>,
    /// Events up to here are acknowledged.
    after: Option<Position>,
    /// Read, but in no batch yet.
    pending: VecDeque<Events>,
    pending_rows: usize,
    pending_bytes: usize,
    read_through: Option<Position>,
    /// Events of the feed that were read.
    fed: u64,
    counter: Option<Counter>,
}

/// Counts what was not read yet: each event once, however long the sink takes.
struct Counter {
    scout: Scout,
    /// What of [`Source::fed`] there was when it began.
    fed: u64,
}

enum Stage {
    Snapshot(Box<Scan>),
    Feed(Box<ChangeReader>),
}

/// What [`Source::fill`] ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// A batch is full, or has to end here.
    Full,
    /// Nothing more is durable.
    CaughtUp,
}

impl Source {
    /// Errors: `StoreError::LogGone` when the log does not reach back any more. Blocking, as all here.
    pub fn open(view: Arc<View>, store: Arc<TenantStore>, hold: Arc<LogHold>, begin: &Begin) -> Result<Self> {
        let next = match begin.position {
            None if begin.snapshot => Some(0),
            // After the last row that could be there, there are none.
            Some(Position::Snapshot { row, .. }) => Some(row.0.saturating_add(1)),
            _ => None,
        };
        let stage = match next {
            Some(next) => Stage::Snapshot(Box::new(Scan::open(&view, &store, &hold, begin.start, next)?)),
            None => {
                let after = begin.position.map_or(begin.start, |position| position.released());
                Stage::Feed(Box::new(feed(&view, &store, &hold, after, begin.creation.as_ref())?))
            }
        };
        Ok(Self {
            view,
            store,
            hold,
            stage,
            start: begin.start,
            creation: begin.creation.clone(),
            after: begin.position,
            pending: VecDeque::new(),
            pending_rows: 0,
            pending_bytes: 0,
            read_through: begin.position,
            fed: 0,
            counter: None,
        })
    }

    /// Events that are read and in no batch.
    pub fn pending_rows(&self) -> usize {
        self.pending_rows
    }

    /// All events up to here were read. `None` at the very beginning.
    pub fn read_through(&self) -> Option<Position> {
        self.read_through
    }

    /// Rows of the snapshot that were not read yet, roughly.
    pub fn rows_left(&self) -> u64 {
        match &self.stage {
            Stage::Snapshot(scan) => scan.rows_left(),
            Stage::Feed(_) => 0,
        }
    }

    /// Reads until there is a batch of so many rows or bytes.
    pub fn fill(&mut self, rows: usize, bytes: usize) -> Result<Filled> {
        while !self.is_full(rows, bytes) {
            if !self.read()? {
                return Ok(Filled::CaughtUp);
            }
        }
        Ok(Filled::Full)
    }

    /// The next events, at most so many. A batch has rows of the snapshot or of the feed, not of both.
    pub fn take(&mut self, rows: usize) -> Result<Events> {
        let mut parts: Vec<Events> = Vec::new();
        let mut missing = rows;
        while missing > 0 {
            let fits =
                |next: &Events| parts.first().is_none_or(|first| first.is_snapshot() == next.is_snapshot());
            if !self.pending.front().is_some_and(fits) {
                break;
            }
            let Some(events) = self.pop() else { break };
            let length = events.len().min(missing);
            if length < events.len() {
                self.put_back(events.slice(length, events.len() - length));
            }
            parts.push(events.slice(0, length));
            missing -= length;
        }
        Events::concat(&parts)
    }

    /// All events up to `last`, if they can be had.
    pub fn take_through(&mut self, last: Position) -> Result<Events> {
        while self.pending.back().and_then(Events::last).is_none_or(|read| read < last) {
            if self.read_through.is_some_and(|through| through >= last) || !self.read()? {
                break;
            }
        }
        let count = |events: &Events| events.positions.partition_point(|position| *position <= last);
        let rows = self.pending.iter().map(count).sum();
        self.take(rows)
    }

    /// Puts events back that did not fit into a batch.
    pub fn put_back(&mut self, events: Events) {
        if !events.is_empty() {
            self.pending_rows += events.len();
            self.pending_bytes += events.bytes();
            self.pending.push_front(events);
        }
    }

    /// Events after those that were read, as far as they were counted.
    pub fn ahead(&self) -> u64 {
        let left = |counter: &Counter| counter.scout.events.saturating_sub(self.fed - counter.fed);
        self.counter.as_ref().map_or(0, left)
    }

    /// Counts those events as far as the log goes now.
    pub fn count_ahead(&mut self) -> Result<()> {
        let mut counter = match self.counter.take() {
            Some(counter) => counter,
            None => Counter { scout: self.scout()?, fed: self.fed },
        };
        counter.scout.count()?;
        self.counter = Some(counter);
        Ok(())
    }

    /// A reader of its own for what comes after: it only counts.
    pub fn scout(&self) -> Result<Scout> {
        let after = self.read_through.map_or(self.start, |position| match position {
            Position::Snapshot { .. } => self.start,
            Position::Feed { .. } => position.released(),
        });
        let reader = feed(&self.view, &self.store, &self.hold, after, None)?;
        let view = Arc::clone(&self.view);
        Ok(Scout { view, reader, after: self.read_through, through: after, events: 0 })
    }

    fn is_full(&self, rows: usize, bytes: usize) -> bool {
        let (Some(first), Some(last)) = (self.pending.front(), self.pending.back()) else { return false };
        let ends = first.is_snapshot() && (!last.is_snapshot() || matches!(self.stage, Stage::Feed(_)));
        ends || self.pending_rows >= rows || self.pending_bytes >= bytes
    }

    /// Reads a little. False: nothing more is durable.
    fn read(&mut self) -> Result<bool> {
        match &mut self.stage {
            Stage::Snapshot(scan) => {
                match scan.window(&self.view, &self.store, &self.hold, WINDOW_ROWS)? {
                    Some(events) => {
                        self.read_through = events.last();
                        self.push(events);
                    }
                    None => {
                        let reader = feed(&self.view, &self.store, &self.hold, self.start, None)?;
                        self.stage = Stage::Feed(Box::new(reader));
                        self.read_through = Some(Position::end_of(self.start));
                    }
                }
                Ok(true)
            }
            Stage::Feed(reader) => {
                let Some(commit) = reader.next()? else { return Ok(false) };
                self.read_through = Some(Position::end_of(commit.lsn));
                if self.counter.as_ref().is_some_and(|counter| counter.scout.through <= commit.lsn) {
                    // All that it counted is read.
                    self.counter = None;
                }
                if let Some(creation) = &self.creation {
                    if makes(creation, &commit) {
                        self.creation = None;
                        // It counted what is left out here.
                        self.counter = None;
                    }
                    return Ok(true);
                }
                let events = unseen(self.view.events(&commit)?, self.after);
                self.fed += events.len() as u64;
                self.push(events);
                Ok(true)
            }
        }
    }

    fn push(&mut self, events: Events) {
        if !events.is_empty() {
            self.pending_rows += events.len();
            self.pending_bytes += events.bytes();
            self.pending.push_back(events);
        }
    }

    fn pop(&mut self) -> Option<Events> {
        let events = self.pending.pop_front()?;
        self.pending_rows = self.pending_rows.saturating_sub(events.len());
        self.pending_bytes = self.pending_bytes.saturating_sub(events.bytes());
        Some(events)
    }
}

/// Counts events that nobody takes yet: how far a pipeline that waits has fallen behind.
pub struct Scout {
    view: Arc<View>,
    reader: ChangeReader,
    after: Option<Position>,
    /// The last commit that was counted.
    through: Lsn,
    events: u64,
}

impl Scout {
    /// Events after the source's, as far as the log goes now. Blocking.
    pub fn count(&mut self) -> Result<u64> {
        while let Some(commit) = self.reader.next()? {
            self.events += unseen(self.view.events(&commit)?, self.after).len() as u64;
            self.through = commit.lsn;
        }
        Ok(self.events)
    }
}

fn feed(
    view: &View,
    store: &Arc<TenantStore>,
    hold: &LogHold,
    after: Lsn,
    creation: Option<&Creation>,
) -> Result<ChangeReader> {
    let (table, objects) = (view.table(), creation.map(|creation| creation.objects));
    let wanted = move |changed: TableId| changed == table || Some(changed) == objects;
    Ok(store.changes(after, hold, Box::new(wanted))?)
}

/// The events that come after a position.
fn unseen(events: Events, after: Option<Position>) -> Events {
    let Some(after) = after else { return events };
    let seen = events.positions.partition_point(|position| *position <= after);
    if seen == 0 { events } else { events.slice(seen, events.len() - seen) }
}

fn makes(creation: &Creation, commit: &Commit) -> bool {
    let has_id = |change: &Change| match change {
        Change::Insert { table, rows, .. } if *table == creation.objects => {
            rows.columns().iter().filter(|column| *column.data_type() == DataType::Utf8).any(|column| {
                column.as_string::<i32>().iter().flatten().any(|text| text.contains(&creation.id))
            })
        }
        _ => false,
    };
    commit.changes.iter().any(has_id)
}
