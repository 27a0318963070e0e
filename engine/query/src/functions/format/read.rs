//! Text read by a pattern (`DCH_from_char`): blanks and separators may be others than the pattern's, or more.

use sepal_types::{Error, SqlState, days_from_civil, days_in_month};

use super::{
    moment::{DAYS, MONTHS},
    pattern::Node,
};
use crate::zone::Zone;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
const JULIAN_EPOCH: i64 = 2_440_588;

/// What a text says, field by field.
#[derive(Debug, Default)]
pub(super) struct Read {
    text: String,
    year: Option<i64>,
    before_christ: bool,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    hour: i64,
    twelve_hours: bool,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    micros: i64,
    zone_hours: i64,
    zone_minutes: i64,
    /// The text names its offset.
    has_zone: bool,
}

/// Errors: 22007 for a text that the pattern does not fit; 0A000 for a field that is only written.
pub(super) fn read(text: &str, nodes: &[Node]) -> Result<Read, Error> {
    let mut read = Read { text: text.to_owned(), ..Read::default() };
    let mut rest = text;
    for (position, node) in nodes.iter().enumerate() {
        if rest.trim_start().is_empty() {
            break;
        }
        match node {
            Node::Literal { text, quoted: false } if !text.is_alphanumeric() => {
                // One separator of any kind, if there is one.
                let first = rest.chars().next().filter(|first| is_separator(*first));
                rest = first.map_or(rest, |first| &rest[first.len_utf8()..]);
            }
            Node::Literal { .. } => {
                let first = rest.chars().next().map_or(0, char::len_utf8);
                rest = &rest[first..];
            }
            Node::Field { name, bare, ordinal } => {
                let signed = matches!(*name, "TZH" | "tzh");
                rest = rest.trim_start_matches(|c: char| c.is_whitespace() || (!signed && is_separator(c)));
                let fixed = !bare
                    && matches!(nodes.get(position + 1), Some(Node::Field { name, .. }) if begins_with_digits(name));
                rest = read.field(name, rest, fixed)?;
                if ordinal.is_some() {
                    rest = rest.get(2..).unwrap_or_default();
                }
            }
        }
    }
    Ok(read)
}

fn is_separator(c: char) -> bool {
    c.is_ascii_punctuation() || c.is_whitespace()
}

fn begins_with_digits(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    !matches!(
        name.as_str(),
        "AM" | "PM"
            | "A.M."
            | "P.M."
            | "AD"
            | "BC"
            | "A.D."
            | "B.C."
            | "MONTH"
            | "MON"
            | "DAY"
            | "DY"
            | "RM"
            | "TZ"
    )
}

/// How many digits a field has at most where another follows at once.
fn width(field: &str) -> Option<usize> {
    Some(match field {
        "Y" | "D" | "Q" | "FF1" => 1,
        "YY" | "MM" | "DD" | "HH" | "HH12" | "HH24" | "MI" | "SS" | "TZH" | "TZM" | "FF2" => 2,
        "YYY" | "DDD" | "MS" | "FF3" => 3,
        "YYYY" | "FF4" => 4,
        "SSSS" | "SSSSS" | "FF5" => 5,
        "US" | "FF6" => 6,
        "J" => 9,
        _ => return None,
    })
}

