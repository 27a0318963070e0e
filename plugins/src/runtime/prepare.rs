//! From a definition to something that can be called: options checked, hosts intersected, code at hand.

use std::{collections::BTreeMap, sync::Arc};

use sepal_database::{
    TenantId,
    connector::{BadRow, Fault, FaultKind, ResolverSpec, Secrets, Setting, SinkSpec},
};
use serde::Serialize;
use serde_json::Value;

use super::{Inner, wrong_kind};
use crate::{
    call::{Code, OpenArgs},
    egress::{EgressSpec, HostRule, PluginOutside, SlotGrant, intersect},
    manifest::{Configured, EffectiveLimits, HttpCapability, World},
    package::Package,
};

/// Everything a call needs but its operation.
#[derive(Debug)]
pub(super) struct Prepared {
    pub tenant: TenantId,
    pub code: Code,
    pub limits: EffectiveLimits,
    pub outside: Arc<PluginOutside>,
}

impl Prepared {
    /// A fault without the secrets that the guest may have put into its words.
    pub(super) fn scrubbed(&self, mut fault: Fault) -> Fault {
        fault.message = self.clean(&fault.message);
        fault.code = fault.code.map(|code| self.clean(&code));
        fault
    }

    pub(super) fn scrubbed_row(&self, row: BadRow) -> BadRow {
        let message = self.clean(&row.message);
        BadRow { index: row.index, code: row.code.map(|code| self.clean(&code)), message }
    }

    /// The guest's fault with the reason why it had to do without a secret, of which it does not know.
    pub(super) fn explained(&self, fault: Fault) -> Fault {
        let Some(trouble) = self.outside.take_trouble() else { return self.scrubbed(fault) };
        let message = match fault.message.contains(&trouble.message) {
            true => fault.message.clone(),
            false => format!("{}: {}", fault.message, trouble.message),
        };
        // A secret that is set up wrongly, or taken away, does not come back by waiting.
        let fault = match trouble.kind {
            FaultKind::Misconfigured | FaultKind::Unauthorized => Fault { message, ..trouble },
            _ => Fault { message, ..fault },
        };
        self.scrubbed(fault)
    }

    pub(super) fn clean(&self, text: &str) -> String {
        self.outside.scrubber().scrub(text).into_owned()
    }
}

/// Options and hosts that fit.
#[derive(Debug)]
pub(super) struct Fitted {
    config_json: String,
    slots: BTreeMap<String, SlotGrant>,
    allow: Vec<HostRule>,
}

/// What can be said of a sink without asking anybody.
pub(super) fn sink(package: &Package, spec: &SinkSpec) -> Result<Fitted, Fault> {
    let about = &package.manifest.plugin;
    let Some(section) = &package.manifest.sink else { return Err(wrong_kind(package, "sink")) };
    let lacks = |what: &str| {
        let problem = format!("plugin {} does not take {what}", about.name);
        Err(Fault::new(FaultKind::Misconfigured, problem).with_code("config"))
    };
    if !section.encodings.contains(&spec.encoding) {
        return lacks(&format!("the format {}", word(&spec.encoding)));
    }
    if !section.envelopes.contains(&spec.envelope) {
        return lacks(&format!("the envelope {}", word(&spec.envelope)));
    }
    if spec.tier > section.delivery {
        let (wanted, own) = (word(&spec.tier), word(&section.delivery));
        return lacks(&format!("delivery {wanted}; its own is {own}"));
    }
    if package.reveals() && !spec.reveal {
        let problem = format!(
            "plugin {} reads the plaintext of its secrets, which the operator has not granted \
             (allow_reveal); use a plugin that leaves them with the host",
            about.name
        );
        return Err(Fault::new(FaultKind::Misconfigured, problem).with_code("config"));
    }
    fit(package, &spec.options, &spec.allow_hosts)
}

pub(super) fn resolver(package: &Package, spec: &ResolverSpec) -> Result<Fitted, Fault> {
    if package.world != World::Resolver {
        return Err(wrong_kind(package, "secret resolver"));
    }
    fit(package, &spec.options, &spec.allow_hosts)
}

fn fit(package: &Package, options: &BTreeMap<String, Setting>, grants: &[String]) -> Result<Fitted, Fault> {
    let configured = package.schema.configure(options)?;
    let allow = hosts(package, &configured, grants)?;
    let Configured { json, slots } = configured;
    let slots = SlotGrant::of(&package.manifest, slots);
    Ok(Fitted { config_json: Value::Object(json).to_string(), slots, allow })
}

