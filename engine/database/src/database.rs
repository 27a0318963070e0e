//! The database: one data directory, its control data and its open tenants.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use futures::StreamExt;
use parking_lot::Mutex;
use sepal_control::{Control, ControlError, ControlOptions, DEFAULT_ENVIRONMENT, KeyCacheStats, Principal};
use sepal_crypto::Key;
use sepal_types::{Clock, Error, Result, SqlState, SystemClock, TenantId};
use tokio::runtime::{Builder, Runtime};

use crate::{
    backend_pids::BackendPids,
    backup::{KeyCopies, Reached, check_finished},
    blocking::blocking,
    delivery::{Delivery, objects::Objects, pipelines::sweep},
    directory_lock::DirectoryLock,
    keys::RootRotation,
    maintain,
    options::{DatabaseOptions, SecretSources},
    session::Session,
    tenant::{OpenTenant, Shared, unopened},
    tenants::{Seat, Tenants},
    write_memory::WriteMemory,
};

/// How often revocations by other processes are looked for. A session asks for its key every half second, so a
/// revoked key is out within a second wherever it was revoked.
const CONTROL_PATROL: Duration = Duration::from_millis(250);

/// How many patrols pass between two writes of keys' last use, and signatures of the audit trail: a minute.
const LAST_USED_PATROLS: u32 = 240;

/// How many patrols pass between two looks at who needs which tenant: five seconds.
const IDLE_PATROLS: u32 = 20;

/// Log that is worth flushing before a tenant is closed for want of use. Less is read quickly when it is opened again.
const WORTH_FLUSHING: u64 = 1 << 20;

/// An open data directory.
pub struct Database {
    pub(crate) options: DatabaseOptions,
    pub(crate) control: Arc<Control>,
    pub(crate) shared: Shared,
    pub(crate) root_rotation: RootRotation,
    pub(crate) tenants: Tenants,
    /// Held by whoever closes tenants that nobody needs: one at a time is enough.
    closing_unneeded: tokio::sync::Mutex<()>,
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
        self.tenants.settled().iter().for_each(|tenant| tenant.begin_close());
        if let Some(workers) = self.workers.take() {
            end(workers);
        }
    }
}

/// Lets a runtime end. Not here: one may not be waited for inside another.
///
/// Its threads are joined, and so is the one that does: of a thread that is let go of while it ends glibc may read what it
/// has given back already (bug 19951; 2.36 has it). Once in some hundred thousand databases that came and went, that was
/// a segmentation fault.
fn end(workers: Runtime) {
    static ENDING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());
    let mut ending = ENDING.lock();
    let ended: Vec<JoinHandle<()>> = ending.extract_if(.., |thread| thread.is_finished()).collect();
    // It has nothing to say.
    ended.into_iter().for_each(|thread| drop(thread.join()));
    let workers = Arc::new(Mutex::new(Some(workers)));
    let there = Arc::clone(&workers);
    match thread::Builder::new().name("sepal-ending".to_owned()).spawn(move || drop(there.lock().take())) {
        Ok(thread) => ending.push(thread),
        Err(_) => workers.lock().take().into_iter().for_each(Runtime::shutdown_background),
    }
}

/// Gauges for `/metrics`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DatabaseMetrics {
    pub open_tenants: usize,
    /// Bytes of committed rows that are not flushed yet.
    pub unflushed_bytes: u64,
    /// Bytes that sorts, joins and aggregates hold, and may hold.
    pub query_bytes: usize,
    pub query_budget_bytes: usize,
    /// Files that queries have put rows aside in.
    pub spill_files: usize,
    pub cache_used_bytes: usize,
    pub cache_budget_bytes: usize,
    pub column_cache_hits: u64,
    pub column_cache_misses: u64,
    pub index_bytes: usize,
    /// Index files that were found damaged since the start.
    pub damaged_indexes: u64,
    /// Bytes of rows, uncompressed, since the start: those that left memory, and those that flushes and
    /// compactions wrote.
    pub ingested_bytes: u64,
    pub flushed_bytes: u64,
    pub compacted_bytes: u64,
    pub key_cache: KeyCacheStats,
}

/// How long a client waits for its tenant's log to be replayed: less than the time that a server gives a login.
const OPENING_PATIENCE: Duration = Duration::from_secs(8);

