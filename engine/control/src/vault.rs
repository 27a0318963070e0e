//! The keys derived from the root, and every use of them: what control.db holds goes through here.
//!
//! Each sealed value is bound to its table, its row's ids and the HMAC it is found by, so a value copied to
//! another row does not open.

use sepal_crypto::{Aad, Key, hmac_sha256, open, scram::Verifier, seal, unwrap_key, wrap_key};
use sepal_types::TenantId;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::{ControlError, Token, control_error::Result};

/// Derived keys; the root itself is not kept.
pub(crate) struct Vault {
    kek: Key,
    values: Key,
    names: Key,
    pepper: Key,
    verifiers: Key,
    mock: Key,
}

impl Vault {
    pub(crate) fn new(root: &Key) -> Self {
        let derived = |domain: &str| root.derive(domain, &[]);
        Self {
            kek: derived("control tenant-key wrapping 1"),
            values: derived("control values 1"),
            names: derived("control names 1"),
            pepper: derived("control token pepper 1"),
            verifiers: derived("control scram verifiers 1"),
            mock: derived("control scram mock 1"),
        }
    }

    /// What finds a tenant by its name without the name being stored.
    pub(crate) fn tenant_mac(&self, name: &str) -> [u8; 32] {
        hmac_sha256(&self.names, &Aad::new("tenant-name").text(name).finish())
    }

    pub(crate) fn environment_mac(&self, tenant: TenantId, name: &str) -> [u8; 32] {
        hmac_sha256(&self.names, &Aad::new("environment-name").tenant(tenant).text(name).finish())
    }

    /// What finds a row by a name that `aad` says the kind and the place of.
    pub(crate) fn name_mac(&self, aad: Aad) -> [u8; 32] {
        hmac_sha256(&self.names, &aad.finish())
    }

    /// The stored form of a token.
    pub(crate) fn token_mac(&self, token: &Token) -> [u8; 32] {
        hmac_sha256(&self.pepper, token.expose().as_bytes())
    }

    pub(crate) fn seal_bytes(&self, aad: Aad, value: &[u8]) -> Vec<u8> {
        seal_bytes(&self.values, aad, value)
    }

    /// `what` names the value in the error.
    pub(crate) fn open_bytes(
        &self,
        what: &'static str,
        aad: Aad,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        open_bytes(&self.values, what, aad, sealed)
    }

    pub(crate) fn seal_json<T: Serialize>(&self, aad: Aad, value: &T) -> Vec<u8> {
        seal_json(&self.values, aad, value)
    }

    pub(crate) fn open_json<T: DeserializeOwned>(
        &self,
        what: &'static str,
        aad: Aad,
        sealed: &[u8],
    ) -> Result<T> {
        open_json(&self.values, what, aad, sealed)
    }

    pub(crate) fn wrap_tenant_key(&self, tenant: TenantId, key: &Key) -> Vec<u8> {
        wrap_key(&self.kek, &Aad::new("tenant-key").tenant(tenant).finish(), key)
    }

    pub(crate) fn unwrap_tenant_key(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Key> {
        unwrap_key(&self.kek, &Aad::new("tenant-key").tenant(tenant).finish(), wrapped)
            .map_err(|error| ControlError::Corrupt { what: "a tenant's key", why: error.to_string() })
    }

    pub(crate) fn seal_verifier(&self, aad: Aad, verifier: &Verifier) -> Vec<u8> {
        seal(&self.verifiers, &aad.finish(), Zeroizing::new(verifier.serialize()).as_bytes())
    }

    pub(crate) fn open_verifier(&self, aad: Aad, sealed: &[u8]) -> Result<Verifier> {
        let corrupt = |why: String| ControlError::Corrupt { what: "a SCRAM verifier", why };
        let plain =
            open(&self.verifiers, &aad.finish(), sealed).map_err(|error| corrupt(error.to_string()))?;
        let plain = Zeroizing::new(plain);
        let text = std::str::from_utf8(&plain).ok();
        text.and_then(Verifier::parse).ok_or_else(|| corrupt("it does not parse".into()))
    }

    /// The verifier of a user that may not exist. Real keys take their salt from it too: so the salt of a key
    /// id is the same before the key exists, while it does, and after it was revoked.
    pub(crate) fn mock_verifier(&self, key_id: &str) -> Verifier {
        Verifier::mock(&self.mock, key_id)
    }
}

/// Seals under a key of the caller's: a tenant's secrets have keys that are derived from the tenant's.
pub(crate) fn seal_bytes(key: &Key, aad: Aad, value: &[u8]) -> Vec<u8> {
    seal(key, &aad.finish(), value)
}

/// `what` names the value in the error.
pub(crate) fn open_bytes(
    key: &Key,
    what: &'static str,
    aad: Aad,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>> {
    match open(key, &aad.finish(), sealed) {
        Ok(plain) => Ok(Zeroizing::new(plain)),
        Err(error) => Err(ControlError::Corrupt { what, why: error.to_string() }),
    }
}

pub(crate) fn seal_json<T: Serialize>(key: &Key, aad: Aad, value: &T) -> Vec<u8> {
    let json = serde_json::to_vec(value).expect("structs of strings and numbers always serialise");
    seal_bytes(key, aad, &json)
}

pub(crate) fn open_json<T: DeserializeOwned>(
    key: &Key,
    what: &'static str,
    aad: Aad,
    sealed: &[u8],
) -> Result<T> {
    let json = open_bytes(key, what, aad, sealed)?;
    serde_json::from_slice(&json).map_err(|error| ControlError::Corrupt { what, why: error.to_string() })
}
