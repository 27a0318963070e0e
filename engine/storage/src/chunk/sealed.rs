//! A segment as a chunk: columns decoded on demand, index blobs beside it, files removed with the last reader.
//!
//! Made when a store opens and by checkpoints; read through [`super::Chunk`]. Never writes, but for `reseal`.

mod reseal;
mod run;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt64Array},
    datatypes::UInt64Type,
};
use parking_lot::{Mutex, RwLock};
use sepal_types::{ColumnId, FileId, RowId, SqlType, TableId};

use super::{CacheKey, ColumnCache, KeyMap, Near, taken};
use crate::{
    StoreError,
    arrow_types::arrow_type,
    blob::{Blob, BlobReader},
    disk::Disk,
    manifest::{BlobEntry, SegmentEntry},
    paths::{DataKind, show},
    segment::{Footer, Identity},
};

/// Of a segment's rows fewer than this part are read by their pages.
const FEW_PART: usize = 64;

/// What a [`SealedChunk`] is made of.
pub(crate) struct SealedParts {
    pub disk: Disk,
    pub path: PathBuf,
    pub identity: Identity,
    pub cache: Arc<ColumnCache>,
    pub entry: SegmentEntry,
    pub indexes: BTreeMap<TableId, Blob>,
}

/// A sealed segment.
pub(crate) struct SealedChunk {
    parts: SealedParts,
    footer: OnceLock<Footer>,
    /// Two readers that miss the cache decode a column once. Columns share locks by id, rarely the same one.
    loading: [Mutex<()>; 8],
    /// Columns that the cache has given.
    near: Near<Option<ColumnId>, dyn Array>,
    indexes: RwLock<BTreeMap<TableId, Blob>>,
    /// Files of indexes that do not open, or are not this segment's: as good as none.
    damaged: Mutex<BTreeSet<FileId>>,
    /// Nothing names the files any more: the last reader removes them.
    obsolete: AtomicBool,
}

/// A vector index's file as the manifest names it.
pub(crate) struct IndexFile {
    pub index: TableId,
    pub blob: BlobEntry,
}

impl SealedChunk {
    pub(crate) fn new(mut parts: SealedParts) -> Self {
        let indexes = RwLock::new(std::mem::take(&mut parts.indexes));
        Self {
            parts,
            footer: OnceLock::new(),
            loading: Default::default(),
            near: Near::default(),
            indexes,
            damaged: Mutex::default(),
            obsolete: AtomicBool::new(false),
        }
    }

    pub(crate) const fn file(&self) -> FileId {
        self.parts.identity.file
    }

    /// Under whose id its files are sealed: the table that wrote it.
    pub(crate) const fn sealed_for(&self) -> TableId {
        self.parts.identity.table
    }

    pub(crate) const fn rows(&self) -> u32 {
        self.parts.entry.rows
    }

    pub(crate) const fn first_row(&self) -> RowId {
        self.parts.entry.first_row
    }

    pub(crate) const fn last_row(&self) -> RowId {
        self.parts.entry.last_row
    }

    pub(crate) const fn file_bytes(&self) -> u64 {
        self.parts.entry.bytes
    }

    pub(crate) const fn plain_bytes(&self) -> u64 {
        self.parts.entry.plain_bytes
    }

    /// The segment as a manifest names it, without deletion vector and indexes.
    pub(crate) const fn entry(&self) -> &SegmentEntry {
        &self.parts.entry
    }

    pub(crate) fn row_ids(&self) -> Result<Arc<UInt64Array>, StoreError> {
        let ids = self.cached(None, |footer| footer.row_ids(&self.parts.disk, &self.parts.path).map(Some))?;
        let ids = ids.and_then(|ids| ids.as_primitive_opt::<UInt64Type>().cloned());
        let ids =
            ids.ok_or_else(|| StoreError::corrupt(&show(&self.parts.path), "row ids of another type"))?;
        Ok(Arc::new(ids))
    }

    /// `None` when the segment is older than the column.
    pub(crate) fn column(&self, column: ColumnId, ty: &SqlType) -> Result<Option<ArrayRef>, StoreError> {
        let load =
            |footer: &Footer| footer.column(&self.parts.disk, &self.parts.path, column, &arrow_type(ty));
        self.cached(Some(column), load)
    }

