//! Options and secrets of a test case, made fit for the plugin as CREATE SINK would.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use sepal_database::connector::{Fault, FaultKind, Secrets, Setting};
use serde_json::{Map, Value};

use super::{case::Plaintext, outside::CaseSecrets, subject::TENANT};
use crate::{
    egress::{EgressSpec, HostRule},
    manifest::{ConfigSchema, Configured, EffectiveLimits, Manifest},
};

/// Options and secrets that fit the schema.
#[derive(Debug)]
pub(super) struct Setup {
    pub configured: Configured,
    pub secrets: Arc<CaseSecrets>,
    allow: Vec<HostRule>,
}

impl Setup {
    /// What is required of secrets and missing is made up.
    pub fn new(
        manifest: &Manifest,
        schema: &ConfigSchema,
        config: &Map<String, Value>,
        secrets: &BTreeMap<String, Plaintext>,
    ) -> Result<Self, Fault> {
        let mut secrets = secrets.clone();
        for name in manifest.secrets.iter().filter(|(_, slot)| slot.required).map(|(name, _)| name) {
            let made_up = || Plaintext::from(format!("made-up-secret-of-{name}"));
            secrets.entry(name.clone()).or_insert_with(made_up);
        }
        Self::given(manifest, schema, config, &secrets)
    }

    /// What is given, and no more.
    pub fn given(
        manifest: &Manifest,
        schema: &ConfigSchema,
        config: &Map<String, Value>,
        secrets: &BTreeMap<String, Plaintext>,
    ) -> Result<Self, Fault> {
        let configured = schema.configure(&settings(config, secrets))?;
        let mut allow = Vec::new();
        for capability in manifest.http() {
            if let Some(rule) = capability.rule(&configured.json)? {
                let parsed = HostRule::parse(&rule);
                allow.push(parsed.map_err(|error| Fault::new(FaultKind::Misconfigured, error.to_string()))?);
            }
        }
        Ok(Self { configured, secrets: Arc::new(CaseSecrets(secrets.clone())), allow })
    }

    /// Rules that the plugin's requests have to keep.
    pub fn spec(&self, manifest: &Manifest, name: &str) -> EgressSpec {
        let batch = manifest.sink.as_ref().map_or(0, |sink| sink.batch.max_bytes.0);
        let batch = usize::try_from(batch).unwrap_or(usize::MAX);
        EgressSpec {
            tenant: TENANT,
            name: name.to_owned(),
            pipeline: name.to_owned(),
            slots: self.configured.slots.clone(),
            secrets: Arc::clone(&self.secrets) as Arc<dyn Secrets>,
            allow: self.allow.clone(),
            reveal: manifest.capabilities.reveal,
            limits: EffectiveLimits::effective(manifest, &EffectiveLimits::MOST).with_room_for(batch),
        }
    }

    pub fn config_json(&self) -> String {
        Value::Object(self.configured.json.clone()).to_string()
    }
}

/// Options as a statement would bring them.
pub(super) fn settings(
    config: &Map<String, Value>,
    secrets: &BTreeMap<String, Plaintext>,
) -> BTreeMap<String, Setting> {
    let setting = |value: &Value| match value {
        Value::String(text) => Setting::Text(text.clone()),
        Value::Bool(flag) => Setting::Flag(*flag),
        Value::Number(number) => Setting::Number(number.as_f64().unwrap_or(f64::NAN)),
        other => Setting::Text(other.to_string()),
    };
    let plain = config.iter().map(|(name, value)| (name.clone(), setting(value)));
    let sensitive = secrets.keys().map(|slot| (slot.clone(), Setting::Secret(slot.clone(), None)));
    plain.chain(sensitive).collect()
}

/// Every address, private ones too.
pub(super) fn everywhere() -> Vec<IpNet> {
    let network = |text: &str| text.parse::<IpNet>().expect("it is a network");
    vec![network("0.0.0.0/0"), network("::/0")]
}
