//! Pipelines: committed changes of a table on their way to a sink, at least once and in order.
//!
//! [`Pipelines`] belongs to an open tenant. One task keeps what runs in step with what is defined; each pipeline is a
//! task of its own ([`run`]). Writers never wait for any of them: they read the log.
//!
//! # The way of a change
//! 1. A commit is durable. The tenant's `changes` wake the producers (`producer`), whose `source` reads it from the
//!    log. In the beginning of a pipeline the rows that are there already come first (`scan`).
//! 2. `event` projects, filters and pairs: deleted and inserted under one key is an update.
//! 3. A batch closes (`batch`) and is encoded (`encode`). Its bounds are committed; from now on it is the same whenever
//!    it is made again.
//! 4. `courier` brings it to the sink. What the sink says decides what follows (`retry`): again, in halves, rows set
//!    aside (`dead_letters`), or a stop until a person has looked.
//! 5. `journal` commits the new position with the batch's dead letters, what the sink wants to remember, and the bounds
//!    of the batch after the next. The next one is on its way meanwhile: its bounds are committed already. Then `hold`
//!    lets go of the log up to there.
//!
//! After a crash, 3 and 4 are done again with the same bytes under the same ids, for two batches at most that had
//! arrived (and those that the sink held).

mod batch;
mod compile;
mod courier;
mod dead_letters;
mod encode;
mod event;
mod hold;
mod journal;
mod pieces;
pub mod position;
mod producer;
mod retry;
mod run;
mod scan;
mod shared;
mod source;
mod state;
mod status;
mod surroundings;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use sepal_query::catalog::delivery::PipelineStatusRow;
use sepal_storage::Snapshot;
use sepal_types::{Error, Lsn, Result, SqlState};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    blocking::blocking,
    delivery::{
        objects::{Objects, PipelineDef, SinkConnector},
        system_tables::SystemTable,
    },
    sealing::hex,
    tenant::OpenTenant,
};

use hold::HoldSlot;
use journal::Journal;
use position::Position;
use run::{READING, Run};
use state::PipelineState;
use status::Post;
use surroundings::{Surroundings, World};

/// How often what runs is compared with what is defined without being told.
const PATROL: Duration = Duration::from_mins(1);

/// The pipelines of one tenant.
pub struct Pipelines {
    world: Arc<dyn Surroundings>,
    retention_bytes: u64,
    entries: Mutex<HashMap<String, Entry>>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// A pipeline that is defined.
struct Entry {
    def: Arc<PipelineDef>,
    /// Of the definition and of all that it refers to: another one is another run.
    fingerprint: String,
    post: Arc<Post>,
    hold: Arc<HoldSlot>,
    nudge: Arc<Notify>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// A pipeline as it should run.
struct Wanted {
    def: Arc<PipelineDef>,
    fingerprint: String,
    revision: String,
}

impl fmt::Debug for Pipelines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipelines").field("entries", &self.entries.lock().len()).finish_non_exhaustive()
    }
}

impl Pipelines {
    /// None yet. `retention_bytes`: `DatabaseOptions::log_retention_bytes`.
    pub fn new(retention_bytes: u64) -> Self {
        Self::within(World::shared(), retention_bytes)
    }

    fn within(world: Arc<dyn Surroundings>, retention_bytes: u64) -> Self {
        Self { world, retention_bytes, entries: Mutex::default(), supervisor: Mutex::default() }
    }

    /// Runs what is defined until the tenant is closed. Once per open tenant.
    pub fn start(&self, tenant: &Arc<OpenTenant>) {
        let task = tokio::spawn(supervise(Arc::clone(tenant)));
        *self.supervisor.lock() = Some(task);
    }

    /// Waits until nothing runs any more. The tenant is closing.
    pub async fn finish(&self) {
        let supervisor = self.supervisor.lock().take();
        if let Some(task) = supervisor
            && let Err(problem) = task.await
        {
            tracing::error!(%problem, "the pipelines' supervisor panicked");
        }
    }

