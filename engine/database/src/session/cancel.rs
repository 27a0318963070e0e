//! Stops the running statement of a session, or the session, from any task: cancel request, timeout, disconnect,
//! revocation, `pg_cancel_backend` and `pg_terminate_backend`.
//!
//! Here a statement also sleeps: `pg_sleep` runs in the middle of a plan, on a thread that all tenants' queries
//! share, and only notes there what it owes. The session waits it out between two pieces of work, on a timer that
//! costs nobody a thread. As in Postgres, the sleeps of one statement come one after the other.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sepal_types::{Error, Result, SqlState};
use tokio_util::sync::CancellationToken;

/// Cloned freely; all clones stop the same session. Armed anew when the next statement begins.
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    running: Arc<Mutex<Running>>,
    /// The session is to end.
    end: CancellationToken,
}

/// The statement under way.
#[derive(Debug, Default)]
struct Running {
    token: CancellationToken,
    /// What it has yet to sleep.
    owed: Duration,
    sleeping: bool,
}

impl CancelToken {
    /// Makes the running statement end with 57014. Between statements it has no effect.
    pub fn cancel(&self) {
        self.running.lock().token.cancel();
    }

    /// Makes the session end: what it runs ends with 57014, nothing else begins, and whoever serves its client tells
    /// that of 57P01.
    pub fn terminate(&self) {
        self.end.cancel();
        self.cancel();
    }

    pub fn is_terminated(&self) -> bool {
        self.end.is_cancelled()
    }

    pub async fn terminated(&self) {
        self.end.cancelled().await;
    }

    pub fn is_cancelled(&self) -> bool {
        self.running.lock().token.is_cancelled()
    }

    /// Whether the statement sleeps.
    pub(super) fn is_sleeping(&self) -> bool {
        self.running.lock().sleeping
    }

    /// A statement begins.
    pub(super) fn arm(&self) {
        let mut running = self.running.lock();
        running.owed = Duration::ZERO;
        running.sleeping = false;
        if running.token.is_cancelled() && !self.end.is_cancelled() {
            running.token = CancellationToken::new();
        }
    }

    /// Errors: 57014 once cancelled.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Whether the statement has to sleep before it goes on. Errors: 57014 once cancelled.
    pub(super) fn owes(&self) -> Result<bool> {
        let running = self.running.lock();
        if running.token.is_cancelled() { Err(cancelled()) } else { Ok(!running.owed.is_zero()) }
    }

    /// Makes the statement sleep at its next [`Self::guard`]. Returns at once, on any thread.
    pub(super) fn owe(&self, sleep: Duration) {
        let mut running = self.running.lock();
        running.owed = running.owed.saturating_add(sleep);
    }

    /// Runs `work` and sleeps what it owes then, unless cancelled first; `work` must be safe to drop half done.
    pub(super) async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let token = self.running.lock().token.clone();
        let paid = async {
            let result = work.await;
            let owed = self.running.lock().fall_asleep();
            if !owed.is_zero() {
                tokio::time::sleep(owed).await;
                self.running.lock().sleeping = false;
            }
            result
        };
        tokio::select! {
            biased;
            () = token.cancelled() => Err(cancelled()),
            result = paid => result,
        }
    }

    /// Sleeps what the statement owes. Errors: 57014 once cancelled.
    pub(super) async fn rest(&self) -> Result<()> {
        self.guard(async { Ok(()) }).await
    }
}

impl Running {
    /// What is to be slept now, if it is not zero.
    fn fall_asleep(&mut self) -> Duration {
        self.sleeping = !self.owed.is_zero();
        std::mem::take(&mut self.owed)
    }
}

fn cancelled() -> Error {
    Error::new(SqlState::QueryCanceled, "canceling statement due to user request")
}
