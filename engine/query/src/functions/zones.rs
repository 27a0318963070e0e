//! `timezone(zone, instant)`, which `instant AT TIME ZONE zone` is in PostgreSQL: of a `timestamptz` the clock of that
//! zone as a `timestamp`, of a `timestamp` the instant at which that clock showed it.
//!
//! `sql/rewrite.rs` writes the call. DataFusion's own gives a `timestamptz` back as the same instant, which is then
//! printed and cut at midnight in UTC. Zones are those of the IANA, as Arrow knows them.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray, new_null_array, timezone::Tz,
        },
        compute::cast,
        datatypes::{DataType, Date32Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType},
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
    error::{carry, undefined_function_call},
    output::{natural_type, sql_type},
    zone::Zone,
};

const MICROS_PER_DAY: i64 = 86_400_000_000;

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

fn is_text(data_type: &DataType) -> bool {
    data_type.is_null() || matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
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
            [zone, instant] if is_text(zone) => read_as(instant),
            _ => None,
        };
        read.map(|read| arrow_type(&result(&read))).ok_or_else(|| {
            let types: Vec<SqlType> = arguments.iter().map(natural_type).collect();
            carry(undefined_function_call("timezone", &types))
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ([zone, instant], [_, field]) = (args.args.as_slice(), args.arg_fields.as_slice()) else {
            return Err(carry(Error::bug("timezone takes two arguments")));
        };
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let zones = cast(&zone.to_array(rows)?, &DataType::Utf8)?;
        let instants = instant.to_array(rows)?;
        let read = read_as(instants.data_type()).unwrap_or(SqlType::Timestamptz);
        let wanted = args.return_field.data_type();
        let Some(zone) = only_zone(zones.as_string::<i32>()).map_err(carry)? else {
            return answer(new_null_array(wanted, rows), constant);
        };
        let micros = micros(&instants, &sql_type(field), &read)?;
        let moved = match read {
            SqlType::Timestamp => instants_of(&micros, &zone)?,
            _ => clock(&micros, &zone)?,
        };
        // Of a row without a zone there is no time.
        let kept = moved.iter().zip(zones.as_string::<i32>()).map(|(moved, zone)| zone.and(moved));
        let kept: TimestampMicrosecondArray = kept.collect();
        let zone = if result(&read) == SqlType::Timestamptz { Some("UTC") } else { None };
        answer(Arc::new(kept.with_timezone_opt(zone)), constant)
    }
}

/// Microseconds since 1970, without a zone.
fn micros(array: &ArrayRef, source: &SqlType, read: &SqlType) -> Result<TimestampMicrosecondArray> {
    let read = match array.data_type() {
        DataType::Timestamp(_, zone) => {
            cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?
        }
        DataType::Date32 if Zone::current().is_utc() => convert(array, source, &SqlType::Timestamp)?,
        _ => convert(array, source, read)?,
    };
    Ok(read.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<Arc<str>>))
}

/// The zone of all rows that have one.
///
/// Errors: 0A000 for several, 22023 for one that does not exist.
fn only_zone(zones: &StringArray) -> Result<Option<String>, Error> {
    let mut named = zones.iter().flatten();
    let Some(first) = named.next() else { return Ok(None) };
    if named.any(|other| other != first) {
        return Err(Error::unsupported("AT TIME ZONE takes one zone for all rows"));
    }
    known(first).map(Some)
}

/// How Arrow names a zone. Letters' case does not matter to PostgreSQL; an offset counts to the west of Greenwich, as
/// POSIX has it.
///
/// Errors: 22023.
fn known(zone: &str) -> Result<String, Error> {
    let trimmed = zone.trim();
    let spelled = match trimmed.split_at_checked(1) {
        Some(("+", offset)) => format!("-{offset}"),
        Some(("-", offset)) => format!("+{offset}"),
        _ if ["utc", "gmt", "z", "zulu", "uct"].contains(&trimmed.to_ascii_lowercase().as_str()) => {
            "UTC".to_owned()
        }
        _ => trimmed.to_owned(),
    };
    [spelled.clone(), capitalized(&spelled), spelled.to_ascii_uppercase()]
        .into_iter()
        .find(|name| name.parse::<Tz>().is_ok())
        .ok_or_else(|| {
            let message = format!("time zone \"{zone}\" not recognized");
            Error::new(SqlState::InvalidParameterValue, message)
        })
}

