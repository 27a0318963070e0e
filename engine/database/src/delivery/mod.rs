//! What a tenant's sinks, resolvers and pipelines are made of: their definitions, their secrets, and what they need
//! of the process.
//!
//! `session::delivery` defines them, `pipeline` runs them, `secrets` answers both. What a statement says becomes an
//! [`objects`] row of the tenant's store; what is secret is in the control database and only its name is here.
//! Nothing in this folder reaches out: that is [`Connectors`]'.

pub mod components;
pub mod objects;
pub mod pipelines;
pub mod plugins;
mod replay;
mod rows;
pub mod secrets;
pub mod settings;
pub mod sinks;
pub mod system_tables;

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;
use sepal_control::Control;
use sepal_storage::LogHold;
use sepal_types::{Clock, Error, Result, SqlState, SystemClock, TenantId};

use crate::{
    connector::{Connectors, Fault, FaultKind},
    options::{DatabaseOptions, SecretSources},
};

pub use replay::Replay;
pub use rows::rows;

/// One tenant's share of what the process lends to statements and pipelines.
pub struct Delivery {
    pub tenant: TenantId,
    pub control: Arc<Control>,
    connectors: Option<Arc<dyn Connectors>>,
    pub sources: SecretSources,
    pub allow_unsigned_plugins: bool,
    /// The operator lets plugins that ask for it see the values of their secrets.
    pub allow_reveal: bool,
    pub(crate) resolved: secrets::Cache,
    /// Of pipelines that were created and not yet begun: their part of the log, by pipeline id.
    begun: Mutex<HashMap<String, LogHold>>,
    /// Held from looking whether there are pipelines to noting it.
    noting: Mutex<()>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Delivery {
    pub fn new(tenant: TenantId, control: Arc<Control>, options: &DatabaseOptions) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            control,
            connectors: options.connectors.clone(),
            sources: options.secret_sources.clone(),
            allow_unsigned_plugins: options.allow_unsigned_plugins,
            allow_reveal: options.allow_reveal,
            resolved: secrets::Cache::default(),
            begun: Mutex::default(),
            noting: Mutex::default(),
        })
    }

    /// Errors: 0A000 in a process that came without any.
    pub fn connectors(&self) -> Result<&Arc<dyn Connectors>> {
        self.connectors.as_ref().ok_or_else(|| {
            Error::unsupported("this process has no connectors: it runs neither plugins nor sinks")
                .with_hint("Use a server that was started with them: sepal serve or sepal dev.")
        })
    }

    /// A pipeline's log from its creation on, from the commit to the pipeline's first own hold.
    pub fn keep_log(&self, pipeline: String, hold: LogHold) {
        self.begun.lock().insert(pipeline, hold);
    }

    /// Hands that over. `None` after a restart, when the log's own rule keeps it: `TenantStore::release_unheld_log`.
    pub fn take_log(&self, pipeline: &str) -> Option<LogHold> {
        self.begun.lock().remove(pipeline)
    }

    /// Tells the control database whether the tenant has pipelines, so that the next start opens it. `has` is asked
    /// under a lock: of two who note at once, the later one has looked later. Blocking.
    pub fn note_pipelines(&self, has: impl FnOnce() -> Result<bool>) -> Result<()> {
        let _noting = self.noting.lock();
        Ok(self.control.note_pipelines(self.tenant, has()?)?)
    }
}

/// A connector's complaint as the answer to a statement. `what` is the thing that complains: `sink "hook"`.
pub fn fault_error(what: &str, fault: &Fault) -> Error {
    let (state, hint) = match fault.kind {
        FaultKind::Misconfigured => (SqlState::InvalidParameterValue, None),
        FaultKind::Unauthorized => (
            SqlState::ExternalRoutineException,
            Some("The destination refuses the credentials: check the secrets that OPTIONS names."),
        ),
        FaultKind::Transient | FaultKind::NotConnected => (
            SqlState::ExternalRoutineException,
            Some("Repeat the statement once the destination answers; ALLOW HOSTS must name it."),
        ),
        FaultKind::Rejected | FaultKind::Internal => (SqlState::ExternalRoutineException, None),
    };
    let error = Error::new(state, format!("{what}: {}", fault.message));
    let error = match &fault.code {
        Some(code) => error.with_detail(format!("{} ({code})", fault.kind.name())),
        None => error.with_detail(fault.kind.name()),
    };
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Microseconds since 1970 UTC.
pub fn now_us() -> i64 {
    SystemClock.now_us()
}

#[cfg(test)]
mod tests;
