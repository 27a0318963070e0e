//! The one way `jsonb` writes a number, a character and the members of an object.
//!
//! Called by the parser in `json`.

use std::{borrow::Cow, fmt::Write};

use super::Member;

/// Exponents up to this are written out; a larger one stays, so that a short number cannot become a long one.
const MAX_WRITTEN_EXPONENT: i64 = 400;

/// Puts the members that were written from `start` on in `jsonb`'s order: by key length, then by bytes. Of equal
/// keys the last stays.
pub(super) fn sort_members(out: &mut String, start: usize, members: &[Member]) {
    let keys: Vec<Cow<'_, [u8]>> =
        members.iter().map(|member| key_bytes(&out[member.key..member.key_end])).collect();
    let order =
        |left: usize, right: usize| (keys[left].len(), &keys[left]).cmp(&(keys[right].len(), &keys[right]));
    if (1..keys.len()).all(|right| order(right - 1, right).is_lt()) {
        return;
    }
    let mut sorted: Vec<usize> = (0..members.len()).collect();
    sorted.sort_by(|left, right| order(*left, *right));
    let mut text = String::with_capacity(out.len() - start);
    for (position, member) in sorted.iter().enumerate() {
        if sorted.get(position + 1).is_some_and(|next| keys[*next] == keys[*member]) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&out[members[*member].key..members[*member].end]);
    }
    drop(keys);
    out.truncate(start);
    out.push_str(&text);
}

/// A key as it is compared: without quotes and escapes.
fn key_bytes(quoted: &str) -> Cow<'_, [u8]> {
    let inner = quoted.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(quoted);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner.as_bytes());
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.bytes();
    while let Some(byte) = rest.next() {
        let escaped = if byte == b'\\' { rest.next() } else { None };
        bytes.push(match escaped {
            None => byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => rest
                .by_ref()
                .take(4)
                .fold(0, |value, digit| value << 4 | char::from(digit).to_digit(16).unwrap_or(0) as u8),
            Some(other) => other,
        });
    }
    Cow::Owned(bytes)
}

/// Appends a character of a string as Postgres' `escape_json` does.
pub(super) fn escape(character: char, out: &mut String) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        control if control < ' ' => {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "\\u{:04x}", u32::from(control));
        }
        other => out.push(other),
    }
}

/// A valid JSON number as `numeric` prints it: no exponent, no sign on zero.
pub(super) fn number(text: &str) -> Cow<'_, str> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().unwrap_or(i64::MAX)),
        None => (unsigned, 0),
    };
    let zero = mantissa.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let sign = if zero { "" } else { sign };
    if mantissa.len() == unsigned.len() {
        return if zero { Cow::Borrowed(unsigned) } else { Cow::Borrowed(text) };
    }
    if exponent.unsigned_abs() > MAX_WRITTEN_EXPONENT.unsigned_abs() {
        return Cow::Borrowed(text);
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i64 + exponent;
    let mut number = sign.to_owned();
    if point <= 0 {
        number.push_str("0.");
        number.extend(std::iter::repeat_n('0', point.unsigned_abs() as usize));
        number.push_str(&digits);
        return Cow::Owned(number);
    }
    let point = point as usize;
    let (before, after) = digits.split_at(point.min(digits.len()));
    let padding = point - before.len();
    let before = before.trim_start_matches('0');
    number.push_str(if before.is_empty() { "0" } else { before });
    if !before.is_empty() {
        number.extend(std::iter::repeat_n('0', padding));
    }
    if !after.is_empty() {
        number.push('.');
        number.push_str(after);
    }
    Cow::Owned(number)
}
