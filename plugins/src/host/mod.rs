//! Runs guests in this process: [`LocalHost`] behind [`GuestHost`].
//!
//! A worker process has one, and so have `sepal dev` and the tests. The server has none for tenants' plugins.
//!
//! # A call's way
//! 1. [`LocalHost::call`] moves to the guests' own threads, so that a guest that computes holds up nobody else.
//! 2. The component is found among the loaded ones, or deserialised from its machine code, checked and linked.
//! 3. A place is taken; a fresh store is made, or a session's instance taken out of `sessions`.
//! 4. `instance` runs the operation. `limits` counts memory and ticks, `ticker` makes them, a timeout ends the rest.
//! 5. `imports` answers what the guest asks out of its store and the call's [`Outside`].
//! 6. A guest that trapped or broke a limit is dropped; one of a session that answered is put back.

mod bindings;
mod convert;
pub(crate) mod engine;
mod failure;
mod imports;
mod instance;
mod limits;
mod sessions;
mod staged;
mod store;
#[cfg(test)]
mod tests;
mod ticker;
mod tokens;

use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;
use sepal_database::{TenantId, connector::PluginKind};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use wasmtime::{
    Engine,
    component::{Component, Linker},
};

use self::{
    bindings::{resolver::SecretResolverPre, sink::SinkPluginRevealPre},
    engine::Allocation,
    failure::{During, call_error},
    instance::{Instance, Loaded},
    sessions::Sessions,
    staged::StagedState,
    store::Guest,
    ticker::Ticker,
};
use crate::{
    call::{Call, CallError, Code, ComponentHash, GuestHost, Operation, Outcome, Outside, Reply, Usage},
    manifest::{EffectiveLimits, World},
    package,
};

/// Loaded components; each is some tens of megabytes at worst.
const LOADED_COMPONENTS: NonZeroUsize = NonZeroUsize::new(32).expect("it is not zero");

/// How long a call waits for a place among the guests. Less than whoever sent it here gives it beyond its own limit:
/// a host that is full is no reason to end the process.
const SEAT_PATIENCE: Duration = Duration::from_secs(5);

/// Threads that deserialise components.
const BLOCKING_THREADS: usize = 4;

/// How a [`LocalHost`] is made.
#[derive(Clone, Copy, Debug)]
pub struct HostOptions {
    /// How many guests run or are kept at once; others wait.
    pub guests: u32,
    /// Threads that run them.
    pub threads: usize,
    /// Memory from slots made beforehand: faster, and address space for all of them from the start.
    pub pooled: bool,
}

impl Default for HostOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { guests: 32, threads: cores.min(4), pooled: true }
    }
}

impl HostOptions {
    /// Address space that guests take, pooled or all at once: for whoever limits the process. The rest of the process
    /// and the machine code come on top.
    pub const fn address_space_bytes(&self) -> u64 {
        engine::guest_address_space_bytes().saturating_mul(self.guests as u64)
    }
}

/// The machine has not what a host needs.
#[derive(Debug, thiserror::Error)]
#[error("the host of plugins does not start: {0}")]
pub struct StartError(String);

/// Guests in this process.
pub struct LocalHost {
    inner: Arc<Inner>,
    threads: Threads,
}

impl fmt::Debug for LocalHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalHost").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

struct Inner {
    options: HostOptions,
    sinks: Engine,
    sink_linker: Linker<Guest>,
    reveal_linker: Linker<Guest>,
    /// From the on-demand allocator: what a resolver had in memory is unmapped when its call is over.
    resolvers: Engine,
    resolver_linker: Linker<Guest>,
    ticker: Ticker,
    loaded: Mutex<LruCache<(ComponentHash, World), Arc<Loaded>>>,
    sessions: Sessions,
    seats: Arc<Semaphore>,
}

/// A runtime may not be dropped where something asynchronous runs, and its owner may be anywhere.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl LocalHost {
    pub fn new(options: HostOptions) -> Result<Self, StartError> {
        let inner = Inner::new(options).map_err(|error| StartError(format!("{error:#}")))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            .thread_name("plugin")
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()
            .map_err(|error| StartError(error.to_string()))?;
        Ok(Self { inner: Arc::new(inner), threads: Threads(Some(runtime)) })
    }
}

