//! One batch until each of its rows is taken or set aside.

use std::collections::BTreeMap;

use futures::future::{OptionFuture, join};
use tokio::select;

use super::{Courier, Settled, Stop, told_to_stop};
use crate::{
    connector::{BadRow, Delivered, Fault, FaultKind},
    delivery::objects::{OnExhausted, OnRejected},
    pipeline::{
        batch::Batch,
        dead_letters::DeadLetter,
        retry::{Reaction, TRAP, Tries},
    },
};

/// Rows over which a plugin may trap, with none of the batch accepted, before it is the plugin that is at fault.
const TRAPPED_ROWS: usize = 8;
/// Dead letters of a pipeline beyond which it stops instead of writing more.
const MAX_DEAD_LETTERS: u64 = 100_000;
const MAX_DEAD_BYTES: u64 = 1 << 30;

/// What is next for a piece that an attempt has failed on.
enum After {
    Again,
    Settled,
    Split,
}

impl Courier {
    /// Tries one piece until it is settled; its halves when they are to be tried apart.
    pub(super) async fn settle(
        &mut self,
        mut piece: Batch,
        settled: &mut Settled,
    ) -> Result<Option<[Batch; 2]>, Stop> {
        let mut tries = Tries::default();
        loop {
            tries.attempts += 1;
            let answer = match self.attempt(&piece, tries.attempts).await? {
                Ok(Some(delivered)) => self.took(&piece, delivered, settled)?,
                // The destination had it already.
                Ok(None) => Ok(None),
                Err(fault) => Err(fault),
            };
            let fault = match answer {
                Ok(None) => return Ok(None),
                Ok(Some(rest)) => {
                    piece = rest;
                    let message = "the destination took a part of the batch";
                    Fault::new(FaultKind::Transient, message).with_code("sink.partial")
                }
                Err(fault) => fault,
            };
            self.complain(&fault, tries.attempts);
            match self.recover(&piece, &fault, &mut tries, settled).await? {
                After::Again => {}
                After::Settled => return Ok(None),
                After::Split => return Ok(Some(self.maker.halves(&piece)?)),
            }
        }
    }

    /// Opens the sink if need be and writes. `None`: the destination has the batch already.
    ///
    /// Whatever was to become durable beside it has when it ends, told to stop or not: whoever comes next reads it.
    async fn attempt(
        &mut self,
        piece: &Batch,
        number: u32,
    ) -> Result<Result<Option<Delivered>, Fault>, Stop> {
        if self.line.sink.is_none() {
            // A sink that is opened is handed all that it wanted to remember.
            self.land().await?;
        }
        let beside = OptionFuture::from(self.line.beside.take());
        let (stop, world) = (self.stop.clone(), self.world.clone());
        let sending = async {
            select! {
                biased;
                answer = self.write_piece(piece, number) => Ok(answer),
                () = told_to_stop(&stop, &world) => Err(Stop::Closing),
            }
        };
        let (written, answer) = join(beside, sending).await;
        if let Some(entry) = written.transpose()? {
            self.written(entry);
        }
        answer
    }

    async fn write_piece(&mut self, piece: &Batch, number: u32) -> Result<Option<Delivered>, Fault> {
        let through = self.open().await?;
        if !piece.is_replay && through.is_some_and(|through| piece.bounds.last <= through) {
            return Ok(None);
        }
        let Some(sink) = &mut self.line.sink else {
            return Err(Fault::new(FaultKind::NotConnected, "the sink is not open"));
        };
        if !self.line.described {
            sink.set_schema(self.maker.encoder.schema()).await?;
            self.line.described = true;
        }
        sink.write(&piece.attempt(number)).await.map(Some)
    }

    /// What a successful write means. The rows that are to be sent again, if any.
    fn took(
        &mut self,
        piece: &Batch,
        delivered: Delivered,
        settled: &mut Settled,
    ) -> Result<Result<Option<Batch>, Fault>, Stop> {
        let taken = self.believe(piece, delivered, settled)?;
        if taken.is_ok() {
            self.stage();
        }
        Ok(taken)
    }

    fn believe(
        &mut self,
        piece: &Batch,
        delivered: Delivered,
        settled: &mut Settled,
    ) -> Result<Result<Option<Batch>, Fault>, Stop> {
        match delivered {
            Delivered::Buffered => {
                settled.held = Some(piece.bounds.last);
                settled.accepted = true;
                Ok(Ok(None))
            }
            Delivered::Durable(bad) => {
                let outcome = self.set_aside(piece, bad, settled)?;
                if outcome.is_ok() {
                    // Everything up to its end is durable, and so is what was held before.
                    settled.held = None;
                    self.line.buffered.iter_mut().for_each(|before| before.held = None);
                }
                Ok(outcome)
            }
            Delivered::RetryRows(mut rows) => {
                rows.sort_unstable();
                rows.dedup();
                if let Some(row) = rows.last().filter(|row| **row >= piece.bounds.rows) {
                    return Ok(Err(no_such_row(*row, piece)));
                }
                settled.accepted |= rows.len() < piece.events.len();
                if rows.is_empty() {
                    return Ok(Ok(None));
                }
                Ok(Ok(Some(self.maker.pick(piece, &rows)?)))
            }
        }
    }

