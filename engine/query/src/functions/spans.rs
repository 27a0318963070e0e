//! `age` and `justify_days`, `justify_hours`, `justify_interval`: intervals in years, months and days as people count
//! them (`timestamp.c`).
//!
//! `age` of one instant is written as `age(current_date, …)` by `sql/rewrite.rs`.

use std::sync::Arc;

use datafusion::{arrow::datatypes::IntervalMonthDayNano, logical_expr::ScalarUDF};
use sepal_types::{Error, SqlState, civil_from_days, days_in_month};

use super::overloads::{
    Answer, Given,
    Kind::{Interval, Timestamp, Timestamptz},
    Overload, functions as declared,
};
use crate::zone::Zone;

const MICROS_PER_DAY: i64 = 86_400_000_000;
const NANOS_PER_MICRO: i64 = 1_000;
const NANOS_PER_DAY: i64 = MICROS_PER_DAY * NANOS_PER_MICRO;
const DAYS_PER_MONTH: i32 = 30;

const FUNCTIONS: &[(&str, &[Overload])] = &[
    (
        "age",
        &[
            Overload::new(&[Timestamptz, Timestamptz], Interval, |given, _| age_of(given, Zone::current())),
            Overload::new(&[Timestamp, Timestamp], Interval, |given, _| age_of(given, Zone::UTC)),
        ],
    ),
    ("justify_days", &[Overload::new(&[Interval], Interval, |given, _| justified(given, days_to_months))]),
    ("justify_hours", &[Overload::new(&[Interval], Interval, |given, _| justified(given, hours_to_days))]),
    ("justify_interval", &[Overload::new(&[Interval], Interval, |given, _| justified(given, justify))]),
];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    declared(FUNCTIONS)
}

fn out_of_range(what: &str) -> Error {
    Error::new(SqlState::DatetimeFieldOverflow, format!("{what} out of range"))
}

