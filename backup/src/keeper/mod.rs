//! Backups of a server that runs: when they are due, the log in between, what became of them.
//!
//! One per server. [`Keeper::run`] is its life: a loop that makes backups when the schedule or a person says so, prunes
//! after them, verifies now and then, and finishes what drops of tenants could not; beside it one that carries the log
//! over. Whatever fails is logged, shown by [`Keeper::status`], and tried again.

mod destroy;
mod jobs;
mod status;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sepal_database::{Error, Result, SqlState, backup::Source};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use status::{ArchiveStatus, JobStatus, Status};

use crate::{
    archive::{Archive, Round},
    create::CreateOptions,
    moment::now_us,
    pace::Pace,
    prune::Retention,
    repository::{Location, Repository},
    schedule::Schedule,
    watch::Watch,
};

/// How often the schedule is looked at.
const TICK: Duration = Duration::from_secs(1);
/// After a failed backup.
const RETRY_US: i64 = 300 * 1_000_000;
/// How often the repository is asked for verifications that others have made.
const LOOK_US: i64 = 60 * 1_000_000;
/// How long somebody who asks how things stand waits for that.
const GLANCE: Duration = Duration::from_secs(2);
/// How long the last round of the archive may take when the server stops.
const FAREWELL: Duration = Duration::from_secs(10);

/// What the operator wants.
#[derive(Clone, Debug)]
pub struct Settings {
    pub location: Location,
    /// From one round of the archive to the next.
    pub archive: Duration,
    /// `None`: only when somebody asks.
    pub schedule: Option<Schedule>,
    /// After each scheduled backup.
    pub retention: Retention,
    /// Verify the newest backup when the last verification is older; 0: never by itself.
    pub verify_days: u64,
    /// Warn when no backup was verified within so many days; 0: never.
    pub alert_days: u64,
    pub bytes_per_second: Option<u64>,
}

/// See the module.
pub struct Keeper {
    source: Source,
    settings: Settings,
    repository: Repository,
    pace: Pace,
    state: Mutex<State>,
    wake: Notify,
}

/// What is known and wanted.
#[derive(Default)]
struct State {
    status: Status,
    /// Somebody asked for a backup.
    asked: Option<CreateOptions>,
    /// One has to be made, whatever the schedule, after what a round of the archive or a backup met. Until one that
    /// begins after that is made.
    owed: bool,
    watch: Option<Arc<Watch>>,
    /// Not before this moment.
    retry_at: i64,
    /// When dropped tenants' keys are looked at again, and when those that are gone are.
    destroy_at: i64,
    recheck_at: i64,
    /// The catalogue was read.
    known: bool,
    /// When this directory's newest backup began. Another line's does not count: our log does not go on from it, so
    /// nothing that is archived comes back before we made one.
    last_of_line_us: Option<i64>,
    /// When the repository is asked for verifications again.
    look_at: i64,
    /// When it was last said that no backup was verified for long.
    alerted: i64,
}

