//! The files' keys: what is copied, what is left alone, and when it is over.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use arrow::array::ArrayRef;
use sepal_types::{IndexDef, LogEnd, TableDef, TableId};

use super::{
    Blobs, COPY, ITEMS, Writer, before, both, check_indexes, data_files, made, put, rekeyed, reopen, shown,
    take, valid,
};
use crate::{
    BlobChecker, CheckOptions, Freely, Op, Pace, Phase, Rewrite, StoreError, TenantStore,
    check::tests::Heard,
    fixtures::{TENANT, commit, files, ids, items, options, tenant_key},
};

#[test]
fn no_file_stays_and_every_row_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    let (rows, named, old) = (shown(&store.snapshot()), before(&store), data_files(dir.path()));
    let begun = store.begin_file_rotation(&Blobs).unwrap();
    assert!(begun.running && begun.generation == 1 && begun.files >= 5, "{begun:?}");
    assert_eq!(store.begin_file_rotation(&Blobs).unwrap().generation, 1, "it is under way");
    // Deleted while it goes on: in the log, then in a deletion vector.
    take(&store, ITEMS, &[10]);
    let step = store.rotate_file_keys(&Blobs, &Freely).unwrap();
    assert!(step.bytes_written > 0 && step.rotation.files_left < begun.files, "{step:?}");
    take(&store, ITEMS, &[11]);
    take(&store, COPY, &[12]);
    store.checkpoint(&Blobs).unwrap();
    let ended = rekeyed(&store);
    assert_eq!((ended.generation, ended.running, ended.files_left), (1, false, 0));
    let new = data_files(dir.path());
    let listed: Vec<_> = begun_files(&old, &new);
    assert!(listed.is_empty(), "under their old keys: {listed:?}");
    check_indexes(&store.snapshot());
    drop(store);
    let store = reopen(dir.path(), tenant_key()).unwrap();
    let mut expected = rows;
    [10, 11].iter().for_each(|id| drop(expected.get_mut("items").unwrap().remove(id)));
    expected.get_mut("copy").unwrap().remove(&12);
    assert_eq!(shown(&store.snapshot()), expected);
    assert_eq!(before(&store), named);
    check_indexes(&store.snapshot());
    assert_eq!(store.file_rotation().unwrap().generation, 1);
    assert_eq!(store.begin_file_rotation(&Blobs).unwrap().generation, 2);
    assert!(!rekeyed(&store).running);
    store.close().unwrap();
    check(dir.path(), store.log_end());
}

/// Whoever checks the directory finds nothing: manifests that were written anew belong to their successors.
fn check(dir: &Path, log_end: LogEnd) {
    let mut heard = Heard::default();
    let wanted = CheckOptions { log_end: Some(log_end), ..CheckOptions::default() };
    TenantStore::check(dir, TENANT, tenant_key(), &wanted, &AnyBlob, &mut heard);
    assert!(heard.findings.is_empty(), "{:?}", heard.findings);
}

struct AnyBlob;

impl BlobChecker for AnyBlob {
    fn check(&self, _: &TableDef, _: &IndexDef, _: &ArrayRef, bytes: &[u8]) -> Result<(), String> {
        if bytes == Blobs::BYTES { Ok(()) } else { Err("another index".to_owned()) }
    }
}

