//! One of the tenant's tables in the statement's snapshot.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef},
    catalog::{Session, TableProvider},
    error::Result,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};
use parking_lot::RwLock;
use roaring::RoaringTreemap;
use sepal_storage::{TableVersion, arrow_field};
use sepal_types::{ColumnDef, Error, SqlState, TableDef};

use super::scan::{ScanColumn, TableScan};
use crate::{
    context::{SnapshotSlot, StatementContext},
    error::carry,
    vector::Runtime,
};

/// The hidden column that DML asks for.
pub const ROW_ID: &str = "__row_id";

/// A table bound to a slot, not to a snapshot: a prepared plan reads what is current when it runs.
#[derive(Clone, Debug)]
pub struct UserTable {
    def: Arc<TableDef>,
    slot: SnapshotSlot,
    schema: SchemaRef,
    runtime: Runtime,
    filter: Option<RowFilter>,
}

/// Which of a table's rows a plan sees, set before each execution: those whose locks can be had.
#[derive(Clone, Debug, Default)]
pub struct RowFilter(Arc<RwLock<Arc<ShownRows>>>);

/// By their ids.
#[derive(Debug, Default)]
pub struct ShownRows {
    /// None but these, if any are named.
    pub only: Option<RoaringTreemap>,
    /// Not these.
    pub hidden: RoaringTreemap,
}

impl RowFilter {
    pub fn set(&self, shown: ShownRows) {
        *self.0.write() = Arc::new(shown);
    }

    fn get(&self) -> Arc<ShownRows> {
        Arc::clone(&self.0.read())
    }
}

impl ShownRows {
    pub fn shows(&self, row: u64) -> bool {
        !self.hidden.contains(row) && self.only.as_ref().is_none_or(|only| only.contains(row))
    }

    pub fn shows_all(&self) -> bool {
        self.hidden.is_empty() && self.only.is_none()
    }
}

impl UserTable {
    pub fn new(def: Arc<TableDef>, context: &StatementContext) -> Self {
        let schema = Arc::new(Schema::new(def.columns.iter().map(arrow_field).collect::<Vec<_>>()));
        Self { def, slot: context.snapshot.clone(), schema, runtime: Runtime::of(context), filter: None }
    }

    /// The same table with the column [`ROW_ID`] after its own.
    pub fn with_row_ids(def: Arc<TableDef>, context: &StatementContext) -> Self {
        Self::with_ids_as(ROW_ID, def, context)
    }

    /// The same with the ids under another name, and without the rows that `filter` hides.
    pub fn filtered(name: &str, def: Arc<TableDef>, filter: RowFilter, context: &StatementContext) -> Self {
        Self { filter: Some(filter), ..Self::with_ids_as(name, def, context) }
    }

    fn with_ids_as(name: &str, def: Arc<TableDef>, context: &StatementContext) -> Self {
        let mut fields: Vec<Field> = def.columns.iter().map(arrow_field).collect();
        fields.push(Field::new(name, DataType::UInt64, false));
        Self {
            def,
            slot: context.snapshot.clone(),
            schema: Arc::new(Schema::new(fields)),
            runtime: Runtime::of(context),
            filter: None,
        }
    }

    /// Whether some of its rows may be hidden: then it is scanned, and not searched.
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    pub fn def(&self) -> &Arc<TableDef> {
        &self.def
    }

    /// Tells apart the same table at two moments.
    pub fn moment(&self) -> usize {
        self.slot.identity()
    }

    /// What a vector search over this table needs.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub fn arrow_schema(&self) -> Schema {
        self.schema.as_ref().clone()
    }

    /// The table's rows as the slot has them now.
    ///
    /// Errors: 42P01 when it was dropped, 0A000 when its columns changed since planning.
    pub fn version(&self) -> Result<Arc<TableVersion>> {
        let snapshot = self.slot.get();
        let version = snapshot.table(self.def.id).ok_or_else(|| {
            carry(Error::new(
                SqlState::UndefinedTable,
                format!("relation \"{}\" does not exist", self.def.name),
            ))
        })?;
        if !same_shape(&version.def.columns, &self.def.columns) {
            return Err(carry(
                Error::unsupported("cached plan must not change result type")
                    .with_hint("The table was altered after the statement was prepared: prepare it again."),
            ));
        }
        Ok(Arc::clone(version))
    }

    /// Which of its rows are seen now; `None` for all.
    pub fn shown_rows(&self) -> Option<Arc<ShownRows>> {
        self.filter.as_ref().map(RowFilter::get).filter(|shown| !shown.shows_all())
    }

    /// The definition of column number `position` of the schema; `None` for the row id.
    pub fn column_at(&self, position: usize) -> Option<&ColumnDef> {
        self.def.columns.get(position)
    }
}

fn same_shape(left: &[ColumnDef], right: &[ColumnDef]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| left.id == right.id && left.ty == right.ty)
}

#[async_trait]
impl TableProvider for UserTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let version = self.version()?;
        let positions: Vec<usize> = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let columns = positions
            .iter()
            .map(|position| match self.column_at(*position) {
                Some(column) => ScanColumn::Stored(column.clone()),
                None => ScanColumn::RowId,
            })
            .collect();
        let schema = Arc::new(self.schema.project(&positions)?);
        let partitions = state.config().target_partitions();
        let scan = TableScan::new(version, columns, schema, partitions, limit);
        Ok(Arc::new(scan.showing(self.shown_rows())))
    }
}

/// The user table behind a planned scan, if it is one.
pub fn as_user_table(provider: &dyn TableProvider) -> Option<&UserTable> {
    (provider as &dyn Any).downcast_ref::<UserTable>()
}
