//! Answers a query that reads nothing but the catalogs, as Postgres would.
//!
//! Called through `catalog::prepare`. Clients' catalog queries use what DataFusion does not plan: correlated
//! scalar subqueries that are not aggregates, set-returning functions in the select list, lateral functions,
//! `int2vector` subscripts from 0, `reg*` values that are number and name at once. Catalogs are small, so
//! a plain interpreter serves them all: `bind` turns the AST into a plan with types, `run` walks it row by row
//! (hash joins on equalities, conditions as early as they can be decided). It never reads a user's table: a
//! query that names one is left to DataFusion.

mod bind;
mod plan;
mod run;
mod ty;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::Statement;
use sepal_types::{Error, Result, SqlType};

use self::bind::{Binder, Stop};
use self::plan::Query;
use super::functions::values;
use super::value::{Value, column, field};
use super::{CatalogContext, internal};

/// A query over the catalogs, ready to be described and run any number of times.
#[derive(Debug)]
pub struct CatalogQuery {
    query: Query,
    parameters: Vec<SqlType>,
    schema: SchemaRef,
}

/// Takes a statement that reads only catalogs; `None` for any other, which DataFusion must plan.
///
/// `declared` holds the types that the client declared for `$1`, `$2`, …; missing or `None` ones are inferred
/// from their use.
pub fn prepare(
    statement: &Statement,
    declared: &[Option<SqlType>],
    context: &CatalogContext,
) -> Option<Result<CatalogQuery>> {
    let Statement::Query(ast) = statement else { return None };
    let mut binder = Binder::new(context, declared);
    let query = match binder.query(ast) {
        Ok(query) if binder.touched() => query,
        Ok(_) | Err(Stop::Decline) => return None,
        // An error in a query that names no catalog is DataFusion's to report.
        Err(Stop::Fail(_)) if !binder.touched() => return None,
        Err(Stop::Fail(error)) => return Some(Err(error)),
    };
    let fields: Vec<_> =
        query.columns.iter().map(|column| field(&column.name, &column.ty.outward())).collect();
    Some(Ok(CatalogQuery { query, parameters: binder.parameters(), schema: Arc::new(Schema::new(fields)) }))
}

impl CatalogQuery {
    /// The types of `$1`, `$2`, …
    pub fn parameters(&self) -> &[SqlType] {
        &self.parameters
    }

    /// The result's columns; names may repeat, metadata `sepal.type` names each type.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Runs it. `parameters` are arrays of length 1 of the types of [`CatalogQuery::parameters`].
    pub fn run(&self, parameters: &[ArrayRef], context: &CatalogContext) -> Result<RecordBatch> {
        if parameters.len() < self.parameters.len() {
            return Err(Error::bug(format!(
                "catalog query got {} of {} parameters",
                parameters.len(),
                self.parameters.len()
            )));
        }
        let mut arguments = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            let value = values(parameter).map_err(|error| internal(&error))?.into_iter().next();
            arguments.push(value.unwrap_or(Value::Null));
        }
        let rows = run::run(&self.query, &arguments, context)?;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.query.columns.len());
        for (index, output) in self.query.columns.iter().enumerate() {
            let ty = output.ty.outward();
            let values: Vec<Value> =
                rows.iter().map(|row| run::outward(context, &output.ty, row[index].clone())).collect();
            columns.push(column(&ty, &values)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| internal(&error))
    }
}
