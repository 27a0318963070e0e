//! Columns as JSON values, written row by row into a buffer.
//!
//! Called by `ndjson`. Types that JSON has are its own (numbers with all their digits, booleans, arrays, documents of
//! `json` and `jsonb`), the others are strings in the form that psql shows: `numeric` exactly, `bytea` as `\x` and
//! hex, times as ISO 8601. NaN and the infinities, which JSON has not, are strings.

use std::fmt::{Display, LowerExp, Write as _};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, StringArray},
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Float16Type, Float32Type, Float64Type},
};
use bytes::{BufMut, BytesMut};
use sepal_query::values::ColumnEncoder;
use sepal_types::{Error, Result, SqlType};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A column, downcast once.
pub struct JsonColumn {
    nulls: Option<NullBuffer>,
    values: Values,
}

enum Values {
    AllNull,
    Bool(BooleanArray),
    Bytea(BinaryArray),
    /// The text form is JSON already.
    Digits(ColumnEncoder),
    Float4(Float32Array),
    Float8(Float64Array),
    Json(StringArray),
    List {
        offsets: OffsetBuffer<i32>,
        elements: Box<JsonColumn>,
    },
    /// The text form has nothing to escape.
    Plain(ColumnEncoder),
    Text(StringArray),
    /// `2024-01-02 03:04:05` becomes `2024-01-02T03:04:05`, with `Z` where there is a zone.
    Timestamp(ColumnEncoder),
    /// Elements in a row, `dimensions` for each.
    Vector {
        elements: Float32Array,
        dimensions: usize,
    },
}

impl JsonColumn {
    /// Errors: an array that is not of the type's Arrow type (XX000).
    pub fn new(array: &ArrayRef, ty: &SqlType) -> Result<Self> {
        if *array.data_type() == DataType::Null {
            return Ok(Self { nulls: None, values: Values::AllNull });
        }
        Ok(Self { nulls: array.logical_nulls(), values: Values::new(array, ty)? })
    }

    /// Appends a row's value.
    pub fn write(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match &self.values {
            Values::AllNull => out.extend_from_slice(b"null"),
            Values::Bool(values) => out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }),
            Values::Bytea(values) => write_bytea(values.value(row), out),
            Values::Digits(values) => values.text(row, out)?,
            Values::Float4(values) => write_float4(values.value(row), out)?,
            Values::Float8(values) => write_float8(values.value(row), out)?,
            Values::Json(values) => write_document(values.value(row), out),
            Values::List { offsets, elements } => {
                write_list(offsets[row] as usize..offsets[row + 1] as usize, out, |place, out| {
                    elements.write(place, out)
                })?;
            }
            Values::Plain(values) => {
                out.put_u8(b'"');
                values.text(row, out)?;
                out.put_u8(b'"');
            }
            Values::Text(values) => write_string(values.value(row), out),
            Values::Timestamp(values) => write_timestamp(values, row, out)?,
            Values::Vector { elements, dimensions } => {
                let elements = elements.values();
                write_list(row * dimensions..(row + 1) * dimensions, out, |place, out| {
                    write_float4(elements[place], out)
                })?;
            }
        }
        Ok(())
    }
}

