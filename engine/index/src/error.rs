//! What can go wrong while building or opening an index, or reading what was left where it is stored. Searching what is
//! in memory cannot fail.

use sepal_types::Metric;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum IndexError {
    /// The access method does not do this metric (SQLSTATE 0A000 at the edge).
    #[error("access method \"{method}\" does not support {}", .metric.opclass())]
    UnsupportedMetric { method: &'static str, metric: Metric },
    /// Slices or options that do not fit together: a bug of the caller.
    #[error("index build: {0}")]
    Shape(String),
    /// [`crate::BuildParams::cancelled`] said so.
    #[error("index build cancelled; nothing was kept")]
    Cancelled,
    /// Stored bytes that are not an index. Build it anew.
    #[error("index bytes are damaged at byte {offset}: {why}; rebuild the index")]
    Corrupt { offset: usize, why: String },
    /// Whoever holds the stored bytes could not read them, and says why.
    #[error("the index's bytes cannot be read: {0}")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Sound bytes that are not an index over the rows beside them. Build it anew.
    #[error("the index does not belong to its rows: {0}; rebuild the index")]
    Disagrees(String),
    /// Written by a later Sepal.
    #[error("index bytes have version {found}, this Sepal reads {supported}; upgrade, or rebuild the index")]
    Version { found: u16, supported: u16 },
    /// A factory string of which FAISS makes no index, or that it must not see (SQLSTATE 22023 at the edge).
    #[error("invalid FAISS factory \"{factory}\": {why}")]
    Factory { factory: String, why: String },
    /// FAISS returned an error code; `message` is its own.
    #[error("FAISS failed to {operation} (code {code}): {message}")]
    Faiss { operation: &'static str, code: i32, message: String },
    /// The machine cannot give the memory or thread that a build needs.
    #[error("index build needs {0}; free some, then build again")]
    Resources(String),
}
