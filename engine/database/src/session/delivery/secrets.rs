//! CREATE SECRET and ALTER SECRET, and whether a definition may name the secrets that it names.

use std::collections::BTreeMap;

use sepal_control::{Grantable, NewSecret, Secret, SecretChange, SecretName, SecretOrigin};
use sepal_query::sql::delivery::{Delivery, ObjectKind, OptionValue, Options, SecretSource};
use sepal_types::{Error, Result, SqlState};
use zeroize::Zeroizing;

use super::{
    Outcome, Session, done, duplicate, missing,
    values::{Bound, is_in_text},
    with_options::SecretOptions,
};
use crate::{connector::Setting, delivery::settings};

/// A source as the control database takes it.
struct Source {
    origin: SecretOrigin,
    value: Option<Zeroizing<Vec<u8>>>,
}

impl Session {
    pub(super) async fn run_secret(&mut self, statement: &Delivery, bound: Bound<'_>) -> Result<Outcome> {
        match statement {
            Delivery::CreateSecret { name, if_not_exists, source, with } => {
                self.check_no_block("CREATE SECRET")?;
                self.create_secret(name, *if_not_exists, (source, with), bound).await
            }
            Delivery::AlterSecret { name, source, with } => {
                self.check_no_block("ALTER SECRET")?;
                self.alter_secret(name, (source.as_ref(), with), bound).await
            }
            _ => Err(Error::bug("a statement that is about no secret")),
        }
    }

    async fn create_secret(
        &mut self,
        name: &str,
        if_not_exists: bool,
        (source, with): (&SecretSource, &Options),
        bound: Bound<'_>,
    ) -> Result<Outcome> {
        let (parsed, options) = (SecretName::parse(name)?, SecretOptions::read(with)?);
        let in_text = is_in_text(source);
        let source = self.source(source, bound).await?;
        let (owner, asked) = (self.key_id(), parsed.clone());
        let created = self.ask_control(move |control, scope| {
            if control.secret(scope, &asked)?.is_some() {
                return Ok(None);
            }
            let new = NewSecret {
                name: &asked,
                owner: &owner,
                origin: source.origin,
                value: source.value.as_ref().map(|value| value.as_slice()),
                allowed_hosts: options.allowed_hosts.filter(|hosts| !hosts.is_empty()),
                refresh_seconds: options.refresh_seconds,
                max_stale_seconds: options.max_stale_seconds,
            };
            control.create_secret(scope, new).map(Some)
        });
        match created.await? {
            Some(secret) => self.warn_of_collision(&secret),
            None if if_not_exists => {
                let exists = duplicate(ObjectKind::Secret, name);
                let message = format!("{}, skipping", exists.message());
                self.notice("NOTICE", Error::new(SqlState::DuplicateObject, message));
            }
            None => return Err(duplicate(ObjectKind::Secret, name)),
        }
        if in_text {
            self.warn_of_text(name, "the secret's value");
        }
        Ok(done("CREATE SECRET"))
    }

    async fn alter_secret(
        &mut self,
        name: &str,
        (source, with): (Option<&SecretSource>, &Options),
        bound: Bound<'_>,
    ) -> Result<Outcome> {
        let options = SecretOptions::read(with)?;
        self.check_owner(Grantable::Secret, name).await?;
        let in_text = source.is_some_and(is_in_text);
        let source = match source {
            Some(source) => Some(self.source(source, bound).await?),
            None => None,
        };
        let asked = name.to_owned();
        let changed = self.ask_control(move |control, scope| {
            let value = source.as_ref().and_then(|source| source.value.as_ref());
            let change = SecretChange {
                value: value.map(|value| value.as_slice()),
                origin: source.as_ref().map(|source| source.origin.clone()),
                // None left: any again.
                allowed_hosts: options
                    .allowed_hosts
                    .map(|hosts| Some(hosts).filter(|hosts| !hosts.is_empty())),
                refresh_seconds: options.refresh_seconds.map(Some),
                max_stale_seconds: options.max_stale_seconds.map(Some),
            };
            control.set_secret(scope, &asked, change)
        });
        changed.await?;
        self.give_back(name).await;
        if in_text {
            self.warn_of_text(name, "the secret's value");
        }
        Ok(done("ALTER SECRET"))
    }

