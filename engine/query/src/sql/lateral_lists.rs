//! `FROM t, unnest(t.tags) AS tag`: a function whose arguments are columns looks at the items before it, also without
//! the word LATERAL. So does `generate_series`.
//!
//! Called by the AST pass; `planner/lateral_lists.rs` plans what this marks.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, TableAlias, TableAliasColumnDef, TableFactor,
    Visit,
};

use super::{names::normalized, outermost::any_outermost};

/// Makes such a function lateral, and names its columns.
pub(super) fn mark_lateral(factor: &mut TableFactor) {
    let replaced = match factor {
        TableFactor::UNNEST { array_exprs, alias, with_ordinality, with_offset: false, .. }
            if looks_around(&*array_exprs) =>
        {
            let argument = |expr: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
            let args = std::mem::take(array_exprs).into_iter().map(argument).collect();
            (ObjectName::from(vec![Ident::new("unnest")]), args, *with_ordinality, alias.take())
        }
        TableFactor::Table { name, args: Some(args), with_ordinality, alias, .. }
            if is_named(name, "generate_series") && looks_around(&args.args) =>
        {
            (name.clone(), std::mem::take(&mut args.args), *with_ordinality, alias.take())
        }
        TableFactor::Function { name, args, with_ordinality, alias, .. } => {
            name_columns(name, args.len(), *with_ordinality, alias);
            return;
        }
        _ => return,
    };
    let (name, args, with_ordinality, mut alias): (_, Vec<FunctionArg>, _, _) = replaced;
    name_columns(&name, args.len(), with_ordinality, &mut alias);
    *factor = TableFactor::Function { lateral: true, name, args, with_ordinality, alias };
}

/// What `unnest` or `generate_series` in FROM is called, and its columns, which get their names now.
pub(super) fn named_columns(factor: &mut TableFactor) -> Option<(String, Vec<String>)> {
    name_series(factor);
    mark_lateral(factor);
    let (count, numbered, alias) = match &*factor {
        TableFactor::UNNEST { array_exprs, alias, with_ordinality, .. } => {
            (array_exprs.len(), *with_ordinality, alias)
        }
        TableFactor::Function { name, args, with_ordinality, alias, .. } if is_named(name, "unnest") => {
            (args.len(), *with_ordinality, alias)
        }
        TableFactor::Function { name, with_ordinality, alias, .. }
        | TableFactor::Table { name, args: Some(_), with_ordinality, alias, .. }
            if is_named(name, "generate_series") =>
        {
            (1, *with_ordinality, alias)
        }
        _ => return None,
    };
    let alias = alias.as_ref().filter(|alias| alias.columns.len() == count + usize::from(numbered))?;
    let columns = alias.columns.iter().map(|column| normalized(&column.name));
    Some((normalized(&alias.name), columns.collect()))
}

/// `FROM generate_series(1, 3) AS g`: a function that returns one column names it after its alias. The numbers beside
/// it are called `ordinality`.
pub(super) fn name_series(factor: &mut TableFactor) {
    let (name, alias, numbered) = match factor {
        TableFactor::Table { name, args: Some(_), alias, with_ordinality, .. }
            if name.to_string().eq_ignore_ascii_case("generate_series") =>
        {
            ("generate_series", alias, *with_ordinality)
        }
        TableFactor::UNNEST { array_exprs, alias, with_ordinality, .. } if array_exprs.len() == 1 => {
            ("unnest", alias, *with_ordinality)
        }
        _ => return,
    };
    let ident = alias.as_ref().map_or_else(|| Ident::new(name), |alias| alias.name.clone());
    let column = |name: Ident| TableAliasColumnDef { name, data_type: None };
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: ident.clone(),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(column(ident));
    }
    if numbered && alias.columns.len() == 1 {
        alias.columns.push(column(Ident::new("ordinality")));
    }
}

/// The only column is called like the item, several like the function.
fn name_columns(function: &ObjectName, arguments: usize, numbered: bool, alias: &mut Option<TableAlias>) {
    let (name, count) = match is_named(function, "unnest") {
        true => ("unnest", arguments),
        false if is_named(function, "generate_series") => ("generate_series", 1),
        false => return,
    };
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new(name),
        columns: Vec::new(),
        at: None,
    });
    let column = |name: Ident| TableAliasColumnDef { name, data_type: None };
    for place in alias.columns.len()..count {
        let ident = match (count, place) {
            (1, _) => alias.name.clone(),
            (_, 0) => Ident::new(name),
            _ => Ident::new(format!("{name}_{}", place + 1)),
        };
        alias.columns.push(column(ident));
    }
    if numbered && alias.columns.len() == count {
        alias.columns.push(column(Ident::new("ordinality")));
    }
}

fn is_named(name: &ObjectName, wanted: &str) -> bool {
    name.0.last().and_then(|part| part.as_ident()).is_some_and(|ident| normalized(ident) == wanted)
}

/// Whether a column is named, but within a subquery, whose columns are its own.
fn looks_around<N: Visit>(arguments: &N) -> bool {
    any_outermost(arguments, |expr| matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{ast::SetExpr, parser::Parser};

    use super::super::dialect::Postgres;
    use super::*;

    /// The last item of FROM, and whether it is lateral.
    fn marked(from: &str) -> (String, bool) {
        let sql = format!("SELECT 1 FROM {from}");
        let parser = Parser::new(&Postgres).try_with_sql(&sql);
        let mut query = parser.and_then(|mut parser| parser.parse_query()).expect("a valid query");
        let SetExpr::Select(select) = query.body.as_mut() else { panic!("{sql}") };
        let last = select.from.last_mut().expect("an item");
        let factor = match last.joins.last_mut() {
            Some(join) => &mut join.relation,
            None => &mut last.relation,
        };
        mark_lateral(factor);
        (factor.to_string(), matches!(factor, TableFactor::Function { lateral: true, .. }))
    }

    #[test]
    fn what_names_a_column_is_lateral() {
        for (from, expected) in [
            ("t, unnest(t.tags)", "LATERAL unnest(t.tags) AS unnest (unnest)"),
            ("t, unnest(t.a, b) AS u", "LATERAL unnest(t.a, b) AS u (unnest, unnest_2)"),
            ("t CROSS JOIN LATERAL unnest(a) AS u (x)", "LATERAL unnest(a) AS u (x)"),
            ("t, generate_series(1, t.n) AS g", "LATERAL generate_series(1, t.n) AS g (g)"),
        ] {
            assert_eq!(marked(from), (expected.to_owned(), true), "{from}");
        }
        for from in ["unnest(ARRAY[1, 2])", "t, unnest(ARRAY(SELECT a FROM s))", "t, unnest($1)"] {
            assert!(!marked(from).1, "{from}");
        }
    }
}
