//! The parts of a JSON text, found without building a tree.
//!
//! Called by the functions of this folder with text that is known to be valid: the canonical text of a `jsonb`, or
//! a checked `json` with spaces wherever they were written. Every part is a slice of the text, so that reading one
//! key of a large document copies nothing.

use std::{borrow::Cow, str::Chars};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Array,
    Boolean,
    Null,
    Number,
    Object,
    String,
}

impl Kind {
    /// As `jsonb_typeof` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Null => "null",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }

    pub(super) fn is_scalar(self) -> bool {
        !matches!(self, Self::Array | Self::Object)
    }
}

/// What a value is: its first byte says it.
pub(super) fn kind(text: &str) -> Kind {
    match trim_start(text).as_bytes().first() {
        Some(b'[') => Kind::Array,
        Some(b'{') => Kind::Object,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Boolean,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// The elements of an array, in order.
pub(super) fn items(array: &str) -> impl Iterator<Item = &str> {
    let mut rest = inside(array);
    std::iter::from_fn(move || {
        let (value, after) = next_value(rest)?;
        rest = skip_byte(after, b',');
        Some(value)
    })
}

/// The members of an object, in order: the key with its quotes, and the value.
pub(super) fn members(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = inside(object);
    std::iter::from_fn(move || {
        let (key, after) = next_value(rest)?;
        let (value, after) = next_value(skip_byte(after, b':'))?;
        rest = skip_byte(after, b',');
        Some((key, value))
    })
}

/// The characters that a string's token stands for.
pub(super) fn string(token: &str) -> Cow<'_, str> {
    let token = token.trim_matches(SPACES);
    let inner = token.strip_prefix('"').and_then(|token| token.strip_suffix('"')).unwrap_or(token);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(character) = rest.next() {
        let escaped = if character == '\\' { rest.next() } else { None };
        text.push(match escaped {
            None => character,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => unicode(&mut rest),
            Some(other) => other,
        });
    }
    Cow::Owned(text)
}

/// A number without the zeros that end its fraction: numbers that are equal get the same digits.
pub(super) fn significant(number: &str) -> &str {
    if !number.contains('.') || number.contains(['e', 'E']) {
        return number;
    }
    number.trim_end_matches('0').trim_end_matches('.')
}

/// A text that is equal for equal values: `1.0` and `1` are one number to Postgres.
pub(super) fn comparable(text: &str) -> Cow<'_, str> {
    if !text.contains('.') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = matches!(bytes[at], b'-' | b'0'..=b'9');
        let end = match bytes[at] {
            b'"' => string_end(bytes, at),
            _ if digit => number_end(bytes, at),
            _ => text.ceil_char_boundary(at + 1),
        };
        let token = &text[at..end];
        out.push_str(if digit { significant(token) } else { token });
        at = end;
    }
    Cow::Owned(out)
}

const SPACES: [char; 4] = [' ', '\t', '\n', '\r'];

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(SPACES)
}

/// What follows the opening bracket.
fn inside(text: &str) -> &str {
    trim_start(text).get(1..).unwrap_or_default()
}

/// The value that comes next, and what follows it; `None` at the closing bracket.
fn next_value(text: &str) -> Option<(&str, &str)> {
    let text = trim_start(text);
    let bytes = text.as_bytes();
    let end = match bytes.first()? {
        b']' | b'}' => return None,
        b'"' => string_end(bytes, 0),
        b'[' | b'{' => nested_end(bytes),
        _ => bytes
            .iter()
            .position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
            .unwrap_or(bytes.len()),
    };
    Some(text.split_at(end))
}

fn skip_byte(text: &str, byte: u8) -> &str {
    let text = trim_start(text);
    text.strip_prefix(char::from(byte)).unwrap_or(text)
}

/// Where the string that starts at `at` ends: after its closing quote.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Where the array or object at the start ends.
fn nested_end(bytes: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

fn number_end(bytes: &[u8], at: usize) -> usize {
    let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
    bytes[at..].iter().position(|byte| !part(byte)).map_or(bytes.len(), |length| at + length)
}

/// The character of `\uXXXX`, after the `u`. Half of a pair alone is no character.
fn unicode(rest: &mut Chars<'_>) -> char {
    let mut units = vec![hex_unit(rest)];
    if (0xd800..0xdc00).contains(&units[0]) && rest.as_str().starts_with("\\u") {
        rest.nth(1);
        units.push(hex_unit(rest));
    }
    match char::decode_utf16(units).next() {
        Some(Ok(character)) => character,
        _ => char::REPLACEMENT_CHARACTER,
    }
}

fn hex_unit(rest: &mut Chars<'_>) -> u16 {
    let digits = rest.by_ref().take(4).map(|digit| digit.to_digit(16).unwrap_or(0));
    digits.fold(0, |unit, digit| unit << 4 | u16::try_from(digit).unwrap_or(0))
}
