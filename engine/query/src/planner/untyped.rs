//! Literals and parameters that nothing has typed yet, and the types they take.
//!
//! A string literal beside a uuid is a uuid: `typing` says so for operators, [`type_plan`] for the forms that
//! DataFusion plans without asking us. A literal is read at once, by its type's own input function, so that a
//! scan sees a constant and a malformed one is an error of the type.

use std::mem;

use datafusion::{
    arrow::datatypes::DataType,
    common::{
        DFSchema, ScalarValue,
        metadata::FieldMetadata,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, expr::Placeholder,
        expr_rewriter::NamePreserver, utils::merge_schema,
    },
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

use super::{
    branches, by_value,
    chosen::{self, is_untyped},
    enums, floats, instants, json_operators,
};
use crate::{
    error::{carry, undefined_function_call},
    output::{is_bits, is_sparse, is_vector, natural_type, sql_type, typed_field},
    values,
    vector::vector_scalar,
};

/// What is known of an operand's type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Typed(SqlType),
    /// DataFusion cannot tell yet; then it plans the operator.
    Undetermined,
    /// A string literal, NULL, or a parameter that nothing has typed.
    Unknown,
}

pub(super) fn operand(expr: &Expr, schema: &DFSchema) -> Operand {
    match expr {
        Expr::Literal(ScalarValue::Null | ScalarValue::Utf8(_) | ScalarValue::Utf8View(_), None)
        | Expr::Placeholder(Placeholder { field: None, .. }) => Operand::Unknown,
        Expr::Literal(ScalarValue::Int64(Some(value)), None) if i32::try_from(*value).is_ok() => {
            Operand::Typed(SqlType::Int4)
        }
        _ => match expr.to_field(schema) {
            Ok((_, field)) if field.data_type().is_null() => Operand::Unknown,
            Ok((_, field)) => match sql_type(&field) {
                SqlType::Enum(of) if !of.is_known() => {
                    let chosen = json_operators::marked_type(expr, schema);
                    Operand::Typed(chosen.unwrap_or(SqlType::Enum(of)))
                }
                ty => Operand::Typed(ty),
            },
            Err(_) => Operand::Undetermined,
        },
    }
}

/// An untyped operand with the type of the one beside it; text stays as it is.
///
/// Errors: those of the type's input function.
pub(super) fn typed(expr: Expr, beside: &SqlType) -> Result<Expr> {
    let Some(ty) = literal_type(beside) else {
        return Ok(expr);
    };
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = typed_field(&id, arrow_type(&ty), &ty);
            Ok(Expr::Placeholder(Placeholder::new_with_field(id, Some(field.into()))))
        }
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), None) => {
            constant(&text, &ty)
        }
        other => Ok(other),
    }
}

/// The type that a literal takes beside this one: without its modifier. `None` for text, which it is already,
/// and for types that are not compared.
pub(super) fn literal_type(ty: &SqlType) -> Option<SqlType> {
    match ty {
        SqlType::Bool
        | SqlType::Bytea
        | SqlType::Date
        | SqlType::Enum(_)
        | SqlType::Float4
        | SqlType::Float8
        | SqlType::Int2
        | SqlType::Int4
        | SqlType::Int8
        | SqlType::Interval
        | SqlType::Jsonb
        | SqlType::Oid
        | SqlType::Time
        | SqlType::Timestamp
        | SqlType::Timestamptz
        | SqlType::TsQuery
        | SqlType::TsVector
        | SqlType::Uuid => Some(ty.clone()),
        SqlType::Array(element) => {
            let known = element.vector_kind().is_none()
                && !matches!(**element, SqlType::Bit(_) | SqlType::SparseVec(_));
            known.then(|| ty.clone())
        }
        SqlType::Bit(_) => Some(SqlType::Bit(None)),
        SqlType::Bpchar(_) => Some(SqlType::Bpchar(None)),
        SqlType::Numeric(_) => Some(SqlType::Numeric(None)),
        SqlType::SparseVec(_) => Some(SqlType::SparseVec(None)),
        _ => Some(ty.vector_kind()?.sql_type(None)),
    }
}

