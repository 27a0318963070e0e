//! A relation of `pg_catalog` or `information_schema`, built from metadata when it is scanned.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{Session, TableProvider},
    datasource::memory::MemorySourceConfig,
    error::Result,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};

use crate::{catalog, context::CatalogSlot, error::carry};

/// Holds the statement's catalog slot: what it shows is one environment of one tenant.
#[derive(Debug)]
pub struct CatalogTable {
    schema_name: String,
    name: String,
    schema: SchemaRef,
    context: CatalogSlot,
}

impl CatalogTable {
    pub fn new(schema_name: &str, name: &str, schema: SchemaRef, context: CatalogSlot) -> Self {
        Self { schema_name: schema_name.to_owned(), name: name.to_owned(), schema, context }
    }
}

#[async_trait]
impl TableProvider for CatalogTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let context = self.context.get().map_err(carry)?;
        let rows = catalog::rows(&self.schema_name, &self.name, &context)?;
        let schema = Arc::clone(&self.schema);
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], schema, projection.cloned())?)
    }
}
