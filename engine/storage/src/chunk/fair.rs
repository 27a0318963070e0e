//! A cache that many tenants share without one emptying another's part.
//!
//! When it is full, a column must leave. It leaves from a tenant that has not asked since the cache could have been
//! filled anew, if there is one, else from the tenant that holds most: whoever is above its fair share (the budget by
//! the tenants that are at work) gives, and one tenant's scan of everything pushes out that tenant's own columns only
//! once it has its share. Within a tenant the least recently used leaves first: of those that were used since the last
//! one was put in, the one that was first, as [`super::Near`] does not ask again before the next is.
//!
//! What a tenant holds beside and cannot give back is counted ([`FairCache::pin`]): entries make room for it, those of
//! who pinned it first, but half of the budget is theirs whatever is pinned.
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
    /// Who holds how much, what is pinned included, of those who have entries: to find who holds most.
    by_bytes: BTreeSet<(usize, TenantId)>,
    /// Tenants by when they asked last, oldest first.
    by_use: LruCache<TenantId, u64>,
    /// By entries.
    used_bytes: usize,
    pinned: HashMap<TenantId, usize>,
    pinned_bytes: usize,
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
            pinned: HashMap::new(),
            pinned_bytes: 0,
            clock: 0,
        }
    }

    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// Bytes held now, what is pinned included.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes + self.pinned_bytes
    }

    /// Of them, a tenant's.
    pub fn tenant_bytes(&self, tenant: TenantId) -> usize {
        self.entry_bytes(tenant) + self.pinned_by(tenant)
    }

    /// What a tenant's entries may take at most, whoever else has some.
    pub fn most_entry_bytes(&self, tenant: TenantId) -> usize {
        let of_all = self.budget_bytes - self.pinned_bytes.min(self.budget_bytes / 2);
        match self.tenant_bytes {
            0 => of_all,
            limit => of_all.min(limit - self.pinned_by(tenant).min(limit / 2)),
        }
    }

    /// What any tenant's entries may take, whatever is pinned: the least that [`Self::most_entry_bytes`] gives.
    pub fn least_entry_bytes(&self) -> usize {
        let of_all = self.budget_bytes - self.budget_bytes / 2;
        match self.tenant_bytes {
            0 => of_all,
            limit => of_all.min(limit - limit / 2),
        }
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
        let now = share.bytes;
        self.used_bytes = self.used_bytes - before + now;
        self.reorder(tenant, before, now);
        self.make_room(tenant);
    }

    /// A tenant holds so many bytes that are no entries, until they are unpinned.
    pub fn pin(&mut self, tenant: TenantId, bytes: usize) {
        let before = self.pinned_by(tenant);
        self.set_pinned(tenant, before.saturating_add(bytes));
        self.make_room(tenant);
    }

    pub fn unpin(&mut self, tenant: TenantId, bytes: usize) {
        let before = self.pinned_by(tenant);
        self.set_pinned(tenant, before.saturating_sub(bytes));
    }

    /// What a tenant has entries of.
    pub fn keys(&self, tenant: TenantId) -> impl Iterator<Item = &K> {
        self.tenants.get(&tenant).into_iter().flat_map(|share| share.entries.iter().map(|(key, _)| key))
    }

    /// Drops everything of a tenant.
    pub fn forget_tenant(&mut self, tenant: TenantId) {
        if let Some(share) = self.tenants.remove(&tenant) {
            self.used_bytes -= share.bytes;
            self.by_bytes.remove(&(share.bytes + self.pinned_by(tenant), tenant));
            self.by_use.pop(&tenant);
        }
    }

    /// Takes out some entries of a tenant. Whoever holds a lock drops them once he has given it back.
    pub fn forget(&mut self, tenant: TenantId, gone: impl Fn(&K) -> bool) -> Vec<V> {
        let Some(share) = self.tenants.get_mut(&tenant) else { return Vec::new() };
        let before = share.bytes;
        let (mut freed, mut taken) = (0, Vec::new());
        share.entries.retain(|key, (value, bytes)| {
            let keep = !gone(key);
            if !keep {
                freed += *bytes;
                taken.push(value.clone());
            }
            keep
        });
        share.bytes -= freed;
        let now = share.bytes;
        self.used_bytes -= freed;
        self.reorder(tenant, before, now);
        taken
    }

    fn entry_bytes(&self, tenant: TenantId) -> usize {
        self.tenants.get(&tenant).map_or(0, |share| share.bytes)
    }

    fn pinned_by(&self, tenant: TenantId) -> usize {
        self.pinned.get(&tenant).copied().unwrap_or(0)
    }

    fn set_pinned(&mut self, tenant: TenantId, bytes: usize) {
        let (before, entries) = (self.pinned_by(tenant), self.entry_bytes(tenant));
        self.pinned_bytes = self.pinned_bytes - before + bytes;
        if bytes > 0 {
            self.pinned.insert(tenant, bytes);
        } else {
            self.pinned.remove(&tenant);
        }
        if self.by_bytes.remove(&(entries + before, tenant)) {
            self.by_bytes.insert((entries + bytes, tenant));
        }
    }

    /// A tenant got more. Its last entry stays, and so does the last one of all.
    fn make_room(&mut self, tenant: TenantId) {
        let limit = self.tenant_bytes;
        let pinned = self.pinned_by(tenant).min(limit / 2);
        while limit > 0 && self.entry_bytes(tenant) + pinned > limit && self.entries_of(tenant) > 1 {
            self.evict(tenant);
        }
        let pinned = self.pinned_bytes.min(self.budget_bytes / 2);
        while self.used_bytes + pinned > self.budget_bytes && self.has_two_entries() {
            let Some(victim) = self.victim() else { break };
            self.evict(victim);
        }
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

    /// The tenant's entries had and have so many bytes. Tenants without entries are forgotten.
    fn reorder(&mut self, tenant: TenantId, before: usize, now: usize) {
        let pinned = self.pinned_by(tenant);
        self.by_bytes.remove(&(before + pinned, tenant));
        if self.entries_of(tenant) == 0 {
            self.tenants.remove(&tenant);
            self.by_use.pop(&tenant);
        } else {
            self.by_bytes.insert((now + pinned, tenant));
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
    fn entries_have_what_is_not_pinned_but_half_at_least() {
        let mut cache: FairCache<u32, u32> = FairCache::new(1_000, 400);
        assert_eq!(cache.most_entry_bytes(tenant(1)), 400);
        cache.pin(tenant(1), 100);
        assert_eq!((cache.most_entry_bytes(tenant(1)), cache.most_entry_bytes(tenant(2))), (300, 400));
        cache.pin(tenant(1), 700);
        assert_eq!((cache.most_entry_bytes(tenant(1)), cache.most_entry_bytes(tenant(2))), (200, 400));
        assert_eq!(cache.least_entry_bytes(), 200);
        let mut cache: FairCache<u32, u32> = FairCache::new(1_000, 0);
        cache.pin(tenant(1), 300);
        assert_eq!(cache.most_entry_bytes(tenant(2)), 700);
        cache.pin(tenant(2), 300);
        assert_eq!(cache.most_entry_bytes(tenant(1)), 500);
        assert_eq!(cache.least_entry_bytes(), 500);
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
        let mut taken = cache.forget(tenant(1), |key| key % 2 == 0);
        taken.sort_unstable();
        assert_eq!(taken, [0, 2, 4, 6, 8]);
        assert_eq!((cache.used_bytes(), held(&mut cache, 1, 0..10)), (50, 5));
        assert_eq!(cache.forget(tenant(1), |_| true).len(), 5);
        fill(&mut cache, 2, 0..3);
        cache.forget_tenant(tenant(2));
        assert_eq!((cache.used_bytes(), cache.tenants.len(), cache.by_bytes.len()), (0, 0, 0));
        assert_eq!(cache.by_use.len(), 0);
    }

    #[test]
    fn what_is_pinned_takes_room_from_who_pinned_it_first() {
        let mut cache = FairCache::new(1_000, 0);
        fill(&mut cache, 1, 0..50);
        fill(&mut cache, 2, 0..50);
        cache.pin(tenant(1), 200);
        assert_eq!(cache.used_bytes(), 1_000);
        assert_eq!((cache.tenant_bytes(tenant(1)), cache.tenant_bytes(tenant(2))), (500, 500));
        assert_eq!(held(&mut cache, 1, 0..50), 30);
        cache.pin(tenant(1), 10_000);
        assert_eq!(cache.tenant_bytes(tenant(1)), 10_200, "all that it has left is pinned");
        assert_eq!(held(&mut cache, 2, 0..50), 50, "half of the budget is for entries in any case");
        cache.unpin(tenant(1), 10_000);
        cache.unpin(tenant(1), 200);
        fill(&mut cache, 1, 0..50);
        assert_eq!((cache.used_bytes(), cache.tenant_bytes(tenant(1))), (1_000, 500));
        cache.pin(tenant(2), 10);
        cache.forget_tenant(tenant(2));
        assert_eq!((cache.used_bytes(), cache.by_bytes.len()), (510, 1));
        cache.unpin(tenant(2), 10);
        assert_eq!((cache.used_bytes(), cache.pinned.len()), (500, 0));
    }

    #[test]
    fn what_is_pinned_counts_within_a_tenants_own_limit() {
        let mut cache = FairCache::new(1_000, 100);
        fill(&mut cache, 1, 0..10);
        cache.pin(tenant(1), 30);
        assert_eq!((held(&mut cache, 1, 0..10), cache.tenant_bytes(tenant(1))), (7, 100));
        cache.pin(tenant(1), 300);
        assert_eq!(held(&mut cache, 1, 0..10), 5);
    }
}
