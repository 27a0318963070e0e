//! Removes backups that are no longer wanted, and what only they needed.
//!
//! 1. Which entries stay is decided: the newest ones, and the young ones. At least one always stays. A server leaves
//!    entries alone that it did not write.
//! 2. The entries of the others are removed. From here on they do not exist, and what follows can be repeated.
//! 3. Objects that no entry names are removed, but only if they are older than a day: a backup under way stores objects
//!    before its entry. The archived log stays from the oldest backup's on, with the files that it names, so that every
//!    moment since can be restored.
//!    What uploads left that were killed goes as well.
//! 4. Of tenants' keys the sets stay from the first on that an entry names: the log in between may need any of them.

use std::collections::{HashMap, HashSet};

use sepal_database::{Control, Result, TenantId};
use serde::Serialize;

use crate::{
    entry::{self, Entry, ReadEntry},
    identity, keys,
    lock::{Job, Lock},
    moment::{SECOND, now_us},
    names::{self, Mark, Part},
    repository::{Listed, Repository},
    watch::Watch,
};

/// Whoever writes an object writes to it more often than this, whatever the grace is.
const UNFINISHED_SECONDS: i64 = 3_600;

/// What stays.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// So many of the newest.
    pub keep_last: u64,
    /// Those made within so many days.
    pub keep_days: u64,
    /// Objects without an entry stay for so long.
    pub grace_seconds: i64,
    /// Say what would go, remove nothing.
    pub dry_run: bool,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_last: 7, keep_days: 30, grace_seconds: 86_400, dry_run: false }
    }
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    pub kept: Vec<String>,
    pub removed: Vec<String>,
    pub objects: u64,
    pub bytes: u64,
}

/// Without a key: every entry counts. Errors: 55006 while a backup is under way.
pub async fn prune(repository: &Repository, retention: &Retention, watch: &Watch) -> Result<Pruned> {
    alone(repository, None, retention, watch).await
}

/// As a server does it: an entry that it did not write counts as no backup, and what that names stays.
pub(crate) async fn prune_own(
    repository: &Repository,
    control: &Control,
    retention: &Retention,
    watch: &Watch,
) -> Result<Pruned> {
    alone(repository, Some(control), retention, watch).await
}

async fn alone(
    repository: &Repository,
    control: Option<&Control>,
    retention: &Retention,
    watch: &Watch,
) -> Result<Pruned> {
    identity::must_be_made(repository).await?;
    let lock = Lock::take(repository, Job::Prune).await?;
    lock.hold(locked(repository, control, retention, watch)).await
}

async fn locked(
    repository: &Repository,
    control: Option<&Control>,
    retention: &Retention,
    watch: &Watch,
) -> Result<Pruned> {
    watch.stage("reading the catalogue", 0);
    let now = now_us();
    let (own, others): (Vec<ReadEntry>, Vec<ReadEntry>) = entry::all(repository)
        .await?
        .into_iter()
        .partition(|read| control.is_none_or(|control| read.check(control).is_ok()));
    let others: Vec<Entry> = others.into_iter().map(|read| read.entry).collect();
    let (kept, removed) = split(own.into_iter().map(|read| read.entry).collect(), retention, now);
    let mut pruned = Pruned {
        kept: kept.iter().map(|entry| entry.id.clone()).collect(),
        removed: removed.iter().map(|entry| entry.id.clone()).collect(),
        ..Pruned::default()
    };
    watch.stage("removing", 0);
    for entry in &removed {
        if !retention.dry_run {
            repository.remove(&names::entry(&entry.id)).await?;
            repository.remove(&names::verified(&entry.id)).await?;
        }
    }
    let mut needed = Needed::of(kept.iter().chain(&others))?;
    let stored = repository.list(names::TENANTS).await?;
    needed.add_named(&stored);
    let gone: HashSet<&str> = removed.iter().flat_map(Entry::objects).collect();
    for object in stored.into_iter().chain(repository.list(names::CONTROL).await?) {
        watch.check()?;
        let old = object.modified < now / SECOND - retention.grace_seconds;
        if needed.has(&object) || !(old || gone.contains(object.name.as_str())) {
            continue;
        }
        pruned.objects += 1;
        pruned.bytes += object.bytes;
        if !retention.dry_run {
            repository.remove(&object.name).await?;
            watch.moved(object.bytes);
        }
    }
    if !retention.dry_run {
        let unfinished = retention.grace_seconds.max(UNFINISHED_SECONDS);
        pruned.bytes += repository.sweep(now / SECOND - unfinished).await?;
        prune_keys(repository, &needed, now / SECOND - retention.grace_seconds).await?;
    }
    Ok(pruned)
}

