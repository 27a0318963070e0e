//! Arithmetic over dates, times and intervals where DataFusion's differs from Postgres', or is missing.
//!
//! The planner writes these calls for the operators (`planner/typing.rs`). `timestamp ± interval` is `zoned`'s.
//! Infinite dates and timestamps are refused rather than computed with.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Int32Array, IntervalMonthDayNanoArray,
            Time64MicrosecondArray, TimestampMicrosecondArray,
        },
        compute::{cast, kernels::arity::try_binary},
        datatypes::{
            DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, IntervalMonthDayNano,
            IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
            TimestampMicrosecondType,
        },
        error::ArrowError,
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use sepal_types::{Error, SqlState};

use super::{
    constants::{all_constant, answer, of_one},
    zoned,
};
use crate::{error::carry, zone::Zone};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
const NANOS_PER_MICRO: i64 = 1_000;
const NANOS_PER_DAY: i128 = MICROS_PER_DAY as i128 * NANOS_PER_MICRO as i128;
/// As Postgres compares and multiplies intervals (`timestamp.h`).
const DAYS_PER_MONTH: i32 = 30;

/// An operator over two values of these types, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DateTimeOperation {
    /// `date - date`: days.
    DateDifference,
    DateMinusDays,
    DatePlusDays,
    DatePlusTime,
    IntervalDivide,
    IntervalTimes,
    TimeDifference,
    TimeMinusInterval,
    TimePlusInterval,
    /// `timestamp - timestamp`: days and what is left of one.
    TimestampDifference,
}

impl DateTimeOperation {
    const fn function_name(self) -> &'static str {
        match self {
            Self::DateDifference => "sepal_date_difference",
            Self::DateMinusDays => "sepal_date_minus_days",
            Self::DatePlusDays => "sepal_date_plus_days",
            Self::DatePlusTime => "sepal_date_plus_time",
            Self::IntervalDivide => "sepal_interval_divide",
            Self::IntervalTimes => "sepal_interval_times",
            Self::TimeDifference => "sepal_time_difference",
            Self::TimeMinusInterval => "sepal_time_minus_interval",
            Self::TimePlusInterval => "sepal_time_plus_interval",
            Self::TimestampDifference => "sepal_timestamp_difference",
        }
    }

    fn result(self) -> DataType {
        match self {
            Self::DateDifference => DataType::Int32,
            Self::DateMinusDays | Self::DatePlusDays => DataType::Date32,
            Self::DatePlusTime => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimeMinusInterval | Self::TimePlusInterval => DataType::Time64(TimeUnit::Microsecond),
            Self::IntervalDivide | Self::IntervalTimes | Self::TimeDifference | Self::TimestampDifference => {
                DataType::Interval(IntervalUnit::MonthDayNano)
            }
        }
    }
}

/// `left <operator> right` as a call.
pub fn datetime_call(operation: DateTimeOperation, left: Expr, right: Expr) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    call(DateTimeFunction { operation, signature }, vec![left, right])
}

/// An interval as one number, in whose order Postgres compares intervals: `24 hours` equals `1 day`.
pub fn interval_span(interval: Expr) -> Expr {
    call(IntervalSpan { signature: Signature::any(1, Volatility::Immutable) }, vec![interval])
}

fn call(function: impl ScalarUDFImpl + 'static, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), args))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTimeFunction {
    operation: DateTimeOperation,
    signature: Signature,
}

impl ScalarUDFImpl for DateTimeFunction {
    fn name(&self) -> &str {
        self.operation.function_name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.operation.result())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(carry(Error::bug(format!("{} takes two arguments", self.name()))));
        };
        let result = self.operation.compute(left, right)?;
        answer(result, all_constant(&args.args))
    }
}

