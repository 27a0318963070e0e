//! What a keeper does when something is due.

use std::{path::PathBuf, sync::Arc};

use sepal_database::{
    Result, SqlState,
    backup::{Noted, note},
};

use super::{JobStatus, Keeper, LOOK_US, RETRY_US};
use crate::{
    census,
    create::{CreateOptions, blocking, create},
    entry::Entry,
    identity,
    list::{self, Summary},
    moment::{SECOND, day, now_us},
    prune::prune_own,
    restore::{Opener, Target},
    verify::{self, VerifyOptions, note_verified, verify},
    watch::Watch,
};

const DAY_US: i64 = 86_400 * SECOND;

impl Keeper {
    /// One look at what is due. Never fails: what goes wrong is noted.
    pub(super) async fn work(&self) {
        self.destroy_pending().await;
        let (known, look_at) = {
            let state = self.state.lock();
            (state.known, state.look_at)
        };
        if !known {
            self.read_catalogue().await;
        } else if look_at <= now_us() {
            self.read_verifications().await;
        }
        let due = self.state.lock().due(self.settings.schedule, now_us());
        let Some(options) = due else { return self.alert() };
        self.backup(options).await;
        self.alert();
    }

    /// What the repository already has, so that a restart of the server is no reason for a backup.
    async fn read_catalogue(&self) {
        let read = self.catalogue().await;
        let mut state = self.state.lock();
        match read {
            Ok((backups, line)) => {
                state.known = true;
                // None of a time that is still to come: a clock was put back.
                let now = now_us();
                let ours = backups.iter().filter(|backup| backup.line == line && backup.started_us <= now);
                state.last_of_line_us = ours.map(|backup| backup.started_us).max();
                let status = &mut state.status;
                status.backups = backups.len() as u64;
                status.last_backup = backups.last().map(|backup| backup.id.clone());
                status.last_backup_us = backups.last().map(|backup| backup.started_us);
                let verified = backups.iter().rev().filter_map(|backup| backup.verified.as_ref());
                status.last_verified_us =
                    verified.filter(|verified| verified.good).map(|verified| verified.verified_us).max();
            }
            Err(error) => {
                let told = error.to_string();
                if state.status.last_error.as_deref() != Some(&told) {
                    tracing::error!(%error, "the backup repository cannot be read; it is tried again");
                }
                state.status.last_error = Some(told);
            }
        }
    }

    /// This instance's backups, and which line of them this directory goes on with.
    async fn catalogue(&self) -> Result<(Vec<Summary>, String)> {
        let backups = match list::own(&self.repository, self.source.control()).await {
            Err(error) if error.state() == SqlState::UndefinedObject => Vec::new(),
            read => read?,
        };
        let line = blocking(&self.source, |source| identity::line(source.data_dir())).await?;
        Ok((backups, line))
    }

    /// What others have verified since. One that has gone with its backup was made nevertheless. A repository that does
    /// not answer is told of by whoever has to write to it.
    pub(super) async fn read_verifications(&self) {
        self.state.lock().look_at = now_us() + LOOK_US;
        match verify::last_good(&self.repository, self.source.control()).await {
            Ok(found) => {
                let mut state = self.state.lock();
                state.status.last_verified_us = state.status.last_verified_us.max(found);
            }
            Err(error) => tracing::debug!(%error, "the verifications of backups cannot be read"),
        }
        self.alert();
    }

    async fn backup(&self, options: CreateOptions) {
        let watch = Arc::new(Watch::default());
        let owed = {
            let mut state = self.state.lock();
            if state.status.job.state != JobStatus::WAITING {
                state.status.last_job += 1;
            }
            let number = state.status.last_job;
            state.status.job = JobStatus { state: "running".into(), ..JobStatus::waiting(number) };
            state.watch = Some(Arc::clone(&watch));
            std::mem::take(&mut state.owed)
        };
        let made = create(&self.source, &self.repository, &options, &self.pace, &watch).await;
        if made.is_err() {
            self.state.lock().owed |= owed;
        }
        let made = self.note_backup(made, &watch);
        let Some(entry) = made else { return };
        if options.new_repository {
            // What is known is of the one before.
            self.state.lock().known = false;
        }
        self.after(&entry).await;
    }

