//! `pg_catalog` and `information_schema`: what psql, drivers and tools read about one environment.
//!
//! Called by the session. Three ways lead here, all over the same rows and the same functions:
//! 1. [`prepare`] takes a query that reads nothing but catalogs and answers it whole in the [`evaluator`],
//!    with Postgres' own rules: correlated subqueries, set-returning functions in the select list, reg* casts,
//!    arrays from 1, vectors from 0. Nearly every query that a client sends by itself goes this way.
//! 2. A query that also reads user tables is planned by DataFusion: [`rewrite`] turns the Postgres spellings
//!    in it into ones that DataFusion plans, [`relation`] and [`rows`] serve the tables, [`functions`] the
//!    scalar functions.
//! 3. A query that neither names a catalog nor casts to a reg* type is left untouched.
//!
//! Rows come from the snapshot's table definitions in memory: no table is opened to answer a catalog query,
//! and only the session's own environment can be seen. Nothing here writes.

mod constraints;
mod definitions;
pub mod delivery;
mod evaluator;
mod functions;
pub mod history;
pub mod named;
mod names;
mod objects;
mod relations;
mod rewrite;
pub mod sessions;
mod shape;
mod value;
pub mod work;

#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::ScalarUDF;
use datafusion::sql::sqlparser::ast::Statement;
use sepal_storage::Snapshot;
use sepal_types::{Error, Result, TableId};

use self::{delivery::DeliveryRows, history::HistoryRows};
use crate::context::{CatalogSlot, DeliveryControl, SearchSettings};
use crate::vector::IndexCache;

pub use evaluator::{CatalogQuery, prepare};
pub use names::quote_ident;
pub(crate) use names::{quote_literal, type_oid};
pub(crate) use relations::{is_preferred, type_category};
pub use rewrite::rewrite;

/// What the catalogs show: one session's view of one environment at one snapshot.
pub struct CatalogContext {
    pub snapshot: Snapshot,
    /// The environment of the session: `current_database()`.
    pub environment: String,
    /// All environments that the session's key may use, as `pg_database` lists them.
    pub environments: Lazily<Vec<String>>,
    pub tenant: String,
    /// The session user: the key id, or the tenant's name.
    pub user: String,
    pub backend_pid: i32,
    pub settings: Lazily<Vec<SettingRow>>,
    /// `CREATE INDEX` statements that are running, as `pg_stat_progress_create_index` shows them.
    pub builds: Vec<BuildProgress>,
    /// What the tenant holds, and what it may: `sepal_usage`.
    pub usage: Lazily<Vec<UsageRow>>,
    /// What the tenant's data is sealed under: `sepal_keys`. `None` where nobody knows.
    pub keys: Lazily<Option<KeyRow>>,
    /// What `pg_locks` shows.
    pub locks: Lazily<Vec<LockRow>>,
    /// What `pg_stat_activity` shows.
    pub sessions: Lazily<Vec<sessions::SessionRow>>,
    /// What `pg_cancel_backend` and `pg_terminate_backend` ask.
    pub signals: Arc<dyn sessions::SessionControl>,
    /// The sessions that one waits for, by their numbers.
    pub blocking: Arc<dyn Fn(i32) -> Vec<i32> + Send + Sync>,
    /// What is done to the tenant's tables, and what is known of them.
    pub work: Lazily<work::WorkRows>,
    /// What the views of secrets, sinks and pipelines show.
    pub delivery: Lazily<DeliveryRows>,
    /// What the views of snapshots and history show.
    pub history: Lazily<HistoryRows>,
    /// What the session knows by a name.
    pub named: Lazily<named::NamedRows>,
    /// What `sepal_recall` searches with; `None` without a session.
    pub searches: Option<Searches>,
    /// What `sepal_dlq_replay` asks.
    pub control: Arc<dyn DeliveryControl>,
    /// Bytes of a table without its indexes, or of an index; 0 for an unknown id.
    pub table_bytes: Arc<dyn Fn(TableId) -> u64 + Send + Sync>,
    /// When the server started, in microseconds since 1970-01-01 UTC.
    pub start_time_us: i64,
    /// Whether the running statement is to stop. Asked now and then.
    pub interrupted: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// How a session searches.
pub struct Searches {
    pub indexes: Arc<IndexCache>,
    pub settings: Lazily<SearchSettings>,
    /// Whether the session's key may read rows.
    pub may_read: bool,
}

/// Asked for when a catalog is read: few statements do.
pub type Lazily<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;

impl CatalogContext {
    /// Nobody's session: it sees the definitions of an environment and has neither settings nor sinks.
    pub fn bare(snapshot: Snapshot, environment: &str, tenant: &str, user: &str) -> Self {
        Self {
            snapshot,
            environment: environment.to_owned(),
            environments: LazyLock::new(Box::new(Vec::new)),
            tenant: tenant.to_owned(),
            user: user.to_owned(),
            backend_pid: 0,
            settings: LazyLock::new(Box::new(Vec::new)),
            builds: Vec::new(),
            usage: LazyLock::new(Box::new(Vec::new)),
            keys: LazyLock::new(Box::new(|| None)),
            locks: LazyLock::new(Box::new(Vec::new)),
            sessions: LazyLock::new(Box::new(Vec::new)),
            signals: Arc::new(sessions::NoSessions),
            blocking: Arc::new(|_| Vec::new()),
            work: LazyLock::new(Box::new(work::WorkRows::default)),
            delivery: LazyLock::new(Box::new(delivery::DeliveryRows::default)),
            history: LazyLock::new(Box::new(HistoryRows::default)),
            named: LazyLock::new(Box::new(named::NamedRows::default)),
            searches: None,
            control: Arc::new(delivery::NoDelivery),
            table_bytes: Arc::new(|_| 0),
            start_time_us: 0,
            interrupted: Arc::new(|| false),
        }
    }
}

impl std::fmt::Debug for CatalogContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogContext")
            .field("tenant", &self.tenant)
            .field("environment", &self.environment)
            .field("lsn", &self.snapshot.lsn())
            .finish_non_exhaustive()
    }
}

