//! Fetches the columns of the rows found: late materialisation, `k` rows of each column.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, Float64Array, UInt32Array, new_empty_array},
    compute::{interleave, take},
};
use sepal_storage::{Chunk, TableVersion, arrow_type};
use sepal_types::{ColumnDef, Result};

use super::Hit;
use crate::error;

/// One column of the rows hit, in their order. Of a column that takes more than the tenant's decoded columns may, and is
/// not there, only the pages are read that the rows lie on.
pub fn fetch(version: &TableVersion, column: &ColumnDef, hits: &[Hit]) -> Result<ArrayRef> {
    let Some(first) = hits.first().map(|hit| hit.chunk) else {
        return Ok(new_empty_array(&arrow_type(&column.ty)));
    };
    let by_page = is_larger_than_memory(version, column);
    if !by_page && hits.iter().all(|hit| hit.chunk == first) {
        let array = version.chunks[first].chunk.column(column)?;
        let positions = UInt32Array::from_iter_values(hits.iter().map(|hit| hit.position));
        return take(&array, &positions, None).map_err(error::arrow);
    }
    let mut sources: Vec<Source> = Vec::new();
    // A chunk's place among the sources, once it has one.
    let mut places: Vec<Option<usize>> = vec![None; version.chunks.len()];
    let mut rows = Vec::with_capacity(hits.len());
    for hit in hits {
        let place = match places[hit.chunk] {
            Some(place) => place,
            None => {
                sources.push(Source::of(
                    &version.chunks[hit.chunk].chunk,
                    column,
                    (hit.chunk, hits),
                    by_page,
                )?);
                *places[hit.chunk].insert(sources.len() - 1)
            }
        };
        rows.push((place, sources[place].row(hit.position)));
    }
    let arrays: Vec<&dyn Array> = sources.iter().map(|source| source.array.as_ref()).collect();
    interleave(&arrays, &rows).map_err(error::arrow)
}

/// A chunk's part of a column.
struct Source {
    array: ArrayRef,
    /// The rows that it has, ascending; `None`: all.
    only: Option<Vec<u32>>,
}

impl Source {
    fn of(chunk: &Chunk, column: &ColumnDef, hits: (usize, &[Hit]), by_page: bool) -> Result<Self> {
        if !by_page || chunk.is_at_hand(column.id) {
            return Ok(Self { array: chunk.column(column)?, only: None });
        }
        let (number, hits) = hits;
        let of_chunk = hits.iter().filter(|hit| hit.chunk == number);
        let mut only: Vec<u32> = of_chunk.map(|hit| hit.position).collect();
        only.sort_unstable();
        only.dedup();
        Ok(Self { array: chunk.column_rows(column, &only)?, only: Some(only) })
    }

    fn row(&self, position: u32) -> usize {
        match &self.only {
            // Those that were hit are all there.
            Some(only) => only.partition_point(|row| *row < position),
            None => position as usize,
        }
    }
}

/// Whether to decode one segment's part would push out another's.
pub(super) fn is_larger_than_memory(version: &TableVersion, column: &ColumnDef) -> bool {
    let sealed = || version.chunks.iter().filter(|held| held.chunk.segment().is_some());
    let all = sealed().map(|held| held.chunk.plain_bytes()).fold(0, u64::saturating_add);
    // Most tables fit as a whole: then there is nothing to ask that takes the cache's lock.
    let least = sealed().find_map(|held| held.chunk.decoded_least_bytes());
    if least.is_none_or(|least| all <= least as u64) {
        return false;
    }
    let most = sealed().find_map(|held| held.chunk.decoded_most_bytes());
    let bytes = || sealed().map(|held| held.chunk.decoded_bytes(column)).fold(0, u64::saturating_add);
    most.is_some_and(|most| all > most as u64 && bytes() > most as u64)
}

/// The distances as a `float8` column.
pub fn distances(hits: &[Hit]) -> ArrayRef {
    Arc::new(hits.iter().map(|hit| hit.distance).collect::<Float64Array>())
}
