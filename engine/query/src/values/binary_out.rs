//! Values in binary, as drivers ask for them and as `COPY … (FORMAT binary)` writes them.
//!
//! Called by `column` with a row that is not NULL. Appends the value only, without a length. The layouts are
//! drawn in `values/mod.rs`.

use bytes::{BufMut, BytesMut};
use sepal_types::{Error, Result, SqlType};

use super::{
    array,
    column::{Column, ColumnEncoder, label},
    datetime, interval, numeric, text_out,
    text_search::{TsQuery, TsVector},
};

pub(super) fn write(column: &Column, row: usize, out: &mut BytesMut) -> Result<()> {
    match column {
        Column::AllNull | Column::Void => {}
        Column::Array { offsets, elements, element_oid } => {
            return write_array(
                elements,
                *element_oid,
                offsets[row] as usize,
                offsets[row + 1] as usize,
                out,
            );
        }
        Column::Bool(values) => out.put_u8(values.value(row).into()),
        Column::Bytea(values) => out.extend_from_slice(values.value(row)),
        Column::Char(values) => out.put_u8(char_byte(values.value(row))),
        Column::Date(values) => out.put_i32(datetime::date_to_wire(values.value(row))),
        Column::Float4(values) => out.put_f32(values.value(row)),
        Column::Float8(values) => out.put_f64(values.value(row)),
        Column::Int2(values) => out.put_i16(values.value(row)),
        Column::Int4(values) => out.put_i32(values.value(row)),
        Column::Int8(values) => out.put_i64(values.value(row)),
        Column::Interval(values) | Column::IsoInterval(values) => {
            interval::write_binary(values.value(row), out);
        }
        Column::Jsonb(values) => {
            out.put_u8(1);
            out.extend_from_slice(values.value(row).as_bytes());
        }
        Column::Numbers { texts, element } => return write_numbers(texts.value(row), element, out),
        Column::Numeric { values, shortest } => {
            numeric::write_binary(values.value(row), values.scale(), *shortest, out);
        }
        Column::Oid(values) => out.put_u32(oid(values.value(row))?),
        Column::Padded { values, width } => text_out::write_padded(values.value(row), *width, out),
        Column::Reg(values) => write_reg(values.value(row), out),
        Column::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
        Column::TsQuery(values) => TsQuery::parse(values.value(row))?.write_binary(out),
        Column::TsVector(values) => TsVector::read(values.value(row)).write_binary(out),
        Column::Time(values) => out.put_i64(values.value(row)),
        Column::Timestamp { values, .. } => out.put_i64(datetime::timestamp_to_wire(values.value(row))),
        Column::Uuid(values) => out.extend_from_slice(values.value(row)),
        Column::Bit(values) => values.write_binary(row, out),
        Column::HalfVec(values) => return values.write_binary(row, out),
        Column::Vector(values) => return values.write_binary(row, out),
        Column::SparseVec(values) => values.write_binary(row, out),
        Column::Enum { values, ty } => out.extend_from_slice(label(values, ty, row)?.as_bytes()),
    }
    Ok(())
}

fn write_array(
    elements: &ColumnEncoder,
    element_oid: u32,
    start: usize,
    end: usize,
    out: &mut BytesMut,
) -> Result<()> {
    let has_nulls = (start..end).any(|position| elements.is_null(position));
    array::write_header(end - start, has_nulls, element_oid, 1, out)?;
    (start..end).try_for_each(|position| elements.binary_field(position, out))
}

/// `int2vector` and `oidvector` are arrays whose lower bound is 0.
fn write_numbers(text: &str, element: &SqlType, out: &mut BytesMut) -> Result<()> {
    let numbers: Vec<&str> = text.split_ascii_whitespace().collect();
    // An empty one keeps its dimension, of length 0, as Postgres sends it.
    array::write_dimension(numbers.len(), false, element.oid(), 0, out)?;
    for number in numbers {
        let malformed = || Error::bug(format!("a stored list of numbers holds \"{number}\""));
        if *element == SqlType::Int2 {
            out.put_i32(2);
            out.put_i16(number.parse().map_err(|_| malformed())?);
        } else {
            out.put_i32(4);
            out.put_u32(number.parse().map_err(|_| malformed())?);
        }
    }
    Ok(())
}

/// An oid in digits goes out as the oid that Postgres would send; a name has no number here and stays text.
fn write_reg(text: &str, out: &mut BytesMut) {
    match text.parse::<u32>() {
        Ok(oid) => out.put_u32(oid),
        Err(_) => out.extend_from_slice(text.as_bytes()),
    }
}

fn oid(value: i64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::bug(format!("a stored oid is {value}, which no u32 holds")))
}

/// `\ooo` is how a byte that is no character by itself is kept.
fn char_byte(text: &str) -> u8 {
    match text.as_bytes() {
        [b'\\', octal @ ..] if octal.len() == 3 => {
            octal.iter().fold(0u8, |byte, digit| (byte << 3) | (digit.wrapping_sub(b'0') & 7))
        }
        bytes => bytes.first().copied().unwrap_or(0),
    }
}
