//! Where a run goes on: read, decided and noted before the first batch.

use std::sync::Arc;

use sepal_storage::{Snapshot, StoreError};
use sepal_types::{Error, Lsn, Result};

use super::{Prepared, READING, Run};
use crate::{
    blocking::blocking,
    connector::{Fault, FaultKind, SinkSpec},
    delivery::{
        objects::{Objects, SinkDef},
        secrets::SecretService,
        sinks::sink_spec,
        system_tables::SystemTable,
    },
    pipeline::{
        batch::Maker,
        compile::compile,
        courier::Stop,
        encode::Encoder,
        event::View,
        journal::{Entry, Journal, Refused},
        position::Position,
        source::{Begin, Creation, Scout, Source},
        state::{Halt, PipelineState},
    },
};

/// Counts what a pipeline that does not run has before it.
pub struct Counter {
    scout: Scout,
    /// Rows of the snapshot that are still to be read.
    snapshot: u64,
}

/// What the tables say of a pipeline.
struct Found {
    view: View,
    spec: SinkSpec,
    sink: SinkDef,
    state: Option<PipelineState>,
    entry: Entry,
}

impl Run {
    /// Reads what there is and notes where to begin, if that is new.
    pub(super) async fn prepare(&self) -> Result<Prepared, Stop> {
        let connectors = Arc::clone(self.tenant.delivery.connectors()?);
        let journal = Journal::new(Arc::clone(&self.tenant), Arc::clone(&self.def));
        let (tenant, def, reader) = (Arc::clone(&self.tenant), Arc::clone(&self.def), journal.clone());
        let found = blocking(READING, move || {
            let snapshot = tenant.store.snapshot();
            let objects = Objects::of(&snapshot)?;
            let spec = sink_spec(&tenant, &objects, &def)?;
            let sink = objects.sink(&def.environment, &def.sink).cloned();
            let state = reader.state(&snapshot)?;
            Ok(Found {
                view: compile(&tenant, &snapshot, &def)?,
                spec,
                sink: sink.ok_or_else(|| Error::bug("a pipeline's sink has no definition"))?,
                state,
                entry: Entry::default(),
            })
        });
        let mut found = found.await?;
        let changed = self.decide(&mut found)?;
        let state = found.entry.state.clone();
        if changed {
            journal.write(found.entry).await.map_err(stop)?;
        }
        self.post.committed(&state, state.in_snapshot(&self.def));
        let store = Arc::clone(&self.tenant.store);
        let sink_state = blocking(READING, move || journal.sink_state(&store.snapshot())).await?;
        let secrets =
            SecretService::of_sink(&self.tenant.delivery, &self.tenant.store, &found.sink, &self.def.name);
        Ok(Prepared { view: Arc::new(found.view), spec: found.spec, connectors, secrets, state, sink_state })
    }

    /// Fills the entry with where to begin and takes hold of the log from there. Whether that is to be noted.
    fn decide(&self, found: &mut Found) -> Result<bool, Stop> {
        let mut changed = false;
        // One that stopped before it had begun begins now.
        let mut state = match found.state.take() {
            Some(state) if state.start.is_some() => state,
            older => {
                (changed, found.entry.forget_sink) = (true, true);
                let PipelineState { dead_letters, dead_bytes, .. } = older.unwrap_or_default();
                PipelineState { dead_letters, dead_bytes, ..self.anew()? }
            }
        };
        changed |= state.halt.take().is_some();
        if let Some((count, text)) =
            self.def.resume_from.as_ref().filter(|(count, _)| *count > state.resumed_from)
        {
            let position = Position::parse(text)?;
            // The statement was checked too, but before it was committed. Nothing is released for it until here.
            if let Some(why) = state.refuses(position, self.tenant.store.snapshot().lsn()) {
                let message =
                    format!("it cannot go on: the position {position} of RESUME FROM {why}. Name another");
                let fault = Fault::new(FaultKind::Misconfigured, message).with_code("pipeline.position");
                return Err(Stop::Halt(fault));
            }
            state.position = Some(position);
            state.open.clear();
            (state.resumed_from, state.seeks_creation) = (*count, false);
            changed = true;
        }
        if let Some(after) = state.released() {
            self.hold_from(after)?;
            self.hold.advance(after);
        }
        state.updated_at = self.world.now_us();
        found.entry.state = state;
        Ok(changed)
    }

