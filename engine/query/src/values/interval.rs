//! `interval`: months, days and microseconds, in the `postgres` style, or that of ISO 8601.
//!
//! Called by `builder`, `text_out` and `binary_out`. Arrow counts nanoseconds, so that its range ends at 292 years
//! of hours; months and days have Postgres' range.
//!
//! ```text
//! microseconds i64 | days i32 | months i32
//! ```

use arrow::datatypes::IntervalMonthDayNano;
use bytes::{BufMut, BytesMut};
use sepal_types::{Error, Result, SqlState};

use super::{binary_in::Reader, datetime::write_clock, text_in::is_space, text_out::write_integer};

const NANOS_PER_MICRO: i64 = 1_000;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: f64 = 86_400e6;
const DAYS_PER_MONTH: f64 = 30.0;
const DAYS_PER_WEEK: f64 = 7.0;

/// Reads the `postgres`, SQL standard and ISO 8601 forms. Errors: 22007 malformed, 22008 out of range.
pub(super) fn parse(text: &str) -> Result<IntervalMonthDayNano> {
    let body = text.trim_matches(is_space);
    let mut span = Span::default();
    let read = match body.strip_prefix(['P', 'p']) {
        Some(iso) => span.read_iso(iso),
        None => span.read_units(body),
    };
    read.and_then(|()| span.finish()).map_err(|problem| match problem {
        Problem::Syntax => Error::new(
            SqlState::InvalidDatetimeFormat,
            format!("invalid input syntax for type interval: \"{text}\""),
        ),
        Problem::Range => Error::new(
            SqlState::DatetimeFieldOverflow,
            format!("interval field value out of range: \"{text}\""),
        ),
    })
}

/// Errors: 22P03 wrong length, 22008 more than 292 years of microseconds.
pub(super) fn parse_binary(bytes: &[u8]) -> Result<IntervalMonthDayNano> {
    let mut reader = Reader::new(bytes);
    let (micros, days, months) = (reader.i64()?, reader.i32()?, reader.i32()?);
    reader.end()?;
    let nanos = micros
        .checked_mul(NANOS_PER_MICRO)
        .ok_or_else(|| Error::new(SqlState::DatetimeFieldOverflow, "interval out of range"))?;
    Ok(IntervalMonthDayNano::new(months, days, nanos))
}

pub(super) fn write_binary(value: IntervalMonthDayNano, out: &mut BytesMut) {
    out.put_i64(value.nanoseconds / NANOS_PER_MICRO);
    out.put_i32(value.days);
    out.put_i32(value.months);
}

/// `1 year 2 mons -3 days +04:05:06.789`: a part after a negative one shows its plus sign.
pub(super) fn write_text(value: IntervalMonthDayNano, out: &mut BytesMut) {
    let start = out.len();
    let mut after_negative = false;
    for (count, unit) in [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")] {
        if count == 0 {
            continue;
        }
        if out.len() > start {
            out.put_u8(b' ');
        }
        if after_negative && count > 0 {
            out.put_u8(b'+');
        }
        write_integer(count.into(), out);
        out.put_u8(b' ');
        out.extend_from_slice(unit.as_bytes());
        if count != 1 {
            out.put_u8(b's');
        }
        after_negative = count < 0;
    }
    let micros = value.nanoseconds / NANOS_PER_MICRO;
    if micros == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.put_u8(b' ');
    }
    if micros < 0 {
        out.put_u8(b'-');
    } else if after_negative {
        out.put_u8(b'+');
    }
    let micros = micros.abs();
    let seconds = micros / MICROS_PER_SECOND;
    write_clock(seconds / 3600, seconds / 60 % 60, seconds % 60, micros % MICROS_PER_SECOND, out);
}

