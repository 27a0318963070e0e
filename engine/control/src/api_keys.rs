//! API keys: making, listing and revoking them, and what a key's row holds.
//!
//! ```text
//! id         text   public, the Postgres user for SCRAM
//! tenant     16     the owner
//! mac        32     HMAC-SHA-256(pepper, whole token)
//! verifier   sealed SCRAM-SHA-256 verifier of the whole token
//! body       sealed environment, scopes, label, dates; bound to id, tenant and mac
//! last_used  sealed unix seconds, or NULL
//! ```

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use rusqlite::{Connection, Row, TransactionBehavior, params};
use sepal_crypto::{
    Aad,
    scram::{DEFAULT_ITERATIONS, Verifier},
};
use sepal_types::TenantId;
use serde::{Deserialize, Serialize};

use serde_json::json;

use crate::{
    AuditAction, Control, ControlError, Principal, Scopes, Token,
    audit::{NewAuditEvent, append},
    control_error::Result,
    tenants::{environment_exists, open_tenant, require_tenant, seal_tenant},
    vault::Vault,
};

const MAX_LABEL_BYTES: usize = 200;

/// What is known about a key. The token is not part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: Arc<str>,
    pub tenant: TenantId,
    /// The one environment it is limited to; `None`: all of the tenant's.
    pub environment: Option<Arc<str>>,
    pub scopes: Scopes,
    /// What its maker wrote on it.
    pub label: String,
    /// Unix seconds, as the other times.
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub revoked_at: Option<i64>,
    /// To the minute.
    pub last_used_at: Option<i64>,
}

/// The sealed part of a key's row. Fields are only ever added, with a default.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyBody {
    pub(crate) environment: Option<String>,
    pub(crate) read: bool,
    pub(crate) write: bool,
    label: String,
    created_at: i64,
    pub(crate) expires_at: Option<i64>,
    revoked_at: Option<i64>,
}

/// A key's row with its tenant's, still sealed.
pub(crate) struct KeyRow {
    pub(crate) id: Arc<str>,
    pub(crate) tenant: TenantId,
    pub(crate) mac: [u8; 32],
    verifier: Vec<u8>,
    body: Vec<u8>,
    last_used: Option<Vec<u8>>,
    tenant_mac: [u8; 32],
    tenant_body: Vec<u8>,
}

/// Uses of keys that are not yet in the database: a login must not wait for a disk.
#[derive(Default)]
pub(crate) struct LastUsed(Mutex<HashMap<Arc<str>, i64>>);

