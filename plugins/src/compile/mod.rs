//! From WASM to machine code: in a process of its own, once per component and machine, kept sealed.
//!
//! Cranelift cannot be interrupted and is fed by strangers, so it runs in a child with limits, no files and no
//! environment: `<this program> plugin-compile`, the component on its standard input, the machine code on its output.
//! What comes back is trusted as the compiler is: running machine code is running it. So it is never taken from a
//! tenant, and on disk it is sealed under a key of this node.
//!
//! A compilation takes a core for up to a minute, so there is a queue (`line`): one of tenants' components at a time,
//! the tenants by turns, and beside it one of our own. What did not compile is remembered and not tried again.

mod cache;
mod child;
mod line;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fmt,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;
use sepal_database::{
    TenantId,
    connector::{Fault, FaultKind},
};

use self::line::Line;
pub use self::{
    cache::{CodeCache, CodeVault, KeyVault},
    child::child_main,
};
use crate::{
    call::{Code, ComponentHash},
    host::engine,
    manifest::World,
    package::hex,
};

/// The hidden argument that makes the program a compiler.
pub const CHILD_ARGUMENT: &str = "plugin-compile";

/// Address space of the child. Python's 18 MB take less than half.
const CHILD_MEMORY_BYTES: u64 = 2 << 30;
const CHILD_CPU_SECONDS: u64 = 60;
const CHILD_THREADS: &str = "2";
/// Machine code is about three times its WASM.
const MAX_CODE_BYTES: usize = 256 << 20;
/// On a busy machine 60 seconds of CPU are more of the clock.
const PATIENCE: Duration = Duration::from_secs(180);
/// Components that did not compile.
const FAILURES: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");
/// What depends on how busy the machine was is tried again after so long.
const FAILURE_KEPT: Duration = Duration::from_secs(600);

/// Why there is no machine code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("the component does not compile: {0}")]
    Rejected(String),
    #[error("the component takes more than {CHILD_CPU_SECONDS} seconds to compile: make it smaller")]
    TooSlow,
    #[error(
        "the compiler ended without an answer ({0}); it may use 2 GiB of memory: make the component smaller"
    )]
    Died(String),
    #[error("the compiler cannot be run: {0}")]
    Unavailable(String),
    #[error("{waiting} other plugins of this tenant wait to be compiled: try again when they are done")]
    Busy { waiting: usize },
}

impl From<CompileError> for Fault {
    fn from(error: CompileError) -> Self {
        let kind = match error {
            CompileError::Rejected(_) | CompileError::TooSlow | CompileError::Died(_) => {
                FaultKind::Misconfigured
            }
            CompileError::Unavailable(_) | CompileError::Busy { .. } => FaultKind::Transient,
        };
        Self::new(kind, error.to_string()).with_code("plugin.compile")
    }
}

/// Makes [`Code`]; nothing else does.
pub struct Compiler {
    how: How,
    cache: Option<CodeCache>,
    line: Line,
    failures: Mutex<LruCache<ComponentHash, Failure>>,
    machine: String,
}

struct Failure {
    error: CompileError,
    /// `None`: for good.
    until: Option<Instant>,
}

