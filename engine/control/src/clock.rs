//! Where this crate's times come from, so that a test can let an hour pass.

use std::time::{SystemTime, UNIX_EPOCH};

/// Gives the time. Handed to [`crate::Control`] in its options.
pub trait Clock: Send + Sync {
    /// Seconds since 1970-01-01 00:00 UTC.
    fn unix_seconds(&self) -> i64;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_seconds(&self) -> i64 {
        // A clock set before 1970 reads as 1970: keys then look unexpired, which only their owner could have
        // wanted.
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
    }
}
