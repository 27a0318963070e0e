//! Stops the running statement of a session, from any task: cancel request, timeout, disconnect, revocation.

use std::sync::Arc;

use parking_lot::Mutex;
use sepal_types::{Error, Result, SqlState};
use tokio_util::sync::CancellationToken;

/// Cloned freely; all clones stop the same session. Armed anew when the next statement begins.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Mutex<CancellationToken>>);

impl CancelToken {
    /// Makes the running statement end with 57014. Between statements it has no effect.
    pub fn cancel(&self) {
        self.0.lock().cancel();
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.lock().is_cancelled()
    }

    /// A statement begins.
    pub(super) fn arm(&self) {
        let mut token = self.0.lock();
        if token.is_cancelled() {
            *token = CancellationToken::new();
        }
    }

    /// Errors: 57014 once cancelled.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Runs `work` unless cancelled first; `work` must be safe to drop half done.
    pub(super) async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let token = self.0.lock().clone();
        tokio::select! {
            biased;
            () = token.cancelled() => Err(cancelled()),
            result = work => result,
        }
    }
}

fn cancelled() -> Error {
    Error::new(SqlState::QueryCanceled, "canceling statement due to user request")
}
