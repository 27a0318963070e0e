//! Which changes a commit has, with what was there before.

use std::sync::Arc;

use arrow::{
    array::AsArray,
    datatypes::{Int32Type, Schema},
    record_batch::RecordBatch,
};
use sepal_types::{RowId, SqlType};

use super::{ITEMS, captured, deleted, drain, follow, inserted, lsns, put, take, with_captured};
use crate::{
    NoBlobs, Op, StoreError,
    feed::{Change, before_images},
    fixtures::{batch, batch_of, column, commit, create, delete, ids, items, open},
};

#[test]
fn deleted_rows_come_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    let (_hold, mut reader) = follow(&store, 0);
    put(&store, &[1, 2, 3]);
    let second = batch_of(&[2], &["second".into()]);
    let first_row = store.reserve_rows(ITEMS, 1);
    let new = Op::Insert { table: ITEMS, first_row, rows: second.clone() };
    commit(&store, vec![delete(&store, 20_000, &[2]), new]);
    take(&store, &[1, 2]);
    // Another table's commit comes too, without its changes.
    commit(&store, vec![Op::CreateTable(items(20_010, "others"))]);
    commit(&store, vec![Op::DropTable(ITEMS)]);
    let rest = arrow::compute::concat_batches(&second.schema(), [&batch(&[1]), &second]).unwrap();
    let expected = [
        vec![Change::Define(captured())],
        vec![inserted(1, batch(&[1, 2, 3]))],
        vec![deleted(&[2], batch(&[2])), inserted(4, second)],
        vec![deleted(&[1, 4], rest)],
        vec![],
        vec![Change::Drop(ITEMS)],
    ];
    let commits = drain(&mut reader);
    assert_eq!(lsns(&commits), [1, 2, 3, 4, 5, 6]);
    for (found, expected) in commits.into_iter().zip(expected) {
        assert_eq!(found.changes, expected, "commit {}", found.lsn);
    }
}

#[test]
fn rows_of_segments_and_of_several_chunks_come_in_one_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    put(&store, &[1, 2, 3]);
    store.checkpoint(&NoBlobs).unwrap();
    put(&store, &[4]);
    put(&store, &[5, 6]);
    let (_hold, mut reader) = follow(&store, store.snapshot().lsn().0);
    take(&store, &[6, 1, 4, 3]);
    assert_eq!(drain(&mut reader)[0].changes, [deleted(&[1, 3, 4, 6], batch(&[1, 3, 4, 6]))]);
}

/// A column that the rows are older than, and one that is gone: the image has what the definition of the time has.
#[test]
fn images_have_the_columns_of_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    put(&store, &[1, 2]);
    let (_hold, mut reader) = follow(&store, 2);
    let old = store.snapshot();
    let mut def = captured();
    let mut stock = column(4, "stock", SqlType::Int4);
    stock.missing = Some("12".into());
    def.columns.push(stock);
    def.columns.remove(1);
    commit(&store, vec![Op::AlterTable(def.clone())]);
    let op = delete(&store, 20_000, &[1]);
    let late = store.commit(&old, vec![op.clone()]);
    assert!(matches!(late, Err(StoreError::WriteConflict { .. })), "it would log the old columns");
    commit(&store, vec![op]);
    let commits = drain(&mut reader);
    assert_eq!(commits[0].changes, [Change::Define(def)]);
    let [Change::Delete { before, .. }] = &commits[1].changes[..] else { panic!("{commits:?}") };
    let names: Vec<String> = before.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["c1", "c3", "c4"]);
    assert_eq!(before.column(2).as_primitive::<Int32Type>().value(0), 12);
}

#[test]
fn what_a_commit_makes_and_takes_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    put(&store, &[1]);
    let (_hold, mut reader) = follow(&store, 2);
    let first_row = store.reserve_rows(ITEMS, 4);
    assert_eq!(first_row, RowId(2));
    let gone = |rows: &[u64]| Op::Delete { table: ITEMS, rows: rows.iter().copied().map(RowId).collect() };
    let ops = vec![
        Op::Insert { table: ITEMS, first_row, rows: batch(&[10, 11, 12, 13]) },
        gone(&[3]),
        gone(&[1, 4]),
    ];
    commit(&store, ops);
    let first_row = store.reserve_rows(ITEMS, 1);
    commit(&store, vec![Op::Insert { table: ITEMS, first_row, rows: batch(&[20]) }, gone(&[6])]);
    let commits = drain(&mut reader);
    let left = [inserted(2, batch(&[10])), inserted(5, batch(&[13])), deleted(&[1], batch(&[1]))];
    assert_eq!(commits[0].changes, left);
    assert!(commits[1].changes.is_empty(), "{commits:?}");
    drop((reader, store));
    assert_eq!(ids(&open(dir.path()), 20_000), [10, 13], "a recovery passes over the images");
}

#[test]
fn a_table_is_captured_from_its_definition_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    put(&store, &[1, 2, 3, 4]);
    let (_hold, mut reader) = follow(&store, 2);
    take(&store, &[1]);
    let base = store.snapshot();
    let late = delete(&store, 20_000, &[2]);
    commit(&store, vec![Op::AlterTable(captured()), delete(&store, 20_000, &[3])]);
    for op in [late.clone(), Op::Truncate(ITEMS)] {
        let lost = store.commit(&base, vec![op]).unwrap_err();
        assert_eq!(lost, StoreError::WriteConflict { table: "items".into() });
    }
    let refused = store.commit(&store.snapshot(), vec![Op::Truncate(ITEMS)]).unwrap_err();
    assert!(matches!(&refused, StoreError::Bug(why) if why.contains("\"items\"")), "{refused}");
    commit(&store, vec![late]);
    commit(&store, vec![Op::AlterTable(items(20_000, "items")), Op::Truncate(ITEMS)]);
    let changes: Vec<Vec<Change>> = drain(&mut reader).into_iter().map(|commit| commit.changes).collect();
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let expected = [
        vec![deleted(&[1], nothing)],
        vec![Change::Define(captured()), deleted(&[3], batch(&[3]))],
        vec![deleted(&[2], batch(&[2]))],
        vec![Change::Define(items(20_000, "items")), Change::Truncate(ITEMS)],
    ];
    assert_eq!(changes, expected);
}

#[test]
fn a_row_that_the_base_does_not_have_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    let base = store.snapshot();
    put(&store, &[1]);
    let op = delete(&store, 20_000, &[1]);
    assert!(matches!(store.commit(&base, vec![op]), Err(StoreError::WriteConflict { .. })));
    assert_eq!(ids(&store, 20_000), [1]);
}

#[test]
fn one_commit_carries_no_more_than_memory_bears() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_captured(dir.path());
    put(&store, &(0..1_000).collect::<Vec<_>>());
    let half = |from: i64| delete(&store, 20_000, &(from..from + 500).collect::<Vec<_>>());
    let (ops, head) = ([half(0), half(500)], store.snapshot());
    let bytes = head.table(ITEMS).unwrap().bytes();
    let images = before_images(&head, &ops, bytes).unwrap();
    assert_eq!(
        images.iter().map(|image| (image.op, image.rows.num_rows())).collect::<Vec<_>>(),
        [(0, 500), (1, 500)]
    );
    let refused = before_images(&head, &ops, bytes * 3 / 4).unwrap_err();
    assert!(matches!(&refused, StoreError::TooMuchDeleted { table, .. } if table == "items"), "{refused}");
    assert_eq!(before_images(&head, &ops[1..], bytes * 3 / 4).unwrap().len(), 1);
}
