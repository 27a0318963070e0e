//! Merging and rewriting segments: one bounded merge at a time, beside flushes, commits and readers.
//!
//! `database` calls [`TenantStore::compact`] in the background, and [`TenantStore::merge`] for VACUUM.
//!
//! 1. Under the maintenance lock, for a moment: the inputs, with what is deleted of them *by the newest manifest*.
//!    What was deleted since is in the log after it: whoever replays that must find those rows.
//! 2. With no lock that a flush, a commit or a reader needs: write the new segment and its indexes, at the pace
//!    given, and decode of it what is decoded of the inputs, so that the first query after the exchange does not pay
//!    for that. A flush leaves the inputs alone meanwhile.
//! 3. Under the maintenance lock again: the inputs have to be in the newest manifest still, else everything is thrown
//!    away. What flushes wrote of deletions since 1 becomes the new segment's deletion vector. Commit the manifest.
//! 4. Under the writer's lock: exchange the chunks in the head, with what was deleted since that manifest.
//! 5. Collect what nothing needs any more.
//!
//! A crash before the manifest leaves files that nothing names, which the next opening removes.

mod room;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::MutexGuard;
use sepal_types::{FileId, RowId, TableDef, TableId};

use super::{
    BlobBuilder, Freely, Maintenance, Pace,
    damaged::is_of_deletions,
    pace::Phase,
    plan::{self, Size},
    produce::{Making, Produced, new_entry},
    swap::deleted_since,
};
use crate::{
    ChunkRef, Snapshot, StoreError, StoreStats, TenantStore,
    chunk::{Chunk, default_bytes},
    disk::PublishError,
    manifest::{Manifest, SegmentEntry},
    paths::DataKind,
    store::Poison,
};

/// How long at most until somebody who waits for another's compaction looks whether to stop.
const NAP: Duration = Duration::from_millis(50);

/// What a compaction may take, and how fast.
#[derive(Clone, Copy)]
pub struct CompactionLimits<'a> {
    /// Of rows, uncompressed, that the new segment may hold. More than a segment may hold at all is not believed.
    pub max_bytes: u64,
    pub pace: &'a dyn Pace,
}

impl Default for CompactionLimits<'_> {
    fn default() -> Self {
        Self { max_bytes: u64::MAX, pace: &Freely }
    }
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionReport {
    pub table: TableId,
    /// The manifest's number.
    pub manifest: u64,
    pub segments_read: usize,
    /// 0 when no row of the inputs was live.
    pub segments_written: usize,
    pub rows_read: u64,
    /// Deleted ones that were left behind.
    pub rows_removed: u64,
    pub rows_written: u64,
    /// Of the files that were read, without their indexes.
    pub bytes_read: u64,
    /// Of all files that were written.
    pub bytes_written: u64,
    /// Of the rows that were written, uncompressed.
    pub rows_bytes_written: u64,
    pub indexes_built: usize,
    /// Files that are gone already. History and readers keep others.
    pub segments_removed: usize,
}

/// Which segments [`TenantStore::segments_to_merge`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Those that have deleted rows.
    Deleted,
    /// All: dropped columns go, too.
    All,
}

/// The files of the compaction that is at work, or of the copy of a segment under another key.
#[derive(Default)]
pub(crate) struct Underway {
    /// Segments that it reads: a flush leaves them alone.
    pub inputs: HashSet<FileId>,
    /// What it writes. Nothing names it yet, and nobody removes it.
    pub outputs: HashSet<(DataKind, FileId)>,
}

/// Bytes of rows, uncompressed, since the store was opened.
#[derive(Default)]
pub(crate) struct Written {
    ingested: AtomicU64,
    flushed: AtomicU64,
    compacted: AtomicU64,
}

impl Written {
    pub(super) fn flush(&self, ingested: u64, written: u64) {
        self.ingested.fetch_add(ingested, Ordering::Relaxed);
        self.flushed.fetch_add(written, Ordering::Relaxed);
    }

    fn compaction(&self, written: u64) {
        self.compacted.fetch_add(written, Ordering::Relaxed);
    }

    pub(crate) fn add_to(&self, stats: &mut StoreStats) {
        stats.ingested_bytes = self.ingested.load(Ordering::Relaxed);
        stats.flushed_bytes = self.flushed.load(Ordering::Relaxed);
        stats.compacted_bytes = self.compacted.load(Ordering::Relaxed);
    }
}

