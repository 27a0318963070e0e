//! A join with a lateral search becomes a [`Lateral`].
//!
//! Runs first among the optimizer's rules: later ones would reorder the join, and take columns from its left side that
//! only the subquery reads.

use std::sync::Arc;

use datafusion::{
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNode},
    },
    datasource::source_as_provider,
    error::Result,
    logical_expr::{
        Expr, Extension, Filter, Join, LogicalPlan,
        utils::{conjunction, split_conjunction_owned},
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

use super::{
    join::{LateralJoin, filtered, outer_as_columns},
    node::{Lateral, NamedFields, Question, Searched},
    read::{Body, read},
};
use crate::{
    table::as_user_table,
    vector::{
        node::subqueries,
        rule::{MOST_NEIGHBOURS, distance, is_evaluable, is_evaluable_beside, vector_column},
    },
};

/// The optimizer rule.
#[derive(Debug)]
pub struct LateralRule;

impl OptimizerRule for LateralRule {
    fn name(&self) -> &'static str {
        "sepal_vector_lateral"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let replaced = match &plan {
            LogicalPlan::Join(join) => lateral_join(join)?,
            LogicalPlan::Filter(filter) => filter_first(filter)?,
            _ => None,
        };
        Ok(replaced.map_or_else(|| Transformed::no(plan), Transformed::yes))
    }
}

fn lateral_join(join: &Join) -> Result<Option<LogicalPlan>> {
    let Some(LateralJoin { subquery, keeps_unmatched, condition }) = LateralJoin::of(join) else {
        return Ok(None);
    };
    if keeps_unmatched && condition.is_some() {
        return Ok(None);
    }
    let Some(body) = read(subquery)? else {
        return Ok(None);
    };
    let own = join.left.schema().fields().len();
    let fields = join.schema.iter().skip(own).map(|(relation, field)| (relation.cloned(), Arc::clone(field)));
    let Some(node) = lateral(&join.left, body, keeps_unmatched, fields.collect())? else {
        return Ok(None);
    };
    filtered(extension(node), condition).map(Some)
}

/// The node for a subquery beside `input`, if it is a search.
fn lateral(
    input: &LogicalPlan,
    body: Body,
    keeps_unmatched: bool,
    fields: NamedFields,
) -> Result<Option<Lateral>> {
    let Body { scan, skip, fetch, mut keys, filters, outputs } = body;
    let first = keys.remove(0);
    let Some(found) = distance(&first.expr).filter(|_| first.asc && !first.nulls_first) else {
        return Ok(None);
    };
    let Some(column) = vector_column(&scan, found.column, found.query) else {
        return Ok(None);
    };
    let (filter, correlated): (Vec<Expr>, Vec<Expr>) =
        filters.into_iter().flat_map(split_conjunction_owned).partition(|filter| !filter.contains_outer());
    // Subqueries are run before the search; those of other places would have to be named to DataFusion too.
    let plain = |expr: &Expr| is_readable(expr, input.schema()) && subqueries(expr).is_empty();
    let readable = is_readable(found.query, input.schema())
        && filter.iter().all(|expr| is_readable(expr, input.schema()))
        && correlated.iter().chain(&outputs).chain(keys.iter().map(|key| &key.expr)).all(plain);
    if !readable || skip.saturating_add(fetch) > MOST_NEIGHBOURS {
        return Ok(None);
    }
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = as_user_table(provider.as_ref()).cloned() else {
        return Ok(None);
    };
    let question = Question {
        query: outer_as_columns(found.query.clone())?,
        skip,
        fetch,
        filter: conjunction(filter),
        correlated: conjunction(correlated),
        ties: keys,
        outputs,
        keeps_unmatched,
    };
    let searched = Searched { table_name: scan.table_name.clone(), table, column, metric: found.metric };
    Lateral::new(input.clone(), searched, question, fields).map(Some)
}

/// Whether an expression has a value for a row of the table and a row of the input.
fn is_readable(expr: &Expr, input: &DFSchema) -> bool {
    let foreign = expr.exists(|expr| {
        Ok(match expr {
            Expr::OuterReferenceColumn(_, column) => input.maybe_index_of_column(column).is_none(),
            _ => false,
        })
    });
    is_evaluable_beside(expr) && !foreign.unwrap_or(true)
}

fn extension(node: Lateral) -> LogicalPlan {
    LogicalPlan::Extension(Extension { node: Arc::new(node) })
}

/// Conditions on the input alone are applied to it before the search: DataFusion goes by the names of columns there,
/// without those of their tables, and would not dare.
fn filter_first(filter: &Filter) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Extension(Extension { node }) = filter.input.as_ref() else {
        return Ok(None);
    };
    let Some(node) = node.as_any().downcast_ref::<Lateral>() else {
        return Ok(None);
    };
    let own = node.input_columns();
    let of_input = |expr: &Expr| {
        let columns = expr.column_refs();
        let known = columns.iter().all(|column| {
            filter.input.schema().maybe_index_of_column(column).is_some_and(|position| position < own)
        });
        known && !columns.is_empty() && is_evaluable(expr)
    };
    let (first, then): (Vec<Expr>, Vec<Expr>) =
        split_conjunction_owned(filter.predicate.clone()).into_iter().partition(of_input);
    let Some(first) = conjunction(first) else {
        return Ok(None);
    };
    let input = LogicalPlan::Filter(Filter::try_new(first, Arc::new(node.input.clone()))?);
    let (searched, question) = (node.searched.clone(), node.question.clone());
    let plan = extension(Lateral::new(input, searched, question, node.fields.clone())?);
    filtered(plan, conjunction(then)).map(Some)
}
