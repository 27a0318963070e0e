//! Dates and times from text: the ISO forms, month names, `MM/DD/YYYY`, offsets and zones.
//!
//! Called by `datetime`. Reads the text once from left to right; what it means for a type is decided there.
//! `DateStyle` is `ISO, MDY`: three numbers that do not start with a year are month, day, year.

use sepal_types::{days_from_civil, days_in_month};

use crate::zone::{Zone, abbreviated};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// Largest hours of an offset (Postgres' MAX_TZDISP_HOUR).
const MAX_OFFSET_HOURS: i64 = 15;

/// What a text said.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) special: Option<Special>,
    /// Since 1970-01-01.
    pub(super) days: Option<i64>,
    /// Since midnight, up to a whole day.
    pub(super) micros: Option<i64>,
    /// East of Greenwich.
    pub(super) zone_seconds: Option<i32>,
    /// In place of these: a zone with rules of its own.
    pub(super) zone: Option<Zone>,
}

/// A word instead of a date.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Special {
    /// Today plus so many days.
    Day(i64),
    Epoch,
    Infinity,
    MinusInfinity,
    Now,
}

/// Why a text is refused.
#[derive(Debug)]
pub(super) enum Problem {
    Displacement,
    Field,
    MonthOrDay,
    Syntax,
    Zone(String),
}

/// `time_first`: a number of four or six digits without a date before it is a time, not a date.
pub(super) fn parse(text: &str, time_first: bool) -> Result<Parts, Problem> {
    let mut parser = Parser { bytes: text.as_bytes(), time_first, ..Parser::default() };
    while let Some(byte) = parser.peek() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0xb | 0xc | b',' => parser.at += 1,
            b'0'..=b'9' => parser.number()?,
            b'+' | b'-' => parser.signed()?,
            b'a'..=b'z' | b'A'..=b'Z' => parser.word()?,
            _ => return Err(Problem::Syntax),
        }
    }
    parser.finish()
}

#[derive(Default)]
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    time_first: bool,
    special: Option<Special>,
    /// Year, month, day as written; the year before its era is known.
    date: Option<(i64, u32, u32)>,
    /// A month's name, and the numbers beside it with their lengths.
    month: Option<u32>,
    numbers: Vec<(i64, usize)>,
    before_christ: bool,
    /// Hours, minutes, seconds, microseconds.
    clock: Option<(i64, i64, i64, i64)>,
    afternoon: Option<bool>,
    zone_seconds: Option<i32>,
    zone: Option<Zone>,
    /// The `T` of ISO 8601 was read.
    after_t: bool,
}

