//! Writing what a plan says: segments, their index blobs, deletion vectors.
//!
//! Takes the longest of all steps and holds no lock that a commit or reader needs. Everything written is durable
//! on return, names included, but nothing counts before the manifest names it.

use std::{collections::BTreeMap, sync::Arc};

use roaring::RoaringBitmap;
use sepal_crypto::{Key, KeyRing};
use sepal_types::{FileId, RowId, TableDef, TableId};

use super::{BlobBuilder, CheckpointReport, Freely, Pace, freeze::Frozen, merged, pace::Phase, plan};
use crate::{
    ChunkRef, StoreError, TableVersion, TenantStore,
    blob::{Blob, Owner},
    chunk::{Chunk, SealedChunk, SealedParts},
    disk::Disk,
    manifest::{DeletedEntry, IndexEntry, Manifest, SegmentEntry, TableEntry},
    paths::{DataKind, Paths, file_key_aad},
    planted::{self, Bug},
    segment::{self, Identity},
};

/// Everything that a checkpoint wrote.
#[derive(Default)]
pub(super) struct Produced {
    pub tables: BTreeMap<TableId, ProducedTable>,
    /// For [`Self::discard`].
    files: Vec<(DataKind, FileId)>,
    rows: u64,
    bytes: u64,
    plain_bytes: u64,
    indexes: usize,
}

/// With what segments are made.
pub(super) struct Making<'a> {
    pub builder: &'a dyn BlobBuilder,
    pub pace: &'a dyn Pace,
    /// Told of each file before it is there.
    pub announce: &'a dyn Fn(DataKind, FileId),
}

#[derive(Default)]
pub(super) struct ProducedTable {
    pub segments: Vec<NewSegment>,
    /// Entries of the segments that stay, with their deletion vectors as of the freeze.
    kept: Vec<SegmentEntry>,
}

/// A segment and what went into it.
pub(super) struct NewSegment {
    pub inputs: Vec<ChunkRef>,
    /// `None` when no row of the inputs was live.
    pub chunk: Option<Arc<Chunk>>,
}

impl Produced {
    /// The manifest's tables.
    pub(super) fn entries(&self, frozen: &Frozen) -> Vec<TableEntry> {
        let entry = |version: &Arc<TableVersion>| {
            let produced = self.tables.get(&version.def.id);
            let new = produced
                .into_iter()
                .flat_map(|table| &table.segments)
                .filter_map(|segment| segment.chunk.as_ref());
            let new = new.filter_map(|chunk| chunk.as_sealed()).map(new_entry);
            let mut segments: Vec<SegmentEntry> = new.collect();
            segments.extend(produced.into_iter().flat_map(|table| table.kept.iter().cloned()));
            segments.sort_by_key(|segment| segment.first_row);
            let next_row = frozen.counters.next_rows.get(&version.def.id).copied().unwrap_or(RowId(1));
            TableEntry { def: (*version.def).clone(), next_row, segments }
        };
        // Sequences too, which have no segments.
        frozen.snapshot.state().tables.values().map(entry).collect()
    }

    pub(super) fn report(&self) -> CheckpointReport {
        let segments = self.files.iter().filter(|(kind, _)| *kind == DataKind::Segment).count();
        CheckpointReport {
            segments_written: segments,
            rows_written: self.rows,
            bytes_written: self.bytes,
            rows_bytes_written: self.plain_bytes,
            indexes_built: self.indexes,
            ..CheckpointReport::default()
        }
    }

    /// Takes what was written for a table.
    fn add(&mut self, part: Self) {
        let Self { tables: _, files, rows, bytes, plain_bytes, indexes } = part;
        self.files.extend(files);
        self.rows += rows;
        self.bytes += bytes;
        self.plain_bytes += plain_bytes;
        self.indexes += indexes;
    }

    /// Removes everything: the checkpoint failed before its manifest.
    pub(super) fn discard(&self, disk: &Disk, paths: &Paths) {
        self.files.iter().for_each(|(kind, file)| disk.discard("segment", &paths.data(*kind, *file)));
    }
}

