//! Encryption keys: where the root key comes from, what it wraps, how each level is replaced, and how a lost root is
//! had back.
//!
//! ```text
//! root key                     [`RootStore`]: a file, or wrapped in root.seal by a [`KeyWrapper`]
//!   ├ instance keys            what control.db's own values are sealed under (`instance`)
//!   ├ tenants' keys, by epoch  (`tenant_keys`); first wrapped by the tenant's own provider, if it has one (`own`)
//!   └ recovery key             (`recovery`), which in turn wraps the root
//! ```
//! All of it is wrapped under one key derived from the root, in rows that say which *generation* of the root that was.
//! `rotation` replaces the root; `backup` is what leaves the directory. docs/decisions/0007-keys.md has the reasons.

mod backup;
pub(crate) mod instance;
pub(crate) mod key_file;
mod own;
mod passphrase;
mod provider;
pub(crate) mod recovery;
mod recovery_key;
pub(crate) mod root;
mod root_store;
mod rotation;
mod seal_file;
pub(crate) mod tenant_keys;

pub use backup::HeldKeys;
pub(crate) use instance::InstanceKeys;
pub(crate) use own::OwnKeys;
pub use passphrase::{Passphrase, check_passphrase};
pub use provider::{KeyFiles, KeyWrapper, Provider, WrapperError, Wrappers};
pub use recovery::{RecoveryStatus, open_recovery_package};
pub use recovery_key::{RecoveryKey, RecoveryShare};
pub(crate) use root::RootKeys;
pub use root_store::RootStore;
pub use rotation::RootStatus;
pub use tenant_keys::TenantKeyStatus;

#[cfg(test)]
mod tests;
