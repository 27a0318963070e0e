//! What a setting's value may be, and how it is written: for `settings`, which keeps it.

use sepal_query::{Zone, text_search_configuration};
use sepal_types::{Error, Result, SearchPath, SqlState};

use super::{
    super::past::parse_as_of,
    AS_OF, SEARCH_PATH, TEXT_SEARCH_CONFIG, TIME_ZONE, fixed,
    known::{Kind, Known},
    memory,
};

/// Checks a value and gives it in the form that SHOW prints.
pub(super) fn validate(known: &Known, value: &str) -> Result<String> {
    let name = known.name;
    let invalid = || {
        Error::new(
            SqlState::InvalidParameterValue,
            format!("invalid value for parameter \"{name}\": \"{value}\""),
        )
    };
    match known.kind {
        Kind::Internal => Err(fixed(name)),
        Kind::Bool => match value.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" | "t" | "y" => Ok("on".to_owned()),
            "off" | "false" | "no" | "0" | "f" | "n" => Ok("off".to_owned()),
            _ => Err(Error::new(
                SqlState::InvalidParameterValue,
                format!("parameter \"{name}\" requires a Boolean value"),
            )),
        },
        Kind::Real => value.parse::<f64>().map(|_| value.to_owned()).map_err(|_| invalid()),
        Kind::Share => validate_share(name, value, invalid),
        Kind::Memory => memory::validate(name, value, invalid),
        Kind::Integer(least, most, unit) => {
            let number =
                if unit == Some("ms") { parse_milliseconds(value) } else { value.trim().parse().ok() };
            let number: i64 = number.ok_or_else(invalid)?;
            if !(least..=most).contains(&number) {
                return Err(Error::new(
                    SqlState::InvalidParameterValue,
                    format!(
                        "{number} is outside the valid range for parameter \"{name}\" ({least} .. {most})"
                    ),
                ));
            }
            Ok(if unit == Some("ms") { show_milliseconds(number) } else { number.to_string() })
        }
        Kind::Enum(values) => {
            let lower = value.to_ascii_lowercase();
            let found = values.iter().find(|allowed| allowed.eq_ignore_ascii_case(&lower));
            match found {
                Some(_) if name == "client_encoding" => Ok("UTF8".to_owned()),
                Some(value) => Ok((*value).to_owned()),
                None => Err(invalid().with_hint(format!("Available values: {}.", values.join(", ")))),
            }
        }
        Kind::Text => validate_text(name, value, invalid),
    }
}

/// `0.95`; `off` and nothing are 0.
fn validate_share(name: &str, value: &str, invalid: impl Fn() -> Error) -> Result<String> {
    let text = value.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("off") {
        return Ok("0".to_owned());
    }
    let share: f64 = text.parse().map_err(|_| invalid())?;
    if !(0.0..=1.0).contains(&share) {
        let message = format!("{share} is outside the valid range for parameter \"{name}\" (0 .. 1)");
        return Err(Error::new(SqlState::InvalidParameterValue, message));
    }
    // Not -0.
    Ok(share.abs().to_string())
}

/// The style and the order of a date's parts, one, both or neither. Another order would be another meaning of
/// `01/02/2024`: it is refused, and not passed over.
fn validate_date_style(value: &str, invalid: impl Fn() -> Error) -> Result<String> {
    for word in value.split(',').map(|word| word.trim().to_ascii_lowercase()) {
        match word.as_str() {
            "" | "default" | "iso" | "mdy" | "us" => {}
            word if word.starts_with("noneuro") => {}
            "ymd" | "dmy" | "euro" | "european" => {
                return Err(invalid().with_hint(
                    "Sepal reads dates without a year in front as month, day, year: use ISO, MDY, and write dates as \
                     2024-12-31.",
                ));
            }
            _ => return Err(invalid().with_hint("Sepal prints dates in the ISO style only.")),
        }
    }
    Ok("ISO, MDY".to_owned())
}

fn validate_text(name: &str, value: &str, invalid: impl Fn() -> Error) -> Result<String> {
    match name {
        TIME_ZONE => match Zone::parse(value) {
            Some((_, shown)) => Ok(shown),
            None => Err(invalid()),
        },
        AS_OF if value.trim().is_empty() => Ok(String::new()),
        AS_OF => match parse_as_of(value.trim()) {
            Ok(_) => Ok(value.trim().to_owned()),
            Err(error) => Err(invalid()
                .with_detail(error.message().to_owned())
                .with_hint("Give a time, or snapshot:name. DEFAULT is the present.")),
        },
        SEARCH_PATH if SearchPath::parse(value, "").is_none() => {
            Err(invalid().with_detail("List syntax is invalid."))
        }
        TEXT_SEARCH_CONFIG => match text_search_configuration(value) {
            Ok(configuration) => Ok(format!("pg_catalog.{configuration}")),
            Err(_) => Err(invalid()),
        },
        "DateStyle" => validate_date_style(value, invalid),
        _ => Ok(value.to_owned()),
    }
}

/// `250`, `250ms`, `2s`, `1min`, `1h`, `1d`.
pub(super) fn parse_milliseconds(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let number: i64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The largest unit that divides, as Postgres shows it.
fn show_milliseconds(number: i64) -> String {
    for (factor, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")] {
        if number != 0 && number % factor == 0 {
            return format!("{}{unit}", number / factor);
        }
    }
    if number == 0 { "0".to_owned() } else { format!("{number}ms") }
}
