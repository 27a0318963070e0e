//! The tenant's key: what it opens afterwards, and what it waits for.

use sepal_crypto::{Key, KeyRing};

use super::{
    Blobs, COPY, ITEMS, Writer, before, both, check_indexes, data_files, made, new_key, none, put, reopen,
    shown, valid,
};
use crate::{
    StoreError,
    fixtures::{commit, ids, items, tenant_key},
};

#[test]
fn after_it_the_new_key_alone_opens_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    let (rows, named, files) = (shown(&store.snapshot()), before(&store), data_files(dir.path()));
    assert_eq!(store.key_use().unwrap(), none(), "there is no older key yet");
    assert_eq!(store.rewrap(both(), &Blobs).unwrap(), none());
    let written = data_files(dir.path());
    let kept = files.intersection(&written).count();
    assert!(kept >= 3, "no data is written anew: {kept} of {files:?}");
    store.forget_older_keys();
    assert_eq!(store.key_use().unwrap(), none());
    put(&store, COPY, &[2_000]);
    drop(store);
    let old = reopen(dir.path(), tenant_key()).unwrap_err();
    assert!(matches!(old, StoreError::Corrupt { .. }), "{old}");
    let store = reopen(dir.path(), new_key()).unwrap();
    assert_eq!(shown(&store.snapshot())["items"], rows["items"]);
    assert_eq!(ids(&store, COPY.0).last(), Some(&2_000));
    assert_eq!(before(&store), named);
    check_indexes(&store.snapshot());
    // Twice more: what a segment in memory says of its key is two keys old.
    let key = |byte| Key::from_bytes([byte; 32]);
    for ring in [KeyRing::new(key(11), vec![new_key()]), KeyRing::new(key(12), vec![key(11)])] {
        assert_eq!(store.rewrap(ring, &Blobs).unwrap(), none());
        store.forget_older_keys();
    }
    let ops = store.clone_ops(&store.snapshot(), ITEMS, valid(items(20_200, "third"))).unwrap();
    commit(&store, ops);
    drop(store);
    let store = reopen(dir.path(), key(12)).unwrap();
    assert_eq!(shown(&store.snapshot())["third"], rows["items"]);
    assert_eq!(before(&store), named);
    store.checkpoint(&Blobs).unwrap();
    check_indexes(&store.snapshot());
}

#[test]
fn a_ring_without_the_present_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    let refused = store.rewrap(new_key().into(), &Blobs).unwrap_err();
    assert!(matches!(refused, StoreError::Bug(_)), "{refused}");
    put(&store, ITEMS, &[7_000]);
    drop(store);
    assert!(ids(&reopen(dir.path(), tenant_key()).unwrap(), ITEMS.0).contains(&7_000));
}

#[test]
fn what_somebody_needs_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    let pin = store.pin_manifest().unwrap();
    let hold = store.hold_log(store.snapshot().lsn()).unwrap();
    put(&store, ITEMS, &[1_001]);
    let named = before(&store);
    let left = store.rewrap(both(), &Blobs).unwrap();
    assert!(left.manifests >= 2 && left.log_files >= 1, "the pinned ones and their log: {left:?}");
    // Both keys are there: a crash now is no trouble.
    let expected = shown(&store.snapshot());
    drop(pin);
    let left = store.rewrap(both(), &Blobs).unwrap();
    assert_eq!((left.manifests, left.log_files), (0, 1), "the log that the pipeline reads");
    let manifest = crate::fixtures::files(&dir.path().join("manifest"));
    assert_eq!(store.rewrap(both(), &Blobs).unwrap(), left);
    assert_eq!(crate::fixtures::files(&dir.path().join("manifest")), manifest, "nothing is done twice");
    hold.advance(store.snapshot().lsn());
    assert_eq!(store.rewrap(both(), &Blobs).unwrap(), none());
    assert_eq!(before(&store), named);
    drop((hold, store));
    assert_eq!(shown(&reopen(dir.path(), new_key()).unwrap().snapshot()), expected);
}

#[test]
fn a_clone_from_before_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    let def = valid(items(20_200, "late"));
    let ops = store.clone_ops(&store.snapshot(), COPY, def.clone()).unwrap();
    store.rewrap(both(), &Blobs).unwrap();
    let late = store.commit(&store.snapshot(), ops).unwrap_err();
    assert_eq!(late, StoreError::WriteConflict { table: "late".into() });
    let ops = store.clone_ops(&store.snapshot(), COPY, def).unwrap();
    commit(&store, ops);
    let expected = shown(&store.snapshot());
    drop(store);
    // From the log.
    assert_eq!(shown(&reopen(dir.path(), new_key()).unwrap().snapshot()), expected);
}

#[test]
fn writers_go_on_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    let writer = Writer::start(&store, |_, _| {});
    let mut keys = vec![tenant_key()];
    for round in 0..4 {
        let new = Key::from_bytes([20 + round; 32]);
        let ring = KeyRing::new(new.clone(), keys.clone());
        assert_eq!(store.rewrap(ring, &Blobs).unwrap(), none(), "round {round}");
        keys = vec![new];
    }
    let last = writer.end();
    let expected = shown(&store.snapshot());
    assert!(expected["items"].contains_key(&last));
    drop(store);
    assert_eq!(shown(&reopen(dir.path(), keys.remove(0)).unwrap().snapshot()), expected);
}
