//! From a repository to a data directory, with nothing but the recovery key.
//!
//! ```text
//! entry → recovery package → root key → control.db → each tenant: keys, files, log → replay → done
//! ```
//! The directory carries a marker from the first step to the last: a server does not open it before. Every object is
//! compared with the hash that the entry tells; the log's parts, with the one in their names. A tenant that does not
//! come back is told, and the others do.

pub(crate) mod fetch;
mod place;
mod plan;

use std::{io::ErrorKind, path::Path, sync::Arc};

use sepal_database::{
    Error, Key, Result, SqlState, Tenant, TenantId,
    backup::{
        Noted, RecoveryKey, Restoring, Until, Wrappers, blocking, keep_root, note, open_recovery_package,
    },
};

use self::fetch::{Fetch, Fetched};
use self::place::Place;
pub(crate) use self::plan::TenantPlan;
use crate::{
    entry::{self, Entry, ReadEntry},
    failure::Failure,
    identity, keys, moment,
    pace::Pace,
    reach::Reach,
    repository::{Repository, failed},
    watch::Watch,
};

/// What opens a repository.
pub enum Opener {
    Recovery(RecoveryKey),
    /// The root key of the instance itself, where it is at hand.
    Root(Key),
}

/// Which moment is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The newest backup, and all of the log that was archived since.
    Latest,
    /// The last backup before a moment (microseconds since 1970), and the log up to it.
    Moment(i64),
    /// One backup as it was made.
    Backup(String),
}

impl Target {
    /// `latest`, or a backup's id.
    pub fn named(id: &str) -> Self {
        if id == "latest" { Self::Latest } else { Self::Backup(id.to_owned()) }
    }
}

/// How a restore is done.
pub struct RestoreOptions {
    pub target: Target,
    /// `None`: all.
    pub tenant: Option<String>,
    /// Reaches the providers of tenants that brought one.
    pub wrappers: Arc<dyn Wrappers>,
}

/// What a restore made.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Restored {
    pub backup: String,
    pub tenants: Vec<RestoredFacts>,
    /// Tenants that were dropped since: their keys are gone.
    pub dropped: Vec<String>,
    /// Tenants that did not come back: their own provider is away, an object is damaged. The others can be served.
    pub failed: Vec<NotRestored>,
}

/// A tenant that control.db of the restored directory knows, and that has no files there.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NotRestored {
    pub name: String,
    pub why: String,
}

/// One tenant, as it came back.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RestoredFacts {
    pub name: String,
    pub rows: u64,
    /// Its last commit, and when that was.
    pub lsn: u64,
    pub time_us: i64,
    /// Nothing that it committed up to the moment asked for is missing. Where no moment was asked for: nothing that was
    /// archived is left out because what lies before it is missing.
    pub reached: bool,
}

impl Restored {
    /// Tenants whose log in the repository ends before the moment that was asked for.
    pub fn unreached(&self) -> impl Iterator<Item = &RestoredFacts> {
        self.tenants.iter().filter(|tenant| !tenant.reached)
    }
}

/// Makes a data directory. Nothing may be in it; it need not be there.
///
/// What is wrong with one tenant does not keep the others back ([`Restored::failed`]), unless it is the only one
/// wanted. A moment that the archived log does not reach brings back what there is ([`Restored::unreached`]).
///
/// One that fails before a tenant's files came leaves nothing behind.
///
/// Errors: 55000 a directory that is not empty; XX001 an object that is damaged or missing, by its name; 22023 a
/// recovery key that opens nothing; 42704 no such backup, or no such tenant in it that could come back.
pub async fn restore(
    repository: &Repository,
    opener: &Opener,
    to: &Path,
    options: &RestoreOptions,
    (pace, watch): (&Pace, &Watch),
) -> Result<Restored> {
    identity::must_be_made(repository).await?;
    let read = choose(repository, &options.target).await?;
    let root = open_root(repository, &read.entry, opener).await?;
    let place = Place::take(to)?;
    let fetch = Fetch { repository, pace, watch, data: to, format: read.entry.version };
    match fill(fetch, &read, &root, options).await {
        Ok(restored) => {
            place.finish()?;
            Ok(restored)
        }
        Err(error) => {
            place.give_back();
            Err(error)
        }
    }
}