impl Parser<'_> {
    fn number(&mut self) -> Result<(), Problem> {
        let (value, length) = self.digits()?;
        let has_date = self.date.is_some() || self.special.is_some();
        match self.peek() {
            Some(b':') => self.clock(value),
            Some(b'.') if self.time_first && !has_date && length == 6 => self.packed_clock(value, length),
            Some(b'-' | b'/' | b'.') if !has_date && self.month.is_none() && self.numbers.is_empty() => {
                self.separated_date(value, length)
            }
            _ if self.clock.is_none() && (has_date || self.after_t) => self.packed_clock(value, length),
            _ if self.time_first && !has_date && self.month.is_none() && matches!(length, 4 | 6) => {
                self.packed_clock(value, length)
            }
            _ if has_date => Err(Problem::Syntax),
            _ => self.packed_date(value, length),
        }
    }

    /// `20240102`, `240102`, or a number beside a month's name.
    fn packed_date(&mut self, value: i64, length: usize) -> Result<(), Problem> {
        let month_and_day = ((value / 100 % 100) as u32, (value % 100) as u32);
        match length {
            8 => self.date = Some((value / 10_000, month_and_day.0, month_and_day.1)),
            6 => self.date = Some((full_year(value / 10_000), month_and_day.0, month_and_day.1)),
            _ if self.numbers.len() < 2 => self.numbers.push((value, length)),
            _ => return Err(Problem::Syntax),
        }
        Ok(())
    }

    /// `2024-01-02`, `2024-Jan-02`, `1/2/2024`, from the first separator on.
    fn separated_date(&mut self, first: i64, first_length: usize) -> Result<(), Problem> {
        let separator = self.peek();
        self.at += 1;
        let named = match self.peek() {
            Some(b'a'..=b'z' | b'A'..=b'Z') => Some(month_number(&self.letters()).ok_or(Problem::Syntax)?),
            _ => None,
        };
        let (second, second_length) = match named {
            Some(month) => (i64::from(month), 2),
            None => self.digits()?,
        };
        if self.peek() != separator {
            return Err(Problem::Syntax);
        }
        self.at += 1;
        let (third, third_length) = self.digits()?;
        if second_length > 2 {
            return Err(Problem::Syntax);
        }
        let (year, month, day) = match (first_length > 2, named) {
            (true, _) => (first, second, third),
            (false, Some(_)) => (written_year(third, third_length), second, first),
            (false, None) => (written_year(third, third_length), first, second),
        };
        let small = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        self.date = Some((year, small(month), small(day)));
        Ok(())
    }

    /// `03:04` or `03:04:05.678`, from the first colon on.
    fn clock(&mut self, hours: i64) -> Result<(), Problem> {
        if self.clock.is_some() {
            return Err(Problem::Syntax);
        }
        self.at += 1;
        let (minutes, _) = self.digits()?;
        let (mut seconds, mut micros) = (0, 0);
        if self.peek() == Some(b':') {
            self.at += 1;
            (seconds, _) = self.digits()?;
            micros = self.fraction();
        }
        self.clock = Some((hours, minutes, seconds, micros));
        Ok(())
    }

    /// `030405` or `0304`.
    fn packed_clock(&mut self, value: i64, length: usize) -> Result<(), Problem> {
        self.clock = Some(match length {
            4 => (value / 100, value % 100, 0, 0),
            6 => (value / 10_000, value / 100 % 100, value % 100, self.fraction()),
            _ => return Err(Problem::Syntax),
        });
        Ok(())
    }

    /// `-infinity`, or the offset of a zone.
    fn signed(&mut self) -> Result<(), Problem> {
        let negative = self.peek() == Some(b'-');
        self.at += 1;
        match self.peek() {
            Some(b'0'..=b'9') if self.has_no_zone() && (self.clock.is_some() || self.date.is_some()) => {
                let seconds = self.offset()?;
                self.zone_seconds = Some(if negative { -seconds } else { seconds });
                Ok(())
            }
            Some(b'i' | b'I') if self.letters() == "infinity" => {
                self.set_special(if negative { Special::MinusInfinity } else { Special::Infinity })
            }
            _ => Err(Problem::Syntax),
        }
    }

    /// `02`, `0230`, `02:30` or `02:30:15`, without its sign, as seconds.
    fn offset(&mut self) -> Result<i32, Problem> {
        let (first, length) = self.digits()?;
        let (mut hours, mut minutes, mut seconds) = (first, 0, 0);
        if self.peek() == Some(b':') {
            self.at += 1;
            (minutes, _) = self.digits()?;
            if self.peek() == Some(b':') {
                self.at += 1;
                (seconds, _) = self.digits()?;
            }
        } else if length > 2 {
            (hours, minutes) = (first / 100, first % 100);
        }
        if hours > MAX_OFFSET_HOURS || minutes > 59 || seconds > 59 {
            return Err(Problem::Displacement);
        }
        i32::try_from(hours * 3600 + minutes * 60 + seconds).map_err(|_| Problem::Displacement)
    }

    fn word(&mut self) -> Result<(), Problem> {
        let word = self.letters();
        match word.as_str() {
            "t" if self.date.is_some() && self.peek().is_some_and(|byte| byte.is_ascii_digit()) => {
                self.after_t = true;
                Ok(())
            }
            "ad" => Ok(()),
            "bc" => {
                self.before_christ = true;
                Ok(())
            }
            "am" | "pm" if self.afternoon.is_none() => {
                self.afternoon = Some(word == "pm");
                Ok(())
            }
            "allballs" if self.clock.is_none() => {
                self.clock = Some((0, 0, 0, 0));
                Ok(())
            }
            "epoch" => self.set_special(Special::Epoch),
            "infinity" => self.set_special(Special::Infinity),
            "now" => self.set_special(Special::Now),
            "today" => self.set_special(Special::Day(0)),
            "tomorrow" => self.set_special(Special::Day(1)),
            "yesterday" => self.set_special(Special::Day(-1)),
            _ if is_weekday(&word) => Ok(()),
            _ => self.month_or_zone(&word),
        }
    }

    fn month_or_zone(&mut self, word: &str) -> Result<(), Problem> {
        if let (None, Some(month)) = (self.month, month_number(word)) {
            self.month = Some(month);
            return Ok(());
        }
        if self.has_no_zone()
            && let Some(seconds) = abbreviated(word)
        {
            self.zone_seconds = Some(seconds);
            return Ok(());
        }
        if self.peek() != Some(b'/') {
            return Err(Problem::Syntax);
        }
        let rest = &self.bytes[self.at..];
        let length =
            rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(byte)).count();
        let name = format!("{word}{}", String::from_utf8_lossy(&rest[..length]).to_ascii_lowercase());
        let Some(zone) = Zone::named(&name) else { return Err(Problem::Zone(name)) };
        if !self.has_no_zone() {
            return Err(Problem::Syntax);
        }
        self.at += length;
        self.zone = Some(zone);
        Ok(())
    }

    fn has_no_zone(&self) -> bool {
        self.zone_seconds.is_none() && self.zone.is_none()
    }

    fn set_special(&mut self, special: Special) -> Result<(), Problem> {
        if self.special.is_some() || self.date.is_some() {
            return Err(Problem::Syntax);
        }
        self.special = Some(special);
        Ok(())
    }

    fn finish(self) -> Result<Parts, Problem> {
        let micros = self.clock.map(|clock| clock_micros(clock, self.afternoon)).transpose()?;
        let whole_day = matches!(self.special, Some(Special::Day(_)));
        let alone = micros.is_none() && self.has_no_zone() && self.month.is_none();
        if self.special.is_some() && !(whole_day || alone) {
            return Err(Problem::Syntax);
        }
        if self.afternoon.is_some() && self.clock.is_none() {
            return Err(Problem::Syntax);
        }
        let date = match (self.date, self.month) {
            (Some(date), None) if self.numbers.is_empty() => Some(date),
            (None, Some(month)) => Some(named_date(month, &self.numbers)?),
            (None, None) if self.numbers.is_empty() => None,
            _ => return Err(Problem::Syntax),
        };
        if self.before_christ && date.is_none() {
            return Err(Problem::Syntax);
        }
        let days = date.map(|date| date_days(date, self.before_christ)).transpose()?;
        Ok(Parts { special: self.special, days, micros, zone_seconds: self.zone_seconds, zone: self.zone })
    }

    /// Digits as a number with their count. More than nine have no meaning here.
    fn digits(&mut self) -> Result<(i64, usize), Problem> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return Err(Problem::Syntax);
        }
        if length > 9 {
            return Err(Problem::Field);
        }
        self.at += length;
        Ok((rest[..length].iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')), length))
    }

    /// `.678` as microseconds, rounded half to even as Postgres' `rint`; may be a whole second.
    fn fraction(&mut self) -> i64 {
        if self.peek() != Some(b'.') {
            return 0;
        }
        self.at += 1;
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += length;
        let digits = &rest[..length];
        if length <= 6 {
            let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
            return value * 10i64.pow(6 - length as u32);
        }
        let text = String::from_utf8_lossy(digits);
        let seconds: f64 = format!("0.{text}").parse().unwrap_or(0.0);
        (seconds * 1e6).round_ties_even() as i64
    }

    fn letters(&mut self) -> String {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        self.at += length;
        String::from_utf8_lossy(&rest[..length]).to_ascii_lowercase()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

/// `Jan 2 2024`, `2 Jan 2024`, `2024 Jan 2`: the number of three digits or more is the year, else the last.
fn named_date(month: u32, numbers: &[(i64, usize)]) -> Result<(i64, u32, u32), Problem> {
    let [(first, first_length), (second, second_length)] = numbers else {
        return Err(Problem::Syntax);
    };
    let (year, day) = if *first_length > 2 {
        (written_year(*first, *first_length), *second)
    } else {
        (written_year(*second, *second_length), *first)
    };
    Ok((year, month, u32::try_from(day).unwrap_or(u32::MAX)))
}

fn written_year(value: i64, length: usize) -> i64 {
    if length <= 2 { full_year(value) } else { value }
}

/// Two digits: 1970 to 2069.
fn full_year(value: i64) -> i64 {
    if value < 70 { value + 2000 } else { value + 1900 }
}

fn date_days((year, month, day): (i64, u32, u32), before_christ: bool) -> Result<i64, Problem> {
    if year == 0 {
        return Err(Problem::Field);
    }
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(Problem::MonthOrDay);
    }
    let year = if before_christ { 1 - year } else { year };
    if day > days_in_month(year, month) {
        return Err(Problem::Field);
    }
    Ok(days_from_civil(year, month, day))
}

fn clock_micros(
    (hours, minutes, seconds, micros): (i64, i64, i64, i64),
    afternoon: Option<bool>,
) -> Result<i64, Problem> {
    // A 60th second is allowed and rolls over, as in Postgres.
    if minutes > 59 || seconds > 60 || afternoon.is_some() && hours > 12 {
        return Err(Problem::Field);
    }
    let hours = match afternoon {
        Some(true) if hours < 12 => hours + 12,
        Some(false) if hours == 12 => 0,
        _ => hours,
    };
    let total = (hours * 3600 + minutes * 60 + seconds) * MICROS_PER_SECOND + micros;
    if hours > 24 || total > SECONDS_PER_DAY * MICROS_PER_SECOND { Err(Problem::Field) } else { Ok(total) }
}

fn month_number(word: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let matches =
        |month: &str| word == month || word == &month[..3] || word == "sept" && month == "september";
    MONTHS.iter().position(|month| matches(month)).and_then(|index| u32::try_from(index + 1).ok())
}

fn is_weekday(word: &str) -> bool {
    const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    DAYS.iter().any(|day| word == *day || word == &day[..3])
}
