//! Values as text, in the forms that psql shows.
//!
//! Called by `column` with a row that is not NULL. Appends the value only: no length, no quoting for COPY.

use bytes::{BufMut, BytesMut};
use sepal_types::{Result, format_float4, format_float8};

use super::{
    array,
    column::{Column, ColumnEncoder, label},
    datetime, interval, numeric,
};

pub(super) fn write(column: &Column, row: usize, out: &mut BytesMut) -> Result<()> {
    match column {
        Column::AllNull | Column::Void => {}
        Column::Array { offsets, elements, .. } => {
            return write_array(elements, offsets[row] as usize, offsets[row + 1] as usize, out);
        }
        Column::Bool(values) => out.put_u8(if values.value(row) { b't' } else { b'f' }),
        Column::Bytea(values) => write_bytea(values.value(row), out),
        Column::Char(values)
        | Column::Jsonb(values)
        | Column::Reg(values)
        | Column::Text(values)
        | Column::TsQuery(values)
        | Column::TsVector(values) => {
            out.extend_from_slice(values.value(row).as_bytes());
        }
        Column::Date(values) => datetime::write_date(values.value(row), out),
        Column::Float4(values) => write_float(out, |text| format_float4(values.value(row), text)),
        Column::Float8(values) => write_float(out, |text| format_float8(values.value(row), text)),
        Column::Int2(values) => write_integer(values.value(row).into(), out),
        Column::Int4(values) => write_integer(values.value(row).into(), out),
        Column::Int8(values) | Column::Oid(values) => write_integer(values.value(row), out),
        Column::Interval(values) => interval::write_text(values.value(row), out),
        Column::Numbers { texts, .. } => out.extend_from_slice(texts.value(row).as_bytes()),
        Column::Numeric { values, shortest } => {
            numeric::write_text(values.value(row), values.scale(), *shortest, out);
        }
        Column::Padded { values, width } => write_padded(values.value(row), *width, out),
        Column::Time(values) => datetime::write_time(values.value(row), out),
        Column::Timestamp { values, zone } => datetime::write_timestamp(values.value(row), *zone, out),
        Column::Uuid(values) => write_uuid(values.value(row), out),
        Column::Bit(values) => values.write_text(row, out),
        Column::HalfVec(values) => values.write_text(row, out),
        Column::Vector(values) => values.write_text(row, out),
        Column::SparseVec(values) => values.write_text(row, out),
        Column::Enum { values, ty } => out.extend_from_slice(label(values, ty, row)?.as_bytes()),
        Column::IsoInterval(values) => interval::write_iso(values.value(row), out),
    }
    Ok(())
}

/// Blanks up to so many characters.
pub(super) fn write_padded(text: &str, width: usize, out: &mut BytesMut) {
    out.extend_from_slice(text.as_bytes());
    out.put_bytes(b' ', width.saturating_sub(text.chars().count()));
}

fn write_array(elements: &ColumnEncoder, start: usize, end: usize, out: &mut BytesMut) -> Result<()> {
    let mut element = BytesMut::new();
    out.put_u8(b'{');
    for position in start..end {
        if position > start {
            out.put_u8(b',');
        }
        if elements.is_null(position) {
            out.extend_from_slice(b"NULL");
            continue;
        }
        element.clear();
        elements.text(position, &mut element)?;
        array::write_quoted(&element, out);
    }
    out.put_u8(b'}');
    Ok(())
}

/// Decimal digits; also used for the parts of dates.
pub(super) fn write_integer(value: i64, out: &mut BytesMut) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.put_u8(b'-');
    }
    out.extend_from_slice(&digits[start..]);
}

fn write_float(out: &mut BytesMut, format: impl FnOnce(&mut String)) {
    let mut text = String::with_capacity(24);
    format(&mut text);
    out.extend_from_slice(text.as_bytes());
}

fn write_bytea(bytes: &[u8], out: &mut BytesMut) {
    out.reserve(bytes.len() * 2 + 2);
    out.extend_from_slice(b"\\x");
    write_hex(bytes, out);
}

fn write_uuid(bytes: &[u8], out: &mut BytesMut) {
    for (position, group) in
        [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]].iter().enumerate()
    {
        if position > 0 {
            out.put_u8(b'-');
        }
        write_hex(group, out);
    }
}

fn write_hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}
