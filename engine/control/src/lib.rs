//! Who may do what, with which key: tenants, environments, API keys, secrets and the root key.
//!
//! The database's facade opens one [`Control`] per data directory and asks it at every login and, cheaply, at
//! every statement. It knows no HTTP and no SQL beyond its own SQLite file, and it never writes or logs a
//! token.
//!
//! Where each secret lives:
//!
//! ```text
//! root key      a 0600 file, or wrapped by a passphrase, a PKCS#11 token, Vault's transit engine ([`RootStore`])
//!   ├ instance keys, each wrapped in control.db
//!   │   ├ values    seals names, labels, scopes, dates, the audit trail
//!   │   ├ names     HMAC of a name: finds a row without storing the name
//!   │   ├ pepper    HMAC of a token: what authentication compares
//!   │   ├ verifiers seals the SCRAM verifiers
//!   │   ├ mock      SCRAM salts, and verifiers of users that do not exist
//!   │   ├ audit     signs checkpoints and certificates of destruction
//!   │   └ backup    seals tenants' keys on their way to a backup
//!   └ tenants' keys, by epoch, wrapped in control.db; a tenant's own provider may wrap them first
//!       └ the tenant's secrets and certificates, under keys derived from it (`secrets`)
//! ```
//! A login by token: [`Token::parse`] (offline), HMAC, key cache, else one row of control.db, constant-time
//! compare, [`Principal`]. A login by SCRAM: [`Control::scram_verifier`], the exchange in
//! `sepal_crypto::scram`, the same [`Principal`]. Afterwards [`Control::still_valid`] costs one atomic load
//! until some key is revoked.

mod api_keys;
mod audit;
mod authentication;
mod check;
mod control;
mod control_error;
mod integer;
mod key_cache;
mod keys;
mod names;
mod principal;
mod schema;
mod secrets;
mod tenants;
mod token;
mod vault;

/// Files that hold a key in hexadecimal: the root key's, as `init` makes it.
pub mod root_key {
    pub use crate::keys::key_file::{create, read};
}

pub use api_keys::ApiKey;
pub use audit::{
    AuditAction, AuditCheckpoint, AuditEntry, AuditEvent, AuditReport, Destroyed, DestructionCertificate,
    NewAuditEvent, Removal,
};
pub use check::ControlFinding;
pub use control::{Control, ControlOptions};
pub use control_error::{ControlError, KeyFileError, RootKeyError};
pub use key_cache::KeyCacheStats;
pub use keys::{
    HeldKeys, KeyFiles, KeyWrapper, Passphrase, Provider, RecoveryKey, RecoveryShare, RecoveryStatus,
    RootStatus, RootStore, TenantKeyStatus, WrapperError, Wrappers, check_passphrase, open_recovery_package,
};
pub use names::{DEFAULT_ENVIRONMENT, EnvironmentName, TenantName};
pub use principal::{Principal, Scopes};
pub use secrets::{
    Certificate, CertificatePem, EnvNames, Grantable, KEPT_VERSIONS, MAX_SECRET_BYTES, NewCertificate,
    NewSecret, OPERATOR, PUBLIC, Scope, Secret, SecretChange, SecretName, SecretOrigin, SecretUse,
    is_sensitive_name,
};
pub use tenants::{Environment, Tenant};
pub use token::Token;

#[cfg(test)]
mod tests;
