//! `unnest(…) WITH ORDINALITY` in FROM: the elements of arrays, numbered from 1. DataFusion has it without numbers.
//!
//! Called by `relation`; [`side_by_side`] by what makes lists and has their elements as rows.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column, UnnestOptions},
    error::Result,
    functions_window::expr_fn::row_number,
    logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder, planner::RelationPlannerContext},
    sql::sqlparser::ast::{self, TableFactor},
};

use crate::vector::columns_of;

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
    let mut columns = columns_of(&numbered);
    let number = columns.pop().unwrap_or_default();
    columns.push(Expr::Cast(Cast::new(Box::new(number), DataType::Int64)).alias("ordinality"));
    LogicalPlanBuilder::from(numbered).project(columns)?.build()
}

/// The elements of named lists as rows, side by side, and then what is computed of them. A list that is NULL has none.
pub(super) fn side_by_side(lists: Vec<Expr>, outputs: Vec<Expr>) -> Result<LogicalPlan> {
    let columns = lists.iter().map(|list| Column::from_name(list.schema_name().to_string())).collect();
    LogicalPlanBuilder::empty(true)
        .project(lists)?
        .unnest_columns_with_options(columns, UnnestOptions::new().with_preserve_nulls(false))?
        .project(outputs)?
        .build()
}
