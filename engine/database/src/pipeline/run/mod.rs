//! A pipeline at work, from where it stopped to where it stops.
//!
//! Started by the supervisor, one task per pipeline and version of its definition.
//!
//! 1. [`Run::prepare`] finds out where to go on: a new pipeline's beginning, the position of an old one, or the place
//!    that RESUME FROM named. Its part of the log is held from then on.
//! 2. `producer` makes batches in a task beside this one, the begun ones first.
//! 3. [`Run::flow`] hands them to the `courier` one after the other. While one is on its way, one commit acknowledges
//!    the one before it and notes the bounds of the one after it, which may then leave at once.
//! 4. With nothing to do the run sleeps. Its position moves over what is not its own only when much log would be
//!    released by that.

mod prepare;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use futures::FutureExt;
use sepal_types::{Error, Result, SqlState};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    batch::{Batch, Bounds, Maker},
    courier::{Courier, Line, Settled, Stop},
    dead_letters,
    event::View,
    hold::HoldSlot,
    journal::Journal,
    position::Position,
    producer::{Producer, Progress},
    state::PipelineState,
    status::{Mode, Post},
    surroundings::Surroundings,
    words,
};
use crate::{
    blocking::blocking,
    connector::{Connectors, Secrets, SinkSpec, Tier},
    delivery::objects::PipelineDef,
    tenant::OpenTenant,
};

/// As an error calls what panicked.
pub const READING: &str = "a pipeline's reading";
/// How often a pipeline that has nothing to do looks whether its log is kept.
const IDLE: Duration = Duration::from_mins(1);
/// The same until the snapshot is behind it.
const SNAPSHOT_IDLE: Duration = Duration::from_secs(1);
/// How long after a fault of ours comes another try.
const OWN_FAULT_WAIT: Duration = Duration::from_secs(30);
/// Log that a position is moved for when nothing else moves it.
const WORTH_RELEASING_BYTES: u64 = 16 << 20;
/// What a sink may hold at most before it is flushed.
const BUFFERED_BATCHES: usize = 64;
/// How long a sink may hold rows while more keep coming.
const BUFFERED_US: i64 = 10_000_000;

/// See the module.
pub struct Run {
    pub tenant: Arc<OpenTenant>,
    pub def: Arc<PipelineDef>,
    /// Of the definition and all that it refers to.
    pub revision: String,
    pub post: Arc<Post>,
    pub hold: Arc<HoldSlot>,
    /// Something was said to this pipeline: dead letters are to be sent again, perhaps.
    pub nudge: Arc<Notify>,
    pub world: Arc<dyn Surroundings>,
    pub stop: CancellationToken,
    /// See `DatabaseOptions::log_retention_bytes`.
    pub retention_bytes: u64,
    pub rewinds: Arc<AtomicU32>,
}

/// Where a run goes on.
struct Prepared {
    view: Arc<View>,
    spec: SinkSpec,
    connectors: Arc<dyn Connectors>,
    secrets: Arc<dyn Secrets>,
    state: PipelineState,
    sink_state: BTreeMap<String, Vec<u8>>,
}

