//! What an entry says.

use sepal_crypto::{hex, random_bytes};
use sepal_types::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::OPERATOR;

macro_rules! actions {
    ($($name:ident $text:literal),+ $(,)?) => {
        /// Every kind of entry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AuditAction { $(#[doc = $text] $name),+ }

        impl AuditAction {
            /// As it is stored and exported.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

actions! {
    TenantCreated "tenant.create",
    TenantDropped "tenant.drop",
    TenantDestroyed "tenant.destroyed",
    EnvironmentCreated "environment.create",
    ApiKeyCreated "api_key.create",
    ApiKeyRevoked "api_key.revoke",
    RootRotationBegun "root.rotate.begin",
    RootRotated "root.rotate.end",
    RootMoved "root.move",
    RootRecovered "root.recover",
    TenantKeyRotated "tenant_key.rotate",
    TenantKeysRetired "tenant_key.retire",
    TenantKeysRestored "tenant_key.restore",
    FileKeysRotationBegun "file_keys.rotate.begin",
    FileKeysRotated "file_keys.rotate.end",
    OwnProviderSet "tenant_key.own.set",
    OwnProviderRemoved "tenant_key.own.remove",
    RecoveryCreated "recovery.create",
    RecoveryVerified "recovery.verify",
    FormatChanged "control.format",
    TrailResumed "audit.resume",
    BackupMade "backup.made",
    BackupVerified "backup.verified",
    BackupRestored "backup.restored",
    BackupRemoved "backup.removed",
    TenantLeftOut "tenant.left_out",
}

/// An entry to be made. Nothing in it may be secret.
#[derive(Clone, Debug)]
pub struct NewAuditEvent<'a> {
    action: AuditAction,
    actor: &'a str,
    tenant: Option<TenantId>,
    object: &'a str,
    details: Value,
}

/// An entry as it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Unix seconds.
    pub time: i64,
    /// The id of an API key, or `operator`.
    pub actor: String,
    /// One of [`AuditAction`]; a newer version may have written others.
    pub action: String,
    /// The tenant's id, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What was acted on: a name, an id.
    pub object: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
    /// Random; keeps the entry's hash from telling its text.
    pub salt: String,
}

impl<'a> NewAuditEvent<'a> {
    /// By the operator, until [`Self::by`] says otherwise.
    pub fn new(action: AuditAction, object: &'a str) -> Self {
        Self { action, actor: OPERATOR, tenant: None, object, details: Value::Null }
    }

    #[must_use]
    pub fn by(self, actor: &'a str) -> Self {
        Self { actor, ..self }
    }

    #[must_use]
    pub fn of(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    #[must_use]
    pub fn with(self, details: Value) -> Self {
        Self { details, ..self }
    }

    pub(super) fn at(self, time: i64) -> AuditEvent {
        AuditEvent {
            time,
            actor: self.actor.to_owned(),
            action: self.action.as_str().to_owned(),
            tenant: self.tenant.map(|tenant| tenant.to_string()),
            object: self.object.to_owned(),
            details: self.details,
            salt: hex(&random_bytes::<16>()),
        }
    }
}
