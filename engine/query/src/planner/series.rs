//! `generate_series(start, stop [, step])` over `integer`, where DataFusion's own gives `bigint`, and over dates, which
//! are instants of `timestamptz` to it.
//!
//! Called by `relation`. Series of `bigint` and of timestamps are left to DataFusion, as is every complaint
//! about arguments.

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::{DFSchema, ScalarValue},
    error::Result,
    logical_expr::{
        Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, lit,
        planner::RelationPlannerContext,
    },
    prelude::ident,
    sql::sqlparser::ast::{FunctionArg, FunctionArgExpr},
};
use sepal_types::{Error, SqlType};

use super::untyped::typed;
use crate::error::carry;

const NAME: &str = "generate_series";

/// The series as a relation with one column, and a second one where its rows are `numbered` (WITH ORDINALITY); `None`
/// when it is over `bigint` or timestamps.
///
/// Errors: 0A000 for numbers beside another series than one of `integer`.
pub(super) fn plan(
    args: &[FunctionArg],
    numbered: bool,
    context: &mut dyn RelationPlannerContext,
) -> Result<Option<LogicalPlan>> {
    let empty = DFSchema::empty();
    let mut arguments = Vec::with_capacity(args.len());
    for arg in args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
            return Ok(None);
        };
        arguments.push(context.sql_to_expr(expr.clone(), &empty)?);
    }
    let integers = arguments.iter().all(|expr| is_integer(expr, &empty));
    if numbered && !integers {
        let message = "generate_series WITH ORDINALITY takes integers only";
        return Err(carry(Error::unsupported(message)));
    }
    let (arguments, result): (Vec<Expr>, _) = if integers {
        (arguments.into_iter().map(|expr| cast(expr, DataType::Int64)).collect(), DataType::Int32)
    } else if arguments.iter().take(2).any(|expr| matches!(expr.get_type(&empty), Ok(DataType::Date32))) {
        (of_dates(arguments)?, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
    } else {
        return Ok(None);
    };
    // Counted from the values: in which order rows pass is for others to say.
    let number = numbered.then(|| ordinal(&arguments));
    let source = context.context_provider().get_table_function_source(NAME, arguments)?;
    let mut columns = vec![cast(ident("value"), result).alias("value")];
    columns.extend(number);
    LogicalPlanBuilder::scan(NAME, source, None)?.project(columns)?.build().map(Some)
}

/// Which one a number of the series is, from 1.
fn ordinal(arguments: &[Expr]) -> Expr {
    let start = arguments.first().cloned().unwrap_or_default();
    let mut steps = binary_expr(ident("value"), Operator::Minus, start);
    if let Some(step) = arguments.get(2) {
        steps = binary_expr(steps, Operator::Divide, step.clone());
    }
    binary_expr(steps, Operator::Plus, lit(1_i64)).alias("ordinality")
}

/// A literal beside a date is one, and the step an interval.
fn of_dates(arguments: Vec<Expr>) -> Result<Vec<Expr>> {
    let types = [SqlType::Date, SqlType::Date, SqlType::Interval];
    arguments.into_iter().zip(types).map(|(expr, ty)| typed(expr, &ty)).collect()
}

pub(super) fn is_integer(expr: &Expr, schema: &DFSchema) -> bool {
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
