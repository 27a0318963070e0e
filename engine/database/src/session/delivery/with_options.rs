//! What WITH says: the host's policy for a pipeline, and how long a secret's value holds.
//!
//! Unknown names are errors that list the known ones.

use sepal_query::sql::delivery::{OptionValue, Options};
use sepal_types::{Error, Result, SqlState, limits::MAX_BATCH_BYTES};

use crate::{
    connector::Tier,
    delivery::objects::{OnExhausted, OnRejected},
};

const MAX_BATCH_ROWS: u64 = 100_000;
const LEAST_BATCH_BYTES: u64 = 1 << 10;
const MAX_LINGER_MS: u64 = 10 * 60 * 1000;
const MAX_ATTEMPTS: u64 = 10_000;
/// A year.
const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;

const PIPELINE_OPTIONS: &str = "snapshot, delivery, batch_rows, batch_bytes, linger, parallelism, \
                                max_attempts, on_exhausted, on_rejected";

/// What a pipeline's WITH or SET names; the rest stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineOptions {
    pub snapshot: Option<bool>,
    pub tier: Option<Tier>,
    pub batch_rows: Option<u32>,
    pub batch_bytes: Option<u32>,
    pub linger_ms: Option<u32>,
    pub max_attempts: Option<u32>,
    pub on_exhausted: Option<OnExhausted>,
    pub on_rejected: Option<OnRejected>,
}

impl PipelineOptions {
    pub fn read(options: &Options) -> Result<Self> {
        let mut read = Self::default();
        for (name, value) in options {
            read.set(name, value)?;
        }
        Ok(read)
    }

    fn set(&mut self, name: &str, value: &OptionValue) -> Result<()> {
        match name {
            "snapshot" => self.snapshot = Some(flag(name, value)?),
            "delivery" => self.tier = Some(tier(value)?),
            "batch_rows" => self.batch_rows = Some(whole(name, value, (1, MAX_BATCH_ROWS))?),
            "batch_bytes" => {
                self.batch_bytes =
                    Some(bounded(name, bytes(name, value)?, (LEAST_BATCH_BYTES, MAX_BATCH_BYTES.into()))?);
            }
            "linger" => self.linger_ms = Some(bounded(name, milliseconds(name, value)?, (0, MAX_LINGER_MS))?),
            "max_attempts" => self.max_attempts = Some(whole(name, value, (1, MAX_ATTEMPTS))?),
            "on_exhausted" => {
                self.on_exhausted = Some(if goes_to_dlq(name, value)? {
                    OnExhausted::DeadLetter
                } else {
                    OnExhausted::Pause
                });
            }
            "on_rejected" => {
                self.on_rejected =
                    Some(if goes_to_dlq(name, value)? { OnRejected::DeadLetter } else { OnRejected::Pause });
            }
            "parallelism" if whole(name, value, (1, u64::from(u32::MAX)))? == 1 => {}
            "parallelism" => {
                return Err(Error::unsupported("a pipeline has one writer: parallelism is 1")
                    .with_hint("Make several pipelines whose WHERE clauses part the rows."));
            }
            _ => return Err(unknown(name, PIPELINE_OPTIONS)),
        }
        Ok(())
    }
}

/// What a secret's WITH or SET names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretOptions {
    /// Empty: any host that its sink may reach.
    pub allowed_hosts: Option<Vec<String>>,
    pub refresh_seconds: Option<u32>,
    pub max_stale_seconds: Option<u32>,
}

impl SecretOptions {
    pub fn read(options: &Options) -> Result<Self> {
        let mut read = Self::default();
        for (name, value) in options {
            match name.as_str() {
                "allowed_hosts" => read.allowed_hosts = Some(hosts(name, value)?),
                "refresh" => read.refresh_seconds = Some(seconds(name, value)?),
                "max_stale" => read.max_stale_seconds = Some(seconds(name, value)?),
                _ => return Err(unknown(name, "allowed_hosts, refresh, max_stale")),
            }
        }
        Ok(read)
    }
}

