//! What a statement may touch: its snapshot, its environment, its session's settings and sequences.
//!
//! `database::Session` builds one per statement. It names exactly one tenant's snapshot; nothing in this crate
//! can reach another tenant's.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    ops::ControlFlow,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use datafusion::sql::sqlparser::ast;

use parking_lot::{Mutex, RwLock};
use sepal_storage::Snapshot;
use sepal_types::{ColumnDef, Error, Result, SqlType, TableDef, TableId};

use crate::{
    catalog::{self, CatalogContext, Lazily, quote_ident},
    locking::NestedLock,
    sql::past_tables,
    vector::IndexCache,
};

/// Numbers of sequences.
pub trait SequenceSource: Debug + Send + Sync {
    fn next(&self, sequence: &str) -> Result<i64> {
        self.reserve(sequence, 1)
    }
    /// The first of `count` numbers that nobody else gets.
    fn reserve(&self, sequence: &str, count: u64) -> Result<i64>;
    /// The same of a column's own sequence, for a statement that was asked already whether it may write.
    fn reserve_for(&self, def: &TableDef, column: &ColumnDef, count: u64) -> Result<i64> {
        let name = format!("{}.{}", quote_ident(&def.schema), quote_ident(&def.sequence_name(column)));
        self.reserve(&name, count)
    }
    fn current(&self, sequence: &str) -> Result<i64>;
    fn last(&self) -> Result<i64>;
    /// `setval`: `called` tells whether `value` counts as handed out, so that the next one follows it.
    fn set(&self, sequence: &str, value: i64, called: bool) -> Result<()>;
    /// `last_value` and `is_called`, which a sequence has as if it were a table.
    fn state(&self, sequence: &str) -> Result<(i64, bool)> {
        Err(Error::bug(format!("nobody knows how far sequence {sequence} is")))
    }
}

/// What an advisory lock function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdvisoryCall {
    Lock { shared: bool, transaction: bool, wait: bool },
    Unlock { shared: bool },
    UnlockAll,
}

/// A number to lock: the two halves of a `bigint`, or two `integer`s, which are other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdvisoryNumber {
    One(i64),
    Two(i32, i32),
}

/// The session's settings, as `set_config` changes them; also whom `pg_sleep` tells, and who locks numbers.
pub trait SettingSink: Debug + Send + Sync {
    /// Returns the value as it stands afterwards.
    fn set(&self, name: &str, value: &str, local: bool) -> Result<String>;
    /// Makes the statement sleep, in its session and not here: this thread is a query worker's. Returns at once.
    fn sleep(&self, duration: Duration);
    /// Locks or unlocks a number; whether that was done. Returns at once: where it would have to wait, it fails, and
    /// the session waits and runs the statement again. Never called by plans whose rows are sent before they end.
    fn advisory(&self, call: AdvisoryCall, number: AdvisoryNumber) -> Result<bool>;
}

/// What a function may ask of the session's pipelines.
pub trait DeliveryControl: Debug + Send + Sync {
    /// Has dead letters of a pipeline tried again: those since an instant in microseconds since 1970-01-01 UTC, or
    /// all. How many those are. The session's scopes are the implementor's to check.
    ///
    /// Errors: 42704 for an unknown pipeline, 42501.
    fn replay(&self, pipeline: &str, since_us: Option<i64>) -> Result<i64>;
}

/// A share of the true neighbours: more than 0, at most 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recall(f64);

impl Recall {
    /// `None` for a number that is no such share.
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self(share))
    }

    pub fn share(self) -> f64 {
        self.0
    }
}

/// The settings that steer vector search, as the statement found them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchSettings {
    /// `hnsw.ef_search`
    pub ef_search: usize,
    /// `ivfflat.probes`
    pub probes: usize,
    /// `enable_indexscan`: off forces exact answers.
    pub use_indexes: bool,
    /// `sepal.target_recall`: where set, each index is searched with the effort that its build measured for it, and the
    /// two above do not count.
    pub target_recall: Option<Recall>,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self { ef_search: 40, probes: 1, use_indexes: true, target_recall: None }
    }
}

/// The snapshot that a plan's tables read: [`Shown`] fills it anew before each execution of a prepared plan, and
/// empties it between transactions: a snapshot keeps files of the past.
#[derive(Clone, Debug, Default)]
pub struct SnapshotSlot(Arc<RwLock<Option<Snapshot>>>);