    /// The same, past the cache.
    pub(crate) fn column_once(&self, column: ColumnId, ty: &SqlType) -> Result<Option<ArrayRef>, StoreError> {
        match self.parts.cache.peek(&self.cache_key(Some(column))) {
            Some(array) => Ok(Some(array)),
            None => self.footer()?.column(&self.parts.disk, &self.parts.path, column, &arrow_type(ty)),
        }
    }

    /// Of a column the rows at some positions, which ascend: of one that is not decoded only their pages are read, as
    /// long as those are not most of it. What is read does not get into the cache.
    pub(crate) fn column_rows(
        &self,
        column: ColumnId,
        ty: &SqlType,
        positions: &[u32],
    ) -> Result<Option<ArrayRef>, StoreError> {
        let many = positions.len() >= self.rows() as usize / FEW_PART;
        if many || self.is_decoded(column) {
            let whole = self.column_once(column, ty)?;
            return whole.map(|whole| taken(&whole, positions)).transpose();
        }
        self.footer()?.rows(&self.parts.disk, &self.parts.path, column, &arrow_type(ty), positions)
    }

    /// Bytes that decoded columns of the tenant may take at most.
    pub(crate) fn decoded_most_bytes(&self) -> usize {
        self.parts.cache.most_tenant_bytes(self.parts.identity.tenant)
    }

    /// The same, whatever else is held. Takes no lock.
    pub(crate) fn decoded_least_bytes(&self) -> usize {
        self.parts.cache.least_tenant_bytes()
    }

    /// A map of its keys, which lives beside the cache, but counts.
    pub(crate) fn counted(&self, keys: KeyMap) -> KeyMap {
        keys.counted(&self.parts.cache, self.parts.identity.tenant)
    }

    pub(crate) fn is_decoded(&self, column: ColumnId) -> bool {
        self.parts.cache.peek(&self.cache_key(Some(column))).is_some()
    }

    /// Whether the column is in memory, or known to be newer than the file.
    pub(crate) fn is_at_hand(&self, column: ColumnId) -> bool {
        let near = self.near.get(&Some(column), self.parts.cache.changes());
        near.is_some()
            || self.is_decoded(column)
            || self.footer.get().is_some_and(|footer| !footer.has_column(column))
    }

    /// Whether the segment is older than the column, or does not open.
    pub(crate) fn lacks(&self, column: ColumnId) -> bool {
        !self.footer().is_ok_and(|footer| footer.has_column(column))
    }

