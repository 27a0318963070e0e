//! Room on the device for merges that nobody waits for: they leave free what commits and flushes of all tenants need.
//!
//! VACUUM does not ask: it is how rows that were deleted give their room back.

use crate::{TenantStore, files::reserve_bytes};

impl TenantStore {
    /// Of rows, uncompressed, that a merge may write now: half of what is free above the reserve. The other half is for
    /// the indexes, and for what others write meanwhile.
    pub fn room_for_merge(&self) -> u64 {
        match self.disk.device(&self.paths.segments()) {
            Some((free, total)) => free.saturating_sub(reserve_bytes(total)) / 2,
            None => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicU64, AtomicUsize, Ordering},
        },
    };

    use sepal_types::TableId;

    use crate::{
        CompactionLimits, Freely, NoBlobs, Op, Pace, Rewrite, StoreOptions, TenantStore,
        files::RESERVE_BYTES,
        fixtures::{TENANT, Watch, Watched, batch_of, commit, ids, items, options, tenant_key},
    };

    const ITEMS: TableId = TableId(20_000);
    const MIB: u64 = 1 << 20;

    struct Device {
        free: AtomicU64,
    }

    impl Watch for Device {
        fn device(&self) -> io::Result<(u64, u64)> {
            Ok((self.free.load(Ordering::Relaxed), 1 << 40))
        }
    }

    #[derive(Default)]
    struct Told(AtomicUsize);

    impl Pace for Told {
        fn held_back(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Rows of 400 KiB, three in a segment of their own.
    fn segment(store: &TenantStore, first: i64) {
        let ids = [first, first + 1, first + 2];
        let labels: Vec<String> = ids.iter().map(|id| format!("{id} {}", "x".repeat(400 << 10))).collect();
        let first_row = store.reserve_rows(ITEMS, 3);
        commit(store, vec![Op::Insert { table: ITEMS, first_row, rows: batch_of(&ids, &labels) }]);
        store.checkpoint(&NoBlobs).unwrap();
    }

    #[test]
    fn a_merge_leaves_the_reserve_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let device = Arc::new(Device { free: AtomicU64::new(RESERVE_BYTES + 2 * MIB) });
        let options = StoreOptions { files: Arc::new(Watched(Arc::clone(&device))), ..options() };
        let store = TenantStore::create(dir.path(), TENANT, tenant_key(), options).unwrap();
        commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
        (0..5).for_each(|part| segment(&store, part * 3));
        let told = Told::default();
        let limits = CompactionLimits { pace: &told, ..CompactionLimits::default() };
        assert_eq!(store.compact(&NoBlobs, limits).unwrap(), None, "1 MiB of rows at most");
        assert!(store.wants_compaction());
        assert_eq!(told.0.load(Ordering::Relaxed), 1);
        device.free.store(1, Ordering::Relaxed);
        assert_eq!(store.compact(&NoBlobs, limits).unwrap(), None);

        // Two of the five fit.
        device.free.store(RESERVE_BYTES + 6 * MIB, Ordering::Relaxed);
        let done = store.compact(&NoBlobs, limits).unwrap().unwrap();
        assert_eq!((done.segments_read, told.0.load(Ordering::Relaxed)), (2, 2));
        assert!(!store.wants_compaction());
        assert_eq!(store.compact(&NoBlobs, limits).unwrap(), None);
        assert_eq!(told.0.load(Ordering::Relaxed), 2, "nothing is held back");

        device.free.store(0, Ordering::Relaxed);
        let groups = store.segments_to_merge(ITEMS, Rewrite::All);
        assert!(store.merge(ITEMS, &groups[0], &NoBlobs, &Freely).unwrap().is_some(), "VACUUM FULL");
        assert_eq!(ids(&store, 20_000), (0..15).collect::<Vec<_>>());
    }
}
