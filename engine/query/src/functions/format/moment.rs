//! Instants and intervals as a pattern wants them (`DCH_to_char`).

use datafusion::arrow::datatypes::IntervalMonthDayNano;
use sepal_types::{Error, SqlState, civil_from_days, days_from_civil};

use super::pattern::Node;
use crate::zone::Zone;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Of 1970-01-01, counted from 4714-11-24 BC.
const JULIAN_EPOCH: i64 = 2_440_588;
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// The parts of what is written.
pub(super) struct Moment {
    /// Astronomical: 0 is 1 BC.
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    /// Days since 1970; `None` for an interval, which is on no day.
    days: Option<i64>,
    /// What the zone is called, of a time that has one.
    zone: Option<String>,
    /// Its offset, in seconds to the east.
    offset: i64,
}

impl Moment {
    /// `zone`: whose clock shows the instant; `None` for a time without one.
    pub(super) fn of_instant(micros: i64, zone: Option<Zone>) -> Self {
        let shown = zone.map_or(micros, |zone| zone.clock(micros));
        let (days, time) = (shown.div_euclid(MICROS_PER_DAY), shown.rem_euclid(MICROS_PER_DAY));
        let (year, month, day) = civil_from_days(days);
        Self {
            year,
            month: month.into(),
            day: day.into(),
            days: Some(days),
            zone: zone.map(|zone| zone.abbreviation(micros)),
            offset: zone.map_or(0, |zone| zone.offset(micros)),
            ..Self::of_time(time)
        }
    }

    pub(super) fn of_interval(span: IntervalMonthDayNano) -> Self {
        Self {
            year: (span.months / 12).into(),
            month: (span.months % 12).into(),
            day: span.days.into(),
            ..Self::of_time(span.nanoseconds / 1_000)
        }
    }

    fn of_time(time: i64) -> Self {
        let seconds = time / MICROS_PER_SECOND;
        Self {
            year: 0,
            month: 0,
            day: 0,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros: time % MICROS_PER_SECOND,
            days: None,
            zone: None,
            offset: 0,
        }
    }

    /// Errors: 22007 for a field that an interval does not have.
    fn days(&self) -> Result<i64, Error> {
        self.days.ok_or_else(|| {
            let message = "invalid format specification for an interval value";
            Error::new(SqlState::InvalidDatetimeFormat, message)
                .with_hint("Intervals are not tied to specific calendar dates.")
        })
    }

    fn weekday(&self) -> Result<i64, Error> {
        Ok((self.days()? + 4).rem_euclid(7))
    }

    fn day_of_year(&self) -> Result<i64, Error> {
        Ok(self.days()? - days_from_civil(self.year, 1, 1) + 1)
    }

    /// The year and the week that its Thursday is in, and the day within that year.
    fn iso(&self) -> Result<(i64, i64, i64), Error> {
        let days = self.days()?;
        let from_monday = (days + 3).rem_euclid(7);
        let year = civil_from_days(days - from_monday + 3).0;
        let fourth = days_from_civil(year, 1, 4);
        let first_monday = fourth - (fourth + 3).rem_euclid(7);
        Ok((year, (days - first_monday) / 7 + 1, days - first_monday + 1))
    }

    /// The year as it is counted before and after Christ.
    fn shown_year(&self) -> i64 {
        era_year(self.year, self.days.is_some())
    }

    fn century(&self) -> i64 {
        if self.days.is_none() {
            return self.year / 100;
        }
        if self.year > 0 { (self.year - 1) / 100 + 1 } else { self.year / 100 - 1 }
    }
}

fn era_year(year: i64, dated: bool) -> i64 {
    if dated && year <= 0 { 1 - year } else { year }
}

/// Errors: 22007 for a field that an interval does not have.
pub(super) fn write(moment: &Moment, nodes: &[Node]) -> Result<String, Error> {
    let mut out = String::new();
    for node in nodes {
        match node {
            Node::Literal { text, .. } => out.push(*text),
            Node::Field { name, bare, ordinal } => {
                let start = out.len();
                field(moment, name, *bare, &mut out)?;
                if let Some(upper) = ordinal {
                    let suffix = suffix(&out[start..]);
                    out.push_str(&if *upper { suffix.to_uppercase() } else { suffix.to_owned() });
                }
            }
        }
    }
    Ok(out)
}

/// `st`, `nd`, `rd`, `th`; nothing after what is no number.
pub(super) fn suffix(number: &str) -> &'static str {
    let number = number.trim();
    if !number.ends_with(|last: char| last.is_ascii_digit()) {
        return "";
    }
    let teen = number.len() > 1 && number.as_bytes().get(number.len() - 2) == Some(&b'1');
    match number.as_bytes().last() {
        _ if teen => "th",
        Some(b'1') => "st",
        Some(b'2') => "nd",
        Some(b'3') => "rd",
        _ => "th",
    }
}

