//! One tenant's store: opening, reading, numbers, statistics. The way in to this crate.
//!
//! `database` opens one per tenant and shares it between sessions. Commits are in `group`, checkpoints in
//! `checkpoint`. A store is bound to one tenant, its directory and its key; no call takes a tenant.

pub(crate) mod load;
pub(crate) mod lost;
pub(crate) mod open;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use sepal_crypto::KeyRing;
use sepal_types::{Clock, ColumnId, FileId, LogEnd, Lsn, RowId, SystemClock, TableId, TenantId};

use crate::{
    AsOf, ColumnCache, FaultInjector, Files, HistoryPolicy, LocalFiles, Random, Snapshot, StoreError,
    SystemRandom,
    checkpoint::{Maintenance, Underway, Written},
    counters::Counters,
    disk::Disk,
    feed::LogFiles,
    group::{Queue, Writer},
    history::{History, Past},
    manifest::FileSizes,
    paths::{Paths, show},
    rotation::Rotation,
    wal,
};
use load::{Opener, Registry};

/// Log files after which a checkpoint is due even if they are small: each restart adds one.
const MANY_WAL_FILES: u64 = 16;

/// What a store shares with the others of its process, and what its owner knows of it.
#[derive(Clone)]
pub struct StoreOptions {
    /// Decoded columns, shared by all tenants.
    pub cache: Arc<ColumnCache>,
    /// Log size at which [`TenantStore::wants_checkpoint`] says yes.
    pub wal_segment_bytes: u64,
    /// Of rows, uncompressed, that a segment may hold; of values that vary in length at most 1 GiB, whatever this is.
    /// Its columns are decoded whole: a reader wants room for them in `cache`.
    pub segment_bytes: u64,
    /// Finished log files that one [`crate::LogHold`] may keep, in bytes. A checkpoint breaks those that keep more.
    pub log_retention_bytes: u64,
    /// What [`TenantStore::log_end`] gave last: a log that does not reach as far any more is damage. Without it, a
    /// log that lost its end looks like one that was never longer.
    pub log_end: Option<LogEnd>,
    /// What stays of the past.
    pub history: HistoryPolicy,
    /// Of [`TenantStore::open`], for a restore: the log ends at this time or commit, and what comes after is cut off.
    /// Not given a second time, or what was written since is lost.
    pub replay_until: Option<AsOf>,
    /// Where the files are.
    pub files: Arc<dyn Files>,
    /// What commits take their times from.
    pub clock: Arc<dyn Clock>,
    /// What new data files are named by. Keys and nonces never come from here.
    pub random: Arc<dyn Random>,
    /// Tests only.
    pub fault: Option<Arc<dyn FaultInjector>>,
}

impl StoreOptions {
    pub fn new(cache: Arc<ColumnCache>) -> Self {
        let (wal_segment_bytes, log_retention_bytes) = (64 << 20, 1 << 30);
        Self {
            cache,
            wal_segment_bytes,
            segment_bytes: 4 << 30,
            log_retention_bytes,
            log_end: None,
            history: HistoryPolicy::default(),
            replay_until: None,
            files: Arc::new(LocalFiles),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            fault: None,
        }
    }
}

