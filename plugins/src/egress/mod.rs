//! The way out of a plugin: the one place that sends what guests ask for.
//!
//! # A request's way
//! 1. `request`: one well-formed request, no header that is the connection's, no credentials in the URL.
//! 2. `rules`: scheme, host and port are among what manifest and grant both allow.
//! 3. `address`: an address in the URL is public, or the operator's exception.
//! 4. `quota`: so many a second, so many at once.
//! 5. `outside`: secrets take the place of their slots, for hosts that they allow; `lookups` finds them, `body` puts them
//!    into bodies.
//! 6. `client`: the name is resolved, every address judged, and one of those judged connected to.
//! 7. `scrub`: the response loses what it echoes of the secrets.
//!
//! `runtime` makes one [`Egress`] per process and one [`PluginOutside`] per opened sink or resolver. A worker process
//! never runs any of this: it asks over its socket.

mod address;
mod body;
mod client;
mod lookups;
mod outside;
mod quota;
mod reach;
mod request;
mod rules;
mod scrub;
mod telemetry;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use parking_lot::Mutex;
use rustls::{ClientConfig, pki_types::CertificateDer};
use sepal_database::{TenantId, connector::Secrets};

pub use address::{AddressPolicy, is_public, parse_networks};
pub use client::Resolve;
pub use outside::PluginOutside;
pub(crate) use outside::Rehearsed;
pub use rules::{Destination, DestinationHost, HostPattern, HostRule, HostRuleError, Scheme, intersect};
pub use scrub::{MIN_SECRET_BYTES, Scrubber};
pub(crate) use telemetry::line;
pub use telemetry::{MetricKind, MetricSample};

use client::{Judge, SystemResolver};
use lookups::Lookups;
use telemetry::{Source, SourceKey};

use crate::{
    call::HttpError,
    manifest::{EffectiveLimits, Manifest, SlotUse},
};

/// How long counters of a sink that nobody has open are kept.
const KEPT_UNUSED: Duration = Duration::from_secs(3600);

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct EgressOptions {
    /// Reachable although not public. Empty in production.
    pub private_networks: Vec<IpNet>,
    /// Trusted beside the public authorities.
    pub extra_roots: Vec<CertificateDer<'static>>,
    pub resolver: Arc<dyn Resolve>,
    /// Name, connection and handshake; within a request's own time.
    pub connect_timeout: Duration,
    pub max_timeout: Duration,
    pub max_request_bytes: u64,
}

