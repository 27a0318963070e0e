//! Opened indexes: one budget for all tenants, shared fairly, of whom each sees only its own.
//!
//! Opening unseals and decodes a blob; searching must not. Filled by searches on first use and by the builder
//! when an index is made. Of an index for which there is no room only a part is held, and a search reads of the rest
//! what it needs (docs/decisions/0011-cells-on-disk.md).
//!
//! An index is derived from rows. One whose file is damaged is given up ([`Chunk::give_up_index`]): its segment
//! counts as one without it, and whoever builds missing indexes is woken.

use std::{
    collections::HashSet,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sepal_index::{Candidates, IndexError, SearchParams, Stored, VectorIndex};
use sepal_storage::{BlobReader, Chunk, ColumnCache, Counted, FairCache, Near, StoreError};
use sepal_types::{Error, ErrorKind, FileId, Result, SqlState, TableId, TenantId};
use tokio::sync::Notify;

use super::{
    filter::{FilterCache, FilterMemory},
    search::effort,
};
use crate::context::SearchSettings;

type Key = (FileId, TableId);

/// What filters keep of segments gets this part of the budget.
const FILTERS_PART: usize = 8;
/// A table's index is held as a whole up to this part of what its tenant's indexes may take: another table's finds room
/// beside it.
const WHOLE_PART: usize = 2;

/// The opened indexes of a process, and what its filters have found out. Byte-bounded; one index always fits, so that a
/// search can run.
pub struct IndexMemory {
    held: Mutex<FairCache<Key, Arc<Opened>>>,
    /// Who makes room for the indexes.
    columns: Option<Arc<ColumnCache>>,
    filters: Arc<FilterMemory>,
    /// Bytes of a table's index, all segments together, from which on it is opened in place if it can be.
    most_whole_bytes: u64,
    /// How often something was put in or taken out, for [`Near`].
    changes: AtomicU64,
}

/// One tenant's opened indexes. Bound to the tenant for life.
pub struct IndexCache {
    tenant: TenantId,
    memory: Arc<IndexMemory>,
    filters: FilterCache,
    /// Indexes that the memory has given.
    near: Near<Key, Opened>,
    /// Told that an index was given up.
    missing: Arc<Notify>,
    /// Two searches that miss open an index once. Segments share locks, rarely the same one.
    opening: [Mutex<()>; 8],
}

/// What is held of an index.
struct Opened {
    index: Arc<dyn VectorIndex>,
    /// The file in which it left something.
    left: Option<FileId>,
    /// What it counts for among columns, once it is kept.
    counted: OnceLock<Counted>,
}

/// A chunk's index, ready to be searched.
pub struct ChunkIndex {
    opened: Arc<Opened>,
    /// Where the rest of it is.
    stored: Option<Sealed>,
    segment: FileId,
}

impl std::fmt::Debug for IndexMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexMemory").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for IndexCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexCache").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl IndexMemory {
    pub fn new(budget_bytes: usize) -> Self {
        Self::with_tenant_limit(budget_bytes, 0)
    }

    /// `tenant_bytes`: what one tenant may hold of it at most, 0 for all of it.
    pub fn with_tenant_limit(budget_bytes: usize, tenant_bytes: usize) -> Self {
        let (filters, tenant_filters) = (Self::filter_bytes(budget_bytes), Self::filter_bytes(tenant_bytes));
        let (indexes, tenant_indexes) = (budget_bytes - filters, tenant_bytes - tenant_filters);
        let share = if tenant_indexes > 0 { tenant_indexes.min(indexes) } else { indexes };
        Self {
            held: Mutex::new(FairCache::new(indexes, tenant_indexes)),
            columns: None,
            most_whole_bytes: (share / WHOLE_PART) as u64,
            filters: Arc::new(FilterMemory::new(filters, tenant_filters)),
            changes: AtomicU64::new(0),
        }
    }

    /// What filters get of a budget.
    pub const fn filter_bytes(budget_bytes: usize) -> usize {
        budget_bytes / FILTERS_PART
    }

    /// Indexes take their room from columns, which have what indexes do not need.
    pub fn beside(self, columns: &Arc<ColumnCache>) -> Self {
        Self { columns: Some(Arc::clone(columns)), ..self }
    }

    /// Every index is opened as a whole, whatever there is room for: all of its file has to be sound.
    pub fn of_whole_indexes(budget_bytes: usize) -> Self {
        Self { most_whole_bytes: u64::MAX, ..Self::new(budget_bytes) }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.index_bytes() + self.filters.bytes()
    }

    /// Of them, by indexes.
    pub fn index_bytes(&self) -> usize {
        self.held.lock().used_bytes()
    }

    pub fn budget_bytes(&self) -> usize {
        self.held.lock().budget_bytes() + self.filters.budget_bytes()
    }

