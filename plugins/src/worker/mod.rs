//! Guests in processes of their own: one worker per tenant, started at the first call, ended when idle.
//!
//! [`Workers`] is the [`GuestHost`] of a server. A worker has no key, no secret and no network; what its guests ask
//! for goes over its socket to the [`Outside`] of the call, here. A guest that breaks out of its sandbox finds itself
//! in a process that can compute, and talk to this module.
//!
//! - `process` starts and ends processes; `client` talks to one; `protocol` is the language.
//! - `child` is the other side; `sandbox` and `system_calls` are what it gives up first.
//!
//! Machine code that a worker was given stays there until it ends: a tenant that keeps replacing its plugins fills
//! its own worker, whose memory is bounded and which is then started anew.

mod child;
mod client;
mod process;
mod protocol;
mod sandbox;
mod system_calls;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sepal_database::TenantId;
use tokio::net::UnixStream;

pub use child::child_main;
pub use process::WORKER_ARGUMENT;
pub use sandbox::SandboxLimits;
pub(crate) use sandbox::filter_system_calls;

use client::Client;
use process::Spawner;
use sandbox::Report;

use crate::call::{Call, CallError, Code, GuestHost, Outside, Reply};

/// How often a worker is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// A worker that says nothing for so long, although it is asked, is stuck.
const SILENCE: Duration = Duration::from_secs(30);
/// A worker that lived so long did not fail at start.
const STABLE: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MOST_BACKOFF: Duration = Duration::from_secs(30);
/// A start that is due so soon is waited for.
const MOST_WAIT: Duration = Duration::from_secs(1);

/// How workers are run.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The binary that calls [`child_main`] for [`WORKER_ARGUMENT`]. By default this one, also after its file was
    /// replaced by an upgrade.
    pub program: PathBuf,
    pub limits: SandboxLimits,
    /// Without a call for so long, a worker ends.
    pub idle: Duration,
    /// Workers write to our standard error. For development: what a hostile guest has them write looks like ours.
    pub loud: bool,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            limits: SandboxLimits::default(),
            idle: Duration::from_secs(300),
            loud: false,
        }
    }
}

/// The workers of all tenants.
pub struct Workers {
    options: WorkerOptions,
    spawner: Spawner,
    tenants: Mutex<HashMap<TenantId, Arc<Place>>>,
    /// What the kernel lacks was told.
    warned: AtomicBool,
}

/// One tenant's worker, when it has one.
#[derive(Debug, Default)]
struct Place {
    /// Held while one is started.
    starting: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    client: Option<Arc<Client>>,
    failures: u32,
    not_before: Option<Instant>,
    forgotten: bool,
}

impl Workers {
    /// Errors: no thread can be started.
    pub fn new(options: WorkerOptions) -> io::Result<Self> {
        let spawner = Spawner::new()?;
        Ok(Self { options, spawner, tenants: Mutex::default(), warned: AtomicBool::new(false) })
    }

    /// The tenant's worker; starts one if there is none, unless the last ones ended too soon.
    async fn client(&self, tenant: TenantId) -> Result<Arc<Client>, CallError> {
        let place = Arc::clone(self.tenants.lock().entry(tenant).or_default());
        if let Some(client) = place.current() {
            return Ok(client);
        }
        let _starting = place.starting.lock().await;
        if let Some(client) = place.current() {
            return Ok(client);
        }
        let wait = place.wait();
        if wait > MOST_WAIT {
            let seconds = wait.as_secs();
            return Err(CallError::Gone(format!("the worker process ended; the next starts in {seconds} s")));
        }
        tokio::time::sleep(wait).await;
        match self.start(tenant).await {
            Ok(client) => place.put(client),
            Err(error) => {
                place.state.lock().failed();
                tracing::warn!(%tenant, %error, "a plugin worker did not start");
                Err(error)
            }
        }
    }

    async fn start(&self, tenant: TenantId) -> Result<Arc<Client>, CallError> {
        let gone =
            |error: io::Error| CallError::Gone(format!("the worker process cannot be started: {error}"));
        let options = &self.options;
        let (socket, process) =
            self.spawner.start(options.program.clone(), options.loud).await.map_err(gone)?;
        socket.set_nonblocking(true).map_err(gone)?;
        let socket = UnixStream::from_std(socket).map_err(gone)?.into_split();
        let (client, report) = Client::start(socket, tenant, options.limits, Some(process)).await?;
        self.warn(&report);
        tokio::spawn(watch(Arc::downgrade(&client), options.idle));
        Ok(client)
    }

    /// Once per process: the kernel does not change.
    fn warn(&self, report: &Report) {
        if !report.missing.is_empty() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                missing = report.missing.join("; "),
                "plugin workers run with fewer barriers than this version knows"
            );
        }
    }
}

impl Place {
    /// The worker that is there; one that ended is put away, and remembered if it ended soon.
    fn current(&self) -> Option<Arc<Client>> {
        let mut state = self.state.lock();
        let client = state.client.take_if(|client| client.is_over());
        match client {
            // Ended for having no work: that is no failure.
            Some(over) if over.age() >= STABLE => state.failures = 0,
            Some(_) => state.failed(),
            None => {}
        }
        state.client.clone()
    }

    fn wait(&self) -> Duration {
        let state = self.state.lock();
        state.not_before.map_or(Duration::ZERO, |then| then.saturating_duration_since(Instant::now()))
    }

    fn put(&self, client: Arc<Client>) -> Result<Arc<Client>, CallError> {
        let mut state = self.state.lock();
        if state.forgotten {
            client.end("the tenant was closed");
            return Err(CallError::Gone("the tenant was closed".to_owned()));
        }
        state.client = Some(Arc::clone(&client));
        Ok(client)
    }

    fn forget(&self) {
        let mut state = self.state.lock();
        state.forgotten = true;
        if let Some(client) = state.client.take() {
            client.end("the tenant was closed");
        }
    }
}

impl State {
    fn failed(&mut self) {
        let backoff = FIRST_BACKOFF * 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + backoff.min(MOST_BACKOFF));
    }
}

/// Ends a worker that is idle or stuck.
async fn watch(client: Weak<Client>, idle: Duration) {
    loop {
        tokio::time::sleep(LOOK.min(idle)).await;
        let Some(client) = client.upgrade() else { return };
        if client.is_over() {
            return;
        }
        if client.idle_for().is_some_and(|quiet| quiet >= idle) {
            client.end("it had nothing to do");
            return;
        }
        if client.silent_for() >= SILENCE {
            client.end("it does not answer");
            return;
        }
        client.ping();
    }
}

#[async_trait]
impl GuestHost for Workers {
    async fn call(
        &self,
        tenant: TenantId,
        code: &Code,
        call: Call,
        outside: Arc<dyn Outside>,
    ) -> Result<Reply, CallError> {
        self.client(tenant).await?.call(code, call, outside).await
    }

    fn forget_tenant(&self, tenant: TenantId) {
        if let Some(place) = self.tenants.lock().remove(&tenant) {
            place.forget();
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("tenants", &self.tenants.lock().len()).finish_non_exhaustive()
    }
}