/// Of what was there when it began, what is there still.
fn begun_files(
    old: &std::collections::BTreeSet<std::path::PathBuf>,
    new: &std::collections::BTreeSet<std::path::PathBuf>,
) -> Vec<std::path::PathBuf> {
    old.intersection(new).cloned().collect()
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = made(dir.path());
    for table in 0..4 {
        let id = 21_000 + 10 * table;
        commit(&store, vec![Op::CreateTable(valid(items(id, &format!("more {table}"))))]);
        put(&store, TableId(id), &(0..50).collect::<Vec<_>>());
    }
    store.checkpoint(&Blobs).unwrap();
    let (rows, old) = (shown(&store.snapshot()), data_files(dir.path()));
    store.begin_file_rotation(&Blobs).unwrap();
    let mut copied = 0;
    for _ in 0..50 {
        let step = store.rotate_file_keys(&Blobs, &Freely).unwrap();
        if !step.rotation.running {
            break;
        }
        copied += usize::from(step.bytes_written > 0);
        drop(store);
        store = reopen(dir.path(), tenant_key()).unwrap();
        assert_eq!(shown(&store.snapshot()), rows);
    }
    let ended = store.file_rotation().unwrap();
    assert!(!ended.running, "{ended:?}");
    assert!(copied >= 5, "{copied} segments, each once");
    assert!(begun_files(&old, &data_files(dir.path())).is_empty());
    assert_eq!(shown(&store.snapshot()), rows);
    check_indexes(&store.snapshot());
}

#[test]
fn readers_and_backups_keep_what_they_have() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    store.checkpoint(&Blobs).unwrap();
    let reader = store.snapshot();
    let seen = shown(&reader);
    store.begin_file_rotation(&Blobs).unwrap();
    let pin = store.pin_manifest().unwrap();
    for _ in 0..10 {
        store.rotate_file_keys(&Blobs, &Freely).unwrap();
    }
    let waiting = store.file_rotation().unwrap();
    assert!(waiting.running && waiting.files_left > 0, "{waiting:?}");
    for file in &pin.files {
        let found = std::fs::metadata(dir.path().join(&file.path)).unwrap().len();
        assert_eq!(found, file.bytes, "{:?}", file.path);
    }
    drop(pin);
    for _ in 0..10 {
        store.rotate_file_keys(&Blobs, &Freely).unwrap();
    }
    let waiting = store.file_rotation().unwrap();
    assert!(waiting.running && waiting.files_left > 0, "a reader has them: {waiting:?}");
    assert_eq!(shown(&reader), seen);
    drop(reader);
    assert!(!rekeyed(&store).running);
    assert_eq!(shown(&store.snapshot()), seen);
}

#[test]
fn a_clone_of_what_is_not_copied_yet_is_copied_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    let old = data_files(dir.path());
    store.begin_file_rotation(&Blobs).unwrap();
    let past = store.snapshot();
    let ops = store.clone_ops(&past, ITEMS, valid(items(20_200, "third"))).unwrap();
    let early = store.clone_ops(&past, COPY, valid(items(20_300, "fourth"))).unwrap();
    drop(past);
    store.rotate_file_keys(&Blobs, &Freely).unwrap();
    commit(&store, ops);
    store.rotate_file_keys(&Blobs, &Freely).unwrap();
    commit(&store, early);
    let rows = shown(&store.snapshot());
    let crashed = tempfile::tempdir().unwrap();
    crate::fixtures::copy(dir.path(), crashed.path());
    assert!(!rekeyed(&store).running);
    assert!(begun_files(&old, &data_files(dir.path())).is_empty());
    assert_eq!(shown(&store.snapshot()), rows);
    let again = reopen(crashed.path(), tenant_key()).unwrap();
    assert_eq!(shown(&again.snapshot()), rows);
    assert!(!rekeyed(&again).running);
    assert_eq!(shown(&again.snapshot()), rows);
}

/// What it shares is noted before its commit is judged, and it came to nothing.
#[test]
fn a_clone_that_was_refused_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    let late = store.clone_ops(&store.snapshot(), COPY, valid(items(20_300, "fourth"))).unwrap();
    store.rewrap(both(), &Blobs).unwrap();
    let mut ops = store.clone_ops(&store.snapshot(), ITEMS, valid(items(20_200, "third"))).unwrap();
    ops.extend(late);
    let refused = store.commit(&store.snapshot(), ops).unwrap_err();
    assert_eq!(refused, StoreError::WriteConflict { table: "fourth".into() });
    store.begin_file_rotation(&Blobs).unwrap();
    assert!(!rekeyed(&store).running);
}

