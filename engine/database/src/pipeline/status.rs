//! What a pipeline says of itself: the board that `sepal_pipeline_status` reads, without waiting for anybody.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sepal_query::catalog::delivery::PipelineStatusRow;
use sepal_storage::LogHold;

use super::{position::Position, producer::Progress, state::PipelineState};

/// How a pipeline is: `running`, `retrying`, `paused` or `lost` in the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Somebody said PAUSE, or it stopped for a reason that `last_error` gives.
    Paused,
    Running,
    /// The destination did not take a batch; it is tried again.
    Retrying,
    /// The log that it needs is gone.
    Lost,
    /// Being opened.
    #[default]
    Starting,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Running | Self::Starting => "running",
            Self::Retrying => "retrying",
            Self::Lost => "lost",
        }
    }
}

/// A pipeline's place on the board.
#[derive(Debug, Default)]
pub struct Post(Mutex<Posted>);

#[derive(Debug, Default)]
struct Posted {
    mode: Mode,
    snapshot: bool,
    state: PipelineState,
    progress: Arc<Progress>,
    attempts: u32,
    /// What is wrong now; when nothing is, the state has what was.
    error: Option<(String, Option<String>)>,
}

impl Post {
    pub fn mode(&self, mode: Mode) {
        self.0.lock().mode = mode;
    }

    /// What was committed last.
    pub fn committed(&self, state: &PipelineState, snapshot: bool) {
        let mut posted = self.0.lock();
        posted.snapshot = snapshot;
        posted.attempts = state.attempts;
        posted.state = state.clone();
    }

    /// Who counts what waits.
    pub fn follow(&self, progress: &Arc<Progress>) {
        self.0.lock().progress = Arc::clone(progress);
    }

    pub fn failed(&self, message: String, code: Option<String>, attempts: u32) {
        let mut posted = self.0.lock();
        posted.error = Some((message, code));
        posted.attempts = attempts;
    }

    pub fn attempts(&self) -> u32 {
        self.0.lock().attempts
    }

    /// Nothing is wrong any more.
    pub fn recovered(&self) {
        self.0.lock().error = None;
    }

    pub fn row(&self, pipeline: &str, hold: Option<&LogHold>, limit: u64, now: i64) -> PipelineStatusRow {
        let posted = self.0.lock();
        let state = &posted.state;
        let (last_error, last_error_code) = match &posted.error {
            Some((message, code)) => (Some(message.clone()), code.clone()),
            None => (state.last_error.clone(), state.last_error_code.clone()),
        };
        let read = posted.progress.read();
        let open: u64 = state.open.iter().map(|bounds| u64::from(bounds.rows)).sum();
        let since = state.open.front().map(|bounds| bounds.ts).or(read.since());
        let behind = since.map_or(0, |since| now.saturating_sub(since).max(0));
        PipelineStatusRow {
            pipeline: pipeline.to_owned(),
            state: posted.mode.name().to_owned(),
            phase: if posted.snapshot { "snapshot" } else { "stream" }.to_owned(),
            lag_rows: i64::try_from(open + read.waiting()).ok(),
            lag_seconds: Some(Duration::from_micros(u64::try_from(behind).unwrap_or(0)).as_secs_f64()),
            position: state.position.as_ref().map(Position::to_string),
            attempts: posted.attempts.into(),
            last_error,
            last_error_code,
            rows_delivered: state.rows_delivered,
            batches_delivered: state.batches_delivered,
            rows_dead: state.rows_dead,
            retained_bytes: hold.map_or(0, LogHold::held_bytes),
            retention_limit_bytes: limit,
            updated_at: (state.updated_at > 0).then_some(state.updated_at),
        }
    }
}
