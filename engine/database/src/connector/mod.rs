//! What a process brings along to carry rows out and secrets in: the traits that `sepal-plugins` fills.
//!
//! The engine knows no WASM, no HTTP and no destination. It hands a [`SinkSpec`] to [`Connectors::open_sink`] and
//! batches to the [`Sink`] that comes back; `pipeline` decides about retries, dead letters and positions. A sink
//! classifies what went wrong ([`Fault`]), the engine acts.

mod resolver;
mod sink;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use sepal_types::TenantId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use resolver::{ResolveAnswer, ResolveRequest, ResolvedValue, ResolverSpec};
pub use sink::{
    BadRow, Batch, BatchSchema, Delivered, Encoding, Envelope, Opened, Setting, Sink, SinkSpec, StateChange,
    Tier,
};

/// Native connectors, bundled plugins and the host of tenants' plugins.
#[async_trait]
pub trait Connectors: fmt::Debug + Send + Sync {
    /// The plugins that come with the process, usable by every tenant: name and facts.
    fn bundled(&self) -> Vec<PluginFacts>;

    /// The names after `USING` without PLUGIN.
    fn native(&self) -> &[&'static str];

    /// Reads a component's manifest, checks it against its imports and compiles it, in a process of its own.
    ///
    /// `facts.rejected` never: errors say what is wrong with the package, for the person who uploaded it.
    async fn inspect(&self, tenant: TenantId, component: Arc<[u8]>) -> Result<PluginFacts, Fault>;

    /// Checks options against the connector's schema, without reaching out. `options_json` has
    /// `{"$secret":"name"}` where the statement said `SECRET[name]`.
    ///
    /// Errors: [`FaultKind::Misconfigured`] with a JSON pointer.
    fn validate(&self, spec: &SinkSpec) -> Result<(), Fault>;

    /// Validates and asks the destination: the code path of a write, light on side effects.
    async fn check_sink(&self, spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Result<(), Fault>;

    async fn open_sink(&self, spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Result<Box<dyn Sink>, Fault>;

    async fn check_resolver(&self, spec: &ResolverSpec, secrets: Arc<dyn Secrets>) -> Result<(), Fault>;

    /// One answer per request, in order.
    async fn resolve(
        &self,
        spec: &ResolverSpec,
        secrets: Arc<dyn Secrets>,
        requests: Vec<ResolveRequest>,
    ) -> Result<Vec<ResolveAnswer>, Fault>;

    async fn revoke_lease(
        &self,
        spec: &ResolverSpec,
        secrets: Arc<dyn Secrets>,
        lease: &str,
    ) -> Result<(), Fault>;

    /// The tenant is closed or dropped: its worker process ends.
    fn forget_tenant(&self, tenant: TenantId);
}

/// The secrets of one tenant's environment, for one sink or resolver. Every call is recorded.
#[async_trait]
pub trait Secrets: fmt::Debug + Send + Sync {
    /// Errors: [`FaultKind::Unauthorized`] when the secret may not be used,
    /// [`FaultKind::Misconfigured`] when it does not exist, [`FaultKind::Transient`] when its resolver is out of reach.
    async fn secret(&self, name: &str, version: Option<u64>) -> Result<SecretValue, Fault>;

    /// PEM of the chain and of the key.
    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault>;

    /// Forgets what was resolved and cached: the destination refused it.
    fn forget(&self, name: &str);

    /// The plaintext went to the plugin itself.
    fn note_reveal(&self, name: &str);
}

/// A value, wiped when dropped.
#[derive(Clone)]
pub struct SecretValue {
    pub value: Arc<Zeroizing<Vec<u8>>>,
    /// Changes when the value does. Safe to log.
    pub version: String,
    /// `None`: any host that the sink may reach. Else names, `*.suffix` among them.
    pub allowed_hosts: Option<Vec<String>>,
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue").field("version", &self.version).finish_non_exhaustive()
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub struct CertificateValue {
    pub chain_pem: String,
    pub key_pem: Arc<Zeroizing<String>>,
    pub version: String,
}

impl fmt::Debug for CertificateValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateValue").field("version", &self.version).finish_non_exhaustive()
    }
}

/// What went wrong outside, and what is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: FaultKind,
    /// Machine-readable and stable: `http.503`, `pg.23505`, `plugin.trap`.
    pub code: Option<String>,
    /// For people. Holds no secret.
    pub message: String,
    pub retry_after_ms: Option<u32>,
}

/// How the engine reacts; the names are those of the plugin interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultKind {
    /// Retry the same batch with backoff.
    Transient,
    /// Close, open, retry.
    NotConnected,
    /// Resolve secrets anew, open once more, then pause.
    Unauthorized,
    /// The data can never be accepted: isolate the rows, dead-letter them, go on.
    Rejected,
    /// Pause; dead-letter nothing.
    Misconfigured,
    /// A bug or a broken limit of the plugin: three tries with a fresh instance, then pause.
    Internal,
}

impl FaultKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::NotConnected => "not-connected",
            Self::Unauthorized => "unauthorized",
            Self::Rejected => "rejected",
            Self::Misconfigured => "misconfigured",
            Self::Internal => "internal",
        }
    }
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into(), retry_after_ms: None }
    }

    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Fault {}

/// What is known of a plugin once it was inspected; shown by `sepal_plugins` and kept with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginFacts {
    /// As in the manifest: `acme/webhook`.
    pub name: String,
    pub version: String,
    pub kind: PluginKind,
    /// `sepal:plugin@0.1.0`
    pub api: String,
    pub summary: String,
    pub license: String,
    /// Lower-case hex.
    pub sha256: String,
    pub bytes: u64,
    pub encodings: Vec<Encoding>,
    pub envelopes: Vec<Envelope>,
    pub tier: Tier,
    /// Keeps an instance between batches.
    pub session: bool,
    /// JSON Schema 2020-12 of the options.
    pub config_schema: String,
    /// Names of its slots for secrets.
    pub secrets: Vec<String>,
    /// What it asks for, one line each: `http https://*.example.com:443`, `state 65536`, `reveal`,
    /// `secret token http-header`.
    pub capabilities: Vec<String>,
    /// The manifest's own idea of a batch.
    pub max_rows: u32,
    pub max_bytes: u32,
    pub linger_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginKind {
    Sink,
    Resolver,
}
