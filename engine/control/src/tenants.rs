//! Tenants and their environments: rows and names. Their keys are in `keys::tenant_keys`, dropping one is in `audit`.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use sepal_crypto::{Aad, Key, random_bytes};
use sepal_types::{LogEnd, TenantId};
use serde::{Deserialize, Serialize};

use crate::{
    AuditAction, Control, ControlError, DEFAULT_ENVIRONMENT, EnvironmentName, Provider, TenantName,
    audit::{NewAuditEvent, append},
    control_error::Result,
    keys::tenant_keys::{self, NewKey},
    vault::Vault,
};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Names its directory.
    pub id: TenantId,
    pub name: TenantName,
    /// Unix seconds.
    pub created_at: i64,
}

/// An environment of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    pub name: EnvironmentName,
    /// Unix seconds.
    pub created_at: i64,
}

/// The sealed part of a tenant's row. Fields are only ever added, with a default.
#[derive(Serialize, Deserialize)]
pub(crate) struct TenantBody {
    pub(crate) name: String,
    pub(crate) created_at: i64,
    /// How far the log of the tenant's store reached when the store was last opened or closed. `None`: no store was
    /// ever made.
    #[serde(default)]
    pub(crate) log_end: Option<LogEnd>,
    /// It has pipelines, so it is opened at start, without waiting for a session.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) pipelines: bool,
    /// Bytes that its files may have; 0: no limit. `None`: what the server's setting says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disk_quota: Option<u64>,
    /// Who wraps its keys besides the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) own_provider: Option<Provider>,
}

/// The sealed part of an environment's row.
#[derive(Serialize, Deserialize)]
struct EnvironmentBody {
    name: String,
    created_at: i64,
}

impl Control {
    /// Makes a tenant with a fresh key and the environment `default`.
    pub fn create_tenant(&self, name: &TenantName) -> Result<Tenant> {
        let tenant = Tenant {
            id: TenantId(random_bytes()),
            name: name.clone(),
            created_at: self.clock.unix_seconds(),
        };
        let key = Key::random();
        let mac = self.vault.tenant_mac(name);
        let body = seal_tenant(&self.vault, tenant.id, &mac, name, tenant.created_at);

        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if find_tenant(&transaction, &self.vault, name)?.is_some() {
            return Err(ControlError::AlreadyExists { what: "tenant", name: name.to_string() });
        }
        transaction.execute(
            "INSERT INTO tenants (id, name_mac, body) VALUES (?1, ?2, ?3)",
            params![tenant.id.as_bytes(), mac, body],
        )?;
        let first = NewKey { epoch: 1, own: false, secret: key.expose(), key: &key, now: tenant.created_at };
        tenant_keys::insert(&transaction, &self.vault, tenant.id, &first)?;
        let environment = EnvironmentName::parse(DEFAULT_ENVIRONMENT)?;
        insert_environment(&transaction, &self.vault, tenant.id, &environment, tenant.created_at)?;
        let event = NewAuditEvent::new(AuditAction::TenantCreated, name).of(tenant.id);
        append(&transaction, &self.vault, tenant.created_at, event)?;
        transaction.commit()?;
        Ok(tenant)
    }

    /// All tenants, by name.
    pub fn list_tenants(&self) -> Result<Vec<Tenant>> {
        let database = self.database.lock();
        let mut statement = database.prepare_cached("SELECT id, name_mac, body FROM tenants")?;
        let rows = statement.query_and_then([], |row| read_tenant(row, &self.vault))?;
        let mut tenants = rows.collect::<Result<Vec<_>>>()?;
        tenants.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(tenants)
    }

    /// The ids of all tenants, whether their rows open or not.
    pub fn tenant_ids(&self) -> Result<Vec<TenantId>> {
        let database = self.database.lock();
        let mut statement = database.prepare_cached("SELECT id FROM tenants")?;
        let rows = statement.query_map([], |row| row.get(0).map(TenantId))?;
        rows.map(|row| Ok(row?)).collect()
    }

    /// The tenant of that name; any text may be asked for.
    pub fn tenant_by_name(&self, name: &str) -> Result<Option<Tenant>> {
        find_tenant(&self.database.lock(), &self.vault, name)
    }

    /// What [`Self::note_log_end`] wrote last; `None` for a tenant that has no store yet. A store that was made and is
    /// not there, or whose log ends before, has lost data.
    pub fn log_end(&self, tenant: TenantId) -> Result<Option<LogEnd>> {
        Ok(read_body(&self.database.lock(), &self.vault, tenant)?.1.log_end)
    }

