//! A pipeline in small: hands batches over, acts on what the plugin answers, and begins again after a kill from what
//! was acknowledged. `sepal_database::pipeline` does the same with a log behind it; here nothing waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sepal_database::connector::{Delivered, FaultKind, StateChange, Tier};

use super::{
    destination::Destination,
    outside::{Circumstances, Crash, KitOutside},
    report::Wrong,
    rows::Sample,
    subject::{Ended, Subject},
};
use crate::call::{Operation, Outcome, Reply, SessionId};

/// What delivering took.
#[derive(Debug)]
pub(super) struct Delivery {
    /// The calls to the host of the plugin's first life.
    pub calls: Vec<String>,
    /// By batch: the rows that the destination will never take.
    pub bad: Vec<BTreeSet<usize>>,
}

/// Delivers all of them, in order; the plugin is killed once if `crash` says so.
pub(super) async fn deliver(
    subject: &Subject,
    samples: &[Sample],
    destination: &Arc<Destination>,
    crash: Option<Crash>,
) -> Result<Delivery, Wrong> {
    let circumstances = Circumstances { crash, ..Circumstances::default() };
    let first = subject.outside(&subject.setup, destination, circumstances);
    let mut courier = Courier {
        subject,
        samples,
        destination,
        outside: Arc::clone(&first),
        session: subject.next_session(),
        resumed: false,
        state: BTreeMap::new(),
        staged: Vec::new(),
        acknowledged: 0,
        handed_over: 0,
        remaining: None,
        attempts: vec![0; samples.len()],
        bad: vec![BTreeSet::new(); samples.len()],
    };
    courier.run().await?;
    Ok(Delivery { calls: first.heard().calls, bad: courier.bad })
}

struct Courier<'a> {
    subject: &'a Subject,
    samples: &'a [Sample],
    destination: &'a Arc<Destination>,
    outside: Arc<KitOutside>,
    session: Option<SessionId>,
    /// The destination was asked how far it is.
    resumed: bool,
    state: BTreeMap<String, Vec<u8>>,
    /// Becomes part of `state` with the next acknowledgement.
    staged: Vec<StateChange>,
    /// Batches that are durable.
    acknowledged: usize,
    /// Batches that are durable or held by the session.
    handed_over: usize,
    /// The rows of the next batch that have to be sent again, if not all.
    remaining: Option<Vec<usize>>,
    attempts: Vec<u32>,
    bad: Vec<BTreeSet<usize>>,
}

enum Halt {
    Crashed,
    Wrong(Wrong),
}

impl From<Wrong> for Halt {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl Courier<'_> {
    async fn run(&mut self) -> Result<(), Wrong> {
        let most = 8 * self.samples.len() + 8;
        for _ in 0..most {
            if self.acknowledged == self.samples.len() {
                return Ok(());
            }
            match self.step().await {
                Ok(()) => {}
                Err(Halt::Crashed) => self.restart(),
                Err(Halt::Wrong(wrong)) => return Err(wrong),
            }
        }
        Err(Wrong::new(
            "every batch to be durable in the end",
            format!("batch {} is not after {most} calls", self.acknowledged + 1),
        ))
    }

    async fn step(&mut self) -> Result<(), Halt> {
        let tier = self.subject.manifest.sink.as_ref().map(|sink| sink.delivery);
        if tier == Some(Tier::Transactional) && !self.resumed {
            self.resume().await
        } else if self.handed_over == self.samples.len() {
            self.flush().await
        } else {
            self.write().await
        }
    }

    /// A new process knows what was acknowledged, and nothing else.
    fn restart(&mut self) {
        self.outside = self.subject.outside(&self.subject.setup, self.destination, Circumstances::default());
        self.session = self.subject.next_session();
        self.resumed = false;
        self.staged.clear();
        self.handed_over = self.acknowledged;
        self.remaining = None;
    }