/// A merge that was decided on.
struct Job {
    table: TableId,
    /// As the newest manifest has it, and so the rows.
    def: Arc<TableDef>,
    /// In row-id order, with what is deleted by the newest manifest.
    inputs: Vec<ChunkRef>,
}

impl Job {
    fn files(&self) -> impl Iterator<Item = FileId> {
        self.inputs.iter().filter_map(|input| input.chunk.segment())
    }

    fn sum(&self, of: impl Fn(&ChunkRef) -> u64) -> u64 {
        self.inputs.iter().map(of).sum()
    }
}

/// Takes the files off [`Underway`] again.
pub(crate) struct Claim<'a>(&'a TenantStore);

impl<'a> Claim<'a> {
    /// Flushes leave the segment alone from here on. The locks of compactions and of maintenance are held.
    pub(crate) fn on(store: &'a TenantStore, segment: Option<FileId>) -> Self {
        store.underway.lock().inputs = segment.into_iter().collect();
        Self(store)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        *self.0.underway.lock() = Underway::default();
    }
}

/// The caller's pace, and the end of the store.
pub(crate) struct Watched<'a> {
    pub pace: &'a dyn Pace,
    pub poison: &'a Poison,
}

impl Pace for Watched<'_> {
    fn begin(&self, table: TableId, bytes: u64) {
        self.pace.begin(table, bytes);
    }

    fn phase(&self, phase: Phase) {
        self.pace.phase(phase);
    }

    fn spend(&self, bytes: u64) {
        self.pace.spend(bytes);
    }

    fn is_stopped(&self) -> bool {
        self.pace.is_stopped() || self.poison.check().is_err()
    }
}

impl TenantStore {
    /// Whether [`Self::compact`] would find something. Looks at sizes only.
    pub fn wants_compaction(&self) -> bool {
        self.has_merge(u64::MAX)
    }

    /// Whether there is a merge that pays, of so many bytes at most.
    fn has_merge(&self, max_bytes: u64) -> bool {
        let damaged = self.unmergeable();
        self.snapshot().tables().any(|table| {
            let sound =
                |chunk: &&ChunkRef| chunk.chunk.segment().is_some_and(|file| !damaged.contains(&file));
            let sound = table.chunks.iter().filter(sound);
            let size =
                |held: &ChunkRef| Size::of(held, self.segment_bytes).completed(&table.def, &held.chunk);
            let sizes: Vec<Size> = sound.map(size).collect();
            !plan::compaction(&sizes, max_bytes).is_empty()
        })
    }

    /// Does the one merge that pays most, if any does. What makes it pay may be in the log only: then a flush is made
    /// before. Waits for a compaction that is under way.
    ///
    /// `None`: nothing pays, what was chosen was changed meanwhile, or the device lacks room ([`Pace::held_back`]).
    /// Errors: [`StoreError::Stopped`].
    pub fn compact(
        &self,
        builder: &dyn BlobBuilder,
        limits: CompactionLimits<'_>,
    ) -> Result<Option<CompactionReport>, StoreError> {
        let _one = self.lock_compaction(limits.pace)?;
        let most = limits.max_bytes.min(self.room_for_merge());
        let mut chosen = self.despite_deletions(builder, || self.choose(most))?;
        // Not for a merge that this caller does not want: each would be another manifest, and another log file.
        if chosen.is_none() && self.has_merge(most) {
            self.checkpoint(builder)?;
            chosen = self.choose(most)?;
        }
        if chosen.is_none() && !self.has_merge(most) && self.has_merge(limits.max_bytes) {
            limits.pace.held_back();
        }
        match chosen {
            Some(job) => self.run(&job, builder, limits.pace),
            None => Ok(None),
        }
    }

    /// The table's segments as the newest manifest has them, in groups that [`Self::merge`] makes one of each. A
    /// flush before makes it all of the table.
    pub fn segments_to_merge(&self, table: TableId, which: Rewrite) -> Vec<Vec<FileId>> {
        let maintenance = self.maintenance.lock();
        let Some(entry) = maintenance.manifest.tables.iter().find(|entry| entry.def.id == table) else {
            return Vec::new();
        };
        let wanted = |entry: &&SegmentEntry| which == Rewrite::All || entry.deleted.is_some();
        let wanted: Vec<&SegmentEntry> = entry.segments.iter().filter(wanted).collect();
        let head = self.snapshot();
        let sizes: Vec<Size> = wanted.iter().map(|segment| self.size(&head, &entry.def, segment)).collect();
        let packs = plan::packs(&sizes);
        packs.into_iter().map(|pack| pack.into_iter().map(|at| wanted[at].file).collect()).collect()
    }

