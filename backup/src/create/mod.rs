//! Makes a backup of a database that is being served.
//!
//! 1. The recovery package must be there: a backup that nobody could open is none.
//! 2. control.db is copied before the tenants, so that each tenant's log reaches at least as far as control remembers
//!    (docs/format/wal.md). The list of tenants is read before and after, and both must be the same. The recovery
//!    package that is stored is the copy's: the root key may be replaced at any moment, and the copy is under one.
//! 3. Each tenant is pinned at a commit, and what the repository lacks of its files is stored (`tenant`). One that was
//!    not open and whose log and newest manifest are as in the last backup is taken over from there, unread. One that
//!    cannot be read is noted, and taken over as it was: it may never open again, and the older backups will be pruned.
//!    From before the copy on no tenant's older keys are destroyed, so the keys that it has at the end open all of it,
//!    the copy's part included. What they cannot bridge is another provider than the copy knows: such a tenant is
//!    noted.
//! 4. The entry is written last. A run that was killed leaves objects without one: the next run finds and uses them.

mod tenant;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
    sync::Arc,
};

use sepal_database::{
    Control, Error, Provider, Result, SqlState, TenantId,
    backup::{self, HeldKeys, Source},
    sealing::{hex, random_bytes},
};

use crate::{
    entry::{self, Entry, FORMAT, FailedTenant, Object, TenantEntry},
    failure::Failure,
    identity, keys,
    lock::{Job, Lock},
    log::Archived,
    moment::{compact, now_us, show},
    names,
    pace::Pace,
    repository::{Listed, Repository, failed},
    watch::Watch,
};

/// How directories begin that hold a copy of control.db until it is stored.
const COPY: &str = "control-copy-";
/// The same, made by older programs.
const OLDER_COPY: &str = ".tmp";
/// How often the list of tenants may change while control.db is copied.
const COPIES: usize = 10;

/// How a backup is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateOptions {
    /// Store everything again, whatever the repository has.
    pub full: bool,
    /// Begin a new repository where one was that is gone.
    pub new_repository: bool,
}

/// What a run works with.
pub(crate) struct Run<'a> {
    pub source: &'a Source,
    pub repository: &'a Repository,
    pub pace: &'a Pace,
    pub watch: &'a Watch,
    pub id: String,
    pub line: String,
    pub known: Known,
    /// Tenants' providers, as the copy of control.db knows them.
    pub providers: HashMap<TenantId, Provider>,
    started_us: i64,
    /// What is copied is sealed under the keys of several moments.
    _keys: HeldKeys,
}

/// control.db as it was copied.
struct Copied {
    control: Object,
    /// Which package gives the root key that it is under.
    recovery: String,
    tenants: Vec<TenantId>,
}

/// What the repository has.
#[derive(Default)]
pub(crate) struct Known {
    /// Bytes of every object of tenants.
    pub stored: HashMap<String, u64>,
    /// Hashes that entries tell.
    pub objects: HashMap<String, Object>,
    /// This line's last backup of each tenant.
    pub last: HashMap<TenantId, TenantEntry>,
    pub logs: HashMap<TenantId, Archived>,
}

/// Makes a backup and gives its entry.
///
/// Errors: 55000 without a recovery key, if the repository is gone, or if no tenant at all can be read; 55006 while a
/// prune is under way; whatever the repository met. A tenant that cannot be read is noted in the entry, and the
/// others are backed up.
pub async fn create(
    source: &Source,
    repository: &Repository,
    options: &CreateOptions,
    pace: &Pace,
    watch: &Watch,
) -> Result<Entry> {
    // Before anything is stored.
    blocking(source, Source::recovery_package).await?.ok_or_else(keys::no_recovery)?;
    identity::settle(repository, source, options.new_repository).await?;
    let lock = Lock::take(repository, Job::Backup).await?;
    lock.hold(locked(source, repository, options, (pace, watch))).await
}

/// After that of the newest backup, even if both were begun within a second: backups sort by their ids.
fn next_id(newest: Option<&String>, started_us: i64) -> String {
    let taken = |at: i64| newest.is_some_and(|newest| newest.as_str() >= compact(at).as_str());
    // Where the clock was put back by more, its order is what it says.
    let at = (0..5).map(|second| started_us + second * 1_000_000).find(|at| !taken(*at));
    format!("{}-{}", compact(at.unwrap_or(started_us)), hex(&random_bytes::<4>()))
}

