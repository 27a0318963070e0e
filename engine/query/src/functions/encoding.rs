//! `encode` and `decode` with Postgres' formats: `hex`, `base64` with its padding and its lines, `escape`.
//!
//! DataFusion's base64 has neither padding nor lines, and it does not know `escape`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, BinaryBuilder, StringArray, StringBuilder},
        datatypes::DataType,
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use sepal_types::{Error, SqlState, SqlType};

use super::{
    cast::convert,
    constants::{all_constant, answer},
};
use crate::{
    error::{carry, undefined_function_call},
    output::{natural_type, sql_type},
};

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Characters of a line of base64 (RFC 2045).
const LINE: usize = 76;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Encoding {
    encodes: bool,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |encodes| {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(ScalarUDF::from(Encoding { encodes, signature }))
    };
    vec![function(true), function(false)]
}

impl ScalarUDFImpl for Encoding {
    fn name(&self) -> &'static str {
        if self.encodes { "encode" } else { "decode" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let text = |ty: &DataType| matches!(ty, DataType::Utf8 | DataType::Null);
        // A text is a literal of the bytes.
        let first = arguments.first().is_some_and(|ty| text(ty) || (self.encodes && *ty == DataType::Binary));
        if !first || !arguments.get(1).is_some_and(text) {
            let types: Vec<SqlType> = arguments.iter().map(natural_type).collect();
            return Err(carry(undefined_function_call(self.name(), &types)));
        }
        Ok(if self.encodes { DataType::Utf8 } else { DataType::Binary })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let source = args.arg_fields.first().map_or(SqlType::Text, |field| sql_type(field));
        let formats = convert(&arrays[1], &SqlType::Text, &SqlType::Text)?.as_string::<i32>().clone();
        let result: ArrayRef = if self.encodes {
            let bytes = convert(&arrays[0], &source, &SqlType::Bytea)?;
            encoded(&bytes, &formats).map_err(carry)?
        } else {
            let texts = convert(&arrays[0], &source, &SqlType::Text)?;
            decoded(texts.as_string::<i32>(), &formats).map_err(carry)?
        };
        answer(result, all_constant(&args.args))
    }
}

fn encoded(bytes: &ArrayRef, formats: &StringArray) -> Result<ArrayRef, Error> {
    let bytes = bytes.as_binary::<i32>();
    let mut out = StringBuilder::new();
    for (bytes, format) in bytes.iter().zip(formats) {
        match bytes.zip(format) {
            Some((bytes, format)) => out.append_value(encode(bytes, format)?),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn decoded(texts: &StringArray, formats: &StringArray) -> Result<ArrayRef, Error> {
    let mut out = BinaryBuilder::new();
    for (text, format) in texts.iter().zip(formats) {
        match text.zip(format) {
            Some((text, format)) => out.append_value(decode(text, format)?),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn unknown(format: &str) -> Error {
    Error::new(SqlState::InvalidParameterValue, format!("unrecognized encoding: \"{format}\""))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::InvalidParameterValue, message)
}

fn encode(bytes: &[u8], format: &str) -> Result<String, Error> {
    Ok(match format.to_ascii_lowercase().as_str() {
        "hex" => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        "base64" => base64(bytes),
        "escape" => bytes
            .iter()
            .map(|byte| match byte {
                b'\\' => "\\\\".to_owned(),
                0 | 128.. => format!("\\{byte:03o}"),
                byte => char::from(*byte).to_string(),
            })
            .collect(),
        _ => return Err(unknown(format)),
    })
}

fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for (place, group) in bytes.chunks(3).enumerate() {
        let number =
            (0..3).fold(0_u32, |number, at| number << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let index = (number >> (18 - 6 * digit) & 63) as usize;
            out.push(if digit <= group.len() { char::from(DIGITS[index]) } else { '=' });
        }
        // A full line has its end, also where nothing follows.
        if group.len() == 3 && ((place + 1) * 4).is_multiple_of(LINE) {
            out.push('\n');
        }
    }
    out
}

fn decode(text: &str, format: &str) -> Result<Vec<u8>, Error> {
    let spaceless = || text.chars().filter(|c| !matches!(c, ' ' | '\n' | '\t' | '\r'));
    match format.to_ascii_lowercase().as_str() {
        "hex" => {
            let digit = |c: char| {
                c.to_digit(16).ok_or_else(|| invalid(format!("invalid hexadecimal digit: \"{c}\"")))
            };
            let digits = spaceless().map(digit).collect::<Result<Vec<u32>, Error>>()?;
            if !digits.len().is_multiple_of(2) {
                return Err(invalid("invalid hexadecimal data: odd number of digits"));
            }
            Ok(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
        }
        "base64" => from_base64(spaceless()),
        "escape" => from_escape(text.as_bytes()),
        _ => Err(unknown(format)),
    }
}

fn from_base64(digits: impl Iterator<Item = char>) -> Result<Vec<u8>, Error> {
    let (mut out, mut number, mut bits, mut padding) = (Vec::new(), 0_u32, 0, 0);
    let mut count = 0_usize;
    for digit in digits {
        count += 1;
        if digit == '=' {
            padding += 1;
            continue;
        }
        let value = DIGITS.iter().position(|known| char::from(*known) == digit);
        let Some(value) = value.filter(|_| padding == 0) else {
            return Err(invalid(format!("invalid symbol \"{digit}\" found while decoding base64 sequence")));
        };
        number = number << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((number >> bits & 0xff) as u8);
        }
    }
    if !count.is_multiple_of(4) || padding > 2 {
        return Err(invalid("invalid base64 end sequence")
            .with_hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
    }
    Ok(out)
}

fn from_escape(text: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut out, mut rest) = (Vec::new(), text);
    loop {
        rest = match rest {
            [] => return Ok(out),
            [b'\\', b'\\', after @ ..] => {
                out.push(b'\\');
                after
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            [b'\\', ..] => {
                return Err(Error::new(
                    SqlState::InvalidTextRepresentation,
                    "invalid input syntax for type bytea",
                ));
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_every_format() {
        for length in 0..80 {
            let bytes: Vec<u8> = (0..length).map(|byte: u8| byte.wrapping_mul(37)).collect();
            for format in ["hex", "base64", "ESCAPE"] {
                let text = encode(&bytes, format).expect("a format");
                assert_eq!(decode(&text, format).as_deref(), Ok(bytes.as_slice()), "{format}: {text}");
            }
        }
        assert_eq!(encode(b"abcd", "base64").as_deref(), Ok("YWJjZA=="));
        assert_eq!(encode(&[b'a'; 60], "base64").expect("a format").find('\n'), Some(76));
        for (text, format) in
            [("abc", "hex"), ("zz", "hex"), ("YWJjZA", "base64"), ("\\x", "escape"), ("", "rot13")]
        {
            assert!(decode(text, format).is_err(), "{text} as {format}");
        }
    }
}