/// The constant that a literal's text is. Errors: those of the type's input function.
pub(super) fn constant(text: &str, ty: &SqlType) -> Result<Expr> {
    if let Some(kind) = ty.vector_kind() {
        return Ok(Expr::Literal(vector_scalar(text, kind).map_err(carry)?, None));
    }
    let array = values::decode_text(ty, Some(text.as_bytes())).map_err(carry)?;
    let field = typed_field("literal", array.data_type().clone(), ty);
    let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(&field));
    Ok(Expr::Literal(ScalarValue::try_from_array(&array, 0)?, metadata))
}

/// Types the operands of BETWEEN, IN, IS DISTINCT FROM, CASE and their like, and the branches of set operations, which
/// DataFusion plans without asking us.
pub(super) fn type_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    // Whether a result has another type now: then the plans above it have another schema.
    let mut reshaped = false;
    let typed = plan.transform_up_with_subqueries(|node| {
        refuse_words(&node)?;
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let typed = type_expression(expr, &schema)?;
            if !typed.transformed {
                return Ok(typed);
            }
            reshaped |= !matches!(typed.data.get_type(&schema), Ok(DataType::Boolean));
            Ok(typed.update_data(|expr| name.restore(expr)))
        })?;
        let node = if reshaped { node.map_data(LogicalPlan::recompute_schema)? } else { node };
        let typed = node.transformed;
        let mut agreed = branches::agree(node.data, reshaped)?;
        enums::check_join(&agreed.data)?;
        reshaped |= agreed.transformed;
        agreed.transformed |= typed;
        Ok(agreed)
    })?;
    Ok(typed.data)
}

/// The same for a lone expression.
pub(super) fn type_expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let Transformed { data: expr, transformed: read_enum, .. } = enums::rewrite(expr, schema)?;
        let untyped = has_untyped_operand(&expr);
        let mut expr = if untyped { type_operands(expr, schema)? } else { expr };
        let read = chosen::type_choice(&mut expr, schema)?;
        chosen::check_choice(&expr, schema)?;
        refuse_elements(&expr, schema)?;
        if let Some(expr) = by_value::rewrite(&expr, schema) {
            return Ok(Transformed::yes(expr));
        }
        let mut unified = floats::unify(&mut expr, schema);
        unified |= instants::unify(&mut expr, schema);
        unified |= chosen::unify_results(&mut expr, schema)?;
        enums::check(&expr, schema)?;
        let kept = json_operators::keep_type(&mut expr, schema)?;
        let searched = search_fixed(&mut expr, schema);
        Ok(Transformed::new_transformed(expr, read_enum || untyped || read || unified || kept || searched))
    })
}

/// `CASE value WHEN constant` of values of a fixed size, which uuids and enums are, as `CASE WHEN value = constant`: of the
/// former DataFusion makes a table of constants, and panics over these (`bytes_like_lookup_table.rs` of 55.2).
fn search_fixed(expr: &mut Expr, schema: &DFSchema) -> bool {
    let Expr::Case(case) = expr else { return false };
    let is_fixed = |value: &Expr| matches!(value.get_type(schema), Ok(DataType::FixedSizeBinary(_)));
    let Some(value) = case.expr.take_if(|value| is_fixed(value)) else { return false };
    for (when, _) in &mut case.when_then_expr {
        let constant = Box::new(mem::take(&mut **when));
        **when = Expr::BinaryExpr(BinaryExpr::new(value.clone(), Operator::Eq, constant));
    }
    true
}

/// A sparse vector is kept as a list, and is none to SQL; nor has pgvector a least or a greatest one. What is kept as a
/// list has no text that `string_agg` could add up.
///
/// Errors: 42883 for `unnest`, `min` and `max` of a sparse vector, and for `string_agg` of lists.
fn refuse_words(node: &LogicalPlan) -> Result<()> {
    let refused = match node {
        LogicalPlan::Unnest(unnest) => {
            let schema = unnest.input.schema();
            let mut places = unnest.list_type_columns.iter().map(|(place, _)| *place);
            let sparse = places.any(|place| is_sparse(schema.field(place).data_type()));
            sparse.then_some(("unnest", SqlType::SparseVec(None)))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let schema = aggregate.input.schema();
            aggregate.aggr_expr.iter().find_map(|expr| refused_aggregate(expr, schema))
        }
        _ => None,
    };
    match refused {
        Some((name, ty)) => Err(carry(undefined_function_call(name, &[ty]))),
        None => Ok(()),
    }
}