    /// The names of all columns that the file has, those that the table has dropped included. Opens the footer.
    pub(crate) fn stored_columns(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.footer()?.names())
    }

    /// Reads and decodes a column as it lies there, to see whether it can be.
    pub(crate) fn check_stored(&self, name: &str) -> Result<(), StoreError> {
        self.footer()?.check(&self.parts.disk, &self.parts.path, name)
    }

    /// Whether it can be read where in the file each page lies.
    pub(crate) fn check_places(&self) -> Result<(), StoreError> {
        self.footer()?.check_places(&self.parts.disk, &self.parts.path)
    }

    /// Whether there is an index that can be searched, as far as is known.
    pub(crate) fn has_index(&self, index: TableId) -> bool {
        self.index_file(index).is_some()
    }

    /// The file of an index that is not known to be damaged.
    pub(crate) fn index_file(&self, index: TableId) -> Option<FileId> {
        let file = self.indexes.read().get(&index)?.entry().file;
        (!self.damaged.lock().contains(&file)).then_some(file)
    }

    /// An index's file cannot be used. The rows are all there: from now on the segment has no such index, is searched
    /// exactly, and gets another one from whoever looks for segments that lack theirs. The file stays until then. Said
    /// and counted once for each file.
    pub(crate) fn give_up_index(&self, file: FileId, why: &dyn fmt::Display) {
        if !self.damaged.lock().insert(file) {
            return;
        }
        self.parts.cache.note_damaged_index();
        let Identity { tenant, table, file: segment, .. } = &self.parts.identity;
        tracing::error!(
            %tenant,
            %table,
            %segment,
            file = %format_args!("{file}.{}", DataKind::Index.extension()),
            %why,
            "an index file is damaged: its segment is searched exactly until the index is built again"
        );
    }

    pub(crate) fn index_bytes(&self, index: TableId) -> u64 {
        self.indexes.read().get(&index).map_or(0, |blob| blob.entry().bytes)
    }

    /// The lock is held while the file is read, so that a dropped index's file is not removed meanwhile.
    pub(crate) fn index_blob(&self, index: TableId) -> Option<Result<Vec<u8>, StoreError>> {
        self.indexes.read().get(&index).map(|blob| blob.open(&self.parts.disk))
    }

    /// The file is opened while the lock is held, as it is read in [`Self::index_blob`].
    pub(crate) fn index_reader(&self, index: TableId) -> Option<Result<BlobReader, StoreError>> {
        self.indexes.read().get(&index).map(|blob| blob.reader(&self.parts.disk))
    }

    /// The indexes' files, for the manifest.
    pub(crate) fn index_files(&self) -> Vec<IndexFile> {
        let indexes = self.indexes.read();
        indexes.iter().map(|(index, blob)| IndexFile { index: *index, blob: blob.entry().clone() }).collect()
    }

    /// Makes a durable blob visible. The one it replaces is given back.
    pub(crate) fn attach(&self, index: TableId, blob: Blob) -> Option<Blob> {
        self.indexes.write().insert(index, blob)
    }

    /// Makes a blob visible that some manifest or clone names, unless the index has one already.
    pub(crate) fn attach_known(&self, index: TableId, blob: Blob) {
        self.indexes.write().entry(index).or_insert(blob);
    }

    /// The same blob under a clone's index. `None` when the segment has none that can be used.
    pub(crate) fn share(&self, from: TableId, to: TableId) -> Option<BlobEntry> {
        self.index_file(from)?;
        let mut indexes = self.indexes.write();
        let blob = indexes.get(&from)?.clone();
        let entry = blob.entry().clone();
        indexes.insert(to, blob);
        Some(entry)
    }

    /// Takes away the blobs whose files nobody needs any more. Waits for those who read one.
    pub(crate) fn detach(&self, keep: impl Fn(FileId) -> bool) {
        self.indexes.write().retain(|_, blob| keep(blob.entry().file));
    }

    /// Nothing names the segment any more: remove its files once nobody reads it. `false` if it was so before.
    pub(crate) fn retire(&self) -> bool {
        !self.obsolete.swap(true, Ordering::AcqRel)
    }

    /// Something names the segment again: a clone made from a snapshot that still had it.
    pub(crate) fn revive(&self) {
        self.obsolete.store(false, Ordering::Release);
    }

    fn cache_key(&self, column: Option<ColumnId>) -> CacheKey {
        CacheKey { tenant: self.parts.identity.tenant, file: self.file(), column }
    }

    fn cached(
        &self,
        column: Option<ColumnId>,
        load: impl FnOnce(&Footer) -> Result<Option<ArrayRef>, StoreError>,
    ) -> Result<Option<ArrayRef>, StoreError> {
        let now = self.parts.cache.changes();
        if let Some(array) = self.near.get(&column, now) {
            self.parts.cache.note_hit();
            return Ok(Some(array));
        }
        let key = self.cache_key(column);
        if let Some(array) = self.parts.cache.get(&key) {
            self.near.keep(column, &array, now);
            return Ok(Some(array));
        }
        let slot = column.map_or(0, |column| column.0 as usize) % self.loading.len();
        let _loading = self.loading[slot].lock();
        if let Some(array) = self.parts.cache.peek(&key) {
            return Ok(Some(array));
        }
        let loaded = load(self.footer()?)?;
        if let Some(array) = &loaded {
            self.parts.cache.put(key, array);
        }
        Ok(loaded)
    }

    fn footer(&self) -> Result<&Footer, StoreError> {
        if let Some(footer) = self.footer.get() {
            return Ok(footer);
        }
        let SealedParts { disk, path, identity, entry, .. } = &self.parts;
        let footer = Footer::open(disk, path, identity, entry.rows, entry.bytes)?;
        Ok(self.footer.get_or_init(|| footer))
    }
}

impl Drop for SealedChunk {
    fn drop(&mut self) {
        if !self.obsolete.load(Ordering::Acquire) {
            return;
        }
        self.parts.cache.forget_file(self.parts.identity.tenant, self.file());
        self.parts.disk.discard("segment", &self.parts.path);
        self.indexes.get_mut().values().for_each(|blob| blob.discard(&self.parts.disk));
    }
}
