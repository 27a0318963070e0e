//! The files' keys: every segment copied under a fresh one, with its indexes and deletion vectors.
//!
//! The manifest lists the files that were there when it began ([`Rekey`]); it is over when none of them is left, and no
//! log file from before. So a crash costs at most the copy of one segment, whoever removes a file helps, and a clone of
//! what is not copied yet is copied as well.
//!
//! A step copies one segment, with no lock that commits, readers or flushes need. A flush leaves the segment alone
//! meanwhile; a compaction waits. Then, under the maintenance lock, it puts the copy wherever the segment is named: in
//! the next manifest, in the head, in named snapshots' manifests. Positions stay the same, so deletions that are
//! committed meanwhile need no translation, and no index is built anew.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sepal_types::FileId;

use crate::{
    BlobBuilder, Chunk, HistoryPolicy, Pace, Snapshot, StoreError, TenantStore,
    blob::{Blob, Owner},
    checkpoint::{Claim, Maintenance, Phase, Watched},
    chunk::SealedChunk,
    manifest::{self, BlobEntry, FileSizes, Manifest, Rekey},
    paths::{DataKind, data_file, number},
    planted::{self, Bug},
};

/// How far the replacement of file keys is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileRotation {
    /// How often it was begun.
    pub generation: u64,
    pub running: bool,
    /// Files under `segments/` that were there when it began, and of these the ones that still are; 0 when none is under
    /// way.
    pub files: usize,
    pub files_left: usize,
    pub bytes: u64,
    pub bytes_left: u64,
    /// Log files from before.
    pub log_files_left: usize,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RekeyStep {
    /// 0: nothing is left to be copied now.
    pub bytes_written: u64,
    pub rotation: FileRotation,
}

/// A segment's copy. Nothing names it until it is committed.
struct Copied {
    chunk: Arc<Chunk>,
    owner: Owner,
    /// By the file that each was copied from.
    blobs: HashMap<FileId, Blob>,
    bytes: u64,
}

impl FileRotation {
    const fn is_done(&self) -> bool {
        self.files_left == 0 && self.log_files_left == 0
    }
}

impl TenantStore {
    /// How far it is. Waits for nobody.
    pub fn file_rotation(&self) -> Result<FileRotation, StoreError> {
        let known = self.rotation.known.lock().clone();
        let generation = known.generation;
        let Some(rekey) = known.rekey else {
            return Ok(FileRotation { generation, ..FileRotation::default() });
        };
        let names = self.disk.list(&self.paths.segments())?;
        let there: HashSet<(DataKind, FileId)> = names.iter().filter_map(|name| data_file(name)).collect();
        let left = || rekey.files.iter().filter(|named| there.contains(&(named.kind, named.file)));
        let logs = self.disk.list(&self.paths.wal())?;
        let log_files_left = logs
            .iter()
            .filter(|name| number(name, "wal").is_some_and(|number| number < rekey.wal_from))
            .count();
        Ok(FileRotation {
            generation,
            running: true,
            files: rekey.files.len(),
            files_left: left().count(),
            bytes: rekey.files.iter().map(|named| named.bytes).sum(),
            bytes_left: left().map(|named| named.bytes).sum(),
            log_files_left,
        })
    }

    /// Begins to give every file that is there now another key; nothing where that is under way. Durable on return: from
    /// then on [`Self::rotate_file_keys`] has something to do, after a restart too. A new log file is begun, and history
    /// ends here, but for named snapshots. The builder is as in [`Self::checkpoint`].
    pub fn begin_file_rotation(&self, builder: &dyn BlobBuilder) -> Result<FileRotation, StoreError> {
        let mut maintenance = self.maintenance.lock();
        self.poison.check()?;
        if maintenance.manifest.rekey.is_none() {
            let wal_from = self.log_end().file + 1;
            let files = manifest::named(&self.data_files()?);
            let mut next = maintenance.successor();
            next.key_generation += 1;
            next.rekey = Some(Rekey { files, wal_from });
            self.commit_manifest(&mut maintenance, next)?;
            self.checkpoint_locked(&mut maintenance, builder)?;
            self.collect(&maintenance, Some(HistoryPolicy::NONE))?;
        }
        drop(maintenance);
        self.file_rotation()
    }

