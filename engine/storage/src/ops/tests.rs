//! The payload's bytes, and that every op survives them.

use arrow::buffer::{Buffer, MutableBuffer};
use proptest::prelude::*;
use sepal_types::{CheckDef, ColumnId, FileId, RowId, TableId};

use super::{
    BeforeImage, CloneSource, ClonedSegment, Decoded, EncodedOps, Op, Record, SequenceMark, decode,
    decode_wanted, encode::encode_with, encode_head, encode_ops,
};
use crate::{
    fixtures::{batch, hex, items},
    manifest::{BlobEntry, IndexEntry, SegmentEntry},
};

/// 2026-11-22 13:34:21.123456 UTC
const TIME_US: i64 = 1_795_354_461_123_456;

fn payload(marks: &[SequenceMark], ops: &[Op]) -> Buffer {
    payload_with(marks, ops, &[])
}

fn payload_with(marks: &[SequenceMark], ops: &[Op], before: &[BeforeImage]) -> Buffer {
    put_together(marks, &encode_ops(ops, before).unwrap())
}

/// As a program before version 4 wrote it, but for the head: without small inserts.
fn arrow_payload(ops: &[Op], before: &[BeforeImage]) -> Buffer {
    put_together(&[], &encode_with(ops, before, 0).unwrap())
}

fn put_together(marks: &[SequenceMark], encoded: &EncodedOps) -> Buffer {
    let mut bytes = MutableBuffer::new(0);
    bytes.extend_from_slice(encode_head(encoded, marks, TIME_US).as_slice());
    encoded.parts.iter().for_each(|part| bytes.extend_from_slice(part.as_slice()));
    bytes.into()
}

/// With the head of an older program, of a payload with at most one mark: before version 3 the time is missing.
fn aged(bytes: &Buffer, version: u8) -> Buffer {
    let mut bytes = bytes.to_vec();
    let flags = bytes[1];
    assert_eq!(bytes[0], 4);
    if version == 3 {
        bytes[0] = 3;
        return Buffer::from_vec(bytes);
    }
    assert_eq!((flags, version), (version - 1, flags + 1), "of these only version 2 has before-images");
    bytes[..2].copy_from_slice(&[version, 0]);
    bytes.copy_within(24..40, 16);
    bytes[32..40].fill(0);
    Buffer::from_vec(bytes)
}

fn plain_ops() -> ([SequenceMark; 1], [Op; 4]) {
    let marks = [SequenceMark { table: TableId(20_000), column: ColumnId(1), next: 33 }];
    let ops = [
        Op::DropTable(TableId(20_001)),
        Op::Truncate(TableId(20_002)),
        Op::Delete { table: TableId(20_000), rows: vec![RowId(5), RowId(258)] },
        Op::SetSequence { table: TableId(20_000), column: ColumnId(1), next: -2 },
    ];
    (marks, ops)
}

/// The ops of [`plain_ops`] in every version.
fn golden_ops() -> String {
    let zeros = |bytes: usize| "00".repeat(bytes);
    [
        &*zeros(40),
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
    ]
    .concat()
}

fn unhex(digits: &str) -> Buffer {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    Buffer::from_vec((0..digits.len()).step_by(2).map(byte).collect::<Vec<u8>>())
}

/// Version 4, and version 3, which older logs hold. These bytes are in files: a change here is a change of format.
#[test]
fn bytes_are_golden() {
    let (marks, ops) = plain_ops();
    let head = concat!(
        "04000000",
        "00000004",
        "00000001",
        "00000000",
        "000660dd88e6b380",
        "00004e20",
        "00000001",
        "0000000000000021",
    );
    let bytes = payload(&marks, &ops);
    assert_eq!(hex(bytes.as_slice()), [head, &"00".repeat(24), &golden_ops()].concat());
    let decoded = Decoded { time_us: Some(TIME_US), sequences: marks.to_vec(), ops: ops.to_vec() };
    assert_eq!(decode(&bytes).unwrap(), decoded);
    let older = unhex(&["03", &head[2..], &"00".repeat(24), &golden_ops()].concat());
    assert_eq!(decode(&older).unwrap(), decoded);
}

