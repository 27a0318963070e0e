//! `ORDER BY column <op> query LIMIT k` becomes a [`TopK`] in place of the table scan, whatever the query is as long as
//! it is one vector for the whole statement: a constant, `(SELECT …)`, an expression of these. In place of the column
//! may stand an expression of it that an index is over (`compared`).
//!
//! Runs last among the optimizer's rules: LIMIT has moved into the sort, constants are folded, parameters are
//! values. The sort, the limit, the projections and the filters stay where they are: they re-rank `k` rows
//! exactly and cost nothing. What does not match is left alone and answered by a full scan.

use std::sync::Arc;

use datafusion::{
    common::{
        Column, DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::source_as_provider,
    error::Result,
    logical_expr::{
        Expr, ExprSchemable, Extension, LogicalPlan, SortExpr, TableScan, lit, utils::conjunction,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};
use sepal_types::{ColumnId, Measure, Metric};

use super::{
    Hit,
    compared::compared,
    node::{Runtime, TopK},
};
use crate::{
    functions::metric_of_function,
    output::{is_sparse, vector_kind},
    table::as_user_table,
};

/// More sort keys break ties among equal distances: a few rows more are fetched for them, and more yet where those are
/// as far as the last one wanted ([`has_all_ties`]).
pub(super) const TIE_MARGIN: usize = 16;
/// So many times as many rows are asked for, as often as there were more ties than that.
pub(super) const MORE_TIES: usize = 8;

/// Past this a sorted scan is as good: pgvector's own `ef_search` ends at 1,000.
pub(super) const MOST_NEIGHBOURS: usize = 100_000;

/// Whether those found, nearest first, hold all rows that are as far as the last of the `wanted`: of `k` asked for, some
/// are further, or there are no more.
pub(super) fn has_all_ties(hits: &[Hit], wanted: usize, k: usize) -> bool {
    let (Some(last), Some(wanted)) = (hits.last(), wanted.checked_sub(1).and_then(|place| hits.get(place)))
    else {
        return true;
    };
    hits.len() < k
        || match (wanted.distance, last.distance) {
            (Some(one), Some(other)) => one.total_cmp(&other).is_ne() && one != other,
            (None, None) => false,
            _ => true,
        }
}

/// The optimizer rule.
#[derive(Debug)]
pub struct TopKRule;

impl OptimizerRule for TopKRule {
    fn name(&self) -> &'static str {
        "sepal_vector_top_k"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Sort(sort) = &plan else {
            return Ok(Transformed::no(plan));
        };
        let Some(k) = sort.fetch.filter(|k| *k <= MOST_NEIGHBOURS) else {
            return Ok(Transformed::no(plan));
        };
        let Some(first) = sort.expr.first().filter(|first| first.asc && !first.nulls_first) else {
            return Ok(Transformed::no(plan));
        };
        let ties = sort.expr.len() > 1;
        let Some(found) = find(&sort.input, first)? else {
            return Ok(Transformed::no(plan));
        };
        // All rows are as far from NULL, and the other keys sort them.
        if ties && matches!(&found.query, Expr::Literal(value, _) if value.is_null()) {
            return Ok(Transformed::no(plan));
        }
        let node = Arc::new(found.into_node(k, ties)?);
        let mut replaced = false;
        let sort_input = Arc::clone(&sort.input);
        let input = Arc::unwrap_or_clone(sort_input).transform_down(|child| {
            if matches!(child, LogicalPlan::TableScan(_)) && !replaced {
                replaced = true;
                let node: Arc<TopK> = Arc::clone(&node);
                let extension = LogicalPlan::Extension(Extension { node });
                return Ok(Transformed::new(extension, true, TreeNodeRecursion::Stop));
            }
            Ok(Transformed::no(child))
        })?;
        let mut sort = sort.clone();
        sort.input = Arc::new(input.data);
        Ok(Transformed::new(LogicalPlan::Sort(sort), true, TreeNodeRecursion::Jump))
    }
}

/// A scan that can be replaced.
struct Found {
    scan: TableScan,
    column: ColumnId,
    measure: Measure,
    query: Expr,
    filters: Vec<Expr>,
}

/// Follows the sort key down through projections, aliases and filters to the one scan below.
fn find(input: &LogicalPlan, sort: &SortExpr) -> Result<Option<Found>> {
    let mut key = sort.expr.clone();
    let mut filters: Vec<Expr> = Vec::new();
    let mut plan = input;
    loop {
        match plan {
            LogicalPlan::Projection(projection) => {
                let substitute = |expr: Expr| substitute(expr, plan.schema(), &projection.expr);
                key = substitute(key)?;
                filters = filters.into_iter().map(substitute).collect::<Result<_>>()?;
                plan = &projection.input;
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let outputs = columns_of(&alias.input);
                let substitute = |expr: Expr| substitute(expr, plan.schema(), &outputs);
                key = substitute(key)?;
                filters = filters.into_iter().map(substitute).collect::<Result<_>>()?;
                plan = &alias.input;
            }
            LogicalPlan::Filter(filter) => {
                filters.push(filter.predicate.clone());
                plan = &filter.input;
            }
            LogicalPlan::TableScan(scan) => return Ok(match_scan(scan, &key, filters)),
            _ => return Ok(None),
        }
    }
}

/// A plan's columns as expressions.
pub fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

/// Replaces each column of a node's output by the expression that computes it.
pub fn substitute(expr: Expr, schema: &DFSchema, outputs: &[Expr]) -> Result<Expr> {
    expr.transform(|expr| {
        if let Expr::Column(column) = &expr
            && let Some(output) =
                schema.maybe_index_of_column(column).and_then(|position| outputs.get(position))
        {
            return Ok(Transformed::new(output.clone().unalias(), true, TreeNodeRecursion::Jump));
        }
        Ok(Transformed::no(expr))
    })
    .map(|transformed| transformed.data)
}

fn match_scan(scan: &TableScan, key: &Expr, mut filters: Vec<Expr>) -> Option<Found> {
    let (column, measure, query) = match distance(key) {
        Some(Distance { column, metric, query }) => {
            (vector_column(scan, column, query)?, Measure::Vectors(metric), query)
        }
        None => {
            let compared = compared(key)?;
            (compared.indexed_column(scan)?, compared.measure, compared.query)
        }
    };
    if !is_settled(query) {
        return None;
    }
    filters.extend(scan.filters.iter().cloned());
    if !filters.iter().all(is_evaluable) {
        return None;
    }
    Some(Found { scan: scan.clone(), column, measure, query: query.clone(), filters })
}

/// A distance between a column and something else.
pub(super) struct Distance<'a> {
    pub column: &'a Column,
    pub metric: Metric,
    pub query: &'a Expr,
}

