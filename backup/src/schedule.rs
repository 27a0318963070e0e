//! When backups are due: `daily 03:00`, `hourly`, `every 6h`, `off`. Times are UTC.

use std::{fmt, str::FromStr};

use sepal_database::{Error, SqlState};

use crate::moment::SECOND;

const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Microseconds after midnight.
    Daily(i64),
    /// Microseconds from one to the next.
    Every(i64),
}

impl Schedule {
    /// When the next one is due, after one that began at `last`; at once where there was none, or where a clock that
    /// was put back since says that it is still to come.
    pub fn due(self, last: Option<i64>, now: i64) -> i64 {
        let Some(last) = last.filter(|last| *last <= now) else { return now };
        match self {
            Self::Every(interval) => last.saturating_add(interval),
            Self::Daily(at) => {
                let midnight = last - last.rem_euclid(DAY);
                let same_day = midnight + at;
                if same_day > last { same_day } else { same_day + DAY }
            }
        }
    }

    /// `None` for `off`.
    pub fn parse_or_off(text: &str) -> Result<Option<Self>, Error> {
        if text.trim() == "off" { Ok(None) } else { text.parse().map(Some) }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let found = match words[..] {
            ["hourly"] => Some(Self::Every(HOUR)),
            ["daily"] => Some(Self::Daily(0)),
            ["daily", at] => clock(at).map(Self::Daily),
            ["every", interval] => length(interval).map(Self::Every),
            _ => None,
        };
        found.ok_or_else(|| {
            Error::new(SqlState::InvalidParameterValue, format!("\"{text}\" is no schedule for backups"))
                .with_hint("Write daily 03:00 (UTC), hourly, every 6h, every 30m, or off.")
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daily(at) => write!(f, "daily {:02}:{:02}", at / HOUR, at % HOUR / (60 * SECOND)),
            Self::Every(interval) => write!(f, "every {}m", interval / (60 * SECOND)),
        }
    }
}

fn clock(text: &str) -> Option<i64> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
    ((0..24).contains(&hour) && (0..60).contains(&minute)).then_some(hour * HOUR + minute * 60 * SECOND)
}

fn length(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: i64 = number.parse().ok().filter(|number| (1..=10_000).contains(number))?;
    match unit {
        "m" => Some(number * 60 * SECOND),
        "h" => Some(number * HOUR),
        "d" => Some(number * DAY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_follows_the_last() {
        let daily: Schedule = "daily 03:00".parse().unwrap();
        let two = 2 * HOUR;
        assert_eq!(daily.due(None, 77), 77, "the first is due at once");
        assert_eq!(daily.due(Some(two), two), 3 * HOUR);
        assert_eq!(daily.due(Some(3 * HOUR), 3 * HOUR), DAY + 3 * HOUR);
        assert_eq!(daily.due(Some(5 * DAY + 4 * HOUR), 5 * DAY + 5 * HOUR), 6 * DAY + 3 * HOUR);
        let put_back = 4 * DAY;
        assert_eq!(daily.due(Some(5 * DAY), put_back), put_back, "not only when the clock is there again");
        let every: Schedule = "every 30m".parse().unwrap();
        assert_eq!(every.due(Some(10), 11), 10 + HOUR / 2);
        assert_eq!(Schedule::parse_or_off("off").unwrap(), None);
        for wrong in ["", "daily 24:00", "every 0h", "every h", "every 5", "weekly", "daily 3"] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong}");
        }
        assert_eq!(daily.to_string().parse::<Schedule>().unwrap(), daily);
    }
}
