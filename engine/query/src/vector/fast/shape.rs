//! The parts of a statement that `fast` can run: one table, plain columns, one distance, a count.
//!
//! Looks at syntax alone and answers `None` for whatever is more than that.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, LimitClause,
    OrderByKind, Query, SelectItem, SetExpr, TableFactor, Value,
};
use sepal_types::{ColumnId, Metric, TableDef, parse_vector};

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

pub(super) fn plain_select(query: &Query) -> Option<&ast::Select> {
    let SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, modifiers) if by.is_empty() && modifiers.is_empty());
    let plain = query.with.is_none()
        && query.fetch.is_none()
        && select.distinct.is_none()
        && select.having.is_none()
        && select.named_window.is_empty()
        && select.lateral_views.is_empty()
        && select.into.is_none()
        && !grouped;
    plain.then_some(select)
}

/// The table's name and its alias.
pub(super) fn plain_table(select: &ast::Select) -> Option<(String, Option<String>)> {
    let [from] = select.from.as_slice() else {
        return None;
    };
    let TableFactor::Table { name, alias, args: None, .. } = &from.relation else {
        return None;
    };
    if !from.joins.is_empty() || name.0.len() > 2 {
        return None;
    }
    let schema_ok =
        name.0.len() == 1 || name.0[0].as_ident().is_some_and(|schema| normalized(schema) == "public");
    let table = normalized(name.0.last()?.as_ident()?);
    schema_ok.then(|| (table, alias.as_ref().map(|alias| normalized(&alias.name))))
}

pub(super) fn normalized(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
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

pub(super) fn distance_of(
    expr: &Expr,
    def: &TableDef,
    names: &[Option<&str>],
) -> Option<(ColumnId, Metric, Source)> {
    let Expr::BinaryOp { left, op, right } = expr else {
        return None;
    };
    let metric = match op {
        BinaryOperator::LtDashGt => Metric::L2,
        BinaryOperator::Custom(text) => Metric::from_operator(text)?,
        _ => return None,
    };
    match (plain_column(left, def, names), plain_column(right, def, names)) {
        (Some(column), None) => Some((column, metric, source(right)?)),
        (None, Some(column)) => Some((column, metric, source(left)?)),
        _ => None,
    }
}

pub(super) fn plain_column(expr: &Expr, def: &TableDef, names: &[Option<&str>]) -> Option<ColumnId> {
    let column = match expr {
        Expr::Identifier(ident) => normalized(ident),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, column] if names.contains(&Some(normalized(table).as_str())) => normalized(column),
            _ => return None,
        },
        Expr::Nested(inner) => return plain_column(inner, def, names),
        _ => return None,
    };
    def.column(&column).map(|column| column.id)
}

/// A parameter, or a literal: `'[1,2,3]'`, with a cast to vector around it or without.
pub(super) fn source(expr: &Expr) -> Option<Source> {
    parameter(expr).map(Source::Parameter).or_else(|| constant(expr).map(Source::Constant))
}

pub(super) fn constant(expr: &Expr) -> Option<Arc<[f32]>> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => parse_vector(text).ok().map(Arc::from),
            _ => None,
        },
        Expr::Nested(inner) => constant(inner),
        Expr::Function(call) if call.name.to_string() == "sepal_cast_vector" => match &call.args {
            FunctionArguments::List(list) => match list.args.as_slice() {
                [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => constant(argument),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// The position of `$n`, from 0. A cast around it was taken off by `sql::prepare_query`.
pub(super) fn parameter(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1),
            _ => None,
        },
        Expr::Nested(inner) => parameter(inner),
        _ => None,
    }
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
