//! Operators with arrays: `||`, `@>`, `<@`, `&&`, and an operator before ANY or ALL.
//!
//! Asked by `operators` after those of JSON. An untyped literal or parameter beside an array is one of its type, as in
//! Postgres, where DataFusion takes it for an element: `tags || '{a}'` adds `a`, not `{a}`. Before ANY and ALL it is an
//! element of the array, and after them an array of what stands before. These two are no binary operators to
//! DataFusion, which plans them without asking: the AST pass writes them as ones (`sql/quantifiers.rs`).

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, ScalarValue},
    error::Result,
    functions_nested::expr_fn::array_has,
    logical_expr::{
        Expr,
        expr::Placeholder,
        planner::{PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use super::{
    operators::placeholder,
    untyped::{Operand, operand, typed},
};
use crate::{
    error::{carry, undefined_operator},
    functions::{array_contains, array_overlaps, quantified},
    sql::Quantified,
};

/// Plans one operator, or types its operands, or leaves it alone.
pub(super) fn plan(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    if let Some(operator) = Quantified::read(&expr.op) {
        return plan_quantified(&operator, expr, schema).map(PlannerResult::Planned);
    }
    match expr.op {
        BinaryOperator::StringConcat => concatenated(expr, schema).map(PlannerResult::Original),
        BinaryOperator::PGOverlap | BinaryOperator::AtArrow | BinaryOperator::ArrowAt => {
            plan_sets(expr, schema)
        }
        _ => Ok(PlannerResult::Original(expr)),
    }
}

/// `array || '{…}'`: both are arrays. An element has to have a type.
fn concatenated(expr: RawBinaryExpr, schema: &DFSchema) -> Result<RawBinaryExpr> {
    let RawBinaryExpr { op, left, right } = expr;
    let (left, right) = match (operand(&left, schema), operand(&right, schema)) {
        (Operand::Typed(ty @ SqlType::Array(_)), Operand::Unknown) => (left, given(right, &ty)?),
        (Operand::Unknown, Operand::Typed(ty @ SqlType::Array(_))) => (given(left, &ty)?, right),
        _ => (left, right),
    };
    Ok(RawBinaryExpr { op, left, right })
}

/// Errors: 42883 where the operands are no arrays of one type.
fn plan_sets(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    let RawBinaryExpr { op, left, right } = expr;
    let (left, right) = match (operand(&left, schema), operand(&right, schema)) {
        (Operand::Typed(ty @ SqlType::Array(_)), Operand::Unknown) => (left, given(right, &ty)?),
        (Operand::Unknown, Operand::Typed(ty @ SqlType::Array(_))) => (given(left, &ty)?, right),
        (Operand::Typed(SqlType::Array(of_left)), Operand::Typed(SqlType::Array(of_right)))
            if plain(&of_left) == plain(&of_right) || (of_left.is_number() && of_right.is_number()) =>
        {
            (left, right)
        }
        (Operand::Typed(left), Operand::Typed(right)) => {
            return Err(carry(undefined_operator(Some(&left), &op.to_string(), &right)));
        }
        _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
    };
    Ok(PlannerResult::Planned(match op {
        BinaryOperator::AtArrow => array_contains(left, right),
        BinaryOperator::ArrowAt => array_contains(right, left),
        _ => array_overlaps(left, right),
    }))
}

/// `left <op> ANY (right)`.
///
/// Errors: 42809 where the right side is no array, 42883 where its elements do not go with the left side, and those of
/// the input functions.
fn plan_quantified(operator: &Quantified, expr: RawBinaryExpr, schema: &DFSchema) -> Result<Expr> {
    let RawBinaryExpr { left, right, .. } = expr;
    let no_array = || {
        let message = "op ANY/ALL (array) requires array on right side";
        carry(Error::new(SqlState::WrongObjectType, message))
    };
    let (left, right, element) = match (operand(&left, schema), operand(&right, schema)) {
        (_, Operand::Typed(ty)) if !matches!(ty, SqlType::Array(_)) => return Err(no_array()),
        (Operand::Typed(ty), Operand::Typed(SqlType::Array(_)))
            if !is_text(&ty) && is_untyped_list(&right) =>
        {
            (left, typed_items(right, &ty)?, plain(&ty))
        }
        (Operand::Typed(ty), Operand::Typed(SqlType::Array(element))) => {
            if !compares(operator, &ty, &element) {
                return Err(carry(undefined_operator(Some(&ty), &operator.symbol, &element)));
            }
            (left, right, *element)
        }
        (_, Operand::Typed(SqlType::Array(element))) => (given(left, &element)?, right, *element),
        (Operand::Typed(ty), _) => {
            let element = plain(&ty);
            (left, given(right, &SqlType::Array(Box::new(element.clone())))?, element)
        }
        _ => {
            let right = given(right, &SqlType::Array(Box::new(SqlType::Text)))?;
            (given(left, &SqlType::Text)?, right, SqlType::Text)
        }
    };
    let is_whole =
        matches!(element, SqlType::Bit(_) | SqlType::Json | SqlType::Jsonb | SqlType::SparseVec(_));
    if is_whole || element.vector_kind().is_some() {
        return whole(operator, left, right, &element);
    }
    quantified(&operator.symbol, operator.all, left, right).ok_or_else(|| unsupported(operator, &element))
}

/// Elements that have no order here.
fn whole(operator: &Quantified, left: Expr, right: Expr, element: &SqlType) -> Result<Expr> {
    match (operator.symbol.as_str(), operator.all) {
        _ if matches!(element, SqlType::Json | SqlType::Jsonb) => Err(unsupported(operator, element)),
        ("=", false) => Ok(array_has(right, left)),
        ("<>", true) => Ok(Expr::Not(Box::new(array_has(right, left)))),
        _ => Err(unsupported(operator, element)),
    }
}

fn unsupported(operator: &Quantified, element: &SqlType) -> datafusion::error::DataFusionError {
    let quantifier = if operator.all { "ALL" } else { "ANY" };
    let message =
        format!("{} {quantifier} over {}[] is not supported", operator.symbol, element.display_name());
    carry(Error::unsupported(message))
}

/// Whether the operator takes a value of the one type and of the other.
fn compares(operator: &Quantified, left: &SqlType, element: &SqlType) -> bool {
    use SqlType::{Date, Int2, Int4, Int8, Oid, Timestamp, Timestamptz};
    if operator.of_texts() || is_text(left) {
        return is_text(left) && is_text(element);
    }
    let instant = |ty: &SqlType| matches!(ty, Date | Timestamp | Timestamptz);
    let oid = |ty: &SqlType| matches!(ty, Oid | Int2 | Int4 | Int8);
    plain(left) == plain(element)
        || (left.is_number() && element.is_number())
        || (instant(left) && instant(element))
        || (oid(left) && oid(element))
        || (left.vector_kind().is_some() && element.vector_kind().is_some())
}

/// What compares as text does.
fn is_text(ty: &SqlType) -> bool {
    arrow_type(ty) == DataType::Utf8 && !matches!(ty, SqlType::Json | SqlType::Jsonb)
}

/// `ARRAY['1', '2']`
fn is_untyped_list(expr: &Expr) -> bool {
    let untyped = |item: &Expr| matches!(item, Expr::Literal(ScalarValue::Null | ScalarValue::Utf8(_), None));
    matches!(expr, Expr::ScalarFunction(call) if call.name() == "make_array" && call.args.iter().all(untyped))
}

/// The same with the type of what it is compared with, as clients write lists of oids.
fn typed_items(expr: Expr, ty: &SqlType) -> Result<Expr> {
    match expr {
        Expr::ScalarFunction(mut call) => {
            let items = std::mem::take(&mut call.args).into_iter();
            call.args = items.map(|item| typed(item, ty)).collect::<Result<_>>()?;
            Ok(Expr::ScalarFunction(call))
        }
        other => Ok(other),
    }
}

/// A type without its modifier; `varchar` is `text` to operators.
fn plain(ty: &SqlType) -> SqlType {
    match ty {
        SqlType::Varchar(_) => SqlType::Text,
        SqlType::Bit(_) => SqlType::Bit(None),
        SqlType::Bpchar(_) => SqlType::Bpchar(None),
        SqlType::Numeric(_) => SqlType::Numeric(None),
        SqlType::SparseVec(_) => SqlType::SparseVec(None),
        other => other.vector_kind().map_or_else(|| other.clone(), |kind| kind.sql_type(None)),
    }
}

/// An untyped literal, NULL or parameter with a type. Errors: those of the type's input function.
fn given(expr: Expr, ty: &SqlType) -> Result<Expr> {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => Ok(placeholder(id, ty)),
        Expr::Literal(ScalarValue::Null | ScalarValue::Utf8(None) | ScalarValue::Utf8View(None), _) => {
            Ok(Expr::Literal(ScalarValue::try_new_null(&arrow_type(ty))?, None))
        }
        other => typed(other, ty),
    }
}
