//! What depends on the session's time zone: values with a zone made of such without one and the other way round, and
//! calls that are made within a zone.
//!
//! `planner/zoned.rs` puts [`within`] around the calls of a plan for a session that is not in UTC; `planner/typing.rs`
//! writes [`plus_interval`] for an operator; `cast` and others ask [`across`]. In UTC a value has the same number with
//! and without a zone.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, ListArray, Time64MicrosecondArray, TimestampMicrosecondArray},
        compute::{cast, kernels::arity::try_binary},
        datatypes::{
            DataType, Date32Type, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
            Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
        },
        error::ArrowError,
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
        expr::ScalarFunction,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType, civil_from_days, days_from_civil, days_in_month};

use super::constants::{all_constant, answer};
use crate::{error::carry, zone::Zone};

const MICROS_PER_DAY: i64 = 86_400_000_000;
const NANOS_PER_MICRO: i64 = 1_000;
/// As Arrow has the type of a `timestamptz`.
const UTC: &str = "UTC";

/// A function as it answers within a zone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Within {
    function: Arc<ScalarUDF>,
    zone: Zone,
}

/// A call of a function in a session of this zone.
pub fn within(call: ScalarFunction, zone: Zone) -> ScalarFunction {
    let ScalarFunction { func, args } = call;
    if func.inner().is::<Within>() || func.inner().is::<PlusInterval>() {
        return ScalarFunction { func, args };
    }
    ScalarFunction { func: Arc::new(ScalarUDF::from(Within { function: func, zone })), args }
}

impl ScalarUDFImpl for Within {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.function.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.zone.within(|| self.function.invoke_with_args(args))
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.zone.within(|| self.function.simplify(args, context))
    }

    fn short_circuits(&self) -> bool {
        self.function.short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.function.conditional_arguments(args)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arguments)
    }
}

/// `timestamptz ± interval`: months and days are the zone's, the rest is elapsed time (`timestamptz_pl_interval`); and
/// the same of a date and a `timestamp`, which have no zone. Arrow has no infinities.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PlusInterval {
    minus: bool,
    /// Of a `timestamptz`.
    zone: Option<Zone>,
    signature: Signature,
}

/// The call for `instant + interval`, or `instant - interval`: of a `timestamptz` in a zone, which is one again, or of
/// a date or a `timestamp` without one, which is a `timestamp`.
pub fn plus_interval(instant: Expr, interval: Expr, minus: bool, zone: Option<Zone>) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    let function = ScalarUDF::from(PlusInterval { minus, zone, signature });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![instant, interval]))
}

