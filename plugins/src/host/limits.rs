//! What one guest uses, counted while it runs: memory, tables, ticks of CPU time, requests and log lines.
//!
//! The store asks [`Meter`] before anything grows. A limit that is reached ends the call; the reason is kept, because
//! what wasmtime reports is the trap it was turned into.

use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, UpdateDeadline};

use super::{engine::MEMORIES, ticker::TICK};
use crate::{call::CallError, manifest::EffectiveLimits};

/// Memory and CPU time of one guest.
#[derive(Debug)]
pub(super) struct Meter {
    limits: EffectiveLimits,
    memory_bytes: u64,
    peak_memory_bytes: u64,
    table_elements: u64,
    ticks: u64,
    broken: Option<CallError>,
}

impl Meter {
    pub(super) fn new(limits: EffectiveLimits) -> Self {
        Self { limits, memory_bytes: 0, peak_memory_bytes: 0, table_elements: 0, ticks: 0, broken: None }
    }

    /// A call begins: CPU time is counted per call, memory per guest.
    pub(super) fn begin(&mut self, limits: EffectiveLimits) {
        self.limits = limits;
        self.ticks = 0;
    }

    pub(super) fn peak_memory_bytes(&self) -> u64 {
        self.peak_memory_bytes
    }

    /// The limit that was reached, if one was.
    pub(super) fn broken(&self) -> Option<&CallError> {
        self.broken.as_ref()
    }

    /// The guest has run for a tick. Counting these is counting its own time: while it waits for the host, or for a
    /// thread, none comes.
    pub(super) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        self.ticks += 1;
        let spent = TICK.saturating_mul(u32::try_from(self.ticks).unwrap_or(u32::MAX));
        let limit_ms = self.limits.cpu_per_call_ms;
        if spent > Duration::from_millis(limit_ms.into()) {
            return Err(self.breaks(CallError::Cpu { limit_ms }));
        }
        Ok(UpdateDeadline::Yield(1))
    }

    fn breaks(&mut self, error: CallError) -> wasmtime::Error {
        self.broken = Some(error.clone());
        wasmtime::Error::new(error)
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The guest's own maximum: `memory.grow` answers -1, as WASM has it.
            return Ok(false);
        }
        let more = desired.saturating_sub(current) as u64;
        let wanted = self.memory_bytes.saturating_add(more);
        if wanted > self.limits.memory_bytes {
            return Err(self.breaks(CallError::Memory { limit_bytes: self.limits.memory_bytes }));
        }
        self.memory_bytes = wanted;
        self.peak_memory_bytes = self.peak_memory_bytes.max(wanted);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // It was counted already, and a guest that goes on without what it asked for only fails later.
        tracing::warn!(%error, "memory for a plugin could not be had");
        let problem = "the machine had no memory left for the plugin".to_owned();
        Err(self.breaks(CallError::Limit(problem)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let wanted = self.table_elements.saturating_add(desired.saturating_sub(current) as u64);
        let limit = u64::from(self.limits.table_elements);
        if wanted > limit {
            let problem = format!("its tables would have {wanted} elements; {limit} is the most");
            return Err(self.breaks(CallError::Limit(problem)));
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let problem = "the machine had no memory left for the plugin's tables".to_owned();
        Err(self.breaks(CallError::Limit(problem)))
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn tables(&self) -> usize {
        self.limits.instances as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

/// So many per second, and at once no more than that: a bucket that fills as time passes.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    left: f64,
    filled: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, left: per_second, filled: now }
    }

    /// Takes one; `Err` with the milliseconds until there is one again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), u32> {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + since * self.per_second).min(self.per_second);
        self.filled = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(((1.0 - self.left) / self.per_second * 1000.0).ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        let limits =
            EffectiveLimits { memory_bytes: 1 << 20, cpu_per_call_ms: 3, ..EffectiveLimits::UNASKED };
        Meter::new(EffectiveLimits { table_elements: 10, ..limits })
    }

    #[test]
    fn memories_count_together() {
        let mut meter = meter();
        assert!(meter.memory_growing(0, 600 << 10, None).unwrap());
        assert!(meter.memory_growing(0, 400 << 10, None).unwrap());
        assert!(!meter.memory_growing(0, 200, Some(100)).unwrap(), "the guest's own maximum is no offence");
        meter.memory_growing(400 << 10, 500 << 10, None).unwrap_err();
        assert_eq!(meter.broken(), Some(&CallError::Memory { limit_bytes: 1 << 20 }));
        assert_eq!(meter.peak_memory_bytes(), 1000 << 10);
    }

    #[test]
    fn tables_count_together() {
        let mut meter = meter();
        assert!(meter.table_growing(0, 6, None).unwrap());
        let error = meter.table_growing(0, 5, None).unwrap_err();
        assert!(matches!(error.downcast_ref::<CallError>(), Some(CallError::Limit(_))));
    }

    #[test]
    fn ticks_count_per_call() {
        let mut meter = meter();
        for _ in 0..3 {
            meter.tick().unwrap();
        }
        assert!(meter.tick().is_err());
        meter.begin(meter.limits);
        meter.tick().unwrap();
    }

    #[test]
    fn a_rate_is_a_burst_and_then_a_trickle() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        for _ in 0..10 {
            rate.take(start).unwrap();
        }
        assert_eq!(rate.take(start), Err(100));
        assert_eq!(rate.take(start + Duration::from_millis(60)), Err(40));
        rate.take(start + Duration::from_millis(101)).unwrap();
        rate.take(start + Duration::from_millis(101)).unwrap_err();
    }
}
