//! INTERSECT ALL and EXCEPT ALL: of a row that stands m times on the left and n times on the right, the lesser of both,
//! and m - n.
//!
//! DataFusion plans them as a semi and an anti join, which let pass all m or none. So the equal rows of each side are
//! numbered, and the number is one of the columns that are compared. Called by [`super::Engine`] for every plan.

use std::sync::Arc;

use datafusion::{
    common::{Column, NullEquality, tree_node::Transformed},
    error::Result,
    functions_window::expr_fn::row_number,
    logical_expr::{Expr, ExprFunctionExt, Join, JoinType, LogicalPlan, Projection, Window},
};

use crate::vector::columns_of;

/// Numbers equal rows where a plan counts them.
pub(super) fn number(plan: LogicalPlan) -> Result<LogicalPlan> {
    let numbered = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if counts(&join) => numbered(join).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(numbered.data)
}

/// Over rows that are distinct it is right as it is.
fn counts(join: &Join) -> bool {
    compares_rows(join) && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_))
}

/// Whether a join is INTERSECT or EXCEPT. No other of what SQL says takes NULLs for equal.
pub(super) fn compares_rows(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
}

fn numbered(join: Join) -> Result<LogicalPlan> {
    let (left, left_number) = with_number(&join.left)?;
    let (right, right_number) = with_number(&join.right)?;
    let mut on = join.on;
    on.push((left_number, right_number));
    let columns = join.schema.columns().into_iter().map(Expr::Column).collect();
    let counted = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        None,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    let input = Arc::new(LogicalPlan::Join(counted));
    Projection::try_new_with_schema(columns, input, join.schema).map(LogicalPlan::Projection)
}

/// The rows with a number among their equals, which is the last column.
fn with_number(plan: &Arc<LogicalPlan>) -> Result<(LogicalPlan, Expr)> {
    let number = row_number().partition_by(columns_of(plan)).build()?;
    let numbered = Window::try_new(vec![number], Arc::clone(plan))?;
    let last = numbered.schema.fields().len().saturating_sub(1);
    let number = Expr::Column(Column::from(numbered.schema.qualified_field(last)));
    Ok((LogicalPlan::Window(numbered), number))
}
