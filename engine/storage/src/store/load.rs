//! From manifests and log payloads to a state: segments opened, commits applied.
//!
//! Used when a store opens, by `history` for its past, and by `check` and `repair`. Reads only. A segment is one [`Chunk`], whoever names it:
//! the registry knows those that are open.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    sync::{Arc, Weak},
};

use arrow::buffer::Buffer;
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use sepal_crypto::KeyRing;
use sepal_types::{FileId, Lsn, TableId, TenantId};

use super::lost::Lost;
use crate::{
    ChunkRef, ColumnCache, Op, StoreError, TableVersion,
    blob::{Blob, Owner, check_length},
    chunk::{Chunk, SealedChunk, SealedParts},
    counters::{CounterValues, Counters, after_ids},
    disk::Disk,
    history::Until,
    manifest::{FileSizes, Manifest, SegmentEntry, TableEntry},
    ops::{self, CloneSource, Decoded},
    paths::{DataKind, Paths, file_key_aad, show},
    segment::Identity,
    snapshot::{Rules, State, Unreadable},
};

/// The generation of everything that was replayed: the writer's first.
const REPLAY: Rules = Rules { generation: 1, trusted: true };

/// The segments that are open, by file.
pub(crate) type Registry = Mutex<HashMap<FileId, Weak<Chunk>>>;

/// Who opens what where.
#[derive(Clone, Copy)]
pub(crate) struct Opener<'a> {
    pub paths: &'a Paths,
    pub disk: &'a Disk,
    pub tenant: TenantId,
    pub keys: &'a KeyRing,
    pub cache: &'a Arc<ColumnCache>,
    pub registry: &'a Registry,
}

/// A state as far as it has been read.
pub(crate) struct Opened {
    pub state: State,
    pub counters: Counters,
    /// What clones named in the log that was read, by commit.
    pub cloned: Vec<(Lsn, FileSizes)>,
    /// When the commit was made that ended the reading.
    pub ended_by_us: Option<i64>,
    /// What is known to be gone: a replay does without it.
    pub lost: Lost,
}

