//! What ANALYZE finds in a column: NULLs, width, distinct values, the most common of them, a histogram of the others.
//!
//! As PostgreSQL's `std_typanalyze` (src/backend/commands/analyze.c), over a sample of 300 rows for each of 100
//! entries, taken evenly over the table instead of at random: the same rows give the same statistics.

use std::collections::HashMap;

use arrow::{
    array::{Array, ArrayRef, UInt32Array},
    compute::{concat, sort_to_indices, take},
    datatypes::DataType,
};
use bytes::BytesMut;
use sepal_query::{arrow_error, values::ColumnEncoder};
use sepal_storage::TableVersion;
use sepal_types::{ColumnDef, Result, SqlType};

use super::KnownColumn;

/// Entries of the list of most common values, and of the histogram.
const TARGET: usize = 100;
/// At most.
pub const SAMPLED_ROWS: u64 = 300 * TARGET as u64;
/// Wider values are counted as NULLs and widths only, as PostgreSQL does.
const WIDEST: usize = 1024;

/// What is found in these columns. `step` is asked between two columns and may end it with an error.
pub fn analyze(
    version: &TableVersion,
    columns: &[&ColumnDef],
    step: &dyn Fn(&ColumnDef) -> Result<()>,
) -> Result<Vec<KnownColumn>> {
    let rows = version.live_rows();
    let sample = sample(version, rows);
    let mut found = Vec::with_capacity(columns.len());
    for column in columns {
        step(column)?;
        let mut parts: Vec<ArrayRef> = Vec::new();
        for (held, positions) in version.chunks.iter().zip(&sample) {
            if !positions.is_empty() {
                let array = held.chunk.column_once(column)?;
                parts.push(take(&array, positions, None).map_err(arrow_error)?);
            }
        }
        if parts.is_empty() {
            continue;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        found.push(describe(column, &concat(&parts).map_err(arrow_error)?, rows)?);
    }
    Ok(found)
}

/// Positions in each chunk: all live rows, or as many as are wanted, evenly.
fn sample(version: &TableVersion, rows: u64) -> Vec<UInt32Array> {
    let wanted = rows.min(SAMPLED_ROWS);
    let (mut seen, mut taken) = (0_u64, 0_u64);
    let of_chunk = |held: &sepal_storage::ChunkRef| {
        let live = (0..held.chunk.rows()).filter(|position| !held.deleted.contains(*position));
        let chosen = live.filter(|_| {
            // The row of number `seen` is the next one of `wanted` that lie evenly among `rows`.
            let chosen = u128::from(seen) * u128::from(wanted) >= u128::from(taken) * u128::from(rows);
            seen += 1;
            taken += u64::from(chosen);
            chosen
        });
        UInt32Array::from_iter_values(chosen.collect::<Vec<u32>>())
    };
    version.chunks.iter().map(of_chunk).collect()
}

/// `rows`: of the table.
fn describe(column: &ColumnDef, array: &ArrayRef, rows: u64) -> Result<KnownColumn> {
    let (all, nulls) = (array.len(), array.logical_null_count());
    let present = all - nulls;
    let width = array.to_data().get_slice_memory_size().unwrap_or(0) / all.max(1);
    let mut known = KnownColumn {
        column: column.id.0,
        null_frac: part(nulls, all),
        avg_width: u32::try_from(width).unwrap_or(u32::MAX),
        n_distinct: 0.0,
        common: Vec::new(),
        histogram: Vec::new(),
    };
    let vectors = column.ty.vector_kind().is_some() || matches!(column.ty, SqlType::SparseVec(_));
    if present == 0 || width > WIDEST || vectors {
        return Ok(known);
    }
    let texts = texts(column, array)?;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for text in texts.iter().flatten() {
        *counts.entry(text.as_str()).or_default() += 1;
    }
    known.n_distinct = distinct(&counts, present, known.null_frac, rows);
    let common = common(&counts, present, known.n_distinct);
    known.common = common.iter().map(|(text, count)| ((*text).to_owned(), part(*count, all))).collect();
    let rare: Vec<Option<&str>> = texts
        .iter()
        .map(|text| text.as_deref().filter(|text| common.iter().all(|(common, _)| common != text)))
        .collect();
    known.histogram = histogram(array, &rare)?;
    Ok(known)
}

fn part(one: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { one as f64 / of as f64 }
}

fn texts(column: &ColumnDef, array: &ArrayRef) -> Result<Vec<Option<String>>> {
    let encoder = ColumnEncoder::new(array, &column.ty)?;
    let mut texts = Vec::with_capacity(array.len());
    let mut buffer = BytesMut::new();
    for row in 0..array.len() {
        if encoder.is_null(row) {
            texts.push(None);
            continue;
        }
        buffer.clear();
        encoder.text(row, &mut buffer)?;
        texts.push(Some(String::from_utf8_lossy(&buffer).into_owned()));
    }
    Ok(texts)
}

/// How many distinct values the whole column has, as `pg_stats` tells it: estimated after Haas and Stokes where the
/// sample is not all of it.
fn distinct(counts: &HashMap<&str, usize>, present: usize, null_frac: f64, rows: u64) -> f64 {
    let (sampled, found) = (present as f64, counts.len() as f64);
    let once = counts.values().filter(|count| **count == 1).count() as f64;
    let total = rows as f64 * (1.0 - null_frac);
    let estimate = if once >= sampled {
        return -(1.0 - null_frac);
    } else {
        (sampled * found / (sampled - once + once * sampled / total.max(1.0))).clamp(found, total.max(found))
    };
    // What grows with the table is a part of it.
    if estimate > 0.1 * rows as f64 { -(estimate / rows as f64) } else { estimate.round() }
}

/// The values that stand out, the most common first.
fn common<'a>(counts: &HashMap<&'a str, usize>, present: usize, distinct: f64) -> Vec<(&'a str, usize)> {
    let mut common: Vec<(&str, usize)> = counts.iter().map(|(text, count)| (*text, *count)).collect();
    common.sort_by(|(text, count), (other, than)| than.cmp(count).then_with(|| text.cmp(other)));
    // A quarter more than the average, unless all values there are were seen, and fit.
    let every = common.len() <= TARGET
        && u32::try_from(common.len()).is_ok_and(|seen| f64::from(seen) >= distinct && distinct > 0.0);
    let least = (present * 5).div_ceil(counts.len().max(1) * 4).max(2);
    common.retain(|(_, count)| every || *count >= least);
    common.truncate(TARGET);
    common
}

/// Values that divide those that are left into equal parts, in their own order.
fn histogram(array: &ArrayRef, rare: &[Option<&str>]) -> Result<Vec<String>> {
    let ordered = array.data_type().is_primitive()
        || matches!(array.data_type(), DataType::Utf8 | DataType::Boolean | DataType::FixedSizeBinary(_));
    if !ordered || rare.iter().flatten().count() < 2 {
        return Ok(Vec::new());
    }
    let order = sort_to_indices(array, None, None).map_err(arrow_error)?;
    let sorted: Vec<&str> = order.values().iter().filter_map(|at| rare[*at as usize]).collect();
    let parts = TARGET.min(sorted.len() - 1);
    Ok((0..=parts).map(|bound| sorted[bound * (sorted.len() - 1) / parts].to_owned()).collect())
}
