//! INSERT, UPDATE and DELETE: planned as queries for rows and row ids, then written.
//!
//! DataFusion's own DML is not used: UPDATE and DELETE can reach a provider without their filters there
//! (apache/datafusion#24654), and ON CONFLICT and RETURNING do not exist. Each statement is prepared into
//! logical plans once and may run many times. Running it has two steps, between which its caller locks rows:
//! [`Dml::draft`] finds them, [`Dml::write`] gives [`Op`]s for the transaction, never a write.

mod assign;
mod change;
mod checks;
mod conflict;
mod defaults;
mod generation;
mod insert;
pub mod references;
mod returning;
mod rewriting;
mod rows_table;

use std::sync::Arc;

use datafusion::{
    arrow::array::RecordBatch, logical_expr::LogicalPlan, scalar::ScalarValue, sql::sqlparser::ast,
};
use roaring::RoaringTreemap;
use sepal_storage::{Op, TenantStore};
use sepal_types::{Error, Result, RowId, TableId, UniqueDef};

use crate::{
    context::StatementContext, locking::RowMode, output::OutputColumn, planner::Engine, point::PointRead,
    sql::ParameterTypes,
};

pub use assign::{TargetRows, assign, rows_as, write_rows};
pub use checks::Checks;
pub(crate) use defaults::parse_default;
pub use defaults::{check_default_settled, default_values, missing_value};
pub use generation::{Generation, affected, check_generated, check_generated_settled};
pub use rewriting::Rewriting;
pub use rows_table::RowsTable;

pub use returning::parse_query;

use change::{Change, Matched};
use insert::{Insert, Proposal};

/// What a statement plans and runs with.
pub struct DmlContext<'a> {
    pub engine: &'a Engine,
    pub statement: &'a StatementContext,
    pub store: &'a Arc<TenantStore>,
}

/// A prepared statement.
#[derive(Debug)]
pub enum Dml {
    Insert(Box<Insert>),
    Change(Box<Change>),
}

/// What running it did.
#[derive(Debug, Default)]
pub struct Written {
    pub ops: Vec<Op>,
    /// Ids of rows that were replaced, and of what replaces them.
    pub replaced: Vec<(RowId, RowId)>,
    /// For the command tag.
    pub rows: u64,
    /// RETURNING.
    pub returned: Option<Vec<RecordBatch>>,
}

/// The rows that a statement is about to write, for locks to be taken on.
#[derive(Debug)]
pub enum Draft {
    Insert(Box<Proposal>),
    Change(Matched),
}

impl Draft {
    /// The rows that it replaces or removes, and those that ON CONFLICT DO UPDATE only looks at; ascending.
    pub fn rows(&self) -> &[RowId] {
        match self {
            Draft::Insert(proposal) => proposal.locked(),
            Draft::Change(matched) => &matched.ids,
        }
    }

    /// The rows for whose sake ON CONFLICT DO NOTHING leaves others out, ascending.
    pub fn standing(&self) -> &[RowId] {
        match self {
            Draft::Insert(proposal) => proposal.standing(),
            Draft::Change(_) => &[],
        }
    }
}

