//! Many searches in one statement: `FROM queries q, LATERAL (SELECT … FROM items ORDER BY items.v <=> q.v LIMIT k) n`.
//!
//! DataFusion cannot take such a subquery out of its place: its LIMIT holds for each row beside it. `rule` recognises
//! it and puts a [`node::Lateral`] where the join was, before any other rule touches the plan; `read` says what it
//! recognises. `exec` takes the rows of the input in pieces and spreads these over threads; `searches` answers a piece.
//! One snapshot, one set of opened indexes and one evaluation of the WHERE clause serve all searches. A condition on
//! both sides, `items.id <> q.id`, is evaluated over the table once per row of the input (`pairs`).
//!
//! What it gives is exact where [`super::search`] is: the rows of each input row come nearest first, ties by the other
//! sort keys, LIMIT filled whenever enough rows qualify.

mod exec;
mod join;
mod node;
mod pairs;
mod read;
mod rule;
mod searches;

pub use exec::{LateralExec, LateralPlanner};
pub use join::{LateralJoin, filtered, outer_as_columns};
pub use rule::LateralRule;
