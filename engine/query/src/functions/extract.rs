//! `extract(field FROM value)` and `date_part(field, value)`.
//!
//! DataFusion's `date_part` gives whole seconds as `integer`. In Postgres `extract` is `numeric`, with as many
//! digits after the point as the field has (seconds six), and `date_part` is `double precision`. The field
//! must be a constant: it decides the type.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, IntervalMonthDayNanoArray,
            Time64MicrosecondArray, TimestampMicrosecondArray,
        },
        compute::cast,
        datatypes::{
            DataType, Date32Type, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType,
            IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
        },
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction,
    },
};
use sepal_types::{Error, SqlState, SqlType, civil_from_days, days_from_civil};

use super::constants::answer;
use crate::{
    error::{carry, undefined_function_call},
    output::natural_type,
    zone::Zone,
};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
const NANOS_PER_MICRO: i64 = 1_000;
/// Results are counted in millionths: seconds have six digits after the point.
const UNIT: i128 = 1_000_000;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extract {
    /// `date_part`: `double precision` instead of `numeric`.
    float: bool,
    signature: Signature,
}

/// The functions that a statement may call by name.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(function(true))]
}

/// `extract(field FROM value)` as a call.
pub fn extract_call(args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function(false)), args))
}

fn function(float: bool) -> ScalarUDF {
    ScalarUDF::from(Extract { float, signature: Signature::any(2, Volatility::Immutable) })
}

impl ScalarUDFImpl for Extract {
    fn name(&self) -> &'static str {
        if self.float { "date_part" } else { "extract" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.float { DataType::Float64 } else { DataType::Decimal128(20, 6) })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let known = matches!(
            types[1],
            DataType::Date32
                | DataType::Timestamp(..)
                | DataType::Time32(_)
                | DataType::Time64(_)
                | DataType::Interval(_)
                | DataType::Duration(_)
                | DataType::Null
        );
        if !known {
            let types: Vec<SqlType> = types.iter().map(natural_type).collect();
            return Err(carry(undefined_function_call(self.name(), &types)));
        }
        let data_type = if self.float {
            DataType::Float64
        } else {
            let field = args.scalar_arguments.first().copied().flatten();
            DataType::Decimal128(20, part_of(field, &types[1])?.scale(&types[1]))
        };
        Ok(Arc::new(Field::new(self.name(), data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(field), value] = args.args.as_slice() else {
            let error = Error::unsupported(format!("the field of {}() must be a constant", self.name()));
            return Err(carry(error));
        };
        let (part, unit) = (part_of(Some(field), &value.data_type())?, unit_of(field));
        let scalar = matches!(value, ColumnarValue::Scalar(_));
        let array = value.to_array(if scalar { 1 } else { args.number_rows })?;
        let result = self.compute((part, &unit), &array, args.return_field.data_type())?;
        answer(result, scalar)
    }
}

impl Extract {
    fn compute(&self, (part, unit): (Part, &str), array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
        let mut values: Vec<Option<i128>> = Vec::with_capacity(array.len());
        let source = Source::read(array, self.float)?;
        for row in 0..array.len() {
            let value = if array.is_null(row) { None } else { source.part(row, part, unit)? };
            values.push(value);
        }
        if self.float {
            let floats = values.into_iter().map(|value| value.map(|value| value as f64 / UNIT as f64));
            return Ok(Arc::new(floats.collect::<Float64Array>()));
        }
        let scale = match wanted {
            DataType::Decimal128(_, scale) => *scale,
            other => return Err(carry(Error::bug(format!("extract does not give {other}")))),
        };
        let drop = 10i128.pow(u32::try_from(6 - scale).unwrap_or(0));
        let decimals: Decimal128Array =
            values.into_iter().map(|value| value.map(|value| value / drop)).collect();
        Ok(Arc::new(decimals.with_precision_and_scale(20, scale)?))
    }
}

/// A field of a date, time or interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Century,
    Day,
    Decade,
    DayOfWeek,
    DayOfYear,
    Epoch,
    Hour,
    IsoDayOfWeek,
    IsoYear,
    Microseconds,
    Millennium,
    Milliseconds,
    Minute,
    Month,
    Quarter,
    Second,
    Timezone,
    Week,
    Year,
}

impl Part {
    /// Digits after the point of what `extract` gives.
    const fn scale(self, source: &DataType) -> i8 {
        match self {
            Self::Epoch if matches!(source, DataType::Date32) => 0,
            Self::Epoch | Self::Second => 6,
            Self::Milliseconds => 3,
            _ => 0,
        }
    }
}

/// A field's name in lower case.
fn unit_of(field: &ScalarValue) -> String {
    field.try_as_str().flatten().unwrap_or_default().to_ascii_lowercase()
}

