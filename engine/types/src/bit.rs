//! Bit strings: their text form, with Postgres' checks and wording (`varbit.c`).
//!
//! Used by the wire for parameters, COPY and results, and by storage for the default of a column.

use crate::{Error, Result, SqlState, limits::MAX_BITS};

/// Bits, eight to a byte, the first is the byte's highest. Those past the end are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BitString {
    pub bytes: Vec<u8>,
    pub length: u32,
}

impl BitString {
    /// Reads `101`, `b101` or `x1F`.
    ///
    /// Errors: 22P02 a digit that is none, 54000 too many.
    pub fn parse(text: &str) -> Result<Self> {
        match text.as_bytes() {
            [b'x' | b'X', digits @ ..] => Self::from_hex(&text[text.len() - digits.len()..]),
            [b'b' | b'B', digits @ ..] => Self::from_digits(&text[text.len() - digits.len()..]),
            _ => Self::from_digits(text),
        }
    }

    fn from_digits(digits: &str) -> Result<Self> {
        let mut bits = Self { bytes: vec![0; digits.len().div_ceil(8)], length: count(digits.len())? };
        for (place, digit) in digits.chars().enumerate() {
            match digit {
                '0' => {}
                '1' => bits.bytes[place / 8] |= 0x80 >> (place % 8),
                other => return Err(invalid(other, "binary")),
            }
        }
        Ok(bits)
    }

    fn from_hex(digits: &str) -> Result<Self> {
        let mut bits = Self { bytes: vec![0; digits.len().div_ceil(2)], length: count(digits.len() * 4)? };
        for (place, digit) in digits.chars().enumerate() {
            let value = digit.to_digit(16).ok_or_else(|| invalid(digit, "hexadecimal"))?;
            let shift = if place % 2 == 0 { 4 } else { 0 };
            bits.bytes[place / 2] |= u8::try_from(value << shift).unwrap_or(0);
        }
        Ok(bits)
    }

    /// Appends its digits.
    pub fn format(bytes: &[u8], length: u32, out: &mut String) {
        let digits = (0..length as usize).map(|place| bytes[place / 8] & (0x80 >> (place % 8)) != 0);
        out.extend(digits.map(|set| if set { '1' } else { '0' }));
    }

    /// Cut or filled up with zeros at the end, as an explicit cast to `bit(n)` does.
    #[must_use]
    pub fn resized(bytes: &[u8], length: u32) -> Vec<u8> {
        let mut resized = bytes.to_vec();
        resized.resize(length.div_ceil(8) as usize, 0);
        Self::clear_past(&mut resized, length);
        resized
    }

    /// Clears the bits past the end.
    pub fn clear_past(bytes: &mut [u8], length: u32) {
        if let (Some(last), used @ 1..) = (bytes.last_mut(), length % 8) {
            *last &= !(0xff >> used);
        }
    }

    /// The modifier in `bit(3)`. Errors: 22023 as Postgres.
    pub fn declared(length: i64) -> Result<u32> {
        let refuse = |what: String| Err(Error::new(SqlState::InvalidParameterValue, what));
        if length < 1 {
            return refuse("length for type bit must be at least 1".to_owned());
        }
        match u32::try_from(length) {
            Ok(length) if length <= MAX_BITS => Ok(length),
            _ => refuse(format!("length for type bit cannot exceed {MAX_BITS}")),
        }
    }

    /// A value for `bit(n)` has n bits. Errors: 22026.
    pub fn check_length(found: u32, declared: u32) -> Result<()> {
        if found == declared {
            return Ok(());
        }
        let message = format!("bit string length {found} does not match type bit({declared})");
        Err(Error::new(SqlState::StringDataLengthMismatch, message))
    }
}

fn count(bits: usize) -> Result<u32> {
    u32::try_from(bits).ok().filter(|bits| *bits <= MAX_BITS).ok_or_else(|| {
        let message = format!("bit string length exceeds the maximum allowed ({MAX_BITS})");
        Error::new(SqlState::ProgramLimitExceeded, message)
    })
}

fn invalid(digit: char, kind: &str) -> Error {
    Error::new(SqlState::InvalidTextRepresentation, format!("\"{digit}\" is not a valid {kind} digit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        let bits = BitString::parse(text).unwrap();
        let mut out = String::new();
        BitString::format(&bits.bytes, bits.length, &mut out);
        out
    }

    #[test]
    fn reads_what_postgres_reads() {
        for (text, digits) in [
            ("101", "101"),
            ("b0", "0"),
            ("X1f", "00011111"),
            ("", ""),
            ("B", ""),
            ("1011000111", "1011000111"),
        ] {
            assert_eq!(printed(text), digits, "{text}");
        }
        assert_eq!(BitString::parse("101").unwrap(), BitString { bytes: vec![0b1010_0000], length: 3 });
        for (text, message) in [
            ("102", "\"2\" is not a valid binary digit"),
            (" 1", "\" \" is not a valid binary digit"),
            ("1ä", "\"ä\" is not a valid binary digit"),
            ("xG", "\"G\" is not a valid hexadecimal digit"),
        ] {
            assert_eq!(BitString::parse(text).unwrap_err().message(), message);
        }
    }

    #[test]
    fn lengths_are_cut_and_filled_up_at_the_end() {
        assert_eq!(BitString::resized(&[0b1011_0000], 3), [0b1010_0000]);
        assert_eq!(BitString::resized(&[0b1011_0000], 9), [0b1011_0000, 0]);
        assert_eq!(BitString::resized(&[0xff, 0xff], 8), [0xff]);
        assert!(BitString::declared(0).is_err() && BitString::declared(83_886_081).is_err());
        let error = BitString::check_length(2, 3).unwrap_err();
        assert_eq!(
            (error.state().code(), error.message()),
            ("22026", "bit string length 2 does not match type bit(3)")
        );
    }
}
