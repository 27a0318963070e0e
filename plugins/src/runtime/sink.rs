//! A sink that is a plugin: batches become calls.
//!
//! Stateless ones get a fresh instance per call. Of a session the instance is kept by the host under a [`SessionId`],
//! and left for a new one after a while, after an error of its own, and whenever it holds nothing. The sink's state
//! goes along with every call; what the guest changed is kept here until the pipeline commits it with its position.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sepal_database::connector::{Batch, BatchSchema, Delivered, Fault, FaultKind, Opened, Sink, StateChange};

use super::{Inner, faults, prepare::Prepared};
use crate::{
    call::{Call, GuestBatch, OpenArgs, Operation, Outcome, SessionId, SinkCall},
    manifest::EffectiveLimits,
    package::Package,
};

/// What leaks inside a guest ends with its instance.
const SESSION_CALLS: u32 = 1000;
const SESSION_TIME: Duration = Duration::from_secs(600);

pub(super) struct PluginSink {
    runtime: Arc<Inner>,
    name: String,
    prepared: Prepared,
    open: OpenArgs,
    schema: Option<BatchSchema>,
    /// Committed, with what calls changed on top.
    state: BTreeMap<String, Vec<u8>>,
    /// What calls changed and the pipeline has not taken.
    changes: BTreeMap<String, Option<Vec<u8>>>,
    /// `None`: lifecycle `stateless`.
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    calls: u32,
    since: Instant,
    /// Rows that are not durable: the instance must not be replaced.
    holds: bool,
}

impl fmt::Debug for PluginSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginSink")
            .field("plugin", &self.name)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl PluginSink {
    pub(super) fn new(runtime: Arc<Inner>, package: &Package, prepared: Prepared, open: OpenArgs) -> Self {
        let session = package.manifest.is_session().then(|| runtime.new_session());
        Self {
            name: package.manifest.plugin.name.clone(),
            runtime,
            prepared,
            open,
            schema: None,
            state: BTreeMap::new(),
            changes: BTreeMap::new(),
            session,
        }
    }

    fn sink_call(&self) -> SinkCall {
        SinkCall { open: self.open.clone(), schema: self.schema.clone(), state: self.state.clone() }
    }

    /// One call; the guest's own errors are faults like the host's.
    async fn call(&mut self, limits: EffectiveLimits, operation: Operation) -> Result<Outcome, Fault> {
        let (session, continues) = match &mut self.session {
            Some(session) => {
                session.calls += 1;
                (Some(session.id), session.holds)
            }
            None => (None, false),
        };
        let call = Call { limits, session, continues, operation };
        let outside = Arc::clone(&self.prepared.outside);
        // Of earlier calls, which got on without the secret.
        drop(outside.take_trouble());
        let reply = self.runtime.host.call(self.prepared.tenant, &self.prepared.code, call, outside).await;
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                // The instance is gone, and what it held with it.
                self.renew_session();
                return Err(faults::of_call(error));
            }
        };
        let usage = reply.usage;
        tracing::debug!(
            plugin = %self.name,
            sink = %self.open.sink_id,
            instantiate_us = usage.instantiate_us,
            cpu_us = usage.cpu_us,
            wall_us = usage.wall_us,
            peak_memory_bytes = usage.peak_memory_bytes,
            "a plugin was called"
        );
        if let Outcome::Failed(fault) = reply.outcome {
            if fault.kind == FaultKind::Internal {
                self.end_session().await;
            }
            return Err(self.prepared.explained(fault));
        }
        for (key, value) in reply.state_changes {
            match &value {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(&key),
            };
            self.changes.insert(key, value);
        }
        Ok(reply.outcome)
    }

    fn renew_session(&mut self) {
        if self.session.is_some() {
            self.session = Some(self.runtime.new_session());
        }
    }

    /// The instance ends; the next call gets another.
    async fn end_session(&mut self) {
        let Some(session) = &self.session else { return };
        let call = Call {
            limits: self.prepared.limits,
            session: Some(session.id),
            continues: false,
            operation: Operation::Close,
        };
        let outside = Arc::clone(&self.prepared.outside);
        let closed = self.runtime.host.call(self.prepared.tenant, &self.prepared.code, call, outside).await;
        if let Err(error) = closed {
            tracing::debug!(plugin = %self.name, %error, "a plugin did not close");
        }
        self.renew_session();
    }

    /// An old instance that holds nothing is left.
    async fn recycle(&mut self) {
        let is_due = |session: &Session| {
            !session.holds && (session.calls >= SESSION_CALLS || session.since.elapsed() >= SESSION_TIME)
        };
        if self.session.as_ref().is_some_and(is_due) {
            self.end_session().await;
        }
    }

    /// What the guest says about a batch, made sense of.
    fn judge(&mut self, delivered: Delivered, rows: u32) -> Result<Delivered, Fault> {
        check_rows(&delivered, rows)?;
        match (delivered, &mut self.session) {
            (Delivered::Buffered, None) => {
                let problem =
                    "it answered `buffered`, but its lifecycle is stateless: nothing would flush the rows";
                Err(faults::protocol(problem))
            }
            (Delivered::Buffered, Some(session)) => {
                session.holds = true;
                Ok(Delivered::Buffered)
            }
            (Delivered::Durable(bad), session) => {
                // Everything up to this batch's end is durable.
                if let Some(session) = session {
                    session.holds = false;
                }
                Ok(Delivered::Durable(bad.into_iter().map(|row| self.prepared.scrubbed_row(row)).collect()))
            }
            (retry @ Delivered::RetryRows(_), _) => Ok(retry),
        }
    }
}

