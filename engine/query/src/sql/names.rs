//! The names that Postgres gives to unnamed output columns (`FigureColname`, `parse_target.c`).
//!
//! DataFusion names a column after its expression and wants names to be unique; drivers expect `count` and
//! `?column?`, repeated if need be. Every unnamed item gets an explicit alias; a repeated name carries an
//! invisible marker that [`strip_marker`] takes off again when the columns are described.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArgumentList, FunctionArguments, Ident, SelectItem,
};

/// U+0001 and a number after it make a repeated name unique for DataFusion.
const MARKER: char = '\u{1}';

/// The name to show for a column of a plan.
pub fn strip_marker(name: &str) -> &str {
    name.split(MARKER).next().unwrap_or(name)
}

/// The name of the output at a position, told apart from all others.
pub(super) fn marked(name: &str, position: usize) -> String {
    format!("{name}{MARKER}{position}")
}

/// Gives every item of a SELECT list the name that Postgres would.
pub fn output_names(select: &mut ast::Select) {
    let mut taken = HashSet::new();
    for (position, item) in select.projection.iter_mut().enumerate() {
        let (expr, name, named) = match item {
            SelectItem::UnnamedExpr(expr) => {
                let name = figure_name(expr).unwrap_or_else(|| "?column?".to_owned());
                (expr.clone(), name, is_column(expr))
            }
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), normalized(alias), false),
            _ => continue,
        };
        let repeated = !taken.insert(name.clone());
        if named && !repeated {
            continue;
        }
        let alias = if repeated { marked(&name, position) } else { name };
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) };
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// An identifier as Postgres folds it.
pub(super) fn normalized(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The name of an unnamed column; `None` where Postgres says `?column?`.
pub(super) fn figure_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(normalized(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(normalized),
        Expr::Function(function) => function.name.0.last().and_then(|part| part.as_ident()).map(|name| {
            match normalized(name).as_str() {
                // Our own wrappers stand for a cast: Postgres names a cast after its operand, else its type.
                wrapper if wrapper.starts_with("sepal_") => cast_name(wrapper, &function.args),
                plain => plain.to_owned(),
            }
        }),
        Expr::Cast { expr, data_type, .. } => figure_name(expr).or_else(|| Some(type_name(data_type))),
        Expr::TypedString(typed) => Some(type_name(&typed.data_type)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure_name(inner),
        Expr::Case { else_result, .. } => {
            Some(else_result.as_deref().and_then(figure_strong).unwrap_or_else(|| "case".to_owned()))
        }
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::Substring { .. } => Some("substring".to_owned()),
        Expr::Trim { .. } => Some("btrim".to_owned()),
        Expr::Ceil { .. } => Some("ceil".to_owned()),
        Expr::Floor { .. } => Some("floor".to_owned()),
        Expr::Interval(_) => Some("interval".to_owned()),
        Expr::Subquery(query) => subquery_name(query),
        _ => None,
    }
}

/// The names strong enough to name a CASE by its ELSE.
fn figure_strong(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Function(_) => figure_name(expr),
        _ => None,
    }
}

fn subquery_name(query: &ast::Query) -> Option<String> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    match select.projection.first()? {
        SelectItem::UnnamedExpr(expr) => figure_name(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some(strip_marker(&normalized(alias)).to_owned()),
        _ => None,
    }
}

fn cast_name(wrapper: &str, arguments: &FunctionArguments) -> String {
    let operand = match arguments {
        FunctionArguments::List(FunctionArgumentList { args, .. }) => args.first(),
        _ => None,
    };
    let name = match operand {
        Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr))) => figure_name(expr),
        _ => None,
    };
    name.unwrap_or_else(|| wrapper.rsplit('_').next().unwrap_or("?column?").to_owned())
}

fn type_name(data_type: &ast::DataType) -> String {
    let text = data_type.to_string();
    sepal_types::SqlType::from_name(&text)
        .map_or_else(|| text.to_lowercase(), |ty| ty.internal_name().into_owned())
}
