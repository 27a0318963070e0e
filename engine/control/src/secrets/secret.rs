//! What a secret is, what it is made of, and how it changes. Checks what callers bring; `store` writes it.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Component, Path},
};

use serde::{Deserialize, Serialize};

use crate::{ControlError, SecretName, control_error::Result};

use super::{EnvNames, MAX_HOSTS, MAX_OPTION_BYTES, MAX_SECRET_BYTES};

/// What may be told about a secret. The value is not part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    pub name: SecretName,
    pub environment: String,
    /// From 1; rises with each new value and each change of origin.
    pub version: u64,
    /// Unix seconds, as the next.
    pub created_at: i64,
    pub updated_at: i64,
    /// The id of the API key that made it, or [`super::OPERATOR`].
    pub owner: String,
    pub source: SecretOrigin,
    /// Names, or `*.` and the end of names, in lower case; `None`: any host that the sink may reach.
    pub allowed_hosts: Option<Vec<String>>,
    /// How old a value from outside may get before it is fetched anew.
    pub refresh_seconds: Option<u32>,
    /// How long a value from outside is used on while its source does not answer.
    pub max_stale_seconds: Option<u32>,
    /// What it is called where it is an environment variable.
    pub env_name: String,
    /// Another secret with the same `env_name`: there only in the compatible mode, or from a time in it.
    pub collides_with: Option<String>,
}

/// Where a secret's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretOrigin {
    /// From the statement or command that set it; kept sealed.
    Stored,
    /// From a resolver of the same environment; the options say which value.
    Resolver { resolver: String, options: BTreeMap<String, String> },
    /// From the server's environment. Only the operator makes these.
    Environment { variable: String },
    /// From a file below the directory that the operator opened for it. Only the operator makes these.
    File { path: String },
}

/// A secret to be made. Has no `Debug`: it carries the value.
pub struct NewSecret<'a> {
    pub name: &'a SecretName,
    pub owner: &'a str,
    pub origin: SecretOrigin,
    /// For [`SecretOrigin::Stored`] and for no other.
    pub value: Option<&'a [u8]>,
    pub allowed_hosts: Option<Vec<String>>,
    pub refresh_seconds: Option<u32>,
    pub max_stale_seconds: Option<u32>,
}

/// What changes in a secret; what is `None` stays. Has no `Debug`: it may carry a value.
#[derive(Default)]
pub struct SecretChange<'a> {
    /// A value alone makes the secret a stored one.
    pub value: Option<&'a [u8]>,
    pub origin: Option<SecretOrigin>,
    /// `Some(None)`: any host again.
    pub allowed_hosts: Option<Option<Vec<String>>>,
    pub refresh_seconds: Option<Option<u32>>,
    pub max_stale_seconds: Option<Option<u32>>,
}

/// The sealed part of a secret's row. Fields are only ever added, with a default.
#[derive(Serialize, Deserialize)]
pub(crate) struct SecretBody {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) created_at: i64,
    updated_at: i64,
    pub(crate) owner: String,
    pub(crate) origin: SecretOrigin,
    allowed_hosts: Option<Vec<String>>,
    refresh_seconds: Option<u32>,
    max_stale_seconds: Option<u32>,
}

impl fmt::Display for SecretOrigin {
    /// `stored`, `resolver vault_prod`, `environment variable NAME`, `file PATH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Resolver { resolver, .. } => write!(f, "resolver {resolver}"),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::File { path } => write!(f, "file {path}"),
        }
    }
}

impl SecretBody {
    pub(crate) fn new(new: &NewSecret<'_>, now: i64) -> Result<Self> {
        let mut body = Self {
            name: new.name.to_string(),
            version: 1,
            created_at: now,
            updated_at: now,
            owner: new.owner.to_owned(),
            origin: new.origin.clone(),
            allowed_hosts: new.allowed_hosts.clone(),
            refresh_seconds: new.refresh_seconds,
            max_stale_seconds: new.max_stale_seconds,
        };
        if body.origin == SecretOrigin::Stored && new.value.is_none() {
            return Err(invalid(format!("secret \"{}\" is to be stored, but has no value", body.name)));
        }
        body.check(new.value)?;
        Ok(body)
    }

    pub(crate) fn change(&mut self, change: SecretChange<'_>, now: i64) -> Result<()> {
        let implied = change.value.map(|_| SecretOrigin::Stored);
        let origin = change.origin.or(implied).unwrap_or_else(|| self.origin.clone());
        let moved = origin != self.origin;
        if moved && origin == SecretOrigin::Stored {
            if change.value.is_none() {
                let (name, from) = (&self.name, &self.origin);
                return Err(invalid(format!(
                    "secret \"{name}\" comes from {from}: to store it, give a value"
                )));
            }
            // They speak of a source that it no longer has.
            (self.refresh_seconds, self.max_stale_seconds) = (None, None);
        }
        self.origin = origin;
        if moved || change.value.is_some() {
            self.version += 1;
        }
        self.updated_at = now;
        self.allowed_hosts = change.allowed_hosts.unwrap_or_else(|| self.allowed_hosts.take());
        self.refresh_seconds = change.refresh_seconds.unwrap_or(self.refresh_seconds);
        self.max_stale_seconds = change.max_stale_seconds.unwrap_or(self.max_stale_seconds);
        self.check(change.value)
    }

