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
use sepal_query::{planner::Engine, vector::IndexCache};
use sepal_storage::{ColumnCache, Op, StoreOptions, TenantStore};
use sepal_types::{Error, Result, SqlState, TableId, TenantId};
use tokio::{runtime::Handle, sync::Notify};

use crate::{builds::BuildBoard, options::DatabaseOptions};

/// Shared by the tenant's sessions and its maintenance. Bound to one tenant for life.
pub struct OpenTenant {
    pub id: TenantId,
    pub store: Arc<TenantStore>,
    pub engine: Engine,
    pub indexes: Arc<IndexCache>,
    pub builds: Arc<BuildBoard>,
    /// Counts committed changes of definitions: a prepared statement planned under an older count plans anew.
    pub definitions: AtomicU64,
    /// Wakes the maintenance.
    pub work: Notify,
    /// The tenant was dropped or the server stops: maintenance ends, no new statement begins.
    pub closed: AtomicBool,
    table_locks: Mutex<HashMap<TableId, Arc<tokio::sync::Mutex<()>>>>,
    pub threads: usize,
}

/// Where a tenant's files are.
pub fn directory(data: &Path, tenant: TenantId) -> PathBuf {
    data.join("tenants").join(tenant.to_string())
}

impl OpenTenant {
    /// Opens the store, replaying its log; makes it when the tenant has none yet.
    pub fn open(
        id: TenantId,
        key: Key,
        options: &DatabaseOptions,
        cache: &Arc<ColumnCache>,
        workers: Handle,
    ) -> Result<Arc<Self>> {
        let directory = directory(&options.data_dir, id);
        let store_options = StoreOptions {
            cache: Arc::clone(cache),
            wal_segment_bytes: options.wal_segment_bytes,
            fault: None,
        };
        let store = if directory.exists() {
            TenantStore::open(&directory, id, key, store_options)?
        } else {
            if let Some(parent) = directory.parent() {
                std::fs::create_dir_all(parent).map_err(|problem| {
                    Error::new(SqlState::IoError, format!("cannot create {}: {problem}", parent.display()))
                })?;
            }
            TenantStore::create(&directory, id, key, store_options)?
        };
        Ok(Arc::new(Self {
            id,
            store,
            engine: Engine::new(options.query_memory_bytes, options.threads, workers)?,
            indexes: Arc::new(IndexCache::new(options.cache_bytes / 2)),
            builds: Arc::default(),
            definitions: AtomicU64::new(0),
            work: Notify::new(),
            closed: AtomicBool::new(false),
            table_locks: Mutex::default(),
            threads: options.threads,
        }))
    }

    /// Serialises autocommitted UPDATEs and DELETEs of one table, so that they wait as they would for a row
    /// lock instead of failing at commit.
    pub fn table_lock(&self, table: TableId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.table_locks.lock().entry(table).or_default())
    }

    /// Notes what a commit changed.
    pub fn committed(&self, changed_definitions: bool) {
        if changed_definitions {
            self.definitions.fetch_add(1, Ordering::Release);
        }
        if self.store.wants_checkpoint() {
            self.work.notify_one();
        }
    }

    /// 57P01 once the tenant is closed.
    pub fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(
                SqlState::AdminShutdown,
                "terminating connection because the tenant was closed",
            ));
        }
        Ok(())
    }
}

/// Whether operations change what tables there are or what they look like.
pub fn changes_definitions(ops: &[Op]) -> bool {
    ops.iter().any(|op| matches!(op, Op::CreateTable(_) | Op::AlterTable(_) | Op::DropTable(_)))
}