/// A sort key taken apart, where only one side names a column of the level it stands on.
pub(super) fn distance(key: &Expr) -> Option<Distance<'_>> {
    let Expr::ScalarFunction(call) = unnamed(key) else {
        return None;
    };
    let metric = metric_of_function(&call.func)?;
    let (column, query) = match call.args.as_slice() {
        [Expr::Column(column), query] | [query, Expr::Column(column)] if !names_column(query) => {
            (column, query)
        }
        _ => return None,
    };
    Some(Distance { column, metric, query })
}

/// A sort key without its name: folding a constant within it leaves it under the one that it had.
pub(super) fn unnamed(key: &Expr) -> &Expr {
    match key {
        Expr::Alias(alias) => unnamed(&alias.expr),
        key => key,
    }
}

/// The column of a scanned table that can be searched for `query`.
pub(super) fn vector_column(scan: &TableScan, column: &Column, query: &Expr) -> Option<ColumnId> {
    let provider = source_as_provider(&scan.source).ok()?;
    let table = as_user_table(provider.as_ref())?;
    let definition = table.def().column(&column.name)?;
    let kind = definition.ty.vector_kind()?;
    definition.ty.dimensions()?;
    // Beside a halfvec a vector is rounded to one, and beside a sparsevec it becomes one; the column's rows do not.
    let asked = query.get_type(&DFSchema::empty()).ok();
    let searched = asked
        .is_none_or(|ty| !is_sparse(&ty) && vector_kind(&ty).is_none_or(|asked| asked.beside(kind) == kind));
    (searched && scan.fetch.is_none() && !table.is_filtered()).then_some(definition.id)
}

pub(super) fn names_column(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::Column(_)))).unwrap_or(true)
}

/// Whether an expression has one value for the whole statement.
pub(super) fn is_settled(expr: &Expr) -> bool {
    is_evaluable(expr) && !names_column(expr)
}

/// Whether an expression's value depends on columns alone, once the subqueries have been run that can be run by
/// themselves.
pub(super) fn is_evaluable(expr: &Expr) -> bool {
    is_evaluable_beside(expr) && !expr.contains_outer()
}

/// The same, of the columns of a query around this one too.
pub(super) fn is_evaluable_beside(expr: &Expr) -> bool {
    let not = expr.exists(|expr| {
        Ok(match expr {
            Expr::ScalarSubquery(subquery) => !subquery.outer_ref_columns.is_empty(),
            Expr::InSubquery(_)
            | Expr::Exists(_)
            | Expr::SetComparison(_)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::Unnest(_) => true,
            _ => expr.is_volatile_node(),
        })
    });
    !not.unwrap_or(true)
}

impl Found {
    fn into_node(self, k: usize, ties: bool) -> Result<TopK> {
        let provider = source_as_provider(&self.scan.source)?;
        let table = as_user_table(provider.as_ref())
            .cloned()
            .ok_or_else(|| crate::error::carry(sepal_types::Error::bug("the scan changed its table")))?;
        let projection = match &self.scan.projection {
            Some(projection) => projection.clone(),
            None => (0..table.arrow_schema().fields().len()).collect(),
        };
        let runtime: Runtime = table.runtime().clone();
        let k = i64::try_from(k).unwrap_or(i64::MAX);
        Ok(TopK {
            table_name: self.scan.table_name,
            table,
            column: self.column,
            measure: self.measure,
            query: self.query,
            k: lit(k),
            ties,
            filter: conjunction(self.filters),
            ef_search: None,
            projection,
            with_distance: false,
            schema: self.scan.projected_schema,
            runtime,
        })
    }
}
