//! What stays, and for how long: by time, count and bytes; for readers and copies; with a part that cannot be read.

use sepal_types::Lsn;

use super::{
    AsOf, Hands, HistoryPolicy, ITEMS, MINUTE, POLICY, START, at, count, keys, made, put, reopened, take,
    with,
};
use crate::{
    NoBlobs, StoreError, TenantStore,
    fixtures::{TENANT, alarms, copy, files, tenant_key},
};

/// A commit and a checkpoint a minute.
fn minutes(store: &TenantStore, clock: &Hands, ids: std::ops::Range<i64>) {
    for id in ids {
        clock.minutes(1);
        put(store, ITEMS, &[id]);
        store.checkpoint(&NoBlobs).unwrap();
    }
}

#[test]
fn what_is_older_than_the_policys_time_goes() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let policy = HistoryPolicy { keep_us: 10 * MINUTE, keep_versions: 100, ..POLICY };
    let store = made(dir.path(), with(&clock, policy));
    minutes(&store, &clock, 0..30);
    // Ten minutes need eleven moments: the eleventh is what was there when the ten began.
    let span = store.history();
    assert_eq!((span.oldest_us, span.oldest_lsn, span.versions), (START + 20 * MINUTE, Lsn(21), 10));
    assert_eq!((count(dir.path(), "manifest"), count(dir.path(), "wal")), (11, 11));
    assert_eq!(span.bytes, store.stats().history_bytes);
    assert!(!store.has_expired_history() && !store.wants_checkpoint());
    let horizon = store.snapshot_as_of(&AsOf::Time(clock.now() - policy.keep_us)).unwrap();
    assert_eq!(keys(&horizon, ITEMS), (0..20).collect::<Vec<_>>());
    let older = store.snapshot_as_of(&AsOf::Time(START + 20 * MINUTE - 1)).unwrap_err();
    assert!(matches!(older, StoreError::NoSuchPast { .. }), "{older}");
    // Nobody writes any more: time passes all the same.
    drop(horizon);
    clock.minutes(5);
    assert!(store.has_expired_history());
    assert!(store.trim_history().unwrap() > 0);
    assert_eq!(store.history().versions, 5);
    clock.minutes(60);
    store.trim_history().unwrap();
    assert_eq!((count(dir.path(), "manifest"), count(dir.path(), "wal"), store.history().bytes), (1, 1, 0));
    assert!(!store.has_expired_history());
    drop(store);
    assert_eq!(
        keys(&reopened(dir.path(), with(&clock, policy)).snapshot(), ITEMS),
        (0..30).collect::<Vec<_>>()
    );
}

#[test]
fn no_more_versions_stay_than_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    minutes(&store, &clock, 0..20);
    assert_eq!((store.history().versions, count(dir.path(), "manifest")), (5, 6));
    assert_eq!(store.history().oldest_lsn, Lsn(16));
    assert!(store.snapshot_as_of(&at(15)).is_err());
    assert_eq!(keys(&store.snapshot_as_of(&at(16)).unwrap(), ITEMS), (0..15).collect::<Vec<_>>());
    drop(store);
    // Another setting counts from the next opening on.
    let store = reopened(dir.path(), with(&clock, HistoryPolicy { keep_versions: 2, ..POLICY }));
    assert_eq!((store.history().versions, count(dir.path(), "manifest")), (2, 3));
}

#[test]
fn the_oldest_goes_when_the_past_takes_too_much_room() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    minutes(&store, &clock, 0..4);
    let all = store.history();
    drop(store);
    let less = HistoryPolicy { max_bytes: all.bytes - 1, ..POLICY };
    let warned = alarms(|| {
        let store = reopened(dir.path(), with(&clock, less));
        let span = store.history();
        assert_eq!((span.versions, span.oldest_lsn), (all.versions - 1, Lsn(2)));
        assert_eq!(all.oldest_lsn, Lsn(0));
        assert!(span.bytes < all.bytes);
    });
    assert_eq!(warned.len(), 1, "{warned:?}");
}

#[test]
fn forgetting_leaves_nothing_that_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    put(&store, ITEMS, &(0..100).collect::<Vec<_>>());
    store.checkpoint(&NoBlobs).unwrap();
    take(&store, ITEMS, &(0..50).collect::<Vec<_>>());
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(count(dir.path(), "parquet"), 2, "the deleted rows are history");
    let bytes = store.history().bytes;
    assert!(bytes > 0);
    assert!(store.forget_history().unwrap() >= bytes, "the manifests count as well");
    assert_eq!(
        (count(dir.path(), "parquet"), count(dir.path(), "manifest"), count(dir.path(), "wal")),
        (1, 1, 1)
    );
    assert_eq!((store.history().versions, store.history().bytes), (0, 0));
    assert!(store.snapshot_as_of(&at(2)).is_err());
    assert_eq!(keys(&store.snapshot(), ITEMS), (50..100).collect::<Vec<_>>());
}

#[test]
fn a_reader_of_the_past_keeps_what_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    put(&store, ITEMS, &(0..100).collect::<Vec<_>>());
    store.checkpoint(&NoBlobs).unwrap();
    take(&store, ITEMS, &(0..50).collect::<Vec<_>>());
    store.checkpoint(&NoBlobs).unwrap();
    let then = store.snapshot_as_of(&at(2)).unwrap();
    store.forget_history().unwrap();
    store.cache.forget_tenant(TENANT);
    assert_eq!(count(dir.path(), "parquet"), 2);
    assert_eq!(keys(&then, ITEMS), (0..100).collect::<Vec<_>>());
    drop(then);
    assert_eq!(count(dir.path(), "parquet"), 1);
}

