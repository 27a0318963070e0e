//! CASE, coalesce and their kin: a string literal or a parameter that nothing types has the type of the others.
//!
//! PostgreSQL's rules for "UNION, CASE, and Related Constructs". The AST pass follows them where it knows the types,
//! which is of the columns of tables (`sql/hints.rs`); here they are known of all columns. Asked by `operators`, before
//! an operator is planned over such an expression, and by `untyped` about all others.

use std::mem;

use datafusion::{
    common::{
        DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{Expr, expr::Placeholder},
};
use sepal_types::SqlType;

use super::untyped::{self, Operand, literal_type, operand, typed};
use crate::sql::{common_type, written_numeric};

/// Types the literals and parameters among what the outermost call or CASE chooses from, and those it compares. Tells
/// whether there were any.
///
/// Errors: those of the type's input function.
pub(super) fn type_choice(expr: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let mut read = false;
    for operands in groups(expr) {
        let untyped = |expr: &&mut Expr| is_untyped(expr);
        if operands.iter().any(untyped)
            && let Some(ty) = common(operands.iter().map(|expr| &**expr), schema)
        {
            for expr in operands.into_iter().filter(untyped) {
                *expr = constant(mem::take(expr), &ty)?;
                read = true;
            }
        }
    }
    Ok(read)
}

/// The operand of an operator, if it is such an expression with all in it.
pub(super) fn type_operand(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if !is_choice(&expr) {
        return Ok(expr);
    }
    let read = expr.transform_up(|mut expr| {
        let read = type_choice(&mut expr, schema)?;
        Ok(Transformed::new_transformed(expr, read))
    })?;
    Ok(read.data)
}

/// The type that the typed ones among expressions have together, as untyped ones take it; `None` for text, and where
/// one cannot be told.
pub(super) fn common<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Option<SqlType> {
    let mut common: Option<SqlType> = None;
    for expr in exprs {
        let ty = match operand(expr, schema) {
            Operand::Typed(ty) => ty,
            Operand::Unknown => continue,
            Operand::Undetermined => return None,
        };
        common = Some(match common {
            None => ty,
            Some(other) => common_type(other, ty),
        });
    }
    common.filter(|ty| literal_type(ty).is_some())
}

/// The elements of an array, untyped ones with the type of the others.
pub(super) fn type_elements(elements: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let plain = |ty: &SqlType| {
        use SqlType::{Bool, Bytea, Date, Interval, Time, Timestamp, Timestamptz, Uuid};
        ty.is_number() || matches!(ty, Bool | Bytea | Date | Interval | Time | Timestamp | Timestamptz | Uuid)
    };
    match common(&elements, schema).filter(plain) {
        Some(ty) => elements.into_iter().map(|element| constant(element, &ty)).collect(),
        None => Ok(elements),
    }
}

/// What has one type each: the results of the outermost call or CASE, and what it compares.
pub(super) fn groups(expr: &mut Expr) -> Vec<Vec<&mut Expr>> {
    match expr {
        Expr::Case(case) => {
            let (mut compared, mut results): (Vec<&mut Expr>, Vec<&mut Expr>) = (Vec::new(), Vec::new());
            compared.extend(case.expr.as_deref_mut());
            let compares = !compared.is_empty();
            for (when, then) in &mut case.when_then_expr {
                if compares {
                    compared.push(when.as_mut());
                }
                results.push(then.as_mut());
            }
            results.extend(case.else_expr.as_deref_mut());
            vec![compared, results]
        }
        Expr::ScalarFunction(call) if chooses(call.func.name()) => vec![call.args.iter_mut().collect()],
        // What is shown where there is no such row: DataFusion would read a literal without us.
        Expr::WindowFunction(call) if matches!(call.fun.name(), "lag" | "lead") => {
            match call.params.args.as_mut_slice() {
                [value, _, otherwise] => vec![vec![value, otherwise]],
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn is_choice(expr: &Expr) -> bool {
    match expr {
        Expr::Case(_) => true,
        Expr::ScalarFunction(call) => chooses(call.func.name()),
        _ => false,
    }
}

fn chooses(name: &str) -> bool {
    matches!(name, "coalesce" | "greatest" | "least" | "nullif")
}

/// An untyped expression with this type; a `numeric` literal has as many digits as it is written with.
fn constant(expr: Expr, ty: &SqlType) -> Result<Expr> {
    match (&expr, ty) {
        (Expr::Literal(ScalarValue::Utf8(Some(text)), None), SqlType::Numeric(_)) => {
            match written_numeric(text) {
                Some(ty) => untyped::constant(text, &ty),
                None => typed(expr, ty),
            }
        }
        _ => typed(expr, ty),
    }
}

/// A string literal or a parameter that has no type yet.
pub(super) fn is_untyped(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Literal(ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)), None)
            | Expr::Placeholder(Placeholder { field: None, .. })
    )
}
