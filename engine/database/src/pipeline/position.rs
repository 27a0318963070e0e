//! A place in a pipeline's stream: a row of its snapshot, or an event of a commit.
//!
//! Written as text wherever it leaves this module: into `pipeline_state`, batches, dead letters and
//! `ALTER PIPELINE … RESUME FROM`.
//!
//! ```text
//! s<commit, 16 hex>.<row id, 16 hex>     a row of the table as of that commit
//! <commit, 16 hex>.<index, 8 hex>        the commit's event of that index, from 0; ffffffff: the whole commit
//! ```

use std::fmt;

use sepal_types::{Error, Lsn, Result, RowId, SqlState};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Ordered as the stream is: the snapshot comes before every commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    Snapshot { lsn: Lsn, row: RowId },
    Feed { lsn: Lsn, index: u32 },
}

impl Position {
    /// Everything up to and including a commit.
    pub const fn end_of(lsn: Lsn) -> Self {
        Self::Feed { lsn, index: u32::MAX }
    }

    /// The commit that it is a place in, or as of which the snapshot is.
    pub const fn lsn(&self) -> Lsn {
        match self {
            Self::Snapshot { lsn, .. } | Self::Feed { lsn, .. } => *lsn,
        }
    }

    /// The last commit of which nothing is needed any more.
    pub fn released(&self) -> Lsn {
        match self {
            // The rows deleted since are put back from the commits after it.
            Self::Snapshot { lsn, .. } | Self::Feed { lsn, index: u32::MAX } => *lsn,
            Self::Feed { lsn, .. } => Lsn(lsn.0.saturating_sub(1)),
        }
    }

    /// Errors: 22023 for anything but what `Display` prints.
    pub fn parse(text: &str) -> Result<Self> {
        read(text).ok_or_else(|| {
            Error::new(SqlState::InvalidParameterValue, format!("\"{text}\" is not a pipeline's position"))
                .with_hint("Take one from the column position of sepal_pipeline_status.")
        })
    }
}

fn read(text: &str) -> Option<Position> {
    let (first, second) = text.split_once('.')?;
    match first.strip_prefix('s') {
        Some(lsn) => Some(Position::Snapshot { lsn: Lsn(hex(lsn, 16)?), row: RowId(hex(second, 16)?) }),
        None => {
            let index = u32::try_from(hex(second, 8)?).ok()?;
            Some(Position::Feed { lsn: Lsn(hex(first, 16)?), index })
        }
    }
}

fn hex(digits: &str, length: usize) -> Option<u64> {
    let plain = digits.len() == length && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot { lsn, row } => write!(f, "s{:016x}.{:016x}", lsn.0, row.0),
            Self::Feed { lsn, index } => write!(f, "{:016x}.{index:08x}", lsn.0),
        }
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        read(&text).ok_or_else(|| de::Error::custom(format!("\"{text}\" is not a position")))
    }
}
