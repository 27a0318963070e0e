//! EXISTS among a SELECT's outputs: DataFusion plans it in WHERE, HAVING and ON only.
//!
//! Called by the AST pass for every select list. `EXISTS (SELECT …)` becomes `(SELECT count(*) …) > 0`, where the
//! subquery's rows are not changed by counting them; any other form is left, and refused by the planner.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    GroupByExpr, Ident, LimitClause, ObjectName, Query, Select, SelectItem, SetExpr, Value,
    visit_expressions,
};

use super::{literals::number, outermost::change_outermost};

/// Rewrites one output expression, not the subqueries within it: they are visited on their own.
pub(super) fn count_rows(expr: &mut Expr) {
    change_outermost(expr, |expr| {
        if let Expr::Exists { subquery, negated } = &*expr
            && let Some(counted) = counted(subquery)
        {
            let op = if *negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
            let none = Expr::Value(Value::Number("0".to_owned(), false).into());
            let compared = Expr::BinaryOp {
                left: Box::new(Expr::Subquery(Box::new(counted))),
                op,
                right: Box::new(none),
            };
            *expr = Expr::Nested(Box::new(compared));
        }
    });
}

/// The query with `count(*)` as its only output; `None` where that would not count its rows.
fn counted(query: &Query) -> Option<Query> {
    let SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    if !is_plain(select) || query.fetch.is_some() || !keeps_a_row(query.limit_clause.as_ref()) {
        return None;
    }
    let mut select = select.clone();
    select.projection = vec![SelectItem::UnnamedExpr(count())];
    let body = Box::new(SetExpr::Select(select));
    Some(Query { body, limit_clause: None, order_by: None, ..query.clone() })
}

/// One row in FROM and WHERE is one row of the result: no grouping, and no call that might be an aggregate's.
fn is_plain(select: &Select) -> bool {
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let calls = select.projection.iter().any(|item| {
        visit_expressions(item, |expr| match expr {
            Expr::Function(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    });
    ungrouped && !calls && select.having.is_none() && select.distinct.is_none() && select.top.is_none()
}

/// `LIMIT 1`, which ORMs write here, does not make an answer empty.
fn keeps_a_row(limit: Option<&LimitClause>) -> bool {
    match limit {
        None => true,
        Some(LimitClause::LimitOffset { limit: Some(limit), offset: None, .. }) => {
            number(limit).and_then(|digits| digits.parse::<u64>().ok()).is_some_and(|limit| limit > 0)
        }
        _ => false,
    }
}

fn count() -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("count")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![FunctionArg::Unnamed(FunctionArgExpr::Wildcard)],
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