/// Vectors and bit strings are kept as lists, too, and are no arrays to SQL: their elements are not to be had, and what
/// is made of them by functions of arrays would be none of them.
///
/// Errors: 42883.
fn refuse_elements(expr: &Expr, schema: &DFSchema) -> Result<()> {
    let Expr::ScalarFunction(call) = expr else { return Ok(()) };
    let (name, arrays) = match call.func.name() {
        "array_concat" => ("array_cat", call.args.as_slice()),
        name @ "array_prepend" => (name, call.args.get(1..2).unwrap_or_default()),
        name @ ("cardinality" | "flatten" | "empty") => (name, call.args.get(..1).unwrap_or_default()),
        name if name.starts_with("array_") => (name, call.args.get(..1).unwrap_or_default()),
        _ => return Ok(()),
    };
    let is_whole = |ty: DataType| is_vector(&ty) || is_bits(&ty) || is_sparse(&ty);
    if !arrays.iter().any(|array| array.get_type(schema).is_ok_and(is_whole)) {
        return Ok(());
    }
    let types = call.args.iter().map(|argument| match operand(argument, schema) {
        Operand::Typed(ty) => ty,
        Operand::Undetermined | Operand::Unknown => SqlType::Unknown,
    });
    Err(carry(undefined_function_call(name, &types.collect::<Vec<_>>())))
}

/// The name of an aggregate that does not take what it is called with, and the type of that.
fn refused_aggregate<'a>(expr: &'a Expr, schema: &DFSchema) -> Option<(&'a str, SqlType)> {
    let Expr::AggregateFunction(call) = expr else { return None };
    let first = call.params.args.first()?.get_type(schema).ok()?;
    let name = call.func.name();
    let refused = match name {
        "max" | "min" => is_sparse(&first),
        "string_agg" => matches!(first, DataType::List(_) | DataType::FixedSizeList(..)),
        _ => false,
    };
    refused.then(|| (name, natural_type(&first)))
}

fn has_untyped_operand(expr: &Expr) -> bool {
    match expr {
        Expr::Between(between) => {
            is_untyped(&between.expr) || is_untyped(&between.low) || is_untyped(&between.high)
        }
        Expr::InList(list) => is_untyped(&list.expr) || list.list.iter().any(is_untyped),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom)
                && (is_untyped(left) || is_untyped(right))
        }
        _ => false,
    }
}

fn type_operands(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match expr {
        Expr::Between(mut between) => {
            if let Operand::Typed(ty) = operand(&between.expr, schema) {
                between.low = Box::new(typed(*between.low, &ty)?);
                between.high = Box::new(typed(*between.high, &ty)?);
            } else if let Some(ty) = chosen::common([between.low.as_ref(), between.high.as_ref()], schema) {
                between.expr = Box::new(typed(*between.expr, &ty)?);
            }
            Expr::Between(between)
        }
        Expr::InList(mut list) => {
            let all = std::iter::once(list.expr.as_ref()).chain(&list.list);
            if let Some(ty) = chosen::common(all, schema) {
                list.expr = Box::new(typed(*list.expr, &ty)?);
                list.list = list.list.into_iter().map(|item| typed(item, &ty)).collect::<Result<_>>()?;
            }
            Expr::InList(list)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom) =>
        {
            let (left, right) = match (operand(&left, schema), operand(&right, schema)) {
                (Operand::Typed(ty), Operand::Unknown) => (*left, typed(*right, &ty)?),
                (Operand::Unknown, Operand::Typed(ty)) => (typed(*left, &ty)?, *right),
                _ => (*left, *right),
            };
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
        other => other,
    })
}
