//! Asking a resolver: through its plugin, once for all who wait, and again at half of the answer's time to live.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sepal_control::{Secret, SecretOrigin};
use sepal_storage::{Snapshot, TenantStore};
use sepal_types::{Error, Result as EngineResult};

use super::{
    SecretService, User,
    asker::Asker,
    cache::{Answer, Entry, Held, Lease, Standing},
    off_threads,
};
use crate::{
    connector::{
        Fault, FaultKind, PluginKind, ResolveAnswer, ResolveRequest, ResolvedValue, ResolverSpec, SecretValue,
    },
    delivery::{
        Delivery, components,
        objects::{Objects, ResolverDef},
        plugins,
    },
};

/// How long an answer holds whose resolver does not say and whose definition has no `refresh`.
const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// An answer that would not hold at all is used for the batch at hand.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// How long an answer serves beyond its time when nothing else was said.
const DEFAULT_MAX_STALE: Duration = Duration::from_secs(3600);

/// What a resolver runs with. Reads a component: blocking. Errors: a plugin that is gone.
pub fn resolver_spec(
    delivery: &Delivery,
    snapshot: &Snapshot,
    objects: &Objects,
    resolver: &ResolverDef,
) -> EngineResult<ResolverSpec> {
    let environment = &resolver.environment;
    let plugin = plugins::find(delivery, objects, environment, &resolver.plugin, PluginKind::Resolver, None)?;
    let component = if plugin.own { Some(components::read(snapshot, &plugin.facts.sha256)?) } else { None };
    Ok(ResolverSpec {
        tenant: delivery.tenant,
        environment: environment.clone(),
        name: resolver.name.clone(),
        connector: plugin.connector(),
        component,
        options: resolver.options.clone(),
        allow_hosts: resolver.allow_hosts.clone(),
    })
}

impl SecretService {
    /// The value of a secret that a resolver keeps.
    pub(super) async fn resolved(&self, secret: &Secret) -> Result<SecretValue, Fault> {
        let entry = self.delivery.resolved.entry(&self.user.environment, secret.name.as_str());
        let Held { value, asker } = self.held(&entry, secret).await?;
        // Also of one that serves on because its resolver failed: this may be why.
        match self.ask(move |control, scope, _| asker.check(control, scope)).await {
            Ok(()) => Ok(value),
            Err(fault) => {
                if fault.kind != FaultKind::Transient {
                    entry.clear();
                }
                Err(unresolved(secret, fault))
            }
        }
    }

    /// The answer that is kept, or a new one.
    async fn held(&self, entry: &Arc<Entry>, secret: &Secret) -> Result<Held, Fault> {
        let definition = definition(secret);
        match entry.standing(&definition, Instant::now()) {
            Standing::Fresh(held) => return Ok(held),
            Standing::Due(held) => {
                self.refresh_beside(entry, secret, definition);
                return Ok(held);
            }
            Standing::Gone => {}
        }
        let _flight = entry.flight.lock().await;
        // Whoever held it before may have had the answer.
        if let Standing::Fresh(held) | Standing::Due(held) = entry.standing(&definition, Instant::now()) {
            return Ok(held);
        }
        self.ask_resolver(entry, secret, &definition).await
    }

    /// Asks again without making anybody wait.
    fn refresh_beside(&self, entry: &Arc<Entry>, secret: &Secret, definition: String) {
        let Ok(flight) = Arc::clone(&entry.flight).try_lock_owned() else { return };
        let (service, entry, secret) = (self.clone(), Arc::clone(entry), secret.clone());
        tokio::spawn(async move {
            let _flight = flight;
            if let Err(fault) = service.ask_resolver(&entry, &secret, &definition).await {
                tracing::warn!(
                    tenant = %service.delivery.tenant, secret = %secret.name, kind = fault.kind.name(),
                    "a secret was not refreshed; its value serves until its time is over"
                );
            }
        });
    }

    /// The resolver's answer, or the old one while that may serve. The caller has the flight.
    async fn ask_resolver(&self, entry: &Entry, secret: &Secret, definition: &str) -> Result<Held, Fault> {
        let asked = Instant::now();
        let fault = match self.call_resolver(secret, entry.version(definition)).await {
            Ok((asker, ResolveAnswer::Value(answer))) => {
                return Ok(self.keep(entry, secret, (definition, asked), (asker, answer)));
            }
            Ok((_, ResolveAnswer::Unchanged)) => match entry.renew(definition, asked, ttl(secret, None)) {
                Some(held) => return Ok(held),
                None => failed(secret, "its resolver says \"unchanged\" of a value that was never given"),
            },
            Ok((_, ResolveAnswer::NotFound)) => {
                entry.clear();
                let message = format!("secret \"{}\" is not where its resolver looks", secret.name);
                return Err(Fault::new(FaultKind::Misconfigured, message).with_code("secret.not-found"));
            }
            Ok((_, ResolveAnswer::Failed(fault))) | Err(fault) => fault,
        };
        let max_stale =
            secret.max_stale_seconds.map_or(DEFAULT_MAX_STALE, |seconds| Duration::from_secs(seconds.into()));
        match entry.serve_stale(definition, Instant::now(), max_stale) {
            Some(held) => {
                tracing::warn!(
                    tenant = %self.delivery.tenant, secret = %secret.name, kind = fault.kind.name(),
                    "a secret's resolver failed; the last value serves on"
                );
                Ok(held)
            }
            None => Err(unresolved(secret, fault)),
        }
    }

