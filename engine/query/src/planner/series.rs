//! `generate_series(start, stop [, step])` over `integer`: DataFusion's own gives `bigint` whatever it is given.
//!
//! Called by `relation`. Series of `bigint` and of timestamps are left to DataFusion, as is every complaint
//! about arguments.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, ScalarValue},
    error::Result,
    logical_expr::{
        Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, planner::RelationPlannerContext,
    },
    prelude::ident,
    sql::sqlparser::ast::{FunctionArg, FunctionArgExpr},
};

const NAME: &str = "generate_series";

/// The series as a relation with one column; `None` when it is not over `integer`.
pub(super) fn plan(
    args: &[FunctionArg],
    context: &mut dyn RelationPlannerContext,
) -> Result<Option<LogicalPlan>> {
    let empty = DFSchema::empty();
    let mut arguments = Vec::with_capacity(args.len());
    for arg in args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
            return Ok(None);
        };
        let expr = context.sql_to_expr(expr.clone(), &empty)?;
        if !is_integer(&expr, &empty) {
            return Ok(None);
        }
        arguments.push(cast(expr, DataType::Int64));
    }
    let source = context.context_provider().get_table_function_source(NAME, arguments)?;
    let value = cast(ident("value"), DataType::Int32).alias("value");
    LogicalPlanBuilder::scan(NAME, source, None)?.project(vec![value])?.build().map(Some)
}

fn is_integer(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), None) => i32::try_from(*value).is_ok(),
        Expr::Placeholder(_) => false,
        _ => {
            let data_type = expr.get_type(schema);
            data_type.is_ok_and(|data_type| matches!(data_type, DataType::Int16 | DataType::Int32))
        }
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), data_type))
}
