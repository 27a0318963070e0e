//! The search itself: every chunk of a table version, best `k` of all.

use std::sync::atomic::AtomicBool;

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Float16Type, Float32Type},
};
use sepal_index::{
    Allowed, Candidates, Effort, Found, Part, Query, VectorIndex, Vectors, Work, search_parts_until,
};
use sepal_storage::{ChunkRef, TableVersion};
use sepal_types::{ColumnDef, Error, Measure, Metric, Result, TableId, VectorIndexOptions, VectorKind};

use super::{
    ChunkIndex, IndexCache,
    exec::check_waiting,
    filter::{Selected, valued},
    picked::{Picked, Picking, fetches, nearest_of, pick},
};
use crate::{context::SearchSettings, output::vector_kind};

/// A row found: which chunk, which position in it, how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    pub chunk: usize,
    pub position: u32,
    /// `None` for a row whose vector is NULL.
    pub distance: Option<f64>,
}

impl From<Found> for Hit {
    fn from(found: Found) -> Self {
        let Found { neighbor, part } = found;
        Self { chunk: part as usize, position: neighbor.position, distance: Some(neighbor.distance) }
    }
}

/// Rows of one chunk that a predicate lets through; `None` when all pass.
pub type Predicate<'a> = dyn Fn(usize, &ChunkRef) -> Result<Option<Selected>> + 'a;

/// One search.
pub struct Search<'a> {
    pub version: &'a TableVersion,
    pub column: &'a ColumnDef,
    pub metric: Metric,
    /// Whether the rows count as `halfvec`, of a column of `vector`. `query` is rounded already.
    pub as_halves: bool,
    /// As many elements as the column has dimensions.
    pub query: &'a [f32],
    pub k: usize,
    pub settings: SearchSettings,
    pub predicate: Option<&'a Predicate<'a>>,
    /// Set once nobody waits for it any more. `None`: somebody does in any case.
    pub abandoned: Option<&'a AtomicBool>,
}

impl Search<'_> {
    /// What of the column is compared.
    pub fn measure(&self) -> Measure {
        if self.as_halves { Measure::Halves(self.metric) } else { Measure::Vectors(self.metric) }
    }

    /// Errors: 57014 once it is abandoned.
    fn check_waiting(&self) -> Result<()> {
        self.abandoned.map_or(Ok(()), check_waiting)
    }

    /// The rows of an array of the column as they are compared, and their dimensions.
    pub(super) fn rows<'c>(&self, column: &'c ArrayRef) -> Result<(Vectors<'c>, usize)> {
        let (vectors, dim) = elements(column)?;
        Ok((if self.as_halves { vectors.rounded() } else { vectors }, dim))
    }
}

/// What searches did, as EXPLAIN ANALYZE tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    pub work: Work,
    /// Rows of the chunks, deleted ones included,
    pub rows: u64,
    /// and of them those that qualified: not deleted, let through by the filter, with a vector.
    pub qualifying: u64,
    /// Rows that indexes named, whose vectors were read: a page for each that was not decoded already.
    pub fetched: u64,
}

impl Searched {
    /// Adds what another search did.
    pub fn add(&mut self, other: &Self) {
        self.work.add(&other.work);
        self.rows += other.rows;
        self.qualifying += other.qualifying;
        self.fetched += other.fetched;
    }