    fn keep(
        &self,
        entry: &Entry,
        secret: &Secret,
        (definition, asked): (&str, Instant),
        (asker, answer): (Asker, ResolvedValue),
    ) -> Held {
        let version = match &answer.version {
            Some(version) => version.clone(),
            None => self.delivery.resolved.fingerprint(&answer.value),
        };
        let value = SecretValue {
            value: Arc::new(answer.value),
            version,
            allowed_hosts: secret.allowed_hosts.clone(),
        };
        let held = Held { value, asker: Arc::new(asker) };
        entry.set(Answer {
            held: held.clone(),
            version: answer.version,
            lease: answer.lease_id,
            definition: definition.to_owned(),
            asked,
            ttl: ttl(secret, answer.ttl_seconds),
            not_before: asked,
        });
        held
    }

    /// One question to the resolver.
    async fn call_resolver(
        &self,
        secret: &Secret,
        have_version: Option<String>,
    ) -> Result<(Asker, ResolveAnswer), Fault> {
        let SecretOrigin::Resolver { resolver, options } = &secret.source else {
            return Err(failed(secret, "it has no resolver"));
        };
        let (def, spec) = self.resolver(resolver.clone()).await?;
        let secrets = Self::of_resolver(&self.delivery, &self.store, &def, &self.user.who);
        let asker = Asker::new(&def, Arc::clone(&secrets.user));
        let request =
            ResolveRequest { name: secret.name.to_string(), options: options.clone(), have_version };
        let connectors = self.delivery.connectors().map_err(|error| misconfigured(&error))?;
        let mut answers = connectors.resolve(&spec, secrets, vec![request]).await?;
        match (answers.pop(), answers.is_empty()) {
            (Some(answer), true) => Ok((asker, answer)),
            _ => Err(failed(secret, "its resolver did not give one answer to one question")),
        }
    }

    async fn resolver(&self, name: String) -> Result<(ResolverDef, ResolverSpec), Fault> {
        let (delivery, store, user) =
            (Arc::clone(&self.delivery), Arc::clone(&self.store), Arc::clone(&self.user));
        off_threads("looking for a resolver", move || {
            let snapshot = store.snapshot();
            let objects = Objects::of(&snapshot).map_err(|error| misconfigured(&error))?;
            let def = objects.resolver(&user.environment, &name).cloned().ok_or_else(|| {
                Fault::new(FaultKind::Misconfigured, format!("secret resolver \"{name}\" does not exist"))
            })?;
            let spec =
                resolver_spec(&delivery, &snapshot, &objects, &def).map_err(|error| misconfigured(&error))?;
            Ok((def, spec))
        })
        .await
    }

    async fn give_back(&self, lease: &Lease) -> Result<(), Fault> {
        let (def, spec) = self.resolver(lease.resolver.clone()).await?;
        let secrets = Self::of_resolver(&self.delivery, &self.store, &def, &self.user.who);
        let connectors = self.delivery.connectors().map_err(|error| misconfigured(&error))?;
        connectors.revoke_lease(&spec, secrets, &lease.id).await
    }
}

/// Gives a dynamic secret back that is no longer wanted. What fails is logged: the lease ends by itself.
pub async fn revoke(delivery: &Arc<Delivery>, store: &Arc<TenantStore>, environment: &str, lease: Lease) {
    let user = User {
        environment: environment.to_owned(),
        who: "lease".to_owned(),
        why: "revoke".to_owned(),
        on_behalf_of: String::new(),
        stored_only: true,
    };
    if let Err(fault) = SecretService::new(delivery, store, user).give_back(&lease).await {
        tracing::warn!(
            tenant = %delivery.tenant, resolver = %lease.resolver, kind = fault.kind.name(),
            "a lease was not given back"
        );
    }
}

/// What an answer answers: another definition of the secret is another question.
fn definition(secret: &Secret) -> String {
    format!("{}/{:?}", secret.version, secret.source)
}

fn ttl(secret: &Secret, answered: Option<u32>) -> Duration {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let asked = secret.refresh_seconds.map(seconds);
    let ttl = match (answered.map(seconds), asked) {
        (Some(answered), Some(asked)) => answered.min(asked),
        (one, other) => one.or(other).unwrap_or(DEFAULT_TTL),
    };
    ttl.max(SHORTEST_TTL)
}

fn failed(secret: &Secret, why: &str) -> Fault {
    Fault::new(FaultKind::Internal, format!("secret \"{}\": {why}", secret.name)).with_code("secret.resolver")
}

/// A resolver that is out of reach is waited for; one that is set up wrongly is not.
fn unresolved(secret: &Secret, fault: Fault) -> Fault {
    let kind = match fault.kind {
        FaultKind::Misconfigured => FaultKind::Misconfigured,
        FaultKind::Transient
        | FaultKind::NotConnected
        | FaultKind::Unauthorized
        | FaultKind::Rejected
        | FaultKind::Internal => FaultKind::Transient,
    };
    Fault {
        kind,
        message: format!("secret \"{}\" could not be resolved: {}", secret.name, fault.message),
        ..fault
    }
}

fn misconfigured(error: &Error) -> Fault {
    Fault::new(FaultKind::Misconfigured, error.message())
}