/// The field that a constant names. Errors: 22023.
fn part_of(field: Option<&ScalarValue>, source: &DataType) -> Result<Part> {
    let Some(field) = field else {
        return Err(carry(Error::unsupported("the field of extract() must be a constant")));
    };
    let unit = unit_of(field);
    Ok(match unit.as_str() {
        "c" | "cent" | "centuries" | "century" => Part::Century,
        "d" | "day" | "days" => Part::Day,
        "dec" | "decade" | "decades" | "decs" => Part::Decade,
        "dow" => Part::DayOfWeek,
        "doy" => Part::DayOfYear,
        "epoch" => Part::Epoch,
        "h" | "hour" | "hours" | "hr" | "hrs" => Part::Hour,
        "isodow" => Part::IsoDayOfWeek,
        "isoyear" => Part::IsoYear,
        "microsecond" | "microseconds" | "us" | "usec" | "usecond" | "useconds" | "usecs" => {
            Part::Microseconds
        }
        "mil" | "millennia" | "millennium" | "mils" => Part::Millennium,
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecond" | "mseconds" | "msecs" => {
            Part::Milliseconds
        }
        "m" | "min" | "mins" | "minute" | "minutes" => Part::Minute,
        "mon" | "mons" | "month" | "months" => Part::Month,
        "qtr" | "quarter" => Part::Quarter,
        "s" | "sec" | "second" | "seconds" | "secs" => Part::Second,
        "timezone" | "timezone_hour" | "timezone_minute" => Part::Timezone,
        "w" | "week" | "weeks" => Part::Week,
        "y" | "year" | "years" | "yr" | "yrs" => Part::Year,
        _ => {
            let source = natural_type(source).display_name();
            let message = format!("unit \"{unit}\" not recognized for type {source}");
            return Err(carry(Error::new(SqlState::InvalidParameterValue, message)));
        }
    })
}

/// The values to take fields from.
enum Source {
    /// `zone`: whose clock shows them.
    Instants {
        micros: TimestampMicrosecondArray,
        ty: SqlType,
        zone: Zone,
    },
    Intervals(IntervalMonthDayNanoArray),
    Times(Time64MicrosecondArray),
    Dates(Date32Array),
}

