//! Which plugin a name means, whose signature it carries, and what a newer one may not ask for.
//!
//! Called by `session::delivery` for CREATE and ALTER PLUGIN, and by `sinks` and `secrets` for what runs.

use base64::{Engine, engine::general_purpose::STANDARD};
use sepal_crypto::{ed25519::VerifyingKey, sha256};
use sepal_types::{Error, Result, SqlState};

use super::{
    Delivery,
    objects::{Objects, TrustKeyDef},
};
use crate::connector::{PluginFacts, PluginKind};

/// What stands before the component's SHA-256 in what is signed.
const SIGNED_PREFIX: &[u8] = b"sepal-plugin-v1\0";

const SIGNATURE_BYTES: usize = 64;

/// A plugin that can run.
#[derive(Clone, Debug)]
pub struct Plugin {
    pub facts: PluginFacts,
    /// Its component is in the tenant's store; else it comes with the process.
    pub own: bool,
}

impl Plugin {
    /// As `SinkSpec::connector` and `ResolverSpec::connector` want it.
    pub fn connector(&self) -> String {
        format!("plugin:{}", self.facts.name)
    }
}

/// The plugin of this name: the environment's own, else a bundled one, which is also known without its publisher
/// (`webhook` for `sepal/webhook`).
///
/// `version`: with what its version must begin, `1.4` for `1.4.2` but not for `1.40`. Errors: 42704 there is none;
/// 42809 of another kind; 22023 of another version.
pub fn find(
    delivery: &Delivery,
    objects: &Objects,
    environment: &str,
    name: &str,
    kind: PluginKind,
    version: Option<&str>,
) -> Result<Plugin> {
    let bundled = || {
        let mut bundled = delivery.connectors().map(|connectors| connectors.bundled()).unwrap_or_default();
        let at = bundled.iter().position(|facts| is_called(facts, name))?;
        Some(Plugin { facts: bundled.swap_remove(at), own: false })
    };
    let own = objects.plugin(environment, name).map(|def| Plugin { facts: def.facts.clone(), own: true });
    let Some(plugin) = own.or_else(bundled) else {
        return Err(Error::new(SqlState::UndefinedObject, format!("plugin \"{name}\" does not exist"))
            .with_hint("SHOW PLUGINS lists those that there are; CREATE PLUGIN brings another."));
    };
    if plugin.facts.kind != kind {
        let (is, wanted) = (noun(plugin.facts.kind), noun(kind));
        return Err(Error::new(
            SqlState::WrongObjectType,
            format!("plugin \"{name}\" is a {is}, not a {wanted}"),
        ));
    }
    if let Some(wanted) = version
        && !begins_with(&plugin.facts.version, wanted)
    {
        let message = format!(
            "plugin \"{name}\" has version {}, which does not begin with {wanted}",
            plugin.facts.version
        );
        return Err(Error::new(SqlState::InvalidParameterValue, message)
            .with_hint("Name a version that it has, or leave VERSION out."));
    }
    Ok(plugin)
}

fn is_called(facts: &PluginFacts, name: &str) -> bool {
    facts.name == name || facts.name.rsplit('/').next() == Some(name)
}

pub const fn noun(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Sink => "sink",
        PluginKind::Resolver => "secret resolver",
    }
}

/// Whether a version is the wanted one or one below it.
pub fn begins_with(version: &str, wanted: &str) -> bool {
    version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '+']))
}

/// Whether a version comes before another: precedence as in Semantic Versioning 2.0.0, section 11.
pub fn is_older(version: &str, than: &str) -> bool {
    precedence(version) < precedence(than)
}

/// A part of what follows the dash. Numbers come before words.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier<'a> {
    Number(u64),
    Word(&'a str),
}