impl DateTimeOperation {
    fn compute(self, left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef> {
        Ok(match self {
            Self::DateDifference => {
                let (left, right) = (dates(left)?, dates(right)?);
                let days: Int32Array = try_binary(&left, &right, |left: i32, right: i32| {
                    finite_date(left)?;
                    finite_date(right)?;
                    left.checked_sub(right).ok_or_else(|| out_of_range("date"))
                })?;
                Arc::new(days)
            }
            Self::DatePlusDays | Self::DateMinusDays => {
                let (dates, days) = (dates(left)?, cast(right, &DataType::Int64)?);
                let negative = self == Self::DateMinusDays;
                let moved: Date32Array =
                    try_binary(&dates, days.as_primitive::<Int64Type>(), |date, days| {
                        finite_date(date)?;
                        let days = if negative { days.checked_neg() } else { Some(days) };
                        days.and_then(|days| i64::from(date).checked_add(days))
                            .and_then(|moved| i32::try_from(moved).ok())
                            .ok_or_else(|| out_of_range("date"))
                    })?;
                Arc::new(moved)
            }
            Self::DatePlusTime => {
                let (dates, times) = (dates(left)?, times(right)?);
                let instants: TimestampMicrosecondArray = try_binary(&dates, &times, |date, time| {
                    finite_date(date)?;
                    i64::from(date)
                        .checked_mul(MICROS_PER_DAY)
                        .and_then(|midnight| midnight.checked_add(time))
                        .ok_or_else(|| out_of_range("timestamp"))
                })?;
                Arc::new(instants)
            }
            Self::TimestampDifference => Arc::new(between_instants(left, right)?),
            Self::TimeDifference => {
                let (left, right) = (times(left)?, times(right)?);
                let spans: IntervalMonthDayNanoArray = try_binary(&left, &right, |left, right| {
                    Ok(IntervalMonthDayNano::new(0, 0, (left - right) * NANOS_PER_MICRO))
                })?;
                Arc::new(spans)
            }
            Self::TimePlusInterval | Self::TimeMinusInterval => {
                let (times, spans) = (times(left)?, intervals(right)?);
                let sign = if self == Self::TimePlusInterval { 1 } else { -1 };
                let moved: Time64MicrosecondArray = try_binary(&times, &spans, |time, span| {
                    let moved = time + sign * (span.nanoseconds / NANOS_PER_MICRO);
                    Ok(moved.rem_euclid(MICROS_PER_DAY))
                })?;
                Arc::new(moved)
            }
            Self::IntervalTimes | Self::IntervalDivide => {
                let (spans, factors) = (intervals(left)?, cast(right, &DataType::Float64)?);
                let divides = self == Self::IntervalDivide;
                let factors = factors.as_primitive::<Float64Type>();
                let scaled: IntervalMonthDayNanoArray = try_binary(&spans, factors, |span, factor| {
                    if divides && factor == 0.0 {
                        return Err(ArrowError::DivideByZero);
                    }
                    scale(span, |part| if divides { part / factor } else { part * factor })
                        .ok_or_else(|| out_of_range("interval"))
                })?;
                Arc::new(scaled)
            }
        })
    }
}

fn between_instants(left: &ArrayRef, right: &ArrayRef) -> Result<IntervalMonthDayNanoArray> {
    // Beside an instant a date and a timestamp are those at which the session's clock shows them.
    let zoned =
        [left, right].iter().any(|array| matches!(array.data_type(), DataType::Timestamp(_, Some(_))));
    let (left, right) = (instants(left, zoned)?, instants(right, zoned)?);
    let spans = try_binary(&left, &right, |left: i64, right: i64| {
        if [left, right].iter().any(|instant| matches!(*instant, i64::MAX | i64::MIN)) {
            return Err(problem("cannot subtract infinite timestamps"));
        }
        let micros = left.checked_sub(right).ok_or_else(|| out_of_range("interval"))?;
        let days = i32::try_from(micros / MICROS_PER_DAY).map_err(|_| out_of_range("interval"))?;
        Ok(IntervalMonthDayNano::new(0, days, micros % MICROS_PER_DAY * NANOS_PER_MICRO))
    })?;
    Ok(spans)
}

/// Multiplies each part and hands fractions down: of a month to days, of a day to its time (`interval_mul`).
fn scale(span: IntervalMonthDayNano, by: impl Fn(f64) -> f64) -> Option<IntervalMonthDayNano> {
    let fits = |value: f64| (value.abs() <= f64::from(i32::MAX)).then_some(value);
    let months = fits(by(span.months.into()))?;
    let days = fits(by(span.days.into()))?;
    let whole_months = months.trunc();
    let month_days = microsecond_precision((months - whole_months) * f64::from(DAYS_PER_MONTH));
    let mut whole_days = days.trunc() + month_days.trunc();
    let mut seconds =
        microsecond_precision((days - days.trunc() + month_days - month_days.trunc()) * 86_400.0);
    if seconds.abs() >= 86_400.0 {
        whole_days += (seconds / 86_400.0).trunc();
        seconds %= 86_400.0;
    }
    let micros = (by((span.nanoseconds / NANOS_PER_MICRO) as f64) + seconds * 1e6).round();
    let nanos = micros * NANOS_PER_MICRO as f64;
    let in_range = nanos.abs() < i64::MAX as f64;
    in_range.then(|| IntervalMonthDayNano::new(whole_months as i32, whole_days as i32, nanos as i64))
}

/// Postgres' `TSROUND`.
fn microsecond_precision(value: f64) -> f64 {
    (value * 1e6).round_ties_even() / 1e6
}

fn dates(array: &ArrayRef) -> Result<Date32Array> {
    Ok(cast(array, &DataType::Date32)?.as_primitive::<Date32Type>().clone())
}

fn times(array: &ArrayRef) -> Result<Time64MicrosecondArray> {
    let wanted = DataType::Time64(TimeUnit::Microsecond);
    Ok(cast(array, &wanted)?.as_primitive::<Time64MicrosecondType>().clone())
}

fn intervals(array: &ArrayRef) -> Result<IntervalMonthDayNanoArray> {
    let wanted = DataType::Interval(IntervalUnit::MonthDayNano);
    Ok(cast(array, &wanted)?.as_primitive::<IntervalMonthDayNanoType>().clone())
}

/// Instants in microseconds; a date is its midnight. `zoned`: in the session's zone; in UTC that changes no number.
fn instants(array: &ArrayRef, zoned: bool) -> Result<TimestampMicrosecondArray> {
    if zoned && !Zone::current().is_utc() {
        return zoned::instants(array, Zone::current());
    }
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let array = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(array.as_primitive::<TimestampMicrosecondType>().clone())
}

fn finite_date(date: i32) -> Result<(), ArrowError> {
    if matches!(date, i32::MAX | i32::MIN) {
        return Err(problem("cannot subtract infinite dates"));
    }
    Ok(())
}

fn out_of_range(what: &str) -> ArrowError {
    problem(&format!("{what} out of range"))
}

fn problem(message: &str) -> ArrowError {
    ArrowError::ExternalError(Box::new(Error::new(SqlState::DatetimeFieldOverflow, message)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct IntervalSpan {
    signature: Signature,
}

impl ScalarUDFImpl for IntervalSpan {
    fn name(&self) -> &'static str {
        "sepal_interval_span"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(38, 0))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let nanos = |array: &ArrayRef| -> Result<ArrayRef> {
            let spans: Decimal128Array = intervals(array)?.unary::<_, Decimal128Type>(|span| {
                let days = i128::from(span.months) * i128::from(DAYS_PER_MONTH) + i128::from(span.days);
                days * NANOS_PER_DAY + i128::from(span.nanoseconds)
            });
            Ok(Arc::new(spans.with_precision_and_scale(38, 0)?))
        };
        match args.args.first() {
            Some(span) => of_one(span, nanos),
            None => Err(carry(Error::bug("a span without an interval"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_an_interval_go_to_the_smaller_parts() {
        let half = |span| scale(span, |part| part * 0.5);
        let hours = |count: i64| count * 3_600 * MICROS_PER_SECOND * NANOS_PER_MICRO;
        assert_eq!(
            half(IntervalMonthDayNano::new(1, 1, 0)),
            Some(IntervalMonthDayNano::new(0, 15, hours(12)))
        );
        assert_eq!(
            half(IntervalMonthDayNano::new(0, -3, hours(2))),
            Some(IntervalMonthDayNano::new(0, -1, hours(-11)))
        );
        assert_eq!(scale(IntervalMonthDayNano::new(i32::MAX, 0, 0), |part| part * 2.0), None);
    }
}