    /// Lines below the node.
    pub fn lines(&self, filtered: bool) -> Vec<String> {
        let Work { walked, scanned, asked, exact, fetched, hops, codes, wide_codes, distances } = self.work;
        let ways =
            [(walked, "walked"), (scanned, "scanned by codes"), (asked, "probed"), (exact, "scored exactly")];
        let ways = ways.iter().filter(|(count, _)| *count > 0);
        let ways: Vec<String> = ways.map(|(count, way)| format!("{count} {way}")).collect();
        let segments = if ways.is_empty() { "none".to_owned() } else { ways.join(", ") };
        let mut lines = vec![format!("Segments: {segments}")];
        if filtered {
            lines.push(format!("Rows Qualifying: {} of {}", self.qualifying, self.rows));
        }
        if walked > 0 {
            lines.push(format!("Nodes Visited: {hops}"));
        }
        let by_bits = [(codes - wide_codes, 4), (wide_codes, 8)];
        let by_bits = by_bits.iter().filter(|(count, _)| *count > 0);
        let by_bits: Vec<String> = by_bits.map(|(count, bits)| format!("{count} of {bits} bits")).collect();
        if !by_bits.is_empty() {
            lines.push(format!("Codes Scored: {}", by_bits.join(", ")));
        }
        lines.push(format!("Distances Computed: {distances}"));
        if fetched > 0 {
            lines.push(format!("Rows Fetched: {}", self.fetched));
        }
        lines
    }
}

/// The index that such a search uses: a usable one, for the same measure.
pub fn usable_index<'a>(
    version: &'a TableVersion,
    column: &ColumnDef,
    measure: Measure,
) -> Option<(TableId, &'a str)> {
    version.def.measured_by(column.id, measure).map(|index| (index.id, index.name.as_str()))
}

/// An effort as EXPLAIN shows it.
pub(super) fn shown(effort: &Effort, options: &VectorIndexOptions) -> (&'static str, usize) {
    match options {
        VectorIndexOptions::IvfFlat { .. } => ("probes", effort.probes),
        // Both are the same number then.
        VectorIndexOptions::Faiss { .. } => ("effort", effort.probes),
        _ => ("ef_search", effort.ef_search),
    }
}

/// What the settings ask of this index; `None` where only the exact scan reaches the recall that they want.
pub(super) fn effort(index: &dyn VectorIndex, settings: &SearchSettings, k: usize) -> Option<Effort> {
    match settings.target_recall {
        None => Some(Effort { ef_search: settings.ef_search, probes: settings.probes }),
        Some(recall) => {
            index.effort_for(recall.share(), k).map(|effort| Effort { ef_search: effort, probes: effort })
        }
    }
}

/// The `k` nearest rows, nearest first; NaN distances after all numbers, NULL vectors last. Adds to `searched`.
///
/// Errors: 22000 when the query has other dimensions than the column, XX001 for a column that does not open, 57014 once
/// it is abandoned. An index that does not open is left out.
pub fn search(search: &Search, indexes: &IndexCache, searched: &mut Searched) -> Result<Vec<Hit>> {
    let index = search
        .settings
        .use_indexes
        .then(|| usable_index(search.version, search.column, search.measure()))
        .flatten()
        .map(|(id, _)| id);
    // Then each segment is searched by itself, and its vectors are let go before the next one's are decoded.
    let apart = fetches(search);
    let indexes = Indexes { index, cache: indexes, fetches: index.is_some() && apart };
    let (mut segments, mut named) = (Vec::with_capacity(search.version.chunks.len()), Vec::new());
    let (mut found, mut nulls) = (Vec::new(), Vec::new());
    for (number, reference) in (0..).zip(&search.version.chunks) {
        search.check_waiting()?;
        let segment = Segment::of(search, &indexes, (number, reference), &mut named, searched)?;
        match segment {
            Some(segment) if apart => {
                found.extend(nearest(search, std::slice::from_ref(&segment), searched)?);
                found.sort_unstable();
                found.truncate(search.k);
                nulls.extend(segment.nulls().take(search.k - nulls.len()));
            }
            segment => segments.extend(segment),
        }
    }
    if !apart {
        found = nearest(search, &segments, searched)?;
    }
    if !named.is_empty() {
        found.extend(nearest_of(&named, search, searched)?);
        found.sort_unstable();
        found.truncate(search.k);
    }
    let mut hits: Vec<Hit> = found.into_iter().map(Hit::from).collect();
    for segment in &segments {
        nulls.extend(segment.nulls().take(search.k - hits.len() - nulls.len()));
    }
    hits.extend(nulls.into_iter().take(search.k - hits.len()));
    Ok(hits)
}