    /// Copies one segment, no faster than `pace` lets it, or ends the rotation when nothing is left. Nothing written,
    /// and still running: somebody needs what is left now, so try again later. Waits for a compaction that is under
    /// way.
    ///
    /// Errors: a segment that cannot be copied comes last; its error is given when nothing else is left.
    /// [`StoreError::Stopped`] when the pace says so.
    pub fn rotate_file_keys(
        &self,
        builder: &dyn BlobBuilder,
        pace: &dyn Pace,
    ) -> Result<RekeyStep, StoreError> {
        let _one = self.lock_compaction(pace)?;
        let chosen = {
            let mut maintenance = self.maintenance.lock();
            self.poison.check()?;
            let chunk = self.next_segment(&mut maintenance, builder)?;
            chunk.map(|chunk| (Claim::on(self, chunk.segment()), chunk))
        };
        let bytes_written = match chosen {
            None => 0,
            Some((claim, chunk)) => {
                let written = self.rekey_segment(claim, &chunk, builder, pace);
                written.inspect_err(|_| self.rotation.failed.lock().extend(chunk.segment()))?
            }
        };
        // The chunk is held no longer: the last reader removes the files.
        Ok(RekeyStep { bytes_written, rotation: self.file_rotation()? })
    }

    /// What is to be copied now. `None`: nothing can be, and if nothing is left, the rotation has ended.
    fn next_segment(
        &self,
        maintenance: &mut Maintenance,
        builder: &dyn BlobBuilder,
    ) -> Result<Option<Arc<Chunk>>, StoreError> {
        let Some(rekey) = maintenance.manifest.rekey.clone() else { return Ok(None) };
        if maintenance.manifest.wal_from < rekey.wal_from {
            self.checkpoint_locked(maintenance, builder)?;
        }
        let chosen = self.choose_segment(maintenance, &rekey)?;
        if chosen.is_none() {
            self.end_file_rotation(maintenance, &rekey, builder)?;
        }
        Ok(chosen)
    }

    /// Every file under `segments/`.
    fn data_files(&self) -> Result<FileSizes, StoreError> {
        let mut files = FileSizes::new();
        for name in self.disk.list(&self.paths.segments())? {
            let Some((kind, file)) = data_file(&name) else { continue };
            // One that is gone by now had a last reader.
            if let Ok(bytes) = self.disk.length(&self.paths.data(kind, file)) {
                files.insert((kind, file), bytes);
            }
        }
        Ok(files)
    }

    /// A segment that is left and that everybody who names it can be told of.
    fn choose_segment(
        &self,
        maintenance: &Maintenance,
        rekey: &Rekey,
    ) -> Result<Option<Arc<Chunk>>, StoreError> {
        let failed = self.rotation.failed.lock().clone();
        let segments = rekey.files.iter().filter(|named| named.kind == DataKind::Segment);
        let (last, first): (Vec<FileId>, Vec<FileId>) =
            segments.map(|named| named.file).partition(|file| failed.contains(file));
        let mut trouble = None;
        for file in first.into_iter().chain(last) {
            match self.pending(maintenance, file) {
                Ok(None) => {}
                Ok(Some(chunk)) => return Ok(Some(chunk)),
                Err(error) => trouble = Some(error),
            }
        }
        trouble.map_or(Ok(None), Err)
    }

    /// The segment's chunk, if some version names it and none of those is in use.
    fn pending(&self, maintenance: &Maintenance, file: FileId) -> Result<Option<Arc<Chunk>>, StoreError> {
        let newest = self.history.naming(file).and_then(|numbers| numbers.last().copied());
        let Some(number) = newest else { return Ok(None) };
        let keys = self.keys();
        let older;
        let manifest = if number == maintenance.manifest.number {
            &maintenance.manifest
        } else {
            older = self.read_version(&keys, number)?;
            &older
        };
        let entry = manifest.tables.iter().find_map(|table| {
            let segment = table.segments.iter().find(|segment| segment.file == file);
            segment.map(|segment| (table.def.id, segment))
        });
        match entry {
            Some((table, entry)) => self.opener(&keys).chunk(table, entry).map(Some),
            None => Ok(None),
        }
    }

    fn rekey_segment(
        &self,
        claim: Claim<'_>,
        chunk: &Arc<Chunk>,
        builder: &dyn BlobBuilder,
        pace: &dyn Pace,
    ) -> Result<u64, StoreError> {
        let outcome = self.copy_and_commit(chunk, builder, &Watched { pace, poison: &self.poison });
        drop(claim);
        let maintenance = self.maintenance.lock();
        if self.poison.check().is_ok() {
            // The old files, or what came to nothing of the new ones.
            self.collect_later(&maintenance);
        }
        self.poison.explain(outcome)
    }

