//! Options of a native sink, read by name. Whatever nobody asked for is an error: a misspelt option must not be a
//! silent default.

use std::{cell::RefCell, collections::BTreeSet};

use sepal_database::connector::{Fault, Secrets, Setting, SinkSpec};
use zeroize::Zeroizing;

use super::misconfigured;
use crate::egress::{DestinationHost, HostPattern};

/// The options of one sink.
pub(super) struct Options<'a> {
    spec: &'a SinkSpec,
    asked: RefCell<BTreeSet<&'static str>>,
}

/// A secret that an option names; resolved when it is needed.
#[derive(Clone, Debug)]
pub(super) struct SecretOption {
    name: String,
    version: Option<u64>,
}

impl SecretOption {
    /// The plaintext, for a destination that the secret allows, and its version. Ask before each use: what was allowed
    /// once may have been taken back.
    pub async fn value(
        &self,
        secrets: &dyn Secrets,
        host: &str,
    ) -> Result<(Zeroizing<String>, String), Fault> {
        let secret = secrets.secret(&self.name, self.version).await?;
        if let Some(hosts) = &secret.allowed_hosts
            && !DestinationHost::parse(host).is_some_and(|host| HostPattern::any_matches(hosts, &host))
        {
            let problem =
                format!("the secret \"{}\" may not go to {host}: its allowed_hosts say where", self.name);
            return Err(misconfigured(problem).with_code("egress.denied"));
        }
        std::str::from_utf8(&secret.value)
            .map(|text| (Zeroizing::new(text.to_owned()), secret.version.clone()))
            .map_err(|_| misconfigured(format!("the secret \"{}\" is not UTF-8 text", self.name)))
    }

    pub fn forget(&self, secrets: &dyn Secrets) {
        secrets.forget(&self.name);
    }
}

impl<'a> Options<'a> {
    pub fn new(spec: &'a SinkSpec) -> Self {
        Self { spec, asked: RefCell::default() }
    }

    fn get(&self, name: &'static str) -> Option<&'a Setting> {
        self.asked.borrow_mut().insert(name);
        self.spec.options.get(name)
    }

    pub fn text(&self, name: &'static str) -> Result<Option<&'a str>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Setting::Text(text)) => Ok(Some(text)),
            Some(_) => Err(misconfigured(format!("/{name}: a text is wanted"))),
        }
    }

    pub fn required(&self, name: &'static str) -> Result<&'a str, Fault> {
        self.text(name)?.ok_or_else(|| misconfigured(format!("/{name}: missing")))
    }

    pub fn secret(&self, name: &'static str) -> Result<Option<SecretOption>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Setting::Secret(secret, version)) => {
                Ok(Some(SecretOption { name: secret.clone(), version: *version }))
            }
            Some(_) => {
                Err(misconfigured(format!("/{name}: only a secret may stand here: {name} SECRET[name]")))
            }
        }
    }

    /// A whole number from 1 to `most`.
    pub fn count(&self, name: &'static str, default: u64, most: u64) -> Result<u64, Fault> {
        let number = match self.get(name) {
            None => return Ok(default),
            Some(Setting::Number(number)) if number.fract() == 0.0 && *number >= 0.0 => *number as u64,
            Some(Setting::Text(text)) => text.trim().parse().unwrap_or(0),
            Some(_) => 0,
        };
        if (1..=most).contains(&number) {
            return Ok(number);
        }
        Err(misconfigured(format!("/{name}: a whole number from 1 to {most} is wanted")))
    }

    /// Errors: an option that nobody has asked for. Call it last.
    pub fn finish(&self) -> Result<(), Fault> {
        let asked = self.asked.borrow();
        match self.spec.options.keys().find(|name| !asked.contains(name.as_str())) {
            None => Ok(()),
            Some(stranger) => Err(misconfigured(format!(
                "/{stranger}: {} has no such option; it has {}",
                self.spec.connector,
                asked.iter().copied().collect::<Vec<_>>().join(", ")
            ))),
        }
    }
}
