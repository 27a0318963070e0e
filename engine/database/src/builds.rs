//! The board where running index builds post how far they are: `pg_stat_progress_create_index`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use sepal_query::catalog::{BuildProgress, work::TaskRow};
use sepal_types::TableId;

use crate::delivery::now_us;

/// The builds of one tenant.
#[derive(Debug, Default)]
pub struct BuildBoard {
    running: Mutex<Vec<Arc<Build>>>,
    /// Those that have failed and are to be tried again.
    resting: Mutex<Vec<Resting>>,
}

#[derive(Debug)]
struct Resting {
    table: TableId,
    index: TableId,
    since_us: i64,
}

/// One build. Dropping the [`Posted`] takes it off the board.
#[derive(Debug)]
pub struct Build {
    pub pid: i32,
    pub table: TableId,
    pub index: TableId,
    begun_us: i64,
    done: AtomicU64,
    total: AtomicU64,
    /// Until others give back memory.
    waiting: AtomicBool,
}

/// A build on the board.
#[derive(Debug)]
pub struct Posted {
    board: Arc<BuildBoard>,
    build: Arc<Build>,
}

impl BuildBoard {
    pub fn post(self: &Arc<Self>, pid: i32, table: TableId, index: TableId, total: u64) -> Posted {
        let (begun_us, done, total) = (now_us(), AtomicU64::new(0), AtomicU64::new(total));
        let waiting = AtomicBool::new(false);
        let build = Build { pid, table, index, begun_us, done, total, waiting };
        let build = Arc::new(build);
        self.running.lock().push(Arc::clone(&build));
        Posted { board: Arc::clone(self), build }
    }

    /// These tables' indexes, and no others, could not be built by themselves and are tried again later.
    pub fn rest(&self, indexes: &[(TableId, TableId)]) {
        let mut resting = self.resting.lock();
        resting.retain(|known| indexes.contains(&(known.table, known.index)));
        for (table, index) in indexes {
            if !resting.iter().any(|known| known.index == *index) {
                resting.push(Resting { table: *table, index: *index, since_us: now_us() });
            }
        }
    }

    /// As `sepal_maintenance` shows them.
    pub fn tasks(&self) -> Vec<TaskRow> {
        let row = |build: &Arc<Build>| {
            let done = build.done.load(Ordering::Relaxed);
            let millis = u64::try_from(now_us().saturating_sub(build.begun_us) / 1_000).unwrap_or(0);
            TaskRow {
                pid: build.pid,
                task: "index build",
                table: Some(build.table),
                phase: build.phase(),
                unit: "rows",
                done,
                total: build.total.load(Ordering::Relaxed),
                started_us: build.begun_us,
                per_second: done.saturating_mul(1_000) / millis.max(1),
            }
        };
        let mut rows: Vec<TaskRow> = self.running.lock().iter().map(row).collect();
        let is_running = |rows: &[TaskRow], table| rows.iter().any(|row| row.table == Some(table));
        for resting in self.resting.lock().iter() {
            if !is_running(&rows, resting.table) {
                rows.push(resting.row());
            }
        }
        rows
    }

    /// As the catalog shows them. Blocks are rows here: the relation has no pages.
    pub fn rows(&self) -> Vec<BuildProgress> {
        let row = |build: &Arc<Build>| {
            let (done, total) = (build.done.load(Ordering::Relaxed), build.total.load(Ordering::Relaxed));
            BuildProgress {
                pid: build.pid,
                index: build.index,
                table: build.table,
                phase: build.phase().to_owned(),
                blocks_total: total,
                blocks_done: done,
                tuples_total: total,
                tuples_done: done,
            }
        };
        self.running.lock().iter().map(row).collect()
    }
}

impl Resting {
    fn row(&self) -> TaskRow {
        TaskRow {
            pid: 0,
            task: "index build",
            table: Some(self.table),
            phase: "waiting to try again after an error",
            unit: "rows",
            done: 0,
            total: 0,
            started_us: self.since_us,
            per_second: 0,
        }
    }
}

impl Build {
    fn phase(&self) -> &'static str {
        match self.total.load(Ordering::Relaxed) {
            _ if self.waiting.load(Ordering::Relaxed) => "waiting for memory",
            0 => "initializing",
            _ => "building index: loading tuples",
        }
    }
}

impl Posted {
    /// Does what waits until others give back memory.
    pub fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.build.waiting.store(true, Ordering::Relaxed);
        let done = wait();
        self.build.waiting.store(false, Ordering::Relaxed);
        done
    }

    /// Rows done so far, of rows in all.
    pub fn report(&self, done: u64, total: u64) {
        self.build.done.store(done, Ordering::Relaxed);
        self.build.total.store(total, Ordering::Relaxed);
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.board.running.lock().retain(|build| !Arc::ptr_eq(build, &self.build));
    }
}
