//! How far a replay is, in the server's log: nobody should wonder whether a start that takes a minute hangs.
//!
//! `recover` tells it of every commit. Short logs are replayed in silence.

use std::time::{Duration, Instant};

use sepal_types::{Lsn, TenantId};

/// A log of this size is announced: below it a replay is over before anybody asks.
const LONG_BYTES: u64 = 16 << 20;
/// How often a long replay tells of itself.
const INTERVAL: Duration = Duration::from_secs(5);

/// One replay.
pub(super) struct Progress {
    tenant: TenantId,
    total: u64,
    done: u64,
    commits: u64,
    started: Instant,
    told: Instant,
}

impl Progress {
    /// `total`: bytes of all files to be read, without their headers.
    pub(super) fn start(tenant: TenantId, total: u64) -> Self {
        let started = Instant::now();
        if total >= LONG_BYTES {
            tracing::info!(%tenant, bytes = total, "replaying the log");
        }
        Self { tenant, total, done: 0, commits: 0, started, told: started }
    }

    /// A commit of so many bytes is about to be applied.
    pub(super) fn commit(&mut self, bytes: usize) {
        self.commits += 1;
        self.done = self.done.saturating_add(bytes as u64).min(self.total);
        if self.told.elapsed() >= INTERVAL {
            self.told = Instant::now();
            let percent = self.done * 100 / self.total.max(1);
            let (tenant, bytes, commits) = (self.tenant, self.done, self.commits);
            tracing::info!(%tenant, bytes, percent, commits, "replaying the log");
        }
    }

    pub(super) fn end(&self, lsn: Lsn) {
        let elapsed = self.started.elapsed();
        if self.total >= LONG_BYTES || elapsed >= INTERVAL {
            let (tenant, commits) = (self.tenant, self.commits);
            let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(%tenant, commits, %lsn, milliseconds, "the log is replayed");
        }
    }
}
