//! The parts of a statement that make it a search: the order by one distance, and a count.
//!
//! Looks at syntax alone and answers `None` for whatever is more than that.

use std::{ops::ControlFlow, sync::Arc};

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, LimitClause, OrderByKind,
    Query, SelectItem, Value, visit_expressions,
};
use half::f16;
use sepal_types::{
    ColumnId, Metric, SqlType, TableDef, VectorKind, parse_elements, parse_vector, round_to_half,
};

use crate::sql::shape::{normalized, parameter, plain_column};

/// LIMIT.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Constant(usize),
    Parameter(usize),
}

/// Where the query vector comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Drivers that fill parameters in themselves send it as text in the statement.
    Constant(Arc<[f32]>),
    /// The parameter's position, from 0.
    Parameter(usize),
}

pub(super) fn plain_order(query: &Query) -> Option<&Expr> {
    let OrderByKind::Expressions(keys) = &query.order_by.as_ref()?.kind else {
        return None;
    };
    let [key] = keys.as_slice() else {
        return None;
    };
    (key.options.asc != Some(false) && key.options.nulls_first != Some(true)).then_some(&key.expr)
}

/// `ORDER BY score` where `score` is the alias of an item.
pub(super) fn resolve_alias<'a>(order: &Expr, select: &'a ast::Select) -> Option<&'a Expr> {
    let Expr::Identifier(ident) = order else {
        return None;
    };
    let name = normalized(ident);
    select.projection.iter().find_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if normalized(alias) == name => Some(expr),
        _ => None,
    })
}

/// A distance to a column.
pub(super) struct Distance {
    pub column: ColumnId,
    pub metric: Metric,
    /// Whether it is to the column's vectors as `halfvec`.
    pub as_halves: bool,
    pub query: Source,
}

pub(super) fn distance_of(expr: &Expr, def: &TableDef, names: &[Option<&str>]) -> Option<Distance> {
    let Expr::BinaryOp { left, op, right } = expr else {
        return None;
    };
    let metric = match op {
        BinaryOperator::LtDashGt => Metric::L2,
        BinaryOperator::Custom(text) => Metric::from_operator(text)?,
        _ => return None,
    };
    let searched = |expr: &Expr| match plain_column(expr, def, names) {
        Some(column) => Some((column, false)),
        None => halved_column(expr, def, names).map(|column| (column, true)),
    };
    let ((column, as_halves), query) = match (searched(left), searched(right)) {
        (Some(searched), None) => (searched, right),
        (None, Some(searched)) => (searched, left),
        _ => return None,
    };
    let kind = match as_halves {
        true => VectorKind::Half,
        false => def.column_by_id(column)?.ty.vector_kind()?,
    };
    Some(Distance { column, metric, as_halves, query: source(query, kind)? })
}

/// `column::halfvec(n)`, of as many dimensions as the column has.
fn halved_column(expr: &Expr, def: &TableDef, names: &[Option<&str>]) -> Option<ColumnId> {
    let call = match expr {
        Expr::Nested(inner) => return halved_column(inner, def, names),
        Expr::Function(call) if call.name.to_string() == "sepal_cast_halfvec" => call,
        _ => return None,
    };
    let FunctionArguments::List(list) = &call.args else {
        return None;
    };
    let (operand, modifier) = match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(operand))] => (operand, None),
        [
            FunctionArg::Unnamed(FunctionArgExpr::Expr(operand)),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(modifier))),
        ] => match &modifier.value {
            Value::Number(digits, _) => (operand, Some(digits.parse::<u16>().ok()?)),
            _ => return None,
        },
        _ => return None,
    };
    let column = plain_column(operand, def, names)?;
    match def.column_by_id(column)?.ty {
        SqlType::Vector(Some(own)) if modifier.is_none_or(|modifier| modifier == own) => Some(column),
        _ => None,
    }
}

/// A parameter, or a literal: `'[1,2,3]'`, with a cast around it or without, as a column of this kind takes it.
fn source(expr: &Expr, kind: VectorKind) -> Option<Source> {
    parameter(expr).map(Source::Parameter).or_else(|| constant(expr, kind).map(Source::Constant))
}

fn constant(expr: &Expr, kind: VectorKind) -> Option<Arc<[f32]>> {
    match expr {
        Expr::Value(value) => match (&value.value, kind) {
            (Value::SingleQuotedString(text), VectorKind::Half) => {
                let halves = parse_elements::<f16>(text).ok()?;
                Some(halves.into_iter().map(f16::to_f32).collect())
            }
            (Value::SingleQuotedString(text), VectorKind::Single) => parse_vector(text).ok().map(Arc::from),
            _ => None,
        },
        Expr::Nested(inner) => constant(inner, kind),
        Expr::Function(call) => {
            let FunctionArguments::List(list) = &call.args else {
                return None;
            };
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_slice() else {
                return None;
            };
            match (call.name.to_string().as_str(), kind) {
                ("sepal_cast_halfvec", VectorKind::Half) => constant(argument, VectorKind::Half),
                ("sepal_cast_vector", VectorKind::Single) => constant(argument, VectorKind::Single),
                ("sepal_cast_vector", VectorKind::Half) => {
                    let vector = constant(argument, VectorKind::Single)?;
                    vector.iter().map(|value| round_to_half(*value).ok().map(f16::to_f32)).collect()
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether every parameter of a condition stands beside a column of this kind.
pub(super) fn only_beside(
    condition: &Expr,
    kind: VectorKind,
    def: &TableDef,
    names: &[Option<&str>],
) -> bool {
    let of_kind = |expr: &Expr| {
        let column = plain_column(expr, def, names).and_then(|column| def.column_by_id(column));
        column.is_some_and(|column| column.ty.vector_kind() == Some(kind))
    };
    let (mut all, mut beside) = (0, 0);
    let _ = visit_expressions(condition, |expr| {
        match expr {
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => all += 1,
            Expr::BinaryOp { left, right, .. } => {
                for (one, other) in [(left, right), (right, left)] {
                    beside += usize::from(parameter(one).is_some() && of_kind(other));
                }
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    all == beside
}

pub(super) fn plain_limit(query: &Query) -> Option<Count> {
    let Some(LimitClause::LimitOffset { limit: Some(limit), offset: None, limit_by }) = &query.limit_clause
    else {
        return None;
    };
    if !limit_by.is_empty() {
        return None;
    }
    match limit {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok().map(Count::Constant),
            Value::Placeholder(_) => parameter(limit).map(Count::Parameter),
            _ => None,
        },
        _ => None,
    }
}
