//! A `timestamp` and a `timestamptz` of the same number, told apart.
//!
//! To DataFusion two literals of a time are one when their numbers are, whatever zone either has (`ScalarValue`'s
//! `PartialEq` and `Hash`, in 55.2): of `concat(c, timestamp '…')` and `concat(c, timestamptz '…')` it would compute
//! one and give it twice. Every rule that looks for equal expressions goes by that. Literals that differ in metadata
//! are different ones: where a statement has both, that of the `timestamptz` says its type there. No other two types of
//! ours are mixed up so, and physical expressions know the types of their literals.
//!
//! [`TellApart`] stands among the optimizer's rules, and computes the constants that it looks for, as the rule after it
//! would; [`told_apart`] is for expressions that are simplified by themselves. Neither changes what has only one of
//! both.

use std::collections::{BTreeMap, HashSet};

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::{
        DFSchema, ScalarValue,
        metadata::FieldMetadata,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{
        Expr, ExprSchemable, LogicalPlan, Operator, expr_rewriter::NamePreserver, simplify::SimplifyContext,
    },
    optimizer::{OptimizerConfig, OptimizerRule, simplify_expressions::ExprSimplifier},
};
use sepal_types::SqlType;

use crate::output::TYPE_KEY;

/// The optimizer rule.
#[derive(Debug)]
pub(super) struct TellApart;

/// What DataFusion compares of a time; `None` is NULL.
type Number = (TimeUnit, Option<i64>);