    /// Makes one segment of these, whether it pays or not. Those that are gone are left out: somebody else has
    /// rewritten them. Waits for a compaction that is under way.
    ///
    /// `None`: none is left, or they were changed meanwhile. Errors: [`StoreError::Stopped`].
    pub fn merge(
        &self,
        table: TableId,
        files: &[FileId],
        builder: &dyn BlobBuilder,
        pace: &dyn Pace,
    ) -> Result<Option<CompactionReport>, StoreError> {
        let _one = self.lock_compaction(pace)?;
        let job = self.despite_deletions(builder, || {
            let maintenance = self.maintenance.lock();
            self.poison.check()?;
            self.claim(&maintenance.manifest, table, |entry| files.contains(&entry.file))
        })?;
        match job {
            Some(job) => self.run(&job, builder, pace),
            None => Ok(None),
        }
    }

    /// Returns once no compaction of the table is under way that began before: what it writes is in the manifest.
    ///
    /// Errors: as [`Self::merge`].
    pub fn await_compaction(&self, table: TableId, pace: &dyn Pace) -> Result<(), StoreError> {
        let is_underway = {
            let maintenance = self.maintenance.lock();
            let underway = self.underway.lock();
            let entry = maintenance.manifest.tables.iter().find(|entry| entry.def.id == table);
            let mut segments = entry.into_iter().flat_map(|entry| &entry.segments);
            segments.any(|segment| underway.inputs.contains(&segment.file))
        };
        if is_underway {
            drop(self.lock_compaction(pace)?);
        }
        Ok(())
    }

    /// A deletion vector is read again where the log deletes more of its segment. If the file is damaged, a flush
    /// writes another: what is deleted is in memory, and more than the file says.
    fn despite_deletions(
        &self,
        builder: &dyn BlobBuilder,
        job: impl Fn() -> Result<Option<Job>, StoreError>,
    ) -> Result<Option<Job>, StoreError> {
        match job() {
            Err(error) if is_of_deletions(&error) => {
                tracing::error!(tenant = %self.tenant, %error, "a deletion vector does not open and is written again");
                self.checkpoint(builder)?;
                job()
            }
            done => done,
        }
    }

