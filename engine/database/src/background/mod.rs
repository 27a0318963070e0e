//! What all tenants' background work shares: threads, a rate, and a count of what was written.
//!
//! Made once with the database. `maintain` runs its jobs here. Queries and commits have threads of their own:
//! nothing that somebody waits for runs here, but flushes where a tenant's memory is full.

mod budget;
mod lanes;
mod tasks;
mod throttle;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sepal_storage::{CheckpointReport, CompactionReport};
use sepal_types::Result;

use crate::options::DatabaseOptions;

pub use budget::{Budget, Share};
pub use lanes::Lane;
pub use tasks::{Posted, TaskBoard, TaskKind};
pub use throttle::Throttle;

/// Flushes yield to queries; writers may have to wait for them, so they get more than the rest.
const FLUSH_NICE: i32 = 5;
/// The lowest priority there is.
const SLOW_NICE: i32 = 19;

pub struct Background {
    pub flushes: Lane,
    /// Compactions.
    pub compactions: Lane,
    /// Indexes that segments lack. A long build must not keep others' segments from being merged.
    pub builds: Lane,
    pub throttle: Arc<Throttle>,
    /// What index builds may take, whoever begins them.
    pub build_budget: Budget,
    /// Whose turn it is to have the rows of a large merge in memory: of this, everybody takes 1.
    pub large_merges: Budget,
    ingested: AtomicU64,
    flushed: AtomicU64,
    compacted: AtomicU64,
}

/// Bytes of rows, uncompressed, of all tenants since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowsWritten {
    /// Those that left memory.
    pub ingested: u64,
    pub flushed: u64,
    pub compacted: u64,
}

impl Background {
    pub fn new(options: &DatabaseOptions) -> Result<Arc<Self>> {
        let threads = options.maintenance_threads.max(1);
        Ok(Arc::new(Self {
            flushes: Lane::new("sepal-flush", options.threads.max(2), FLUSH_NICE)?,
            compactions: Lane::new("sepal-compact", threads, SLOW_NICE)?,
            builds: Lane::new("sepal-build", threads, SLOW_NICE)?,
            throttle: Arc::new(Throttle::new(options.compaction_bytes_per_second)),
            build_budget: Budget::new(options.index_build_bytes),
            large_merges: Budget::new(1),
            ingested: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            compacted: AtomicU64::new(0),
        }))
    }

    pub fn count_flush(&self, report: &CheckpointReport) {
        self.ingested.fetch_add(report.ingested_bytes, Ordering::Relaxed);
        self.flushed.fetch_add(report.rows_bytes_written, Ordering::Relaxed);
    }

    pub fn count_compaction(&self, report: &CompactionReport) {
        self.compacted.fetch_add(report.rows_bytes_written, Ordering::Relaxed);
    }

    pub fn rows_written(&self) -> RowsWritten {
        RowsWritten {
            ingested: self.ingested.load(Ordering::Relaxed),
            flushed: self.flushed.load(Ordering::Relaxed),
            compacted: self.compacted.load(Ordering::Relaxed),
        }
    }
}
