//! A join with a lateral item of FROM: with a subquery that looks at the rows beside it.
//!
//! Read by `rule`, where the subquery is a search, and by `planner/lateral_rows`, where it unnests lists.

use std::sync::Arc;

use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, utils::conjunction},
};

/// See the module.
pub struct LateralJoin<'a> {
    pub subquery: &'a LogicalPlan,
    /// LEFT JOIN.
    pub keeps_unmatched: bool,
    /// What must hold between the two sides.
    pub condition: Option<Expr>,
}

impl<'a> LateralJoin<'a> {
    /// `None` for any other join.
    pub fn of(join: &'a Join) -> Option<Self> {
        let keeps_unmatched = match join.join_type {
            JoinType::Inner => false,
            JoinType::Left => true,
            _ => return None,
        };
        let right = match join.right.as_ref() {
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
            right => right,
        };
        let LogicalPlan::Subquery(subquery) = right else {
            return None;
        };
        let equal = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
        let always = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
        let condition = conjunction(equal.chain(join.filter.clone()).filter(|expr| !always(expr)));
        Some(Self { subquery: &subquery.subquery, keeps_unmatched, condition })
    }
}

/// A plan's rows for which a condition holds, if there is one.
pub fn filtered(plan: LogicalPlan, condition: Option<Expr>) -> Result<LogicalPlan> {
    Ok(match condition {
        Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?),
        None => plan,
    })
}

/// Outer references as columns.
pub fn outer_as_columns(expr: Expr) -> Result<Expr> {
    expr.transform(|expr| match expr {
        Expr::OuterReferenceColumn(_, column) => {
            Ok(Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump))
        }
        expr => Ok(Transformed::no(expr)),
    })
    .map(|transformed| transformed.data)
}
