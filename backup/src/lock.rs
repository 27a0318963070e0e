//! Keeps a prune and a backup apart, wherever they run: one could remove what the other is about to count on.
//!
//! Each writes its own object first and looks for the other's then, so of two that meet at least one sees the other.
//! A job renews its object; one that was killed leaves it behind, and it counts no more after a quarter of an hour, by
//! the clock that dates both objects: the place's. A job that cannot renew its own ends before that.

use std::time::Duration;

use sepal_database::{
    Error, Result, SqlState,
    sealing::{hex, random_bytes},
};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    moment::{SECOND, now_us},
    names,
    repository::{Listed, Repository},
};

const RENEW: Duration = Duration::from_secs(180);
/// For one attempt to renew it.
const PATIENCE: Duration = Duration::from_secs(60);
/// A job whose lock was not renewed for so long gives up.
const LOST: Duration = Duration::from_secs(600);
const STALE_SECONDS: i64 = 900;
/// Older objects are of jobs that were killed, whatever the clocks say.
const FORGOTTEN_SECONDS: i64 = 86_400;

// It is noticed one attempt late, and then still before anybody else counts it as given up.
const _: () = assert!(LOST.as_secs() + RENEW.as_secs() + PATIENCE.as_secs() < STALE_SECONDS.unsigned_abs());

/// What a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Backup,
    Prune,
}

/// Held while a job runs: see [`Lock::hold`].
pub(crate) struct Lock {
    repository: Repository,
    name: String,
    renewal: JoinHandle<()>,
    lost: CancellationToken,
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
        let lost = CancellationToken::new();
        let renewal = renew(repository, &name, &lost);
        let lock = Self { repository: repository.clone(), name, renewal, lost };
        let refused = match lock.put_down(job.other()).await {
            Ok(None) => return Ok(lock),
            Ok(Some(met)) => Error::new(
                SqlState::ObjectInUse,
                format!("a {} is under way in this repository ({met})", job.other().word()),
            )
            .with_hint("Try again when it is done. One that was killed counts for 15 minutes more."),
            Err(error) => error,
        };
        // Whatever it was: an object that stays behind is in others' way.
        lock.release().await;
        Err(refused)
    }

    /// Stores the lock's object. What it meets then.
    async fn put_down(&self, other: Job) -> Result<Option<String>> {
        self.repository.put(&self.name, Vec::from("{}")).await?;
        let held = self.repository.list(names::LOCKS).await?;
        Ok(self.meets(&held, other))
    }

    /// Does the job's work, as long as the lock is renewed, and gives it back.
    ///
    /// Errors: 55006 it was not renewed for long: others may count on that no job runs.
    pub(crate) async fn hold<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let lost = self.lost.clone();
        let done = tokio::select! {
            done = work => done,
            () = lost.cancelled() => Err(Error::new(
                SqlState::ObjectInUse,
                format!("{} could not be renewed for {} minutes: the job ends", self.name, LOST.as_secs() / 60),
            )
            .with_hint("The repository does not take what is written. Try again when it does.")),
        };
        self.release().await;
        done
    }

    /// A lock of that kind of job which counts, by the date that the place gave to our own.
    fn meets(&self, held: &[Listed], other: Job) -> Option<String> {
        let own = held.iter().find(|object| object.name == self.name);
        let now = own.map_or_else(|| now_us() / SECOND, |own| own.modified);
        let prefix = format!("{}/{}-", names::LOCKS, other.word());
        let counts = |object: &&Listed| {
            object.name.starts_with(&prefix) && now.saturating_sub(object.modified) < STALE_SECONDS
        };
        held.iter().find(counts).map(|object| object.name.clone())
    }

    async fn release(self) {
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

/// Whether some job may be at work in the repository, wherever it runs.
pub(crate) async fn is_taken(repository: &Repository) -> Result<bool> {
    let held = repository.list(names::LOCKS).await?;
    let now = now_us() / SECOND;
    Ok(held.iter().any(|object| now.saturating_sub(object.modified) < FORGOTTEN_SECONDS))
}

fn renew(repository: &Repository, name: &str, lost: &CancellationToken) -> JoinHandle<()> {
    let (repository, name, lost) = (repository.clone(), name.to_owned(), lost.clone());
    tokio::spawn(async move {
        let mut renewed = Instant::now();
        while renewed.elapsed() < LOST {
            tokio::time::sleep(RENEW).await;
            let begun = Instant::now();
            match tokio::time::timeout(PATIENCE, repository.put(&name, Vec::from("{}"))).await {
                Ok(Ok(_)) => renewed = begun,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a lock of the backup repository was not renewed");
                }
                Err(_) => tracing::warn!("renewing a lock of the backup repository takes too long"),
            }
        }
        lost.cancel();
    })
}

#[cfg(test)]
mod tests;