/// Everything between the marks.
async fn fill(fetch: Fetch<'_>, read: &ReadEntry, root: &Key, options: &RestoreOptions) -> Result<Restored> {
    let (repository, entry, target) = (fetch.repository, &read.entry, &options.target);
    keep_root(&fetch.data.join("root.key"), root)?;
    let restoring = lay_control(repository, read, (root, &options.wrappers), fetch.data, fetch.pace).await?;
    let reach = match target {
        Target::Moment(_) => Reach::load(repository, restoring.control(), entry).await?,
        Target::Latest | Target::Backup(_) => Reach::default(),
    };
    let run = Run { fetch, entry, target, reach, restoring: Arc::new(restoring) };
    run.tenants(options.tenant.as_deref()).await
}

/// The backup to begin with.
pub(crate) async fn choose(repository: &Repository, target: &Target) -> Result<ReadEntry> {
    if let Target::Backup(id) = target {
        return entry::read(repository, id).await;
    }
    let ids = entry::ids(repository).await?;
    let (mut oldest, mut damage) = (None, None);
    for id in ids.iter().rev() {
        let read = match (entry::read(repository, id).await, target) {
            // Whatever is wrong with it, an older one is meant.
            (Err(error), Target::Moment(at)) if begins_after(id, *at) => {
                tracing::warn!(backup = id, %error, "a backup that was made after the moment cannot be read");
                damage.get_or_insert(error);
                continue;
            }
            (read, _) => read?,
        };
        match target {
            Target::Moment(at) if read.entry.finished_us > *at => oldest = Some(read.entry.finished_us),
            _ => return Ok(read),
        }
    }
    if let Some(error) = damage.filter(|_| oldest.is_none()) {
        return Err(error);
    }
    let why = match oldest {
        Some(at) => format!("the oldest backup is of {}, after that moment", moment::show(at)),
        None => "there is no backup in this repository".to_owned(),
    };
    Err(Error::new(SqlState::UndefinedObject, why)
        .with_hint("`sepal backup list` prints those that there are."))
}

/// Whether a backup's id tells that it was begun after a moment. Ids may be some seconds ahead of that (`create`).
fn begins_after(id: &str, moment_us: i64) -> bool {
    const AHEAD_US: i64 = 10_000_000;
    id > moment::compact(moment_us.saturating_add(AHEAD_US)).as_str()
}

/// The root key that an entry was made under.
pub(crate) async fn open_root(repository: &Repository, entry: &Entry, opener: &Opener) -> Result<Key> {
    match opener {
        Opener::Root(key) => Ok(key.clone()),
        Opener::Recovery(key) => {
            let package = keys::load_recovery(repository, &entry.recovery).await?;
            Ok(open_recovery_package(&package, key)?)
        }
    }
}

/// Puts control.db into a directory and opens it; the entry must be what this instance wrote.
pub(crate) async fn lay_control(
    repository: &Repository,
    read: &ReadEntry,
    (root, wrappers): (&Key, &Arc<dyn Wrappers>),
    data: &Path,
    pace: &Pace,
) -> Result<Restoring> {
    fetch::object(repository, &read.entry.control, &data.join("control.db"), pace).await?;
    let (data, root, wrappers) = (data.to_owned(), root.clone(), Arc::clone(wrappers));
    let restoring = blocking("opening control.db", move || Restoring::open(&data, &root, wrappers)).await?;
    read.check(restoring.control())?;
    Ok(restoring)
}

/// One run.
struct Run<'a> {
    fetch: Fetch<'a>,
    entry: &'a Entry,
    target: &'a Target,
    reach: Reach,
    restoring: Arc<Restoring>,
}

/// What became of a tenant.
enum Came {
    Back(RestoredFacts),
    /// Its keys are gone, as they should be.
    Dropped,
}

