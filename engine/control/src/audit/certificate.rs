//! Dropping a tenant, and the signed statement of what is gone.
//!
//! [`Control::begin_destruction`] lets the keys go first, in one transaction with their entry; the caller removes
//! files and tells the backups' places; then [`Control::certify_destruction`] signs what was done and appends it. What
//! a crash in between leaves undone is in `meta` (`destroying.<tenant>`, sealed), and
//! [`Control::unfinished_destructions`] gives it to whoever goes on.

use rusqlite::{Connection, TransactionBehavior, params};
use sepal_crypto::{Aad, ed25519::VerifyingKey, hex, unhex};
use sepal_types::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Control, ControlError,
    control_error::Result,
    keys::{
        root::{meta, put_meta},
        tenant_keys,
    },
    tenants::find_tenant,
};

use super::{AuditAction, NewAuditEvent, append};

const FORMAT: &str = "sepal certificate of destruction 1";

/// A tenant whose keys are destroyed. Stored while its certificate is owed: fields are only ever added, with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destroyed {
    pub tenant: TenantId,
    /// The number of the audit trail's entry.
    pub entry: u64,
    /// Unix seconds.
    pub destroyed_at: i64,
    /// HMAC of the name, hexadecimal: the certificate is shown to others, who are not to learn it. The audit trail
    /// keeps the name in the entry of when the tenant was made.
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
    /// Files that could not be removed, with the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_left: Option<String>,
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
    /// more, wherever they are. Copies of its keys in backups the caller removes. Durable on return. Nothing is owed
    /// afterwards: a tenant that is not to be in a restored directory goes this way.
    pub fn drop_tenant(&self, name: &str) -> Result<Destroyed> {
        self.destroy(name, false)
    }

    /// The same, and remembers that a certificate is owed until [`Self::certify_destruction`].
    pub fn begin_destruction(&self, name: &str) -> Result<Destroyed> {
        self.destroy(name, true)
    }

    /// What [`Self::begin_destruction`] began, and nobody certified.
    pub fn unfinished_destructions(&self) -> Result<Vec<Destroyed>> {
        let database = self.database.lock();
        let mut statement = database.prepare("SELECT name FROM meta WHERE name LIKE 'destroying.%'")?;
        let names = statement.query_map([], |row| row.get::<_, String>(0))?;
        let names = names.collect::<rusqlite::Result<Vec<_>>>()?;
        names.iter().map(|name| self.read_owed(&database, name)).collect()
    }

    fn destroy(&self, name: &str, owed: bool) -> Result<Destroyed> {
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
        let destroyed = Destroyed { tenant: tenant.id, entry, destroyed_at: now, name_hmac, keys };
        if owed {
            let row = owed_row(tenant.id);
            put_meta(&transaction, &row, &self.vault.seal_json(owed_aad(&row), &destroyed))?;
        }
        transaction.commit()?;
        self.clear_journal(&mut database);
        self.vault.forget_tenant(tenant.id);
        self.revoke_trust();
        Ok(destroyed)
    }

    fn read_owed(&self, database: &Connection, row: &str) -> Result<Destroyed> {
        const WHAT: &str = "what is left to do for a dropped tenant";
        let sealed = meta(database, row)?
            .ok_or_else(|| ControlError::Corrupt { what: WHAT, why: "it is not there".into() })?;
        self.vault.open_json(WHAT, owed_aad(row), &sealed)
    }

    /// Signs what became of a tenant and keeps it in the audit trail: nothing is owed any more. Durable on return.
    pub fn certify_destruction(
        &self,
        destroyed: &Destroyed,
        removal: &Removal,
    ) -> Result<DestructionCertificate> {
        let now = self.clock.unix_seconds();
        let signed = self.sign(statement(destroyed, removal, now));
        let details = serde_json::to_value(&signed).expect("three strings always serialise");
        let event = NewAuditEvent::new(AuditAction::TenantDestroyed, &destroyed.name_hmac)
            .of(destroyed.tenant)
            .with(details);
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        append(&transaction, &self.vault, now, event)?;
        transaction.execute("DELETE FROM meta WHERE name = ?1", params![owed_row(destroyed.tenant)])?;
        transaction.commit()?;
        Ok(signed)
    }

    fn sign(&self, certificate: String) -> DestructionCertificate {
        let signer = self.vault.audit_signer();
        DestructionCertificate {
            signature: hex(&signer.sign(certificate.as_bytes())),
            signer: signer.verifying_key().to_string(),
            certificate,
        }
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

/// What a certificate says.
fn statement(destroyed: &Destroyed, removal: &Removal, now: i64) -> String {
    let keys: Vec<_> =
        destroyed.keys.iter().map(|(epoch, check)| json!({ "epoch": epoch, "check": check })).collect();
    let mut statement = json!({
        "format": FORMAT,
        "tenant": destroyed.tenant.to_string(),
        "name_hmac": destroyed.name_hmac,
        "destroyed_at": destroyed.destroyed_at,
        "certified_at": now,
        "keys": keys,
        "keys_destroyed_in": "control.db",
        "files": removal.files,
        "bytes": removal.bytes,
        "backups": removal.backups,
        "backups_not_reached": removal.not_reached,
        "audit_entry": destroyed.entry,
    });
    if let Some(left) = &removal.files_left {
        statement["files_left"] = json!(left);
    }
    statement.to_string()
}

/// In `meta`. A tenant's id is random, and the name of its directory.
fn owed_row(tenant: TenantId) -> String {
    format!("destroying.{tenant}")
}

fn owed_aad(row: &str) -> Aad {
    Aad::new("destruction owed 1").text(row)
}