/// Those that stay, and the others.
fn split(entries: Vec<Entry>, retention: &Retention, now: i64) -> (Vec<Entry>, Vec<Entry>) {
    let last = usize::try_from(retention.keep_last.max(1)).unwrap_or(usize::MAX);
    let from = entries.len().saturating_sub(last);
    let days = i64::try_from(retention.keep_days).unwrap_or(i64::MAX);
    let oldest = now.saturating_sub(days.saturating_mul(86_400).saturating_mul(SECOND));
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    for (at, entry) in entries.into_iter().enumerate() {
        if at >= from || entry.finished_us >= oldest { kept.push(entry) } else { removed.push(entry) }
    }
    (kept, removed)
}

/// What kept backups need.
struct Needed {
    objects: HashSet<String>,
    /// The first log file of each tenant on each line.
    logs: HashMap<(TenantId, String), u64>,
    keys: HashMap<TenantId, Vec<String>>,
    recovery: HashSet<String>,
}

impl Needed {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Result<Self> {
        let mut needed = Self {
            objects: HashSet::new(),
            logs: HashMap::new(),
            keys: HashMap::new(),
            recovery: HashSet::new(),
        };
        for entry in entries {
            needed.objects.extend(entry.objects().map(str::to_owned));
            needed.recovery.insert(names::recovery(&entry.recovery));
            for tenant in &entry.tenants {
                let id = tenant.id()?;
                needed.keys.entry(id).or_default().push(tenant.keys.clone());
                if let Some(first) = tenant.log.first() {
                    let from = needed.logs.entry((id, entry.line.clone())).or_insert(first.number);
                    *from = first.number.min(*from);
                }
            }
        }
        Ok(needed)
    }

    /// Adds what the log that stays names: files, and the marks that say so.
    fn add_named(&mut self, stored: &[Listed]) {
        for object in stored {
            let mark = Mark::parse(&object.name);
            if let Some(mark) = mark.filter(|mark| self.has_log(mark.tenant, &mark.line, mark.number)) {
                self.objects.insert(object.name.clone());
                self.objects.insert(mark.object.name);
            }
        }
    }

    fn has(&self, object: &Listed) -> bool {
        let in_log = |part: Part| self.has_log(part.tenant, &part.line, part.number);
        self.objects.contains(&object.name) || Part::parse(&object.name).is_some_and(in_log)
    }

    /// Whether log of that number stays.
    fn has_log(&self, tenant: TenantId, line: &str, number: u64) -> bool {
        self.logs.get(&(tenant, line.to_owned())).is_some_and(|from| number >= *from)
    }
}

/// Sets of keys, and recovery packages, that no backup names any more.
async fn prune_keys(repository: &Repository, needed: &Needed, before: i64) -> Result<()> {
    for object in repository.list(names::TENANT_KEYS).await? {
        if let Some(tenant) = names::tenant_of(&object.name).filter(|_| object.modified < before) {
            let sets = needed.keys.get(&tenant).map_or(&[][..], Vec::as_slice);
            keys::keep(repository, tenant, sets).await?;
        }
    }
    for object in repository.list(names::RECOVERY).await? {
        if object.modified < before && !needed.recovery.contains(&object.name) {
            repository.remove(&object.name).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
