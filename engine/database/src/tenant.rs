//! A tenant that is open: its store, its planner, its opened indexes.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sepal_crypto::KeyRing;
use sepal_query::{
    budget::{QueryMemory, TenantMemory},
    planner::{Engine, Planning},
    vector::{IndexCache, IndexMemory},
};
use sepal_storage::{
    ColumnCache, LogHold, Op, PinnedFile, SpillFiles, SpillSpace, StoreOptions, TenantStore,
};
use sepal_types::{Error, FileId, LogEnd, Lsn, Result, SqlState, TableId, TenantId};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    background::{Background, TaskBoard},
    blocking::blocking,
    builds::BuildBoard,
    delivery::{Delivery, objects::Objects},
    directory_lock::DirectoryLock,
    locks::{LockTable, Updates},
    options::DatabaseOptions,
    pipeline::Pipelines,
    room::{Room, Unflushed},
    rotation::Rotation,
    session::Sessions,
};

/// Shared by the tenant's sessions and its maintenance. Bound to one tenant for life.
pub struct OpenTenant {
    pub id: TenantId,
    pub store: Arc<TenantStore>,
    /// What it has committed may take: in memory until it is flushed, and on disk.
    pub room: Room,
    columns: Arc<ColumnCache>,
    index_memory: Arc<IndexMemory>,
    /// Of each cache; 0: none.
    cache_limit: u64,
    /// In UTC; sessions in other zones have one of their own, made of this.
    pub engine: Arc<Engine>,
    pub indexes: Arc<IndexCache>,
    pub builds: Arc<BuildBoard>,
    /// What else is done to its tables.
    pub tasks: Arc<TaskBoard>,
    /// Threads and rate of what is done in the background, shared by all tenants.
    pub background: Arc<Background>,
    /// When each table was compacted last, and how often, since the tenant was opened.
    pub compacted: Mutex<HashMap<TableId, (i64, u64)>>,
    /// Counts committed changes of definitions: a prepared statement planned under an older count plans anew.
    pub definitions: AtomicU64,
    /// Wakes the maintenance: the log has grown.
    pub work: Notify,
    /// Wakes the maintenance: segments may have become too many, or too much of them deleted.
    pub compaction: Notify,
    /// Wakes the maintenance: something was committed, and the log's end has no marker.
    pub logged: Notify,
    /// Wakes the maintenance: a segment may lack an index that its table has, or has a damaged one.
    pub missing: Arc<Notify>,
    /// The replacement of its keys.
    pub rotation: Rotation,
    /// What sessions have committed last: wakes pipelines.
    pub changes: watch::Sender<Lsn>,
    /// Wakes whoever runs the pipelines: definitions of sinks or pipelines were committed, or dead letters are to be
    /// sent again.
    pub pipelines_changed: Notify,
    /// What statements and pipelines need of the process.
    pub delivery: Arc<Delivery>,
    /// What carries its changes to sinks.
    pub pipelines: Pipelines,
    /// Keeps the log for whoever archives it, if somebody does.
    pub archive: Mutex<Option<LogHold>>,
    /// Files that clones in the log name and that are archived already, by path within the tenant's directory.
    pub archived_clones: Mutex<HashSet<PathBuf>>,
    /// The tenant was dropped or the server stops: maintenance ends, no new statement begins.
    closed: AtomicBool,
    /// The same, to be waited for.
    end: CancellationToken,
    maintenance: Mutex<Option<JoinHandle<()>>>,
    /// Who must wait for whom.
    pub locks: Arc<LockTable>,
    /// What became of rows that statements wait for.
    pub updates: Arc<Updates>,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
    pub threads: usize,
    /// Held by whatever still may write files: nobody else opens the directory before that is gone.
    _lock: Arc<DirectoryLock>,
}

/// What all tenants hold together, in memory and on disk, and what they are all planned with.
#[derive(Clone)]
pub struct Shared {
    pub columns: Arc<ColumnCache>,
    pub indexes: Arc<IndexMemory>,
    pub planning: Arc<Planning>,
    pub queries: Arc<QueryMemory>,
    pub spill: Arc<SpillFiles>,
    pub unflushed: Arc<Unflushed>,
    pub background: Arc<Background>,
}

