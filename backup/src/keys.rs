//! The keys that a repository holds, all of them wrapped: apart from what they open, so that a drop reaches backups.
//!
//! ```text
//! keys/tenants/<tenant>          {"version":2,"sets":[{"id":"…","tag":"…","line":"…","sealed":"<base64>"}]}
//!   of a dropped tenant          {"version":2,"tenant":"…","dropped_us":…} | '\n' | {"mac":"…"} | '\n'
//! keys/recovery/<fingerprint>    the recovery package as control gives it
//! ```
//! A set is what control.db held for the tenant at one time; a rotation of the tenant's key makes another. It is stored
//! before the log that is written under the new key: a restore of that log takes a backup's set and the later ones of
//! its line. All sets of a tenant are in one object: a tombstone in its place leaves nothing of its backups to be
//! opened, and tells a drop from a loss. Nothing but a prune that finds no backup of the tenant takes it away again.

use base64::{Engine, engine::general_purpose::STANDARD};
use sepal_database::{
    Control, Error, ErrorKind, Result, SqlState, TenantId,
    sealing::{hex, sha256},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    entry::{self, FORMAT, Version, check_version},
    failure::Failure,
    identity, limits,
    moment::now_us,
    names,
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

/// What a drop leaves.
#[derive(Debug, Serialize, Deserialize)]
struct Tombstone {
    version: u32,
    tenant: String,
    dropped_us: i64,
}

/// What stands where a tenant's keys do.
enum Stored {
    Nothing,
    Keys(TenantKeys),
    Dropped,
}

/// A tenant's keys as a restore finds them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Loaded {
    /// A set, and those that came after it.
    Keys(Vec<u8>, Vec<Vec<u8>>),
    /// The tenant was dropped.
    Dropped,
    /// There is no object. Before format 2 that was what a drop left.
    Missing,
}

/// An object of keys is read, changed and written: one after the other in this process. Other processes take a lock in
/// the repository, and a drop, which waits for nobody, is repeated (`keeper`).
static CHANGING: Mutex<()> = Mutex::const_new(());

/// A name for wrapped bytes.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    hex(&sha256(bytes)[..8])
}

/// Stores a tenant's wrapped keys, beside those of earlier backups, unless the same keys (`tag`) are there, and gives
/// the set's id.
///
/// Errors: the tenant's own: 42704 the repository says that it was dropped; XX001 what is there is damaged.
pub(crate) async fn store(
    repository: &Repository,
    control: &Control,
    (tenant, line): (TenantId, &str),
    tag: &str,
    sealed: &[u8],
) -> Result<String, Failure> {
    let _alone = CHANGING.lock().await;
    let mut keys = match read(repository, Some(control), tenant).await.map_err(Failure::of_object)? {
        Stored::Keys(keys) => keys,
        Stored::Nothing => TenantKeys { version: FORMAT, sets: Vec::new() },
        Stored::Dropped => return Err(Failure::Tenant(was_dropped(tenant))),
    };
    if let Some(set) = keys.sets.iter().find(|set| set.tag == tag) {
        return Ok(set.id.clone());
    }
    let id = fingerprint(sealed);
    let (tag, line) = (tag.to_owned(), line.to_owned());
    keys.sets.push(Set { id: id.clone(), tag, line, sealed: STANDARD.encode(sealed) });
    write(repository, tenant, &keys).await.map_err(Failure::All)?;
    Ok(id)
}

/// Whether a set is of these keys (`tag`). One of a dropped tenant may be: whoever restores is told of the drop.
pub(crate) async fn is_of(repository: &Repository, tenant: TenantId, set: &str, tag: &str) -> Result<bool> {
    match read(repository, None, tenant).await? {
        Stored::Keys(keys) => Ok(keys.sets.iter().any(|found| found.id == set && found.tag == tag)),
        Stored::Nothing => Ok(false),
        Stored::Dropped => Ok(true),
    }
}

/// Whether backups have keys of the tenant, but not these.
pub(crate) async fn lacks(repository: &Repository, tenant: TenantId, tag: &str) -> Result<bool> {
    match read(repository, None, tenant).await? {
        Stored::Keys(keys) => Ok(keys.sets.iter().all(|set| set.tag != tag)),
        Stored::Nothing | Stored::Dropped => Ok(false),
    }
}

/// A set; and those that came after it on a line, if log of that line is to be read.
pub(crate) async fn load(
    repository: &Repository,
    control: &Control,
    tenant: TenantId,
    id: &str,
    line: Option<&str>,
) -> Result<Loaded> {
    let keys = match read(repository, Some(control), tenant).await? {
        Stored::Keys(keys) => keys,
        Stored::Nothing => return Ok(Loaded::Missing),
        Stored::Dropped => return Ok(Loaded::Dropped),
    };
    let name = names::tenant_keys(tenant);
    let at = keys.sets.iter().position(|set| set.id == id);
    let at = at.ok_or_else(|| damaged(&name, format!("the set {id} is not in it")))?;
    let later = keys.sets[at + 1..].iter().filter(|set| line.is_some_and(|line| set.line == line));
    let later = later.map(|set| set.open(&name)).collect::<Result<_>>()?;
    Ok(Loaded::Keys(keys.sets[at].open(&name)?, later))
}