    /// Of the bytes held, a tenant's.
    pub fn tenant_bytes(&self, tenant: TenantId) -> usize {
        self.held.lock().tenant_bytes(tenant) + self.filters.tenant_bytes(tenant)
    }

    /// Of those, by indexes.
    pub fn tenant_index_bytes(&self, tenant: TenantId) -> usize {
        self.held.lock().tenant_bytes(tenant)
    }

    /// The tenant is gone.
    pub fn forget_tenant(&self, tenant: TenantId) {
        self.held.lock().forget_tenant(tenant);
        self.filters.forget_tenant(tenant);
        self.changed();
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

impl IndexCache {
    pub fn new(tenant: TenantId, memory: Arc<IndexMemory>) -> Self {
        Self::waking(tenant, memory, Arc::default())
    }

    /// `missing` is told when an index was given up: a segment lacks it now.
    pub fn waking(tenant: TenantId, memory: Arc<IndexMemory>, missing: Arc<Notify>) -> Self {
        let filters = FilterCache::new(tenant, Arc::clone(&memory.filters));
        Self { tenant, memory, filters, near: Near::default(), missing, opening: Default::default() }
    }

    /// What the tenant's filters have found out.
    pub(super) fn filters(&self) -> &FilterCache {
        &self.filters
    }

    /// The index of a chunk, opened if need be; `None` when the chunk has none, or has one that does not open or does
    /// not fit it: then its rows are scanned. `all_bytes`: what the table's index takes in all its segments.
    ///
    /// Errors: 58030 when the device does not give the file.
    pub fn get(
        &self,
        chunk: &Chunk,
        index: TableId,
        dim: usize,
        all_bytes: impl FnOnce() -> u64,
    ) -> Result<Option<ChunkIndex>> {
        let Some(segment) = chunk.segment() else {
            return Ok(None);
        };
        if let Some(found) = self.held(chunk, segment, index)? {
            return Ok(Some(found));
        }
        let slot = usize::from(segment.as_bytes()[0]) % self.opening.len();
        let _opening = self.opening[slot].lock();
        if let Some(found) = self.held(chunk, segment, index)? {
            return Ok(Some(found));
        }
        let in_place = all_bytes() > self.memory.most_whole_bytes;
        let Some(found) = self.open(chunk, segment, index, (dim, in_place))? else {
            return Ok(None);
        };
        self.keep(segment, index, Arc::clone(&found.opened));
        Ok(Some(found))
    }

    /// [`Self::get`] for one who needs it once: what is not open is not kept.
    pub fn get_once(
        &self,
        chunk: &Chunk,
        index: TableId,
        dim: usize,
    ) -> Result<Option<Arc<dyn VectorIndex>>> {
        let Some(segment) = chunk.segment() else {
            return Ok(None);
        };
        match self.look(segment, index).filter(|found| found.left.is_none()) {
            Some(found) => Ok(Some(Arc::clone(&found.index))),
            None => {
                let found = self.open(chunk, segment, index, (dim, false))?;
                Ok(found.map(|found| Arc::clone(&found.opened.index)))
            }
        }
    }

    /// `None` also for an index that is given up now.
    fn open(
        &self,
        chunk: &Chunk,
        segment: FileId,
        index: TableId,
        how: (usize, bool),
    ) -> Result<Option<ChunkIndex>> {
        match open(chunk, segment, index, how) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.give_up(chunk, index, &error);
                Ok(None)
            }
            opened => opened,
        }
    }

    /// Its file is damaged: the segment has no index until it is built anew.
    pub(super) fn give_up(&self, chunk: &Chunk, index: TableId, why: &Error) {
        if let Some(file) = chunk.index_file(index) {
            chunk.give_up_index(file, why);
            self.missing.notify_one();
        }
    }

    /// Whether the index is open.
    pub fn holds(&self, segment: FileId, index: TableId) -> bool {
        self.look(segment, index).is_some()
    }

    /// Whether the index is open, all of it, and a search for `k` rows goes by it.
    pub(super) fn serves(
        &self,
        segment: FileId,
        index: TableId,
        (settings, k): (&SearchSettings, usize),
    ) -> bool {
        let opened = self.look(segment, index).filter(|opened| opened.left.is_none());
        opened.is_some_and(|opened| effort(&*opened.index, settings, k).is_some())
    }

    /// What is held of a chunk's index. `None` where nothing is, or what is held is a part of a file that another has
    /// taken the place of.
    fn held(&self, chunk: &Chunk, segment: FileId, index: TableId) -> Result<Option<ChunkIndex>> {
        let Some(opened) = self.look(segment, index) else {
            return Ok(None);
        };
        let Some(left) = opened.left else {
            return Ok(Some(ChunkIndex { opened, stored: None, segment }));
        };
        let Some(reader) = chunk.index_reader(index).transpose()? else {
            return Ok(None);
        };
        let same = reader.file() == left;
        Ok(same.then(|| ChunkIndex { opened, stored: Some(Sealed(reader)), segment }))
    }

