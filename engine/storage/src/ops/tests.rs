//! The payload's bytes, and that every op survives them.

use arrow::buffer::{Buffer, MutableBuffer};
use proptest::prelude::*;
use sepal_types::{ColumnId, RowId, TableId};

use super::{BeforeImage, Op, Record, SequenceMark, decode, decode_wanted, encode_head, encode_ops};
use crate::fixtures::{batch, hex, items};

fn payload(marks: &[SequenceMark], ops: &[Op]) -> Buffer {
    payload_with(marks, ops, &[])
}

fn payload_with(marks: &[SequenceMark], ops: &[Op], before: &[BeforeImage]) -> Buffer {
    let encoded = encode_ops(ops, before).unwrap();
    let mut bytes = MutableBuffer::new(0);
    bytes.extend_from_slice(encode_head(&encoded, marks).as_slice());
    encoded.parts.iter().for_each(|part| bytes.extend_from_slice(part.as_slice()));
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

/// Version 2: what version 1 has, and a record more. Arrow's own bytes are not ours to pin; what is around them is.
#[test]
fn before_images_stand_before_their_deletes() {
    let table = TableId(20_000);
    let ops = [
        Op::Insert { table, first_row: RowId(9), rows: batch(&[9]) },
        Op::Delete { table, rows: vec![RowId(1), RowId(2), RowId(9)] },
        Op::Delete { table: TableId(20_001), rows: vec![RowId(3)] },
    ];
    let rows = batch(&[1, 2]);
    let bytes = payload_with(&[], &ops, &[BeforeImage { op: 1, rows: rows.clone() }]);
    let plain = payload(&[], &ops);
    assert_eq!(hex(&bytes[..8]), concat!("02000000", "00000004"));
    assert_eq!(hex(&plain[..8]), concat!("01000000", "00000003"));
    let insert = payload(&[], &ops[..1]).len();
    let image = bytes.len() - plain.len();
    assert_eq!(bytes[8..insert], plain[8..insert]);
    assert_eq!(bytes[insert + image..], plain[insert..]);
    let header = hex(&bytes[insert + 40..insert + 56]);
    assert_eq!(header, concat!("08000000", "00004e20", "0000000000000002"));

    // A recovery does not see it, the feed does, each only what it wants.
    assert_eq!(decode(&bytes).unwrap(), (vec![], ops.to_vec()));
    let [first, second, third] = ops.map(Record::Op);
    let before = Record::Before { table, rows };
    assert_eq!(decode_wanted(&bytes, &|_| true).unwrap(), [first, before, second, third]);
    let other = decode_wanted(&bytes, &|wanted| wanted != table).unwrap();
    assert!(matches!(&other[..], [Record::Op(Op::Delete { table: TableId(20_001), .. })]), "{other:?}");
    assert!(decode_wanted(&bytes, &|_| false).unwrap().is_empty());

    let mut as_first = bytes.to_vec();
    as_first[0] = 1;
    let error = decode(&Buffer::from_vec(as_first)).unwrap_err();
    assert!(error.contains("kind 8"), "{error}");
    let mut miscounted = bytes.to_vec();
    miscounted[insert + 55] = 3;
    let error = decode_wanted(&Buffer::from_vec(miscounted), &|_| true).unwrap_err();
    assert!(error.contains("3 rows has 2"), "{error}");
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
    let parts = encode_ops(&ops, &[]).unwrap().parts;
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
    other[0] = 3;
    assert!(decode(&Buffer::from_vec(other)).unwrap_err().contains("version 3"));
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