/// Op 10, since version 4.
#[test]
fn a_small_insert_is_golden() {
    let ops = [Op::Insert { table: TableId(20_000), first_row: RowId(9), rows: batch(&[1]) }];
    let zeros = |bytes: usize| "00".repeat(bytes);
    let expected = [
        &*zeros(40),
        "0a000000",
        "00004e20",
        "0000000000000009",
        "000000000000004f",
        "00000001",
        "0003",
        // c1: int64 without NULLs
        "00000001",
        "04",
        "00",
        "0100000000000000",
        // c2: text
        "00000002",
        "09",
        "00",
        "00000005",
        "726f772031",
        // c3: four times "vector_element", a float32 that is not NULL
        "00000003",
        "12",
        "00000004",
        "00",
        "0e",
        "766563746f725f656c656d656e74",
        "06",
        "00",
        "00",
        &"0000803f".repeat(4),
        &zeros(49),
    ]
    .concat();
    let bytes = payload(&[], &ops);
    assert_eq!(hex(&bytes[64..]), expected);
    assert_eq!(decode(&bytes).unwrap().ops, ops);
    let error = decode(&aged(&bytes, 3)).unwrap_err();
    assert!(error.contains("unknown op kind 10 in a payload of version 3"), "{error}");
    // What older programs have written in its place.
    for version in [1, 3] {
        let older = aged(&arrow_payload(&ops, &[]), version);
        assert_eq!(decode(&older).unwrap().ops, ops, "version {version}");
    }
}

/// Versions 1 and 2, which older logs hold.
#[test]
fn bytes_of_older_programs_are_read() {
    let (marks, ops) = plain_ops();
    for version in ["01", "02"] {
        let head = concat!(
            "000000",
            "00000004",
            "00000001",
            "00000000",
            "00004e20",
            "00000001",
            "0000000000000021",
        );
        let bytes = unhex(&[version, head, &"00".repeat(32), &golden_ops()].concat());
        let decoded = decode(&bytes).unwrap();
        assert_eq!(decoded, Decoded { time_us: None, sequences: marks.to_vec(), ops: ops.to_vec() });
    }
}

/// A clone's body is JSON: fields may be added, none of these may change.
#[test]
fn a_clone_survives_and_its_json_is_golden() {
    let blob = BlobEntry { file: FileId([2; 16]), bytes: 80, key: vec![2; 2] };
    let entry = SegmentEntry {
        file: FileId([1; 16]),
        rows: 3,
        first_row: RowId(1),
        last_row: RowId(9),
        bytes: 1000,
        plain_bytes: 2000,
        key: vec![0xab, 0x0c],
        deleted: None,
        indexes: vec![IndexEntry { index: TableId(20_012), blob }],
        sealed_for: Some(TableId(20_000)),
        variable_bytes: None,
    };
    let deleted = roaring::RoaringBitmap::from_iter([1_u32]);
    let segments = vec![ClonedSegment::new(entry, &deleted).unwrap()];
    let source = CloneSource { table: TableId(20_000), next_row: RowId(10), segments, chunks: Vec::new() };
    let ops = vec![Op::Clone { def: items(20_010, "copy"), source: source.clone() }];
    let bytes = payload(&[], &ops);
    assert_eq!(decode(&bytes).unwrap().ops, ops);
    assert_eq!(source.segments[0].deleted().unwrap(), deleted);
    assert!(source.opened().is_err(), "nobody has opened it");
    let expected = format!(
        concat!(
            r#""of":20000,"next_row":10,"segments":[{{"entry":{{"file":"{}","rows":3,"first_row":1,"last_row":9,"#,
            r#""bytes":1000,"plain_bytes":2000,"key":"ab0c","deleted":null,"indexes":[{{"index":20012,"blob":"#,
            r#"{{"file":"{}","bytes":80,"key":"0202"}}}}],"sealed_for":20000}},"deleted":"{}"}}]}}"#
        ),
        "01".repeat(16),
        "02".repeat(16),
        hex(&source.segments[0].deleted),
    );
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(&expected), "{text}");
    // No older version has it.
    let error = decode(&aged(&bytes, 1)).unwrap_err();
    assert!(error.contains("kind 9"), "{error}");
}

