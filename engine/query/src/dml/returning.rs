//! RETURNING: a query over the rows just written.

use std::sync::Arc;

use datafusion::{
    arrow::array::RecordBatch,
    logical_expr::LogicalPlan,
    scalar::ScalarValue,
    sql::sqlparser::ast::{self, SelectItem},
};
use sepal_types::{Result, TableDef};

use super::{
    DmlContext,
    assign::{TargetRows, row_schema},
    rows_table::RowsTable,
};
use crate::{
    output::{OutputColumn, conform},
    planner::TemporaryTables,
    sql::{ParameterTypes, StatementKind, parse_statements, prepare_query},
};

/// A planned RETURNING list.
#[derive(Debug)]
pub struct Returning {
    plan: LogicalPlan,
    columns: Vec<OutputColumn>,
    rows: RowsTable,
}

impl Returning {
    /// Plans `items` over the target's columns. `alias` is the name the statement gives the target.
    pub fn prepare(
        items: &[SelectItem],
        def: &Arc<TableDef>,
        alias: Option<&str>,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Self> {
        let rows = RowsTable::new(row_schema(def));
        let mut query = skeleton(&def.name, alias)?;
        if let ast::SetExpr::Select(select) = query.body.as_mut() {
            select.projection = items.to_vec();
        }
        let columns = context.statement.column_types(&query);
        prepare_query(&mut query, parameters, &[], &columns);
        let temporary = TemporaryTables::default().with(&def.name, Arc::new(rows.clone()));
        let plan = context.engine.plan(context.statement, &temporary, &query, parameters)?;
        let columns = plan.schema().fields().iter().map(|field| OutputColumn::from_field(field)).collect();
        Ok(Self { plan, columns, rows })
    }

    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    /// The list evaluated over `rows`.
    pub async fn run(
        &self,
        def: &TableDef,
        rows: &TargetRows,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Vec<RecordBatch>> {
        self.rows.set(vec![rows.batch(def)?]);
        let batches = context.engine.collect(&self.plan, values.to_vec()).await?;
        self.rows.set(Vec::new());
        batches.iter().map(|batch| conform(batch, &self.columns)).collect()
    }
}

/// `SELECT 1 FROM "table" [AS "alias"]`, to be given another list.
pub fn skeleton(table: &str, alias: Option<&str>) -> Result<Box<ast::Query>> {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let alias = alias.map(|alias| format!(" AS {}", quote(alias))).unwrap_or_default();
    parse_query(&format!("SELECT 1 FROM {}{alias}", quote(table)))
}

/// Parses a query of our own making.
pub fn parse_query(sql: &str) -> Result<Box<ast::Query>> {
    let statement = parse_statements(sql)?.into_iter().next();
    match statement.map(|statement| statement.kind) {
        Some(StatementKind::Sql(statement)) => match *statement {
            ast::Statement::Query(query) => Ok(query),
            other => Err(sepal_types::Error::bug(format!("not a query: {other}"))),
        },
        _ => Err(sepal_types::Error::bug(format!("not a query: {sql}"))),
    }
}