impl Values {
    fn new(array: &ArrayRef, ty: &SqlType) -> Result<Self> {
        let encoder = || ColumnEncoder::new(array.as_ref(), ty);
        let mismatch = || {
            Error::bug(format!(
                "a column described as {} holds Arrow {}",
                ty.display_name(),
                array.data_type()
            ))
        };
        Ok(match ty {
            SqlType::Bool => Self::Bool(array.as_boolean_opt().ok_or_else(mismatch)?.clone()),
            SqlType::Bytea => Self::Bytea(array.as_binary_opt::<i32>().ok_or_else(mismatch)?.clone()),
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Oid => Self::Digits(encoder()?),
            SqlType::Float4 => {
                Self::Float4(array.as_primitive_opt::<Float32Type>().ok_or_else(mismatch)?.clone())
            }
            SqlType::Float8 => {
                Self::Float8(array.as_primitive_opt::<Float64Type>().ok_or_else(mismatch)?.clone())
            }
            SqlType::Json | SqlType::Jsonb => {
                Self::Json(array.as_string_opt::<i32>().ok_or_else(mismatch)?.clone())
            }
            SqlType::Array(element) => {
                let list = array.as_list_opt::<i32>().ok_or_else(mismatch)?;
                let elements = Box::new(JsonColumn::new(list.values(), element)?);
                Self::List { offsets: list.offsets().clone(), elements }
            }
            SqlType::HalfVec(_) | SqlType::Vector(_) => Self::vector(array, mismatch)?,
            SqlType::Timestamp | SqlType::Timestamptz => Self::Timestamp(encoder()?),
            SqlType::Bit(_)
            | SqlType::Date
            | SqlType::Interval
            | SqlType::Numeric(_)
            | SqlType::SparseVec(_)
            | SqlType::Time
            | SqlType::Uuid => Self::Plain(encoder()?),
            SqlType::Enum(_) => Self::Text(labels(&encoder()?, array.len())?),
            SqlType::Void => Self::AllNull,
            _ => Self::Text(array.as_string_opt::<i32>().ok_or_else(mismatch)?.clone()),
        })
    }

    fn vector(array: &ArrayRef, mismatch: impl Fn() -> Error) -> Result<Self> {
        // Half-precision elements are written as the numbers that they are.
        let floats = |values: &ArrayRef| match values.as_primitive_opt::<Float16Type>() {
            Some(halves) => Ok(halves.unary::<_, Float32Type>(|half| half.to_f32())),
            None => values.as_primitive_opt::<Float32Type>().cloned().ok_or_else(&mismatch),
        };
        if let Some(list) = array.as_fixed_size_list_opt() {
            let dimensions = usize::try_from(list.value_length()).map_err(|_| mismatch())?;
            return Ok(Self::Vector { elements: floats(list.values())?, dimensions });
        }
        let list = array.as_list_opt::<i32>().ok_or_else(&mismatch)?;
        let elements = JsonColumn { nulls: None, values: Self::Float4(floats(list.values())?) };
        Ok(Self::List { offsets: list.offsets().clone(), elements: Box::new(elements) })
    }
}

/// The labels of an enum's values: unlike other values that are printed they may have to be escaped.
fn labels(encoder: &ColumnEncoder, rows: usize) -> Result<StringArray> {
    let mut text = BytesMut::new();
    let labels = (0..rows).map(|row| {
        if encoder.is_null(row) {
            return Ok(None);
        }
        text.clear();
        encoder.text(row, &mut text)?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    });
    labels.collect::<Result<Vec<Option<String>>>>().map(StringArray::from)
}

/// A string with its quotes.
pub fn write_string(text: &str, out: &mut BytesMut) {
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut begin = 0;
    for (place, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[begin..place]);
        begin = place + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[begin..]);
    out.put_u8(b'"');
}

