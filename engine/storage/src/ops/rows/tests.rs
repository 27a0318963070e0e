//! Every type that a column may have survives the small insert's bytes, and no bytes do harm.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayData, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray,
        Int32Array, Int64Array, ListArray, ListBuilder, StringArray, StringBuilder, UInt8Array, make_array,
    },
    buffer::{Buffer, NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit},
    record_batch::RecordBatch,
};
use proptest::prelude::*;
use sepal_types::{ColumnId, SqlType};

use super::{MAX_BYTES, MAX_DEPTH, decode, encode};
use crate::{
    arrow_types::{arrow_type, stored_name},
    fixtures::{batch, hex},
};

fn named(arrays: Vec<ArrayRef>) -> RecordBatch {
    let field = |(id, array): (u32, &ArrayRef)| {
        Field::new(stored_name(ColumnId(id)), array.data_type().clone(), true)
    };
    let fields: Vec<Field> = (1..).zip(&arrays).map(field).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn encoded(rows: &RecordBatch) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(rows, MAX_BYTES, &mut bytes).map(|()| bytes)
}

/// These bytes are in files: a change here is a change of format.
#[test]
fn bytes_are_golden() {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.values().append_value("a");
    lists.values().append_null();
    lists.append(true);
    lists.append(false);
    lists.append(true);
    let rows = named(vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(lists.finish()),
        Arc::new(StringArray::from(vec!["", "é", "\0"])),
    ]);
    let bytes = concat!(
        "00000003", "0003", // c1: a boolean, with a NULL
        "00000001", "01", "01", "05", "01",
        // c2: lists of text; one has a NULL, one is NULL, one is empty
        "00000002", "11", "01", "04", "6974656d", "09", "01", "05", "00000002", "00000002", "00000002", "01",
        "01", "00000001", "00000001", "61", // c3: text
        "00000003", "09", "00", "00000000", "00000002", "00000003", "c3a900",
    );
    assert_eq!(hex(&encoded(&rows).unwrap()), bytes);
    assert_eq!(decode(&encoded(&rows).unwrap()).unwrap(), rows);
}

#[test]
fn bytes_of_bit_strings_are_golden() {
    let DataType::FixedSizeList(item, size) = arrow_type(&SqlType::Bit(Some(3))) else { panic!() };
    let bits = Arc::new(UInt8Array::from(vec![0xa0, 0x40]));
    let rows = named(vec![Arc::new(FixedSizeListArray::new(item, size, bits, None))]);
    let bytes = concat!(
        "00000002",
        "0001",
        "00000001", // lists of one byte, which is not null and called bit(3)
        "12",
        "00000001",
        "00",
        "06",
        "626974283329",
        "13",
        "00",
        "00",
        "a040",
    );
    assert_eq!(hex(&encoded(&rows).unwrap()), bytes);
    assert_eq!(decode(&encoded(&rows).unwrap()).unwrap(), rows);
}

#[test]
fn bytes_of_sparse_vectors_are_golden() {
    let DataType::List(item) = arrow_type(&SqlType::SparseVec(Some(5))) else { panic!() };
    let words = Arc::new(Int32Array::from(vec![i32::MAX, 0x3fc0_0000, i32::MIN + 10]));
    let rows = named(vec![Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([3]), words, None))]);
    let bytes = concat!(
        "00000001",
        "0001",
        "00000001", // lists of i32, which is not null and called sparsevec
        "11",
        "00",
        "09",
        "737061727365766563",
        "03",
        "00",
        "00000003",
        "00", // in the machine's order
        "ffffff7f",
        "0000c03f",
        "0a000080",
    );
    assert_eq!(hex(&encoded(&rows).unwrap()), bytes);
    assert_eq!(decode(&encoded(&rows).unwrap()).unwrap(), rows);
}

