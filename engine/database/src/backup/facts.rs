//! What is true of a table whatever files it lies in: how many rows, a hash of their content, and the answers to
//! questions asked of it. A backup notes it, and a restore must find the same.
//!
//! The content is a sum of SHA-256 over (column, row id, value), value by value: sums do not depend on an order, so a
//! table that was checkpointed in between has the same. Only one column is in memory at a time. It tells accidents;
//! against changes made on purpose the files are sealed.
//!
//! A golden answer is the exact ten nearest rows of a vector that the table holds. Distances may differ in their last
//! digits between processors, and then the order of near-equal rows: [`TableFacts::differences`] allows for both.

use std::sync::Arc;

use arrow::{
    array::Array,
    row::{RowConverter, SortField},
};
use sepal_query::vector::{IndexCache, IndexMemory, Search, Searched, elements, search, usable_index};
use sepal_query::{SearchSettings, arrow_error};
use sepal_storage::{Chunk, Snapshot, TableVersion};
use sepal_types::{ColumnDef, ColumnId, Error, Measure, Metric, Result, RowId, TableId, TenantId};
use serde::{Deserialize, Serialize};

use crate::sealing::{hex, sha256};

/// Questions per vector column.
const QUESTIONS: u64 = 8;
/// Rows of an answer.
const NEAREST: usize = 10;
/// Rows that are encoded at once.
const BATCH_ROWS: usize = 4096;
/// How far two processors' distances may be apart, relative to their size.
const TOLERANCE: f64 = 1e-4;
/// For opened indexes, while they are tried.
const INDEX_BYTES: usize = 256 << 20;

/// A table at one commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableFacts {
    pub id: u32,
    pub environment: String,
    /// Empty in facts that an older program has noted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
    pub name: String,
    pub rows: u64,
    /// Of its files and memory; not the same after a restore.
    pub bytes: u64,
    /// Hex.
    pub content: String,
    pub golden: Vec<Golden>,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    pub column: u32,
    /// Of the row whose vector was the question.
    pub row: u64,
    pub metric: Metric,
    /// Row ids, nearest first, with their distances; `None` for NaN.
    pub nearest: Vec<(u64, Option<f64>)>,
}

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// `environment.schema.table`
    pub table: String,
    pub what: String,
}

impl TableFacts {
    /// Reads every row of a table, and asks it.
    pub(super) fn of(tenant: TenantId, version: &TableVersion) -> Result<Self> {
        let def = &version.def;
        let mut golden = Vec::new();
        for column in def.columns.iter().filter(|column| is_searchable(column)) {
            let metric = def.indexed_metric(column.id).unwrap_or(Metric::L2);
            for row in samples(version, column)? {
                golden.extend(ask(tenant, version, column, metric, row)?);
            }
        }
        Ok(Self {
            id: def.id.0,
            environment: def.environment.clone(),
            schema: def.schema.clone(),
            name: def.name.clone(),
            rows: version.live_rows(),
            bytes: version.bytes(),
            content: content(version)?,
            golden,
        })
    }

    /// How a table differs from these facts, which were noted of it earlier.
    pub(super) fn differences(&self, tenant: TenantId, snapshot: &Snapshot) -> Result<Vec<Difference>> {
        let difference = |what: String| Difference { table: self.label(), what };
        let Some(version) = snapshot.table(TableId(self.id)) else {
            return Ok(vec![difference("the table is not there".into())]);
        };
        let mut found = Vec::new();
        if version.live_rows() != self.rows {
            found.push(difference(format!("{} rows, {} were backed up", version.live_rows(), self.rows)));
        }
        let content = content(version)?;
        if content != self.content {
            found.push(difference("the content of its rows is another".into()));
        }
        for golden in &self.golden {
            if let Some(why) = golden.differs(tenant, version)? {
                found.push(difference(why));
            }
        }
        Ok(found)
    }

    /// How people call it.
    pub fn label(&self) -> String {
        label(&self.environment, &self.schema, &self.name)
    }
}

impl Golden {
    fn differs(&self, tenant: TenantId, version: &TableVersion) -> Result<Option<String>> {
        let Some(column) = version.def.column_by_id(ColumnId(self.column)) else {
            return Ok(Some(format!("column {} is not there", self.column)));
        };
        let Some(now) = ask(tenant, version, column, self.metric, RowId(self.row))? else {
            return Ok(Some(format!("row {} is not there to be asked about", self.row)));
        };
        let same = same_answer(&self.nearest, &now.nearest);
        Ok((!same).then(|| format!("the nearest rows to row {}'s \"{}\" are others", self.row, column.name)))
    }
}

/// `environment.schema.table`, without a schema where none was noted.
pub(super) fn label(environment: &str, schema: &str, name: &str) -> String {
    let parts = [environment, schema, name].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(".")
}

/// A vector of one length; others cannot be searched.
fn is_searchable(column: &ColumnDef) -> bool {
    column.ty.dimensions().is_some()
}

fn content(version: &TableVersion) -> Result<String> {
    let mut sum = Sum::default();
    for column in &version.def.columns {
        for reference in &version.chunks {
            add_column(&mut sum, column, &reference.chunk, &|position| reference.deleted.contains(position))?;
        }
    }
    Ok(sum.hex())
}