    /// The rows that a write names as bad become dead letters, each once: of an answer that names rows which are not
    /// there none is believed, and the batch is tried again as a whole.
    fn set_aside(
        &self,
        piece: &Batch,
        bad: Vec<BadRow>,
        settled: &mut Settled,
    ) -> Result<Result<Option<Batch>, Fault>, Stop> {
        if let Some(row) = bad.iter().find(|row| row.index >= piece.bounds.rows) {
            return Ok(Err(no_such_row(row.index, piece)));
        }
        // The first that is said of a row counts.
        let mut by_row: BTreeMap<u32, BadRow> = BTreeMap::new();
        for row in bad {
            by_row.entry(row.index).or_insert(row);
        }
        settled.accepted |= by_row.len() < piece.events.len();
        for (index, row) in by_row {
            let fault = Fault { code: row.code, ..Fault::new(FaultKind::Rejected, row.message) };
            if self.def.on_rejected == OnRejected::Pause {
                return Err(Stop::Halt(fault));
            }
            self.bury(piece, index as usize, &fault, settled)?;
        }
        Ok(Ok(None))
    }

    /// Does what a fault asks for.
    async fn recover(
        &mut self,
        piece: &Batch,
        fault: &Fault,
        tries: &mut Tries,
        settled: &mut Settled,
    ) -> Result<After, Stop> {
        match tries.react(fault, self.def.max_attempts) {
            Reaction::Wait => self.wait(tries.attempts, fault).await?,
            Reaction::Reopen => self.reopen(tries.attempts, fault, settled).await?,
            Reaction::Reauthorize => {
                self.forget_secrets();
                self.reopen(tries.attempts, fault, settled).await?;
            }
            Reaction::Isolate => return self.isolate(piece, fault, settled).await,
            Reaction::Exhausted if self.def.on_exhausted == OnExhausted::DeadLetter => {
                if fault.kind == FaultKind::NotConnected {
                    self.leave(fault, settled).await?;
                }
                for place in 0..piece.events.len() {
                    self.bury(piece, place, fault, settled)?;
                }
                return Ok(After::Settled);
            }
            Reaction::Exhausted | Reaction::Pause => return Err(Stop::Halt(fault.clone())),
        }
        Ok(After::Again)
    }

    async fn reopen(&mut self, attempt: u32, fault: &Fault, settled: &Settled) -> Result<(), Stop> {
        self.leave(fault, settled).await?;
        self.wait(attempt, fault).await
    }

    /// Ends the sink's session. What it held is lost with it and sent again.
    async fn leave(&mut self, fault: &Fault, settled: &Settled) -> Result<(), Stop> {
        let lost = self.holds(settled);
        self.close().await;
        if lost { Err(self.rewind(fault).await) } else { Ok(()) }
    }

    /// Rows that cannot be accepted: halves of several, a dead letter of one.
    async fn isolate(&mut self, piece: &Batch, fault: &Fault, settled: &mut Settled) -> Result<After, Stop> {
        let trapped = fault.code.as_deref() == Some(TRAP);
        if self.def.on_rejected == OnRejected::Pause && !trapped {
            return Err(Stop::Halt(fault.clone()));
        }
        if trapped {
            // The instance is poisoned.
            self.leave(fault, settled).await?;
        }
        if piece.events.len() > 1 {
            return Ok(After::Split);
        }
        settled.trapped += usize::from(trapped);
        let hopeless = settled.trapped >= TRAPPED_ROWS && !settled.accepted;
        if trapped && (hopeless || self.def.on_rejected == OnRejected::Pause) {
            return Err(Stop::Halt(fault.clone()));
        }
        self.bury(piece, 0, fault, settled)?;
        Ok(After::Settled)
    }

    fn bury(&self, piece: &Batch, place: usize, fault: &Fault, settled: &mut Settled) -> Result<(), Stop> {
        let letter = DeadLetter::of(&self.maker.encoder, piece, place, fault, self.world.now_us())?;
        let here = settled.dead_bytes + letter.bytes();
        let letters = self.state.dead_letters + settled.dead.len() as u64 + 1;
        if letters > MAX_DEAD_LETTERS || self.state.dead_bytes + here > MAX_DEAD_BYTES {
            let message = format!(
                "the pipeline has {} dead letters, as many as it may: {}",
                self.state.dead_letters, fault.message
            );
            return Err(Stop::Halt(Fault::new(FaultKind::Rejected, message).with_code("dlq.full")));
        }
        settled.dead.push(letter);
        settled.dead_bytes = here;
        Ok(())
    }
}

fn no_such_row(row: u32, piece: &Batch) -> Fault {
    let message = format!("the plugin names row {row} of a batch of {} rows", piece.bounds.rows);
    Fault::new(FaultKind::Internal, message).with_code("plugin.answer")
}
