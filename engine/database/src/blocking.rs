//! Work that may block (files, control.db, decoding) leaves the threads that serve connections here. Called by
//! everything in this crate that is async and by backups; never itself blocks.

use sepal_types::{Error, Result};

/// Runs `work` on a thread that may block. `what` names it in the error of one that panicked, which is our bug.
pub async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|problem| Error::bug(format!("{what} panicked: {problem}")))?
}