fn add_column(sum: &mut Sum, column: &ColumnDef, chunk: &Chunk, deleted: &dyn Fn(u32) -> bool) -> Result<()> {
    let (values, ids) = (chunk.column(column)?, chunk.row_ids()?);
    let fields = vec![SortField::new(values.data_type().clone())];
    let converter = RowConverter::new(fields).map_err(arrow_error)?;
    let mut bytes = Vec::new();
    for start in (0..values.len()).step_by(BATCH_ROWS) {
        let slice = values.slice(start, BATCH_ROWS.min(values.len() - start));
        let rows = converter.convert_columns(&[slice]).map_err(arrow_error)?;
        for (position, row) in (start..).zip(&rows) {
            if deleted(u32::try_from(position).unwrap_or(u32::MAX)) {
                continue;
            }
            bytes.clear();
            bytes.extend_from_slice(&column.id.0.to_be_bytes());
            bytes.extend_from_slice(&ids.value(position).to_be_bytes());
            bytes.extend_from_slice(row.as_ref());
            sum.add(&sha256(&bytes));
        }
    }
    Ok(())
}

/// Four sums of 64 bits.
#[derive(Default)]
struct Sum([u64; 4]);

impl Sum {
    fn add(&mut self, hash: &[u8; 32]) {
        let (lanes, _) = hash.as_chunks::<8>();
        for (sum, lane) in self.0.iter_mut().zip(lanes) {
            *sum = sum.wrapping_add(u64::from_be_bytes(*lane));
        }
    }

    fn hex(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().flat_map(|lane| lane.to_be_bytes()).collect();
        hex(&bytes)
    }
}

/// Rows to ask about, spread over the table; the same for the same rows in the same chunks.
fn samples(version: &TableVersion, column: &ColumnDef) -> Result<Vec<RowId>> {
    let live = version.live_rows();
    let mut wanted: Vec<u64> = (0..QUESTIONS.min(live))
        .map(|question| spread((u64::from(column.id.0) << 32) | question) % live)
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut found = Vec::new();
    let mut seen = 0_u64;
    for reference in &version.chunks {
        let here = u64::from(reference.live_rows());
        let inside: Vec<u64> =
            wanted.iter().filter(|at| (seen..seen + here).contains(*at)).map(|at| at - seen).collect();
        seen += here;
        if inside.is_empty() {
            continue;
        }
        let (values, ids) = (reference.chunk.column(column)?, reference.chunk.row_ids()?);
        let live = (0..reference.chunk.rows()).filter(|position| !reference.deleted.contains(*position));
        for (_, position) in (0..).zip(live).filter(|(at, _)| inside.contains(at)) {
            if !values.is_null(position as usize) {
                found.push(RowId(ids.value(position as usize)));
            }
        }
    }
    Ok(found)
}

/// SplitMix64's finisher.
fn spread(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The rows nearest to a row's vector, exactly. The index, where there is one, is asked the same: its files must open.
/// `None` when the row is not there, or has no vector.
fn ask(
    tenant: TenantId,
    version: &TableVersion,
    column: &ColumnDef,
    metric: Metric,
    row: RowId,
) -> Result<Option<Golden>> {
    let Some((chunk, position)) = version.locate(row)? else { return Ok(None) };
    let values = version.chunks[chunk].chunk.column(column)?;
    let position = position as usize;
    if values.is_null(position) {
        return Ok(None);
    }
    let (vectors, dimensions) = elements(&values)?;
    let query = vectors.row(position, dimensions).widened();
    let indexes = IndexCache::new(tenant, Arc::new(IndexMemory::of_whole_indexes(INDEX_BYTES)));
    let mut question = Search {
        version,
        column,
        metric,
        as_halves: false,
        query: &query,
        k: NEAREST,
        settings: SearchSettings { use_indexes: false, ..SearchSettings::default() },
        predicate: None,
        abandoned: None,
    };
    let hits = search(&question, &indexes, &mut Searched::default())?;
    if usable_index(version, column, Measure::Vectors(metric)).is_some() {
        question.settings.use_indexes = true;
        let indexed = search(&question, &indexes, &mut Searched::default())?;
        if indexed.len() != hits.len() {
            let (indexed, exact) = (indexed.len(), hits.len());
            return Err(Error::bug(format!("an index finds {indexed} rows where there are {exact}")));
        }
    }
    let mut nearest = Vec::with_capacity(hits.len());
    for hit in hits.iter().filter(|hit| hit.distance.is_some()) {
        let ids = version.chunks[hit.chunk].chunk.row_ids()?;
        nearest.push((ids.value(hit.position as usize), hit.distance.filter(|distance| !distance.is_nan())));
    }
    Ok(Some(Golden { column: column.id.0, row: row.0, metric, nearest }))
}

/// Distances are the same in their order, and so are the rows, except where their distances leave the order open.
fn same_answer(then: &[(u64, Option<f64>)], now: &[(u64, Option<f64>)]) -> bool {
    let near = |one: Option<f64>, other: Option<f64>| match (one, other) {
        (Some(one), Some(other)) => {
            (one - other).abs() <= TOLERANCE * one.abs().max(other.abs()).max(TOLERANCE)
        }
        (one, other) => one.is_none() == other.is_none(),
    };
    if then.len() != now.len() || !then.iter().zip(now).all(|(one, other)| near(one.1, other.1)) {
        return false;
    }
    // A row as far as the last one may have been pushed out by another as far.
    let last = then.last().and_then(|(_, distance)| *distance);
    then.iter().all(|(row, distance)| near(*distance, last) || now.iter().any(|(other, _)| other == row))
}

#[cfg(test)]
mod tests;
