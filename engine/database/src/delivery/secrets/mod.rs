//! The values of secrets, for whoever runs on a tenant's behalf: one sink, or one resolver.
//!
//! A [`SecretService`] is handed to a connector ([`Secrets`]); it names one tenant and one environment and can reach no
//! other. Each call asks anew whether the secret is there and whether the key that defined the sink may still use it,
//! unless that was asked just now and no statement has changed anything since: a grant taken back ends a running sink,
//! and so does a key that is revoked or expires. Each value handed out is recorded. What a resolver has answered is
//! handed out as long as the resolver, too, may use what it asks with ([`asker`]).
//!
//! | origin | where the value is | kept here |
//! |---|---|---|
//! | stored | sealed, in the control database | for a second, until a statement changes any ([`moment`]) |
//! | environment, file | the operator's process and disk ([`sources`]) | no |
//! | resolver | elsewhere, asked through a plugin | for its time to live ([`cache`]) |
//!
//! A resolver's own options may name stored secrets only: it cannot wait for itself.

mod asker;
mod cache;
mod moment;
mod resolve;
mod sources;

use std::{fmt, sync::Arc, time::Instant};

use async_trait::async_trait;
use sepal_control::{Control, Grantable, Scope, Secret, SecretOrigin, SecretUse};
use sepal_crypto::hmac_sha256;
use sepal_storage::TenantStore;
use sepal_types::Error;
use zeroize::Zeroizing;

use super::{
    Delivery,
    objects::{ResolverDef, SinkDef},
};
use crate::{
    blocking::blocking,
    connector::{CertificateValue, Fault, FaultKind, SecretValue, Secrets},
    sealing::hex,
};

use moment::{MOMENT, Moment};

pub use cache::Cache;
pub use resolve::{resolver_spec, revoke};

/// Bytes of the fingerprint that stands for a value whose origin has no versions.
const FINGERPRINT_BYTES: usize = 6;

/// See the module.
#[derive(Clone)]
pub struct SecretService {
    delivery: Arc<Delivery>,
    store: Arc<TenantStore>,
    user: Arc<User>,
    moment: Arc<Moment>,
}

/// What a look for a secret finds.
enum Looked {
    Here(SecretValue),
    Elsewhere(Secret),
}

/// Who asks, on whose behalf, for what.
#[derive(Debug)]
pub struct User {
    environment: String,
    /// `sink hook`, `resolver vault`
    who: String,
    /// The pipeline's name, or `check`.
    why: String,
    /// API key id.
    on_behalf_of: String,
    /// A resolver: only stored secrets.
    stored_only: bool,
}

impl fmt::Debug for SecretService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretService").field("user", &self.user).finish_non_exhaustive()
    }
}

impl SecretService {
    /// `why`: the pipeline's name, or `check` for a statement that tries the sink out.
    pub fn of_sink(
        delivery: &Arc<Delivery>,
        store: &Arc<TenantStore>,
        sink: &SinkDef,
        why: &str,
    ) -> Arc<Self> {
        let user = User {
            environment: sink.environment.clone(),
            who: format!("sink {}", sink.name),
            why: why.to_owned(),
            on_behalf_of: sink.created_by.clone(),
            stored_only: false,
        };
        Self::new(delivery, store, user)
    }

    pub fn of_resolver(
        delivery: &Arc<Delivery>,
        store: &Arc<TenantStore>,
        resolver: &ResolverDef,
        why: &str,
    ) -> Arc<Self> {
        let user = User {
            environment: resolver.environment.clone(),
            who: format!("resolver {}", resolver.name),
            why: why.to_owned(),
            on_behalf_of: resolver.created_by.clone(),
            stored_only: true,
        };
        Self::new(delivery, store, user)
    }

    fn new(delivery: &Arc<Delivery>, store: &Arc<TenantStore>, user: User) -> Arc<Self> {
        let (delivery, store) = (Arc::clone(delivery), Arc::clone(store));
        Arc::new(Self { delivery, store, user: Arc::new(user), moment: Arc::default() })
    }

