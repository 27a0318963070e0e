//! A column's Arrow type in a few bytes.
//!
//! Called by `encode` and `decode`. A code means the same for ever; new types get new ones.

use std::sync::Arc;

use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, IntervalUnit, TimeUnit, validate_decimal_precision_and_scale,
};

use super::{MAX_DEPTH, decode::Reader, encode::Writer};

const DECIMAL: u8 = 8;
const FIXED_BYTES: u8 = 11;
const LIST: u8 = 17;
const FIXED_LIST: u8 = 18;
const UTC: &str = "UTC";

/// Appends a type; `None` for one without a code.
pub(super) fn put(ty: &DataType, out: &mut Writer<'_>) -> Option<()> {
    put_within(ty, MAX_DEPTH, out)
}

fn put_within(ty: &DataType, depth: u32, out: &mut Writer<'_>) -> Option<()> {
    if let Some(code) = plain_code(ty) {
        return out.put(&[code]);
    }
    match ty {
        DataType::Decimal128(precision, scale) => out.put(&[DECIMAL, *precision, scale.cast_unsigned()]),
        DataType::FixedSizeBinary(width) => {
            out.put(&[FIXED_BYTES])?;
            out.u32(positive(*width)?)
        }
        DataType::List(field) => {
            out.put(&[LIST])?;
            put_item(field, depth, out)
        }
        DataType::FixedSizeList(field, size) => {
            out.put(&[FIXED_LIST])?;
            out.u32(positive(*size)?)?;
            put_item(field, depth, out)
        }
        _ => None,
    }
}

fn put_item(field: &Field, depth: u32, out: &mut Writer<'_>) -> Option<()> {
    if !field.metadata().is_empty() {
        return None;
    }
    let name = field.name().as_bytes();
    out.put(&[u8::from(field.is_nullable()), u8::try_from(name.len()).ok()?])?;
    out.put(name)?;
    put_within(field.data_type(), depth.checked_sub(1)?, out)
}

/// A width of nothing would let rows be many that take no byte.
fn positive(size: i32) -> Option<u32> {
    u32::try_from(size).ok().filter(|size| *size > 0)
}

/// The type at the reader's place.
pub(super) fn take(reader: &mut Reader<'_>) -> Result<DataType, String> {
    take_within(MAX_DEPTH, reader)
}

fn take_within(depth: u32, reader: &mut Reader<'_>) -> Result<DataType, String> {
    let code = reader.u8()?;
    Ok(match code {
        DECIMAL => {
            let (precision, scale) = (reader.u8()?, reader.u8()?.cast_signed());
            validate_decimal_precision_and_scale::<Decimal128Type>(precision, scale)
                .map_err(|error| error.to_string())?;
            DataType::Decimal128(precision, scale)
        }
        FIXED_BYTES => DataType::FixedSizeBinary(take_size(reader)?),
        LIST => DataType::List(take_item(depth, reader)?),
        FIXED_LIST => {
            let size = take_size(reader)?;
            DataType::FixedSizeList(take_item(depth, reader)?, size)
        }
        _ => plain_type(code).ok_or_else(|| format!("unknown column type {code}"))?,
    })
}

fn take_size(reader: &mut Reader<'_>) -> Result<i32, String> {
    let size = reader.u32()?;
    i32::try_from(size).ok().filter(|size| *size > 0).ok_or_else(|| format!("a size of {size}"))
}

fn take_item(depth: u32, reader: &mut Reader<'_>) -> Result<FieldRef, String> {
    let depth = depth.checked_sub(1).ok_or("lists in lists, too deep")?;
    let nullable = reader.flag()?;
    let length = usize::from(reader.u8()?);
    let name =
        std::str::from_utf8(reader.take(length)?).map_err(|error| format!("an item's name: {error}"))?;
    Ok(Arc::new(Field::new(name, take_within(depth, reader)?, nullable)))
}

/// The code of a type that needs no more said.
fn plain_code(ty: &DataType) -> Option<u8> {
    Some(match ty {
        DataType::Boolean => 1,
        DataType::Int16 => 2,
        DataType::Int32 => 3,
        DataType::Int64 => 4,
        DataType::Float16 => 5,
        DataType::Float32 => 6,
        DataType::Float64 => 7,
        DataType::Utf8 => 9,
        DataType::Binary => 10,
        DataType::Date32 => 12,
        DataType::Time64(TimeUnit::Microsecond) => 13,
        DataType::Timestamp(TimeUnit::Microsecond, None) => 14,
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if **zone == *UTC => 15,
        DataType::Interval(IntervalUnit::MonthDayNano) => 16,
        DataType::UInt8 => 19,
        _ => return None,
    })
}

fn plain_type(code: u8) -> Option<DataType> {
    Some(match code {
        1 => DataType::Boolean,
        2 => DataType::Int16,
        3 => DataType::Int32,
        4 => DataType::Int64,
        5 => DataType::Float16,
        6 => DataType::Float32,
        7 => DataType::Float64,
        9 => DataType::Utf8,
        10 => DataType::Binary,
        12 => DataType::Date32,
        13 => DataType::Time64(TimeUnit::Microsecond),
        14 => DataType::Timestamp(TimeUnit::Microsecond, None),
        15 => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        16 => DataType::Interval(IntervalUnit::MonthDayNano),
        19 => DataType::UInt8,
        _ => return None,
    })
}