#[test]
fn each_sql_type_has_a_code() {
    let nested = [
        SqlType::Numeric(Some((10, 2))),
        SqlType::Vector(Some(384)),
        SqlType::Vector(None),
        SqlType::HalfVec(Some(384)),
        SqlType::HalfVec(None),
        SqlType::Bit(Some(1)),
        SqlType::Bit(Some(13)),
        SqlType::Bit(None),
        SqlType::SparseVec(Some(5)),
        SqlType::Array(Box::new(SqlType::Jsonb)),
        SqlType::Array(Box::new(SqlType::Vector(Some(3)))),
        SqlType::Array(Box::new(SqlType::HalfVec(Some(3)))),
    ];
    for ty in SqlType::simple_types().chain(nested).filter(|ty| *ty != SqlType::Void) {
        let array = arrow::array::new_null_array(&arrow_type(&ty), 3);
        let rows = named(vec![array]);
        let bytes = encoded(&rows).unwrap_or_else(|| panic!("{} has no code", ty.display_name()));
        assert_eq!(decode(&bytes).unwrap(), rows, "{}", ty.display_name());
    }
}

#[test]
fn what_does_not_fit_is_left_to_arrow() {
    let rows = batch(&[1]);
    let bytes = encoded(&rows).unwrap();
    assert!(encode(&rows, bytes.len(), &mut Vec::new()).is_some());
    let mut out = Vec::new();
    assert!(encode(&rows, bytes.len() - 1, &mut out).is_none());
    // The column that is too long is not begun with.
    let long: ArrayRef = Arc::new(Int64Array::from(vec![7; 10_000]));
    let mut out = Vec::new();
    assert!(encode(&named(vec![long]), MAX_BYTES, &mut out).is_none());
    assert!(out.len() < 20, "{} bytes", out.len());

    assert!(encoded(&RecordBatch::new_empty(Schema::empty().into())).is_none(), "no column counts its rows");
    let void: ArrayRef = arrow::array::new_null_array(&DataType::Null, 2);
    assert!(encoded(&named(vec![void])).is_none());
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Rome".into()));
    assert!(encoded(&named(vec![arrow::array::new_null_array(&zoned, 2)])).is_none());
    let mut deep = DataType::Int32;
    for _ in 0..MAX_DEPTH {
        deep = DataType::List(Arc::new(Field::new("item", deep, true)));
    }
    assert!(encoded(&named(vec![arrow::array::new_null_array(&deep, 2)])).is_some());
    let deeper = DataType::List(Arc::new(Field::new("item", deep, true)));
    assert!(encoded(&named(vec![arrow::array::new_null_array(&deeper, 2)])).is_none());
}

#[test]
fn cut_or_foreign_bytes_are_refused() {
    let bytes = encoded(&batch(&[1, 2])).unwrap();
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(decode(&longer).unwrap_err().contains("1 bytes after the last column"));
    // One int8 column of a type, then its array.
    let column = |rows: u32, rest: &[u8]| {
        decode(&[&rows.to_be_bytes()[..], &[0, 1, 0, 0, 0, 1], rest].concat()).unwrap_err()
    };
    assert!(column(1, &[99, 0]).contains("unknown column type 99"));
    assert!(column(1, &[8, 200, 0, 0]).contains("precision 200"));
    assert!(column(1, &[11, 0, 0, 0, 0, 0]).contains("a size of 0"));
    assert!(column(1, &[17; 64]).contains("17 where there is 0 or 1"));
    assert!(column(1, &[17, 1, 0].repeat(20)).contains("too deep"));
    assert!(column(1, &[4, 2]).contains("2 where there is 0 or 1"));
    assert!(column(u32::MAX, &[4, 0]).contains("4294967295 rows of 1 columns in 12 bytes"));
    assert!(column(40, &[4, 0]).contains("column 1: 320 bytes expected, 0 are left"));
    assert!(column(2, &[9, 0, 0, 0, 0, 1, 0, 0, 0, 0, 65]).contains("ends before 1"));
    assert!(column(1, &[9, 0, 0, 0, 0, 1, 0xff]).contains("column 1"), "not UTF-8");
    // Four thousand million lists of four thousand million items.
    let size = [18, 0x7f, 0xff, 0xff, 0xff, 1, 0];
    assert!(column(1, &[&size[..], &size, &size, &[1, 0, 0, 0]].concat()).contains("column 1"));
}

fn any_type() -> impl Strategy<Value = DataType> {
    let plain = prop::sample::select(vec![
        DataType::Boolean,
        DataType::UInt8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Decimal128(38, 16),
        DataType::Decimal128(5, -2),
        DataType::FixedSizeBinary(16),
        DataType::FixedSizeBinary(1),
    ]);
    plain.prop_recursive(3, 6, 1, |inner| {
        (inner, "[a-z_é]{0,12}", any::<bool>(), 0..4i32).prop_map(|(ty, name, nullable, size)| {
            let item = Arc::new(Field::new(name, ty, nullable));
            if size == 0 { DataType::List(item) } else { DataType::FixedSizeList(item, size) }
        })
    })
}

