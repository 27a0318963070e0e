//! `numeric` as a 128-bit integer and a scale, in text and in Postgres' base-10000 binary form.
//!
//! Called by `builder`, `text_out` and `binary_out`. Input keeps at most 38 significant digits while reading and
//! rounds half away from zero at the column's scale, so that neither a long literal nor a huge exponent costs
//! memory or time.
//!
//! ```text
//! n u16 | weight i16 (power of 10000 of the first digit) | sign u16 (0, 0x4000 minus, 0xC000 NaN, 0xD000 and
//! 0xF000 infinities) | display scale u16 | n × digit u16, 0..9999
//! ```

use bytes::{BufMut, BytesMut};
use sepal_types::{Error, Result, SqlState};

use super::{
    binary_in::Reader,
    text_in::{invalid_syntax, is_space},
};

/// Decimal digits that an `i128` always holds.
const MAX_DIGITS: u32 = 38;
/// Scale and precision of `numeric` without modifiers, as `sepal_storage::arrow_type` has them.
const DEFAULT_SHAPE: (u8, i8) = (38, 16);

const SIGN_NEGATIVE: u16 = 0x4000;
const SIGN_NAN: u16 = 0xc000;
const SIGN_INFINITY: u16 = 0xd000;
const SIGN_MINUS_INFINITY: u16 = 0xf000;
const SCALE_MASK: u16 = 0x3fff;

/// Precision and scale that input is brought to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    precision: u8,
    scale: i8,
    declared: bool,
}

impl Shape {
    pub(super) fn new(modifier: Option<(u8, i8)>) -> Self {
        let (precision, scale) = modifier.unwrap_or(DEFAULT_SHAPE);
        Self { precision, scale, declared: modifier.is_some() }
    }

    /// The value times 10^scale. Errors: 22P02 malformed, 22003 too large, 0A000 NaN.
    pub(super) fn parse_text(self, text: &str) -> Result<i128> {
        let malformed = || invalid_syntax("numeric", text);
        let number = text.trim_matches(is_space);
        let (negative, unsigned) = match number.as_bytes() {
            [b'-', ..] => (true, &number[1..]),
            [b'+', ..] => (false, &number[1..]),
            _ => (false, number),
        };
        if unsigned.eq_ignore_ascii_case("nan") && unsigned.len() == number.len() {
            return Err(not_a_number());
        }
        if unsigned.eq_ignore_ascii_case("infinity") || unsigned.eq_ignore_ascii_case("inf") {
            return Err(self.infinite());
        }
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent).ok_or_else(malformed)?),
            None => (unsigned, 0),
        };
        let mut digits = Digits::default();
        let fraction_length = digits.read_mantissa(mantissa).ok_or_else(malformed)?;
        self.round(&digits, exponent - fraction_length, negative)
    }

    /// The value times 10^scale, from the binary form. Errors: 22P03 malformed, 22003 too large, 0A000 NaN.
    pub(super) fn parse_binary(self, bytes: &[u8]) -> Result<i128> {
        let mut reader = Reader::new(bytes);
        let count = reader.u16()?;
        let weight = i64::from(reader.u16()?.cast_signed());
        let sign = reader.u16()?;
        let display_scale = reader.u16()?;
        let negative = match sign {
            0 => false,
            SIGN_NEGATIVE => true,
            SIGN_NAN => return Err(not_a_number()),
            SIGN_INFINITY | SIGN_MINUS_INFINITY => return Err(self.infinite()),
            _ => return Err(external("sign")),
        };
        if display_scale & !SCALE_MASK != 0 {
            return Err(external("scale"));
        }
        // As Postgres does, digits beyond the display scale are cut off before rounding.
        let mut wanted = (weight + 1) * 4 + i64::from(display_scale);
        let mut digits = Digits::default();
        let mut exponent = (weight + 1) * 4;
        for _ in 0..count {
            let group = reader.u16()?;
            if group > 9999 {
                return Err(external("digit"));
            }
            for unit in [1000, 100, 10, 1] {
                if wanted > 0 {
                    digits.push((group / unit % 10) as u8);
                    exponent -= 1;
                    wanted -= 1;
                }
            }
        }
        reader.end()?;
        self.round(&digits, exponent, negative)
    }

    /// `digits × 10^exponent`, rounded half away from zero to the scale.
    fn round(self, digits: &Digits, exponent: i64, negative: bool) -> Result<i128> {
        if digits.mantissa == 0 {
            return Ok(0);
        }
        let shift = exponent.saturating_add(digits.dropped).saturating_add(self.scale.into());
        let magnitude = if shift > 0 {
            u32::try_from(shift)
                .ok()
                .and_then(|shift| 10u128.checked_pow(shift))
                .and_then(|power| digits.mantissa.checked_mul(power))
        } else if shift == 0 {
            Some(digits.mantissa + u128::from(digits.first_dropped >= 5))
        } else {
            // A divisor past the range leaves less than half of the last place: zero.
            let power = u32::try_from(-shift).ok().and_then(|shift| 10u128.checked_pow(shift));
            Some(power.map_or(0, |power| {
                let remainder = digits.mantissa % power;
                digits.mantissa / power + u128::from(remainder >= power - remainder)
            }))
        };
        let limit = 10i128.checked_pow(self.precision.into()).unwrap_or(i128::MAX);
        let value =
            magnitude.and_then(|magnitude| i128::try_from(magnitude).ok()).filter(|value| *value < limit);
        let value = value.ok_or_else(|| self.overflow())?;
        Ok(if negative { -value } else { value })
    }

    fn overflow(self) -> Error {
        if !self.declared {
            return Error::new(SqlState::NumericValueOutOfRange, "value overflows numeric format").with_hint(
                "A numeric without modifiers keeps 22 digits before the point and 16 after it. Declare \
                 numeric(precision, scale), or use double precision.",
            );
        }
        let (precision, scale) = (self.precision, self.scale);
        let whole = i16::from(precision) - i16::from(scale);
        let bound = if whole == 0 { "1".to_owned() } else { format!("10^{whole}") };
        Error::new(SqlState::NumericValueOutOfRange, "numeric field overflow").with_detail(format!(
            "A field with precision {precision}, scale {scale} must round to an absolute value less than {bound}."
        ))
    }

    fn infinite(self) -> Error {
        let (precision, scale) = (self.precision, self.scale);
        Error::new(SqlState::NumericValueOutOfRange, "numeric field overflow").with_detail(format!(
            "A field with precision {precision}, scale {scale} cannot hold an infinite value."
        ))
    }
}

