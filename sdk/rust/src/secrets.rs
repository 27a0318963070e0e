//! Handles of secrets. The plaintext stays with the host, which puts it on the wire.

use serde::Deserialize;

use crate::{
    Error, Secret,
    bindings::sink::sepal::plugin::secrets::{self, SecretError},
};

/// The secret that is bound to a slot of the manifest.
///
/// Errors: misconfigured for an unknown slot, transient when the host cannot resolve the value now.
pub fn secret(slot: &str) -> Result<Secret, Error> {
    secrets::get(slot).map_err(|error| match error {
        SecretError::NoSuchSlot => {
            Error::misconfigured(format!("no secret is bound to {slot}")).code("secret.no-such-slot")
        }
        SecretError::Unavailable => {
            Error::transient(format!("the secret of {slot} is not available")).code("secret.unavailable")
        }
    })
}

/// A field of the configuration that the schema marks as sensitive: the plugin sees which slot it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SecretSlot {
    #[serde(rename = "$secret")]
    pub slot: String,
}

impl SecretSlot {
    pub fn get(&self) -> Result<Secret, Error> {
        secret(&self.slot)
    }

    /// The handle of a field that may be left out.
    pub fn optional(slot: Option<&Self>) -> Result<Option<Secret>, Error> {
        slot.map(Self::get).transpose()
    }
}
