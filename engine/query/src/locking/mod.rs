//! `SELECT … FOR UPDATE` and its weaker forms: which rows of which tables a query locks.
//!
//! Compiled at Parse into a plan that gives the ids of the rows beside what the client sees. `database::Session` runs
//! it, takes the locks, and runs it again where rows turned out to be somebody else's or replaced; nothing here waits.
//! Such a query within another statement is run before it, and the statement reads what it gave: see [`nested`].

mod clause;
mod compile;
mod nested;
mod run;

use std::sync::Arc;

use crate::{output::OutputColumn, planner::LogicalPlan, point::PointRead, table::RowFilter};
use sepal_types::TableId;

pub use clause::WaitPolicy;
pub use nested::{NestedLock, nested};
pub use run::Found;

/// How a row is locked; weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowMode {
    KeyShare,
    Share,
    NoKeyUpdate,
    Update,
}

impl RowMode {
    /// A query that locks so, as error messages call it.
    pub const fn statement(self) -> &'static str {
        match self {
            Self::KeyShare => "SELECT FOR KEY SHARE",
            Self::Share => "SELECT FOR SHARE",
            Self::NoKeyUpdate => "SELECT FOR NO KEY UPDATE",
            Self::Update => "SELECT FOR UPDATE",
        }
    }
}

/// A compiled query with a locking clause.
#[derive(Clone, Debug)]
pub struct LockingQuery {
    plan: LogicalPlan,
    /// The plan again, where its WHERE clause names a key.
    point: Option<Arc<PointRead>>,
    /// What the client sees: the plan's columns without the ids after them.
    columns: Vec<OutputColumn>,
    relations: Vec<LockedRelation>,
    /// It has LIMIT, OFFSET or FETCH: a row that cannot be had makes room for another.
    limited: bool,
}

/// A table of FROM whose rows are locked.
#[derive(Clone, Debug)]
pub struct LockedRelation {
    pub table: TableId,
    /// The table's name.
    pub name: String,
    pub mode: RowMode,
    pub wait: WaitPolicy,
    /// Which of the table's rows this item of FROM gives.
    pub filter: RowFilter,
    /// The name by which the query calls it.
    alias: String,
}

impl LockingQuery {
    pub fn plan(&self) -> &LogicalPlan {
        &self.plan
    }

    pub fn point(&self) -> Option<&PointRead> {
        self.point.as_deref()
    }

    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    pub fn relations(&self) -> &[LockedRelation] {
        &self.relations
    }

    pub fn is_limited(&self) -> bool {
        self.limited
    }
}
