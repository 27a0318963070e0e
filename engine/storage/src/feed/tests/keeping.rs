//! How long log files stay, and what becomes of a hold that keeps too much.

use std::path::Path;

use sepal_types::Lsn;

use super::{captured, drain, follow, is_gone, logs, lsns, open_held, put, with_captured};
use crate::{
    NoBlobs, Op, StoreError, StoreOptions, TenantStore,
    feed::{ChangeReader, LogHold},
    fixtures::{TENANT, alarms, commit, options, tenant_key},
};

#[test]
fn what_is_let_go_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let small = StoreOptions { wal_segment_bytes: 20_000, ..options() };
    let store = TenantStore::create(dir.path(), TENANT, tenant_key(), small).unwrap();
    commit(&store, vec![Op::CreateTable(captured())]);
    let (hold, reader) = follow(&store, 1);
    put(&store, &(0..1_000).collect::<Vec<_>>());
    assert_eq!((hold.held_bytes(), store.stats().held_wal_bytes), (0, 0), "the file is there anyway");
    assert!(store.wants_checkpoint());
    let bytes = store.stats().wal_bytes;
    assert_eq!(store.checkpoint(&NoBlobs).unwrap().wal_files_removed, 0);
    assert_eq!((hold.held_bytes(), store.stats().held_wal_bytes), (bytes, bytes));
    assert!(!store.wants_checkpoint(), "what is only held does not ask for one");
    assert_eq!(store.stats().wal_files, 1);

    hold.advance(Lsn(2));
    hold.advance(Lsn(1));
    assert_eq!(hold.held_bytes(), 0);
    // There is nothing to write, but something to remove.
    assert_eq!(store.checkpoint(&NoBlobs).unwrap().wal_files_removed, 1);
    assert_eq!((logs(dir.path()).len(), store.stats().held_wal_bytes), (1, 0));
    assert!(is_gone(store.hold_log(Lsn(1))));

    put(&store, &[2_000]);
    store.checkpoint(&NoBlobs).unwrap();
    drop(hold);
    store.release_unheld_log().unwrap();
    assert_eq!(logs(dir.path()).len(), 2, "its reader still needs it");
    drop(reader);
    store.release_unheld_log().unwrap();
    assert_eq!(logs(dir.path()).len(), 1);
}

#[test]
fn files_stay_after_an_opening_until_they_are_released() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    let hold = store.hold_log(Lsn(1)).unwrap();
    put(&store, &[1]);
    store.checkpoint(&NoBlobs).unwrap();
    drop((hold, store));
    let store = open_held(dir.path());
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(logs(dir.path()).len(), 4);
    drop(store);
    let store = open_held(dir.path());
    store.release_unheld_log().unwrap();
    assert!(is_gone(store.hold_log(Lsn(1))));
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(logs(dir.path()).len(), 1);
}

/// An archive learns later what of the log it has. Until then everything stays, whether or not it can be opened now.
#[test]
fn the_whole_log_is_held_without_being_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    let hold = store.hold_log(Lsn(0)).unwrap();
    for id in 0..3 {
        put(&store, &[id]);
        store.checkpoint(&NoBlobs).unwrap();
    }
    drop((hold, store));
    let store = open_held(dir.path());
    let found = logs(dir.path());
    assert!(found.len() > 3, "{found:?}");
    // No header can be read at this moment.
    let (place, aside) = (dir.path().join("wal"), dir.path().join("aside"));
    std::fs::rename(&place, &aside).unwrap();
    assert!(store.log_files(0).is_err());
    let hold = store.hold_whole_log();
    std::fs::rename(&aside, &place).unwrap();
    store.release_unheld_log().unwrap();
    put(&store, &[9]);
    store.checkpoint(&NoBlobs).unwrap();
    let kept = logs(dir.path());
    assert!(found.iter().all(|file| kept.contains(file)), "{kept:?} of {found:?}");
    assert_eq!((store.log_files(0).unwrap()[0].base_lsn, hold.is_broken()), (Lsn(0), false));

    hold.advance(store.snapshot().lsn());
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(logs(dir.path()).len(), 1);
}

