//! The names of result columns that have no alias.

use datafusion::sql::sqlparser::ast::{self, SelectItem, SetExpr};

use super::fold;

/// The name that Postgres gives a result column without alias (`FigureColname`).
pub(super) fn presented_name(expr: &ast::Expr) -> String {
    own_name(expr).unwrap_or_else(|| "?column?".to_owned())
}

fn own_name(expr: &ast::Expr) -> Option<String> {
    match expr {
        ast::Expr::Identifier(ident) => Some(fold(ident)),
        ast::Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        ast::Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                ast::AccessExpr::Dot(ast::Expr::Identifier(ident)) => Some(fold(ident)),
                _ => None,
            });
            field.or_else(|| own_name(root))
        }
        ast::Expr::Function(function) => super::name_parts(&function.name)?.pop(),
        ast::Expr::Cast { expr, data_type, .. } => {
            let inner = own_name(expr).filter(|name| name != "case");
            inner.or_else(|| Some(super::cast::data_type_name(data_type)))
        }
        ast::Expr::Case { else_result, .. } => {
            else_result.as_deref().and_then(own_name).or_else(|| Some("case".to_owned()))
        }
        ast::Expr::Nested(inner) | ast::Expr::Collate { expr: inner, .. } => own_name(inner),
        ast::Expr::Array(_) => Some("array".to_owned()),
        ast::Expr::Exists { .. } => Some("exists".to_owned()),
        ast::Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(expr) => own_name(expr),
                SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
                _ => None,
            },
            _ => None,
        },
        ast::Expr::Position { .. } => Some("position".to_owned()),
        ast::Expr::Substring { .. } => Some("substring".to_owned()),
        ast::Expr::Trim { .. } => Some("btrim".to_owned()),
        _ => None,
    }
}
