//! The names that Postgres gives to unnamed output columns (`FigureColname`, `parse_target.c`).
//!
//! DataFusion names a column after its expression and wants names to be unique; drivers expect `count` and
//! `?column?`, repeated if need be. Every unnamed item gets an explicit alias; a repeated name carries an
//! invisible marker that [`strip_marker`] takes off again when the columns are described.

use std::{collections::HashSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArgumentList, FunctionArguments, Ident, Query, Select, SelectItem, TableAlias,
    TableFactor, Visit, Visitor,
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

/// The names that a statement gives to something within it: outputs of the queries in it, items of FROM, their columns.
/// A column that is called so need not be a table's.
pub(super) fn given_names(query: &Query) -> HashSet<String> {
    let mut given = Given { names: HashSet::new(), depth: 0 };
    let _ = Visit::visit(query, &mut given);
    given.names
}

struct Given {
    names: HashSet<String>,
    depth: usize,
}

impl Given {
    fn alias(&mut self, alias: &TableAlias) {
        self.names.insert(normalized(&alias.name));
        self.names.extend(alias.columns.iter().map(|column| normalized(&column.name)));
    }
}

impl Visitor for Given {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        query.with.iter().flat_map(|with| &with.cte_tables).for_each(|cte| self.alias(&cte.alias));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        // Nothing within the statement sees the outputs of the outermost query.
        for item in select.projection.iter().filter(|_| self.depth > 1) {
            let name = match item {
                SelectItem::UnnamedExpr(expr) if !is_column(expr) => figure_name(expr),
                SelectItem::ExprWithAlias { expr, alias } => {
                    let name = strip_marker(&normalized(alias)).to_owned();
                    let own = is_column(expr) && figure_name(expr).as_ref() == Some(&name);
                    (!own).then_some(name)
                }
                _ => None,
            };
            self.names.extend(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. }
        | TableFactor::NestedJoin { alias: Some(alias), .. } = factor
        {
            self.alias(alias);
        }
        ControlFlow::Continue(())
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
        Expr::Cast { expr, data_type, .. } => figure_strong(expr).or_else(|| Some(type_name(data_type))),
        Expr::TypedString(typed) => Some(type_name(&typed.data_type)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure_name(inner),
        Expr::Case { else_result, .. } => {
            Some(else_result.as_deref().and_then(figure_strong).unwrap_or_else(|| "case".to_owned()))
        }
        Expr::AtTimeZone { .. } => Some("timezone".to_owned()),
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
        Expr::CompoundFieldAccess { root, access_chain }
            if access_chain.iter().all(|access| matches!(access, ast::AccessExpr::Subscript(_))) =>
        {
            figure_name(root)
        }
        _ => None,
    }
}

/// The names strong enough to name a cast by its operand, and a CASE by its ELSE: not those that are types' or CASE's.
fn figure_strong(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Case { else_result, .. } => figure_strong(else_result.as_deref()?),
        Expr::Cast { expr, .. } | Expr::Nested(expr) | Expr::Collate { expr, .. } => figure_strong(expr),
        Expr::Function(function) if wrapper(function).is_some() => figure_strong(wrapped(&function.args)?),
        Expr::Interval(_) | Expr::TypedString(_) => None,
        _ => figure_name(expr),
    }
}

/// The name of a call that stands for a cast.
fn wrapper(function: &ast::Function) -> Option<String> {
    let name = function.name.0.last().and_then(|part| part.as_ident()).map(normalized)?;
    name.starts_with("sepal_").then_some(name)
}

fn wrapped(arguments: &FunctionArguments) -> Option<&Expr> {
    match arguments {
        FunctionArguments::List(FunctionArgumentList { args, .. }) => match args.first()? {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        },
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
    let name = wrapped(arguments).and_then(figure_strong);
    name.unwrap_or_else(|| wrapper.rsplit('_').next().unwrap_or("?column?").to_owned())
}

fn type_name(data_type: &ast::DataType) -> String {
    let text = data_type.to_string();
    sepal_types::SqlType::from_name(&text)
        .map_or_else(|| text.to_lowercase(), |ty| ty.internal_name().into_owned())
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::super::dialect::Postgres;
    use super::*;

    #[test]
    fn a_cast_is_called_like_its_operand_or_like_its_own_type() {
        for (sql, expected) in [
            ("'1'::text::int", Some("int4")),
            ("sepal_cast_int4(sepal_cast_text('1'))", Some("int4")),
            ("CAST(('a'::regclass) AS text)", Some("text")),
            ("id::text::varchar", Some("id")),
            ("lower(a)::text::varchar", Some("lower")),
            ("(CASE WHEN a THEN 1 END)::text", Some("text")),
            ("CASE WHEN a THEN 1 ELSE '2'::int END", Some("case")),
            ("CASE WHEN a THEN 1 ELSE b::int END", Some("b")),
            ("(interval '1 day')::text", Some("text")),
            ("tags[1]", Some("tags")),
            ("(tags[1:2])::text", Some("tags")),
            ("1 + 1", None),
        ] {
            let parser = Parser::new(&Postgres).try_with_sql(sql);
            let expr = parser.and_then(|mut parser| parser.parse_expr()).expect("a valid expression");
            assert_eq!(figure_name(&expr).as_deref(), expected, "{sql}");
        }
    }
}