    /// Runs a look into the control database off the async threads.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Control, &Scope<'_>, &User) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (delivery, user) = (Arc::clone(&self.delivery), Arc::clone(&self.user));
        off_threads("a look for a secret", move || {
            let scope = Scope { tenant: delivery.tenant, environment: &user.environment };
            question(&delivery.control, &scope, &user)
        })
        .await
    }

    /// The value of a stored secret, recorded; where else it is if it is not stored. One look for all of it.
    async fn look(&self, name: &str, version: Option<u64>) -> Result<Looked, Fault> {
        let name = name.to_owned();
        self.ask(move |control, scope, user| {
            let secret = permitted(control, scope, user, &name)?;
            if !matches!(secret.source, SecretOrigin::Stored) {
                check_elsewhere(user, &name, version)?;
                return Ok(Looked::Elsewhere(secret));
            }
            let found = control.secret_value(scope, &name, version).map_err(unreadable)?;
            let (found, value) = found.ok_or_else(|| match version {
                None => unknown("secret", &name),
                Some(version) => unknown("secret", &format!("{name}@{version}")),
            })?;
            let version = found.to_string();
            record(control, scope, user, &name, &version)?;
            Ok(Looked::Here(SecretValue {
                value: Arc::new(value),
                version,
                allowed_hosts: secret.allowed_hosts,
            }))
        })
        .await
    }

    /// The same, without a look if there was one just now.
    async fn look_again(&self, name: &str, version: Option<u64>) -> Result<Looked, Fault> {
        // Both only rise: equal sums mean that neither did.
        let revocations = self.delivery.control.current_generation();
        let (changes, asked) = (self.delivery.resolved.changes() + revocations, Instant::now());
        if let Some(value) = self.moment.get(name, version, changes, asked) {
            return Ok(Looked::Here(value));
        }
        let looked = self.look(name, version).await?;
        if let Looked::Here(value) = &looked {
            self.moment.put(name, version, value.clone(), changes, asked);
            let moment = Arc::clone(&self.moment);
            tokio::spawn(async move {
                tokio::time::sleep(MOMENT).await;
                moment.sweep(Instant::now());
            });
        }
        Ok(looked)
    }

    /// The value of an operator's secret, recorded.
    async fn outside(&self, secret: Secret) -> Result<SecretValue, Fault> {
        let delivery = Arc::clone(&self.delivery);
        self.ask(move |control, scope, user| {
            let name = secret.name.as_str();
            let read = match &secret.source {
                SecretOrigin::Environment { variable } => sources::variable(&delivery.sources, variable),
                SecretOrigin::File { path } => sources::file(&delivery.sources, path),
                SecretOrigin::Stored | SecretOrigin::Resolver { .. } => {
                    Err("it is kept elsewhere".to_owned())
                }
            };
            let value = read.map_err(|why| {
                Fault::new(FaultKind::Misconfigured, format!("secret \"{name}\": {why}"))
                    .with_code("secret.source")
            })?;
            let version = delivery.resolved.fingerprint(&value);
            record(control, scope, user, name, &version)?;
            Ok(SecretValue { value: Arc::new(value), version, allowed_hosts: secret.allowed_hosts })
        })
        .await
    }
}

#[async_trait]
impl Secrets for SecretService {
    async fn secret(&self, name: &str, version: Option<u64>) -> Result<SecretValue, Fault> {
        let secret = match self.look_again(name, version).await? {
            Looked::Here(value) => return Ok(value),
            Looked::Elsewhere(secret) => secret,
        };
        if !matches!(secret.source, SecretOrigin::Resolver { .. }) {
            return self.outside(secret).await;
        }
        // What was kept was asked for under the hosts of then.
        let mut value = self.resolved(&secret).await?;
        value.allowed_hosts = secret.allowed_hosts;
        let (name, version) = (name.to_owned(), value.version.clone());
        self.ask(move |control, scope, user| record(control, scope, user, &name, &version)).await?;
        Ok(value)
    }

    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault> {
        let wanted = name.to_owned();
        let found = self.ask(move |control, scope, user| {
            let allowed = control.may_use(scope, Grantable::Certificate, &wanted, &user.on_behalf_of);
            let found = control.certificate_pem(scope, &wanted).map_err(unreadable)?;
            let found = found.ok_or_else(|| unknown("certificate", &wanted))?;
            if !allowed.map_err(unreadable)? {
                return Err(denied((control, scope), ("certificate", &wanted), user));
            }
            record(control, scope, user, &wanted, &found.version.to_string())?;
            Ok(found)
        });
        let pem = found.await?;
        let version = pem.version.to_string();
        Ok(CertificateValue { chain_pem: pem.chain, key_pem: Arc::new(pem.key), version })
    }

