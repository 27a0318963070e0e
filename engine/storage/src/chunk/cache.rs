//! Decoded columns of segments, kept up to a byte budget that all tenants share fairly, and that what else is made of
//! their rows takes its part of.
//!
//! Segments put columns in and take them out; `database` makes one cache per process and empties it for a tenant
//! whose key is revoked. The key holds tenant and file, and a file's id is random and never reused, so one
//! tenant can never be handed another's column. It never reads a file.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arrow::array::{Array, ArrayRef};
use parking_lot::Mutex;
use sepal_types::{ColumnId, FileId, TenantId};

use super::FairCache;

/// One column of one segment; `None` is the row ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub tenant: TenantId,
    pub file: FileId,
    pub column: Option<ColumnId>,
}

/// Who leaves first: [`FairCache`].
pub struct ColumnCache {
    held: Mutex<FairCache<(FileId, Option<ColumnId>), ArrayRef>>,
    least_tenant_bytes: usize,
    /// How often something was put in or taken out, for [`super::Near`].
    changes: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Indexes of segments whose files turned out not to open.
    damaged_indexes: AtomicU64,
}

/// Bytes that a tenant holds beside columns, until it is dropped: columns make room for them.
pub struct Counted {
    cache: Arc<ColumnCache>,
    tenant: TenantId,
    bytes: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.cache.held.lock().unpin(self.tenant, self.bytes);
    }
}

impl CacheKey {
    fn within(&self) -> (FileId, Option<ColumnId>) {
        (self.file, self.column)
    }
}

impl ColumnCache {
    pub fn new(budget_bytes: usize) -> Arc<Self> {
        Self::with_tenant_limit(budget_bytes, 0)
    }

    /// `tenant_bytes`: what one tenant may hold of it at most, 0 for all of it.
    pub fn with_tenant_limit(budget_bytes: usize, tenant_bytes: usize) -> Arc<Self> {
        let held = FairCache::new(budget_bytes, tenant_bytes);
        Arc::new(Self {
            least_tenant_bytes: held.least_entry_bytes(),
            held: Mutex::new(held),
            changes: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            damaged_indexes: AtomicU64::new(0),
        })
    }

    /// Bytes held now, those that are only counted included. Readers may hold columns that have left the cache.
    pub fn used_bytes(&self) -> usize {
        self.held.lock().used_bytes()
    }

    /// Of them, a tenant's.
    pub fn tenant_bytes(&self, tenant: TenantId) -> usize {
        self.held.lock().tenant_bytes(tenant)
    }

    pub fn budget_bytes(&self) -> usize {
        self.held.lock().budget_bytes()
    }

    /// Bytes that a tenant's columns may take at most, beside what is counted now.
    pub(crate) fn most_tenant_bytes(&self, tenant: TenantId) -> usize {
        self.held.lock().most_entry_bytes(tenant)
    }

    /// Bytes that any tenant's columns may take, whatever is counted. Takes no lock.
    pub(crate) const fn least_tenant_bytes(&self) -> usize {
        self.least_tenant_bytes
    }

    /// Columns found and not found so far.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// How many index files of segments were found damaged so far.
    pub fn damaged_indexes(&self) -> u64 {
        self.damaged_indexes.load(Ordering::Relaxed)
    }

    pub(crate) fn note_damaged_index(&self) {
        self.damaged_indexes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what a tenant holds of its segments' rows in another form.
    pub fn count(self: &Arc<Self>, tenant: TenantId, bytes: usize) -> Counted {
        self.held.lock().pin(tenant, bytes);
        self.changed();
        Counted { cache: Arc::clone(self), tenant, bytes }
    }

    /// Drops everything of a tenant: its key was revoked, or its store closed.
    pub fn forget_tenant(&self, tenant: TenantId) {
        self.held.lock().forget_tenant(tenant);
        self.changed();
    }

    pub(crate) fn forget_file(&self, tenant: TenantId, file: FileId) {
        let taken = self.held.lock().forget(tenant, |(held, _)| *held == file);
        self.changed();
        drop(taken);
    }

    /// Grows with every change of what is held.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// A column was found without asking.
    pub(crate) fn note_hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<ArrayRef> {
        let found = self.peek(key);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Looks without counting: for the second look of a reader that waited for another one's decoding.
    pub(crate) fn peek(&self, key: &CacheKey) -> Option<ArrayRef> {
        self.held.lock().get(key.tenant, &key.within())
    }

    /// A column larger than the whole budget is not kept: it would empty the cache and leave next.
    pub(crate) fn put(&self, key: CacheKey, array: &ArrayRef) {
        let bytes = array.get_array_memory_size();
        let mut held = self.held.lock();
        if bytes <= held.budget_bytes() {
            held.put(key.tenant, key.within(), Arc::clone(array), bytes);
            self.changed();
        }
    }
}

impl std::fmt::Debug for ColumnCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColumnCache")
            .field("budget_bytes", &self.budget_bytes())
            .field("used_bytes", &self.used_bytes())
            .finish_non_exhaustive()
    }
}
