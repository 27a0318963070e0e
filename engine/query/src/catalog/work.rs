//! What is being done to the tenant's tables, and what is known of them: the rows behind `sepal_maintenance`,
//! `sepal_storage`, `pg_stats`, the columns about VACUUM and ANALYZE in `pg_stat_user_tables`, and the progress views.
//!
//! Filled by the session when a catalog query asks, from its tenant's own work only.

use std::collections::BTreeMap;

use sepal_types::{ColumnId, TableId};

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct WorkRows {
    pub tasks: Vec<TaskRow>,
    pub copies: Vec<CopyRow>,
    pub statistics: BTreeMap<TableId, TableStatistics>,
    pub storage: StorageRow,
}

/// A flush, a compaction, a VACUUM: a row of `sepal_maintenance`.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Of the session whose statement it is; 0: it runs by itself.
    pub pid: i32,
    /// `flush`, `compaction`, `vacuum`, `vacuum full`, `analyze`, `index build`, `file keys`.
    pub task: &'static str,
    /// `None`: of all tables, or not known yet.
    pub table: Option<TableId>,
    pub phase: &'static str,
    /// What `done` and `total` count: `bytes` or `rows`.
    pub unit: &'static str,
    pub done: u64,
    /// 0: not known.
    pub total: u64,
    /// Microseconds since 1970-01-01 UTC.
    pub started_us: i64,
    pub per_second: u64,
}

/// A COPY that is running.
#[derive(Clone, Debug)]
pub struct CopyRow {
    pub pid: i32,
    pub table: TableId,
    pub bytes: u64,
    pub rows: u64,
}

/// What is remembered of a table. Times are microseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Default)]
pub struct TableStatistics {
    pub vacuumed_us: Option<i64>,
    /// By itself; forgotten when the tenant is closed.
    pub compacted_us: Option<i64>,
    pub analyzed_us: Option<i64>,
    pub vacuums: u64,
    pub compactions: u64,
    pub analyses: u64,
    pub columns: Vec<ColumnStatistics>,
}

/// What ANALYZE found in a column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnStatistics {
    pub column: ColumnId,
    pub null_frac: f64,
    /// Bytes of a value in memory.
    pub avg_width: u32,
    /// As in `pg_stats`: below 0 it is a part of the rows, 0 is unknown.
    pub n_distinct: f64,
    /// The most common values in text, with the part of all rows that has each.
    pub common: Vec<(String, f64)>,
    /// What divides the other values into equal parts; empty where there is no order or too few of them.
    pub histogram: Vec<String>,
}

/// The tenant's files and what writing them cost: `sepal_storage`.
#[derive(Clone, Debug, Default)]
pub struct StorageRow {
    pub live_rows: u64,
    pub deleted_rows: u64,
    pub segments: u64,
    pub segment_bytes: u64,
    pub index_bytes: u64,
    pub memory_bytes: u64,
    pub log_bytes: u64,
    pub history_bytes: u64,
    pub ingested_bytes: u64,
    pub flushed_bytes: u64,
    pub compacted_bytes: u64,
    /// `None` before the first flush since the tenant was opened.
    pub write_amplification: Option<f64>,
    pub compaction_due: bool,
}