/// All sets that backups have of a tenant, the newest first. Those that are damaged are left out: whoever restores is
/// told.
pub(crate) async fn load_all(
    repository: &Repository,
    control: &Control,
    tenant: TenantId,
) -> Result<Vec<Vec<u8>>> {
    let name = names::tenant_keys(tenant);
    Ok(match read(repository, Some(control), tenant).await? {
        Stored::Keys(keys) => keys.sets.iter().rev().filter_map(|set| set.open(&name).ok()).collect(),
        Stored::Nothing | Stored::Dropped => Vec::new(),
    })
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

/// Leaves only the sets from the first one on that is still needed: the log since may need those after it. None at all
/// removes the object, or the tombstone. Gives whether anything changed.
pub(crate) async fn keep(repository: &Repository, tenant: TenantId, needed: &[String]) -> Result<bool> {
    let _alone = CHANGING.lock().await;
    let name = names::tenant_keys(tenant);
    let mut keys = match read(repository, None, tenant).await? {
        Stored::Keys(keys) => keys,
        Stored::Dropped if needed.is_empty() => {
            repository.remove(&name).await?;
            return Ok(true);
        }
        Stored::Nothing | Stored::Dropped => return Ok(false),
    };
    let before = keys.sets.len();
    // Of those between two that backups name as well: the log from one backup to the next may be under a key that came
    // and went in between.
    let first = match keys.sets.iter().position(|set| needed.contains(&set.id)) {
        Some(first) => first,
        None if needed.is_empty() => before,
        // What backups name is not here: whoever restores is told, and nobody knows what else is needed.
        None => return Ok(false),
    };
    keys.sets.drain(..first);
    if keys.sets.len() == before {
        return Ok(false);
    }
    if keys.sets.is_empty() {
        repository.remove(&name).await?;
    } else {
        write(repository, tenant, &keys).await?;
    }
    Ok(true)
}

/// Puts a tombstone in the place of a tenant's keys: none of its backups opens any more. Doing it again is fine.
pub(crate) async fn destroy(repository: &Repository, control: &Control, tenant: TenantId) -> Result<()> {
    let _alone = CHANGING.lock().await;
    let name = names::tenant_keys(tenant);
    if !identity::is_made(repository).await? {
        // No backup was made there: nobody will ask what became of the keys.
        return repository.remove(&name).await;
    }
    if let Ok(Stored::Dropped) = read(repository, Some(control), tenant).await {
        return Ok(());
    }
    let tombstone = Tombstone { version: FORMAT, tenant: tenant.to_string(), dropped_us: now_us() };
    repository.put(&name, entry::signed(control, &tombstone)?).await.map(drop)
}

/// Without `control` a tombstone's authentication is not checked.
async fn read(repository: &Repository, control: Option<&Control>, tenant: TenantId) -> Result<Stored> {
    let name = names::tenant_keys(tenant);
    let Some(bytes) = repository.get(&name, limits::KEYS_BYTES).await? else { return Ok(Stored::Nothing) };
    // Keys are one line and have no end of line.
    if !bytes.contains(&b'\n') {
        let keys: TenantKeys = serde_json::from_slice(&bytes).map_err(|error| damaged(&name, error))?;
        check_version(&name, keys.version)?;
        return Ok(Stored::Keys(keys));
    }
    let (line, mac) = entry::lines(&name, &bytes)?;
    let Version { version } = serde_json::from_str(&line).map_err(|error| damaged(&name, error))?;
    check_version(&name, version)?;
    if let Some(control) = control {
        entry::check_mac(control, &name, (&line, &mac))?;
    }
    let tombstone: Tombstone = serde_json::from_str(&line).map_err(|error| damaged(&name, error))?;
    if tombstone.tenant != tenant.to_string() {
        return Err(damaged(&name, format!("it is of tenant {:?}", tombstone.tenant)));
    }
    Ok(Stored::Dropped)
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
    let there = match repository.get(&name, limits::SMALL_BYTES).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => None,
        found => found?,
    };
    if there.as_deref() != Some(package) {
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

fn was_dropped(tenant: TenantId) -> Error {
    let name = names::tenant_keys(tenant);
    Error::new(SqlState::UndefinedObject, format!("the backup repository says that tenant {tenant} was dropped"))
        .with_hint(format!(
            "Another server with this repository dropped it, or this directory is an older copy. If the tenant is \
             meant to live, remove {name} from the repository, and back up again."
        ))
}

/// No backup is made that nobody could open.
pub(crate) fn no_recovery() -> Error {
    Error::new(
        SqlState::ObjectNotInPrerequisiteState,
        "this instance has no recovery key: nobody could open its backups",
    )
    .with_hint("Make one with `sepal recovery create`, and keep it where the server is not.")
}
