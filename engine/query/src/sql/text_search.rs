//! Full-text search before planning: the configuration that a call leaves out, `@@` between texts, `!!`, and queries
//! that stand in FROM.
//!
//! Called by the AST pass. What is text and what a `tsvector` decides what `@@` means; here it is told of columns,
//! casts and calls, in the planner of all else. The session's configuration is asked for by a call of its own
//! (`get_current_ts_config`), so that a plan outlives SET.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{
        BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, SelectItem,
        SetExpr, TableAlias, TableAliasColumnDef, TableFactor, UnaryOperator, Value, visit_expressions,
    },
    parser::Parser,
};
use sepal_types::SqlType;

use super::{
    dialect::Postgres,
    hints::type_of,
    names::normalized,
    params::ParameterTypes,
    rewrite::{ColumnTypes, call, call_of, placeholder},
};
use crate::functions::text_search_result;

/// Spells what only the types beside it tell. The operands are still as they were written.
pub(super) fn spell(expr: &mut Expr, parameters: &mut ParameterTypes, columns: &ColumnTypes<'_>) {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::PGPrefixFactorial, expr: operand } => {
            *expr = call("tsquery_not", operand.as_ref().clone(), None);
        }
        Expr::BinaryOp { left, op: BinaryOperator::AtAt, right } => {
            match_texts(left, right, parameters, columns);
        }
        Expr::Function(function) => {
            name_configuration(function);
            name_length(function, parameters, columns);
        }
        _ => {}
    }
}

/// `text @@ text` looks for all words of the one in the other, `text @@ tsquery` for a query.
fn match_texts(
    left: &mut Expr,
    right: &mut Expr,
    parameters: &mut ParameterTypes,
    columns: &ColumnTypes<'_>,
) {
    let mut known = |expr: &Expr| type_of(expr, parameters, columns);
    let (of_left, of_right) = (known(&*left), known(&*right));
    let is_text = |ty: &Option<SqlType>, expr: &Expr| match ty {
        Some(SqlType::Text | SqlType::Bpchar(_)) => true,
        Some(_) => false,
        None => is_untyped(expr),
    };
    if !is_text(&of_left, &*left) {
        return;
    }
    if is_text(&of_right, &*right) {
        *right = call_of("plainto_tsquery", vec![configuration(), right.clone()]);
    } else if of_right != Some(SqlType::TsQuery) {
        return;
    }
    *left = call_of("to_tsvector", vec![configuration(), left.clone()]);
}

/// A string literal, or a parameter that nothing has typed.
fn is_untyped(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_untyped(inner),
        Expr::Value(value) => {
            matches!(value.value, Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_))
                || placeholder(expr).is_some()
        }
        _ => false,
    }
}

fn configuration() -> Expr {
    call_of("get_current_ts_config", Vec::new())
}

fn name_of(function: &Function) -> Option<String> {
    function.name.0.last().and_then(|part| part.as_ident()).map(normalized)
}

/// `to_tsvector(a)` is `to_tsvector(get_current_ts_config(), a)`.
fn name_configuration(function: &mut Function) {
    let takes_one = name_of(function).is_some_and(|name| {
        matches!(
            name.as_str(),
            "to_tsvector" | "to_tsquery" | "plainto_tsquery" | "phraseto_tsquery" | "websearch_to_tsquery"
        )
    });
    if let (true, FunctionArguments::List(list)) = (takes_one, &mut function.args)
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(_))] = list.args.as_slice()
    {
        list.args.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(configuration())));
    }
}

/// `length` of a `tsvector` counts its lexemes.
fn name_length(function: &mut Function, parameters: &mut ParameterTypes, columns: &ColumnTypes<'_>) {
    if name_of(function).is_none_or(|name| name != "length") {
        return;
    }
    if let FunctionArguments::List(list) = &function.args
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_slice()
        && type_of(argument, parameters, columns) == Some(SqlType::TsVector)
        && let Expr::Function(counted) = call("sepal_tsvector_length", argument.clone(), None)
    {
        *function = counted;
    }
}

