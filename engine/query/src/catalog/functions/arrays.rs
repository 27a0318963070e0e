//! Array functions, with Postgres' lower bounds: arrays from 1, `int2vector` and `oidvector` from 0.
//!
//! A value does not know which it is, so `array_lower` and subscripts are the evaluator's; here are the
//! functions for which it makes no difference, and `array_upper`, which catalog queries ask of arrays only.

use std::sync::Arc;

use sepal_types::{Result, SqlType};

use super::super::CatalogContext;
use super::super::value::Value;
use super::{Function, Returns, optional, text_argument};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("array_length", "any, integer", "integer", length),
    Function::new("array_upper", "any, integer", "integer", length),
    Function::new("array_lower", "any, integer", "integer", |context, arguments| {
        Ok(if length(context, arguments)?.is_null() { Value::Null } else { 1.into() })
    }),
    Function::new("array_ndims", "any", "integer", |_, arguments| {
        Ok(arguments[0].as_list().filter(|list| !list.is_empty()).map(|_| 1).into())
    }),
    Function::new("cardinality", "any", "integer", |_, arguments| {
        Ok(arguments[0].as_list().map(<[Value]>::len).into())
    }),
    Function::lax("array_to_string", "text[], text, text?", "text", to_string),
    Function::lax("string_to_array", "text, text, text?", "text[]", from_string),
    Function::polymorphic("array_append", "any, any", Returns::First, false, |_, arguments| {
        Ok(joined(&arguments[0], &Value::List(Arc::from([arguments[1].clone()]))))
    }),
    Function::polymorphic("array_cat", "any, any", Returns::First, false, |_, arguments| {
        Ok(joined(&arguments[0], &arguments[1]))
    }),
    Function::polymorphic("array_remove", "any, any", Returns::First, false, |_, arguments| {
        let Some(list) = arguments[0].as_list() else { return Ok(Value::Null) };
        Ok(Value::List(list.iter().filter(|value| **value != arguments[1]).cloned().collect()))
    }),
    Function::lax("array_position", "any, any", "integer", |_, arguments| {
        let list = arguments[0].as_list().unwrap_or_default();
        Ok(list.iter().position(|value| *value == arguments[1]).map(|at| at + 1).into())
    }),
];

/// The only dimension there is, the first; NULL for others and for an empty array.
fn length(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let list = arguments[0].as_list().unwrap_or_default();
    let first = arguments[1].as_int() == Some(1);
    Ok((first && !list.is_empty()).then_some(list.len()).into())
}

fn to_string(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let (Some(list), Some(separator)) = (arguments[0].as_list(), optional(arguments, 1)) else {
        return Ok(Value::Null);
    };
    let null = optional(arguments, 2).map(Value::to_text);
    let texts: Vec<String> = list
        .iter()
        .filter_map(|value| match value {
            Value::Null => null.clone(),
            Value::Bool(value) => Some(if *value { "t" } else { "f" }.to_owned()),
            other => Some(other.to_text()),
        })
        .collect();
    Ok(texts.join(&separator.to_text()).into())
}

fn from_string(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let Some(text) = optional(arguments, 0) else { return Ok(Value::Null) };
    let text = text.to_text();
    if text.is_empty() {
        return Ok(Value::List(Arc::from([])));
    }
    let null = optional(arguments, 2).map(Value::to_text);
    let item = |part: &str| if null.as_deref() == Some(part) { Value::Null } else { Value::text(part) };
    let separator = text_argument(arguments, 1);
    Ok(Value::List(match optional(arguments, 1) {
        None => text.chars().map(|c| item(&c.to_string())).collect(),
        Some(_) if separator.is_empty() => Arc::from([item(&text)]),
        Some(_) => text.split(&separator).map(item).collect(),
    }))
}

/// `array || array`; NULL is the empty array unless both are.
pub(in crate::catalog) fn joined(left: &Value, right: &Value) -> Value {
    match (left.as_list(), right.as_list()) {
        (None, None) => Value::Null,
        (left, right) => {
            let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
            Value::List(left.iter().chain(right).cloned().collect())
        }
    }
}

/// The element type of a list type; `int2vector` and `oidvector` are lists too.
pub(in crate::catalog) fn element_type(ty: &SqlType) -> Option<SqlType> {
    match ty {
        SqlType::Array(element) => Some(element.as_ref().clone()),
        SqlType::Int2Vector => Some(SqlType::Int2),
        SqlType::OidVector => Some(SqlType::Oid),
        _ => None,
    }
}