    fn note_backup(&self, made: Result<Entry>, watch: &Watch) -> Option<Entry> {
        let mut state = self.state.lock();
        state.watch = None;
        state.status.job.progress = watch.now();
        match made {
            Ok(entry) => {
                tracing::info!(
                    backup = entry.id,
                    tenants = entry.tenants.len(),
                    bytes = entry.new_bytes,
                    "backed up"
                );
                let failed = entry.failed.len() as u64;
                state.owed |= entry.failed.iter().any(|failed| failed.again);
                state.last_of_line_us = Some(entry.started_us);
                let status = &mut state.status;
                status.backups += 1;
                status.last_backup = Some(entry.id.clone());
                status.last_backup_us = Some(entry.started_us);
                status.last_error = entry
                    .failed
                    .first()
                    .map(|first| format!("{failed} tenants could not be backed up: {}", first.error));
                status.job.backup = Some(entry.id.clone());
                status.job.new_bytes = entry.new_bytes;
                status.job.failed_tenants = failed;
                status.job.error.clone_from(&status.last_error);
                status.job.state = if failed == 0 { "done" } else { "failed" }.into();
                state.retry_at = 0;
                Some(entry)
            }
            Err(error) => {
                tracing::error!(%error, "no backup was made; it is tried again");
                state.status.last_error = Some(error.to_string());
                state.status.job.state = "failed".into();
                state.status.job.error = Some(error.to_string());
                state.retry_at = now_us() + RETRY_US;
                None
            }
        }
    }

    /// The census, the audit trail, what is too old, and now and then a verification. None of them waits for another to
    /// work: a prune that fails every time must not keep backups from being tried.
    async fn after(&self, entry: &Entry) {
        self.tell(self.take_down(entry).await);
        if self.settings.schedule.is_some() {
            self.tell(self.prune().await);
        }
        self.tell(self.verify_if_due().await);
    }

    fn tell(&self, done: Result<()>) {
        if let Err(error) = done {
            tracing::error!(%error, "what follows a backup did not work; the backup is made");
            self.state.lock().status.last_error = Some(error.to_string());
        }
    }

    /// In the audit trail, and in the census with a day's first backup.
    async fn take_down(&self, entry: &Entry) -> Result<()> {
        let facts = serde_json::json!({ "tenants": entry.tenants.len(), "failed": entry.failed.len() });
        let id = entry.id.clone();
        blocking(&self.source, move |source| note(source.control(), Noted::Made, &id, facts)).await?;
        let today = day(entry.started_us);
        if !census::is_made(&self.repository, &today).await? {
            census::write(&self.source, &self.repository, &today, entry).await?;
        }
        Ok(())
    }

    async fn prune(&self) -> Result<()> {
        let (retention, watch) = (&self.settings.retention, Watch::default());
        let pruned = prune_own(&self.repository, self.source.control(), retention, &watch).await?;
        self.state.lock().status.backups = pruned.kept.len() as u64;
        for removed in pruned.removed {
            tracing::info!(backup = removed, "removed a backup that is no longer kept");
            let nothing = serde_json::Value::Null;
            blocking(&self.source, move |source| note(source.control(), Noted::Removed, &removed, nothing))
                .await?;
        }
        Ok(())
    }

    async fn verify_if_due(&self) -> Result<()> {
        let days = i64::try_from(self.settings.verify_days).unwrap_or(i64::MAX);
        let last = self.state.lock().status.last_verified_us.unwrap_or(i64::MIN);
        if days == 0 || now_us().saturating_sub(last) < days.saturating_mul(DAY_US) {
            return Ok(());
        }
        let root = self.source.root_key();
        let work = self.work_directory().await?;
        let wrappers = self.source.wrappers();
        let options = VerifyOptions { target: Target::Latest, tenant: None, work, wrappers };
        let watch = Watch::default();
        let report = verify(&self.repository, &Opener::Root(root), &options, (&self.pace, &watch)).await?;
        note_verified(&self.source, &report).await?;
        let mut state = self.state.lock();
        if report.is_good() {
            tracing::info!(
                backup = report.backup,
                objects = report.objects,
                "a backup was restored to the side and is good"
            );
            state.status.last_verified_us = Some(report.verified_us);
        } else {
            let left_out = report.missing.len();
            let wrong = report.problems().next().unwrap_or("it lacks tenants");
            tracing::error!(
                backup = report.backup,
                wrong,
                left_out,
                "a backup could not be restored as it was"
            );
            state.status.last_error = Some(format!("backup {} is not good: {wrong}", report.backup));
        }
        Ok(())
    }

    /// Beside the data, where there is room for it.
    async fn work_directory(&self) -> Result<PathBuf> {
        let folder = identity::folder(self.source.data_dir());
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(|error| crate::repository::failed("make", &folder.display().to_string(), &error))?;
        Ok(folder)
    }

    /// Says once a day that no backup was verified for too long.
    fn alert(&self) {
        let days = i64::try_from(self.settings.alert_days).unwrap_or(i64::MAX);
        let mut state = self.state.lock();
        let (now, last) = (now_us(), state.status.last_verified_us);
        let first = state.status.last_backup_us.unwrap_or(now);
        let late = days > 0 && now.saturating_sub(last.unwrap_or(first)) > days.saturating_mul(DAY_US);
        state.status.verification_is_late = late;
        if late && now.saturating_sub(state.alerted) > DAY_US {
            state.alerted = now;
            tracing::warn!(days, "no backup was verified within these days: run `sepal backup verify`");
        }
    }
}