    /// Remembers that the tenant has a store, and how far its log reaches. Durable on return.
    pub fn note_log_end(&self, tenant: TenantId, end: LogEnd) -> Result<()> {
        self.change_body(tenant, |body| body.log_end = Some(end))
    }

    /// What [`Self::set_tenant_quota`] said last: bytes that the tenant's files may have, 0 for no limit.
    pub fn tenant_quota(&self, tenant: TenantId) -> Result<Option<u64>> {
        Ok(read_body(&self.database.lock(), &self.vault, tenant)?.1.disk_quota)
    }

    /// Remembers what a tenant's files may have, in bytes; `None`: what the server's setting says. Durable on return.
    pub fn set_tenant_quota(&self, name: &str, bytes: Option<u64>) -> Result<TenantId> {
        let tenant = self
            .tenant_by_name(name)?
            .ok_or_else(|| ControlError::NotFound { what: "tenant", name: name.to_owned() })?;
        self.change_body(tenant.id, |body| body.disk_quota = bytes)?;
        Ok(tenant.id)
    }

    /// Remembers whether a tenant has pipelines ([`Self::tenants_with_pipelines`]). Durable on return; saying what is
    /// known already writes nothing.
    pub fn note_pipelines(&self, tenant: TenantId, has: bool) -> Result<()> {
        if read_body(&self.database.lock(), &self.vault, tenant)?.1.pipelines == has {
            return Ok(());
        }
        self.change_body(tenant, |body| body.pipelines = has)
    }

