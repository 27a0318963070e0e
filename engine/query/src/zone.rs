//! A session's time zone: which offset a clock has at an instant, and at which instant it shows a time.
//!
//! `database::Session` keeps one by the setting `TimeZone` and plans with an [`Engine`](crate::planner::Engine) of that
//! zone; the server reads and prints values within it. What reads and prints a `timestamptz` (`values`, `functions`)
//! asks for [`Zone::current`], as PostgreSQL's asks for its global `session_timezone`: a zone that every parser,
//! printer and cast is handed would stand in hundreds of signatures for the sake of a few lines. It is the zone of the
//! one call that [`Zone::within`] makes on this thread, and UTC outside of any: what is stored never depends on it.
//! Rules are those of the IANA, as `chrono-tz` has them; nothing here reads a file.

use std::cell::Cell;

use arrow::{
    array::AsArray,
    datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType},
};
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::{OffsetName, TZ_VARIANTS, Tz};
use sepal_types::{SqlType, civil_from_days, days_from_civil};

use crate::values::decode_text;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
const MICROS_PER_DAY: i64 = SECONDS_PER_DAY * MICROS_PER_SECOND;
/// 2100-01-01: the rules are written out up to then.
const RULES_END_SECONDS: i64 = 4_102_444_800;
/// Years in which each calendar that a year can have comes up.
const LAST_YEARS: std::ops::Range<i64> = 2072..2100;
/// Most hours of an offset, as POSIX has it: those of a week.
const MOST_HOURS: i64 = 167;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone(Rules);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rules {
    /// Under any of its names.
    Utc,
    /// Seconds to the east of Greenwich.
    Fixed(i32),
    Named(Tz),
}

thread_local! {
    static CURRENT: Cell<Zone> = const { Cell::new(Zone::UTC) };
}

/// Puts the zone back that was there before, also when the work panics.
struct Before(Zone);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl Zone {
    pub const UTC: Self = Self(Rules::Utc);

    /// A value of `TimeZone`, and the form in which SHOW prints it: a name of the IANA's in any case, hours to the east,
    /// an offset to the west as POSIX writes it (`UTC+3`, `+05:30`, `<-03>+3`), `interval '-08:00'` (`check_timezone`
    /// and `pg_tzset` of PostgreSQL). `None` for what is no zone.
    pub fn parse(text: &str) -> Option<(Self, String)> {
        let text = text.trim();
        // Most sessions' zone, whose settings are read often.
        if ["utc", "z"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
            return Some((Self::UTC, "UTC".to_owned()));
        }
        if let Some(span) = after_word(text, "interval") {
            return hours_east(interval_seconds(span)?);
        }
        if let Ok(hours) = text.parse::<f64>()
            && !text.ends_with(|last: char| last.is_ascii_alphabetic())
        {
            // Also what is no number, or none that counts seconds.
            let near = (-1e3..1e3).contains(&hours);
            return if near { hours_east((hours * 3600.0) as i64) } else { None };
        }
        if let Some(tz) = iana(text) {
            return Some((Self::of(tz), tz.name().to_owned()));
        }
        Some((Self::fixed(posix_seconds(text)?)?, text.to_ascii_uppercase()))
    }

    /// What a value, AT TIME ZONE and `date_trunc` name: an abbreviation, which is one offset all year round, a name
    /// of the IANA's, or an offset to the west as POSIX writes it, also a bare number (`DecodeTimezoneName` of
    /// PostgreSQL). `None` for what is no zone.
    pub fn named(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(east) = abbreviated(&text.to_ascii_lowercase()) {
            return Self::fixed(east.into());
        }
        match iana(text) {
            Some(tz) => Some(Self::of(tz)),
            None => Self::fixed(posix_seconds(text)?),
        }
    }

    fn of(tz: Tz) -> Self {
        if is_utc(tz) { Self::UTC } else { Self(Rules::Named(tz)) }
    }

    /// Of so many seconds to the east of Greenwich.
    pub(crate) fn fixed(east: i64) -> Option<Self> {
        match i32::try_from(east).ok()? {
            0 => Some(Self::UTC),
            east => Some(Self(Rules::Fixed(east))),
        }
    }

    pub fn is_utc(self) -> bool {
        self == Self::UTC
    }

    /// The zone of the work at hand.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Does something that reads and prints times in this zone, and does not wait meanwhile.
    pub fn within<T>(self, work: impl FnOnce() -> T) -> T {
        let _before = Before(CURRENT.replace(self));
        work()
    }

