//! Segments of which only the vectors are read that are scored: those of tables that are larger than memory.
//!
//! Called by [`super::search`]. The index names the candidates (`VectorIndex::candidates`), by codes that are in memory
//! or in its file, and storage reads the pages on which their vectors lie. Whatever that is not enough for is
//! searched as ever, with the whole column: a search never returns less for it.

use datafusion::arrow::array::ArrayRef;
use sepal_index::{Candidates, Effort, SearchParams};
use sepal_storage::ChunkRef;
use sepal_types::{Error, ErrorKind, Result, VectorKind};

use super::{ChunkIndex, Search, filter::Selected, search::effort};

/// The rows of a segment that are read.
pub(super) struct Picked {
    /// Ascending.
    pub rows: Vec<u32>,
    /// How many rows compete.
    pub qualifying: usize,
}

/// What came of naming them.
pub(super) enum Picking {
    Rows(Picked, ArrayRef),
    /// All rows are to be scored, or the index reads vectors on its way, or rows that it does not hold have a place in the
    /// answer.
    All,
    /// The index's file is.
    Damaged(Error),
}

/// Whether the table has more vectors than its tenant's decoded columns may take: to decode one segment would push out
/// another, and each would be decoded by each search.
pub(super) fn is_larger_than_memory(search: &Search) -> bool {
    let element = match search.column.ty.vector_kind() {
        Some(VectorKind::Half) => 2,
        _ => 4,
    };
    let width = element * usize::from(search.column.ty.dimensions().unwrap_or(0));
    let sealed = || search.version.chunks.iter().filter(|held| held.chunk.segment().is_some());
    let rows: usize = sealed().map(|held| held.chunk.rows() as usize).sum();
    let most = sealed().find_map(|held| held.chunk.decoded_most_bytes());
    most.is_some_and(|most| rows.saturating_mul(width) > most)
}

/// The rows to score, and their vectors. `fetches`: not only for an index in place.
///
/// Errors: 58030 for an index's file that the device does not give, and those of reading the segment's.
pub(super) fn pick(
    search: &Search,
    index: &ChunkIndex,
    reference: &ChunkRef,
    qualifying: Option<&Selected>,
    fetches: bool,
) -> Result<Picking> {
    let chunk = &reference.chunk;
    // Another length is the whole search's to refuse.
    let fits = search.column.ty.dimensions().map(usize::from) == Some(search.query.len());
    if !fits || !(index.is_in_place() || (fetches && !chunk.is_decoded(search.column.id))) {
        return Ok(Picking::All);
    }
    let Some(Effort { ef_search, probes }) = effort(&**index, &search.settings, search.k) else {
        return Ok(Picking::All);
    };
    let wanted = SearchParams { k: search.k, ef_search, probes, allowed: qualifying.map(Selected::bits) };
    let Candidates { rows, indexed } = match index.candidates(search.query, &wanted) {
        Ok(Some(candidates)) => candidates,
        Ok(None) => return Ok(Picking::All),
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Picking::Damaged(error)),
        Err(error) => return Err(error),
    };
    let all = qualifying.map_or(chunk.rows() as usize, Selected::count);
    if rows.len() < search.k.min(all) {
        return Ok(Picking::All);
    }
    let vectors = chunk.column_rows(search.column, &rows)?;
    Ok(Picking::Rows(Picked { rows, qualifying: indexed }, vectors))
}

#[cfg(test)]
mod tests;
