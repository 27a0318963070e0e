//! What a plugin says of itself: `plugin.toml` as its author writes it, the custom section that carries it, and what
//! of it the host grants.
//!
//! Both forms have the same shape. In `plugin.toml` sizes and times may be written `64MiB` and `2s`, and the schema of
//! the options may be the path of a file; the section is JSON with numbers and with the schema in it.
//!
//! Never says what a tenant allowed: that is the caller's to intersect.

mod capability;
mod limits;
mod schema;
#[cfg(test)]
mod tests;
mod toml;
mod units;

use std::collections::BTreeMap;

use sepal_database::connector::{Encoding, Envelope, PluginKind, Tier};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    capability::{HttpCapability, origin_of},
    limits::{EffectiveLimits, LimitAsks},
    schema::{ConfigSchema, Configured},
    units::{ByteSize, Milliseconds},
};

/// The interface this host speaks; there is one version so far.
pub const API: &str = "sepal:plugin@0.1.0";

/// A manifest beyond this is no manifest.
pub const MAX_MANIFEST_BYTES: usize = 256 << 10;

const MAX_NAME_BYTES: usize = 128;
const MAX_SUMMARY_BYTES: usize = 500;
const MAX_BATCH_ROWS: u32 = 100_000;
const MAX_BATCH_BYTES: u64 = 16 << 20;
const MAX_LINGER_MS: u32 = 60_000;

/// What a component exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum World {
    /// `sink-plugin`, or `sink-plugin-reveal` when the manifest asks for it.
    Sink {
        reveal: bool,
    },
    Resolver,
}

/// What is wrong with a manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct ManifestError {
    /// `secrets.token`, or the manifest as a whole.
    pub at: String,
    pub problem: String,
}

impl ManifestError {
    pub(crate) fn new(at: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { at: at.into(), problem: problem.into() }
    }
}

/// A manifest that was checked: [`Self::from_toml`] and [`Self::from_json`] give no other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub plugin: About,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkSection>,
    #[serde(default)]
    pub config: ConfigSection,
    /// By slot; a slot has the name of the sensitive option that fills it.
    #[serde(default)]
    pub secrets: BTreeMap<String, Slot>,
    #[serde(default)]
    pub capabilities: Capabilities,
    #[serde(default)]
    pub limits: LimitAsks,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// `acme/webhook`
    pub name: String,
    /// `1.4.2`
    pub version: String,
    pub kind: PluginKind,
    pub api: String,
    #[serde(default)]
    pub summary: String,
    #[serde(default)]
    pub license: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkSection {
    pub encodings: Vec<Encoding>,
    pub envelopes: Vec<Envelope>,
    #[serde(default = "at_least_once")]
    pub delivery: Tier,
    #[serde(default)]
    pub lifecycle: Lifecycle,
    #[serde(default)]
    pub batch: BatchPolicy,
}

fn at_least_once() -> Tier {
    Tier::AtLeastOnce
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// A fresh instance per batch.
    #[default]
    Stateless,
    /// The instance is kept, and may hold rows until `flush`.
    Session,
}

/// The author's idea of a batch; CREATE PIPELINE may say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchPolicy {
    pub max_rows: u32,
    pub max_bytes: ByteSize,
    pub linger: Milliseconds,
}

