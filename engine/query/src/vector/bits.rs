//! Searches by bits: the bit strings of a column, or one bit an element of its vectors.
//!
//! Called by `exec`. Every bit string that qualifies is compared: signs are a thirty-second of the vectors. Those of a
//! bit column are the column; the signs of a segment's vectors are its index (`sepal_index::Signs`), and of rows that no
//! index is over (memory chunks, small segments) they are made of the vectors, each time. Filters, deletions and NULLs
//! are as in [`super::search`].

use std::sync::atomic::AtomicBool;

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::UInt8Type,
};
use sepal_index::{BitRows, Found, append_signs, search_bits as nearest_bits};
use sepal_storage::{ChunkRef, TableVersion};
use sepal_types::{BitMetric, ColumnDef, Error, Measure, Result, TableId};

use super::{
    Hit, IndexCache, Searched,
    exec::check_waiting,
    filter::{Selected, valued},
    search::{Predicate, elements, qualifying, usable_index},
};
use crate::context::SearchSettings;

/// Rows whose signs are made between two looks at whether to give up.
const BLOCK_ROWS: usize = 4_096;

/// One search.
pub(super) struct BitSearch<'a> {
    pub version: &'a TableVersion,
    pub column: &'a ColumnDef,
    pub metric: BitMetric,
    /// Whether the column's are vectors, whose signs are compared.
    pub of_signs: bool,
    /// As many bits as the column's values have bits or dimensions.
    pub query: &'a [u8],
    pub k: usize,
    pub settings: SearchSettings,
    pub predicate: Option<&'a Predicate<'a>>,
    /// Set once nobody waits for it any more.
    pub abandoned: &'a AtomicBool,
}

/// What one chunk had.
struct Searching {
    found: Vec<Found>,
    /// Rows that qualify, and those that have a value; `None` is all.
    qualifying: Option<Selected>,
    valued: Option<Selected>,
}

/// The `k` nearest rows, nearest first, in the table's order where they are as far; NULLs last. Adds to `searched`.
///
/// Errors: XX001 for a column that does not open, 57014 once it is abandoned. An index that does not open is left out.
pub(super) fn search_bits(
    search: &BitSearch,
    indexes: &IndexCache,
    searched: &mut Searched,
) -> Result<Vec<Hit>> {
    let measure = Measure::Signs(search.metric);
    let of_signs = search.of_signs && search.settings.use_indexes;
    let index = of_signs.then(|| usable_index(search.version, search.column, measure)).flatten();
    let index = index.map(|(id, _)| id);
    let mut chunks = Vec::with_capacity(search.version.chunks.len());
    for (number, reference) in (0..).zip(&search.version.chunks) {
        chunks.push(search.chunk((number, reference), index, indexes, searched)?);
    }
    let mut found: Vec<Found> =
        chunks.iter_mut().flat_map(|chunk| std::mem::take(&mut chunk.found)).collect();
    found.sort_unstable();
    found.truncate(search.k);
    let mut hits: Vec<Hit> = found.into_iter().map(Hit::from).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        let missing = search.k - hits.len();
        let rows = search.version.chunks[number].chunk.rows();
        hits.extend(chunk.nulls(rows).take(missing).map(|position| Hit {
            chunk: number,
            position,
            distance: None,
        }));
    }
    Ok(hits)
}

