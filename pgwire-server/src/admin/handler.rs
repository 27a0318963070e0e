//! What each admin request does. Used by the socket and, in the same process, by `sepal dev` and `sepal demo`.
//!
//! The control database is SQLite and blocks, so all of it runs off the runtime's threads.

use std::sync::Arc;

use sepal_backup::CreateOptions;
use sepal_database::{ApiKey, Database, EnvironmentName, Error, Result, Scopes, SqlState, TenantName};
use zeroize::Zeroizing;

use crate::backups::Backups;

use super::{
    Answer, EncryptionAnswer, Key, NewKey, Request, Status, Tenant, encryption,
    secrets::{self, Answered},
};

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// Does what was asked; the error is worded for the person who asked.
pub async fn handle(
    request: Request,
    database: &Arc<Database>,
    backups: &Backups,
    status: &Status,
) -> Result<Answer> {
    if let Request::Encryption { action } = &request
        && let Some(answer) = encryption::rotation(database, action).await?
    {
        return Ok(answer);
    }
    let request = match request {
        Request::TenantDrop { name } => {
            let (_, certificate) = database.drop_tenant(&name).await?;
            return Ok(Answer::Encryption(EncryptionAnswer::Certificate(Some(certificate))));
        }
        Request::TenantQuota { name, disk_mib } => {
            database.set_tenant_quota(&name, disk_mib.map(|mib| mib.saturating_mul(MIB))).await?;
            return Ok(Answer::Done);
        }
        Request::BackupCreate { repository, full, new_repository } => {
            let options = CreateOptions { full, new_repository };
            return Ok(Answer::BackupJob(backups.create(repository.as_deref(), options)?));
        }
        Request::BackupStatus => {
            let keeper = backups.keeper()?;
            keeper.look_again().await;
            return Ok(Answer::BackupStatus(Box::new(keeper.status())));
        }
        Request::BackupCensus { day, tenant } => {
            return Ok(Answer::BackupCensus(backups.census(&day, tenant.as_deref()).await?));
        }
        other => other,
    };
    let (database, status) = (Arc::clone(database), status.clone());
    tokio::task::spawn_blocking(move || blocking(request, &database, status))
        .await
        .map_err(|error| Error::bug(format!("an admin request ended early: {error}")))?
}

fn blocking(request: Request, database: &Arc<Database>, status: Status) -> Result<Answer> {
    let control = database.control();
    Ok(match request {
        Request::Status => Answer::Status(status),
        Request::TenantCreate { name } => {
            Answer::Tenant(describe_tenant(&control.create_tenant(&TenantName::parse(&name)?)?))
        }
        Request::TenantList => Answer::Tenants(control.list_tenants()?.iter().map(describe_tenant).collect()),
        Request::TenantDrop { .. }
        | Request::TenantQuota { .. }
        | Request::BackupCreate { .. }
        | Request::BackupStatus
        | Request::BackupCensus { .. } => {
            return Err(Error::bug("a request was answered at the wrong place"));
        }
        Request::KeyCreate { tenant, environment, write, label, expires_at } => {
            let owner = tenant_named(database, &tenant)?;
            let environment_made = match &environment {
                Some(name) if !control.has_environment(owner.id, name)? => {
                    control.create_environment(owner.id, &EnvironmentName::parse(name)?)?;
                    true
                }
                _ => false,
            };
            let scopes = if write { Scopes::READ_WRITE } else { Scopes::READ };
            let (key, token) =
                control.create_key(owner.id, environment.as_deref(), scopes, &label, expires_at)?;
            Answer::Key(NewKey {
                key: describe_key(&key, &tenant),
                token: Zeroizing::new(token.expose().to_owned()),
                environment_made,
                endpoint: status.endpoint,
            })
        }
        Request::KeyList { tenant } => {
            let owner = tenant_named(database, &tenant)?;
            Answer::Keys(control.list_keys(owner.id)?.iter().map(|key| describe_key(key, &tenant)).collect())
        }
        Request::KeyRevoke { key } => {
            control.revoke_key(&key)?;
            Answer::Done
        }
        Request::Secret { tenant, environment, action } => {
            let owner = tenant_named(database, &tenant)?;
            match secrets::answer(database, owner.id, &environment, action)? {
                Answered::Secret(facts) => Answer::Secret(facts),
                Answered::Secrets(facts) => Answer::Secrets(facts),
                Answered::Lint(found) => Answer::SecretLint(found),
                Answered::Done => Answer::Done,
            }
        }
        Request::Encryption { action } => encryption::answer(database, action)?,
    })
}

pub(super) fn tenant_named(database: &Database, name: &str) -> Result<sepal_database::Tenant> {
    database.control().tenant_by_name(name)?.ok_or_else(|| {
        Error::new(SqlState::UndefinedObject, format!("tenant \"{name}\" does not exist"))
            .with_hint("`sepal tenant list` prints those that do, `sepal tenant create` makes one.")
    })
}

fn describe_tenant(tenant: &sepal_database::Tenant) -> Tenant {
    Tenant { name: tenant.name.to_string(), id: tenant.id.to_string(), created_at: tenant.created_at }
}

fn describe_key(key: &ApiKey, tenant: &str) -> Key {
    Key {
        id: key.id.to_string(),
        tenant: tenant.to_owned(),
        environment: key.environment.as_deref().map(str::to_owned),
        read: key.scopes.read,
        write: key.scopes.write,
        label: key.label.clone(),
        created_at: key.created_at,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
        last_used_at: key.last_used_at,
    }
}