    fn forget(&self, name: &str) {
        self.moment.forget(name);
        self.delivery.resolved.forget(&self.user.environment, name);
    }

    fn note_reveal(&self, name: &str) {
        let (service, use_) = (self.clone(), self.user.use_of(name, "", "reveal"));
        let name = name.to_owned();
        // The plugin waits for nobody here, and the record is written in the background in any case.
        tokio::task::spawn_blocking(move || {
            let scope = Scope { tenant: service.delivery.tenant, environment: &service.user.environment };
            if let Err(error) = service.delivery.control.record_secret_use(&scope, use_) {
                tracing::error!(tenant = %service.delivery.tenant, %name, %error, "a reveal was not recorded");
            }
        });
    }
}

/// [`blocking`], for what ends with a fault.
async fn off_threads<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = blocking(what, move || Ok(work())).await;
    done.unwrap_or_else(|panicked| Err(Fault::new(FaultKind::Internal, panicked.message())))
}

impl Cache {
    /// Tells values apart without telling what they are: keyed with a number that this process forgets when it ends.
    fn fingerprint(&self, value: &Zeroizing<Vec<u8>>) -> String {
        let mac = hmac_sha256(self.fingerprints(), value);
        hex(&mac[..FINGERPRINT_BYTES])
    }
}

impl User {
    fn use_of(&self, name: &str, version: &str, why: &str) -> SecretUse {
        SecretUse {
            at: super::now_us() / 1_000_000,
            name: name.to_owned(),
            version: version.to_owned(),
            who: self.who.clone(),
            why: why.to_owned(),
        }
    }
}

/// The secret's definition, if it may be used.
fn permitted(control: &Control, scope: &Scope<'_>, user: &User, name: &str) -> Result<Secret, Fault> {
    let found = control.secret(scope, name).map_err(unreadable)?;
    let secret = found.ok_or_else(|| unknown("secret", name))?;
    let allowed = control.may_use(scope, Grantable::Secret, name, &user.on_behalf_of);
    if allowed.map_err(unreadable)? {
        Ok(secret)
    } else {
        Err(denied((control, scope), ("secret", name), user))
    }
}

/// What may not be asked of a secret that is not stored.
fn check_elsewhere(user: &User, name: &str, version: Option<u64>) -> Result<(), Fault> {
    if user.stored_only {
        let message = format!("{} may use stored secrets only, and \"{name}\" is none", user.who);
        return Err(Fault::new(FaultKind::Misconfigured, message).with_code("secret.tier"));
    }
    if let Some(version) = version {
        let message = format!("SECRET[{name}@{version}]: versions are kept of stored secrets only");
        return Err(Fault::new(FaultKind::Misconfigured, message).with_code("secret.version"));
    }
    Ok(())
}

/// Notes a use. What cannot be noted is not handed out: a use without a trace is the one that matters.
fn record(control: &Control, scope: &Scope<'_>, user: &User, name: &str, version: &str) -> Result<(), Fault> {
    control.record_secret_use(scope, user.use_of(name, version, &user.why)).map_err(unreadable)
}

/// The control database could not be read: try again.
fn unreadable(error: impl Into<Error>) -> Fault {
    let error: Error = error.into();
    tracing::error!(%error, "a secret cannot be looked up");
    Fault::new(FaultKind::Transient, format!("the secret cannot be looked up: {}", error.message()))
        .with_code("secret.store")
}

fn unknown(what: &str, name: &str) -> Fault {
    Fault::new(FaultKind::Misconfigured, format!("{what} \"{name}\" does not exist"))
        .with_code("secret.unknown")
}

fn denied((control, scope): (&Control, &Scope<'_>), (what, name): (&str, &str), user: &User) -> Fault {
    let key = &user.on_behalf_of;
    let why = match control.is_live_key(scope, key) {
        Ok(false) => format!(
            "the API key {key} that defined it was revoked or has expired: define it anew with another, which for a \
             sink ALTER SINK does"
        ),
        Ok(true) | Err(_) => "its key has lost the right".to_owned(),
    };
    let message = format!("{} may not use {what} \"{name}\": {why}", user.who);
    Fault::new(FaultKind::Unauthorized, message).with_code("secret.denied")
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<SecretService>();
};
