//! How many bytes compactions of all tenants may read and write in a second: a bucket that fills steadily.
//!
//! While statements run it fills at a quarter of the rate: the disk and the memory's bandwidth are theirs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Statements that follow each other so soon leave no pause between them.
const QUIET: Duration = Duration::from_millis(100);
/// What is left of the rate while statements run.
const BUSY_SHARE: f64 = 0.25;
/// How much can be saved up, in seconds of the rate.
const SAVED: f64 = 0.125;
/// How long at most until somebody who waits looks whether to stop.
const NAP: Duration = Duration::from_millis(20);

pub struct Throttle {
    /// 0: no limit.
    bytes_per_second: u64,
    bucket: Mutex<Bucket>,
    running: AtomicUsize,
    started: Instant,
    /// When the last statement ended, in milliseconds since the start, and one more; 0: none has.
    last_ms: AtomicU64,
}

/// A statement that runs.
pub struct Busy(Arc<Throttle>);

struct Bucket {
    /// Bytes that may be spent; below 0 they were spent in advance.
    credit: f64,
    at: Instant,
}

impl Throttle {
    pub fn new(bytes_per_second: u64) -> Self {
        let started = Instant::now();
        Self {
            bytes_per_second,
            bucket: Mutex::new(Bucket { credit: 0.0, at: started }),
            running: AtomicUsize::new(0),
            started,
            last_ms: AtomicU64::new(0),
        }
    }

    /// Says that a statement runs, until what this gives is dropped.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.running.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// So many bytes were read or written: waits until they may have been. Blocking.
    pub fn spend(&self, bytes: u64, stopped: &dyn Fn() -> bool) {
        if self.bytes_per_second == 0 {
            return;
        }
        let mut wait = self.bucket.lock().take(bytes, Instant::now(), self.rate());
        while !wait.is_zero() && !stopped() {
            thread::sleep(wait.min(NAP));
            wait = self.bucket.lock().take(0, Instant::now(), self.rate());
        }
    }

    fn rate(&self) -> f64 {
        let rate = self.bytes_per_second as f64;
        if self.is_busy() { rate * BUSY_SHARE } else { rate }
    }

    fn is_busy(&self) -> bool {
        if self.running.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let last = self.last_ms.load(Ordering::Relaxed);
        last > 0 && self.started.elapsed() < Duration::from_millis(last) + QUIET
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.0.last_ms.store(now + 1, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bucket {
    /// Takes bytes out; how long until they are paid for, at `rate` bytes in a second.
    fn take(&mut self, bytes: u64, now: Instant, rate: f64) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.credit = (self.credit + passed * rate).min(rate * SAVED) - bytes as f64;
        if self.credit >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.credit / rate) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_paid_for_with_time() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut bucket = Bucket { credit: 0.0, at: start };
        assert_eq!(bucket.take(500, at(0), 1_000.0), Duration::from_millis(500));
        assert_eq!(bucket.take(0, at(250), 1_000.0), Duration::from_millis(250));
        assert_eq!(bucket.take(0, at(500), 1_000.0), Duration::ZERO);
        // What is saved up is little: after an hour of quiet there is no hour's worth at once.
        assert_eq!(bucket.take(1_125, at(3_600_500), 1_000.0), Duration::from_secs(1));
        assert_eq!(
            bucket.take(0, at(3_601_000), 500.0),
            Duration::from_millis(1_500),
            "half the rate: 250 bytes are paid for by now, 750 are left"
        );
    }

    #[test]
    fn statements_slow_it_down() {
        let throttle = Arc::new(Throttle::new(1_000));
        assert!(!throttle.is_busy());
        let one = throttle.busy();
        let other = throttle.busy();
        drop(one);
        assert!(throttle.is_busy());
        assert!((throttle.rate() - 250.0).abs() < f64::EPSILON);
        drop(other);
        assert!(throttle.is_busy(), "another one may follow at once");
        Throttle::new(0).spend(u64::MAX, &|| false);
        throttle.spend(u64::MAX, &|| true);
    }
}
