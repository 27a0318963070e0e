//! Locking queries within a statement: `UPDATE jobs … WHERE id = (SELECT id FROM jobs … FOR UPDATE SKIP LOCKED)`.
//!
//! Each is taken out and run before the statement, which reads its rows from a table that exists for that run. So it
//! runs once, whatever the statement's plan; and it cannot look at the rows of the statement around it.

use std::{ops::ControlFlow, sync::Arc};

use datafusion::{
    arrow::datatypes::{Field, Schema},
    sql::sqlparser::ast::{self, LockClause, Query, VisitMut, VisitorMut},
};
use sepal_types::Result;

use super::LockingQuery;
use crate::{
    context::StatementContext,
    dml::{RowsTable, parse_query},
    planner::Engine,
    sql::ParameterTypes,
};

/// A locking query within a statement, and where the statement finds its rows.
#[derive(Clone, Debug)]
pub struct NestedLock {
    pub query: LockingQuery,
    pub rows: RowsTable,
    /// The name of the table that stands in its place.
    pub name: String,
}

/// Takes the locking queries out of a statement; the clauses of the statement's own query stay. They are compiled into
/// the context.
pub fn nested(
    statement: &mut ast::Statement,
    parameters: &mut ParameterTypes,
    engine: &Engine,
    context: &mut StatementContext,
) -> Result<()> {
    let mut taken = Taken { queries: Vec::new(), depth: usize::from(!is_query(statement)) };
    let _ = statement.visit(&mut taken);
    let mut compiled = Vec::with_capacity(taken.queries.len());
    for (name, query, clauses) in taken.queries {
        let query = LockingQuery::compile(&query, &clauses, parameters, engine, context)?;
        let plan = query.plan().schema();
        let fields: Vec<Field> = plan
            .fields()
            .iter()
            .take(query.columns().len())
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        compiled.push(NestedLock { query, rows: RowsTable::new(Arc::new(Schema::new(fields))), name });
        // One within another reads the rows of the inner one.
        context.nested = compiled.clone().into();
    }
    Ok(())
}

fn is_query(statement: &ast::Statement) -> bool {
    matches!(statement, ast::Statement::Query(_))
}

struct Taken {
    queries: Vec<(String, Box<Query>, Vec<LockClause>)>,
    /// How many queries are around this place; a statement that is none counts as one.
    depth: usize,
}

impl VisitorMut for Taken {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        if self.depth == 0 || query.locks.is_empty() {
            return ControlFlow::Continue(());
        }
        let name = format!("__nested_{}", self.queries.len());
        if let Ok(instead) = parse_query(&format!("SELECT * FROM \"{name}\"")) {
            let clauses = std::mem::take(&mut query.locks);
            let taken = std::mem::replace(query, *instead);
            self.queries.push((name, Box::new(taken), clauses));
        }
        ControlFlow::Continue(())
    }
}