/// `europe/berlin` as `Europe/Berlin`.
fn capitalized(name: &str) -> String {
    let mut begins = true;
    let letter = |letter: char| {
        let spelled = if begins { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
        begins = matches!(letter, '/' | '_' | '-');
        spelled
    };
    name.chars().map(letter).collect()
}

const fn is_infinite(micros: i64) -> bool {
    matches!(micros, i64::MAX | i64::MIN)
}

/// With another in the place of what is no time of a calendar.
fn finite(times: &TimestampMicrosecondArray) -> TimestampMicrosecondArray {
    times.unary(|micros| if is_infinite(micros) { 0 } else { micros })
}

/// What the zone's clock shows at instants.
fn clock(instants: &TimestampMicrosecondArray, zone: &str) -> Result<TimestampMicrosecondArray> {
    let zoned: ArrayRef = Arc::new(finite(instants).with_timezone(zone));
    let days = cast(&zoned, &DataType::Date32)?;
    let times = cast(&zoned, &DataType::Time64(TimeUnit::Microsecond))?;
    let (days, times) = (days.as_primitive::<Date32Type>(), times.as_primitive::<Time64MicrosecondType>());
    let shown = instants.iter().zip(days.iter().zip(times)).map(|(instant, shown)| match (instant, shown) {
        (Some(micros), _) if is_infinite(micros) => Some(micros),
        (Some(_), (Some(day), Some(time))) => Some(i64::from(day) * MICROS_PER_DAY + time),
        _ => None,
    });
    Ok(shown.collect())
}

/// The instants at which the zone's clock showed times. One that it showed twice, or left out, is of standard time
/// (`DetermineTimeZoneOffset`).
fn instants_of(times: &TimestampMicrosecondArray, zone: &str) -> Result<TimestampMicrosecondArray> {
    let offsets = |instants: &TimestampMicrosecondArray| -> Result<Vec<Option<i64>>> {
        let shown = clock(instants, zone)?;
        Ok(shown.iter().zip(instants).map(|(shown, instant)| shown?.checked_sub(instant?)).collect())
    };
    let finite = finite(times);
    let moved = |by: i64| -> TimestampMicrosecondArray { finite.unary(|micros| micros.saturating_add(by)) };
    let (before, after) = (offsets(&moved(-MICROS_PER_DAY))?, offsets(&moved(MICROS_PER_DAY))?);
    let at = |offsets: &[Option<i64>]| -> TimestampMicrosecondArray {
        finite.iter().zip(offsets).map(|(time, offset)| time?.checked_sub((*offset)?)).collect()
    };
    let (early, late) = (at(&before), at(&after));
    let (of_early, of_late) = (offsets(&early)?, offsets(&late)?);
    let chosen = (0..times.len()).map(|row| {
        let time = times.is_valid(row).then(|| times.value(row))?;
        if is_infinite(time) {
            return Some(time);
        }
        let (before, after) = (before[row]?, after[row]?);
        let offset = match (of_early[row] == Some(before), of_late[row] == Some(after)) {
            (true, false) => before,
            (false, true) => after,
            _ => before.min(after),
        };
        time.checked_sub(offset)
    });
    Ok(chosen.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    /// 2026-03-29 and 2026-10-25, at midnight: the clocks change in Berlin.
    const SPRING: i64 = 20_541 * MICROS_PER_DAY;
    const AUTUMN: i64 = 20_751 * MICROS_PER_DAY;

    fn array(micros: &[i64]) -> TimestampMicrosecondArray {
        micros.iter().copied().map(Some).collect()
    }

    #[test]
    fn a_clock_that_changes_is_read_as_standard_time_where_it_does() {
        let instants = array(&[SPRING, SPRING + HOUR, AUTUMN, AUTUMN + HOUR, i64::MAX]);
        let shown =
            array(&[SPRING + HOUR, SPRING + 3 * HOUR, AUTUMN + 2 * HOUR, AUTUMN + 2 * HOUR, i64::MAX]);
        assert_eq!(clock(&instants, "Europe/Berlin").unwrap(), shown);
        let times = array(&[SPRING + HOUR, SPRING + 2 * HOUR, AUTUMN + HOUR, AUTUMN + 2 * HOUR, i64::MIN]);
        let read = array(&[SPRING, SPRING + HOUR, AUTUMN - HOUR, AUTUMN + HOUR, i64::MIN]);
        assert_eq!(instants_of(&times, "Europe/Berlin").unwrap(), read);
    }

    #[test]
    fn zones_go_by_several_names() {
        for (zone, expected) in [
            ("utc", "UTC"),
            ("Z", "UTC"),
            ("europe/berlin", "Europe/Berlin"),
            ("America/New_York", "America/New_York"),
            ("cet", "CET"),
            ("+02", "-02"),
            ("-03:30", "+03:30"),
        ] {
            assert_eq!(known(zone).unwrap(), expected, "{zone}");
        }
        assert_eq!(known("Mars/Base").unwrap_err().state(), SqlState::InvalidParameterValue);
        assert_eq!(known("").unwrap_err().state(), SqlState::InvalidParameterValue);
    }
}