    /// The tenants that [`Self::note_pipelines`] was last told to have some, in no order.
    pub fn tenants_with_pipelines(&self) -> Result<Vec<TenantId>> {
        let database = self.database.lock();
        let mut statement = database.prepare_cached("SELECT id, name_mac, body FROM tenants")?;
        let rows = statement.query_and_then([], |row| -> Result<_> {
            let (id, mac, sealed): ([u8; 16], [u8; 32], Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let tenant = TenantId(id);
            let body: TenantBody = self.vault.open_json("a tenant", tenant_aad(tenant, &mac), &sealed)?;
            Ok(body.pipelines.then_some(tenant))
        })?;
        rows.filter_map(Result::transpose).collect()
    }

    fn change_body(&self, tenant: TenantId, change: impl FnOnce(&mut TenantBody)) -> Result<()> {
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        change_body(&transaction, &self.vault, tenant, change)?;
        transaction.commit()?;
        Ok(())
    }

    /// Makes an environment.
    pub fn create_environment(&self, tenant: TenantId, name: &EnvironmentName) -> Result<Environment> {
        let created_at = self.clock.unix_seconds();
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        require_tenant(&transaction, tenant)?;
        if environment_exists(&transaction, &self.vault, tenant, name)? {
            return Err(ControlError::AlreadyExists { what: "environment", name: name.to_string() });
        }
        insert_environment(&transaction, &self.vault, tenant, name, created_at)?;
        let event = NewAuditEvent::new(AuditAction::EnvironmentCreated, name).of(tenant);
        append(&transaction, &self.vault, created_at, event)?;
        transaction.commit()?;
        Ok(Environment { name: name.clone(), created_at })
    }

    /// A tenant's environments, by name.
    pub fn list_environments(&self, tenant: TenantId) -> Result<Vec<Environment>> {
        let database = self.database.lock();
        require_tenant(&database, tenant)?;
        let bodies = environment_bodies(&database, &self.vault, tenant)?.into_iter();
        let environments = bodies.map(|body| {
            Ok(Environment { name: EnvironmentName::parse(&body.name)?, created_at: body.created_at })
        });
        let mut environments = environments.collect::<Result<Vec<_>>>()?;
        environments.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(environments)
    }

    /// Whether a tenant has an environment of that name; any text may be asked for.
    pub fn has_environment(&self, tenant: TenantId, name: &str) -> Result<bool> {
        environment_exists(&self.database.lock(), &self.vault, tenant, name)
    }
}

/// A new tenant's body as its row holds it.
pub(crate) fn seal_tenant(
    vault: &Vault,
    id: TenantId,
    mac: &[u8; 32],
    name: &str,
    created_at: i64,
) -> Vec<u8> {
    let body = TenantBody {
        name: name.to_owned(),
        created_at,
        log_end: None,
        pipelines: false,
        disk_quota: None,
        own_provider: None,
    };
    vault.seal_json(tenant_aad(id, mac), &body)
}

pub(crate) fn open_tenant(vault: &Vault, id: TenantId, mac: &[u8; 32], sealed: &[u8]) -> Result<Tenant> {
    let body: TenantBody = vault.open_json("a tenant", tenant_aad(id, mac), sealed)?;
    Ok(Tenant { id, name: TenantName::parse(&body.name)?, created_at: body.created_at })
}

pub(crate) fn require_tenant(database: &Connection, tenant: TenantId) -> Result<()> {
    let mut statement = database.prepare_cached("SELECT 1 FROM tenants WHERE id = ?1")?;
    if statement.exists(params![tenant.as_bytes()])? { Ok(()) } else { Err(no_tenant(tenant)) }
}

pub(crate) fn environment_exists(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
    name: &str,
) -> Result<bool> {
    let mut statement =
        database.prepare_cached("SELECT 1 FROM environments WHERE tenant = ?1 AND name_mac = ?2")?;
    Ok(statement.exists(params![tenant.as_bytes(), vault.environment_mac(tenant, name)])?)
}

pub(crate) fn find_tenant(database: &Connection, vault: &Vault, name: &str) -> Result<Option<Tenant>> {
    let mut statement =
        database.prepare_cached("SELECT id, name_mac, body FROM tenants WHERE name_mac = ?1")?;
    let mut rows =
        statement.query_and_then(params![vault.tenant_mac(name)], |row| read_tenant(row, vault))?;
    rows.next().transpose()
}

fn read_tenant(row: &Row<'_>, vault: &Vault) -> Result<Tenant> {
    let (id, mac, sealed): ([u8; 16], [u8; 32], Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
    open_tenant(vault, TenantId(id), &mac, &sealed)
}

/// Changes a tenant's body inside the caller's transaction.
pub(crate) fn change_body(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
    change: impl FnOnce(&mut TenantBody),
) -> Result<()> {
    let (mac, mut body) = read_body(database, vault, tenant)?;
    change(&mut body);
    database.execute(
        "UPDATE tenants SET body = ?2 WHERE id = ?1",
        params![tenant.as_bytes(), vault.seal_json(tenant_aad(tenant, &mac), &body)],
    )?;
    Ok(())
}

/// The HMAC that a tenant's body is bound to, and the body.
pub(crate) fn read_body(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
) -> Result<([u8; 32], TenantBody)> {
    let mut statement = database.prepare_cached("SELECT name_mac, body FROM tenants WHERE id = ?1")?;
    let row: Option<([u8; 32], Vec<u8>)> =
        statement.query_row(params![tenant.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (mac, sealed) = row.ok_or_else(|| no_tenant(tenant))?;
    Ok((mac, vault.open_json("a tenant", tenant_aad(tenant, &mac), &sealed)?))
}

/// In no order.
pub(crate) fn environment_names(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
) -> Result<Vec<String>> {
    Ok(environment_bodies(database, vault, tenant)?.into_iter().map(|body| body.name).collect())
}

fn environment_bodies(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
) -> Result<Vec<EnvironmentBody>> {
    let mut statement =
        database.prepare_cached("SELECT name_mac, body FROM environments WHERE tenant = ?1")?;
    let rows = statement.query_and_then(params![tenant.as_bytes()], |row| -> Result<EnvironmentBody> {
        let (mac, sealed): ([u8; 32], Vec<u8>) = (row.get(0)?, row.get(1)?);
        vault.open_json("an environment", environment_aad(tenant, &mac), &sealed)
    })?;
    rows.collect()
}

fn insert_environment(
    database: &Connection,
    vault: &Vault,
    tenant: TenantId,
    name: &EnvironmentName,
    created_at: i64,
) -> Result<()> {
    let mac = vault.environment_mac(tenant, name);
    let body = EnvironmentBody { name: name.to_string(), created_at };
    database.execute(
        "INSERT INTO environments (tenant, name_mac, body) VALUES (?1, ?2, ?3)",
        params![tenant.as_bytes(), mac, vault.seal_json(environment_aad(tenant, &mac), &body)],
    )?;
    Ok(())
}

fn no_tenant(tenant: TenantId) -> ControlError {
    ControlError::NotFound { what: "tenant", name: tenant.to_string() }
}

fn tenant_aad(tenant: TenantId, mac: &[u8; 32]) -> Aad {
    Aad::new("control-tenant").tenant(tenant).bytes(mac)
}

fn environment_aad(tenant: TenantId, mac: &[u8; 32]) -> Aad {
    Aad::new("control-environment").tenant(tenant).bytes(mac)
}

/// For serde, which hands a reference.
fn is_false(flag: &bool) -> bool {
    !*flag
}
