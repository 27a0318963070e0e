//! `json` and `jsonb` from SQL values: `to_json`, `json_build_array`, `json_build_object` and their kin; also what
//! `aggregate` gathers.
//!
//! A `json` has the spaces that PostgreSQL's builders write, a `jsonb` is brought into its canonical text. A number
//! stays a number, a boolean a boolean, an array an array; `json` and `jsonb` are taken as they are; a time is written
//! as ISO 8601; everything else, a vector too, is its text in quotes (`jsonfuncs.c`).

use bytes::BytesMut;
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        buffer::{NullBuffer, OffsetBuffer},
        datatypes::Field,
    },
    common::Result,
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use super::Flavour;
use crate::{
    error::carry,
    output::{conform_array, natural_type, sql_type},
    values::{ColumnEncoder, quote_json},
};

/// An argument whose rows become JSON.
pub(super) struct Source {
    ty: SqlType,
    nulls: Option<NullBuffer>,
    values: Values,
    /// One row that stands for all.
    constant: bool,
}

enum Values {
    Array { offsets: OffsetBuffer<i32>, elements: Box<Source> },
    Plain(Box<ColumnEncoder>),
}

impl Source {
    pub(super) fn new(array: &ArrayRef, field: &Field, constant: bool) -> Result<Self> {
        let declared = sql_type(field);
        let ty = if arrow_type(&declared) == *array.data_type() {
            declared
        } else {
            natural_type(array.data_type())
        };
        Self::typed(array, ty, constant)
    }

    fn typed(array: &ArrayRef, ty: SqlType, constant: bool) -> Result<Self> {
        let array = conform_array(array, &ty).map_err(carry)?;
        let values = match (&ty, array.as_list_opt::<i32>()) {
            (SqlType::Array(element), Some(list)) => Values::Array {
                offsets: list.offsets().clone(),
                elements: Box::new(Self::typed(list.values(), element.as_ref().clone(), false)?),
            },
            _ => Values::Plain(Box::new(ColumnEncoder::new(array.as_ref(), &ty).map_err(carry)?)),
        };
        Ok(Self { nulls: array.logical_nulls(), ty, values, constant })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        let row = if self.constant { 0 } else { row };
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    pub(super) fn is_array(&self) -> bool {
        matches!(self.ty, SqlType::Array(_))
    }

    /// Appends a row as JSON; NULL is `null`.
    pub(super) fn write(&self, row: usize, out: &mut String) -> sepal_types::Result<()> {
        let row = if self.constant { 0 } else { row };
        if self.is_null(row) {
            out.push_str("null");
            return Ok(());
        }
        let encoder = match &self.values {
            Values::Plain(encoder) => encoder,
            Values::Array { offsets, elements } => {
                out.push('[');
                let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                for element in start..end {
                    if element > start {
                        out.push(',');
                    }
                    elements.write(element, out)?;
                }
                out.push(']');
                return Ok(());
            }
        };
        let mut text = BytesMut::new();
        encoder.text(row, &mut text)?;
        let text = String::from_utf8_lossy(&text);
        match &self.ty {
            SqlType::Json | SqlType::Jsonb => out.push_str(&text),
            SqlType::Bool => out.push_str(if text == "t" { "true" } else { "false" }),
            SqlType::Float4
            | SqlType::Float8
            | SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::Numeric(_)
                // NaN and the infinities are no JSON numbers.
                if text.ends_with(|last: char| last.is_ascii_digit()) =>
            {
                out.push_str(&text);
            }
            SqlType::Timestamp => out.push_str(&quote_json(&text.replacen(' ', "T", 1))),
            SqlType::Timestamptz => {
                let iso = text.replacen(' ', "T", 1);
                let (time, era) = iso.split_at(iso.len() - if iso.ends_with(" BC") { 3 } else { 0 });
                // An offset of whole hours is `+02` elsewhere.
                let hours = matches!(time.as_bytes(), [.., b'+' | b'-', b'0'..=b'9', b'0'..=b'9']);
                out.push_str(&quote_json(&format!("{time}{}{era}", if hours { ":00" } else { "" })));
            }
            _ => out.push_str(&quote_json(&text)),
        }
        Ok(())
    }
}

/// `to_json` or `to_jsonb` of a value that is not NULL. Errors: 22P02 for a `json` that no `jsonb` can hold.
pub(super) fn value(source: &Source, row: usize, flavour: Flavour) -> sepal_types::Result<String> {
    let mut text = String::new();
    source.write(row, &mut text)?;
    flavour.finish(text)
}

pub(super) fn array(sources: &[Source], row: usize, flavour: Flavour) -> sepal_types::Result<String> {
    let mut text = "[".to_owned();
    for (position, source) in sources.iter().enumerate() {
        if position > 0 {
            text.push_str(", ");
        }
        source.write(row, &mut text)?;
    }
    text.push(']');
    flavour.finish(text)
}

/// Errors: 22023 for a value without key, and for a key that is NULL or not scalar.
pub(super) fn object(sources: &[Source], row: usize, flavour: Flavour) -> sepal_types::Result<String> {
    let (pairs, rest) = sources.as_chunks::<2>();
    if !rest.is_empty() {
        let function = match flavour {
            Flavour::Json => "json_build_object()",
            Flavour::Jsonb => "jsonb_build_object()",
        };
        return Err(refuse("argument list must have even number of elements")
            .with_hint(format!("The arguments of {function} must consist of alternating keys and values.")));
    }
    let mut text = "{".to_owned();
    for (position, [key, value]) in pairs.iter().enumerate() {
        if position > 0 {
            text.push_str(", ");
        }
        if key.is_null(row) {
            let argument = position * 2 + 1;
            return Err(match flavour {
                Flavour::Json => refuse(&format!("argument {argument} cannot be null"))
                    .with_hint("Object keys should be text."),
                Flavour::Jsonb => refuse(&format!("argument {argument}: key must not be null")),
            });
        }
        write_member(key, value, row, &mut text)?;
    }
    text.push('}');
    flavour.finish(text)
}

/// A row with the names of its columns before their values, as `row_to_json` writes it.
pub(super) fn row(sources: &[Source], row: usize) -> sepal_types::Result<String> {
    let mut text = "{".to_owned();
    for (position, [name, value]) in sources.as_chunks::<2>().0.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        name.write(row, &mut text)?;
        text.push(':');
        value.write(row, &mut text)?;
    }
    text.push('}');
    Ok(text)
}

/// Appends `"key" : value`; the key is not NULL. Errors: 22023 for a key that is not scalar.
pub(super) fn write_member(
    key: &Source,
    value: &Source,
    row: usize,
    out: &mut String,
) -> sepal_types::Result<()> {
    if matches!(key.ty, SqlType::Array(_) | SqlType::Json | SqlType::Jsonb) {
        return Err(refuse("key value must be scalar, not array, composite, or json"));
    }
    let mut name = String::new();
    key.write(row, &mut name)?;
    if name.starts_with('"') {
        out.push_str(&name);
    } else {
        out.push_str(&quote_json(&name));
    }
    out.push_str(" : ");
    value.write(row, out)
}

pub(super) fn refuse(message: &str) -> Error {
    Error::new(SqlState::InvalidParameterValue, message)
}