    /// Seconds to the east of Greenwich at an instant, in microseconds since 1970.
    pub fn offset(self, micros: i64) -> i64 {
        match self.0 {
            Rules::Utc => 0,
            Rules::Fixed(east) => east.into(),
            Rules::Named(tz) => {
                let offset = of_rules(tz, micros);
                offset.map_or(0, |offset| offset.fix().local_minus_utc().into())
            }
        }
    }

    /// What the clock shows at an instant, as microseconds since 1970 without a zone; the infinities are none of either.
    pub fn clock(self, micros: i64) -> i64 {
        if self.is_utc() || is_infinite(micros) {
            return micros;
        }
        micros.saturating_add(self.offset(micros) * MICROS_PER_SECOND)
    }

    /// The instant at which the clock shows a time; `None` where there is no such number. Of a time that it shows twice
    /// the later one, of one that it leaves out what the offset before makes of it: both are of standard time
    /// (`DetermineTimeZoneOffset` of PostgreSQL).
    pub fn instant(self, shown: i64) -> Option<i64> {
        if self.is_utc() || is_infinite(shown) {
            return Some(shown);
        }
        let before = self.offset(shown.saturating_sub(MICROS_PER_DAY));
        let after = self.offset(shown.saturating_add(MICROS_PER_DAY));
        let at = |offset: i64| shown.checked_sub(offset * MICROS_PER_SECOND);
        let (early, late) = (at(before)?, at(after)?);
        let offset = match (self.offset(early) == before, self.offset(late) == after) {
            (true, false) => before,
            (false, true) => after,
            _ => before.min(after),
        };
        at(offset).filter(|instant| !is_infinite(*instant))
    }

    /// What the offset at an instant is called: `CEST`, `+0530`.
    pub fn abbreviation(self, micros: i64) -> String {
        if let Rules::Named(tz) = self.0
            && let Some(offset) = of_rules(tz, micros)
            && let Some(name) = offset.abbreviation()
        {
            return name.to_owned();
        }
        match self.offset(micros) {
            0 => "UTC".to_owned(),
            east => format!("{}{}", if east < 0 { '-' } else { '+' }, clock_text(east.abs())),
        }
    }
}

const fn is_infinite(micros: i64) -> bool {
    matches!(micros, i64::MAX | i64::MIN)
}

/// A zone's name in any case.
fn iana(name: &str) -> Option<Tz> {
    let in_any_case = || TZ_VARIANTS.iter().copied().find(|tz| tz.name().eq_ignore_ascii_case(name));
    name.parse().ok().or_else(in_any_case)
}

/// Seconds to the east of Greenwich that an abbreviation in lower case stands for, whatever the season: the best known
/// ones of PostgreSQL's `timezonesets/Default`, but for those that several zones lay claim to.
pub(crate) fn abbreviated(word: &str) -> Option<i32> {
    const MINUTE: i32 = 60;
    const HOUR: i32 = 60 * MINUTE;
    Some(match word {
        "gmt" | "uct" | "ut" | "utc" | "wet" | "z" | "zulu" => 0,
        "bst" | "cet" | "met" => HOUR,
        "cest" | "eet" | "mest" => 2 * HOUR,
        "eest" | "msk" => 3 * HOUR,
        "pkt" => 5 * HOUR,
        "awst" | "hkt" => 8 * HOUR,
        "jst" | "kst" => 9 * HOUR,
        "acst" => 9 * HOUR + 30 * MINUTE,
        "aest" => 10 * HOUR,
        "acdt" => 10 * HOUR + 30 * MINUTE,
        "aedt" => 11 * HOUR,
        "nzst" => 12 * HOUR,
        "nzdt" => 13 * HOUR,
        "ndt" => -(2 * HOUR + 30 * MINUTE),
        "adt" => -3 * HOUR,
        "nst" => -(3 * HOUR + 30 * MINUTE),
        "ast" | "edt" => -4 * HOUR,
        "cdt" | "est" => -5 * HOUR,
        "cst" | "mdt" => -6 * HOUR,
        "mst" | "pdt" => -7 * HOUR,
        "akdt" | "pst" => -8 * HOUR,
        "akst" => -9 * HOUR,
        "hst" => -10 * HOUR,
        _ => return None,
    })
}

/// The names under which UTC goes.
fn is_utc(tz: Tz) -> bool {
    let name = tz.name().strip_prefix("Etc/").unwrap_or(tz.name());
    matches!(name, "UTC" | "UCT" | "Universal" | "Zulu" | "GMT" | "GMT0" | "GMT+0" | "GMT-0" | "Greenwich")
}