#[async_trait]
impl GuestHost for LocalHost {
    async fn call(
        &self,
        tenant: TenantId,
        code: &Code,
        call: Call,
        outside: Arc<dyn Outside>,
    ) -> Result<Reply, CallError> {
        let Some(runtime) = &self.threads.0 else { return Err(CallError::Gone("the host ends".to_owned())) };
        let (inner, code) = (Arc::clone(&self.inner), code.clone());
        let task = runtime.spawn(async move { inner.call(tenant, &code, call, &outside).await });
        let mut task = AbortOnDrop(task);
        match (&mut task.0).await {
            Ok(reply) => reply,
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "the host of plugins panicked");
                Err(CallError::Trap("the host failed while it ran the plugin".to_owned()))
            }
            Err(_) => Err(CallError::Gone("the host ends".to_owned())),
        }
    }

    fn forget_tenant(&self, tenant: TenantId) {
        self.inner.sessions.forget_tenant(tenant);
    }
}

/// Nobody waits any more: the guest ends too.
struct AbortOnDrop(JoinHandle<Result<Reply, CallError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Inner {
    fn new(options: HostOptions) -> wasmtime::Result<Self> {
        let allocation = match options.pooled {
            true => Allocation::Pooled { guests: options.guests },
            false => Allocation::OnDemand,
        };
        let sinks = engine::engine(allocation)?;
        let resolvers = engine::engine(Allocation::OnDemand)?;
        let mut sink_linker = Linker::new(&sinks);
        imports::link(&mut sink_linker)?;
        let mut reveal_linker = sink_linker.clone();
        imports::link_reveal(&mut reveal_linker)?;
        let mut resolver_linker = Linker::new(&resolvers);
        imports::link(&mut resolver_linker)?;
        let ticker = Ticker::start(&[&sinks, &resolvers])?;
        Ok(Self {
            options,
            sinks,
            sink_linker,
            reveal_linker,
            resolvers,
            resolver_linker,
            ticker,
            loaded: Mutex::new(LruCache::new(LOADED_COMPONENTS)),
            sessions: Sessions::default(),
            seats: Arc::new(Semaphore::new(options.guests as usize)),
        })
    }

    async fn call(
        self: Arc<Self>,
        tenant: TenantId,
        code: &Code,
        call: Call,
        outside: &Arc<dyn Outside>,
    ) -> Result<Reply, CallError> {
        let Call { limits, session, continues, operation } = call;
        let kept = session.and_then(|session| self.sessions.take(tenant, session, &code.hash));
        // Opening anew is a fresh start.
        let kept = kept.filter(|_| !matches!(operation, Operation::OpenSink(_)));
        match (&operation, &kept) {
            (Operation::Close, None) => return Ok(done()),
            (_, None) if continues => {
                let problem = "the session's instance is not there any more; what it held is sent again";
                return Err(CallError::Gone(problem.to_owned()));
            }
            _ => {}
        }
        let loaded = self.load(code).await?;
        let instance = match kept {
            Some(instance) => instance,
            None => {
                let seat = self.seat(SEAT_PATIENCE).await?;
                let engine = self.engine(code.world);
                Instance::new(store::store(engine, limits, Arc::clone(outside)), seat)
            }
        };
        let closes = matches!(operation, Operation::Close);
        let (reply, instance) = self.run(instance, &loaded, limits, operation, outside).await?;
        if let Some(session) = session.filter(|_| !closes) {
            self.sessions.keep(tenant, session, code.hash, instance);
        }
        Ok(reply)
    }

    /// Runs the operation under the call's limits. The instance comes back if it is still good.
    async fn run(
        &self,
        mut instance: Instance,
        loaded: &Loaded,
        limits: EffectiveLimits,
        operation: Operation,
        outside: &Arc<dyn Outside>,
    ) -> Result<(Reply, Instance), CallError> {
        let started = Instant::now();
        let wall = Duration::from_millis(limits.wall_per_call_ms.into());
        let state = StagedState::new(committed_state(&operation), limits.state_bytes);
        store::begin(&mut instance.store, limits, outside, state, started + wall);
        let ticking = self.ticker.run();
        let mut instantiated_us = 0;
        let mut during = During::Call;
        let work = async {
            if !instance.is_instantiated() {
                during = During::Instantiation;
                instance.instantiate(loaded).await?;
                during = During::Call;
                instantiated_us = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
            }
            instance.run(operation).await
        };
        let finished = tokio::time::timeout(wall, metered(work)).await;
        drop(ticking);
        let Ok((answer, cpu)) = finished else {
            return Err(CallError::Wall { limit_ms: limits.wall_per_call_ms });
        };
        let guest = instance.store.data_mut();
        let outcome = answer.map_err(|error| call_error(&guest.meter, &error, during))?;
        let usage = Usage {
            instantiate_us: instantiated_us,
            cpu_us: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
            wall_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            peak_memory_bytes: guest.meter.peak_memory_bytes(),
        };
        let state_changes = match outcome {
            Outcome::Failed(_) => Vec::new(),
            _ => guest.state.take_changes(),
        };
        Ok((Reply { outcome, state_changes, usage }, instance))
    }

    fn engine(&self, world: World) -> &Engine {
        match world {
            World::Sink { .. } => &self.sinks,
            World::Resolver => &self.resolvers,
        }
    }

    /// A place for one more guest. Sessions that fill more than half of them give way.
    async fn seat(&self, patience: Duration) -> Result<OwnedSemaphorePermit, CallError> {
        let full = self.seats.available_permits() == 0;
        if full && self.sessions.count() * 2 > self.options.guests as usize {
            self.sessions.drop_oldest();
        }
        let seat = tokio::time::timeout(patience, Arc::clone(&self.seats).acquire_owned()).await;
        let Ok(seat) = seat else {
            let guests = self.options.guests;
            return Err(CallError::Gone(format!("all {guests} places for running plugins are taken")));
        };
        seat.map_err(|_| CallError::Gone("the host ends".to_owned()))
    }

    async fn load(self: &Arc<Self>, code: &Code) -> Result<Arc<Loaded>, CallError> {
        let name = (code.hash, code.world);
        if let Some(loaded) = self.loaded.lock().get(&name) {
            return Ok(Arc::clone(loaded));
        }
        let (inner, code) = (Arc::clone(self), code.clone());
        // Deserialising a large guest takes tens of milliseconds.
        let joined = tokio::task::spawn_blocking(move || inner.prepare(&code)).await;
        let loaded = Arc::new(joined.map_err(|error| CallError::Unfit(error.to_string()))??);
        self.loaded.lock().put(name, Arc::clone(&loaded));
        Ok(loaded)
    }

    fn prepare(&self, code: &Code) -> Result<Loaded, CallError> {
        let unfit = |error: wasmtime::Error| CallError::Unfit(format!("{error:#}"));
        let engine = self.engine(code.world);
        // SAFETY: `Code` is made by `compile` alone, from its own compiler's output or from a file that it sealed
        // itself; it never comes from a tenant.
        let component = unsafe { Component::deserialize(engine, &code.machine_code) }.map_err(unfit)?;
        let (kind, linker) = match code.world {
            World::Sink { reveal: false } => (PluginKind::Sink, &self.sink_linker),
            World::Sink { reveal: true } => (PluginKind::Sink, &self.reveal_linker),
            World::Resolver => (PluginKind::Resolver, &self.resolver_linker),
        };
        let component_type = component.component_type();
        let foreign: Vec<&str> = component_type
            .imports(engine)
            .map(|(name, _)| name)
            .filter(|name| !package::is_provided(name, kind))
            .collect();
        if !foreign.is_empty() {
            return Err(CallError::Unfit(format!("it imports {}", foreign.join(", "))));
        }
        let pre = linker.instantiate_pre(&component).map_err(unfit)?;
        match kind {
            PluginKind::Sink => SinkPluginRevealPre::new(pre).map(Loaded::Sink).map_err(unfit),
            PluginKind::Resolver => SecretResolverPre::new(pre).map(Loaded::Resolver).map_err(unfit),
        }
    }
}

/// What was committed of the sink's state, as the call brings it.
fn committed_state(operation: &Operation) -> BTreeMap<String, Vec<u8>> {
    match operation {
        Operation::OpenSink(call) | Operation::Write(call, _) | Operation::Flush(call) => call.state.clone(),
        _ => BTreeMap::new(),
    }
}

/// A session that is gone is closed.
fn done() -> Reply {
    Reply { outcome: Outcome::Done, state_changes: Vec::new(), usage: Usage::default() }
}

/// The time that `work` was polled for: its own, without its waits.
async fn metered<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let mut work = pin!(work);
    let mut spent = Duration::ZERO;
    let output = poll_fn(|context| {
        let from = Instant::now();
        let polled = work.as_mut().poll(context);
        spent += from.elapsed();
        polled
    })
    .await;
    (output, spent)
}
