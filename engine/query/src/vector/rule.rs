//! `ORDER BY column <op> constant LIMIT k` becomes a [`TopK`] in place of the table scan.
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
    logical_expr::{Expr, Extension, LogicalPlan, SortExpr, TableScan, lit, utils::conjunction},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};
use sepal_types::{ColumnId, Metric, SqlType};

use super::node::{Runtime, TopK};
use crate::{functions::metric_of_function, table::as_user_table};

/// More sort keys break ties among equal distances: a few rows more are fetched for them.
const TIE_MARGIN: usize = 16;

/// Past this a sorted scan is as good: pgvector's own `ef_search` ends at 1,000.
const MOST_NEIGHBOURS: usize = 100_000;

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
        let k = if sort.expr.len() > 1 { k + TIE_MARGIN } else { k };
        let Some(found) = find(&sort.input, first)? else {
            return Ok(Transformed::no(plan));
        };
        let node = Arc::new(found.into_node(k)?);
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
    metric: Metric,
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
                let inner = alias.input.schema();
                let outputs: Vec<Expr> = inner
                    .iter()
                    .map(|(relation, field)| Expr::Column(Column::new(relation.cloned(), field.name())))
                    .collect();
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

/// Replaces each column of a node's output by the expression that computes it.
fn substitute(expr: Expr, schema: &DFSchema, outputs: &[Expr]) -> Result<Expr> {
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
    let Expr::ScalarFunction(call) = key else {
        return None;
    };
    let metric = metric_of_function(&call.func)?;
    let (column, query) = match call.args.as_slice() {
        [Expr::Column(column), query @ Expr::Literal(..)]
        | [query @ Expr::Literal(..), Expr::Column(column)] => (column, query),
        _ => return None,
    };
    let provider = source_as_provider(&scan.source).ok()?;
    let table = as_user_table(provider.as_ref())?;
    let definition = table.def().column(&column.name)?;
    if !matches!(definition.ty, SqlType::Vector(Some(_))) || scan.fetch.is_some() || table.is_filtered() {
        return None;
    }
    filters.extend(scan.filters.iter().cloned());
    let has_subquery = filters.iter().any(|filter| {
        filter
            .exists(|expr| {
                Ok(matches!(
                    expr,
                    Expr::ScalarSubquery(_)
                        | Expr::InSubquery(_)
                        | Expr::Exists(_)
                        | Expr::OuterReferenceColumn(..)
                ) || expr.is_volatile_node())
            })
            .unwrap_or(true)
    });
    if has_subquery {
        return None;
    }
    Some(Found { scan: scan.clone(), column: definition.id, metric, query: query.clone(), filters })
}

impl Found {
    fn into_node(self, k: usize) -> Result<TopK> {
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
            metric: self.metric,
            query: self.query,
            k: lit(k),
            filter: conjunction(self.filters),
            ef_search: None,
            projection,
            with_distance: false,
            schema: self.scan.projected_schema,
            runtime,
        })
    }
}
