//! Commands to a running server: a Unix socket in the data directory, for whoever may enter that directory.
//!
//! ```text
//! <data>/admin.sock  0600
//! request   one line of JSON, at most 1 MiB, {"command":"key-create","tenant":"acme",…}
//! answer    one line of JSON, {"ok":{…}} or {"error":{"message":…,"code":…,"hint":…}}
//! ```
//!
//! A connection may ask any number of times, one after the other. [`server`] answers on the server's side,
//! [`client`] asks for the command line. Tokens cross this socket once, when they are made; secrets cross it towards
//! the server only.

pub mod client;
mod encryption;
mod handler;
mod secrets;
pub mod server;
mod socket;

use std::path::PathBuf;

pub use self::{
    encryption::{
        AUDIT_PAGE, AuditLine, EncryptionAction, EncryptionAnswer, Rotation, SecretText, TenantKeyRotation,
        TenantKeys, recovery_key,
    },
    handler::handle,
    secrets::{Collision, Expiring, SecretAction, SecretBytes, SecretFacts, SecretLint, SecretSource},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Longest line in either direction, in bytes.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// What the command line can ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Where the server listens.
    Status,
    TenantCreate {
        name: String,
    },
    TenantList,
    /// Destroys the tenant's key and data.
    TenantDrop {
        name: String,
    },
    TenantQuota {
        name: String,
        /// 0: no limit; `None`: what the server's setting says.
        disk_mib: Option<u64>,
    },
    KeyCreate {
        tenant: String,
        /// `None`: every environment of the tenant.
        environment: Option<String>,
        write: bool,
        label: String,
        /// Seconds since 1970; `None`: never.
        expires_at: Option<i64>,
    },
    KeyList {
        tenant: String,
    },
    KeyRevoke {
        key: String,
    },
    Secret {
        tenant: String,
        environment: String,
        action: SecretAction,
    },
    /// Root key, recovery key, tenants' keys, audit trail.
    Encryption {
        action: EncryptionAction,
    },
    /// Begins a backup; how it goes is in the answers to `backup-status`.
    BackupCreate {
        /// `None`: the one that the server is set up with.
        repository: Option<String>,
        full: bool,
        /// Begin a new repository where one was that is gone.
        new_repository: bool,
    },
    BackupStatus,
    BackupCensus {
        /// `2026-11-22`
        day: String,
        /// `None`: all.
        tenant: Option<String>,
    },
}

/// An answer; which one follows from the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Status(Status),
    Tenant(Tenant),
    Tenants(Vec<Tenant>),
    Key(NewKey),
    Keys(Vec<Key>),
    Secret(SecretFacts),
    Secrets(Vec<SecretFacts>),
    SecretLint(SecretLint),
    Encryption(EncryptionAnswer),
    /// The number of the job that was begun.
    BackupJob(u64),
    BackupStatus(Box<sepal_backup::Status>),
    BackupCensus(Vec<sepal_backup::Counted>),
    /// Done; nothing to tell.
    Done,
}

/// What went wrong, in the engine's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub message: String,
    /// SQLSTATE.
    pub code: String,
    pub hint: Option<String>,
}

/// One line from the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Ok(Answer),
    Error(Refusal),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub http_listen: String,
    pub endpoint: Endpoint,
}

/// How a Postgres client reaches this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// A name or address that the certificate is valid for.
    pub host: String,
    pub port: u16,
    /// False only with `--insecure-plaintext`, where clients may leave TLS out.
    pub tls: bool,
    /// The authority that clients must trust (PGSSLROOTCERT); `None` for the operator's own certificate.
    pub authority: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub name: String,
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
}

/// What may be told about a key; its secret is nowhere but in [`NewKey::token`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub id: String,
    pub tenant: String,
    pub environment: Option<String>,
    pub read: bool,
    pub write: bool,
    pub label: String,
    /// Seconds since 1970, as are the next three.
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub revoked_at: Option<i64>,
    pub last_used_at: Option<i64>,
}

/// A key just made: the only time that its token is told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    pub key: Key,
    #[serde(with = "secret_text")]
    pub token: Zeroizing<String>,
    /// The key's environment did not exist and was made with it.
    pub environment_made: bool,
    pub endpoint: Endpoint,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("key", &self.key).field("token", &"redacted").finish_non_exhaustive()
    }
}

/// A secret as plain text, for the socket; wiped wherever it was read to.
mod secret_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub fn serialize<S: Serializer>(secret: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests;
