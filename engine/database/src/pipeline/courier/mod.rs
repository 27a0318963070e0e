//! Brings batches to the sink and makes what became of them durable.
//!
//! Owned by `run`, one per run of a pipeline. The sink says what went wrong, `retry` says what that means, the courier
//! does it: waits, opens anew, tries halves, sets rows aside, or stops for a person. The position moves in the commit
//! that has the batch's dead letters and what the sink wants to remember.

mod attempt;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use sepal_types::{Error, ErrorKind, Result};
use tokio_util::sync::CancellationToken;

use super::{
    batch::{Batch, Bounds, Maker},
    dead_letters::DeadLetter,
    hold::HoldSlot,
    journal::{Entry, Journal, Refused},
    position::Position,
    retry::{self, Reaction, Tries},
    state::PipelineState,
    status::{Mode, Post},
    surroundings::Surroundings,
    words,
};
use crate::{
    connector::{Connectors, Fault, FaultKind, Secrets, Setting, Sink, SinkSpec, StateChange, Tier},
    delivery::objects::PipelineDef,
};

/// How long a call of the sink may go on once the pipeline is told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// What to do about a destination that has more than there is.
const RESTORED: &str = "If the database was restored from a backup, remove the position at the destination, then \
                        ALTER PIPELINE … RESET";
/// How long until a full disk is tried again.
const FULL_WAIT: Duration = Duration::from_secs(10);

/// What a courier works with.
pub struct Courier {
    pub def: Arc<PipelineDef>,
    pub maker: Arc<Maker>,
    pub journal: Journal,
    pub world: Arc<dyn Surroundings>,
    pub post: Arc<Post>,
    pub hold: Arc<HoldSlot>,
    pub connectors: Arc<dyn Connectors>,
    pub spec: SinkSpec,
    pub secrets: Arc<dyn Secrets>,
    pub stop: CancellationToken,
    pub state: PipelineState,
    /// What the sink has committed so far, by key.
    pub sink_state: BTreeMap<String, Vec<u8>>,
    pub line: Line,
    /// How often it had to begin again since it last got on. Outlives the courier.
    pub rewinds: Arc<AtomicU32>,
}

/// The open sink and what is on its way there.
#[derive(Default)]
pub struct Line {
    sink: Option<Box<dyn Sink>>,
    /// Whether it knows the columns.
    described: bool,
    /// What the destination had when it was opened.
    committed_through: Option<Position>,
    /// What it wants to remember, not committed yet.
    staged: Vec<StateChange>,
    /// Batches that it holds until it is flushed, oldest first.
    buffered: VecDeque<Settled>,
    buffered_since: Option<i64>,
    /// What becomes durable beside the next attempt; it is when that attempt has ended.
    beside: Option<BoxFuture<'static, Result<Entry, Stop>>>,
}

/// A batch that left.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    last: Option<Position>,
    rows: u64,
    dead: Vec<DeadLetter>,
    dead_bytes: u64,
    /// Dead letters that are durable already.
    buried: u64,
    /// The last position of what the sink holds of it until it is flushed.
    held: Option<Position>,
    /// Whether any of its rows was taken.
    accepted: bool,
    trapped: usize,
}

/// Why a run ends.
#[derive(Debug)]
pub enum Stop {
    /// Told to.
    Closing,
    /// The sink has lost what it held: begin again at the position.
    Rewind,
    /// A person has to look.
    Halt(Fault),
    /// Dropped or reset.
    Gone,
    /// The log that it needs is not there any more.
    Lost,
    /// A fault of ours or of the store.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Courier {
    /// Opens the sink if it is not open. What the destination has already, if it says so.
    pub async fn open(&mut self) -> Result<Option<Position>, Fault> {
        if self.line.sink.is_none() {
            let mut sink = self.connectors.open_sink(&self.spec, Arc::clone(&self.secrets)).await?;
            let opened = sink.open(self.remembered()).await?;
            // Only of a sink that promised to keep the position with the data is it more than a rumour.
            let through = opened.committed_through.filter(|_| self.def.tier == Tier::Transactional);
            self.line.committed_through = through.map(|text| self.believed(&text)).transpose()?.flatten();
            self.line.sink = Some(sink);
            self.line.described = false;
        }
        Ok(self.line.committed_through)
    }

    /// What the sink wanted to remember, with what came of rows that are durable and not acknowledged yet: of those that
    /// it held, a lost session begins the whole run again.
    fn remembered(&self) -> BTreeMap<String, Vec<u8>> {
        let mut state = self.sink_state.clone();
        apply(&mut state, self.line.staged.iter().cloned());
        state
    }