impl SnapshotSlot {
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(RwLock::new(Some(snapshot))))
    }

    /// One without any table when the slot is empty.
    pub fn get(&self) -> Snapshot {
        self.0.read().clone().unwrap_or_else(Snapshot::empty)
    }

    pub fn clear(&self) {
        *self.0.write() = None;
    }

    /// Tells slots apart: plans over two of them are not the same.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

/// What a plan's catalog tables and functions show, in the same way. Made when one of them asks for it: few do.
#[derive(Clone, Debug)]
pub struct CatalogSlot(Arc<CatalogCell>);

type Shows = Arc<Lazily<CatalogContext>>;

fn shows(make: impl FnOnce() -> CatalogContext + Send + 'static) -> Shows {
    let make: Box<dyn FnOnce() -> CatalogContext + Send> = Box::new(make);
    Arc::new(LazyLock::new(make))
}

#[derive(Debug)]
struct CatalogCell {
    shown: RwLock<Option<Shows>>,
    /// Whether a plan has it.
    kept: AtomicBool,
}

impl CatalogSlot {
    pub fn new(context: CatalogContext) -> Self {
        Self::of(shows(move || context))
    }

    fn of(shows: Shows) -> Self {
        Self(Arc::new(CatalogCell { shown: RwLock::new(Some(shows)), kept: AtomicBool::new(false) }))
    }

    /// Errors: a bug where the slot is empty.
    pub fn get(&self) -> Result<Arc<Lazily<CatalogContext>>> {
        let shown = self.0.shown.read().clone();
        shown.ok_or_else(|| Error::bug("a plan runs with the catalogs of a transaction that is over"))
    }

    /// For a plan, which will ask for it when it runs.
    pub(crate) fn keep(&self) -> Self {
        self.0.kept.store(true, Ordering::Release);
        self.clone()
    }

    /// Whether a plan asks for it when it runs.
    pub fn is_kept(&self) -> bool {
        self.0.kept.load(Ordering::Acquire)
    }

    pub fn clear(&self) {
        *self.0.shown.write() = None;
    }
}

impl PartialEq for CatalogSlot {
    /// The same slot.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The slots of one session that have something: emptied together when its transaction ends, so that an idle session
/// with prepared statements keeps nothing of the past.
#[derive(Debug, Default)]
pub struct Shown {
    snapshots: Vec<Weak<RwLock<Option<Snapshot>>>>,
    catalogs: Vec<Weak<CatalogCell>>,
}

impl Shown {
    /// Fills a slot, whatever it has.
    pub fn show(&mut self, slot: &SnapshotSlot, snapshot: Snapshot) {
        // One that had something is among them.
        if slot.0.write().replace(snapshot).is_none() {
            note(&mut self.snapshots, &slot.0);
        }
    }

    /// A new slot.
    pub fn snapshot(&mut self, snapshot: Snapshot) -> SnapshotSlot {
        let slot = SnapshotSlot(Arc::default());
        self.show(&slot, snapshot);
        slot
    }

    /// A new slot.
    pub fn catalog(&mut self, make: impl FnOnce() -> CatalogContext + Send + 'static) -> CatalogSlot {
        let slot = CatalogSlot::of(shows(make));
        note(&mut self.catalogs, &slot.0);
        slot
    }

    pub fn show_catalog(
        &mut self,
        slot: &CatalogSlot,
        make: impl FnOnce() -> CatalogContext + Send + 'static,
    ) {
        if slot.0.shown.write().replace(shows(make)).is_none() {
            note(&mut self.catalogs, &slot.0);
        }
    }

    pub fn clear(&mut self) {
        for slot in self.snapshots.drain(..).filter_map(|slot| slot.upgrade()) {
            *slot.write() = None;
        }
        for cell in self.catalogs.drain(..).filter_map(|cell| cell.upgrade()) {
            *cell.shown.write() = None;
        }
    }
}

/// Adds one to a list that the dead ones leave when it is full.
fn note<T>(list: &mut Vec<Weak<T>>, one: &Arc<T>) {
    if list.len() == list.capacity() {
        list.retain(|other| other.strong_count() > 0);
    }
    list.push(Arc::downgrade(one));
}

/// The tables that plans read in the present, but for those that the statement writes or whose rows it locks. Filled by
/// planning; the session locks them, weakly, before it runs the statement.
#[derive(Clone, Debug, Default)]
pub struct TablesRead(Arc<Mutex<BTreeSet<TableId>>>);

impl TablesRead {
    pub(crate) fn note(&self, table: TableId) {
        self.0.lock().insert(table);
    }

