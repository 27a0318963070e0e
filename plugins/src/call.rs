//! One call of a guest, as a value: what goes in, what comes out, what the guest may ask meanwhile.
//!
//! `runtime` makes calls; `host` runs them in this process, `worker` carries them to another one. Everything here
//! is plain data or a trait over it, so both ways are the same.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use sepal_database::{
    TenantId,
    connector::{BatchSchema, Delivered, Encoding, Envelope, Fault, Opened},
};
use serde::{Deserialize, Serialize};

use crate::manifest::{EffectiveLimits, World};

/// SHA-256 of a component.
pub type ComponentHash = [u8; 32];

/// A component that was compiled for this machine. Only [`crate::compile`] makes one: deserialising foreign machine
/// code is running it.
#[derive(Clone)]
pub struct Code {
    pub hash: ComponentHash,
    pub world: World,
    pub machine_code: Arc<[u8]>,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code").field("bytes", &self.machine_code.len()).finish_non_exhaustive()
    }
}

/// Names an instance that is kept between calls (lifecycle `session`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A call of a guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    pub limits: EffectiveLimits,
    /// `None`: a fresh instance, dropped afterwards.
    pub session: Option<SessionId>,
    /// The session holds buffered rows: if its instance is gone the call fails with `NotConnected`.
    pub continues: bool,
    pub operation: Operation,
}

/// Which export, with its arguments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// `check`
    CheckSink(OpenArgs),
    /// `open` alone
    OpenSink(SinkCall),
    /// `open` and `set-schema` as far as the instance has not had them, then `write`.
    Write(SinkCall, GuestBatch),
    Flush(SinkCall),
    /// `close`, and the instance is dropped.
    Close,
    CheckResolver {
        config_json: String,
    },
    /// `open`, then `resolve`.
    Resolve {
        config_json: String,
        requests: Vec<ResolverRequest>,
    },
    Revoke {
        config_json: String,
        lease_id: String,
    },
}

/// What `open` is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenArgs {
    /// Validated; sensitive fields hold `{"$secret":"<slot>"}`.
    pub config_json: String,
    pub encoding: Encoding,
    pub envelope: Envelope,
    pub sink_id: String,
    pub worker: u32,
    pub parallelism: u32,
    pub attributes: Vec<(String, String)>,
}

/// What every call of a sink brings along: a fresh instance knows nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SinkCall {
    pub open: OpenArgs,
    pub schema: Option<BatchSchema>,
    /// The sink's committed state. Changes come back with the reply.
    pub state: BTreeMap<String, Vec<u8>>,
}

/// A batch as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestBatch {
    pub id: String,
    pub schema_id: String,
    pub first: String,
    pub last: String,
    pub rows: u32,
    pub attempt: u32,
    pub snapshot: bool,
    pub attributes: Vec<(String, String)>,
    #[serde(with = "serde_bytes_vec")]
    pub payload: Vec<u8>,
}

/// Byte strings as byte strings: one by one they cost a call each.
pub(crate) mod serde_bytes_vec {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        // postcard lends the bytes of the frame.
        <&[u8]>::deserialize(deserializer).map(<[u8]>::to_vec)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverRequest {
    pub name: String,
    pub options_json: String,
    pub have_version: Option<String>,
}

/// What came of a call that ran to its end; a trap or a broken limit is a [`CallError`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    pub outcome: Outcome,
    /// Keys set, or deleted with `None`, in order.
    pub state_changes: Vec<(String, Option<Vec<u8>>)>,
    pub usage: Usage,
}

/// By operation.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    Opened(Opened),
    Written(Delivered),
    Flushed(Option<String>),
    Resolved(Vec<ResolverAnswer>),
    /// The guest's own error.
    Failed(Fault),
}

/// Plain data; `runtime` moves the value into memory that is wiped.
#[derive(Serialize, Deserialize)]
pub enum ResolverAnswer {
    Value { value: Vec<u8>, version: Option<String>, ttl_seconds: Option<u32>, lease_id: Option<String> },
    Unchanged,
    NotFound,
    Failed(Fault),
}

