//! Dividing the rows into cells: sample, train, assign, list, and encode.

use sepal_types::Metric;

use super::{IvfFlat, cell_metric};
use crate::faiss::{Rows, cells, sample_rows, sys};
use crate::quantize::{Codes, Width};
use crate::{BuildParams, IndexError};

/// Sampled rows at least, as in pgvector.
const SAMPLE_LEAST: usize = 10_000;
/// Bytes of rows assigned in one call: large for BLAS, small beside the segment, and often enough for
/// progress.
const BATCH_BYTES: usize = 16 << 20;

impl IvfFlat {
    /// `lists` is brought into 1 to the number of indexed rows: pgvector makes empty cells there, which no
    /// search would profit from.
    ///
    /// # Errors
    /// L1 is [`IndexError::UnsupportedMetric`]; NaN or infinity in a valid row is [`IndexError::Shape`].
    pub(crate) fn build(lists: u32, params: &BuildParams) -> Result<Self, IndexError> {
        if params.metric == Metric::L1 {
            return Err(IndexError::UnsupportedMetric { method: "ivfflat", metric: params.metric });
        }
        let positions: Vec<u32> = params.indexable().iter().map(|position| position as u32).collect();
        let shape = (params.rows(), params.dim);
        if positions.is_empty() {
            return Ok(Self::new(params.metric, shape, Vec::new(), vec![0], positions));
        }
        let rows = Rows::new(params, &positions)?;
        let lists = (lists.max(1) as usize).min(positions.len());
        let (centroids, cells) = sys::on_build_thread(params.threads, params.cancelled, || {
            let sample = rows.sample(lists, SAMPLE_LEAST);
            let (quantizer, centroids) = cells::train(&rows, &sample, lists, cell_metric(params.metric))?;
            drop(sample);
            Ok((centroids, assign(&rows, &quantizer, lists)?))
        })?;
        let centroids = centroids.into_iter().map(|value| value / rows.scale).collect();
        let (offsets, positions) = group(&positions, &cells, lists);
        let mut index = Self::new(params.metric, shape, centroids, offsets, positions);
        // FAISS' turn is over: other builds may have theirs meanwhile.
        index.make_codes(params)?;
        params.report(params.rows())?;
        Ok(index)
    }

    /// What a build takes at most: the sample or, after it, the codes; the centroids (FAISS's, ours and the next ones);
    /// each row's cell and positions.
    pub(crate) fn build_bytes(metric: Metric, lists: u32, rows: usize, dim: usize) -> u64 {
        let vector = dim * size_of::<f32>();
        let lists = (lists.max(1) as usize).min(rows);
        let sample = sample_rows(lists, SAMPLE_LEAST, rows, dim) * vector;
        // Those that are made if need be: one after the other, the wider ones last.
        let widths = [Width::Four, Width::Eight].into_iter();
        let worthwhile = widths.filter(|width| Codes::worthwhile(metric, dim, *width));
        let codes = worthwhile.map(|width| rows * Codes::bytes_per_code(dim, width)).max().unwrap_or(0);
        (sample.max(codes) + 3 * lists * vector + 16 * rows + BATCH_BYTES) as u64
    }
}

/// Each row's cell, in the order of `rows.positions`.
fn assign(rows: &Rows, quantizer: &sys::Quantizer, lists: usize) -> Result<Vec<u32>, IndexError> {
    let params = rows.params;
    let batch = (BATCH_BYTES / (params.dim * size_of::<f32>())).max(256);
    let mut cells = Vec::with_capacity(rows.positions.len());
    let mut buffer = Vec::with_capacity(batch.min(rows.positions.len()) * params.dim);
    let mut labels = Vec::new();
    while cells.len() < rows.positions.len() {
        params.report(cells.len())?;
        let end = (cells.len() + batch).min(rows.positions.len());
        buffer.clear();
        rows.gather(cells.len()..end, &mut buffer);
        labels.clear();
        labels.resize(end - cells.len(), 0);
        quantizer.assign(&buffer, &mut labels)?;
        // A row that FAISS could not place is found all the same when it is in some list.
        let place =
            |label: &i64| u32::try_from(*label).ok().filter(|cell| (*cell as usize) < lists).unwrap_or(0);
        cells.extend(labels.iter().map(place));
    }
    Ok(cells)
}

/// Rows by cell, ascending within each: a counting sort. Returns the offsets and the positions.
fn group(positions: &[u32], cells: &[u32], lists: usize) -> (Vec<u32>, Vec<u32>) {
    let mut offsets = vec![0u32; lists + 1];
    for cell in cells {
        offsets[*cell as usize + 1] += 1;
    }
    for list in 0..lists {
        offsets[list + 1] += offsets[list];
    }
    let mut next = offsets.clone();
    let mut grouped = vec![0; positions.len()];
    for (position, cell) in positions.iter().zip(cells) {
        let slot = &mut next[*cell as usize];
        grouped[*slot as usize] = *position;
        *slot += 1;
    }
    (offsets, grouped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouping_keeps_every_row_once() {
        let (offsets, positions) = group(&[3, 5, 8, 9, 11], &[2, 0, 2, 2, 0], 4);
        assert_eq!(offsets, [0, 2, 2, 5, 5]);
        assert_eq!(positions, [5, 11, 3, 8, 9]);
    }
}
