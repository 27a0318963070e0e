//! Moments: at, between and before commits, across checkpoints, restarts and definitions.

use sepal_types::Lsn;

use super::{AsOf, Hands, ITEMS, MINUTE, POLICY, START, at, keys, made, put, reopened, shown, take, with};
use crate::{
    NoBlobs, Op, StoreError,
    fixtures::{column, commit, items},
};

#[test]
fn commits_have_times_that_ascend_even_if_the_clock_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    assert_eq!(store.snapshot().time_us(), START + 1, "the store itself was made at START");
    assert_eq!(put(&store, ITEMS, &[1]).time_us(), START + 2, "the clock stands still");
    clock.minutes(5);
    assert_eq!(put(&store, ITEMS, &[2]).time_us(), START + 5 * MINUTE);
    clock.minutes(-60);
    assert_eq!(put(&store, ITEMS, &[3]).time_us(), START + 5 * MINUTE + 1, "the clock went back");
    drop(store);
    let store = reopened(dir.path(), with(&clock, POLICY));
    assert_eq!(store.snapshot().time_us(), START + 5 * MINUTE + 1, "from the log");
    store.checkpoint(&NoBlobs).unwrap();
    drop(store);
    let store = reopened(dir.path(), with(&clock, POLICY));
    assert_eq!(store.snapshot().time_us(), START + 5 * MINUTE + 1, "from the manifest");
    assert_eq!(put(&store, ITEMS, &[4]).time_us(), START + 5 * MINUTE + 2);
}

#[test]
fn every_moment_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let options = with(&clock, POLICY);
    let mut store = made(dir.path(), options.clone());
    let mut then = vec![store.snapshot()];
    for round in 0..4 {
        clock.minutes(1);
        then.push(put(&store, ITEMS, &[round * 10, round * 10 + 1]));
        clock.minutes(1);
        then.push(take(&store, ITEMS, &[round * 10]));
        match round {
            1 => drop(store.checkpoint(&NoBlobs).unwrap()),
            2 => {
                drop(store);
                store = reopened(dir.path(), options.clone());
                store.checkpoint(&NoBlobs).unwrap();
            }
            _ => {}
        }
    }
    for _ in 0..2 {
        for (index, snapshot) in then.iter().enumerate() {
            let (lsn, time_us) = (snapshot.lsn(), snapshot.time_us());
            let until = then.get(index + 1).map_or(clock.now(), |next| next.time_us() - 1);
            for moment in
                [AsOf::Commit(lsn), AsOf::Time(time_us), AsOf::Time(until), AsOf::Time((time_us + until) / 2)]
            {
                let found = store.snapshot_as_of(&moment).unwrap();
                assert_eq!((found.lsn(), found.time_us()), (lsn, time_us), "{moment:?}");
                assert_eq!(shown(&found), shown(snapshot), "{moment:?}");
            }
        }
        drop(store);
        store = reopened(dir.path(), options.clone());
    }
    let span = store.history();
    assert_eq!((span.oldest_us, span.oldest_lsn), (START, Lsn(0)));
    // Before the store was made there is nothing; tomorrow neither.
    let before = store.snapshot_as_of(&AsOf::Time(START - 1)).unwrap_err();
    let expected =
        "the past at 1971-11-26 10:39:59.999999+00 is not kept: it begins at 1971-11-26 10:40:00+00";
    assert_eq!(before.to_string(), expected);
    for future in [AsOf::Time(clock.now() + 1), at(store.snapshot().lsn().0 + 1)] {
        let error = store.snapshot_as_of(&future).unwrap_err();
        assert!(matches!(error, StoreError::NotYet { .. }), "{error}");
    }
}

#[test]
fn definitions_are_of_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    put(&store, ITEMS, &[1, 2]);
    store.checkpoint(&NoBlobs).unwrap();
    let mut wider = items(20_000, "goods");
    wider.columns.push(column(4, "stock", sepal_types::SqlType::Int4));
    commit(&store, vec![Op::AlterTable(wider)]);
    commit(&store, vec![Op::Truncate(ITEMS)]);
    commit(&store, vec![Op::DropTable(ITEMS)]);
    store.checkpoint(&NoBlobs).unwrap();
    commit(&store, vec![Op::CreateTable(items(20_050, "items"))]);
    put(&store, sepal_types::TableId(20_050), &[7]);
    store.checkpoint(&NoBlobs).unwrap();
    let names = |lsn: u64| {
        let snapshot = store.snapshot_as_of(&at(lsn)).unwrap();
        let tables = snapshot
            .tables()
            .map(|version| (version.def.name.clone(), version.def.columns.len(), version.live_rows()));
        tables.collect::<Vec<_>>()
    };
    assert!(names(0).is_empty());
    assert_eq!(names(1), [("items".to_owned(), 3, 0)]);
    assert_eq!(names(2), [("items".to_owned(), 3, 2)]);
    assert_eq!(names(3), [("goods".to_owned(), 4, 2)]);
    assert_eq!(names(4), [("goods".to_owned(), 4, 0)]);
    assert!(names(5).is_empty());
    assert_eq!(names(6), [("items".to_owned(), 3, 0)]);
    assert_eq!(names(7), [("items".to_owned(), 3, 1)]);
    let dropped = store.snapshot_as_of(&at(3)).unwrap();
    assert_eq!(keys(&dropped, ITEMS), [1, 2], "a table that is gone, with its rows");
    assert!(dropped.find("default", "items").is_none(), "its name then was another");
}

#[test]
fn a_segment_is_one_chunk_whoever_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let store = made(dir.path(), with(&clock, POLICY));
    put(&store, ITEMS, &[1, 2]);
    store.checkpoint(&NoBlobs).unwrap();
    put(&store, ITEMS, &[3]);
    put(&store, ITEMS, &[4]);
    let then = store.snapshot_as_of(&at(3)).unwrap();
    let chunk =
        |snapshot: &crate::Snapshot| std::sync::Arc::clone(&snapshot.table(ITEMS).unwrap().chunks[0].chunk);
    assert!(std::sync::Arc::ptr_eq(&chunk(&then), &chunk(&store.snapshot())));
    let again = store.snapshot_as_of(&AsOf::Time(then.time_us())).unwrap();
    assert!(std::ptr::eq(then.table(ITEMS).unwrap(), again.table(ITEMS).unwrap()), "it is remembered");
}
