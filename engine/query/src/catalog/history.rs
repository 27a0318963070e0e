//! What `sepal_snapshots` and `sepal_history` show: plain rows, made by `database` when one is read. Times are
//! microseconds since 1970-01-01 UTC. The views are in `relations::history`.

/// The rows of both views.
#[derive(Clone, Debug, Default)]
pub struct HistoryRows {
    /// The environment's.
    pub snapshots: Vec<SnapshotRow>,
    /// The tenant's; `None` where nobody keeps any.
    pub history: Option<HistoryRow>,
}

/// A row of `sepal_snapshots`.
#[derive(Clone, Debug, Default)]
pub struct SnapshotRow {
    pub name: String,
    /// When the last commit was made that it shows.
    pub at: i64,
    pub lsn: u64,
    pub created_at: i64,
    /// The id of the key that made it.
    pub created_by: String,
    pub comment: Option<String>,
    /// Live rows of the environment's tables.
    pub rows: u64,
    /// Of files that only it keeps.
    pub bytes: u64,
}

/// The row of `sepal_history`.
#[derive(Clone, Debug, Default)]
pub struct HistoryRow {
    /// Every moment from this time on can be read.
    pub oldest_at: i64,
    pub oldest_lsn: u64,
    /// Older checkpoints that are kept.
    pub versions: u64,
    /// Of files that only the past needs.
    pub bytes: u64,
    /// The server's settings.
    pub keep_minutes: u64,
    pub keep_versions: u64,
    pub max_bytes: u64,
}
