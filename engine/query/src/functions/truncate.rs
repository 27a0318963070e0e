//! `date_trunc(unit, value [, zone])` as Postgres has it (`timestamp_trunc`, `timestamptz_trunc_zone`,
//! `interval_trunc`): of a date it is a `timestamptz`.

use std::sync::Arc;

use datafusion::{arrow::datatypes::IntervalMonthDayNano, logical_expr::ScalarUDF};
use sepal_types::{Error, SqlState, civil_from_days, days_from_civil};

use super::{
    overloads::{
        Answer, Given,
        Kind::{Interval, Text, Timestamp, Timestamptz},
        Overload, functions as declared, text,
    },
    zones::named,
};
use crate::zone::Zone;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
const NANOS_PER_MICRO: i64 = 1_000;

const FUNCTIONS: &[(&str, &[Overload])] = &[(
    "date_trunc",
    &[
        Overload::new(&[Text, Timestamptz], Timestamptz, |given, _| {
            truncated(given, "timestamp with time zone", Zone::current())
        }),
        Overload::new(&[Text, Timestamp], Timestamp, |given, _| {
            truncated(given, "timestamp without time zone", Zone::UTC)
        }),
        Overload::new(&[Text, Interval], Interval, |given, _| truncated(given, "interval", Zone::UTC)),
        Overload::new(&[Text, Timestamptz, Text], Timestamptz, |given, _| {
            truncated(given, "timestamp with time zone", named(text(given, 2))?)
        }),
    ],
)];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    declared(FUNCTIONS)
}

/// What is left of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// So many microseconds; at most an hour.
    Clock(i64),
    Day,
    Week,
    /// So many months; at most a quarter.
    Months(i32),
    Year,
    /// So many years, counted from 1.
    Years(i64),
    Decade,
}

