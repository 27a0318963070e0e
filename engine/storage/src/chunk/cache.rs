//! Decoded columns of segments, kept up to a byte budget that all tenants share.
//!
//! Segments put columns in and take them out; `database` makes one cache per process and empties it for a tenant
//! whose key is revoked. The key holds tenant and file, and a file's id is random and never reused, so one
//! tenant can never be handed another's column. It never reads a file.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arrow::array::{Array, ArrayRef};
use lru::LruCache;
use parking_lot::Mutex;
use sepal_types::{ColumnId, FileId, TenantId};

/// One column of one segment; `None` is the row ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub tenant: TenantId,
    pub file: FileId,
    pub column: Option<ColumnId>,
}

/// Least-recently-used columns leave first.
pub struct ColumnCache {
    budget_bytes: usize,
    held: Mutex<Held>,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct Held {
    columns: LruCache<CacheKey, (ArrayRef, usize)>,
    bytes: usize,
}

impl ColumnCache {
    pub fn new(budget_bytes: usize) -> Arc<Self> {
        let held = Held { columns: LruCache::unbounded(), bytes: 0 };
        Arc::new(Self {
            budget_bytes,
            held: Mutex::new(held),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// Bytes held now. Readers may hold columns that have left the cache.
    pub fn used_bytes(&self) -> usize {
        self.held.lock().bytes
    }

    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// Columns found and not found so far.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Drops everything of a tenant: its key was revoked, or its store closed.
    pub fn forget_tenant(&self, tenant: TenantId) {
        self.forget(|key| key.tenant == tenant);
    }

    pub(crate) fn forget_file(&self, tenant: TenantId, file: FileId) {
        self.forget(|key| key.tenant == tenant && key.file == file);
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<ArrayRef> {
        let found = self.held.lock().columns.get(key).map(|(array, _)| Arc::clone(array));
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Looks without counting: for the second look of a reader that waited for another one's decoding.
    pub(crate) fn peek(&self, key: &CacheKey) -> Option<ArrayRef> {
        self.held.lock().columns.get(key).map(|(array, _)| Arc::clone(array))
    }

    /// A column larger than the whole budget is not kept: it would empty the cache and leave next.
    pub(crate) fn put(&self, key: CacheKey, array: &ArrayRef) {
        let bytes = array.get_array_memory_size();
        if bytes > self.budget_bytes {
            return;
        }
        let mut held = self.held.lock();
        if let Some((_, (_, replaced))) = held.columns.push(key, (Arc::clone(array), bytes)) {
            held.bytes -= replaced;
        }
        held.bytes += bytes;
        while held.bytes > self.budget_bytes {
            let Some((_, (_, evicted))) = held.columns.pop_lru() else { break };
            held.bytes -= evicted;
        }
    }

    fn forget(&self, gone: impl Fn(&CacheKey) -> bool) {
        let mut held = self.held.lock();
        let mut freed = 0;
        held.columns.retain(|key, (_, bytes)| {
            let keep = !gone(key);
            if !keep {
                freed += *bytes;
            }
            keep
        });
        held.bytes -= freed;
    }
}

impl std::fmt::Debug for ColumnCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColumnCache")
            .field("budget_bytes", &self.budget_bytes)
            .field("used_bytes", &self.used_bytes())
            .finish_non_exhaustive()
    }
}