    /// What the destination says it has; `None` for a position of an older generation. One that cannot be is no reason
    /// to pass over rows, and not repeated: it is a text of somebody else's.
    fn believed(&self, text: &str) -> Result<Option<Position>, Fault> {
        let wrong = |why: &str| {
            let message = format!("the position that the destination keeps {why}");
            Fault::new(FaultKind::Misconfigured, message).with_code("sink.position")
        };
        let position = Position::parse(text).map_err(|_| wrong("is not a pipeline's"))?;
        let foreign = |what: &str| wrong(&format!("is after {what}. {RESTORED}"));
        if position.lsn() > self.journal.head() {
            return Err(foreign("this database's last commit"));
        }
        if !self.state.is_since_start(position) {
            return Ok(None);
        }
        // After a restore commits get numbers anew that the destination has seen on others.
        if self.state.sent_through.is_some_and(|sent| position > sent) {
            return Err(foreign("all that was sent to it"));
        }
        Ok(Some(position))
    }

    /// Opens the sink before there is anything for it, and goes on behind what the destination has.
    pub async fn catch_up(&mut self) -> Result<(), Stop> {
        let mut tries = Tries::default();
        let through = loop {
            tries.attempts += 1;
            let stop = self.stop.clone();
            let opened = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Stop::Closing),
                opened = self.open() => opened,
            };
            let fault = match opened {
                Ok(through) => break through,
                Err(fault) => fault,
            };
            self.complain(&fault, tries.attempts);
            match tries.react(&fault, self.def.max_attempts) {
                Reaction::Reauthorize => self.forget_secrets(),
                Reaction::Wait | Reaction::Reopen => {}
                Reaction::Exhausted | Reaction::Isolate | Reaction::Pause => return Err(Stop::Halt(fault)),
            }
            self.close().await;
            self.wait(tries.attempts, &fault).await?;
        };
        let Some(through) = through else { return Ok(()) };
        if self.state.position.is_some_and(|position| position >= through) {
            return Ok(());
        }
        let mut state = self.state.clone();
        state.acknowledge(through);
        // A batch of which the destination has a part is made anew from the rest.
        if state.open.front().is_some_and(|bounds| bounds.first <= through) {
            state.open.clear();
        }
        self.write(Entry { state, ..Entry::default() }).await
    }

    pub async fn close(&mut self) {
        if let Some(mut sink) = self.line.sink.take() {
            let closing = sink.close();
            tokio::select! {
                () = closing => {}
                () = self.world.sleep(GRACE) => {}
            }
        }
    }

    /// Notes the bounds of a batch, unless that was done before.
    pub async fn begin(&mut self, bounds: &Bounds) -> Result<(), Stop> {
        if self.state.open.contains(bounds) {
            return Ok(());
        }
        let entry = self.noting(bounds);
        self.write(entry).await
    }

    /// Brings a batch, apart from rows that the destination will not have. Ends when all of it is settled.
    pub async fn deliver(&mut self, batch: &Batch) -> Result<Settled, Stop> {
        let mut settled =
            Settled { last: Some(batch.bounds.last), rows: batch.bounds.rows.into(), ..Settled::default() };
        let mut pieces = vec![batch.clone()];
        while let Some(piece) = pieces.pop() {
            let (through, is_replay) = (piece.bounds.last, piece.is_replay);
            if let Some([first, second]) = self.settle(piece, &mut settled).await? {
                pieces.push(second);
                pieces.push(first);
            } else if !pieces.is_empty() {
                self.flush_piece(&mut settled).await?;
                // The positions of dead letters say nothing of how far the pipeline is.
                if !is_replay {
                    self.keep_up(through, &mut settled).await?;
                }
            }
        }
        self.post.recovered();
        self.post.mode(Mode::Running);
        Ok(settled)
    }

    /// What the sink holds of a batch that goes in pieces is made durable before the next piece: the rows for which the
    /// batch was cut end the sink's session, perhaps, and what it holds with it. What it held before is acknowledged.
    async fn flush_piece(&mut self, settled: &mut Settled) -> Result<(), Stop> {
        let Some(held) = settled.held.take() else { return Ok(()) };
        self.line.buffered.push_back(Settled { held: Some(held), ..Settled::default() });
        let mut durable = self.flush_sink().await?;
        // The piece is acknowledged with its batch.
        durable.pop();
        if durable.is_empty() { Ok(()) } else { self.commit(durable, None).await }
    }

    /// A transactional destination commits its position with each piece: what an earlier piece left behind has to be
    /// durable before, or a crash would find a position past rows that are nowhere. Until the batch is settled its
    /// bounds are not noted then; after a crash the destination's position says what is left of it.
    async fn keep_up(&mut self, through: Position, settled: &mut Settled) -> Result<(), Stop> {
        if self.def.tier != Tier::Transactional || settled.dead.is_empty() {
            return Ok(());
        }
        self.land().await?;
        let open = self.state.open.clone();
        let mut state = self.state.clone();
        let dead = std::mem::take(&mut settled.dead);
        let lost = dead.len() as u64;
        state.rows_dead += lost;
        state.dead_letters += lost;
        state.dead_bytes += std::mem::take(&mut settled.dead_bytes);
        settled.buried += lost;
        state.acknowledge(through);
        state.open.clear();
        self.write(Entry { state, dead, ..Entry::default() }).await?;
        self.state.open = open;
        Ok(())
    }

    /// The same. Meanwhile what became of the batch before and the bounds of the one after become durable, in one
    /// commit: both have, when this ends. `before` is one that [`Self::is_held`] is false of.
    ///
    /// A crash in between sends `before` and `batch` again, under their ids: the bounds of both are noted.
    pub async fn deliver_beside(
        &mut self,
        batch: &Batch,
        before: Option<Settled>,
        after: Option<&Bounds>,
    ) -> Result<Settled, Stop> {
        let entry = match (before, after.filter(|bounds| !self.state.open.contains(bounds))) {
            (Some(settled), after) => Some(self.acknowledgement(vec![settled], after)),
            (None, Some(after)) => Some(self.noting(after)),
            (None, None) => None,
        };
        self.line.beside = entry.map(|entry| self.writing(entry).boxed());
        self.deliver(batch).await
    }

    /// Whether a batch is to be acknowledged when the sink is flushed, not before.
    pub fn is_held(&self, settled: &Settled) -> bool {
        settled.held.is_some() || !self.line.buffered.is_empty()
    }

    /// Whether the sink has rows that are lost when its session ends.
    fn holds(&self, settled: &Settled) -> bool {
        settled.held.is_some() || self.line.buffered.iter().any(|batch| batch.held.is_some())
    }

    /// Makes durable that a batch is settled, with the bounds of the next one if there is one.
    pub async fn acknowledge(&mut self, settled: Settled, next: Option<&Bounds>) -> Result<(), Stop> {
        if self.holds(&settled) {
            // Later ones wait for the earlier: a position has nothing open before it.
            self.line.buffered_since.get_or_insert(self.world.now_us());
            self.line.buffered.push_back(settled);
            return match next {
                Some(bounds) => self.begin(bounds).await,
                None => Ok(()),
            };
        }
        // What was held before it is durable with it.
        self.line.buffered_since = None;
        let mut durable: Vec<Settled> = self.line.buffered.drain(..).collect();
        durable.push(settled);
        self.commit(durable, next).await
    }

    /// Batches that wait for a flush, and since when.
    pub fn buffered(&self) -> Option<(usize, i64)> {
        self.line.buffered_since.map(|since| (self.line.buffered.len(), since))
    }

    /// Whether the sink has lost what it held since the pipeline last got on. Until then it is to hold one batch at
    /// most: whatever ended its session is met again with nothing to lose.
    pub fn has_rewound(&self) -> bool {
        self.rewinds.load(Ordering::Relaxed) > 0
    }

    /// Makes what the sink holds durable.
    pub async fn flush(&mut self) -> Result<(), Stop> {
        if self.line.buffered.is_empty() {
            return Ok(());
        }
        let settled = self.flush_sink().await?;
        self.commit(settled, None).await
    }

    /// The batches that are durable now: all that were held.
    async fn flush_sink(&mut self) -> Result<Vec<Settled>, Stop> {
        let mut tries = Tries::default();
        loop {
            tries.attempts += 1;
            let Some(sink) = &mut self.line.sink else { return Err(Stop::Rewind) };
            let answer = tokio::select! {
                biased;
                answer = sink.flush() => answer,
                () = told_to_stop(&self.stop, &self.world) => return Err(Stop::Closing),
            };
            let flushed = match answer {
                Ok(through) => self.flushed(through.as_deref()),
                Err(fault) => Err(fault),
            };
            let fault = match flushed {
                Ok(settled) => {
                    self.stage();
                    return Ok(settled);
                }
                Err(fault) => fault,
            };
            self.complain(&fault, tries.attempts);
            match tries.react(&fault, self.def.max_attempts) {
                Reaction::Wait => self.wait(tries.attempts, &fault).await?,
                Reaction::Pause | Reaction::Exhausted => return Err(Stop::Halt(fault)),
                // What it held is gone with it, or must not stay.
                Reaction::Reauthorize => {
                    self.forget_secrets();
                    return Err(self.rewind(&fault).await);
                }
                Reaction::Reopen | Reaction::Isolate => return Err(self.rewind(&fault).await),
            }
        }
    }

    /// The sink has lost what it held: the run begins again at the position, after a while, and not for ever.
    async fn rewind(&mut self, fault: &Fault) -> Stop {
        let rewinds = self.rewinds.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if rewinds >= self.def.max_attempts {
            return Stop::Halt(fault.clone());
        }
        self.wait(rewinds, fault).await.err().unwrap_or(Stop::Rewind)
    }

    /// Moves the position over what has nothing for the pipeline.
    pub async fn skip_to(&mut self, position: Position) -> Result<(), Stop> {
        let mut state = self.state.clone();
        state.acknowledge(position);
        self.write(Entry { state, ..Entry::default() }).await
    }

    /// Sends dead letters again, in a batch of their own, and makes durable what became of them. Nothing is held by
    /// the sink beforehand.
    pub async fn replay(&mut self, letters: &[(i64, DeadLetter)], batch: &Batch) -> Result<(), Stop> {
        let mut settled = self.deliver(batch).await?;
        if settled.held.is_some() {
            self.line.buffered.push_back(settled);
            settled = self.flush_sink().await?.pop().unwrap_or_default();
        }
        let mut state = self.state.clone();
        let bytes: u64 = letters.iter().map(|(_, letter)| letter.bytes()).sum();
        let (sent, again) = (letters.len() as u64, settled.dead.len() as u64);
        let bytes_again: u64 = settled.dead.iter().map(DeadLetter::bytes).sum();
        state.dead_letters = (state.dead_letters + again).saturating_sub(sent);
        state.dead_bytes = (state.dead_bytes + bytes_again).saturating_sub(bytes);
        state.rows_delivered += sent.saturating_sub(again);
        let ids = letters.iter().map(|(id, _)| *id).collect();
        let sink = std::mem::take(&mut self.line.staged);
        self.write(Entry { state, sink, dead: settled.dead, settled: ids, ..Entry::default() }).await
    }

    /// Leaves dead letters that cannot be sent again where they are, and says why.
    pub async fn keep(&mut self, letters: &[(i64, DeadLetter)], why: &Error) -> Result<(), Stop> {
        let again = |(_, letter): &(i64, DeadLetter)| DeadLetter {
            message: words::shown(&format!("it cannot be sent again: {}", why.message())),
            ..letter.clone()
        };
        let dead = letters.iter().map(again).collect();
        let settled = letters.iter().map(|(id, _)| *id).collect();
        self.write(Entry { state: self.state.clone(), dead, settled, ..Entry::default() }).await
    }

    /// The batches that a flush has made durable.
    fn flushed(&mut self, through: Option<&str>) -> Result<Vec<Settled>, Fault> {
        let position = through.and_then(|text| Position::parse(text).ok());
        let reached = |held: Position| position.is_some_and(|to| held <= to);
        let fits = |settled: &Settled| settled.held.is_none_or(reached);
        let count = self.line.buffered.iter().take_while(|settled| fits(settled)).count();
        if count < self.line.buffered.len() {
            let message = "flush answered a position before the last batch that the plugin had buffered";
            return Err(Fault::new(FaultKind::Internal, message).with_code("plugin.flush"));
        }
        self.line.buffered_since = None;
        Ok(self.line.buffered.drain(..).collect())
    }

    async fn commit(&mut self, settled: Vec<Settled>, next: Option<&Bounds>) -> Result<(), Stop> {
        let entry = self.acknowledgement(settled, next);
        self.write(entry).await
    }

    fn noting(&self, bounds: &Bounds) -> Entry {
        let mut state = self.state.clone();
        state.note(bounds);
        Entry { state, ..Entry::default() }
    }

    /// That batches are settled, with all that the sink wants to remember by now.
    fn acknowledgement(&mut self, settled: Vec<Settled>, next: Option<&Bounds>) -> Entry {
        let mut state = self.state.clone();
        let mut dead = Vec::new();
        for batch in settled {
            let lost = batch.dead.len() as u64;
            state.rows_delivered += batch.rows.saturating_sub(lost + batch.buried);
            state.batches_delivered += 1;
            state.rows_dead += lost;
            state.dead_letters += lost;
            state.dead_bytes += batch.dead.iter().map(DeadLetter::bytes).sum::<u64>();
            dead.extend(batch.dead);
            if let Some(last) = batch.last {
                state.acknowledge(last);
            }
        }
        if let Some(bounds) = next {
            state.note(bounds);
        }
        // What was wrong once and is overcome stays on record only until the next batch went well.
        (state.last_error, state.last_error_code) = (None, None);
        let sink = std::mem::take(&mut self.line.staged);
        Entry { state, sink, dead, ..Entry::default() }
    }

    /// Makes an entry durable.
    async fn write(&mut self, entry: Entry) -> Result<(), Stop> {
        let written = self.writing(entry).await?;
        self.written(written);
        Ok(())
    }

    /// Makes an entry durable and gives it back; it counts once [`Self::written`] has it. A full disk is waited for:
    /// nothing else can be done, and nothing is lost.
    fn writing(&self, mut entry: Entry) -> impl Future<Output = Result<Entry, Stop>> + Send + use<> {
        let (journal, world, post) = (self.journal.clone(), Arc::clone(&self.world), Arc::clone(&self.post));
        let stop = self.stop.clone();
        entry.state.updated_at = world.now_us();
        // Shared, not copied: it may have thousands of dead letters.
        let entry = Arc::new(entry);
        async move {
            loop {
                match journal.write(Arc::clone(&entry)).await {
                    Ok(()) => return Ok(Arc::unwrap_or_clone(entry)),
                    Err(Refused::Gone) => return Err(Stop::Gone),
                    Err(Refused::Failed(error))
                        if error.kind() == ErrorKind::Exhausted && !stop.is_cancelled() =>
                    {
                        let code = error.state().code().to_owned();
                        post.failed(words::shown(&error.without_private().to_string()), Some(code), 0);
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = world.sleep(FULL_WAIT) => {}
                        }
                    }
                    Err(Refused::Failed(error)) => return Err(Stop::Failed(error)),
                }
            }
        }
    }

    /// Goes on from what has become durable.
    fn written(&mut self, entry: Entry) {
        apply(&mut self.sink_state, entry.sink);
        if self.state.position != entry.state.position {
            self.rewinds.store(0, Ordering::Relaxed);
        }
        self.state = entry.state;
        self.post.committed(&self.state, self.state.in_snapshot(&self.def));
        if let Some(released) = self.state.released() {
            self.hold.advance(released);
        }
    }

    /// Ends when what is written beside an attempt is durable, if there is such a thing.
    async fn land(&mut self) -> Result<(), Stop> {
        if let Some(beside) = self.line.beside.take() {
            let written = beside.await?;
            self.written(written);
        }
        Ok(())
    }

    fn forget_secrets(&self) {
        for setting in self.spec.options.values() {
            if let Setting::Secret(name, _) = setting {
                self.secrets.forget(name);
            }
        }
    }

    /// What the sink wants to remember of the last call.
    fn stage(&mut self) {
        if let Some(sink) = &mut self.line.sink {
            self.line.staged.extend(sink.take_state_changes());
        }
    }

    /// Tells the view why, and the log that.
    fn complain(&self, fault: &Fault, attempts: u32) {
        let code = words::code(fault);
        tracing::warn!(
            tenant = %self.spec.tenant,
            pipeline = %self.def.name,
            kind = fault.kind.name(),
            %code,
            attempts,
            "a sink did not take a batch"
        );
        self.post.failed(words::shown(&fault.message), Some(code), attempts);
        self.post.mode(Mode::Retrying);
    }

    async fn wait(&mut self, attempt: u32, fault: &Fault) -> Result<(), Stop> {
        let wait = retry::wait(attempt, fault, self.world.chance());
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Stop::Closing),
            () = self.world.sleep(wait) => Ok(()),
        }
    }
}

fn apply(state: &mut BTreeMap<String, Vec<u8>>, changes: impl IntoIterator<Item = StateChange>) {
    for (key, value) in changes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

/// Ends when the pipeline is told to stop and a call under way has had its time to finish.
async fn told_to_stop(stop: &CancellationToken, world: &Arc<dyn Surroundings>) {
    stop.cancelled().await;
    world.sleep(GRACE).await;
}