impl Default for EgressOptions {
    fn default() -> Self {
        Self {
            private_networks: Vec::new(),
            extra_roots: Vec::new(),
            resolver: Arc::new(SystemResolver),
            connect_timeout: Duration::from_secs(10),
            max_timeout: Duration::from_secs(60),
            max_request_bytes: 32 << 20,
        }
    }
}

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error(
        "a certificate authority for plugins' requests cannot be used: {0}; give one DER certificate each"
    )]
    Root(#[source] rustls::Error),
    #[error("TLS for plugins' requests cannot be set up: {0}")]
    Tls(#[source] rustls::Error),
    #[error("the HTTP client for plugins' requests cannot be set up: {0}")]
    Client(#[source] reqwest::Error),
}

/// What fills a slot, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotGrant {
    /// The secret's name.
    pub secret: String,
    /// If pinned.
    pub version: Option<u64>,
    /// As the manifest has it: nothing else is done with the value.
    pub uses: Vec<SlotUse>,
}

impl SlotGrant {
    /// Slots as options fill them, with the uses that the manifest names.
    pub fn of(manifest: &Manifest, slots: BTreeMap<String, (String, Option<u64>)>) -> BTreeMap<String, Self> {
        let described = |slot: &String| manifest.secrets.get(slot).map(|described| described.uses.clone());
        slots
            .into_iter()
            .map(|(slot, (secret, version))| {
                let uses = described(&slot).unwrap_or_default();
                (slot, Self { secret, version, uses })
            })
            .collect()
    }
}

/// What one sink or resolver may do.
#[derive(Clone, Debug)]
pub struct EgressSpec {
    pub tenant: TenantId,
    /// The sink's or resolver's.
    pub name: String,
    /// Empty for a resolver and for a check.
    pub pipeline: String,
    pub slots: BTreeMap<String, SlotGrant>,
    pub secrets: Arc<dyn Secrets>,
    /// What holds: [`intersect`] of manifest and grant.
    pub allow: Vec<HostRule>,
    /// The guest may have plaintext.
    pub reveal: bool,
    pub limits: EffectiveLimits,
}

/// The way out. One per process.
#[derive(Debug)]
pub struct Egress {
    shared: Arc<Shared>,
}

struct Shared {
    policy: Arc<AddressPolicy>,
    judge: Arc<Judge>,
    tls: ClientConfig,
    connect_timeout: Duration,
    max_timeout: Duration,
    max_request_bytes: u64,
    clients: Mutex<HashMap<TenantId, reqwest::Client>>,
    sources: Mutex<HashMap<SourceKey, Arc<Source>>>,
}

impl Egress {
    pub fn new(options: EgressOptions) -> Result<Self, EgressError> {
        let policy = Arc::new(AddressPolicy::new(options.private_networks));
        let judge = Arc::new(Judge { resolver: options.resolver, policy: Arc::clone(&policy) });
        let tls = client::tls(&options.extra_roots)?;
        // A set-up that does not work says so at start, not at the first batch.
        client::build(&tls, Arc::clone(&judge), options.connect_timeout).map_err(EgressError::Client)?;
        let shared = Shared {
            policy,
            judge,
            tls,
            connect_timeout: options.connect_timeout,
            max_timeout: options.max_timeout,
            max_request_bytes: options.max_request_bytes,
            clients: Mutex::default(),
            sources: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What answers the guests of one opened sink or resolver.
    pub fn outside(&self, spec: EgressSpec) -> Arc<PluginOutside> {
        let key = SourceKey { tenant: spec.tenant, name: spec.name, pipeline: spec.pipeline };
        let source = self.shared.source(key, spec.limits);
        let secrets = Arc::new(Lookups::new(spec.secrets, Arc::clone(&source)));
        Arc::new(PluginOutside {
            shared: Arc::clone(&self.shared),
            source,
            slots: spec.slots,
            secrets,
            allow: spec.allow,
            reveal: spec.reveal,
            scrubber: Arc::default(),
            trouble: Mutex::default(),
        })
    }

    /// Everything countable, for `/metrics`.
    pub fn metrics(&self) -> Vec<MetricSample> {
        let sources: Vec<Arc<Source>> = self.shared.sources.lock().values().cloned().collect();
        let mut samples = Vec::new();
        sources.iter().for_each(|source| source.samples(&mut samples));
        samples
    }

    /// The tenant is closed or dropped: its connections close, its counters go.
    pub fn forget_tenant(&self, tenant: TenantId) {
        self.shared.clients.lock().remove(&tenant);
        self.shared.sources.lock().retain(|key, _| key.tenant != tenant);
    }
}

impl Shared {
    fn client(&self, tenant: TenantId) -> Result<reqwest::Client, HttpError> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&tenant) {
            return Ok(client.clone());
        }
        let client = client::build(&self.tls, Arc::clone(&self.judge), self.connect_timeout)
            .map_err(|error| HttpError::Protocol(format!("the HTTP client cannot be set up: {error}")))?;
        clients.insert(tenant, client.clone());
        Ok(client)
    }

    /// The same one as before, unless its limits changed.
    fn source(&self, key: SourceKey, limits: EffectiveLimits) -> Arc<Source> {
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(&key).filter(|source| source.limits == limits) {
            source.touch();
            return Arc::clone(source);
        }
        sources.retain(|_, source| Arc::strong_count(source) > 1 || source.unused_for() < KEPT_UNUSED);
        let source = Arc::new(Source::new(key.clone(), limits));
        sources.insert(key, Arc::clone(&source));
        source
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("policy", &self.policy).finish_non_exhaustive()
    }
}
