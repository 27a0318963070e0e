//! Makes batches ahead of their delivery: a task of its own, a batch or two before the sink.
//!
//! A batch closes when it has as many rows or bytes as it may, or when the pipeline's linger has passed since its
//! first row was read. Batches whose bounds were noted before are made again first, exactly as they were.
//!
//! Sleeps on the tenant's commits. When the sink does not keep up it counts what else waits, for the view.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sepal_types::{Error, Lsn, Result};
use tokio::sync::{mpsc, watch};

use super::{
    batch::{Batch, Bounds, Maker},
    position::Position,
    source::{Filled, Source},
    surroundings::Surroundings,
};
use crate::blocking::blocking;

/// How often the log is looked at without being told.
const PATROL: Duration = Duration::from_mins(1);
/// How long a batch waits for the sink before what is behind it is counted.
const SCOUT_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub struct Producer {
    /// `None` while a blocking thread has it.
    source: Option<Source>,
    maker: Arc<Maker>,
    world: Arc<dyn Surroundings>,
    changes: watch::Receiver<Lsn>,
    linger: Duration,
    /// Batches that were begun before, oldest first.
    again: VecDeque<Bounds>,
    progress: Arc<Progress>,
}

/// How far a producer is.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Read>);

/// See [`Progress`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Read {
    /// Batches made so far.
    pub batches: u64,
    /// With all of those delivered, everything up to here is.
    pub through: Option<Position>,
    /// Rows of batches that were made and not taken.
    made: u64,
    /// Events behind those.
    behind: u64,
    /// Since when there are any, in microseconds since 1970 UTC.
    since: Option<i64>,
}

impl Read {
    /// Events that wait before the courier.
    pub fn waiting(&self) -> u64 {
        self.made + self.behind
    }

    /// Since when.
    pub fn since(&self) -> Option<i64> {
        self.since
    }

    fn settle(&mut self, now: i64) {
        self.since = (self.waiting() > 0).then(|| self.since.unwrap_or(now));
    }
}

impl Progress {
    pub fn read(&self) -> Read {
        *self.0.lock()
    }

    /// So many events are behind what was taken.
    pub fn behind(&self, events: u64, now: i64) {
        let mut read = self.0.lock();
        read.behind = events;
        read.settle(now);
    }

    /// The courier has taken a batch.
    pub fn taken(&self, rows: u64, now: i64) {
        let mut read = self.0.lock();
        read.made = read.made.saturating_sub(rows);
        read.since = None;
        read.settle(now);
    }

    fn made(&self, rows: u64) {
        let mut read = self.0.lock();
        read.batches += 1;
        read.made += rows;
    }
}

impl Producer {
    pub fn new(
        source: Source,
        maker: Arc<Maker>,
        world: Arc<dyn Surroundings>,
        changes: watch::Receiver<Lsn>,
        linger: Duration,
        again: VecDeque<Bounds>,
        progress: Arc<Progress>,
    ) -> Self {
        Self { source: Some(source), maker, world, changes, linger, again, progress }
    }

    /// Until an error, which is the last thing sent, or until nobody listens.
    pub async fn run(mut self, out: mpsc::Sender<Result<Batch>>) {
        loop {
            let batch = match self.next().await {
                Ok(batch) => batch,
                Err(error) => {
                    // Nobody is left to be told when this fails.
                    let _ = out.send(Err(error)).await;
                    return;
                }
            };
            self.progress.made(batch.bounds.rows.into());
            self.report();
            if !self.hand_over(&out, batch).await {
                return;
            }
        }
    }

    async fn next(&mut self) -> Result<Batch> {
        while let Some(bounds) = self.again.pop_front() {
            if let Some(batch) = self.make_again(bounds).await? {
                return Ok(batch);
            }
        }
        let (rows, bytes) = (self.maker.max_rows, self.maker.max_bytes);
        let mut first_seen = None;
        loop {
            self.changes.borrow_and_update();
            let filled = self.with_source(move |source| source.fill(rows, bytes)).await?;
            self.report();
            let pending = self.source.as_ref().map_or(0, Source::pending_rows);
            if pending == 0 {
                self.wait(PATROL).await?;
                continue;
            }
            let now = self.world.now_us();
            let waited = now.saturating_sub(*first_seen.get_or_insert(now));
            let waited = Duration::from_micros(u64::try_from(waited).unwrap_or(0));
            if filled == Filled::Full || waited >= self.linger {
                return self.close(now).await;
            }
            self.wait(self.linger.saturating_sub(waited)).await?;
        }
    }

    /// Until something was committed, but no longer than that.
    async fn wait(&mut self, longest: Duration) -> Result<()> {
        tokio::select! {
            changed = self.changes.changed() => {
                changed.map_err(|_| Error::bug("a pipeline outlived its tenant"))
            }
            () = self.world.sleep(longest) => Ok(()),
        }
    }

    async fn close(&mut self, now: i64) -> Result<Batch> {
        let maker = Arc::clone(&self.maker);
        self.with_source(move |source| {
            let (batch, rest) = maker.close(source.take(maker.max_rows)?, now)?;
            source.put_back(rest);
            Ok(batch)
        })
        .await
    }

    /// A batch whose bounds are known; `None` when nothing is left between them.
    async fn make_again(&mut self, bounds: Bounds) -> Result<Option<Batch>> {
        let maker = Arc::clone(&self.maker);
        self.with_source(move |source| {
            let events = source.take_through(bounds.last)?;
            if events.is_empty() {
                return Ok(None);
            }
            let batch = maker.close_all(events, bounds.ts)?;
            if batch.bounds != bounds {
                // The columns have changed, or the destination had a part of it: a batch under another id.
                tracing::info!(was = %bounds.id, is = %batch.bounds.id, "a batch is not what it was");
            }
            Ok(Some(batch))
        })
        .await
    }

    /// Waits for room. False: nobody listens any more.
    async fn hand_over(&mut self, out: &mpsc::Sender<Result<Batch>>, batch: Batch) -> bool {
        let mut counted = false;
        let room = out.reserve();
        tokio::pin!(room);
        loop {
            tokio::select! {
                biased;
                permit = &mut room => {
                    let Ok(permit) = permit else { return false };
                    permit.send(Ok(batch));
                    return true;
                }
                () = self.more_to_count(counted) => {}
            }
            match self.with_source(Source::count_ahead).await {
                Ok(()) => {
                    counted = true;
                    self.report();
                }
                // Whoever reads next meets it too, and tells.
                Err(error) => {
                    tracing::debug!(code = error.state().code(), "what waits cannot be counted");
                }
            }
        }
    }

    /// Until the sink has kept us waiting for a while, and there is something new.
    async fn more_to_count(&mut self, counted: bool) {
        // An error means that the tenant is closing: the sink's side ends first.
        if counted && self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.changes.borrow_and_update();
        self.world.sleep(SCOUT_AFTER).await;
    }

    fn report(&self) {
        let Some(source) = &self.source else { return };
        let pending = source.pending_rows() as u64;
        self.progress.behind(pending + source.rows_left() + source.ahead(), self.world.now_us());
        if pending == 0 {
            self.progress.0.lock().through = source.read_through();
        }
    }

    async fn with_source<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Source) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut source = self.source.take().ok_or_else(|| Error::bug("a pipeline's source is gone"))?;
        let (source, outcome) = blocking("reading changes", move || {
            let outcome = work(&mut source);
            Ok((source, outcome))
        })
        .await?;
        self.source = Some(source);
        outcome
    }
}
