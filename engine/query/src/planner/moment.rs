//! `now()` in plans that are kept: a parameter that nobody binds, with the time of each run.
//!
//! DataFusion makes a constant of the call when it optimizes, which for the ways around planning is when the statement
//! is prepared. Used by these alone; the general way optimizes with each execution.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use datafusion::{
    arrow::datatypes::{DataType, Field, TimeUnit},
    common::{
        DFSchema, ParamValues, ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{Expr, ExprSchemable, LogicalPlan, expr::Placeholder, expr_rewriter::NamePreserver},
};

/// The parameter's name; those of statements are numbers.
const NAME: &str = "now";
const PLACEHOLDER: &str = "$now";

/// A plan asks for the time, as a timestamp in this zone.
#[derive(Clone, Debug)]
pub struct Moment(Option<Arc<str>>);

impl Moment {
    /// The plan with a parameter in the place of every call of `now()`; the plan as it is where there is none.
    pub fn name(plan: &LogicalPlan) -> Result<(LogicalPlan, Option<Self>)> {
        let mut moment = None;
        let named = plan.clone().transform_up(|node| {
            let names = (!matches!(node, LogicalPlan::Values(_))).then(|| NamePreserver::new(&node));
            node.map_expressions(|expr| {
                let name = names.as_ref().map(|names| names.save(&expr));
                let named = expr.transform_up(|expr| {
                    let Some(zone) = zone(&expr) else { return Ok(Transformed::no(expr)) };
                    moment = Some(Self(zone.clone()));
                    Ok(Transformed::yes(placeholder(zone)))
                })?;
                Ok(match name {
                    Some(name) if named.transformed => named.update_data(|expr| name.restore(expr)),
                    _ => named,
                })
            })
        })?;
        Ok((named.data, moment))
    }

    /// The time, to be asked once for each run.
    pub fn now(&self) -> ScalarValue {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        ScalarValue::TimestampMicrosecond(i64::try_from(elapsed.as_micros()).ok(), self.0.clone())
    }
}

/// Whether a placeholder stands for the time.
pub fn is_moment(placeholder: &str) -> bool {
    placeholder == PLACEHOLDER
}

/// The values of `$1`, `$2`, …, and the time of a plan that asks for it.
pub fn given(values: &[ScalarValue], now: Option<&ScalarValue>) -> ParamValues {
    let Some(now) = now else { return ParamValues::from(values.to_vec()) };
    let numbered = values.iter().zip(1..).map(|(value, number): (_, usize)| (number.to_string(), value));
    let all = numbered.chain([(NAME.to_owned(), now)]);
    ParamValues::from(all.map(|(name, value)| (name, value.clone())).collect::<Vec<_>>())
}

/// The zone of the time that an expression is; `None` for any other expression.
fn zone(expr: &Expr) -> Option<Option<Arc<str>>> {
    let Expr::ScalarFunction(call) = expr else { return None };
    if call.func.name() != "now" || !call.args.is_empty() {
        return None;
    }
    match expr.get_type(&DFSchema::empty()) {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, zone)) => Some(zone),
        _ => None,
    }
}

fn placeholder(zone: Option<Arc<str>>) -> Expr {
    let field = Field::new(PLACEHOLDER, DataType::Timestamp(TimeUnit::Microsecond, zone), true);
    Expr::Placeholder(Placeholder::new_with_field(PLACEHOLDER.to_owned(), Some(field.into())))
}