    /// The state of a pipeline, or of a generation of one, that begins now.
    fn anew(&self) -> Result<PipelineState, Stop> {
        let mut state = PipelineState::new(&self.def);
        let kept = self.tenant.delivery.take_log(&self.def.id);
        if self.def.snapshot {
            let head = self.tenant.store.snapshot().lsn();
            self.hold_from(head)?;
            state.start = Some(head);
        } else {
            let after = Lsn(self.def.created_after);
            if let Some(hold) = kept {
                self.hold.put(hold, after);
            }
            self.hold_from(after)?;
            state.start = Some(after);
            // RESET writes the definition anew: it counts as its making.
            state.seeks_creation = true;
        }
        Ok(state)
    }

    fn hold_from(&self, after: Lsn) -> Result<(), Stop> {
        match self.hold.take(&self.tenant.store, after) {
            Ok(_) => Ok(()),
            Err(StoreError::LogGone { .. }) => Err(Stop::Lost),
            Err(error) => Err(Stop::Failed(error.into())),
        }
    }

    pub(super) fn maker(&self, view: &View) -> Result<Maker> {
        let encoder =
            Encoder::new(self.def.encoding, self.def.envelope, view.columns().to_vec(), view.key().to_vec())?;
        Ok(Maker {
            encoder,
            sink: self.def.id.clone(),
            generation: self.def.generation,
            max_rows: (self.def.batch_rows as usize).max(1),
            max_bytes: self.def.batch_bytes as usize,
        })
    }

    pub(super) fn beginning(&self, state: &PipelineState, snapshot: &Snapshot) -> Begin {
        let objects = SystemTable::Objects.id(snapshot).filter(|_| state.seeks_creation);
        Begin {
            start: state.start.unwrap_or_default(),
            snapshot: self.def.snapshot,
            position: state.position,
            creation: objects.map(|objects| Creation { objects, id: self.def.id.clone() }),
        }
    }

    pub(super) async fn source(&self, view: Arc<View>, begin: Begin) -> Result<Source> {
        let store = Arc::clone(&self.tenant.store);
        let hold = self.hold.get().ok_or_else(|| Error::bug("a pipeline runs without its log"))?;
        blocking(READING, move || Source::open(view, store, hold, &begin)).await
    }

    /// How many events are before the pipeline. The counter is handed in again for the next time.
    pub(super) async fn count(
        &self,
        state: &PipelineState,
        counter: Option<Counter>,
    ) -> Result<(Counter, u64)> {
        let snapshot = self.tenant.store.snapshot();
        let (tenant, def) = (Arc::clone(&self.tenant), Arc::clone(&self.def));
        let begin = self.beginning(state, &snapshot);
        let hold = self.hold.take(&tenant.store, state.released().unwrap_or_default())?;
        blocking(READING, move || {
            let mut counter = match counter {
                Some(counter) => counter,
                None => {
                    let view = Arc::new(compile(&tenant, &snapshot, &def)?);
                    let source = Source::open(view, Arc::clone(&tenant.store), hold, &begin)?;
                    Counter { scout: source.scout()?, snapshot: source.rows_left() }
                }
            };
            let events = counter.scout.count()? + counter.snapshot;
            Ok((counter, events))
        })
        .await
    }

    /// Notes that a person has to look, and why, in words for the view. When even that fails it is tried again with
    /// everything else.
    pub(super) async fn halt(&self, message: String, code: String, lost: bool) {
        tracing::error!(
            tenant = %self.tenant.id, pipeline = %self.def.name, %code,
            "a pipeline has paused; sepal_pipeline_status tells its tenant why"
        );
        self.post.failed(message.clone(), Some(code.clone()), self.post.attempts());
        let noted = self.note_halt(message, code, lost).await;
        if let Err(Refused::Failed(error)) = noted {
            self.fail(&error).await;
        }
    }

    async fn note_halt(&self, message: String, code: String, lost: bool) -> Result<(), Refused> {
        let journal = Journal::new(Arc::clone(&self.tenant), Arc::clone(&self.def));
        let (store, reader) = (Arc::clone(&self.tenant.store), journal.clone());
        let state = blocking(READING, move || reader.state(&store.snapshot())).await?;
        let mut state = state.unwrap_or_else(|| PipelineState::new(&self.def));
        let at = self.world.now_us();
        if lost {
            state.start.get_or_insert(Lsn(self.def.created_after));
            // A position that is not there any more was asked for and answered.
            state.resumed_from = self.def.resume_from.as_ref().map_or(0, |(count, _)| *count);
        }
        state.attempts = self.post.attempts();
        state.halt = Some(Halt { lost, resumed: self.def.resumed, revision: self.revision.clone(), at });
        (state.last_error, state.last_error_code, state.updated_at) = (Some(message), Some(code), at);
        journal.write(Entry { state, ..Entry::default() }).await
    }
}

fn stop(refused: Refused) -> Stop {
    match refused {
        Refused::Gone => Stop::Gone,
        Refused::Failed(error) => Stop::Failed(error),
    }
}
