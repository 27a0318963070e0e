//! Who may do what, with which key: tenants, environments, API keys, secrets and the root key.
//!
//! The database's facade opens one [`Control`] per data directory and asks it at every login and, cheaply, at
//! every statement. It knows no HTTP and no SQL beyond its own SQLite file, and it never writes or logs a
//! token.
//!
//! Where each secret lives:
//!
//! ```text
//! root key      a 0600 file, best outside the data directory ([`root_key`])
//!   ├ kek       wraps one random key per tenant; the wrapped form is in control.db
//!   │             └ the tenant's secrets and certificates, under keys derived from it (`secrets`)
//!   ├ values    seals names, labels, scopes, dates in control.db
//!   ├ names     HMAC of a name: finds a row without storing the name
//!   ├ pepper    HMAC of a token: what authentication compares
//!   ├ verifiers seals the SCRAM verifiers
//!   └ mock      SCRAM salts, and verifiers of users that do not exist
//! ```
//! A login by token: [`Token::parse`] (offline), HMAC, key cache, else one row of control.db, constant-time
//! compare, [`Principal`]. A login by SCRAM: [`Control::scram_verifier`], the exchange in
//! `sepal_crypto::scram`, the same [`Principal`]. Afterwards [`Control::still_valid`] costs one atomic load
//! until some key is revoked.

mod api_keys;
mod authentication;
mod check;
mod clock;
mod control;
mod control_error;
mod key_cache;
mod names;
mod principal;
pub mod root_key;
mod schema;
mod secrets;
mod tenants;
mod token;
mod vault;

pub use api_keys::ApiKey;
pub use check::{ControlCopy, ControlFinding};
pub use clock::{Clock, SystemClock};
pub use control::{Control, ControlOptions};
pub use control_error::{ControlError, RootKeyError};
pub use key_cache::KeyCacheStats;
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
