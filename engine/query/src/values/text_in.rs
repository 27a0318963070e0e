//! Text values in: the scalar types, as Postgres' input functions read them.
//!
//! Called by `builder` with bytes from the client. Numbers, dates and documents with a grammar of their own have
//! their own files.

use std::borrow::Cow;

use sepal_types::{Error, Result, SqlState, SqlType, limits::MAX_IDENTIFIER_BYTES};

use super::{
    binary_in::char_text,
    json,
    text_search::{TsQuery, TsVector},
};

/// The bytes as text. Errors: 22021 for what is not UTF-8, and for a NUL byte.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str> {
    match std::str::from_utf8(bytes) {
        Ok(_) if bytes.contains(&0) => Err(invalid_bytes(&[0])),
        Ok(text) => Ok(text),
        Err(problem) => {
            let rest = &bytes[problem.valid_up_to()..];
            let length = match rest.first() {
                Some(0xc0..=0xdf) => 2,
                Some(0xe0..=0xef) => 3,
                Some(0xf0..=0xf7) => 4,
                _ => 1,
            };
            Err(invalid_bytes(&rest[..length.min(rest.len())]))
        }
    }
}

fn invalid_bytes(bytes: &[u8]) -> Error {
    let listed: Vec<String> = bytes.iter().map(|byte| format!("0x{byte:02x}")).collect();
    let message = format!("invalid byte sequence for encoding \"UTF8\": {}", listed.join(" "));
    Error::new(SqlState::CharacterNotInRepertoire, message)
}

/// C's `isspace`.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

/// 22P02 with Postgres' words.
pub(super) fn invalid_syntax(type_name: &str, text: &str) -> Error {
    Error::new(
        SqlState::InvalidTextRepresentation,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

/// `t`, `true`, `yes`, `on`, `1`, their opposites and any unique prefix, in any case.
pub(super) fn boolean(text: &str) -> Result<bool> {
    let word = text.trim_matches(is_space).to_ascii_lowercase();
    let prefix_of = |whole: &str| !word.is_empty() && whole.starts_with(&word);
    match word.as_str() {
        "1" | "on" => Ok(true),
        "0" | "of" | "off" => Ok(false),
        _ if prefix_of("true") || prefix_of("yes") => Ok(true),
        _ if prefix_of("false") || prefix_of("no") => Ok(false),
        _ => Err(invalid_syntax("boolean", text)),
    }
}

/// A whole number in `i64`'s range at most: decimal, or `0x`, `0o`, `0b`, with `_` between digits (Postgres 16).
pub(super) fn integer(text: &str, type_name: &str, least: i64, greatest: i64) -> Result<i64> {
    let Some(value) = whole_number(text.trim_matches(is_space)) else {
        return Err(invalid_syntax(type_name, text));
    };
    i64::try_from(value)
        .ok()
        .filter(|value| (least..=greatest).contains(value))
        .ok_or_else(|| out_of_range(type_name, text))
}

fn out_of_range(type_name: &str, text: &str) -> Error {
    Error::new(
        SqlState::NumericValueOutOfRange,
        format!("value \"{text}\" is out of range for type {type_name}"),
    )
}

/// `None`: not a number. A number too large for any type comes back as some other one too large.
fn whole_number(text: &str) -> Option<i128> {
    const TOO_LARGE: i128 = 1 << 80;
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (radix, digits, mut after_digit) = match digits {
        [b'0', b'x' | b'X', rest @ ..] => (16, rest, true),
        [b'0', b'o' | b'O', rest @ ..] => (8, rest, true),
        [b'0', b'b' | b'B', rest @ ..] => (2, rest, true),
        rest => (10, rest, false),
    };
    let mut value = 0i128;
    let mut any = false;
    for byte in digits {
        if *byte == b'_' {
            if !after_digit {
                return None;
            }
            after_digit = false;
            continue;
        }
        let digit = char::from(*byte).to_digit(radix)?;
        value = (value * i128::from(radix) + i128::from(digit)).min(TOO_LARGE);
        after_digit = true;
        any = true;
    }
    (any && after_digit).then_some(if negative { -value } else { value })
}

pub(super) fn oid(text: &str) -> Result<i64> {
    // Postgres reads a negative oid as its two's complement.
    let value = integer(text, "oid", i32::MIN.into(), u32::MAX.into())?;
    Ok(value & i64::from(u32::MAX))
}

pub(super) fn float4(text: &str) -> Result<f32> {
    let number = text.trim_matches(is_space);
    let value: f32 = number.parse().map_err(|_| invalid_syntax("real", text))?;
    check_range(number, value.is_infinite(), value == 0.0, "real").map(|()| value)
}

pub(super) fn float8(text: &str) -> Result<f64> {
    let number = text.trim_matches(is_space);
    let value: f64 = number.parse().map_err(|_| invalid_syntax("double precision", text))?;
    check_range(number, value.is_infinite(), value == 0.0, "double precision").map(|()| value)
}

/// Postgres refuses what overflows to infinity or underflows to zero; Rust's parser does not.
fn check_range(number: &str, infinite: bool, zero: bool, type_name: &str) -> Result<()> {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let overflow = infinite && mantissa.bytes().any(|byte| byte.is_ascii_digit());
    let underflow = zero && mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    if overflow || underflow {
        let message = format!("\"{number}\" is out of range for type {type_name}");
        return Err(Error::new(SqlState::NumericValueOutOfRange, message));
    }
    Ok(())
}

/// 32 hex digits, a hyphen allowed after every four, braces allowed around.
pub(super) fn uuid(text: &str) -> Result<[u8; 16]> {
    read_uuid(text.as_bytes()).ok_or_else(|| invalid_syntax("uuid", text))
}

fn read_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut rest = match text {
        [b'{', inner @ .., b'}'] => inner,
        other => other,
    };
    let mut uuid = [0u8; 16];
    for (position, byte) in uuid.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else {
            return None;
        };
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        rest = match after {
            [b'-', after @ ..] if position % 2 == 1 && position < 15 => after,
            after => after,
        };
    }
    rest.is_empty().then_some(uuid)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// `\x` and hex digits, or the older escape form.
pub(super) fn bytea(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(digits) => hex_bytea(digits),
        None => escaped_bytea(text.as_bytes()).ok_or_else(|| {
            Error::new(SqlState::InvalidTextRepresentation, "invalid input syntax for type bytea")
        }),
    }
}

