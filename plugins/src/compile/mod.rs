//! From WASM to machine code: in a process of its own, once per component and machine, kept sealed.
//!
//! Cranelift cannot be interrupted and is fed by strangers, so it runs in a child with limits, no files and no
//! environment: `<this program> plugin-compile`, the component on its standard input, the machine code on its output.
//! What comes back is trusted as the compiler is: running machine code is running it. So it is never taken from a
//! tenant, and on disk it is sealed under a key of this node.

mod cache;
mod child;
#[cfg(test)]
mod tests;

use std::{ffi::OsString, fmt, path::PathBuf, sync::Arc, time::Duration};

use sepal_database::connector::{Fault, FaultKind};
use tokio::sync::Semaphore;

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
}

impl From<CompileError> for Fault {
    fn from(error: CompileError) -> Self {
        let kind = match error {
            CompileError::Rejected(_) | CompileError::TooSlow | CompileError::Died(_) => {
                FaultKind::Misconfigured
            }
            CompileError::Unavailable(_) => FaultKind::Transient,
        };
        Self::new(kind, error.to_string()).with_code("plugin.compile")
    }
}

/// Makes [`Code`]; nothing else does.
pub struct Compiler {
    how: How,
    cache: Option<CodeCache>,
    /// One at a time: a compilation is all the CPU there is to spare.
    turn: Arc<Semaphore>,
    machine: String,
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
        Ok(Self { how, cache, turn: Arc::new(Semaphore::new(1)), machine })
    }

    /// Machine code of a component whose SHA-256 is `hash`: from the cache, or compiled.
    pub async fn code(
        self: &Arc<Self>,
        hash: ComponentHash,
        world: World,
        component: Arc<[u8]>,
    ) -> Result<Code, CompileError> {
        let name = format!("{}-{}", hex(&hash), self.machine);
        if let Some(machine_code) = self.cached(&name).await {
            return Ok(Code { hash, world, machine_code });
        }
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let turn = turn.map_err(|_| CompileError::Unavailable("it is shutting down".to_owned()))?;
        // Another call may have compiled it meanwhile.
        if let Some(machine_code) = self.cached(&name).await {
            return Ok(Code { hash, world, machine_code });
        }
        let compiler = Arc::clone(self);
        let work = move || {
            let _turn = turn;
            compiler.compile(&name, &component)
        };
        let joined = tokio::task::spawn_blocking(work).await;
        let machine_code = joined.map_err(|error| CompileError::Died(error.to_string()))??;
        Ok(Code { hash, world, machine_code })
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
