//! What the views of secrets, sinks, pipelines and plugins show: plain rows, made by `database` when one is read.
//!
//! One environment's only, as everything a session sees. No row holds a secret's value. Times are microseconds since
//! 1970-01-01 UTC. The views are in `relations::delivery`.

use std::sync::LazyLock;

use sepal_types::{Error, Result};

use super::Lazily;
use crate::context::DeliveryControl;

/// The rows of every view of this family.
pub struct DeliveryRows {
    pub secrets: Vec<SecretRow>,
    pub certificates: Vec<CertificateRow>,
    pub resolvers: Vec<ResolverRow>,
    pub plugins: Vec<PluginRow>,
    pub plugin_capabilities: Vec<PluginCapabilityRow>,
    pub sinks: Vec<SinkRow>,
    pub pipelines: Vec<PipelineRow>,
    pub pipeline_status: Vec<PipelineStatusRow>,
    /// Lazy by themselves: there may be many, and status is asked for every second.
    pub secret_usage: Lazily<Vec<SecretUseRow>>,
    pub dead_letters: Lazily<Vec<DeadLetterRow>>,
}

impl Default for DeliveryRows {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            certificates: Vec::new(),
            resolvers: Vec::new(),
            plugins: Vec::new(),
            plugin_capabilities: Vec::new(),
            sinks: Vec::new(),
            pipelines: Vec::new(),
            pipeline_status: Vec::new(),
            secret_usage: LazyLock::new(Box::new(Vec::new)),
            dead_letters: LazyLock::new(Box::new(Vec::new)),
        }
    }
}

/// A row of `sepal_secrets`.
#[derive(Clone, Debug, Default)]
pub struct SecretRow {
    pub name: String,
    pub version: u64,
    /// `stored`, `environment`, `file`, or the name of the resolver.
    pub source: String,
    pub env_name: String,
    /// `None`: any host that its sink may reach.
    pub allowed_hosts: Option<Vec<String>>,
    /// The id of the key that made it.
    pub owner: String,
    pub created_at: Option<i64>,
    pub updated_at: Option<i64>,
}

/// A row of `sepal_certificates`.
#[derive(Clone, Debug, Default)]
pub struct CertificateRow {
    pub name: String,
    pub version: u64,
    pub subject: String,
    pub not_before: Option<i64>,
    pub not_after: Option<i64>,
    /// In hexadecimal digits.
    pub sha256: String,
    pub owner: String,
}

/// A row of `sepal_secret_usage`.
#[derive(Clone, Debug, Default)]
pub struct SecretUseRow {
    pub at: Option<i64>,
    pub name: String,
    pub version: String,
    /// `sink acme_hook`, `resolver vault`
    pub used_by: String,
    pub purpose: String,
}

/// A row of `sepal_resolvers`.
#[derive(Clone, Debug, Default)]
pub struct ResolverRow {
    pub name: String,
    pub plugin: String,
    /// As JSON; a reference as `SECRET[name]`.
    pub options: String,
    pub allow_hosts: Vec<String>,
}

/// A row of `sepal_plugins`.
#[derive(Clone, Debug, Default)]
pub struct PluginRow {
    pub name: String,
    pub version: String,
    /// `sink` or `resolver`.
    pub kind: String,
    pub api: String,
    pub summary: String,
    pub license: String,
    /// Of the component, in hexadecimal digits.
    pub sha256: String,
    pub bytes: u64,
    /// The trust key that its signature fits.
    pub signed_by: Option<String>,
    /// Comes with the server.
    pub bundled: bool,
}

/// A row of `sepal_plugin_capabilities`.
#[derive(Clone, Debug, Default)]
pub struct PluginCapabilityRow {
    pub plugin: String,
    pub capability: String,
}

/// A row of `sepal_sinks`.
#[derive(Clone, Debug, Default)]
pub struct SinkRow {
    pub name: String,
    /// `plugin webhook 1.4`, `postgres`
    pub connector: String,
    /// As JSON; a reference as `SECRET[name]`.
    pub options: String,
    pub allow_hosts: Vec<String>,
    /// The names of those that write into it.
    pub pipelines: Vec<String>,
}

/// A row of `sepal_pipelines`.
#[derive(Clone, Debug, Default)]
pub struct PipelineRow {
    pub name: String,
    pub query: String,
    pub sink: String,
    pub key: Vec<String>,
    pub format: String,
    pub envelope: String,
    /// As JSON.
    pub options: String,
}

/// A row of `sepal_pipeline_status`.
#[derive(Clone, Debug, Default)]
pub struct PipelineStatusRow {
    pub pipeline: String,
    pub state: String,
    pub phase: String,
    pub lag_rows: Option<i64>,
    pub lag_seconds: Option<f64>,
    pub position: Option<String>,
    pub attempts: u64,
    pub last_error: Option<String>,
    pub last_error_code: Option<String>,
    pub rows_delivered: u64,
    pub batches_delivered: u64,
    pub rows_dead: u64,
    pub retained_bytes: u64,
    pub retention_limit_bytes: u64,
    pub updated_at: Option<i64>,
}

/// A row of `sepal_dead_letters` and of `sepal_sink_errors(…)`.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterRow {
    pub id: i64,
    pub pipeline: String,
    pub at: Option<i64>,
    pub code: String,
    pub message: String,
    /// `c`, `u` or `d`.
    pub op: String,
    /// As JSON.
    pub key: Option<String>,
    /// As JSON.
    pub row: Option<String>,
    pub batch_id: String,
    pub position: String,
}

/// Where there are no pipelines to control.
#[derive(Debug)]
pub struct NoDelivery;

impl DeliveryControl for NoDelivery {
    fn replay(&self, pipeline: &str, _: Option<i64>) -> Result<i64> {
        Err(Error::unsupported(format!("pipeline \"{pipeline}\" cannot be replayed: no pipelines run here")))
    }
}
