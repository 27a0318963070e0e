//! Functions of `json` and `jsonb` that return rows: their columns' names, and what stands for a whole row.
//!
//! Called by the AST pass. A function in FROM whose argument is a column looks at the items before it, also without the
//! word LATERAL.

use std::{iter, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, OrderByKind, Query, SelectItem,
    SetExpr, TableAlias, TableAliasColumnDef, TableFactor, VisitMut, VisitorMut, visit_expressions,
};
use sepal_types::SqlType;

use super::{
    names::normalized,
    params::ParameterTypes,
    rewrite::{ColumnTypes, call, placeholder},
};
use crate::functions::{RowsFunction, json_rows};

/// Names the columns of such a function in FROM, and makes it lateral if it looks at other rows.
pub(super) fn name_rows(factor: &mut TableFactor, parameters: &mut ParameterTypes) {
    let Some(rows) = rows_of(factor) else {
        return;
    };
    let (args, numbered, alias) = match factor {
        TableFactor::Table { args: Some(args), with_ordinality, alias, .. } => {
            (&args.args, *with_ordinality, alias)
        }
        TableFactor::Function { args, with_ordinality, alias, .. } => (&*args, *with_ordinality, alias),
        _ => return,
    };
    if let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = args.as_slice()
        && let Some(position) = placeholder(argument)
    {
        let ty = if rows.takes_jsonb() { SqlType::Jsonb } else { SqlType::Json };
        parameters.hint(position, &ty);
    }
    let looks_around = visit_expressions(args, |expr| match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break();
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new(rows.name),
        columns: Vec::new(),
        at: None,
    });
    let table = alias.name.clone();
    let names = rows.columns().into_iter().map(|name| name.map_or_else(|| table.clone(), Ident::new));
    let names = names.chain(numbered.then(|| Ident::new("ordinality"))).skip(alias.columns.len());
    alias.columns.extend(names.map(|name| TableAliasColumnDef { name, data_type: None }));
    if looks_around && let TableFactor::Table { name, args: Some(args), with_ordinality, alias, .. } = factor
    {
        *factor = TableFactor::Function {
            lateral: true,
            name: name.clone(),
            args: std::mem::take(&mut args.args),
            with_ordinality: *with_ordinality,
            alias: alias.take(),
        };
    }
}

/// What such a function in FROM is called, and its columns.
pub(super) fn named_columns(factor: &TableFactor) -> Option<(String, Vec<String>)> {
    let rows = rows_of(factor)?;
    let (TableFactor::Table { with_ordinality, alias, .. }
    | TableFactor::Function { with_ordinality, alias, .. }) = factor
    else {
        return None;
    };
    let table = alias.as_ref().map_or_else(|| rows.name.to_owned(), |alias| normalized(&alias.name));
    let names = rows.columns().into_iter().map(|name| name.map_or_else(|| table.clone(), str::to_owned));
    let mut names: Vec<String> = names.chain(with_ordinality.then(|| "ordinality".to_owned())).collect();
    for (name, column) in names.iter_mut().zip(alias.iter().flat_map(|alias| &alias.columns)) {
        *name = normalized(&column.name);
    }
    Some((table, names))
}

fn rows_of(factor: &TableFactor) -> Option<&'static RowsFunction> {
    match factor {
        TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
            json_rows(&name.0.last()?.as_ident()?.value)
        }
        _ => None,
    }
}

/// `SELECT e ->> 'a' FROM jsonb_array_elements(…) e`: the name of the item stands for its only column, unless a column
/// of a table has that name.
pub(super) fn spell_elements(query: &mut Query, columns: &ColumnTypes) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let mut spelling = Spelling { names: Vec::new() };
    for item in &mut select.from {
        let first = (&mut item.relation, None);
        let joined = item.joins.iter_mut().map(|join| (&mut join.relation, Some(&mut join.join_operator)));
        for (factor, operator) in iter::once(first).chain(joined) {
            // It looks at the items before it.
            spelling.apply(factor);
            spelling.names.extend(element_name(factor).filter(|name| columns(name).is_none()));
            if let Some(operator) = operator {
                spelling.apply(operator);
            }
        }
    }
    if spelling.names.is_empty() {
        return;
    }
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(ident)) = item
            && spelling.names.contains(&normalized(ident))
        {
            let (alias, expr) = (ident.clone(), Expr::Identifier(ident.clone()));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
    let from = std::mem::take(&mut select.from);
    spelling.apply(&mut **select);
    select.from = from;
    // ORDER BY means an output column first.
    let outputs: Vec<String> = select.projection.iter().filter_map(alias).collect();
    spelling.names.retain(|name| !outputs.contains(name));
    if let Some(order_by) = &mut query.order_by
        && let OrderByKind::Expressions(keys) = &mut order_by.kind
    {
        keys.iter_mut().for_each(|key| spelling.apply(&mut key.expr));
    }
}

fn alias(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normalized(alias)),
        _ => None,
    }
}

/// The name of an item of FROM that is a list of elements.
fn element_name(factor: &TableFactor) -> Option<String> {
    let rows = rows_of(factor)?;
    let (TableFactor::Table { alias: Some(alias), with_ordinality: false, .. }
    | TableFactor::Function { alias: Some(alias), with_ordinality: false, .. }) = factor
    else {
        return None;
    };
    let unnamed = alias.columns.is_empty() && rows.columns() == [Some("value")];
    unnamed.then(|| normalized(&alias.name))
}

/// Puts `e.value` in place of `e`.
struct Spelling {
    names: Vec<String>,
}

impl Spelling {
    fn apply(&mut self, node: &mut impl VisitMut) {
        if !self.names.is_empty() {
            let _ = node.visit(self);
        }
    }
}

impl VisitorMut for Spelling {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = &*expr
            && self.names.contains(&normalized(ident))
        {
            *expr = Expr::CompoundIdentifier(vec![ident.clone(), Ident::new("value")]);
        }
        ControlFlow::Continue(())
    }
}

/// `SELECT jsonb_array_elements(a)` gives rows there too: the elements of a list, each with its type.
pub(super) fn unnest_rows(expr: &mut Expr) {
    let Expr::Function(Function {
        name, args: FunctionArguments::List(list), over: None, filter: None, ..
    }) = &*expr
    else {
        return;
    };
    let rows = name.0.last().and_then(|part| part.as_ident()).and_then(|name| json_rows(&name.value));
    let Some((values, marker)) = rows.and_then(RowsFunction::only_column) else {
        return;
    };
    if let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_slice() {
        let element = call("unnest", call(&values, argument.clone(), None), None);
        *expr = match marker {
            Some(marker) => call(marker, element, None),
            None => element,
        };
    }
}