async fn locked(
    source: &Source,
    repository: &Repository,
    options: &CreateOptions,
    (pace, watch): (&Pace, &Watch),
) -> Result<Entry> {
    let mut run = Run::begin(source, repository, options, (pace, watch)).await?;
    let copied = run.copy_control().await?;
    run.finish(copied).await
}

/// A backup of nothing would push out those that hold something.
fn refuse_empty(entry: &Entry) -> Result<()> {
    match entry.failed.first() {
        Some(first) if entry.tenants.is_empty() => Err(Error::new(
            SqlState::ObjectNotInPrerequisiteState,
            format!("none of {} tenants can be backed up: {}", entry.failed.len(), first.error),
        )),
        _ => Ok(()),
    }
}

impl Known {
    async fn read(repository: &Repository, line: &str, control: &Control) -> Result<Self> {
        let listed = repository.list(names::TENANTS).await?;
        let logs = Archived::of(listed.iter().map(|object| object.name.as_str()), line);
        let stored = listed.into_iter().map(|Listed { name, bytes, .. }| (name, bytes)).collect();
        let mut known = Self { stored, logs, ..Self::default() };
        for entry in entry::own(repository, control).await? {
            let ours = entry.line == line;
            for tenant in entry.tenants {
                let files = tenant.files.iter().chain(&tenant.manifests);
                known.objects.extend(files.map(|object| (object.name.clone(), object.clone())));
                if ours {
                    known.last.insert(tenant.id()?, tenant);
                }
            }
        }
        Ok(known)
    }

    /// An object that is there and need not be stored again: it has a hash, and the length that it should have.
    pub(crate) fn object(&self, name: &str, bytes: u64) -> Option<Object> {
        let there = self.stored.get(name) == Some(&bytes);
        self.objects.get(name).filter(|object| there && object.bytes == bytes).cloned()
    }

    /// Whether everything that a tenant's entry names is still there.
    pub(crate) fn has_all(&self, entry: &TenantEntry) -> bool {
        let files = entry.files.iter().chain(&entry.manifests);
        let parts = entry.log.iter().flat_map(|file| &file.parts);
        files.map(|object| &object.name).chain(parts).all(|name| self.stored.contains_key(name))
    }
}

impl<'a> Run<'a> {
    /// Reads what the repository has.
    async fn begin(
        source: &'a Source,
        repository: &'a Repository,
        options: &CreateOptions,
        (pace, watch): (&'a Pace, &'a Watch),
    ) -> Result<Self> {
        watch.stage("reading the catalogue", 0);
        let line = blocking(source, |source| identity::line(source.data_dir())).await?;
        let started_us = now_us();
        let id = next_id(entry::ids(repository).await?.last(), started_us);
        let known = if options.full {
            Known::default()
        } else {
            Known::read(repository, &line, source.control()).await?
        };
        let held = blocking(source, |source| Ok(source.hold_keys())).await?;
        let providers = HashMap::new();
        Ok(Self { source, repository, pace, watch, id, line, known, providers, started_us, _keys: held })
    }

    /// Stores a copy of control.db, and the recovery package that stood in it.
    async fn copy_control(&mut self) -> Result<Copied> {
        let folder = identity::folder(self.source.data_dir());
        let copied = blocking(self.source, move |source| {
            std::fs::create_dir_all(&folder)
                .map_err(|error| failed("make", &folder.display().to_string(), &error))?;
            let wrong =
                |action: &str, error: &io::Error| failed(action, &folder.display().to_string(), error);
            remove_copies(&folder).map_err(|error| wrong("remove an older copy in", &error))?;
            for _ in 0..COPIES {
                let place = tempfile::Builder::new().prefix(COPY).tempdir_in(&folder);
                let place = place.map_err(|error| wrong("make a directory in", &error))?;
                let before: HashSet<TenantId> = source.tenants()?.into_iter().collect();
                let providers = source.copy_control(&place.path().join("control.db"))?;
                let after: HashSet<TenantId> = source.tenants()?.into_iter().collect();
                if before == after {
                    let package = Source::recovery_package_of(&place.path().join("control.db"))?;
                    return Ok((place, after, package.ok_or_else(keys::no_recovery)?, providers));
                }
            }
            Err(Error::new(
                SqlState::ObjectInUse,
                "tenants are made and dropped all the time: no copy of control.db fits",
            )
            .with_hint("Try again when fewer tenants come and go."))
        })
        .await?;
        let (place, tenants, package, providers) = copied;
        self.providers = providers;
        let recovery = keys::store_recovery(self.repository, &package).await?;
        let path = place.path().join("control.db");
        let bytes = tokio::fs::metadata(&path)
            .await
            .map_err(|error| failed("read", &path.display().to_string(), &error))?
            .len();
        let name = names::control(&self.id);
        let content = self.repository.put_file(&name, &path, (0, bytes), self.pace).await?;
        self.watch.moved(content.bytes);
        let mut tenants: Vec<TenantId> = tenants.into_iter().collect();
        tenants.sort_unstable();
        let control = Object { name, bytes: content.bytes, sha256: content.sha256 };
        Ok(Copied { control, recovery, tenants })
    }

