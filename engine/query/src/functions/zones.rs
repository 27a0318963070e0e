//! `timezone(zone, instant)`, which `instant AT TIME ZONE zone` is in PostgreSQL: of a `timestamptz` the clock of that
//! zone as a `timestamp`, of a `timestamp` the instant at which that clock showed it.
//!
//! `sql/rewrite.rs` writes the call. DataFusion's own gives a `timestamptz` back as the same instant, which is then
//! printed and cut at midnight in UTC. A zone is a text or an interval, and may be another one for each row.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, TimestampMicrosecondArray},
        compute::cast,
        datatypes::{
            DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
            TimestampMicrosecondType,
        },
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use super::{
    cast::convert,
    constants::{all_constant, answer},
};
use crate::{
    error::{arrow, carry, undefined_function_call},
    output::{natural_type, sql_type},
    zone::Zone,
};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::any(2, Volatility::Immutable);
    vec![Arc::new(ScalarUDF::from(TimeZone { signature }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeZone {
    signature: Signature,
}

/// What an argument is read as; an untyped literal and a date are a `timestamptz`. `None` for what is no instant.
fn read_as(data_type: &DataType) -> Option<SqlType> {
    match data_type {
        DataType::Timestamp(_, None) => Some(SqlType::Timestamp),
        DataType::Timestamp(_, Some(_))
        | DataType::Date32
        | DataType::Null
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View => Some(SqlType::Timestamptz),
        _ => None,
    }
}

const fn result(read: &SqlType) -> SqlType {
    match read {
        SqlType::Timestamp => SqlType::Timestamptz,
        _ => SqlType::Timestamp,
    }
}

fn is_zone(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Null
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Interval(_)
            | DataType::Duration(_)
    )
}

impl ScalarUDFImpl for TimeZone {
    fn name(&self) -> &'static str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let read = match arguments {
            [zone, instant] if is_zone(zone) => read_as(instant),
            _ => None,
        };
        read.map(|read| arrow_type(&result(&read))).ok_or_else(|| {
            let types: Vec<SqlType> = arguments.iter().map(natural_type).collect();
            carry(undefined_function_call("timezone", &types))
        })
    }

    /// Errors: 22023 for what is no zone, 22008 for what is no instant.
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ([zone, instant], [_, field]) = (args.args.as_slice(), args.arg_fields.as_slice()) else {
            return Err(carry(Error::bug("timezone takes two arguments")));
        };
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let one_zone = matches!(zone, ColumnarValue::Scalar(_));
        let zones = zones(&zone.to_array(if one_zone { 1 } else { rows })?).map_err(carry)?;
        let instants = instant.to_array(rows)?;
        let read = read_as(instants.data_type()).unwrap_or(SqlType::Timestamptz);
        let micros = micros(&instants, &sql_type(field), &read)?;
        let moved = micros.iter().enumerate().map(|(row, micros)| {
            match (micros, zones.get(if one_zone { 0 } else { row }).copied().flatten()) {
                (Some(shown), Some(zone)) if read == SqlType::Timestamp => {
                    let message = "timestamp out of range";
                    let out_of_range = || carry(Error::new(SqlState::DatetimeFieldOverflow, message));
                    zone.instant(shown).map(Some).ok_or_else(out_of_range)
                }
                (Some(instant), Some(zone)) => Ok(Some(zone.clock(instant))),
                _ => Ok(None),
            }
        });
        let moved = moved.collect::<Result<TimestampMicrosecondArray>>()?;
        let zone = if result(&read) == SqlType::Timestamptz { Some("UTC") } else { None };
        answer(Arc::new(moved.with_timezone_opt(zone)), constant)
    }
}

/// Microseconds since 1970, without a zone.
fn micros(array: &ArrayRef, source: &SqlType, read: &SqlType) -> Result<TimestampMicrosecondArray> {
    let read = match array.data_type() {
        DataType::Timestamp(_, zone) => {
            cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?
        }
        _ => convert(array, source, read)?,
    };
    Ok(read.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<Arc<str>>))
}

/// The zone of each row.
///
/// Errors: 22023.
fn zones(array: &ArrayRef) -> Result<Vec<Option<Zone>>, Error> {
    if matches!(array.data_type(), DataType::Interval(_) | DataType::Duration(_)) {
        let spans = cast(array, &DataType::Interval(IntervalUnit::MonthDayNano)).map_err(arrow)?;
        let spans = spans.as_primitive::<IntervalMonthDayNanoType>();
        return spans.iter().map(|span| span.map(offset).transpose()).collect();
    }
    let names = cast(array, &DataType::Utf8).map_err(arrow)?;
    let mut last: Option<(&str, Zone)> = None;
    let mut zones = Vec::with_capacity(array.len());
    for name in names.as_string::<i32>() {
        let Some(name) = name else {
            zones.push(None);
            continue;
        };
        let zone = match last {
            Some((known, zone)) if known == name => zone,
            _ => named(name)?,
        };
        last = Some((name, zone));
        zones.push(Some(zone));
    }
    Ok(zones)
}

/// Errors: 22023.
pub(super) fn named(zone: &str) -> Result<Zone, Error> {
    let message = || format!("time zone \"{zone}\" not recognized");
    Zone::named(zone).ok_or_else(|| Error::new(SqlState::InvalidParameterValue, message()))
}

/// An interval's zone lies so far to the east (`timestamptz_izone`).
///
/// Errors: 22023.
fn offset(span: IntervalMonthDayNano) -> Result<Zone, Error> {
    let problem = |message: &str| Error::new(SqlState::InvalidParameterValue, message);
    if span.months != 0 || span.days != 0 {
        return Err(problem("an interval that is a time zone must not include months or days"));
    }
    let out_of_range = || problem("an interval that is a time zone is out of range");
    Zone::fixed(span.nanoseconds / NANOS_PER_SECOND).ok_or_else(out_of_range)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::StringArray;

    use super::*;

    #[test]
    fn every_row_has_a_zone_of_its_own() {
        let names: ArrayRef = Arc::new(StringArray::from(vec![
            Some("utc"),
            None,
            Some("Europe/Berlin"),
            Some("Europe/Berlin"),
        ]));
        let berlin = Zone::named("Europe/Berlin");
        assert_eq!(zones(&names).unwrap(), [Some(Zone::UTC), None, berlin, berlin]);
        for name in ["Mars/Base", ""] {
            let names: ArrayRef = Arc::new(StringArray::from(vec![name]));
            assert_eq!(zones(&names).unwrap_err().state(), SqlState::InvalidParameterValue, "{name}");
        }
    }

    #[test]
    fn an_interval_is_an_offset_to_the_east() {
        let hours = |hours: i64| IntervalMonthDayNano::new(0, 0, hours * 3_600 * NANOS_PER_SECOND);
        assert_eq!(offset(hours(-8)).unwrap().offset(0), -8 * 3_600);
        assert_eq!(offset(hours(0)).unwrap(), Zone::UTC);
        assert_eq!(
            offset(IntervalMonthDayNano::new(0, 1, 0)).unwrap_err().state(),
            SqlState::InvalidParameterValue
        );
    }
}
