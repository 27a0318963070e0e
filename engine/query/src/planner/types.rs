//! SQL type names that DataFusion's planner does not know, or knows otherwise.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::FieldRef,
    error::Result,
    logical_expr::planner::TypePlanner,
    sql::sqlparser::ast::{ArrayElemTypeDef, DataType},
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SparseVector, SqlState, SqlType, VectorKind};

use crate::{
    catalog::type_oid, context::StatementContext, ddl::named_enum, error::carry, output::typed_field,
};

/// Answers for every type that `SqlType` has, and for the enums of the statement's snapshot.
#[derive(Debug)]
pub(super) struct Types {
    pub context: StatementContext,
}

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &DataType) -> Result<Option<FieldRef>> {
        let name = sql_type.to_string();
        if let Some(ty) = SqlType::from_name(&name).or_else(|| self.enumerated(sql_type)) {
            return Ok(Some(Arc::new(typed_field("type", arrow_type(&ty), &ty))));
        }
        if let Some((kind, modifier)) = vector_modifier(&name) {
            return Err(carry(refuse(kind, &modifier)));
        }
        match sql_type {
            DataType::Custom(_, modifiers) if modifiers.is_empty() && type_oid(&name).is_none() => {
                let message = format!("type \"{}\" does not exist", name.replace('"', ""));
                Err(carry(Error::new(SqlState::UndefinedObject, message)))
            }
            _ => Ok(None),
        }
    }
}

impl Types {
    /// An enum, or an array of one.
    fn enumerated(&self, data_type: &DataType) -> Option<SqlType> {
        let find = |name: &DataType| {
            let found = named_enum(name, &self.context.snapshot.get(), &self.context.environment);
            found.map(SqlType::Enum)
        };
        match data_type {
            DataType::Custom(..) => find(data_type),
            DataType::Array(ArrayElemTypeDef::SquareBracket(element, None)) => {
                find(element).map(|element| SqlType::Array(Box::new(element)))
            }
            _ => None,
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