    async fn source(&mut self, source: &SecretSource, bound: Bound<'_>) -> Result<Source> {
        match source {
            SecretSource::Value(value) => {
                let value = bound.bytes(value, "the secret's value")?;
                Ok(Source { origin: SecretOrigin::Stored, value: Some(value) })
            }
            SecretSource::Resolver { resolver, request } => {
                let (_, objects) = self.objects().await?;
                let Some(def) = objects.resolver(&self.environment, resolver) else {
                    let error = missing(ObjectKind::Resolver, resolver);
                    return Err(if matches!(resolver.as_str(), "env" | "file") {
                        error.with_hint(
                            "Secrets of the server's environment and files are its operator's: sepal secret.",
                        )
                    } else {
                        error.with_hint("CREATE SECRET RESOLVER first; SHOW SECRET RESOLVERS lists them.")
                    });
                };
                // It asks with its own credential: whoever may not use that may not read through it either.
                let checked = self.check_references(&def.options, true).await;
                checked.map_err(|error| borrowed(resolver, &error))?;
                let options = request_options(request)?;
                let origin = SecretOrigin::Resolver { resolver: resolver.clone(), options };
                Ok(Source { origin, value: None })
            }
        }
    }

    /// Errors: 42704 for what does not exist; 42501 for what another key made.
    pub(super) async fn check_owner(&self, kind: Grantable, name: &str) -> Result<()> {
        let asked = name.to_owned();
        let owner = self.ask_control(move |control, scope| {
            Ok(match kind {
                Grantable::Secret => control.secret(scope, &asked)?.map(|secret| secret.owner),
                Grantable::Certificate => {
                    control.certificate(scope, &asked)?.map(|certificate| certificate.owner)
                }
            })
        });
        let Some(owner) = owner.await? else {
            return Err(Error::new(
                SqlState::UndefinedObject,
                format!("{} \"{name}\" does not exist", kind.name()),
            ));
        };
        if owner == *self.principal.key_id {
            return Ok(());
        }
        Err(Error::new(SqlState::InsufficientPrivilege, format!("must be owner of {} {name}", kind.name()))
            .with_detail(format!("It was made by {owner}."))
            .with_hint("Use that key, or ask the server's operator: sepal secret."))
    }

    /// Whether this key may hand the secrets and certificates that options name to a sink or resolver.
    ///
    /// `stored_only`: of a resolver, whose own secrets may not wait for a resolver. Errors: 42704 unknown, 42501 not
    /// this key's to use, 22023 not stored.
    pub(super) async fn check_references(
        &self,
        options: &BTreeMap<String, Setting>,
        stored_only: bool,
    ) -> Result<()> {
        let secrets: Vec<(String, Option<u64>)> =
            settings::secrets(options).map(|(name, version)| (name.to_owned(), version)).collect();
        let certificates: Vec<String> = settings::certificates(options).map(str::to_owned).collect();
        if secrets.is_empty() && certificates.is_empty() {
            return Ok(());
        }
        let key = self.key_id();
        let problem = self.ask_control(move |control, scope| {
            for (name, version) in secrets {
                let Some(secret) = control.secret(scope, &name)? else {
                    return Ok(Some(unknown("secret", &name)));
                };
                if !control.may_use(scope, Grantable::Secret, &name, &key)? {
                    return Ok(Some(not_granted(Grantable::Secret, &name)));
                }
                let stored = secret.source == SecretOrigin::Stored;
                if stored_only && !stored {
                    return Ok(Some(not_stored(&name)));
                }
                let Some(version) = version else { continue };
                if !stored || control.secret_value(scope, &name, Some(version))?.is_none() {
                    return Ok(Some(no_version(&secret, version)));
                }
            }
            for name in certificates {
                if control.certificate(scope, &name)?.is_none() {
                    return Ok(Some(unknown("certificate", &name)));
                }
                if !control.may_use(scope, Grantable::Certificate, &name, &key)? {
                    return Ok(Some(not_granted(Grantable::Certificate, &name)));
                }
            }
            Ok(None)
        });
        problem.await?.map_or(Ok(()), Err)
    }

