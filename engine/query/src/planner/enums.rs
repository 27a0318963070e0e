//! Expressions over enums: casts, what functions are given of them, and which operators they have.
//!
//! Called by `untyped` for every expression, once it is planned. What DataFusion would do with eight bytes is no
//! affair of an enum's: whatever is not known to mean something here is refused, as PostgreSQL refuses it.

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::{DFSchema, tree_node::Transformed},
    error::Result,
    logical_expr::{
        BinaryExpr, Cast, Expr, ExprSchemable, Like, LogicalPlan,
        expr::{InList, InSubquery, SetComparison},
    },
};
use sepal_storage::is_enum;
use sepal_types::{EnumType, SqlType};

use super::untyped::{Operand, operand, typed};
use crate::{
    error::{carry, undefined_function_call, undefined_operator},
    functions::{cannot_cast, enum_call, enum_label_call, enum_of_call},
    output::sql_type,
};

/// Casts to enums as calls that read labels; labels in place of places where a function takes whatever has a text.
///
/// Errors: 42846, 42883; 22P02 of a literal; 0A000 where it is not known which enum it is.
pub(super) fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(Cast { expr: inner, field }) => {
            let target = sql_type(&field);
            match enum_of(&target) {
                Some(_) => read(*inner, &target, schema).map(Transformed::yes),
                None => Ok(Transformed::no(Expr::Cast(Cast { expr: inner, field }))),
            }
        }
        Expr::ScalarFunction(mut call) => {
            let name = call.func.name().to_owned();
            if enum_of_call(&name) {
                let typed = name.starts_with("enum_") && type_parameters(&mut call.args, schema);
                return Ok(Transformed::new_transformed(Expr::ScalarFunction(call), typed));
            }
            let labelled = give_labels(&name, &mut call.args, schema)?;
            Ok(Transformed::new_transformed(Expr::ScalarFunction(call), labelled))
        }
        Expr::AggregateFunction(mut call) => {
            let name = call.func.name().to_owned();
            let labelled = give_labels(&name, &mut call.params.args, schema)?;
            Ok(Transformed::new_transformed(Expr::AggregateFunction(call), labelled))
        }
        Expr::WindowFunction(mut call) => {
            let name = call.fun.name().to_owned();
            let labelled = give_labels(&name, &mut call.params.args, schema)?;
            Ok(Transformed::new_transformed(Expr::WindowFunction(call), labelled))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Has parameters say of which enum they are once their values are put in. Tells whether there were any.
fn type_parameters(arguments: &mut [Expr], schema: &DFSchema) -> bool {
    let mut typed = false;
    for argument in arguments.iter_mut().filter(|argument| matches!(argument, Expr::Placeholder(_))) {
        if let Some(ty) = enum_typed(argument, schema) {
            *argument = enum_call(std::mem::take(argument), &ty);
            typed = true;
        }
    }
    typed
}

/// The enum that a type is, or an array of.
fn enum_of(ty: &SqlType) -> Option<&EnumType> {
    match ty {
        SqlType::Array(element) => element.enum_type(),
        other => other.enum_type(),
    }
}

/// The type of an expression that is an enum's or of an array of one.
fn enum_typed(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    match operand(expr, schema) {
        Operand::Typed(ty) if enum_of(&ty).is_some() => Some(ty),
        _ => None,
    }
}

/// A cast to an enum, or to an array of one.
fn read(inner: Expr, target: &SqlType, schema: &DFSchema) -> Result<Expr> {
    match operand(&inner, schema) {
        Operand::Unknown => {
            let inner = typed(inner, target)?;
            // A parameter is of the type then, and a literal was read.
            match enum_typed(&inner, schema) {
                Some(_) => Ok(inner),
                None => Ok(enum_call(inner, target)),
            }
        }
        Operand::Typed(source) => {
            if enum_of(&source).is_some_and(|source| !source.is_known()) {
                return Err(carry(EnumType::not_known()));
            }
            let same = match (enum_of(&source), enum_of(target)) {
                (Some(of), Some(wanted)) => {
                    let arrays = matches!((&source, target), (SqlType::Array(_), SqlType::Array(_)));
                    let single = matches!((&source, target), (SqlType::Enum(_), SqlType::Enum(_)));
                    of.id == wanted.id && (arrays || single)
                }
                _ => source.is_text(),
            };
            if same { Ok(enum_call(inner, target)) } else { Err(carry(cannot_cast(&source, target))) }
        }
        Operand::Undetermined => Ok(enum_call(inner, target)),
    }
}

/// What a function does with an enum that it is given.
enum Taken {
    /// It gives it back, counts it or compares it.
    AsItIs,
    /// It prints it.
    AsText,
}

fn taken(name: &str) -> Option<Taken> {
    Some(match name {
        "sepal_cast_text"
        | "sepal_cast_varchar"
        | "sepal_cast_bpchar"
        | "sepal_cast_name"
        | "sepal_cast__text"
        | "sepal_cast__varchar"
        | "array_to_string"
        | "concat"
        | "concat_ws"
        | "format"
        | "quote_literal"
        | "quote_nullable"
        | "to_json"
        | "to_jsonb" => Taken::AsText,
        name if ["json_", "jsonb_", "sepal_json"].iter().any(|prefix| name.starts_with(prefix)) => {
            Taken::AsText
        }
        "approx_distinct" | "arrow_typeof" | "cardinality" | "coalesce" | "count" | "first_value"
        | "greatest" | "grouping" | "lag" | "last_value" | "lead" | "least" | "make_array" | "max"
        | "min" | "nth_value" | "nullif" | "num_nonnulls" | "num_nulls" | "pg_typeof" => Taken::AsItIs,
        "sepal_any_eq"
        | "sepal_any_ge"
        | "sepal_any_gt"
        | "sepal_any_le"
        | "sepal_any_lt"
        | "sepal_any_ne"
        | "sepal_array_of_rows"
        | "sepal_only_row"
        | "sepal_ordinals" => Taken::AsItIs,
        name if name.starts_with("array_") => Taken::AsItIs,
        _ => return None,
    })
}

/// Puts labels in place of a function's arguments that are enums, where it prints them. Tells whether it did.
///
/// Errors: 42846 for a cast, 42883 for a function that takes no enums.
fn give_labels(name: &str, arguments: &mut [Expr], schema: &DFSchema) -> Result<bool> {
    let mut labelled = false;
    for place in 0..arguments.len() {
        let Some(ty) = enum_typed(&arguments[place], schema) else { continue };
        match taken(name) {
            Some(Taken::AsItIs) => {}
            Some(Taken::AsText) => {
                if enum_of(&ty).is_some_and(|of| !of.is_known()) {
                    return Err(carry(EnumType::not_known()));
                }
                let argument = std::mem::take(&mut arguments[place]);
                arguments[place] = enum_label_call(argument, &ty);
                labelled = true;
            }
            None => {
                if let Some(target) = name.strip_prefix("sepal_cast_").and_then(SqlType::from_internal_name) {
                    return Err(carry(cannot_cast(&ty, &target)));
                }
                return Err(carry(undefined_function_call(name, &all_shown(arguments, schema))));
            }
        }
    }
    Ok(labelled)
}

/// Errors: 42883 where an enum is compared with anything but the same enum, or searched for a pattern; 0A000 where it
/// is not known which enum it is.
pub(super) fn check(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if !op.is_logic_operator() => {
            alike(left, right, &op.to_string(), schema)
        }
        Expr::Between(between) => {
            alike(&between.expr, &between.low, ">=", schema)?;
            alike(&between.expr, &between.high, "<=", schema)
        }
        Expr::InList(InList { expr, list, .. }) => {
            list.iter().try_for_each(|item| alike(expr, item, "=", schema))
        }
        Expr::InSubquery(InSubquery { expr, subquery, .. }) => {
            let found = subquery.subquery.schema();
            let found = found.fields().first().map(|field| sql_type(field));
            beside(operand(expr, schema), found.map_or(Operand::Undetermined, Operand::Typed), "=")
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, .. }) => {
            let found = subquery.subquery.schema();
            let found = found.fields().first().map(|field| sql_type(field));
            beside(
                operand(expr, schema),
                found.map_or(Operand::Undetermined, Operand::Typed),
                &op.to_string(),
            )
        }
        Expr::Like(Like { expr, pattern, .. }) | Expr::SimilarTo(Like { expr, pattern, .. }) => {
            for side in [expr, pattern] {
                if let Some(ty) = enum_typed(side, schema) {
                    return Err(carry(undefined_operator(Some(&ty), "~~", &SqlType::Unknown)));
                }
            }
            Ok(())
        }
        Expr::Case(case) => match &case.expr {
            Some(compared) => {
                case.when_then_expr.iter().try_for_each(|(when, _)| alike(compared, when, "=", schema))
            }
            None => Ok(()),
        },
        Expr::ScalarFunction(call) => check_call(call.func.name(), &call.args, schema),
        Expr::WindowFunction(call) if matches!(call.fun.name(), "lag" | "lead") => {
            check_default(call.fun.name(), &call.params.args, schema)
        }
        _ => Ok(()),
    }
}