/// `zone`: whose clock showed the two.
fn age_of(given: &[Given<'_>], zone: Zone) -> Result<Answer, Error> {
    let [Given::Instant(later), Given::Instant(earlier)] = given else {
        return Ok(Answer::Null);
    };
    if [later, earlier].iter().any(|instant| matches!(**instant, i64::MAX | i64::MIN)) {
        return Err(out_of_range("timestamp"));
    }
    age(zone.clock(*later), zone.clock(*earlier))
        .map(Answer::Interval)
        .ok_or_else(|| out_of_range("interval"))
}

/// From one instant to another, in microseconds since 1970: whole months first, counted from the earlier one, then days
/// and the time of one.
fn age(later: i64, earlier: i64) -> Option<IntervalMonthDayNano> {
    let negative = later < earlier;
    let (later, earlier) = if negative { (earlier, later) } else { (later, earlier) };
    let date = |instant: i64| civil_from_days(instant.div_euclid(MICROS_PER_DAY));
    let time = |instant: i64| instant.rem_euclid(MICROS_PER_DAY);
    let ((year, month, day), (from_year, from_month, from_day)) = (date(later), date(earlier));
    let mut months = (year - from_year) * 12 + i64::from(month) - i64::from(from_month);
    let mut days = i64::from(day) - i64::from(from_day);
    let mut micros = time(later) - time(earlier);
    if micros < 0 {
        micros += MICROS_PER_DAY;
        days -= 1;
    }
    // A month that is not full has as many days as the one that it begins in.
    if days < 0 {
        days += i64::from(days_in_month(from_year, from_month));
        months -= 1;
    }
    let sign = if negative { -1 } else { 1 };
    let months = i32::try_from(months * i64::from(sign)).ok()?;
    let days = i32::try_from(days).ok()? * sign;
    Some(IntervalMonthDayNano::new(months, days, micros * NANOS_PER_MICRO * i64::from(sign)))
}

fn justified(
    given: &[Given<'_>],
    how: fn(IntervalMonthDayNano) -> Option<IntervalMonthDayNano>,
) -> Result<Answer, Error> {
    match given {
        [Given::Interval(span)] => how(*span).map(Answer::Interval).ok_or_else(|| out_of_range("interval")),
        _ => Ok(Answer::Null),
    }
}

/// 24 hours are a day.
fn hours_to_days(span: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let whole = i32::try_from(span.nanoseconds / NANOS_PER_DAY).ok()?;
    let days = span.days.checked_add(whole)?;
    Some(one_sign_of_time(IntervalMonthDayNano::new(span.months, days, span.nanoseconds % NANOS_PER_DAY)))
}

/// Days and the time have one sign.
fn one_sign_of_time(mut span: IntervalMonthDayNano) -> IntervalMonthDayNano {
    if span.days > 0 && span.nanoseconds < 0 {
        span.nanoseconds += NANOS_PER_DAY;
        span.days -= 1;
    } else if span.days < 0 && span.nanoseconds > 0 {
        span.nanoseconds -= NANOS_PER_DAY;
        span.days += 1;
    }
    span
}

/// 30 days are a month.
fn days_to_months(span: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let months = span.months.checked_add(span.days / DAYS_PER_MONTH)?;
    let mut span = IntervalMonthDayNano::new(months, span.days % DAYS_PER_MONTH, span.nanoseconds);
    if span.months > 0 && span.days < 0 {
        span.days += DAYS_PER_MONTH;
        span.months -= 1;
    } else if span.months < 0 && span.days > 0 {
        span.days -= DAYS_PER_MONTH;
        span.months += 1;
    }
    Some(span)
}

/// Both, and everything has one sign.
fn justify(span: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let whole = i32::try_from(span.nanoseconds / NANOS_PER_DAY).ok()?;
    let nanos = span.nanoseconds % NANOS_PER_DAY;
    let days = span.days.checked_add(whole)?;
    let months = span.months.checked_add(days / DAYS_PER_MONTH)?;
    let mut span = IntervalMonthDayNano::new(months, days % DAYS_PER_MONTH, nanos);
    let (days, nanos) = (span.days, span.nanoseconds);
    if span.months > 0 && (days < 0 || (days == 0 && nanos < 0)) {
        span.days += DAYS_PER_MONTH;
        span.months -= 1;
    } else if span.months < 0 && (days > 0 || (days == 0 && nanos > 0)) {
        span.days -= DAYS_PER_MONTH;
        span.months += 1;
    }
    Some(one_sign_of_time(span))
}

#[cfg(test)]
mod tests {
    use sepal_types::days_from_civil;

    use super::*;

    fn at(year: i64, month: u32, day: u32, hours: i64) -> i64 {
        days_from_civil(year, month, day) * MICROS_PER_DAY + hours * 3_600_000_000
    }

    fn span(months: i32, days: i32, hours: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano::new(months, days, hours * 3_600_000_000 * NANOS_PER_MICRO)
    }

    #[test]
    fn ages_are_counted_from_the_earlier_instant() {
        assert_eq!(age(at(2001, 4, 10, 0), at(1957, 6, 13, 0)), Some(span(43 * 12 + 9, 27, 0)));
        assert_eq!(age(at(2024, 3, 1, 0), at(2024, 1, 31, 0)), Some(span(1, 1, 0)));
        assert_eq!(age(at(2024, 1, 31, 0), at(2024, 3, 1, 0)), Some(span(-1, -1, 0)));
        assert_eq!(age(at(2024, 3, 1, 1), at(2024, 2, 29, 2)), Some(span(0, 0, 23)));
    }

    #[test]
    fn justified_intervals_have_one_sign() {
        assert_eq!(hours_to_days(span(0, 0, 27)), Some(span(0, 1, 3)));
        assert_eq!(days_to_months(span(0, 35, 0)), Some(span(1, 5, 0)));
        assert_eq!(justify(span(1, 0, -1)), Some(span(0, 29, 23)));
        assert_eq!(justify(span(-1, 0, 1)), Some(span(0, -29, -23)));
        assert_eq!(days_to_months(span(i32::MAX, 30, 0)), None);
    }
}
