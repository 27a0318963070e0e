//! A destination: what it is made from, what it is given, what it answers.
//!
//! `pipeline` calls a [`Sink`] from one task, one call at a time. `sepal-plugins` implements it for WASM guests and
//! for native connectors.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use sepal_types::TenantId;
use serde::{Deserialize, Serialize};

use super::Fault;

/// A sink as CREATE SINK defined it, together with what its pipeline decides.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    pub tenant: TenantId,
    pub environment: String,
    /// The sink's name, for messages.
    pub name: String,
    /// Opaque, stable for the life of the pipeline.
    pub id: String,
    /// `plugin:<name>` of a bundled one, `postgres`, … when `component` is `None`.
    pub connector: String,
    /// A tenant's own plugin.
    pub component: Option<Arc<[u8]>>,
    /// By option name.
    pub options: BTreeMap<String, Setting>,
    /// `https://hooks.example.com:443`, as granted by ALLOW HOSTS.
    pub allow_hosts: Vec<String>,
    /// An administrator granted `reveal`.
    pub reveal: bool,
    pub encoding: Encoding,
    pub envelope: Envelope,
    pub tier: Tier,
}

/// An option's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Setting {
    Text(String),
    Number(f64),
    Flag(bool),
    /// Name and, if pinned, version.
    Secret(String, Option<u64>),
    Certificate(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    ArrowIpcStream,
    Ndjson,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Envelope {
    /// Each change is a row.
    Append,
    /// Key and the row after the change; null for a deletion.
    Upsert,
    /// The row before and after.
    Debezium,
}

/// What a destination promises about a batch that it is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    AtLeastOnce,
    /// The batch's id or the rows' keys make the second time harmless.
    Idempotent,
    /// The destination keeps the position with the data.
    Transactional,
}

/// Answers of `open`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Position that is durable at the destination already (transactional sinks).
    pub committed_through: Option<String>,
    pub max_writers: Option<u32>,
}

/// The columns of the batches that follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSchema {
    pub id: String,
    /// Arrow IPC schema message, or JSON Schema text.
    pub payload: Vec<u8>,
    pub key_columns: Vec<String>,
}

/// Rows on their way. The same id always has the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub id: String,
    pub schema_id: String,
    /// Positions: equal or not, nothing else.
    pub first: String,
    pub last: String,
    pub rows: u32,
    /// From 1.
    pub attempt: u32,
    pub snapshot: bool,
    pub payload: Bytes,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivered {
    /// Durable, apart from the rows listed.
    Durable(Vec<BadRow>),
    /// Held until `flush` says that it is durable.
    Buffered,
    /// The rows not listed are durable.
    RetryRows(Vec<u32>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// Within the batch, from 0.
    pub index: u32,
    pub code: Option<String>,
    pub message: String,
}

/// A key of the sink's state: `None` deletes it.
pub type StateChange = (String, Option<Vec<u8>>);

/// An opened destination.
#[async_trait]
pub trait Sink: fmt::Debug + Send {
    /// `state`: what the sink's earlier batches left, by key. First call, and again after [`Fault`]s that ask for it.
    async fn open(&mut self, state: BTreeMap<String, Vec<u8>>) -> Result<Opened, Fault>;

    async fn set_schema(&mut self, schema: &BatchSchema) -> Result<(), Fault>;

    async fn write(&mut self, batch: &Batch) -> Result<Delivered, Fault>;

    /// Makes everything buffered durable; the last durable position, if any.
    async fn flush(&mut self) -> Result<Option<String>, Fault>;

    /// What the last successful `write` or `flush` wants to keep; committed together with the position.
    fn take_state_changes(&mut self) -> Vec<StateChange>;

    async fn close(&mut self);
}
