//! Where a plugin asks to reach: `https://api.example.com`, `https://*.example.com`, or the host of one of its options.
//!
//! Gives rules as `scheme://host:port`; `egress` intersects them with what was granted and what the operator allows.

use std::fmt;

use sepal_database::connector::{Fault, FaultKind};
use serde_json::{Map, Value};
use url::Url;

use super::{ConfigSchema, ManifestError};

/// One line of `[capabilities] http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpCapability {
    /// `https://api.example.com:443`; the host may begin with `*.`.
    Origin(String),
    /// The host of the URL in this option.
    Option(String),
}

impl HttpCapability {
    /// Errors say what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(inner) = text.strip_prefix('{') {
            let name = inner.strip_suffix('}').and_then(|inner| inner.strip_prefix("config."));
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            return match name.filter(|name| !name.is_empty() && name.bytes().all(plain)) {
                Some(name) => Ok(Self::Option(name.to_owned())),
                None => Err(format!("{text:?} is not {{config.<option>}}, the option alone in braces")),
            };
        }
        let (scheme, host) = text.split_once("://").ok_or_else(|| {
            format!("{text:?} is not https://host, https://host:port or {{config.<option>}}")
        })?;
        if host.is_empty() || host.contains(['/', '?', '#', '@', '\\']) {
            return Err(format!("{text:?} names more or less than a host: leave out path, query and user"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        if !host.strip_prefix("*.").unwrap_or(host).bytes().all(plain) {
            return Err(format!(
                "{text:?} has a character that no host has; only a leading *. stands for more"
            ));
        }
        let Some(suffix) = host.strip_prefix("*.") else { return origin_of(text).map(Self::Origin) };
        if !suffix.trim_end_matches('.').contains('.') {
            return Err(format!("{text:?} is too wide: write *. and a domain of at least two names"));
        }
        let origin = origin_of(&format!("{scheme}://{suffix}"))?;
        Ok(Self::Origin(origin.replacen("://", "://*.", 1)))
    }

    /// The option of a template is in the schema, and is no secret.
    pub(super) fn check(&self, schema: &ConfigSchema) -> Result<(), ManifestError> {
        let Self::Option(name) = self else { return Ok(()) };
        let wrong =
            |problem: &str| Err(ManifestError::new(format!("capabilities.http {{config.{name}}}"), problem));
        if !schema.has(name) {
            return wrong("the schema has no such option");
        }
        if schema.is_sensitive(name) {
            return wrong("a sensitive option names no host: the host would be a secret");
        }
        Ok(())
    }

    /// `scheme://host:port` under these options; `None` when the option of a template is not set.
    pub fn rule(&self, config: &Map<String, Value>) -> Result<Option<String>, Fault> {
        match self {
            Self::Origin(origin) => Ok(Some(origin.clone())),
            Self::Option(name) => match config.get(name).and_then(Value::as_str) {
                None => Ok(None),
                Some(url) => origin_of(url).map(Some).map_err(|problem| {
                    Fault::new(FaultKind::Misconfigured, format!("/{name}: {problem}")).with_code("config")
                }),
            },
        }
    }
}

impl fmt::Display for HttpCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin(origin) => f.write_str(origin),
            Self::Option(name) => write!(f, "{{config.{name}}}"),
        }
    }
}

/// `https://hooks.example.com:443` of `https://hooks.example.com/in`.
pub fn origin_of(text: &str) -> Result<String, String> {
    // The text is not repeated: a token in a path or a password before the host would go into a log.
    let url =
        Url::parse(text).map_err(|error| format!("this is not a URL ({error}); write https://host/path"))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(format!("a URL of scheme {:?} goes nowhere here; write https://host/path", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "this URL has a user name or password in it; give them as SECRET[name] options".to_owned()
        );
    }
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok(format!("{}://{host}:{port}", url.scheme())),
        _ => Err("this URL names no host; write https://host/path".to_owned()),
    }
}
