//! Where times come from: handed to stores, control and pipelines, so that a test or a simulation lets an hour pass.

use std::time::{SystemTime, UNIX_EPOCH};

/// Gives the time.
pub trait Clock: Send + Sync {
    /// Microseconds since 1970-01-01 00:00 UTC. May go back: a store never lets its commits' times do so.
    fn now_us(&self) -> i64;

    /// The same in whole seconds.
    fn unix_seconds(&self) -> i64 {
        self.now_us().div_euclid(1_000_000)
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        // A clock set before 1970 reads as 1970: keys then look unexpired, which only their owner could have wanted.
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
    }
}