/// The durable tables of one tenant.
pub struct TenantStore {
    pub(crate) tenant: TenantId,
    keys: RwLock<Arc<KeyRing>>,
    pub(crate) paths: Paths,
    pub(crate) disk: Disk,
    pub(crate) cache: Arc<ColumnCache>,
    pub(crate) clock: Arc<dyn Clock>,
    wal_segment_bytes: u64,
    pub(crate) segment_bytes: u64,
    head: RwLock<Snapshot>,
    pub(crate) counters: Counters,
    pub(crate) poison: Poison,
    pub(crate) log: Arc<LogFiles>,
    pub(crate) history: Arc<History>,
    pub(crate) past: Mutex<Past>,
    /// What clones name in the log since the newest manifest, by commit. Whoever decides which files go holds it.
    pub(crate) cloned: Mutex<Vec<(Lsn, FileSizes)>>,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) maintenance: Mutex<Maintenance>,
    /// Held by the one compaction, or copy of a segment under another key, at a time, before `maintenance`.
    pub(crate) compaction: Mutex<()>,
    pub(crate) underway: Mutex<Underway>,
    /// Segments that did not open when they were to be merged.
    pub(crate) damaged: Mutex<HashSet<FileId>>,
    pub(crate) written: Written,
    /// Segments, as long as somebody reads them.
    pub(crate) registry: Registry,
    /// What is known of the keys' replacement.
    pub(crate) rotation: Rotation,
    /// When the first commit was made that an opening up to a moment left out.
    left_out_us: Option<i64>,
}

/// Why a store takes no more writes, once it does not.
#[derive(Default)]
pub(crate) struct Poison(Mutex<Option<String>>);

impl Poison {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &*self.0.lock() {
            None => Ok(()),
            Some(why) => Err(StoreError::Poisoned { why: why.clone() }),
        }
    }

    /// What the caller of work that was broken off is told: where it stopped because the store did, why that was.
    pub(crate) fn explain<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        match outcome {
            Err(StoreError::Stopped) => self.check().and(Err(StoreError::Stopped)),
            other => other,
        }
    }

    /// Ends writing because the owner asked for it: nothing is wrong.
    fn close(&self) {
        let mut held = self.0.lock();
        if held.is_none() {
            *held = Some("it was closed".to_owned());
        }
    }

    /// Ends writing because nobody knows what a restart will find of what failed. Gives what the caller is told: of a
    /// full device not [`StoreError::DiskFull`], which says that nothing is left and the same may be tried again.
    pub(crate) fn stop(&self, error: StoreError) -> StoreError {
        let why = error.to_string();
        self.set(why.clone());
        match error {
            StoreError::DiskFull { .. } => StoreError::Poisoned { why },
            other => other,
        }
    }

    /// The first reason stays.
    pub(crate) fn set(&self, why: String) {
        let mut held = self.0.lock();
        if held.is_none() {
            tracing::error!(%why, "the store takes no more writes until it is opened again");
            *held = Some(why);
        }
    }
}

/// Sizes and counts, for metrics and `pg_catalog`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub lsn: Lsn,
    pub tables: usize,
    pub live_rows: u64,
    pub memory_chunks: usize,
    pub memory_bytes: u64,
    pub segments: usize,
    pub segment_bytes: u64,
    /// Of the segments' vector indexes.
    pub index_bytes: u64,
    /// What a recovery would read.
    pub wal_files: u64,
    pub wal_bytes: u64,
    /// Bytes of older log files, kept for [`crate::LogHold`]s.
    pub held_wal_bytes: u64,
    /// Bytes of files of all kinds that only the past needs, named snapshots among it.
    pub history_bytes: u64,
    /// Rows of segments that are deleted and still there.
    pub deleted_rows: u64,
    /// Bytes of rows, uncompressed, since the store was opened: those that left memory,
    pub ingested_bytes: u64,
    /// those that flushes wrote, small segments that were merged into them included,
    pub flushed_bytes: u64,
    /// and those that compactions wrote.
    pub compacted_bytes: u64,
    /// A write or fsync failed, or the store was closed: reads go on, writes do not.
    pub poisoned: bool,
}

impl StoreStats {
    /// How often a row has been written since the store was opened, in the mean; `None` before the first flush.
    pub fn write_amplification(&self) -> Option<f64> {
        let ratio = |written: u64, rows: u64| written as f64 / rows as f64;
        let written = self.flushed_bytes.saturating_add(self.compacted_bytes);
        (self.ingested_bytes > 0).then(|| ratio(written, self.ingested_bytes))
    }
}