/// An array of `length` values, as `dice` fall.
fn array(ty: &DataType, length: usize, nullable: bool, dice: &mut dyn FnMut() -> u64) -> ArrayRef {
    let mut small = |below: u64| usize::try_from(dice() % below).unwrap();
    let valid: Vec<bool> = (0..length).map(|_| !nullable || small(3) > 0).collect();
    let nulls = Some(NullBuffer::from(valid.clone())).filter(|nulls| nulls.null_count() > 0);
    let kept = |(value, valid): (usize, &bool)| valid.then_some(value);
    match ty {
        DataType::Boolean => {
            let values: Vec<usize> = (0..length).map(|_| small(2)).collect();
            let values = values.into_iter().zip(&valid).map(kept).map(|value| value.map(|value| value == 1));
            Arc::new(values.collect::<BooleanArray>())
        }
        DataType::Utf8 => {
            let values: Vec<usize> = (0..length).map(|_| small(5)).collect();
            let values = values.into_iter().zip(&valid).map(kept);
            Arc::new(values.map(|value| value.map(|value| "né".repeat(value))).collect::<StringArray>())
        }
        DataType::Binary => {
            let values: Vec<usize> = (0..length).map(|_| small(5)).collect();
            let values = values.into_iter().zip(&valid).map(kept);
            Arc::new(values.map(|value| value.map(|value| vec![0xff; value])).collect::<BinaryArray>())
        }
        DataType::FixedSizeBinary(width) => {
            let bytes: Vec<u8> =
                (0..length * usize::try_from(*width).unwrap()).map(|at| at.to_le_bytes()[0]).collect();
            Arc::new(FixedSizeBinaryArray::new(*width, Buffer::from_vec(bytes), nulls))
        }
        DataType::List(item) => {
            let lengths: Vec<usize> = (0..length).map(|_| small(4)).collect();
            let items = array(item.data_type(), lengths.iter().sum(), item.is_nullable(), dice);
            Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), items, nulls))
        }
        DataType::FixedSizeList(item, size) => {
            let items = length * usize::try_from(*size).unwrap();
            let items = array(item.data_type(), items, item.is_nullable(), dice);
            Arc::new(FixedSizeListArray::new(Arc::clone(item), *size, items, nulls))
        }
        fixed => {
            let bytes: Vec<u8> =
                (0..length * fixed.primitive_width().unwrap()).map(|_| dice().to_le_bytes()[0]).collect();
            let data = ArrayData::builder(fixed.clone()).len(length).nulls(nulls);
            make_array(data.add_buffer(Buffer::from_slice_ref(&bytes)).build().unwrap())
        }
    }
}

/// Rows of these types, cut out of more rows.
fn rows(types: &[DataType], length: usize, seed: u64) -> RecordBatch {
    let mut state = seed | 1;
    let mut dice = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 8
    };
    let arrays = types.iter().map(|ty| array(ty, length + 5, true, &mut dice)).collect();
    named(arrays).slice(3, length)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_rows_survive(
        types in prop::collection::vec(any_type(), 1..5), length in 0..20usize, seed in any::<u64>(),
    ) {
        let rows = rows(&types, length, seed);
        let bytes = encoded(&rows).expect("it is small");
        let decoded = decode(&bytes).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&decoded, &rows);
        prop_assert_eq!(decoded.schema(), rows.schema());
        prop_assert_eq!(encoded(&decoded).expect("it is small"), bytes);
    }

    #[test]
    fn damaged_bytes_do_no_harm(
        types in prop::collection::vec(any_type(), 1..4), length in 0..8usize, seed in any::<u64>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encoded(&rows(&types, length, seed)).expect("it is small");
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(decoded) = decode(&bytes) {
            prop_assert!(decoded.get_array_memory_size() < 4096 + 256 * bytes.len());
        }
    }

    #[test]
    fn foreign_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), column in any::<bool>()) {
        let head: &[u8] = if column { &[0, 0, 0, 2, 0, 1, 0, 0, 0, 1] } else { &[] };
        let _ = decode(&[head, &bytes].concat());
    }
}
