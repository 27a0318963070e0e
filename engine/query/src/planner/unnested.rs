//! `unnest(…) WITH ORDINALITY` in FROM: the elements of arrays, numbered from 1. DataFusion has it without numbers.
//!
//! Called by `relation`.

use datafusion::{
    arrow::datatypes::DataType,
    common::Column,
    error::Result,
    functions_window::expr_fn::row_number,
    logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder, planner::RelationPlannerContext},
    sql::sqlparser::ast::{self, TableFactor},
};

/// The elements' columns, then `ordinality`.
pub(super) fn plan(
    array_exprs: Vec<ast::Expr>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let elements = context.plan(TableFactor::UNNEST {
        alias: None,
        array_exprs,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    })?;
    // They come out of one row, and so in order.
    let numbered = LogicalPlanBuilder::from(elements).window(vec![row_number()])?.build()?;
    let mut columns: Vec<Expr> = numbered
        .schema()
        .iter()
        .map(|(relation, field)| Expr::Column(Column::new(relation.cloned(), field.name())))
        .collect();
    let number = columns.pop().unwrap_or_default();
    columns.push(Expr::Cast(Cast::new(Box::new(number), DataType::Int64)).alias("ordinality"));
    LogicalPlanBuilder::from(numbered).project(columns)?.build()
}
