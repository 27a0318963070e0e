//! What the catalogs show to a session: its parts, and where each comes from.
//!
//! The session makes a [`Catalogs`] when it begins. A statement gets a context of its own, for its snapshot, if it reads
//! a catalog or calls one of its functions.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::Mutex;
use sepal_control::Principal;
use sepal_query::catalog::{
    CatalogContext, LockRow, LockedObject, Searches,
    named::NamedRows,
    sessions::SessionControl,
    work::{StorageRow, WorkRows},
};
use sepal_storage::Snapshot;
use sepal_types::TableId;

use super::{CancelToken, Cursors, Settings, Signals, history, named::Known};
use crate::{
    database::Database,
    delivery::{Replay, rows as delivery_rows},
    locks::{LockObject, LockTable},
    rotation, statistics,
    tenant::OpenTenant,
    usage,
    write_memory::WriteMemory,
};

/// Where a session's catalogs get their rows from.
pub(super) struct Catalogs {
    pub database: Arc<Database>,
    pub tenant: Arc<OpenTenant>,
    pub principal: Principal,
    pub environment: Arc<str>,
    /// The session's number.
    pub pid: i32,
    pub memory: Arc<WriteMemory>,
    pub settings: Arc<Mutex<Settings>>,
    pub cancel: CancelToken,
    pub signals: Arc<Signals>,
    /// The session has plans that have catalogs: held here, none of them would ever go.
    pub named: Weak<Mutex<Known>>,
    pub cursors: Weak<Mutex<Cursors>>,
}

impl Catalogs {
    /// Makes a context when it is asked for.
    pub fn later(self: &Arc<Self>, snapshot: &Snapshot) -> impl FnOnce() -> CatalogContext + Send + use<> {
        let (catalogs, snapshot) = (Arc::clone(self), snapshot.clone());
        move || catalogs.context(snapshot)
    }

    /// What costs is made when it is asked for.
    pub fn context(&self, snapshot: Snapshot) -> CatalogContext {
        let stored = snapshot.clone();
        let (database, principal) = (Arc::clone(&self.database), self.principal.clone());
        let (tenant, shown, scopes) = (Arc::clone(&self.tenant), snapshot.clone(), self.principal.scopes);
        let environment = Arc::clone(&self.environment);
        let settings = Arc::clone(&self.settings);
        let (used, memory) = (Arc::clone(&self.tenant), Arc::clone(&self.memory));
        let sealed = Arc::clone(&self.tenant);
        CatalogContext {
            snapshot,
            environment: self.environment.to_string(),
            environments: LazyLock::new(Box::new(move || environments(&database, &principal))),
            tenant: self.principal.tenant_name.to_string(),
            user: self.principal.key_id.to_string(),
            backend_pid: self.pid,
            settings: LazyLock::new(Box::new(move || settings.lock().rows())),
            builds: self.tenant.builds.rows(),
            usage: LazyLock::new(Box::new(move || usage::rows(&used, &memory))),
            keys: LazyLock::new(Box::new(move || rotation::row(&sealed))),
            locks: {
                let (locks, environment) = (Arc::clone(&self.tenant.locks), Arc::clone(&self.environment));
                LazyLock::new(Box::new(move || lock_rows(&locks, &environment)))
            },
            sessions: {
                let (signals, locks) = (Arc::clone(&self.signals), Arc::clone(&self.tenant.locks));
                LazyLock::new(Box::new(move || signals.rows(&locks)))
            },
            signals: Arc::clone(&self.signals) as Arc<dyn SessionControl>,
            blocking: {
                let locks = Arc::clone(&self.tenant.locks);
                Arc::new(move |pid| locks.blocking(pid))
            },
            work: {
                let (tenant, snapshot) = (Arc::clone(&self.tenant), stored.clone());
                LazyLock::new(Box::new(move || work(&tenant, &snapshot)))
            },
            delivery: LazyLock::new(Box::new(move || {
                delivery_rows(&tenant, &shown, &environment, scopes.read)
            })),
            history: {
                let (store, environment) = (Arc::clone(&self.tenant.store), Arc::clone(&self.environment));
                LazyLock::new(Box::new(move || history::rows(&store, &environment)))
            },
            named: {
                let (named, cursors) = (Weak::clone(&self.named), Weak::clone(&self.cursors));
                LazyLock::new(Box::new(move || NamedRows {
                    statements: named.upgrade().map(|named| named.lock().rows()).unwrap_or_default(),
                    cursors: cursors.upgrade().map(|cursors| cursors.lock().rows()).unwrap_or_default(),
                }))
            },
            searches: Some(Searches {
                indexes: Arc::clone(&self.tenant.indexes),
                settings: {
                    let settings = Arc::clone(&self.settings);
                    LazyLock::new(Box::new(move || settings.lock().search()))
                },
                may_read: self.principal.scopes.read,
            }),
            control: Replay::new(Arc::clone(&self.tenant), &self.environment, self.principal.scopes.write),
            table_bytes: Arc::new(move |id| stored_bytes(&stored, id)),
            start_time_us: self.database.started_us(),
            interrupted: {
                let cancel = self.cancel.clone();
                Arc::new(move || cancel.is_cancelled())
            },
        }
    }
}

