//! The keys of an open control database, and every use of them: what control.db holds goes through here.
//!
//! Each sealed value is bound to its table, its row's ids and the HMAC it is found by, so a value copied to
//! another row does not open.

use std::io::{self, Write};

use parking_lot::RwLock;
use rusqlite::Connection;
use sepal_crypto::{Aad, Key, hmac_sha256, open, scram::Verifier, seal};
use sepal_types::TenantId;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::{
    ControlError, Token,
    control_error::Result,
    keys::{InstanceKeys, OwnKeys, RootKeys},
};

/// All in memory that is locked and wiped.
pub(crate) struct Vault {
    pub(crate) instance: InstanceKeys,
    /// Taken after the database's lock, if both are.
    pub(crate) roots: RwLock<RootKeys>,
    pub(crate) own: OwnKeys,
}

impl Vault {
    /// For a new file.
    pub(crate) fn fresh(root: &Key) -> Self {
        Self {
            instance: InstanceKeys::random(),
            roots: RwLock::new(RootKeys::new(1, root)),
            own: OwnKeys::default(),
        }
    }

    /// For a file of format 1 or 2, which is being brought to today's.
    pub(crate) fn of_an_older_format(root: &Key) -> Self {
        Self { instance: InstanceKeys::of_an_older_format(root), ..Self::fresh(root) }
    }

    /// For a file of format 3, which is being brought to today's.
    pub(crate) fn of_format_3(database: &Connection, root: &Key) -> Result<Self> {
        let roots = RootKeys::load(database, root)?;
        let instance = InstanceKeys::load_of_format_3(database, &roots)?;
        Ok(Self { instance, roots: RwLock::new(roots), own: OwnKeys::default() })
    }

    /// What a file of today's format says.
    pub(crate) fn load(database: &Connection, root: &Key) -> Result<Self> {
        let roots = RootKeys::load(database, root)?;
        Ok(Self {
            instance: InstanceKeys::load(database, &roots)?,
            own: OwnKeys::load(database)?,
            roots: RwLock::new(roots),
        })
    }

    /// What finds a tenant by its name without the name being stored.
    pub(crate) fn tenant_mac(&self, name: &str) -> [u8; 32] {
        hmac_sha256(&self.instance.names, &Aad::new("tenant-name").text(name).finish())
    }

    pub(crate) fn environment_mac(&self, tenant: TenantId, name: &str) -> [u8; 32] {
        hmac_sha256(&self.instance.names, &Aad::new("environment-name").tenant(tenant).text(name).finish())
    }

    /// What finds a row by a name that `aad` says the kind and the place of.
    pub(crate) fn name_mac(&self, aad: Aad) -> [u8; 32] {
        hmac_sha256(&self.instance.names, &aad.finish())
    }

    /// The stored form of a token.
    pub(crate) fn token_mac(&self, token: &Token) -> [u8; 32] {
        hmac_sha256(&self.instance.pepper, token.expose().as_bytes())
    }

    pub(crate) fn seal_bytes(&self, aad: Aad, value: &[u8]) -> Vec<u8> {
        seal_bytes(&self.instance.values, aad, value)
    }

    /// `what` names the value in the error.
    pub(crate) fn open_bytes(
        &self,
        what: &'static str,
        aad: Aad,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        open_bytes(&self.instance.values, what, aad, sealed)
    }

    pub(crate) fn seal_json<T: Serialize>(&self, aad: Aad, value: &T) -> Vec<u8> {
        seal_json(&self.instance.values, aad, value)
    }

    pub(crate) fn open_json<T: DeserializeOwned>(
        &self,
        what: &'static str,
        aad: Aad,
        sealed: &[u8],
    ) -> Result<T> {
        open_json(&self.instance.values, what, aad, sealed)
    }

    pub(crate) fn seal_verifier(&self, aad: Aad, verifier: &Verifier) -> Vec<u8> {
        seal(&self.instance.verifiers, &aad.finish(), Zeroizing::new(verifier.serialize()).as_bytes())
    }

    pub(crate) fn open_verifier(&self, aad: Aad, sealed: &[u8]) -> Result<Verifier> {
        let corrupt = |why: String| ControlError::Corrupt { what: "a SCRAM verifier", why };
        let plain = open(&self.instance.verifiers, &aad.finish(), sealed)
            .map_err(|error| corrupt(error.to_string()))?;
        let plain = Zeroizing::new(plain);
        let text = std::str::from_utf8(&plain).ok();
        text.and_then(Verifier::parse).ok_or_else(|| corrupt("it does not parse".into()))
    }

    /// The verifier of a user that may not exist. Real keys take their salt from it too: so the salt of a key
    /// id is the same before the key exists, while it does, and after it was revoked.
    pub(crate) fn mock_verifier(&self, key_id: &str) -> Verifier {
        Verifier::mock(&self.instance.mock, key_id)
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
    let mut draft = Draft::default();
    serde_json::to_writer(&mut draft, value).expect("structs of strings and numbers always serialise");
    seal_bytes(key, aad, &draft.0)
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

/// Text on its way into a seal: keys in hexadecimal among it. When it grows, what it leaves behind is wiped, which a
/// `Vec` does not do.
#[derive(Default)]
struct Draft(Zeroizing<Vec<u8>>);

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        const LEAST: usize = 1024;
        let length = self.0.len() + bytes.len();
        if length > self.0.capacity() {
            let mut roomier = Zeroizing::new(Vec::with_capacity(length.next_power_of_two().max(LEAST)));
            roomier.extend_from_slice(&self.0);
            self.0 = roomier;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_what_was_written_however_long() {
        let mut draft = Draft::default();
        let mut expected = Vec::new();
        for length in [0, 1, 1023, 1, 0, 5000, 3] {
            let piece: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            draft.write_all(&piece).unwrap();
            expected.extend(piece);
            assert_eq!(*draft.0, expected);
        }
    }
}