impl Keeper {
    /// Looks once at what drops left to be destroyed, which blocks for a moment.
    ///
    /// Errors: an address that cannot be used. Whether anything answers there shows later.
    pub fn new(source: Source, settings: Settings) -> Result<Arc<Self>> {
        let repository = Repository::open(&settings.location)?;
        let keys_to_destroy = destroy::waiting(&source);
        let status = Status { keys_to_destroy, ..Status::new(&settings) };
        let state = State { status, ..State::default() };
        Ok(Arc::new(Self {
            pace: Pace::new(settings.bytes_per_second),
            repository,
            source,
            settings,
            state: Mutex::new(state),
            wake: Notify::new(),
        }))
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Asks for a backup; it begins at once. Its progress is in [`Self::status`], under the number given. One that
    /// was asked for already and has not begun is the same one.
    ///
    /// Errors: 55006 one is under way.
    pub fn ask(&self, options: CreateOptions) -> Result<u64> {
        let mut state = self.state.lock();
        if state.watch.is_some() {
            return Err(Error::new(SqlState::ObjectInUse, "a backup is under way")
                .with_hint("`sepal backup status` tells how far it is."));
        }
        let before = state.asked.unwrap_or_default();
        state.asked = Some(CreateOptions {
            full: options.full || before.full,
            new_repository: options.new_repository || before.new_repository,
        });
        if state.status.job.state != JobStatus::WAITING {
            state.status.last_job += 1;
            state.status.job = JobStatus::waiting(state.status.last_job);
        }
        let number = state.status.last_job;
        drop(state);
        self.wake.notify_one();
        Ok(number)
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        let state = self.state.lock();
        let mut status = state.status.clone();
        if let Some(watch) = &state.watch {
            status.job.progress = watch.now();
        }
        status.now_us = now_us();
        status
    }

    /// Asks the repository what was verified since the keeper last looked, so that [`Self::status`] knows of it: `sepal
    /// backup verify` runs anywhere, and leaves its word there only. Where that takes long, or a backup is under way,
    /// what is known stays.
    pub async fn look_again(&self) {
        let idle = {
            let state = self.state.lock();
            state.known && state.watch.is_none() && state.asked.is_none()
        };
        if idle && tokio::time::timeout(GLANCE, self.read_verifications()).await.is_err() {
            tracing::debug!("the backup repository is slow: verifications made elsewhere are not known yet");
        }
    }

    /// Works until `stop`. A backup under way is given up then: the next one goes on from what it stored.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let archiving = tokio::spawn(Arc::clone(&self).archive(stop.clone()));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            let work = self.work();
            tokio::select! {
                () = stop.cancelled() => break,
                () = work => {}
            }
        }
        if let Err(problem) = archiving.await {
            tracing::error!(%problem, "the archive of the log panicked");
        }
    }

    /// Carries the log over, a last time when the server stops.
    async fn archive(self: Arc<Self>, stop: CancellationToken) {
        let mut archive = None;
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(self.settings.archive) => false,
            };
            let round = self.archive_round(&mut archive);
            if ended {
                if tokio::time::timeout(FAREWELL, round).await.is_err() {
                    tracing::warn!("the log's end was not archived: the repository is slow, or away");
                }
                return;
            }
            round.await;
        }
    }

    async fn archive_round(&self, archive: &mut Option<Archive>) {
        let mut round = Round::default();
        let done = match archive {
            Some(archive) => archive.round(&self.pace, &mut round).await,
            None => match Archive::new(self.source.clone(), self.repository.clone()).await {
                Ok(new) => archive.insert(new).round(&self.pace, &mut round).await,
                Err(error) => Err(error),
            },
        };
        self.state.lock().note_round(&round, done);
    }
}

impl State {
    /// What a round found counts, whatever it ended with: neither a gap nor a new key is found again.
    fn note_round(&mut self, round: &Round, done: Result<()>) {
        if !round.renewed.is_empty() {
            tracing::info!(tenants = ?round.renewed, "keys of tenants were replaced: a backup follows");
        }
        if !round.gaps.is_empty() {
            tracing::error!(tenants = ?round.gaps, "a log was let go unarchived: a backup follows");
            self.status.archive.gaps += round.gaps.len() as u64;
        }
        if !round.gaps.is_empty() || !round.renewed.is_empty() {
            // A new backup makes the moments after it restorable again, by itself. One that is under way may have
            // passed the tenant already.
            self.retry_at = 0;
            self.owed = true;
        }
        match done {
            Ok(()) => self.status.archive.done(round.bytes),
            Err(error) => {
                tracing::error!(%error, "the log was not archived; it is kept and tried again");
                self.status.archive.failed(&error);
            }
        }
    }

    /// Whether a backup is to be made now, and how.
    fn due(&mut self, schedule: Option<Schedule>, now: i64) -> Option<CreateOptions> {
        let next = schedule
            .filter(|_| self.known)
            .map(|schedule| schedule.due(self.last_of_line_us, now).max(self.retry_at));
        self.status.next_us = next;
        let is_owed = self.owed && self.retry_at <= now;
        let asked = self.asked.take();
        asked.or_else(|| (is_owed || next.is_some_and(|next| next <= now)).then(CreateOptions::default))
    }
}

#[cfg(test)]
mod tests;
