//! The trait a secret resolver fills. `glue` calls it; an instance lives for one call.

use serde::de::DeserializeOwned;

use crate::{Error, bindings::resolver::exports::sepal::plugin::resolver as wit};

/// A place where secrets are kept.
pub trait Resolver: Sized + 'static {
    /// The options of CREATE SECRET RESOLVER.
    type Config: DeserializeOwned;
    /// What CREATE SECRET … FROM asks for: path, field, version …
    type Options: DeserializeOwned;

    fn open(config: Self::Config) -> Result<Self, Error>;

    /// One secret. An error is the answer for this secret alone.
    fn resolve(&mut self, request: &Request<Self::Options>) -> Result<Answer, Error>;

    /// At CREATE SECRET RESOLVER: are the address and the credentials right?
    fn check(config: Self::Config) -> Result<(), Error> {
        Self::open(config).map(drop)
    }

    /// The value is not needed any longer.
    fn revoke(&mut self, _lease_id: &str) -> Result<(), Error> {
        Ok(())
    }
}

/// A secret that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<O> {
    /// Its name in Sepal, for messages.
    pub name: String,
    pub options: O,
    /// The version that the host holds: if it is the newest, answer [`Answer::Unchanged`].
    pub have_version: Option<String>,
}

/// What there is.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    Value(Resolved),
    Unchanged,
    NotFound,
}

impl Answer {
    /// [`Self::Unchanged`] if the host holds this version already.
    pub fn unless_held(resolved: Resolved, have_version: Option<&str>) -> Self {
        if have_version.is_some() && resolved.version.as_deref() == have_version {
            Self::Unchanged
        } else {
            Self::Value(resolved)
        }
    }
}

impl std::fmt::Debug for Answer {
    /// Never the value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Value(_) => "Value",
            Self::Unchanged => "Unchanged",
            Self::NotFound => "NotFound",
        })
    }
}

/// A value, with what is known of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    pub value: Vec<u8>,
    /// Changes when the value does.
    pub version: Option<String>,
    pub ttl_seconds: Option<u32>,
    /// Given back by [`Resolver::revoke`].
    pub lease_id: Option<String>,
}

impl From<Answer> for wit::Answer {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Value(Resolved { value, version, ttl_seconds, lease_id }) => {
                Self::Value(wit::Value { value, version, ttl_seconds, lease_id })
            }
            Answer::Unchanged => Self::Unchanged,
            Answer::NotFound => Self::NotFound,
        }
    }
}