/// The nearest rows of some segments, by their chunks' numbers.
fn nearest(search: &Search, segments: &[Segment], searched: &mut Searched) -> Result<Vec<Found>> {
    let parts: Vec<Part> = segments.iter().map(|segment| segment.part(search)).collect::<Result<_>>()?;
    let query = Query { metric: search.metric, vector: search.query, k: search.k };
    let stopped = || search.check_waiting().is_err();
    let mut found = search_parts_until(&query, &parts, &stopped, &mut searched.work);
    // It may have been given up half way.
    search.check_waiting()?;
    found.iter_mut().for_each(|found| found.part = segments[found.part as usize].number);
    Ok(found)
}

/// What a search has of indexes.
struct Indexes<'a> {
    /// The one that it uses.
    index: Option<TableId>,
    cache: &'a IndexCache,
    /// Whether no more than the rows scored are to be read of segments that are not decoded.
    fetches: bool,
}

/// One chunk whose vectors are at hand.
struct Segment {
    number: u32,
    /// All rows of the chunk, or those that were picked.
    column: ArrayRef,
    rows: usize,
    picked: Option<Picked>,
    /// Rows that are not deleted and pass the predicate; `None` when all do.
    qualifying: Option<Selected>,
    /// Those of them that have a vector.
    allowed: Option<Selected>,
    index: Option<ChunkIndex>,
}

impl Segment {
    /// `None` where the chunk's graph has named the rows that compete. Those are enough: no row without a vector has a
    /// place beside them.
    fn of(
        search: &Search,
        indexes: &Indexes,
        (number, reference): (u32, &ChunkRef),
        named: &mut Vec<(u32, Candidates)>,
        searched: &mut Searched,
    ) -> Result<Option<Self>> {
        let rows = reference.chunk.rows() as usize;
        let qualifying = qualifying(search.predicate, number, reference)?;
        searched.rows += rows as u64;
        let mut opened = None;
        if let (Some(id), Some(dim)) = (indexes.index, search.column.ty.dimensions()) {
            let all_bytes = || search.version.index_bytes(id).unwrap_or(0);
            opened = indexes.cache.get(&reference.chunk, id, usize::from(dim), all_bytes)?;
            if let Some(index) = &opened {
                match pick(search, index, reference, qualifying.as_ref(), indexes.fetches, searched)? {
                    Picking::Rows(picked, column) => {
                        let (picked, index) = (Some(picked), opened);
                        let segment = Self { number, column, rows, picked, qualifying, allowed: None, index };
                        searched.qualifying += segment.count() as u64;
                        return Ok(Some(segment));
                    }
                    Picking::Named(candidates) => {
                        searched.qualifying += candidates.indexed as u64;
                        named.push((number, candidates));
                        return Ok(None);
                    }
                    Picking::All => {}
                    Picking::Damaged(error) => {
                        indexes.cache.give_up(&reference.chunk, id, &error);
                        opened = None;
                    }
                }
            }
        }
        let index = opened;
        let column = reference.chunk.column(search.column)?;
        let (_, dim) = elements(&column)?;
        if dim != search.query.len() {
            let kind = search.column.ty.vector_kind().unwrap_or(VectorKind::Single);
            kind.check_same(dim, search.query.len())?;
        }
        let (def, kept) = (&search.version.def, indexes.cache.filters());
        let valued = valued(def, &reference.chunk, (search.column, &column), kept);
        let allowed = Selected::both(qualifying.clone(), valued);
        let segment = Self { number, column, rows, picked: None, qualifying, allowed, index };
        searched.qualifying += segment.count() as u64;
        Ok(Some(segment))
    }

    /// How many rows compete.
    fn count(&self) -> usize {
        match &self.picked {
            Some(picked) => picked.qualifying,
            None => self.allowed.as_ref().map_or(self.rows, Selected::count),
        }
    }