impl Shared {
    /// Columns get what indexes, half of the caches' budget with what filters found out at most, leave of it.
    pub fn new(options: &DatabaseOptions) -> Result<Self> {
        let (all, tenant) = (options.cache_bytes, options.tenant_cache_bytes);
        let without_filters = |bytes: usize| bytes - IndexMemory::filter_bytes(bytes / 2);
        let columns = ColumnCache::with_tenant_limit(without_filters(all), without_filters(tenant));
        let indexes = IndexMemory::with_tenant_limit(all / 2, tenant / 2).beside(&columns);
        Ok(Self {
            columns,
            indexes: Arc::new(indexes),
            planning: Planning::new(options.query_memory_bytes, options.threads)?,
            queries: QueryMemory::new(options.total_query_memory_bytes),
            spill: SpillFiles::new(options.spill_files),
            unflushed: Unflushed::new(options.total_unflushed_bytes),
            background: Background::new(options)?,
        })
    }

    pub fn forget_tenant(&self, tenant: TenantId) {
        self.columns.forget_tenant(tenant);
        self.indexes.forget_tenant(tenant);
    }

    /// What one tenant's queries are planned and run with.
    fn engine(&self, options: &DatabaseOptions, directory: &Path, workers: Handle) -> Result<Engine> {
        let memory = TenantMemory::new(options.query_memory_bytes, Arc::clone(&self.queries));
        let spill = SpillSpace::open(directory, options.spill_bytes, Arc::clone(&self.spill))?;
        Engine::new(Arc::clone(&self.planning), memory, spill, workers)
    }
}

/// A tenant that does not open, told to its clients and to the operator. Others are served as before.
pub fn unopened(tenant: TenantId, error: Error) -> Error {
    tracing::error!(%tenant, %error, "the tenant does not open");
    if error.state() != SqlState::DataCorrupted {
        return error;
    }
    let restore = error.hint().unwrap_or("Restore the tenant from a backup.").to_owned();
    error.with_hint(format!(
        "{restore} Other tenants are not affected. With the server stopped, `sepal check --tenant {tenant}` tells all \
         that is damaged, and `sepal repair --tenant {tenant}` gives it up where there is no backup."
    ))
}

/// Where a tenant's files are.
pub fn directory(data: &Path, tenant: TenantId) -> PathBuf {
    data.join("tenants").join(tenant.to_string())
}

/// What a segment may hold: as much as the cache can keep decoded, from 1 GiB to 4 GiB. A larger one would be decoded
/// anew by every search.
fn segment_bytes(options: &DatabaseOptions) -> u64 {
    let of_tenant = match options.tenant_cache_bytes {
        0 => options.cache_bytes,
        bytes => bytes.min(options.cache_bytes),
    };
    // An index is a quarter of its vectors, or less.
    (of_tenant as u64 / 4 * 3).clamp(1 << 30, 4 << 30)
}

impl OpenTenant {
    /// Opens the store, replaying its log; makes it when the tenant has none yet, or one whose making a crash cut
    /// short. An index whose build a crash cut short is dropped.
    ///
    /// `log_end`: what control remembers of the store, `None` if it was never made. Errors: XX001 for damage, and for
    /// a store that was made and is not there, or whose log does not reach as far any more.
    pub fn open(
        delivery: Arc<Delivery>,
        keys: KeyRing,
        log_end: Option<LogEnd>,
        options: &DatabaseOptions,
        shared: &Shared,
        workers: Handle,
        lock: Arc<DirectoryLock>,
    ) -> Result<Arc<Self>> {
        let id = delivery.tenant;
        let directory = directory(&options.data_dir, id);
        let store_options = StoreOptions {
            wal_segment_bytes: options.wal_segment_bytes,
            segment_bytes: segment_bytes(options),
            log_retention_bytes: options.log_retention_bytes,
            log_end,
            history: options.history,
            ..StoreOptions::new(Arc::clone(&shared.columns))
        };
        let store = if TenantStore::is_made(&directory)? {
            TenantStore::open(&directory, id, keys, store_options)?
        } else if log_end.is_some() {
            return Err(lost(id, &directory));
        } else {
            // Makes the directories above it too, and their names durable.
            TenantStore::create(&directory, id, keys, store_options)?
        };
        // All that is there: which of it is archived, the archive will say.
        let archive = options.archive_logs.then(|| store.hold_whole_log());
        drop_unfinished_indexes(id, &store)?;
        let (changes, _) = watch::channel(store.snapshot().lsn());
        let missing = Arc::new(Notify::new());
        let (limit, unflushed) = (options.unflushed_bytes, Arc::clone(&shared.unflushed));
        let tenant = Arc::new(Self {
            id,
            room: Room::new(id, limit, options.tenant_disk_bytes, unflushed),
            columns: Arc::clone(&shared.columns),
            index_memory: Arc::clone(&shared.indexes),
            cache_limit: options.tenant_cache_bytes as u64,
            store,
            changes,
            pipelines_changed: Notify::new(),
            delivery,
            engine: Arc::new(shared.engine(options, &directory, workers)?),
            indexes: Arc::new(IndexCache::waking(id, Arc::clone(&shared.indexes), Arc::clone(&missing))),
            builds: Arc::default(),
            tasks: Arc::default(),
            background: Arc::clone(&shared.background),
            compacted: Mutex::default(),
            compaction: Notify::new(),
            definitions: AtomicU64::new(0),
            work: Notify::new(),
            logged: Notify::new(),
            missing,
            rotation: Rotation::default(),
            pipelines: Pipelines::new(options.log_retention_bytes),
            archive: Mutex::new(archive),
            archived_clones: Mutex::default(),
            closed: AtomicBool::new(false),
            end: CancellationToken::new(),
            maintenance: Mutex::default(),
            locks: Arc::default(),
            updates: Arc::default(),
            sessions: Arc::default(),
            threads: options.threads,
            _lock: lock,
        });
        tenant.count_files();
        Ok(tenant)
    }