    /// Waits for the compaction that is under way, which may itself be waiting for what other tenants have.
    ///
    /// Errors: [`StoreError::Stopped`], and the store's own end.
    pub(crate) fn lock_compaction(&self, pace: &dyn Pace) -> Result<MutexGuard<'_, ()>, StoreError> {
        loop {
            if let Some(one) = self.compaction.try_lock_for(NAP) {
                return Ok(one);
            }
            self.poison.check()?;
            if pace.is_stopped() {
                return Err(StoreError::Stopped);
            }
        }
    }

    /// The first table that wants it.
    fn choose(&self, max_bytes: u64) -> Result<Option<Job>, StoreError> {
        let maintenance = self.maintenance.lock();
        self.poison.check()?;
        let (damaged, head) = (self.unmergeable(), self.snapshot());
        for table in &maintenance.manifest.tables {
            let sound = table.segments.iter().filter(|entry| !damaged.contains(&entry.file));
            let sound: Vec<&SegmentEntry> = sound.collect();
            let sizes: Vec<Size> = sound.iter().map(|entry| self.size(&head, &table.def, entry)).collect();
            let chosen = plan::compaction(&sizes, max_bytes);
            let files: HashSet<FileId> = chosen.iter().map(|at| sound[*at].file).collect();
            if files.is_empty() {
                continue;
            }
            let job = self.claim(&maintenance.manifest, table.def.id, |entry| files.contains(&entry.file))?;
            if job.is_some() {
                return Ok(job);
            }
        }
        Ok(None)
    }

    /// A segment as a manifest knows it.
    fn size(&self, head: &Snapshot, def: &TableDef, entry: &SegmentEntry) -> Size {
        let deleted = entry.deleted.as_ref().map_or(0, |deleted| deleted.rows);
        let (bytes, variable) = (entry.plain_bytes, entry.variable_bytes());
        let size = Size::new(entry.rows, deleted, bytes, variable, self.segment_bytes);
        let version = head.table(def.id).filter(|_| default_bytes(&def.columns) > 0);
        let mut held = version.into_iter().flat_map(|version| &version.chunks);
        let held = held.find(|held| held.chunk.segment() == Some(entry.file));
        held.map_or(size, |held| size.completed(def, &held.chunk))
    }

    /// Takes the wanted segments of a table, those that the head still has. The maintenance lock is held.
    fn claim(
        &self,
        manifest: &Manifest,
        table: TableId,
        wanted: impl Fn(&SegmentEntry) -> bool,
    ) -> Result<Option<Job>, StoreError> {
        let head = self.snapshot();
        let entry = manifest.tables.iter().find(|entry| entry.def.id == table);
        let (Some(entry), Some(version)) = (entry, head.table(table)) else { return Ok(None) };
        let mut inputs = Vec::new();
        for segment in entry.segments.iter().filter(|entry| wanted(entry)) {
            let held = version.chunks.iter().find(|held| held.chunk.segment() == Some(segment.file));
            // Truncated since.
            let Some(held) = held else { continue };
            inputs.push(self.as_in_manifest(table, segment, held)?);
        }
        if inputs.is_empty() {
            return Ok(None);
        }
        inputs.sort_by_key(|input| input.chunk.first_row());
        let job = Job { table, def: Arc::new(entry.def.clone()), inputs };
        self.underway.lock().inputs = job.files().collect();
        Ok(Some(job))
    }

    /// A chunk of the head with the deletions that a manifest knows.
    fn as_in_manifest(
        &self,
        table: TableId,
        entry: &SegmentEntry,
        held: &ChunkRef,
    ) -> Result<ChunkRef, StoreError> {
        let known = entry.deleted.as_ref().map_or(0, |deleted| deleted.rows);
        // Vectors only grow.
        if held.deleted.len() == known {
            return Ok(held.clone());
        }
        let deleted = Arc::new(self.opener(&self.keys()).deleted(table, entry)?.into());
        Ok(ChunkRef { chunk: Arc::clone(&held.chunk), deleted })
    }

    /// Steps 2 to 5. The compaction lock is held.
    fn run(
        &self,
        job: &Job,
        builder: &dyn BlobBuilder,
        pace: &dyn Pace,
    ) -> Result<Option<CompactionReport>, StoreError> {
        let _claim = Claim(self);
        let announce = |kind, file| {
            self.underway.lock().outputs.insert((kind, file));
        };
        let pace = Watched { pace, poison: &self.poison };
        let making = Making { builder, pace: &pace, announce: &announce };
        let mut produced = Produced::default();
        let made = self.make(job, &making, &mut produced).and_then(|chunk| {
            pace.phase(Phase::Committing);
            let maintenance = self.maintenance.lock();
            let next = self.replaced(&maintenance, job, chunk.as_ref(), &making, &mut produced)?;
            Ok(next.map(|next| (chunk, maintenance, next)))
        });
        let (chunk, mut maintenance, next) = match made {
            Ok(Some(made)) => made,
            nothing => {
                produced.discard(&self.disk, &self.paths);
                // Where it is deletions, the next try does not read them.
                if let Err(error @ StoreError::Corrupt { .. }) = &nothing
                    && !is_of_deletions(error)
                {
                    self.leave_alone(job.files(), error);
                }
                return self.poison.explain(nothing.map(|_| None));
            }
        };
        match self.commit_manifest(&mut maintenance, next) {
            Ok(()) => {}
            Err(PublishError::Before(error)) => {
                produced.discard(&self.disk, &self.paths);
                return Err(error);
            }
            Err(PublishError::Unknown(error)) => return Err(error),
        }
        // The manifest is ahead of the head until this is done: a store that cannot must not go on.
        self.exchange(job, chunk.as_ref()).inspect_err(|error| self.poison.set(error.to_string()))?;
        let collected = self.collect(&maintenance, None)?;
        let done = report(job, &produced, maintenance.manifest.number, collected.segments);
        self.written.compaction(done.rows_bytes_written);
        tracing::debug!(tenant = %self.tenant, ?done, "compaction");
        Ok(Some(done))
    }

    /// The new segment with its indexes, ready to be read; `None` when no row of the inputs is live.
    fn make(
        &self,
        job: &Job,
        making: &Making<'_>,
        produced: &mut Produced,
    ) -> Result<Option<Arc<Chunk>>, StoreError> {
        making.pace.begin(job.table, job.sum(|input| input.chunk.plain_bytes()));
        if making.pace.is_stopped() {
            return Err(StoreError::Stopped);
        }
        let chunk = self.write_segment(&job.def, &job.inputs, making, produced)?;
        if let Some(chunk) = &chunk {
            // An index may have become usable since the manifest.
            let head = self.snapshot();
            let def = head.table(job.table).map_or(&job.def, |version| &version.def);
            self.build_indexes(def, chunk, &job.inputs, making, produced)?;
            if making.pace.is_stopped() {
                return Err(StoreError::Stopped);
            }
            for column in &job.def.columns {
                if job.inputs.iter().any(|input| input.chunk.is_decoded(column.id)) {
                    chunk.column(column)?;
                }
            }
            let inputs: Vec<&Chunk> = job.inputs.iter().map(|input| &*input.chunk).collect();
            making.builder.ready(def, chunk, &inputs);
        }
        self.sync_segments()?;
        Ok(chunk)
    }

    /// The next manifest, with the new segment in the place of its inputs; `None` when they are not all there any
    /// more.
    fn replaced(
        &self,
        maintenance: &Maintenance,
        job: &Job,
        chunk: Option<&Arc<Chunk>>,
        making: &Making<'_>,
        produced: &mut Produced,
    ) -> Result<Option<Manifest>, StoreError> {
        self.poison.check()?;
        let head = self.snapshot();
        let mut next = maintenance.successor();
        let table = next.tables.iter_mut().find(|entry| entry.def.id == job.table);
        let (Some(table), Some(version)) = (table, head.table(job.table)) else { return Ok(None) };
        let mut later = Vec::with_capacity(job.inputs.len());
        for input in &job.inputs {
            let entry = table.segments.iter().find(|entry| Some(entry.file) == input.chunk.segment());
            let Some(entry) = entry else { return Ok(None) };
            later.push(self.as_in_manifest(job.table, entry, input)?);
        }
        let files: HashSet<FileId> = job.files().collect();
        table.segments.retain(|entry| !files.contains(&entry.file));
        if let Some(chunk) = chunk
            && let Some(sealed) = chunk.as_sealed()
        {
            let mut entry = new_entry(sealed);
            // The tenant's key may have been replaced since it was written.
            sealed.rewrap(&mut entry, &self.keys());
            entry.indexes.retain(|entry| version.def.indexes.iter().any(|index| index.id == entry.index));
            let deleted = deleted_since(&later, &job.inputs, chunk)?;
            if !deleted.is_empty() {
                entry.deleted = Some(self.write_deleted(sealed, &deleted, making.announce, produced)?);
                self.sync_segments()?;
            }
            table.segments.push(entry);
            table.segments.sort_by_key(|entry| entry.first_row);
        }
        Ok(Some(next))
    }

    /// Puts the new segment into the head, with what was deleted since the manifest that its rows are from.
    fn exchange(&self, job: &Job, chunk: Option<&Arc<Chunk>>) -> Result<(), StoreError> {
        let _writer = self.writer.lock();
        let head = self.snapshot();
        let mut state = head.state().clone();
        let Some(version) = state.tables.get_mut(&job.table) else { return Ok(()) };
        let is_input =
            |held: &ChunkRef| job.inputs.iter().any(|input| Arc::ptr_eq(&input.chunk, &held.chunk));
        let (inputs, mut chunks): (Vec<_>, Vec<_>) = version.chunks.iter().cloned().partition(is_input);
        // A TRUNCATE leaves none of them: the segment goes with the next flush.
        if let Some(chunk) = chunk
            && !inputs.is_empty()
        {
            let deleted = Arc::new(deleted_since(&inputs, &job.inputs, chunk)?.into());
            chunks.push(ChunkRef { chunk: Arc::clone(chunk), deleted });
        }
        // Segments first, by their rows; what is in memory stays in its order.
        chunks.sort_by_key(|held| {
            held.chunk.segment().map_or((true, RowId(0)), |_| (false, held.chunk.first_row()))
        });
        Arc::make_mut(version).chunks = chunks;
        self.set_head(Snapshot::new(state));
        Ok(())
    }
}

fn report(job: &Job, produced: &Produced, manifest: u64, segments_removed: usize) -> CompactionReport {
    let written = produced.report();
    let rows_read = job.sum(|input| u64::from(input.chunk.rows()));
    CompactionReport {
        table: job.table,
        manifest,
        segments_read: job.inputs.len(),
        segments_written: written.segments_written,
        rows_read,
        rows_removed: rows_read - written.rows_written,
        rows_written: written.rows_written,
        bytes_read: job.sum(|input| input.chunk.bytes()),
        bytes_written: written.bytes_written,
        rows_bytes_written: written.rows_bytes_written,
        indexes_built: written.indexes_built,
        segments_removed,
    }
}

#[cfg(test)]
mod tests;