impl Default for BatchPolicy {
    fn default() -> Self {
        Self { max_rows: 500, max_bytes: ByteSize(1 << 20), linger: Milliseconds(1000) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigSection {
    /// JSON Schema 2020-12 of the options.
    pub schema: Value,
}

impl Default for ConfigSection {
    fn default() -> Self {
        Self {
            schema: serde_json::json!({ "type": "object", "properties": {}, "additionalProperties": false }),
        }
    }
}

/// A place for a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    #[serde(default)]
    pub description: String,
    #[serde(rename = "use")]
    pub uses: Vec<SlotUse>,
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotUse {
    HttpHeader,
    /// Inside a request's body, which a header's rules do not protect: the manifest has to say so.
    HttpBody,
    Hmac,
    Reveal,
}

impl SlotUse {
    /// As manifests write it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::HttpHeader => "http-header",
            Self::HttpBody => "http-body",
            Self::Hmac => "hmac",
            Self::Reveal => "reveal",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// `{config.url}`, `https://api.example.com:443`, `https://*.example.com`.
    pub http: Vec<String>,
    /// Bytes of state per sink.
    pub state: ByteSize,
    pub sockets: Vec<String>,
    pub reveal: bool,
}

impl Manifest {
    /// Reads the section of a component.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        let whole = |problem: String| ManifestError::new("the manifest", problem);
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(whole(format!("it has {} bytes; {MAX_MANIFEST_BYTES} is the most", bytes.len())));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| whole(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The canonical form: keys sorted, no spaces, numbers for sizes and times. Equal manifests give equal bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("a manifest is made of what JSON has");
        sorted(value).to_string().into_bytes()
    }

    /// The options' schema, compiled.
    pub fn schema(&self) -> Result<ConfigSchema, ManifestError> {
        ConfigSchema::compile(&self.config.schema)
    }

    /// `[capabilities] http`, parsed.
    pub fn http(&self) -> Vec<HttpCapability> {
        // They were parsed by `check`; what is not parsed is not granted.
        self.capabilities.http.iter().filter_map(|text| HttpCapability::parse(text).ok()).collect()
    }

    /// What it asks for, one line each, as `sepal_plugin_capabilities` shows it.
    pub fn capability_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.http().iter().map(|host| format!("http {host}")).collect();
        if self.capabilities.state.0 > 0 {
            lines.push(format!("state {}", self.capabilities.state.0));
        }
        if self.capabilities.reveal {
            lines.push("reveal".to_owned());
        }
        for (name, slot) in &self.secrets {
            lines.extend(slot.uses.iter().map(|wanted| format!("secret {name} {}", wanted.word())));
        }
        lines
    }

    pub fn is_session(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.lifecycle == Lifecycle::Session)
    }

    /// Everything beyond the shape.
    fn check(&self) -> Result<(), ManifestError> {
        self.plugin.check()?;
        match (&self.sink, self.plugin.kind) {
            (Some(sink), PluginKind::Sink) => sink.check()?,
            (None, PluginKind::Resolver) => {}
            (None, PluginKind::Sink) => {
                return Err(ManifestError::new("sink", "a plugin of kind \"sink\" has a [sink] section"));
            }
            (Some(_), PluginKind::Resolver) => {
                return Err(ManifestError::new(
                    "sink",
                    "a plugin of kind \"resolver\" has no [sink] section",
                ));
            }
        }
        self.capabilities.check(self.plugin.kind)?;
        self.limits.check()?;
        let schema = self.schema()?;
        self.check_slots(&schema)?;
        for capability in self.http() {
            capability.check(&schema)?;
        }
        Ok(())
    }

    /// Every sensitive option has a slot and every slot an option.
    fn check_slots(&self, schema: &ConfigSchema) -> Result<(), ManifestError> {
        for (name, slot) in &self.secrets {
            let at = format!("secrets.{name}");
            if !schema.is_sensitive(name) {
                let problem =
                    format!("no option {name} with \"sensitive\": true is in the schema to fill it");
                return Err(ManifestError::new(at, problem));
            }
            if slot.uses.is_empty() {
                let problem =
                    "use = [\"http-header\"], [\"http-body\"], [\"hmac\"] or [\"reveal\"] is missing";
                return Err(ManifestError::new(at, problem));
            }
            if slot.uses.contains(&SlotUse::Reveal) && !self.capabilities.reveal {
                let problem = "use has \"reveal\" but [capabilities] has no reveal = true";
                return Err(ManifestError::new(at, problem));
            }
            if slot.required != schema.is_required(name) {
                let problem = format!(
                    "required = {} but the schema says that the option is {}",
                    slot.required,
                    if schema.is_required(name) { "required" } else { "not required" }
                );
                return Err(ManifestError::new(at, problem));
            }
        }
        match schema.sensitive().find(|name| !self.secrets.contains_key(*name)) {
            Some(name) => Err(ManifestError::new(
                format!("config.schema.{name}"),
                format!("add a slot [secrets.{name}] for it"),
            )),
            None => Ok(()),
        }
    }
}

impl About {
    fn check(&self) -> Result<(), ManifestError> {
        let word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        let named = self.name.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name));
        if !named || self.name.len() > MAX_NAME_BYTES {
            let problem = format!("{:?} is not owner/name in lower-case letters, digits, - and _", self.name);
            return Err(ManifestError::new("plugin.name", problem));
        }
        let (core, extra) = self.version.split_once(['-', '+']).unwrap_or((&self.version, "0"));
        let parts: Vec<&str> = core.split('.').collect();
        let is_number =
            |part: &&str| !part.is_empty() && part.len() < 10 && part.bytes().all(|b| b.is_ascii_digit());
        let is_extra = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+');
        if parts.len() != 3
            || !parts.iter().all(is_number)
            || extra.is_empty()
            || !extra.bytes().all(is_extra)
        {
            let problem = format!("{:?} is not a version like 1.4.2", self.version);
            return Err(ManifestError::new("plugin.version", problem));
        }
        if self.api != API {
            let problem = format!("{:?} is not an interface this host speaks; it speaks {API}", self.api);
            return Err(ManifestError::new("plugin.api", problem));
        }
        for (at, text) in [("plugin.summary", &self.summary), ("plugin.license", &self.license)] {
            if text.len() > MAX_SUMMARY_BYTES || text.chars().any(char::is_control) {
                let problem = format!("one line of at most {MAX_SUMMARY_BYTES} bytes goes here");
                return Err(ManifestError::new(at, problem));
            }
        }
        Ok(())
    }
}

