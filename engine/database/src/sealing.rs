//! Hashing, randomness and sealing for what surrounds the engine: `sepal-plugins` keeps machine code sealed with it.
//!
//! The ciphers are `sepal-crypto`'s; nothing here holds a key.

use std::fmt::Write;

pub use sepal_crypto::ed25519::{SigningKey, VerifyingKey};
pub use sepal_crypto::{Aad, Key, hmac_sha256, open, random_bytes, seal, sha256};

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
