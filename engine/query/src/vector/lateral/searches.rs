//! The answer to one piece of the input: a search for each row, then the columns of all rows found at once.

use std::sync::{Arc, OnceLock, atomic::AtomicBool};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array},
        compute::{SortColumn, SortOptions, lexsort_to_indices, take},
        datatypes::SchemaRef,
    },
    common::{ScalarValue, tree_node::TreeNodeRecursion},
    error::Result,
    physical_expr::PhysicalExpr,
};
use parking_lot::Mutex;
use sepal_storage::{ChunkRef, TableVersion};
use sepal_types::{ColumnDef, Error, Metric};

use super::pairs::Pairs;
use crate::{
    error::{carry, carry_store, translate},
    planner::BATCH_ROWS,
    vector::{
        Hit, Search, Searched,
        exec::{check_waiting, queries as as_queries, query_elements},
        fetch::{distances, fetch},
        filter::{Filter, Selected},
        node::Runtime,
        rule::{MORE_TIES, TIE_MARGIN, has_all_ties},
        search::{Predicate, search},
        unranked::unranked,
    },
};

/// The searches of one statement, and what they share.
#[derive(Debug)]
pub(super) struct Searches {
    pub version: Arc<TableVersion>,
    pub column: ColumnDef,
    pub metric: Metric,
    pub runtime: Runtime,
    /// Over the input's columns.
    pub query: Arc<dyn PhysicalExpr>,
    pub skip: usize,
    pub fetch: usize,
    pub filter: Option<Filter>,
    /// The rows of each chunk that pass the filter.
    pub passing: OnceLock<sepal_types::Result<Vec<Selected>>>,
    /// At most one: what must hold between a row of the input and one of the table.
    pub conditions: Pairs,
    pub ties: Pairs,
    /// Of each tie: ascending, NULLs first.
    pub directions: Vec<(bool, bool)>,
    pub outputs: Pairs,
    pub keeps_unmatched: bool,
    pub schema: SchemaRef,
    /// What all searches so far did.
    pub searched: Mutex<Searched>,
}

/// Candidates of a piece's rows that wait to be chosen from, at most, but for those of the last row: all rows are as
/// far from NULL.
const MOST_WAITING: usize = 4 * BATCH_ROWS;
/// What a row of the input takes beside the rows of the table that are asked at a time: each has a copy of it.
const ASKED_BYTES: usize = 16 << 20;

/// The rows found for a piece: of each the row of the piece that it belongs to.
#[derive(Default)]
struct Found {
    hits: Vec<Hit>,
    rows: Vec<u32>,
}

impl Found {
    fn append(&mut self, other: Self) {
        self.hits.extend(other.hits);
        self.rows.extend(other.rows);
    }
}

/// A row of the input beside the rows of one chunk.
struct Beside {
    /// The row's columns that conditions read, by position,
    of_input: Vec<(usize, ScalarValue)>,
    /// and the chunk's.
    of_table: Vec<(usize, ArrayRef)>,
}

impl Beside {
    /// How many rows of the chunk to ask at a time.
    fn at_once(&self) -> usize {
        let bytes: usize = self.of_input.iter().map(|(_, value)| value.size()).sum();
        (ASKED_BYTES / bytes.max(1)).clamp(1, BATCH_ROWS)
    }
}

/// What stands at a position.
fn at<T>(columns: &[(usize, T)], position: usize) -> Result<&T> {
    let found = columns.iter().find(|(known, _)| *known == position);
    found
        .map(|(_, column)| column)
        .ok_or_else(|| carry(Error::bug(format!("a condition reads column {position} unseen"))))
}

