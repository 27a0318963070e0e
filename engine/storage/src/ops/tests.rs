//! The payload's bytes, and that every op survives them.

use arrow::buffer::{Buffer, MutableBuffer};
use proptest::prelude::*;
use sepal_types::{ColumnId, RowId, TableId};

use super::{Op, SequenceMark, decode, encode_head, encode_ops};
use crate::fixtures::{batch, hex, items};

fn payload(marks: &[SequenceMark], ops: &[Op]) -> Buffer {
    let mut bytes = MutableBuffer::new(0);
    bytes.extend_from_slice(encode_head(ops.len(), marks).as_slice());
    encode_ops(ops).unwrap().iter().for_each(|part| bytes.extend_from_slice(part.as_slice()));
    bytes.into()
}

/// Version 1. These bytes are in files: a change here is a change of format.
#[test]
fn bytes_are_golden() {
    let marks = [SequenceMark { table: TableId(20_000), column: ColumnId(1), next: 33 }];
    let ops = [
        Op::DropTable(TableId(20_001)),
        Op::Truncate(TableId(20_002)),
        Op::Delete { table: TableId(20_000), rows: vec![RowId(5), RowId(258)] },
        Op::SetSequence { table: TableId(20_000), column: ColumnId(1), next: -2 },
    ];
    let zeros = |bytes: usize| "00".repeat(bytes);
    let expected = [
        "01000000",
        "00000004",
        "00000001",
        "00000000",
        "00004e20",
        "00000001",
        "0000000000000021",
        &zeros(32),
        &zeros(40),
        "03000000",
        "00004e21",
        "0000000000000000",
        "0000000000000000",
        &zeros(40),
        "04000000",
        "00004e22",
        "0000000000000000",
        "0000000000000000",
        &zeros(40),
        "06000000",
        "00004e20",
        "0000000000000000",
        "0000000000000010",
        "0000000000000005",
        "0000000000000102",
        &zeros(48),
        &zeros(40),
        "07000000",
        "00004e20",
        "0000000000000001",
        "0000000000000008",
        "fffffffffffffffe",
        &zeros(56),
    ];
    assert_eq!(hex(payload(&marks, &ops).as_slice()), expected.concat());
}

#[test]
fn definitions_and_rows_survive() {
    let marks = [SequenceMark { table: TableId(20_000), column: ColumnId(1), next: 33 }];
    let ops = vec![
        Op::CreateTable(items(20_000, "items")),
        Op::Insert { table: TableId(20_000), first_row: RowId(1), rows: batch(&[1, 2, 3]) },
        // A slice must not drag its parent's rows along.
        Op::Insert { table: TableId(20_000), first_row: RowId(4), rows: batch(&[0, 4, 5, 0]).slice(1, 2) },
        Op::AlterTable(items(20_000, "renamed")),
    ];
    let bytes = payload(&marks, &ops);
    assert_eq!(decode(&bytes).unwrap(), (marks.to_vec(), ops));
}

#[test]
fn inserted_columns_are_not_copied() {
    let rows = batch(&(0..100_000).collect::<Vec<_>>());
    let ops = [Op::Insert { table: TableId(20_000), first_row: RowId(1), rows: rows.clone() }];
    let parts = encode_ops(&ops).unwrap();
    let vectors = rows.column(2).to_data().child_data()[0].buffers()[0].as_ptr();
    assert!(parts.iter().any(|part| part.as_ptr() == vectors), "the vectors' own buffer is a part");

    let bytes = payload(&[], &ops);
    let (_, decoded) = decode(&bytes).unwrap();
    let Op::Insert { rows, .. } = &decoded[0] else { panic!("an insert was encoded") };
    let vectors = rows.column(2).to_data().child_data()[0].buffers()[0].as_ptr() as usize;
    let range = bytes.as_ptr() as usize..bytes.as_ptr() as usize + bytes.len();
    assert!(range.contains(&vectors), "decoded vectors lie within the payload");
}

#[test]
fn cut_or_foreign_bytes_are_refused() {
    let bytes = payload(&[], &[Op::Delete { table: TableId(1), rows: vec![RowId(1)] }]);
    for length in 0..bytes.len() {
        assert!(decode(&bytes.slice_with_length(0, length)).is_err(), "{length} bytes");
    }
    let mut other = bytes.to_vec();
    other[0] = 2;
    assert!(decode(&Buffer::from_vec(other)).unwrap_err().contains("version 2"));
}

fn any_op() -> impl Strategy<Value = Op> {
    let table = (20_000..20_010u32).prop_map(TableId);
    prop_oneof![
        table.clone().prop_map(Op::DropTable),
        table.clone().prop_map(Op::Truncate),
        (20_000..20_010u32, "[a-z]{1,8}").prop_map(|(id, name)| Op::CreateTable(items(id, &name))),
        (20_000..20_010u32, "\\PC{0,8}").prop_map(|(id, name)| Op::AlterTable(items(id, &name))),
        (table.clone(), any::<u32>(), prop::collection::vec(any::<i64>(), 1..50)).prop_map(
            |(table, row, ids)| Op::Insert { table, first_row: RowId(u64::from(row)), rows: batch(&ids) }
        ),
        (table.clone(), prop::collection::btree_set(any::<u64>(), 0..50))
            .prop_map(|(table, rows)| Op::Delete { table, rows: rows.into_iter().map(RowId).collect() }),
        (table, any::<u32>(), any::<i64>()).prop_map(|(table, column, next)| Op::SetSequence {
            table,
            column: ColumnId(column),
            next
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_ops_survive(ops in prop::collection::vec(any_op(), 0..8), next in any::<i64>(), marks in 0..4usize) {
        let marks = vec![SequenceMark { table: TableId(20_000), column: ColumnId(1), next }; marks];
        let bytes = payload(&marks, &ops);
        prop_assert_eq!(bytes.len() % 64, 0);
        prop_assert_eq!(decode(&bytes).unwrap(), (marks, ops));
    }
}
