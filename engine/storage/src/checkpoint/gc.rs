//! Removing what nothing needs, after the manifest that does without it is durable.
//!
//! A segment that a reader still holds stays until the last `Arc` goes; its chunk removes the file then.

use std::sync::Arc;

use crate::{
    StoreError, TenantStore,
    chunk::Chunk,
    manifest::{self, Manifest, SegmentEntry},
    paths::{DataKind, data_file, number},
};

impl TenantStore {
    /// Remembers a segment that a manifest names, so that it can be retired while somebody reads it.
    pub(crate) fn register(&self, chunk: &Arc<Chunk>) {
        if let Some(file) = chunk.segment() {
            self.registry.lock().insert(file, Arc::downgrade(chunk));
        }
    }

    /// Removes, or retires, the files that `old` names and `new` does not, and older manifests. Returns how many
    /// segments went.
    pub(super) fn collect(&self, old: &Manifest, new: &Manifest) -> Result<usize, StoreError> {
        self.detach_dropped(new);
        let mut segments = 0;
        for entry in old.tables.iter().flat_map(|table| &table.segments) {
            let kept = new.segment(entry.file);
            let vector = entry.deleted.as_ref().map(|deleted| deleted.blob.file);
            if let Some(file) = vector
                && kept.and_then(|kept| kept.deleted.as_ref()).map(|deleted| deleted.blob.file) != vector
            {
                // Only `open` reads deletion vectors.
                self.disk.remove("blob", &self.paths.data(DataKind::Deleted, file))?;
            }
            if kept.is_none() {
                segments += 1;
                self.retire(entry)?;
            }
        }
        manifest::remove_older(&self.disk, &self.paths, new.number)?;
        Ok(segments)
    }

    /// Removes log files that neither a recovery needs, which begins with `needed_from`, nor a hold.
    pub(crate) fn trim_log(&self, needed_from: u64) -> Result<usize, StoreError> {
        let from = self.log.trim(needed_from);
        let mut removed = 0;
        for name in self.disk.list(&self.paths.wal())? {
            if number(&name, "wal").is_some_and(|number| number < from) {
                self.disk.remove("wal", &self.paths.wal().join(name))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Removes files that a crash left behind: unnamed data files, unfinished log files and manifests. Log files that
    /// no recovery needs may be somebody's yet: [`Self::release_unheld_log`] removes them.
    pub(crate) fn remove_orphans(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let needed = manifest.files();
        for name in self.disk.list(&self.paths.segments())? {
            if data_file(&name).is_some_and(|file| !needed.contains(&file)) {
                self.disk.remove("segment", &self.paths.segments().join(name))?;
            }
        }
        for name in self.disk.list(&self.paths.wal())? {
            if number(&name, "tmp").is_some() {
                self.disk.remove("wal", &self.paths.wal().join(name))?;
            }
        }
        manifest::remove_older(&self.disk, &self.paths, manifest.number)
    }

    /// Blobs of indexes that were dropped, on segments that stay.
    fn detach_dropped(&self, new: &Manifest) {
        let registry = self.registry.lock();
        for segment in new.tables.iter().flat_map(|table| &table.segments) {
            let Some(chunk) = registry.get(&segment.file).and_then(std::sync::Weak::upgrade) else {
                continue;
            };
            if let Some(sealed) = chunk.as_sealed() {
                let kept = |index| segment.indexes.iter().any(|entry| entry.index == index);
                sealed.detach(kept).iter().for_each(|blob| blob.discard(&self.disk));
            }
        }
    }

    /// Removes a segment with its index blobs, now or when its last reader goes.
    fn retire(&self, entry: &SegmentEntry) -> Result<(), StoreError> {
        let held = self.registry.lock().remove(&entry.file).and_then(|chunk| chunk.upgrade());
        if let Some(sealed) = held.as_deref().and_then(Chunk::as_sealed) {
            sealed.retire();
            return Ok(());
        }
        self.disk.remove("segment", &self.paths.data(DataKind::Segment, entry.file))?;
        entry.indexes.iter().try_for_each(|index| {
            self.disk.remove("blob", &self.paths.data(DataKind::Index, index.blob.file))
        })
    }
}