/// `P1Y2M-3DT4H5M6.789S`, the `iso_8601` style (`EncodeInterval`, `datetime.c`): each part has a sign of its own.
pub(super) fn write_iso(value: IntervalMonthDayNano, out: &mut BytesMut) {
    let micros = value.nanoseconds / NANOS_PER_MICRO;
    if (value.months, value.days, micros) == (0, 0, 0) {
        out.extend_from_slice(b"PT0S");
        return;
    }
    out.put_u8(b'P');
    write_part((value.months / 12).into(), b'Y', out);
    write_part((value.months % 12).into(), b'M', out);
    write_part(value.days.into(), b'D', out);
    if micros == 0 {
        return;
    }
    out.put_u8(b'T');
    let seconds = micros / MICROS_PER_SECOND;
    write_part(seconds / 3600, b'H', out);
    write_part(seconds / 60 % 60, b'M', out);
    let rest = micros % (60 * MICROS_PER_SECOND);
    if rest == 0 {
        return;
    }
    if rest < 0 {
        out.put_u8(b'-');
    }
    let rest = rest.abs();
    write_integer(rest / MICROS_PER_SECOND, out);
    if rest % MICROS_PER_SECOND > 0 {
        let fraction = format!(".{:06}", rest % MICROS_PER_SECOND);
        out.extend_from_slice(fraction.trim_end_matches('0').as_bytes());
    }
    out.put_u8(b'S');
}

fn write_part(count: i64, unit: u8, out: &mut BytesMut) {
    if count != 0 {
        write_integer(count, out);
        out.put_u8(unit);
    }
}

enum Problem {
    Range,
    Syntax,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Decade,
    Century,
    Millennium,
}

/// What has been read so far.
#[derive(Default)]
struct Span {
    months: i64,
    days: i64,
    micros: i64,
    /// A bit per [`Unit`]: each may come once.
    seen: u16,
}

impl Span {
    fn read_units(&mut self, text: &str) -> Result<(), Problem> {
        let mut cursor = Cursor { rest: text };
        loop {
            cursor.skip_spaces();
            let Some(first) = cursor.rest.bytes().next() else {
                return Ok(());
            };
            match first {
                b'@' => cursor.rest = &cursor.rest[1..],
                b'+' | b'-' | b'.' | b'0'..=b'9' => self.read_part(&mut cursor)?,
                b'a' | b'A' if self.seen != 0 && cursor.rest.eq_ignore_ascii_case("ago") => {
                    (self.months, self.days, self.micros) = (-self.months, -self.days, -self.micros);
                    return Ok(());
                }
                _ => return Err(Problem::Syntax),
            }
        }
    }

