//! `statement_timeout`: cancels the running statement from a task of its own.
//!
//! Used by `watch`. A task, and not a branch of the session's `select!`, because a statement may keep its own
//! task busy between two polls. Dropping the timer disarms it: it cannot hit the statement after.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sepal_database::CancelToken;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// How often a statement that goes on is told. One that is planned notices nothing, and begins to run with a token of
/// its own: told once, in between, it would never hear of it.
const AGAIN: Duration = Duration::from_millis(20);

/// One statement's time.
pub struct Timer {
    pub deadline: Instant,
    armed: Arc<Mutex<bool>>,
    task: AbortHandle,
}

impl Timer {
    pub fn start(timeout: Duration, cancel: CancelToken) -> Self {
        let deadline = Instant::now() + timeout;
        let armed = Arc::new(Mutex::new(true));
        let held = armed.clone();
        let task = tokio::spawn(async move {
            let mut next = deadline;
            loop {
                sleep_until(next).await;
                // Under the lock: either the statement is still this one, or it is not touched.
                if !cancelled(&held, &cancel) {
                    return;
                }
                next = Instant::now() + AGAIN;
            }
        });
        Self { deadline, armed, task: task.abort_handle() }
    }

    pub fn has_expired(&self) -> bool {
        self.deadline <= Instant::now()
    }
}

/// Whether it is the statement's time still.
fn cancelled(armed: &Mutex<bool>, cancel: &CancelToken) -> bool {
    let armed = armed.lock();
    if *armed {
        cancel.cancel();
    }
    *armed
}

impl Drop for Timer {
    fn drop(&mut self) {
        *self.armed.lock() = false;
        self.task.abort();
    }
}
