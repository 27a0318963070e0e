//! Binary forms: each line is what Postgres' send function gives, in hex.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float32Array, StringArray};
use bytes::BytesMut;
use sepal_types::SqlType;

use super::{super::ColumnEncoder, decode_binary, decode_text, hex, printed, sent, ty, unhex};

#[test]
fn both_ways() {
    let cases = [
        ("numeric", "12345.678", "0003000100000003000109291a7c"),
        ("numeric", "-0.0001", "0001ffff400000040001"),
        ("numeric", "0", "0000000000000000"),
        ("numeric", "10000", "00010001000000000001"),
        ("numeric", "10000000000", "00010002000000000064"),
        ("numeric", "0.5", "0001ffff000000011388"),
        ("numeric(10,2)", "-99999999.99", "0003000140000002270f270f26ac"),
        ("numeric(3,2)", "0.00", "0000000000000002"),
        (
            "numeric(38,5)",
            "123456789012345678901234.56789",
            "000800050000000504d2162e23340d801ed204d2162e2328",
        ),
        ("interval", "1 year 2 mons -3 days +04:05:06.789", "000000036c97ca88fffffffd0000000e"),
        (
            "int4[]",
            "{1,NULL,3}",
            "00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003",
        ),
        ("int4[]", "{}", "000000000000000000000017"),
        ("text[]", "{a,\"b c\"}", "0000000100000000000000190000000200000001000000016100000003622063"),
        ("timestamptz", "2024-01-02 03:04:05.678+00", "0002b0ec85204bb0"),
        ("timestamp", "-infinity", "8000000000000000"),
        ("timestamp", "infinity", "7fffffffffffffff"),
        ("date", "1999-12-31", "ffffffff"),
        ("date", "infinity", "7fffffff"),
        ("date", "-infinity", "80000000"),
        ("time", "03:04:05.678", "00000002925fabb0"),
        ("int2vector", "1 2", "0000000100000000000000150000000200000000000000020001000000020002"),
        ("int2vector", "", "0000000100000000000000150000000000000000"),
        ("oidvector", "10 20", "00000001000000000000001a0000000200000000000000040000000a0000000400000014"),
        ("jsonb", "{\"a\": 1}", "017b2261223a20317d"),
        ("\"char\"", "a", "61"),
        ("\"char\"", "\\303", "c3"),
        ("bool", "t", "01"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a11"),
        ("float8", "1.5", "3ff8000000000000"),
        ("bytea", "\\x0102", "0102"),
        ("oid", "4294967295", "ffffffff"),
        ("regclass", "16384", "00004000"),
        ("tsvector", "'a':1A,3 'b'", "0000000261000002c001000362000000"),
        ("tsvector", "", "00000000"),
        ("tsquery", "'a' & !'b':*A <2> 'c'", "000000060202020400020100006300020101080162000100006100"),
        ("tsquery", "", "00000000"),
        ("vector", "[1,-2.5]", "000200003f800000c0200000"),
        ("vector(2)", "[1,-2.5]", "000200003f800000c0200000"),
        ("bit(4)", "1011", "00000004b0"),
        ("bit", "101111111", "00000009bf80"),
        ("bit", "", "00000000"),
        ("halfvec", "[1,-2.5]", "000200003c00c100"),
        ("halfvec(3)", "[65504,5.9604645e-08,-0.099975586]", "000300007bff0001ae66"),
        ("sparsevec", "{1:1.5,3:2}/5", "00000005000000020000000000000000000000023fc0000040000000"),
        ("sparsevec(3)", "{2:-2.5}/3", "00000003000000010000000000000001c0200000"),
        ("sparsevec", "{}/1000000000", "3b9aca000000000000000000"),
    ];
    for (name, text, bytes) in cases {
        let ty = ty(name);
        let from_text = decode_text(&ty, Some(text.as_bytes())).unwrap();
        assert_eq!(hex(&sent(&ty, &from_text)), bytes, "{name} {text}");
        let from_binary = decode_binary(&ty, Some(&unhex(bytes))).unwrap();
        assert_eq!(&from_binary, &from_text, "{name} {bytes}");
        assert_eq!(printed(&ty, &from_binary), text, "{name} {bytes}");
    }
}

#[test]
fn numeric_is_cut_at_its_display_scale_and_rounded_to_the_column() {
    // 1.2399 with display scale 3, as PostgreSQL reads it: 1.239, then rounded.
    let bytes = unhex("00020000000000030001095f");
    assert_eq!(printed(&ty("numeric"), &decode_binary(&ty("numeric"), Some(&bytes)).unwrap()), "1.239");
    let rounded = decode_binary(&ty("numeric(5,2)"), Some(&bytes)).unwrap();
    assert_eq!(printed(&ty("numeric(5,2)"), &rounded), "1.24");
}

#[test]
fn a_name_without_number_goes_out_as_text() {
    let array: ArrayRef = Arc::new(StringArray::from(vec!["items"]));
    assert_eq!(sent(&SqlType::Regclass, &array), b"items");
}

/// Batches are slices more often than not: offsets must be honoured, in vectors above all.
#[test]
fn slices_start_where_they_start() {
    let sepal_item = match sepal_storage::arrow_type(&ty("vector(2)")) {
        arrow::datatypes::DataType::FixedSizeList(item, _) => item,
        other => panic!("{other}"),
    };
    let values = Arc::new(Float32Array::from(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let whole = FixedSizeListArray::new(sepal_item, 2, values, None);
    let slice = whole.slice(1, 2);
    let encoder = ColumnEncoder::new(&slice, &ty("vector(2)")).unwrap();
    let mut out = BytesMut::new();
    encoder.text(0, &mut out).unwrap();
    encoder.text(1, &mut out).unwrap();
    assert_eq!(&out[..], b"[3,4][5,6]");

    let list = decode_text(&ty("int4[]"), Some(b"{1,2,3}")).unwrap();
    let lists = arrow::compute::concat(&[list.as_ref(), list.as_ref()]).unwrap().slice(1, 1);
    assert_eq!(printed(&ty("int4[]"), &lists), "{1,2,3}");
}

#[test]
fn fields_carry_their_length() {
    let ty = SqlType::Int4;
    let values = arrow::array::Int32Array::from(vec![Some(7), None]);
    let encoder = ColumnEncoder::new(&values, &ty).unwrap();
    let mut out = BytesMut::new();
    encoder.text_field(0, &mut out).unwrap();
    encoder.binary_field(0, &mut out).unwrap();
    encoder.text_field(1, &mut out).unwrap();
    assert_eq!(hex(&out), ["00000001", "37", "00000004", "00000007", "ffffffff"].concat());
    assert!(encoder.is_null(1));
}

#[test]
fn a_column_of_another_type_is_a_bug_not_a_panic() {
    let values = arrow::array::Int64Array::from(vec![7]);
    let error = ColumnEncoder::new(&values, &SqlType::Int4).unwrap_err();
    assert_eq!(error.state().code(), "XX000");
}
