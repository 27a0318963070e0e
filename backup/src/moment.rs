//! Moments: microseconds since 1970, UTC, as people write them.

use std::time::{SystemTime, UNIX_EPOCH};

use sepal_database::{Error, Result, SqlState};

const DAY: i64 = 86_400;
/// Microseconds of a second.
pub(crate) const SECOND: i64 = 1_000_000;

/// Now.
pub(crate) fn now_us() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

/// Year, month, day; hour, minute, second.
fn civil(us: i64) -> ((i64, i64, i64), (i64, i64, i64)) {
    let seconds = us.div_euclid(SECOND);
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Howard Hinnant's civil_from_days: years begin in March.
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    ((year, month, day), (second / 3_600, second / 60 % 60, second % 60))
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `20261122T030000Z`: sorts as time does.
pub(crate) fn compact(us: i64) -> String {
    let ((year, month, day), (hour, minute, second)) = civil(us);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `2026-11-22`.
pub fn day(us: i64) -> String {
    let ((year, month, day), _) = civil(us);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-22 03:00:00Z`.
pub fn show(us: i64) -> String {
    let (_, (hour, minute, second)) = civil(us);
    format!("{} {hour:02}:{minute:02}:{second:02}Z", day(us))
}

/// Reads `2026-11-22`, `2026-11-22 03:00`, `2026-11-22T03:00:00.25+01:00`. Without a zone it is UTC.
pub fn parse(text: &str) -> Result<i64> {
    read(text.trim()).ok_or_else(|| {
        Error::new(SqlState::InvalidDatetimeFormat, format!("\"{text}\" is no moment")).with_hint(
            "Write it as 2026-11-22T03:00:00Z, with Z or +01:00 for the zone; without one it is UTC. Seconds may \
             have up to nine digits after the point.",
        )
    })
}

fn read(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, time.trim()),
        None => (text, "00:00"),
    };
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (field(date.next()?, 4)?, field(date.next()?, 2)?, field(date.next()?, 2)?);
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let mut clock = clock.trim().splitn(3, ':');
    let (hour, minute) = (field(clock.next()?, 2)?, field(clock.next()?, 2)?);
    let (second, us) = match clock.next() {
        None => (0, 0),
        Some(text) => {
            let (second, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let digits = (1..=9).contains(&fraction.len());
            // Commits have microseconds: what is beyond, as Go and Java write it, tells none apart.
            let padded = digits.then(|| format!("{fraction:0<9}"))?;
            (field(second, 2)?, field(&padded, 9)? / 1_000)
        }
    };
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let days = days_from_civil(year, month, day);
    let ((_, _, real_day), _) = civil(days * DAY * SECOND);
    if !in_range || real_day != day {
        return None;
    }
    let seconds = days * DAY + hour * 3_600 + minute * 60 + second - offset(zone)?;
    Some(seconds * SECOND + us)
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.as_bytes().first() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (zone.len() == 1).then_some(0),
        Some(b'+') => (1, &zone[1..]),
        Some(_) => (-1, &zone[1..]),
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if rest.len() == 4 && rest.is_ascii() => rest.split_at(2),
        None => (rest, "00"),
    };
    Some(sign * (field(hours, 2)? * 3_600 + field(minutes, 2)? * 60))
}

fn field(digits: &str, length: usize) -> Option<i64> {
    let plain = digits.len() == length && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_with_and_without_a_zone() {
        assert_eq!(parse("1970-01-01T00:00:00Z").unwrap(), 0);
        assert_eq!(parse("2000-02-29 12:00").unwrap(), 951_825_600 * SECOND);
        assert_eq!(parse("2026-11-22T04:00:00.25+01:00").unwrap(), parse("2026-11-22 03:00:00.25").unwrap());
        assert_eq!(parse("2026-11-22T04:00:00+0100").unwrap(), parse("2026-11-22 03:00:00Z").unwrap());
        assert_eq!(parse("1970-01-01T00:00:01.123456789Z").unwrap(), SECOND + 123_456);
        for wrong in [
            "",
            "1970-01-01T00:00:01.1234567890Z",
            "yesterday",
            "2026-02-30",
            "2026-13-01",
            "2026-01-01T25:00",
            "2026-01-01T00:00:00Zx",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(compact(951_825_600 * SECOND), "20000229T120000Z");
        assert_eq!(day(-1), "1969-12-31");
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(seconds in -60_000_000_000_i64..200_000_000_000) {
            let us = seconds * SECOND;
            prop_assert_eq!(parse(&show(us)).unwrap(), us);
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
