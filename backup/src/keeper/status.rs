//! What a person or a monitor is told.

use sepal_database::Error;
use serde::{Deserialize, Serialize};

use super::Settings;
use crate::{moment::now_us, watch::Progress};

/// How backups stand. Times are microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub now_us: i64,
    pub repository: String,
    pub schedule: Option<String>,
    pub next_us: Option<i64>,
    pub backups: u64,
    pub last_backup: Option<String>,
    pub last_backup_us: Option<i64>,
    /// Of the newest backup that was verified and good.
    pub last_verified_us: Option<i64>,
    /// What went wrong last, until something went right.
    pub last_error: Option<String>,
    /// The number of the newest job.
    pub last_job: u64,
    pub job: JobStatus,
    pub archive: ArchiveStatus,
    /// Dropped tenants whose keys could not be removed from the repository yet.
    pub keys_to_destroy: u64,
    /// No backup was verified for longer than the operator wants.
    pub verification_is_late: bool,
}

/// The newest job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    pub number: u64,
    /// `none`, `waiting`, `running`, `done`, `failed`
    pub state: String,
    pub progress: Progress,
    /// The backup that it made.
    pub backup: Option<String>,
    pub new_bytes: u64,
    /// Tenants that could not be read: they are in it as of an earlier backup, or not at all.
    pub failed_tenants: u64,
    pub error: Option<String>,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// When everything that was durable then was in the repository.
    pub caught_up_us: Option<i64>,
    pub bytes: u64,
    pub gaps: u64,
    pub error: Option<String>,
}

impl Status {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            repository: settings.location.to_string(),
            schedule: settings.schedule.map(|schedule| schedule.to_string()),
            job: JobStatus { state: "none".into(), ..JobStatus::default() },
            ..Self::default()
        }
    }
}

impl JobStatus {
    /// The state of one that was asked for and has not begun.
    pub(super) const WAITING: &str = "waiting";

    pub(super) fn waiting(number: u64) -> Self {
        Self { number, state: Self::WAITING.into(), ..Self::default() }
    }

    /// Whether it will not change any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed")
    }
}

impl ArchiveStatus {
    pub(super) fn done(&mut self, bytes: u64) {
        self.caught_up_us = Some(now_us());
        self.bytes += bytes;
        self.error = None;
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.error = Some(error.to_string());
    }
}