#[async_trait]
impl Sink for PluginSink {
    async fn open(&mut self, state: BTreeMap<String, Vec<u8>>) -> Result<Opened, Fault> {
        self.end_session().await;
        self.state = state;
        self.changes.clear();
        self.schema = None;
        let operation = Operation::OpenSink(self.sink_call());
        match self.call(self.prepared.limits, operation).await? {
            Outcome::Opened(opened) => Ok(opened),
            other => Err(faults::unexpected("open", &other)),
        }
    }

    /// The guest has it with the next batch: a fresh instance has to be told anyway.
    async fn set_schema(&mut self, schema: &BatchSchema) -> Result<(), Fault> {
        self.schema = Some(schema.clone());
        Ok(())
    }

    async fn write(&mut self, batch: &Batch) -> Result<Delivered, Fault> {
        self.recycle().await;
        let limits = self.prepared.limits.with_room_for(batch.payload.len());
        let operation = Operation::Write(self.sink_call(), guest_batch(batch));
        match self.call(limits, operation).await? {
            Outcome::Written(delivered) => self.judge(delivered, batch.rows),
            other => Err(faults::unexpected("write", &other)),
        }
    }

    async fn flush(&mut self) -> Result<Option<String>, Fault> {
        // A stateless guest holds nothing, and a fresh one even less.
        if self.session.is_none() {
            return Ok(None);
        }
        let operation = Operation::Flush(self.sink_call());
        match self.call(self.prepared.limits, operation).await? {
            Outcome::Flushed(position) => {
                if let Some(session) = &mut self.session {
                    session.holds = false;
                }
                Ok(position)
            }
            other => Err(faults::unexpected("flush", &other)),
        }
    }

    fn take_state_changes(&mut self) -> Vec<StateChange> {
        std::mem::take(&mut self.changes).into_iter().collect()
    }

    async fn close(&mut self) {
        self.end_session().await;
    }
}

impl Inner {
    fn new_session(&self) -> Session {
        let id = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        Session { id, calls: 0, since: Instant::now(), holds: false }
    }
}

/// Every row that is named is one of the batch and named once: a list is what the pipeline works through.
fn check_rows(delivered: &Delivered, rows: u32) -> Result<(), Fault> {
    let mut named: Vec<u32> = match delivered {
        Delivered::Buffered => return Ok(()),
        Delivered::Durable(bad) if bad.len() > rows as usize => return Err(too_many(bad.len(), rows)),
        Delivered::RetryRows(again) if again.len() > rows as usize => {
            return Err(too_many(again.len(), rows));
        }
        Delivered::Durable(bad) => bad.iter().map(|row| row.index).collect(),
        Delivered::RetryRows(again) => again.clone(),
    };
    named.sort_unstable();
    if let Some(row) = named.last().filter(|row| **row >= rows) {
        return Err(faults::protocol(format!("it names row {row} of a batch of {rows} rows")));
    }
    match named.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(faults::protocol(format!("it names row {} twice", pair[0]))),
        None => Ok(()),
    }
}

fn too_many(named: usize, rows: u32) -> Fault {
    faults::protocol(format!("it names {named} rows of a batch of {rows}"))
}

fn guest_batch(batch: &Batch) -> GuestBatch {
    GuestBatch {
        id: batch.id.clone(),
        schema_id: batch.schema_id.clone(),
        first: batch.first.clone(),
        last: batch.last.clone(),
        rows: batch.rows,
        attempt: batch.attempt,
        snapshot: batch.snapshot,
        attributes: Vec::new(),
        payload: batch.payload.to_vec(),
    }
}
