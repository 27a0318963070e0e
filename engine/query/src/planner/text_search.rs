//! Operators over `tsvector` and `tsquery`: `@@`, `||`, `&&`, `<->`, `=`.
//!
//! Asked by `operators` before any other: `<->` between two queries is a phrase, not a distance. An untyped literal or
//! parameter beside one of the two gets the type that PostgreSQL would resolve it to. What `@@` means between texts the
//! AST pass has said (`sql/text_search.rs`).

use datafusion::{
    common::DFSchema,
    error::Result,
    logical_expr::{
        Expr,
        expr::Placeholder,
        planner::{PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};
use sepal_types::{Error, SqlType};

use super::untyped::{Operand, operand, typed};
use crate::{
    error::{carry, undefined_operator},
    functions::text_search_call,
    output::sql_type,
};

/// Plans one operator, or leaves it alone.
///
/// Errors: 42883 where the operands do not go together, 0A000 for an order of vectors or queries.
pub(super) fn plan(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    let symbol = match &expr.op {
        BinaryOperator::AtAt => "@@",
        BinaryOperator::PGOverlap => "&&",
        BinaryOperator::StringConcat => "||",
        BinaryOperator::LtDashGt => "<->",
        BinaryOperator::Eq => "=",
        BinaryOperator::NotEq => "<>",
        BinaryOperator::Lt => "<",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Gt => ">",
        BinaryOperator::GtEq => ">=",
        _ => return Ok(PlannerResult::Original(expr)),
    };
    let (left, right) = (known(&expr.left, schema), known(&expr.right, schema));
    if !is_searched(left.as_ref()) && !is_searched(right.as_ref()) {
        return match (symbol, &left) {
            ("@@", Some(SqlType::Text | SqlType::Varchar(_) | SqlType::Bpchar(_))) => {
                let error = Error::unsupported("the operator @@ over this text is not supported");
                Err(carry(error.with_hint("Write to_tsvector(…) @@ plainto_tsquery(…).")))
            }
            _ => Ok(PlannerResult::Original(expr)),
        };
    }
    let undefined = || match (&left, &right) {
        (Some(left), Some(right)) => undefined_operator(Some(left), symbol, right),
        (Some(ty), None) => undefined_operator(Some(ty), symbol, &SqlType::Unknown),
        (None, ty) => {
            let right = ty.as_ref().unwrap_or(&SqlType::Unknown);
            undefined_operator(Some(&SqlType::Unknown), symbol, right)
        }
    };
    let both = |ty: &SqlType| [&left, &right].into_iter().flatten().all(|of| of == ty);
    let is = |of: &Option<SqlType>, ty: &SqlType| of.as_ref().is_none_or(|of| of == ty);
    let (name, types) = match symbol {
        "@@" if is(&left, &SqlType::TsVector) && is(&right, &SqlType::TsQuery) => {
            return matched(expr.left, expr.right).map(PlannerResult::Planned);
        }
        "@@" if is(&left, &SqlType::TsQuery) && is(&right, &SqlType::TsVector) => {
            return matched(expr.right, expr.left).map(PlannerResult::Planned);
        }
        "||" if both(&SqlType::TsVector) => ("tsvector_concat", [SqlType::TsVector, SqlType::TsVector]),
        "||" if both(&SqlType::TsQuery) => ("tsquery_or", [SqlType::TsQuery, SqlType::TsQuery]),
        "&&" if both(&SqlType::TsQuery) => ("tsquery_and", [SqlType::TsQuery, SqlType::TsQuery]),
        "<->" if both(&SqlType::TsQuery) => ("tsquery_phrase", [SqlType::TsQuery, SqlType::TsQuery]),
        // Their texts are equal where they are.
        "=" | "<>" if both(&SqlType::TsQuery) || both(&SqlType::TsVector) => {
            return Ok(PlannerResult::Original(expr));
        }
        "<" | "<=" | ">" | ">=" if both(&SqlType::TsQuery) || both(&SqlType::TsVector) => {
            return Err(carry(Error::unsupported(format!("the order of {symbol} is not supported here"))));
        }
        // Beside text they are printed.
        "||" => return Ok(PlannerResult::Original(expr)),
        _ => return Err(carry(undefined())),
    };
    let arguments = vec![typed(expr.left, &types[0])?, typed(expr.right, &types[1])?];
    text_search_call(name, arguments).map(PlannerResult::Planned)
}

/// `vector @@ query`. What `to_tsvector` makes for this alone is not made a column first.
fn matched(vector: Expr, query: Expr) -> Result<Expr> {
    let query = typed(query, &SqlType::TsQuery)?;
    match vector {
        Expr::ScalarFunction(call) if call.name() == "to_tsvector" && call.args.len() == 2 => {
            let mut arguments = call.args;
            arguments.push(query);
            text_search_call("sepal_match_text", arguments)
        }
        vector => text_search_call("ts_match_vq", vec![typed(vector, &SqlType::TsVector)?, query]),
    }
}

fn is_searched(ty: Option<&SqlType>) -> bool {
    matches!(ty, Some(SqlType::TsQuery | SqlType::TsVector))
}

/// The type of an operand; `None` for one that has none yet.
fn known(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    // A parameter that had to be given some type before planning was given `text`.
    if let Expr::Placeholder(Placeholder { field: Some(field), .. }) = expr
        && sql_type(field) == SqlType::Text
    {
        return None;
    }
    match operand(expr, schema) {
        Operand::Typed(ty) => Some(ty),
        Operand::Undetermined | Operand::Unknown => None,
    }
}
