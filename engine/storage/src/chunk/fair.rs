//! A cache that many tenants share without one emptying another's part.
//!
//! When it is full, a column must leave. It leaves from a tenant that has not asked since the cache could have been
//! filled anew, if there is one, else from the tenant that holds most: whoever is above its fair share (the budget by
//! the tenants that are at work) gives, and one tenant's scan of everything pushes out that tenant's own columns only
//! once it has its share. Within a tenant the least recently used leaves first: of those that were used since the last
//! one was put in, the one that was first, as [`super::Near`] does not ask again before the next is.
//!
//! [`super::ColumnCache`] keeps decoded columns in one, `query` opened indexes. It neither locks nor reads a clock:
//! time is counted in bytes that were put in.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use lru::LruCache;
use sepal_types::TenantId;

/// Entries of a tenant are found by `K`; the bytes of each are told when it is put in.
pub struct FairCache<K: Hash + Eq, V> {
    budget_bytes: usize,
    /// 0: none.
    tenant_bytes: usize,
    tenants: HashMap<TenantId, Share<K, V>>,
    /// Who holds how much, to find who holds most.
    by_bytes: BTreeSet<(usize, TenantId)>,
    /// Tenants by when they asked last, oldest first.
    by_use: LruCache<TenantId, u64>,
    used_bytes: usize,
    /// All bytes ever put in.
    clock: u64,
}

struct Share<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    bytes: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> FairCache<K, V> {
    /// `tenant_bytes`: what one tenant may hold at most, 0 for all of it.
    pub fn new(budget_bytes: usize, tenant_bytes: usize) -> Self {
        Self {
            budget_bytes,
            tenant_bytes,
            tenants: HashMap::new(),
            by_bytes: BTreeSet::new(),
            by_use: LruCache::unbounded(),
            used_bytes: 0,
            clock: 0,
        }
    }

    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Of them, a tenant's.
    pub fn tenant_bytes(&self, tenant: TenantId) -> usize {
        self.tenants.get(&tenant).map_or(0, |share| share.bytes)
    }

    pub fn get(&mut self, tenant: TenantId, key: &K) -> Option<V> {
        let found = self.tenants.get_mut(&tenant)?.entries.get(key).map(|(value, _)| value.clone())?;
        self.by_use.put(tenant, self.clock);
        Some(found)
    }

    /// Keeps a value of that size, at the cost of others. The last one of all stays even if it is larger than the
    /// budget.
    pub fn put(&mut self, tenant: TenantId, key: K, value: V, bytes: usize) {
        self.clock = self.clock.saturating_add(bytes as u64);
        self.by_use.put(tenant, self.clock);
        let share = self.tenants.entry(tenant).or_insert_with(Share::empty);
        let replaced = share.entries.push(key, (value, bytes)).map_or(0, |(_, (_, bytes))| bytes);
        let before = share.bytes;
        share.bytes = before - replaced + bytes;
        let (now, entries) = (share.bytes, share.entries.len());
        self.used_bytes = self.used_bytes - before + now;
        self.reorder(tenant, before, now);
        if self.tenant_bytes > 0 && entries > 1 {
            while self.tenant_bytes(tenant) > self.tenant_bytes && self.entries_of(tenant) > 1 {
                self.evict(tenant);
            }
        }
        while self.used_bytes > self.budget_bytes && self.has_two_entries() {
            let Some(victim) = self.victim() else { break };
            self.evict(victim);
        }
    }

    /// Drops everything of a tenant.
    pub fn forget_tenant(&mut self, tenant: TenantId) {
        if let Some(share) = self.tenants.remove(&tenant) {
            self.used_bytes -= share.bytes;
            self.by_bytes.remove(&(share.bytes, tenant));
            self.by_use.pop(&tenant);
        }
    }

    /// Drops some entries of a tenant.
    pub fn forget(&mut self, tenant: TenantId, gone: impl Fn(&K) -> bool) {
        let Some(share) = self.tenants.get_mut(&tenant) else { return };
        let before = share.bytes;
        let mut freed = 0;
        share.entries.retain(|key, (_, bytes)| {
            let keep = !gone(key);
            if !keep {
                freed += *bytes;
            }
            keep
        });
        share.bytes -= freed;
        let now = share.bytes;
        self.used_bytes -= freed;
        self.reorder(tenant, before, now);
    }

    fn entries_of(&self, tenant: TenantId) -> usize {
        self.tenants.get(&tenant).map_or(0, |share| share.entries.len())
    }

    fn has_two_entries(&self) -> bool {
        self.tenants.len() > 1 || self.tenants.values().any(|share| share.entries.len() > 1)
    }

