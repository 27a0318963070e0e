//! BETWEEN, IN and IS DISTINCT FROM over bit strings and intervals: by value, as their operators compare them.
//!
//! Called by `untyped`, once literals are read. DataFusion would compare what Arrow has: bytes without the length of
//! the bit string that they are, and months, days and microseconds each for itself.

use datafusion::{
    common::{DFSchema, ScalarValue},
    logical_expr::{
        BinaryExpr, Expr, Operator,
        expr::{Between, InList},
    },
};
use sepal_types::SqlType;

use super::untyped::{Operand, operand};
use crate::functions::{Compared, comparison, interval_span};

#[derive(Clone, Copy, PartialEq)]
enum Values {
    Bits,
    Intervals,
}

/// The expression in words that compare values; `None` where it is not one of these, or over other types.
pub(super) fn rewrite(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    match expr {
        Expr::Between(Between { expr, negated, low, high }) => {
            let values = values([expr.as_ref(), low.as_ref(), high.as_ref()], schema)?;
            let above = compare(values, expr, Operator::GtEq, low)?;
            let inside = both(above, Operator::And, compare(values, expr, Operator::LtEq, high)?);
            Some(if *negated { not(inside) } else { inside })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let values = values(std::iter::once(expr.as_ref()).chain(list), schema)?;
            let equal = list.iter().map(|item| compare(values, expr, Operator::Eq, item));
            let any = any_of(equal.collect::<Option<_>>()?)?;
            Some(if *negated { not(any) } else { any })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let distinct = match op {
                Operator::IsDistinctFrom => true,
                Operator::IsNotDistinctFrom => false,
                _ => return None,
            };
            let values = values([left.as_ref(), right.as_ref()], schema)?;
            let equal = Expr::IsTrue(Box::new(compare(values, left, Operator::Eq, right)?));
            let is_null = |expr: &Expr| Expr::IsNull(Box::new(expr.clone()));
            let same = both(equal, Operator::Or, both(is_null(left), Operator::And, is_null(right)));
            Some(if distinct { not(same) } else { same })
        }
        _ => None,
    }
}

/// What all operands are that are not NULL literals.
fn values<'a>(operands: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Option<Values> {
    let mut common: Option<Values> = None;
    for expr in operands.into_iter().filter(|expr| !is_null(expr)) {
        let values = match operand(expr, schema) {
            Operand::Typed(SqlType::Bit(_)) => Values::Bits,
            Operand::Typed(SqlType::Interval) => Values::Intervals,
            _ => return None,
        };
        if common.is_some_and(|common| common != values) {
            return None;
        }
        common = Some(values);
    }
    common
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.is_null())
}

fn compare(values: Values, left: &Expr, operator: Operator, right: &Expr) -> Option<Expr> {
    if is_null(left) || is_null(right) {
        return Some(Expr::Literal(ScalarValue::Boolean(None), None));
    }
    let (left, right) = (left.clone(), right.clone());
    match values {
        Values::Bits => comparison(Compared::Bits, operator, left, right),
        Values::Intervals => Some(both(interval_span(left), operator, interval_span(right))),
    }
}

/// Half of them, or the other half: a chain would be as deep as a list is long.
fn any_of(mut terms: Vec<Expr>) -> Option<Expr> {
    while terms.len() > 1 {
        let mut pairs = Vec::with_capacity(terms.len().div_ceil(2));
        let mut rest = terms.into_iter();
        while let Some(first) = rest.next() {
            pairs.push(match rest.next() {
                Some(second) => both(first, Operator::Or, second),
                None => first,
            });
        }
        terms = pairs;
    }
    terms.pop()
}

fn both(left: Expr, operator: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), operator, Box::new(right)))
}

fn not(expr: Expr) -> Expr {
    Expr::Not(Box::new(expr))
}