impl Read {
    /// Reads one field; what is left.
    fn field<'a>(&mut self, name: &str, rest: &'a str, fixed: bool) -> Result<&'a str, Error> {
        let upper = name.to_ascii_uppercase();
        match upper.as_str() {
            "MONTH" | "MON" => {
                let (month, after) = named(name, rest, &MONTHS)?;
                self.month = Some(month + 1);
                return Ok(after);
            }
            // Of no use: the date is known by others.
            "DAY" | "DY" => return Ok(named(name, rest, &DAYS)?.1),
            "AM" | "PM" | "A.M." | "P.M." => {
                let (place, after) = marked(name, rest, ["A.M.", "P.M.", "AM", "PM"])?;
                self.afternoon = Some(place % 2 == 1);
                return Ok(after);
            }
            "AD" | "BC" | "A.D." | "B.C." => {
                let (place, after) = marked(name, rest, ["A.D.", "B.C.", "AD", "BC"])?;
                self.before_christ = place % 2 == 1;
                return Ok(after);
            }
            _ => {}
        }
        let Some(width) = width(&upper) else {
            let message = format!("the pattern \"{name}\" of to_timestamp() is not supported");
            return Err(Error::unsupported(message));
        };
        let number = digits(name, rest, if fixed { Some(width) } else { None })?;
        self.number(&upper, &number);
        Ok(number.rest)
    }

    fn number(&mut self, field: &str, number: &Number<'_>) {
        let value = number.value;
        // Of a fraction the digits count from the left.
        let fraction = || {
            let places = i32::try_from(number.length).unwrap_or(6).min(6);
            value * 10i64.pow(6u32.saturating_sub(places.unsigned_abs()))
        };
        match field {
            "YYYY" => self.year = Some(value),
            "YYY" | "YY" | "Y" => self.year = Some(if number.length < 4 { near_2020(value) } else { value }),
            // None at all, as in a text that ends early.
            "MM" => self.month = Some(value).filter(|month| *month != 0),
            "DD" => self.day = Some(value).filter(|day| *day != 0),
            "DDD" => self.day_of_year = Some(value),
            "J" => self.julian = Some(value),
            "HH24" => self.hour = value,
            "HH" | "HH12" => {
                self.hour = value;
                self.twelve_hours = true;
            }
            "MI" => self.minute = value,
            "SS" => self.second = value,
            "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => self.micros = fraction(),
            "SSSS" | "SSSSS" => {
                (self.hour, self.minute, self.second) = (value / 3600, value / 60 % 60, value % 60);
            }
            "TZH" => (self.zone_hours, self.has_zone) = (value, true),
            "TZM" => (self.zone_minutes, self.has_zone) = (value, true),
            // Days of weeks and quarters do not make a date.
            _ => {}
        }
    }

    /// Days since 1970. Errors: 22008 for a date that is none.
    pub(super) fn days(&self) -> Result<i64, Error> {
        if let Some(julian) = self.julian {
            return Ok(julian - JULIAN_EPOCH);
        }
        let year = match self.year {
            // Without a year it is the one before the first.
            None => 0,
            Some(year) if self.before_christ => 1 - year,
            Some(year) => year,
        };
        let year_known = (-4713..=294_276).contains(&year);
        if let Some(day) = self.day_of_year.filter(|_| year_known) {
            let length = if days_in_month(year, 2) == 29 { 366 } else { 365 };
            if !(1..=length).contains(&day) {
                return Err(self.out_of_range());
            }
            return Ok(days_from_civil(year, 1, 1) + day - 1);
        }
        let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
        let month = u32::try_from(month).ok().filter(|month| year_known && (1..=12).contains(month));
        let day = month.zip(u32::try_from(day).ok());
        match day.filter(|(month, day)| (1..=days_in_month(year, *month)).contains(day)) {
            Some((month, day)) => Ok(days_from_civil(year, month, day)),
            None => Err(self.out_of_range()),
        }
    }

    /// Microseconds since 1970, UTC; without an offset the text is of the session's zone. Errors: 22007, 22008.
    pub(super) fn micros(&self) -> Result<i64, Error> {
        let mut hour = self.hour;
        if self.twelve_hours {
            if !(1..=12).contains(&hour) {
                let message = format!("hour \"{hour}\" is invalid for the 12-hour clock");
                return Err(Error::new(SqlState::InvalidDatetimeFormat, message)
                    .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            match self.afternoon {
                Some(true) if hour < 12 => hour += 12,
                Some(false) if hour == 12 => hour = 0,
                _ => {}
            }
        }
        let fits = (0..24).contains(&hour)
            && (0..60).contains(&self.minute)
            && (0..60).contains(&self.second)
            && (-15..=15).contains(&self.zone_hours)
            && (0..60).contains(&self.zone_minutes);
        if !fits {
            return Err(self.out_of_range());
        }
        let minutes = if self.zone_hours < 0 { -self.zone_minutes } else { self.zone_minutes };
        let zone = self.zone_hours * 3600 + minutes * 60;
        let seconds = hour * 3600 + self.minute * 60 + self.second - zone;
        let micros = self.days()? * MICROS_PER_DAY + seconds * MICROS_PER_SECOND + self.micros;
        if self.has_zone {
            return Ok(micros);
        }
        Zone::current().instant(micros).ok_or_else(|| self.out_of_range())
    }

    fn out_of_range(&self) -> Error {
        let message = format!("date/time field value out of range: \"{}\"", self.text);
        Error::new(SqlState::DatetimeFieldOverflow, message)
    }
}

/// Digits that were read.
struct Number<'a> {
    value: i64,
    length: usize,
    rest: &'a str,
}