/// The environments that a principal may use. When the control database cannot be read, the log says so and
/// only the session's own is listed.
fn environments(database: &Database, principal: &Principal) -> Vec<String> {
    if let Some(own) = principal.environment.as_deref() {
        return vec![own.to_owned()];
    }
    match database.control().list_environments(principal.tenant) {
        Ok(environments) => {
            environments.into_iter().map(|environment| environment.name.to_string()).collect()
        }
        Err(error) => {
            tracing::error!(%error, "the environments cannot be listed");
            Vec::new()
        }
    }
}

/// What the catalogs show of the work on the tenant's tables. Statistics that cannot be read are not shown; the log
/// says so.
fn work(tenant: &OpenTenant, snapshot: &Snapshot) -> WorkRows {
    let statistics = statistics::rows(snapshot, &tenant.compacted.lock()).unwrap_or_else(|error| {
        tracing::error!(tenant = %tenant.id, %error, "the tables' statistics cannot be read");
        BTreeMap::new()
    });
    let stats = tenant.store.stats();
    let storage = StorageRow {
        live_rows: stats.live_rows,
        deleted_rows: stats.deleted_rows,
        segments: stats.segments as u64,
        segment_bytes: stats.segment_bytes,
        index_bytes: stats.index_bytes,
        memory_bytes: stats.memory_bytes,
        log_bytes: stats.wal_bytes + stats.held_wal_bytes,
        history_bytes: stats.history_bytes,
        ingested_bytes: stats.ingested_bytes,
        flushed_bytes: stats.flushed_bytes,
        compacted_bytes: stats.compacted_bytes,
        write_amplification: stats.write_amplification(),
        compaction_due: tenant.store.wants_compaction(),
    };
    let mut tasks = tenant.tasks.rows();
    tasks.extend(tenant.builds.tasks());
    WorkRows { tasks, copies: tenant.tasks.copies(), statistics, storage }
}

/// The locks of a tenant, those on numbers only of this environment.
fn lock_rows(locks: &LockTable, environment: &str) -> Vec<LockRow> {
    let row = |lock: crate::locks::LockRow| {
        let object = match lock.object {
            LockObject::Advisory(key) if *key.environment == *environment => {
                LockedObject::Advisory { class: key.class, object: key.object, kind: key.kind }
            }
            LockObject::Advisory(_) => return None,
            LockObject::Table(table) => LockedObject::Table(table),
            LockObject::Row(table) => LockedObject::Row(table),
        };
        Some(LockRow { pid: lock.pid, object, mode: lock.mode, granted: lock.granted })
    };
    locks.rows().into_iter().filter_map(row).collect()
}

/// Bytes of a table without its indexes, or of an index; counted only when a query asks.
fn stored_bytes(snapshot: &Snapshot, id: TableId) -> u64 {
    match snapshot.table(id) {
        Some(table) => table.bytes(),
        None => snapshot.tables().find_map(|table| table.index_bytes(id)).unwrap_or(0),
    }
}
