//! Taking a plan's steps, each durable before the next.
//!
//! 1. Log files from a cut on are copied aside: until step 4 they hold commits that nothing else has.
//! 2. Damaged data files and manifests are moved aside. From here on the store does not open until step 3 or 4.
//! 3. If only indexes, deletion vectors or a manifest were damaged: a manifest without them, under a new number.
//! 4. Otherwise what is left of manifest and log is replayed and written like a checkpoint: new segments, a manifest
//!    that names neither the damaged segments nor the old log, a new log file.
//! 5. Log files that were copied, and those that nobody needs, are moved aside.
//!
//! After a crash at any point the same command finds what is still to be done: a file that was moved is missing, which
//! is the same damage, and what step 4 made durable is whole.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{RepairPlan, Steps};
use crate::{
    ColumnCache, NoBlobs, StoreError, StoreOptions, TenantStore,
    check::Sound,
    checkpoint::Maintenance,
    disk::{Disk, PublishError},
    feed::Kept,
    group::Writer,
    manifest::{self, Manifest},
    paths::{Paths, number, show},
    store::open::Context,
    wal::{Log, Replay, WalFile, WalStart, survey},
};

const CACHE_BYTES: usize = 256 << 20;

impl RepairPlan {
    /// Moves what is damaged below `aside`, which is for this repair of this tenant alone, and makes the store open
    /// without it.
    ///
    /// Errors: what the device says; the same repair can be begun again.
    pub fn apply(self, aside: &Path) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        self.steps.take_all(aside)
    }
}

impl Steps {
    pub(super) fn files(&self) -> Vec<String> {
        let paths = Paths::new(&self.dir);
        let disk = Disk::new(Arc::clone(&self.check.files), None);
        let moved = self.moved(&paths).into_iter().chain(self.logs(&disk, &paths));
        moved.filter(|path| disk.length(path).is_ok()).map(|path| show(&path)).collect()
    }

    /// Manifests and data files.
    fn moved(&self, paths: &Paths) -> Vec<PathBuf> {
        let manifest = self.manifest.map(|number| paths.manifest(number));
        manifest.into_iter().chain(self.data.iter().map(|(kind, file)| paths.data(*kind, *file))).collect()
    }

    /// Log files: old ones, and those from the cut on. A directory that cannot be listed has none.
    fn logs(&self, disk: &Disk, paths: &Paths) -> Vec<PathBuf> {
        let names = disk.list(&paths.wal()).unwrap_or_default();
        let numbers = names.iter().filter_map(|name| number(name, "wal"));
        let cut = self.cut.as_ref().map_or(u64::MAX, |cut| cut.number);
        let mut gone: Vec<u64> = numbers.filter(|number| *number >= cut).collect();
        gone.extend(&self.old_logs);
        gone.into_iter().map(|number| paths.wal_file(number)).collect()
    }

    fn take_all(self, aside: &Path) -> Result<(), StoreError> {
        let (from, to) = (Paths::new(&self.dir), Paths::new(aside));
        let disk = Disk::new(Arc::clone(&self.check.files), None);
        for directory in [to.manifests(), to.wal(), to.segments()] {
            disk.create_directory(&directory)?;
        }
        let logs = self.logs(&disk, &from);
        for log in logs.iter().filter(|log| disk.length(log).is_ok()) {
            disk.copy("quarantine", log, &beside(log, &to.wal()))?;
        }
        for path in self.moved(&from) {
            // One that is missing was part of the damage.
            if disk.length(&path).is_ok() {
                let folder = if path.starts_with(from.segments()) { to.segments() } else { to.manifests() };
                disk.relocate("quarantine", &path, &beside(&path, &folder))?;
            }
        }
        let unchanged = self.base.lost.is_empty() && self.cut.is_none();
        if unchanged {
            self.commit_manifest(disk.clone(), from.clone())?
        } else {
            self.rebuild(disk.clone(), from)?
        }
        for log in &logs {
            disk.remove("quarantine", log)?;
        }
        let directory = disk.open_directory("quarantine", &Paths::new(&self.dir).wal())?;
        disk.sync_directory("quarantine", &directory)
    }

    /// The same rows and the same log: only what is named changes.
    fn commit_manifest(&self, disk: Disk, paths: Paths) -> Result<(), StoreError> {
        let only_log = self.data.is_empty() && self.manifest.is_none();
        if only_log {
            return Ok(());
        }
        let next =
            Manifest { number: self.highest + 1, previous: self.hash.clone(), ..self.base.manifest.clone() };
        manifest::commit(&disk, &paths, self.tenant, &self.keys, &next).map(drop).map_err(either)
    }

    /// Replays what is left and writes it like a checkpoint, so that nothing refers to what is gone.
    fn rebuild(&self, disk: Disk, paths: Paths) -> Result<(), StoreError> {
        let options = StoreOptions {
            files: Arc::clone(&self.check.files),
            log_end: self.check.log_end,
            ..StoreOptions::new(ColumnCache::new(CACHE_BYTES))
        };
        let context = Context { paths, disk, tenant: self.tenant, keys: self.keys.clone(), options };
        let Sound { manifest, lost } = &self.base;
        let mut opened = context.read_manifest(manifest)?;
        opened.lost = lost.clone();
        let log =
            Log { disk: &context.disk, paths: &context.paths, tenant: self.tenant, keys: &context.keys };
        let replay = Replay { log, from: manifest.wal_from, lsn: manifest.lsn, end: self.check.log_end };
        let last = self.cut.as_ref().map(|cut| cut.after);
        let found = survey(&replay, |file, lsn, payload| {
            if last.is_some_and(|last| lsn > last) {
                return Err(StoreError::corrupt(file, format!("commit {lsn} is behind the cut")));
            }
            opened.replay(file, lsn, &payload)
        })?;
        if found.broken.is_some() != self.cut.is_some() || last.is_some_and(|last| found.lsn != last) {
            return Err(StoreError::Bug("the log changed after the repair was planned".to_owned()));
        }
        // The next file bounds the one before it. Where that one is cut, it is at the cut: a repair that ends here is
        // then one that has cut it.
        let previous_length = match &self.cut {
            None => found.last_length,
            Some(cut) if cut.number == found.last_number => cut.offset,
            Some(_) => 0,
        };
        let start = WalStart { number: found.last_number + 1, base_lsn: found.lsn, previous_length };
        let wal = WalFile::create(&context.disk, &context.paths, self.tenant, &context.keys, start)
            .map_err(either)?;
        // Not released: a checkpoint that nobody holds the log against would remove what is to be moved aside.
        let files = Kept {
            older: Vec::new(),
            current: start.span(),
            needed_from: manifest.wal_from,
            released: false,
            damage: None,
        };
        let base = Manifest { number: self.highest, ..manifest.clone() };
        let maintenance = Maintenance { manifest: base, hash: self.hash.clone() };
        let store = context.store(opened, Writer::new(wal), files, maintenance);
        store.checkpoint(&NoBlobs)?;
        store.close()
    }
}

fn beside(path: &Path, folder: &Path) -> PathBuf {
    folder.join(path.file_name().unwrap_or_default())
}

/// Either way the same repair can be begun again.
fn either(error: PublishError) -> StoreError {
    match error {
        PublishError::Before(error) | PublishError::Unknown(error) => error,
    }
}
