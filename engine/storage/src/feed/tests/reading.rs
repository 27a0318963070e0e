//! Reading along: across files, behind many writers, idle.

use arrow::{array::AsArray, datatypes::Int64Type};
use sepal_types::Lsn;

use super::{drain, follow, logs, lsns, open_held, put, take, with_captured};
use crate::{NoBlobs, StoreError, feed::Change, fixtures::ids};

#[test]
fn the_log_is_read_across_files_checkpoints_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    let (hold, mut reader) = follow(&store, 1);
    for id in 0..6 {
        put(&store, &[id]);
        if id % 2 == 1 {
            store.checkpoint(&NoBlobs).unwrap();
        }
    }
    take(&store, &[0, 3]);
    assert_eq!(logs(dir.path()).len(), 4);
    let whole = drain(&mut reader);
    assert_eq!(lsns(&whole), [2, 3, 4, 5, 6, 7, 8]);
    drop((hold, reader, store));

    for _ in 0..2 {
        drop(open_held(dir.path()));
    }
    let store = open_held(dir.path());
    store.checkpoint(&NoBlobs).unwrap();
    let (hold, mut reader) = follow(&store, 1);
    store.release_unheld_log().unwrap();
    assert_eq!(drain(&mut reader), whole);
    put(&store, &[10]);
    store.checkpoint(&NoBlobs).unwrap();
    assert_eq!(lsns(&drain(&mut reader)), [9]);
    // From the middle of a file, too.
    let (middle, mut again) = follow(&store, 4);
    assert_eq!(drain(&mut again)[..4], whole[3..]);
    assert!(store.changes(Lsn(1), &middle, Box::new(|_| true)).is_err(), "not what the hold keeps");
    assert!(matches!(store.hold_log(Lsn(10)), Err(StoreError::Bug(_))), "nothing was committed there");
    drop(hold);
}

#[test]
fn an_idle_reader_does_not_look_at_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    put(&store, &[1]);
    let (_hold, mut reader) = follow(&store, 0);
    assert_eq!(lsns(&drain(&mut reader)), [1, 2]);
    let file = logs(dir.path()).remove(0);
    std::fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
    assert_eq!(reader.next().unwrap(), None);
}

#[test]
fn a_reader_follows_many_writers() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    let (hold, mut reader) = follow(&store, 1);
    let (mut found, mut last) = (Vec::new(), 1);
    std::thread::scope(|scope| {
        let store = &store;
        let write = |writer: i64| {
            move || {
                for row in 0..20 {
                    put(store, &[writer * 1_000 + row]);
                    if row % 8 == 7 {
                        store.checkpoint(&NoBlobs).unwrap();
                    }
                }
            }
        };
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(write(writer))).collect();
        let mut done = false;
        loop {
            let Some(commit) = reader.next().unwrap() else {
                if done {
                    break;
                }
                // What was committed before this is read in another round.
                done = writers.iter().all(|writer| writer.is_finished());
                std::thread::yield_now();
                continue;
            };
            assert_eq!(commit.lsn.0, last + 1);
            assert!(store.snapshot().lsn() >= commit.lsn, "a snapshot shows it");
            last = commit.lsn.0;
            hold.advance(commit.lsn);
            for change in commit.changes {
                let Change::Insert { rows, .. } = change else { panic!("{change:?}") };
                found.extend(rows.column(0).as_primitive::<Int64Type>().values().to_vec());
            }
        }
    });
    assert_eq!(last, 81);
    found.sort_unstable();
    assert_eq!(found, ids(&store, 20_000));
    assert_eq!(reader.next().unwrap(), None);
}

#[test]
fn markers_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    let (_hold, mut reader) = follow(&store, 1);
    put(&store, &[1]);
    assert!(store.mark_log().unwrap());
    assert_eq!(lsns(&drain(&mut reader)), [2]);
    assert_eq!(reader.next().unwrap(), None);
    put(&store, &[2]);
    assert!(store.mark_log().unwrap());
    store.checkpoint(&NoBlobs).unwrap();
    put(&store, &[3]);
    assert_eq!(lsns(&drain(&mut reader)), [3, 4]);
}