    /// The environment's pipelines, by name.
    pub fn status(&self, environment: &str) -> Vec<PipelineStatusRow> {
        let now = self.world.now_us();
        let entries = self.entries.lock();
        let mut rows: Vec<PipelineStatusRow> = entries
            .values()
            .filter(|entry| entry.def.environment == environment)
            .map(|entry| {
                let hold = entry.hold.get();
                entry.post.row(&entry.def.name, hold.as_deref(), self.retention_bytes, now)
            })
            .collect();
        rows.sort_by(|one, other| one.pipeline.cmp(&other.pipeline));
        rows
    }

    /// Tells every pipeline to look whether something was said to it.
    fn nudge_all(&self) {
        self.entries.lock().values().for_each(|entry| entry.nudge.notify_one());
    }

    /// Ends what is not wanted as it is; gives back those tasks.
    fn stop_stale(&self, wanted: &HashMap<String, Wanted>) -> Vec<JoinHandle<()>> {
        let mut entries = self.entries.lock();
        let mut stopped = Vec::new();
        for (id, entry) in entries.iter_mut() {
            let current = wanted.get(id).is_some_and(|wanted| wanted.fingerprint == entry.fingerprint);
            let alive = entry.task.as_ref().is_some_and(|task| !task.is_finished());
            if current && alive {
                continue;
            }
            entry.stop.cancel();
            stopped.extend(entry.task.take());
        }
        stopped
    }

    /// Forgets what is gone and starts what does not run.
    fn start_missing(&self, tenant: &Arc<OpenTenant>, wanted: HashMap<String, Wanted>) {
        let mut entries = self.entries.lock();
        entries.retain(|id, entry| {
            let stays = wanted.contains_key(id);
            if !stays {
                entry.hold.release();
            }
            stays
        });
        for (id, wanted) in wanted {
            let entry = entries.entry(id).or_insert_with(|| Entry::new(&wanted));
            if entry.task.is_some() {
                continue;
            }
            entry.def = Arc::clone(&wanted.def);
            entry.fingerprint = wanted.fingerprint;
            entry.stop = CancellationToken::new();
            let run = Run {
                tenant: Arc::clone(tenant),
                def: wanted.def,
                revision: wanted.revision,
                post: Arc::clone(&entry.post),
                hold: Arc::clone(&entry.hold),
                nudge: Arc::clone(&entry.nudge),
                world: Arc::clone(&self.world),
                stop: entry.stop.clone(),
                retention_bytes: self.retention_bytes,
                rewinds: Arc::default(),
            };
            entry.task = Some(tokio::spawn(run.run()));
        }
    }

    fn stop_all(&self) -> Vec<JoinHandle<()>> {
        let mut entries = self.entries.lock();
        entries.values().for_each(|entry| entry.stop.cancel());
        entries.values_mut().filter_map(|entry| entry.task.take()).collect()
    }
}

impl Entry {
    fn new(wanted: &Wanted) -> Self {
        Self {
            def: Arc::clone(&wanted.def),
            fingerprint: wanted.fingerprint.clone(),
            post: Arc::default(),
            hold: Arc::default(),
            nudge: Arc::default(),
            stop: CancellationToken::new(),
            task: None,
        }
    }
}

/// Whether RESUME FROM may name a position. Blocking.
///
/// Errors: 22023 for one after the tenant's last commit, which would pass over all that is committed until then; and
/// for one of another snapshot than the pipeline's.
pub fn check_position(tenant: &Arc<OpenTenant>, def: &Arc<PipelineDef>, position: Position) -> Result<()> {
    let snapshot = tenant.store.snapshot();
    let state = Journal::new(Arc::clone(tenant), Arc::clone(def)).state(&snapshot)?;
    let state = state.unwrap_or_else(|| PipelineState::new(def));
    match state.refuses(position, snapshot.lsn()) {
        None => Ok(()),
        Some(why) => {
            Err(Error::new(SqlState::InvalidParameterValue, format!("the position {position} {why}"))
                .with_hint("Take one from the column position of sepal_pipeline_status."))
        }
    }
}

