//! Runs are the columns' rows wherever they begin and end, as long as they were asked to be, and told when damaged.

use std::sync::Arc;

use arrow::array::UInt64Array;
use proptest::prelude::*;
use sepal_types::SqlType;

use super::*;
use crate::{
    arrow_type,
    segment::rows::tests::{DIMENSIONS, KEY, LABEL, ROWS, SPARSE, VECTOR, columns, opened, written},
};

/// Rows of a row group, and what its vectors take.
const GROUP: u32 = 700;
const GROUP_BYTES: usize = GROUP as usize * 4 * DIMENSIONS as usize;

fn check(footer: &Footer, path: &Path, rows: &Range<u32>, space: &RunSpace) {
    for (id, ty, whole) in columns() {
        let found = footer.column_run(&Disk::default(), path, (id, &ty), rows, space).unwrap().unwrap();
        let expected = whole.slice(rows.start as usize, rows.len());
        assert_eq!(&found, &expected, "rows {rows:?} of column {id}");
    }
    let ids = footer.row_ids_run(&Disk::default(), path, rows).unwrap();
    let expected = UInt64Array::from_iter_values(u64::from(rows.start) + 1..u64::from(rows.end) + 1);
    assert_eq!(&ids, &(Arc::new(expected) as ArrayRef));
}

#[test]
fn they_are_the_columns_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let footer = written(&path);
    // What was read before lies in the memory that is used again.
    let space = RunSpace::default();
    let all = ROWS as u32;
    let at_borders = [0..all, 0..1, all - 1..all, 0..GROUP, GROUP..2 * GROUP, GROUP - 1..GROUP + 1];
    let within = [63..65, 1..all - 1, 650..1_450, 2 * GROUP - 1..all, 10..2 * GROUP, GROUP..2 * GROUP + 1];
    for rows in at_borders.into_iter().chain(within) {
        check(&footer, &path, &rows, &space);
    }
    let absent = (ColumnId(99), &DataType::Int64);
    let absent = footer.column_run(&Disk::default(), &path, absent, &(0..1), &space).unwrap();
    assert!(absent.is_none(), "the segment is older than the column");
}

#[test]
fn they_end_with_row_groups_as_long_as_those_are_not_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let footer = written(&path);
    let all = ROWS as u32;
    let run = |column: ColumnId, rows: Range<u32>, most: usize| {
        footer.run(&path, &[Some(column)], rows, most).unwrap()
    };
    let rows = |first: u32, most: usize| run(VECTOR, first..all, most).rows;
    assert_eq!(run(VECTOR, 0..all, usize::MAX), Run { rows: 0..all, bytes: ROWS * 4 * DIMENSIONS as usize });
    assert_eq!(run(VECTOR, 5..all, GROUP_BYTES), Run { rows: 5..GROUP, bytes: GROUP_BYTES / 700 * 695 });
    assert_eq!(rows(0, 2 * GROUP_BYTES), 0..2 * GROUP);
    assert_eq!(rows(GROUP, 2 * GROUP_BYTES), GROUP..all);
    assert_eq!(rows(0, GROUP_BYTES / 2), 0..GROUP, "a little too much, but one row group");
    assert_eq!(run(VECTOR, 0..90, GROUP_BYTES).rows, 0..90, "no more than asked for");
    // A third of a row group, in multiples of 64 rows.
    let third = GROUP_BYTES * 2 / 5;
    assert_eq!(run(VECTOR, 0..all, third), Run { rows: 0..256, bytes: GROUP_BYTES / 700 * 256 });
    assert_eq!(rows(100, third), 100..256, "where the first one ends");
    assert_eq!((rows(256, third), rows(512, third)), (256..512, 512..GROUP));
    assert_eq!((rows(GROUP, third), rows(0, 1), rows(64, 0)), (GROUP..GROUP + 256, 0..64, 64..128));
    // A text is told by its length, although a dictionary stands for it: "label 1", and an offset.
    assert_eq!(run(LABEL, 0..all, usize::MAX).bytes, ROWS * (7 + 4));
    assert_eq!(run(KEY, 0..all, usize::MAX).bytes, ROWS * 8);
    assert_eq!(run(SPARSE, 0..all, GROUP_BYTES).rows, 0..GROUP);
    assert_eq!(footer.run(&path, &[None, Some(KEY)], 0..all, usize::MAX).unwrap().bytes, ROWS * 16);
    assert_eq!(run(ColumnId(99), 0..all, 1), Run { rows: 0..all, bytes: 0 });
    assert!(matches!(
        footer.run(&path, &[Some(KEY)], all..all + 1, 1),
        Err(StoreError::Corrupt { file, .. }) if file.ends_with("segment")
    ));
}

/// Nothing but its own pages is read of a run.
#[test]
fn a_damaged_page_is_told_by_who_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let footer = written(&path);
    let sealed = std::fs::read(&path).unwrap();
    let vectors = arrow_type(&SqlType::Vector(Some(DIMENSIONS)));
    for (column, ty, root) in [(VECTOR, &vectors, 3), (SPARSE, &vectors, 4), (KEY, &DataType::Int64, 1)] {
        let place = footer.metadata.metadata().row_group(1).column(root);
        let (begin, length) = place.byte_range();
        let mut changed = sealed.clone();
        changed[usize::try_from(begin + length / 2).unwrap()] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        let footer = opened(&path).unwrap();
        let read = |rows: Range<u32>| {
            footer.column_run(&Disk::default(), &path, (column, ty), &rows, &RunSpace::default())
        };
        assert!(read(0..GROUP).is_ok() && read(2 * GROUP..ROWS as u32).is_ok(), "column {column}");
        for rows in [GROUP..2 * GROUP, GROUP + 1..2 * GROUP, 0..ROWS as u32] {
            match read(rows) {
                Err(StoreError::Corrupt { file, .. }) => assert!(file.ends_with("segment"), "{file}"),
                other => panic!("column {column}: {:?}", other.map(|array| array.map(|array| array.len()))),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_run_is_the_columns_rows(first in 0..ROWS as u32, count in 1..ROWS as u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let footer = written(&path);
        check(&footer, &path, &(first..(first + count).min(ROWS as u32)), &RunSpace::default());
    }
}
