//! The plainest shapes of a SELECT, for the ways around planning: one table, plain columns, parameters.
//!
//! Called by `vector::fast` and `lookup`. Looks at syntax alone and answers `None` for whatever is more than that.

use datafusion::sql::sqlparser::ast::{
    self, Expr, GroupByExpr, Query, SelectItem, SetExpr, TableFactor, Value,
};
use sepal_types::{ColumnId, RelationName, TableDef};

use super::strip_marker;
use crate::ddl::relation_name;

/// A SELECT of one block, without grouping, DISTINCT, HAVING and the like; it may have WHERE, ORDER BY and LIMIT.
pub fn plain_select(query: &Query) -> Option<&ast::Select> {
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

/// An item of the SELECT list and the name it is given; `None` for a wildcard.
pub fn plain_item(item: &SelectItem) -> Option<(&Expr, Option<String>)> {
    match item {
        SelectItem::UnnamedExpr(expr) => Some((expr, None)),
        SelectItem::ExprWithAlias { expr, alias } => {
            Some((expr, Some(strip_marker(&alias.value).to_owned())))
        }
        _ => None,
    }
}

/// The table's name and its alias.
pub fn plain_table(select: &ast::Select) -> Option<(RelationName, Option<String>)> {
    let [from] = select.from.as_slice() else {
        return None;
    };
    let TableFactor::Table { name, alias, args: None, .. } = &from.relation else {
        return None;
    };
    // An alias that names the columns anew is the planner's to read.
    let renames = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
    if !from.joins.is_empty() || renames {
        return None;
    }
    let name = relation_name(name).ok()?;
    Some((name, alias.as_ref().map(|alias| normalized(&alias.name))))
}

pub fn normalized(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

pub fn plain_column(expr: &Expr, def: &TableDef, names: &[Option<&str>]) -> Option<ColumnId> {
    let column = match expr {
        Expr::Identifier(ident) => normalized(ident),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [schema, table, column]
                if normalized(schema) == def.schema
                    && normalized(table) == def.name
                    && names.contains(&Some(def.name.as_str())) =>
            {
                normalized(column)
            }
            [table, column] if names.contains(&Some(normalized(table).as_str())) => normalized(column),
            _ => return None,
        },
        Expr::Nested(inner) => return plain_column(inner, def, names),
        _ => return None,
    };
    def.column(&column).map(|column| column.id)
}

/// The position of `$n`, from 0. A cast around it was taken off by `sql::prepare_query`.
pub fn parameter(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1),
            _ => None,
        },
        Expr::Nested(inner) => parameter(inner),
        _ => None,
    }
}
