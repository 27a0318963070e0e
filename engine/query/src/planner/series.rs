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
use crate::{error::carry, zone::Zone};

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
    let begins = |is_one: fn(&DataType) -> bool| {
        arguments.iter().take(2).any(|expr| expr.get_type(&empty).is_ok_and(|ty| is_one(&ty)))
    };
    let of_days = begins(|ty| *ty == DataType::Date32);
    let zoned =
        !Zone::current().is_utc() && (of_days || begins(|ty| matches!(ty, DataType::Timestamp(_, Some(_)))));
    let (arguments, result): (Vec<Expr>, _) = if integers {
        (arguments.into_iter().map(|expr| cast(expr, DataType::Int64)).collect(), DataType::Int32)
    } else if zoned && !(of_days && steps_by_days(&arguments)?) {
        let message = "generate_series() over instants is not supported with a TimeZone other than UTC";
        return Err(carry(Error::unsupported(message).with_hint(
            "A series of dates by whole days is, and so is one of timestamps without time zone.",
        )));
    } else if of_days {
        // Midnights: the zone's, once they are instants.
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

/// Whether the step has months and days alone: then the next day is that of the zone's clock, too.
fn steps_by_days(arguments: &[Expr]) -> Result<bool> {
    let Some(step) = arguments.get(2) else { return Ok(false) };
    Ok(match super::relation::constant(typed(step.clone(), &SqlType::Interval)?)? {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(step)), _) => step.nanoseconds == 0,
        _ => false,
    })
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