    /// The task that [`Self::close`] waits for.
    pub fn maintained_by(&self, task: JoinHandle<()>) {
        *self.maintenance.lock() = Some(task);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub async fn until_closed(&self) {
        self.end.cancelled().await;
    }

    /// No statement begins any more, and maintenance ends as soon as it notices.
    pub fn begin_close(&self) {
        self.closed.store(true, Ordering::Release);
        self.end.cancel();
    }

    /// Ends maintenance and writing: on return no file of the tenant changes any more.
    ///
    /// Errors: the log could not be synced, or had failed before.
    pub async fn close(self: Arc<Self>) -> Result<()> {
        self.begin_close();
        // What sinks have taken meanwhile is still noted.
        self.pipelines.finish().await;
        let tenant = Arc::clone(&self);
        let closed = blocking("closing a tenant", move || Ok(tenant.store.close()?)).await;
        let maintenance = self.maintenance.lock().take();
        if let Some(task) = maintenance
            && let Err(problem) = task.await
        {
            tracing::error!(tenant = %self.id, %problem, "the maintenance panicked");
        }
        closed
    }

    /// Notes what a commit changed. `lsn`: the last one that the head holds.
    pub fn committed(&self, changed_definitions: bool, lsn: Lsn) {
        if changed_definitions {
            self.definitions.fetch_add(1, Ordering::Release);
            self.close_gone_indexes();
        }
        self.room.note_unflushed(self.store.unflushed_bytes());
        // Two that commit at once may come here in either order: the later one counts.
        self.changes.send_if_modified(|last| {
            let later = lsn > *last;
            *last = lsn.max(*last);
            later
        });
        self.logged.notify_one();
        if self.store.wants_checkpoint() {
            self.work.notify_one();
        }
    }

    /// Closes opened indexes that the head has no more, as they or their segments are gone. Who still reads an older
    /// snapshot opens them anew.
    pub fn close_gone_indexes(&self) {
        let opened = self.indexes.opened();
        if opened.is_empty() {
            return;
        }
        let head = self.store.snapshot();
        let mut wanted: HashSet<(FileId, TableId)> = HashSet::new();
        for version in head.tables() {
            let known = version.def.indexes.iter().filter(|index| opened.contains(&index.id));
            for index in known {
                let sealed = version.chunks.iter().filter(|held| held.chunk.index_file(index.id).is_some());
                wanted.extend(sealed.filter_map(|held| Some((held.chunk.segment()?, index.id))));
            }
        }
        self.indexes.retain(|segment, index| wanted.contains(&(segment, index)));
    }

    /// Takes note of what the store's files take, whoever keeps them. After what makes or removes some. Blocking.
    pub fn count_files(&self) {
        match self.store.data_bytes() {
            Ok(bytes) => self.room.note_settled(bytes),
            Err(error) => {
                tracing::warn!(tenant = %self.id, %error, "files cannot be counted: a quota uses the last count");
            }
        }
        self.room.note_unflushed(self.store.unflushed_bytes());
    }

    /// Whether writers have to wait for a flush ([`Self::until_flushed`]).
    pub fn is_short_of_room(&self) -> bool {
        self.room.is_short(self.store.unflushed_bytes())
    }

    /// Waits until what is committed and not flushed is little enough for more.
    ///
    /// Errors: why it cannot be flushed; 57P01 once the tenant is closed.
    pub async fn until_flushed(&self) -> Result<()> {
        tokio::select! {
            waited = self.room.wait(|| self.store.unflushed_bytes()) => waited,
            () = self.until_closed() => self.check_open(),
        }
    }

    /// Flushes what is not flushed, and gives back what nobody needs. How it went is in the log.
    ///
    /// Errors: 57P01 once the tenant is closed.
    pub async fn flush(&self) -> Result<()> {
        tokio::select! {
            () = self.room.flush_twice() => Ok(()),
            () = self.until_closed() => self.check_open(),
        }
    }

    /// Errors: 53100 when the tenant's files have as much as they may, or would have with `more` bytes.
    pub fn check_quota(&self, more: u64) -> Result<()> {
        if self.room.quota_bytes() == 0 {
            return Ok(());
        }
        self.room.check_quota(self.store.log_bytes(), more)
    }

    /// Bytes that its decoded columns hold in the caches, and its opened indexes with what its filters found out.
    pub fn cached_bytes(&self) -> (usize, usize) {
        let columns = self.columns.tenant_bytes(self.id);
        let counted = self.index_memory.tenant_index_bytes(self.id);
        (columns.saturating_sub(counted), self.index_memory.tenant_bytes(self.id))
    }

    /// What it may hold in all of them, where that is limited.
    pub fn cache_limit(&self) -> Option<u64> {
        Some(self.cache_limit).filter(|bytes| *bytes > 0)
    }

    /// What clones in the log name and whoever archives the log has not seen yet.
    pub fn unarchived_clones(&self) -> Vec<PinnedFile> {
        let named = self.store.cloned_files();
        let mut archived = self.archived_clones.lock();
        // One that no log names now may be named again by later log, which has to be archived with it anew.
        if !archived.is_empty() {
            let still: HashSet<&PathBuf> = named.iter().map(|file| &file.path).collect();
            archived.retain(|path| still.contains(path));
        }
        named.into_iter().filter(|file| !archived.contains(&file.path)).collect()
    }

    /// Whether something besides sessions needs the tenant open: pipelines, an index that is being built, a compaction,
    /// keys that are being replaced, or clones whose files are to be archived, which only an open tenant knows.
    pub fn works_by_itself(&self) -> bool {
        let pipelines = || Ok::<_, Error>(Objects::of(&self.store.snapshot())?.pipelines().next().is_some());
        let is_archived = self.archive.lock().is_some();
        // One whose definitions cannot be read stays: its error is for who asks for them.
        !self.builds.rows().is_empty()
            || !self.tasks.is_idle()
            || self.rotation.is_running()
            || (is_archived && !self.unarchived_clones().is_empty())
            || pipelines().unwrap_or(true)
    }

    /// 57P01 once the tenant is closed.
    pub fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::new(
                SqlState::AdminShutdown,
                "terminating connection because the tenant was closed",
            ));
        }
        Ok(())
    }
}