/// `'a.example.com, *.b.com'`
fn hosts(name: &str, value: &OptionValue) -> Result<Vec<String>> {
    let listed = text(name, value)?.split(',').map(str::trim).filter(|host| !host.is_empty());
    Ok(listed.map(str::to_ascii_lowercase).collect())
}

fn unknown(name: &str, known: &str) -> Error {
    Error::new(SqlState::InvalidParameterValue, format!("unrecognized option \"{name}\"")).with_hint(format!(
        "WITH knows {known}. What configures the destination belongs to the sink's OPTIONS."
    ))
}

fn wrong(name: &str, wanted: &str) -> Error {
    Error::new(SqlState::InvalidParameterValue, format!("option \"{name}\" must be {wanted}"))
}

fn text<'a>(name: &str, value: &'a OptionValue) -> Result<&'a str> {
    match value {
        OptionValue::Text(text) => Ok(text.trim()),
        _ => Err(wrong(name, "text in quotes")),
    }
}

fn flag(name: &str, value: &OptionValue) -> Result<bool> {
    match value {
        OptionValue::Flag(flag) => Ok(*flag),
        OptionValue::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "on" => Ok(true),
            "false" | "off" => Ok(false),
            _ => Err(wrong(name, "true or false")),
        },
        _ => Err(wrong(name, "true or false")),
    }
}

fn tier(value: &OptionValue) -> Result<Tier> {
    match text("delivery", value)?.to_ascii_lowercase().replace('_', "-").as_str() {
        "at-least-once" => Ok(Tier::AtLeastOnce),
        "idempotent" => Ok(Tier::Idempotent),
        "transactional" => Ok(Tier::Transactional),
        "exactly-once" => Err(Error::unsupported("no delivery is exactly once across a network").with_hint(
            "delivery = 'transactional' comes to the same where the sink offers it: the destination keeps the \
             position with the data.",
        )),
        _ => Err(wrong("delivery", "'at-least-once', 'idempotent' or 'transactional'")),
    }
}

/// True: to the dead letters. False: the pipeline pauses.
fn goes_to_dlq(name: &str, value: &OptionValue) -> Result<bool> {
    match text(name, value)?.to_ascii_lowercase().as_str() {
        "dlq" => Ok(true),
        "pause" => Ok(false),
        _ => Err(wrong(name, "'pause' or 'dlq'")),
    }
}

fn whole(name: &str, value: &OptionValue, bounds: (u64, u64)) -> Result<u32> {
    let number = match value {
        OptionValue::Number(number) => as_whole(*number),
        OptionValue::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    bounded(name, number.ok_or_else(|| wrong(name, "a whole number"))?, bounds)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is whole and in range"
)]
fn as_whole(number: f64) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && (0.0..=EXACT).contains(&number)).then_some(number as u64)
}

fn bounded(name: &str, number: u64, (least, most): (u64, u64)) -> Result<u32> {
    let fits = u32::try_from(number).ok().filter(|_| (least..=most).contains(&number));
    fits.ok_or_else(|| {
        Error::new(
            SqlState::InvalidParameterValue,
            format!("{number} is outside the valid range for option \"{name}\" ({least} .. {most})"),
        )
    })
}

/// `1048576`, `'1MiB'`, `'500kB'`
fn bytes(name: &str, value: &OptionValue) -> Result<u64> {
    let unit = |unit: &str| match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1_000),
        "kib" => Some(1 << 10),
        "mb" => Some(1_000_000),
        "mib" => Some(1 << 20),
        _ => None,
    };
    let wanted = "a number of bytes, 1048576 or '1MiB'";
    let read = match value {
        OptionValue::Number(number) => as_whole(*number),
        OptionValue::Text(text) => quantity(text, unit),
        _ => None,
    };
    read.ok_or_else(|| wrong(name, wanted))
}

