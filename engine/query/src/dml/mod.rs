//! INSERT, UPDATE and DELETE: planned as queries for rows and row ids, then written.
//!
//! DataFusion's own DML is not used: UPDATE and DELETE can reach a provider without their filters there
//! (apache/datafusion#24654), and ON CONFLICT and RETURNING do not exist. Each statement is prepared into
//! logical plans once and may run many times; running it gives [`Op`]s for the transaction, never a write.

mod assign;
mod change;
mod conflict;
mod defaults;
mod insert;
mod returning;
mod rows_table;

use std::sync::Arc;

use datafusion::{
    arrow::array::RecordBatch, logical_expr::LogicalPlan, scalar::ScalarValue, sql::sqlparser::ast,
};
use sepal_storage::{Op, TenantStore};
use sepal_types::{Error, Result, TableId};

use crate::{context::StatementContext, output::OutputColumn, planner::Engine, sql::ParameterTypes};

pub use assign::{TargetRows, assign, rows_as, write_rows};
pub use defaults::{default_values, sequence_name};

pub use returning::parse_query;

use change::Change;
use insert::Insert;

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
    /// For the command tag.
    pub rows: u64,
    /// RETURNING.
    pub returned: Option<Vec<RecordBatch>>,
}

impl Dml {
    /// Prepares INSERT, UPDATE or DELETE; `None` for any other statement.
    pub fn prepare(
        statement: &ast::Statement,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Option<Dml>> {
        Ok(Some(match statement {
            ast::Statement::Insert(insert) => {
                Dml::Insert(Box::new(Insert::prepare(insert, parameters, context)?))
            }
            ast::Statement::Update(update) => {
                Dml::Change(Box::new(Change::update(update, parameters, context)?))
            }
            ast::Statement::Delete(delete) => {
                Dml::Change(Box::new(Change::delete(delete, parameters, context)?))
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

    /// Runs against the statement's snapshot.
    pub async fn run(&self, values: &[ScalarValue], context: &DmlContext<'_>) -> Result<Written> {
        match self {
            Dml::Insert(insert) => insert.run(values, context).await,
            Dml::Change(change) => change.run(values, context).await,
        }
    }

    /// The table it writes.
    pub fn target(&self) -> TableId {
        match self {
            Dml::Insert(insert) => insert.target(),
            Dml::Change(change) => change.target(),
        }
    }

    /// Whether it replaces or removes rows, so that it must wait for others that do.
    pub fn changes_rows(&self) -> bool {
        match self {
            Dml::Insert(insert) => insert.may_update(),
            Dml::Change(_) => true,
        }
    }

    /// The query for the rows; `None` for DEFAULT VALUES.
    pub fn source(&self) -> Option<&LogicalPlan> {
        match self {
            Dml::Insert(insert) => insert.source(),
            Dml::Change(change) => Some(change.source()),
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
