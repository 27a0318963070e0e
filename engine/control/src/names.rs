//! Names of tenants and environments, checked once where they enter.
//!
//! 1 to 63 of `a-z 0-9 - _`: clients name the environment as the Postgres database, and these need no quoting
//! or escaping anywhere.

use std::{fmt, ops::Deref, sync::Arc};

use crate::{ControlError, control_error::Result};

/// The environment that every tenant has.
pub const DEFAULT_ENVIRONMENT: &str = "default";

const MAX_NAME_BYTES: usize = 63;

macro_rules! checked_name {
    ($name:ident, $what:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the name; the error says what is allowed.
            pub fn parse(name: &str) -> Result<Self> {
                let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
                if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(allowed) {
                    return Err(ControlError::InvalidName { what: $what, name: name.to_owned() });
                }
                Ok(Self(name.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text, for a [`crate::Principal`].
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_name!(TenantName, "a tenant", "A tenant's name. Unique among living tenants.");
checked_name!(EnvironmentName, "an environment", "An environment's name: what clients call the database.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        for name in ["a", "acme-corp_2", &"x".repeat(63)] {
            assert_eq!(TenantName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "Acme", "a b", "../x", "é", "a.b", "a\0", &"x".repeat(64)] {
            let error = TenantName::parse(name).unwrap_err();
            assert_eq!(sepal_types::Error::from(error).state().code(), "42602", "{name:?}");
        }
    }
}
