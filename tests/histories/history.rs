//! What clients did and saw: a list of transactions, each with its operations, in no particular order.
//!
//! Every key holds a list, and every write appends a value that no other write has, so that one read tells the order
//! of all writes that came before it. `S` is what a read saw; histories of registers come with another one
//! ([`super::registers`]).

use std::fmt;

pub type Key = i64;
pub type Value = i64;
/// A moment, by a counter that all clients share: what ended at 5 had ended before what began at 6.
pub type Tick = u64;

/// The level of all transactions of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    ReadCommitted,
    RepeatableRead,
}

impl Level {
    pub fn begin(self) -> &'static str {
        match self {
            Level::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Level::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction<S = Vec<Value>> {
    pub client: usize,
    pub begun: Tick,
    pub outcome: Outcome,
    pub ops: Vec<Op<S>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, at this moment.
    Committed(Tick),
    Aborted,
    /// COMMIT was sent, and no answer came.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<S = Vec<Value>> {
    /// Appends, or sets a register. Recorded when it is sent.
    Write { key: Key, value: Value },
    /// Such a write inside a savepoint that was then rolled back.
    Undone { key: Key, value: Value },
    /// What one statement saw. `locked`: by SELECT FOR UPDATE.
    Read { seen: Vec<(Key, S)>, locked: bool },
}

impl Transaction {
    /// Values that this transaction wrote, with their keys; `undone` ones have that flag.
    pub fn writes(&self) -> impl Iterator<Item = (Key, Value, bool)> {
        self.ops.iter().filter_map(|op| match op {
            Op::Write { key, value } => Some((*key, *value, false)),
            Op::Undone { key, value } => Some((*key, *value, true)),
            Op::Read { .. } => None,
        })
    }
}

impl<S: fmt::Debug> fmt::Display for Transaction<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}, begun at {}:", self.client, self.begun)?;
        for op in &self.ops {
            match op {
                Op::Write { key, value } => write!(f, " write {key}+{value};")?,
                Op::Undone { key, value } => write!(f, " write and undo {key}+{value};")?,
                Op::Read { seen, locked } => {
                    f.write_str(if *locked { " read for update" } else { " read" })?;
                    for (key, value) in seen {
                        write!(f, " {key}={value:?}")?;
                    }
                    f.write_str(";")?;
                }
            }
        }
        match self.outcome {
            Outcome::Committed(at) => write!(f, " committed at {at}"),
            Outcome::Aborted => f.write_str(" aborted"),
            Outcome::Unknown => f.write_str(" its COMMIT had no answer"),
        }
    }
}