/// Arrow's own bytes are not ours to pin; what is around them is.
#[test]
fn before_images_stand_before_their_deletes() {
    let table = TableId(20_000);
    let ops = [
        Op::Insert { table, first_row: RowId(9), rows: batch(&[9]) },
        Op::Delete { table, rows: vec![RowId(1), RowId(2), RowId(9)] },
        Op::Delete { table: TableId(20_001), rows: vec![RowId(3)] },
    ];
    let rows = batch(&[1, 2]);
    let image = [BeforeImage { op: 1, rows: rows.clone() }];
    let bytes = payload_with(&[], &ops, &image);
    let old = aged(&arrow_payload(&ops, &image), 2);
    let plain = payload(&[], &ops);
    assert_eq!(hex(&bytes[..8]), concat!("04010000", "00000004"));
    assert_eq!(hex(&plain[..8]), concat!("04000000", "00000003"));
    let insert = payload(&[], &ops[..1]).len();
    let image = bytes.len() - plain.len();
    assert_eq!(bytes[8..insert], plain[8..insert]);
    assert_eq!(bytes[insert + image..], plain[insert..]);
    let header = hex(&bytes[insert + 40..insert + 56]);
    assert_eq!(header, concat!("08000000", "00004e20", "0000000000000002"));

    // A recovery does not see it, the feed does, each only what it wants.
    assert_eq!(decode(&bytes).unwrap().ops, ops);
    assert_eq!(decode(&old).unwrap(), Decoded { time_us: None, sequences: vec![], ops: ops.to_vec() });
    let [first, second, third] = ops.map(Record::Op);
    let before = Record::Before { table, rows };
    let all = [first, before, second, third];
    assert_eq!(decode_wanted(&old, &|_| true).unwrap().records, all);
    let wanted = decode_wanted(&bytes, &|_| true).unwrap();
    assert_eq!((wanted.time_us, &wanted.records[..]), (Some(TIME_US), &all[..]));
    let other = decode_wanted(&bytes, &|wanted| wanted != table).unwrap().records;
    assert!(matches!(&other[..], [Record::Op(Op::Delete { table: TableId(20_001), .. })]), "{other:?}");
    assert!(decode_wanted(&bytes, &|_| false).unwrap().records.is_empty());

    let mut as_first = old.to_vec();
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
    assert_eq!(decode(&bytes).unwrap(), Decoded { time_us: Some(TIME_US), sequences: marks.to_vec(), ops });
}

#[test]
fn inserted_columns_are_not_copied() {
    let rows = batch(&(0..100_000).collect::<Vec<_>>());
    let ops = [Op::Insert { table: TableId(20_000), first_row: RowId(1), rows: rows.clone() }];
    let parts = encode_ops(&ops, &[]).unwrap().parts;
    let vectors = rows.column(2).to_data().child_data()[0].buffers()[0].as_ptr();
    assert!(parts.iter().any(|part| part.as_ptr() == vectors), "the vectors' own buffer is a part");

    let bytes = payload(&[], &ops);
    let decoded = decode(&bytes).unwrap();
    let Op::Insert { rows, .. } = &decoded.ops[0] else { panic!("an insert was encoded") };
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
    other[0] = 5;
    assert!(decode(&Buffer::from_vec(other)).unwrap_err().contains("version 5"));
    let mut flagged = bytes.to_vec();
    flagged[1] = 4;
    assert!(decode(&Buffer::from_vec(flagged)).unwrap_err().contains("flags 0x4"));
}

/// A program from before knows no such flag and refuses the commit, rather than leave the constraints out.
#[test]
fn definitions_with_constraints_have_a_flag() {
    let mut def = items(20_000, "items");
    assert_eq!(payload(&[], &[Op::AlterTable(def.clone())])[1], 0);
    def.constraints.checks.push(CheckDef {
        id: TableId(20_006),
        name: "c".into(),
        expression: "true".into(),
        shown: "true".into(),
        columns: Vec::new(),
        not_valid: false,
    });
    for op in [Op::CreateTable(def.clone()), Op::AlterTable(def)] {
        let bytes = payload(&[], std::slice::from_ref(&op));
        assert_eq!(bytes[..2], [4, 2]);
        assert_eq!(decode(&bytes).unwrap().ops, [op]);
    }
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
        let decoded = Decoded { time_us: Some(TIME_US), sequences: marks, ops };
        prop_assert_eq!(decode(&bytes).unwrap(), decoded);
    }
}