/// A store that is gone. Making it anew would hide that: the tenant would look as if it had never had a row. The
/// client learns no more than the path within the data directory.
fn lost(tenant: TenantId, directory: &Path) -> Error {
    tracing::error!(%tenant, path = %directory.display(), "the tenant's store is gone");
    Error::new(
        SqlState::DataCorrupted,
        format!("tenants/{tenant} is missing, or its manifest is: the tenant's data was there before"),
    )
    .with_hint(
        "Restore the directory from a backup. To begin with nothing, drop the tenant and create it again.",
    )
}

/// A crash during CREATE INDEX or REINDEX leaves an index that is not usable and that nobody builds. As after a
/// crash of Postgres, the statement had no effect.
fn drop_unfinished_indexes(tenant: TenantId, store: &TenantStore) -> Result<()> {
    let snapshot = store.snapshot();
    let mut ops = Vec::new();
    for version in snapshot.tables() {
        if version.def.indexes.iter().all(|index| index.valid) {
            continue;
        }
        let mut def = version.def.as_ref().clone();
        def.indexes.retain(|index| {
            if !index.valid {
                tracing::warn!(
                    %tenant,
                    environment = %version.def.environment,
                    table = %version.def.name,
                    index = %index.name,
                    "the server ended while it built this index; the index is dropped: create it again"
                );
            }
            index.valid
        });
        ops.push(Op::AlterTable(def));
    }
    store.commit(&snapshot, ops)?;
    Ok(())
}

/// Whether operations change what tables there are or what they look like.
pub fn changes_definitions(ops: &[Op]) -> bool {
    ops.iter()
        .any(|op| matches!(op, Op::CreateTable(_) | Op::AlterTable(_) | Op::DropTable(_) | Op::Clone { .. }))
}
