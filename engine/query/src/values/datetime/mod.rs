//! `date`, `time`, `timestamp` and `timestamptz`: ISO text, and the wire's counts from the year 2000.
//!
//! Called by `builder`, `text_out` and `binary_out`. Arrow counts from 1970, Postgres' wire from 2000. Text is of the
//! zone of the work at hand ([`Zone::current`]). The largest and smallest numbers of a type are `infinity` and `-infinity`.

mod parse;

use bytes::{BufMut, BytesMut};
use sepal_types::{Clock, Error, Result, SqlState, SystemClock, civil_from_days, days_from_civil};

use self::parse::{Parts, Problem, Special};
use super::text_in::is_space;
use crate::zone::Zone;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// From 1970-01-01 to 2000-01-01.
const WIRE_EPOCH_DAYS: i32 = 10_957;
const WIRE_EPOCH_MICROS: i64 = WIRE_EPOCH_DAYS as i64 * MICROS_PER_DAY;

/// First day that Postgres has: 4714-11-24 BC.
const FIRST_DAY: i64 = days_from_civil(-4713, 11, 24);
/// Last day of `date`: 5874897-12-31.
const LAST_DAY: i64 = days_from_civil(5_874_897, 12, 31);
/// First instant after `timestamp`'s last, in µs since 2000: 294277-01-01.
const WIRE_END_MICROS: i64 = 9_223_371_331_200_000_000;
const WIRE_FIRST_MICROS: i64 = (FIRST_DAY - WIRE_EPOCH_DAYS as i64) * MICROS_PER_DAY;

/// Days since 1970. Errors: 22007 malformed, 22008 no such day or out of range.
pub(super) fn parse_date(text: &str) -> Result<i32> {
    let parts = read(text, "date", false)?;
    let days = match parts.special {
        Some(Special::Infinity) => return Ok(i32::MAX),
        Some(Special::MinusInfinity) => return Ok(i32::MIN),
        Some(Special::Epoch) => 0,
        Some(Special::Now) => local_now().div_euclid(MICROS_PER_DAY),
        Some(Special::Day(offset)) => local_now().div_euclid(MICROS_PER_DAY) + offset,
        None => parts.days.ok_or_else(|| malformed("date", text))?,
    };
    i32::try_from(days)
        .ok()
        .filter(|_| (FIRST_DAY..=LAST_DAY).contains(&days))
        .ok_or_else(|| Error::new(SqlState::DatetimeFieldOverflow, format!("date out of range: \"{text}\"")))
}

/// Microseconds since midnight, up to and including 24:00. A date or zone beside it is read and ignored.
/// Errors: 22007 malformed, 22008 out of range.
pub(super) fn parse_time(text: &str) -> Result<i64> {
    let parts = read(text, "time", true)?;
    match parts.special {
        Some(Special::Now) => Ok(local_now().rem_euclid(MICROS_PER_DAY)),
        Some(_) => Err(malformed("time", text)),
        None => parts.micros.ok_or_else(|| malformed("time", text)),
    }
}

/// Microseconds since 1970; a zone is read and ignored. Errors: 22007 malformed, 22008 out of range.
pub(super) fn parse_timestamp(text: &str) -> Result<i64> {
    let parts = read(text, "timestamp", false)?;
    if parts.special == Some(Special::Now) {
        return Ok(local_now());
    }
    instant(&parts, "timestamp", text, Some)
}

/// Microseconds since 1970 in UTC; without a zone the text is of the session's. Errors: 22007 malformed, 22008 out of
/// range, 22023 an unknown zone.
pub(super) fn parse_timestamptz(text: &str) -> Result<i64> {
    let name = "timestamp with time zone";
    let parts = read(text, name, false)?;
    match parts.zone_seconds {
        Some(east) => {
            instant(&parts, name, text, |shown| shown.checked_sub(i64::from(east) * MICROS_PER_SECOND))
        }
        None => {
            let zone = parts.zone.unwrap_or_else(Zone::current);
            instant(&parts, name, text, |shown| zone.instant(shown))
        }
    }
}