/// `width`: another field follows at once.
fn digits<'a>(name: &str, text: &'a str, width: Option<usize>) -> Result<Number<'a>, Error> {
    let sign = usize::from(text.starts_with(['-', '+']));
    let all = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    let remaining = text.chars().count();
    if let Some(width) = width.filter(|width| remaining < *width) {
        let message = format!("source string too short for \"{name}\" formatting field");
        return Err(Error::new(SqlState::InvalidDatetimeFormat, message)
            .with_detail(format!("Field requires {width} characters, but only {remaining} remain."))
            .with_hint("If your source string is not fixed-width, try using the \"FM\" modifier."));
    }
    let length = width.map_or(all, |width| all.min(width));
    let value = text[..sign + length].parse::<i64>().ok().filter(|value| value.unsigned_abs() < 1 << 31);
    let Some(value) = value else {
        let word: String = text.chars().take_while(|c| !c.is_whitespace()).take(32).collect();
        let message = format!("invalid value \"{word}\" for \"{name}\"");
        return Err(
            Error::new(SqlState::InvalidDatetimeFormat, message).with_detail("Value must be an integer.")
        );
    };
    Ok(Number { value, length, rest: &text[sign + length..] })
}

/// A name, in full or its first three letters.
fn named<'a>(pattern: &str, text: &'a str, names: &[&str]) -> Result<(i64, &'a str), Error> {
    let short = pattern.eq_ignore_ascii_case("mon") || pattern.eq_ignore_ascii_case("dy");
    let found = names.iter().zip(0..).find_map(|(name, place)| {
        let name = if short { &name[..3] } else { name };
        let begins = text.get(..name.len())?.eq_ignore_ascii_case(name);
        begins.then(|| (place, &text[name.len()..]))
    });
    found.ok_or_else(|| no_name(pattern, text))
}

fn marked<'a>(pattern: &str, text: &'a str, marks: [&str; 4]) -> Result<(usize, &'a str), Error> {
    let found = marks.iter().enumerate().find_map(|(place, mark)| {
        let begins = text.get(..mark.len())?.eq_ignore_ascii_case(mark);
        begins.then(|| (place, &text[mark.len()..]))
    });
    found.ok_or_else(|| no_name(pattern, text))
}

fn no_name(pattern: &str, text: &str) -> Error {
    let word = text.split_whitespace().next().unwrap_or_default();
    let message = format!("invalid value \"{word}\" for \"{pattern}\"");
    Error::new(SqlState::InvalidDatetimeFormat, message)
        .with_detail("The given value did not match any of the allowed values for this field.")
}

/// A year of less than four digits is the nearest to 2020 (`adjust_partial_year_to_2020`).
const fn near_2020(year: i64) -> i64 {
    match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}