impl BitSearch<'_> {
    fn chunk(
        &self,
        (number, reference): (u32, &ChunkRef),
        index: Option<TableId>,
        indexes: &IndexCache,
        searched: &mut Searched,
    ) -> Result<Searching> {
        let qualifying = qualifying(self.predicate, number, reference)?;
        let opened = match (index, self.column.ty.dimensions()) {
            (Some(id), Some(dim)) => {
                let all_bytes = || self.version.index_bytes(id).unwrap_or(0);
                indexes.get(&reference.chunk, id, usize::from(dim), all_bytes)?
            }
            _ => None,
        };
        let (column, made);
        let (rows, valued) = match opened.as_ref().and_then(|index| index.signs()) {
            Some(signs) => {
                searched.work.asked += 1;
                (signs.rows(), signs.held().cloned().map(Selected::of))
            }
            None => {
                searched.work.exact += 1;
                column = reference.chunk.column(self.column)?;
                let of_column = (self.column, &column);
                let valued = valued(&self.version.def, &reference.chunk, of_column, indexes.filters());
                if self.of_signs {
                    made = signs_of(&column, self.abandoned)?;
                    (BitRows { bytes: &made, width: self.query.len() }, valued)
                } else {
                    (bit_rows(&column)?, valued)
                }
            }
        };
        if rows.width != self.query.len() {
            return Err(Error::bug(format!("{} bytes of bits beside {}", self.query.len(), rows.width)));
        }
        let allowed = Selected::both(qualifying.clone(), valued.clone());
        let count = allowed.as_ref().map_or(rows.len(), Selected::count) as u64;
        searched.rows += u64::from(reference.chunk.rows());
        searched.qualifying += count;
        searched.work.distances += count;
        let allowed = allowed.as_ref().map(Selected::bits);
        let stopped = || check_waiting(self.abandoned).is_err();
        let nearest = nearest_bits(self.metric, rows, self.query, self.k, allowed, &stopped);
        // It may have been given up half way.
        check_waiting(self.abandoned)?;
        let found = nearest.into_iter().map(|neighbor| Found { neighbor, part: number }).collect();
        Ok(Searching { found, qualifying, valued })
    }
}

impl Searching {
    /// Qualifying rows without a value, of so many rows.
    fn nulls(&self, rows: u32) -> impl Iterator<Item = u32> + '_ {
        let qualifies =
            |position: usize| self.qualifying.as_ref().is_none_or(|qualifying| qualifying.has(position));
        let valued = self.valued.as_ref();
        let rows = if valued.is_some() { 0..rows } else { 0..0 };
        rows.filter(move |position| {
            let position = *position as usize;
            valued.is_some_and(|valued| !valued.has(position)) && qualifies(position)
        })
    }
}

/// The bit strings of a column of `bit(n)`.
fn bit_rows(column: &ArrayRef) -> Result<BitRows<'_>> {
    let values = column.as_fixed_size_list_opt().and_then(|list| {
        let bytes = list.values().as_primitive_opt::<UInt8Type>()?.values();
        let width = usize::try_from(list.value_length()).ok()?;
        let start = usize::try_from(list.value_offset(0)).ok()?;
        Some(BitRows { bytes: &bytes[start..][..list.len() * width], width })
    });
    values.ok_or_else(|| Error::bug(format!("a search by bits over {}", column.data_type())))
}

/// Those of the signs of a column's vectors.
fn signs_of(column: &ArrayRef, abandoned: &AtomicBool) -> Result<Vec<u8>> {
    let (vectors, dim) = elements(column)?;
    let mut bytes = Vec::with_capacity(column.len() * dim.div_ceil(8));
    for row in 0..column.len() {
        if row.is_multiple_of(BLOCK_ROWS) {
            check_waiting(abandoned)?;
        }
        append_signs(&vectors.row(row, dim).widened(), &mut bytes);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::{array::FixedSizeListArray, datatypes::Float32Type};

    use super::*;

    #[test]
    fn signs_are_not_made_for_nobody() {
        let vectors = [Some([Some(1.0), Some(-1.0)]), Some([Some(0.0), Some(2.0)])];
        let column: ArrayRef =
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 2));
        let abandoned = AtomicBool::new(false);
        assert_eq!(signs_of(&column, &abandoned).unwrap(), [0b1000_0000, 0b0100_0000]);
        abandoned.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(signs_of(&column, &abandoned).unwrap_err().state().code(), "57014");
    }
}
