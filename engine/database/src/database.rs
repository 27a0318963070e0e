//! The database: one data directory, its control data and its open tenants.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use sepal_control::{Control, ControlError, ControlOptions, DEFAULT_ENVIRONMENT, KeyCacheStats, Principal};
use sepal_crypto::Key;
use sepal_types::{Error, Result, SqlState, TenantId};
use tokio::{
    runtime::{Builder, Runtime},
    sync::OnceCell,
};

use crate::{
    backend_pids::BackendPids,
    backup::{KeyCopies, Reached, check_finished},
    delivery::{Delivery, objects::Objects, pipelines::sweep},
    directory_lock::DirectoryLock,
    maintain,
    options::{DatabaseOptions, SecretSources},
    session::Session,
    tenant::{Caches, OpenTenant, directory},
    write_memory::WriteMemory,
};

/// How often revocations by other processes are looked for. A session asks for its key every half second, so a
/// revoked key is out within a second wherever it was revoked.
const CONTROL_PATROL: Duration = Duration::from_millis(250);

/// How many patrols pass between two writes of keys' last use: a minute.
const LAST_USED_PATROLS: u32 = 240;

/// An open data directory.
pub struct Database {
    options: DatabaseOptions,
    control: Arc<Control>,
    caches: Caches,
    tenants: Mutex<HashMap<TenantId, Arc<OnceCell<Arc<OpenTenant>>>>>,
    pids: Arc<BackendPids>,
    /// Per tenant, for as long as it has sessions.
    write_memory: Mutex<HashMap<TenantId, Weak<WriteMemory>>>,
    started_us: i64,
    /// Where queries compute: apart from the threads that serve connections.
    workers: Option<Runtime>,
    /// Who holds copies of tenants' keys elsewhere.
    key_copies: OnceLock<Arc<dyn KeyCopies>>,
    /// No tenant is opened any more.
    closing: AtomicBool,
    lock: Arc<DirectoryLock>,
}

impl Drop for Database {
    fn drop(&mut self) {
        // Those that `shutdown` has not closed must not go on working in the background.
        self.tenants.lock().values().filter_map(|cell| cell.get()).for_each(|tenant| tenant.begin_close());
        // A runtime may not be waited for inside another one.
        if let Some(workers) = self.workers.take() {
            workers.shutdown_background();
        }
    }
}

/// Gauges for `/metrics`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DatabaseMetrics {
    pub open_tenants: usize,
    pub cache_used_bytes: usize,
    pub cache_budget_bytes: usize,
    pub column_cache_hits: u64,
    pub column_cache_misses: u64,
    pub index_bytes: usize,
    pub key_cache: KeyCacheStats,
}

/// Bytes of stack for threads that parse, plan or run statements: trees of statements are walked by recursion, as
/// deep as `sepal_query` lets them be. Address space until it is used.
pub const PLANNING_STACK: usize = 64 << 20;

impl Database {
    /// Makes the control data of a new directory. Errors: one is there already.
    pub fn init(data: &Path, root_key: Key) -> Result<()> {
        let _lock = DirectoryLock::take(data)?;
        Control::create(&data.join("control.db"), &root_key, ControlOptions::default())?;
        Ok(())
    }

