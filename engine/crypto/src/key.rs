//! A 256-bit key: made from randomness, from bytes, or derived from another one.
//!
//! Every caller holds its keys in this type. It never prints, serialises or compares them in variable time,
//! and wipes them when dropped.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Aad, random_bytes};

/// Salt of every derivation. Changing it changes every derived key, so it carries a version.
const SALT: &[u8] = b"sepal key derivation 1";

/// 32 secret bytes, wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl Key {
    /// A fresh key from the operating system's generator.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key for one purpose: HKDF-SHA-256 (RFC 5869) over this key, with `domain` and `info` as
    /// length-prefixed info. Different (domain, info) pairs give unrelated keys.
    #[must_use]
    pub fn derive(&self, domain: &str, info: &[u8]) -> Self {
        let mut derived = Self([0; 32]);
        Hkdf::<Sha256>::new(Some(SALT), &self.0)
            .expand(&Aad::new(domain).bytes(info).finish(), &mut derived.0)
            .expect("HKDF-SHA-256 gives up to 8,160 bytes and 32 are asked for");
        derived
    }

    /// The raw bytes, for a cipher or for Parquet's own encryption. Do not store them.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// 16 public bytes that tell this key from others without revealing it. Stored beside sealed data they
    /// make it key-committing, which GCM alone is not: data opens under the one key it was sealed with.
    pub fn check_value(&self) -> [u8; 16] {
        let derived = self.derive("key-check", &[]);
        let mut check = [0; 16];
        check.copy_from_slice(&derived.0[..16]);
        check
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    /// Made with Python's `cryptography` (HKDF), so a change of salt or framing shows.
    #[test]
    fn derivation_is_golden() {
        let key = Key::from_bytes([7; 32]);
        let derived = key.derive("wal", b"file 1");
        assert_eq!(hex(derived.expose()), "824509a1de109cc2475a41c6d9a4afa68b4dd007a4e7e74db18e60550db2b020");
        assert_eq!(hex(&key.check_value()), "f4bad27aab25acd5ce7fa1f4d4986faa");
    }

    #[test]
    fn domains_and_infos_do_not_run_together() {
        let key = Key::random();
        let derived =
            [key.derive("ab", b"c"), key.derive("a", b"bc"), key.derive("ab", b""), key.derive("abc", b"")];
        for (position, one) in derived.iter().enumerate() {
            for other in &derived[position + 1..] {
                assert_ne!(one.expose(), other.expose());
            }
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Key::from_bytes([0xab; 32])), "Key(redacted)");
    }
}
