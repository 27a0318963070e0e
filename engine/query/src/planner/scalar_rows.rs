//! A subquery used as an expression that looks at the rows around it, without an aggregate:
//! `SELECT (SELECT name FROM a WHERE a.id = b.a_id) FROM b`, and the same with ORDER BY and LIMIT 1.
//!
//! DataFusion takes subqueries out of their place only where they have one row for certain, which it takes an aggregate
//! for. So the rows are gathered, and [`only_row`] says that there was but one; of LIMIT 1 the first is the aggregate.
//! Gathered and not counted: DataFusion does that for every value that the inner table has, also for those that no row
//! around asks for. Called by [`super::Engine`] for every plan.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::Result,
    functions_aggregate::{array_agg::array_agg_udaf, first_last::first_value_udaf},
    logical_expr::{
        AggregateUDF, Expr, FetchType, Limit, LogicalPlan, LogicalPlanBuilder, SkipType, SortExpr, Subquery,
        expr::AggregateFunction, expr_rewriter::NamePreserver,
    },
};

use super::memberships;
use crate::{functions::only_row, vector::columns_of};

/// Gives such subqueries an aggregate, and completes the conditions that `memberships` is about.
pub(super) fn aggregate(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = memberships::complete(plan)?;
    // Whether what a subquery gives may be NULL now: then the plans above it have another schema.
    let mut reshaped = false;
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| match expr {
                Expr::ScalarSubquery(subquery) => one_row(subquery),
                other => Ok(Transformed::no(other)),
            })?;
            if !rewritten.transformed {
                return Ok(rewritten);
            }
            reshaped = true;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?;
        if reshaped { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    })?;
    Ok(rewritten.data)
}

fn one_row(subquery: Subquery) -> Result<Transformed<Expr>> {
    if subquery.outer_ref_columns.is_empty() || subquery.subquery.schema().fields().len() != 1 {
        return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
    }
    let plan = subquery.subquery.as_ref();
    if let LogicalPlan::Limit(limit) = plan {
        return Ok(match first(limit)? {
            Some(first) => Transformed::yes(Expr::ScalarSubquery(subquery.with_plan(Arc::new(first)))),
            None => Transformed::no(Expr::ScalarSubquery(subquery)),
        });
    }
    let Some(value) = columns_of(plan).pop().filter(|_| is_plain(plan)) else {
        return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
    };
    let field = plan.schema().field(0).as_ref().clone().with_nullable(true);
    let gathered = gathered(plan.clone(), array_agg_udaf(), value, Vec::new(), field.name())?;
    let rows = Expr::ScalarSubquery(subquery.with_plan(Arc::new(gathered)));
    Ok(Transformed::yes(only_row(rows, Arc::new(field))))
}

/// The first of the rows that LIMIT 1 cuts off. `None` for another LIMIT, and for what is not taken out of its place.
fn first(limit: &Limit) -> Result<Option<LogicalPlan>> {
    if !matches!(limit.get_skip_type()?, SkipType::Literal(0))
        || !matches!(limit.get_fetch_type()?, FetchType::Literal(Some(1)))
    {
        return Ok(None);
    }
    let whole = limit.input.as_ref();
    let (value, keys, input) = match whole {
        LogicalPlan::Projection(projection) => {
            match (projection.expr.as_slice(), projection.input.as_ref()) {
                // What the rows are sorted by is not in sight of what is shown.
                ([value], LogicalPlan::Sort(sort)) => {
                    (Some(value.clone()), sort.expr.clone(), sort.input.as_ref())
                }
                _ => (columns_of(whole).pop(), Vec::new(), whole),
            }
        }
        LogicalPlan::Sort(sort) => (columns_of(whole).pop(), sort.expr.clone(), sort.input.as_ref()),
        _ => (columns_of(whole).pop(), Vec::new(), whole),
    };
    let sorts_by_outer = keys.iter().any(|key| key.expr.contains_outer());
    match value {
        Some(value) if is_plain(input) && !sorts_by_outer && !value.contains_outer() => {
            let name = whole.schema().field(0).name();
            gathered(input.clone(), first_value_udaf(), value.unalias(), keys, name).map(Some)
        }
        _ => Ok(None),
    }
}

/// Rows of tables as they are: nothing that is one row already, or would be of all rows around.
fn is_plain(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Filter(filter) => is_plain(&filter.input),
        LogicalPlan::Join(join) => is_plain(&join.left) && is_plain(&join.right),
        LogicalPlan::Projection(projection) => is_plain(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_plain(&alias.input),
        _ => false,
    }
}

/// An aggregate of a value over all rows, under the name that the value had.
fn gathered(
    input: LogicalPlan,
    function: Arc<AggregateUDF>,
    value: Expr,
    keys: Vec<SortExpr>,
    name: &str,
) -> Result<LogicalPlan> {
    let call = AggregateFunction::new_udf(function, vec![value], false, None, keys, None);
    let aggregate = LogicalPlanBuilder::from(input)
        .aggregate(Vec::<Expr>::new(), vec![Expr::AggregateFunction(call)])?
        .build()?;
    let outputs: Vec<Expr> = columns_of(&aggregate).into_iter().map(|column| column.alias(name)).collect();
    LogicalPlanBuilder::from(aggregate).project(outputs)?.build()
}
