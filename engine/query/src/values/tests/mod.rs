//! The forms of every type, held against what PostgreSQL 15 and 17 and pgvector 0.8 print and refuse.

mod binary;
mod enums;
mod properties;
mod refused;
mod text;

use arrow::array::{Array, ArrayRef};
use bytes::BytesMut;
use sepal_types::{Error, Result, SqlType};

use super::{ColumnEncoder, decode_binary, decode_text, encode_binary, encode_text};

/// The type named so in SQL.
fn ty(name: &str) -> SqlType {
    SqlType::from_name(name).unwrap_or_else(|| panic!("no type {name}"))
}

/// Reads a text and prints it again.
fn through(name: &str, text: &str) -> Result<String> {
    let ty = ty(name);
    let array = decode_text(&ty, Some(text.as_bytes()))?;
    Ok(printed(&ty, &array))
}

fn printed(ty: &SqlType, array: &ArrayRef) -> String {
    assert_eq!((array.len(), array.null_count()), (1, 0));
    let mut out = BytesMut::new();
    encode_text(array.as_ref(), 0, ty, &mut out).unwrap();
    String::from_utf8(out.to_vec()).unwrap()
}

fn sent(ty: &SqlType, array: &ArrayRef) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode_binary(array.as_ref(), 0, ty, &mut out).unwrap();
    out.to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn words(error: &Error) -> (&str, &str) {
    (error.state().code(), error.message())
}
