//! What the operator asks about secrets: the requests, their answers, and how they are answered.
//!
//! Values go in, never out. A value crosses the socket as base64 inside the one line of its request; both sides wipe
//! that line.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use sepal_database::{
    Database, Error, Grantable, NewSecret, OPERATOR, Result, Scope, Secret, SecretChange, SecretName,
    SecretOrigin, SqlState, TenantId,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// What is done in one environment of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SecretAction {
    /// Makes a secret, or gives it a new value.
    Set {
        name: String,
        source: SecretSource,
        allowed_hosts: Option<Vec<String>>,
    },
    List,
    Remove {
        name: String,
    },
    Grant {
        name: String,
        certificate: bool,
        to: String,
        revoke: bool,
    },
    Lint,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    Value(SecretBytes),
    /// A variable of the server's environment.
    Environment(String),
    /// A file below `secret_file_root`.
    File(String),
}

/// A value on its way to the server. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(redacted)")
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // The reader's own error would quote the text.
        let bytes =
            STANDARD.decode(text.as_bytes()).map_err(|_| serde::de::Error::custom("a value is base64"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

/// What may be told about a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFacts {
    pub name: String,
    pub version: u64,
    /// `stored`, `resolver vault_prod`, …
    pub source: String,
    pub env_name: String,
    pub allowed_hosts: Option<Vec<String>>,
    pub owner: String,
    /// API keys, or `public`.
    pub granted_to: Vec<String>,
    /// Seconds since 1970.
    pub created_at: i64,
    pub updated_at: i64,
    /// Another secret with the same `env_name`.
    pub collides_with: Option<String>,
}

/// What `sepal secret lint` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretLint {
    pub collisions: Vec<Collision>,
    /// Those that have expired or will within [`EXPIRES_SOON_S`], the first to expire first.
    pub expiring: Vec<Expiring>,
}

/// Secrets that are one environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collision {
    pub variable: String,
    /// In alphabetical order; the last one's value counts.
    pub names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    pub name: String,
    pub subject: String,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// A month, in which a renewal that fails can still be mended.
pub const EXPIRES_SOON_S: i64 = 30 * 86_400;

/// What [`answer`] gives; which one follows from the action.
pub enum Answered {
    Secret(SecretFacts),
    Secrets(Vec<SecretFacts>),
    Lint(SecretLint),
    Done,
}

/// Does what was asked. Blocking.
pub fn answer(
    database: &Database,
    tenant: TenantId,
    environment: &str,
    action: SecretAction,
) -> Result<Answered> {
    let control = database.control();
    let scope = Scope { tenant, environment };
    Ok(match action {
        SecretAction::Set { name, source, allowed_hosts } => {
            Answered::Secret(set(database, &scope, &name, &source, allowed_hosts)?)
        }
        SecretAction::List => {
            let secrets = control.list_secrets(&scope)?.into_iter();
            Answered::Secrets(
                secrets.map(|secret| describe(database, &scope, secret)).collect::<Result<_>>()?,
            )
        }
        SecretAction::Remove { name } => {
            control.drop_secret(&scope, &name)?;
            Answered::Done
        }
        SecretAction::Grant { name, certificate, to, revoke } => {
            let kind = if certificate { Grantable::Certificate } else { Grantable::Secret };
            if revoke {
                control.revoke_usage(&scope, kind, &name, &to)?;
            } else {
                control.grant_usage(&scope, kind, &name, &to)?;
            }
            Answered::Done
        }
        SecretAction::Lint => Answered::Lint(lint(database, &scope)?),
    })
}

fn set(
    database: &Database,
    scope: &Scope<'_>,
    name: &str,
    source: &SecretSource,
    allowed_hosts: Option<Vec<String>>,
) -> Result<SecretFacts> {
    let (origin, value) = match source {
        SecretSource::Value(bytes) => (SecretOrigin::Stored, Some(bytes.0.as_slice())),
        SecretSource::Environment(variable) => (allowed_variable(database, variable)?, None),
        SecretSource::File(path) => (allowed_file(database, path)?, None),
    };
    let control = database.control();
    let secret = if control.secret(scope, name)?.is_some() {
        let change = SecretChange {
            value,
            origin: Some(origin),
            allowed_hosts: allowed_hosts.map(Some),
            ..SecretChange::default()
        };
        control.set_secret(scope, name, change)?
    } else {
        let name = &SecretName::parse(name)?;
        control.create_secret(
            scope,
            NewSecret {
                name,
                owner: OPERATOR,
                origin,
                value,
                allowed_hosts,
                refresh_seconds: None,
                max_stale_seconds: None,
            },
        )?
    };
    describe(database, scope, secret)
}

/// Errors: the operator's settings do not open this variable.
fn allowed_variable(database: &Database, variable: &str) -> Result<SecretOrigin> {
    let hint =
        "Set secret_env_source to the prefix of the variables that may be named, and start the server again.";
    match &database.secret_sources().env_prefix {
        Some(prefix) if variable.starts_with(prefix.as_str()) => {
            Ok(SecretOrigin::Environment { variable: variable.to_owned() })
        }
        Some(prefix) => Err(Error::new(
            SqlState::InvalidParameterValue,
            format!(
                "the variable \"{variable}\" does not begin with \"{prefix}\", as secret_env_source asks"
            ),
        )
        .with_hint(hint)),
        None => Err(Error::new(
            SqlState::ObjectNotInPrerequisiteState,
            format!("the variable \"{variable}\" may not be named: secret_env_source is not set"),
        )
        .with_hint(hint)),
    }
}

/// Errors: the operator's settings open no directory. Whether the path stays below it, control judges.
fn allowed_file(database: &Database, path: &str) -> Result<SecretOrigin> {
    if database.secret_sources().file_root.is_some() {
        return Ok(SecretOrigin::File { path: path.to_owned() });
    }
    Err(Error::new(
        SqlState::ObjectNotInPrerequisiteState,
        format!("the file \"{path}\" may not be named: secret_file_root is not set"),
    )
    .with_hint(
        "Set secret_file_root to the directory of the files that may be named, and start the server again.",
    ))
}

fn describe(database: &Database, scope: &Scope<'_>, secret: Secret) -> Result<SecretFacts> {
    Ok(SecretFacts {
        granted_to: database.control().grantees(scope, Grantable::Secret, &secret.name)?,
        name: secret.name.to_string(),
        version: secret.version,
        source: secret.source.to_string(),
        env_name: secret.env_name,
        allowed_hosts: secret.allowed_hosts,
        owner: secret.owner,
        created_at: secret.created_at,
        updated_at: secret.updated_at,
        collides_with: secret.collides_with,
    })
}

fn lint(database: &Database, scope: &Scope<'_>) -> Result<SecretLint> {
    let control = database.control();
    let mut variables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for secret in control.list_secrets(scope)? {
        variables.entry(secret.env_name).or_default().push(secret.name.to_string());
    }
    variables.retain(|_, names| names.len() > 1);
    let soon = control.now().saturating_add(EXPIRES_SOON_S);
    let certificates = control.list_certificates(scope)?.into_iter();
    let mut expiring: Vec<Expiring> = certificates
        .filter(|certificate| certificate.not_after <= soon)
        .map(|certificate| Expiring {
            name: certificate.name.to_string(),
            subject: certificate.subject,
            not_after: certificate.not_after,
        })
        .collect();
    expiring.sort_by_key(|certificate| certificate.not_after);
    let collisions = variables.into_iter().map(|(variable, names)| Collision { variable, names }).collect();
    Ok(SecretLint { collisions, expiring })
}
