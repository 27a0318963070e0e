//! AES-256-GCM (NIST SP 800-38D) from one slice into another, one pass, no copy beforehand.
//!
//! Used by `xaes` and `stream`, which decide the nonces; never used directly, because a nonce used twice
//! under one key reveals plaintext and the authentication key.

#[cfg(not(feature = "null-cipher"))]
mod real;

// What `benches/sealing` compares with. Data that it writes opens nowhere else (`storage::manifest::encode`).
#[cfg(feature = "null-cipher")]
mod null;

pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;

#[cfg(feature = "null-cipher")]
pub(crate) use null::Gcm;
#[cfg(not(feature = "null-cipher"))]
pub(crate) use real::Gcm;