/// Manifest and grant, intersected. A URL among the options that the grant leaves out would be refused at every
/// request: it is said now.
fn hosts(package: &Package, configured: &Configured, grants: &[String]) -> Result<Vec<HostRule>, Fault> {
    let granted: Vec<HostRule> = grants.iter().map(|grant| rule(grant)).collect::<Result<_, _>>()?;
    let mut asked = Vec::new();
    for capability in package.manifest.http() {
        let Some(origin) = capability.rule(&configured.json)? else { continue };
        let wanted = rule(&origin)?;
        if let HttpCapability::Option(option) = &capability
            && intersect(std::slice::from_ref(&wanted), &granted).is_empty()
        {
            let problem =
                format!("/{option}: {origin} is not among the hosts granted; add ALLOW HOSTS ('{origin}')");
            return Err(Fault::new(FaultKind::Misconfigured, problem).with_code("config"));
        }
        asked.push((wanted, origin));
    }
    let rules: Vec<HostRule> = asked.iter().map(|(rule, _)| rule.clone()).collect();
    let allow = intersect(&rules, &granted);
    if let Some((_, origin)) = asked.first().filter(|_| allow.is_empty()) {
        let problem =
            format!("the plugin may reach no host; it asks for {origin} and others: ALLOW HOSTS (…) grants");
        return Err(Fault::new(FaultKind::Misconfigured, problem).with_code("config"));
    }
    Ok(allow)
}

/// As manifests and statements write it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn rule(text: &str) -> Result<HostRule, Fault> {
    HostRule::parse(text)
        .map_err(|error| Fault::new(FaultKind::Misconfigured, error.to_string()).with_code("config"))
}

impl Inner {
    /// `pipeline`: empty for a check.
    pub(super) async fn prepare_sink(
        &self,
        spec: &SinkSpec,
        secrets: Arc<dyn Secrets>,
        pipeline: String,
    ) -> Result<(Arc<Package>, Prepared, OpenArgs), Fault> {
        let package = self.package(&spec.connector, spec.component.as_ref()).await?;
        let Fitted { config_json, slots, allow } = sink(&package, spec)?;
        let mut limits = EffectiveLimits::effective(&package.manifest, &self.caps);
        // How large batches are is the pipeline's choice: the guest's memory is what bounds them.
        limits.hostcall_bytes = EffectiveLimits::MOST.hostcall_bytes;
        let (tenant, name) = (spec.tenant, spec.name.clone());
        let egress =
            EgressSpec { tenant, name, pipeline, slots, secrets, allow, reveal: spec.reveal, limits };
        let prepared = self.prepared(&package, spec.component.as_ref(), egress).await?;
        let open = OpenArgs {
            config_json,
            encoding: spec.encoding,
            envelope: spec.envelope,
            sink_id: spec.id.clone(),
            worker: 0,
            parallelism: 1,
            attributes: Vec::new(),
        };
        Ok((package, prepared, open))
    }

    /// With the options as JSON.
    pub(super) async fn prepare_resolver(
        &self,
        spec: &ResolverSpec,
        secrets: Arc<dyn Secrets>,
    ) -> Result<(Prepared, String), Fault> {
        let package = self.package(&spec.connector, spec.component.as_ref()).await?;
        let Fitted { config_json, slots, allow } = resolver(&package, spec)?;
        let egress = EgressSpec {
            tenant: spec.tenant,
            name: spec.name.clone(),
            pipeline: String::new(),
            slots,
            secrets,
            allow,
            reveal: false,
            limits: EffectiveLimits::effective(&package.manifest, &self.caps),
        };
        let prepared = self.prepared(&package, spec.component.as_ref(), egress).await?;
        Ok((prepared, config_json))
    }

    async fn package(&self, connector: &str, component: Option<&Arc<[u8]>>) -> Result<Arc<Package>, Fault> {
        match component {
            Some(component) => self.plugins.read(Arc::clone(component)).await,
            None => self.plugins.find(connector, None),
        }
    }

    async fn prepared(
        &self,
        package: &Package,
        component: Option<&Arc<[u8]>>,
        egress: EgressSpec,
    ) -> Result<Prepared, Fault> {
        let (tenant, limits) = (egress.tenant, egress.limits);
        let code = self.plugins.code(tenant, package, component.map(Arc::clone)).await?;
        Ok(Prepared { tenant, code, limits, outside: self.egress.outside(egress) })
    }
}
