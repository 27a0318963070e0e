//! From log to segments: flush, compaction, manifest, trimming.
//!
//! `database` calls [`TenantStore::checkpoint`], which is the flush, in the background when
//! [`TenantStore::wants_checkpoint`] says so, and [`TenantStore::attach_index`] when it has built an index for a
//! segment. One of them runs at a time; commits and readers go on meanwhile. Large segments are merged beside them
//! (`compact`): a flush does not wait for that. `plan` says what is rewritten when, and what that costs.
//!
//! A flush:
//! 1. `freeze`: under the writer's lock, start a new log file and take the head. Its memory chunks are never
//!    merged with later ones.
//! 2. `plan`: what each table rewrites.
//! 3. `produce`: write segments, build index blobs, write deletion vectors, sync the directory.
//! 4. Commit the manifest: the frozen head, and the new log file as the first to replay.
//! 5. `swap`: put the segments into the head, with what was deleted since the freeze.
//! 6. `gc`: remove manifests that are no history any more, then the files that no manifest and no clone names, then log
//!    files that nobody holds or may replay.
//!
//! Until step 4 a failure leaves everything as it was. A manifest whose fate is unknown stops the store.

mod compact;
mod damaged;
mod freeze;
mod gc;
mod merged;
mod pace;
mod plan;
mod produce;
mod swap;

use std::sync::Arc;

use sepal_types::{FileId, IndexDef, Lsn, TableDef, TableId};

use crate::{
    Chunk, StoreError, TenantStore,
    blob::{Blob, BlobBytes, Owner},
    disk::PublishError,
    manifest::{self, IndexEntry, Manifest, NamedFile},
    paths::DataKind,
    planted::{self, Bug},
};

pub(crate) use compact::{Claim, Underway, Watched, Written};
pub use compact::{CompactionLimits, CompactionReport, Rewrite};
pub use merged::MergeInput;
pub use pace::{Freely, Pace, Phase};

/// Builds a vector index over a new segment's column. Storage keeps the bytes without knowing what they are.
pub trait BlobBuilder: Send + Sync {
    /// `segment`: the new one. Its vector column is not decoded unless somebody asks for it: a builder that waits first
    /// holds no rows meanwhile.
    /// `None` leaves the segment without this index: it is searched exactly, until
    /// [`TenantStore::attach_index`] brings the index.
    /// `inputs`: segments with this index whose rows the new one has.
    ///
    /// # Errors
    /// Those of reading the segment: it takes nobody's place then.
    fn build(
        &self,
        def: &TableDef,
        index: &IndexDef,
        segment: &Chunk,
        inputs: &[MergeInput<'_>],
    ) -> Result<Option<Box<dyn BlobBytes>>, StoreError>;

    /// A segment is about to take the place of others: what is kept in memory of those is wanted of it. Nobody sees
    /// it yet.
    fn ready(&self, _def: &TableDef, _segment: &Chunk, _replaced: &[&Chunk]) {}
}

/// Builds nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBlobs;

impl BlobBuilder for NoBlobs {
    fn build(
        &self,
        _: &TableDef,
        _: &IndexDef,
        _: &Chunk,
        _: &[MergeInput<'_>],
    ) -> Result<Option<Box<dyn BlobBytes>>, StoreError> {
        Ok(None)
    }
}

/// What a checkpoint did. All zero when there was nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointReport {
    /// The manifest's number; 0 when none was written.
    pub manifest: u64,
    pub segments_written: usize,
    pub segments_removed: usize,
    pub rows_written: u64,
    pub bytes_written: u64,
    /// Of rows, uncompressed: those that left memory, and all that were written.
    pub ingested_bytes: u64,
    pub rows_bytes_written: u64,
    pub indexes_built: usize,
    pub wal_files_removed: usize,
}

/// The newest manifest as it is on disk. Guarded by the maintenance lock.
pub(crate) struct Maintenance {
    pub manifest: Manifest,
    /// SHA-256 of its file, in hex.
    pub hash: String,
}

impl Maintenance {
    /// The next manifest, if nothing else changes.
    pub(crate) fn successor(&self) -> Manifest {
        let number = self.manifest.number + 1;
        let (previous, committed) = (self.hash.clone(), String::new());
        Manifest { number, previous, committed, ..self.manifest.clone() }
    }
}

impl TenantStore {
    /// Flushes: writes what only the log holds into segments, with those that are cheap to merge or rewrite, and
    /// trims history and log.
    pub fn checkpoint(&self, builder: &dyn BlobBuilder) -> Result<CheckpointReport, StoreError> {
        let mut maintenance = self.maintenance.lock();
        self.poison.check()?;
        self.checkpoint_locked(&mut maintenance, builder)
    }

