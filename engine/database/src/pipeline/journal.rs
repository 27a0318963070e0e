//! The rows of `$system` that a pipeline writes, one commit at a time.
//!
//! Position, counters, the sink's state and dead letters change together or not at all. Nobody else writes these rows
//! while the pipeline runs, but its definition may go or change meanwhile: then nothing is written.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use sepal_storage::{Op, Snapshot, StoreError};
use sepal_types::{Error, Lsn, Result, SqlState};

use super::{dead_letters::DeadLetter, state::PipelineState};
use crate::{
    blocking::blocking,
    connector::StateChange,
    delivery::{
        objects::{Object, PipelineDef},
        system_tables::{Cell, Rows, SystemTable},
    },
    tenant::OpenTenant,
};

/// Tries of a commit that others got in the way of.
const TRIES: usize = 16;

/// One pipeline's way to its rows.
#[derive(Clone)]
pub struct Journal {
    tenant: Arc<OpenTenant>,
    def: Arc<PipelineDef>,
}

/// What becomes durable at once.
#[derive(Clone, Default)]
pub struct Entry {
    pub state: PipelineState,
    /// Of the sink, in order.
    pub sink: Vec<StateChange>,
    /// Whether the sink's state is forgotten first.
    pub forget_sink: bool,
    pub dead: Vec<DeadLetter>,
    /// Ids of dead letters that are settled.
    pub settled: Vec<i64>,
}

/// Why nothing was written.
#[derive(Debug)]
pub enum Refused {
    /// The pipeline was dropped, or reset.
    Gone,
    /// The store could not.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Journal {
    pub fn new(tenant: Arc<OpenTenant>, def: Arc<PipelineDef>) -> Self {
        Self { tenant, def }
    }

    /// What the pipeline remembers; of an older generation than this only its dead letters. `None` before there was
    /// anything.
    pub fn state(&self, snapshot: &Snapshot) -> Result<Option<PipelineState>> {
        let row = SystemTable::PipelineState.get(snapshot, &[Cell::text(&self.def.id)])?;
        let Some(row) = row else { return Ok(None) };
        Ok(row.text("body", 0).and_then(|body| PipelineState::read(body, &self.def)))
    }

    /// The tenant's last commit: no position is beyond it.
    pub fn head(&self) -> Lsn {
        self.tenant.store.snapshot().lsn()
    }

    /// What its sink remembers, by key.
    pub fn sink_state(&self, snapshot: &Snapshot) -> Result<BTreeMap<String, Vec<u8>>> {
        let rows = SystemTable::PluginState.rows_where(snapshot, "pipeline", &self.def.id)?;
        let pair = |row| Some((rows.text("key", row)?.to_owned(), rows.bytes("value", row)?.to_vec()));
        Ok((0..rows.len()).filter_map(pair).collect())
    }

    /// The first of the dead letters that somebody wants sent again, by id: at most so many, and of about so many
    /// bytes, but one if there is any. Whoever sends them asks again for the next.
    pub fn replays(
        &self,
        snapshot: &Snapshot,
        most: usize,
        most_bytes: usize,
    ) -> Result<Vec<(i64, DeadLetter)>> {
        let table = SystemTable::DeadLetters;
        let mut ids: Vec<i64> = Vec::new();
        table.each_chunk(snapshot, &["id", "pipeline", "replay"], |rows| {
            let wanted = |row: &usize| {
                rows.flag("replay", *row) == Some(true)
                    && rows.text("pipeline", *row) == Some(self.def.id.as_str())
            };
            ids.extend((0..rows.len()).filter(wanted).filter_map(|row| rows.int("id", row)));
            Ok(())
        })?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        ids.sort_unstable();
        ids.truncate(most.max(1));
        let wanted: HashSet<i64> = ids.into_iter().collect();
        let is_wanted = |rows: &Rows, row: usize| rows.int("id", row).is_some_and(|id| wanted.contains(&id));
        let (mut letters, mut bytes) = (BTreeMap::new(), 0);
        table.each_match(snapshot, &["id"], is_wanted, |rows| {
            for row in 0..rows.len() {
                let (Some(id), Some(letter)) = (rows.int("id", row), DeadLetter::read(&rows, row)) else {
                    continue;
                };
                bytes += letter.bytes();
                letters.insert(id, letter);
                // Those with the lowest ids stay, whichever chunk they are in.
                while bytes > most_bytes as u64
                    && letters.len() > 1
                    && let Some((_, last)) = letters.pop_last()
                {
                    bytes -= last.bytes();
                }
            }
            Ok(())
        })?;
        Ok(letters.into_iter().collect())
    }