impl ScalarUDFImpl for PlusInterval {
    fn name(&self) -> &'static str {
        match (self.zone, self.minus) {
            (Some(_), true) => "sepal_timestamptz_minus_interval",
            (Some(_), false) => "sepal_timestamptz_plus_interval",
            (None, true) => "sepal_timestamp_minus_interval",
            (None, false) => "sepal_timestamp_plus_interval",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(if self.zone.is_some() { &SqlType::Timestamptz } else { &SqlType::Timestamp }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [given, spans] = arrays.as_slice() else {
            return Err(carry(Error::bug(format!("{} takes two arguments", self.name()))));
        };
        let zone = self.zone.unwrap_or(Zone::UTC);
        let instants = instants(given, zone)?;
        let spans = cast(spans, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let spans = spans.as_primitive::<IntervalMonthDayNanoType>();
        let moved: TimestampMicrosecondArray = try_binary(&instants, spans, |instant: i64, span| {
            moved(instant, span, self.minus, zone)
                .ok_or_else(|| ArrowError::ExternalError(Box::new(out_of_range())))
        })?;
        answer(Arc::new(moved.with_timezone_opt(self.zone.map(|_| UTC))), all_constant(&args.args))
    }
}

/// `None` where it is out of range. An infinity stays one.
fn moved(instant: i64, span: IntervalMonthDayNano, minus: bool, zone: Zone) -> Option<i64> {
    if is_infinite(instant) {
        return Some(instant);
    }
    let sign = if minus { -1 } else { 1 };
    let mut instant = instant;
    if span.months != 0 {
        let (day, time) = day_and_time(zone.clock(instant));
        let (year, month, day) = civil_from_days(day);
        let months = year.checked_mul(12)? + i64::from(month) - 1 + sign * i64::from(span.months);
        let (year, month) = (months.div_euclid(12), u32::try_from(months.rem_euclid(12)).ok()? + 1);
        if !(-4713..=294_276).contains(&year) {
            return None;
        }
        let day = days_from_civil(year, month, day.min(days_in_month(year, month)));
        instant = zone.instant(day.checked_mul(MICROS_PER_DAY)?.checked_add(time)?)?;
    }
    if span.days != 0 {
        let days = sign * i64::from(span.days);
        instant = zone.instant(zone.clock(instant).checked_add(days.checked_mul(MICROS_PER_DAY)?)?)?;
    }
    let moved = instant.checked_add(sign * (span.nanoseconds / NANOS_PER_MICRO))?;
    (!is_infinite(moved)).then_some(moved)
}

fn day_and_time(micros: i64) -> (i64, i64) {
    (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY))
}

/// The casts among `timestamptz`, `timestamp`, `date` and `time`, also of arrays: of values with a zone what the clock
/// of the zone at hand shows, of others when it shows them. An infinity stays one, where Arrow would compute with it.
/// `None` for any other cast.
///
/// Errors: 22008 for what is no instant.
pub fn across(array: &ArrayRef, target: &SqlType) -> Result<Option<ArrayRef>> {
    let zone = Zone::current();
    Ok(match (array.data_type(), target) {
        (DataType::Timestamp(_, of), SqlType::Date | SqlType::Time) => {
            let shown = shown(array, if of.is_some() { zone } else { Zone::UTC })?;
            Some(match target {
                SqlType::Date => Arc::new(shown.unary::<_, Date32Type>(day_of)) as ArrayRef,
                _ => Arc::new(times_of(&shown)) as ArrayRef,
            })
        }
        (DataType::Timestamp(_, Some(_)), SqlType::Timestamp) => {
            Some(Arc::new(shown(array, zone)?) as ArrayRef)
        }
        (DataType::Date32, SqlType::Timestamp) => Some(Arc::new(instants(array, Zone::UTC)?) as ArrayRef),
        (DataType::Date32 | DataType::Timestamp(_, None), SqlType::Timestamptz) => {
            Some(Arc::new(instants(array, zone)?.with_timezone(UTC)) as ArrayRef)
        }
        (DataType::List(_), SqlType::Array(element)) => {
            let (list, wanted) = (array.as_list::<i32>(), arrow_type(target));
            match (across(list.values(), element)?, wanted) {
                (Some(values), DataType::List(item)) => {
                    let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
                    Some(Arc::new(ListArray::try_new(item, offsets, values, nulls)?) as ArrayRef)
                }
                _ => None,
            }
        }
        _ => None,
    })
}

/// What a zone's clock shows at instants.
fn shown(array: &ArrayRef, zone: Zone) -> Result<TimestampMicrosecondArray> {
    let instants = micros(array)?;
    Ok(if zone.is_utc() { instants } else { instants.unary(|instant| zone.clock(instant)) })
}

/// The instants at which a zone's clock shows dates, at midnight, or timestamps; those of what has a zone already.
/// Microseconds since 1970, in an array without a zone.
///
/// Errors: 22008.
pub(super) fn instants(array: &ArrayRef, zone: Zone) -> Result<TimestampMicrosecondArray> {
    let shown: TimestampMicrosecondArray = match array.data_type() {
        DataType::Timestamp(_, Some(_)) => return micros(array),
        DataType::Date32 => array.as_primitive::<Date32Type>().try_unary(|day| match day {
            i32::MAX => Ok(i64::MAX),
            i32::MIN => Ok(i64::MIN),
            day => i64::from(day).checked_mul(MICROS_PER_DAY).ok_or_else(|| {
                let message = "date out of range for timestamp";
                carry(Error::new(SqlState::DatetimeFieldOverflow, message))
            }),
        })?,
        _ => micros(array)?,
    };
    if zone.is_utc() {
        return Ok(shown);
    }
    shown.try_unary(|shown| zone.instant(shown).ok_or_else(|| carry(out_of_range())))
}

/// The numbers of timestamps of any unit.
fn micros(array: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let array = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(array.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<Arc<str>>))
}

fn day_of(shown: i64) -> i32 {
    match shown {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        shown => i32::try_from(shown.div_euclid(MICROS_PER_DAY)).unwrap_or(i32::MAX),
    }
}

/// An infinity has no time of day: there it is NULL.
fn times_of(shown: &TimestampMicrosecondArray) -> Time64MicrosecondArray {
    shown.unary_opt::<_, Time64MicrosecondType>(|shown| {
        (!is_infinite(shown)).then(|| shown.rem_euclid(MICROS_PER_DAY))
    })
}

