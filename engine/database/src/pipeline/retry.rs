//! What is to be done about a fault: the one table of reactions, and how long to wait.
//!
//! Called by `deliver`, which acts. Waits are Vector's (`src/sinks/util/retries.rs`): Fibonacci from
//! 1 to 30 seconds with full jitter, so that many pipelines that failed together do not come back together.

use std::time::Duration;

use crate::connector::{Fault, FaultKind};

/// No destination's `Retry-After` holds a pipeline longer.
const LONGEST_ASKED: Duration = Duration::from_mins(5);
const LONGEST_WAIT_S: u64 = 30;
/// Tries of a batch over which the plugin fails by itself.
const INTERNAL_TRIES: u32 = 3;
/// Traps over one batch after which its rows are tried apart.
const TRAPS: u32 = 2;
/// The code of a trap: the plugin's instance is gone, because of these rows perhaps.
pub const TRAP: &str = "plugin.trap";

/// What happened to one piece of a batch so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tries {
    /// Of any kind; the next one's number is one more.
    pub attempts: u32,
    internal: u32,
    traps: u32,
    refusals: u32,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    Wait,
    /// Close, open, wait.
    Reopen,
    /// Forget cached secrets, then as [`Self::Reopen`].
    Reauthorize,
    /// The rows cannot be accepted: try halves, and set single rows aside.
    Isolate,
    /// No more attempts.
    Exhausted,
    /// A person has to look.
    Pause,
}

impl Tries {
    /// Notes a fault and says what to do. `limit`: attempts in all.
    pub fn react(&mut self, fault: &Fault, limit: u32) -> Reaction {
        match fault.kind {
            FaultKind::Transient if self.attempts >= limit => Reaction::Exhausted,
            FaultKind::Transient => Reaction::Wait,
            FaultKind::NotConnected if self.attempts >= limit => Reaction::Exhausted,
            FaultKind::NotConnected => Reaction::Reopen,
            FaultKind::Unauthorized => {
                self.refusals += 1;
                if self.refusals > 1 { Reaction::Pause } else { Reaction::Reauthorize }
            }
            FaultKind::Rejected => Reaction::Isolate,
            FaultKind::Misconfigured => Reaction::Pause,
            FaultKind::Internal if fault.code.as_deref() == Some(TRAP) => {
                self.traps += 1;
                if self.traps >= TRAPS { Reaction::Isolate } else { Reaction::Reopen }
            }
            FaultKind::Internal => {
                self.internal += 1;
                if self.internal >= INTERNAL_TRIES { Reaction::Pause } else { Reaction::Reopen }
            }
        }
    }
}

/// How long before the next attempt: what the destination asked for, else by `attempt` (from 1). `chance`: from 0 to 1.
pub fn wait(attempt: u32, fault: &Fault, chance: f64) -> Duration {
    if let Some(asked) = fault.retry_after_ms {
        return Duration::from_millis(asked.into()).min(LONGEST_ASKED);
    }
    let (mut now, mut next) = (1u64, 2u64);
    for _ in 1..attempt.min(16) {
        (now, next) = (next, (now + next).min(LONGEST_WAIT_S));
    }
    Duration::from_secs(now.min(LONGEST_WAIT_S)).mul_f64(chance.clamp(0.0, 1.0))
}