    /// Stores the tenants, and the entry.
    async fn finish(mut self, copied: Copied) -> Result<Entry> {
        let Copied { control, recovery, tenants } = copied;
        self.watch.stage("copying tenants", tenants.len());
        let mut entry = Entry {
            version: FORMAT,
            id: self.id.clone(),
            line: self.line.clone(),
            started_us: self.started_us,
            finished_us: 0,
            program: env!("CARGO_PKG_VERSION").into(),
            recovery,
            new_bytes: control.bytes,
            control,
            tenants: Vec::new(),
            failed: Vec::new(),
        };
        for id in tenants {
            self.watch.check()?;
            self.add(id, &mut entry).await?;
            self.watch.tenant_done();
        }
        self.leave_out_dropped(&mut entry).await?;
        refuse_empty(&entry)?;
        entry.finished_us = now_us();
        self.watch.stage("writing the entry", 0);
        let bytes = entry.encode(self.source.control())?;
        self.repository.put(&names::entry(&entry.id), bytes).await?;
        Ok(entry)
    }

    /// Adds a tenant; or notes why it could not be, and takes the last backup's part of it. Errors: not the tenant's
    /// own.
    async fn add(&mut self, id: TenantId, entry: &mut Entry) -> Result<()> {
        let error = match self.tenant(id).await {
            Ok((tenant, stored)) => {
                entry.new_bytes += stored;
                entry.tenants.push(tenant);
                return Ok(());
            }
            Err(Failure::Tenant(error)) => error,
            Err(Failure::All(error)) => return Err(error),
        };
        if self.is_gone(id).await? {
            tracing::info!(tenant = %id, %error, "a tenant was dropped while it was backed up");
            // Its keys may have been stored again after the drop removed them.
            return keys::destroy(self.repository, self.source.control(), id).await;
        }
        // A tenant's own provider may refuse for ever: the others' backup must not wait for that.
        let older = self.older(id).await?;
        let as_of = older.as_ref().map(|older| show(older.time_us));
        tracing::error!(tenant = %id, %error, as_of, "a tenant cannot be backed up as it is now");
        let again = self.has_moved(id).await;
        entry.failed.push(FailedTenant { again, ..FailedTenant::new(id, &error) });
        entry.tenants.extend(older);
        Ok(())
    }

    /// Tenants that were dropped meanwhile. A drop that came between the reading and the storing of the keys may have
    /// found nothing to remove.
    async fn leave_out_dropped(&self, entry: &mut Entry) -> Result<()> {
        let left = blocking(self.source, |source| source.tenants()).await?;
        let left: HashSet<String> = left.iter().map(ToString::to_string).collect();
        for tenant in entry.tenants.iter().filter(|tenant| !left.contains(&tenant.tenant)) {
            keys::destroy(self.repository, self.source.control(), tenant.id()?).await?;
        }
        entry.tenants.retain(|tenant| left.contains(&tenant.tenant));
        Ok(())
    }

    async fn is_gone(&self, id: TenantId) -> Result<bool> {
        blocking(self.source, move |source| Ok(!source.tenants()?.contains(&id))).await
    }
}

/// Removes copies of control.db that killed runs left: a rotation of the root key does not reach them. One run at a
/// time has the folder.
fn remove_copies(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_copy = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        if entry.file_type()?.is_dir() && (is_copy(COPY) || is_copy(OLDER_COPY)) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    source: &Source,
    work: impl FnOnce(&Source) -> Result<T> + Send + 'static,
) -> Result<T> {
    let source = source.clone();
    backup::blocking("a step of a backup", move || work(&source)).await
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<Watch>>();
};

#[cfg(test)]
mod tests;