#[test]
fn a_copy_is_whole_whatever_goes_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, HistoryPolicy::NONE));
    put(&store, ITEMS, &(0..100).collect::<Vec<_>>());
    take(&store, ITEMS, &[3]);
    store.create_snapshot(&NoBlobs, "default", "before", "ada", None).unwrap();
    take(&store, ITEMS, &(10..60).collect::<Vec<_>>());
    store.checkpoint(&NoBlobs).unwrap();
    put(&store, ITEMS, &[200]);
    let pin = store.pin_manifest().unwrap();
    assert_eq!((pin.lsn, pin.wal_from), (Lsn(4), store.log_end().file));
    put(&store, ITEMS, &(300..400).collect::<Vec<_>>());
    store.drop_snapshot("default", "before").unwrap();
    store.checkpoint(&NoBlobs).unwrap();
    let target = tempfile::tempdir().unwrap();
    for folder in ["manifest", "wal", "segments"] {
        std::fs::create_dir(target.path().join(folder)).unwrap();
    }
    for file in &pin.files {
        let bytes = std::fs::copy(dir.path().join(&file.path), target.path().join(&file.path)).unwrap();
        assert_eq!(bytes, file.bytes, "{file:?}");
    }
    let log = crate::paths::Paths::new(target.path()).wal_file(pin.wal_from);
    std::fs::copy(dir.path().join("wal").join(log.file_name().unwrap()), log).unwrap();
    let restored = reopened(target.path(), with(&clock, HistoryPolicy::NONE));
    let last = *keys(&restored.snapshot(), ITEMS).last().unwrap();
    assert_eq!(last, 399, "the log of its time is kept too");
    let before = AsOf::Named { environment: "default".into(), name: "before".into() };
    assert_eq!(keys(&restored.snapshot_as_of(&before).unwrap(), ITEMS).len(), 99);

    let held = count(dir.path(), "manifest");
    drop(pin);
    store.checkpoint(&NoBlobs).unwrap();
    assert!(held > 1 && count(dir.path(), "manifest") == 1);
    assert_eq!(store.history().bytes, 0);
}

#[test]
fn a_part_that_cannot_be_read_is_told_and_stops_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    minutes(&store, &clock, 0..4);
    drop(store);
    let manifests: Vec<_> = files(&dir.path().join("manifest")).into_keys().collect();
    assert_eq!(manifests.len(), 5);
    for (damaged, whole) in [(0, [false, true, true]), (2, [true, true, true])] {
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        let name = manifests[damaged].file_name().unwrap();
        let path = image.path().join("manifest").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let data = files(&image.path().join("segments"));
        let options = with(&clock, POLICY);
        let store = TenantStore::open(image.path(), TENANT, tenant_key(), options).unwrap();
        assert_eq!(files(&image.path().join("segments")), data, "what it names nobody knows");
        for (lsn, whole) in [1, 3, 4].into_iter().zip(whole) {
            match store.snapshot_as_of(&at(lsn)) {
                Ok(found) => assert!(whole && found.lsn() == Lsn(lsn)),
                Err(StoreError::Corrupt { file, .. }) => {
                    assert!(!whole && file.ends_with(&*name.to_string_lossy()), "{file}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        store.release_unheld_log().unwrap();
        clock.minutes(100);
        put(&store, ITEMS, &[100]);
        store.checkpoint(&NoBlobs).unwrap();
        clock.minutes(100);
        store.trim_history().unwrap();
        assert_eq!(count(image.path(), "manifest"), 1, "its time is over as well");
        assert_eq!(store.history().bytes, 0);
        clock.minutes(-200);
    }
}

/// A drive that refuses one reading keeps room, and a name from being asked for, until the next collection only.
#[test]
fn what_can_be_read_again_is_history_again() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, HistoryPolicy::NONE));
    put(&store, ITEMS, &(0..100).collect::<Vec<_>>());
    let named = store.create_snapshot(&NoBlobs, "default", "before", "ada", None).unwrap();
    take(&store, ITEMS, &(0..50).collect::<Vec<_>>());
    store.checkpoint(&NoBlobs).unwrap();
    drop(store);
    let manifests: Vec<_> = files(&dir.path().join("manifest")).into_keys().collect();
    let [named_manifest, _] = &manifests[..] else { panic!("{manifests:?}") };
    let whole = std::fs::read(named_manifest).unwrap();
    std::fs::write(named_manifest, b"nothing that opens").unwrap();
    // What a crash left: nobody names it.
    let segments = dir.path().join("segments");
    let orphan = segments.join(format!("{}.index", "a".repeat(32)));
    std::fs::write(&orphan, b"an index of nothing").unwrap();

    let store = reopened(dir.path(), with(&clock, HistoryPolicy::NONE));
    let before = AsOf::Named { environment: "default".into(), name: "before".into() };
    put(&store, ITEMS, &[200]);
    store.checkpoint(&NoBlobs).unwrap();
    assert!(orphan.exists(), "it may be of the manifest that nobody can read");
    assert!(matches!(store.snapshot_as_of(&before), Err(StoreError::Corrupt { .. })));
    std::fs::write(named_manifest, whole).unwrap();
    put(&store, ITEMS, &[201]);
    store.checkpoint(&NoBlobs).unwrap();
    assert!(!orphan.exists());
    let then = store.snapshot_as_of(&before).unwrap();
    assert_eq!((keys(&then, ITEMS), then.lsn()), ((0..100).collect::<Vec<_>>(), named.lsn));
    drop(then);
    store.drop_snapshot("default", "before").unwrap();
    assert_eq!(count(dir.path(), "manifest"), 1, "and it goes as others do");
}