impl OptimizerRule for TellApart {
    fn name(&self) -> &'static str {
        "sepal_tell_apart"
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let context = SimplifyContext::builder()
            .with_config_options(config.options())
            .with_query_execution_start_time(config.query_execution_start_time())
            .build();
        let simplifier = ExprSimplifier::new(context);
        let mut seen = Seen::default();
        plan.apply_with_subqueries(|node| {
            if !matches!(node, LogicalPlan::Values(_)) {
                node.apply_expressions(|expr| seen.look(expr, &simplifier))?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        let shared = seen.shared();
        if shared.is_empty() {
            return Ok(Transformed::no(plan));
        }
        mark_plan(plan, &shared, &simplifier)
    }
}

/// The expression as it can be simplified by itself.
pub(crate) fn told_apart(expr: Expr, simplifier: &ExprSimplifier) -> Result<Expr> {
    let mut seen = Seen::default();
    seen.look(&expr, simplifier)?;
    let shared = seen.shared();
    if shared.is_empty() {
        return Ok(expr);
    }
    Ok(mark(expr, &shared, simplifier)?.data)
}

#[derive(Default)]
struct Seen {
    plain: HashSet<Number>,
    zoned: HashSet<Number>,
}

impl Seen {
    fn look(&mut self, expr: &Expr, simplifier: &ExprSimplifier) -> Result<TreeNodeRecursion> {
        expr.apply(|expr| {
            let Some(value) = constant(expr, simplifier) else { return Ok(TreeNodeRecursion::Continue) };
            match number(&value) {
                Some((number, true)) => self.zoned.insert(number),
                Some((number, false)) => self.plain.insert(number),
                None => false,
            };
            Ok(TreeNodeRecursion::Jump)
        })
    }

    /// What stands in the statement with a zone, and without.
    fn shared(&self) -> HashSet<Number> {
        self.plain.intersection(&self.zoned).copied().collect()
    }
}

fn mark_plan(
    plan: LogicalPlan,
    shared: &HashSet<Number>,
    simplifier: &ExprSimplifier,
) -> Result<Transformed<LogicalPlan>> {
    // Some functions hand the metadata on: then the plans above have another schema.
    let mut reshaped = false;
    plan.transform_up_with_subqueries(|node| {
        // Its rows have to agree in their metadata, and it has nothing but constants.
        if matches!(node, LogicalPlan::Values(_)) {
            return Ok(Transformed::no(node));
        }
        let names = NamePreserver::new(&node);
        let mut named = |expr: Expr| -> Result<Transformed<Expr>> {
            let name = names.save(&expr);
            let marked = mark(expr, shared, simplifier)?;
            if !marked.transformed {
                return Ok(marked);
            }
            Ok(marked.update_data(|expr| name.restore(expr)))
        };
        let node = node.map_expressions(|expr| match expr {
            // Each key has its own name.
            Expr::GroupingSet(_) => expr.map_children(&mut named),
            other => named(other),
        })?;
        reshaped |= node.transformed;
        if reshaped { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    })
}

/// Only what is part of an expression: a constant by itself is as cheap twice as once, and would change the type of a
/// column, which the branches of a UNION share.
fn mark(expr: Expr, shared: &HashSet<Number>, simplifier: &ExprSimplifier) -> Result<Transformed<Expr>> {
    if constant(unaliased(&expr), simplifier).is_some() {
        return Ok(Transformed::no(expr));
    }
    expr.transform_down(|expr| {
        let Some(value) = constant(&expr, simplifier) else { return Ok(Transformed::no(expr)) };
        let mixed_up = matches!(number(&value), Some((number, true)) if shared.contains(&number));
        let expr = if mixed_up { Expr::Literal(value, Some(said())) } else { expr };
        Ok(Transformed::new(expr, mixed_up, TreeNodeRecursion::Jump))
    })
}

fn said() -> FieldMetadata {
    FieldMetadata::from(BTreeMap::from([(TYPE_KEY.to_owned(), SqlType::Timestamptz.display_name())]))
}

fn unaliased(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

/// The time that an expression is to be a literal of, and that says no type yet.
fn constant(expr: &Expr, simplifier: &ExprSimplifier) -> Option<ScalarValue> {
    let computed = match expr {
        Expr::Literal(value, None) => return number(value).map(|_| value.clone()),
        Expr::ScalarFunction(_) | Expr::Cast(_) | Expr::TryCast(_) | Expr::Case(_) => true,
        Expr::BinaryExpr(binary) => matches!(binary.op, Operator::Plus | Operator::Minus),
        _ => false,
    };
    // Of the rest the simplifier knows what it can compute.
    if !computed || expr.any_column_refs() {
        return None;
    }
    if !matches!(expr.get_type(&DFSchema::empty()), Ok(DataType::Timestamp(..))) {
        return None;
    }
    match simplifier.simplify(expr.clone()) {
        Ok(Expr::Literal(value, None)) => number(&value).map(|_| value),
        // An error is that of the rule which computes it.
        _ => None,
    }
}

/// And whether it has a zone. `None` for what is no such time.
fn number(value: &ScalarValue) -> Option<(Number, bool)> {
    let (unit, number, zone) = match value {
        ScalarValue::TimestampSecond(number, zone) => (TimeUnit::Second, number, zone),
        ScalarValue::TimestampMillisecond(number, zone) => (TimeUnit::Millisecond, number, zone),
        ScalarValue::TimestampMicrosecond(number, zone) => (TimeUnit::Microsecond, number, zone),
        ScalarValue::TimestampNanosecond(number, zone) => (TimeUnit::Nanosecond, number, zone),
        _ => return None,
    };
    Some(((unit, *number), zone.is_some()))
}

#[cfg(test)]
mod tests {
    use datafusion::{
        logical_expr::{Cast, expr::InList, lit},
        optimizer::OptimizerContext,
        prelude::ident,
    };
    use sepal_storage::arrow_type;

    use super::*;

    fn literal(number: Option<i64>, zone: Option<&str>) -> Expr {
        Expr::Literal(ScalarValue::TimestampMicrosecond(number, zone.map(Into::into)), None)
    }

    fn marked(number: Option<i64>) -> Expr {
        let value = ScalarValue::TimestampMicrosecond(number, Some("+00:00".into()));
        Expr::Literal(value, Some(said()))
    }

    fn list(items: Vec<Expr>) -> Expr {
        Expr::InList(InList::new(Box::new(ident("c")), items, false))
    }

    fn apart(expr: Expr) -> Expr {
        let config = OptimizerContext::new();
        let context = SimplifyContext::builder().with_config_options(config.options()).build();
        told_apart(expr, &ExprSimplifier::new(context)).expect("nothing fails")
    }

    #[test]
    fn what_has_a_zone_is_another_one() {
        let zone = Some("+00:00");
        // What the whole is about.
        assert_eq!(literal(Some(1), zone), literal(Some(1), None));
        assert_ne!(marked(Some(1)), literal(Some(1), None));

        let both = list(vec![
            literal(Some(1), None),
            literal(Some(1), zone),
            literal(Some(2), zone),
            literal(None, zone),
            literal(None, None),
        ]);
        let expected = list(vec![
            literal(Some(1), None),
            marked(Some(1)),
            literal(Some(2), zone),
            marked(None),
            literal(None, None),
        ]);
        assert_eq!(apart(both), expected);
        assert_eq!(apart(expected.clone()), expected);
        let alike = list(vec![literal(Some(1), zone), literal(Some(2), None)]);
        assert_eq!(apart(alike.clone()), alike);
    }

    #[test]
    fn constants_are_computed() {
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
        let cast = Expr::Cast(Cast::new(Box::new(lit("1970-01-01T00:00:00Z")), zoned));
        let alone = list(vec![cast.clone()]);
        assert_eq!(apart(alone.clone()), alone);
        let both = list(vec![literal(Some(0), None), cast]);
        assert_eq!(apart(both), list(vec![literal(Some(0), None), marked(Some(0))]));
    }

    #[test]
    fn no_other_types_are_mixed_up() {
        let types = [
            SqlType::Bool,
            SqlType::Bytea,
            SqlType::Date,
            SqlType::Float4,
            SqlType::Float8,
            SqlType::Int2,
            SqlType::Int4,
            SqlType::Int8,
            SqlType::Interval,
            SqlType::Numeric(None),
            SqlType::Text,
            SqlType::Time,
            SqlType::Timestamp,
            SqlType::Timestamptz,
            SqlType::Uuid,
            SqlType::Array(Box::new(SqlType::Timestamp)),
            SqlType::Array(Box::new(SqlType::Timestamptz)),
        ];
        let nulls: Vec<ScalarValue> = types
            .iter()
            .map(|ty| ScalarValue::try_new_null(&arrow_type(ty)).expect("every type has a NULL"))
            .collect();
        let mut mixed_up = Vec::new();
        for (place, one) in nulls.iter().enumerate() {
            let others = nulls.iter().skip(place + 1);
            mixed_up.extend(
                others.filter(|other| one == *other).map(|other| (one.data_type(), other.data_type())),
            );
        }
        let times = (arrow_type(&SqlType::Timestamp), arrow_type(&SqlType::Timestamptz));
        assert_eq!(mixed_up, [times]);
    }

    #[test]
    fn it_stands_before_the_rules_that_mix_them_up() {
        let names: Vec<String> = super::super::rules().iter().map(|rule| rule.name().to_owned()).collect();
        for guarded in ["simplify_expressions", "common_sub_expression_eliminate"] {
            let place = names.iter().position(|name| name == guarded).expect("a rule of DataFusion's");
            assert_eq!(names.get(place - 1).map(String::as_str), Some("sepal_tell_apart"), "{guarded}");
        }
    }
}
