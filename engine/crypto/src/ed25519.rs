//! Ed25519 (RFC 8032): who made a plugin's package.
//!
//! A publisher signs a package with a [`SigningKey`]; `CREATE PLUGIN TRUST KEY` names the [`VerifyingKey`] that a
//! tenant believes. Nothing inside the database signs.
//!
//! ```text
//! verifying key   32 bytes   as text ed25519:<base64 44>
//! seed            32 bytes   as text 64 hexadecimal digits; the whole private key
//! signature       64 bytes   R | S
//! ```

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{hex, random_bytes, unhex};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

const KEY_BYTES: usize = 32;
const PREFIX: &str = "ed25519:";

/// Why a text or a document is no key. Holds nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not `ed25519:` and the base64 of 32 bytes.
    VerifyingKey,
    /// Not 64 hexadecimal digits.
    Seed,
    /// Not PKCS#8 with an Ed25519 key.
    Pkcs8,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VerifyingKey => "a public key is written ed25519:<base64 of 32 bytes>",
            Self::Seed => "a private key is written as 64 hexadecimal digits",
            Self::Pkcs8 => {
                "the document is not PKCS#8 with an Ed25519 key (openssl genpkey -algorithm ED25519)"
            }
        })
    }
}

impl std::error::Error for KeyError {}

/// A private key, wiped on drop. The expanded key exists while it signs, in memory that AWS-LC wipes when it frees it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SigningKey([u8; KEY_BYTES]);

impl SigningKey {
    /// A fresh key from the operating system's generator.
    pub fn generate() -> Self {
        Self(random_bytes())
    }

    pub const fn from_seed(seed: [u8; KEY_BYTES]) -> Self {
        Self(seed)
    }

    /// Reads what [`Self::to_hex`] wrote; white space around it does not matter.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let bytes = unhex(text.trim().as_bytes()).ok_or(KeyError::Seed)?;
        let seed: &[u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| KeyError::Seed)?;
        Ok(Self(*seed))
    }

    /// Reads PKCS#8 in DER, version 1 (what OpenSSL writes) or 2.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| KeyError::Pkcs8)?;
        let document = pair.to_pkcs8v1().map_err(|_| KeyError::Pkcs8)?;
        // PKCS#8 version 1 of an Ed25519 key ends with its seed (RFC 8410, section 7).
        let seed: &[u8; KEY_BYTES] = document.as_ref().last_chunk().ok_or(KeyError::Pkcs8)?;
        let key = Self(*seed);
        // Checked: the seed found there must be the key's.
        let public: &[u8] = pair.public_key().as_ref();
        if key.verifying_key().0.as_slice() == public { Ok(key) } else { Err(KeyError::Pkcs8) }
    }

    /// The whole private key, for a file of mode 0600.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(&self.0))
    }

    /// PKCS#8 version 1 in DER, which OpenSSL reads.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let document = self.pair().to_pkcs8v1().expect("a key that was made from its seed can be written");
        Zeroizing::new(document.as_ref().to_vec())
    }

    pub fn verifying_key(&self) -> VerifyingKey {
        let mut key = VerifyingKey([0; KEY_BYTES]);
        key.0.copy_from_slice(self.pair().public_key().as_ref());
        key
    }

    /// Deterministic: the same message gives the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.pair().sign(message).as_ref());
        signature
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.0).expect("every 32 bytes are an Ed25519 seed")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(redacted)")
    }
}

/// A public key: whose signatures are believed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifyingKey([u8; KEY_BYTES]);

impl VerifyingKey {
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads the text form. That the bytes are a point of the curve shows when something is verified.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(KeyError::VerifyingKey)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| KeyError::VerifyingKey)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::VerifyingKey)
    }

    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Whether `signature` is this key's over exactly these bytes. A signature of another length is not.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({self})")
    }
}

#[cfg(test)]
mod tests;