impl Control {
    /// Makes a key and its token, which is given here and nowhere else.
    ///
    /// `environment`: the one it is limited to. `label`: up to 200 bytes of text. `expires_at`: unix seconds,
    /// in the future.
    pub fn create_key(
        &self,
        tenant: TenantId,
        environment: Option<&str>,
        scopes: Scopes,
        label: &str,
        expires_at: Option<i64>,
    ) -> Result<(ApiKey, Token)> {
        let created_at = self.clock.unix_seconds();
        check_request(scopes, label, expires_at, created_at)?;
        let token = Token::generate(environment);
        let id: Arc<str> = token.key_id().into();
        let mac = self.vault.token_mac(&token);
        let body = KeyBody {
            environment: environment.map(str::to_owned),
            read: scopes.read,
            write: scopes.write,
            label: label.to_owned(),
            created_at,
            expires_at,
            revoked_at: None,
        };
        let salt = self.vault.mock_verifier(&id).salt.clone();
        let verifier = Verifier::derive(token.expose(), &salt, DEFAULT_ITERATIONS);

        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        require_tenant(&transaction, tenant)?;
        if let Some(name) = environment
            && !environment_exists(&transaction, &self.vault, tenant, name)?
        {
            return Err(ControlError::NotFound { what: "environment", name: name.to_owned() });
        }
        transaction.execute(
            "INSERT INTO api_keys (id, tenant, mac, verifier, body) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                &*id,
                tenant.as_bytes(),
                mac,
                self.vault.seal_verifier(verifier_aad(tenant, &id, &mac), &verifier),
                self.vault.seal_json(body_aad(tenant, &id, &mac), &body),
            ],
        )?;
        let event = NewAuditEvent::new(AuditAction::ApiKeyCreated, &id).of(tenant).with(json!({
            "environment": environment, "read": scopes.read, "write": scopes.write, "expires_at": expires_at,
        }));
        append(&transaction, &self.vault, created_at, event)?;
        transaction.commit()?;
        Ok((body.into_api_key(id, tenant, None), token))
    }

    /// A tenant's keys, revoked ones too, oldest first.
    pub fn list_keys(&self, tenant: TenantId) -> Result<Vec<ApiKey>> {
        let database = self.database.lock();
        require_tenant(&database, tenant)?;
        let mut statement = database.prepare_cached(&select("WHERE k.tenant = ?1"))?;
        let rows = statement.query_and_then(params![tenant.as_bytes()], |row| {
            let row = KeyRow::read(row)?;
            let body = row.open_body(&self.vault)?;
            let stored = row.open_last_used(&self.vault)?;
            let last_used = stored.max(self.last_used.0.lock().get(&row.id).copied());
            Ok(body.into_api_key(row.id, tenant, last_used))
        })?;
        let mut keys = rows.collect::<Result<Vec<_>>>()?;
        keys.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        Ok(keys)
    }

    /// Revokes a key: durable when this returns, and from then on no login and no statement succeeds with it.
    /// Revoking it again changes nothing.
    pub fn revoke_key(&self, key_id: &str) -> Result<ApiKey> {
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let row = KeyRow::find(&transaction, key_id)?
            .ok_or_else(|| ControlError::NotFound { what: "API key", name: key_id.to_owned() })?;
        let mut body = row.open_body(&self.vault)?;
        let last_used = row.open_last_used(&self.vault)?;
        if body.revoked_at.is_none() {
            body.revoked_at = Some(self.clock.unix_seconds());
            let sealed = self.vault.seal_json(body_aad(row.tenant, &row.id, &row.mac), &body);
            transaction.execute("UPDATE api_keys SET body = ?1 WHERE id = ?2", params![sealed, key_id])?;
            let event = NewAuditEvent::new(AuditAction::ApiKeyRevoked, key_id).of(row.tenant);
            append(&transaction, &self.vault, self.now(), event)?;
            transaction.commit()?;
            self.revoke_trust();
        }
        Ok(body.into_api_key(row.id, row.tenant, last_used))
    }

    /// Records that a login by SCRAM succeeded; logins by token are recorded by themselves.
    pub fn note_use(&self, principal: &Principal) {
        self.last_used.0.lock().insert(Arc::clone(&principal.key_id), self.clock.unix_seconds());
    }

    /// Writes the uses noted since the last call, in one transaction. Call it every minute or so.
    /// What it could not write is forgotten: a date for people's eyes is not worth a retry queue.
    pub fn flush_last_used(&self) -> Result<()> {
        let noted = std::mem::take(&mut *self.last_used.0.lock());
        if noted.is_empty() {
            return Ok(());
        }
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (id, seconds) in &noted {
            let sealed = self.vault.seal_bytes(last_used_aad(id), &seconds.to_be_bytes());
            transaction
                .execute("UPDATE api_keys SET last_used = ?1 WHERE id = ?2", params![sealed, &**id])?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl KeyRow {
    pub(crate) fn find(database: &Connection, key_id: &str) -> Result<Option<Self>> {
        let mut statement = database.prepare_cached(&select("WHERE k.id = ?1"))?;
        let mut rows = statement.query_and_then(params![key_id], Self::read)?;
        rows.next().transpose()
    }

    /// A row that opens like any other and that no token matches.
    pub(crate) fn decoy(vault: &Vault) -> Self {
        let (id, tenant): (Arc<str>, TenantId) = ("decoydecoy00".into(), TenantId([0; 16]));
        let token = Token::generate(None);
        let (mac, tenant_mac) = (vault.token_mac(&token), vault.tenant_mac("decoy"));
        let body = KeyBody {
            environment: None,
            read: false,
            write: false,
            label: "decoy".into(),
            created_at: 0,
            expires_at: None,
            revoked_at: Some(0),
        };
        Self {
            verifier: vault.seal_verifier(verifier_aad(tenant, &id, &mac), &vault.mock_verifier(&id)),
            body: vault.seal_json(body_aad(tenant, &id, &mac), &body),
            last_used: None,
            tenant_body: seal_tenant(vault, tenant, &tenant_mac, "decoy", 0),
            id,
            tenant,
            mac,
            tenant_mac,
        }
    }

    pub(crate) fn open_body(&self, vault: &Vault) -> Result<KeyBody> {
        vault.open_json("an API key", body_aad(self.tenant, &self.id, &self.mac), &self.body)
    }

    pub(crate) fn open_verifier(&self, vault: &Vault) -> Result<Verifier> {
        vault.open_verifier(verifier_aad(self.tenant, &self.id, &self.mac), &self.verifier)
    }

    pub(crate) fn open_tenant_name(&self, vault: &Vault) -> Result<Arc<str>> {
        Ok(open_tenant(vault, self.tenant, &self.tenant_mac, &self.tenant_body)?.name.shared())
    }

    fn open_last_used(&self, vault: &Vault) -> Result<Option<i64>> {
        const WHAT: &str = "a key's last use";
        let Some(sealed) = &self.last_used else {
            return Ok(None);
        };
        let plain = vault.open_bytes(WHAT, last_used_aad(&self.id), sealed)?;
        let bytes = plain.as_slice().try_into();
        let bytes =
            bytes.map_err(|_| ControlError::Corrupt { what: WHAT, why: "it is not 8 bytes".into() })?;
        Ok(Some(i64::from_be_bytes(bytes)))
    }

    fn read(row: &Row<'_>) -> Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            tenant: TenantId(row.get(1)?),
            mac: row.get(2)?,
            verifier: row.get(3)?,
            body: row.get(4)?,
            last_used: row.get(5)?,
            tenant_mac: row.get(6)?,
            tenant_body: row.get(7)?,
        })
    }
}

