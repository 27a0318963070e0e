//! What OPTIONS says, and whether a secret stands where only a reference may, or the other way round.
//!
//! Called by `session::delivery` before a definition is kept. Errors name the option, never its value: it may be the
//! password that is being refused.

use std::collections::BTreeMap;

use sepal_control::is_sensitive_name;
use sepal_query::sql::delivery::{OptionValue, Options};
use sepal_types::{Error, Result, SqlState};
use serde_json::Value;

use crate::connector::{PluginFacts, Setting};

/// A statement's options as they are kept.
pub fn settings(options: &Options) -> Result<BTreeMap<String, Setting>> {
    options.iter().map(|(name, value)| Ok((name.clone(), setting(name, value)?))).collect()
}

fn setting(name: &str, value: &OptionValue) -> Result<Setting> {
    Ok(match value {
        OptionValue::Text(text) => Setting::Text(text.clone()),
        OptionValue::Number(number) => Setting::Number(*number),
        OptionValue::Flag(flag) => Setting::Flag(*flag),
        OptionValue::Secret(reference) => Setting::Secret(reference.name.clone(), reference.version),
        OptionValue::Certificate(reference) if reference.version.is_some() => {
            return Err(Error::unsupported(format!("option \"{name}\" pins a version of a certificate"))
                .with_hint(format!("Say CERT[{}]: the newest is used.", reference.name)));
        }
        OptionValue::Certificate(reference) => Setting::Certificate(reference.name.clone()),
    })
}

/// Whether an option's value must be a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// `SECRET[name]` and nothing else.
    Sensitive,
    /// A value and never `SECRET[name]`.
    Plain,
    /// No schema tells.
    Unknown,
}

/// Refuses a secret in clear, and a reference that the connector would take for text.
///
/// The schema decides (`"sensitive": true`, `"writeOnly": true`, or either `false`), then the name: `password`,
/// `api_key` and their like. `facts`: `None` for a native connector, which checks references itself.
pub fn check_sensitive(facts: Option<&PluginFacts>, settings: &BTreeMap<String, Setting>) -> Result<()> {
    let schema: Option<Value> = facts.and_then(|facts| serde_json::from_str(&facts.config_schema).ok());
    for (name, setting) in settings {
        match (rule(facts, schema.as_ref(), name), setting) {
            (Rule::Sensitive, Setting::Text(_) | Setting::Number(_) | Setting::Flag(_)) => {
                return Err(in_clear(name));
            }
            (Rule::Plain, Setting::Secret(secret, _)) => {
                let message = format!("option \"{name}\" is not secret and does not take SECRET[{secret}]");
                return Err(Error::new(SqlState::InvalidParameterValue, message).with_hint(
                    "Write the value. The plugin's schema tells which options are secret: SHOW PLUGINS.",
                ));
            }
            (_, Setting::Text(text)) if has_password(text) => return Err(in_clear(name)),
            _ => {}
        }
    }
    Ok(())
}

fn in_clear(name: &str) -> Error {
    let message = format!("option \"{name}\" is secret and was given in clear");
    Error::new(SqlState::InvalidParameterValue, message)
        .with_detail("The statement's text is kept by clients, logs and histories.")
        .with_hint(format!(
            "CREATE SECRET my_secret AS $1, with the value bound, then {name} SECRET[my_secret]. Change the value that \
             was written here."
        ))
}

fn rule(facts: Option<&PluginFacts>, schema: Option<&Value>, name: &str) -> Rule {
    let property = schema
        .and_then(|schema| schema.get("properties"))
        .and_then(Value::as_object)
        .and_then(|properties| properties.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)))
        .map(|(_, property)| property);
    let marks = ["sensitive", "x-sensitive", "writeOnly"];
    let mut marked = marks.iter().filter_map(|mark| property?.get(mark)?.as_bool()).peekable();
    if marked.peek().is_some() {
        return if marked.any(|sensitive| sensitive) { Rule::Sensitive } else { Rule::Plain };
    }
    if is_sensitive_name(name) || facts.is_some_and(|facts| facts.secrets.iter().any(|slot| slot == name)) {
        return Rule::Sensitive;
    }
    if property.is_some() { Rule::Plain } else { Rule::Unknown }
}

