//! `(a, b) > (x, y)`: rows compared column by column, from the left, as Postgres does.
//!
//! Called by `rewrite` before types are given, so that each pair of columns is compared like any two operands. NULL is
//! what it is in a comparison: `(1, NULL) > (0, 1)` is true, `(1, NULL) > (1, 1)` unknown. An operand stands in the
//! result as often as it is compared; what is volatile is left as it is, and refused by the planner.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, visit_expressions};

/// Functions that answer otherwise when they are asked twice.
const VOLATILE: [&str; 5] = ["gen_random_uuid", "nextval", "random", "setval", "uuid"];

/// Rewrites one comparison of two rows of the same length; leaves anything else.
pub(super) fn compare_rows(expr: &mut Expr) {
    let Expr::BinaryOp { left, op, right } = &*expr else {
        return;
    };
    let (Expr::Tuple(left), Expr::Tuple(right)) = (left.as_ref(), right.as_ref()) else {
        return;
    };
    if left.len() != right.len() || left.is_empty() || is_volatile(expr) {
        return;
    }
    let pairs: Vec<(&Expr, &Expr)> = left.iter().zip(right).collect();
    let compared = match op {
        BinaryOperator::Eq => joined(&pairs, &BinaryOperator::Eq, &BinaryOperator::And),
        BinaryOperator::NotEq => joined(&pairs, &BinaryOperator::NotEq, &BinaryOperator::Or),
        BinaryOperator::Gt | BinaryOperator::GtEq => ordered(&pairs, &BinaryOperator::Gt, op),
        BinaryOperator::Lt | BinaryOperator::LtEq => ordered(&pairs, &BinaryOperator::Lt, op),
        _ => return,
    };
    if let Some(compared) = compared {
        *expr = compared;
    }
}

fn is_volatile(expr: &Expr) -> bool {
    visit_expressions(expr, |expr| match expr {
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            if VOLATILE.contains(&name.as_str()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

fn binary(left: Expr, op: &BinaryOperator, right: Expr) -> Expr {
    Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) }))
}

fn pair(pair: &(&Expr, &Expr), op: &BinaryOperator) -> Expr {
    binary(pair.0.clone(), op, pair.1.clone())
}

fn joined(pairs: &[(&Expr, &Expr)], op: &BinaryOperator, with: &BinaryOperator) -> Option<Expr> {
    pairs.iter().map(|columns| pair(columns, op)).reduce(|left, right| binary(left, with, right))
}

/// `a > x OR (a = x AND (b > y OR …))`; `last` decides where all columns before are equal.
fn ordered(pairs: &[(&Expr, &Expr)], strict: &BinaryOperator, last: &BinaryOperator) -> Option<Expr> {
    let (end, before) = pairs.split_last()?;
    Some(before.iter().rev().fold(pair(end, last), |rest, columns| {
        let equal = binary(pair(columns, &BinaryOperator::Eq), &BinaryOperator::And, rest);
        binary(pair(columns, strict), &BinaryOperator::Or, equal)
    }))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::super::dialect::Postgres;
    use super::*;

    #[test]
    fn rows_are_compared_from_the_left() {
        let cases = [
            ("(a, b) > (1, 2)", "((a > 1) OR ((a = 1) AND (b > 2)))"),
            ("(a, b) <= (1, 2)", "((a < 1) OR ((a = 1) AND (b <= 2)))"),
            ("(a, b) = (1, 2)", "((a = 1) AND (b = 2))"),
            ("(a, b) <> (1, 2)", "((a <> 1) OR (b <> 2))"),
            ("(a, b) > (1, 2, 3)", "(a, b) > (1, 2, 3)"),
            ("(a, random()) > (1, 2)", "(a, random()) > (1, 2)"),
        ];
        for (sql, expected) in cases {
            let parser = Parser::new(&Postgres).try_with_sql(sql);
            let mut expr = parser.and_then(|mut parser| parser.parse_expr()).expect("a valid expression");
            compare_rows(&mut expr);
            assert_eq!(expr.to_string(), expected, "{sql}");
        }
    }
}