impl TenantStore {
    /// Makes the tenant's directory, with an empty log and a first manifest. Fails if it has a manifest already.
    pub fn create(
        dir: &Path,
        tenant: TenantId,
        keys: impl Into<KeyRing>,
        options: StoreOptions,
    ) -> Result<Arc<Self>, StoreError> {
        open::create(dir, tenant, keys.into(), options).map(Arc::new)
    }

    /// Whether a store was made in the directory. One whose making was cut short counts as not made:
    /// [`Self::create`] begins it anew, and refuses where anything of value is left.
    pub fn is_made(dir: &Path) -> Result<bool, StoreError> {
        open::is_made(dir)
    }

    /// Reads the newest manifest, replays the log, opens a new log file. Damage is [`StoreError::Corrupt`] and
    /// leaves every file as it was.
    pub fn open(
        dir: &Path,
        tenant: TenantId,
        keys: impl Into<KeyRing>,
        options: StoreOptions,
    ) -> Result<Arc<Self>, StoreError> {
        open::open(dir, tenant, keys.into(), options).map(Arc::new)
    }

    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// When the first commit was made that [`StoreOptions::replay_until`] left out, in microseconds since 1970: the log
    /// reached that moment. `None`: it ended before, or nothing was left out.
    pub fn left_out_us(&self) -> Option<i64> {
        self.left_out_us
    }

    /// All tables as of the last durable commit.
    pub fn snapshot(&self) -> Snapshot {
        self.head.read().clone()
    }

    /// A new id for a table, constraint or index.
    pub fn next_object_id(&self) -> TableId {
        self.counters.next_object()
    }

    /// The first of `n` new row ids of the table, which need not exist yet.
    pub fn reserve_rows(&self, table: TableId, n: u64) -> RowId {
        self.counters.reserve_rows(table, n)
    }

    /// For each table an id above those of all its rows, committed or not. Tables that never had a row may lack.
    pub fn row_ends(&self) -> HashMap<TableId, RowId> {
        self.counters.row_ends()
    }

    /// The first of `n` new values of a serial or identity column. Like `nextval`, never rolled back.
    pub fn next_sequence(&self, table: TableId, column: ColumnId, n: u64) -> i64 {
        self.counters.next_sequence(table, column, n)
    }

    /// The same of a sequence of its own: the next commit logs it, whatever it is about.
    pub fn next_apart(&self, table: TableId, column: ColumnId, n: u64) -> i64 {
        self.counters.next_apart(table, column, n)
    }

    /// The value that [`Self::next_sequence`] would give now.
    pub fn peek_sequence(&self, table: TableId, column: ColumnId) -> i64 {
        self.counters.peek_sequence(table, column)
    }

    /// Sets the next value for all sessions. A commit of its own, durable on return, as `setval` is not part of
    /// its transaction; where it must be part of one, use [`crate::Op::SetSequence`].
    pub fn set_sequence(&self, table: TableId, column: ColumnId, next: i64) -> Result<(), StoreError> {
        self.commit(&self.snapshot(), vec![crate::Op::SetSequence { table, column, next }]).map(drop)
    }

    /// Whether the log has grown enough for a checkpoint to pay. Files that only holds or the past keep do not count.
    pub fn wants_checkpoint(&self) -> bool {
        let (files, bytes) = self.log.needed();
        bytes >= self.wal_segment_bytes || files > MANY_WAL_FILES
    }

    /// Log bytes that no manifest covers yet: about what the rows take that are in memory only.
    pub fn unflushed_bytes(&self) -> u64 {
        self.log.needed().1
    }

