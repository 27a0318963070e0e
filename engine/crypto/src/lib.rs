//! Sealing and opening bytes: the only crate that names a cipher.
//!
//! Storage seals WAL frames, manifests and index blobs with it, control seals the values of its database, runs
//! SCRAM and asks [`CertificateFacts`] whether a certificate and a key belong together. Nothing here reads a
//! file, knows a tenant's policy, or keeps a key longer than its caller does; long-lived ones lie in [`ResidentKey`]s.
//!
//! | what | construction | nonce |
//! |---|---|---|
//! | [`seal`], [`open`]: WAL frames, manifests, control values | XAES-256-GCM (C2SP) | random 192-bit |
//! | [`stream`]: blobs written once | AES-256-GCM per 1 MiB chunk | chunk index under a fresh subkey |
//! | [`ModuleSealer`], [`ModuleOpener`]: parts of a Parquet file | AES-256-GCM per module | counted from a random one |
//! | [`scratch()`]: temporary files of queries | AES-256-GCM per chunk | chunk number, key never stored |
//! | [`wrap_key`], [`unwrap_key`]: key hierarchy | key-check value + XAES-256-GCM | random 192-bit |
//! | [`Key::derive`] | HKDF-SHA-256 | – |
//! | [`scram`] | SCRAM-SHA-256, -PLUS (RFC 5802, 7677) | – |
//! | [`ed25519`]: signatures of plugin packages, of the audit trail | Ed25519 (RFC 8032), AWS-LC | – |
//! | [`passphrase_key`]: the root key's passphrase | Argon2id (RFC 9106) | – |
//! | [`split_key`], [`combine_shares`]: the recovery key | Shamir 1979, GF(256) | – |
//!
//! Sealing always takes *what and where*: the associated data comes from [`Aad`], whose fields are prefixed
//! with their kind and length, so that bytes moved to another tenant, file or position do not open.

mod aad;
mod certificate;
pub mod ed25519;
mod gcm;
mod hex;
mod key;
mod key_ring;
mod mac;
mod modules;
mod open_error;
mod passphrase;
#[cfg(debug_assertions)]
pub mod planted;
mod random;
mod resident;
pub mod scram;
mod scratch;
mod shamir;
pub mod stream;
mod wrap;
mod xaes;

pub use aad::Aad;
pub use certificate::{CertificateError, CertificateFacts};
pub use hex::{hex, unhex};
pub use key::Key;
pub use key_ring::KeyRing;
pub use mac::{constant_time_eq, hmac_sha256, sha256};
pub use modules::{MODULE_OVERHEAD_BYTES, Module, ModuleOpener, ModuleSealer, PageOf};
pub use open_error::OpenError;
pub use passphrase::{BadCost, PassphraseCost, SALT_BYTES, passphrase_key};
pub use random::random_bytes;
pub use resident::{LockedMemory, ResidentKey, locked_memory};
pub use scratch::{SCRATCH_OVERHEAD_BYTES, ScratchOpener, ScratchSealer, scratch};
pub use shamir::{Share, combine_shares, split_key};
pub use wrap::{WRAPPED_KEY_BYTES, unwrap_key, unwrap_secret, wrap_key, wrap_secret};

/// Whether anything is sealed. Only `benches/sealing` is built with the feature that ends it; a program asserts this, so
/// that no other ever is, by `--all-features` for one.
pub const SEALS: bool = !cfg!(feature = "null-cipher");
pub use xaes::{SEAL_OVERHEAD_BYTES, open, seal, seal_to};
