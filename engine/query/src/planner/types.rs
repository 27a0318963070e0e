//! SQL type names that DataFusion's planner does not know, or knows otherwise.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::FieldRef, error::Result, logical_expr::planner::TypePlanner,
    sql::sqlparser::ast::DataType,
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType, limits::MAX_DIMENSIONS};

use crate::{error::carry, output::typed_field};

/// Answers for every type that `SqlType` has.
#[derive(Debug)]
pub(super) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &DataType) -> Result<Option<FieldRef>> {
        let name = sql_type.to_string();
        match SqlType::from_name(&name) {
            Some(ty) => Ok(Some(Arc::new(typed_field("type", arrow_type(&ty), &ty)))),
            None => vector_modifier(&name).map_or(Ok(None), |modifier| Err(carry(refuse(&modifier)))),
        }
    }
}

/// What stands in the parentheses of a `vector(…)` that names no type.
fn vector_modifier(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let rest = lower.strip_prefix("public.").unwrap_or(&lower).strip_prefix("vector")?;
    Some(rest.trim().strip_prefix('(')?.strip_suffix(')')?.trim().to_owned())
}

/// pgvector's `vector_typmod_in`.
fn refuse(modifier: &str) -> Error {
    if modifier.contains(',') {
        return Error::new(SqlState::InvalidParameterValue, "invalid type modifier");
    }
    let message = match modifier.parse::<i64>() {
        Ok(number) if number < 1 => "dimensions for type vector must be at least 1".to_owned(),
        Ok(_) => format!("dimensions for type vector cannot exceed {MAX_DIMENSIONS}"),
        Err(_) => {
            let text = modifier.trim_matches('\'');
            let message = format!("invalid input syntax for type integer: \"{text}\"");
            return Error::new(SqlState::InvalidTextRepresentation, message);
        }
    };
    Error::new(SqlState::InvalidParameterValue, message)
}