impl Dml {
    /// Prepares INSERT, UPDATE or DELETE, the latter two also after WITH; `None` for any other statement.
    pub fn prepare(
        statement: &ast::Statement,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Option<Dml>> {
        let (statement, with) = match statement {
            ast::Statement::Query(query) => match query.body.as_ref() {
                ast::SetExpr::Update(statement) | ast::SetExpr::Delete(statement) => {
                    (statement, query.with.as_ref())
                }
                _ => return Ok(None),
            },
            statement => (statement, None),
        };
        Ok(Some(match statement {
            ast::Statement::Insert(insert) => {
                Dml::Insert(Box::new(Insert::prepare(insert, parameters, context)?))
            }
            ast::Statement::Update(update) => {
                Dml::Change(Box::new(Change::update(update, with, parameters, context)?))
            }
            ast::Statement::Delete(delete) => {
                Dml::Change(Box::new(Change::delete(delete, with, parameters, context)?))
            }
            ast::Statement::Merge { .. } => {
                return Err(Error::unsupported("MERGE is not supported")
                    .with_hint("Use INSERT … ON CONFLICT DO UPDATE."));
            }
            _ => return Ok(None),
        }))
    }

    /// The columns of RETURNING.
    pub fn columns(&self) -> Option<&[OutputColumn]> {
        match self {
            Dml::Insert(insert) => insert.returning_columns(),
            Dml::Change(change) => change.returning_columns(),
        }
    }

    /// Finds the rows, in the statement's snapshot. Nothing is written, and no row id taken.
    pub async fn draft(&self, values: &[ScalarValue], context: &DmlContext<'_>) -> Result<Draft> {
        Ok(match self {
            Dml::Insert(insert) => Draft::Insert(Box::new(insert.find(values, context).await?)),
            Dml::Change(change) => Draft::Change(change.find(values, context).await?),
        })
    }

    /// Finds them again, in what the context shows now. Of an UPDATE or DELETE only rows of `still` count: those that it
    /// had found and that are there yet, and what others have put in the place of the rest. An INSERT keeps its rows
    /// and looks anew for what is in their way.
    pub async fn draft_again(
        &self,
        draft: Draft,
        still: &RoaringTreemap,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Draft> {
        Ok(match (self, draft) {
            (Dml::Insert(insert), Draft::Insert(proposal)) => {
                Draft::Insert(Box::new(insert.find_again(*proposal, values, context).await?))
            }
            (Dml::Change(change), Draft::Change(_)) => {
                Draft::Change(change.find(values, context).await?.restricted(still)?)
            }
            _ => return Err(Error::bug("a draft of another statement")),
        })
    }

    /// The operations. May be asked more than once; each time rows get new ids.
    pub async fn write(
        &self,
        draft: &Draft,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Written> {
        match (self, draft) {
            (Dml::Insert(insert), Draft::Insert(proposal)) => insert.write(proposal, values, context).await,
            (Dml::Change(change), Draft::Change(matched)) => change.write(matched, values, context).await,
            _ => Err(Error::bug("a draft of another statement")),
        }
    }

    /// How the rows that it replaces or removes are locked.
    pub fn row_mode(&self) -> RowMode {
        let keys = match self {
            Dml::Insert(insert) => insert.changes_keys(),
            Dml::Change(change) => change.changes_keys(),
        };
        if keys { RowMode::Update } else { RowMode::NoKeyUpdate }
    }

    /// Whether it may put keys into a constraint that were not in it.
    pub fn adds_keys(&self, unique: &UniqueDef) -> bool {
        match self {
            Dml::Insert(_) => true,
            Dml::Change(change) => change.assigns(unique),
        }
    }

    /// Whether ON CONFLICT says what to do about a key that is in the constraint already.
    pub fn gives_way(&self, unique: &UniqueDef) -> bool {
        matches!(self, Dml::Insert(insert) if insert.gives_way(unique))
    }

    /// The table it writes.
    pub fn target(&self) -> TableId {
        match self {
            Dml::Insert(insert) => insert.target(),
            Dml::Change(change) => change.target(),
        }
    }

    /// The query for the rows; `None` for DEFAULT VALUES.
    pub fn source(&self) -> Option<&LogicalPlan> {
        match self {
            Dml::Insert(insert) => insert.source(),
            Dml::Change(change) => Some(change.source()),
        }
    }

    /// The same query where it goes by a key.
    pub fn point(&self) -> Option<&PointRead> {
        match self {
            Dml::Insert(_) => None,
            Dml::Change(change) => change.point(),
        }
    }

    /// What EXPLAIN prints above the plan of [`Dml::source`].
    pub fn explain_lines(&self) -> Vec<String> {
        match self {
            Dml::Insert(insert) => insert.explain_lines(),
            Dml::Change(change) => change.explain_lines(),
        }
    }

    /// INSERT, UPDATE or DELETE.
    pub fn verb(&self) -> &'static str {
        match self {
            Dml::Insert(_) => "INSERT",
            Dml::Change(change) => change.verb(),
        }
    }

    /// `INSERT 0 3`, `UPDATE 3`, `DELETE 3`.
    pub fn tag(&self, rows: u64) -> String {
        match self {
            Dml::Insert(_) => format!("INSERT 0 {rows}"),
            Dml::Change(change) => format!("{} {rows}", change.verb()),
        }
    }
}
