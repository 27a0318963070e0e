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
    logical_expr::{Cast, Expr, ExprSchemable, expr::Placeholder},
};
use sepal_types::SqlType;

use super::{
    branches::held_as,
    untyped::{self, Operand, literal_type, operand, typed},
};
use crate::{
    error::carry,
    sql::{common_type, matched, written_numeric},
};

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

/// Whether what the outermost call or CASE chooses from has one type together.
///
/// Errors: 42804 and 42846 where not.
pub(super) fn check_choice(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        // PostgreSQL looks at the ELSE first.
        Expr::Case(case) => {
            let results = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
            check("CASE", case.else_expr.as_deref().into_iter().chain(results), schema)
        }
        Expr::ScalarFunction(call) => match call.func.name() {
            "coalesce" => check("COALESCE", &call.args, schema),
            "greatest" => check("GREATEST", &call.args, schema),
            "least" => check("LEAST", &call.args, schema),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The same of any expressions that are to have one type, but for those that are not known to have one.
fn check<'a>(construct: &str, exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Result<()> {
    let types = exprs.into_iter().filter_map(|expr| match operand(expr, schema) {
        Operand::Typed(ty) => Some(Some(ty)),
        Operand::Unknown => None,
        Operand::Undetermined => Some(None),
    });
    match types.collect::<Option<Vec<SqlType>>>() {
        Some(types) => matched(construct, &types).map(|_| ()).map_err(carry),
        None => Ok(()),
    }
}

/// Casts the results of a CASE, and what `lag` and `lead` give, to the type that they have in common: DataFusion
/// describes both by the first. Times among each other are one already (`instants`). Tells whether it did.
pub(super) fn unify_results(expr: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let is_case = matches!(expr, Expr::Case(_));
    let results: Vec<&mut Expr> = match expr {
        Expr::Case(case) => {
            let results = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            results.chain(case.else_expr.as_deref_mut()).collect()
        }
        Expr::WindowFunction(_) => groups(expr).into_iter().flatten().collect(),
        _ => return Ok(false),
    };
    let mut types = Vec::with_capacity(results.len());
    for result in &results {
        match operand(result, schema) {
            Operand::Typed(ty) => types.push(ty),
            Operand::Unknown => {}
            Operand::Undetermined => return Ok(false),
        }
    }
    let common = match matched("CASE", &types) {
        Err(error) if is_case => return Err(carry(error)),
        common => common.ok().flatten(),
    };
    let Some(common) = common else { return Ok(false) };
    if types.iter().all(|ty| *ty == common) {
        return Ok(false);
    }
    let Some(target) = held_as(&common, &types) else { return Ok(false) };
    let mut changed = false;
    for result in results {
        let Operand::Typed(ty) = operand(result, schema) else { continue };
        let is_it = ty == common && !matches!(common, SqlType::Numeric(_));
        if !is_it && result.get_type(schema)? != target {
            *result = Expr::Cast(Cast::new(Box::new(mem::take(result)), target.clone()));
            changed = true;
        }
    }
    Ok(changed)
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
///
/// Errors: 42804 and 42846 where these have none together.
pub(super) fn type_elements(elements: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    check("ARRAY", &elements, schema)?;
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
pub(super) fn constant(expr: Expr, ty: &SqlType) -> Result<Expr> {
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
