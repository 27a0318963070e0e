//! What an operator means by the types of its operands, as Postgres decides it.
//!
//! Called by `operators`, where DataFusion plans a binary operator. An untyped operand takes the type that the
//! operator wants beside the other one. Arithmetic over numbers, dates and times becomes calls of our own
//! functions, which have Postgres' result types and errors. Everything else is left as DataFusion plans it.

use datafusion::{
    common::{DFSchema, ScalarValue},
    error::Result,
    logical_expr::{
        BinaryExpr, Expr, Operator,
        planner::{PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};
use sepal_types::SqlType;

use super::{
    floats, instants,
    untyped::{Operand, operand, typed},
};
use crate::{
    error::{carry, undefined_operator},
    functions::{
        Arithmetic, Compared, DateTimeOperation, arithmetic_call, comparison, datetime_call, interval_span,
        plus_interval,
    },
    zone::Zone,
};

/// Plans one operator.
pub(super) fn plan(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    if let Some(operator) = comparing(&expr.op) {
        return plan_comparison(expr, operator, schema);
    }
    if let Some(operator) = arithmetic(&expr.op) {
        return plan_arithmetic(expr, operator, schema);
    }
    Ok(PlannerResult::Original(expr))
}

const fn comparing(operator: &BinaryOperator) -> Option<Operator> {
    Some(match operator {
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::NotEq => Operator::NotEq,
        _ => return None,
    })
}

const fn arithmetic(operator: &BinaryOperator) -> Option<Arithmetic> {
    Some(match operator {
        BinaryOperator::Divide => Arithmetic::Divide,
        BinaryOperator::Minus => Arithmetic::Subtract,
        BinaryOperator::Modulo => Arithmetic::Modulo,
        BinaryOperator::Multiply => Arithmetic::Multiply,
        BinaryOperator::Plus => Arithmetic::Add,
        _ => return None,
    })
}

fn plan_comparison(
    expr: RawBinaryExpr,
    operator: Operator,
    schema: &DFSchema,
) -> Result<PlannerResult<RawBinaryExpr>> {
    let RawBinaryExpr { op, left, right } = expr;
    let types = (operand(&left, schema), operand(&right, schema));
    let (left, right) = match &types {
        (Operand::Typed(ty), Operand::Unknown) => (left, typed(right, ty)?),
        (Operand::Unknown, Operand::Typed(ty)) => (typed(left, ty)?, right),
        _ => (left, right),
    };
    let original = |left, right| Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
    let both = match types {
        (Operand::Typed(left), Operand::Typed(right)) => (left, right),
        (Operand::Typed(ty), Operand::Unknown) | (Operand::Unknown, Operand::Typed(ty)) => (ty.clone(), ty),
        _ => return original(left, right),
    };
    if let Some(ty) = instants::common([&both.0, &both.1]) {
        return original(instants::become_one(left, &both.0, &ty), instants::become_one(right, &both.1, &ty));
    }
    match both {
        // `enums` asks whether they are of one type.
        (SqlType::Enum(_), SqlType::Enum(_)) => original(left, right),
        (left_type, right_type) if left_type.enum_type().is_some() || right_type.enum_type().is_some() => {
            let symbol = if operator == Operator::NotEq { "<>".to_owned() } else { operator.to_string() };
            Err(carry(undefined_operator(Some(&left_type), &symbol, &right_type)))
        }
        (left_type, right_type)
            if left_type.vector_kind().is_some() && right_type.vector_kind().is_some() =>
        {
            match comparison(Compared::Vectors, operator, left.clone(), right.clone()) {
                Some(call) => Ok(PlannerResult::Planned(call)),
                None => original(left, right),
            }
        }
        (left_type, right_type) if are_sparse(&left_type, &right_type) => {
            match comparison(Compared::Sparse, operator, left.clone(), right.clone()) {
                Some(call) => Ok(PlannerResult::Planned(call)),
                None => original(left, right),
            }
        }
        (left_type, right_type)
            if [&left_type, &right_type].iter().any(|ty| ty.vector_kind().is_some() || ty.is_sparse()) =>
        {
            let symbol = if operator == Operator::NotEq { "<>".to_owned() } else { operator.to_string() };
            Err(carry(undefined_operator(Some(&left_type), &symbol, &right_type)))
        }
        (SqlType::Bit(_), SqlType::Bit(_)) => {
            match comparison(Compared::Bits, operator, left.clone(), right.clone()) {
                Some(call) => Ok(PlannerResult::Planned(call)),
                None => original(left, right),
            }
        }
        (SqlType::Interval, SqlType::Interval) => {
            let spans =
                BinaryExpr::new(Box::new(interval_span(left)), operator, Box::new(interval_span(right)));
            Ok(PlannerResult::Planned(Expr::BinaryExpr(spans)))
        }
        (left_type, right_type) if floats::mixed(&left_type, &right_type) => {
            original(floats::to_float8(left, &left_type), floats::to_float8(right, &right_type))
        }
        _ => original(left, right),
    }
}

/// Whether operands compare as sparse vectors: one is, and a dense one becomes one beside it.
const fn are_sparse(left: &SqlType, right: &SqlType) -> bool {
    (left.is_sparse() && (right.is_sparse() || right.vector_kind().is_some()))
        || (right.is_sparse() && left.vector_kind().is_some())
}

fn plan_arithmetic(
    expr: RawBinaryExpr,
    operator: Arithmetic,
    schema: &DFSchema,
) -> Result<PlannerResult<RawBinaryExpr>> {
    let RawBinaryExpr { op, left, right } = expr;
    let (left, left_type, right, right_type) = match (operand(&left, schema), operand(&right, schema)) {
        (Operand::Typed(left_type), Operand::Typed(right_type)) => (left, left_type, right, right_type),
        (Operand::Typed(ty), Operand::Unknown) => match beside(operator, &ty, true) {
            Some(wanted) => (left, ty, typed(right, &wanted)?, wanted),
            None => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        },
        (Operand::Unknown, Operand::Typed(ty)) => match beside(operator, &ty, false) {
            Some(wanted) => (typed(left, &wanted)?, wanted, right, ty),
            None => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        },
        _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
    };
    match (left_type.is_number(), right_type.is_number()) {
        (true, true) => {
            return Ok(PlannerResult::Planned(arithmetic_call(operator, narrow(left), narrow(right))));
        }
        (true, false) if is_plain(&right_type) => {
            return Err(carry(undefined_operator(Some(&left_type), operator.symbol(), &right_type)));
        }
        (false, true) if is_plain(&left_type) => {
            return Err(carry(undefined_operator(Some(&left_type), operator.symbol(), &right_type)));
        }
        _ => {}
    }
    Ok(match date_arithmetic(operator, &left_type, &right_type) {
        Some(DateArithmetic::Call(operation)) => {
            PlannerResult::Planned(datetime_call(operation, left, right))
        }
        Some(DateArithmetic::Swapped(operation)) => {
            PlannerResult::Planned(datetime_call(operation, right, left))
        }
        Some(DateArithmetic::Moved) => {
            let (instant, ty, span) = match right_type {
                SqlType::Interval => (left, left_type, right),
                ty => (right, ty, left),
            };
            // A plan is made within its zone.
            let zone = (ty == SqlType::Timestamptz).then(Zone::current);
            PlannerResult::Planned(plus_interval(instant, span, operator == Arithmetic::Subtract, zone))
        }
        None => PlannerResult::Original(RawBinaryExpr { op, left, right }),
    })
}

/// The type of an untyped operand of arithmetic. `known_left`: the typed operand is the left one.
fn beside(operator: Arithmetic, known: &SqlType, known_left: bool) -> Option<SqlType> {
    match (operator, known) {
        (_, ty) if ty.is_number() => Some(ty.clone()),
        (Arithmetic::Add, SqlType::Timestamp | SqlType::Timestamptz) => Some(SqlType::Interval),
        (
            Arithmetic::Subtract,
            ty @ (SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz),
        ) => Some(ty.clone()),
        (Arithmetic::Add | Arithmetic::Subtract, SqlType::Interval) => Some(SqlType::Interval),
        (Arithmetic::Multiply, SqlType::Interval) => Some(SqlType::Float8),
        (Arithmetic::Divide, SqlType::Interval) if known_left => Some(SqlType::Float8),
        _ => None,
    }
}

/// How an operator over dates and times is computed where DataFusion's own would not do.
enum DateArithmetic {
    Call(DateTimeOperation),
    /// With the operands exchanged.
    Swapped(DateTimeOperation),
    /// A time and an interval, in either order.
    Moved,
}

fn date_arithmetic(operator: Arithmetic, left: &SqlType, right: &SqlType) -> Option<DateArithmetic> {
    use DateArithmetic::{Call, Moved, Swapped};
    use DateTimeOperation as Operation;
    use SqlType::{Date, Interval, Time, Timestamp, Timestamptz};
    let is_integer = |ty: &SqlType| matches!(ty, SqlType::Int2 | SqlType::Int4 | SqlType::Int8);
    let instant = |ty: &SqlType| matches!(ty, Date | Timestamp | Timestamptz);
    Some(match (operator, left, right) {
        (Arithmetic::Add, Date, days) if is_integer(days) => Call(Operation::DatePlusDays),
        (Arithmetic::Add, days, Date) if is_integer(days) => Swapped(Operation::DatePlusDays),
        (Arithmetic::Subtract, Date, days) if is_integer(days) => Call(Operation::DateMinusDays),
        (Arithmetic::Subtract, Date, Date) => Call(Operation::DateDifference),
        (Arithmetic::Subtract, left, right) if instant(left) && instant(right) => {
            Call(Operation::TimestampDifference)
        }
        (Arithmetic::Add, Date, Time) => Call(Operation::DatePlusTime),
        (Arithmetic::Add, Time, Date) => Swapped(Operation::DatePlusTime),
        (Arithmetic::Add | Arithmetic::Subtract, moved, Interval) if instant(moved) => Moved,
        (Arithmetic::Add, Interval, moved) if instant(moved) => Moved,
        (Arithmetic::Add, Time, Interval) => Call(Operation::TimePlusInterval),
        (Arithmetic::Add, Interval, Time) => Swapped(Operation::TimePlusInterval),
        (Arithmetic::Subtract, Time, Interval) => Call(Operation::TimeMinusInterval),
        (Arithmetic::Subtract, Time, Time) => Call(Operation::TimeDifference),
        (Arithmetic::Multiply, Interval, factor) if factor.is_number() => Call(Operation::IntervalTimes),
        (Arithmetic::Multiply, factor, Interval) if factor.is_number() => Swapped(Operation::IntervalTimes),
        (Arithmetic::Divide, Interval, factor) if factor.is_number() => Call(Operation::IntervalDivide),
        _ => return None,
    })
}

/// Types that have no arithmetic with a number.
const fn is_plain(ty: &SqlType) -> bool {
    matches!(
        ty,
        SqlType::Bool
            | SqlType::Bpchar(_)
            | SqlType::Bytea
            | SqlType::Enum(_)
            | SqlType::Text
            | SqlType::Uuid
            | SqlType::Varchar(_)
    )
}

/// An integer literal in its own type, also where the AST pass has written it as a cast: SELECT lists and
/// GROUP BY then hold the same expression.
fn narrow(expr: Expr) -> Expr {
    let literal = match &expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), None) => Some(*value),
        Expr::ScalarFunction(call) if call.func.name() == "sepal_cast_int4" => match call.args.as_slice() {
            [Expr::Literal(ScalarValue::Int64(Some(value)), None)] => Some(*value),
            _ => None,
        },
        _ => None,
    };
    match literal.and_then(|value| i32::try_from(value).ok()) {
        Some(value) => Expr::Literal(ScalarValue::Int32(Some(value)), None),
        None => expr,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::{DataType, Field, Schema},
        logical_expr::ExprSchemable,
    };

    use super::*;
    use crate::error::translate;

    fn schema() -> DFSchema {
        let columns = vec![
            Field::new("i", DataType::Int32, true),
            Field::new("t", DataType::Utf8, true),
            Field::new("u", DataType::FixedSizeBinary(16), true),
            Field::new("d", DataType::Date32, true),
        ];
        DFSchema::try_from(Schema::new(columns)).expect("distinct names")
    }

    fn column(name: &str) -> Expr {
        datafusion::prelude::ident(name)
    }

    fn text(value: &str) -> Expr {
        Expr::Literal(ScalarValue::Utf8(Some(value.to_owned())), None)
    }

    #[test]
    fn an_untyped_literal_is_read_as_the_type_beside_it() {
        let planned = |left, op, right| plan(RawBinaryExpr { op, left, right }, &schema()).map_err(translate);
        let Ok(PlannerResult::Original(expr)) =
            planned(column("u"), BinaryOperator::Eq, text("a0eebc999c0b4ef8bb6d6bb9bd380a11"))
        else {
            panic!("a comparison stays one");
        };
        assert!(matches!(expr.right, Expr::Literal(ScalarValue::FixedSizeBinary(16, Some(_)), None)));
        let error = planned(column("i"), BinaryOperator::Eq, text("x")).expect_err("no integer");
        assert_eq!(error.message(), "invalid input syntax for type integer: \"x\"");
        let error = planned(column("i"), BinaryOperator::Plus, column("t")).expect_err("no such operator");
        assert_eq!(error.message(), "operator does not exist: integer + text");
    }

    #[test]
    fn arithmetic_has_the_types_of_postgres() {
        let one = || Expr::Literal(ScalarValue::Int64(Some(1)), None);
        let cases = [
            (column("i"), BinaryOperator::Plus, one(), DataType::Int32),
            (column("d"), BinaryOperator::Plus, one(), DataType::Date32),
            (one(), BinaryOperator::Plus, column("d"), DataType::Date32),
            (column("d"), BinaryOperator::Minus, column("d"), DataType::Int32),
            (column("d"), BinaryOperator::Minus, text("2024-01-01"), DataType::Int32),
        ];
        for (left, op, right, expected) in cases {
            let planned = plan(RawBinaryExpr { op: op.clone(), left, right }, &schema());
            let Ok(PlannerResult::Planned(expr)) = planned else {
                panic!("{op} is planned here");
            };
            assert_eq!(expr.get_type(&schema()).expect("a type"), expected, "{expr}");
        }
    }
}