impl Searches {
    pub fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let filter = self.filter.iter().map(Filter::predicate);
        let pairs = [&self.conditions, &self.ties, &self.outputs];
        for expr in std::iter::once(&self.query).chain(filter).chain(pairs.into_iter().flat_map(Pairs::exprs))
        {
            if f(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    /// The rows of the join for some rows of the input.
    ///
    /// Errors: 22000 for a query of other dimensions than the column, those of the expressions and of reading; 57014
    /// once it was abandoned.
    pub fn answer(&self, piece: &RecordBatch, abandoned: &AtomicBool) -> Result<RecordBatch> {
        let queries = self.query.evaluate(piece)?.into_array(piece.num_rows())?;
        let queries = as_queries(&queries, &self.column)?;
        let (mut found, mut chosen) = (Found::default(), Found::default());
        for row in 0..piece.num_rows() {
            check_waiting(abandoned).map_err(carry)?;
            let query = query_elements(&queries, row, &self.column)?;
            let hits = self.nearest((piece, row), query.as_deref(), abandoned)?;
            found.rows.extend(std::iter::repeat_n(u32::try_from(row).unwrap_or(u32::MAX), hits.len()));
            found.hits.extend(hits);
            if found.hits.len() > MOST_WAITING {
                chosen.append(self.chosen(piece, std::mem::take(&mut found))?);
            }
        }
        chosen.append(self.chosen(piece, found)?);
        self.joined(piece, &chosen)
    }

    /// The candidates for one row: with further sort keys more than are asked for, all that are as far as the last.
    fn nearest(
        &self,
        place: (&RecordBatch, usize),
        query: Option<&[f32]>,
        abandoned: &AtomicBool,
    ) -> Result<Vec<Hit>> {
        let stored: usize = self.version.chunks.iter().map(|held| held.chunk.rows() as usize).sum();
        let wanted = self.skip + self.fetch;
        if self.fetch == 0 || stored == 0 {
            return Ok(Vec::new());
        }
        if self.ties.is_empty() {
            return self.found(place, query, wanted.min(stored), abandoned);
        }
        let mut k = wanted + TIE_MARGIN;
        loop {
            let hits = self.found(place, query, k.min(stored), abandoned)?;
            if has_all_ties(&hits, wanted, k) {
                return Ok(hits);
            }
            k = k.saturating_mul(MORE_TIES);
        }
    }

    /// The `k` nearest to one row.
    fn found(
        &self,
        (piece, row): (&RecordBatch, usize),
        query: Option<&[f32]>,
        k: usize,
        abandoned: &AtomicBool,
    ) -> Result<Vec<Hit>> {
        let qualifies = |chunk: usize, reference: &ChunkRef| self.qualifying(piece, row, (chunk, reference));
        let unfiltered = self.filter.is_none() && self.conditions.is_empty();
        let predicate: Option<&Predicate<'_>> = if unfiltered { None } else { Some(&qualifies) };
        let Some(query) = query else {
            return unranked(&self.version, k, predicate).map_err(carry);
        };
        let mut searched = Searched::default();
        let hits = search(
            &Search {
                version: &self.version,
                column: &self.column,
                metric: self.metric,
                as_halves: false,
                query,
                k,
                settings: *self.runtime.settings.read(),
                predicate,
                abandoned: Some(abandoned),
            },
            &self.runtime.indexes,
            &mut searched,
        );
        self.searched.lock().add(&searched);
        hits.map_err(carry)
    }

    /// What the searches so far did, and whether there is a filter.
    pub fn analyze_lines(&self) -> Vec<String> {
        self.searched.lock().lines(self.filter.is_some() || !self.conditions.is_empty())
    }

    /// The rows of a chunk that pass WHERE for a row of the input.
    fn qualifying(
        &self,
        piece: &RecordBatch,
        row: usize,
        (chunk, reference): (usize, &ChunkRef),
    ) -> sepal_types::Result<Option<Selected>> {
        let filtered = self.filtered()?.and_then(|chunks| chunks.get(chunk).cloned());
        if self.conditions.is_empty() {
            return Ok(filtered);
        }
        let rows = reference.chunk.rows() as usize;
        let beside = self.beside(piece, row, reference).map_err(translate)?;
        let at_once = beside.at_once();
        let mut met: Vec<u32> = Vec::new();
        // What is deleted or excluded already is not asked: a condition may fail on it.
        match Selected::both(filtered, Selected::live(reference)) {
            None => {
                for start in (0..rows).step_by(at_once) {
                    let count = at_once.min(rows - start);
                    let stored = |column: &ArrayRef| Ok(column.slice(start, count));
                    let meeting = self.meeting(&beside, count, stored).map_err(translate)?;
                    met.extend(meeting.bits().iter().map(|place| (start + place) as u32));
                }
            }
            Some(left) => {
                let left: Vec<u32> = left.bits().iter().map(|position| position as u32).collect();
                for asked in left.chunks(at_once) {
                    let asked = UInt32Array::from(asked.to_vec());
                    let stored = |column: &ArrayRef| repeated(column, &asked);
                    let meeting = self.meeting(&beside, asked.len(), stored).map_err(translate)?;
                    met.extend(meeting.bits().iter().map(|place| asked.value(place)));
                }
            }
        }
        Ok(Some(Selected::at(&met, rows)))
    }

    fn beside(&self, piece: &RecordBatch, row: usize, reference: &ChunkRef) -> Result<Beside> {
        let of_input = |position: usize| -> Result<(usize, ScalarValue)> {
            Ok((position, ScalarValue::try_from_array(piece.column(position), row)?))
        };
        let of_table = |position: usize| -> Result<(usize, ArrayRef)> {
            let column = reference.chunk.column(self.stored(position)?).map_err(carry_store)?;
            Ok((position, column))
        };
        Ok(Beside {
            of_input: self.conditions.of_input().map(of_input).collect::<Result<_>>()?,
            of_table: self.conditions.of_table().map(of_table).collect::<Result<_>>()?,
        })
    }

    /// Of so many rows of a chunk, which `stored` takes out of its columns, those that meet the conditions.
    fn meeting(
        &self,
        beside: &Beside,
        count: usize,
        stored: impl Fn(&ArrayRef) -> Result<ArrayRef>,
    ) -> Result<Selected> {
        let passes = self.conditions.evaluate(
            count,
            |position| at(&beside.of_input, position)?.to_array_of_size(count),
            |position| stored(at(&beside.of_table, position)?),
        )?;
        let passes = passes.first().ok_or_else(|| carry(Error::bug("a condition without a value")))?;
        Ok(Selected::passing(passes.as_boolean()))
    }

    /// The rows of all chunks that pass the filter: made by the first search that asks.
    fn filtered(&self) -> sepal_types::Result<Option<&Vec<Selected>>> {
        let Some(filter) = &self.filter else {
            return Ok(None);
        };
        let made = self.passing.get_or_init(|| {
            let kept = self.runtime.indexes.filters();
            let passing = |reference| filter.passing(&self.version, reference, kept);
            self.version.chunks.iter().map(passing).collect()
        });
        made.as_ref().map(Some).map_err(Clone::clone)
    }

    /// Of the candidates those that are asked for, in their order.
    fn chosen(&self, piece: &RecordBatch, found: Found) -> Result<Found> {
        if self.skip == 0 && self.ties.is_empty() {
            return Ok(found);
        }
        let keys = self.sort_columns(piece, &found)?;
        let mut chosen = Found::default();
        let mut start = 0;
        for group in found.rows.chunk_by(|left, right| left == right) {
            let order: Vec<usize> = if self.ties.is_empty() {
                (start..start + group.len()).collect()
            } else {
                let keys: Vec<SortColumn> = keys
                    .iter()
                    .map(|key| SortColumn {
                        values: key.values.slice(start, group.len()),
                        options: key.options,
                    })
                    .collect();
                let order = lexsort_to_indices(&keys, None)?;
                order.values().iter().map(|position| start + *position as usize).collect()
            };
            for position in order.into_iter().skip(self.skip).take(self.fetch) {
                chosen.hits.push(found.hits[position]);
                chosen.rows.push(found.rows[position]);
            }
            start += group.len();
        }
        Ok(chosen)
    }

    /// The distance and the ties.
    fn sort_columns(&self, piece: &RecordBatch, found: &Found) -> Result<Vec<SortColumn>> {
        if self.ties.is_empty() {
            return Ok(Vec::new());
        }
        let ascending = SortOptions { descending: false, nulls_first: false };
        let mut keys = vec![SortColumn { values: distances(&found.hits), options: Some(ascending) }];
        for (values, (asc, nulls_first)) in
            self.evaluate(&self.ties, piece, found)?.into_iter().zip(&self.directions)
        {
            let options = SortOptions { descending: !asc, nulls_first: *nulls_first };
            keys.push(SortColumn { values, options: Some(options) });
        }
        Ok(keys)
    }

    fn evaluate(&self, pairs: &Pairs, piece: &RecordBatch, found: &Found) -> Result<Vec<ArrayRef>> {
        let rows = UInt32Array::from(found.rows.clone());
        pairs.evaluate(
            found.hits.len(),
            |position| repeated(piece.column(position), &rows),
            |position| fetch(&self.version, self.stored(position)?, &found.hits).map_err(carry),
        )
    }

    fn stored(&self, position: usize) -> Result<&ColumnDef> {
        let column = self.version.def.columns.get(position);
        column.ok_or_else(|| carry(Error::bug(format!("the searched table has no column {position}"))))
    }

    /// The input's rows beside what was selected of the rows found for them.
    fn joined(&self, piece: &RecordBatch, found: &Found) -> Result<RecordBatch> {
        let outputs = self.evaluate(&self.outputs, piece, found)?;
        let unmatched = self.keeps_unmatched.then(|| with_unmatched(&found.rows, piece.num_rows()));
        let (rows, outputs) = match unmatched {
            Some((rows, picks)) => {
                let picked = outputs.iter().map(|output| repeated(output, &picks));
                (UInt32Array::from(rows), picked.collect::<Result<Vec<_>>>()?)
            }
            None => (UInt32Array::from(found.rows.clone()), outputs),
        };
        let of_input = piece.columns().iter().map(|column| repeated(column, &rows));
        let mut columns: Vec<ArrayRef> = of_input.collect::<Result<_>>()?;
        columns.extend(outputs);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

fn repeated(column: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef> {
    Ok(take(column, rows, None)?)
}

/// The rows of a LEFT JOIN: of each pair the row of the piece, and the position of what was found for it. `found` has
/// the rows of the piece for which something was, ascending, one for each thing found.
fn with_unmatched(found: &[u32], rows: usize) -> (Vec<u32>, UInt32Array) {
    let mut joined = Vec::with_capacity(found.len());
    let mut picks: Vec<Option<u32>> = Vec::with_capacity(found.len());
    let mut found = (0_u32..).zip(found).peekable();
    for row in 0..u32::try_from(rows).unwrap_or(u32::MAX) {
        let before = joined.len();
        while let Some((position, _)) = found.next_if(|(_, of)| **of == row) {
            joined.push(row);
            picks.push(Some(position));
        }
        if joined.len() == before {
            joined.push(row);
            picks.push(None);
        }
    }
    (joined, UInt32Array::from(picks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_stands_beside_few_rows_at_a_time() {
        let beside = |length: usize| Beside {
            of_input: vec![(0, ScalarValue::Utf8(Some("x".repeat(length))))],
            of_table: Vec::new(),
        };
        assert_eq!(beside(1).at_once(), BATCH_ROWS);
        assert!((8..=16).contains(&beside(1 << 20).at_once()));
        assert_eq!(beside(ASKED_BYTES + 1).at_once(), 1);
    }

    #[test]
    fn rows_without_anything_found_stay() {
        let (rows, picks) = with_unmatched(&[1, 1, 3], 5);
        assert_eq!(rows, [0, 1, 1, 2, 3, 4]);
        let picks: Vec<Option<u32>> = picks.iter().collect();
        assert_eq!(picks, [None, Some(0), Some(1), None, Some(2), None]);
        let (rows, picks) = with_unmatched(&[], 0);
        assert!(rows.is_empty() && picks.is_empty());
    }
}