    /// Whose entry leaves next.
    fn victim(&self) -> Option<TenantId> {
        let idle = self
            .by_use
            .peek_lru()
            .filter(|(_, asked)| self.clock.saturating_sub(**asked) > self.budget_bytes as u64);
        idle.map(|(tenant, _)| *tenant).or_else(|| self.by_bytes.last().map(|(_, tenant)| *tenant))
    }

    fn evict(&mut self, tenant: TenantId) {
        let Some(share) = self.tenants.get_mut(&tenant) else { return };
        let before = share.bytes;
        let evicted = share.entries.pop_lru().map_or(0, |(_, (_, bytes))| bytes);
        share.bytes -= evicted;
        let now = share.bytes;
        self.used_bytes -= evicted;
        self.reorder(tenant, before, now);
    }

    /// Tenants without entries are forgotten.
    fn reorder(&mut self, tenant: TenantId, before: usize, now: usize) {
        self.by_bytes.remove(&(before, tenant));
        if self.entries_of(tenant) == 0 {
            self.tenants.remove(&tenant);
            self.by_use.pop(&tenant);
        } else {
            self.by_bytes.insert((now, tenant));
        }
    }
}

impl<K: Hash + Eq, V> Share<K, V> {
    fn empty() -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u8) -> TenantId {
        TenantId([number; 16])
    }

    fn fill(cache: &mut FairCache<u32, u32>, owner: u8, keys: std::ops::Range<u32>) {
        for key in keys {
            cache.put(tenant(owner), key, key, 10);
        }
    }

    fn held(cache: &mut FairCache<u32, u32>, owner: u8, keys: std::ops::Range<u32>) -> usize {
        keys.filter(|key| cache.get(tenant(owner), key).is_some()).count()
    }

    #[test]
    fn a_scan_does_not_empty_another_tenants_part() {
        let mut cache = FairCache::new(1_000, 0);
        fill(&mut cache, 1, 0..40);
        for round in 0..50 {
            fill(&mut cache, 2, round * 100..(round + 1) * 100);
            assert_eq!(held(&mut cache, 1, 0..40), 40, "it asks, and is within its share");
        }
        assert_eq!(cache.used_bytes(), 1_000);
        assert_eq!(cache.tenant_bytes(tenant(2)), 600);
    }

    #[test]
    fn who_holds_most_gives_first() {
        let mut cache = FairCache::new(1_000, 0);
        fill(&mut cache, 1, 0..100);
        fill(&mut cache, 2, 0..50);
        assert_eq!((cache.tenant_bytes(tenant(1)), cache.tenant_bytes(tenant(2))), (500, 500));
        fill(&mut cache, 3, 0..34);
        for owner in 1..=3 {
            assert!((330..=340).contains(&cache.tenant_bytes(tenant(owner))), "{owner}");
        }
        assert_eq!(held(&mut cache, 1, 0..60), 0, "the least recently used left");
    }

    #[test]
    fn a_tenant_that_went_away_gives_all() {
        let mut cache = FairCache::new(1_000, 0);
        fill(&mut cache, 1, 0..50);
        fill(&mut cache, 2, 0..300);
        assert_eq!(cache.tenant_bytes(tenant(1)), 0, "nobody asked for it since");
        assert_eq!(cache.tenant_bytes(tenant(2)), 1_000);
    }

    #[test]
    fn a_tenants_own_limit_holds_and_one_entry_always_fits() {
        let mut cache = FairCache::new(1_000, 100);
        fill(&mut cache, 1, 0..30);
        assert_eq!(cache.tenant_bytes(tenant(1)), 100);
        cache.put(tenant(1), 99, 99, 5_000);
        assert_eq!(cache.get(tenant(1), &99), Some(99));
        assert_eq!(cache.used_bytes(), 5_000);
        cache.put(tenant(2), 1, 1, 10);
        assert_eq!((cache.tenant_bytes(tenant(1)), cache.used_bytes()), (0, 10));
    }

    #[test]
    fn what_is_forgotten_is_not_counted() {
        let mut cache = FairCache::new(1_000, 0);
        fill(&mut cache, 1, 0..10);
        fill(&mut cache, 1, 0..10);
        assert_eq!(cache.used_bytes(), 100, "replaced, not added");
        cache.forget(tenant(1), |key| key % 2 == 0);
        assert_eq!((cache.used_bytes(), held(&mut cache, 1, 0..10)), (50, 5));
        cache.forget(tenant(1), |_| true);
        fill(&mut cache, 2, 0..3);
        cache.forget_tenant(tenant(2));
        assert_eq!((cache.used_bytes(), cache.tenants.len(), cache.by_bytes.len()), (0, 0, 0));
        assert_eq!(cache.by_use.len(), 0);
    }
}