impl Source {
    fn read(array: &ArrayRef, float: bool) -> Result<Source> {
        Ok(match array.data_type() {
            DataType::Time32(_) | DataType::Time64(_) => {
                let array = cast(array, &DataType::Time64(TimeUnit::Microsecond))?;
                Source::Times(array.as_primitive::<Time64MicrosecondType>().clone())
            }
            DataType::Interval(_) | DataType::Duration(_) => {
                let array = cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
                Source::Intervals(array.as_primitive::<IntervalMonthDayNanoType>().clone())
            }
            // date_part() takes a date as its midnight; extract() knows that a date has no hour.
            DataType::Date32 if !float => Source::Dates(array.as_primitive::<Date32Type>().clone()),
            other => {
                let zone = match other {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                let (ty, of) = match zone {
                    Some(_) => (SqlType::Timestamptz, Zone::current()),
                    None => (SqlType::Timestamp, Zone::UTC),
                };
                let array = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
                let micros = array.as_primitive::<TimestampMicrosecondType>().clone();
                Source::Instants { micros, ty, zone: of }
            }
        })
    }

    /// In millionths. `None` for a field that an infinite instant does not have. Errors: 0A000.
    fn part(&self, row: usize, part: Part, unit: &str) -> Result<Option<i128>> {
        let (value, ty) = match self {
            Source::Instants { micros, .. } if matches!(micros.value(row), i64::MAX | i64::MIN) => {
                return Ok(None);
            }
            Source::Instants { micros, ty, zone } => {
                let (instant, zone) = (micros.value(row), *zone);
                let value = match part {
                    Part::Timezone if *ty == SqlType::Timestamptz => {
                        Some(of_offset(zone.offset(instant), unit))
                    }
                    Part::Timezone => None,
                    Part::Epoch => Some(instant.into()),
                    _ => of_shown(zone.clock(instant), part),
                };
                (value, ty)
            }
            Source::Dates(days) if matches!(days.value(row), i32::MAX | i32::MIN) => return Ok(None),
            Source::Dates(days) => (of_date(days.value(row).into(), part), &SqlType::Date),
            Source::Times(micros) => (of_time(micros.value(row), part), &SqlType::Time),
            Source::Intervals(spans) => (of_interval(spans.value(row), part), &SqlType::Interval),
        };
        value.map(Some).ok_or_else(|| {
            let message = format!("unit \"{unit}\" not supported for type {}", ty.display_name());
            carry(Error::unsupported(message))
        })
    }
}

/// The fields of what a clock shows.
fn of_shown(micros: i64, part: Part) -> Option<i128> {
    let (days, time) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
    of_date(days, part).or_else(|| of_time(time, part))
}

/// An offset in seconds, or its hours, or its minutes.
fn of_offset(east: i64, unit: &str) -> i128 {
    let value = match unit {
        "timezone_hour" => east / 3600,
        "timezone_minute" => east / 60 % 60,
        _ => east,
    };
    i128::from(value) * UNIT
}

/// The fields of a day, counted from 1970-01-01 (`timestamp.c`, timestamp_part_common).
fn of_date(days: i64, part: Part) -> Option<i128> {
    let (year, month, _) = civil_from_days(days);
    let weekday = (days + 4).rem_euclid(7);
    let from_monday = (days + 3).rem_euclid(7);
    // The ISO week belongs to the year that its Thursday is in.
    let thursday = days - from_monday + 3;
    let iso_year = civil_from_days(thursday).0;
    let value = match part {
        Part::Century if year > 0 => (year + 99) / 100,
        Part::Century => -((99 - (year - 1)) / 100),
        Part::Day => i64::from(civil_from_days(days).2),
        Part::DayOfWeek => weekday,
        Part::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
        Part::Decade => year.div_euclid(10),
        Part::Epoch => days * 86_400,
        Part::IsoDayOfWeek => from_monday + 1,
        Part::IsoYear => before_christ(iso_year),
        Part::Millennium if year > 0 => (year + 999) / 1000,
        Part::Millennium => -((999 - (year - 1)) / 1000),
        Part::Month => month.into(),
        Part::Quarter => i64::from((month - 1) / 3 + 1),
        Part::Week => (thursday - days_from_civil(iso_year, 1, 1)) / 7 + 1,
        Part::Year => before_christ(year),
        Part::Hour
        | Part::Microseconds
        | Part::Milliseconds
        | Part::Minute
        | Part::Second
        | Part::Timezone => return None,
    };
    Some(i128::from(value) * UNIT)
}

/// There is no year 0: 1 BC is -1.
const fn before_christ(year: i64) -> i64 {
    if year > 0 { year } else { year - 1 }
}

fn of_time(micros: i64, part: Part) -> Option<i128> {
    let minute = i128::from(micros % (60 * MICROS_PER_SECOND));
    let seconds = i128::from(micros / MICROS_PER_SECOND);
    match part {
        Part::Epoch => Some(micros.into()),
        Part::Hour => Some(seconds / 3600 * UNIT),
        Part::Microseconds => Some(minute * UNIT),
        Part::Milliseconds => Some(minute * 1000),
        Part::Minute => Some(seconds / 60 % 60 * UNIT),
        Part::Second => Some(minute),
        _ => None,
    }
}

fn of_interval(span: IntervalMonthDayNano, part: Part) -> Option<i128> {
    let (years, months) = (i128::from(span.months / 12), i128::from(span.months % 12));
    match part {
        Part::Century => Some(years / 100 * UNIT),
        Part::Day => Some(i128::from(span.days) * UNIT),
        Part::Decade => Some(years / 10 * UNIT),
        Part::Epoch => {
            // A year has 365.25 days here, a month 30.
            let days = i128::from(span.days) + months * 30;
            let micros = i128::from(span.nanoseconds / NANOS_PER_MICRO);
            Some(years * 31_557_600 * UNIT + days * i128::from(MICROS_PER_DAY) + micros)
        }
        Part::Millennium => Some(years / 1000 * UNIT),
        Part::Month => Some(months * UNIT),
        Part::Quarter => Some((months / 3 + 1) * UNIT),
        Part::Year => Some(years * UNIT),
        _ => of_time(span.nanoseconds / NANOS_PER_MICRO, part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_day_are_those_of_postgres() {
        let day = |year, month, day| days_from_civil(year, month, day);
        let cases = [
            (day(2024, 12, 31), Part::Week, 1),
            (day(2024, 12, 31), Part::IsoYear, 2025),
            (day(2024, 12, 31), Part::DayOfYear, 366),
            (day(2021, 1, 3), Part::Week, 53),
            (day(2021, 1, 3), Part::DayOfWeek, 0),
            (day(2021, 1, 3), Part::IsoDayOfWeek, 7),
            (day(2000, 5, 1), Part::Century, 20),
            (day(2001, 5, 1), Part::Century, 21),
            (day(2001, 5, 1), Part::Millennium, 3),
            (day(-4, 5, 1), Part::Year, -5),
            (day(1970, 5, 1), Part::Quarter, 2),
        ];
        for (days, part, expected) in cases {
            assert_eq!(of_date(days, part), Some(expected * UNIT), "{part:?} of day {days}");
        }
        assert_eq!(of_date(0, Part::Hour), None);
    }

    #[test]
    fn an_instant_before_1970_has_the_time_of_its_own_day() {
        let second_before = -MICROS_PER_SECOND / 2;
        assert_eq!(of_shown(second_before, Part::Second), Some(59_500_000));
        assert_eq!(of_shown(second_before, Part::Day), Some(31 * UNIT));
        assert_eq!(of_shown(second_before, Part::Timezone), None);
    }

    #[test]
    fn an_offset_has_a_sign_in_each_of_its_parts() {
        assert_eq!(of_offset(-12_600, "timezone"), -12_600 * UNIT);
        assert_eq!(of_offset(-12_600, "timezone_hour"), -3 * UNIT);
        assert_eq!(of_offset(-12_600, "timezone_minute"), -30 * UNIT);
    }
}
