//! The board where work on a tenant's tables posts what it is at: `sepal_maintenance`, `pg_stat_progress_vacuum`,
//! `pg_stat_progress_copy`. Index builds have one of their own (`builds`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use sepal_query::catalog::work::{CopyRow, TaskRow};
use sepal_types::TableId;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    Flush,
    Compaction,
    Vacuum,
    VacuumFull,
    Analyze,
    Copy,
    FileKeys,
}

impl TaskKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::Vacuum => "vacuum",
            Self::VacuumFull => "vacuum full",
            Self::Analyze => "analyze",
            Self::Copy => "copy",
            Self::FileKeys => "file keys",
        }
    }
}

/// The tasks of one tenant.
#[derive(Debug, Default)]
pub struct TaskBoard(Mutex<Vec<Arc<Task>>>);

#[derive(Debug)]
struct Task {
    pid: i32,
    kind: TaskKind,
    begun: Instant,
    begun_us: i64,
    state: Mutex<State>,
    /// Nothing is done, until something passes.
    rests: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
    rows: AtomicU64,
}

#[derive(Debug)]
struct State {
    table: Option<TableId>,
    phase: &'static str,
}

/// A task on the board. Dropping this takes it off.
#[derive(Debug)]
pub struct Posted {
    board: Arc<TaskBoard>,
    task: Arc<Task>,
}

impl TaskBoard {
    /// `pid`: of the session that waits; 0: nobody does. `now_us`: microseconds since 1970 UTC.
    pub fn post(self: &Arc<Self>, pid: i32, kind: TaskKind, table: Option<TableId>, now_us: i64) -> Posted {
        let task = Arc::new(Task {
            pid,
            kind,
            begun: Instant::now(),
            begun_us: now_us,
            state: Mutex::new(State { table, phase: "initializing" }),
            rests: AtomicBool::new(false),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            rows: AtomicU64::new(0),
        });
        self.0.lock().push(Arc::clone(&task));
        Posted { board: Arc::clone(self), task }
    }

    /// Whether nothing is being done.
    pub fn is_idle(&self) -> bool {
        self.0.lock().iter().all(|task| task.rests.load(Ordering::Relaxed))
    }

    /// Whether a session merges segments: by VACUUM, or before it builds an index.
    pub fn has_merge_of_session(&self) -> bool {
        let tasks = self.0.lock();
        let merges = |kind| matches!(kind, TaskKind::Vacuum | TaskKind::VacuumFull | TaskKind::Compaction);
        tasks.iter().any(|task| task.pid != 0 && merges(task.kind))
    }

    /// As `sepal_maintenance` shows them: without COPYs.
    pub fn rows(&self) -> Vec<TaskRow> {
        let tasks = self.0.lock();
        tasks.iter().filter(|task| task.kind != TaskKind::Copy).map(|task| task.row()).collect()
    }

    pub fn copies(&self) -> Vec<CopyRow> {
        let tasks = self.0.lock();
        let copies = tasks.iter().filter(|task| task.kind == TaskKind::Copy);
        let row = |task: &Arc<Task>| {
            let (bytes, rows) = (task.done.load(Ordering::Relaxed), task.rows.load(Ordering::Relaxed));
            Some(CopyRow { pid: task.pid, table: task.state.lock().table?, bytes, rows })
        };
        copies.filter_map(row).collect()
    }
}

impl Task {
    fn row(&self) -> TaskRow {
        let state = self.state.lock();
        let done = self.done.load(Ordering::Relaxed);
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        TaskRow {
            pid: self.pid,
            task: self.kind.name(),
            table: state.table,
            phase: state.phase,
            unit: "bytes",
            done,
            total: self.total.load(Ordering::Relaxed),
            started_us: self.begun_us,
            per_second: done.saturating_mul(1_000) / millis.max(1),
        }
    }
}

impl Posted {
    pub fn table(&self, table: TableId) {
        self.task.state.lock().table = Some(table);
    }

    pub fn phase(&self, phase: &'static str) {
        self.task.state.lock().phase = phase;
    }

    /// It waits for something that may not come while the tenant is open: that is no reason to keep it open.
    pub fn rest(&self, phase: &'static str) {
        self.phase(phase);
        self.task.rests.store(true, Ordering::Relaxed);
    }

    pub fn phase_now(&self) -> &'static str {
        self.task.state.lock().phase
    }

    pub fn total(&self, bytes: u64) {
        self.task.total.store(bytes, Ordering::Relaxed);
    }

    pub fn advance(&self, bytes: u64) {
        self.task.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn advance_rows(&self, rows: u64) {
        self.task.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.board.0.lock().retain(|task| !Arc::ptr_eq(task, &self.task));
    }
}
