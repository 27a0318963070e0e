//! Postgres types an integer literal `integer` when it fits, else `bigint`; DataFusion says Int64 always.
//!
//! Only where the type shows (SELECT lists and VALUES) is a literal given its type by an explicit cast:
//! elsewhere DataFusion's own coercion gives the same rows.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, CastKind, DataType, Expr, Value, VisitMut, VisitorMut};

/// Types the integer literals of one output expression.
pub fn type_integers(expr: &mut Expr) {
    let _ = expr.visit(&mut IntegerTyper { skip: 0 });
}

/// Inside a window function's call arguments must stay literals (`ntile(4)`), so nothing is touched there.
struct IntegerTyper {
    skip: u32,
}

impl VisitorMut for IntegerTyper {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if is_opaque(expr) {
            self.skip += 1;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if is_opaque(expr) {
            self.skip -= 1;
        } else if self.skip == 0 && fits_int4(expr) {
            *expr = Expr::Cast {
                kind: CastKind::DoubleColon,
                expr: Box::new(expr.clone()),
                data_type: DataType::Integer(None),
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    }
}

fn is_opaque(expr: &Expr) -> bool {
    match expr {
        Expr::Function(function) => function.over.is_some() || takes_literals(&function.name),
        Expr::Cast { .. } | Expr::Interval(_) | Expr::Subquery(_) | Expr::CompoundFieldAccess { .. } => true,
        _ => false,
    }
}

/// Functions of DataFusion that insist on literal arguments.
fn takes_literals(name: &ast::ObjectName) -> bool {
    let name = name.to_string().to_lowercase();
    name.starts_with("approx_")
        || name.starts_with("sepal_")
        || matches!(name.as_str(), "nth_value" | "subvector" | "round" | "trunc")
}

fn fits_int4(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse::<i32>().is_ok(),
            _ => false,
        },
        _ => false,
    }
}
