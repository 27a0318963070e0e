//! Named snapshots: they stay, and go with what only they kept.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{AsOf, Hands, HistoryPolicy, ITEMS, count, keys, made, put, reopened, take, with};
use crate::{
    Fault, FaultInjector, NoBlobs, Op, StoreError, StoreOptions,
    fixtures::{Blobs, commit, files, items, valid},
};

fn named(name: &str) -> AsOf {
    AsOf::Named { environment: "default".into(), name: name.into() }
}

#[test]
fn a_name_keeps_a_table_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let options = with(&clock, HistoryPolicy::NONE);
    let store = made(dir.path(), options.clone());
    commit(&store, vec![Op::AlterTable(valid(items(20_000, "items")))]);
    put(&store, ITEMS, &(0..100).collect::<Vec<_>>());
    take(&store, ITEMS, &[7]);
    store.checkpoint(&Blobs).unwrap();
    take(&store, ITEMS, &[8]);
    clock.minutes(3);
    let made = store.create_snapshot(&Blobs, "default", "before", "ada", Some("the first import")).unwrap();
    assert_eq!((made.rows, made.lsn, made.created_us), (98, store.snapshot().lsn(), clock.now()));
    assert_eq!((made.by.as_str(), made.comment.as_deref(), made.bytes), ("ada", Some("the first import"), 0));
    commit(&store, vec![Op::DropTable(ITEMS)]);
    store.checkpoint(&Blobs).unwrap();
    store.forget_history().unwrap();
    let expected: Vec<i64> = (0..100).filter(|id| ![7, 8].contains(id)).collect();
    let mut store = store;
    for _ in 0..2 {
        assert!(store.snapshot().table(ITEMS).is_none());
        let then = store.snapshot_as_of(&named("before")).unwrap();
        assert_eq!((then.lsn(), then.time_us()), (made.lsn, made.time_us));
        assert_eq!(keys(&then, ITEMS), expected);
        let version = then.table(ITEMS).unwrap();
        let blob = version.chunks[0].chunk.index_blob(version.def.indexes[0].id);
        assert_eq!(blob.unwrap().unwrap(), Blobs::BYTES, "its index is kept, too");
        let listed = store.snapshots();
        assert_eq!(listed.len(), 1);
        let segments: u64 =
            files(&dir.path().join("segments")).values().map(|bytes| bytes.len() as u64).sum();
        assert_eq!(listed[0].bytes, segments, "nobody else needs a data file any more");
        drop(then);
        drop(store);
        store = reopened(dir.path(), options.clone());
    }
    store.drop_snapshot("default", "before").unwrap();
    assert!(files(&dir.path().join("segments")).is_empty());
    assert_eq!(count(dir.path(), "manifest"), 1);
    let gone = store.snapshot_as_of(&named("before")).unwrap_err();
    assert_eq!(gone, StoreError::NoSuchSnapshot { name: "before".into() });
}

#[test]
fn names_are_of_their_environment() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, HistoryPolicy::NONE));
    put(&store, ITEMS, &[1]);
    let create =
        |environment: &str, name: &str| store.create_snapshot(&NoBlobs, environment, name, "ada", None);
    create("default", "a").unwrap();
    put(&store, ITEMS, &[2]);
    assert_eq!(create("staging", "a").unwrap().rows, 0, "it has no table");
    create("default", "b").unwrap();
    let taken = create("default", "a").unwrap_err();
    assert_eq!(taken, StoreError::DuplicateSnapshot { name: "a".into() });
    let listed: Vec<_> = store
        .snapshots()
        .into_iter()
        .map(|snapshot| (snapshot.environment, snapshot.name, snapshot.rows))
        .collect();
    let expected = [("default", "a", 1), ("default", "b", 2), ("staging", "a", 0)];
    assert_eq!(
        listed,
        expected.map(|(environment, name, rows)| (environment.to_owned(), name.to_owned(), rows))
    );
    assert!(store.drop_snapshot("staging", "b").is_err());
    store.drop_snapshot("staging", "a").unwrap();
    assert_eq!(keys(&store.snapshot_as_of(&named("a")).unwrap(), ITEMS), [1]);
    assert_eq!(keys(&store.snapshot_as_of(&named("b")).unwrap(), ITEMS), [1, 2]);
    // Dropped and made anew it is another one.
    store.drop_snapshot("default", "a").unwrap();
    create("default", "a").unwrap();
    assert_eq!(keys(&store.snapshot_as_of(&named("a")).unwrap(), ITEMS), [1, 2]);
}

#[test]
fn a_named_snapshot_that_cannot_be_read_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let options = with(&clock, HistoryPolicy::NONE);
    let store = made(dir.path(), options.clone());
    put(&store, ITEMS, &[1]);
    store.create_snapshot(&NoBlobs, "default", "before", "ada", None).unwrap();
    let path = files(&dir.path().join("manifest")).into_keys().next_back().unwrap();
    commit(&store, vec![Op::DropTable(ITEMS)]);
    store.checkpoint(&NoBlobs).unwrap();
    drop(store);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let store = reopened(dir.path(), options.clone());
    let error = store.snapshot_as_of(&named("before")).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { file, .. } if path.ends_with(file)), "{error}");
    put_elsewhere(&store);
    drop(store);
    std::fs::write(&path, bytes).unwrap();
    let store = reopened(dir.path(), options);
    assert_eq!(keys(&store.snapshot_as_of(&named("before")).unwrap(), ITEMS), [1]);
}

/// A directory of manifests that does not become durable, for want of room.
struct Full(AtomicBool);

impl FaultInjector for Full {
    fn before(&self, point: &str, _: usize) -> Result<(), Fault> {
        if point == "manifest.sync_directory" && self.0.load(Ordering::SeqCst) {
            return Err(Fault { error: io::Error::from_raw_os_error(libc::ENOSPC), written: 0 });
        }
        Ok(())
    }
}

#[test]
fn a_name_that_may_be_there_is_not_to_be_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let options = with(&clock, HistoryPolicy::NONE);
    drop(made(dir.path(), options.clone()));
    let full = Arc::new(Full(AtomicBool::new(false)));
    let fault = Arc::clone(&full) as Arc<dyn FaultInjector>;
    let store = reopened(dir.path(), StoreOptions { fault: Some(fault), ..options.clone() });
    // The next manifest is the one with the name.
    store.checkpoint(&NoBlobs).unwrap();
    full.0.store(true, Ordering::SeqCst);
    let failed = store.create_snapshot(&NoBlobs, "default", "before", "ada", None).unwrap_err();
    assert!(matches!(failed, StoreError::Poisoned { .. }), "{failed}");
    drop(store);
    assert_eq!(reopened(dir.path(), options).snapshots().len(), 1);
}

fn put_elsewhere(store: &crate::TenantStore) {
    commit(store, vec![Op::CreateTable(items(20_200, "others"))]);
    put(store, sepal_types::TableId(20_200), &[5]);
    store.checkpoint(&NoBlobs).unwrap();
    store.forget_history().unwrap();
}
