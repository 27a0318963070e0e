//! `SELECT -n.d AS d FROM n ORDER BY n.d`: an output column that is called as a column which its rows are sorted by.
//!
//! PostgreSQL takes a lone name as a key for the output column, and a name with a table or within an expression for a
//! column of FROM (`findTargetlistEntrySQL92`). DataFusion looks among both at once, and where it sorts by a column
//! that is no output it puts that beside the outputs, where two of one name are ambiguous. So such an output gets the marker
//! of a repeated name (`names`), which is taken off where columns are described: then only keys that mean it find it.
//!
//! Called by the AST pass for the statement's own SELECT. The outputs of subqueries are named by what is around them,
//! and stay as they are.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Ident, OrderBy, OrderByKind, Query, SelectItem, SetExpr, visit_expressions,
};

use super::{
    names::{marked, normalized, output_names},
    rewrite::ColumnTypes,
};

/// Marks the outputs of a query that are called as columns of FROM which its keys name. `columns` are those of its
/// tables.
pub(super) fn keep_apart(query: &mut Query, columns: &ColumnTypes) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = &mut query.order_by else { return };
    // DISTINCT ON has to find its own keys among those of ORDER BY.
    if matches!(select.distinct, Some(Distinct::On(_))) {
        return;
    }
    output_names(select);
    let mut hidden: HashMap<String, Ident> = HashMap::new();
    for (position, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::ExprWithAlias { alias, .. } = item else { continue };
        let name = normalized(alias);
        if keys.iter().any(|key| names_column(&key.expr, &name, columns)) {
            *alias = Ident::with_quote('"', marked(&name, position));
            hidden.insert(name, alias.clone());
        }
    }
    for key in keys {
        if let Some(ident) = lone_name(&mut key.expr)
            && let Some(alias) = hidden.get(&normalized(ident))
        {
            *ident = alias.clone();
        }
    }
}

/// Whether a key names a column of FROM that is called so.
fn names_column(key: &Expr, name: &str, columns: &ColumnTypes) -> bool {
    let mut key = key;
    while let Expr::Nested(inner) = key {
        key = inner;
    }
    if matches!(key, Expr::Identifier(_)) {
        return false;
    }
    let found = visit_expressions(key, |expr| {
        let names = match expr {
            Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|part| normalized(part) == name),
            Expr::Identifier(ident) => normalized(ident) == name && columns(name).is_some(),
            _ => false,
        };
        if names { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found.is_break()
}

/// The name that a key consists of.
fn lone_name(key: &mut Expr) -> Option<&mut Ident> {
    match key {
        Expr::Identifier(ident) => Some(ident),
        Expr::Nested(inner) => lone_name(inner),
        _ => None,
    }
}
