//! A search for a NULL vector: every distance is NULL, so that any rows that qualify are the answer.

use sepal_storage::TableVersion;
use sepal_types::Result;

use super::{Hit, search::Predicate};

/// The first `k` rows that qualify, in the table's order, as an unindexed search of pgvector finds them.
pub(super) fn unranked(
    version: &TableVersion,
    k: usize,
    predicate: Option<&Predicate<'_>>,
) -> Result<Vec<Hit>> {
    let mut hits = Vec::new();
    for (chunk, reference) in version.chunks.iter().enumerate() {
        let missing = k - hits.len();
        if missing == 0 {
            break;
        }
        let passing = match predicate {
            Some(predicate) => predicate(chunk, reference)?,
            None => None,
        };
        let qualifies = |position: u32| {
            !reference.deleted.contains(position)
                && passing.as_ref().is_none_or(|rows| rows.has(position as usize))
        };
        let positions = (0..reference.chunk.rows()).filter(|position| qualifies(*position));
        hits.extend(positions.take(missing).map(|position| Hit { chunk, position, distance: None }));
    }
    Ok(hits)
}
