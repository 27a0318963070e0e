//! `FOR … [OF …] [NOWAIT | SKIP LOCKED]`, as `sql::row_locks` has written it for the parser.

use datafusion::sql::sqlparser::ast::{LockClause, LockType, NonBlock};

use super::RowMode;
use crate::sql::marked_lock;

/// What to do about a row that somebody else has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitPolicy {
    Wait,
    Skip,
    Refuse,
}

/// One clause.
#[derive(Debug)]
pub(super) struct Clause {
    pub mode: RowMode,
    /// The one item of FROM that it is about; all where it names none.
    pub of: Option<String>,
    pub wait: WaitPolicy,
}

impl Clause {
    pub fn read(clause: &LockClause) -> Self {
        let wait = match clause.nonblock {
            None => WaitPolicy::Wait,
            Some(NonBlock::Nowait) => WaitPolicy::Refuse,
            Some(NonBlock::SkipLocked) => WaitPolicy::Skip,
        };
        if let Some((mode, of)) = clause.of.as_ref().and_then(marked_lock) {
            return Self { mode, of, wait };
        }
        let mode = match clause.lock_type {
            LockType::Share => RowMode::Share,
            LockType::Update => RowMode::Update,
        };
        let of = clause.of.as_ref().and_then(|name| crate::ddl::object_name(name).ok());
        Self { mode, of, wait }
    }

    /// As error messages call it.
    pub fn name(&self) -> &'static str {
        match self.mode {
            RowMode::KeyShare => "FOR KEY SHARE",
            RowMode::Share => "FOR SHARE",
            RowMode::NoKeyUpdate => "FOR NO KEY UPDATE",
            RowMode::Update => "FOR UPDATE",
        }
    }
}