impl fmt::Debug for ResolverAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value { .. } => "Value",
            Self::Unchanged => "Unchanged",
            Self::NotFound => "NotFound",
            Self::Failed(_) => "Failed",
        })
    }
}

/// What a call took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub instantiate_us: u32,
    pub cpu_us: u64,
    pub wall_us: u64,
    pub peak_memory_bytes: u64,
}

/// Why a call has no reply. The instance is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CallError {
    #[error("the plugin trapped: {0}")]
    Trap(String),
    #[error("the plugin used more than its {limit_ms} ms of CPU time")]
    Cpu { limit_ms: u32 },
    #[error("the plugin took longer than {limit_ms} ms")]
    Wall { limit_ms: u32 },
    #[error("the plugin asked for more than its {limit_bytes} bytes of memory")]
    Memory { limit_bytes: u64 },
    #[error("the plugin broke a limit: {0}")]
    Limit(String),
    /// The worker process ended, or the session's instance is gone: open again and replay.
    #[error("the plugin's instance is gone: {0}")]
    Gone(String),
    #[error("the plugin does not fit: {0}")]
    Unfit(String),
}

/// Runs calls.
#[async_trait]
pub trait GuestHost: fmt::Debug + Send + Sync {
    /// `outside` answers what the guest asks meanwhile.
    async fn call(
        &self,
        tenant: TenantId,
        code: &Code,
        call: Call,
        outside: Arc<dyn Outside>,
    ) -> Result<Reply, CallError>;

    fn forget_tenant(&self, tenant: TenantId);
}

/// What a running guest may ask for. Made for one sink or resolver; holds its secrets and its permissions.
#[async_trait]
pub trait Outside: fmt::Debug + Send + Sync {
    async fn http(&self, request: HttpRequest) -> Result<HttpResponse, HttpError>;

    /// Resolves the slot and gives the value's version.
    async fn secret(&self, slot: &str) -> Result<String, SecretError>;

    /// HMAC-SHA-256 of `data` under `prefix` and the secret, one after the other.
    async fn hmac_sha256(&self, slot: &str, prefix: &[u8], data: &[u8]) -> Result<Vec<u8>, SecretError>;

    /// The plaintext. `Err` unless manifest and administrator allow it.
    async fn reveal(&self, slot: &str) -> Result<Vec<u8>, SecretError>;

    fn log(&self, level: Level, message: &str, fields: &[(String, String)]);

    fn counter_add(&self, name: &str, value: u32);

    fn gauge_set(&self, name: &str, value: f64);
}

/// Inside a guest such a word stands for a secret: this and 32 hexadecimal digits. `host` makes them.
pub const SECRET_WORD_PREFIX: &str = "sepal-secret-";

/// Every word has as many bytes.
pub const SECRET_WORD_BYTES: usize = SECRET_WORD_PREFIX.len() + 32;

/// A header's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderValue {
    /// May hold tokens of `header-token` and `basic-auth-token`: `host` has made [`Self::Parts`] of those.
    Text(String),
    Secret(String),
    Bearer(String),
    /// User name, slot.
    Basic(String, String),
    Parts(Vec<HeaderPart>),
}

/// A piece of a header that was put together from text and tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderPart {
    Text(String),
    /// Slot.
    Secret(String),
    /// `Basic …` with user name, slot.
    Basic(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, HeaderValue)>,
    #[serde(with = "serde_bytes_option")]
    pub body: Option<Vec<u8>>,
    /// Words of `header-token` that the body holds, each with its slot.
    pub body_secrets: Vec<(String, String)>,
    pub timeout_ms: Option<u32>,
    pub max_response_bytes: Option<u32>,
}

mod serde_bytes_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    struct Written<'a>(#[serde(serialize_with = "bytes")] &'a [u8]);

    fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(Written).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<&[u8]>::deserialize(deserializer).map(|bytes| bytes.map(<[u8]>::to_vec))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    #[serde(with = "serde_bytes_vec")]
    pub body: Vec<u8>,
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpError {
    Denied(String),
    Dns,
    Connect,
    Tls(String),
    Timeout,
    Protocol(String),
    Throttled(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretError {
    NoSuchSlot,
    Unavailable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}