/// `at`: when a clock shows a time.
fn instant(parts: &Parts, name: &str, text: &str, at: impl FnOnce(i64) -> Option<i64>) -> Result<i64> {
    let today = || local_now().div_euclid(MICROS_PER_DAY);
    let days = match parts.special {
        Some(Special::Infinity) => return Ok(i64::MAX),
        Some(Special::MinusInfinity) => return Ok(i64::MIN),
        Some(Special::Epoch) => return Ok(0),
        Some(Special::Now) => return Ok(now_micros()),
        Some(Special::Day(offset)) => today() + offset,
        None => parts.days.ok_or_else(|| malformed(name, text))?,
    };
    let out_of_range =
        || Error::new(SqlState::DatetimeFieldOverflow, format!("timestamp out of range: \"{text}\""));
    days.checked_mul(MICROS_PER_DAY)
        .and_then(|micros| micros.checked_add(parts.micros.unwrap_or(0)))
        .and_then(at)
        .filter(|micros| in_range(*micros))
        .ok_or_else(out_of_range)
}

/// Whether Postgres has this instant, and it is not the number that stands for an infinity.
fn in_range(micros: i64) -> bool {
    micros
        .checked_sub(WIRE_EPOCH_MICROS)
        .is_some_and(|wire| (WIRE_FIRST_MICROS..WIRE_END_MICROS).contains(&wire))
        && micros != i64::MAX
}

fn read(text: &str, name: &str, time_first: bool) -> Result<Parts> {
    parse::parse(text.trim_matches(is_space), time_first).map_err(|problem| match problem {
        Problem::Displacement => Error::new(
            SqlState::DatetimeFieldOverflow,
            format!("time zone displacement out of range: \"{text}\""),
        ),
        Problem::Field => field_overflow(text),
        Problem::MonthOrDay => {
            field_overflow(text).with_hint("Perhaps you need a different \"datestyle\" setting.")
        }
        Problem::Syntax => malformed(name, text),
        Problem::Zone(zone) => {
            Error::new(SqlState::InvalidParameterValue, format!("time zone \"{zone}\" not recognized"))
        }
    })
}

fn malformed(name: &str, text: &str) -> Error {
    Error::new(SqlState::InvalidDatetimeFormat, format!("invalid input syntax for type {name}: \"{text}\""))
}

fn field_overflow(text: &str) -> Error {
    Error::new(SqlState::DatetimeFieldOverflow, format!("date/time field value out of range: \"{text}\""))
}

/// `now`, as a value's text may say. Statements that ask for the time do so in SQL; only input reads this clock.
fn now_micros() -> i64 {
    SystemClock.now_us()
}

/// The same as the session's clock shows it.
fn local_now() -> i64 {
    Zone::current().clock(now_micros())
}

/// Days since 2000 to days since 1970. Errors: 22008.
pub(super) fn date_from_wire(days: i32) -> Result<i32> {
    if days == i32::MAX || days == i32::MIN {
        return Ok(days);
    }
    days.checked_add(WIRE_EPOCH_DAYS)
        .filter(|days| (FIRST_DAY..=LAST_DAY).contains(&i64::from(*days)))
        .ok_or_else(|| Error::new(SqlState::DatetimeFieldOverflow, "date out of range"))
}

/// Days since 1970 to days since 2000.
pub(super) fn date_to_wire(days: i32) -> i32 {
    if days == i32::MAX { days } else { days.saturating_sub(WIRE_EPOCH_DAYS) }
}

/// Microseconds since midnight, unchanged. Errors: 22008.
pub(super) fn time_from_wire(micros: i64) -> Result<i64> {
    if (0..=MICROS_PER_DAY).contains(&micros) {
        return Ok(micros);
    }
    Err(Error::new(SqlState::DatetimeFieldOverflow, "time out of range"))
}

/// Microseconds since 2000 to microseconds since 1970. Errors: 22008.
pub(super) fn timestamp_from_wire(micros: i64) -> Result<i64> {
    if micros == i64::MAX || micros == i64::MIN {
        return Ok(micros);
    }
    micros
        .checked_add(WIRE_EPOCH_MICROS)
        .filter(|micros| in_range(*micros))
        .ok_or_else(|| Error::new(SqlState::DatetimeFieldOverflow, "timestamp out of range"))
}

