//! `ARRAY(SELECT …)`: the rows of a query as an array, in the query's order.
//!
//! Called by the AST pass. It becomes `array_agg` over the query, with the order in the aggregate, where DataFusion
//! keeps it: `ARRAY(SELECT a FROM t ORDER BY b)` is `(SELECT array_agg(v ORDER BY n) FROM (SELECT a, row_number() OVER
//! (ORDER BY b) FROM t) q (v, n))`. Without rows the array is empty.

use datafusion::sql::sqlparser::{
    ast::{
        Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident, OrderBy, OrderByExpr,
        OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, Value, WindowType,
    },
    parser::Parser,
};

use super::{dialect::Postgres, names::normalized, rewrite::call};
use crate::functions::FILLED;

/// The names within what is written here.
const VALUE: &str = "sepal_value";
const NUMBER: &str = "sepal_number";

/// Rewrites `ARRAY(SELECT …)`; one whose order cannot be said is left alone.
pub(super) fn rewrite(expr: &mut Expr) {
    let Expr::Function(Function { name, args: FunctionArguments::Subquery(query), .. }) = &*expr else {
        return;
    };
    let is_array = name.0.last().and_then(|part| part.as_ident()).map(normalized);
    if is_array.as_deref() != Some("array") {
        return;
    }
    if let Some(collected) = collected(query.as_ref().clone()) {
        *expr = call(FILLED, Expr::Subquery(Box::new(collected)), None);
    }
}

fn collected(mut query: Query) -> Option<Query> {
    let keys = match &query.order_by {
        None => Vec::new(),
        Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) => keys.clone(),
        Some(_) => return None,
    };
    let value = only_value(query.body.as_ref());
    if keys.iter().all(|key| is_value(&key.expr, value.as_ref())) {
        let order = keys.into_iter().map(|key| OrderByExpr { expr: column(VALUE), ..key }).collect();
        return around(query, &[VALUE], order);
    }
    // The column is going to be called otherwise.
    let spelled = |mut key: OrderByExpr| {
        if let Some((expr, _)) = value.as_ref().filter(|_| is_value(&key.expr, value.as_ref())) {
            key.expr = expr.clone();
        }
        key
    };
    let keys: Vec<OrderByExpr> = keys.into_iter().map(spelled).collect();
    query.order_by = Some(OrderBy { kind: OrderByKind::Expressions(keys.clone()), interpolate: None });
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let (value, _) = value?;
    number_rows(select, value, keys)?;
    let order = OrderByExpr::from(Ident::new(NUMBER));
    around(query, &[VALUE, NUMBER], vec![order])
}

/// What the query's only column is made of, and its name where it was given one. `None` also for more columns.
fn only_value(body: &SetExpr) -> Option<(Expr, Option<String>)> {
    let SetExpr::Select(select) = body else { return None };
    match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(value)] => Some((value.clone(), None)),
        [SelectItem::ExprWithAlias { expr, alias }] => Some((expr.clone(), Some(normalized(alias)))),
        _ => None,
    }
}

/// Whether a key of ORDER BY is the column itself, by number, name or in words.
fn is_value(key: &Expr, value: Option<&(Expr, Option<String>)>) -> bool {
    let by_number = matches!(key, Expr::Value(number)
        if matches!(&number.value, Value::Number(digits, _) if digits == "1"));
    let Some((value, alias)) = value else { return by_number };
    let by_name =
        matches!(key, Expr::Identifier(ident) if alias.as_deref() == Some(normalized(ident).as_str()));
    by_number || by_name || key == value
}

/// Gives the rows their numbers in the order of the keys. `None` for rows that are made of several.
fn number_rows(select: &mut Select, value: Expr, keys: Vec<OrderByExpr>) -> Option<()> {
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    if select.distinct.is_some() || !ungrouped || select.having.is_some() {
        return None;
    }
    let mut number = parsed("SELECT row_number() OVER (ORDER BY 1)")?;
    let SetExpr::Select(template) = number.body.as_mut() else { return None };
    let Some(SelectItem::UnnamedExpr(Expr::Function(mut function))) = template.projection.pop() else {
        return None;
    };
    let Some(WindowType::WindowSpec(window)) = &mut function.over else { return None };
    window.order_by = keys;
    let named = |expr: Expr, name: &str| SelectItem::ExprWithAlias { expr, alias: Ident::new(name) };
    select.projection = vec![named(value, VALUE), named(Expr::Function(function), NUMBER)];
    Some(())
}

/// `SELECT array_agg(value ORDER BY …) FROM (query) AS sepal_rows (columns)`
fn around(query: Query, columns: &[&str], order: Vec<OrderByExpr>) -> Option<Query> {
    let shape = format!(
        "SELECT array_agg({VALUE} ORDER BY {VALUE}) FROM (SELECT 1) AS sepal_rows ({})",
        columns.join(", ")
    );
    let mut outer = parsed(&shape)?;
    let SetExpr::Select(select) = outer.body.as_mut() else { return None };
    let Some(SelectItem::UnnamedExpr(Expr::Function(function))) = select.projection.first_mut() else {
        return None;
    };
    let FunctionArguments::List(list) = &mut function.args else { return None };
    list.clauses.clear();
    if !order.is_empty() {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|item| &mut item.relation)
    else {
        return None;
    };
    **subquery = query;
    Some(outer)
}

fn column(name: &str) -> Expr {
    Expr::Identifier(Ident::new(name))
}

/// A query of our own making.
pub(crate) fn parsed(sql: &str) -> Option<Query> {
    let mut parser = Parser::new(&Postgres).try_with_sql(sql).ok()?;
    parser.parse_query().ok().map(|query| *query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(query: &str) -> String {
        let sql = format!("SELECT ARRAY({query})");
        let query = parsed(&sql).expect("a valid query");
        let SetExpr::Select(mut select) = *query.body else { panic!("{sql}") };
        let Some(SelectItem::UnnamedExpr(mut expr)) = select.projection.pop() else { panic!("{sql}") };
        rewrite(&mut expr);
        expr.to_string()
    }

    #[test]
    fn the_order_is_the_aggregates() {
        for (query, expected) in [
            (
                "SELECT a FROM t",
                "sepal_array_of_rows((SELECT array_agg(sepal_value) FROM (SELECT a FROM t) AS sepal_rows \
                 (sepal_value)))",
            ),
            (
                "SELECT DISTINCT a FROM t ORDER BY a DESC LIMIT 3",
                "sepal_array_of_rows((SELECT array_agg(sepal_value ORDER BY sepal_value DESC) FROM \
                 (SELECT DISTINCT a FROM t ORDER BY a DESC LIMIT 3) AS sepal_rows (sepal_value)))",
            ),
            (
                "SELECT a FROM t ORDER BY b LIMIT 3",
                "sepal_array_of_rows((SELECT array_agg(sepal_value ORDER BY sepal_number) FROM \
                 (SELECT a AS sepal_value, row_number() OVER (ORDER BY b) AS sepal_number FROM t ORDER BY b LIMIT 3) \
                 AS sepal_rows (sepal_value, sepal_number)))",
            ),
        ] {
            assert_eq!(rewritten(query), expected);
        }
        assert!(rewritten("SELECT a FROM t GROUP BY a ORDER BY count(*)").starts_with("ARRAY("));
    }
}
