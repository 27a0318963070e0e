//! How far a job has come, for whoever waits for it, and their way to end it.

use parking_lot::Mutex;
use sepal_database::{Error, Result, SqlState};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// A job's state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `reading the catalogue`, `copying`, …
    pub stage: String,
    pub tenants_done: u64,
    pub tenants: u64,
    /// Copied, fetched or checked.
    pub bytes: u64,
    pub objects: u64,
}

/// Shared by a job and those who watch it.
#[derive(Debug, Default)]
pub struct Watch {
    progress: Mutex<Progress>,
    cancel: CancellationToken,
}

impl Watch {
    pub fn now(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// The job ends at its next step.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(crate) fn stage(&self, stage: &str, tenants: usize) {
        let mut progress = self.progress.lock();
        stage.clone_into(&mut progress.stage);
        progress.tenants = tenants as u64;
        progress.tenants_done = 0;
    }

    pub(crate) fn tenant_done(&self) {
        self.progress.lock().tenants_done += 1;
    }

    pub(crate) fn moved(&self, bytes: u64) {
        let mut progress = self.progress.lock();
        progress.bytes += bytes;
        progress.objects += 1;
    }

    /// Errors: 57014 once it was cancelled.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::new(SqlState::QueryCanceled, "the backup job was cancelled")
                .with_hint("What it stored stays: the next one goes on from there."));
        }
        Ok(())
    }
}
