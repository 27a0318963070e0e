//! SQLite's integers are signed, ours count: epochs, generations, numbers of entries.
//!
//! Their associated data has the unsigned number. A negative one in a row was written by somebody without a key, and
//! must not pass for its positive: it would sort before all others.

use crate::{ControlError, control_error::Result};

/// As a column holds it. What we count is far from the end.
pub(crate) fn to_column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// `what` names the row in the error.
pub(crate) fn from_column(what: &'static str, value: i64) -> Result<u64> {
    u64::try_from(value)
        .map_err(|_| ControlError::Corrupt { what, why: format!("its number is {value}, below zero") })
}
