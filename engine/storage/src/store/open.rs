//! From a directory to a store: manifest, segments, log, new log file, clean-up, in this order.
//!
//! Nothing on disk changes before the whole log has been replayed: a store that does not open is left as it is. Then
//! what was read is made durable, in case the last process was killed before it was. Log files from before the manifest
//! stay: pipelines may read them, and so may whoever asks for the past.

use std::{ops::Range, path::Path, sync::Arc};

use parking_lot::{Mutex, RwLock};
use sepal_crypto::KeyRing;
use sepal_types::{Lsn, TenantId, limits::FIRST_OBJECT_ID};

use super::{
    Poison, StoreOptions, TenantStore,
    load::{Opened, Opener, Registry},
};
use crate::{
    Snapshot, StoreError,
    checkpoint::{Maintenance, Written},
    disk::{self, Disk},
    feed::{Kept, LogFiles},
    group::Writer,
    history::{History, Until},
    manifest::{self, Manifest},
    paths::{Paths, number, show},
    planted::{self, Bug},
    rotation::Rotation,
    wal::{self, Log, Recovered, Replay, WalFile, WalStart, kept_before, recover},
};

pub(super) fn create(
    dir: &Path,
    tenant: TenantId,
    keys: KeyRing,
    options: StoreOptions,
) -> Result<TenantStore, StoreError> {
    let context = Context::new(dir, tenant, keys, options);
    let Context { paths, disk, keys, .. } = &context;
    for directory in [paths.manifests(), paths.wal(), paths.segments()] {
        disk.create_directory(&directory)?;
    }
    // A creation that was killed may have left directories whose names are not durable yet.
    for directory in paths.root().ancestors().take(3).filter(|path| !path.as_os_str().is_empty()) {
        disk.sync_directory("directory", &disk.open_directory("directory", directory)?)?;
    }
    clear_unfinished(disk, paths)?;
    let start = WalStart { number: 1, base_lsn: Lsn(0), previous_length: 0 };
    // Nothing was written yet that either outcome could contradict, here and below.
    let wal = WalFile::create(disk, paths, tenant, keys, start)?;
    let time_us = context.options.clock.now_us();
    let manifest =
        Manifest { number: 1, wal_from: 1, next_object: FIRST_OBJECT_ID, time_us, ..Manifest::default() };
    let hash = manifest::commit(disk, paths, tenant, keys, &manifest)?;
    let opened = context.opener().manifest(&manifest)?;
    let files =
        Kept { older: Vec::new(), current: start.span(), needed_from: 1, released: true, damage: None };
    let history = History::new(context.options.history, &manifest);
    let maintenance = Maintenance { manifest, hash };
    Ok(context.store(Parts { opened, writer: Writer::new(wal), files, maintenance, history }))
}

pub(super) fn open(
    dir: &Path,
    tenant: TenantId,
    keys: KeyRing,
    options: StoreOptions,
) -> Result<TenantStore, StoreError> {
    let context = Context::new(dir, tenant, keys, options);
    let Context { paths, disk, keys, .. } = &context;
    let (manifest, hash) = manifest::newest(disk, paths, tenant, keys)?;
    let (opened, recovered) = context.recover(&manifest)?;
    let (mut older, damage) = kept_before(&context.log(), manifest.wal_from)?;
    if let Some(error) = &damage {
        tracing::warn!(%error, "a log file that only pipelines and the past could still need cannot be read");
    }
    settle(&context, recovered.last_number, recovered.proven..recovered.last_length)?;
    older.extend(recovered.files);
    let history = context.history(&manifest)?;
    if let (None, Some(oldest)) = (&damage, older.first()) {
        history.begins_at(oldest.number);
    }
    let start = WalStart {
        number: recovered.last_number + u64::from(!planted::is(Bug::LogFileReused)),
        base_lsn: recovered.lsn,
        previous_length: recovered.last_length,
    };
    let wal = WalFile::create(disk, paths, tenant, keys, start)?;
    if context.options.replay_until.is_some() {
        cut_off(disk, paths, start.number)?;
    }
    let needed_from = manifest.wal_from;
    let files = Kept { older, current: start.span(), needed_from, released: false, damage };
    let maintenance = Maintenance { manifest, hash };
    let store = context.store(Parts { opened, writer: Writer::new(wal), files, maintenance, history });
    store.remove_orphans()?;
    Ok(store)
}

