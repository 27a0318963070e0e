//! A sequence read as a table: one row of `last_value`, `log_cnt`, `is_called`, as `pg_dump` asks for it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{ArrayRef, BooleanArray, Int64Array, RecordBatch},
        datatypes::{DataType, Schema, SchemaRef},
    },
    catalog::{Session, TableProvider},
    datasource::memory::MemorySourceConfig,
    error::Result,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};
use sepal_types::SqlType;

use crate::{context::SequenceSource, error::carry, output::typed_field};

#[derive(Debug)]
pub struct SequenceTable {
    /// As `nextval` names it.
    sequence: String,
    source: Arc<dyn SequenceSource>,
    schema: SchemaRef,
}

impl SequenceTable {
    pub fn new(sequence: String, source: Arc<dyn SequenceSource>) -> Self {
        let schema = Schema::new(vec![
            typed_field("last_value", DataType::Int64, &SqlType::Int8),
            typed_field("log_cnt", DataType::Int64, &SqlType::Int8),
            typed_field("is_called", DataType::Boolean, &SqlType::Bool),
        ]);
        Self { sequence, source, schema: Arc::new(schema) }
    }
}

#[async_trait]
impl TableProvider for SequenceTable {
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
        let (last, called) = self.source.state(&self.sequence).map_err(carry)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![last])),
            // Nothing is handed out that the log does not have, or will have with the next commit.
            Arc::new(Int64Array::from(vec![0])),
            Arc::new(BooleanArray::from(vec![called])),
        ];
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let schema = Arc::clone(&self.schema);
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], schema, projection.cloned())?)
    }
}