fn not_a_number() -> Error {
    Error::unsupported("numeric cannot hold NaN").with_hint("Use double precision, or NULL.")
}

fn external(part: &str) -> Error {
    Error::new(SqlState::InvalidBinaryRepresentation, format!("invalid {part} in external \"numeric\" value"))
}

/// The digits of a number as they are read: the first 38 significant ones, and what rounding needs of the rest.
#[derive(Default)]
struct Digits {
    mantissa: u128,
    kept: u32,
    /// Digits after the kept ones.
    dropped: i64,
    first_dropped: u8,
}

impl Digits {
    fn push(&mut self, digit: u8) {
        if self.kept < MAX_DIGITS {
            self.mantissa = self.mantissa * 10 + u128::from(digit);
            self.kept += u32::from(self.mantissa != 0);
            return;
        }
        if self.dropped == 0 {
            self.first_dropped = digit;
        }
        self.dropped += 1;
    }

    /// Reads `12.34`, with `_` between digits; returns how many digits follow the point.
    fn read_mantissa(&mut self, text: &str) -> Option<i64> {
        let mut fraction_length = 0;
        let mut in_fraction = false;
        let mut any = false;
        let mut after_digit = false;
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' => {
                    self.push(byte - b'0');
                    fraction_length += i64::from(in_fraction);
                    any = true;
                }
                b'.' if !in_fraction && (after_digit || !any) => in_fraction = true,
                b'_' if after_digit => {}
                _ => return None,
            }
            after_digit = byte.is_ascii_digit();
        }
        (any && !text.ends_with('_')).then_some(fraction_length)
    }
}

/// An exponent beyond a million is as good as one: it overflows or vanishes.
fn read_exponent(text: &str) -> Option<i64> {
    const LIMIT: i64 = 1_000_000;
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value: i64, digit| (value * 10 + i64::from(digit - b'0')).min(LIMIT));
    Some(if negative { -value } else { value })
}

/// A value times 10^scale, as text with exactly `scale` digits after the point, or as few as it needs.
pub(super) fn write_text(value: i128, scale: i8, shortest: bool, out: &mut BytesMut) {
    let digits = Decimal::new(value, scale, shortest);
    if value < 0 {
        out.put_u8(b'-');
    }
    let whole = digits.whole();
    out.extend_from_slice(if whole.is_empty() { b"0".as_slice() } else { whole });
    if digits.scale > 0 {
        out.put_u8(b'.');
        let fraction = digits.fraction();
        out.put_bytes(b'0', digits.scale - fraction.len());
        out.extend_from_slice(fraction);
    }
}

/// A value times 10^scale in the binary form.
pub(super) fn write_binary(value: i128, scale: i8, shortest: bool, out: &mut BytesMut) {
    let decimal = Decimal::new(value, scale, shortest);
    // Groups of four decimal digits, counted from the point in both directions.
    let (whole, fraction) = (decimal.whole(), decimal.fraction());
    let mut groups: Vec<u16> = whole.rchunks(4).rev().map(group).collect();
    let weight = groups.len() as i16 - 1;
    let leading = decimal.scale - fraction.len();
    let mut padded = vec![b'0'; leading];
    padded.extend_from_slice(fraction);
    padded.resize(padded.len().next_multiple_of(4), b'0');
    groups.extend(padded.chunks(4).map(group));
    let skipped = groups.iter().take_while(|group| **group == 0).count();
    let kept = groups.len() - groups.iter().rev().take_while(|group| **group == 0).count();
    let groups = groups.get(skipped..kept).unwrap_or_default();
    out.put_u16(groups.len() as u16);
    out.put_i16(if groups.is_empty() { 0 } else { weight - skipped as i16 });
    out.put_u16(if value < 0 { SIGN_NEGATIVE } else { 0 });
    out.put_u16(decimal.scale as u16);
    groups.iter().for_each(|group| out.put_u16(*group));
}

fn group(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0'))
}

/// The decimal digits of a magnitude, and how many of them follow the point.
struct Decimal {
    digits: String,
    scale: usize,
}

impl Decimal {
    fn new(value: i128, scale: i8, shortest: bool) -> Self {
        let mut magnitude = value.unsigned_abs();
        let mut places = usize::from(scale.max(0).unsigned_abs());
        if shortest {
            while places > 0 && magnitude.is_multiple_of(10) {
                magnitude /= 10;
                places -= 1;
            }
        }
        let mut digits = if magnitude == 0 { String::new() } else { magnitude.to_string() };
        if scale < 0 && magnitude != 0 {
            digits.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
        }
        Self { digits, scale: places }
    }

    /// Digits before the point; empty for zero.
    fn whole(&self) -> &[u8] {
        &self.digits.as_bytes()[..self.digits.len().saturating_sub(self.scale)]
    }

    /// Digits after the point, without the zeros that lead them.
    fn fraction(&self) -> &[u8] {
        &self.digits.as_bytes()[self.digits.len().saturating_sub(self.scale)..]
    }
}