/// What a killed process wrote, and renamed, is in the page cache; from here on files are made that only make sense
/// with it, and files are removed that would make up for it. `tail`: of the last log file, what may not be durable.
pub(crate) fn settle(context: &Context, last_number: u64, tail: Range<u64>) -> Result<(), StoreError> {
    if !planted::is(Bug::TailNotSettled) {
        wal::settle(&context.disk, &context.paths, last_number, tail)?;
    }
    if planted::is(Bug::NamesNotSettled) {
        return Ok(());
    }
    // The next log file must not be there without the ones before it.
    let log = context.disk.open_directory("wal", &context.paths.wal())?;
    context.disk.sync_directory("wal", &log)?;
    let manifests = context.disk.open_directory("manifest", &context.paths.manifests())?;
    context.disk.sync_directory("manifest", &manifests)
}

/// Removes the log files of a time that a restore leaves out, the last one first: what an attempt leaves that does not
/// come to its end has no gap. The file before them is durable, and none of them follows it.
fn cut_off(disk: &Disk, paths: &Paths, last: u64) -> Result<(), StoreError> {
    let names = disk.list(&paths.wal())?;
    for name in names.iter().rev().filter(|name| number(name, "wal").is_some_and(|number| number > last)) {
        disk.remove("wal", &paths.wal().join(name))?;
    }
    disk.sync_directory("wal", &disk.open_directory("wal", &paths.wal())?)
}

/// A creation ends with the first manifest, so a store is there if one is.
pub(super) fn is_made(dir: &Path) -> Result<bool, StoreError> {
    let manifests = Paths::new(dir).manifests();
    if !manifests.try_exists().map_err(|error| disk::io_error("read", &manifests, &error))? {
        return Ok(false);
    }
    let local = Disk::default();
    Ok(local.list(&manifests)?.iter().any(|name| number(name, "manifest").is_some()))
}

/// Removes what a creation that did not reach its manifest left. Anything more is somebody's data: a store whose
/// manifest was lost must not be made anew over it.
fn clear_unfinished(disk: &Disk, paths: &Paths) -> Result<(), StoreError> {
    let manifests = disk.list(&paths.manifests())?;
    let logs = disk.list(&paths.wal())?;
    let unfinished = |name: &String| number(name, "tmp").is_some();
    let empty_log =
        |name: &String| number(name, "wal") == Some(1) && wal::is_empty(disk, &paths.wal().join(name));
    let fresh = manifests.iter().all(unfinished)
        && logs.iter().all(|name| unfinished(name) || empty_log(name))
        && disk.list(&paths.segments())?.is_empty();
    if !fresh {
        let why =
            format!("{} holds a store, or what is left of one: open it, or move it away", show(paths.root()));
        return Err(StoreError::Bug(why));
    }
    logs.iter().try_for_each(|name| disk.remove("wal", &paths.wal().join(name)))
}

/// Whose directory it is. `repair` makes a store with it, too; `check` reads with it.
pub(crate) struct Context {
    pub paths: Paths,
    pub disk: Disk,
    pub tenant: TenantId,
    pub keys: KeyRing,
    pub options: StoreOptions,
    registry: Registry,
}

/// What a store consists of besides its [`Context`].
pub(crate) struct Parts {
    pub opened: Opened,
    pub writer: Writer,
    pub files: Kept,
    pub maintenance: Maintenance,
    pub history: History,
}

impl Context {
    pub(crate) fn new(dir: &Path, tenant: TenantId, keys: KeyRing, options: StoreOptions) -> Self {
        let disk = Disk::new(Arc::clone(&options.files), Arc::clone(&options.random), options.fault.clone());
        Self { paths: Paths::new(dir), disk, tenant, keys, options, registry: Registry::default() }
    }