#[derive(Clone)]
enum How {
    Child { program: PathBuf, arguments: Vec<OsString> },
    Here,
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl Compiler {
    /// In children of this program, which has to call [`child_main`] when its first argument is [`CHILD_ARGUMENT`].
    pub fn in_children(cache: Option<CodeCache>) -> Result<Self, CompileError> {
        let program =
            std::env::current_exe().map_err(|error| CompileError::Unavailable(error.to_string()))?;
        Self::in_children_of(program, vec![CHILD_ARGUMENT.into()], cache)
    }

    /// In children of another program that does the same.
    pub fn in_children_of(
        program: PathBuf,
        arguments: Vec<OsString>,
        cache: Option<CodeCache>,
    ) -> Result<Self, CompileError> {
        Self::new(How::Child { program, arguments }, cache)
    }

    /// In this process: for one's own components (`sepal dev`, tests), never for a stranger's.
    pub fn in_this_process() -> Result<Self, CompileError> {
        Self::new(How::Here, None)
    }

    fn new(how: How, cache: Option<CodeCache>) -> Result<Self, CompileError> {
        let machine = engine::machine_tag().map_err(CompileError::Unavailable)?;
        let failures = Mutex::new(LruCache::new(FAILURES));
        Ok(Self { how, cache, line: Line::default(), failures, machine })
    }

    /// Machine code of one of our own components, whose SHA-256 is `hash`: from the cache, or compiled. No tenant's
    /// is waited for.
    pub async fn code(
        self: &Arc<Self>,
        hash: ComponentHash,
        world: World,
        component: Arc<[u8]>,
    ) -> Result<Code, CompileError> {
        self.code_of(None, hash, world, component).await
    }

    /// Machine code of a tenant's component.
    ///
    /// Errors: also [`CompileError::Busy`], when the tenant has others waiting.
    pub async fn code_for(
        self: &Arc<Self>,
        tenant: TenantId,
        hash: ComponentHash,
        world: World,
        component: Arc<[u8]>,
    ) -> Result<Code, CompileError> {
        self.code_of(Some(tenant), hash, world, component).await
    }

    async fn code_of(
        self: &Arc<Self>,
        tenant: Option<TenantId>,
        hash: ComponentHash,
        world: World,
        component: Arc<[u8]>,
    ) -> Result<Code, CompileError> {
        let owner = tenant.map_or_else(|| cache::OURS.to_owned(), |tenant| tenant.to_string());
        let name = cache::file_name(&owner, &hex(&hash), &self.machine);
        if let Some(machine_code) = self.known(&hash, &name).await? {
            return Ok(Code { hash, world, machine_code });
        }
        let turn = self.line.turn(tenant).await?;
        // Another call may have compiled it meanwhile.
        if let Some(machine_code) = self.known(&hash, &name).await? {
            return Ok(Code { hash, world, machine_code });
        }
        let compiler = Arc::clone(self);
        let work = move || {
            // Until the compiler has ended, whoever waits for it.
            let _turn = turn;
            compiler.compile(&name, &component).inspect_err(|error| compiler.remember(hash, error))
        };
        let joined = tokio::task::spawn_blocking(work).await;
        let machine_code = joined.map_err(|error| CompileError::Died(error.to_string()))??;
        Ok(Code { hash, world, machine_code })
    }

    /// What came of it before.
    async fn known(
        self: &Arc<Self>,
        hash: &ComponentHash,
        name: &str,
    ) -> Result<Option<Arc<[u8]>>, CompileError> {
        if let Some(error) = self.failed_before(hash) {
            return Err(error);
        }
        Ok(self.cached(name).await)
    }

    fn failed_before(&self, hash: &ComponentHash) -> Option<CompileError> {
        let mut failures = self.failures.lock();
        let failure = failures.get(hash)?;
        if failure.until.is_none_or(|until| Instant::now() < until) {
            return Some(failure.error.clone());
        }
        failures.pop(hash);
        None
    }

    fn remember(&self, hash: ComponentHash, error: &CompileError) {
        let until = match error {
            CompileError::Rejected(_) => None,
            CompileError::TooSlow | CompileError::Died(_) => Some(Instant::now() + FAILURE_KEPT),
            CompileError::Unavailable(_) | CompileError::Busy { .. } => return,
        };
        self.failures.lock().put(hash, Failure { error: error.clone(), until });
    }

    async fn cached(self: &Arc<Self>, name: &str) -> Option<Arc<[u8]>> {
        self.cache.as_ref()?;
        let (compiler, name) = (Arc::clone(self), name.to_owned());
        let read = move || compiler.cache.as_ref()?.get(&name);
        tokio::task::spawn_blocking(read).await.ok()?.map(Into::into)
    }

    fn compile(&self, name: &str, component: &[u8]) -> Result<Arc<[u8]>, CompileError> {
        let machine_code = match &self.how {
            How::Child { program, arguments } => child::run(program, arguments, component, PATIENCE)?,
            How::Here => engine::compile(component).map_err(CompileError::Rejected)?,
        };
        if let Some(Err(error)) = self.cache.as_ref().map(|cache| cache.put(name, &machine_code)) {
            tracing::warn!(%error, "machine code was not kept: the component is compiled again next time");
        }
        Ok(machine_code.into())
    }
}