    pub(crate) fn checkpoint_locked(
        &self,
        maintenance: &mut Maintenance,
        builder: &dyn BlobBuilder,
    ) -> Result<CheckpointReport, StoreError> {
        let Some(frozen) = self.freeze(maintenance)? else {
            // Somebody may have let go of the log since, or time has passed.
            let collected = self.collect(maintenance, None)?;
            return Ok(CheckpointReport {
                segments_removed: collected.segments,
                wal_files_removed: collected.wal_files,
                ..CheckpointReport::default()
            });
        };
        let produced = self.produce(&maintenance.manifest, &frozen, builder)?;
        let next = Manifest {
            lsn: frozen.snapshot.lsn(),
            wal_from: frozen.wal_from,
            next_object: frozen.counters.next_object,
            tables: produced.entries(&frozen),
            sequences: frozen.counters.sequences.clone(),
            time_us: frozen.snapshot.time_us(),
            cloned: self.cloned_until(&maintenance.manifest, frozen.snapshot.lsn()),
            ..maintenance.successor()
        };
        let mut report = produced.report();
        report.manifest = next.number;
        let segments = produced.tables.values().flat_map(|table| &table.segments);
        let again =
            segments.flat_map(|segment| &segment.inputs).filter(|input| input.chunk.segment().is_some());
        let again: u64 = again.map(|input| plan::Size::of(input, self.segment_bytes).live_bytes()).sum();
        report.ingested_bytes = report.rows_bytes_written.saturating_sub(again);
        if planted::is(Bug::EarlyGc) {
            self.sweep_as_if(&next)?;
        }
        match self.commit_manifest(maintenance, next) {
            Ok(()) => {}
            Err(PublishError::Before(error)) => {
                produced.discard(&self.disk, &self.paths);
                return Err(error);
            }
            Err(PublishError::Unknown(error)) => return Err(error),
        }
        self.written.flush(report.ingested_bytes, report.rows_bytes_written);
        self.cloned.lock().retain(|(lsn, _)| *lsn > frozen.snapshot.lsn());
        // The manifest is ahead of the head until the swap is done: a store that cannot swap must not go on.
        self.swap(&frozen, &produced).inspect_err(|error| self.poison.set(error.to_string()))?;
        // Before what nobody needs is removed: where that fails, writers must not wait for what is flushed.
        self.log.begins_at(frozen.wal_from);
        let collected = self.collect(maintenance, None)?;
        (report.segments_removed, report.wal_files_removed) = (collected.segments, collected.wal_files);
        tracing::debug!(tenant = %self.tenant, ?report, "checkpoint");
        Ok(report)
    }

    /// Seals an index's bytes for a segment and commits them. `false`, and nothing kept, when the table, segment
    /// or index is gone (a checkpoint may have merged the segment away): look at the new head and build again.
    pub fn attach_index(
        &self,
        table: TableId,
        segment: FileId,
        index: TableId,
        blob: &dyn BlobBytes,
    ) -> Result<bool, StoreError> {
        let mut maintenance = self.maintenance.lock();
        self.poison.check()?;
        let head = self.snapshot();
        let Some(version) = head.table(table) else { return Ok(false) };
        let known = version.def.indexes.iter().any(|def| def.id == index);
        let found = version.chunks.iter().find(|chunk| chunk.chunk.segment() == Some(segment));
        let (true, Some(chunk)) = (known && maintenance.manifest.segment(table, segment).is_some(), found)
        else {
            return Ok(false);
        };
        let chunk = Arc::clone(&chunk.chunk);
        let Some(sealed) = chunk.as_sealed() else { return Ok(false) };
        let owner = Owner { tenant: self.tenant, table: sealed.sealed_for(), segment };
        let blob = Blob::write(&self.disk, &self.paths, &self.keys(), owner, DataKind::Index, blob)?;
        let mut next = maintenance.successor();
        if let Some(entry) = next.segment_mut(table, segment) {
            entry.indexes.retain(|entry| entry.index != index);
            entry.indexes.push(IndexEntry { index, blob: blob.entry().clone() });
        }
        let committed = self
            .sync_segments()
            .map_err(PublishError::Before)
            .and_then(|()| self.commit_manifest(&mut maintenance, next));
        match committed {
            Ok(()) => {}
            Err(PublishError::Before(error)) => {
                blob.discard(&self.disk);
                return Err(error);
            }
            Err(PublishError::Unknown(error)) => return Err(error),
        }
        if sealed.attach(index, blob).is_some() {
            self.collect(&maintenance, None)?;
        } else {
            // Nothing but the manifest before has become superfluous.
            self.trim_versions(maintenance.manifest.wal_from, None)?;
        }
        Ok(true)
    }

    /// Makes the names of new data files durable. Never retried: a directory that failed to sync once may have
    /// lost names for good.
    pub(crate) fn sync_segments(&self) -> Result<(), StoreError> {
        let directory = self.disk.open_directory("segment", &self.paths.segments())?;
        let synced = self.disk.sync_directory("segment", &directory);
        synced.map_err(|error| self.poison.stop(error))
    }

    /// What clones name in the log after the last manifest of an earlier commit, up to `lsn`.
    fn cloned_until(&self, manifest: &Manifest, lsn: Lsn) -> Vec<NamedFile> {
        let mut files = if lsn == manifest.lsn { manifest.cloned.clone() } else { Vec::new() };
        let cloned = self.cloned.lock();
        let until = cloned.iter().filter(|(at, _)| *at <= lsn);
        files.extend(until.flat_map(|(_, named)| manifest::named(named)));
        files
    }

    /// Makes `next` the newest manifest, with every key in it under the tenant's present one. Stops the store when its
    /// fate is unknown. A store that was closed or stopped meanwhile keeps the manifest it has.
    pub(crate) fn commit_manifest(
        &self,
        maintenance: &mut Maintenance,
        mut next: Manifest,
    ) -> Result<(), PublishError> {
        self.poison.check().map_err(PublishError::Before)?;
        let keys = self.keys();
        next.rewrap(self.tenant, &keys).map_err(PublishError::Before)?;
        match manifest::commit(&self.disk, &self.paths, self.tenant, &keys, &next) {
            Ok(hash) => {
                self.history.push(&next);
                self.rotation.note(&next);
                *maintenance = Maintenance { manifest: next, hash };
                Ok(())
            }
            Err(PublishError::Unknown(error)) => Err(PublishError::Unknown(self.poison.stop(error))),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
