//! Names of secrets and certificates, checked once where they enter.
//!
//! `^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`: nothing that needs quoting in `SECRET[name]`, and no dot, which some would read
//! as a path.

use std::{fmt, ops::Deref};

use crate::{ControlError, control_error::Result};

const MAX_NAME_BYTES: usize = 63;

/// A secret's or certificate's name. Case counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

impl SecretName {
    /// Checks the name; the error says the rule.
    pub fn parse(name: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let begins_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !begins_well || name.len() > MAX_NAME_BYTES || !name.bytes().all(allowed) {
            return Err(ControlError::InvalidSecretName(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for SecretName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        for name in ["a", "DB_PASSWORD", "9-lives", "my-tls-cert", &"x".repeat(63)] {
            assert_eq!(SecretName::parse(name).unwrap().as_str(), name);
        }
        // The last is a Cyrillic letter that looks like `a`.
        for name in
            ["", "my-api.key", "-a", "_a", "a b", "a]", "a@1", "../a", "a\0", &"x".repeat(64), "\u{430}"]
        {
            let error = SecretName::parse(name).unwrap_err();
            assert!(error.to_string().contains("letters, digits"), "{error}");
            assert_eq!(sepal_types::Error::from(error).state().code(), "42602", "{name:?}");
        }
    }
}