impl SinkSection {
    fn check(&self) -> Result<(), ManifestError> {
        if self.encodings.is_empty() {
            return Err(ManifestError::new(
                "sink.encodings",
                "name \"ndjson\" or \"arrow-ipc-stream\" or both",
            ));
        }
        if self.envelopes.is_empty() {
            return Err(ManifestError::new("sink.envelopes", "name \"append\", \"upsert\" or \"debezium\""));
        }
        let BatchPolicy { max_rows, max_bytes, linger } = self.batch;
        if !(1..=MAX_BATCH_ROWS).contains(&max_rows) {
            let problem = format!("{max_rows} is not between 1 and {MAX_BATCH_ROWS}");
            return Err(ManifestError::new("sink.batch.max_rows", problem));
        }
        if !(1024..=MAX_BATCH_BYTES).contains(&max_bytes.0) {
            let problem = format!("{} is not between 1KiB and 16MiB", max_bytes.0);
            return Err(ManifestError::new("sink.batch.max_bytes", problem));
        }
        if linger.0 > MAX_LINGER_MS {
            let problem = format!("{} ms is beyond 60s", linger.0);
            return Err(ManifestError::new("sink.batch.linger", problem));
        }
        Ok(())
    }
}

impl Capabilities {
    fn check(&self, kind: PluginKind) -> Result<(), ManifestError> {
        for text in &self.http {
            HttpCapability::parse(text)
                .map_err(|problem| ManifestError::new("capabilities.http", problem))?;
        }
        if !self.sockets.is_empty() {
            let problem = "this host gives plugins no sockets; use http, or a native sink";
            return Err(ManifestError::new("capabilities.sockets", problem));
        }
        let most = u64::from(EffectiveLimits::MOST.state_bytes);
        if self.state.0 > most {
            let problem = format!("{} bytes is beyond the {most} that a sink may keep", self.state.0);
            return Err(ManifestError::new("capabilities.state", problem));
        }
        if kind == PluginKind::Resolver && (self.state.0 > 0 || self.reveal) {
            let problem = "a resolver has neither state nor reveal: its world does not import them";
            return Err(ManifestError::new("capabilities", problem));
        }
        Ok(())
    }
}

/// The same value with the keys of every object in order, whatever map `serde_json` was built with.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<String, Value> =
                map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
