//! SQL type names that DataFusion's planner does not know, or knows otherwise.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::FieldRef, error::Result, logical_expr::planner::TypePlanner,
    sql::sqlparser::ast::DataType,
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SparseVector, SqlState, SqlType, VectorKind};

use crate::{error::carry, output::typed_field};

/// Answers for every type that `SqlType` has.
#[derive(Debug)]
pub(super) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &DataType) -> Result<Option<FieldRef>> {
        let name = sql_type.to_string();
        match SqlType::from_name(&name) {
            Some(ty) => Ok(Some(Arc::new(typed_field("type", arrow_type(&ty), &ty)))),
            None => match vector_modifier(&name) {
                Some((kind, modifier)) => Err(carry(refuse(kind, &modifier))),
                None => Ok(None),
            },
        }
    }
}

/// What stands in the parentheses of a `vector(…)`, `halfvec(…)` or `sparsevec(…)`, whose kind is `None`, that names no
/// type.
fn vector_modifier(name: &str) -> Option<(Option<VectorKind>, String)> {
    let lower = name.to_ascii_lowercase();
    let bare = VectorKind::without_schema(&lower).unwrap_or(&lower);
    VectorKind::ALL.map(Some).into_iter().chain([None]).find_map(|kind| {
        let rest = bare.strip_prefix(kind.map_or(SparseVector::NAME, VectorKind::name))?.trim();
        Some((kind, rest.strip_prefix('(')?.strip_suffix(')')?.trim().to_owned()))
    })
}

/// pgvector's `vector_typmod_in`.
fn refuse(kind: Option<VectorKind>, modifier: &str) -> Error {
    if modifier.contains(',') {
        return Error::new(SqlState::InvalidParameterValue, "invalid type modifier");
    }
    let declared = |number: i64| match kind {
        Some(kind) => kind.declared(number).map(u32::from),
        None => SparseVector::declared(number),
    };
    match modifier.parse::<i64>().map(declared) {
        Ok(Err(error)) => error,
        Ok(Ok(number)) => Error::bug(format!("a vector of {number} dimensions is a type")),
        Err(_) => {
            let text = modifier.trim_matches('\'');
            let message = format!("invalid input syntax for type integer: \"{text}\"");
            Error::new(SqlState::InvalidTextRepresentation, message)
        }
    }
}