    /// Two secrets that are the same environment variable: there only in the compatible mode.
    fn warn_of_collision(&mut self, secret: &Secret) {
        let Some(other) = &secret.collides_with else { return };
        let message = format!(
            "secret \"{}\" and secret \"{other}\" are the same environment variable, {}",
            secret.name, secret.env_name
        );
        let warning = Error::new(SqlState::Warning, message)
            .with_hint("The last of the names in alphabetical order counts there. Rename one.");
        self.notice("WARNING", warning);
    }

    pub(super) fn warn_of_text(&mut self, name: &str, what: &str) {
        let warning = Error::new(SqlState::Warning, format!("{what} stood in the statement's text"))
            .with_detail("Clients keep what is typed, psql in ~/.psql_history; Sepal keeps it nowhere but sealed.")
            .with_hint(format!(
                "Bind it: CREATE SECRET … AS $1, in psql with \\bind; or sepal secret set {name} < file. Change the \
                 value if others may have read the text."
            ));
        self.notice("WARNING", warning);
    }

    /// Forgets what a resolver answered for a secret that was changed or dropped.
    pub(super) async fn give_back(&self, name: &str) {
        let lease = self.tenant.delivery.resolved.forget(&self.environment, name);
        if let Some(lease) = lease {
            crate::delivery::secrets::revoke(
                &self.tenant.delivery,
                &self.tenant.store,
                &self.environment,
                lease,
            )
            .await;
        }
    }
}

/// What a resolver is asked. It is no place for secrets: the resolver has its own.
fn request_options(request: &Options) -> Result<BTreeMap<String, String>> {
    let mut options = BTreeMap::new();
    for (name, value) in request {
        let text = match value {
            OptionValue::Text(text) => text.clone(),
            OptionValue::Number(number) => number.to_string(),
            OptionValue::Flag(flag) => flag.to_string(),
            OptionValue::Secret(_) | OptionValue::Certificate(_) => {
                let message = format!("\"{name}\" of a secret's resolver cannot be a reference");
                return Err(Error::new(SqlState::InvalidParameterValue, message).with_hint(
                    "Credentials belong to the resolver: CREATE SECRET RESOLVER … OPTIONS (… SECRET[name]).",
                ));
            }
        };
        options.insert(name.clone(), text);
    }
    Ok(options)
}

/// Why a resolver does not look for this key.
fn borrowed(resolver: &str, error: &Error) -> Error {
    let message = format!("secret resolver \"{resolver}\" has a credential that this key may not use");
    Error::new(error.state(), message).with_detail(error.message().to_owned()).with_hint(
        "The credential's owner can say GRANT USAGE ON SECRET … TO this key; or make a resolver with one of its own.",
    )
}

fn unknown(what: &str, name: &str) -> Error {
    Error::new(SqlState::UndefinedObject, format!("{what} \"{name}\" does not exist in this environment"))
        .with_hint(match what {
            "secret" => format!("CREATE SECRET \"{name}\" AS $1. SHOW SECRETS lists those that there are."),
            _ => format!(
                "CREATE CERTIFICATE \"{name}\" AS $1 KEY $2. SHOW CERTIFICATES lists those that there are."
            ),
        })
}

fn not_granted(kind: Grantable, name: &str) -> Error {
    let (what, keyword) = (kind.name(), kind.name().to_ascii_uppercase());
    Error::new(SqlState::InsufficientPrivilege, format!("permission denied for {what} {name}"))
        .with_hint(format!("Its owner can say GRANT USAGE ON {keyword} \"{name}\" TO this key."))
}

fn not_stored(name: &str) -> Error {
    Error::new(
        SqlState::InvalidParameterValue,
        format!("secret \"{name}\" is not stored here, and a secret resolver may only use one that is"),
    )
    .with_hint(
        "CREATE SECRET … AS $1 for the resolver's own credential: resolvers do not wait for each other.",
    )
}

fn no_version(secret: &Secret, version: u64) -> Error {
    let name = &secret.name;
    let hint = format!(
        "The newest is {}, and only the last ones of stored secrets are kept; SECRET[{name}] means the newest.",
        secret.version
    );
    Error::new(SqlState::UndefinedObject, format!("secret \"{name}\" has no version {version}"))
        .with_hint(hint)
}