impl Opener<'_> {
    pub(crate) fn manifest(&self, manifest: &Manifest) -> Result<Opened, StoreError> {
        let opened = self.readable(manifest)?;
        match opened.state.unreadable.first() {
            None => Ok(opened),
            Some(table) => Err(table.error.clone()),
        }
    }

    /// The same without the tables of which something is damaged, for whoever reads others. Nothing can go on from it.
    pub(crate) fn readable(&self, manifest: &Manifest) -> Result<Opened, StoreError> {
        let next_rows: HashMap<_, _> =
            manifest.tables.iter().map(|table| (table.def.id, table.next_row)).collect();
        // A program that did not count constraints' ids may have written a smaller one.
        let counted = manifest.tables.iter().map(|table| after_ids(&table.def));
        let values = CounterValues {
            next_object: counted.fold(manifest.next_object, u32::max),
            next_rows,
            sequences: manifest.sequences.clone(),
        };
        let mut state = State { lsn: manifest.lsn, time_us: manifest.time_us, ..State::default() };
        for table in &manifest.tables {
            let version = match self.table(table) {
                Ok(version) => version,
                Err(error @ StoreError::Corrupt { .. }) => {
                    let def = table.def.clone();
                    let (environment, schema, name) = (def.environment, def.schema, def.name);
                    let unreadable = Unreadable { environment, schema, name, error };
                    Arc::make_mut(&mut state.unreadable).push(unreadable);
                    continue;
                }
                Err(error) => return Err(error),
            };
            Arc::make_mut(&mut state.names).insert(&table.def)?;
            state.tables.insert(table.def.id, Arc::new(version));
        }
        Ok(Opened {
            state,
            counters: Counters::new(&values),
            cloned: Vec::new(),
            ended_by_us: None,
            lost: Lost::default(),
        })
    }

    pub(crate) fn table(&self, table: &TableEntry) -> Result<TableVersion, StoreError> {
        let mut chunks = Vec::with_capacity(table.segments.len());
        for entry in &table.segments {
            let deleted = Arc::new(self.deleted(table.def.id, entry)?.into());
            chunks.push(ChunkRef { chunk: self.chunk(table.def.id, entry)?, deleted });
        }
        Ok(TableVersion { def: Arc::new(table.def.clone()), chunks })
    }

    pub(crate) fn deleted(&self, table: TableId, entry: &SegmentEntry) -> Result<RoaringBitmap, StoreError> {
        let Some(deleted) = &entry.deleted else { return Ok(RoaringBitmap::new()) };
        let kind = DataKind::Deleted;
        let blob =
            Blob::named(self.disk, self.paths, self.keys, self.owner(table, entry), kind, &deleted.blob)?;
        let bitmap = RoaringBitmap::deserialize_from(blob.open(self.disk)?.as_slice());
        let path = self.paths.data(kind, deleted.blob.file);
        bitmap.map_err(|error| StoreError::corrupt(&show(&path), error.to_string()))
    }

    /// The segment's one chunk, with at least the indexes that the entry names. An index file that is not there, or is
    /// another one, keeps nobody from the rows: the segment goes without it.
    pub(crate) fn chunk(&self, table: TableId, entry: &SegmentEntry) -> Result<Arc<Chunk>, StoreError> {
        let open = self.registry.lock().get(&entry.file).and_then(Weak::upgrade);
        let chunk = match open {
            Some(chunk) => chunk,
            None => {
                let chunk = Arc::new(Chunk::sealed(self.segment(table, entry)?));
                let mut registry = self.registry.lock();
                // Another reader of the past may have opened it meanwhile.
                match registry.get(&entry.file).and_then(Weak::upgrade) {
                    Some(first) => first,
                    None => {
                        registry.insert(entry.file, Arc::downgrade(&chunk));
                        chunk
                    }
                }
            }
        };
        if let Some(sealed) = chunk.as_sealed() {
            for index in entry.indexes.iter().filter(|index| !sealed.has_index(index.index)) {
                let (owner, kind) = (self.owner(table, entry), DataKind::Index);
                match Blob::named(self.disk, self.paths, self.keys, owner, kind, &index.blob) {
                    Ok(blob) => sealed.attach_known(index.index, blob),
                    Err(error @ StoreError::Corrupt { .. }) => {
                        sealed.give_up_index(index.blob.file, &error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(chunk)
    }

    /// Checks that the file is there with its length; its bytes are read when first needed.
    fn segment(&self, table: TableId, entry: &SegmentEntry) -> Result<SealedChunk, StoreError> {
        let path = self.paths.data(DataKind::Segment, entry.file);
        let table = entry.sealed_for(table);
        let aad = file_key_aad(DataKind::Segment, self.tenant, table, entry.file);
        let key =
            self.keys.unwrap(&aad, &entry.key).map_err(|error| StoreError::sealed(&show(&path), error))?;
        check_length(self.disk, &path, entry.bytes)?;
        let identity = Identity { tenant: self.tenant, table, file: entry.file, key };
        let own = SegmentEntry { deleted: None, indexes: Vec::new(), sealed_for: None, ..entry.clone() };
        Ok(SealedChunk::new(SealedParts {
            disk: self.disk.clone(),
            path,
            identity,
            cache: Arc::clone(self.cache),
            entry: own,
            indexes: BTreeMap::new(),
        }))
    }

    fn owner(&self, table: TableId, entry: &SegmentEntry) -> Owner {
        Owner { tenant: self.tenant, table: entry.sealed_for(table), segment: entry.file }
    }

    /// Opens what a clone that was read from the log shares.
    fn open_clone(&self, table: TableId, source: &mut CloneSource) -> Result<(), StoreError> {
        let mut chunks = Vec::with_capacity(source.segments.len());
        for segment in &source.segments {
            let deleted = segment.deleted().map_err(|why| {
                let path = self.paths.data(DataKind::Segment, segment.entry.file);
                StoreError::corrupt(&show(&path), format!("a clone's deletion vector: {why}"))
            })?;
            chunks.push(ChunkRef {
                chunk: self.chunk(table, &segment.entry)?,
                deleted: Arc::new(deleted.into()),
            });
        }
        source.chunks = chunks;
        Ok(())
    }
}

impl Opened {
    /// Applies a commit of the log, unless it lies behind `until`. It was checked when it was written, so what does not
    /// apply is damage.
    pub(crate) fn replay(
        &mut self,
        opener: Opener<'_>,
        until: Option<Until>,
        (file, lsn): (&str, Lsn),
        payload: &Buffer,
    ) -> Result<ControlFlow<()>, StoreError> {
        self.apply(opener, until, (file, lsn), decoded((file, lsn), payload)?)
    }

    /// [`Self::replay`] of a commit that the caller has looked into.
    pub(crate) fn apply(
        &mut self,
        opener: Opener<'_>,
        until: Option<Until>,
        (file, lsn): (&str, Lsn),
        commit: Decoded,
    ) -> Result<ControlFlow<()>, StoreError> {
        let Decoded { time_us, sequences, mut ops } = commit;
        let time_us = time_us.unwrap_or(self.state.time_us);
        if until.is_some_and(|until| until.is_before(lsn, time_us)) {
            self.ended_by_us = Some(time_us);
            return Ok(ControlFlow::Break(()));
        }
        for op in &mut ops {
            if let Op::Clone { def, source } = op {
                self.lost.leave_out(def.id, source);
                opener.open_clone(def.id, source)?;
                self.cloned.push((lsn, source.files()));
            }
            let op = self.lost.without(&self.state, op)?;
            self.state.apply(&op, REPLAY).map_err(|error| match error {
                StoreError::Corrupt { .. } | StoreError::Io { .. } => error,
                other => StoreError::corrupt(file, format!("commit {lsn} does not apply: {other}")),
            })?;
        }
        (self.state.lsn, self.state.time_us) = (lsn, time_us);
        self.counters.committed(&sequences, &ops);
        Ok(ControlFlow::Continue(()))
    }
}

/// What is in a commit's payload.
pub(crate) fn decoded((file, lsn): (&str, Lsn), payload: &Buffer) -> Result<Decoded, StoreError> {
    ops::decode(payload).map_err(|why| StoreError::corrupt(file, format!("commit {lsn}: {why}")))
}