    pub(crate) fn opener(&self) -> Opener<'_> {
        Opener {
            paths: &self.paths,
            disk: &self.disk,
            tenant: self.tenant,
            keys: &self.keys,
            cache: &self.options.cache,
            registry: &self.registry,
        }
    }

    pub(crate) fn log(&self) -> Log<'_> {
        Log { disk: &self.disk, paths: &self.paths, tenant: self.tenant, keys: &self.keys }
    }

    /// The newest manifest's state with the log after it, up to where it is to be recovered to.
    fn recover(&self, manifest: &Manifest) -> Result<(Opened, Recovered), StoreError> {
        let until = match &self.options.replay_until {
            None => None,
            Some(at) => Some(Until::of(at).ok_or_else(|| {
                StoreError::Bug("a recovery ends at a time or a commit, not at a named snapshot".to_owned())
            })?),
        };
        if let Some(until) = until
            && until.is_before(manifest.lsn, manifest.time_us)
        {
            let oldest = (manifest.lsn, manifest.time_us);
            return Err(StoreError::NoSuchPast { asked: until.to_string(), oldest: until.moment(oldest) });
        }
        let mut opened = self.opener().manifest(manifest)?;
        let (from, lsn, end) = (manifest.wal_from, manifest.lsn, self.options.log_end);
        let replay = Replay { log: self.log(), from, lsn, end, limited: until.is_some() };
        let recovered = recover(&replay, |file, lsn, payload| {
            opened.replay(self.opener(), until, (file, lsn), &payload)
        })?;
        if let Some(Until::Commit(wanted)) = until
            && opened.state.lsn < wanted
        {
            let (asked, newest) = (format!("commit {wanted}"), format!("commit {}", opened.state.lsn));
            return Err(StoreError::NotYet { asked, newest });
        }
        if opened.state.time_us == 0 {
            // Its commits were logged without times: what is known is that this was so now.
            opened.state.time_us = self.options.clock.now_us();
        }
        Ok((opened, recovered))
    }

    /// What the older manifests keep. One that does not open is no reason not to open the store.
    pub(crate) fn history(&self, newest: &Manifest) -> Result<History, StoreError> {
        let history = History::new(self.options.history, newest);
        let mut wanted = manifest::numbers(&self.disk, &self.paths)?;
        wanted.extend(newest.snapshots.iter().map(|named| named.manifest));
        for number in wanted.into_iter().filter(|number| *number < newest.number) {
            let read = manifest::read(&self.disk, &self.paths, self.tenant, &self.keys, number);
            match read {
                Ok((manifest, _)) => history.add_older(&manifest),
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant, %error, "a part of the past cannot be read; its files stay");
                    history.add_unreadable(number, error);
                }
            }
        }
        Ok(history)
    }

    pub(crate) fn store(self, parts: Parts) -> TenantStore {
        TenantStore {
            tenant: self.tenant,
            keys: RwLock::new(Arc::new(self.keys)),
            paths: self.paths,
            disk: self.disk,
            cache: self.options.cache,
            clock: self.options.clock,
            wal_segment_bytes: self.options.wal_segment_bytes,
            segment_bytes: self.options.segment_bytes,
            head: RwLock::new(Snapshot::new(parts.opened.state)),
            counters: parts.opened.counters,
            poison: Poison::default(),
            log: LogFiles::new(parts.files, self.options.log_retention_bytes),
            history: Arc::new(parts.history),
            past: Mutex::default(),
            cloned: Mutex::new(parts.opened.cloned),
            queue: Mutex::default(),
            writer: Mutex::new(parts.writer),
            rotation: Rotation::new(&parts.maintenance.manifest),
            maintenance: Mutex::new(parts.maintenance),
            compaction: Mutex::default(),
            underway: Mutex::default(),
            damaged: Mutex::default(),
            written: Written::default(),
            registry: self.registry,
            left_out_us: parts.opened.ended_by_us,
        }
    }
}