/// Keeps the runs in step with the definitions.
async fn supervise(tenant: Arc<OpenTenant>) {
    let mut changes = tenant.changes.subscribe();
    let mut held = false;
    loop {
        // Until it is, all of the log stays.
        if !held {
            let opener = Arc::clone(&tenant);
            match blocking(READING, move || take_holds(&opener)).await {
                Ok(()) => held = true,
                Err(error) => {
                    tracing::error!(tenant = %tenant.id, %error, "the pipelines' part of the log is not held");
                }
            }
        }
        let definitions = tenant.definitions.load(Ordering::Acquire);
        if let Err(error) = reconcile(&tenant).await {
            tracing::error!(tenant = %tenant.id, %error, "the pipelines cannot be read");
        }
        loop {
            tokio::select! {
                biased;
                () = tenant.until_closed() => {
                    wait_for(tenant.pipelines.stop_all()).await;
                    return;
                }
                () = tenant.pipelines_changed.notified() => {
                    tenant.pipelines.nudge_all();
                    break;
                }
                _ = changes.changed() => {
                    // ALTER TABLE of a table that a pipeline reads is noticed here.
                    if tenant.definitions.load(Ordering::Acquire) != definitions {
                        break;
                    }
                }
                () = tokio::time::sleep(PATROL) => break,
            }
        }
    }
}

async fn reconcile(tenant: &Arc<OpenTenant>) -> Result<()> {
    let reader = Arc::clone(tenant);
    let wanted = blocking(READING, move || wanted(&reader.store.snapshot())).await?;
    wait_for(tenant.pipelines.stop_stale(&wanted)).await;
    tenant.pipelines.start_missing(tenant, wanted);
    Ok(())
}

async fn wait_for(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if let Err(problem) = task.await {
            tracing::error!(%problem, "a pipeline panicked");
        }
    }
}

/// By id.
fn wanted(snapshot: &Snapshot) -> Result<HashMap<String, Wanted>> {
    let objects = Objects::of(snapshot)?;
    let of = |def: &PipelineDef| {
        let sink = objects.sink(&def.environment, &def.sink);
        let plugin = sink.and_then(|sink| match &sink.connector {
            SinkConnector::Plugin { name, .. } => objects.plugin(&sink.environment, name),
            SinkConnector::Native(_) => None,
        });
        let table = snapshot.table(def.table).map(|version| version.def.columns.clone());
        let around = format!("{sink:?} {:?} {table:?}", plugin.map(|plugin| plugin.revision));
        // What a pipeline stopped for may be any of these, but no RESUME or PAUSE.
        let plain = PipelineDef { paused: false, resumed: 0, resume_from: None, ..def.clone() };
        let revision = hex(&sepal_crypto::sha256(format!("{plain:?} {around}").as_bytes()));
        Wanted { def: Arc::new(def.clone()), fingerprint: format!("{def:?} {around}"), revision }
    };
    Ok(objects.pipelines().map(|def| (def.id.clone(), of(def))).collect())
}

/// Takes hold of the log for every pipeline, and lets the rest of it go. Before anything is trimmed. Where it failed,
/// it is done again beside what runs by then. Blocking.
fn take_holds(tenant: &Arc<OpenTenant>) -> Result<()> {
    let snapshot = tenant.store.snapshot();
    if SystemTable::Objects.find(&snapshot).is_some() {
        for (id, wanted) in wanted(&snapshot)? {
            let state = Journal::new(Arc::clone(tenant), Arc::clone(&wanted.def)).state(&snapshot)?;
            let after = match state.as_ref().map(|state| (state.halt.as_ref(), state.released())) {
                Some((Some(halt), _)) if halt.lost => continue,
                Some((_, Some(after))) => after,
                Some((_, None)) | None => Lsn(wanted.def.created_after),
            };
            let hold = {
                let mut entries = tenant.pipelines.entries.lock();
                Arc::clone(&entries.entry(id).or_insert_with(|| Entry::new(&wanted)).hold)
            };
            // One that is too late is told so when it begins.
            if let Err(error) = hold.take(&tenant.store, after) {
                tracing::warn!(tenant = %tenant.id, pipeline = %wanted.def.name, %error, "log that is gone");
            }
        }
    }
    Ok(tenant.store.release_unheld_log()?)
}
