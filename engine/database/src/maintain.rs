//! Background work of one tenant: flushes when the log has grown, compaction, index builds, and the replacement of
//! keys.
//!
//! One task per open tenant; its work runs on the threads of [`crate::background`]. A build never blocks readers or
//! writers: it reads a pinned segment and attaches the finished blob, or throws it away when the segment is gone
//! meanwhile.
//!
//! An index is built over a segment by whoever comes first:
//! 1. the checkpoint that writes the segment, if the table's index is valid by then;
//! 2. CREATE INDEX and REINDEX ([`build_index`]), over the segments that are there;
//! 3. [`build_missing`], over those that a checkpoint wrote while 2 was at work, or could not index; and over those
//!    whose index turned out to be damaged.

mod compaction;
mod gaps;
mod indexer;
mod rotation;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sepal_index::BuildMeans;
use sepal_query::vector::check_rows_as_halves;
use sepal_storage::{Chunk, Snapshot, TableVersion};
use sepal_types::{
    ColumnDef, Error, FileId, IndexDef, IndexMethod, Measure, Result, SqlState, TableId, VectorIndexOptions,
};

use crate::{
    background::{self, TaskKind},
    builds::Posted,
    delivery::now_us,
    session::CancelToken,
    tenant::OpenTenant,
};

pub use compaction::{Vacuumed, vacuum};
use gaps::{Gap, Gaps};
pub use indexer::Shortage;
use indexer::{Built, SegmentIndexer, Work, cancelled};
pub use rotation::begin_files;

/// How often the log's size is looked at without being told, and how long after a failure comes another try.
const PATROL: Duration = Duration::from_secs(5);

/// How long a log is idle before its end is marked.
const QUIET: Duration = Duration::from_millis(200);

/// Segments with fewer rows are searched exactly: the scan is faster than a graph is worth.
const LEAST_INDEXED_ROWS: usize = 1_000;

/// How often CREATE INDEX looks for segments that were written while it built the others. What comes later is
/// left to [`build_missing`]: a table that is loaded faster than indexed must not hold up the statement for ever.
const BUILD_ROUNDS: usize = 3;

/// Runs until the tenant is closed.
pub async fn maintain(tenant: Arc<OpenTenant>) {
    // Side by side: a long build or merge must not keep the log from being flushed.
    tokio::join!(
        flush(&tenant),
        index(&tenant),
        compaction::compact(&tenant),
        mark(&tenant),
        rotation::rotate(&tenant)
    );
}

/// Marks the log's end once nothing was committed for a moment, so that damage to the last commits cannot be taken for
/// a write that a crash tore. While commits follow each other each proves the one before.
async fn mark(tenant: &Arc<OpenTenant>) {
    // Opening may have committed something.
    tenant.logged.notify_one();
    loop {
        tokio::select! {
            () = tenant.until_closed() => return,
            () = tenant.logged.notified() => {}
        }
        let mut last = tenant.store.snapshot().lsn();
        loop {
            tokio::select! {
                () = tenant.until_closed() => return,
                () = tokio::time::sleep(QUIET) => {}
            }
            let now = tenant.store.snapshot().lsn();
            if now == last {
                break;
            }
            last = now;
        }
        let worker = Arc::clone(tenant);
        match tokio::task::spawn_blocking(move || worker.store.mark_log()).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) if tenant.is_closed() => return,
            // The commits are durable without it; the next one brings another try.
            Ok(Err(error)) => tracing::warn!(tenant = %tenant.id, %error, "the log's end was not marked"),
            Err(problem) => tracing::error!(tenant = %tenant.id, %problem, "marking the log's end panicked"),
        }
    }
}

async fn flush(tenant: &Arc<OpenTenant>) {
    let mut looked_at = None;
    loop {
        tokio::select! {
            () = tenant.until_closed() => return,
            () = tenant.work.notified() => {}
            () = tenant.room.flush.asked() => {}
            () = tokio::time::sleep(PATROL) => {}
        }
        let full = tenant.room.flush.take() || tenant.store.wants_checkpoint();
        if full || tenant.store.has_expired_history() {
            let worker = Arc::clone(tenant);
            let work = move || if full { checkpoint(&worker) } else { trim_history(&worker) };
            let Some(done) = tenant.background.flushes.run(tenant.until_closed(), work).await else { return };
            if !flushed(tenant, done.flatten()).await {
                return;
            }
        }
        // Deletions make a compaction pay before there is anything to flush.
        let head = tenant.store.snapshot().lsn();
        let changed = looked_at.replace(head) != Some(head);
        if changed && tenant.store.wants_compaction() {
            tenant.compaction.notify_one();
        }
    }
}

