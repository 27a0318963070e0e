//! WITH queries whose rows are evaluated once and read by each of their names, as PostgreSQL evaluates them.
//!
//! DataFusion puts the query in the place of each name. Where its rows would be others each time, because it calls a
//! volatile function or has a LIMIT, or where MATERIALIZED asks for it, [`mark`] puts a subquery with an alias of ours
//! around it before planning, and in the plan [`share`] puts a [`node::Once`] where those aliases stand. An execution
//! takes the marked queries out of the plan and plans each by itself ([`physical`]). Called by [`super::Engine`] alone.

mod exec;
mod node;

use std::{any::Any, ops::ControlFlow, sync::Arc};

use datafusion::{
    catalog::cte_worktable::CteWorkTable,
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    datasource::source_as_provider,
    error::Result,
    logical_expr::{Expr, Extension, LogicalPlan},
    sql::sqlparser::ast::{
        Cte, CteAsMaterialized, Distinct, Expr as SqlExpr, Ident, ObjectName, Query, SetExpr, TableFactor,
        VisitMut, VisitorMut, With, visit_expressions, visit_relations,
    },
};
use sepal_types::Error;

use self::node::Once;
use crate::{ddl::identifier, error::carry, sql::parsed};

pub use self::exec::OnceExec;
pub(super) use self::{exec::physical, node::is_once};

/// What no name begins with.
const MARK: &str = "\u{1}once:";

/// The marked WITH queries of a statement; the alias of each has its place among them.
pub(super) struct Marked(Vec<WithQuery>);

struct WithQuery {
    name: String,
    /// The volatile function that it calls, itself or by way of another WITH query.
    function: Option<String>,
}

/// Marks the WITH queries that are to be evaluated once. `is_volatile` knows functions by their names.
pub(super) fn mark(query: &mut Query, is_volatile: &dyn Fn(&str) -> bool) -> Marked {
    let mut marker = Marker { is_volatile, marked: Vec::new(), unsteady: Vec::new() };
    let _ = VisitMut::visit(query, &mut marker);
    Marked(marker.marked)
}

/// Puts a [`Once`] below each mark.
///
/// Errors: 0A000 for a query that calls a volatile function and whose rows depend on what is around it.
pub(super) fn share(plan: LogicalPlan, marked: &Marked) -> Result<LogicalPlan> {
    if marked.0.is_empty() {
        return Ok(plan);
    }
    let shared = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::SubqueryAlias(mut alias) => {
            let Some((number, query)) = marked.find(alias.alias.table()) else {
                return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias)));
            };
            if depends_on_outside(&alias.input)? {
                return match &query.function {
                    Some(function) => Err(carry(refused(&query.name, function))),
                    None => Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias))),
                };
            }
            let node = Once::new(number, &query.name, Arc::unwrap_or_clone(alias.input));
            alias.input = Arc::new(LogicalPlan::Extension(Extension { node: Arc::new(node) }));
            Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(shared.data)
}

impl Marked {
    fn find(&self, alias: &str) -> Option<(usize, &WithQuery)> {
        let number: usize = alias.strip_prefix(MARK)?.parse().ok()?;
        Some((number, self.0.get(number)?))
    }
}

fn refused(name: &str, function: &str) -> Error {
    let message = format!(
        "the WITH query \"{name}\", which calls {function}() and depends on the rows around it, is named more than once"
    );
    Error::unsupported(message).with_hint("Write its rows to a table first.")
}