    /// Makes an entry durable.
    pub async fn write(&self, entry: impl Into<Arc<Entry>>) -> Result<(), Refused> {
        let (journal, entry) = (self.clone(), entry.into());
        blocking("a pipeline's commit", move || Ok(journal.write_now(&entry))).await?
    }

    fn write_now(&self, entry: &Entry) -> Result<(), Refused> {
        for _ in 0..TRIES {
            let snapshot = self.tenant.store.snapshot();
            if !self.is_current(&snapshot)? {
                return Err(Refused::Gone);
            }
            let ops = self.ops(&snapshot, entry)?;
            match self.tenant.store.commit(&snapshot, ops) {
                Ok(_) => {
                    // Not `committed`: that wakes pipelines, which find nothing of theirs here.
                    self.tenant.logged.notify_one();
                    if self.tenant.store.wants_checkpoint() {
                        self.tenant.work.notify_one();
                    }
                    return Ok(());
                }
                Err(StoreError::WriteConflict { .. } | StoreError::UniqueViolation { .. }) => {}
                Err(error) => return Err(Refused::Failed(error.into())),
            }
        }
        let message = "a pipeline's rows are changed by others all the time";
        Err(Refused::Failed(Error::new(SqlState::SerializationFailure, message)))
    }

    /// Whether the definition is still there, in this generation.
    fn is_current(&self, snapshot: &Snapshot) -> Result<bool> {
        let key =
            [Cell::text(PipelineDef::KIND), Cell::text(&self.def.environment), Cell::text(&self.def.name)];
        let Some(row) = SystemTable::Objects.get(snapshot, &key)? else { return Ok(false) };
        let def: Option<PipelineDef> = row.text("body", 0).and_then(|body| serde_json::from_str(body).ok());
        Ok(def.is_some_and(|def| def.id == self.def.id && def.generation == self.def.generation))
    }

    fn ops(&self, snapshot: &Snapshot, entry: &Entry) -> Result<Vec<Op>> {
        let store = &self.tenant.store;
        let body = serde_json::to_string(&entry.state)
            .map_err(|problem| Error::bug(format!("a pipeline's state does not serialise: {problem}")))?;
        let state = vec![Cell::text(&self.def.id), Cell::text(body)];
        let mut ops = SystemTable::PipelineState.upsert_ops(store, snapshot, &[state])?;
        ops.extend(self.sink_ops(snapshot, entry)?);
        let settled: Vec<Vec<Cell>> = entry.settled.iter().map(|id| vec![Cell::Int(*id)]).collect();
        ops.extend(SystemTable::DeadLetters.delete_ops(snapshot, &settled)?);
        let dead: Vec<Vec<Cell>> = entry.dead.iter().map(|letter| letter.cells(&self.def)).collect();
        ops.extend(SystemTable::DeadLetters.insert_ops(store, snapshot, &dead)?);
        Ok(ops)
    }

    fn sink_ops(&self, snapshot: &Snapshot, entry: &Entry) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        if entry.forget_sink {
            let rows = SystemTable::PluginState.rows_where(snapshot, "pipeline", &self.def.id)?;
            ops.extend(SystemTable::PluginState.delete_rows(snapshot, rows.row_ids()));
            return Ok(ops);
        }
        // The last word on each key.
        let last: BTreeMap<&String, &Option<Vec<u8>>> =
            entry.sink.iter().map(|(key, value)| (key, value)).collect();
        let key = |name: &String| vec![Cell::text(&self.def.id), Cell::text(name)];
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (name, value) in last {
            match value {
                Some(value) => {
                    let mut row = key(name);
                    row.push(Cell::Bytes(value.clone()));
                    put.push(row);
                }
                None => gone.push(key(name)),
            }
        }
        if !gone.is_empty() {
            ops.extend(SystemTable::PluginState.delete_ops(snapshot, &gone)?);
        }
        if !put.is_empty() {
            ops.extend(SystemTable::PluginState.upsert_ops(&self.tenant.store, snapshot, &put)?);
        }
        Ok(ops)
    }
}