/// Tells those who wait how it went. Gives whether to go on.
async fn flushed(tenant: &OpenTenant, done: Result<()>) -> bool {
    let error = match done {
        Ok(()) => {
            tenant.room.flushed(None);
            return true;
        }
        // Broken off by the closing: the log has everything.
        Err(_) if tenant.is_closed() => return false,
        Err(error) => error,
    };
    tracing::error!(tenant = %tenant.id, %error, "checkpoint failed; it will be tried again");
    tenant.room.flushed(Some(error));
    tokio::select! {
        () = tenant.until_closed() => false,
        () = tokio::time::sleep(PATROL) => true,
    }
}

/// Builds missing indexes when the tenant is opened, whenever it is told that there may be some, and some time after
/// one could not be built.
async fn index(tenant: &Arc<OpenTenant>) {
    let mut gaps = Gaps::default();
    loop {
        let (worker, mut known) = (Arc::clone(tenant), std::mem::take(&mut gaps));
        let pass = move || {
            build_missing(&worker, &mut known);
            known
        };
        let Some(pass) = tenant.background.builds.run(tenant.until_closed(), pass).await else { return };
        match pass {
            Ok(known) => gaps = known,
            Err(problem) => {
                tracing::error!(tenant = %tenant.id, %problem, "building missing indexes panicked");
            }
        }
        tenant.builds.rest(&gaps.failed());
        let pause = gaps.next().map(|again| again.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = tenant.until_closed() => return,
            () = tenant.missing.notified() => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// Flushes and trims now. Blocking.
pub fn checkpoint(tenant: &OpenTenant) -> Result<()> {
    let task = tenant.tasks.post(0, TaskKind::Flush, None, now_us());
    task.phase("writing segments");
    task.total(tenant.store.unflushed_bytes());
    flush_telling(tenant, &task, "building indexes")
}

/// The same. `task` is said to be in `indexing` while indexes are built over what is flushed.
fn flush_telling(tenant: &OpenTenant, task: &background::Posted, indexing: &'static str) -> Result<()> {
    let stop = || tenant.is_closed();
    let indexer = SegmentIndexer::of_flush(tenant, &stop).telling(task, indexing);
    let report = tenant.store.checkpoint(&indexer)?;
    tracing::debug!(tenant = %tenant.id, ?report, "checkpoint");
    tenant.background.count_flush(&report);
    tenant.count_files();
    if report.segments_written > 0 {
        tenant.missing.notify_one();
    }
    if tenant.store.wants_compaction() {
        tenant.compaction.notify_one();
    }
    Ok(())
}

/// The same, and wakes whoever builds missing indexes. A failure is logged: the log has everything. Blocking.
pub fn checkpoint_and_index(tenant: &OpenTenant) {
    if let Err(error) = checkpoint(tenant) {
        tracing::error!(tenant = %tenant.id, %error, "checkpoint failed; indexes of a clone wait for the next one");
    }
    tenant.missing.notify_one();
}

/// Names all that is committed now. Blocking.
///
/// Errors: 42710 when there is a snapshot of that name.
pub fn create_snapshot(
    tenant: &OpenTenant,
    environment: &str,
    name: &str,
    by: &str,
    comment: Option<&str>,
) -> Result<()> {
    let made = tenant.store.create_snapshot(
        &SegmentIndexer::of_flush(tenant, &|| tenant.is_closed()),
        environment,
        name,
        by,
        comment,
    )?;
    tracing::debug!(tenant = %tenant.id, lsn = %made.lsn, "snapshot");
    tenant.count_files();
    tenant.missing.notify_one();
    Ok(())
}

/// Whether a segment of a table has no part of one of its indexes.
pub fn lacks_indexes(version: &TableVersion) -> bool {
    let columns = version.def.columns.iter();
    let mut indexes = columns.flat_map(|column| version.def.vector_indexes(column.id));
    indexes.any(|(index, _)| version.chunks.iter().any(|reference| lacks(&reference.chunk, index.id)))
}

/// Removes what is too old to be history. A checkpoint does that as well, but nobody may write any more. Blocking.
fn trim_history(tenant: &OpenTenant) -> Result<()> {
    let freed = tenant.store.trim_history()?;
    tenant.count_files();
    tracing::debug!(tenant = %tenant.id, freed, "history");
    Ok(())
}

/// Builds an index over every segment of a table that lacks it. Blocking; marking it valid is the caller's.
///
/// Rows still in memory are flushed first, and segments merged where there are several and no other index of vectors.
/// `memory_bytes`: what a build may take beside rows; gives by how much that
/// was too little, if it was. Errors: 57014 when cancelled, 0A000 for a metric the method has not, 22003 for a row that
/// is no `halfvec` where the index is over those.
pub fn build_index(
    tenant: &OpenTenant,
    table: TableId,
    index: TableId,
    pid: i32,
    memory_bytes: u64,
    cancel: &CancelToken,
) -> Result<Option<Shortage>> {
    checkpoint(tenant)?;
    if is_first_of_vectors(tenant, table, index) {
        let _posted = tenant.builds.post(pid, table, index, 0);
        compaction::gather(tenant, table, pid, cancel)?;
    }
    let stop = || cancel.is_cancelled() || tenant.is_closed();
    let mut shortage: Option<Shortage> = None;
    for round in 0..BUILD_ROUNDS {
        let snapshot = tenant.store.snapshot();
        let version = snapshot.table(table).ok_or_else(gone)?;
        let definition = version.def.indexes.iter().find(|known| known.id == index).ok_or_else(gone)?;
        let IndexMethod::Vector(options) = &definition.method else {
            return Ok(None);
        };
        let column =
            definition.columns.first().and_then(|id| version.def.column_by_id(*id)).ok_or_else(gone)?;
        // Whoever wrote since the definition was there has looked at what was written.
        if round == 0 && matches!(definition.measure(), Some(Measure::Halves(_))) {
            check_rows_as_halves(version, column)?;
        }
        let total: u64 = version.chunks.iter().map(|reference| u64::from(reference.chunk.rows())).sum();
        let posted = tenant.builds.post(pid, table, index, total);
        let target = Target { table, index, options: options.clone(), column: column.clone() };
        let mut built = 0;
        for reference in version.chunks.iter().filter(|reference| lacks(&reference.chunk, index)) {
            let short = target.build(tenant, &reference.chunk, memory_bytes, &posted, &stop)?;
            shortage = shortage.max(short);
            built += 1;
        }
        if built == 0 {
            break;
        }
    }
    Ok(shortage)
}

/// Whether the table has no other index of vectors, which a merge of its segments would have to build anew.
fn is_first_of_vectors(tenant: &OpenTenant, table: TableId, index: TableId) -> bool {
    let head = tenant.store.snapshot();
    let Some(version) = head.table(table) else { return false };
    let of_vectors = |known: &&IndexDef| matches!(known.method, IndexMethod::Vector(_));
    version.def.indexes.iter().filter(of_vectors).all(|known| known.id == index)
}

/// Builds what valid indexes lack, one segment after the other, each chosen from the newest head. Blocking.
///
/// Gaps that could not be closed are searched exactly. Those that a passing trouble of the device is to blame for are
/// due again later; all others are left alone.
pub fn build_missing(tenant: &OpenTenant, gaps: &mut Gaps) {
    let begun = Instant::now();
    while let Some(missing) = find_missing(&tenant.store.snapshot(), gaps, begun) {
        let Missing { gap, target, name, chunk } = missing;
        let posted = tenant.builds.post(0, target.table, target.index, u64::from(chunk.rows()));
        match target.build(tenant, &chunk, u64::MAX, &posted, &|| tenant.is_closed()) {
            // Built, or gone from the head by now.
            Ok(short) => {
                if let Some(short) = short {
                    tracing::warn!(tenant = %tenant.id, index = %name, needed = short.needed, allowed = short.allowed,
                        "an index build needs more memory than index_build_mib lends; it took longer");
                }
                gaps.leave(gap);
            }
            Err(_) if tenant.is_closed() => return,
            Err(error) if may_pass(tenant, &error) => {
                let pause_s = gaps.fail(gap, target.table, Instant::now()).as_secs();
                tracing::error!(tenant = %tenant.id, index = %name, %error, pause_s,
                    "an index could not be built; it will be tried again");
                if error.state() == SqlState::DiskFull {
                    // Nor is there room for others.
                    break;
                }
            }
            Err(error) => {
                tracing::error!(tenant = %tenant.id, index = %name, %error, "an index could not be built");
                gaps.leave(gap);
            }
        }
    }
    // Those that were built are known by their segments.
    let head = tenant.store.snapshot();
    gaps.retain(|(segment, index)| {
        let chunks = head.tables().flat_map(|version| &version.chunks);
        chunks.filter(|held| held.chunk.segment() == Some(*segment)).any(|held| lacks(&held.chunk, *index))
    });
}

/// Whether a try that failed is worth another one. A store that takes no more writes needs a restart.
fn may_pass(tenant: &OpenTenant, error: &Error) -> bool {
    matches!(error.state(), SqlState::DiskFull | SqlState::IoError) && !tenant.store.stats().poisoned
}

/// A segment to build an index over.
struct Missing {
    gap: Gap,
    target: Target,
    /// The index's, for the log.
    name: String,
    chunk: Arc<Chunk>,
}

fn find_missing(head: &Snapshot, gaps: &Gaps, now: Instant) -> Option<Missing> {
    for version in head.tables() {
        for column in &version.def.columns {
            for (index, options) in version.def.vector_indexes(column.id) {
                let found = version.chunks.iter().find_map(|reference| {
                    let gap = (reference.chunk.segment()?, index.id);
                    let open = lacks(&reference.chunk, index.id) && gaps.is_due(&gap, now);
                    open.then(|| (gap, Arc::clone(&reference.chunk)))
                });
                if let Some((gap, chunk)) = found {
                    let (table, index_id) = (version.def.id, index.id);
                    let (options, column) = (options.clone(), column.clone());
                    let target = Target { table, index: index_id, options, column };
                    return Some(Missing { gap, target, name: index.name.clone(), chunk });
                }
            }
        }
    }
    None
}

/// An index of a table.
struct Target {
    table: TableId,
    index: TableId,
    options: VectorIndexOptions,
    column: ColumnDef,
}

impl Target {
    /// Builds the index over one segment and attaches it. Waits while other builds have the memory. Nothing comes of it
    /// when segment or index are gone by then, and what was built is thrown away when they go meanwhile.
    fn build(
        &self,
        tenant: &OpenTenant,
        chunk: &Chunk,
        memory_bytes: u64,
        posted: &Posted,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Shortage>> {
        let Some(segment) = chunk.segment() else { return Ok(None) };
        let memory_bytes = memory_bytes.min(tenant.background.build_budget.bytes());
        let work = Work { options: &self.options, column: &self.column, segment: chunk, posted, stop };
        let need = work.need();
        // Given back before the index is attached: who attaches waits for flushes, who flushes may wait for memory.
        let share = work.wait(tenant, need.within(memory_bytes)).ok_or_else(cancelled)?;
        if !self.is_wanted(tenant, segment) {
            return Ok(None);
        }
        let column = chunk.column(&self.column)?;
        let means = BuildMeans { memory_bytes, ..BuildMeans::default() };
        let built = work.run(&column, tenant.threads, &means)?;
        drop((share, column));
        let built = Built::from(built);
        let mut attached = tenant.store.attach_index(self.table, segment, self.index, &built)?;
        if !attached && self.is_wanted(tenant, segment) {
            // Of a clone that only the log has: no manifest names the segment as its own yet.
            checkpoint(tenant)?;
            attached = tenant.store.attach_index(self.table, segment, self.index, &built)?;
        }
        if attached {
            tenant.indexes.insert(segment, self.index, built.into_index());
            tenant.count_files();
        }
        Ok(Shortage::of(&self.options, need, memory_bytes))
    }

    /// Whether the head has the segment still, and the index, which it lacks.
    fn is_wanted(&self, tenant: &OpenTenant, segment: FileId) -> bool {
        let head = tenant.store.snapshot();
        let Some(version) = head.table(self.table) else { return false };
        let mut held = version.chunks.iter().filter(|held| held.chunk.segment() == Some(segment));
        version.def.indexes.iter().any(|index| index.id == self.index)
            && held.any(|held| lacks(&held.chunk, self.index))
    }
}

/// Whether a chunk is a segment that is worth an index and has none.
fn lacks(chunk: &Chunk, index: TableId) -> bool {
    chunk.segment().is_some() && chunk.rows() as usize >= LEAST_INDEXED_ROWS && !chunk.has_index(index)
}

fn gone() -> Error {
    Error::new(SqlState::UndefinedObject, "the index or its table was dropped while it was being built")
}

#[cfg(test)]
mod tests;
