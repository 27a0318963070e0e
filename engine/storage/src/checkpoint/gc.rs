//! Removing what nothing needs, after the manifest that does without it is durable.
//!
//! One rule: a data file stays as long as a manifest that is kept names it (`history` knows which those are), or a
//! clone in the log since the newest. Everything else in the directory goes, whoever left it there. The manifests
//! themselves go first, durably: none ever comes back that names what is gone. A segment that a reader still holds
//! stays until the last `Arc` goes; its chunk removes the files then.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};

use super::Maintenance;
use crate::{
    HistoryPolicy, StoreError, TenantStore,
    chunk::Chunk,
    manifest::{self, Manifest},
    paths::{DataKind, data_file, number},
};

/// What has gone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Collected {
    /// Those that wait for their last reader count.
    pub segments: usize,
    pub wal_files: usize,
    /// Of files that are gone already.
    pub bytes: u64,
}

impl TenantStore {
    /// Remembers a segment, so that it can be retired while somebody reads it.
    pub(crate) fn register(&self, chunk: &Arc<Chunk>) {
        if let Some(file) = chunk.segment() {
            self.registry.lock().insert(file, Arc::downgrade(chunk));
        }
    }

    /// Removes everything that nothing needs. `policy`: another one than the store's.
    pub(crate) fn collect(
        &self,
        maintenance: &Maintenance,
        policy: Option<HistoryPolicy>,
    ) -> Result<Collected, StoreError> {
        let wal_from = maintenance.manifest.wal_from;
        self.read_unreadable();
        let manifests = self.trim_versions(wal_from, policy)?;
        let mut collected = self.sweep()?;
        let (wal_files, log) = self.trim_log(wal_from)?;
        collected.wal_files = wal_files;
        collected.bytes += manifests + log;
        Ok(collected)
    }

    /// [`Self::collect`] for a caller whose own work is done and durable: what is left behind, the next one removes.
    pub(crate) fn collect_later(&self, maintenance: &Maintenance) {
        if let Err(error) = self.collect(maintenance, None) {
            tracing::warn!(tenant = %self.tenant, %error, "files that nothing needs stay until the next checkpoint");
        }
    }

    /// Tries the manifests again that did not open when the store did: a drive that refused once may have meant it only
    /// once, and as long as one of them is unknown, nobody knows which files are needed and none is removed. One that
    /// does not open now either stays what it is, with the error that it had first.
    fn read_unreadable(&self) {
        for number in self.history.unreadable() {
            if let Ok((manifest, _)) =
                manifest::read(&self.disk, &self.paths, self.tenant, &self.keys(), number)
            {
                tracing::info!(tenant = %self.tenant, number, "a part of the past can be read again");
                self.history.add_older(&manifest);
            }
        }
    }

    /// Removes the manifests that are no history any more, durably. Returns their bytes.
    pub(super) fn trim_versions(
        &self,
        wal_from: u64,
        policy: Option<HistoryPolicy>,
    ) -> Result<u64, StoreError> {
        let log_bytes = |from| self.log.bytes_between(from, wal_from);
        let keep = self.history.trim(self.clock.now_us(), policy, &log_bytes);
        self.past.lock().forget();
        let directory = self.disk.open_directory("manifest", &self.paths.manifests())?;
        let Some(bytes) = manifest::remove_others(&self.disk, &self.paths, &keep)? else { return Ok(0) };
        let synced = self.disk.sync_directory("manifest", &directory);
        synced.map_err(|error| self.poison.stop(error))?;
        Ok(bytes)
    }

    /// What a checkpoint would do that swept before its manifest is durable: planted, to see that it is found.
    pub(super) fn sweep_as_if(&self, next: &Manifest) -> Result<(), StoreError> {
        let needed = next.files();
        for name in self.disk.list(&self.paths.segments())? {
            if data_file(&name).is_some_and(|file| !needed.contains_key(&file)) {
                self.disk.remove("segment", &self.paths.segments().join(name))?;
            }
        }
        Ok(())
    }

    /// Removes, or retires, the data files that nothing names.
    fn sweep(&self) -> Result<Collected, StoreError> {
        let names = self.disk.list(&self.paths.segments())?;
        let mut collected = Collected::default();
        // Held until everything is decided: no clone comes to name what is about to go.
        let cloned = self.cloned.lock();
        let Some(mut needed) = self.history.needed() else { return Ok(collected) };
        needed.extend(cloned.iter().flat_map(|(_, files)| files.keys().copied()));
        needed.extend(self.underway.lock().outputs.iter().copied());
        let files = names.iter().filter_map(|name| data_file(name));
        let mut gone: BTreeSet<_> = files.filter(|file| !needed.contains(file)).collect();
        let open = self.open_chunks();
        for sealed in open.iter().filter_map(|chunk| chunk.as_sealed()) {
            if needed.contains(&(DataKind::Segment, sealed.file())) {
                sealed.detach(|file| needed.contains(&(DataKind::Index, file)));
                continue;
            }
            gone.remove(&(DataKind::Segment, sealed.file()));
            for index in sealed.index_files() {
                gone.remove(&(DataKind::Index, index.blob.file));
            }
            collected.segments += usize::from(sealed.retire());
        }
        drop(cloned);
        drop(open);
        for (kind, file) in gone {
            let path = self.paths.data(kind, file);
            collected.bytes += self.disk.length(&path).unwrap_or(0);
            let segment = kind == DataKind::Segment;
            collected.segments += usize::from(segment);
            self.disk.remove(if segment { "segment" } else { "blob" }, &path)?;
        }
        Ok(collected)
    }

    fn open_chunks(&self) -> Vec<Arc<Chunk>> {
        let mut registry = self.registry.lock();
        registry.retain(|_, chunk| chunk.strong_count() > 0);
        registry.values().filter_map(Weak::upgrade).collect()
    }

    /// Removes log files that no recovery needs, which begins with `needed_from`, no hold, and nobody who asks for the
    /// past. Returns how many, and their bytes.
    pub(crate) fn trim_log(&self, needed_from: u64) -> Result<(usize, u64), StoreError> {
        let from = self.history.with_floor(|past_from| self.log.trim(needed_from, past_from));
        let mut removed = (0, 0);
        for name in self.disk.list(&self.paths.wal())? {
            if number(&name, "wal").is_some_and(|number| number < from) {
                let path = self.paths.wal().join(name);
                removed = (removed.0 + 1, removed.1 + self.disk.length(&path).unwrap_or(0));
                self.disk.remove("wal", &path)?;
            }
        }
        Ok(removed)
    }

    /// Removes files that a crash left behind: manifests that are no history, unnamed data files, unfinished log files.
    /// Log files that no recovery needs may be somebody's yet: [`Self::release_unheld_log`] removes them.
    pub(crate) fn remove_orphans(&self) -> Result<(), StoreError> {
        let maintenance = self.maintenance.lock();
        for name in self.disk.list(&self.paths.wal())? {
            if number(&name, "tmp").is_some() {
                self.disk.remove("wal", &self.paths.wal().join(name))?;
            }
        }
        self.trim_versions(maintenance.manifest.wal_from, None)?;
        self.sweep().map(drop)
    }
}