    /// Opens a directory. Tenants are opened when they are first used. Blocking.
    ///
    /// Errors: 55006 another process has it; a root key that is not this directory's; a damaged control file.
    pub fn open(options: DatabaseOptions) -> Result<Arc<Self>> {
        let mut lock = DirectoryLock::take(&options.data_dir)?;
        check_finished(&options.data_dir)?;
        let control = Control::open(
            &options.data_dir.join("control.db"),
            &options.root_key,
            ControlOptions {
                secret_env_names: options.secret_sources.names.clone(),
                ..ControlOptions::default()
            },
        )?;
        let workers = Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            .thread_name("sepal-query")
            .thread_stack_size(PLANNING_STACK)
            .enable_all()
            .build()
            .map_err(|problem| Error::bug(format!("the query workers do not start: {problem}")))?;
        lock.announce()?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Arc::new(Self {
            caches: Caches::new(options.cache_bytes),
            control: Arc::new(control),
            tenants: Mutex::default(),
            pids: Arc::default(),
            write_memory: Mutex::default(),
            started_us: i64::try_from(started.as_micros()).unwrap_or(0),
            workers: Some(workers),
            options,
            key_copies: OnceLock::new(),
            closing: AtomicBool::new(false),
            lock: Arc::new(lock),
        }))
    }

    /// Tenants, environments, API keys, secrets.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// What the directory was opened with.
    pub(crate) fn root_key(&self) -> Key {
        self.options.root_key.clone()
    }

    /// The tenants that are open now.
    pub(crate) fn open_tenants(&self) -> Vec<Arc<OpenTenant>> {
        self.tenants.lock().values().filter_map(|cell| cell.get().cloned()).collect()
    }

    /// The tenant, if it is open.
    pub(crate) fn tenant_if_open(&self, id: TenantId) -> Option<Arc<OpenTenant>> {
        self.tenants.lock().get(&id).and_then(|cell| cell.get().cloned())
    }

    /// Where the operator lets secrets come from besides the control database.
    pub fn secret_sources(&self) -> &SecretSources {
        &self.options.secret_sources
    }

    /// When the directory was opened, in microseconds since 1970.
    pub(crate) fn started_us(&self) -> i64 {
        self.started_us
    }

    /// Looks after control data until the future is dropped. The server runs it beside its listeners.
    pub async fn patrol(self: Arc<Self>) {
        let mut rounds: u32 = 0;
        loop {
            tokio::time::sleep(CONTROL_PATROL).await;
            rounds = rounds.wrapping_add(1);
            let database = Arc::clone(&self);
            let write_last_used = rounds.is_multiple_of(LAST_USED_PATROLS);
            let looked = tokio::task::spawn_blocking(move || {
                database.control.poll_external_changes()?;
                if write_last_used {
                    database.control.flush_last_used()?;
                    database.control.flush_secret_uses()?;
                }
                Ok::<_, ControlError>(())
            });
            match looked.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "control data could not be read"),
                Err(problem) => tracing::error!(%problem, "the control patrol panicked"),
            }
        }
    }

    /// A session of a principal in an environment.
    ///
    /// Errors: 3D000 when the environment does not exist or is not the key's, with the same words.
    pub async fn connect(
        self: &Arc<Self>,
        principal: Principal,
        environment: &str,
        startup_parameters: &[(String, String)],
    ) -> Result<Session> {
        let environment = if environment.is_empty() { DEFAULT_ENVIRONMENT } else { environment };
        let allowed = principal.environment.as_deref().is_none_or(|own| own == environment);
        if !allowed || !self.control.has_environment(principal.tenant, environment)? {
            return Err(Error::new(
                SqlState::InvalidCatalogName,
                format!("database \"{environment}\" does not exist"),
            ));
        }
        let tenant = self.tenant(principal.tenant).await?;
        tenant.check_open()?;
        let (pid, memory) = (self.pids.take(), self.write_memory(tenant.id));
        Session::new(Arc::clone(self), tenant, principal, environment, pid, memory, startup_parameters)
    }

    /// What all sessions of a tenant share.
    fn write_memory(&self, tenant: TenantId) -> Arc<WriteMemory> {
        let mut shared = self.write_memory.lock();
        if let Some(memory) = shared.get(&tenant).and_then(Weak::upgrade) {
            return memory;
        }
        shared.retain(|_, memory| memory.strong_count() > 0);
        let memory = Arc::new(WriteMemory::new(self.options.write_memory_bytes));
        shared.insert(tenant, Arc::downgrade(&memory));
        memory
    }

    /// The open tenant, opened if need be; concurrent callers open it once.
    pub(crate) async fn tenant(self: &Arc<Self>, id: TenantId) -> Result<Arc<OpenTenant>> {
        self.check_open()?;
        let cell = Arc::clone(self.tenants.lock().entry(id).or_default());
        let database = Arc::clone(self);
        // In a task of its own: a client that gives up while the log is replayed must not leave the directory
        // half opened for the next one to open again.
        let opening = tokio::spawn(async move {
            let open = || async {
                let workers = database.workers.as_ref().map(|workers| workers.handle().clone());
                let workers = workers.ok_or_else(|| Error::bug("the query workers are gone"))?;
                let owner = Arc::clone(&database);
                let opened = tokio::task::spawn_blocking(move || {
                    let (key, end) = (owner.control.tenant_key(id)?, owner.control.log_end(id)?);
                    let lock = Arc::clone(&owner.lock);
                    let delivery = Delivery::new(id, Arc::clone(&owner.control), &owner.options);
                    let tenant =
                        OpenTenant::open(delivery, key, end, &owner.options, &owner.caches, workers, lock)?;
                    // Before the first write: from now on the store and its new log file must be there.
                    owner.control.note_log_end(id, tenant.store.log_end())?;
                    settle_pipelines(&tenant);
                    Ok::<_, Error>(tenant)
                });
                let tenant = opened
                    .await
                    .map_err(|problem| Error::bug(format!("opening a tenant panicked: {problem}")))??;
                tenant.maintained_by(tokio::spawn(maintain::maintain(Arc::clone(&tenant))));
                tenant.pipelines.start(&tenant);
                Ok::<_, Error>(tenant)
            };
            let tenant = cell.get_or_try_init(open).await.cloned()?;
            // The shutdown may have passed by while the log was replayed.
            if let Err(closing) = database.check_open() {
                Arc::clone(&tenant).close().await?;
                return Err(closing);
            }
            Ok(tenant)
        });
        opening.await.map_err(|problem| Error::bug(format!("opening a tenant panicked: {problem}")))?
    }

    /// Opens the tenants that have pipelines, so that these run. The server calls it once it is up; a tenant that does
    /// not open is in the log, and tells its clients itself.
    pub async fn start_pipelines(self: &Arc<Self>) {
        let database = Arc::clone(self);
        let listed =
            tokio::task::spawn_blocking(move || Ok(database.control.tenants_with_pipelines()?)).await;
        let listed: Result<Vec<TenantId>> =
            listed.unwrap_or_else(|problem| Err(Error::bug(format!("listing tenants panicked: {problem}"))));
        let tenants = listed.unwrap_or_else(|error| {
            tracing::error!(%error, "no pipeline is started: the tenants that have some cannot be listed");
            Vec::new()
        });
        for id in tenants {
            if let Err(error) = self.tenant(id).await {
                tracing::error!(tenant = %id, %error, "the pipelines of a tenant are not started");
            }
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Error::new(SqlState::CannotConnectNow, "the database system is shutting down"));
        }
        Ok(())
    }

    /// From now on a dropped tenant's keys are removed there, too. The first one stays.
    pub fn set_key_copies(&self, copies: Arc<dyn KeyCopies>) {
        let _already_set = self.key_copies.set(copies);
    }

    /// Before a tenant is dropped.
    pub(crate) async fn intend_drop(self: &Arc<Self>, name: &str) -> Result<()> {
        let Some(copies) = self.key_copies.get() else { return Ok(()) };
        let (database, name) = (Arc::clone(self), name.to_owned());
        let found = tokio::task::spawn_blocking(move || database.control.tenant_by_name(&name))
            .await
            .map_err(|problem| Error::bug(format!("looking a tenant up panicked: {problem}")))??;
        match found {
            Some(tenant) => copies.intend(tenant.id).await,
            None => Ok(()),
        }
    }

    /// After its keys are destroyed here.
    pub(crate) async fn destroy_key_copies(&self, id: TenantId) -> Reached {
        match self.key_copies.get() {
            Some(copies) => copies.destroy(id).await,
            None => Reached::default(),
        }
    }

    /// Drops a tenant: its wrapped key, its API keys, then its files. Its sessions end.
    pub async fn drop_tenant(self: &Arc<Self>, name: &str) -> Result<TenantId> {
        self.intend_drop(name).await?;
        let database = Arc::clone(self);
        let name = name.to_owned();
        let id = tokio::task::spawn_blocking(move || database.control.drop_tenant(&name))
            .await
            .map_err(|problem| Error::bug(format!("dropping a tenant panicked: {problem}")))??;
        let cell = self.tenants.lock().remove(&id).unwrap_or_default();
        // Waits for one that is being opened. Nobody opens it afterwards, for want of its key.
        let opened = cell.get_or_try_init(|| async { Err::<Arc<OpenTenant>, ()>(()) }).await;
        if let Ok(tenant) = opened {
            // A checkpoint that went on would write beside the removal. How the log closed does not matter now.
            if let Err(error) = Arc::clone(tenant).close().await {
                tracing::debug!(tenant = %id, %error, "the dropped tenant's log");
            }
        }
        let reached = self.destroy_key_copies(id).await;
        if let Some(why) = reached.not_reached.first() {
            tracing::error!(tenant = %id, why, "the dropped tenant's keys are still in a backup repository");
        }
        self.caches.forget_tenant(id);
        if let Some(connectors) = &self.options.connectors {
            connectors.forget_tenant(id);
        }
        let path = directory(&self.options.data_dir, id);
        let removed = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&path) {
            Err(problem) if problem.kind() != std::io::ErrorKind::NotFound => Err(Error::new(
                SqlState::IoError,
                format!("the key is destroyed, but {} remains: {problem}", path.display()),
            )
            .with_hint("Remove the directory by hand; nothing in it can be opened any more.")),
            _ => Ok(()),
        });
        removed.await.map_err(|problem| Error::bug(format!("removing files panicked: {problem}")))??;
        Ok(id)
    }

    pub fn metrics(&self) -> DatabaseMetrics {
        let columns = &self.caches.columns;
        let (hits, misses) = columns.hits_and_misses();
        DatabaseMetrics {
            open_tenants: self.tenants.lock().values().filter(|cell| cell.initialized()).count(),
            cache_used_bytes: columns.used_bytes(),
            cache_budget_bytes: columns.budget_bytes(),
            column_cache_hits: hits,
            column_cache_misses: misses,
            index_bytes: self.caches.indexes.bytes(),
            key_cache: self.control.key_cache_stats(),
        }
    }

    /// Ends maintenance and closes every tenant's log. What was acknowledged is durable already.
    pub async fn shutdown(&self) {
        self.closing.store(true, Ordering::Release);
        let tenants: Vec<Arc<OpenTenant>> =
            self.tenants.lock().drain().filter_map(|(_, cell)| cell.get().cloned()).collect();
        // All at once, so that one long build does not delay the others' end.
        tenants.iter().for_each(|tenant| tenant.begin_close());
        for tenant in tenants {
            let id = tenant.id;
            let closed = Arc::clone(&tenant).close().await;
            if let Some(connectors) = &self.options.connectors {
                connectors.forget_tenant(id);
            }
            // Nothing is appended any more: whatever is missing of this at the next start was lost.
            let noted = closed.and_then(|()| Ok(self.control.note_log_end(id, tenant.store.log_end())?));
            if let Err(error) = noted {
                tracing::error!(tenant = %id, %error, "a tenant's log did not close cleanly");
            }
        }
        if let Err(error) = self.control.flush_last_used() {
            tracing::warn!(%error, "the keys' last use was not written");
        }
        if let Err(error) = self.control.flush_secret_uses() {
            tracing::warn!(%error, "the secrets' last uses were not written");
        }
    }
}

/// What a crash may have left undone after a change of pipelines. The tenant opens without it, too.
fn settle_pipelines(tenant: &OpenTenant) {
    let settled = sweep(&tenant.store).and_then(|()| {
        tenant
            .delivery
            .note_pipelines(|| Ok(Objects::of(&tenant.store.snapshot())?.pipelines().next().is_some()))
    });
    if let Err(error) = settled {
        tracing::error!(tenant = %tenant.id, %error, "what dropped pipelines left was not removed");
    }
}
