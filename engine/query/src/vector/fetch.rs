//! Fetches the columns of the rows found: late materialisation, `k` rows of each column.

use std::{collections::HashMap, sync::Arc};

use datafusion::arrow::{
    array::{Array, ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, new_empty_array},
    compute::interleave,
    datatypes::Schema,
};
use sepal_storage::{TableVersion, arrow_type};
use sepal_types::{ColumnDef, Result};

use super::Hit;
use crate::{
    error,
    output::{OutputColumn, typed_field},
};

/// One column of the rows hit, in their order.
pub fn fetch(version: &TableVersion, column: &ColumnDef, hits: &[Hit]) -> Result<ArrayRef> {
    if hits.is_empty() {
        return Ok(new_empty_array(&arrow_type(&column.ty)));
    }
    let mut chunks: Vec<ArrayRef> = Vec::new();
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    let mut indices = Vec::with_capacity(hits.len());
    for hit in hits {
        let number = match numbers.get(&hit.chunk) {
            Some(number) => *number,
            None => {
                chunks.push(version.chunks[hit.chunk].chunk.column(column)?);
                numbers.insert(hit.chunk, chunks.len() - 1);
                chunks.len() - 1
            }
        };
        indices.push((number, hit.position as usize));
    }
    let arrays: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
    interleave(&arrays, &indices).map_err(error::arrow)
}

/// Columns fetched, as the batch that was described.
pub fn described(columns: &[OutputColumn], arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let fields: Vec<_> = arrays
        .iter()
        .zip(columns)
        .map(|(array, column)| typed_field(&column.name, array.data_type().clone(), &column.ty))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(error::arrow)
}

/// The distances as a `float8` column.
pub fn distances(hits: &[Hit]) -> ArrayRef {
    Arc::new(hits.iter().map(|hit| hit.distance).collect::<Float64Array>())
}
