//! Random commits, checkpoints and restarts: a copy that follows the feed is the table.

use std::collections::BTreeMap;

use arrow::{array::AsArray, datatypes::Int64Type, record_batch::RecordBatch};
use proptest::prelude::*;

use super::{ITEMS, drain, follow, open_held, put, take, with_captured};
use crate::{
    NoBlobs, Op,
    feed::{Change, Commit},
    fixtures::{batch_of, commit, delete, ids, scan},
};

#[derive(Clone, Debug)]
enum Deed {
    Insert(i64),
    Update(i64, u8),
    Delete(Vec<i64>),
    Checkpoint,
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        5 => (0..30i64).prop_map(Deed::Insert),
        4 => (0..30i64, any::<u8>()).prop_map(|(key, label)| Deed::Update(key, label)),
        3 => prop::collection::btree_set(0..30i64, 1..6).prop_map(|keys| Deed::Delete(keys.into_iter().collect())),
        2 => Just(Deed::Checkpoint),
        1 => Just(Deed::Restart),
    ];
    prop::collection::vec(deed, 1..40)
}

/// Row by row, as a destination keeps it.
fn replay(copy: &mut BTreeMap<u64, (i64, String)>, commits: Vec<Commit>) {
    let row = |rows: &RecordBatch, at: usize| {
        let key = rows.column(0).as_primitive::<Int64Type>().value(at);
        (key, rows.column(1).as_string::<i32>().value(at).to_owned())
    };
    for change in commits.into_iter().flat_map(|commit| commit.changes) {
        match change {
            Change::Insert { first_row, rows, .. } => {
                copy.extend((first_row.0..).zip(0..rows.num_rows()).map(|(id, at)| (id, row(&rows, at))));
            }
            Change::Delete { rows, before, .. } => {
                for (at, id) in rows.iter().enumerate() {
                    assert_eq!(copy.remove(&id.0), Some(row(&before, at)), "row {id}");
                }
            }
            other => assert!(matches!(other, Change::Define(_)), "{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_copy_that_follows_the_feed_is_the_table(deeds in deeds()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = with_captured(dir.path());
        let (mut hold, mut reader) = follow(&store, 0);
        let mut copy = BTreeMap::new();
        for deed in deeds {
            let live = ids(&store, 20_000);
            match deed {
                Deed::Insert(key) if !live.contains(&key) => put(&store, &[key]),
                Deed::Update(key, label) if live.contains(&key) => {
                    let op = delete(&store, 20_000, &[key]);
                    let first_row = store.reserve_rows(ITEMS, 1);
                    let rows = batch_of(&[key], &[format!("label {label}")]);
                    commit(&store, vec![op, Op::Insert { table: ITEMS, first_row, rows }]);
                }
                Deed::Insert(_) | Deed::Update(..) => {}
                Deed::Delete(keys) => {
                    let keys: Vec<i64> = keys.into_iter().filter(|key| live.contains(key)).collect();
                    if !keys.is_empty() {
                        take(&store, &keys);
                    }
                }
                Deed::Checkpoint => {
                    let commits = drain(&mut reader);
                    if let Some(last) = commits.last() {
                        hold.advance(last.lsn);
                    }
                    replay(&mut copy, commits);
                    store.checkpoint(&NoBlobs).unwrap();
                }
                Deed::Restart => {
                    let commits = drain(&mut reader);
                    let after = store.snapshot().lsn();
                    replay(&mut copy, commits);
                    drop((hold, reader, store));
                    store = open_held(dir.path());
                    (hold, reader) = follow(&store, after.0);
                    store.release_unheld_log().unwrap();
                }
            }
        }
        replay(&mut copy, drain(&mut reader));
        let table = scan(store.snapshot().table(ITEMS).unwrap());
        let expected: Vec<(i64, String)> = table.into_iter().map(|(key, (label, _))| (key, label)).collect();
        let mut found: Vec<(i64, String)> = copy.into_values().collect();
        found.sort();
        prop_assert_eq!(found, expected);
    }
}