    /// Bytes of all log files that are there.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Bytes of all files under `segments/` and `manifest/`, each once: what today's tables need and what history,
    /// named snapshots, clones, readers and copies keep. Lists directories and looks at every file's length.
    pub fn data_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for directory in [self.paths.segments(), self.paths.manifests()] {
            for name in self.disk.list(&directory)? {
                // One that is gone by now was removed meanwhile.
                bytes += self.disk.length(&directory.join(name)).unwrap_or(0);
            }
        }
        Ok(bytes)
    }

    pub fn stats(&self) -> StoreStats {
        let snapshot = self.snapshot();
        let mut stats = StoreStats {
            lsn: snapshot.lsn(),
            poisoned: self.poison.check().is_err(),
            ..StoreStats::default()
        };
        for table in snapshot.tables() {
            stats.tables += 1;
            stats.live_rows += table.live_rows();
            for chunk in &table.chunks {
                let bytes = chunk.chunk.bytes();
                if chunk.chunk.segment().is_some() {
                    stats.segments += 1;
                    stats.segment_bytes += bytes;
                    // Its own: the chunk of a clone has those of all tables that share it.
                    let own = table.def.indexes.iter().map(|index| chunk.chunk.index_bytes(index.id));
                    stats.index_bytes += own.sum::<u64>();
                    stats.deleted_rows += chunk.deleted.len();
                } else {
                    stats.memory_chunks += 1;
                    stats.memory_bytes += bytes;
                }
            }
        }
        (stats.wal_files, stats.wal_bytes) = self.log.needed();
        stats.held_wal_bytes = self.log.held_bytes();
        stats.history_bytes = self.history.bytes();
        self.written.add_to(&mut stats);
        stats
    }

    /// How far the log reaches now. To be kept where it is not lost together with the log, when the store was opened
    /// and when it was closed, and handed to the next [`Self::open`].
    pub fn log_end(&self) -> LogEnd {
        let writer = self.writer.lock();
        LogEnd { file: writer.wal.number(), bytes: writer.wal.synced_length() }
    }

    /// Waits for the commit that is being written and refuses later ones. Everything acknowledged is durable
    /// already, so nothing else is left to do; a checkpoint beforehand makes the next start faster. A checkpoint
    /// under way stops before its manifest: on return no file changes any more.
    pub fn close(&self) -> Result<(), StoreError> {
        let closed = self.close_log();
        drop(self.compaction.lock());
        drop(self.maintenance.lock());
        closed
    }

    fn close_log(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        self.poison.check()?;
        let synced = writer.wal.flush().and_then(|()| writer.wal.sync());
        let synced = synced.map_err(|error| StoreError::io("sync", &show(writer.wal.path()), &error));
        let marked = synced.and_then(|()| match self.mark(&mut writer) {
            // The commits are durable without it.
            Err(StoreError::DiskFull { .. }) => Ok(false),
            marked => marked,
        });
        self.poison.close();
        marked.map(drop)
    }

    pub(crate) fn set_head(&self, snapshot: Snapshot) {
        *self.head.write() = snapshot;
    }

    /// What file keys are wrapped under now.
    pub(crate) fn keys(&self) -> Arc<KeyRing> {
        Arc::clone(&self.keys.read())
    }

    /// From now on everything new is wrapped under these.
    pub(crate) fn set_keys(&self, keys: KeyRing) {
        *self.keys.write() = Arc::new(keys);
    }

    /// Opens segments under `keys`.
    pub(crate) fn opener<'a>(&'a self, keys: &'a KeyRing) -> Opener<'a> {
        Opener {
            paths: &self.paths,
            disk: &self.disk,
            tenant: self.tenant,
            keys,
            cache: &self.cache,
            registry: &self.registry,
        }
    }

    /// Opens one of the log's files.
    pub(crate) fn log_file(&self, number: u64) -> Result<wal::LogFile, StoreError> {
        let keys = self.keys();
        let log = wal::Log { disk: &self.disk, paths: &self.paths, tenant: self.tenant, keys: &keys };
        wal::LogFile::open(&log, number)
    }
}

impl std::fmt::Debug for TenantStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantStore")
            .field("tenant", &self.tenant)
            .field("root", &self.paths.root())
            .finish_non_exhaustive()
    }
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<TenantStore>();
    shared::<Snapshot>();
};

#[cfg(test)]
mod tests;