    /// Forgets those that a plan turned out not to read: names that a CTE has taken.
    pub(crate) fn keep(&self, read: &BTreeSet<TableId>) {
        self.0.lock().retain(|table| read.contains(table));
    }

    /// Ascending.
    pub fn ids(&self) -> Vec<TableId> {
        self.0.lock().iter().copied().collect()
    }
}

/// Everything that planning and running one statement needs.
#[derive(Clone, Debug)]
pub struct StatementContext {
    pub catalog: CatalogSlot,
    pub snapshot: SnapshotSlot,
    pub environment: Arc<str>,
    pub indexes: Arc<IndexCache>,
    pub search: Arc<RwLock<SearchSettings>>,
    pub sequences: Arc<dyn SequenceSource>,
    pub settings: Arc<dyn SettingSink>,
    /// Locking queries within the statement, which run before it: inner ones first.
    pub nested: Arc<[NestedLock]>,
    /// What the statement's clauses AS OF show, by number; `None` for a moment that is a parameter without its value.
    pub past: Arc<[Option<Snapshot>]>,
    pub reads: TablesRead,
}

impl StatementContext {
    /// The same statement as its clause AS OF of that number sees it. Before its moment is known it sees the present:
    /// that is as good as anything for a description.
    pub fn at_moment(&self, number: usize) -> Self {
        // Whatever becomes of a table, its past stays.
        let context = Self { reads: TablesRead::default(), ..self.clone() };
        match self.past.get(number).cloned().flatten() {
            Some(snapshot) => Self { snapshot: SnapshotSlot::new(snapshot), ..context },
            None => context,
        }
    }

    /// The names of a table's columns, or a catalog's, for `sql::expand_wildcards`.
    pub fn table_columns(&self) -> impl Fn(&ast::ObjectName, Option<usize>) -> Option<Vec<String>> + use<> {
        let context = self.clone();
        move |name, moment| match context.table_at(name, moment) {
            Some(def) => Some(def.columns.iter().map(|column| column.name.clone()).collect()),
            None => moment.is_none().then(|| context.other_columns(name)).flatten(),
        }
    }

    /// The names of the columns of what is read as a table and is none: a locking query within the statement, a
    /// catalog.
    fn other_columns(&self, name: &ast::ObjectName) -> Option<Vec<String>> {
        let name = crate::ddl::relation_name(name).ok()?;
        let nested = self.nested.iter().find(|nested| name.schema.is_none() && nested.name == name.name);
        let schema = match nested {
            Some(nested) => Arc::clone(nested.rows.schema()),
            None => catalog::relation(name.schema.as_deref().unwrap_or("pg_catalog"), &name.name)?,
        };
        Some(schema.fields().iter().map(|field| field.name().clone()).collect())
    }

    /// The types of the columns of the tables that a query names; none for a name whose type they disagree on.
    pub fn column_types(&self, query: &ast::Query) -> impl Fn(&str) -> Option<SqlType> + use<> {
        let mut tables: Vec<Arc<TableDef>> = Vec::new();
        let _ = ast::visit_relations(query, |name| {
            tables.extend(self.table_at(name, None));
            ControlFlow::<()>::Continue(())
        });
        if !self.past.is_empty() {
            let past = past_tables(query).into_iter();
            tables.extend(past.filter_map(|(name, number)| self.table_at(&name, Some(number))));
        }
        move |name| {
            let mut types = tables.iter().filter_map(|def| def.column(name).map(|column| &column.ty));
            let first = types.next()?;
            types.all(|ty| ty == first).then(|| first.clone())
        }
    }

    /// A table's definition, today's or the one at the moment of a clause.
    fn table_at(&self, name: &ast::ObjectName, moment: Option<usize>) -> Option<Arc<TableDef>> {
        let name = crate::ddl::relation_name(name).ok()?;
        let snapshot = match moment {
            Some(number) => self.at_moment(number).snapshot.get(),
            None => self.snapshot.get(),
        };
        Some(Arc::clone(&snapshot.find(&self.environment, &name)?.def))
    }
}