const fn is_infinite(micros: i64) -> bool {
    matches!(micros, i64::MAX | i64::MIN)
}

fn out_of_range() -> Error {
    Error::new(SqlState::DatetimeFieldOverflow, "timestamp out of range")
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Date32Array;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn berlin() -> Zone {
        Zone::parse("Europe/Berlin").expect("a zone").0
    }

    fn at(year: i64, month: u32, day: u32, hours: i64) -> i64 {
        days_from_civil(year, month, day) * MICROS_PER_DAY + hours * HOUR
    }

    #[test]
    fn months_and_days_are_those_of_the_zone() {
        let span = |months, days, hours: i64| {
            IntervalMonthDayNano::new(months, days, hours * HOUR * NANOS_PER_MICRO)
        };
        let plus = |instant, span| moved(instant, span, false, berlin());
        // Noon in Berlin on the day before the clocks change: noon a day later is 23 hours on.
        let noon = at(2024, 3, 30, 11);
        assert_eq!(plus(noon, span(0, 1, 0)), Some(at(2024, 3, 31, 10)));
        assert_eq!(plus(noon, span(0, 0, 24)), Some(at(2024, 3, 31, 11)));
        assert_eq!(plus(noon, span(1, 0, 0)), Some(at(2024, 4, 30, 10)));
        assert_eq!(moved(at(2024, 3, 31, 10), span(0, 1, 0), true, berlin()), Some(noon));
        // The month's last day, in Berlin already that of the next one in UTC's sense.
        assert_eq!(plus(at(2024, 1, 30, 23), span(1, 0, 0)), Some(at(2024, 2, 28, 23)));
        assert_eq!(plus(i64::MAX, span(1, 1, 1)), Some(i64::MAX));
        assert_eq!(plus(noon, span(i32::MAX, 0, 0)), None);
    }

    #[test]
    fn casts_go_by_the_zone_at_hand() {
        let noon: ArrayRef = Arc::new(
            TimestampMicrosecondArray::from(vec![Some(at(2024, 7, 1, 23)), Some(i64::MAX), None])
                .with_timezone(UTC),
        );
        let here = across(&noon, &SqlType::Date).unwrap().expect("a date");
        let here = here.as_primitive::<Date32Type>();
        assert_eq!((i64::from(here.value(0)), here.value(1)), (days_from_civil(2024, 7, 1), i32::MAX));
        let cast = |target: &SqlType| berlin().within(|| across(&noon, target)).unwrap().expect("it depends");
        let dates = cast(&SqlType::Date);
        let dates = dates.as_primitive::<Date32Type>();
        assert_eq!((i64::from(dates.value(0)), dates.value(1)), (days_from_civil(2024, 7, 2), i32::MAX));
        let times = cast(&SqlType::Time);
        let times = times.as_primitive::<Time64MicrosecondType>();
        assert_eq!((times.value(0), times.is_null(1), times.is_null(2)), (HOUR, true, true));
        let shown = cast(&SqlType::Timestamp);
        assert_eq!(shown.as_primitive::<TimestampMicrosecondType>().value(0), at(2024, 7, 2, 1));
        let back = berlin().within(|| across(&shown, &SqlType::Timestamptz)).unwrap().expect("it depends");
        assert_eq!(&back, &noon);
        assert!(across(&noon, &SqlType::Timestamptz).unwrap().is_none(), "it is one");
    }

    #[test]
    fn infinite_days_have_infinite_midnights() {
        let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(1), Some(i32::MAX), Some(i32::MIN), None]));
        for zone in [Zone::UTC, berlin()] {
            let instants = zone.within(|| across(&days, &SqlType::Timestamptz)).unwrap().expect("instants");
            let instants = instants.as_primitive::<TimestampMicrosecondType>();
            assert_eq!(
                (instants.value(0), instants.is_null(3)),
                (zone.instant(MICROS_PER_DAY).unwrap(), true)
            );
            assert_eq!((instants.value(1), instants.value(2)), (i64::MAX, i64::MIN));
            let shown = zone.within(|| across(&days, &SqlType::Timestamp)).unwrap().expect("timestamps");
            let shown = shown.as_primitive::<TimestampMicrosecondType>();
            assert_eq!((shown.value(0), shown.value(1)), (MICROS_PER_DAY, i64::MAX));
        }
        let late: ArrayRef = Arc::new(Date32Array::from(vec![200_000_000]));
        assert!(across(&late, &SqlType::Timestamp).is_err());
    }
}
