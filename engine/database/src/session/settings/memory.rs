//! Amounts of memory, as Postgres reads and shows them: `64MB`, `1.5 GB`, `65536` (kB).

use sepal_types::{Error, SqlState};

/// In kB, largest first.
const UNITS: [(&str, f64); 4] = [("TB", 1_073_741_824.0), ("GB", 1_048_576.0), ("MB", 1_024.0), ("kB", 1.0)];
pub(super) const LEAST_KB: u64 = 64;
pub(super) const MOST_KB: u64 = 2_147_483_647;

/// Checks a value and gives it in the form that SHOW prints.
pub(super) fn validate(name: &str, value: &str, invalid: impl Fn() -> Error) -> Result<String, Error> {
    let units = "Valid units for this parameter are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\".";
    let kb = kilobytes(value).ok_or_else(|| invalid().with_hint(units))?;
    if !(LEAST_KB..=MOST_KB).contains(&kb) {
        let message = format!(
            "{kb} kB is outside the valid range for parameter \"{name}\" ({LEAST_KB} kB .. {MOST_KB} kB)"
        );
        return Err(Error::new(SqlState::InvalidParameterValue, message));
    }
    Ok(show(kb))
}

/// A value that was found valid, in bytes.
pub(super) fn bytes(value: &str) -> Option<u64> {
    kilobytes(value).map(|kb| kb << 10)
}

/// A value in kB.
pub(super) fn kilobytes(value: &str) -> Option<u64> {
    let value = value.trim();
    let end = value.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(value.len());
    let (number, unit) = (value[..end].parse::<f64>().ok()?, value[end..].trim());
    let factor = match unit {
        "" => 1.0,
        "B" => 1.0 / 1_024.0,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    let kb = (number * factor).round();
    // Beyond that the range is told, whatever it is exactly.
    (kb.is_finite() && kb >= 0.0).then(|| kb.min(1e15) as u64)
}

/// The largest unit that divides.
fn show(kb: u64) -> String {
    for (unit, factor) in UNITS {
        if kb.is_multiple_of(factor as u64) {
            return format!("{}{unit}", kb / factor as u64);
        }
    }
    format!("{kb}kB")
}