impl TenantStore {
    pub(super) fn produce(
        &self,
        manifest: &Manifest,
        frozen: &Frozen,
        builder: &dyn BlobBuilder,
    ) -> Result<Produced, StoreError> {
        let mut produced = Produced::default();
        let making = Making { builder, pace: &Freely, announce: &|_, _| {} };
        let mut write = || -> Result<(), StoreError> {
            for version in frozen.snapshot.tables() {
                let table = self.produce_table(manifest, version, &making, &mut produced)?;
                produced.tables.insert(version.def.id, table);
            }
            self.sync_segments()
        };
        match write() {
            Ok(()) => Ok(produced),
            Err(error) => {
                produced.discard(&self.disk, &self.paths);
                Err(error)
            }
        }
    }

    /// Where a segment that was to be rewritten is damaged, it stays, and the log's rows become segments beside it.
    fn produce_table(
        &self,
        manifest: &Manifest,
        version: &TableVersion,
        making: &Making<'_>,
        produced: &mut Produced,
    ) -> Result<ProducedTable, StoreError> {
        loop {
            let plan = plan::flush(version, &self.untouched(), self.segment_bytes);
            let inputs = plan.rewrite.iter().flatten();
            let read: Vec<FileId> = inputs.filter_map(|input| input.chunk.segment()).collect();
            let mut part = Produced::default();
            match self.rewrite(manifest, version, plan, making, &mut part) {
                Err(error @ StoreError::Corrupt { .. }) if !read.is_empty() => {
                    part.discard(&self.disk, &self.paths);
                    self.leave_alone(read, &error);
                }
                done => {
                    produced.add(part);
                    return done;
                }
            }
        }
    }

    fn rewrite(
        &self,
        manifest: &Manifest,
        version: &TableVersion,
        plan: plan::Plan,
        making: &Making<'_>,
        produced: &mut Produced,
    ) -> Result<ProducedTable, StoreError> {
        let mut table = ProducedTable::default();
        for inputs in plan.rewrite {
            let chunk = self.write_segment(&version.def, &inputs, making, produced)?;
            if let Some(chunk) = &chunk {
                self.build_indexes(&version.def, chunk, &inputs, making, produced)?;
            }
            table.segments.push(NewSegment { inputs, chunk });
        }
        for chunk in &plan.keep {
            table.kept.push(self.keep_segment(manifest, &version.def, chunk, produced)?);
        }
        Ok(table)
    }

    /// Without indexes yet.
    pub(super) fn write_segment(
        &self,
        def: &TableDef,
        inputs: &[ChunkRef],
        making: &Making<'_>,
        produced: &mut Produced,
    ) -> Result<Option<Arc<Chunk>>, StoreError> {
        // Nobody waits for a checkpoint of a store that takes no more writes, but for its end.
        self.poison.check()?;
        let file = self.disk.file_id();
        let identity = Identity { tenant: self.tenant, table: def.id, file, key: Key::random() };
        let path = self.paths.data(DataKind::Segment, file);
        (making.announce)(DataKind::Segment, file);
        let written = segment::write(&self.disk, &path, &identity, def, inputs, making.pace)?;
        let Some(written) = written else { return Ok(None) };
        produced.files.push((DataKind::Segment, file));
        produced.rows += u64::from(written.rows);
        produced.bytes += written.bytes;
        produced.plain_bytes += written.plain_bytes;
        let aad = file_key_aad(DataKind::Segment, self.tenant, def.id, file);
        let entry = SegmentEntry {
            file,
            rows: written.rows,
            first_row: written.first_row,
            last_row: written.last_row,
            bytes: written.bytes,
            plain_bytes: written.plain_bytes,
            variable_bytes: Some(written.variable_bytes),
            key: self.keys().wrap(&aad, &identity.key),
            deleted: None,
            indexes: Vec::new(),
            sealed_for: None,
        };
        let parts = SealedParts {
            disk: self.disk.clone(),
            path,
            identity,
            cache: Arc::clone(&self.cache),
            entry,
            indexes: BTreeMap::new(),
        };
        let chunk = Arc::new(Chunk::sealed(SealedChunk::new(parts)));
        // From the manifest's commit on somebody may ask for that version: a file is one chunk.
        self.register(&chunk);
        // Reading the ids back proves that the file opens before the log that held its rows is trimmed.
        chunk.row_ids()?;
        Ok(Some(chunk))
    }