fn of_rules(tz: Tz, micros: i64) -> Option<chrono_tz::TzOffset> {
    let seconds = within_rules(micros.div_euclid(MICROS_PER_SECOND));
    let time = DateTime::from_timestamp(seconds, 0)?;
    Some(tz.offset_from_utc_datetime(&time.naive_utc()))
}

/// The same time of the same day of a year that has the same calendar, before the rules end: the last ones go on.
fn within_rules(seconds: i64) -> i64 {
    if seconds < RULES_END_SECONDS {
        return seconds;
    }
    let year = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY)).0;
    let first = |year: i64| days_from_civil(year, 1, 1);
    let length = |year: i64| first(year + 1) - first(year);
    let alike = |other: &i64| {
        length(*other) == length(year) && first(*other).rem_euclid(7) == first(year).rem_euclid(7)
    };
    let mut years = LAST_YEARS;
    let other = years.find(alike).unwrap_or(LAST_YEARS.start);
    seconds - (first(year) - first(other)) * SECONDS_PER_DAY
}

/// What follows a word at the beginning.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let begins = text.get(..word.len())?.eq_ignore_ascii_case(word);
    begins.then(|| text[word.len()..].trim().trim_matches('\''))
}

/// `None` for an interval with months or days, which is no offset.
fn interval_seconds(text: &str) -> Option<i64> {
    let array = decode_text(&SqlType::Interval, Some(text.as_bytes())).ok()?;
    let spans = array.as_primitive_opt::<IntervalMonthDayNanoType>()?;
    let IntervalMonthDayNano { months, days, nanoseconds } = spans.value(0);
    (months == 0 && days == 0).then_some(nanoseconds / 1_000_000_000)
}

/// A zone of so many seconds, under the name that PostgreSQL makes of it: `<-08>+08`.
fn hours_east(east: i64) -> Option<(Zone, String)> {
    if east.abs() > MOST_HOURS * 3600 + 3599 {
        return None;
    }
    let shown = clock_text(east.abs());
    let name = if east < 0 { format!("<-{shown}>+{shown}") } else { format!("<+{shown}>-{shown}") };
    Some((Zone::fixed(east)?, name))
}