/// Whether a plan reads columns of a query around it, or what a recursive query around it has found so far.
fn depends_on_outside(plan: &LogicalPlan) -> Result<bool> {
    let mut outside = false;
    plan.apply(|node| {
        // What a LATERAL subquery reads stands beside it.
        if matches!(node, LogicalPlan::Subquery(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                outside |= matches!(expr, Expr::OuterReferenceColumn(..));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let (mut read, mut recursive) = (Vec::new(), Vec::new());
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::RecursiveQuery(query) => recursive.push(query.name.clone()),
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                let table = (provider.as_ref() as &dyn Any).downcast_ref::<CteWorkTable>();
                read.extend(table.map(|table| table.name().to_owned()));
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(outside || read.iter().any(|name| !recursive.contains(name)))
}

struct Marker<'a> {
    is_volatile: &'a dyn Fn(&str) -> bool,
    marked: Vec<WithQuery>,
    /// The WITH queries whose rows may be others the next time, each with the volatile function that it calls.
    unsteady: Vec<(String, Option<String>)>,
}

impl VisitorMut for Marker<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let seen: &Query = query;
        let Some(with) = &seen.with else { return ControlFlow::Continue(()) };
        let found: Vec<Option<WithQuery>> =
            with.cte_tables.iter().map(|cte| self.evaluated_once(cte, with, seen)).collect();
        let Some(with) = &mut query.with else { return ControlFlow::Continue(()) };
        for (cte, found) in with.cte_tables.iter_mut().zip(found) {
            let Some(found) = found else { continue };
            if wrap(cte, &found.name, with.recursive, self.marked.len()).is_some() {
                self.marked.push(found);
            }
        }
        ControlFlow::Continue(())
    }
}

impl Marker<'_> {
    /// PostgreSQL inlines what is named once and calls no volatile function. What gives the same rows each time is
    /// left to DataFusion here, so that conditions on each name reach the tables.
    fn evaluated_once(&mut self, cte: &Cte, with: &With, query: &Query) -> Option<WithQuery> {
        let name = identifier(&cte.alias.name);
        let (function, unsteady) = self.unsteady(&cte.query);
        if unsteady {
            self.unsteady.push((name.clone(), function.clone()));
        }
        let wanted = match &cte.materialized {
            Some(CteAsMaterialized::NotMaterialized) => function.is_some(),
            Some(CteAsMaterialized::Materialized) => true,
            None => unsteady,
        };
        // A recursive one names itself, and is evaluated as one.
        let names = times_named(&name, query).saturating_sub(times_named(&name, &cte.query));
        (wanted && (names > 1 || is_repeated(&name, with))).then_some(WithQuery { name, function })
    }

    /// The volatile function that a query calls; whether it may have other rows the next time.
    fn unsteady(&self, query: &Query) -> (Option<String>, bool) {
        let called = visit_expressions(query, |expr| {
            let SqlExpr::Function(function) = expr else { return ControlFlow::Continue(()) };
            let name = function.name.0.last().and_then(|part| part.as_ident()).map(identifier);
            match name.filter(|name| (self.is_volatile)(name)) {
                Some(name) => ControlFlow::Break(name),
                None => ControlFlow::Continue(()),
            }
        });
        let named: Vec<&(String, Option<String>)> =
            self.unsteady.iter().filter(|(name, _)| times_named(name, query) > 0).collect();
        let function =
            called.break_value().or_else(|| named.iter().find_map(|(_, function)| function.clone()));
        let unsteady = function.is_some() || !named.is_empty() || limits_rows(query);
        (function, unsteady)
    }
}

/// Whether a recursive query names it, whose second part is evaluated again and again.
fn is_repeated(name: &str, with: &With) -> bool {
    let repeats = |cte: &Cte| {
        let own = identifier(&cte.alias.name);
        own != name && times_named(&own, &cte.query) > 0 && times_named(name, &cte.query) > 0
    };
    with.recursive && with.cte_tables.iter().any(repeats)
}

/// Whether a query says how many rows it wants, but perhaps not which.
fn limits_rows(query: &Query) -> bool {
    query.limit_clause.is_some() || query.fetch.is_some() || limits_rows_of(&query.body)
}

fn limits_rows_of(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => matches!(select.distinct, Some(Distinct::On(_))),
        SetExpr::SetOperation { left, right, .. } => limits_rows_of(left) || limits_rows_of(right),
        SetExpr::Query(query) => limits_rows(query),
        _ => false,
    }
}

fn times_named(name: &str, query: &Query) -> usize {
    let mut times = 0_usize;
    let _ = visit_relations(query, |relation| {
        let is_it = match relation.0.as_slice() {
            [part] => part.as_ident().is_some_and(|ident| identifier(ident) == name),
            _ => false,
        };
        times += usize::from(is_it);
        ControlFlow::<()>::Continue(())
    });
    times
}