fn unit(name: &str) -> Option<Unit> {
    Some(match name.to_ascii_lowercase().as_str() {
        "us" | "usec" | "usecs" | "useconds" | "microsecond" | "microseconds" => Unit::Clock(1),
        "ms" | "msec" | "msecs" | "mseconds" | "millisecond" | "milliseconds" => Unit::Clock(1_000),
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Clock(MICROS_PER_SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Clock(60 * MICROS_PER_SECOND),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Clock(3_600 * MICROS_PER_SECOND),
        "d" | "day" | "days" => Unit::Day,
        "w" | "week" | "weeks" => Unit::Week,
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "qtr" | "quarter" => Unit::Months(3),
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
        "dec" | "decs" | "decade" | "decades" => Unit::Decade,
        "c" | "cent" | "century" | "centuries" => Unit::Years(100),
        "mil" | "mils" | "millennium" | "millennia" => Unit::Years(1_000),
        _ => return None,
    })
}

/// `zone`: whose clock is truncated.
///
/// Errors: 22023 for a unit that is none; 0A000 for one that the type does not have; 22008.
fn truncated(given: &[Given<'_>], type_name: &str, zone: Zone) -> Result<Answer, Error> {
    let name = match given.first() {
        Some(Given::Text(name)) => *name,
        _ => return Ok(Answer::Null),
    };
    let Some(unit) = unit(name) else {
        let message = format!("unit \"{}\" not recognized for type {type_name}", name.to_lowercase());
        return Err(Error::new(SqlState::InvalidParameterValue, message));
    };
    match given.get(1) {
        Some(Given::Instant(micros @ (i64::MAX | i64::MIN))) => Ok(Answer::Instant(*micros)),
        Some(Given::Instant(micros)) => {
            let shown = zone.clock(*micros);
            let kept = instant(shown, unit);
            let found = match unit {
                // What is left has the offset that the whole had; days begin with their own.
                Unit::Clock(_) => micros.checked_sub(shown - kept),
                _ => zone.instant(kept),
            };
            let out_of_range = || Error::new(SqlState::DatetimeFieldOverflow, "timestamp out of range");
            found.map(Answer::Instant).ok_or_else(out_of_range)
        }
        Some(Given::Interval(_)) if unit == Unit::Week => {
            let message = format!("unit \"{}\" not supported for type interval", name.to_lowercase());
            Err(Error::unsupported(message).with_detail("Months usually have fractional weeks."))
        }
        Some(Given::Interval(span)) => Ok(Answer::Interval(interval(*span, unit))),
        _ => Ok(Answer::Null),
    }
}

fn instant(micros: i64, unit: Unit) -> i64 {
    let days = micros.div_euclid(MICROS_PER_DAY);
    let (year, month, _) = civil_from_days(days);
    let first = |year: i64| days_from_civil(year, 1, 1);
    let days = match unit {
        Unit::Clock(length) => return micros - micros.rem_euclid(length),
        Unit::Day => days,
        Unit::Week => days - (days + 3).rem_euclid(7),
        Unit::Months(3) => days_from_civil(year, (month - 1) / 3 * 3 + 1, 1),
        Unit::Months(_) => days_from_civil(year, month, 1),
        Unit::Year => first(year),
        Unit::Decade => first(year - year.rem_euclid(10)),
        // There is no year 0: the first century begins with the year 1, and the one before it ends with 1 BC.
        Unit::Years(length) => first(year - (year - 1).rem_euclid(length)),
    };
    days * MICROS_PER_DAY
}

fn interval(span: IntervalMonthDayNano, unit: Unit) -> IntervalMonthDayNano {
    let months = |length: i32| IntervalMonthDayNano::new(span.months - span.months % length, 0, 0);
    match unit {
        Unit::Clock(length) => {
            let nanos = span.nanoseconds - span.nanoseconds % (length * NANOS_PER_MICRO);
            IntervalMonthDayNano::new(span.months, span.days, nanos)
        }
        Unit::Day | Unit::Week => IntervalMonthDayNano::new(span.months, span.days, 0),
        Unit::Months(length) => months(length),
        Unit::Year => months(12),
        Unit::Decade => months(120),
        Unit::Years(length) => months(i32::try_from(length).unwrap_or(1_000) * 12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_where_those_of_the_zone_do() {
        let berlin = Zone::parse("Europe/Berlin").expect("a zone").0;
        let hour = 3_600 * MICROS_PER_SECOND;
        // 2024-03-31 10:30 UTC, half past twelve on the day on which summer time begins in Berlin.
        let midnight = days_from_civil(2024, 3, 31) * MICROS_PER_DAY;
        let given = |unit| [Given::Text(unit), Given::Instant(midnight + 10 * hour + hour / 2)];
        for (unit, expected) in [
            ("hour", midnight + 10 * hour),
            ("day", midnight - hour),
            ("month", midnight - 30 * MICROS_PER_DAY - hour),
        ] {
            assert_eq!(truncated(&given(unit), "", berlin).unwrap(), Answer::Instant(expected), "{unit}");
        }
    }

    #[test]
    fn units_begin_where_those_of_postgres_do() {
        let day = |year, month, day| days_from_civil(year, month, day) * MICROS_PER_DAY;
        let cases = [
            (day(2024, 5, 9) + 7, "week", day(2024, 5, 6)),
            (day(2024, 5, 9), "quarter", day(2024, 4, 1)),
            (day(2000, 5, 9), "century", day(1901, 1, 1)),
            (day(2001, 5, 9), "millennium", day(2001, 1, 1)),
            (day(2024, 5, 9), "decade", day(2020, 1, 1)),
            (day(1969, 12, 31) + 5, "day", day(1969, 12, 31)),
            (-1, "second", -MICROS_PER_SECOND),
        ];
        for (micros, name, expected) in cases {
            assert_eq!(instant(micros, unit(name).expect("a unit")), expected, "{name}");
        }
        let span = IntervalMonthDayNano::new(17, 3, 1_500_000_000);
        assert_eq!(interval(span, Unit::Months(3)), IntervalMonthDayNano::new(15, 0, 0));
        assert_eq!(interval(span, Unit::Clock(MICROS_PER_SECOND)).nanoseconds, 1_000_000_000);
        assert!(truncated(&[Given::Text("foo"), Given::Instant(0)], "date", Zone::UTC).is_err());
    }
}
