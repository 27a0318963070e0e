//! A recovery that ends before the log does: what a restore to a point in time is.

use super::{AsOf, Hands, HistoryPolicy, ITEMS, MINUTE, START, at, keys, made, put, with};
use crate::{
    Fault, FaultInjector, NoBlobs, StoreError, StoreOptions, TenantStore,
    fixtures::{TENANT, copy, files, tenant_key},
};

/// Commits 2 to 9 insert their numbers, one a minute, into several log files after the one manifest.
fn source(dir: &std::path::Path, clock: &std::sync::Arc<Hands>) {
    let options = with(clock, HistoryPolicy::NONE);
    let mut store = made(dir, options.clone());
    for id in 2..10 {
        clock.minutes(1);
        put(&store, ITEMS, &[id]);
        if id % 3 == 0 {
            drop(store);
            store = TenantStore::open(dir, TENANT, tenant_key(), options.clone()).unwrap();
        }
    }
}

#[test]
fn a_recovery_ends_where_it_is_told_to() {
    let origin = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    source(origin.path(), &clock);
    // Commit n is of minute n - 1.
    let moments = (1..10).flat_map(|n| {
        let time = |offset: i64| AsOf::Time(START + (n - 1) * MINUTE + offset);
        let lsn = u64::try_from(n).unwrap();
        [(at(lsn), n), (time(1), n), (time(MINUTE - 1), n)]
    });
    for (moment, last) in moments {
        let dir = tempfile::tempdir().unwrap();
        copy(origin.path(), dir.path());
        let until = StoreOptions { replay_until: Some(moment.clone()), ..with(&clock, HistoryPolicy::NONE) };
        let store = TenantStore::open(dir.path(), TENANT, tenant_key(), until).unwrap();
        assert_eq!(keys(&store.snapshot(), ITEMS), (2..=last).collect::<Vec<_>>(), "{moment:?}");
        // It goes on from there, and opens as any other.
        put(&store, ITEMS, &[100]);
        drop(store);
        let options = with(&clock, HistoryPolicy::NONE);
        let store = TenantStore::open(dir.path(), TENANT, tenant_key(), options).unwrap();
        let expected: Vec<i64> = (2..=last).chain([100]).collect();
        assert_eq!(keys(&store.snapshot(), ITEMS), expected, "{moment:?}");
        store.checkpoint(&NoBlobs).unwrap();
        assert_eq!(keys(&store.snapshot(), ITEMS), expected);
    }
}

#[test]
fn a_moment_that_the_log_does_not_have_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    source(dir.path(), &clock);
    let store =
        TenantStore::open(dir.path(), TENANT, tenant_key(), with(&clock, HistoryPolicy::NONE)).unwrap();
    store.checkpoint(&NoBlobs).unwrap();
    put(&store, ITEMS, &[10]);
    drop(store);
    let before = files(dir.path());
    let refused = |moment: AsOf| {
        let until = StoreOptions { replay_until: Some(moment), ..with(&clock, HistoryPolicy::NONE) };
        let error = TenantStore::open(dir.path(), TENANT, tenant_key(), until).unwrap_err();
        assert_eq!(files(dir.path()), before);
        error
    };
    assert!(matches!(refused(at(8)), StoreError::NoSuchPast { .. }));
    assert!(matches!(refused(AsOf::Time(START)), StoreError::NoSuchPast { .. }));
    assert!(matches!(refused(at(11)), StoreError::NotYet { .. }));
    let named = AsOf::Named { environment: "default".into(), name: "x".into() };
    assert!(matches!(refused(named), StoreError::Bug(_)));
}

/// Copies the directory before every step.
struct Camera(std::path::PathBuf, std::path::PathBuf, parking_lot::Mutex<usize>);

impl FaultInjector for Camera {
    fn before(&self, _: &str, _: usize) -> Result<(), Fault> {
        let mut taken = self.2.lock();
        copy(&self.0, &self.1.join(taken.to_string()));
        *taken += 1;
        Ok(())
    }
}

#[test]
fn a_restore_that_was_cut_short_can_be_begun_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    std::fs::create_dir(&dir).unwrap();
    let clock = Hands::new();
    source(&dir, &clock);
    let moment = AsOf::Time(START + 2 * MINUTE + 7);
    let images = root.path().join("images");
    let camera = std::sync::Arc::new(Camera(dir.clone(), images.clone(), parking_lot::Mutex::new(0)));
    let until = StoreOptions { replay_until: Some(moment), ..with(&clock, HistoryPolicy::NONE) };
    let watched = StoreOptions { fault: Some(std::sync::Arc::clone(&camera) as _), ..until.clone() };
    drop(TenantStore::open(&dir, TENANT, tenant_key(), watched).unwrap());
    let taken = *camera.2.lock();
    assert!(taken > 8, "{taken} steps");
    for image in 0..taken {
        let image = images.join(image.to_string());
        let store = TenantStore::open(&image, TENANT, tenant_key(), until.clone()).unwrap();
        assert_eq!(keys(&store.snapshot(), ITEMS), [2, 3], "{image:?}");
        put(&store, ITEMS, &[50]);
        drop(store);
        let options = with(&clock, HistoryPolicy::NONE);
        let store = TenantStore::open(&image, TENANT, tenant_key(), options).unwrap();
        assert_eq!(keys(&store.snapshot(), ITEMS), [2, 3, 50], "{image:?}");
    }
}