/// How many tenants the start of pipelines opens side by side: most of the time each waits for its disk.
const OPENED_AT_ONCE: usize = 8;

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
    pub fn open(mut options: DatabaseOptions) -> Result<Arc<Self>> {
        let mut lock = DirectoryLock::take(&options.data_dir)?;
        check_finished(&options.data_dir)?;
        let control = Control::open(
            &options.data_dir.join("control.db"),
            &options.root_key,
            ControlOptions {
                secret_env_names: options.secret_sources.names.clone(),
                wrappers: Arc::clone(&options.wrappers),
                ..ControlOptions::default()
            },
        )?;
        if let Some(wrong) = control.check_audit_head()? {
            tracing::error!(wrong, "the audit trail is not as it was");
        }
        // Control keeps it, in memory that is locked; this copy is wiped.
        options.root_key = Key::from_bytes([0; 32]);
        let workers = Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            .thread_name("sepal-query")
            .thread_stack_size(PLANNING_STACK)
            .enable_all()
            .build()
            .map_err(|problem| Error::bug(format!("the query workers do not start: {problem}")))?;
        lock.announce()?;
        Ok(Arc::new(Self {
            shared: Shared::new(&options)?,
            control: Arc::new(control),
            root_rotation: RootRotation::default(),
            tenants: Tenants::default(),
            closing_unneeded: tokio::sync::Mutex::default(),
            pids: Arc::default(),
            write_memory: Mutex::default(),
            started_us: SystemClock.now_us(),
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

    /// Where the operator lets secrets come from besides the control database.
    pub fn secret_sources(&self) -> &SecretSources {
        &self.options.secret_sources
    }

    /// How many connections a tenant may have.
    pub(crate) fn max_connections(&self) -> usize {
        self.options.max_connections
    }

    /// How long a transaction may hold a snapshot.
    pub(crate) fn max_snapshot_age(&self) -> Option<Duration> {
        self.options.max_snapshot_age
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
                    database.control.checkpoint_audit()?;
                }
                Ok::<_, ControlError>(())
            });
            match looked.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "control data could not be read"),
                Err(problem) => tracing::error!(%problem, "the control patrol panicked"),
            }
            if rounds.is_multiple_of(IDLE_PATROLS) {
                // Beside the patrol: what closing takes must not delay what revocations wait for.
                let database = Arc::clone(&self);
                tokio::spawn(async move { database.close_unneeded().await });
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
        let seated = self.seated_in_time(principal.tenant).await?;
        seated.0.check_open()?;
        let (pid, memory) = (self.pids.take(), self.write_memory(seated.0.id));
        Session::new(Arc::clone(self), seated, principal, environment, pid, memory, startup_parameters)
    }

    /// The open tenant for a client that waits. A long replay goes on without it, and the next client finds it further.
    ///
    /// Errors: 57P03 the replay takes longer than a client should wait.
    async fn seated_in_time(self: &Arc<Self>, id: TenantId) -> Result<(Arc<OpenTenant>, Seat)> {
        tokio::time::timeout(OPENING_PATIENCE, self.seated(id)).await.unwrap_or_else(|_| {
            Err(Error::new(SqlState::CannotConnectNow, "the database system is starting up")
                .with_detail("The tenant's log is being replayed.")
                .with_hint("Try again in a moment. The server's log tells how far the replay is."))
        })
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

    /// The open tenant, opened if need be. It may be closed at any time, for want of use: what goes on takes a
    /// [`Self::seated`] one.
    pub(crate) async fn tenant(self: &Arc<Self>, id: TenantId) -> Result<Arc<OpenTenant>> {
        Ok(self.seated(id).await?.0)
    }

    /// The open tenant, opened if need be; concurrent callers open it once. It stays open as long as the seat is kept.
    pub(crate) async fn seated(self: &Arc<Self>, id: TenantId) -> Result<(Arc<OpenTenant>, Seat)> {
        self.check_open()?;
        let slot = self.tenants.slot(id);
        if let Some(held) = self.tenants.try_hold(&slot)
            && let Some(tenant) = held.tenant()
        {
            return Ok((Arc::clone(tenant), held.sit()));
        }
        let database = Arc::clone(self);
        // In a task of its own: a client that gives up while the log is replayed must not leave the directory
        // half opened for the next one to open again.
        let opening = tokio::spawn(async move {
            let mut held = database.tenants.hold(&slot).await;
            if let Some(tenant) = held.tenant() {
                return Ok((Arc::clone(tenant), held.sit()));
            }
            database.check_open()?;
            let tenant = database.open_tenant(id).await?;
            // The shutdown may have passed by while the log was replayed.
            if let Err(closing) = database.check_open() {
                tenant.close().await?;
                return Err(closing);
            }
            held.put(Arc::clone(&tenant));
            let seat = held.sit();
            drop(held);
            if database.tenants.open() > database.options.max_open_tenants {
                let crowded = Arc::clone(&database);
                tokio::spawn(async move { crowded.close_unneeded().await });
            }
            Ok((tenant, seat))
        });
        opening.await.map_err(|problem| Error::bug(format!("opening a tenant panicked: {problem}")))?
    }

    async fn open_tenant(self: &Arc<Self>, id: TenantId) -> Result<Arc<OpenTenant>> {
        let workers = self.workers.as_ref().map(|workers| workers.handle().clone());
        let workers = workers.ok_or_else(|| Error::bug("the query workers are gone"))?;
        let owner = Arc::clone(self);
        let opened = blocking("opening a tenant", move || {
            let (keys, end) = (owner.control.tenant_keys(id)?, owner.control.log_end(id)?);
            let quota = owner.control.tenant_quota(id)?;
            let lock = Arc::clone(&owner.lock);
            let delivery = Delivery::new(id, Arc::clone(&owner.control), &owner.options);
            let tenant = OpenTenant::open(delivery, keys, end, &owner.options, &owner.shared, workers, lock)?;
            tenant.room.set_quota(quota.unwrap_or(owner.options.tenant_disk_bytes));
            // Before the first write: from now on the store and its new log file must be there.
            owner.control.note_log_end(id, tenant.store.log_end())?;
            settle_pipelines(&tenant);
            Ok(tenant)
        });
        let tenant = opened.await.map_err(|error| unopened(id, error))?;
        tenant.maintained_by(tokio::spawn(maintain::maintain(Arc::clone(&tenant))));
        tenant.pipelines.start(&tenant);
        Ok(tenant)
    }

    /// Closes the tenants that nobody has needed for long, and above the limit of open ones those that nobody needs
    /// now. Somebody who comes meanwhile waits, and opens the tenant again.
    pub(crate) async fn close_unneeded(self: &Arc<Self>) {
        let Ok(_alone) = self.closing_unneeded.try_lock() else { return };
        for (id, slot, unneeded) in self.tenants.unneeded() {
            let crowded = self.tenants.open() > self.options.max_open_tenants;
            if unneeded < self.options.idle_tenant && !crowded {
                break;
            }
            let Some(tenant) = self.tenants.try_hold(&slot).and_then(|held| held.tenant().cloned()) else {
                continue;
            };
            if tenant.works_by_itself() {
                continue;
            }
            self.flush_if_worth(&tenant).await;
            let Some(mut held) = self.tenants.try_hold(&slot) else { continue };
            let same = held.tenant().is_some_and(|open| Arc::ptr_eq(open, &tenant));
            if !same || !held.is_unneeded() || tenant.works_by_itself() {
                continue;
            }
            held.take();
            tracing::debug!(tenant = %id, "closed: nobody has needed it for a while");
            self.close_and_note(tenant).await;
            self.control.forget_tenant_keys(id);
        }
    }

    /// Not while it is held: whoever comes should not wait for that.
    async fn flush_if_worth(&self, tenant: &Arc<OpenTenant>) {
        if tenant.store.unflushed_bytes() < WORTH_FLUSHING {
            return;
        }
        let worker = Arc::clone(tenant);
        match tokio::task::spawn_blocking(move || maintain::checkpoint(&worker)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(tenant = %tenant.id, %error, "not flushed before it is closed; its log has all");
            }
            Err(problem) => tracing::error!(tenant = %tenant.id, %problem, "checkpoint panicked"),
        }
    }

    /// On return nothing of the tenant is written any more, and control knows how far its log reaches.
    async fn close_and_note(&self, tenant: Arc<OpenTenant>) {
        let id = tenant.id;
        let closed = Arc::clone(&tenant).close().await;
        if let Some(connectors) = &self.options.connectors {
            connectors.forget_tenant(id);
        }
        // Nothing is appended any more: whatever is missing of this at the next opening was lost.
        let noted = closed.and_then(|()| Ok(self.control.note_log_end(id, tenant.store.log_end())?));
        if let Err(error) = noted {
            tracing::error!(tenant = %id, %error, "a tenant's log did not close cleanly");
        }
    }

    /// Sets what a tenant's files may have, in bytes: `Some(0)` for as much as fits, `None` for what the server's
    /// setting says. From now on, and durable.
    pub async fn set_tenant_quota(self: &Arc<Self>, name: &str, bytes: Option<u64>) -> Result<()> {
        let (database, name) = (Arc::clone(self), name.to_owned());
        let id =
            blocking("setting a quota", move || Ok(database.control.set_tenant_quota(&name, bytes)?)).await?;
        if let Some(slot) = self.tenants.find(id) {
            // One that is being opened may have read the quota before.
            if let Some(tenant) = self.tenants.hold(&slot).await.tenant() {
                tenant.room.set_quota(bytes.unwrap_or(self.options.tenant_disk_bytes));
            }
        }
        Ok(())
    }

    /// Opens the tenants that have pipelines, so that these run. The server calls it once it is up; a tenant that does
    /// not open is in the log, and tells its clients itself.
    pub async fn start_pipelines(self: &Arc<Self>) {
        let database = Arc::clone(self);
        let listed =
            blocking("listing tenants", move || Ok(database.control.tenants_with_pipelines()?)).await;
        let tenants = listed.unwrap_or_else(|error| {
            tracing::error!(%error, "no pipeline is started: the tenants that have some cannot be listed");
            Vec::new()
        });
        let opened = futures::stream::iter(tenants).for_each_concurrent(OPENED_AT_ONCE, |id| async move {
            if let Err(error) = self.tenant(id).await {
                tracing::error!(tenant = %id, %error, "the pipelines of a tenant are not started");
            }
        });
        opened.await;
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
        let found =
            blocking("looking a tenant up", move || Ok(database.control.tenant_by_name(&name)?)).await?;
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

    pub fn metrics(&self) -> DatabaseMetrics {
        let columns = &self.shared.columns;
        let (hits, misses) = columns.hits_and_misses();
        let written = self.shared.background.rows_written();
        DatabaseMetrics {
            open_tenants: self.tenants.open(),
            unflushed_bytes: self.shared.unflushed.bytes(),
            query_bytes: self.shared.queries.used(),
            query_budget_bytes: self.shared.queries.limit(),
            spill_files: self.shared.spill.open(),
            cache_used_bytes: columns.used_bytes().saturating_sub(self.shared.indexes.index_bytes()),
            cache_budget_bytes: columns.budget_bytes(),
            column_cache_hits: hits,
            column_cache_misses: misses,
            index_bytes: self.shared.indexes.bytes(),
            damaged_indexes: columns.damaged_indexes(),
            ingested_bytes: written.ingested,
            flushed_bytes: written.flushed,
            compacted_bytes: written.compacted,
            key_cache: self.control.key_cache_stats(),
        }
    }

    /// Ends maintenance and closes every tenant's log. What was acknowledged is durable already.
    pub async fn shutdown(&self) {
        self.closing.store(true, Ordering::Release);
        // All at once, so that one long build does not delay the others' end.
        self.tenants.settled().iter().for_each(|tenant| tenant.begin_close());
        for (_, slot) in self.tenants.drain() {
            // Waits for whoever opens or closes it.
            let opened = self.tenants.hold(&slot).await.take();
            if let Some(tenant) = opened {
                self.close_and_note(tenant).await;
            }
        }
        if let Err(error) = self.control.flush_last_used() {
            tracing::warn!(%error, "the keys' last use was not written");
        }
        if let Err(error) = self.control.flush_secret_uses() {
            tracing::warn!(%error, "the secrets' last uses were not written");
        }
        if let Err(error) = self.control.checkpoint_audit() {
            tracing::warn!(%error, "the end of the audit trail was not signed");
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
