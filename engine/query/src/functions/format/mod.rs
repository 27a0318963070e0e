//! `to_char`, `to_timestamp` and `to_date` with Postgres' patterns (`formatting.c`): `YYYY-MM-DD HH24:MI:SS`, `FM999.00`.
//!
//! What is no pattern is copied, as there. Patterns of Postgres that are not here are refused by name.

mod moment;
mod number;
mod pattern;
mod read;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;
use sepal_types::{Error, SqlState};

use self::{
    moment::{Moment, write},
    number::{write_decimal, write_float},
    pattern::parse,
};
use super::overloads::{
    Answer, Given,
    Kind::{Date, Float8, Int8, Interval, Numeric, Text, Timestamp, Timestamptz},
    Overload, functions as declared, text,
};
use crate::zone::Zone;

type Answered = Result<Answer, Error>;

const FUNCTIONS: &[(&str, &[Overload])] = &[
    (
        "to_char",
        &[
            Overload::new(&[Timestamptz, Text], Text, |given, _| instant_text(given, Some(Zone::current()))),
            Overload::new(&[Timestamp, Text], Text, |given, _| instant_text(given, None)),
            Overload::new(&[Interval, Text], Text, |given, _| interval_text(given)),
            Overload::new(&[Numeric, Text], Text, |given, _| number_text(given)),
            Overload::new(&[Int8, Text], Text, |given, _| number_text(given)),
            Overload::new(&[Float8, Text], Text, |given, _| number_text(given)),
        ],
    ),
    ("to_date", &[Overload::new(&[Text, Text], Date, |given, _| date(given))]),
    (
        "to_timestamp",
        &[
            Overload::new(&[Float8], Timestamptz, |given, _| of_epoch(&given[0])),
            Overload::new(&[Text, Text], Timestamptz, |given, _| timestamp(given)),
        ],
    ),
];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    declared(FUNCTIONS)
}

/// An empty pattern gives NULL, and so does an infinite instant.
fn instant_text(given: &[Given<'_>], zone: Option<Zone>) -> Answered {
    match (&given[0], text(given, 1)) {
        (_, "") | (Given::Instant(i64::MAX | i64::MIN), _) => Ok(Answer::Null),
        (Given::Instant(micros), pattern) => {
            write(&Moment::of_instant(*micros, zone), &parse(pattern)).map(Answer::Text)
        }
        _ => Ok(Answer::Null),
    }
}

fn interval_text(given: &[Given<'_>]) -> Answered {
    match (&given[0], text(given, 1)) {
        (Given::Interval(span), pattern) if !pattern.is_empty() => {
            write(&Moment::of_interval(*span), &parse(pattern)).map(Answer::Text)
        }
        _ => Ok(Answer::Null),
    }
}

fn number_text(given: &[Given<'_>]) -> Answered {
    let pattern = text(given, 1);
    match &given[0] {
        Given::Numeric(value, scale) => write_decimal(*value, *scale, pattern),
        Given::Int(value) => write_decimal((*value).into(), 0, pattern),
        Given::Float8(value) => write_float(*value, pattern),
        _ => return Ok(Answer::Null),
    }
    .map(Answer::Text)
}

fn timestamp(given: &[Given<'_>]) -> Answered {
    let read = read::read(text(given, 0), &parse(text(given, 1)))?;
    Ok(Answer::Instant(read.micros()?))
}

fn date(given: &[Given<'_>]) -> Answered {
    let read = read::read(text(given, 0), &parse(text(given, 1)))?;
    Ok(Answer::Instant(read.days()?))
}

/// Seconds since 1970.
fn of_epoch(given: &Given<'_>) -> Answered {
    let Given::Float8(seconds) = given else {
        return Ok(Answer::Null);
    };
    if seconds.is_infinite() {
        return Ok(Answer::Instant(if *seconds > 0.0 { i64::MAX } else { i64::MIN }));
    }
    let micros = (seconds * 1e6).round_ties_even();
    // From 4713 BC on; the greatest number of microseconds is the infinity.
    if seconds.is_nan() || !(-2.108_666_88e17..9.223_372e18).contains(&micros) {
        let message = match seconds.is_nan() {
            true => "timestamp cannot be NaN".to_owned(),
            false => format!("timestamp out of range: \"{seconds}\""),
        };
        return Err(Error::new(SqlState::DatetimeFieldOverflow, message));
    }
    Ok(Answer::Instant(micros as i64))
}
