//! A tenant that is open: its store, its planner, its opened indexes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sepal_crypto::Key;
use sepal_query::{
    planner::Engine,
    vector::{IndexCache, IndexMemory},
};
use sepal_storage::{ColumnCache, LogHold, Op, StoreOptions, TenantStore};
use sepal_types::{Error, LogEnd, Lsn, Result, SqlState, TableId, TenantId};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    builds::BuildBoard, delivery::Delivery, directory_lock::DirectoryLock, options::DatabaseOptions,
    pipeline::Pipelines,
};

/// Shared by the tenant's sessions and its maintenance. Bound to one tenant for life.
pub struct OpenTenant {
    pub id: TenantId,
    pub store: Arc<TenantStore>,
    pub engine: Engine,
    pub indexes: Arc<IndexCache>,
    pub builds: Arc<BuildBoard>,
    /// Counts committed changes of definitions: a prepared statement planned under an older count plans anew.
    pub definitions: AtomicU64,
    /// Wakes the maintenance: the log has grown.
    pub work: Notify,
    /// Wakes the maintenance: a segment may lack an index that its table has.
    pub missing: Notify,
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
    /// The tenant was dropped or the server stops: maintenance ends, no new statement begins.
    closed: AtomicBool,
    /// The same, to be waited for.
    end: CancellationToken,
    maintenance: Mutex<Option<JoinHandle<()>>>,
    table_locks: Mutex<HashMap<TableId, Arc<tokio::sync::Mutex<()>>>>,
    pub threads: usize,
    /// Held by whatever still may write files: nobody else opens the directory before that is gone.
    _lock: Arc<DirectoryLock>,
}

/// What all tenants hold in memory together.
#[derive(Clone)]
pub struct Caches {
    pub columns: Arc<ColumnCache>,
    pub indexes: Arc<IndexMemory>,
}

impl Caches {
    /// Half of the budget each.
    pub fn new(budget_bytes: usize) -> Self {
        let half = budget_bytes / 2;
        Self { columns: ColumnCache::new(half), indexes: Arc::new(IndexMemory::new(half)) }
    }

    pub fn forget_tenant(&self, tenant: TenantId) {
        self.columns.forget_tenant(tenant);
        self.indexes.forget_tenant(tenant);
    }
}

/// Where a tenant's files are.
pub fn directory(data: &Path, tenant: TenantId) -> PathBuf {
    data.join("tenants").join(tenant.to_string())
}

impl OpenTenant {
    /// Opens the store, replaying its log; makes it when the tenant has none yet, or one whose making a crash cut
    /// short. An index whose build a crash cut short is dropped.
    ///
    /// `log_end`: what control remembers of the store, `None` if it was never made. Errors: XX001 for damage, and for
    /// a store that was made and is not there, or whose log does not reach as far any more.
    pub fn open(
        delivery: Arc<Delivery>,
        key: Key,
        log_end: Option<LogEnd>,
        options: &DatabaseOptions,
        caches: &Caches,
        workers: Handle,
        lock: Arc<DirectoryLock>,
    ) -> Result<Arc<Self>> {
        let id = delivery.tenant;
        let directory = directory(&options.data_dir, id);
        let store_options = StoreOptions {
            wal_segment_bytes: options.wal_segment_bytes,
            log_retention_bytes: options.log_retention_bytes,
            log_end,
            ..StoreOptions::new(Arc::clone(&caches.columns))
        };
        let store = if TenantStore::is_made(&directory)? {
            TenantStore::open(&directory, id, key, store_options)?
        } else if log_end.is_some() {
            return Err(lost(id, &directory));
        } else {
            // Makes the directories above it too, and their names durable.
            TenantStore::create(&directory, id, key, store_options)?
        };
        let archive = if options.archive_logs { hold_all(&store)? } else { None };
        drop_unfinished_indexes(id, &store)?;
        let (changes, _) = watch::channel(store.snapshot().lsn());
        Ok(Arc::new(Self {
            id,
            store,
            changes,
            pipelines_changed: Notify::new(),
            delivery,
            engine: Engine::new(options.query_memory_bytes, options.threads, workers)?,
            indexes: Arc::new(IndexCache::new(id, Arc::clone(&caches.indexes))),
            builds: Arc::default(),
            definitions: AtomicU64::new(0),
            work: Notify::new(),
            missing: Notify::new(),
            pipelines: Pipelines::new(options.log_retention_bytes),
            archive: Mutex::new(archive),
            closed: AtomicBool::new(false),
            end: CancellationToken::new(),
            maintenance: Mutex::default(),
            table_locks: Mutex::default(),
            threads: options.threads,
            _lock: lock,
        }))
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
        let closed = tokio::task::spawn_blocking(move || tenant.store.close());
        let closed =
            closed.await.map_err(|problem| Error::bug(format!("closing a tenant panicked: {problem}")))?;
        let maintenance = self.maintenance.lock().take();
        if let Some(task) = maintenance
            && let Err(problem) = task.await
        {
            tracing::error!(tenant = %self.id, %problem, "the maintenance panicked");
        }
        closed.map_err(Into::into)
    }

    /// Serialises autocommitted UPDATEs and DELETEs of one table, so that they wait as they would for a row
    /// lock instead of failing at commit.
    pub fn table_lock(&self, table: TableId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.table_locks.lock().entry(table).or_default())
    }

    /// Notes what a commit changed. `lsn`: the last one that the head holds.
    pub fn committed(&self, changed_definitions: bool, lsn: Lsn) {
        if changed_definitions {
            self.definitions.fetch_add(1, Ordering::Release);
        }
        // Two that commit at once may come here in either order: the later one counts.
        self.changes.send_if_modified(|last| {
            let later = lsn > *last;
            *last = lsn.max(*last);
            later
        });
        if self.store.wants_checkpoint() {
            self.work.notify_one();
        }
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

/// Holds every log file that is there: which of them are archived, the archive will say. Older ones that do not open
/// any more are no reason not to open the tenant.
fn hold_all(store: &TenantStore) -> Result<Option<LogHold>> {
    let oldest = store.log_files(0).ok().and_then(|files| files.first().map(|file| file.base_lsn));
    Ok(Some(store.hold_log(oldest.unwrap_or_else(|| store.snapshot().lsn()))?))
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
    ops.iter().any(|op| matches!(op, Op::CreateTable(_) | Op::AlterTable(_) | Op::DropTable(_)))
}
