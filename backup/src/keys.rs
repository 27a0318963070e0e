//! The keys that a repository holds, all of them wrapped: apart from what they open, so that a drop reaches backups.
//!
//! ```text
//! keys/tenants/<tenant>          {"version":1,"sets":[{"id":"…","tag":"…","line":"…","sealed":"<base64>"}]}
//! keys/recovery/<fingerprint>    the recovery package as control gives it
//! ```
//! A set is what control.db held for the tenant at one time; a rotation of the tenant's key makes another. It is stored
//! before the log that is written under the new key: a restore of that log takes a backup's set and the later ones of
//! its line. All sets of a tenant are in one object: removing that one leaves nothing of its backups to be opened.

use base64::{Engine, engine::general_purpose::STANDARD};
use sepal_database::{
    Error, Result, SqlState, TenantId,
    sealing::{hex, sha256},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    entry::{FORMAT, check_version},
    limits, names,
    repository::{Repository, damaged},
};

/// All sets of wrapped keys of one tenant.
#[derive(Debug, Serialize, Deserialize)]
struct TenantKeys {
    version: u32,
    sets: Vec<Set>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Set {
    id: String,
    /// Tells which keys these are, without telling them.
    tag: String,
    /// The data directory's life that it is of (`names`).
    line: String,
    sealed: String,
}

/// An object of keys is read, changed and written: one after the other in this process. Other processes take a lock in
/// the repository.
static CHANGING: Mutex<()> = Mutex::const_new(());

/// A name for wrapped bytes.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    hex(&sha256(bytes)[..8])
}

/// Stores a tenant's wrapped keys, beside those of earlier backups, unless the same keys (`tag`) are there, and gives
/// the set's id.
pub(crate) async fn store(
    repository: &Repository,
    (tenant, line): (TenantId, &str),
    tag: &str,
    sealed: &[u8],
) -> Result<String> {
    let _alone = CHANGING.lock().await;
    let mut keys =
        read(repository, tenant).await?.unwrap_or(TenantKeys { version: FORMAT, sets: Vec::new() });
    if let Some(set) = keys.sets.iter().find(|set| set.tag == tag) {
        return Ok(set.id.clone());
    }
    let id = fingerprint(sealed);
    let (tag, line) = (tag.to_owned(), line.to_owned());
    keys.sets.push(Set { id: id.clone(), tag, line, sealed: STANDARD.encode(sealed) });
    write(repository, tenant, &keys).await?;
    Ok(id)
}

/// Whether backups have keys of the tenant, but not these.
pub(crate) async fn lacks(repository: &Repository, tenant: TenantId, tag: &str) -> Result<bool> {
    let keys = read(repository, tenant).await?;
    Ok(keys.is_some_and(|keys| keys.sets.iter().all(|set| set.tag != tag)))
}

/// A set; and those that came after it on a line, if log of that line is to be read. `None`: the tenant's keys are
/// gone, it was dropped.
pub(crate) async fn load(
    repository: &Repository,
    tenant: TenantId,
    id: &str,
    line: Option<&str>,
) -> Result<Option<(Vec<u8>, Vec<Vec<u8>>)>> {
    let Some(keys) = read(repository, tenant).await? else { return Ok(None) };
    let name = names::tenant_keys(tenant);
    let at = keys.sets.iter().position(|set| set.id == id);
    let at = at.ok_or_else(|| damaged(&name, format!("the set {id} is not in it")))?;
    let later = keys.sets[at + 1..].iter().filter(|set| line.is_some_and(|line| set.line == line));
    let later = later.map(|set| set.open(&name)).collect::<Result<_>>()?;
    Ok(Some((keys.sets[at].open(&name)?, later)))
}

impl Set {
    fn open(&self, name: &str) -> Result<Vec<u8>> {
        let sealed = STANDARD.decode(&self.sealed).map_err(|error| damaged(name, error))?;
        if fingerprint(&sealed) == self.id {
            return Ok(sealed);
        }
        Err(damaged(name, format!("the set {} is another", self.id)))
    }
}

/// Leaves only the sets that are still needed, and those after them, which the log since may need; none at all removes
/// the object. Gives whether anything changed.
pub(crate) async fn keep(repository: &Repository, tenant: TenantId, needed: &[String]) -> Result<bool> {
    let _alone = CHANGING.lock().await;
    let Some(mut keys) = read(repository, tenant).await? else { return Ok(false) };
    let before = keys.sets.len();
    let is_needed = |set: &Set| needed.contains(&set.id);
    let last = keys.sets.iter().rposition(is_needed);
    let later = last.map_or_else(Vec::new, |last| keys.sets.split_off(last + 1));
    keys.sets.retain(is_needed);
    keys.sets.extend(later);
    if keys.sets.len() == before {
        return Ok(false);
    }
    if keys.sets.is_empty() {
        destroy(repository, tenant).await?;
    } else {
        write(repository, tenant, &keys).await?;
    }
    Ok(true)
}

/// Removes a tenant's keys: none of its backups opens any more.
pub(crate) async fn destroy(repository: &Repository, tenant: TenantId) -> Result<()> {
    repository.remove(&names::tenant_keys(tenant)).await
}

async fn read(repository: &Repository, tenant: TenantId) -> Result<Option<TenantKeys>> {
    let name = names::tenant_keys(tenant);
    let Some(bytes) = repository.get(&name, limits::KEYS_BYTES).await? else { return Ok(None) };
    let keys: TenantKeys = serde_json::from_slice(&bytes).map_err(|error| damaged(&name, error))?;
    check_version(&name, keys.version)?;
    Ok(Some(keys))
}

async fn write(repository: &Repository, tenant: TenantId, keys: &TenantKeys) -> Result<()> {
    let bytes = serde_json::to_vec(keys).map_err(|error| Error::bug(format!("keys as JSON: {error}")))?;
    let name = names::tenant_keys(tenant);
    limits::check(&name, &bytes, limits::KEYS_BYTES)?;
    repository.put(&name, bytes).await.map(drop)
}

/// Stores the recovery package under its fingerprint.
pub(crate) async fn store_recovery(repository: &Repository, package: &[u8]) -> Result<String> {
    let id = fingerprint(package);
    let name = names::recovery(&id);
    if repository.get(&name, limits::SMALL_BYTES).await?.as_deref() != Some(package) {
        repository.put(&name, package.to_vec()).await?;
    }
    Ok(id)
}

pub(crate) async fn load_recovery(repository: &Repository, id: &str) -> Result<Vec<u8>> {
    let name = names::recovery(id);
    let package = repository.get(&name, limits::SMALL_BYTES).await?;
    let package = package.ok_or_else(|| damaged(&name, "it is missing"))?;
    if fingerprint(&package) == id { Ok(package) } else { Err(damaged(&name, "its content is another")) }
}

/// No backup is made that nobody could open.
pub(crate) fn no_recovery() -> Error {
    Error::new(
        SqlState::ObjectNotInPrerequisiteState,
        "this instance has no recovery key: nobody could open its backups",
    )
    .with_hint("Make one with `sepal recovery create`, and keep it where the server is not.")
}