/// One row of `pg_settings`. Values are text; numbers are in the row's unit, and without it.
#[derive(Clone, Debug, Default)]
pub struct SettingRow {
    pub name: String,
    pub setting: String,
    /// As SHOW prints it, where that is something else: `4GB` for 4194304 kB.
    pub shown: Option<String>,
    pub unit: Option<String>,
    pub category: String,
    pub short_desc: String,
    /// Who may set it and when: `user`, `superuser`, `internal`, …
    pub context: String,
    /// `bool`, `integer`, `real`, `string` or `enum`.
    pub vartype: String,
    /// `default`, `session`, …; empty is shown as `default`.
    pub source: String,
    pub min_val: Option<String>,
    pub max_val: Option<String>,
    /// The values that an `enum` setting takes.
    pub enumvals: Vec<String>,
    pub boot_val: Option<String>,
    pub reset_val: Option<String>,
}

/// One row of `sepal_usage`: a budget of the tenant.
#[derive(Clone, Debug, Default)]
pub struct UsageRow {
    pub resource: &'static str,
    pub used_bytes: u64,
    /// `None`: there is no limit.
    pub limit_bytes: Option<u64>,
    /// The server's setting that bounds it.
    pub setting: &'static str,
}

/// The row of `sepal_keys`: the tenant's encryption key, and how far the replacement of it and of its files' keys is.
#[derive(Clone, Debug, Default)]
pub struct KeyRow {
    /// Of the key that everything new is sealed under, from 1.
    pub epoch: u64,
    /// When that was made, in microseconds since 1970.
    pub created_us: i64,
    /// Keys before it that something still needs.
    pub older_keys: u64,
    /// How often the files' keys were replaced, or began to be.
    pub file_generation: u64,
    /// Either is being replaced.
    pub rotating: bool,
    /// Of the files that get other keys; 0 where none do now.
    pub files_total: u64,
    pub files_done: u64,
    pub bytes_total: u64,
    pub bytes_done: u64,
}

/// One running index build. Phases carry Postgres' names, `building index: loading tuples` among them.
#[derive(Clone, Debug)]
pub struct BuildProgress {
    pub pid: i32,
    pub index: TableId,
    pub table: TableId,
    pub phase: String,
    pub blocks_total: u64,
    pub blocks_done: u64,
    pub tuples_total: u64,
    pub tuples_done: u64,
}

/// A lock that a session has, or waits for.
#[derive(Clone, Debug)]
pub struct LockRow {
    pub pid: i32,
    pub object: LockedObject,
    /// `ExclusiveLock`, …
    pub mode: &'static str,
    pub granted: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum LockedObject {
    /// The halves of a bigint and 1, or two integers and 2.
    Advisory {
        class: u32,
        object: u32,
        kind: i16,
    },
    Table(TableId),
    /// A row or key of the table; only waits for such are shown.
    Row(TableId),
}

/// The columns of a catalog relation; `None` when there is no such relation. `schema` is `pg_catalog` or
/// `information_schema`. Every field's metadata `sepal.type` holds its SQL type.
pub fn relation(schema: &str, name: &str) -> Option<SchemaRef> {
    shape::shape(schema, name).map(|shape| Arc::clone(&shape.schema))
}

/// The names of all relations of a catalog schema, sorted.
pub fn relation_names(schema: &str) -> Vec<&'static str> {
    let of_schema = shape::shapes().filter(|shape| shape.relation.schema == schema);
    let mut names: Vec<_> = of_schema.map(|shape| shape.relation.name).collect();
    names.sort_unstable();
    names
}

/// All rows of a catalog relation, with the columns of [`relation`].
pub fn rows(schema: &str, name: &str, context: &CatalogContext) -> Result<RecordBatch, DataFusionError> {
    let shape = shape::shape(schema, name).ok_or_else(|| {
        DataFusionError::Plan(format!("relation \"{schema}.{name}\" does not exist in the catalogs"))
    })?;
    shape.batch(context).map_err(|error| DataFusionError::External(Box::new(error)))
}

/// The catalog functions for DataFusion, bound to one context: `format_type`, `to_regtype`, `pg_get_indexdef`,
/// `current_setting`, `quote_ident`, … and the `sepal_reg_*` functions that [`rewrite`] puts for reg* casts.
pub fn functions(context: &CatalogSlot) -> Vec<ScalarUDF> {
    functions::udfs(context)
}

/// Answers a query without parameters that reads only catalogs; `None` when it is not such a query.
/// With parameters use [`prepare`].
pub fn native(statement: &Statement, context: &CatalogContext) -> Option<Result<RecordBatch>> {
    let query = match prepare(statement, &[], context)? {
        Ok(query) => query,
        Err(error) => return Some(Err(error)),
    };
    Some(query.run(&[], context))
}

/// The error for an Arrow or DataFusion failure that only a bug of ours can cause.
fn internal(error: &impl std::fmt::Display) -> Error {
    Error::bug(format!("catalog query: {error}"))
}