/// Every opening leaves a file. Whoever replays a copy of the log misses each that is not there, commits in it or not.
#[test]
fn files_without_a_commit_are_part_of_the_whole_log() {
    let dir = tempfile::tempdir().unwrap();
    drop(with_captured(dir.path()));
    let store = open_held(dir.path());
    store.release_unheld_log().unwrap();
    store.checkpoint(&NoBlobs).unwrap();
    drop(store);
    drop(open_held(dir.path()));
    let store = open_held(dir.path());
    let found = logs(dir.path());
    assert_eq!(found.len(), 3);
    assert!(store.log_files(0).unwrap().iter().all(|file| file.base_lsn == Lsn(1)));
    let hold = store.hold_whole_log();
    store.release_unheld_log().unwrap();
    put(&store, &[1]);
    store.checkpoint(&NoBlobs).unwrap();
    let kept = logs(dir.path());
    assert!(found.iter().all(|file| kept.contains(file)), "{kept:?} of {found:?}");
    // Once they are copied, they go.
    hold.advance(Lsn(1));
    store.checkpoint(&NoBlobs).unwrap();
    let left = logs(dir.path());
    assert_eq!(found.iter().map(|file| left.contains(file)).collect::<Vec<_>>(), [false, false, true]);
}

/// A store that keeps so much, whose hold keeps its first file. Also the warnings of the checkpoint.
fn retained(dir: &Path, log_retention_bytes: u64) -> (LogHold, ChangeReader, Vec<String>) {
    let limited = StoreOptions { log_retention_bytes, ..options() };
    let store = TenantStore::create(dir, TENANT, tenant_key(), limited).unwrap();
    commit(&store, vec![Op::CreateTable(captured())]);
    let (hold, reader) = follow(&store, 0);
    let alarms = alarms(|| {
        put(&store, &[1, 2, 3]);
        store.checkpoint(&NoBlobs).unwrap();
    });
    (hold, reader, alarms)
}

#[test]
fn a_hold_that_keeps_too_much_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (hold, _, alarms) = retained(&place("ample"), 1 << 20);
    let bytes = hold.held_bytes();
    assert!(alarms.is_empty(), "{alarms:?}");
    let (hold, mut reader, alarms) = retained(&place("full"), bytes);
    assert_eq!((hold.is_broken(), hold.held_bytes(), alarms.len()), (false, bytes, 1), "{alarms:?}");
    assert_eq!(drain(&mut reader).len(), 2);

    let path = place("over");
    let (hold, mut reader, alarms) = retained(&path, bytes - 1);
    assert_eq!((hold.is_broken(), hold.held_bytes(), alarms.len()), (true, 0, 1), "{alarms:?}");
    assert_eq!(logs(&path).len(), 1);
    let expected = StoreError::LogGone { after: Lsn(0), oldest: Lsn(2) };
    assert_eq!(reader.next().unwrap_err(), expected);
    assert_eq!(reader.next().unwrap_err(), expected);
}

#[test]
fn the_oldest_hold_breaks_first() {
    let dir = tempfile::tempdir().unwrap();
    let limited = StoreOptions { log_retention_bytes: 30_000, ..options() };
    let store = TenantStore::create(dir.path(), TENANT, tenant_key(), limited).unwrap();
    commit(&store, vec![Op::CreateTable(captured())]);
    let (old, mut behind) = follow(&store, 0);
    let large = |from: i64| (from..from + 600).collect::<Vec<_>>();
    put(&store, &large(0));
    store.checkpoint(&NoBlobs).unwrap();
    let (new, mut reader) = follow(&store, 2);
    put(&store, &large(1_000));
    let bytes = store.stats().wal_bytes;
    assert!((16_000..30_000).contains(&bytes), "{bytes} bytes a file");
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!((old.is_broken(), new.is_broken()), (true, false));
    assert!(is_gone(behind.next()) && is_gone(store.hold_log(Lsn(0))));
    assert!(is_gone(store.changes(Lsn(2), &old, Box::new(|_| true))));
    assert_eq!(lsns(&drain(&mut reader)), [3]);
    assert_eq!(logs(dir.path()).len(), 2);
}