impl KeyBody {
    /// Whether the key may be used at `now` (unix seconds).
    pub(crate) fn is_live(&self, now: i64) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    fn into_api_key(self, id: Arc<str>, tenant: TenantId, last_used_at: Option<i64>) -> ApiKey {
        ApiKey {
            id,
            tenant,
            environment: self.environment.map(Into::into),
            scopes: Scopes { read: self.read, write: self.write },
            label: self.label,
            created_at: self.created_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at,
        }
    }
}

fn check_request(scopes: Scopes, label: &str, expires_at: Option<i64>, now: i64) -> Result<()> {
    if !scopes.read && !scopes.write {
        return Err(ControlError::InvalidArgument("a key needs a scope: read, write or both".into()));
    }
    if label.len() > MAX_LABEL_BYTES || label.contains(char::is_control) {
        return Err(ControlError::InvalidArgument(format!(
            "a label is up to {MAX_LABEL_BYTES} bytes of text without control characters; this one has {} bytes",
            label.len()
        )));
    }
    if let Some(expires_at) = expires_at
        && expires_at <= now
    {
        return Err(ControlError::InvalidArgument(format!(
            "the expiry {expires_at} (unix seconds) is not after now, {now}: choose a later time"
        )));
    }
    Ok(())
}

fn select(condition: &str) -> String {
    format!(
        "SELECT k.id, k.tenant, k.mac, k.verifier, k.body, k.last_used, t.name_mac, t.body \
         FROM api_keys k JOIN tenants t ON t.id = k.tenant {condition}"
    )
}

fn body_aad(tenant: TenantId, id: &str, mac: &[u8; 32]) -> Aad {
    Aad::new("control-api-key").tenant(tenant).text(id).bytes(mac)
}

fn verifier_aad(tenant: TenantId, id: &str, mac: &[u8; 32]) -> Aad {
    Aad::new("control-scram-verifier").tenant(tenant).text(id).bytes(mac)
}

fn last_used_aad(id: &str) -> Aad {
    Aad::new("control-last-used").text(id)
}
