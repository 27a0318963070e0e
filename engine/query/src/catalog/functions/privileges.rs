//! `has_*_privilege` and their kin.
//!
//! A key's scopes are enforced when statements run; within its environment the one role owns every object, so
//! every question about an existing object is answered with yes.

use sepal_types::Result;

use super::super::CatalogContext;
use super::super::value::Value;
use super::Function;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("has_any_column_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_column_privilege", "text, text, text, text?", "boolean", yes),
    Function::new("has_database_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_foreign_data_wrapper_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_function_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_language_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_parameter_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_schema_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_sequence_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_server_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_table_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_tablespace_privilege", "text, text, text?", "boolean", yes),
    Function::new("has_type_privilege", "text, text, text?", "boolean", yes),
    Function::new("pg_has_role", "text, text, text?", "boolean", yes),
    Function::new("row_security_active", "text", "boolean", |_, _| Ok(false.into())),
];

fn yes(_: &CatalogContext, _: &[Value]) -> Result<Value> {
    Ok(true.into())
}