/// `postgres://user:password@host`
fn has_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

/// The secrets that options name, with the version where one is pinned.
pub fn secrets(settings: &BTreeMap<String, Setting>) -> impl Iterator<Item = (&str, Option<u64>)> {
    settings.values().filter_map(|setting| match setting {
        Setting::Secret(name, version) => Some((name.as_str(), *version)),
        _ => None,
    })
}

/// The certificates that options name.
pub fn certificates(settings: &BTreeMap<String, Setting>) -> impl Iterator<Item = &str> {
    settings.values().filter_map(|setting| match setting {
        Setting::Certificate(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Options as a view shows them: references by name. What is in clear is not secret, or it would have been refused.
pub fn shown(settings: &BTreeMap<String, Setting>) -> String {
    let value = |setting: &Setting| match setting {
        Setting::Text(text) => Value::String(text.clone()),
        Setting::Number(number) => serde_json::json!(number),
        Setting::Flag(flag) => Value::Bool(*flag),
        Setting::Secret(name, None) => Value::String(format!("SECRET[{name}]")),
        Setting::Secret(name, Some(version)) => Value::String(format!("SECRET[{name}@{version}]")),
        Setting::Certificate(name) => Value::String(format!("CERT[{name}]")),
    };
    let object: serde_json::Map<String, Value> =
        settings.iter().map(|(name, setting)| (name.clone(), value(setting))).collect();
    Value::Object(object).to_string()
}

/// What ALLOW HOSTS says, each as `scheme://host:port`.
///
/// `https://*.example.com` allows every host below; the port is that of the scheme unless given. Errors: 22023 for
/// anything else, a path or a user among it.
pub fn allow_hosts(hosts: &[String]) -> Result<Vec<String>> {
    let mut parsed: Vec<String> = hosts.iter().map(|host| allow_host(host)).collect::<Result<_>>()?;
    parsed.sort();
    parsed.dedup();
    Ok(parsed)
}

fn allow_host(text: &str) -> Result<String> {
    let refused = |why: &str| {
        Error::new(SqlState::InvalidParameterValue, format!("ALLOW HOSTS: \"{text}\" {why}"))
            .with_hint("Write scheme://host[:port], for example 'https://hooks.example.com:443'.")
    };
    let (scheme, authority) = text.trim().split_once("://").ok_or_else(|| refused("has no scheme"))?;
    let scheme = scheme.to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if scheme.is_empty()
        || !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        || !scheme.chars().all(plain)
    {
        return Err(refused("has no scheme"));
    }
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    // Not shown: what stands before the @ may be a password.
    if authority.contains('@') {
        return Err(Error::new(SqlState::InvalidParameterValue, "ALLOW HOSTS names a user")
            .with_hint("Write scheme://host[:port]; credentials are secrets: OPTIONS (… SECRET[name])."));
    }
    let (host, port) = split_port(authority).ok_or_else(|| refused("has no port where one is begun"))?;
    let port = match (port, scheme.as_str()) {
        (Some(port), _) => port,
        (None, "https" | "wss") => 443,
        (None, "http" | "ws") => 80,
        (None, "postgres" | "postgresql") => 5432,
        (None, _) => return Err(refused("needs a port: its scheme has no usual one")),
    };
    let host = host.to_ascii_lowercase();
    if !is_host(&host) {
        return Err(refused("names no host"));
    }
    Ok(format!("{scheme}://{host}:{port}"))
}

/// Host and port; `None` for a port that is no number from 1 to 65535.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_host = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_host..].rfind(':') {
        None => Some((authority, None)),
        Some(at) => {
            let (host, port) = authority.split_at(after_host + at);
            let port: u16 = port[1..].parse().ok().filter(|port| *port > 0)?;
            Some((host, Some(port)))
        }
    }
}

/// A name, `*.` and a name, an IPv4 address or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
