//! `sepal_sink_errors('pipeline')` in FROM, beside a user's table: the dead letters of one pipeline.
//!
//! Called by `relation`. By itself the function is the catalog evaluator's.

use std::sync::Arc;

use datafusion::{
    common::{DFSchema, ScalarValue},
    datasource::provider_as_source,
    error::Result,
    logical_expr::{
        Expr, LogicalPlan, LogicalPlanBuilder, expr::Placeholder, planner::RelationPlannerContext,
    },
    prelude::ident,
    sql::sqlparser::ast::{FunctionArg, FunctionArgExpr},
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use crate::{catalog, context::CatalogSlot, error::carry, output::typed_field, table::CatalogTable};

pub(super) const NAME: &str = "sepal_sink_errors";
const SCHEMA: &str = "pg_catalog";
const TABLE: &str = "sepal_dead_letters";

/// Errors: 42883 unless the one argument is a text.
pub(super) fn plan(
    args: &[FunctionArg],
    catalog: &CatalogSlot,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(pipeline))] = args else {
        let message = format!("{NAME}() takes the name of a pipeline");
        return Err(carry(
            Error::new(SqlState::UndefinedFunction, message)
                .with_hint(format!("Write {NAME}('name'), or read {TABLE} for all pipelines.")),
        ));
    };
    let pipeline = match context.sql_to_expr(pipeline.clone(), &DFSchema::empty())? {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = typed_field(&id, arrow_type(&SqlType::Text), &SqlType::Text);
            Expr::Placeholder(Placeholder::new_with_field(id, Some(field.into())))
        }
        Expr::Literal(ScalarValue::Null, _) => Expr::Literal(ScalarValue::Utf8(None), None),
        other => other,
    };
    let shape = catalog::relation(SCHEMA, TABLE)
        .ok_or_else(|| carry(Error::bug(format!("there is no relation {TABLE}"))))?;
    let table = CatalogTable::new(SCHEMA, TABLE, shape, catalog.keep());
    LogicalPlanBuilder::scan(NAME, provider_as_source(Arc::new(table)), None)?
        .filter(ident("pipeline").eq(pipeline))?
        .build()
}
