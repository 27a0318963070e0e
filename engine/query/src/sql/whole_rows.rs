//! `json_agg(t)`, `to_jsonb(t)`, `row_to_json(t)`: a row of an item of FROM as JSON.
//!
//! Called by `wildcard`, which knows the columns of every item. The name becomes a call with the columns and their
//! names. Items whose rows an outer join may leave out are not spelled: those rows are NULL as a whole.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, Select, Value,
    visit_expressions,
};

use super::{
    names::{normalized, strip_marker},
    outermost::change_with_queries,
    rewrite::call_of,
};

/// An item of FROM: its name and its columns.
pub(super) struct Row {
    pub name: String,
    pub columns: Vec<String>,
}

fn takes_rows(function: &Function) -> Option<String> {
    let [name] = function.name.0.as_slice() else {
        return None;
    };
    let name = normalized(name.as_ident()?);
    let takes = matches!(
        name.as_str(),
        "json_agg"
            | "json_build_array"
            | "json_build_object"
            | "json_object_agg"
            | "jsonb_agg"
            | "jsonb_build_array"
            | "jsonb_build_object"
            | "jsonb_object_agg"
            | "row_to_json"
            | "to_json"
            | "to_jsonb"
    );
    takes.then_some(name)
}

/// Whether there is a call that might take a row.
pub(super) fn used(select: &Select) -> bool {
    let takes = |expr: &Expr| match expr {
        Expr::Function(function) if takes_rows(function).is_some() => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    visit_expressions(&select.projection, takes).is_break()
        || visit_expressions(&select.selection, takes).is_break()
        || visit_expressions(&select.having, takes).is_break()
}

/// Spells the rows of a SELECT's own expressions. `within`: what is done with the queries among them.
pub(super) fn spell_rows(select: &mut Select, rows: &[Row], within: &mut dyn FnMut(&mut Query)) {
    let from = std::mem::take(&mut select.from);
    change_with_queries(select, |expr| spell(expr, rows), within);
    select.from = from;
}

fn spell(expr: &mut Expr, rows: &[Row]) {
    let Expr::Function(function) = expr else { return };
    let (Some(name), FunctionArguments::List(list)) = (takes_rows(function), &mut function.args) else {
        return;
    };
    let mut spelled = None;
    for argument in &mut list.args {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument
            && let Some(row) = row_of(argument, rows)
        {
            *argument = row.clone();
            spelled = Some(row);
        }
    }
    match (name.as_str(), spelled) {
        // It has the text of the row itself.
        ("row_to_json", Some(row)) if list.args.len() == 1 => *expr = row,
        // It writes rows on lines of their own.
        ("json_agg", Some(_)) => function.name = ObjectName::from(vec![Ident::new("sepal_json_agg_rows")]),
        _ => {}
    }
}

/// The call that makes the row of the item which an expression names; a column of that name goes first.
fn row_of(expr: &Expr, rows: &[Row]) -> Option<Expr> {
    let Expr::Identifier(ident) = expr else {
        return None;
    };
    let name = normalized(ident);
    if rows.iter().any(|row| row.columns.contains(&name)) {
        return None;
    }
    let row = rows.iter().find(|row| row.name == name)?;
    let mut arguments = Vec::with_capacity(row.columns.len() * 2);
    for column in &row.columns {
        let key = strip_marker(column).to_owned();
        arguments.push(Expr::Value(Value::SingleQuotedString(key).into()));
        let parts = vec![Ident::with_quote('"', &row.name), Ident::with_quote('"', column)];
        arguments.push(Expr::CompoundIdentifier(parts));
    }
    Some(call_of("sepal_json_row", arguments))
}
