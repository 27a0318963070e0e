//! Fetches the columns of the rows found: late materialisation, `k` rows of each column. Of vectors that are more than
//! memory takes, the pages that these rows lie on.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, Float64Array, UInt32Array, new_empty_array},
    compute::{interleave, take},
};
use sepal_storage::{TableVersion, arrow_type};
use sepal_types::{ColumnDef, Result};

use super::{Hit, picked::is_larger_than_memory};
use crate::error;

/// One column of the rows hit, in their order.
pub fn fetch(version: &TableVersion, column: &ColumnDef, hits: &[Hit]) -> Result<ArrayRef> {
    let Some(first) = hits.first().map(|hit| hit.chunk) else {
        return Ok(new_empty_array(&arrow_type(&column.ty)));
    };
    if column.ty.vector_kind().is_some() && is_larger_than_memory(version, column) {
        return fetch_pages(version, column, hits);
    }
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

/// The same of a column that is more than memory takes: reads the pages that the rows lie on, and keeps nothing.
fn fetch_pages(version: &TableVersion, column: &ColumnDef, hits: &[Hit]) -> Result<ArrayRef> {
    let mut places: Vec<(usize, u32)> = hits.iter().map(|hit| (hit.chunk, hit.position)).collect();
    places.sort_unstable();
    places.dedup();
    let (mut arrays, mut starts): (Vec<ArrayRef>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut start = 0;
    for chunk in places.chunk_by(|one, next| one.0 == next.0) {
        let positions: Vec<u32> = chunk.iter().map(|(_, position)| *position).collect();
        arrays.push(version.chunks[chunk[0].0].chunk.column_rows(column, &positions)?);
        starts.push(start);
        start += chunk.len();
    }
    let place = |hit: &Hit| {
        let at = places.partition_point(|place| *place < (hit.chunk, hit.position));
        let array = starts.partition_point(|start| *start <= at) - 1;
        (array, at - starts[array])
    };
    let rows: Vec<(usize, usize)> = hits.iter().map(place).collect();
    let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    interleave(&arrays, &rows).map_err(error::arrow)
}

/// The distances as a `float8` column.
pub fn distances(hits: &[Hit]) -> ArrayRef {
    Arc::new(hits.iter().map(|hit| hit.distance).collect::<Float64Array>())
}
