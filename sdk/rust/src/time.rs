//! The civil time of a point in seconds since 1970, and back: what signatures and `retry-after` need. UTC only.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 by the host's clock.
pub fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// A date and time of day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: i64,
    /// From 1.
    pub month: u8,
    /// From 1.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Civil {
    /// Of seconds since 1970, by Howard Hinnant's `civil_from_days`: eras of 400 years that begin in March.
    pub fn of(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let small = |number: i64| u8::try_from(number).unwrap_or_default();
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: small(month),
            day: small(day_of_year - (153 * from_march + 2) / 5 + 1),
            hour: small(rest / 3_600),
            minute: small(rest / 60 % 60),
            second: small(rest % 60),
        }
    }

    /// Seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = self.year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * from_march + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        days * 86_400 + i64::from(self.hour) * 3_600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }

    /// `20150830T123600Z`, as AWS signs it.
    pub fn basic(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// Of an HTTP date, `Wed, 21 Oct 2015 07:28:00 GMT` (RFC 9110, 5.6.7; the obsolete forms are not read).
    pub fn of_http_date(text: &str) -> Option<Self> {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let mut words = text.split_once(", ")?.1.split(' ');
        let day = words.next()?.parse().ok()?;
        let name = words.next()?;
        let month = MONTHS.iter().position(|month| *month == name)? + 1;
        let year = words.next()?.parse().ok()?;
        let mut clock = words.next()?.split(':');
        let mut next = || clock.next()?.parse().ok();
        let (hour, minute, second) = (next()?, next()?, next()?);
        let month = u8::try_from(month).ok()?;
        let civil = Self { year, month, day, hour, minute, second };
        (words.next() == Some("GMT") && civil.is_plausible()).then_some(civil)
    }

    /// Of an RFC 3339 time or the way Postgres writes one: `2026-11-22T10:00:00.5Z`, `2026-11-22 10:00:00+01`. With
    /// the nanoseconds; the offset is taken off.
    pub fn of_rfc3339(text: &str) -> Option<(i64, u32)> {
        let (date, clock) = text.split_once(['T', 't', ' '])?;
        let mut date = date.splitn(3, '-');
        let year: i64 = date.next()?.parse().ok()?;
        let (month, day) = (date.next()?.parse().ok()?, date.next()?.parse().ok()?);
        let zone_at = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
        let (clock, zone) = clock.split_at(zone_at);
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut clock = clock.split(':');
        let mut next = || clock.next()?.parse().ok();
        let (hour, minute, second) = (next()?, next()?, next()?);
        let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        let civil = Self { year, month, day, hour, minute, second };
        if !civil.is_plausible() {
            return None;
        }
        Some((civil.unix_seconds() - offset_seconds(zone)?, digits.parse().ok()?))
    }

    /// Within what the arithmetic above was written for; not whether February has this day.
    fn is_plausible(self) -> bool {
        (0..10_000).contains(&self.year)
            && (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second <= 60
    }
}

/// Of `Z`, `+01`, `-03:30` or nothing.
fn offset_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.bytes().next() {
        None | Some(b'Z' | b'z') => return Some(0),
        Some(b'-') => -1,
        Some(_) => 1,
    };
    let (hours, minutes) = zone[1..].split_once(':').unwrap_or((&zone[1..], "0"));
    Some(sign * (i64::from(hours.parse::<u8>().ok()?) * 3_600 + i64::from(minutes.parse::<u8>().ok()?) * 60))
}