/// `json` keeps its line breaks; they stand between tokens only, and a row is one line.
fn write_document(text: &str, out: &mut BytesMut) {
    let begin = out.len();
    out.extend_from_slice(text.as_bytes());
    out[begin..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

fn write_bytea(bytes: &[u8], out: &mut BytesMut) {
    out.reserve(bytes.len() * 2 + 5);
    out.extend_from_slice(b"\"\\\\x");
    for byte in bytes {
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    out.put_u8(b'"');
}

fn write_timestamp(values: &ColumnEncoder, row: usize, out: &mut BytesMut) -> Result<()> {
    out.put_u8(b'"');
    let begin = out.len();
    values.text(row, out)?;
    if let Some(space) = out[begin..].iter().position(|byte| *byte == b' ') {
        out[begin + space] = b'T';
    }
    if out.ends_with(b"+00") {
        out.truncate(out.len() - 3);
        out.put_u8(b'Z');
    }
    out.put_u8(b'"');
    Ok(())
}

fn write_list(
    places: std::ops::Range<usize>,
    out: &mut BytesMut,
    mut write: impl FnMut(usize, &mut BytesMut) -> Result<()>,
) -> Result<()> {
    out.put_u8(b'[');
    for (count, place) in places.enumerate() {
        if count > 0 {
            out.put_u8(b',');
        }
        write(place, out)?;
    }
    out.put_u8(b']');
    Ok(())
}

fn write_float4(value: f32, out: &mut BytesMut) -> Result<()> {
    let magnitude = value.abs();
    if !value.is_finite() {
        write_special(value.into(), out);
        return Ok(());
    }
    write_number(value, magnitude == 0.0 || (1e-5..1e9).contains(&magnitude), out)
}

fn write_float8(value: f64, out: &mut BytesMut) -> Result<()> {
    let magnitude = value.abs();
    if !value.is_finite() {
        write_special(value, out);
        return Ok(());
    }
    write_number(value, magnitude == 0.0 || (1e-5..1e17).contains(&magnitude), out)
}

/// The shortest digits that read back as the number, `fixed` as in 0.001, else as in 1e-3.
///
/// The text is the standard library's: `zmij` writes the same digits many times as fast, and a vector has hundreds of
/// them. It puts `.0` after whole numbers and goes over to `e` earlier with great ones.
fn write_number<F>(value: F, fixed: bool, out: &mut BytesMut) -> Result<()>
where
    F: zmij::Float + Copy + Display + LowerExp,
{
    if !fixed {
        return formatted(write!(out, "{value:e}"));
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    if text.contains('e') {
        return formatted(write!(out, "{value}"));
    }
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    Ok(())
}

fn write_special(value: f64, out: &mut BytesMut) {
    out.extend_from_slice(match value {
        value if value.is_nan() => b"\"NaN\"",
        value if value > 0.0 => b"\"Infinity\"",
        _ => b"\"-Infinity\"",
    });
}

/// A buffer in memory takes whatever fits into memory.
fn formatted(outcome: std::fmt::Result) -> Result<()> {
    outcome.map_err(|_| Error::bug("a number does not fit into memory"))
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::{Debug, Display, LowerExp},
        str::FromStr,
    };

    use super::*;

    fn text(write: impl FnOnce(&mut BytesMut) -> Result<()>) -> String {
        let mut out = BytesMut::new();
        write(&mut out).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    /// The fewest digits that read as the same number, as the standard library writes them; where two of that length
    /// are equally near, as at 2^-12, either will do.
    fn check<F: Display + LowerExp + FromStr + PartialEq + Debug>(value: F, fixed: bool, written: &str) {
        let standard = if fixed { format!("{value}") } else { format!("{value:e}") };
        assert_eq!(written.parse().ok(), Some(value), "{standard}");
        assert_eq!(written.len(), standard.len(), "{written} for {standard}");
    }

    fn check4(value: f32) {
        let magnitude = value.abs();
        let fixed = magnitude == 0.0 || (1e-5..1e9).contains(&magnitude);
        check(value, fixed, &text(|out| write_float4(value, out)));
    }

    fn check8(value: f64) {
        let magnitude = value.abs();
        let fixed = magnitude == 0.0 || (1e-5..1e17).contains(&magnitude);
        check(value, fixed, &text(|out| write_float8(value, out)));
    }

    #[test]
    fn numbers_have_as_few_digits_as_the_standard_librarys() {
        for value in [0.0, -0.0, 1.0, -1.0, 0.1, 0.3, 1e-5, 99_999.0, 1e9_f32.next_down(), 1e9] {
            check4(value);
            check8(f64::from(value));
        }
        for value in [1e15, 1e16_f64.next_down(), 1e16, 1e17_f64.next_down(), 1e17, f64::MAX] {
            check8(value);
        }
        for exponent in 0..0xff {
            check4(f32::from_bits(exponent << 23));
        }
        for exponent in 0..0x7ff {
            check8(f64::from_bits(exponent << 52));
        }
        // Any bits at all, and components as embeddings have them.
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..100_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let any = f32::from_bits((bits >> 32) as u32);
            if any.is_finite() {
                check4(any);
            }
            check4((bits >> 40) as f32 / 16_777_216.0 - 0.5);
            check8((bits >> 11) as f64 / 9_007_199_254_740_992.0);
            if f64::from_bits(bits).is_finite() {
                check8(f64::from_bits(bits));
            }
        }
    }
}
