//! How often and how many at once: what one sink may ask of the outside.
//!
//! Requests come at a steady rate with a second's worth of burst. One that would wait shortly waits, so that a guest
//! that posts rows one by one is slowed down instead of refused; the rest are told when to come again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest a request waits for its turn.
const MOST_WAIT: Duration = Duration::from_secs(1);

/// Requests of one sink.
#[derive(Debug)]
pub(super) struct Quota {
    rate: Rate,
    at_once: Arc<Semaphore>,
}

impl Quota {
    pub fn new(per_second: u32, at_once: u32) -> Self {
        let permits = usize::try_from(at_once).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { rate: Rate::per_second(per_second), at_once: Arc::new(Semaphore::new(permits)) }
    }

    /// Held while the request runs. Errors: after how many milliseconds to ask again.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit, u32> {
        self.rate.turn(1).await?;
        match tokio::time::timeout(MOST_WAIT, Arc::clone(&self.at_once).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            // Closed never happens; too many at once for a second does.
            Ok(Err(_)) | Err(_) => Err(milliseconds(MOST_WAIT)),
        }
    }
}

fn milliseconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// A steady rate (the generic cell rate algorithm): knows only when the next one would be due.
#[derive(Debug)]
pub(super) struct Rate {
    /// `None`: never.
    interval: Option<Duration>,
    /// How far ahead of the steady rate one may be.
    burst: Duration,
    due: Mutex<Option<Instant>>,
}

impl Rate {
    pub fn per_second(number: u32) -> Self {
        let interval = (number > 0).then(|| Duration::from_secs(1) / number);
        let burst =
            interval.map_or(Duration::ZERO, |interval| Duration::from_secs(1).saturating_sub(interval));
        Self { interval, burst, due: Mutex::new(None) }
    }

    /// Waits for its turn, unless that is long. Errors: after how many milliseconds to ask again.
    pub async fn turn(&self, units: u32) -> Result<(), u32> {
        let wait = self.take_many(units, Instant::now(), MOST_WAIT).map_err(milliseconds)?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// [`Self::take_many`] of one.
    pub fn take(&self, now: Instant, most: Duration) -> Result<Duration, Duration> {
        self.take_many(1, now, most)
    }

    /// How long to wait before going on, at most `most`. Errors: how long it would be; nothing is taken then. Many
    /// units go through at once; the next one waits for them.
    pub fn take_many(&self, units: u32, now: Instant, most: Duration) -> Result<Duration, Duration> {
        let Some(interval) = self.interval else { return Err(Duration::from_secs(1)) };
        let mut due = self.due.lock();
        let next = due.map_or(now, |due| due.max(now));
        let wait = next.saturating_duration_since(now).saturating_sub(self.burst);
        if wait > most {
            return Err(wait);
        }
        *due = Some(next + interval.saturating_mul(units));
        Ok(wait)
    }
}
