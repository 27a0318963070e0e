//! `pg_advisory_lock`, `pg_try_advisory_lock`, …: what a session's statements lock by number.
//!
//! The functions run in the middle of a plan, on threads that all tenants share, where nothing may wait. One that
//! would have to fails, and notes for what; the session waits for it without a thread and runs the statement again.
//! What the statement had taken the first time it then has, and is not counted twice.

use std::sync::Arc;

use parking_lot::Mutex;
use sepal_query::{AdvisoryCall, AdvisoryNumber};
use sepal_types::{Error, Result, SqlState};

use super::Session;
use crate::locks::{AdvisoryKey, AdvisoryLocks, Asked, Span, Waiting};

/// The numbers of one session. Shared by it and its plans.
#[derive(Debug)]
pub struct Advisory {
    environment: Arc<str>,
    locks: AdvisoryLocks,
    running: Mutex<Running>,
}

/// The statement under way.
#[derive(Debug, Default)]
struct Running {
    /// Locked by an earlier run of it, and not asked for in this one yet.
    ahead: Vec<Taken>,
    taken: Vec<Taken>,
    /// What it has to wait for.
    waits: Option<(Taken, Waiting)>,
    warnings: Vec<Error>,
}

#[derive(Clone, Debug, PartialEq)]
struct Taken {
    key: AdvisoryKey,
    shared: bool,
    span: Span,
}

impl Advisory {
    pub fn new(environment: Arc<str>, locks: AdvisoryLocks) -> Self {
        Self { environment, locks, running: Mutex::default() }
    }

    /// What one of the functions does. Called inside plans; returns at once.
    pub fn call(&self, call: AdvisoryCall, number: AdvisoryNumber) -> Result<bool> {
        let key = self.key(number);
        match call {
            AdvisoryCall::Lock { shared, transaction, wait } => {
                let span = if transaction { Span::Transaction } else { Span::Session };
                self.lock(Taken { key, shared, span }, wait)
            }
            AdvisoryCall::Unlock { shared } => {
                let unlocked = self.locks.unlock(&key, shared);
                if !unlocked {
                    let kind = if shared { "ShareLock" } else { "ExclusiveLock" };
                    let message = format!("you don't own a lock of type {kind}");
                    self.running.lock().warnings.push(Error::new(SqlState::Warning, message));
                }
                Ok(unlocked)
            }
            AdvisoryCall::UnlockAll => {
                self.locks.unlock_all();
                Ok(true)
            }
        }
    }

    /// DISCARD ALL.
    pub fn unlock_all(&self) {
        self.locks.unlock_all();
    }

    fn lock(&self, wanted: Taken, wait: bool) -> Result<bool> {
        let mut running = self.running.lock();
        if let Some(at) = running.ahead.iter().position(|taken| *taken == wanted) {
            let had = running.ahead.swap_remove(at);
            running.taken.push(had);
            return Ok(true);
        }
        if running.waits.is_some() {
            // Another part of the plan waits already: this run is over.
            return Err(blocked());
        }
        match self.locks.ask(wanted.key.clone(), wanted.shared, wanted.span, wait)? {
            Asked::Granted => {
                running.taken.push(wanted);
                Ok(true)
            }
            Asked::Refused(_) => Ok(false),
            Asked::Waits(waiting) => {
                running.waits = Some((wanted, waiting));
                Err(blocked())
            }
        }
    }

    /// Numbers of a bigint: its two halves. Environments are databases, and databases have numbers of their own.
    fn key(&self, number: AdvisoryNumber) -> AdvisoryKey {
        let (class, object, kind) = match number {
            AdvisoryNumber::One(number) => {
                let [class, object] = [number >> 32, number]
                    .map(|half| u32::try_from(half & i64::from(u32::MAX)).unwrap_or_default());
                (class, object, 1)
            }
            AdvisoryNumber::Two(class, object) => (class.cast_unsigned(), object.cast_unsigned(), 2),
        };
        AdvisoryKey { environment: Arc::clone(&self.environment), class, object, kind }
    }
}

impl Session {
    /// A statement that may lock numbers begins.
    pub(super) fn begin_advisory(&self) {
        *self.advisory.running.lock() = Running::default();
    }

    /// After a run that failed: waits if that was for a number. Whether the statement is to be run again.
    ///
    /// Errors: those of the wait.
    pub(super) async fn await_advisory(&mut self) -> Result<bool> {
        let Some((wanted, waiting)) = self.advisory.running.lock().waits.take() else { return Ok(false) };
        self.wait_for(waiting).await?;
        let mut running = self.advisory.running.lock();
        let taken = std::mem::take(&mut running.taken);
        running.ahead.extend(taken);
        running.ahead.push(wanted);
        running.warnings.clear();
        Ok(true)
    }

    /// The statement is done: what its functions had to say.
    pub(super) fn end_advisory(&mut self) {
        let warnings = std::mem::take(&mut *self.advisory.running.lock()).warnings;
        for warning in warnings {
            self.notice("WARNING", warning);
        }
    }
}

/// Never seen by a client: the statement is run again.
fn blocked() -> Error {
    Error::new(SqlState::LockNotAvailable, "the statement has to wait for an advisory lock")
        .with_hint("Call the function in a query of its own.")
}
