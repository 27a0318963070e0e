//! Fetches the columns of the rows found: late materialisation, `k` rows of each column.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, Float64Array, UInt32Array, new_empty_array},
    compute::{interleave, take},
};
use sepal_storage::{TableVersion, arrow_type};
use sepal_types::{ColumnDef, Result};

use super::Hit;
use crate::error;

/// One column of the rows hit, in their order.
pub fn fetch(version: &TableVersion, column: &ColumnDef, hits: &[Hit]) -> Result<ArrayRef> {
    let Some(first) = hits.first().map(|hit| hit.chunk) else {
        return Ok(new_empty_array(&arrow_type(&column.ty)));
    };
    if hits.iter().all(|hit| hit.chunk == first) {
        let array = version.chunks[first].chunk.column(column)?;
        let positions = UInt32Array::from_iter_values(hits.iter().map(|hit| hit.position));
        return take(&array, &positions, None).map_err(error::arrow);
    }
    let mut arrays: Vec<ArrayRef> = Vec::new();
    // A chunk's place among the arrays, once it has one.
    let mut places: Vec<Option<usize>> = vec![None; version.chunks.len()];
    let mut rows = Vec::with_capacity(hits.len());
    for hit in hits {
        let place = match places[hit.chunk] {
            Some(place) => place,
            None => {
                arrays.push(version.chunks[hit.chunk].chunk.column(column)?);
                *places[hit.chunk].insert(arrays.len() - 1)
            }
        };
        rows.push((place, hit.position as usize));
    }
    let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    interleave(&arrays, &rows).map_err(error::arrow)
}

/// The distances as a `float8` column.
pub fn distances(hits: &[Hit]) -> ArrayRef {
    Arc::new(hits.iter().map(|hit| hit.distance).collect::<Float64Array>())
}