    /// A number and what follows it: a unit, the rest of a clock, the months after years, or nothing.
    fn read_part(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Problem> {
        let number = cursor.number()?;
        if cursor.rest.starts_with(':') {
            return self.read_clock(number, cursor);
        }
        if number.fraction == 0.0 && cursor.rest.starts_with('-') {
            cursor.rest = &cursor.rest[1..];
            let months = cursor.number()?;
            if months.whole > 11 || months.negative || months.fraction != 0.0 {
                return Err(Problem::Range);
            }
            self.add(Unit::Year, &number)?;
            return self.add(Unit::Month, &Number { negative: number.negative, ..months });
        }
        cursor.skip_spaces();
        let word = cursor.letters();
        let unit = match word.as_str() {
            "" if cursor.rest.is_empty() => Unit::Second,
            "" if cursor.at_clock() => Unit::Day,
            word => unit_named(word).ok_or(Problem::Syntax)?,
        };
        self.add(unit, &number)
    }

    /// `:05`, `:05:06.789`, or `:05.6` for minutes and seconds; the sign of the first number is that of all.
    fn read_clock(&mut self, first: Number, cursor: &mut Cursor<'_>) -> Result<(), Problem> {
        let mut parts = vec![first];
        while parts.len() < 3 && cursor.rest.starts_with(':') {
            cursor.rest = &cursor.rest[1..];
            if !cursor.rest.starts_with(|next: char| next.is_ascii_digit()) {
                return Err(Problem::Syntax);
            }
            let negative = parts[0].negative;
            parts.push(Number { negative, ..cursor.number()? });
        }
        if parts.iter().rev().skip(1).any(|part| part.fraction != 0.0) {
            return Err(Problem::Syntax);
        }
        let units: &[Unit] = match parts.as_slice() {
            [_, second] if second.fraction != 0.0 => &[Unit::Minute, Unit::Second],
            [_, _] => &[Unit::Hour, Unit::Minute],
            _ => &[Unit::Hour, Unit::Minute, Unit::Second],
        };
        for (position, (unit, part)) in units.iter().zip(&parts).enumerate() {
            if position > 0 && part.whole > 59 {
                return Err(Problem::Range);
            }
            self.add(*unit, part)?;
        }
        self.seen |= Unit::Hour.bit() | Unit::Minute.bit() | Unit::Second.bit();
        Ok(())
    }

    /// After `P`: `1Y2M3W4DT5H6M7.5S`, or `0001-02-03T04:05:06`.
    fn read_iso(&mut self, text: &str) -> Result<(), Problem> {
        let (date, time) = match text.split_once(['T', 't']) {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        if time.is_some_and(str::is_empty) {
            return Err(Problem::Syntax);
        }
        if date
            .get(1..)
            .is_some_and(|rest| rest.contains('-') && !rest.contains(|c: char| c.is_ascii_alphabetic()))
        {
            self.read_iso_fields(date, '-', [Unit::Year, Unit::Month, Unit::Day])?;
        } else {
            self.read_designators(date, |designator| match designator {
                b'Y' | b'y' => Some(Unit::Year),
                b'M' | b'm' => Some(Unit::Month),
                b'W' | b'w' => Some(Unit::Week),
                b'D' | b'd' => Some(Unit::Day),
                _ => None,
            })?;
        }
        match time {
            None => Ok(()),
            Some(time) if time.contains(':') => {
                self.read_iso_fields(time, ':', [Unit::Hour, Unit::Minute, Unit::Second])
            }
            Some(time) => self.read_designators(time, |designator| match designator {
                b'H' | b'h' => Some(Unit::Hour),
                b'M' | b'm' => Some(Unit::Minute),
                b'S' | b's' => Some(Unit::Second),
                _ => None,
            }),
        }
    }

    fn read_iso_fields(&mut self, text: &str, separator: char, units: [Unit; 3]) -> Result<(), Problem> {
        let fields: Vec<&str> = text.split(separator).collect();
        if fields.len() > units.len() {
            return Err(Problem::Syntax);
        }
        for (field, unit) in fields.iter().zip(units) {
            let mut cursor = Cursor { rest: field };
            let number = cursor.number()?;
            if !cursor.rest.is_empty() {
                return Err(Problem::Syntax);
            }
            self.add(unit, &number)?;
        }
        Ok(())
    }

    fn read_designators(&mut self, text: &str, unit: fn(u8) -> Option<Unit>) -> Result<(), Problem> {
        let mut cursor = Cursor { rest: text };
        while !cursor.rest.is_empty() {
            let number = cursor.number()?;
            let designator = cursor.rest.bytes().next().ok_or(Problem::Syntax)?;
            self.add(unit(designator).ok_or(Problem::Syntax)?, &number)?;
            cursor.rest = &cursor.rest[1..];
        }
        Ok(())
    }

    fn add(&mut self, unit: Unit, number: &Number) -> Result<(), Problem> {
        if self.seen & unit.bit() != 0 {
            return Err(Problem::Syntax);
        }
        self.seen |= unit.bit();
        let sign = if number.negative { -1 } else { 1 };
        let whole = number.whole * sign;
        let fraction = number.fraction * sign as f64;
        match unit {
            Unit::Microsecond => self.add_micros(whole, 1, fraction),
            Unit::Millisecond => self.add_micros(whole, 1_000, fraction),
            Unit::Second => self.add_micros(whole, MICROS_PER_SECOND, fraction),
            Unit::Minute => self.add_micros(whole, 60 * MICROS_PER_SECOND, fraction),
            Unit::Hour => self.add_micros(whole, 3_600 * MICROS_PER_SECOND, fraction),
            Unit::Day => self.add_days(whole, 1, fraction),
            Unit::Week => self.add_days(whole, 7, fraction * DAYS_PER_WEEK),
            Unit::Month => {
                self.add_months(whole, 1, 0.0)?;
                self.add_days(0, 1, fraction * DAYS_PER_MONTH)
            }
            Unit::Year => self.add_months(whole, 12, fraction),
            Unit::Decade => self.add_months(whole, 120, fraction),
            Unit::Century => self.add_months(whole, 1_200, fraction),
            Unit::Millennium => self.add_months(whole, 12_000, fraction),
        }
    }

    fn add_months(&mut self, whole: i64, months: i64, fraction: f64) -> Result<(), Problem> {
        let more = (fraction * months as f64).round_ties_even() as i64;
        self.months = sum(self.months, whole, months, more)?;
        Ok(())
    }

    /// `fraction` is in days and may exceed one.
    fn add_days(&mut self, whole: i64, days: i64, fraction: f64) -> Result<(), Problem> {
        self.days = sum(self.days, whole, days, fraction.trunc() as i64)?;
        let micros = (fraction.fract() * MICROS_PER_DAY).round_ties_even() as i64;
        self.micros = self.micros.checked_add(micros).ok_or(Problem::Range)?;
        Ok(())
    }

    fn add_micros(&mut self, whole: i64, micros: i64, fraction: f64) -> Result<(), Problem> {
        let more = (fraction * micros as f64).round_ties_even() as i64;
        self.micros = sum(self.micros, whole, micros, more)?;
        Ok(())
    }

    fn finish(&self) -> Result<IntervalMonthDayNano, Problem> {
        if self.seen == 0 {
            return Err(Problem::Syntax);
        }
        let months = i32::try_from(self.months).map_err(|_| Problem::Range)?;
        let days = i32::try_from(self.days).map_err(|_| Problem::Range)?;
        let nanos = self.micros.checked_mul(NANOS_PER_MICRO).ok_or(Problem::Range)?;
        Ok(IntervalMonthDayNano::new(months, days, nanos))
    }
}

/// `total + count × size + more`
fn sum(total: i64, count: i64, size: i64, more: i64) -> Result<i64, Problem> {
    count
        .checked_mul(size)
        .and_then(|value| value.checked_add(total))
        .and_then(|value| value.checked_add(more))
        .ok_or(Problem::Range)
}

impl Unit {
    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The names of Postgres' `deltatktbl`.
fn unit_named(word: &str) -> Option<Unit> {
    Some(match word {
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" => {
            Unit::Microsecond
        }
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" => {
            Unit::Millisecond
        }
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hour,
        "d" | "day" | "days" => Unit::Day,
        "w" | "week" | "weeks" => Unit::Week,
        "mon" | "mons" | "month" | "months" => Unit::Month,
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
        "dec" | "decs" | "decade" | "decades" => Unit::Decade,
        "c" | "cent" | "century" | "centuries" => Unit::Century,
        "mil" | "mils" | "millennium" | "millennia" => Unit::Millennium,
        _ => return None,
    })
}

/// A signed decimal number.
#[derive(Clone, Copy)]
struct Number {
    negative: bool,
    whole: i64,
    /// At least 0, less than 1.
    fraction: f64,
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn number(&mut self) -> Result<Number, Problem> {
        let negative = self.rest.starts_with('-');
        let unsigned = self.rest.strip_prefix(['+', '-']).unwrap_or(self.rest);
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole_length = digits(unsigned);
        let (whole, after) = unsigned.split_at(whole_length);
        let fraction_length = after.strip_prefix('.').map(digits);
        let (fraction, after) = after.split_at(fraction_length.map_or(0, |length| length + 1));
        if whole.is_empty() && fraction.len() < 2 {
            return Err(Problem::Syntax);
        }
        self.rest = after;
        Ok(Number {
            negative,
            whole: if whole.is_empty() { 0 } else { whole.parse().map_err(|_| Problem::Range)? },
            fraction: format!("0{fraction}").parse().unwrap_or(0.0),
        })
    }

    fn letters(&mut self) -> String {
        let length = self.rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        word.to_ascii_lowercase()
    }

    /// Whether `[+-]hours:` comes next.
    fn at_clock(&self) -> bool {
        let unsigned = self.rest.strip_prefix(['+', '-']).unwrap_or(self.rest);
        let after = unsigned.trim_start_matches(|c: char| c.is_ascii_digit());
        after.len() < unsigned.len() && after.starts_with(':')
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(is_space);
    }
}
