//! Merging segments: by itself when it pays, at the rate that all tenants share, and for VACUUM as fast as it goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use sepal_storage::{CompactionLimits, CompactionReport, Pace, Phase, Rewrite, StoreError};
use sepal_types::{Error, FileId, Result, SqlState, TableId};

use super::{SegmentIndexer, flush_telling};
use crate::{
    background::{Posted, Share, TaskKind, Throttle},
    delivery::now_us,
    session::CancelToken,
    tenant::OpenTenant,
};

/// How long after a failure comes another try.
const AGAIN: Duration = Duration::from_mins(1);

/// How long after others had the turn comes another try.
const SOON: Duration = Duration::from_secs(5);

/// Merges that read more have the rows of all their inputs in memory one at a time.
const LARGE_BYTES: u64 = 1 << 30;

/// How often VACUUM looks for segments that others, who replace files' keys or vacuum as well, have written while it
/// was at work.
const VACUUM_ROUNDS: usize = 3;

/// What came of looking for a merge.
enum Step {
    Merged,
    Nothing,
    /// Somebody else has a large one in memory, or a VACUUM merges this tenant's.
    Later,
    /// It would not leave free what others need of the device.
    NoRoom,
}

/// Merges whenever it is told that it may pay, one merge after the other. Other tenants have their turn between.
pub(super) async fn compact(tenant: &Arc<OpenTenant>) {
    // What was left when the tenant was closed.
    tenant.compaction.notify_one();
    loop {
        tokio::select! {
            () = tenant.until_closed() => return,
            () = tenant.compaction.notified() => {}
        }
        let mut held_back: Option<Posted> = None;
        while tenant.store.wants_compaction() {
            let worker = Arc::clone(tenant);
            let work = move || merge_one(&worker);
            let Some(done) = tenant.background.compactions.run(tenant.until_closed(), work).await else {
                return;
            };
            let step = done.flatten();
            if !matches!(step, Ok(Step::NoRoom)) {
                held_back = None;
            }
            let pause = match step {
                Ok(Step::Merged) => continue,
                Ok(Step::Nothing) => break,
                Ok(Step::Later) => SOON,
                Ok(Step::NoRoom) => {
                    held_back.get_or_insert_with(|| hold_back(tenant));
                    AGAIN
                }
                Err(_) if tenant.is_closed() => return,
                Err(error) => {
                    tracing::error!(tenant = %tenant.id, %error, "compaction failed; it will be tried again");
                    AGAIN
                }
            };
            tokio::select! {
                () = tenant.until_closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Says so, until what this gives is dropped.
fn hold_back(tenant: &OpenTenant) -> Posted {
    tracing::warn!(tenant = %tenant.id, "segments are not merged: too little of the device is free");
    let task = tenant.tasks.post(0, TaskKind::Compaction, None, now_us());
    task.rest("waiting for room on the device");
    task
}

/// The merge that pays most; a smaller one where somebody else has a large one in memory: nobody waits for that, or for
/// a VACUUM of the same tenant, on a thread that other tenants need.
fn merge_one(tenant: &OpenTenant) -> Result<Step> {
    if tenant.tasks.has_merge_of_session() {
        return Ok(Step::Later);
    }
    match merge_within(tenant, u64::MAX)? {
        Step::Later => match merge_within(tenant, LARGE_BYTES)? {
            Step::Nothing => Ok(Step::Later),
            done => Ok(done),
        },
        done => Ok(done),
    }
}

fn merge_within(tenant: &OpenTenant, max_bytes: u64) -> Result<Step> {
    let stop = || tenant.is_closed();
    let task = tenant.tasks.post(0, TaskKind::Compaction, None, now_us());
    let merging = AtomicBool::new(false);
    let throttle = Some(&*tenant.background.throttle);
    let pace = Paced { throttle, merging: Some(&merging), waits: false, ..Paced::new(tenant, &task, &stop) };
    let limits = CompactionLimits { max_bytes, pace: &pace };
    let done = tenant.store.compact(&SegmentIndexer::of_merge(tenant, &stop, &merging), limits);
    let (refused, held_back) = (pace.is_refused(), pace.held_back.load(Ordering::Relaxed));
    drop(pace);
    drop(task);
    let report = match done {
        Ok(Some(report)) => report,
        Ok(None) if held_back => return Ok(Step::NoRoom),
        Ok(None) => return Ok(Step::Nothing),
        Err(StoreError::Stopped) if refused => return Ok(Step::Later),
        Err(error) => return Err(error.into()),
    };
    note(tenant, &report);
    let mut compacted = tenant.compacted.lock();
    let (_, before) = compacted.get(&report.table).copied().unwrap_or_default();
    compacted.insert(report.table, (now_us(), before + 1));
    Ok(Step::Merged)
}

/// After every merge.
fn note(tenant: &OpenTenant, report: &CompactionReport) {
    tracing::debug!(tenant = %tenant.id, ?report, "compaction");
    tenant.background.count_compaction(report);
    tenant.count_files();
    tenant.close_gone_indexes();
    if report.segments_written > 0 {
        tenant.missing.notify_one();
    }
}

/// What VACUUM did to a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vacuumed {
    pub segments_before: usize,
    pub segments_after: usize,
    /// Of segments, without their indexes.
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub rows_removed: u64,
    pub rows_left: u64,
    pub indexes_built: usize,
}

/// Flushes, then rewrites a table's segments: those that have deleted rows, with `full` all. Readers and writers go on.
/// Blocking.
///
/// Errors: 57014 when cancelled; 42P01 when the table is gone.
pub fn vacuum(
    tenant: &OpenTenant,
    table: TableId,
    full: bool,
    pid: i32,
    cancel: &CancelToken,
) -> Result<Vacuumed> {
    let stop = || cancel.is_cancelled() || tenant.is_closed();
    let kind = if full { TaskKind::VacuumFull } else { TaskKind::Vacuum };
    let task = tenant.tasks.post(pid, kind, Some(table), now_us());
    // What the log has becomes segments first: as long as that lasts, it is this statement that lasts.
    task.phase(WRITING);
    task.total(tenant.store.unflushed_bytes());
    flush_telling(tenant, &task, INDEXING)?;
    task.phase(SCANNING);
    // What began to be merged before the flush may keep rows that are deleted by now.
    tenant.store.await_compaction(table, &Paced::new(tenant, &task, &stop))?;
    let mut done = Vacuumed::default();
    (done.segments_before, done.bytes_before, _) = sizes(tenant, table)?;
    let which = if full { Rewrite::All } else { Rewrite::Deleted };
    let mut total = 0;
    for _ in 0..VACUUM_ROUNDS {
        let groups = tenant.store.segments_to_merge(table, which);
        total += plain_bytes(tenant, table, &groups);
        task.total(total);
        if !merge_groups(tenant, table, &groups, &task, &stop, &mut done)? {
            break;
        }
    }
    (done.segments_after, done.bytes_after, done.rows_left) = sizes(tenant, table)?;
    Ok(done)
}

/// Makes as few segments of a flushed table as hold its rows, before its first index of vectors is built: each segment
/// has a graph of its own, a search walks through all of them, and compactions would build them again one by one. Where
/// that cannot be done, it is the segments there are that get the index. Blocking.
///
/// Errors: 57014 when cancelled.
pub(super) fn gather(tenant: &OpenTenant, table: TableId, pid: i32, cancel: &CancelToken) -> Result<()> {
    let stop = || cancel.is_cancelled() || tenant.is_closed();
    let task = tenant.tasks.post(pid, TaskKind::Compaction, Some(table), now_us());
    let mut done = Vacuumed::default();
    for _ in 0..VACUUM_ROUNDS {
        tenant.store.await_compaction(table, &Paced::new(tenant, &task, &stop))?;
        let mut groups = tenant.store.segments_to_merge(table, Rewrite::All);
        groups.retain(|group| group.len() > 1);
        let bytes = plain_bytes(tenant, table, &groups);
        if groups.is_empty() {
            break;
        }
        if bytes > tenant.store.room_for_merge() || tenant.check_quota(bytes).is_err() {
            tracing::warn!(tenant = %tenant.id, bytes, "segments are indexed one by one: there is no room to merge them");
            break;
        }
        task.total(bytes);
        match merge_groups(tenant, table, &groups, &task, &stop, &mut done) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) if stop() => return Err(error),
            Err(error) => {
                tracing::warn!(tenant = %tenant.id, %error, "segments are indexed one by one: they cannot be merged");
                break;
            }
        }
    }
    Ok(())
}

/// Makes one segment of each group. Whether somebody else has put other segments in the place of some, which may have
/// what these were to lose.
fn merge_groups(
    tenant: &OpenTenant,
    table: TableId,
    groups: &[Vec<FileId>],
    task: &Posted,
    stop: &(dyn Fn() -> bool + Sync),
    done: &mut Vacuumed,
) -> Result<bool> {
    let mut replaced = false;
    for group in groups {
        if stop() {
            return Err(cancelled());
        }
        let merging = AtomicBool::new(false);
        let pace = Paced { merging: Some(&merging), ..Paced::new(tenant, task, stop) };
        let builder = SegmentIndexer::of_merge(tenant, stop, &merging);
        let report = tenant.store.merge(table, group, &builder, &pace)?;
        replaced |= report.is_none_or(|report| report.segments_read < group.len());
        let Some(report) = report else { continue };
        note(tenant, &report);
        done.rows_removed += report.rows_removed;
        done.indexes_built += report.indexes_built;
    }
    Ok(replaced)
}

fn cancelled() -> Error {
    Error::new(SqlState::QueryCanceled, "canceling statement due to user request")
}

/// Segments, their bytes, live rows.
fn sizes(tenant: &OpenTenant, table: TableId) -> Result<(usize, u64, u64)> {
    let head = tenant.store.snapshot();
    let version = head.table(table).ok_or_else(|| {
        Error::new(SqlState::UndefinedTable, "the table was dropped while it was being vacuumed")
    })?;
    let sealed = || version.chunks.iter().filter(|held| held.chunk.segment().is_some());
    let bytes = sealed().map(|held| held.chunk.bytes()).sum();
    Ok((sealed().count(), bytes, version.live_rows()))
}

fn plain_bytes(tenant: &OpenTenant, table: TableId, groups: &[Vec<FileId>]) -> u64 {
    let head = tenant.store.snapshot();
    let chunks = head.table(table).map(|version| version.chunks.as_slice()).unwrap_or_default();
    let wanted = |file: FileId| groups.iter().any(|group| group.contains(&file));
    chunks
        .iter()
        .filter(|held| held.chunk.segment().is_some_and(wanted))
        .map(|held| held.chunk.plain_bytes())
        .sum()
}

/// Posts what a merge is at, slows it down, and sees to it that the rows of one large merge at a time are in memory.
pub(super) struct Paced<'a> {
    pub tenant: &'a OpenTenant,
    pub task: &'a Posted,
    pub throttle: Option<&'a Throttle>,
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Set when a merge begins: what a compaction flushes before is not its own yet.
    pub merging: Option<&'a AtomicBool>,
    /// Whether a large merge waits for its turn, and does not give up.
    pub waits: bool,
    /// It gave up.
    pub refused: AtomicBool,
    /// A merge was not begun because of the device.
    pub held_back: AtomicBool,
    /// Until the rows are let go.
    pub turn: Mutex<Option<Share<'a>>>,
}