impl Run<'_> {
    /// All tenants, or the one that is wanted. One that does not come back keeps its place in control.db, and counts as
    /// lost there.
    async fn tenants(&self, only: Option<&str>) -> Result<Restored> {
        let known = self.restoring.tenants()?;
        let wanted = wanted(&known, only)?;
        self.fetch.watch.stage("restoring tenants", wanted.map_or(known.len(), |_| 1));
        let mut restored = Restored::of(self.entry);
        let mut first = None;
        for tenant in known {
            self.fetch.watch.check()?;
            if wanted.is_some_and(|only| only != tenant.id) {
                self.restoring.leave_out(tenant.id)?;
                continue;
            }
            let name = tenant.name.to_string();
            match self.tenant(tenant.id).await {
                Ok(Came::Back(facts)) => restored.tenants.push(RestoredFacts { name, ..facts }),
                Ok(Came::Dropped) => {
                    self.restoring.forget(&tenant)?;
                    restored.dropped.push(name);
                }
                Err(Failure::All(error)) => return Err(error),
                Err(Failure::Tenant(error)) => {
                    self.give_up(tenant.id).await?;
                    restored.failed.push(NotRestored { name, why: error.to_string() });
                    first.get_or_insert(error);
                }
            }
            self.fetch.watch.tenant_done();
        }
        if let Some(name) = restored.dropped.first().filter(|_| wanted.is_some()) {
            return Err(only_one_is_dropped(name));
        }
        // Nothing that could be served.
        if let Some(error) = first.filter(|_| restored.tenants.is_empty()) {
            return Err(error);
        }
        let counts = [restored.tenants.len(), restored.dropped.len(), restored.failed.len()];
        let facts = serde_json::json!({ "tenants": counts[0], "dropped": counts[1], "failed": counts[2] });
        note(self.restoring.control(), Noted::Restored, &self.entry.id, facts)?;
        Ok(restored)
    }

    async fn tenant(&self, id: TenantId) -> Result<Came, Failure> {
        let part = self.entry.tenants.iter().find(|tenant| tenant.tenant == id.to_string());
        let Some(part) = part else {
            return match self.entry.failure_of(id) {
                Some(failed) => Err(Failure::Tenant(not_in_it(self.entry, &failed.why))),
                // While the backup was made.
                None => Ok(Came::Dropped),
            };
        };
        let plan = TenantPlan::up_to(self.target, self.fetch.repository, &self.entry.line, part).await?;
        let has_gap = match self.fetch.tenant(&self.restoring, &plan).await? {
            Fetched::Dropped => return Ok(Came::Dropped),
            Fetched::UpToGap => true,
            Fetched::Here => plan.has_gap,
        };
        let (restoring, until) = (Arc::clone(&self.restoring), plan.until);
        let facts = blocking("replaying a log", move || replay(&restoring, id, until)).await;
        let facts = facts.map_err(Failure::Tenant)?;
        let reached = match self.target {
            Target::Moment(at) => facts.reached || (!has_gap && self.reach.covers(id, *at)),
            Target::Latest => !has_gap,
            Target::Backup(_) => true,
        };
        Ok(Came::Back(RestoredFacts { reached, ..facts }))
    }

    /// Nothing half made stays.
    async fn give_up(&self, id: TenantId) -> Result<()> {
        let root = self.fetch.root(id);
        let mut removed = tokio::fs::remove_dir_all(&root).await;
        // Another object's file may have been made while the directory was gone through.
        if removed.as_ref().is_err_and(|error| error.kind() == ErrorKind::DirectoryNotEmpty) {
            removed = tokio::fs::remove_dir_all(&root).await;
        }
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed("remove", &root.display().to_string(), &error));
            }
            _ => {}
        }
        let restoring = Arc::clone(&self.restoring);
        blocking("noting a tenant that did not come back", move || restoring.give_up(id)).await
    }
}

impl Restored {
    fn of(entry: &Entry) -> Self {
        let backup = entry.id.clone();
        Self { backup, tenants: Vec::new(), dropped: Vec::new(), failed: Vec::new() }
    }
}

fn not_in_it(entry: &Entry, why: &str) -> Error {
    let why = format!("it is not in backup {}: when that was made, {why}", entry.id);
    Error::new(SqlState::UndefinedObject, why).with_hint("An older backup may have it: --backup ID.")
}

fn only_one_is_dropped(name: &str) -> Error {
    let why =
        format!("tenant \"{name}\" was dropped since: its keys are destroyed, and nothing of it comes back");
    Error::new(SqlState::UndefinedObject, why)
        .with_hint("Without --tenant the others of this backup come back.")
}

fn replay(restoring: &Restoring, id: TenantId, until: Until) -> Result<RestoredFacts> {
    let opened = restoring.open_tenant(id, until)?;
    let facts = RestoredFacts {
        name: String::new(),
        rows: opened.rows(),
        lsn: opened.lsn().0,
        time_us: opened.time_us(),
        reached: opened.is_cut_off(),
    };
    restoring.finish(opened)?;
    Ok(facts)
}

/// The one tenant that is to be restored; `None`: all.
pub(crate) fn wanted(known: &[Tenant], name: Option<&str>) -> Result<Option<TenantId>> {
    let Some(name) = name else { return Ok(None) };
    let found = known.iter().find(|tenant| tenant.name.as_str() == name).map(|tenant| tenant.id);
    found.map(Some).ok_or_else(|| {
        Error::new(SqlState::UndefinedObject, format!("tenant \"{name}\" is not in this backup"))
            .with_hint("Tenants are called as they were when the backup was made.")
    })
}
