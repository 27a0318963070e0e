//! Binary operators and array literals that mean something else when an operand is a vector; `typing` has the
//! other types' operators.
//!
//! `json_operators` is asked first: it owns those of `json` and `jsonb`.

use datafusion::{
    common::{DFSchema, ScalarValue},
    error::Result,
    logical_expr::{
        Expr, ExprSchemable,
        expr::Placeholder,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};
use sepal_storage::arrow_type;
use sepal_types::{Error, Metric, SqlState, SqlType, parse_vector};

use super::{json_operators, typing};
use crate::{
    error::carry,
    functions::{distance_call, extract_call, scalar_functions, vector_array_call},
    output::{is_vector, typed_field},
    vector::vector_scalar,
};

/// Owns `<->`, `<=>`, `<#>`, `<+>`, arithmetic and comparison, ARRAY of vectors, and extract.
#[derive(Debug)]
pub(super) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if let Some(metric) = metric(&expr.op) {
            let RawBinaryExpr { left, right, .. } = expr;
            let (left, right) = typed_operands(left, right)?;
            return Ok(PlannerResult::Planned(distance_call(metric, left, right)));
        }
        let expr = match json_operators::plan(expr, schema)? {
            PlannerResult::Original(expr) => expr,
            planned => return Ok(planned),
        };
        if let BinaryOperator::Custom(operator) = &expr.op {
            return Err(carry(Error::new(
                SqlState::UndefinedFunction,
                format!("operator does not exist: {operator}"),
            )));
        }
        let function = match expr.op {
            BinaryOperator::Plus => "vector_add",
            BinaryOperator::Minus => "vector_sub",
            BinaryOperator::Multiply => "vector_mul",
            BinaryOperator::StringConcat => "vector_concat",
            _ => return typing::plan(expr, schema),
        };
        if !has_vector(&expr.left, schema) && !has_vector(&expr.right, schema) {
            return typing::plan(expr, schema);
        }
        let (left, right) = typed_operands(expr.left, expr.right)?;
        match scalar_functions().into_iter().find(|candidate| candidate.name() == function) {
            Some(function) => Ok(PlannerResult::Planned(function.call(vec![left, right]))),
            None => Err(carry(Error::bug(format!("{function} is not registered")))),
        }
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, schema: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        if !exprs.iter().any(|expr| has_vector(expr, schema)) {
            return Ok(PlannerResult::Original(exprs));
        }
        let vectors = exprs.into_iter().map(as_vector).collect::<Result<_>>()?;
        Ok(PlannerResult::Planned(vector_array_call(vectors)))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(extract_call(args)))
    }
}

fn metric(operator: &BinaryOperator) -> Option<Metric> {
    match operator {
        BinaryOperator::LtDashGt => Some(Metric::L2),
        BinaryOperator::Spaceship => Some(Metric::Cosine),
        BinaryOperator::Custom(text) => Metric::from_operator(text),
        BinaryOperator::PGCustomBinaryOperator(parts) => Metric::from_operator(parts.last()?),
        _ => None,
    }
}

fn has_vector(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| is_vector(&data_type))
}

/// An untyped literal or parameter beside a vector is a vector.
fn typed_operands(left: Expr, right: Expr) -> Result<(Expr, Expr)> {
    Ok((as_vector(left)?, as_vector(right)?))
}

fn as_vector(expr: Expr) -> Result<Expr> {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => Ok(placeholder(id, &SqlType::Vector(None))),
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => {
            Ok(Expr::Literal(vector_scalar(&parse_vector(&text).map_err(carry)?), None))
        }
        other => Ok(other),
    }
}

/// A parameter of a known type.
pub(super) fn placeholder(id: String, ty: &SqlType) -> Expr {
    let field = typed_field(&id, arrow_type(ty), ty);
    Expr::Placeholder(Placeholder::new_with_field(id, Some(field.into())))
}
