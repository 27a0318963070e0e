//! Keeps a prune and a backup apart, wherever they run: one could remove what the other is about to count on.
//!
//! Each writes its own object first and looks for the other's then, so of two that meet at least one sees the other.
//! A job renews its object; one that was killed leaves it behind, and it counts no more after a quarter of an hour.

use std::time::Duration;

use sepal_database::{
    Error, Result, SqlState,
    sealing::{hex, random_bytes},
};
use tokio::task::JoinHandle;

use crate::{
    moment::{SECOND, now_us},
    names,
    repository::Repository,
};

const RENEW: Duration = Duration::from_secs(240);
const STALE_SECONDS: i64 = 900;

/// What a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Backup,
    Prune,
}

/// Held while a job runs. End it with [`Lock::release`].
pub(crate) struct Lock {
    repository: Repository,
    name: String,
    renewal: JoinHandle<()>,
}

impl Job {
    const fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Prune => "prune",
        }
    }

    /// Two backups of different directories may run at once; they only add.
    const fn other(self) -> Self {
        match self {
            Self::Backup => Self::Prune,
            Self::Prune => Self::Backup,
        }
    }
}

impl Lock {
    /// Errors: 55006 while the other kind of job runs.
    pub(crate) async fn take(repository: &Repository, job: Job) -> Result<Self> {
        let name = format!("{}/{}-{}", names::LOCKS, job.word(), hex(&random_bytes::<8>()));
        repository.put(&name, Vec::from("{}")).await?;
        let lock = Self { repository: repository.clone(), renewal: renew(repository, &name), name };
        let other = format!("{}/{}-", names::LOCKS, job.other().word());
        let held = repository.list(names::LOCKS).await?;
        let now = now_us() / SECOND;
        let met = held.iter().find(|object| {
            object.name.starts_with(&other) && now.saturating_sub(object.modified) < STALE_SECONDS
        });
        let Some(met) = met else { return Ok(lock) };
        let met = met.name.clone();
        lock.release().await;
        Err(Error::new(
            SqlState::ObjectInUse,
            format!("a {} is under way in this repository ({met})", job.other().word()),
        )
        .with_hint("Try again when it is done. One that was killed counts for 15 minutes more."))
    }

    pub(crate) async fn release(self) {
        self.renewal.abort();
        if let Err(error) = self.repository.remove(&self.name).await {
            tracing::warn!(%error, "a lock stays in the backup repository for 15 minutes");
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

fn renew(repository: &Repository, name: &str) -> JoinHandle<()> {
    let (repository, name) = (repository.clone(), name.to_owned());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RENEW).await;
            if let Err(error) = repository.put(&name, Vec::from("{}")).await {
                tracing::warn!(%error, "a lock of the backup repository was not renewed");
            }
        }
    })
}
