//! The values of secrets, for whoever runs on a tenant's behalf: one sink, or one resolver.
//!
//! A [`SecretService`] is handed to a connector ([`Secrets`]); it names one tenant and one environment and can reach no
//! other. Each call asks anew whether the secret is there and whether the key that defined the sink may still use it:
//! a grant taken back ends a running sink, and so does a key that is revoked or expires. Each value handed out is
//! recorded.
//!
//! | origin | where the value is | kept here |
//! |---|---|---|
//! | stored | sealed, in the control database | no |
//! | environment, file | the operator's process and disk ([`sources`]) | no |
//! | resolver | elsewhere, asked through a plugin | for its time to live ([`cache`]) |
//!
//! A resolver's own options may name stored secrets only: it cannot wait for itself.

mod cache;
mod resolve;
mod sources;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use sepal_control::{Control, Grantable, Scope, Secret, SecretOrigin, SecretUse};
use sepal_crypto::hmac_sha256;
use sepal_storage::TenantStore;
use sepal_types::Error;
use zeroize::Zeroizing;

use super::{
    Delivery, hex,
    objects::{ResolverDef, SinkDef},
};
use crate::connector::{CertificateValue, Fault, FaultKind, SecretValue, Secrets};

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
}

/// Who asks, on whose behalf, for what.
#[derive(Debug)]
struct User {
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
        Arc::new(Self { delivery, store, user: Arc::new(user) })
    }

    /// Runs a look into the control database off the async threads.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Control, &Scope<'_>, &User) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (delivery, user) = (Arc::clone(&self.delivery), Arc::clone(&self.user));
        let asked = tokio::task::spawn_blocking(move || {
            let scope = Scope { tenant: delivery.tenant, environment: &user.environment };
            question(&delivery.control, &scope, &user)
        });
        asked.await.map_err(|problem| {
            Fault::new(FaultKind::Internal, format!("a look for a secret panicked: {problem}"))
        })?
    }

    /// The secret's definition, if it may be used.
    async fn permitted(&self, name: &str) -> Result<Secret, Fault> {
        let name = name.to_owned();
        self.ask(move |control, scope, user| {
            let found = control.secret(scope, &name).map_err(unreadable)?;
            let secret = found.ok_or_else(|| unknown("secret", &name))?;
            let allowed = control.may_use(scope, Grantable::Secret, &name, &user.on_behalf_of);
            if allowed.map_err(unreadable)? {
                return Ok(secret);
            }
            Err(denied((control, scope), ("secret", &name), user))
        })
        .await
    }

    async fn stored(&self, secret: &Secret, version: Option<u64>) -> Result<SecretValue, Fault> {
        let (name, allowed_hosts) = (secret.name.to_string(), secret.allowed_hosts.clone());
        let found = self.ask(move |control, scope, _| {
            let value = control.secret_value(scope, &name, version).map_err(unreadable)?;
            value.ok_or_else(|| match version {
                None => unknown("secret", &name),
                Some(version) => unknown("secret", &format!("{name}@{version}")),
            })
        });
        let (version, value) = found.await?;
        Ok(SecretValue { value: Arc::new(value), version: version.to_string(), allowed_hosts })
    }

    /// The value of an operator's secret.
    async fn outside(&self, secret: &Secret) -> Result<SecretValue, Fault> {
        let (delivery, origin, name) =
            (Arc::clone(&self.delivery), secret.source.clone(), secret.name.to_string());
        let read = tokio::task::spawn_blocking(move || match &origin {
            SecretOrigin::Environment { variable } => sources::variable(&delivery.sources, variable),
            SecretOrigin::File { path } => sources::file(&delivery.sources, path),
            SecretOrigin::Stored | SecretOrigin::Resolver { .. } => Err("it is kept elsewhere".to_owned()),
        });
        let read = read.await.unwrap_or_else(|problem| Err(format!("reading it panicked: {problem}")));
        let value = read.map_err(|why| {
            Fault::new(FaultKind::Misconfigured, format!("secret \"{name}\": {why}"))
                .with_code("secret.source")
        })?;
        let version = self.delivery.resolved.fingerprint(&value);
        Ok(SecretValue { value: Arc::new(value), version, allowed_hosts: secret.allowed_hosts.clone() })
    }

    /// Notes a use. What cannot be noted is not handed out: a use without a trace is the one that matters.
    async fn record(&self, name: &str, version: &str) -> Result<(), Fault> {
        let use_ = self.use_of(name, version, &self.user.why);
        self.ask(move |control, scope, _| control.record_secret_use(scope, use_).map_err(unreadable)).await
    }

    fn use_of(&self, name: &str, version: &str, why: &str) -> SecretUse {
        SecretUse {
            at: super::now_us() / 1_000_000,
            name: name.to_owned(),
            version: version.to_owned(),
            who: self.user.who.clone(),
            why: why.to_owned(),
        }
    }
}

#[async_trait]
impl Secrets for SecretService {
    async fn secret(&self, name: &str, version: Option<u64>) -> Result<SecretValue, Fault> {
        let secret = self.permitted(name).await?;
        let is_stored = matches!(secret.source, SecretOrigin::Stored);
        if self.user.stored_only && !is_stored {
            let message = format!("{} may use stored secrets only, and \"{name}\" is none", self.user.who);
            return Err(Fault::new(FaultKind::Misconfigured, message).with_code("secret.tier"));
        }
        if let (Some(version), false) = (version, is_stored) {
            let message = format!("SECRET[{name}@{version}]: versions are kept of stored secrets only");
            return Err(Fault::new(FaultKind::Misconfigured, message).with_code("secret.version"));
        }
        let value = match &secret.source {
            SecretOrigin::Stored => self.stored(&secret, version).await?,
            SecretOrigin::Environment { .. } | SecretOrigin::File { .. } => self.outside(&secret).await?,
            SecretOrigin::Resolver { .. } => self.resolved(&secret).await?,
        };
        self.record(name, &value.version).await?;
        Ok(value)
    }

    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault> {
        let wanted = name.to_owned();
        let found = self.ask(move |control, scope, user| {
            let allowed = control.may_use(scope, Grantable::Certificate, &wanted, &user.on_behalf_of);
            let found = control.certificate_pem(scope, &wanted).map_err(unreadable)?;
            let found = found.ok_or_else(|| unknown("certificate", &wanted))?;
            if allowed.map_err(unreadable)? {
                return Ok(found);
            }
            Err(denied((control, scope), ("certificate", &wanted), user))
        });
        let pem = found.await?;
        let version = pem.version.to_string();
        self.record(name, &version).await?;
        Ok(CertificateValue { chain_pem: pem.chain, key_pem: Arc::new(pem.key), version })
    }

    fn forget(&self, name: &str) {
        self.delivery.resolved.forget(&self.user.environment, name);
    }

    fn note_reveal(&self, name: &str) {
        let (service, use_) = (self.clone(), self.use_of(name, "", "reveal"));
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

impl Cache {
    /// Tells values apart without telling what they are: keyed with a number that this process forgets when it ends.
    fn fingerprint(&self, value: &Zeroizing<Vec<u8>>) -> String {
        let mac = hmac_sha256(self.fingerprints(), value);
        hex(&mac[..FINGERPRINT_BYTES])
    }
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
