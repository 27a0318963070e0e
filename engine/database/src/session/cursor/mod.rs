//! Cursors: DECLARE, FETCH, MOVE and CLOSE, and the protocol's named portals, which are the same things.
//!
//! Here both meet: a name is taken by one of them, FETCH reads what Bind has opened, and Describe, Execute and Close of
//! the protocol find what DECLARE has. The unnamed portal stays with the server. [`source`] has the rows.

mod source;

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow::array::ArrayRef;
use sepal_query::{
    budget::KeptMemory,
    catalog::named::CursorRow,
    output::OutputColumn,
    sql::{Declare, Fetch, Statement},
};
use sepal_types::{Clock, Error, Result, SqlState, SystemClock};
use tokio::time::Instant;

use super::{
    Outcome, RowStream, Session, named,
    prepared::{PlanKind, Prepared},
    rows::Verb,
    snapshot_too_old,
};

pub(super) use source::Reader;
use source::Source;

/// What the memory of kept rows is called in errors.
const KEEPER: &str = "Cursor";

/// The cursors of a session, by name.
#[derive(Default)]
pub(super) struct Cursors {
    open: HashMap<String, Cursor>,
    /// How many were ever opened.
    opened: u64,
    /// How many there may be; `None` for any number.
    most: Option<usize>,
}

struct Cursor {
    /// Which one it is, in the order that they were opened in.
    number: u64,
    sql: Arc<str>,
    columns: Arc<[OutputColumn]>,
    rows: Rows,
    verb: Verb,
    binary: bool,
    scroll: bool,
    /// WITH HOLD.
    hold: bool,
    /// The transaction that opened it has not ended.
    fresh: bool,
    declared_us: i64,
    /// From then on it holds a snapshot.
    begun: Instant,
}

enum Rows {
    /// A portal that has not run.
    Bound(Arc<Prepared>, Vec<ArrayRef>),
    Begun(Arc<tokio::sync::Mutex<Source>>),
    /// They were held for longer than they may be.
    TooOld,
}