impl<'a> Paced<'a> {
    /// As fast as it goes, a large merge once it is its turn.
    pub fn new(tenant: &'a OpenTenant, task: &'a Posted, stop: &'a (dyn Fn() -> bool + Sync)) -> Self {
        let [refused, held_back] = [false, false].map(AtomicBool::new);
        let (turn, waits) = (Mutex::new(None), true);
        Self { tenant, task, throttle: None, stop, merging: None, waits, refused, held_back, turn }
    }

    /// Whether somebody else had the turn.
    fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn await_turn(&self) {
        let turns = &self.tenant.background.large_merges;
        let turn = if self.waits {
            self.task.phase("waiting for memory");
            turns.take(self.tenant.id, 1, self.stop)
        } else {
            turns.try_take(1)
        };
        self.refused.store(turn.is_none(), Ordering::Relaxed);
        *self.turn.lock() = turn;
    }
}

/// As `pg_stat_progress_vacuum` calls them.
const SCANNING: &str = "scanning heap";
const WRITING: &str = "vacuuming heap";
const INDEXING: &str = "vacuuming indexes";

impl Pace for Paced<'_> {
    fn begin(&self, table: TableId, bytes: u64) {
        if let Some(merging) = self.merging {
            merging.store(true, Ordering::Relaxed);
        }
        self.task.table(table);
        if self.throttle.is_some() {
            self.task.total(bytes);
        }
        if bytes > LARGE_BYTES {
            self.await_turn();
        }
    }

    fn phase(&self, phase: Phase) {
        if matches!(phase, Phase::BuildingIndexes | Phase::Committing) {
            *self.turn.lock() = None;
        }
        self.task.phase(match phase {
            Phase::Reading => SCANNING,
            Phase::Writing => WRITING,
            Phase::BuildingIndexes => INDEXING,
            Phase::Committing => "performing final cleanup",
        });
    }

    /// The rows that are read are what is counted: they are known before.
    fn spend(&self, bytes: u64) {
        if self.task.phase_now() == SCANNING {
            self.task.advance(bytes);
        }
        if let Some(throttle) = self.throttle {
            throttle.spend(bytes, &|| (self.stop)());
        }
    }

    fn held_back(&self) {
        self.held_back.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.is_refused() || (self.stop)()
    }
}

#[cfg(test)]
mod tests;