    pub(crate) fn into_secret(
        self,
        environment: &str,
        names: &EnvNames,
        collides_with: Option<String>,
    ) -> Result<Secret> {
        Ok(Secret {
            env_name: names.of(&self.name),
            name: SecretName::parse(&self.name)?,
            environment: environment.to_owned(),
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            owner: self.owner,
            source: self.origin,
            allowed_hosts: self.allowed_hosts,
            refresh_seconds: self.refresh_seconds,
            max_stale_seconds: self.max_stale_seconds,
            collides_with,
        })
    }

    /// Judges the whole, whichever part was given now.
    fn check(&mut self, value: Option<&[u8]>) -> Result<()> {
        let name = &self.name;
        if let Some(value) = value {
            check_value(name, value)?;
        }
        let ages = [("refresh", self.refresh_seconds), ("max_stale", self.max_stale_seconds)];
        if let Some((what, _)) = ages.iter().find(|(_, age)| *age == Some(0)) {
            return Err(invalid(format!(
                "{what} of secret \"{name}\" is 0: give at least a second, or leave it out"
            )));
        }
        match &self.origin {
            SecretOrigin::Stored => {
                if let Some((what, _)) = ages.iter().find(|(_, age)| age.is_some()) {
                    return Err(invalid(format!(
                        "secret \"{name}\" is stored, so there is nothing to fetch anew: leave out {what}"
                    )));
                }
            }
            origin if value.is_some() => {
                return Err(invalid(format!(
                    "secret \"{name}\" comes from {origin}: it cannot have a value too"
                )));
            }
            SecretOrigin::Resolver { resolver, options } => check_resolver(name, resolver, options)?,
            SecretOrigin::Environment { variable } => check_variable(variable)?,
            SecretOrigin::File { path } => check_path(path)?,
        }
        if let Some(hosts) = &mut self.allowed_hosts {
            check_hosts(name, hosts)?;
        }
        Ok(())
    }
}

fn check_value(name: &str, value: &[u8]) -> Result<()> {
    if value.is_empty() {
        return Err(invalid(format!(
            "the value of secret \"{name}\" is empty: a secret has at least one byte"
        )));
    }
    if value.len() > MAX_SECRET_BYTES {
        return Err(invalid(format!(
            "the value of secret \"{name}\" has {} bytes: a secret has {MAX_SECRET_BYTES} at most",
            value.len()
        )));
    }
    Ok(())
}

fn check_resolver(name: &str, resolver: &str, options: &BTreeMap<String, String>) -> Result<()> {
    if resolver.is_empty() {
        return Err(invalid(format!("secret \"{name}\" names no resolver")));
    }
    let bytes: usize = options.iter().map(|(option, text)| option.len() + text.len()).sum();
    if bytes > MAX_OPTION_BYTES {
        return Err(invalid(format!(
            "the options of secret \"{name}\" have {bytes} bytes together: {MAX_OPTION_BYTES} at most"
        )));
    }
    Ok(())
}

fn check_variable(variable: &str) -> Result<()> {
    let begins_well = variable.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins_well || !variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(invalid(format!(
            "\"{variable}\" is no environment variable: use letters, digits and '_', not a digit first"
        )));
    }
    Ok(())
}

/// Below the operator's directory, by what the path says. Symbolic links are judged when the file is opened.
fn check_path(path: &str) -> Result<()> {
    let below =
        !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !below || path.contains('\0') {
        return Err(invalid(format!(
            "the file \"{path}\" must be named relative to secret_file_root, without \"..\""
        )));
    }
    Ok(())
}

/// Also brings them to lower case: names of hosts have none.
fn check_hosts(name: &str, hosts: &mut [String]) -> Result<()> {
    if hosts.is_empty() || hosts.len() > MAX_HOSTS {
        return Err(invalid(format!(
            "allowed_hosts of secret \"{name}\" has {} names: give 1 to {MAX_HOSTS}, or leave it out for any host",
            hosts.len()
        )));
    }
    for host in hosts {
        host.make_ascii_lowercase();
        let rest = host.strip_prefix("*.").unwrap_or(host);
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        if rest.is_empty() || rest.len() > 253 || rest.starts_with('.') || !rest.chars().all(allowed) {
            return Err(invalid(format!(
                "\"{host}\" in allowed_hosts of secret \"{name}\" is no host: write hooks.example.com or \
                 *.example.com, without scheme and path"
            )));
        }
    }
    Ok(())
}

fn invalid(message: String) -> ControlError {
    ControlError::InvalidArgument(message)
}