/// `q AS (…)` becomes `q AS (SELECT * FROM (…) AS "mark")`; one that names itself is a WITH query of its own in there.
fn wrap(cte: &mut Cte, name: &str, recursive: bool, number: usize) -> Option<()> {
    let mut outer = parsed("SELECT * FROM (SELECT 1) AS marked")?;
    let SetExpr::Select(select) = outer.body.as_mut() else { return None };
    let TableFactor::Derived { subquery, alias: Some(alias), .. } = &mut select.from.first_mut()?.relation
    else {
        return None;
    };
    alias.name = Ident::with_quote('"', format!("{MARK}{number}"));
    if recursive && times_named(name, &cte.query) > 0 {
        let mut inner = parsed("WITH RECURSIVE named AS (SELECT 1) SELECT * FROM named")?;
        let SetExpr::Select(select) = inner.body.as_mut() else { return None };
        let TableFactor::Table { name, .. } = &mut select.from.first_mut()?.relation else { return None };
        *name = ObjectName::from(vec![cte.alias.name.clone()]);
        *inner.with.as_mut()?.cte_tables.first_mut()? = cte.clone();
        cte.alias.columns.clear();
        **subquery = inner;
    } else {
        *subquery = cte.query.clone();
    }
    *cte.query = outer;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(sql: &str) -> (String, Vec<String>) {
        let mut query = parsed(sql).expect("a valid query");
        let marked = mark(&mut query, &|name| name == "random");
        (query.to_string().replace(MARK, "once:"), marked.0.into_iter().map(|query| query.name).collect())
    }

    #[test]
    fn what_would_be_other_rows_each_time_is_marked() {
        for (sql, expected) in [
            ("WITH r AS (SELECT random()) SELECT * FROM r, r AS s", vec!["r"]),
            ("WITH r AS (SELECT random()) SELECT * FROM r", vec![]),
            ("WITH r AS (SELECT abs(1)) SELECT * FROM r, r AS s", vec![]),
            ("WITH r AS (SELECT a FROM t LIMIT 1) SELECT * FROM r WHERE a IN (SELECT a FROM r)", vec!["r"]),
            ("WITH r AS (SELECT DISTINCT ON (a) b FROM t) SELECT * FROM r, r AS s", vec!["r"]),
            ("WITH r AS NOT MATERIALIZED (SELECT a FROM t LIMIT 1) SELECT * FROM r, r AS s", vec![]),
            ("WITH r AS NOT MATERIALIZED (SELECT random()) SELECT * FROM r, r AS s", vec!["r"]),
            ("WITH r AS MATERIALIZED (SELECT a FROM t) SELECT * FROM r, r AS s", vec!["r"]),
            ("WITH r AS MATERIALIZED (SELECT a FROM t) SELECT * FROM r", vec![]),
            // By way of another.
            ("WITH a AS (SELECT random() AS x), b AS (SELECT x FROM a) SELECT * FROM b, b AS c", vec!["b"]),
            (
                "WITH a AS (SELECT random() AS x), b AS (SELECT x FROM a) SELECT * FROM a, b, b AS c",
                vec!["a", "b"],
            ),
            // Within a query.
            ("SELECT * FROM (WITH r AS (SELECT random()) SELECT * FROM r, r AS s) AS q", vec!["r"]),
            // Each round of a recursive one reads it.
            (
                "WITH RECURSIVE r AS (SELECT random() AS x), \
                 c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c, r WHERE n < 3) SELECT * FROM c",
                vec!["r"],
            ),
        ] {
            assert_eq!(marked(sql).1, expected, "{sql}");
        }
    }

    #[test]
    fn a_mark_is_an_alias_around_the_query() {
        assert_eq!(
            marked("WITH r (x) AS (SELECT random()) SELECT * FROM r, r AS s").0,
            "WITH r (x) AS (SELECT * FROM (SELECT random()) AS \"once:0\") SELECT * FROM r, r AS s"
        );
        assert_eq!(
            marked(
                "WITH RECURSIVE r (n, x) AS (SELECT 1, random() UNION ALL SELECT n + 1, random() FROM r WHERE n < 3) \
                 SELECT * FROM r, r AS s"
            )
            .0,
            "WITH RECURSIVE r AS (SELECT * FROM (WITH RECURSIVE r (n, x) AS (SELECT 1, random() UNION ALL SELECT \
             n + 1, random() FROM r WHERE n < 3) SELECT * FROM r) AS \"once:0\") SELECT * FROM r, r AS s"
        );
    }
}
