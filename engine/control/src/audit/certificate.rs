//! Dropping a tenant, and the signed statement of what is gone.
//!
//! The keys go first, in one transaction with their entry; the caller removes files and tells the backups' places;
//! then [`Control::certify_destruction`] signs what was done and appends it. A crash in between leaves a tenant that
//! cannot be opened and no certificate; whoever removes the rest may certify later.

use rusqlite::{TransactionBehavior, params};
use sepal_crypto::{ed25519::VerifyingKey, hex, unhex};
use sepal_types::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Control, ControlError, control_error::Result, keys::tenant_keys, tenants::find_tenant};

use super::{AuditAction, NewAuditEvent, append};

const FORMAT: &str = "sepal certificate of destruction 1";

/// A tenant whose keys are destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destroyed {
    pub tenant: TenantId,
    /// The number of the audit trail's entry.
    pub entry: u64,
    /// Unix seconds.
    pub destroyed_at: i64,
    /// HMAC of the name, hexadecimal: the certificate outlives the right to keep the name.
    pub name_hmac: String,
    /// Epochs with the keys' check values, hexadecimal.
    pub keys: Vec<(u64, String)>,
}

/// What was removed besides the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    pub files: u64,
    pub bytes: u64,
    /// Backups from which the tenant's keys were removed, as their operator names them.
    pub backups: Vec<String>,
    /// Backups that could not be told, with the reason: what they hold can still be opened.
    pub not_reached: Vec<String>,
}

/// The statement and who signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestructionCertificate {
    /// JSON, signed byte for byte.
    pub certificate: String,
    /// Hexadecimal.
    pub signature: String,
    /// `ed25519:…`, the audit key of the directory.
    pub signer: String,
}

impl DestructionCertificate {
    /// Whether it was signed by the key that it names. Whether that is the right key, the reader knows.
    pub fn is_signed(&self) -> bool {
        let Ok(signer) = VerifyingKey::parse(&self.signer) else { return false };
        unhex(self.signature.as_bytes())
            .is_some_and(|signature| signer.verify(self.certificate.as_bytes(), &signature))
    }
}

impl Control {
    /// Destroys a tenant's keys, all epochs of them, its API keys and environments: its files cannot be opened any
    /// more, wherever they are. Copies of its keys in backups the caller removes. Durable on return.
    pub fn drop_tenant(&self, name: &str) -> Result<Destroyed> {
        let now = self.clock.unix_seconds();
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tenant = find_tenant(&transaction, &self.vault, name)?
            .ok_or_else(|| ControlError::NotFound { what: "tenant", name: name.to_owned() })?;
        let keys = tenant_keys::check_values(&transaction, &self.vault, tenant.id)?;
        let name_hmac = hex(&self.vault.tenant_mac(name));
        transaction.execute("DELETE FROM tenants WHERE id = ?1", params![tenant.id.as_bytes()])?;
        let event = NewAuditEvent::new(AuditAction::TenantDropped, &name_hmac)
            .of(tenant.id)
            .with(json!({ "keys": keys }));
        let entry = append(&transaction, &self.vault, now, event)?;
        transaction.commit()?;
        self.clear_journal(&mut database);
        self.vault.forget_tenant(tenant.id);
        self.revoke_trust();
        Ok(Destroyed { tenant: tenant.id, entry, destroyed_at: now, name_hmac, keys })
    }

    /// Signs what became of a tenant and keeps it in the audit trail. Durable on return.
    pub fn certify_destruction(
        &self,
        destroyed: &Destroyed,
        removal: &Removal,
    ) -> Result<DestructionCertificate> {
        let statement = json!({
            "format": FORMAT,
            "tenant": destroyed.tenant.to_string(),
            "name_hmac": destroyed.name_hmac,
            "destroyed_at": destroyed.destroyed_at,
            "certified_at": self.clock.unix_seconds(),
            "keys": destroyed.keys.iter()
                .map(|(epoch, check)| json!({ "epoch": epoch, "check": check }))
                .collect::<Vec<_>>(),
            "keys_destroyed_in": "control.db",
            "files": removal.files,
            "bytes": removal.bytes,
            "backups": removal.backups,
            "backups_not_reached": removal.not_reached,
            "audit_entry": destroyed.entry,
        });
        let certificate = statement.to_string();
        let signer = self.vault.audit_signer();
        let signed = DestructionCertificate {
            signature: hex(&signer.sign(certificate.as_bytes())),
            signer: signer.verifying_key().to_string(),
            certificate,
        };
        let details = serde_json::to_value(&signed).expect("three strings always serialise");
        self.audit(
            NewAuditEvent::new(AuditAction::TenantDestroyed, &destroyed.name_hmac)
                .of(destroyed.tenant)
                .with(details),
        )?;
        Ok(signed)
    }

    /// The certificate of a dropped tenant, found by its id or by the name it had; the newest, where a name was dropped
    /// more than once.
    pub fn destruction_certificate(&self, tenant: &str) -> Result<Option<DestructionCertificate>> {
        let name_hmac = hex(&self.vault.tenant_mac(tenant));
        let found = self.audit_events(0, usize::MAX)?.into_iter().rev().find(|entry| {
            entry.event.action == AuditAction::TenantDestroyed.as_str()
                && (entry.event.object == name_hmac || entry.event.tenant.as_deref() == Some(tenant))
        });
        let Some(entry) = found else { return Ok(None) };
        serde_json::from_value(entry.event.details).map(Some).map_err(|error| ControlError::Corrupt {
            what: "a certificate of destruction",
            why: error.to_string(),
        })
    }
}
