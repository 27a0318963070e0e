//! `x NOT IN (SELECT …)` among other conditions: it is unknown where no row equals x and one is NULL, and where x is
//! NULL beside any row.
//!
//! DataFusion makes joins of such conditions. It knows that of one that each row has to meet; of one within OR, CASE
//! or the like the join tells no more than whether there is an equal row. Where it makes a difference the other cases
//! are asked about, too. Called by `scalar_rows` for every plan.

use std::sync::Arc;

use datafusion::{
    common::{
        DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator,
        expr::{Case, Exists, InSubquery},
        lit,
    },
};

use crate::vector::columns_of;

/// Completes the conditions of a plan.
pub(super) fn complete(plan: LogicalPlan) -> Result<LogicalPlan> {
    let completed = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Filter(filter) => {
            if !filter.predicate.exists(|expr| Ok(matches!(expr, Expr::InSubquery(_))))? {
                return Ok(Transformed::no(LogicalPlan::Filter(filter)));
            }
            let schema = Arc::clone(filter.input.schema());
            let predicate = condition(filter.predicate, &schema, Place { positive: true, of_all: true })?;
            Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(completed.data)
}

/// Where in a predicate a condition stands.
#[derive(Clone, Copy)]
struct Place {
    /// Not under an odd number of NOTs.
    positive: bool,
    /// Each row has to meet it, or to fail it under NOT.
    of_all: bool,
}

fn condition(expr: Expr, schema: &DFSchema, place: Place) -> Result<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            // De Morgan's laws.
            let of_all = place.of_all && (op == Operator::And) == place.positive;
            let place = Place { of_all, ..place };
            let left = condition(*left, schema, place)?;
            let right = condition(*right, schema, place)?;
            Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
        }
        Expr::Not(inner) => {
            let place = Place { positive: !place.positive, ..place };
            Ok(Expr::Not(Box::new(condition(*inner, schema, place)?)))
        }
        Expr::InSubquery(membership) => {
            // Unknown and false are one to a row that has to meet it.
            let negative = membership.negated == place.positive;
            if negative && !place.of_all {
                known(membership, schema)
            } else {
                Ok(Expr::InSubquery(membership))
            }
        }
        other => {
            let known = other.transform_up(|expr| match expr {
                Expr::InSubquery(membership) => known(membership, schema).map(Transformed::yes),
                other => Ok(Transformed::no(other)),
            })?;
            Ok(known.data)
        }
    }
}

/// The same in words that are true, false or unknown as SQL has it.
fn known(membership: InSubquery, schema: &DFSchema) -> Result<Expr> {
    let InSubquery { expr, subquery, negated } = membership;
    let rows = subquery.subquery.as_ref();
    let mut unknown = Vec::new();
    if expr.nullable(schema).unwrap_or(true) {
        let any = Expr::Exists(Exists::new(subquery.clone(), false));
        unknown.push(Expr::IsNull(expr.clone()).and(any));
    }
    if let Some(value) = columns_of(rows).into_iter().next()
        && rows.schema().field(0).is_nullable()
    {
        let nulls = LogicalPlanBuilder::from(rows.clone()).filter(value.is_null())?.build()?;
        unknown.push(Expr::Exists(Exists::new(subquery.with_plan(Arc::new(nulls)), false)));
    }
    let is_equal = |negated| Expr::InSubquery(InSubquery::new(expr, subquery, negated));
    let Some(unknown) = unknown.into_iter().reduce(Expr::or) else { return Ok(is_equal(negated)) };
    let cases = vec![
        (Box::new(is_equal(false)), Box::new(lit(!negated))),
        (Box::new(unknown), Box::new(Expr::Literal(ScalarValue::Boolean(None), None))),
    ];
    Ok(Expr::Case(Case::new(None, cases, Some(Box::new(lit(negated))))))
}