/// `08`, `05:30`, `00:53:28`
fn clock_text(seconds: i64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (minutes, seconds) {
        (0, 0) => format!("{hours:02}"),
        (_, 0) => format!("{hours:02}:{minutes:02}"),
        _ => format!("{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// `UTC+3`, `+05:30`, `<+03>-3` as seconds to the east; the name before the offset says nothing. `None` for anything
/// else, also where summer time follows.
fn posix_seconds(text: &str) -> Option<i64> {
    let rest = match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>')?.1,
        None => text.trim_start_matches(|letter: char| letter.is_ascii_alphabetic()),
    };
    let (west, digits) = match rest.split_at_checked(1)? {
        ("-", digits) => (-1, digits),
        ("+", digits) => (1, digits),
        _ => (1, rest),
    };
    let mut parts = digits.split(':');
    let mut part = |most: i64| -> Option<Option<i64>> {
        let Some(part) = parts.next() else { return Some(None) };
        let plain = (1..=3).contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_digit());
        let number = plain.then(|| part.parse::<i64>().ok()).flatten()?;
        (number <= most).then_some(Some(number))
    };
    let (hours, minutes, seconds) = (part(MOST_HOURS)??, part(59)?.unwrap_or(0), part(60)?.unwrap_or(0));
    parts.next().is_none().then_some(-west * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600 * MICROS_PER_SECOND;

    fn zone(text: &str) -> Zone {
        Zone::parse(text).unwrap_or_else(|| panic!("{text} is a zone")).0
    }

    fn at(year: i64, month: u32, day: u32, hours: i64) -> i64 {
        days_from_civil(year, month, day) * MICROS_PER_DAY + hours * HOUR
    }

    #[test]
    fn zones_have_the_names_that_postgres_shows() {
        for (text, shown, hours) in [
            ("europe/BERLIN", "Europe/Berlin", 2.0),
            ("America/New_York", "America/New_York", -4.0),
            ("asia/calcutta", "Asia/Calcutta", 5.5),
            ("utc", "UTC", 0.0),
            ("Etc/UTC", "Etc/UTC", 0.0),
            ("gmt", "GMT", 0.0),
            ("-8", "<-08>+08", -8.0),
            ("5.5", "<+05:30>-05:30", 5.5),
            ("0", "<+00>-00", 0.0),
            ("+05:30", "+05:30", -5.5),
            ("utc+3", "UTC+3", -3.0),
            ("GMT-05:30", "GMT-05:30", 5.5),
            ("<+03>-3", "<+03>-3", 3.0),
            ("interval '-08:00'", "<-08>+08", -8.0),
            ("Etc/GMT+8", "Etc/GMT+8", -8.0),
        ] {
            let (zone, name) = Zone::parse(text).unwrap_or_else(|| panic!("{text} is a zone"));
            assert_eq!(
                (name.as_str(), zone.offset(at(2024, 7, 1, 0))),
                (shown, (hours * 3600.0) as i64),
                "{text}"
            );
        }
        for text in [
            "",
            "Mars/Base",
            "168",
            "1e9",
            "-1e400",
            "inf",
            "nan",
            "UTC+3x",
            "+5:60",
            "<+03",
            "interval '1 day'",
            "+",
            "UTC+",
        ] {
            assert!(Zone::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn zones_that_statements_name_are_abbreviations_too() {
        for (text, hours) in [
            ("CET", 1.0),
            ("cest", 2.0),
            ("Z", 0.0),
            ("PST", -8.0),
            ("NST", -3.5),
            ("EST5EDT", -4.0),
            ("europe/BERLIN", 2.0),
            ("America/Port_of_Spain", -4.0),
            ("Etc/GMT+8", -8.0),
            ("+02", -2.0),
            ("-3:30", 3.5),
            ("5", -5.0),
            ("UTC+3", -3.0),
            ("<+0530>-5:30", 5.5),
        ] {
            let zone = Zone::named(text).unwrap_or_else(|| panic!("{text} is a zone"));
            assert_eq!(zone.offset(at(2024, 7, 1, 0)), (hours * 3600.0) as i64, "{text}");
        }
        for text in ["", "Mars/Base", "1.5", "interval '1 hour'", "+0530"] {
            assert!(Zone::named(text).is_none(), "{text}");
        }
    }

    #[test]
    fn times_that_a_clock_leaves_out_or_shows_twice_are_of_standard_time() {
        let berlin = zone("Europe/Berlin");
        assert_eq!(berlin.instant(at(2024, 3, 31, 2)), Some(at(2024, 3, 31, 1)), "left out");
        assert_eq!(berlin.instant(at(2024, 3, 31, 1)), Some(at(2024, 3, 31, 0)));
        assert_eq!(berlin.instant(at(2024, 3, 31, 3)), Some(at(2024, 3, 31, 1)));
        assert_eq!(berlin.instant(at(2024, 10, 27, 2)), Some(at(2024, 10, 27, 1)), "shown twice");
        assert_eq!(berlin.clock(at(2024, 10, 27, 0)), at(2024, 10, 27, 2));
        let new_york = zone("America/New_York");
        assert_eq!(new_york.instant(at(2024, 3, 10, 2)), Some(at(2024, 3, 10, 7)));
        assert_eq!(new_york.instant(at(2024, 11, 3, 1)), Some(at(2024, 11, 3, 6)));
        for infinite in [i64::MAX, i64::MIN] {
            assert_eq!((berlin.clock(infinite), berlin.instant(infinite)), (infinite, Some(infinite)));
        }
    }

    #[test]
    fn the_last_rules_go_on() {
        let berlin = zone("Europe/Berlin");
        for year in [2099, 2100, 2101, 2400, 9999, 294_000] {
            assert_eq!(berlin.offset(at(year, 7, 1, 0)), 7_200, "{year}");
            assert_eq!(berlin.offset(at(year, 12, 31, 23)), 3_600, "{year}");
        }
        // Before clocks were set by zones, by the sun.
        assert_eq!(berlin.offset(at(1800, 1, 1, 0)), 3_208);
        assert_eq!(berlin.offset(at(-4000, 1, 1, 0)), 3_208);
    }

    #[test]
    fn a_zone_is_that_of_one_call() {
        assert!(Zone::current().is_utc());
        let kolkata = zone("Asia/Kolkata");
        let (inside, within) = kolkata.within(|| (Zone::current(), Zone::UTC.within(Zone::current)));
        assert_eq!((inside, within, Zone::current()), (kolkata, Zone::UTC, Zone::UTC));
        assert_eq!(kolkata.abbreviation(0), "IST");
        assert_eq!(zone("-8").abbreviation(0), "-08");
    }
}