fn hex_bytea(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut digits = text.chars();
    while let Some(high) = digits.next() {
        // Spaces are allowed between pairs, not within one.
        if matches!(high, ' ' | '\n' | '\t' | '\r') {
            continue;
        }
        let high = hex_character(high)?;
        let Some(low) = digits.next() else {
            let message = "invalid hexadecimal data: odd number of digits";
            return Err(Error::new(SqlState::InvalidParameterValue, message));
        };
        bytes.push(high << 4 | hex_character(low)?);
    }
    Ok(bytes)
}

fn hex_character(digit: char) -> Result<u8> {
    u8::try_from(digit).ok().and_then(hex_digit).ok_or_else(|| {
        Error::new(SqlState::InvalidParameterValue, format!("invalid hexadecimal digit: \"{digit}\""))
    })
}

fn escaped_bytea(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', after @ ..] => {
                bytes.push(b'\\');
                after
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            [b'\\', ..] => return None,
            [byte, after @ ..] => {
                bytes.push(*byte);
                after
            }
        };
    }
}

/// A value of a type that is kept as text, checked and in its canonical form.
pub(super) fn kept_text<'a>(ty: &SqlType, text: &'a str) -> Result<Cow<'a, str>> {
    Ok(match ty {
        SqlType::Bpchar(None) => Cow::Borrowed(text.trim_end_matches(' ')),
        SqlType::Bpchar(Some(length)) => {
            Cow::Borrowed(shortened(text, *length, "character")?.trim_end_matches(' '))
        }
        SqlType::Char => Cow::Owned(char_text(char_byte(text))),
        SqlType::Int2Vector => Cow::Owned(numbers(text, "smallint", i16::MIN.into(), i16::MAX.into())?),
        SqlType::Json => {
            json::validate(text)?;
            Cow::Borrowed(text)
        }
        SqlType::Jsonb => Cow::Owned(json::normalize(text)?),
        SqlType::Name => Cow::Borrowed(&text[..text.floor_char_boundary(MAX_IDENTIFIER_BYTES)]),
        SqlType::OidVector => Cow::Owned(numbers(text, "oid", 0, u32::MAX.into())?),
        SqlType::TsQuery => {
            let mut canonical = String::with_capacity(text.len());
            TsQuery::parse(text)?.write(&mut canonical);
            Cow::Owned(canonical)
        }
        SqlType::TsVector => {
            let mut canonical = String::with_capacity(text.len());
            TsVector::parse(text)?.write(&mut canonical);
            Cow::Owned(canonical)
        }
        SqlType::Varchar(Some(length)) => Cow::Borrowed(shortened(text, *length, "character varying")?),
        _ => Cow::Borrowed(text),
    })
}

/// What is too long may only lose spaces at its end.
fn shortened<'a>(text: &'a str, length: u32, type_name: &str) -> Result<&'a str> {
    let Some((end, _)) = usize::try_from(length).ok().and_then(|length| text.char_indices().nth(length))
    else {
        return Ok(text);
    };
    let (kept, rest) = text.split_at(end);
    if rest.bytes().all(|byte| byte == b' ') {
        return Ok(kept);
    }
    let message = format!("value too long for type {type_name}({length})");
    Err(Error::new(SqlState::StringDataRightTruncation, message))
}

/// `"char"` keeps one byte: the first, or the one written as `\ooo`.
fn char_byte(text: &str) -> u8 {
    match text.as_bytes() {
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7'] => {
            (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')
        }
        bytes => bytes.first().copied().unwrap_or(0),
    }
}

fn numbers(text: &str, type_name: &str, least: i64, greatest: i64) -> Result<String> {
    let numbers: Vec<String> = text
        .split(is_space)
        .filter(|number| !number.is_empty())
        .map(|number| Ok(integer(number, type_name, least, greatest)?.to_string()))
        .collect::<Result<_>>()?;
    Ok(numbers.join(" "))
}
