//! `numeric` beside `real` or `double precision`: Postgres computes such expressions as floats.
//!
//! DataFusion makes both a decimal, which holds neither NaN nor infinity, and little of what is very large or very
//! small. `typing` asks here about comparison operators, `untyped` about the forms that DataFusion plans without
//! asking us. An operator over `real` and `numeric` is one of `double precision`; expressions that only have to
//! share a type (CASE, coalesce, IN) take the float's own.

use std::mem;

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, ScalarValue},
    logical_expr::{BinaryExpr, Cast, Expr, Operator},
};
use sepal_types::SqlType;

use super::untyped::{Operand, operand};

/// Whether a comparison of these types is one of `double precision` to which an operand must be cast.
pub(super) const fn mixed(left: &SqlType, right: &SqlType) -> bool {
    matches!(
        (left, right),
        (SqlType::Float4 | SqlType::Float8, SqlType::Numeric(_))
            | (SqlType::Numeric(_), SqlType::Float4 | SqlType::Float8)
    )
}

/// An operand of a comparison that is [`mixed`].
pub(super) fn to_float8(expr: Expr, ty: &SqlType) -> Expr {
    match ty {
        SqlType::Float4 | SqlType::Numeric(_) => cast(expr, DataType::Float64),
        _ => expr,
    }
}

/// What types of which one is the result become, where both floats and `numeric` are among them and numbers alone.
pub(super) fn common(types: &[SqlType]) -> Option<SqlType> {
    let is_float = |ty: &SqlType| matches!(ty, SqlType::Float4 | SqlType::Float8);
    let mixed = types.iter().any(is_float) && types.iter().any(|ty| matches!(ty, SqlType::Numeric(_)));
    let numbers = mixed && types.iter().all(SqlType::is_number);
    numbers.then(|| if types.contains(&SqlType::Float8) { SqlType::Float8 } else { SqlType::Float4 })
}

/// Casts the operands of one expression, not of those below it. Tells whether it did.
pub(super) fn unify(expr: &mut Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Between(between) => {
            compare(&mut [&mut between.expr, &mut between.low, &mut between.high], schema)
        }
        Expr::InList(list) => {
            let single = list.list.len() == 1;
            let mut operands: Vec<&mut Expr> = vec![list.expr.as_mut()];
            operands.extend(&mut list.list);
            if single { compare(&mut operands, schema) } else { share(&mut operands, schema) }
        }
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::IsDistinctFrom | Operator::IsNotDistinctFrom,
            right,
        }) => compare(&mut [left, right], schema),
        Expr::Case(case) => {
            let mut compared: Vec<&mut Expr> = Vec::new();
            let mut results: Vec<&mut Expr> = Vec::new();
            let has_operand = case.expr.is_some();
            compared.extend(case.expr.as_deref_mut());
            for (when, then) in &mut case.when_then_expr {
                if has_operand {
                    compared.push(when);
                }
                results.push(then);
            }
            results.extend(case.else_expr.as_deref_mut());
            let compared = compare(&mut compared, schema);
            share(&mut results, schema) || compared
        }
        Expr::ScalarFunction(call) => {
            let compares = match call.func.name() {
                "coalesce" | "greatest" | "least" => false,
                "nullif" => true,
                _ => return false,
            };
            let mut operands: Vec<&mut Expr> = call.args.iter_mut().collect();
            if compares { compare(&mut operands, schema) } else { share(&mut operands, schema) }
        }
        _ => false,
    }
}

/// For operands that are compared with each other.
fn compare(operands: &mut [&mut Expr], schema: &DFSchema) -> bool {
    cast_all(operands, schema, |_| SqlType::Float8)
}

/// For operands of which one is the result.
fn share(operands: &mut [&mut Expr], schema: &DFSchema) -> bool {
    cast_all(operands, schema, |types| {
        if types.contains(&Operand::Typed(SqlType::Float8)) { SqlType::Float8 } else { SqlType::Float4 }
    })
}

fn cast_all(operands: &mut [&mut Expr], schema: &DFSchema, target: impl Fn(&[Operand]) -> SqlType) -> bool {
    let types: Vec<Operand> = operands.iter().map(|expr| operand(expr, schema)).collect();
    let is_float = |ty: &Operand| matches!(ty, Operand::Typed(SqlType::Float4 | SqlType::Float8));
    let is_numeric = |ty: &Operand| matches!(ty, Operand::Typed(SqlType::Numeric(_)));
    if !types.iter().any(is_float) || !types.iter().any(is_numeric) {
        return false;
    }
    let target = target(&types);
    let data_type = if target == SqlType::Float4 { DataType::Float32 } else { DataType::Float64 };
    for (expr, ty) in operands.iter_mut().zip(types) {
        if is_numeric(&ty) || (is_float(&ty) && ty != Operand::Typed(target.clone())) {
            **expr = cast(mem::take(*expr), data_type.clone());
        }
    }
    true
}

/// A literal is read again as a float, to the nearest there is; anything else is cast.
fn cast(expr: Expr, target: DataType) -> Expr {
    if let Expr::Literal(ScalarValue::Decimal128(Some(value), _, scale), _) = &expr {
        let digits = format!("{value}e{}", -i16::from(*scale));
        let literal = match target {
            DataType::Float32 => digits.parse::<f32>().ok().map(|float| ScalarValue::Float32(Some(float))),
            _ => digits.parse::<f64>().ok().map(|float| ScalarValue::Float64(Some(float))),
        };
        if let Some(literal) = literal {
            return Expr::Literal(literal, None);
        }
    }
    Expr::Cast(Cast::new(Box::new(expr), target))
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::{Field, Schema},
        logical_expr::expr::InList,
        prelude::ident,
    };

    use super::*;

    fn decimal(value: i128, scale: i8) -> Expr {
        Expr::Literal(ScalarValue::Decimal128(Some(value), 38, scale), None)
    }

    fn float8(value: f64) -> Expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), None)
    }

    #[test]
    fn a_decimal_beside_a_float_is_a_float() {
        let columns = vec![
            Field::new("f4", DataType::Float32, true),
            Field::new("f8", DataType::Float64, true),
            Field::new("n", DataType::Decimal128(10, 2), true),
        ];
        let schema = DFSchema::try_from(Schema::new(columns)).expect("distinct names");
        let list = |column: &str, items| {
            let mut expr = Expr::InList(InList::new(Box::new(ident(column)), items, false));
            let changed = unify(&mut expr, &schema);
            (expr, changed)
        };
        let expected = |column: Expr, items| Expr::InList(InList::new(Box::new(column), items, false));
        assert_eq!(
            list("f8", vec![decimal(1, 1), decimal(-25, 20)]),
            (expected(ident("f8"), vec![float8(0.1), float8(-2.5e-19)]), true)
        );
        let single = Expr::Literal(ScalarValue::Float32(Some(0.1)), None);
        let half = Expr::Literal(ScalarValue::Float32(Some(0.5)), None);
        assert_eq!(
            list("f4", vec![decimal(1, 1), decimal(5, 1)]),
            (expected(ident("f4"), vec![single, half]), true)
        );
        let wide = Expr::Cast(Cast::new(Box::new(ident("f4")), DataType::Float64));
        assert_eq!(list("f4", vec![decimal(1, 1)]), (expected(wide, vec![float8(0.1)]), true));
        assert!(!list("n", vec![decimal(1, 1)]).1);
    }
}
