//! The search itself: every chunk of a table version, best `k` of all.

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Float16Type, Float32Type},
};
use sepal_index::{Bits, Neighbor, SearchParams, VectorIndex, Vectors, search_exact};
use sepal_storage::{ChunkRef, TableVersion};
use sepal_types::{ColumnDef, Error, Metric, Result, TableId, VectorIndexOptions, VectorKind};

use super::IndexCache;
use crate::{context::SearchSettings, output::vector_kind};

/// A row found: which chunk, which position in it, how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    pub chunk: usize,
    pub position: u32,
    /// `None` for a row whose vector is NULL.
    pub distance: Option<f64>,
}

/// Rows of one chunk that a predicate lets through; `None` when all pass.
pub type Predicate<'a> = dyn Fn(usize, &ChunkRef) -> Result<Option<Bits>> + 'a;

/// One search.
pub struct Search<'a> {
    pub version: &'a TableVersion,
    pub column: &'a ColumnDef,
    pub metric: Metric,
    /// As many elements as the column has dimensions.
    pub query: &'a [f32],
    pub k: usize,
    pub settings: SearchSettings,
    pub predicate: Option<&'a Predicate<'a>>,
}

/// Hits that room is made for beforehand.
const MOST_RESERVED: usize = 4_096;

/// The index that a search for this metric uses: a usable one, of the same metric.
pub fn usable_index(version: &TableVersion, column: &ColumnDef, metric: Metric) -> Option<(TableId, String)> {
    version
        .def
        .vector_indexes(column.id)
        .find(|(_, options)| options.metric() == metric)
        .map(|(index, _)| (index.id, index.name.clone()))
}

/// How hard an index tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Effort {
    /// Of graphs.
    ef_search: usize,
    /// Of cells.
    probes: usize,
}

impl Effort {
    pub(super) fn params<'a>(&self, k: usize, allowed: Option<&'a Bits>) -> SearchParams<'a> {
        SearchParams { k, ef_search: self.ef_search, probes: self.probes, allowed }
    }

    /// As EXPLAIN shows it.
    pub(super) fn shown(&self, options: &VectorIndexOptions) -> (&'static str, usize) {
        match options {
            VectorIndexOptions::IvfFlat { .. } => ("probes", self.probes),
            _ => ("ef_search", self.ef_search),
        }
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

/// The `k` nearest rows, nearest first; NaN distances after all numbers, NULL vectors last.
///
/// Errors: 22000 when the query has other dimensions than the column, XX001 for a blob that does not open.
pub fn search(search: &Search, indexes: &IndexCache) -> Result<Vec<Hit>> {
    let index = search
        .settings
        .use_indexes
        .then(|| usable_index(search.version, search.column, search.metric))
        .flatten()
        .map(|(id, _)| id);
    // LIMIT may be any number.
    let chunks = search.version.chunks.len().max(1);
    let mut hits = Vec::with_capacity(search.k.saturating_mul(chunks).min(MOST_RESERVED));
    let mut nulls = Vec::new();
    for (chunk, reference) in search.version.chunks.iter().enumerate() {
        search_chunk(search, indexes, index, (chunk, reference), &mut hits, &mut nulls)?;
    }
    hits.sort_by(|a: &Hit, b: &Hit| {
        compare(a.distance, b.distance).then(a.chunk.cmp(&b.chunk)).then(a.position.cmp(&b.position))
    });
    hits.truncate(search.k);
    let missing = search.k - hits.len();
    hits.extend(nulls.into_iter().take(missing));
    Ok(hits)
}

/// Ascending, NaN greater than every number: Postgres' order of `float8`.
fn compare(left: Option<f64>, right: Option<f64>) -> std::cmp::Ordering {
    let key = |value: Option<f64>| value.unwrap_or(f64::NAN);
    let (left, right) = (key(left), key(right));
    match (left.is_nan(), right.is_nan()) {
        (false, false) => left.total_cmp(&right),
        (left, right) => left.cmp(&right),
    }
}

fn search_chunk(
    search: &Search,
    indexes: &IndexCache,
    index: Option<TableId>,
    (number, reference): (usize, &ChunkRef),
    hits: &mut Vec<Hit>,
    nulls: &mut Vec<Hit>,
) -> Result<()> {
    let column = reference.chunk.column(search.column)?;
    let (vectors, dim) = elements(&column)?;
    if dim != search.query.len() {
        search.column.ty.vector_kind().unwrap_or(VectorKind::Single).check_same(dim, search.query.len())?;
    }
    let qualifying = qualifying(search, number, reference)?;
    let allowed = without_nulls(&column, qualifying.as_ref());
    let rows = reference.chunk.rows() as usize;
    let competing = allowed.as_ref().map_or(rows, Bits::count);
    let opened = match index {
        Some(index) => indexes.get(&reference.chunk, index, dim)?,
        None => None,
    };
    let found = nearest(search, opened.as_deref(), vectors, allowed.as_ref(), competing);
    let hit = |neighbour: Neighbor| Hit {
        chunk: number,
        position: neighbour.position,
        distance: Some(neighbour.distance),
    };
    hits.extend(found.into_iter().map(hit));
    if column.null_count() > 0 && nulls.len() < search.k {
        let is_null = |position: &usize| {
            column.is_null(*position) && qualifying.as_ref().is_none_or(|bits| bits.get(*position))
        };
        let null_hits = (0..rows).filter(is_null).take(search.k - nulls.len());
        nulls.extend(null_hits.map(|position| Hit {
            chunk: number,
            position: u32::try_from(position).unwrap_or(u32::MAX),
            distance: None,
        }));
    }
    Ok(())
}

fn nearest(
    search: &Search,
    index: Option<&dyn VectorIndex>,
    vectors: Vectors,
    allowed: Option<&Bits>,
    competing: usize,
) -> Vec<Neighbor> {
    let exact = || search_exact(search.metric, search.query.len(), vectors, search.query, search.k, allowed);
    let Some(index) = index else {
        return exact();
    };
    let Some(effort) = effort(index, &search.settings, search.k) else {
        return exact();
    };
    let params = effort.params(search.k, allowed);
    let found = index.search(vectors, search.query, &params);
    // An index leaves out what has no distance (a zero vector under cosine); LIMIT is filled with those too.
    if found.len() < search.k.min(competing) { exact() } else { found }
}

/// The rows that are not deleted and pass the predicate; `None` when all do.
fn qualifying(search: &Search, number: usize, reference: &ChunkRef) -> Result<Option<Bits>> {
    let passing = match search.predicate {
        Some(predicate) => predicate(number, reference)?,
        None => None,
    };
    Ok(without_deleted(reference, passing))
}

/// The live ones among rows; `None` is all, before and after.
pub(super) fn without_deleted(reference: &ChunkRef, mut bits: Option<Bits>) -> Option<Bits> {
    if !reference.deleted.is_empty() {
        let live = bits.get_or_insert_with(|| Bits::full(reference.chunk.rows() as usize));
        for position in reference.deleted.iter() {
            live.clear(position as usize);
        }
    }
    bits
}

pub(super) fn without_nulls(column: &ArrayRef, qualifying: Option<&Bits>) -> Option<Bits> {
    if column.null_count() == 0 {
        return qualifying.cloned();
    }
    let mut bits = qualifying.cloned().unwrap_or_else(|| Bits::full(column.len()));
    for position in (0..column.len()).filter(|position| column.is_null(*position)) {
        bits.clear(position);
    }
    Some(bits)
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
