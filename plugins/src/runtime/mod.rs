//! Fills [`Connectors`]: sinks and resolvers out of plugins and native connectors.
//!
//! # CREATE SINK's way
//! 1. [`Runtime::validate`]: the options fit the plugin's schema, every secret a slot, its hosts the grant.
//! 2. [`Runtime::check_sink`]: the guest's `check`, over the same road as a write.
//! 3. [`Runtime::open_sink`]: a [`sink::PluginSink`], which makes a `call::Call` of every batch.
//!
//! Which process a call runs in is the `GuestHost`'s; where its requests go is `egress`'s. Nothing here runs a guest or
//! sees a secret's value, but for those that resolvers bring.

mod faults;
mod kept;
mod plugins;
mod prepare;
mod resolver;
mod sink;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use async_trait::async_trait;
use sepal_database::{
    TenantId,
    connector::{
        Connectors, Fault, FaultKind, PluginFacts, ResolveAnswer, ResolveRequest, ResolverSpec, Secrets,
        Sink, SinkSpec,
    },
};

use self::{plugins::Plugins, prepare::Prepared, sink::PluginSink};
use crate::{
    call::{Call, GuestHost, Operation, Outcome},
    compile::Compiler,
    egress::Egress,
    manifest::EffectiveLimits,
    package::{Package, PackageError},
    sinks::{self, Native},
};

/// What a [`Runtime`] is made of.
#[derive(Debug)]
pub struct RuntimeOptions {
    /// Workers in a server, `host::LocalHost` for development.
    pub host: Arc<dyn GuestHost>,
    pub compiler: Arc<Compiler>,
    pub egress: Arc<Egress>,
    pub native: Native,
    /// What the operator allows a guest at most.
    pub caps: EffectiveLimits,
}

/// Plugins and native connectors of this process.
pub struct Runtime(Arc<Inner>);

struct Inner {
    host: Arc<dyn GuestHost>,
    egress: Arc<Egress>,
    native: Native,
    caps: EffectiveLimits,
    plugins: Arc<Plugins>,
    next_session: AtomicU64,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("host", &self.0.host).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Errors: a bundled plugin is not one, which is a fault of the build.
    pub fn new(options: RuntimeOptions) -> Result<Self, PackageError> {
        let plugins = Arc::new(Plugins::new(options.compiler)?);
        Ok(Self(Arc::new(Inner {
            host: options.host,
            egress: options.egress,
            native: options.native,
            caps: options.caps,
            plugins,
            next_session: AtomicU64::new(1),
        })))
    }

    /// A call for its answer alone: checks, and everything of resolvers.
    async fn ask(&self, prepared: &Prepared, operation: Operation) -> Result<Outcome, Fault> {
        let call = Call { limits: prepared.limits, session: None, continues: false, operation };
        let outside = Arc::clone(&prepared.outside);
        let reply = self.0.host.call(prepared.tenant, &prepared.code, call, outside).await;
        match reply.map_err(faults::of_call)?.outcome {
            Outcome::Failed(fault) => Err(prepared.explained(fault)),
            outcome => Ok(outcome),
        }
    }
}

#[async_trait]
impl Connectors for Runtime {
    fn bundled(&self) -> Vec<PluginFacts> {
        self.0.plugins.bundled().map(|package| package.facts()).collect()
    }

    fn native(&self) -> &[&'static str] {
        sinks::NAMES
    }

    async fn inspect(&self, tenant: TenantId, component: Arc<[u8]>) -> Result<PluginFacts, Fault> {
        let package = self.0.plugins.read(Arc::clone(&component)).await?;
        self.0.plugins.code(tenant, &package, Some(component)).await?;
        Ok(package.facts())
    }

    fn validate(&self, spec: &SinkSpec) -> Result<(), Fault> {
        if !is_plugin(&spec.connector) {
            return self.0.native.validate(spec);
        }
        let package = self.0.plugins.find(&spec.connector, spec.component.as_deref())?;
        prepare::sink(&package, spec).map(|_| ())
    }

    async fn check_sink(&self, spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Result<(), Fault> {
        if !is_plugin(&spec.connector) {
            return self.0.native.check(spec, secrets).await;
        }
        let (_, prepared, open) = self.0.prepare_sink(spec, secrets, String::new()).await?;
        match self.ask(&prepared, Operation::CheckSink(open)).await? {
            Outcome::Done => Ok(()),
            other => Err(faults::unexpected("check", &other)),
        }
    }

    async fn open_sink(&self, spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Result<Box<dyn Sink>, Fault> {
        if !is_plugin(&spec.connector) {
            return self.0.native.open(spec, secrets).await;
        }
        let (package, prepared, open) = self.0.prepare_sink(spec, secrets, spec.id.clone()).await?;
        Ok(Box::new(PluginSink::new(Arc::clone(&self.0), &package, prepared, open)))
    }

    async fn check_resolver(&self, spec: &ResolverSpec, secrets: Arc<dyn Secrets>) -> Result<(), Fault> {
        resolver::check(self, spec, secrets).await
    }

    async fn resolve(
        &self,
        spec: &ResolverSpec,
        secrets: Arc<dyn Secrets>,
        requests: Vec<ResolveRequest>,
    ) -> Result<Vec<ResolveAnswer>, Fault> {
        resolver::resolve(self, spec, secrets, requests).await
    }

    async fn revoke_lease(
        &self,
        spec: &ResolverSpec,
        secrets: Arc<dyn Secrets>,
        lease: &str,
    ) -> Result<(), Fault> {
        resolver::revoke(self, spec, secrets, lease).await
    }

    fn forget_tenant(&self, tenant: TenantId) {
        self.0.host.forget_tenant(tenant);
        self.0.egress.forget_tenant(tenant);
    }
}

fn is_plugin(connector: &str) -> bool {
    connector.starts_with(plugins::PREFIX)
}

/// The plugin is not what the statement takes it for.
fn wrong_kind(package: &Package, wanted: &str) -> Fault {
    let problem = format!("plugin {} is no {wanted}", package.manifest.plugin.name);
    Fault::new(FaultKind::Misconfigured, problem).with_code("config")
}