    fn part(&self, search: &Search) -> Result<Part<'_>> {
        let (vectors, _) = search.rows(&self.column)?;
        if let Some(picked) = &self.picked {
            return Ok(Part { index: None, vectors, allowed: None, rows: Some(&picked.rows) });
        }
        let allowed = self.allowed.as_ref().map(|rows| Allowed { bits: rows.bits(), count: rows.count() });
        let index = self.index.as_deref();
        let index = index.and_then(|index| Some((index, effort(index, &search.settings, search.k)?)));
        Ok(Part { index, vectors, allowed, rows: None })
    }

    /// Qualifying rows without a vector; none where rows were picked, which are enough without.
    fn nulls(&self) -> impl Iterator<Item = Hit> + '_ {
        let qualifies = |position: usize| self.qualifying.as_ref().is_none_or(|rows| rows.has(position));
        let rows = if self.picked.is_none() && self.column.null_count() > 0 { self.column.len() } else { 0 };
        let positions =
            (0..rows).filter(move |position| self.column.is_null(*position) && qualifies(*position));
        positions.map(move |position| Hit {
            chunk: self.number as usize,
            position: u32::try_from(position).unwrap_or(u32::MAX),
            distance: None,
        })
    }
}

/// The rows that are not deleted and pass the predicate; `None` when all do.
pub(super) fn qualifying(
    predicate: Option<&Predicate<'_>>,
    number: u32,
    reference: &ChunkRef,
) -> Result<Option<Selected>> {
    let passing = match predicate {
        Some(predicate) => predicate(number as usize, reference)?,
        None => None,
    };
    Ok(without_deleted(reference, passing.and_then(Selected::unless_all)))
}

/// The live ones among rows; `None` is all, before and after.
pub(super) fn without_deleted(reference: &ChunkRef, rows: Option<Selected>) -> Option<Selected> {
    Selected::both(rows, Selected::live(reference))
}

/// Those among rows that have a vector; `None` is all, before and after.
pub(super) fn without_nulls(column: &ArrayRef, qualifying: Option<&Selected>) -> Option<Selected> {
    Selected::both(qualifying.cloned(), Selected::valued(column))
}

/// A fixed-size vector column as `n × dim` elements, row-major.
pub fn elements(column: &ArrayRef) -> Result<(Vectors<'_>, usize)> {
    let DataType::FixedSizeList(_, dim) = column.data_type() else {
        return Err(Error::bug(format!("a vector search over {}", column.data_type())));
    };
    let dim = usize::try_from(*dim).unwrap_or(0);
    let list = column.as_fixed_size_list();
    let values = match vector_kind(column.data_type()) {
        Some(VectorKind::Half) => Vectors::F16(list.values().as_primitive::<Float16Type>().values()),
        _ => Vectors::F32(list.values().as_primitive::<Float32Type>().values()),
    };
    let start = usize::try_from(list.value_offset(0)).unwrap_or(0);
    Ok((values.slice(start, list.len() * dim), dim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_by_their_bits() {
        let lines = |codes, wide_codes| {
            let work = Work { walked: 1, hops: 40, codes, wide_codes, distances: 12, ..Work::default() };
            Searched { work, ..Searched::default() }.lines(false)
        };
        let told = |codes: &'static str| {
            ["Segments: 1 walked", "Nodes Visited: 40", codes, "Distances Computed: 12"]
        };
        assert_eq!(lines(300, 0), told("Codes Scored: 300 of 4 bits").map(str::to_owned));
        assert_eq!(lines(300, 300), told("Codes Scored: 300 of 8 bits").map(str::to_owned));
        assert_eq!(lines(300, 100), told("Codes Scored: 200 of 4 bits, 100 of 8 bits").map(str::to_owned));
        assert_eq!(lines(0, 0), ["Segments: 1 walked", "Nodes Visited: 40", "Distances Computed: 12"]);
    }
}
