//! Sizes and times of a manifest: a number, or `64MiB` and `2s` where a person writes them.
//!
//! They are kept and written as numbers: bytes and milliseconds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Milliseconds(pub u32);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: [(&str, u64); 3] = [("ms", 1), ("s", 1000), ("m", 60_000)];

/// `64MiB` with the units given; `None` when it is no such thing or too large.
fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a size like 65536, \"64KiB\" or \"1MiB\"";
        deserializer.deserialize_any(Measure { units: &SIZES, expected }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a time like 500 (milliseconds), \"500ms\", \"2s\" or \"1m\"";
        let milliseconds = deserializer.deserialize_any(Measure { units: &TIMES, expected })?;
        u32::try_from(milliseconds)
            .map(Self)
            .map_err(|_| de::Error::custom(format!("{milliseconds} ms is too long")))
    }
}

struct Measure {
    units: &'static [(&'static str, u64)],
    expected: &'static str,
}

impl de::Visitor<'_> for Measure {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        measure(text, self.units).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nothing_else() {
        assert_eq!(measure("64KiB", &SIZES), Some(64 << 10));
        assert_eq!(measure("7 B", &SIZES), Some(7));
        assert_eq!(measure("2s", &TIMES), Some(2000));
        assert_eq!(measure("500ms", &TIMES), Some(500));
        assert_eq!(measure("1m", &TIMES), Some(60_000));
        for wrong in ["", "KiB", "-1KiB", "1.5MiB", "1kb", "99999999999999999999B", "18446744073709551615GiB"]
        {
            assert_eq!(measure(wrong, &SIZES), None, "{wrong}");
        }
    }
}
