//! Refuses expressions that give another value at another time, or in another session.
//!
//! Beside functions that say so of themselves there are literals: `'now'` is read as the moment where a date is
//! wanted, `at > 'today'`. Such a literal is gone from the plan, a text of the same letters is still in it.

use std::ops::ControlFlow;

use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::{Expr, Volatility},
    scalar::ScalarValue,
    sql::sqlparser::ast,
};
use sepal_types::{Error, Result, SqlState};

use crate::{planner::is_pure, sql::is_moment};

/// The functions that casts to those types became.
const CASTS: [&str; 4] =
    ["sepal_cast_date", "sepal_cast_time", "sepal_cast_timestamp", "sepal_cast_timestamptz"];

/// `query` is prepared, `planned` holds its expressions as planned, before optimization.
///
/// Errors: 42P17, 0A000.
pub(super) fn refuse_unstable<'a>(query: &ast::Query, planned: impl Iterator<Item = &'a Expr>) -> Result<()> {
    let mut texts = 0_usize;
    for expr in planned {
        let mut found = None;
        let walked = expr.apply(|expr| {
            if is_moment_text(expr) {
                texts += 1;
            }
            found = found.take().or_else(|| unstable(expr));
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_err(crate::error::translate)?;
        if let Some(what) = found {
            return Err(not_immutable(&what));
        }
        if !is_pure(expr) {
            return Err(Error::unsupported(
                "a pipeline's query cannot have a subquery, an aggregate or a window function",
            ));
        }
    }
    if texts < written_moments(query) {
        return Err(not_immutable("a literal such as 'now' or 'today'"));
    }
    Ok(())
}

fn not_immutable(what: &str) -> Error {
    Error::new(SqlState::InvalidObjectDefinition, format!("{what} in a pipeline's query is not immutable"))
        .with_detail("A batch that is sent again must have the same bytes.")
        .with_hint("Keep the value in a column of the table, or let the destination add it.")
}

/// What makes an expression depend on more than its row.
fn unstable(expr: &Expr) -> Option<String> {
    let Expr::ScalarFunction(call) = expr else {
        return None;
    };
    if call.func.signature().volatility != Volatility::Immutable {
        return Some(format!("function {}()", call.func.name()));
    }
    let reads_moment = CASTS.contains(&call.func.name()) && call.args.first().is_some_and(is_moment_text);
    reads_moment.then(|| "a literal such as 'now' or 'today'".to_owned())
}

fn is_moment_text(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::Utf8View(Some(text))
            | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => is_moment(text),
        _ => false,
    }
}

/// How many literals of the query are, or hold, such a word.
fn written_moments(query: &ast::Query) -> usize {
    let mut count = 0;
    let _ = ast::visit_expressions(query, |expr| {
        if let ast::Expr::Value(value) = expr {
            count += match &value.value {
                ast::Value::SingleQuotedString(text)
                | ast::Value::EscapedStringLiteral(text)
                | ast::Value::UnicodeStringLiteral(text)
                | ast::Value::NationalStringLiteral(text) => usize::from(is_moment(text)),
                ast::Value::DollarQuotedString(text) => usize::from(is_moment(&text.value)),
                _ => 0,
            };
        }
        ControlFlow::<()>::Continue(())
    });
    count
}