    pub(super) fn build_indexes(
        &self,
        def: &TableDef,
        chunk: &Chunk,
        inputs: &[ChunkRef],
        making: &Making<'_>,
        produced: &mut Produced,
    ) -> Result<(), StoreError> {
        let Some(sealed) = chunk.as_sealed() else { return Ok(()) };
        making.pace.phase(Phase::BuildingIndexes);
        for column in &def.columns {
            for (index, _) in def.vector_indexes(column.id) {
                let indexed = merged::inputs(chunk, inputs, index.id)?;
                let Some(bytes) = making.builder.build(def, index, chunk, &indexed)? else { continue };
                let owner = Owner { tenant: self.tenant, table: def.id, segment: sealed.file() };
                let (file, kind, keys) = (self.disk.file_id(), DataKind::Index, self.keys());
                (making.announce)(kind, file);
                let blob = Blob::write_as(file, &self.disk, &self.paths, &keys, owner, kind, &*bytes)?;
                making.pace.spend(blob.entry().bytes);
                produced.files.push((blob.kind(), blob.entry().file));
                produced.bytes += blob.entry().bytes;
                produced.indexes += 1;
                sealed.attach(index.id, blob);
            }
        }
        Ok(())
    }

    /// The entry of a segment that stays: a new deletion vector if rows were deleted since the last manifest, and
    /// the blobs of indexes that still exist. A clone that only the log has is not in the manifest yet.
    fn keep_segment(
        &self,
        manifest: &Manifest,
        def: &TableDef,
        chunk: &ChunkRef,
        produced: &mut Produced,
    ) -> Result<SegmentEntry, StoreError> {
        let bug = || StoreError::Bug("a kept chunk is not a segment of the manifest".to_owned());
        let sealed = chunk.chunk.as_sealed().ok_or_else(bug)?;
        let mut entry = match manifest.segment(def.id, sealed.file()) {
            Some(entry) => entry.clone(),
            None => shared(sealed, def, &self.keys()).ok_or_else(bug)?,
        };
        entry.indexes.retain(|entry| def.indexes.iter().any(|index| index.id == entry.index));
        let rows = if planted::is(Bug::TombstoneDropped) { 0 } else { chunk.deleted.len() };
        if rows > 0 && entry.deleted.as_ref().is_none_or(|deleted| deleted.rows != rows) {
            entry.deleted = Some(self.write_deleted(sealed, &chunk.deleted, &|_, _| {}, produced)?);
        }
        Ok(entry)
    }

    /// A deletion vector of a segment.
    pub(super) fn write_deleted(
        &self,
        sealed: &SealedChunk,
        deleted: &RoaringBitmap,
        announce: &dyn Fn(DataKind, FileId),
        produced: &mut Produced,
    ) -> Result<DeletedEntry, StoreError> {
        let mut bytes = Vec::with_capacity(deleted.serialized_size());
        deleted.serialize_into(&mut bytes).map_err(|error| StoreError::Bug(error.to_string()))?;
        let owner = Owner { tenant: self.tenant, table: sealed.sealed_for(), segment: sealed.file() };
        let (file, kind, keys) = (self.disk.file_id(), DataKind::Deleted, self.keys());
        announce(kind, file);
        let blob = Blob::write_as(file, &self.disk, &self.paths, &keys, owner, kind, &bytes)?;
        produced.files.push((blob.kind(), blob.entry().file));
        produced.bytes += blob.entry().bytes;
        Ok(DeletedEntry { rows: deleted.len(), blob: blob.entry().clone() })
    }
}

/// The entry of a segment that was just written.
pub(super) fn new_entry(sealed: &SealedChunk) -> SegmentEntry {
    let blobs = sealed.index_files().into_iter();
    let indexes = blobs.map(|file| IndexEntry { index: file.index, blob: file.blob }).collect();
    SegmentEntry { indexes, ..sealed.entry().clone() }
}

/// The first entry of a segment that a clone shares: with the blobs that are under its own indexes' ids. `None` for one
/// that the table itself wrote.
fn shared(sealed: &SealedChunk, def: &TableDef, keys: &KeyRing) -> Option<SegmentEntry> {
    let sealed_for = Some(sealed.sealed_for()).filter(|table| *table != def.id)?;
    let mut entry = SegmentEntry { sealed_for: Some(sealed_for), ..new_entry(sealed) };
    sealed.rewrap(&mut entry, keys);
    Some(entry)
}