/// The numbers; whether it is a release, which comes after its own pre-releases; what follows the dash.
fn precedence(version: &str) -> (Vec<u64>, bool, Vec<Identifier<'_>>) {
    let version = version.split('+').next().unwrap_or_default();
    let (core, dashed) = match version.split_once('-') {
        Some((core, dashed)) => (core, Some(dashed)),
        None => (version, None),
    };
    let numbers = core.split('.').map(|number| number.parse::<u64>().unwrap_or(0)).collect();
    let identifier =
        |text| str::parse::<u64>(text).map_or_else(|_| Identifier::Word(text), Identifier::Number);
    let dashed_parts = dashed.into_iter().flat_map(|dashed| dashed.split('.')).map(identifier).collect();
    (numbers, dashed.is_none(), dashed_parts)
}

/// The trust key that signed a component; `None` for an unsigned one that is welcome.
///
/// `signature`: ed25519 over `"sepal-plugin-v1\0" || sha256(component)`, 64 bytes or their base64. Errors: 22023 for
/// one that is neither; 42501 when no key of the environment made it, or none was given and none may be missing.
pub fn signer<'a>(
    component: &[u8],
    signature: Option<&[u8]>,
    keys: impl Iterator<Item = &'a TrustKeyDef>,
    allow_unsigned: bool,
) -> Result<Option<String>> {
    let keys: Vec<&TrustKeyDef> = keys.collect();
    let refused = |message: &str, hint: &str| {
        Error::new(SqlState::InsufficientPrivilege, message.to_owned()).with_hint(hint.to_owned())
    };
    let Some(signature) = signature else {
        if keys.is_empty() && allow_unsigned {
            return Ok(None);
        }
        let hint = if keys.is_empty() {
            "CREATE PLUGIN TRUST KEY name AS 'ed25519:…', then give the plugin's .sig as SIGNATURE. Only a server \
             for development (sepal dev) takes unsigned plugins."
        } else {
            "Give the plugin's .sig as SIGNATURE: this environment has trust keys, so every plugin needs one's \
             signature."
        };
        return Err(refused("the plugin is not signed", hint));
    };
    let signature = signature_bytes(signature)?;
    let message = [SIGNED_PREFIX, &sha256(component)].concat();
    for def in &keys {
        let key = VerifyingKey::parse(&def.key).map_err(|problem| {
            Error::new(SqlState::DataCorrupted, format!("trust key \"{}\": {problem}", def.name))
        })?;
        if key.verify(&message, &signature) {
            return Ok(Some(def.name.clone()));
        }
    }
    Err(refused(
        "the plugin's signature is by no trust key of this environment, or not for these bytes",
        "SHOW PLUGINS tells whose plugins are trusted; CREATE PLUGIN TRUST KEY name AS 'ed25519:…' trusts its \
         publisher.",
    ))
}

fn signature_bytes(given: &[u8]) -> Result<Vec<u8>> {
    if given.len() == SIGNATURE_BYTES {
        return Ok(given.to_vec());
    }
    let decoded = STANDARD.decode(given.trim_ascii()).ok();
    decoded.filter(|bytes| bytes.len() == SIGNATURE_BYTES).ok_or_else(|| {
        Error::new(
            SqlState::InvalidParameterValue,
            format!(
                "a signature is {SIGNATURE_BYTES} bytes, or their base64; {} bytes were given",
                given.len()
            ),
        )
        .with_hint("sepal plugin sign writes it beside the component, as .wasm.sig.")
    })
}

/// What a newer component asks for that the older one did not have: it was not granted.
pub fn grown(old: &PluginFacts, new: &PluginFacts) -> Vec<String> {
    let new_capabilities = new.capabilities.iter().filter(|asked| !old.capabilities.contains(asked));
    let new_slots = new.secrets.iter().filter(|slot| !old.secrets.contains(slot));
    new_capabilities.cloned().chain(new_slots.map(|slot| format!("secret {slot}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_an_order() {
        let ascending = [
            "0.9.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0",
            "1.0.9",
            "1.0.10",
            "2.0.0",
        ];
        for pair in ascending.windows(2) {
            assert!(is_older(pair[0], pair[1]) && !is_older(pair[1], pair[0]), "{pair:?}");
        }
        assert!(!is_older("1.0.0+a", "1.0.0+b") && !is_older("1.0.0+b", "1.0.0+a"), "builds do not count");
    }
}