/// `nullif`, and `= ANY (list)` and its kin.
fn check_call(name: &str, arguments: &[Expr], schema: &DFSchema) -> Result<()> {
    match arguments {
        [left, right] if name == "nullif" => alike(left, right, "=", schema),
        [list, value] if name.starts_with("sepal_any_") => match operand(list, schema) {
            Operand::Typed(SqlType::Array(element)) => {
                beside(operand(value, schema), Operand::Typed(*element), "=")
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// What `lag` and `lead` give where there is no such row. Errors: 42883 for anything but the same enum.
fn check_default(name: &str, arguments: &[Expr], schema: &DFSchema) -> Result<()> {
    let [value, _, otherwise] = arguments else { return Ok(()) };
    match (shown(value, schema), shown(otherwise, schema)) {
        (SqlType::Unknown, _) | (_, SqlType::Unknown) => Ok(()),
        (value, otherwise) => match (value.enum_type(), otherwise.enum_type()) {
            (None, None) => Ok(()),
            (Some(value), Some(otherwise)) if value.id == otherwise.id => Ok(()),
            _ => Err(carry(undefined_function_call(name, &all_shown(arguments, schema)))),
        },
    }
}

/// The type of an argument as messages have it.
fn shown(argument: &Expr, schema: &DFSchema) -> SqlType {
    match operand(argument, schema) {
        Operand::Typed(ty) => ty,
        Operand::Undetermined | Operand::Unknown => SqlType::Unknown,
    }
}

fn all_shown(arguments: &[Expr], schema: &DFSchema) -> Vec<SqlType> {
    arguments.iter().map(|argument| shown(argument, schema)).collect()
}

/// The same of what a join compares. Asked of set operations once their branches agree.
pub(super) fn check_join(plan: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Join(join) = plan else { return Ok(()) };
    for (left, right) in &join.on {
        beside(operand(left, join.left.schema()), operand(right, join.right.schema()), "=")?;
    }
    Ok(())
}

/// Errors: 0A000 for a result of which it is not known which enum's it is.
pub(super) fn check_outputs(plan: LogicalPlan) -> Result<LogicalPlan> {
    let lost = |field: &FieldRef| {
        let data_type = match field.data_type() {
            DataType::List(item) => item.data_type(),
            other => other,
        };
        is_enum(data_type) && enum_of(&sql_type(field)).is_some_and(|of| !of.is_known())
    };
    if plan.schema().fields().iter().any(lost) {
        return Err(carry(EnumType::not_known()));
    }
    Ok(plan)
}

/// Asks first what is cheap to tell: there are many comparisons, and few of enums.
fn alike(left: &Expr, right: &Expr, operator: &str, schema: &DFSchema) -> Result<()> {
    let perhaps = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| is_enum(&ty));
    if !perhaps(left) && !perhaps(right) {
        return Ok(());
    }
    beside(operand(left, schema), operand(right, schema), operator)
}

fn beside(left: Operand, right: Operand, operator: &str) -> Result<()> {
    let (Operand::Typed(left), Operand::Typed(right)) = (left, right) else { return Ok(()) };
    match (left.enum_type(), right.enum_type()) {
        (None, None) => Ok(()),
        (Some(left), Some(right)) if left.is_known() && left.id == right.id => Ok(()),
        (Some(of), _) | (_, Some(of)) if !of.is_known() => Err(carry(EnumType::not_known())),
        _ => Err(carry(undefined_operator(Some(&left), operator, &right))),
    }
}
