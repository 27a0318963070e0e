//! Taking a plan's steps, each durable before the next.
//!
//! 1. Log files from a cut on are copied aside: until step 4 they hold commits that nothing else has.
//! 2. Damaged data files and manifests are moved aside. From here on the store does not open until step 3 or 4.
//! 3. If only indexes, deletion vectors, a manifest or the past were damaged: a manifest without them, under a new
//!    number.
//! 4. Otherwise what is left of manifest and log is replayed and written like a checkpoint: new segments, a manifest
//!    that names neither the damaged segments nor the old log, a new log file. The manifest before it goes, unless a
//!    snapshot's name keeps it: it names what is gone. Older ones stay as the past, however old they are.
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
    ColumnCache, HistoryPolicy, NoBlobs, StoreError, StoreOptions,
    check::Sound,
    checkpoint::Maintenance,
    disk::Disk,
    feed::Kept,
    group::Writer,
    manifest::{self, Manifest},
    paths::{Paths, number, show},
    store::{
        load::Opened,
        open::{Context, Parts, settle},
    },
    wal::{Replay, Survey, WalFile, WalStart, survey},
};

const CACHE_BYTES: usize = 256 << 20;

/// How much of the past the tenant keeps its server knows.
const ALL: HistoryPolicy =
    HistoryPolicy { keep_us: i64::MAX, keep_versions: usize::MAX, max_bytes: u64::MAX };

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
        let disk = Disk::on(&self.check.files);
        let moved = self.moved(&paths).into_iter().chain(self.logs(&disk, &paths));
        moved.filter(|path| disk.length(path).is_ok()).map(|path| show(&path)).collect()
    }

    /// Manifests and data files.
    fn moved(&self, paths: &Paths) -> Vec<PathBuf> {
        let manifests = self.manifest.iter().chain(&self.past).map(|number| paths.manifest(*number));
        manifests.chain(self.data.iter().map(|(kind, file)| paths.data(*kind, *file))).collect()
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
        let disk = Disk::on(&self.check.files);
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
        let same_log = self.given_up.is_empty() && !self.in_log && self.cut.is_none();
        if same_log {
            self.commit_manifest(&disk, &from)?;
        } else {
            self.rebuild()?;
            self.remove_original(&disk, &from)?;
        }
        for log in &logs {
            disk.remove("quarantine", log)?;
        }
        let directory = disk.open_directory("quarantine", &Paths::new(&self.dir).wal())?;
        disk.sync_directory("quarantine", &directory)
    }

    /// The same rows and the same log: only what is named changes.
    fn commit_manifest(&self, disk: &Disk, paths: &Paths) -> Result<(), StoreError> {
        let only_log = self.base.manifest == self.original && self.manifest.is_none();
        if only_log {
            return Ok(());
        }
        let next = Manifest {
            number: self.highest + 1,
            previous: self.hash.clone(),
            committed: String::new(),
            ..self.base.manifest.clone()
        };
        manifest::commit(disk, paths, self.tenant, &self.keys, &next)?;
        Ok(())
    }

    /// The manifest that a rebuilt one has followed. What it names is gone, so it is no past, unless it has a name.
    fn remove_original(&self, disk: &Disk, paths: &Paths) -> Result<(), StoreError> {
        if self.original.snapshots.iter().any(|named| named.manifest == self.highest) {
            return Ok(());
        }
        let directory = disk.open_directory("quarantine", &paths.manifests())?;
        disk.remove("quarantine", &paths.manifest(self.highest))?;
        disk.sync_directory("quarantine", &directory)
    }

    /// Replays what is left and writes it like a checkpoint, so that nothing refers to what is gone.
    fn rebuild(&self) -> Result<(), StoreError> {
        let options = StoreOptions {
            files: Arc::clone(&self.check.files),
            log_end: self.check.log_end,
            history: ALL,
            ..StoreOptions::new(ColumnCache::new(CACHE_BYTES))
        };
        let context = Context::new(&self.dir, self.tenant, self.keys.clone(), options);
        let (mut opened, found) = self.replay(&context)?;
        if opened.state.time_us == 0 {
            // Its commits were logged without times, as in a recovery.
            opened.state.time_us = context.options.clock.now_us();
        }
        // The next file bounds the one before it. Where that one is cut, it is at the cut: a repair that ends here is
        // then one that has cut it.
        let previous_length = match &self.cut {
            None => found.last_length,
            Some(cut) if cut.number == found.last_number => cut.offset,
            Some(_) => 0,
        };
        settle(&context, found.last_number, 0..previous_length)?;
        let start = WalStart { number: found.last_number + 1, base_lsn: found.lsn, previous_length };
        let wal = WalFile::create(&context.disk, &context.paths, self.tenant, &context.keys, start)?;
        let manifest = &self.base.manifest;
        // Not released: a checkpoint that nobody holds the log against would remove what is to be moved aside.
        let files = Kept {
            older: Vec::new(),
            current: start.span(),
            needed_from: manifest.wal_from,
            released: false,
            damage: None,
        };
        // As it is on disk: what a snapshot's name keeps of it stays.
        let newest = Manifest { snapshots: manifest.snapshots.clone(), ..self.original.clone() };
        let history = context.history(&newest)?;
        let maintenance = Maintenance { manifest: manifest.clone(), hash: self.hash.clone() };
        let store = context.store(Parts { opened, writer: Writer::new(wal), files, maintenance, history });
        store.checkpoint(&NoBlobs)?;
        store.close()
    }

    /// What is left of manifest and log, and how far the log was followed.
    fn replay(&self, context: &Context) -> Result<(Opened, Survey), StoreError> {
        let Sound { manifest, lost } = &self.base;
        let mut opened = context.opener().manifest(manifest)?;
        opened.lost = lost.clone();
        let (from, lsn, end) = (manifest.wal_from, manifest.lsn, self.check.log_end);
        let replay = Replay { log: context.log(), from, lsn, end, limited: false };
        let last = self.cut.as_ref().map(|cut| cut.after);
        let found = survey(&replay, |file, lsn, payload| {
            if last.is_some_and(|last| lsn > last) {
                return Err(StoreError::corrupt(file, format!("commit {lsn} is behind the cut")));
            }
            opened.replay(context.opener(), None, (file, lsn), &payload).map(|_| ())
        })?;
        if found.broken.is_some() != self.cut.is_some() || last.is_some_and(|last| found.lsn != last) {
            return Err(StoreError::Bug("the log changed after the repair was planned".to_owned()));
        }
        Ok((opened, found))
    }
}

fn beside(path: &Path, folder: &Path) -> PathBuf {
    folder.join(path.file_name().unwrap_or_default())
}