impl Cursors {
    fn check_new(&self, name: &str) -> Result<()> {
        if self.open.contains_key(name) {
            return Err(Error::new(SqlState::DuplicateCursor, format!("cursor \"{name}\" already exists")));
        }
        match self.most {
            Some(most) if self.open.len() >= most => {
                let message = format!("too many open portals: a connection may hold {most}");
                Err(Error::new(SqlState::InsufficientResources, message)
                    .with_hint("Close portals that are no longer used."))
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, name: &str, cursor: Cursor) -> u64 {
        self.opened += 1;
        self.open.insert(name.to_owned(), Cursor { number: self.opened, ..cursor });
        self.opened
    }

    /// Errors: 34000.
    fn get(&self, name: &str) -> Result<&Cursor> {
        self.open.get(name).ok_or_else(|| no_cursor(name))
    }

    /// The columns that FETCH gives.
    pub fn columns(&self, name: &str) -> Option<Arc<[OutputColumn]>> {
        self.open.get(name).map(|cursor| Arc::clone(&cursor.columns))
    }

    /// CLOSE. Errors: 34000.
    pub fn close(&mut self, name: &str) -> Result<()> {
        self.open.remove(name).map(drop).ok_or_else(|| no_cursor(name))
    }

    pub fn close_all(&mut self) {
        self.open.clear();
    }

    /// What is opened from now on has larger numbers: see [`Self::close_since`].
    pub fn mark(&self) -> u64 {
        self.opened
    }

    /// ROLLBACK TO a savepoint: what was opened since is gone.
    pub fn close_since(&mut self, mark: u64) {
        self.open.retain(|_, cursor| cursor.number <= mark);
    }

    /// The transaction has ended: only cursors WITH HOLD go on, of this transaction if it was committed.
    pub fn end_transaction(&mut self, committed: bool) {
        if self.open.is_empty() {
            return;
        }
        self.open.retain(|_, cursor| cursor.hold && (committed || !cursor.fresh));
        for cursor in self.open.values_mut() {
            cursor.fresh = false;
        }
    }

    /// Those that are to outlive their transaction.
    fn to_keep(&self) -> Vec<Arc<tokio::sync::Mutex<Source>>> {
        let kept = self.open.values().filter(|cursor| cursor.hold && cursor.fresh);
        let begun = kept.filter_map(|cursor| match &cursor.rows {
            Rows::Begun(source) => Some(Arc::clone(source)),
            Rows::Bound(..) | Rows::TooOld => None,
        });
        begun.collect()
    }

    /// How much longer the oldest snapshot that one of them has may be held.
    pub fn expire_in(&self, limit: Duration) -> Option<Duration> {
        let ages = self.open.values().filter(|cursor| cursor.has_snapshot()).map(|one| one.begun.elapsed());
        ages.max().map(|age| limit.saturating_sub(age))
    }

    /// Lets go of snapshots that are too old.
    pub fn expire(&mut self, limit: Duration) {
        for cursor in self.open.values_mut() {
            if cursor.has_snapshot() && cursor.begun.elapsed() >= limit {
                cursor.rows = Rows::TooOld;
            }
        }
    }

    /// As `pg_cursors` shows them, by name.
    pub fn rows(&self) -> Vec<CursorRow> {
        let row = |(name, cursor): (&String, &Cursor)| CursorRow {
            name: name.clone(),
            statement: cursor.sql.to_string(),
            hold: cursor.hold,
            binary: cursor.binary,
            scroll: cursor.scroll,
            declared_us: cursor.declared_us,
        };
        let mut rows: Vec<CursorRow> = self.open.iter().map(row).collect();
        rows.sort_by(|left, right| left.name.cmp(&right.name));
        rows
    }
}

impl Cursor {
    fn new(sql: &Arc<str>, columns: Arc<[OutputColumn]>, rows: Rows) -> Self {
        Self {
            number: 0,
            sql: Arc::clone(sql),
            columns,
            rows,
            verb: Verb::Counted("SELECT"),
            binary: false,
            scroll: false,
            hold: false,
            fresh: true,
            declared_us: SystemClock.now_us(),
            begun: Instant::now(),
        }
    }

    /// One WITH HOLD has its rows once its transaction is over.
    fn has_snapshot(&self) -> bool {
        matches!(self.rows, Rows::Begun(_)) && (self.fresh || !self.hold)
    }
}

/// DECLARE, FETCH, MOVE.
impl Session {
    pub(super) async fn run_declare(
        &mut self,
        statement: &Statement,
        (declare, source): (&Declare, &PlanKind),
        parameters: &[ArrayRef],
    ) -> Result<Outcome> {
        // Statements of one query string are a block to it.
        if !declare.hold && statement.alone {
            self.in_block("DECLARE CURSOR")?;
        }
        check_locking(declare, source)?;
        self.cursors.lock().check_new(&declare.name)?;
        let begun = Instant::now();
        let rows = match source {
            PlanKind::Query(query) => self.run_query(query, parameters).await?,
            _ => {
                let (columns, batches) = self.all_rows(source, parameters).await?;
                RowStream::ready(columns, batches, String::new(), self.cancel.clone())
            }
        };
        let columns = Arc::clone(rows.columns());
        let Ok((upstream, _)) = rows.give_up() else {
            return Err(Error::bug("a query's rows are a cursor's already"));
        };
        let scroll = declare.scroll.then(|| self.keeper());
        let source = Source::new(&declare.name, upstream, scroll);
        let rows = Rows::Begun(Arc::new(tokio::sync::Mutex::new(source)));
        let cursor = Cursor {
            binary: declare.binary,
            scroll: declare.scroll,
            hold: declare.hold,
            begun,
            ..Cursor::new(&statement.sql, columns, rows)
        };
        self.cursors.lock().add(&declare.name, cursor);
        Ok(Outcome::Done { tag: "DECLARE CURSOR".to_owned() })
    }

    pub(super) async fn run_fetch(&mut self, fetch: &Fetch) -> Result<Outcome> {
        let source = self.begun(&fetch.name).await?;
        if fetch.moves {
            let rows = source.lock().await.pass(fetch.direction).await?;
            return Ok(Outcome::Done { tag: format!("MOVE {rows}") });
        }
        let number = source.lock().await.begin(fetch.direction).await?;
        let (columns, binary) = {
            let cursors = self.cursors.lock();
            let cursor = cursors.get(&fetch.name)?;
            (Arc::clone(&cursor.columns), cursor.binary)
        };
        let reader = Reader::of_fetch(source, number);
        Ok(Outcome::Rows(RowStream::shared(columns, reader, Verb::Counted("FETCH"), binary)))
    }

    /// A cursor's rows; a portal that has not run begins to.
    ///
    /// Errors: 34000; 72000 for what is too old; those of the portal's statement.
    async fn begun(&mut self, name: &str) -> Result<Arc<tokio::sync::Mutex<Source>>> {
        let limit = self.max_snapshot_age();
        let (prepared, parameters) = {
            let mut cursors = self.cursors.lock();
            if let Some(limit) = limit {
                cursors.expire(limit);
            }
            match &cursors.get(name)?.rows {
                Rows::Begun(source) => return Ok(Arc::clone(source)),
                Rows::TooOld => return Err(snapshot_too_old()),
                Rows::Bound(prepared, parameters) => (Arc::clone(prepared), parameters.clone()),
            }
        };
        let Outcome::Rows(stream) = self.run_within(&prepared, parameters).await? else {
            let message = format!("cursor \"{name}\" is not of a statement that returns rows");
            return Err(Error::new(SqlState::ObjectNotInPrerequisiteState, message));
        };
        // One reader is enough: FETCH makes its own.
        drop(self.share_rows(name, stream));
        match &self.cursors.lock().get(name)?.rows {
            Rows::Begun(source) => Ok(Arc::clone(source)),
            Rows::Bound(..) | Rows::TooOld => Err(Error::bug("a portal that has begun has no rows")),
        }
    }

    fn keeper(&self) -> KeptMemory {
        self.tenant.engine.keep(KEEPER)
    }

    /// Before a commit: cursors WITH HOLD read what is left for them.
    ///
    /// Errors: their queries'; 53200 where there is not memory enough.
    pub(super) async fn keep_cursors(&mut self) -> Result<()> {
        let sources = self.cursors.lock().to_keep();
        for source in sources {
            source.lock().await.keep_all(self.keeper()).await?;
        }
        Ok(())
    }
}

/// The protocol's named portals.
impl Session {
    /// How many cursors and named portals the client may hold.
    pub fn limit_portals(&self, most: usize) {
        self.cursors.lock().most = Some(most);
    }

    /// Bind has opened a named portal, which is a cursor from now on if its statement returns rows.
    ///
    /// Its number then. Errors: 42P03; 53000 where there are too many.
    pub fn open_portal(
        &mut self,
        name: &str,
        prepared: &Arc<Prepared>,
        parameters: &[ArrayRef],
    ) -> Result<Option<u64>> {
        let mut cursors = self.cursors.lock();
        cursors.check_new(name)?;
        let Some(columns) = prepared.columns.as_ref().filter(|_| named::can_be_executed(&prepared.statement))
        else {
            return Ok(None);
        };
        let rows = Rows::Bound(Arc::clone(prepared), parameters.to_vec());
        let cursor = Cursor::new(&prepared.statement.sql, Arc::clone(columns), rows);
        Ok(Some(cursors.add(name, cursor)))
    }

    /// Tells a cursor from others that have the name before or after it.
    pub fn portal_number(&self, name: &str) -> Option<u64> {
        self.cursors.lock().open.get(name).map(|cursor| cursor.number)
    }

    /// The columns of a cursor, which may be the protocol's or SQL's.
    pub fn portal_columns(&self, name: &str) -> Option<Arc<[OutputColumn]>> {
        self.cursors.lock().columns(name)
    }

    /// Closes a cursor, if there is one.
    pub fn close_portal(&mut self, name: &str) {
        // The error says only that there is none.
        let _none = self.cursors.lock().close(name);
    }

    /// The rows of a portal that has just run, which its cursor has from now on, too.
    pub fn share_rows(&mut self, name: &str, stream: RowStream) -> RowStream {
        let mut cursors = self.cursors.lock();
        let Some(cursor) = cursors.open.get_mut(name) else { return stream };
        let (upstream, verb) = match stream.give_up() {
            Ok(parts) => parts,
            Err(stream) => return *stream,
        };
        let source = Arc::new(tokio::sync::Mutex::new(Source::new(name, upstream, None)));
        cursor.rows = Rows::Begun(Arc::clone(&source));
        cursor.verb = verb.clone();
        cursor.begun = Instant::now();
        RowStream::shared(Arc::clone(&cursor.columns), Reader::of_portal(source), verb, false)
    }

    /// The rows of a cursor, for Execute, from where it stands; `None` where it has not run, or there is none.
    ///
    /// Errors: 25P02, 72000.
    pub fn portal_rows(&self, name: &str) -> Result<Option<RowStream>> {
        self.check_not_failed(None)?;
        let cursors = self.cursors.lock();
        let Some(cursor) = cursors.open.get(name) else { return Ok(None) };
        match &cursor.rows {
            Rows::Bound(..) => Ok(None),
            Rows::TooOld => Err(snapshot_too_old()),
            Rows::Begun(source) => {
                let reader = Reader::of_portal(Arc::clone(source));
                let columns = Arc::clone(&cursor.columns);
                Ok(Some(RowStream::shared(columns, reader, cursor.verb.clone(), false)))
            }
        }
    }
}

/// What a locking clause excludes. Errors: 0A000, 42P11.
fn check_locking(declare: &Declare, source: &PlanKind) -> Result<()> {
    if !matches!(source, PlanKind::Query(query) if query.locking.is_some()) {
        return Ok(());
    }
    let refused =
        |error: Error, kind: &str| Err(error.with_detail(format!("{kind} cursors must be READ ONLY.")));
    if declare.hold {
        let message = "DECLARE CURSOR WITH HOLD ... FOR UPDATE is not supported";
        return refused(Error::unsupported(message), "Holdable");
    }
    if declare.scroll {
        let message = "DECLARE SCROLL CURSOR ... FOR UPDATE is not supported";
        return refused(Error::unsupported(message), "Scrollable");
    }
    if declare.insensitive {
        let message = "DECLARE INSENSITIVE CURSOR ... FOR UPDATE is not valid";
        return refused(Error::new(SqlState::InvalidCursorDefinition, message), "Insensitive");
    }
    Ok(())
}

/// 34000.
fn no_cursor(name: &str) -> Error {
    Error::new(SqlState::InvalidCursorName, format!("cursor \"{name}\" does not exist"))
}
