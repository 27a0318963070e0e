//! SQL type names that DataFusion's planner does not know, or knows otherwise.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::FieldRef, error::Result, logical_expr::planner::TypePlanner,
    sql::sqlparser::ast::DataType,
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

use crate::output::typed_field;

/// Answers for every type that `SqlType` has.
#[derive(Debug)]
pub(super) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &DataType) -> Result<Option<FieldRef>> {
        Ok(SqlType::from_name(&sql_type.to_string())
            .map(|ty| Arc::new(typed_field("type", arrow_type(&ty), &ty))))
    }
}
