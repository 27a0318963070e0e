//! A date, a `timestamp` and a `timestamptz` beside each other: what says less of a time becomes what says more.
//!
//! DataFusion makes nanoseconds without a zone of them, which there are none of before 1677 and after 2262, nor of the
//! infinities: a comparison with `9999-12-31` would be an error. PostgreSQL has operators of their own for such pairs,
//! which take a date for its midnight in the session's zone (`date_cmp_timestamptz`); CASE and its like make the
//! casts. `typing` asks here about comparison operators, `untyped` about the forms that DataFusion plans without asking
//! us.

use std::{mem, sync::Arc};

use datafusion::{
    common::DFSchema,
    logical_expr::{BinaryExpr, Expr, Operator, expr::ScalarFunction},
};
use sepal_types::SqlType;

use super::{
    chosen,
    untyped::{Operand, operand},
};
use crate::{functions::cast_function, sql::time_rank};

/// What such types become together; `None` where they are one already, and where any is of another kind.
pub(super) fn common<'a>(types: impl IntoIterator<Item = &'a SqlType>) -> Option<SqlType> {
    let mut most: Option<&SqlType> = None;
    let mut several = false;
    for ty in types {
        let rank = time_rank(ty)?;
        let known = most.and_then(time_rank);
        several |= known.is_some_and(|known| known != rank);
        if known.is_none_or(|known| known < rank) {
            most = Some(ty);
        }
    }
    most.filter(|_| several).cloned()
}

/// An operand of this type as one of the [`common`] type.
pub(super) fn become_one(expr: Expr, ty: &SqlType, wanted: &SqlType) -> Expr {
    if ty == wanted {
        return expr;
    }
    let function = Arc::new(cast_function(wanted.clone()));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![expr]))
}

/// Casts the operands of one expression, not of those below it. Tells whether it did.
pub(super) fn unify(expr: &mut Expr, schema: &DFSchema) -> bool {
    let mut changed = false;
    for operands in groups(expr) {
        let typed: Vec<(&mut Expr, SqlType)> = operands
            .into_iter()
            .filter_map(|expr| match operand(expr, schema) {
                Operand::Typed(ty) => Some((expr, ty)),
                Operand::Undetermined | Operand::Unknown => None,
            })
            .collect();
        let Some(wanted) = common(typed.iter().map(|(_, ty)| ty)) else { continue };
        for (expr, ty) in typed {
            *expr = become_one(mem::take(expr), &ty, &wanted);
        }
        changed = true;
    }
    changed
}

/// What is compared with each other, or chosen from.
fn groups(expr: &mut Expr) -> Vec<Vec<&mut Expr>> {
    match expr {
        Expr::Between(between) => {
            vec![vec![between.expr.as_mut(), between.low.as_mut(), between.high.as_mut()]]
        }
        Expr::InList(list) => vec![std::iter::once(list.expr.as_mut()).chain(&mut list.list).collect()],
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::IsDistinctFrom | Operator::IsNotDistinctFrom,
            right,
        }) => vec![vec![left.as_mut(), right.as_mut()]],
        // Its result is of the type that the first one has.
        Expr::ScalarFunction(call) if call.func.name() == "nullif" => Vec::new(),
        other => chosen::groups(other),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::{Field, Schema},
        logical_expr::{ExprSchemable, expr::InList},
        prelude::ident,
    };
    use sepal_storage::arrow_type;

    use super::*;

    #[test]
    fn what_says_less_of_a_time_becomes_what_says_more() {
        let column = |name: &str, ty: &SqlType| Field::new(name, arrow_type(ty), true);
        let columns = vec![
            column("d", &SqlType::Date),
            column("t", &SqlType::Timestamp),
            column("z", &SqlType::Timestamptz),
            column("n", &SqlType::Int4),
        ];
        let schema = DFSchema::try_from(Schema::new(columns)).expect("distinct names");
        let unified = |one: &str, others: &[&str]| {
            let others: Vec<Expr> = others.iter().map(|name| ident(*name)).collect();
            let mut expr = Expr::InList(InList::new(Box::new(ident(one)), others, false));
            let changed = unify(&mut expr, &schema);
            let Expr::InList(list) = expr else { panic!("a list stays one") };
            let types = std::iter::once(&*list.expr).chain(&list.list);
            let types: Vec<_> = types.map(|expr| expr.get_type(&schema).expect("a type")).collect();
            changed.then_some(types)
        };
        assert_eq!(unified("d", &["t"]), Some(vec![arrow_type(&SqlType::Timestamp); 2]));
        assert_eq!(unified("z", &["t", "d"]), Some(vec![arrow_type(&SqlType::Timestamptz); 3]));
        for (one, other) in [("d", "d"), ("z", "z"), ("n", "n"), ("d", "n")] {
            assert_eq!(unified(one, &[other]), None, "{one} and {other}");
        }
    }
}