fn field(moment: &Moment, name: &str, bare: bool, out: &mut String) -> Result<(), Error> {
    let upper = name.to_ascii_uppercase();
    if let Some((value, width)) = number(moment, &upper)? {
        let width = if bare { 0 } else { width };
        // A minus takes none of the digits' room.
        let sign = if value < 0 { "-" } else { "" };
        out.push_str(&format!("{sign}{:0width$}", value.unsigned_abs()));
        return Ok(());
    }
    let (text, width) = match upper.as_str() {
        "MONTH" => (cased(name, month_name(moment)?), 9),
        "MON" => (cased(name, month_name(moment)?.get(..3).unwrap_or_default()), 0),
        "DAY" => (cased(name, day_name(moment)?), 9),
        "DY" => (cased(name, &day_name(moment)?[..3]), 0),
        "RM" => {
            let month = usize::try_from(moment.month - 1).ok().and_then(|month| ROMAN.get(month));
            (cased(name, month.copied().unwrap_or_default()), 4)
        }
        "AM" | "PM" => (cased(name, if moment.hour.rem_euclid(24) >= 12 { "PM" } else { "AM" }), 0),
        "A.M." | "P.M." => (cased(name, if moment.hour.rem_euclid(24) >= 12 { "P.M." } else { "A.M." }), 0),
        "AD" | "BC" | "A.D." | "B.C." => {
            moment.days()?;
            let era = if moment.year <= 0 { ["BC", "B.C."] } else { ["AD", "A.D."] };
            (cased(name, era[usize::from(upper.contains('.'))]), 0)
        }
        "Y,YYY" => {
            let year = moment.shown_year();
            (format!("{},{:03}", year / 1000, year % 1000), 0)
        }
        "TZ" => {
            moment.days()?;
            (moment.zone.as_deref().map_or_else(String::new, |zone| cased(name, zone)), 0)
        }
        "TZH" | "OF" => {
            moment.days()?;
            let (sign, minutes) = (if moment.offset < 0 { '-' } else { '+' }, moment.offset.abs() / 60);
            let rest = if upper == "OF" && minutes % 60 != 0 {
                format!(":{:02}", minutes % 60)
            } else {
                String::new()
            };
            (format!("{sign}{:02}{rest}", minutes / 60), 0)
        }
        other => {
            let message = format!("the pattern \"{other}\" of to_char() is not supported");
            return Err(Error::unsupported(message));
        }
    };
    let width = if bare { 0 } else { width };
    out.push_str(&format!("{text:width$}"));
    Ok(())
}

/// The fields that are numbers, with how many digits they have at least.
fn number(moment: &Moment, field: &str) -> Result<Option<(i64, usize)>, Error> {
    let year = moment.shown_year();
    let iso_year = || Ok::<i64, Error>(era_year(moment.iso()?.0, true));
    Ok(Some(match field {
        "HH" | "HH12" => (if moment.hour % 12 == 0 { 12 } else { moment.hour % 12 }, 2),
        "HH24" => (moment.hour, 2),
        "MI" => (moment.minute, 2),
        "SS" => (moment.second, 2),
        "MS" | "FF3" => (moment.micros / 1_000, 3),
        "US" | "FF6" => (moment.micros, 6),
        "FF1" => (moment.micros / 100_000, 1),
        "FF2" => (moment.micros / 10_000, 2),
        "FF4" => (moment.micros / 100, 4),
        "FF5" => (moment.micros / 10, 5),
        "SSSS" | "SSSSS" => (moment.hour * 3600 + moment.minute * 60 + moment.second, 0),
        "YYYY" => (year, 4),
        "YYY" => (year % 1000, 3),
        "YY" => (year % 100, 2),
        "Y" => (year % 10, 1),
        "IYYY" => (iso_year()?, 4),
        "IYY" => (iso_year()? % 1000, 3),
        "IY" => (iso_year()? % 100, 2),
        "I" => (iso_year()? % 10, 1),
        "MM" => (moment.month, 2),
        "DDD" => (moment.day_of_year()?, 3),
        "IDDD" => (moment.iso()?.2, 3),
        "DD" => (moment.day, 2),
        "D" => (moment.weekday()? + 1, 0),
        "ID" => ((moment.weekday()? + 6) % 7 + 1, 0),
        "WW" => ((moment.day_of_year()? - 1) / 7 + 1, 2),
        "IW" => (moment.iso()?.1, 2),
        "W" => ((moment.day - 1) / 7 + 1, 0),
        "CC" => (moment.century(), 2),
        "J" => (moment.days()? + JULIAN_EPOCH, 0),
        "Q" if moment.month == 0 => return Ok(None),
        "Q" => ((moment.month - 1) / 3 + 1, 0),
        "TZM" => {
            moment.days()?;
            (moment.offset.abs() / 60 % 60, 2)
        }
        _ => return Ok(None),
    }))
}

fn month_name(moment: &Moment) -> Result<&'static str, Error> {
    moment.days()?;
    let month = usize::try_from(moment.month - 1).ok().and_then(|month| MONTHS.get(month));
    Ok(month.copied().unwrap_or_default())
}

fn day_name(moment: &Moment) -> Result<&'static str, Error> {
    let day = usize::try_from(moment.weekday()?).ok().and_then(|day| DAYS.get(day));
    Ok(day.copied().unwrap_or("Sunday"))
}

/// A name spelled as the pattern is: `MONTH`, `Month` or `month`.
fn cased(pattern: &str, name: &str) -> String {
    let mut letters = pattern.chars().filter(char::is_ascii_alphabetic);
    match (letters.next(), letters.next()) {
        (Some(first), _) if first.is_ascii_lowercase() => name.to_ascii_lowercase(),
        (_, Some(second)) if second.is_ascii_lowercase() => name.to_owned(),
        _ => name.to_ascii_uppercase(),
    }
}
