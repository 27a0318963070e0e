//! Hashing, randomness and sealing for what surrounds the engine: `sepal-plugins` keeps machine code sealed with it.
//!
//! The ciphers are `sepal-crypto`'s; nothing here holds a key.

pub use sepal_crypto::ed25519::{SigningKey, VerifyingKey};
pub use sepal_crypto::{Aad, Key, SEALS, hex, hmac_sha256, open, random_bytes, seal, sha256};
