//! How fast bytes may go: `--rate-mib`. One of these is shared by everything that a job reads or sends.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A limit in bytes per second, or none.
#[derive(Debug, Default)]
pub struct Pace {
    bytes_per_second: Option<u64>,
    /// When what was spent so far is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// `None` and 0: as fast as it goes.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.filter(|rate| *rate > 0), paid_at: Mutex::default() }
    }

    /// Waits until this many bytes more are within the limit.
    pub(crate) async fn spend(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let paid_at = {
            let mut held = self.paid_at.lock();
            let now = Instant::now();
            let paid_at = held.map_or(now, |at| at.max(now)) + cost;
            *held = Some(paid_at);
            paid_at
        };
        tokio::time::sleep_until(paid_at).await;
    }
}