    fn look(&self, segment: FileId, index: TableId) -> Option<Arc<Opened>> {
        let now = self.memory.changes.load(Ordering::Acquire);
        if let Some(found) = self.near.get(&(segment, index), now) {
            return Some(found);
        }
        let found = self.memory.held.lock().get(self.tenant, &(segment, index))?;
        self.near.keep((segment, index), &found, now);
        Some(found)
    }

    /// Keeps an index that was opened or built elsewhere; not one that is to be opened in place.
    pub fn insert(&self, segment: FileId, index: TableId, built: Arc<dyn VectorIndex>) {
        let bytes = built.memory_bytes();
        if built.leavable_bytes() == 0 || bytes as u64 <= self.memory.most_whole_bytes {
            self.keep(segment, index, Arc::new(Opened::new(built, None)));
        }
    }

    /// Lets go of every opened index, by segment and index, that is not `wanted`: its segment was merged, or it was
    /// dropped. It would take room from columns until others push it out.
    pub fn retain(&self, wanted: impl Fn(FileId, TableId) -> bool) {
        let gone = |(segment, index): &Key| !wanted(*segment, *index);
        let taken = self.memory.held.lock().forget(self.tenant, gone);
        if !taken.is_empty() {
            self.memory.changed();
        }
    }

    /// Which indexes are open, in any segment.
    pub fn opened(&self) -> HashSet<TableId> {
        self.memory.held.lock().keys(self.tenant).map(|(_, index)| *index).collect()
    }

    fn keep(&self, segment: FileId, index: TableId, opened: Arc<Opened>) {
        let bytes = opened.index.memory_bytes();
        if let Some(columns) = &self.memory.columns {
            opened.counted.get_or_init(|| columns.count(self.tenant, bytes));
        }
        self.memory.held.lock().put(self.tenant, (segment, index), opened, bytes);
        self.memory.changed();
    }
}

impl Opened {
    fn new(index: Arc<dyn VectorIndex>, left: Option<FileId>) -> Self {
        Self { index, left, counted: OnceLock::new() }
    }
}

impl Deref for ChunkIndex {
    type Target = dyn VectorIndex;

    fn deref(&self) -> &Self::Target {
        &*self.opened.index
    }
}

impl ChunkIndex {
    /// [`VectorIndex::candidates`], read from the index's file if need be.
    ///
    /// Errors: XX001 for a file that is damaged, 58030 for one that cannot be read.
    pub(super) fn candidates(&self, query: &[f32], params: &SearchParams<'_>) -> Result<Option<Candidates>> {
        let stored = self.stored.as_ref().map(|stored| stored as &dyn Stored);
        let named = self.opened.index.candidates(stored, query, params);
        named.map_err(|problem| unreadable(self.segment, problem))
    }
}

/// Unsealed piece by piece, the large ones where a search reads them.
struct Sealed(BlobReader);

impl Stored for Sealed {
    fn length(&self) -> usize {
        self.0.length()
    }

    fn read(
        &self,
        offset: usize,
        into: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.read(offset, into).map_err(Into::into)
    }
}

/// With `in_place`, an index that can leave the most of itself in its file does.
fn open(
    chunk: &Chunk,
    segment: FileId,
    index: TableId,
    (dim, in_place): (usize, bool),
) -> Result<Option<ChunkIndex>> {
    let Some(reader) = chunk.index_reader(index).transpose()? else {
        return Ok(None);
    };
    let (file, stored) = (reader.file(), Sealed(reader));
    let opened =
        if in_place { sepal_index::open_in_place(&stored) } else { sepal_index::open_stored(&stored) };
    let index: Arc<dyn VectorIndex> = Arc::from(opened.map_err(|problem| unreadable(segment, problem))?);
    if index.shape() != (chunk.rows() as usize, dim) {
        return Err(damaged(format!("the index of segment {segment} is of another shape than the segment")));
    }
    let left = index.is_in_place().then_some(file);
    let stored = left.map(|_| stored);
    Ok(Some(ChunkIndex { opened: Arc::new(Opened::new(index, left)), stored, segment }))
}

fn unreadable(segment: FileId, problem: IndexError) -> Error {
    let problem = match problem {
        // Storage says which file it is, and whether it is damaged or could not be read.
        IndexError::Unreadable(why) => match why.downcast::<StoreError>() {
            Ok(error) => return Error::from(*error),
            Err(why) => IndexError::Unreadable(why),
        },
        problem => problem,
    };
    damaged(format!("the index of segment {segment} cannot be read: {problem}"))
}

fn damaged(message: String) -> Error {
    Error::new(SqlState::DataCorrupted, message)
        .with_hint("Run REINDEX INDEX to build it anew from the rows.")
}
