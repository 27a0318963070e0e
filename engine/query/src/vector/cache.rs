//! Opened indexes: one budget for all tenants, shared fairly, of whom each sees only its own.
//!
//! Opening unseals and decodes a blob; searching must not. Filled by searches on first use and by the builder
//! when an index is made.
//!
//! An index is derived from rows. One whose file is damaged is given up ([`Chunk::give_up_index`]): its segment
//! counts as one without it, and whoever builds missing indexes is woken.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use sepal_index::{IndexError, Stored, VectorIndex};
use sepal_storage::{BlobReader, Chunk, FairCache, Near, StoreError};
use sepal_types::{Error, ErrorKind, FileId, Result, SqlState, TableId, TenantId};
use tokio::sync::Notify;

use super::filter::{FilterCache, FilterMemory};

type Key = (FileId, TableId);

/// What filters keep of segments gets this part of the budget.
const FILTERS_PART: usize = 8;

/// The opened indexes of a process, and what its filters have found out. Byte-bounded; one index always fits, so that a
/// search can run.
pub struct IndexMemory {
    held: Mutex<FairCache<Key, Arc<dyn VectorIndex>>>,
    filters: Arc<FilterMemory>,
    /// How often something was put in or taken out, for [`Near`].
    changes: AtomicU64,
}

/// One tenant's opened indexes. Bound to the tenant for life.
pub struct IndexCache {
    tenant: TenantId,
    memory: Arc<IndexMemory>,
    filters: FilterCache,
    /// Indexes that the memory has given.
    near: Near<Key, dyn VectorIndex>,
    /// Told that an index was given up.
    missing: Arc<Notify>,
    /// Two searches that miss open an index once. Segments share locks, rarely the same one.
    opening: [Mutex<()>; 8],
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
        let (filters, tenant_filters) = (budget_bytes / FILTERS_PART, tenant_bytes / FILTERS_PART);
        let (indexes, tenant_indexes) = (budget_bytes - filters, tenant_bytes - tenant_filters);
        Self {
            held: Mutex::new(FairCache::new(indexes, tenant_indexes)),
            filters: Arc::new(FilterMemory::new(filters, tenant_filters)),
            changes: AtomicU64::new(0),
        }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.held.lock().used_bytes() + self.filters.bytes()
    }

    pub fn budget_bytes(&self) -> usize {
        self.held.lock().budget_bytes() + self.filters.budget_bytes()
    }

    /// Of the bytes held, a tenant's.
    pub fn tenant_bytes(&self, tenant: TenantId) -> usize {
        self.held.lock().tenant_bytes(tenant) + self.filters.tenant_bytes(tenant)
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
    /// not fit it: then its rows are scanned.
    ///
    /// Errors: 58030 when the device does not give the file.
    pub fn get(&self, chunk: &Chunk, index: TableId, dim: usize) -> Result<Option<Arc<dyn VectorIndex>>> {
        let Some(segment) = chunk.segment() else {
            return Ok(None);
        };
        if let Some(found) = self.look(segment, index) {
            return Ok(Some(found));
        }
        let slot = usize::from(segment.as_bytes()[0]) % self.opening.len();
        let _opening = self.opening[slot].lock();
        if let Some(found) = self.look(segment, index) {
            return Ok(Some(found));
        }
        let opened = self.open(chunk, segment, index, dim)?;
        if let Some(opened) = &opened {
            self.insert(segment, index, Arc::clone(opened));
        }
        Ok(opened)
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
        match self.look(segment, index) {
            Some(found) => Ok(Some(found)),
            None => self.open(chunk, segment, index, dim),
        }
    }

    fn open(
        &self,
        chunk: &Chunk,
        segment: FileId,
        index: TableId,
        dim: usize,
    ) -> Result<Option<Arc<dyn VectorIndex>>> {
        let Some(file) = chunk.index_file(index) else { return Ok(None) };
        match open(chunk, segment, index, dim) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                chunk.give_up_index(file, &error);
                self.missing.notify_one();
                Ok(None)
            }
            opened => opened,
        }
    }

    /// Whether the index is open.
    pub fn holds(&self, segment: FileId, index: TableId) -> bool {
        self.look(segment, index).is_some()
    }

    fn look(&self, segment: FileId, index: TableId) -> Option<Arc<dyn VectorIndex>> {
        let now = self.memory.changes.load(Ordering::Acquire);
        if let Some(found) = self.near.get(&(segment, index), now) {
            return Some(found);
        }
        let found = self.memory.held.lock().get(self.tenant, &(segment, index))?;
        self.near.keep((segment, index), &found, now);
        Some(found)
    }

    /// Keeps an index that was opened or built elsewhere.
    pub fn insert(&self, segment: FileId, index: TableId, opened: Arc<dyn VectorIndex>) {
        let bytes = opened.memory_bytes();
        self.memory.held.lock().put(self.tenant, (segment, index), opened, bytes);
        self.memory.changed();
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

fn open(chunk: &Chunk, segment: FileId, index: TableId, dim: usize) -> Result<Option<Arc<dyn VectorIndex>>> {
    let damaged = |message: String| Error::new(SqlState::DataCorrupted, message);
    let Some(reader) = chunk.index_reader(index) else {
        return Ok(None);
    };
    let opened = sepal_index::open_stored(&Sealed(reader?)).map_err(|problem| {
        let problem = match problem {
            // Storage says which file it is, and whether it is damaged or could not be read.
            IndexError::Unreadable(why) => match why.downcast::<StoreError>() {
                Ok(error) => return Error::from(*error),
                Err(why) => IndexError::Unreadable(why),
            },
            problem => problem,
        };
        damaged(format!("the index of segment {segment} cannot be read: {problem}"))
    })?;
    if opened.shape() != (chunk.rows() as usize, dim) {
        return Err(damaged(format!("the index of segment {segment} is of another shape than the segment")));
    }
    Ok(Some(Arc::from(opened)))
}
