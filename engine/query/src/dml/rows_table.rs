//! A table of rows that exist for one statement: what RETURNING reads, what `excluded` is.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::{Session, TableProvider},
    datasource::memory::MemorySourceConfig,
    error::Result,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};
use parking_lot::RwLock;

/// The rows are set before each execution of a plan that reads them.
#[derive(Clone, Debug)]
pub struct RowsTable {
    schema: SchemaRef,
    rows: Arc<RwLock<Vec<RecordBatch>>>,
}

impl RowsTable {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, rows: Arc::default() }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn set(&self, rows: Vec<RecordBatch>) {
        *self.rows.write() = rows;
    }
}

#[async_trait]
impl TableProvider for RowsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.read().clone();
        Ok(MemorySourceConfig::try_new_exec(&[rows], Arc::clone(&self.schema), projection.cloned())?)
    }
}
