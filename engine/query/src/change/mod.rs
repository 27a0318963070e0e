//! What a pipeline makes of the changes of its table: the projection and the filter of its query, compiled once.
//!
//! Called by `database::pipeline` for the snapshot's batches and the feed's alike. A batch that is made again must
//! have the same bytes, so nothing here depends on the time, the session or another row: [`ChangeQuery::compile`]
//! refuses what does.

mod compile;
mod stable;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BooleanArray, NullArray, RecordBatch, RecordBatchOptions, UInt32Array,
            new_null_array,
        },
        compute::{cast, filter_record_batch, take},
        datatypes::{DataType, SchemaRef},
    },
    physical_expr::PhysicalExpr,
};
use sepal_storage::{arrow_type, stored_name};
use sepal_types::{ColumnDef, ColumnId, Result, TableDef, TableId};

use crate::{
    error::{arrow, translate},
    output::{OutputColumn, conform_array, described},
    values::decode_text,
};

/// A compiled query over one table.
#[derive(Debug)]
pub struct ChangeQuery {
    table: TableId,
    columns: Vec<OutputColumn>,
    key: Vec<usize>,
    reads: Vec<ColumnId>,
    /// The table's columns in order, as they were when this was compiled.
    inputs: Vec<ColumnDef>,
    /// What the expressions are evaluated on: `inputs`, those that none of them reads as NULLs.
    schema: SchemaRef,
    projection: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

impl ChangeQuery {
    pub fn table(&self) -> TableId {
        self.table
    }

    /// What a row becomes. Names are unique.
    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    /// The key's places among the columns. Empty when none was named and the query does not have the whole primary
    /// key: then there are no updates, only rows that come and go.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// The table's columns that it needs, by id.
    pub fn reads(&self) -> &[ColumnId] {
        &self.reads
    }

    /// Projects rows and tells which pass WHERE; those that do not are NULLs in every column. `rows` has columns
    /// named as `sepal_storage::stored_name` names them, any of them missing that was added to the table later; `def`
    /// is the table at that time.
    ///
    /// Errors: those of the expressions, such as 22012. A row that does not pass WHERE causes none in the projection.
    pub fn apply(&self, def: &TableDef, rows: &RecordBatch) -> Result<(RecordBatch, BooleanArray)> {
        let count = rows.num_rows();
        let input = self.input(def, rows)?;
        let passes = self.passes(&input)?;
        let arrays = match passes.true_count() {
            0 => self.columns.iter().map(|column| new_null_array(&arrow_type(&column.ty), count)).collect(),
            all if all == count => self.projected(&input)?,
            _ => {
                let passing = filter_record_batch(&input, &passes).map_err(arrow)?;
                let places = places(&passes);
                let spread = |array: ArrayRef| take(&array, &places, None).map_err(arrow);
                self.projected(&passing)?.into_iter().map(spread).collect::<Result<_>>()?
            }
        };
        Ok((described(&self.columns, arrays, count)?, passes))
    }

    /// The columns that the expressions read, in their places.
    fn input(&self, def: &TableDef, rows: &RecordBatch) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let array = |column: &ColumnDef| -> Result<ArrayRef> {
            if self.reads.binary_search(&column.id).is_err() {
                return Ok(Arc::new(NullArray::new(count)));
            }
            match rows.column_by_name(&stored_name(column.id)) {
                Some(array) => conform_array(array, &column.ty),
                None => missing(def.column_by_id(column.id).unwrap_or(column), count),
            }
        };
        let arrays = self.inputs.iter().map(array).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(arrow)
    }

    /// Without NULLs: a row for which WHERE is NULL does not pass.
    fn passes(&self, input: &RecordBatch) -> Result<BooleanArray> {
        let Some(filter) = &self.filter else {
            return Ok(BooleanArray::from(vec![true; input.num_rows()]));
        };
        let value = evaluate(filter, input)?;
        let value = cast(&value, &DataType::Boolean).map_err(arrow)?;
        let value = value.as_boolean();
        Ok(match value.nulls() {
            Some(valid) => BooleanArray::new(value.values() & valid.inner(), None),
            None => value.clone(),
        })
    }

    fn projected(&self, input: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let of_type = |(expression, column): (&Arc<dyn PhysicalExpr>, &OutputColumn)| {
            conform_array(&evaluate(expression, input)?, &column.ty)
        };
        self.projection.iter().zip(&self.columns).map(of_type).collect()
    }
}

fn evaluate(expression: &Arc<dyn PhysicalExpr>, input: &RecordBatch) -> Result<ArrayRef> {
    expression.evaluate(input).and_then(|value| value.into_array(input.num_rows())).map_err(translate)
}

/// For each row its place among those that pass; NULL for the others.
fn places(passes: &BooleanArray) -> UInt32Array {
    let mut next = 0;
    let place = |passes: bool| {
        passes.then(|| {
            next += 1;
            next - 1
        })
    };
    passes.values().iter().map(place).collect()
}

/// What rows have in a column that was added after them.
fn missing(column: &ColumnDef, rows: usize) -> Result<ArrayRef> {
    let Some(text) = &column.missing else {
        return Ok(new_null_array(&arrow_type(&column.ty), rows));
    };
    let one = decode_text(&column.ty, Some(text.as_bytes()))?;
    take(&one, &UInt32Array::from(vec![0; rows]), None).map_err(arrow)
}