/// `FROM plainto_tsquery('a') query` is `FROM (SELECT plainto_tsquery('a') AS query) query`. Not where it looks at
/// other items.
pub(super) fn select_query(factor: &mut TableFactor) {
    let (name, args, alias) = match &*factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality: false, .. } => {
            (name, &args.args, alias)
        }
        TableFactor::Function { name, args, alias, with_ordinality: false, .. } => (name, args, alias),
        _ => return,
    };
    let Some(function) = name.0.last().and_then(|part| part.as_ident()).map(normalized) else {
        return;
    };
    let is_lone = text_search_result(&function).is_some_and(|ty| !matches!(ty, SqlType::Array(_)));
    let looks_around = visit_expressions(args, |expr| match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break();
    if !is_lone || looks_around {
        return;
    }
    let mut operands = Vec::with_capacity(args.len());
    for argument in args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(operand)) = argument else { return };
        operands.push(operand.clone());
    }
    let parser = Parser::new(&Postgres).try_with_sql("SELECT 1");
    let Ok(mut query) = parser.and_then(|mut parser| parser.parse_query()) else {
        return;
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let ident = alias.as_ref().map_or_else(|| Ident::new(&function), |alias| alias.name.clone());
    select.projection =
        vec![SelectItem::ExprWithAlias { expr: call_of(&function, operands), alias: ident.clone() }];
    let mut alias = alias.clone().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: ident.clone(),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: ident, data_type: None });
    }
    *factor = TableFactor::Derived { lateral: false, subquery: query, alias: Some(alias), sample: None };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(sql: &str) -> String {
        let parser = Parser::new(&Postgres).try_with_sql(sql);
        let mut expr = parser.and_then(|mut parser| parser.parse_expr()).expect("a valid expression");
        let columns = |name: &str| match name {
            "body" => Some(SqlType::Text),
            "tsv" => Some(SqlType::TsVector),
            "meta" => Some(SqlType::Jsonb),
            _ => None,
        };
        spell(&mut expr, &mut ParameterTypes::default(), &columns);
        expr.to_string()
    }

    #[test]
    fn what_a_call_leaves_out_is_the_sessions() {
        let cases = [
            ("to_tsvector(body)", "to_tsvector(get_current_ts_config(), body)"),
            ("plainto_tsquery($1)", "plainto_tsquery(get_current_ts_config(), $1)"),
            ("to_tsvector('english', body)", "to_tsvector('english', body)"),
            ("length(tsv)", "sepal_tsvector_length(tsv)"),
            ("length(body)", "length(body)"),
            ("!! 'a'::tsquery", "tsquery_not('a'::TSQUERY)"),
        ];
        for (sql, expected) in cases {
            assert_eq!(spelled(sql), expected);
        }
    }

    #[test]
    fn texts_are_matched_as_documents() {
        let document = |text: &str| format!("to_tsvector(get_current_ts_config(), {text})");
        let query = |text: &str| format!("plainto_tsquery(get_current_ts_config(), {text})");
        let cases = [
            ("body @@ 'cat'", format!("{} @@ {}", document("body"), query("'cat'"))),
            ("body @@ $1", format!("{} @@ {}", document("body"), query("$1"))),
            (
                "'cats' @@ to_tsquery('simple', 'cat')",
                format!("{} @@ to_tsquery('simple', 'cat')", document("'cats'")),
            ),
            ("tsv @@ 'cat'", "tsv @@ 'cat'".to_owned()),
            ("meta @@ '$.a'", "meta @@ '$.a'".to_owned()),
            ("tsv @@ to_tsquery('simple', 'a')", "tsv @@ to_tsquery('simple', 'a')".to_owned()),
        ];
        for (sql, expected) in cases {
            assert_eq!(spelled(sql), expected);
        }
    }
}
