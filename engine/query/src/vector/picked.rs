//! Segments of which only the vectors are read that are scored: those of tables that are larger than memory.
//!
//! Called by [`super::search`]. The index names the candidates (`VectorIndex::candidates`), by codes that are in memory
//! or in its file, and storage reads the pages on which their vectors lie: of the candidates of all graphs as many as it
//! takes to know the nearest ([`nearest_of`]), of other indexes' all. Whatever that is not enough for is searched as
//! ever, with the whole column: a search never returns less for it.

use datafusion::arrow::array::ArrayRef;
use sepal_index::{Candidates, Effort, Found, Query, SearchParams, search_named};
use sepal_storage::ChunkRef;
use sepal_types::{Error, ErrorKind, Result};

use super::{ChunkIndex, Search, Searched, fetch::is_larger_than_memory, filter::Selected, search::effort};

/// The rows of a segment that are read.
pub(super) struct Picked {
    /// Ascending.
    pub rows: Vec<u32>,
    /// How many rows compete.
    pub qualifying: usize,
}

/// What came of naming them.
pub(super) enum Picking {
    /// All of them are scored.
    Rows(Picked, ArrayRef),
    /// A graph's. They compete with those of other segments.
    Named(Candidates),
    /// All rows are to be scored, or the index reads vectors on its way, or rows that it does not hold have a place in the
    /// answer.
    All,
    /// The index's file is.
    Damaged(Error),
}

/// Whether to decode one segment's vectors would push out another's, and some are not there: each would be decoded by
/// each search.
pub(super) fn fetches(search: &Search) -> bool {
    let decoded = |held: &ChunkRef| held.chunk.is_decoded(search.column.id);
    is_larger_than_memory(search.version, search.column) && !search.version.chunks.iter().all(decoded)
}

/// The rows to score, and their vectors if all of them are. `fetches`: not only for an index in place. A graph then
/// names its rows also where their vectors are at hand, so that all segments are one contest.
///
/// Errors: 58030 for an index's file that the device does not give, and those of reading the segment's.
pub(super) fn pick(
    search: &Search,
    index: &ChunkIndex,
    reference: &ChunkRef,
    qualifying: Option<&Selected>,
    fetches: bool,
    searched: &mut Searched,
) -> Result<Picking> {
    let chunk = &reference.chunk;
    // Another length is the whole search's to refuse.
    let fits = search.column.ty.dimensions().map(usize::from) == Some(search.query.len());
    let names = || fetches && (index.graph().is_some() || !chunk.is_decoded(search.column.id));
    if !fits || !(index.is_in_place() || names()) {
        return Ok(Picking::All);
    }
    let Some(Effort { ef_search, probes }) = effort(&**index, &search.settings, search.k) else {
        return Ok(Picking::All);
    };
    let wanted = SearchParams { k: search.k, ef_search, probes, allowed: qualifying.map(Selected::bits) };
    let candidates = match index.candidates(search.query, &wanted) {
        Ok(Some(candidates)) => candidates,
        Ok(None) => return Ok(Picking::All),
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Picking::Damaged(error)),
        Err(error) => return Err(error),
    };
    searched.work.add(&candidates.work);
    let all = qualifying.map_or(chunk.rows() as usize, Selected::count);
    if candidates.rows.len() < search.k.min(all) {
        return Ok(Picking::All);
    }
    if !candidates.estimates.is_empty() {
        return Ok(Picking::Named(candidates));
    }
    let Candidates { rows, indexed, .. } = candidates;
    searched.fetched += rows.len() as u64;
    let vectors = chunk.column_rows(search.column, &rows)?;
    Ok(Picking::Rows(Picked { rows, qualifying: indexed }, vectors))
}

/// The nearest of what graphs have named, each of the chunk of that number.
///
/// Errors: those of reading the segments' files.
pub(super) fn nearest_of(
    named: &[(u32, Candidates)],
    search: &Search,
    searched: &mut Searched,
) -> Result<Vec<Found>> {
    let query = Query { metric: search.metric, vector: search.query, k: search.k };
    let mut fetched = 0;
    let found = search_named(&query, named, &mut searched.work, |chunk, rows, take| {
        let chunk = &search.version.chunks[chunk as usize].chunk;
        let vectors = chunk.column_rows(search.column, rows)?;
        fetched += rows.len() as u64;
        take(search.rows(&vectors)?.0);
        Ok::<(), Error>(())
    });
    searched.fetched += fetched;
    found
}

#[cfg(test)]
mod tests;