/// `'1s'`, `'500ms'`, `'5m'`, `'1h'`, `'1d'`
fn milliseconds(name: &str, value: &OptionValue) -> Result<u64> {
    let unit = |unit: &str| match unit.to_ascii_lowercase().as_str() {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let read = match value {
        OptionValue::Text(text) => quantity(text, unit),
        _ => None,
    };
    read.ok_or_else(|| wrong(name, "a time with its unit: '500ms', '1s', '5m' or '1h'"))
}

fn seconds(name: &str, value: &OptionValue) -> Result<u32> {
    let milliseconds = milliseconds(name, value)?;
    if !milliseconds.is_multiple_of(1_000) {
        return Err(wrong(name, "whole seconds"));
    }
    bounded(name, milliseconds / 1_000, (1, MAX_SECONDS))
}

/// A whole number and its unit, with or without a space between.
fn quantity(text: &str, unit: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let text = text.trim();
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, name) = text.split_at(end);
    digits.parse::<u64>().ok()?.checked_mul(unit(name.trim())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, OptionValue)]) -> Options {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn text(value: &str) -> OptionValue {
        OptionValue::Text(value.to_owned())
    }

    #[test]
    fn quantities_have_units() {
        let read = |name: &str, value: OptionValue| PipelineOptions::read(&options(&[(name, value)]));
        assert_eq!(read("batch_bytes", text("1MiB")).unwrap().batch_bytes, Some(1 << 20));
        assert_eq!(read("batch_bytes", text("500 kB")).unwrap().batch_bytes, Some(500_000));
        assert_eq!(read("batch_bytes", OptionValue::Number(4096.0)).unwrap().batch_bytes, Some(4096));
        assert_eq!(read("linger", text("500ms")).unwrap().linger_ms, Some(500));
        assert_eq!(read("linger", text("2m")).unwrap().linger_ms, Some(120_000));
        for (name, value) in [
            ("linger", OptionValue::Number(1.0)),
            ("linger", text("1")),
            ("linger", text("11m")),
            ("linger", text("18446744073709551615h")),
            ("batch_bytes", text("1GiB")),
            ("batch_bytes", text("-1")),
            ("batch_rows", OptionValue::Number(0.0)),
            ("batch_rows", OptionValue::Number(1.5)),
            ("batch_rows", OptionValue::Number(f64::NAN)),
            ("on_rejected", text("drop")),
            ("speed", text("fast")),
        ] {
            let error = read(name, value).unwrap_err();
            assert_eq!(error.state().code(), "22023", "{name}: {error}");
        }
    }

    #[test]
    fn what_is_not_done_says_so() {
        let read = |name: &str, value: OptionValue| PipelineOptions::read(&options(&[(name, value)]));
        assert_eq!(read("parallelism", OptionValue::Number(1.0)).unwrap(), PipelineOptions::default());
        assert_eq!(read("parallelism", OptionValue::Number(2.0)).unwrap_err().state().code(), "0A000");
        assert_eq!(read("delivery", text("exactly-once")).unwrap_err().state().code(), "0A000");
        assert_eq!(read("delivery", text("at_least_once")).unwrap().tier, Some(Tier::AtLeastOnce));
        let hint = read("speed", text("1")).unwrap_err();
        assert!(hint.hint().unwrap().contains("batch_rows"), "{hint}");
    }

    #[test]
    fn a_secret_says_where_and_how_long() {
        let with = options(&[
            ("allowed_hosts", text("A.example.com, *.b.com")),
            ("refresh", text("5m")),
            ("max_stale", text("1h")),
        ]);
        let read = SecretOptions::read(&with).unwrap();
        assert_eq!(read.allowed_hosts.unwrap(), ["a.example.com", "*.b.com"]);
        assert_eq!((read.refresh_seconds, read.max_stale_seconds), (Some(300), Some(3600)));
        for (name, value) in [("refresh", text("1500ms")), ("refresh", text("0s")), ("ttl", text("1s"))] {
            assert!(SecretOptions::read(&options(&[(name, value)])).is_err(), "{name}");
        }
    }
}
