//! `FROM t, jsonb_each(t.meta)`, `FROM t, unnest(t.tags)`: a function of the rows beside it that returns rows.
//!
//! DataFusion plans it as a join with a subquery that looks at the left side, and then cannot take the two apart. A
//! subquery that does nothing but unnest lists needs no join: the lists are computed beside the columns of the left
//! side, and unnested there. Runs before DataFusion's rules, which would take the subquery's shape away.

use datafusion::{
    common::{
        Column, DFSchema, NullHandling, UnnestOptions,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{EmptyRelation, Expr, Join, LogicalPlan, LogicalPlanBuilder, Unnest, utils::conjunction},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

use crate::vector::{LateralJoin, columns_of, filtered, outer_as_columns, substitute};

/// The optimizer rule.
#[derive(Debug)]
pub(super) struct LateralRowsRule;

impl OptimizerRule for LateralRowsRule {
    fn name(&self) -> &'static str {
        "sepal_lateral_rows"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let replaced = match &plan {
            LogicalPlan::Join(join) => unnested(join)?,
            _ => None,
        };
        Ok(replaced.map_or_else(|| Transformed::no(plan), Transformed::yes))
    }
}

/// What the subquery computes from the elements of lists.
struct Body<'a> {
    /// The lists' columns, and what is computed beside them.
    lists: &'a [Expr],
    unnest: &'a Unnest,
    /// Over the columns that `unnest` gives, and outer references.
    filters: Vec<Expr>,
    outputs: Vec<Expr>,
}

fn unnested(join: &Join) -> Result<Option<LogicalPlan>> {
    let Some(LateralJoin { subquery, keeps_unmatched, condition }) = LateralJoin::of(join) else {
        return Ok(None);
    };
    let Some(body) = read(subquery)? else {
        return Ok(None);
    };
    let schema = join.left.schema();
    let mut exprs = body.lists.iter().chain(&body.filters).chain(&body.outputs);
    if !exprs.all(|expr| looks_at(expr, schema)) {
        return Ok(None);
    }
    // A row without match has NULLs, whatever the subquery computes.
    let unmatched_is_null = body.filters.is_empty() && body.outputs.iter().all(is_element);
    if keeps_unmatched && (condition.is_some() || !unmatched_is_null) {
        return Ok(None);
    }
    filtered(beside(join, body, keeps_unmatched)?, condition).map(Some)
}

/// The left side with the lists beside its columns, unnested, then the columns of the join.
fn beside(join: &Join, body: Body<'_>, keeps_unmatched: bool) -> Result<LogicalPlan> {
    let column = |position: usize| Column::from_name(format!("sepal_rows_{position}"));
    let own: Vec<Expr> = columns_of(&join.left);
    let mut first = own.clone();
    for (position, list) in body.lists.iter().enumerate() {
        first.push(outer_as_columns(list.clone().unalias())?.alias(column(position).name));
    }
    let lists = body.unnest.list_type_columns.iter().map(|(position, _)| column(*position)).collect();
    let null_handling = match keeps_unmatched {
        true => NullHandling::PreserveAndExpandEmpty,
        false => body.unnest.options.null_handling,
    };
    let options = UnnestOptions::new().with_null_handling(null_handling);
    let elements: Vec<Expr> = (0..body.lists.len()).map(|position| Expr::Column(column(position))).collect();
    let over_elements = |expr: Expr| outer_as_columns(substitute(expr, &body.unnest.schema, &elements)?);
    let filters = body.filters.into_iter().map(over_elements).collect::<Result<Vec<Expr>>>()?;
    let outputs = body.outputs.into_iter().map(over_elements).collect::<Result<Vec<Expr>>>()?;

    let mut plan = LogicalPlanBuilder::from(join.left.as_ref().clone())
        .project(first)?
        .unnest_columns_with_options(lists, options)?;
    if let Some(filter) = conjunction(filters) {
        plan = plan.filter(filter)?;
    }
    let beside = join.schema.iter().skip(own.len()).zip(outputs);
    let named = beside
        .map(|((relation, field), output)| output.unalias().alias_qualified(relation.cloned(), field.name()));
    plan.project(own.iter().cloned().chain(named).collect::<Vec<Expr>>())?.build()
}

/// Takes the subquery apart; `None` for one that does more than to unnest lists.
fn read(subquery: &LogicalPlan) -> Result<Option<Body<'_>>> {
    let (mut outputs, mut filters) = (columns_of(subquery), Vec::new());
    let mut plan = subquery;
    let unnest = loop {
        let (input, computed) = match plan {
            LogicalPlan::Projection(projection) => (projection.input.as_ref(), projection.expr.clone()),
            LogicalPlan::SubqueryAlias(alias) => (alias.input.as_ref(), columns_of(&alias.input)),
            LogicalPlan::Filter(filter) => {
                filters.push(filter.predicate.clone());
                plan = filter.input.as_ref();
                continue;
            }
            LogicalPlan::Unnest(unnest) => break unnest,
            _ => return Ok(None),
        };
        for expr in outputs.iter_mut().chain(&mut filters) {
            *expr = substitute(std::mem::take(expr), plan.schema(), &computed)?;
        }
        plan = input;
    };
    let LogicalPlan::Projection(lists) = unnest.input.as_ref() else {
        return Ok(None);
    };
    let one_row = matches!(
        lists.input.as_ref(),
        LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, .. })
    );
    let one_for_one = unnest.struct_type_columns.is_empty()
        && unnest.list_type_columns.len() <= lists.expr.len()
        && unnest.schema.fields().len() == lists.expr.len()
        && unnest.list_type_columns.iter().all(|(_, column)| column.depth == 1);
    Ok((one_row && one_for_one).then_some(Body { lists: &lists.expr, unnest, filters, outputs }))
}

/// An element of a list, or one that is only said to be of another type: NULL where there is none.
fn is_element(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => is_element(&alias.expr),
        Expr::Cast(cast) => is_element(&cast.expr),
        Expr::ScalarFunction(call) => {
            let known = matches!(call.name(), "sepal_json_known" | "sepal_jsonb_known");
            (known || call.name().starts_with("sepal_cast_")) && call.args.iter().all(is_element)
        }
        _ => false,
    }
}

/// Whether an expression refers to no rows but those of the left side, and holds no subquery.
fn looks_at(expr: &Expr, left: &DFSchema) -> bool {
    let other = expr.exists(|expr| {
        Ok(match expr {
            Expr::OuterReferenceColumn(_, column) => left.maybe_index_of_column(column).is_none(),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => true,
            _ => false,
        })
    });
    !other.unwrap_or(true)
}