#[test]
fn a_damaged_segment_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    commit(&store, vec![Op::CreateTable(valid(items(21_000, "more")))]);
    put(&store, TableId(21_000), &(0..50).collect::<Vec<_>>());
    store.checkpoint(&Blobs).unwrap();
    let file = store.snapshot().table(TableId(21_000)).unwrap().chunks[0].chunk.segment().unwrap();
    drop(store);
    let store = reopen(dir.path(), tenant_key()).unwrap();
    let path = dir.path().join("segments").join(format!("{file}.parquet"));
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    // In the first column's pages.
    damaged[60] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    store.begin_file_rotation(&Blobs).unwrap();
    let mut failures = 0;
    for _ in 0..20 {
        match store.rotate_file_keys(&Blobs, &Freely) {
            Ok(_) => {}
            Err(StoreError::Corrupt { file: named, .. }) => {
                assert!(named.contains(&file.to_string()), "{named}");
                failures += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let left = store.file_rotation().unwrap();
    assert!(failures > 2 && left.running && left.files_left == 2, "it and its index: {left:?}");
    std::fs::write(&path, whole).unwrap();
    assert!(!rekeyed(&store).running);
    assert_eq!(ids(&store, 21_000), (0..50).collect::<Vec<_>>());
}

#[test]
fn writers_checkpoints_and_compactions_go_on_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path());
    let writer = Writer::start(&store, |store, next| {
        if next % 5 == 0 {
            store.checkpoint(&Blobs).unwrap();
        }
        if next % 7 == 0 {
            for group in store.segments_to_merge(ITEMS, Rewrite::All) {
                store.merge(ITEMS, &group, &Blobs, &Freely).unwrap();
            }
        }
    });
    for round in 1..=3 {
        store.begin_file_rotation(&Blobs).unwrap();
        while store.rotate_file_keys(&Blobs, &Freely).unwrap().rotation.running {
            std::thread::yield_now();
        }
        assert_eq!(store.file_rotation().unwrap().generation, round);
    }
    writer.end();
    let expected = shown(&store.snapshot());
    check_indexes(&store.snapshot());
    drop(store);
    let store = reopen(dir.path(), tenant_key()).unwrap();
    assert_eq!(shown(&store.snapshot()), expected);
    assert!(files(dir.path()).keys().all(|path| path.extension().is_none_or(|found| found != "tmp")));
}

/// Deletes much of the table while its segment is copied, and flushes.
struct Meddler<'a> {
    store: &'a TenantStore,
    done: AtomicBool,
}

impl Pace for Meddler<'_> {
    fn phase(&self, phase: Phase) {
        if phase == Phase::Writing && !self.done.swap(true, Ordering::AcqRel) {
            take(self.store, ITEMS, &(50..150).collect::<Vec<_>>());
            put(self.store, ITEMS, &[1_000]);
            self.store.checkpoint(&Blobs).unwrap();
        }
    }
}

#[test]
fn a_flush_leaves_the_segment_that_is_copied_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = TenantStore::create(dir.path(), TENANT, tenant_key(), options()).unwrap();
    commit(&store, vec![Op::CreateTable(valid(items(ITEMS.0, "items")))]);
    put(&store, ITEMS, &(0..200).collect::<Vec<_>>());
    store.checkpoint(&Blobs).unwrap();
    let old = data_files(dir.path());
    store.begin_file_rotation(&Blobs).unwrap();
    let meddler = Meddler { store: &store, done: AtomicBool::new(false) };
    let step = store.rotate_file_keys(&Blobs, &meddler).unwrap();
    assert!(meddler.done.load(Ordering::Acquire) && step.bytes_written > 0, "not for nothing: {step:?}");
    assert!(!rekeyed(&store).running);
    assert!(begun_files(&old, &data_files(dir.path())).is_empty());
    let expected: Vec<i64> = (0..50).chain(150..200).chain([1_000]).collect();
    assert_eq!(ids(&store, ITEMS.0), expected);
    check_indexes(&store.snapshot());
    drop(store);
    assert_eq!(ids(&reopen(dir.path(), tenant_key()).unwrap(), ITEMS.0), expected);
}