/// Microseconds since 1970 to microseconds since 2000.
pub(super) fn timestamp_to_wire(micros: i64) -> i64 {
    if micros == i64::MAX { micros } else { micros.saturating_sub(WIRE_EPOCH_MICROS) }
}

/// `2024-01-02`, `0044-03-15 BC`, `infinity`.
pub(super) fn write_date(days: i32, out: &mut BytesMut) {
    if write_infinity(days == i32::MAX, days == i32::MIN, out) {
        return;
    }
    let year = write_day(days.into(), out);
    write_era(year, out);
}

/// `03:04:05.678`.
pub(super) fn write_time(micros: i64, out: &mut BytesMut) {
    let seconds = micros.div_euclid(MICROS_PER_SECOND);
    write_clock(seconds / 3600, seconds / 60 % 60, seconds % 60, micros.rem_euclid(MICROS_PER_SECOND), out);
}

/// `2024-01-02 03:04:05.678`, of a timestamp with time zone as the zone's clock shows it, with its offset.
pub(super) fn write_timestamp(micros: i64, zone: Option<Zone>, out: &mut BytesMut) {
    if write_infinity(micros == i64::MAX, micros == i64::MIN, out) {
        return;
    }
    let offset = zone.map(|zone| zone.offset(micros));
    let shown = micros.saturating_add(offset.unwrap_or(0) * MICROS_PER_SECOND);
    let year = write_day(shown.div_euclid(MICROS_PER_DAY), out);
    out.put_u8(b' ');
    write_time(shown.rem_euclid(MICROS_PER_DAY), out);
    if let Some(offset) = offset {
        write_offset(offset, out);
    }
    write_era(year, out);
}

/// `+02`, `-03:30`, `+00:53:28`: minutes and seconds where there are some (`EncodeTimezone`).
fn write_offset(east: i64, out: &mut BytesMut) {
    out.put_u8(if east < 0 { b'-' } else { b'+' });
    let seconds = east.abs();
    write_padded(seconds / 3600, 2, out);
    if seconds % 3600 != 0 {
        out.put_u8(b':');
        write_padded(seconds / 60 % 60, 2, out);
    }
    if seconds % 60 != 0 {
        out.put_u8(b':');
        write_padded(seconds % 60, 2, out);
    }
}

/// `03:04:05.678`: hours have two digits or more, the fraction as many as it needs.
pub(super) fn write_clock(hours: i64, minutes: i64, seconds: i64, micros: i64, out: &mut BytesMut) {
    write_padded(hours, 2, out);
    out.put_u8(b':');
    write_padded(minutes, 2, out);
    out.put_u8(b':');
    write_padded(seconds, 2, out);
    if micros > 0 {
        out.put_u8(b'.');
        write_padded(micros, 6, out);
        let kept = out.iter().rev().take_while(|digit| **digit == b'0').count();
        out.truncate(out.len() - kept);
    }
}

fn write_infinity(positive: bool, negative: bool, out: &mut BytesMut) -> bool {
    if positive {
        out.extend_from_slice(b"infinity");
    } else if negative {
        out.extend_from_slice(b"-infinity");
    }
    positive || negative
}

/// Writes year, month and day; returns the astronomical year, for [`write_era`].
fn write_day(days: i64, out: &mut BytesMut) -> i64 {
    let (year, month, day) = civil_from_days(days);
    write_padded(if year > 0 { year } else { 1 - year }, 4, out);
    out.put_u8(b'-');
    write_padded(month.into(), 2, out);
    out.put_u8(b'-');
    write_padded(day.into(), 2, out);
    year
}

fn write_era(year: i64, out: &mut BytesMut) {
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

fn write_padded(value: i64, width: usize, out: &mut BytesMut) {
    let bound = 10u64.pow(width as u32 - 1);
    let value = value.unsigned_abs();
    let mut limit = bound;
    while limit > 1 && value < limit {
        out.put_u8(b'0');
        limit /= 10;
    }
    super::text_out::write_integer(value as i64, out);
}
