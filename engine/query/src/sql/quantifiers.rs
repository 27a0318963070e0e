//! `a = ANY (array)` and `a = ALL (array)` as binary operators, `= ANY` and `= ALL`, which no user can write.
//!
//! DataFusion plans the two without asking anybody what an untyped operand is; of operators it asks
//! (`planner/arrays.rs`). With a subquery they stay as they are.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr};

/// What such an operator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantified {
    /// `=`, `<>`, `<`, `~~`, …
    pub symbol: String,
    /// ALL; else ANY, or SOME.
    pub all: bool,
}

impl Quantified {
    /// Reads the operator that [`rewrite`] has written.
    pub fn read(operator: &BinaryOperator) -> Option<Self> {
        let BinaryOperator::Custom(name) = operator else { return None };
        let (symbol, quantifier) = name.split_once(' ')?;
        let all = match quantifier {
            "ALL" => true,
            "ANY" => false,
            _ => return None,
        };
        Some(Self { symbol: symbol.to_owned(), all })
    }

    /// Whether its operands are texts: LIKE and its kin.
    pub fn of_texts(&self) -> bool {
        self.symbol.contains('~')
    }
}

/// Writes a comparison with the elements of an array as an operator.
pub(super) fn rewrite(expr: &mut Expr) {
    let (left, operator, right, quantifier) = match &*expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, "ANY"),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, "ALL"),
        _ => return,
    };
    if matches!(right.as_ref(), Expr::Subquery(_)) {
        return;
    }
    let op = BinaryOperator::Custom(format!("{operator} {quantifier}"));
    let nested = |operand: &Expr| Box::new(Expr::Nested(Box::new(operand.clone())));
    let compared = Expr::BinaryOp { left: nested(left), op, right: nested(right) };
    *expr = Expr::Nested(Box::new(compared));
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::super::dialect::Postgres;
    use super::*;

    #[test]
    fn comparisons_with_elements_are_operators() {
        let cases = [
            ("a = ANY(b)", Some(("=", false))),
            ("a <> ALL('{1}')", Some(("<>", true))),
            ("a NOT LIKE SOME (b)", Some(("!~~", false))),
            ("a = ANY(SELECT 1)", None),
            ("a = b", None),
        ];
        for (sql, expected) in cases {
            let parser = Parser::new(&Postgres).try_with_sql(sql);
            let mut expr = parser.and_then(|mut parser| parser.parse_expr()).unwrap();
            rewrite(&mut expr);
            let found = match &expr {
                Expr::Nested(inner) => match inner.as_ref() {
                    Expr::BinaryOp { op, .. } => Quantified::read(op),
                    _ => None,
                },
                _ => None,
            };
            let found = found.as_ref().map(|found| (found.symbol.as_str(), found.all));
            assert_eq!(found, expected, "{sql}");
        }
    }
}