/// A task that ends with whoever waits for it.
struct Beside(JoinHandle<()>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Run {
    /// Until it is told to stop, or the pipeline is gone.
    pub async fn run(self) {
        loop {
            let stop = match self.turn().await {
                Ok(()) => return,
                Err(stop) => stop,
            };
            match stop {
                Stop::Closing | Stop::Gone => return,
                Stop::Rewind => tracing::info!(pipeline = %self.def.name, "begins again at its position"),
                Stop::Halt(fault) => {
                    let code = words::code(&fault);
                    self.halt(words::shown(&fault.message), code, false).await;
                }
                Stop::Lost => self.lose().await,
                Stop::Failed(_) if self.hold.is_broken() => self.lose().await,
                Stop::Failed(error) => self.fail(&error).await,
            }
        }
    }

    /// A fault of ours or of the store: it may pass.
    async fn fail(&self, error: &Error) {
        tracing::error!(
            tenant = %self.tenant.id, pipeline = %self.def.name,
            code = error.state().code(), why = words::logged(error),
            "a pipeline stopped; it will be tried again"
        );
        let shown = words::shown(&error.clone().without_private().to_string());
        self.post.failed(shown, Some(error.state().code().to_owned()), 0);
        self.post.mode(Mode::Retrying);
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.world.sleep(OWN_FAULT_WAIT) => {}
        }
    }

    async fn lose(&self) {
        let error = gone();
        let hint = error.hint().unwrap_or_default();
        self.halt(format!("{}. {hint}", error.message()), "pipeline.lost".to_owned(), true).await;
    }

    async fn turn(&self) -> Result<(), Stop> {
        if let Some(state) = self.must_rest().await? {
            return self.rest(state).await;
        }
        let prepared = self.prepare().await?;
        let maker = Arc::new(self.maker(&prepared.view)?);
        let journal = Journal::new(Arc::clone(&self.tenant), Arc::clone(&self.def));
        let mut courier = Courier {
            def: Arc::clone(&self.def),
            maker: Arc::clone(&maker),
            journal,
            world: Arc::clone(&self.world),
            post: Arc::clone(&self.post),
            hold: Arc::clone(&self.hold),
            connectors: prepared.connectors,
            spec: prepared.spec,
            secrets: prepared.secrets,
            stop: self.stop.clone(),
            state: prepared.state,
            sink_state: prepared.sink_state,
            line: Line::default(),
            rewinds: Arc::clone(&self.rewinds),
        };
        let outcome = self.carry(&mut courier, prepared.view, maker).await;
        courier.close().await;
        outcome
    }

    /// With an opened state: the producer beside, the batches through.
    async fn carry(&self, courier: &mut Courier, view: Arc<View>, maker: Arc<Maker>) -> Result<(), Stop> {
        if self.def.tier == Tier::Transactional {
            courier.catch_up().await?;
        }
        let snapshot = self.tenant.store.snapshot();
        let begin = self.beginning(&courier.state, &snapshot);
        let progress = Arc::new(Progress::default());
        self.post.follow(&progress);
        let changes = self.tenant.changes.subscribe();
        let source = self.source(view, begin).await?;
        let producer = Producer::new(
            source,
            maker,
            Arc::clone(&self.world),
            changes,
            Duration::from_millis(self.def.linger_ms.into()),
            courier.state.open.clone(),
            Arc::clone(&progress),
        );
        let (out, mut batches) = mpsc::channel(1);
        let _producer = Beside(tokio::spawn(producer.run(out)));
        self.post.mode(Mode::Running);
        self.post.recovered();
        self.flow(courier, &mut batches, &progress).await
    }

    async fn flow(
        &self,
        courier: &mut Courier,
        batches: &mut mpsc::Receiver<Result<Batch>>,
        progress: &Progress,
    ) -> Result<(), Stop> {
        // Its bounds are durable.
        let mut next: Option<Batch> = None;
        // Settled, and acknowledged beside the next one, which there is.
        let mut left: Option<Settled> = None;
        let mut done = 0;
        // Whatever was said before this run began.
        self.replay(courier).await?;
        loop {
            let batch = match next.take() {
                Some(batch) => batch,
                None => match self.wait_for(courier, batches, progress, done).await? {
                    Some(batch) => {
                        courier.begin(&batch.bounds).await?;
                        batch
                    }
                    None => continue,
                },
            };
            let mut following = self.following(batches, progress);
            let settled = courier.deliver_beside(&batch, left.take(), bounds(&following)).await?;
            done += 1;
            let nudged = self.nudge.notified().now_or_never().is_some();
            let goes_on = matches!(following, Ok(Some(_))) && !nudged && !self.stop.is_cancelled();
            if goes_on && !courier.is_held(&settled) {
                left = Some(settled);
                next = following?;
                continue;
            }
            if matches!(following, Ok(None)) {
                following = self.following(batches, progress);
            }
            courier.acknowledge(settled, bounds(&following)).await?;
            next = following?;
            let full = courier.buffered().is_some_and(|(count, since)| {
                let waited_us = self.world.now_us().saturating_sub(since);
                courier.has_rewound() || count >= BUFFERED_BATCHES || waited_us >= BUFFERED_US
            });
            if full {
                courier.flush().await?;
            }
            if nudged {
                self.replay(courier).await?;
            }
            if self.stop.is_cancelled() {
                return self.finish(courier, progress, done).await;
            }
        }
    }

    /// The next batch if it is made; an error of the producer's.
    fn following(
        &self,
        batches: &mut mpsc::Receiver<Result<Batch>>,
        progress: &Progress,
    ) -> Result<Option<Batch>> {
        let following = batches.try_recv().ok().transpose()?;
        if let Some(batch) = &following {
            progress.taken(batch.bounds.rows.into(), self.world.now_us());
        }
        Ok(following)
    }

    /// The next batch; `None` when something else was to be done first.
    async fn wait_for(
        &self,
        courier: &mut Courier,
        batches: &mut mpsc::Receiver<Result<Batch>>,
        progress: &Progress,
        done: u64,
    ) -> Result<Option<Batch>, Stop> {
        let linger = Duration::from_millis(self.def.linger_ms.into());
        let streams = matches!(courier.state.position, Some(Position::Feed { .. }));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                self.finish(courier, progress, done).await?;
                Err(Stop::Closing)
            }
            batch = batches.recv() => {
                let batch = batch.ok_or_else(|| Error::bug("a pipeline's producer is gone"))??;
                progress.taken(batch.bounds.rows.into(), self.world.now_us());
                Ok(Some(batch))
            }
            () = self.nudge.notified() => {
                self.replay(courier).await?;
                Ok(None)
            }
            () = self.world.sleep(linger), if courier.buffered().is_some() => {
                courier.flush().await?;
                Ok(None)
            }
            () = self.world.sleep(if streams { IDLE } else { SNAPSHOT_IDLE }) => {
                self.idle(courier, progress, done, WORTH_RELEASING_BYTES).await?;
                Ok(None)
            }
        }
    }

    /// Moves the position over what was not for this pipeline, if that releases so much of the log.
    async fn idle(
        &self,
        courier: &mut Courier,
        progress: &Progress,
        done: u64,
        worth_bytes: u64,
    ) -> Result<(), Stop> {
        if self.hold.is_broken() {
            return Err(Stop::Failed(gone()));
        }
        let read = progress.read();
        let idle = read.batches == done && courier.state.open.is_empty() && courier.buffered().is_none();
        if let Some(through) = read.through.filter(|_| idle)
            && courier.state.position.is_none_or(|position| position < through)
        {
            let streams = matches!(courier.state.position, Some(Position::Feed { .. }));
            if !streams || self.hold.held_bytes() > worth_bytes {
                return courier.skip_to(through).await;
            }
        }
        let held = self.hold.held_bytes();
        if held > self.retention_bytes / 5 * 4 {
            let message = format!(
                "the log keeps {held} bytes for this pipeline; at {} it is lost and has to be reset",
                self.retention_bytes
            );
            tracing::warn!(tenant = %self.tenant.id, pipeline = %self.def.name, "{message}");
            self.post.failed(message, Some("retention".to_owned()), 0);
        }
        Ok(())
    }

    /// What the sink holds is made durable, and the position as far as it goes.
    async fn finish(&self, courier: &mut Courier, progress: &Progress, done: u64) -> Result<(), Stop> {
        courier.flush().await?;
        self.idle(courier, progress, done, 0).await
    }

    /// Sends the dead letters that somebody marked, a batch of them at a time: there may be far more than fit into
    /// memory.
    async fn replay(&self, courier: &mut Courier) -> Result<(), Stop> {
        let (rows, bytes) = (courier.maker.max_rows, courier.maker.max_bytes);
        while !self.stop.is_cancelled() {
            let journal = courier.journal.clone();
            let store = Arc::clone(&self.tenant.store);
            let letters = blocking(READING, move || journal.replays(&store.snapshot(), rows, bytes)).await?;
            if letters.is_empty() {
                break;
            }
            courier.flush().await?;
            match dead_letters::batch(&courier.maker, &letters) {
                Ok(batch) => courier.replay(&letters, &batch).await?,
                Err(error) => courier.keep(&letters, &error).await?,
            }
        }
        Ok(())
    }

    /// The state of a pipeline that is not to run now.
    async fn must_rest(&self) -> Result<Option<PipelineState>, Stop> {
        let journal = Journal::new(Arc::clone(&self.tenant), Arc::clone(&self.def));
        let store = Arc::clone(&self.tenant.store);
        let state = blocking(READING, move || journal.state(&store.snapshot())).await?;
        let state = state.unwrap_or_else(|| PipelineState::new(&self.def));
        let rests = self.def.paused || !state.may_run(&self.def, &self.revision);
        Ok(rests.then_some(state))
    }

    /// Counts what waits, until the pipeline is defined anew: nothing else ends a pause.
    async fn rest(&self, state: PipelineState) -> Result<(), Stop> {
        let lost = state.halt.as_ref().is_some_and(|halt| halt.lost);
        self.post.committed(&state, state.in_snapshot(&self.def));
        self.post.mode(if lost { Mode::Lost } else { Mode::Paused });
        let progress = Arc::new(Progress::default());
        self.post.follow(&progress);
        let mut changes = self.tenant.changes.subscribe();
        let mut scout = None;
        loop {
            changes.borrow_and_update();
            if !lost && self.hold.is_broken() {
                return Err(Stop::Failed(gone()));
            }
            if !lost && state.start.is_some() {
                match self.count(&state, scout.take()).await {
                    Ok((returned, events)) => {
                        let open: u64 = state.open.iter().map(|bounds| u64::from(bounds.rows)).sum();
                        progress.behind(events.saturating_sub(open), self.world.now_us());
                        scout = Some(returned);
                    }
                    Err(error) => {
                        tracing::debug!(code = error.state().code(), "what waits cannot be counted");
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = self.world.sleep(IDLE) => {}
                _ = changes.changed() => tokio::select! {
                    () = self.stop.cancelled() => return Ok(()),
                    () = self.world.sleep(Duration::from_secs(1)) => {}
                },
            }
        }
    }
}

fn bounds(batch: &Result<Option<Batch>>) -> Option<&Bounds> {
    batch.as_ref().ok().and_then(Option::as_ref).map(|batch| &batch.bounds)
}

/// The state's log went to others.
pub fn gone() -> Error {
    let message = "the log that the pipeline has not read yet was not kept: it fell too far behind";
    Error::new(SqlState::ObjectNotInPrerequisiteState, message).with_hint(
        "ALTER PIPELINE … RESET begins anew. The setting pipeline_retention_mib says how much is kept.",
    )
}
