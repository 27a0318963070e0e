//! Opened indexes, least recently used out first: one budget for all tenants, each of whom sees only its own.
//!
//! Opening unseals and decodes a blob; searching must not. Filled by searches on first use and by the builder
//! when an index is made.

use std::{num::NonZeroUsize, sync::Arc};

use parking_lot::Mutex;
use sepal_index::VectorIndex;
use sepal_storage::Chunk;
use sepal_types::{Error, FileId, Result, SqlState, TableId, TenantId};

type Key = (TenantId, FileId, TableId);

/// The opened indexes of a process. Byte-bounded; one entry always fits, so that a search can run.
pub struct IndexMemory {
    entries: Mutex<Entries>,
    budget_bytes: usize,
}

struct Entries {
    lru: lru::LruCache<Key, Arc<dyn VectorIndex>>,
    bytes: usize,
}

/// One tenant's opened indexes. Bound to the tenant for life.
#[derive(Debug)]
pub struct IndexCache {
    tenant: TenantId,
    memory: Arc<IndexMemory>,
}

impl std::fmt::Debug for IndexMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexMemory").field("budget_bytes", &self.budget_bytes).finish_non_exhaustive()
    }
}

impl IndexMemory {
    pub fn new(budget_bytes: usize) -> Self {
        const MOST_ENTRIES: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
        let entries = Entries { lru: lru::LruCache::new(MOST_ENTRIES), bytes: 0 };
        Self { entries: Mutex::new(entries), budget_bytes }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.entries.lock().bytes
    }

    /// The tenant is gone.
    pub fn forget_tenant(&self, tenant: TenantId) {
        let mut entries = self.entries.lock();
        let gone: Vec<Key> =
            entries.lru.iter().map(|(key, _)| *key).filter(|(owner, ..)| *owner == tenant).collect();
        for key in gone {
            if let Some(old) = entries.lru.pop(&key) {
                entries.bytes -= old.memory_bytes();
            }
        }
    }

    fn get(&self, key: &Key) -> Option<Arc<dyn VectorIndex>> {
        self.entries.lock().lru.get(key).cloned()
    }

    /// Keeps an index, at the cost of those unused longest.
    fn insert(&self, key: Key, opened: Arc<dyn VectorIndex>) {
        let mut entries = self.entries.lock();
        entries.bytes += opened.memory_bytes();
        if let Some((_, old)) = entries.lru.push(key, opened) {
            entries.bytes -= old.memory_bytes();
        }
        while entries.bytes > self.budget_bytes && entries.lru.len() > 1 {
            match entries.lru.pop_lru() {
                Some((_, old)) => entries.bytes -= old.memory_bytes(),
                None => break,
            }
        }
    }
}

impl IndexCache {
    pub fn new(tenant: TenantId, memory: Arc<IndexMemory>) -> Self {
        Self { tenant, memory }
    }

    /// The index of a chunk, opened if need be; `None` when the chunk has none.
    ///
    /// Errors: XX001 when the blob does not open or does not fit the chunk.
    pub fn get(&self, chunk: &Chunk, index: TableId, dim: usize) -> Result<Option<Arc<dyn VectorIndex>>> {
        let Some(segment) = chunk.segment() else {
            return Ok(None);
        };
        if let Some(found) = self.memory.get(&(self.tenant, segment, index)) {
            return Ok(Some(found));
        }
        let Some(blob) = chunk.index_blob(index) else {
            return Ok(None);
        };
        let opened: Arc<dyn VectorIndex> = Arc::from(sepal_index::open(&blob?).map_err(|problem| {
            Error::new(
                SqlState::DataCorrupted,
                format!("the index of segment {segment} cannot be read: {problem}"),
            )
            .with_hint("Run REINDEX INDEX to build it anew from the rows.")
        })?);
        if opened.shape() != (chunk.rows() as usize, dim) {
            let message = format!("the index of segment {segment} is of another shape than the segment");
            return Err(Error::new(SqlState::DataCorrupted, message)
                .with_hint("Run REINDEX INDEX to build it anew from the rows."));
        }
        self.insert(segment, index, Arc::clone(&opened));
        Ok(Some(opened))
    }

    /// Keeps an index that was opened or built elsewhere.
    pub fn insert(&self, segment: FileId, index: TableId, opened: Arc<dyn VectorIndex>) {
        self.memory.insert((self.tenant, segment, index), opened);
    }
}
