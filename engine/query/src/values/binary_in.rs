//! Binary values in: a cursor that cannot leave its value, and the scalar types.
//!
//! Called by `builder`. A value must be used up to its last byte.
//!
//! Errors: 22P03 for a value that is too short or too long, with Postgres' words.

use sepal_types::{Error, Result, SqlState, SqlType};

use super::{
    text_in::utf8,
    text_search::{TsQuery, TsVector},
};

/// Reads a value from its front.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(insufficient)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Text up to a NUL byte. Errors: 22P03 without one, 22021.
    pub(super) fn c_string(&mut self) -> Result<&'a str> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or_else(insufficient)?;
        let text = self.take(length)?;
        self.take(1)?;
        utf8(text)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// Everything must have been read.
    pub(super) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(incorrect()) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or_else(insufficient)?;
        self.0 = rest;
        Ok(*taken)
    }
}

/// The bytes of a type of fixed size.
pub(super) fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    let mut reader = Reader::new(bytes);
    let value = reader.array()?;
    reader.end()?;
    Ok(value)
}

/// The text of a type that is kept as text, from its binary form. UTF-8 is checked by the caller.
///
/// Returns `None` where the binary form is the text itself.
pub(super) fn text_of(ty: &SqlType, bytes: &[u8]) -> Result<Option<String>> {
    match ty {
        SqlType::Char => {
            let [byte] = fixed(bytes)?;
            Ok(Some(char_text(byte)))
        }
        SqlType::Int2Vector => numbers(bytes, &SqlType::Int2).map(Some),
        SqlType::OidVector => numbers(bytes, &SqlType::Oid).map(Some),
        SqlType::TsQuery => {
            let mut text = String::new();
            TsQuery::from_binary(bytes)?.write(&mut text);
            Ok(Some(text))
        }
        SqlType::TsVector => {
            let mut text = String::new();
            TsVector::from_binary(bytes)?.write(&mut text);
            Ok(Some(text))
        }
        SqlType::Regclass | SqlType::Regproc | SqlType::Regtype => {
            Ok(Some(u32::from_be_bytes(fixed(bytes)?).to_string()))
        }
        _ => Ok(None),
    }
}

/// A `"char"` as Postgres 16 prints it: a byte that is no ASCII character as `\ooo`.
pub(super) fn char_text(byte: u8) -> String {
    match byte {
        0 => String::new(),
        1..=127 => char::from(byte).to_string(),
        128.. => format!("\\{byte:03o}"),
    }
}

/// `jsonb` starts with its version, 1.
pub(super) fn jsonb_body(bytes: &[u8]) -> Result<&[u8]> {
    match bytes.split_first() {
        None => Err(insufficient()),
        Some((1, body)) => Ok(body),
        Some((version, _)) => {
            let message = format!("unsupported jsonb version number {version}");
            Err(Error::new(SqlState::InvalidBinaryRepresentation, message))
        }
    }
}

/// `int2vector` and `oidvector`: an array of `element`, as text with spaces between.
fn numbers(bytes: &[u8], element: &SqlType) -> Result<String> {
    let mut reader = Reader::new(bytes);
    let dimensions = reader.i32()?;
    let _flags = reader.i32()?;
    if reader.u32()? != element.oid() || !(0..=1).contains(&dimensions) {
        return Err(incorrect());
    }
    let mut text = String::new();
    if dimensions == 1 {
        let length = reader.i32()?;
        reader.i32()?;
        for position in 0..length {
            let size = usize::try_from(reader.i32()?).map_err(|_| incorrect())?;
            let value = reader.take(size)?;
            if position > 0 {
                text.push(' ');
            }
            text.push_str(&match element {
                SqlType::Int2 => i16::from_be_bytes(fixed(value)?).to_string(),
                _ => u32::from_be_bytes(fixed(value)?).to_string(),
            });
        }
    }
    reader.end()?;
    Ok(text)
}

/// The value is longer than its type, or malformed inside.
pub(super) fn incorrect() -> Error {
    Error::new(SqlState::InvalidBinaryRepresentation, "incorrect binary data format")
}

/// The value ends too early.
pub(super) fn insufficient() -> Error {
    Error::new(SqlState::InvalidBinaryRepresentation, "insufficient data left in message")
}
