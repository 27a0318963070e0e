//! Connectors that reach nothing: what a component is stands in its bytes, and a destination answers what the test
//! says.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use sepal_types::TenantId;
use tokio::sync::Barrier;
use zeroize::Zeroizing;

use crate::{
    connector::{
        Connectors, Encoding, Envelope, Fault, FaultKind, PluginFacts, PluginKind, ResolveAnswer,
        ResolveRequest, ResolvedValue, ResolverSpec, Secrets, Setting, Sink, SinkSpec, Tier,
    },
    delivery::components,
};

/// A bundled sink `sepal/webhook`, a bundled resolver `sepal/vault`, a native `file`.
#[derive(Debug, Default)]
pub struct Fake {
    /// What a destination answers when it is tried out.
    pub refuses: Mutex<Option<Fault>>,
    /// Values of the secrets that destinations were shown.
    pub shown: Mutex<Vec<String>>,
    /// What a resolver answers, by path; a path that is not there fails as out of reach.
    pub vault: Mutex<BTreeMap<String, String>>,
    pub asked: Mutex<usize>,
    /// Waited for twice by a resolver that has its token and not yet its answer.
    pub on_the_way: Mutex<Option<Arc<Barrier>>>,
}

pub fn facts(name: &str, kind: PluginKind) -> PluginFacts {
    PluginFacts {
        name: name.to_owned(),
        version: "1.4.2".to_owned(),
        kind,
        api: "sepal:plugin@0.1.0".to_owned(),
        summary: String::new(),
        license: "Apache-2.0".to_owned(),
        sha256: String::new(),
        bytes: 0,
        encodings: vec![Encoding::Ndjson],
        envelopes: vec![Envelope::Upsert, Envelope::Append],
        tier: Tier::Idempotent,
        session: false,
        config_schema: r#"{"type":"object","properties":{"url":{"type":"string"},"addr":{"type":"string"},
            "token":{"type":"string","sensitive":true}},"additionalProperties":false}"#
            .to_owned(),
        secrets: vec!["token".to_owned()],
        capabilities: vec!["http {config.url}".to_owned()],
        max_rows: 500,
        max_bytes: 1 << 20,
        linger_ms: 1_000,
    }
}

/// The bytes of a component: its version, what it asks for, and its name unless that is `acme/hook`.
pub fn component(version: &str, capabilities: &[&str]) -> Vec<u8> {
    format!("{version}|{}", capabilities.join(",")).into_bytes()
}

/// One of another plugin than `acme/hook`, which asks for nothing.
pub fn named_component(name: &str, version: &str) -> Vec<u8> {
    format!("{version}||{name}").into_bytes()
}

#[async_trait]
impl Connectors for Fake {
    fn bundled(&self) -> Vec<PluginFacts> {
        vec![facts("sepal/webhook", PluginKind::Sink), facts("sepal/vault", PluginKind::Resolver)]
    }

    fn native(&self) -> &[&'static str] {
        &["file"]
    }

    async fn inspect(&self, _: TenantId, component: Arc<[u8]>) -> Result<PluginFacts, Fault> {
        let wrong = || Fault::new(FaultKind::Misconfigured, "not a component");
        let text = std::str::from_utf8(&component).map_err(|_| wrong())?;
        let (version, rest) = text.split_once('|').ok_or_else(wrong)?;
        let (asked, name) = rest.split_once('|').unwrap_or((rest, "acme/hook"));
        Ok(PluginFacts {
            version: version.to_owned(),
            sha256: components::hash(&component),
            bytes: component.len() as u64,
            capabilities: asked.split(',').filter(|asked| !asked.is_empty()).map(str::to_owned).collect(),
            ..facts(name, PluginKind::Sink)
        })
    }

    fn validate(&self, spec: &SinkSpec) -> Result<(), Fault> {
        if spec.connector == "file" {
            let fits = spec.encoding == Encoding::Ndjson && spec.tier == Tier::AtLeastOnce;
            let fault = || Fault::new(FaultKind::Misconfigured, "file writes NDJSON, at least once");
            return if fits { Ok(()) } else { Err(fault()) };
        }
        if spec.options.contains_key("url") {
            return Ok(());
        }
        Err(Fault::new(FaultKind::Misconfigured, "/url: it is required"))
    }

    async fn check_sink(&self, spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Result<(), Fault> {
        for setting in spec.options.values() {
            if let Setting::Secret(name, version) = setting {
                let value = secrets.secret(name, *version).await?;
                let text = String::from_utf8_lossy(&value.value).into_owned();
                self.shown.lock().push(text);
            }
        }
        match self.refuses.lock().clone() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    async fn open_sink(&self, _: &SinkSpec, _: Arc<dyn Secrets>) -> Result<Box<dyn Sink>, Fault> {
        Err(Fault::new(FaultKind::Transient, "nothing is opened in these tests"))
    }

    async fn check_resolver(&self, _: &ResolverSpec, _: Arc<dyn Secrets>) -> Result<(), Fault> {
        Ok(())
    }

    async fn resolve(
        &self,
        spec: &ResolverSpec,
        secrets: Arc<dyn Secrets>,
        requests: Vec<ResolveRequest>,
    ) -> Result<Vec<ResolveAnswer>, Fault> {
        *self.asked.lock() += 1;
        if let Some(Setting::Secret(name, version)) = spec.options.get("token") {
            secrets.secret(name, *version).await?;
        }
        let on_the_way = self.on_the_way.lock().clone();
        if let Some(barrier) = on_the_way {
            barrier.wait().await;
            barrier.wait().await;
        }
        let answer = |request: &ResolveRequest| {
            let path = request.options.get("path").cloned().unwrap_or_default();
            match self.vault.lock().get(&path) {
                Some(value) => ResolveAnswer::Value(ResolvedValue {
                    value: Zeroizing::new(value.clone().into_bytes()),
                    version: None,
                    ttl_seconds: Some(3600),
                    lease_id: None,
                }),
                None => ResolveAnswer::Failed(Fault::new(FaultKind::NotConnected, "the vault is away")),
            }
        };
        Ok(requests.iter().map(answer).collect())
    }

    async fn revoke_lease(&self, _: &ResolverSpec, _: Arc<dyn Secrets>, _: &str) -> Result<(), Fault> {
        Ok(())
    }

    fn forget_tenant(&self, _: TenantId) {}
}