    fn copy_and_commit(
        &self,
        chunk: &Arc<Chunk>,
        builder: &dyn BlobBuilder,
        pace: &dyn Pace,
    ) -> Result<u64, StoreError> {
        let bug = || StoreError::Bug("a chunk in memory has no file key".to_owned());
        let old = chunk.as_sealed().ok_or_else(bug)?;
        pace.begin(old.sealed_for(), old.plain_bytes());
        let mut copied = self.copy_segment(old, pace)?;
        Self::attach_copies(old, &copied);
        self.warm(chunk, &copied.chunk, builder)?;
        pace.phase(Phase::Committing);
        if pace.is_stopped() {
            return Err(StoreError::Stopped);
        }
        let mut maintenance = self.maintenance.lock();
        let committed = self.commit_copy(&mut maintenance, chunk, old, &mut copied)?;
        Ok(if committed { copied.bytes } else { 0 })
    }

    /// Rows and indexes. Durable except for the names.
    fn copy_segment(&self, old: &SealedChunk, pace: &dyn Pace) -> Result<Copied, StoreError> {
        let file = self.disk.file_id();
        self.announce(DataKind::Segment, file);
        let sealed = old.resealed(&self.paths, &self.keys(), file, pace)?;
        let (owner, bytes) = (sealed.owner(), sealed.file_bytes());
        let chunk = Arc::new(Chunk::sealed(sealed));
        // Reading the ids back proves that the file opens before the one that it replaces goes.
        chunk.row_ids()?;
        let mut copied = Copied { chunk, owner, blobs: HashMap::new(), bytes };
        pace.phase(Phase::BuildingIndexes);
        for blob in old.index_blobs() {
            match self.copy_blob(&blob, &mut copied) {
                Ok(entry) => pace.spend(entry.bytes),
                Err(error @ StoreError::Corrupt { .. }) => old.give_up_index(blob.entry().file, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(copied)
    }

    /// Before a file is there: nobody removes it.
    fn announce(&self, kind: DataKind, file: FileId) {
        self.underway.lock().outputs.insert((kind, file));
    }

    /// What is in memory of the old segment is wanted of its copy: the first query after the exchange does not pay.
    fn warm(&self, old: &Chunk, new: &Chunk, builder: &dyn BlobBuilder) -> Result<(), StoreError> {
        let head = self.snapshot();
        for version in head.tables() {
            if version.chunks.iter().all(|held| held.chunk.segment() != old.segment()) {
                continue;
            }
            for column in version.def.columns.iter().filter(|column| old.is_decoded(column.id)) {
                new.column(column)?;
            }
            builder.ready(&version.def, new, &[old]);
        }
        Ok(())
    }

    /// The entry of a blob's copy, which is made unless it is there.
    fn copy_blob(&self, blob: &Blob, copied: &mut Copied) -> Result<BlobEntry, StoreError> {
        if let Some(done) = copied.blobs.get(&blob.entry().file) {
            return Ok(done.entry().clone());
        }
        self.poison.check()?;
        let (file, kind, owner) = (self.disk.file_id(), blob.kind(), copied.owner);
        self.announce(kind, file);
        let plain = blob.open(&self.disk)?;
        let new = Blob::write_as(file, &self.disk, &self.paths, &self.keys(), owner, kind, &plain)?;
        let entry = new.entry().clone();
        copied.bytes += entry.bytes;
        copied.blobs.insert(blob.entry().file, new);
        Ok(entry)
    }

    /// Puts the copy wherever the segment is named. `false`: nothing was changed, because a version is in use that names
    /// it, or none names it any more.
    fn commit_copy(
        &self,
        maintenance: &mut Maintenance,
        chunk: &Arc<Chunk>,
        old: &SealedChunk,
        copied: &mut Copied,
    ) -> Result<bool, StoreError> {
        self.poison.check()?;
        let Some(numbers) = self.history.naming(old.file()) else { return Ok(false) };
        let (keys, newest) = (self.keys(), maintenance.manifest.number);
        let mut next = maintenance.successor();
        let in_newest = self.put(old, copied, &mut next)?;
        let mut older = Vec::new();
        // The newest becomes an older one here; it stays if it has a name.
        for number in numbers.into_iter().filter(|number| *number != newest || self.history.is_named(newest))
        {
            let mut manifest = self.read_version(&keys, number)?;
            self.put(old, copied, &mut manifest)?;
            manifest.rewrap(self.tenant, &keys)?;
            older.push(manifest);
        }
        if !in_newest && older.is_empty() {
            return Ok(false);
        }
        if !planted::is(Bug::CopyNotSynced) {
            self.sync_segments()?;
        }
        self.show_copy(chunk, old, copied);
        if in_newest {
            self.commit_manifest(maintenance, next)?;
            self.exchange_chunk(chunk, &copied.chunk);
        }
        for manifest in &older {
            self.rewrite_version(&keys, manifest)?;
        }
        Ok(true)
    }

    /// Puts the copy in the place of the segment in a manifest. Gives whether it was there.
    fn put(
        &self,
        old: &SealedChunk,
        copied: &mut Copied,
        manifest: &mut Manifest,
    ) -> Result<bool, StoreError> {
        let (owner, keys) = (old.owner(), self.keys());
        let bug = || StoreError::Bug("a copy of a segment is in memory".to_owned());
        let entry = copied.chunk.as_sealed().ok_or_else(bug)?.entry().clone();
        let blob = |kind, entry: &BlobEntry| Blob::named(&self.disk, &self.paths, &keys, owner, kind, entry);
        let mut found = false;
        let segments = manifest.tables.iter_mut().flat_map(|table| &mut table.segments);
        for segment in segments.filter(|segment| segment.file == old.file()) {
            if let Some(deleted) = &mut segment.deleted {
                deleted.blob = self.copy_blob(&blob(DataKind::Deleted, &deleted.blob)?, copied)?;
            }
            for mut index in std::mem::take(&mut segment.indexes) {
                let copy = blob(DataKind::Index, &index.blob).and_then(|blob| self.copy_blob(&blob, copied));
                match copy {
                    Ok(entry) => {
                        index.blob = entry;
                        segment.indexes.push(index);
                    }
                    // The copy goes without it, and gets another one in time.
                    Err(error @ StoreError::Corrupt { .. }) => {
                        old.give_up_index(index.blob.file, &error);
                    }
                    Err(error) => return Err(error),
                }
            }
            segment.file = entry.file;
            segment.bytes = entry.bytes;
            segment.key.clone_from(&entry.key);
            found = true;
        }
        Ok(found)
    }

    /// From here on somebody may ask for the copy: it is one chunk, with what is in memory of the old one.
    fn show_copy(&self, chunk: &Chunk, old: &SealedChunk, copied: &Copied) {
        // Some may have been attached since it was made.
        Self::attach_copies(old, copied);
        copied.chunk.inherit_keys(chunk);
        self.register(&copied.chunk);
    }

    fn attach_copies(old: &SealedChunk, copied: &Copied) {
        let Some(sealed) = copied.chunk.as_sealed() else { return };
        for file in old.index_files() {
            if let Some(blob) = copied.blobs.get(&file.blob.file) {
                sealed.attach(file.index, blob.clone());
            }
        }
    }

    /// Puts the copy into the head, with what is deleted there.
    fn exchange_chunk(&self, old: &Arc<Chunk>, new: &Arc<Chunk>) {
        let _writer = self.writer.lock();
        let mut state = self.snapshot().state().clone();
        for version in state.tables.values_mut() {
            if version.chunks.iter().all(|held| !Arc::ptr_eq(&held.chunk, old)) {
                continue;
            }
            for held in &mut Arc::make_mut(version).chunks {
                if Arc::ptr_eq(&held.chunk, old) {
                    held.chunk = Arc::clone(new);
                }
            }
        }
        self.set_head(Snapshot::new(state));
    }

    /// Nothing can be copied now: ends the rotation if nothing is left, and otherwise does what makes something go.
    fn end_file_rotation(
        &self,
        maintenance: &mut Maintenance,
        rekey: &Rekey,
        builder: &dyn BlobBuilder,
    ) -> Result<(), StoreError> {
        self.collect(maintenance, None)?;
        if !self.file_rotation()?.is_done() {
            if !self.cloned.lock().is_empty() {
                // What only the log names gets into a manifest.
                self.checkpoint_locked(maintenance, builder)?;
            }
            if self.history.is_passing(rekey.wal_from, &rekey.files) {
                self.collect(maintenance, Some(HistoryPolicy::NONE))?;
            }
        }
        if self.file_rotation()?.is_done() {
            let mut next = maintenance.successor();
            next.rekey = None;
            self.commit_manifest(maintenance, next)?;
            self.rotation.failed.lock().clear();
            self.collect(maintenance, None)?;
        }
        Ok(())
    }
}