    async fn resume(&mut self) -> Result<(), Halt> {
        let sample = &self.samples[self.acknowledged];
        let call = self.subject.sink_call(&self.subject.setup, sample, &self.state);
        let reply = self.ask(Operation::OpenSink(call), false).await?;
        let Outcome::Opened(opened) = &reply.outcome else { return Err(unfair(&reply).into()) };
        self.resumed = true;
        if let Some(position) = &opened.committed_through {
            self.acknowledged = self.acknowledged.max(self.after(position)?);
            self.handed_over = self.acknowledged;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), Halt> {
        let place = self.handed_over;
        self.attempts[place] += 1;
        let whole = &self.samples[place];
        let sample = match &self.remaining {
            Some(rows) => whole.subset(&rows.iter().copied().collect()),
            None => whole.clone(),
        };
        let mut batch = sample.batch.clone();
        batch.attempt = self.attempts[place];
        let call = self.subject.sink_call(&self.subject.setup, &sample, &self.state);
        let reply = self.ask(Operation::Write(call, batch), self.handed_over > self.acknowledged).await?;
        match &reply.outcome {
            Outcome::Written(Delivered::Durable(bad)) => {
                let rows = bad.iter().map(|row| row.index);
                let rows = self.rows_of(place, sample.len(), rows)?;
                self.bad[place].extend(rows);
                self.staged.extend(reply.state_changes);
                self.acknowledge(place + 1);
            }
            Outcome::Written(Delivered::Buffered) if self.session.is_some() => {
                self.staged.extend(reply.state_changes);
                self.handed_over = place + 1;
                self.remaining = None;
            }
            Outcome::Written(Delivered::RetryRows(again)) => {
                let rows = self.rows_of(place, sample.len(), again.iter().copied())?;
                self.remaining = Some(rows);
            }
            Outcome::Failed(fault)
                if matches!(fault.kind, FaultKind::Transient | FaultKind::NotConnected) =>
            {
                self.restart();
            }
            _ => return Err(unfair(&reply).into()),
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Halt> {
        let last = &self.samples[self.samples.len() - 1];
        let call = self.subject.sink_call(&self.subject.setup, last, &self.state);
        let reply = self.ask(Operation::Flush(call), true).await?;
        let flushed = match &reply.outcome {
            Outcome::Flushed(Some(position)) => self.after(position)?,
            _ => return Err(unfair(&reply).into()),
        };
        self.staged.extend(reply.state_changes);
        self.acknowledge(flushed.max(self.acknowledged));
        if self.acknowledged < self.samples.len() {
            let observed = format!("{} of {} batches are", self.acknowledged, self.samples.len());
            return Err(Wrong::new("everything to be durable after flush", observed).into());
        }
        Ok(())
    }

    fn acknowledge(&mut self, batches: usize) {
        self.acknowledged = batches;
        self.handed_over = batches;
        self.remaining = None;
        for (key, value) in self.staged.drain(..) {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
    }

    async fn ask(&self, operation: Operation, continues: bool) -> Result<Reply, Halt> {
        let within = self.session.map(|session| (session, continues));
        match self.subject.call(&self.outside, within, operation).await {
            Ended::Replied(reply) => Ok(reply),
            Ended::Crashed => Err(Halt::Crashed),
            Ended::Broke(error) => Err(Wrong::new("an answer", error.to_string()).into()),
        }
    }

    /// How many batches are durable when this position is.
    fn after(&self, position: &str) -> Result<usize, Wrong> {
        let place = self.samples.iter().position(|sample| sample.batch.last == position);
        place.map(|place| place + 1).ok_or_else(|| {
            let known: Vec<&str> = self.samples.iter().map(|sample| sample.batch.last.as_str()).collect();
            Wrong::new(
                format!("the `last` of a batch ({})", known.join(", ")),
                format!("the position {position:?}"),
            )
        })
    }

    /// Rows of the batch that was sent, as rows of the whole batch.
    fn rows_of(
        &self,
        place: usize,
        sent: usize,
        rows: impl Iterator<Item = u32>,
    ) -> Result<Vec<usize>, Wrong> {
        rows.map(|row| {
            let row = row as usize;
            if row >= sent {
                let observed = format!("row {row} of a batch of {sent}");
                return Err(Wrong::new(format!("rows of batch {}", place + 1), observed));
            }
            Ok(self.remaining.as_ref().map_or(row, |remaining| remaining[row]))
        })
        .collect()
    }
}

/// The destination took everything, and still.
fn unfair(reply: &Reply) -> Wrong {
    let observed = match &reply.outcome {
        Outcome::Failed(fault) => format!("{}: {fault}", fault.kind.name()),
        Outcome::Written(Delivered::Buffered) => {
            "buffered, which only a plugin with lifecycle = \"session\" may answer".to_owned()
        }
        Outcome::Flushed(None) => "a flush without a position".to_owned(),
        other => format!("{other:?}"),
    };
    Wrong::new("rows that are durable, as the destination takes everything", observed)
}
