//! Dividing the rows into cells: sample, train, assign, and list.

use sepal_types::Metric;

use super::{IvfFlat, cell_metric, sys};
use crate::{BuildParams, IndexError, distance};

/// k-means iterations: FAISS's number for inverted files (`Level1Quantizer`, `cp.niter = 10`).
const ITERATIONS: usize = 10;
/// Sampled rows a list. pgvector takes 50; recall does not rise past that, and the time does.
const SAMPLE_PER_LIST: usize = 64;
/// Sampled rows at least, as in pgvector.
const SAMPLE_LEAST: usize = 10_000;
/// Bytes that a sample may take unless the lists alone need more.
const SAMPLE_BYTES: usize = 1 << 30;
/// Bytes of rows assigned in one call: large for BLAS, small beside the segment, and often enough for
/// progress.
const BATCH_BYTES: usize = 16 << 20;
/// Magnitudes whose squares `f32` holds, summed over 16,000 dimensions, with room to spare.
const SAFE_MAGNITUDES: std::ops::RangeInclusive<f32> = 1e-15..=1e15;

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
            let (quantizer, centroids) = train(&rows, lists)?;
            Ok((centroids, assign(&rows, &quantizer, lists)?))
        })?;
        let (offsets, positions) = group(&positions, &cells, lists);
        Ok(Self::new(params.metric, shape, centroids, offsets, positions))
    }
}

impl IvfFlat {
    /// What a build takes: the sample, the centroids (FAISS's, ours and the next ones), and each row's cell and
    /// position.
    pub(crate) fn build_bytes(lists: u32, rows: usize, dim: usize) -> u64 {
        let vector = dim * size_of::<f32>();
        let lists = (lists.max(1) as usize).min(rows);
        let sample =
            (lists * SAMPLE_PER_LIST).max(SAMPLE_LEAST).min((SAMPLE_BYTES / vector.max(1)).max(lists));
        ((sample.min(rows) + 3 * lists) * vector + 16 * rows + BATCH_BYTES) as u64
    }
}

/// The centroids, searchable and as `lists × dim` floats in the rows' own scale.
fn train(rows: &Rows, lists: usize) -> Result<(sys::Quantizer, Vec<f32>), IndexError> {
    let (params, metric) = (rows.params, cell_metric(rows.params.metric));
    let affordable = (SAMPLE_BYTES / (params.dim * size_of::<f32>())).max(lists);
    let size = (lists * SAMPLE_PER_LIST).max(SAMPLE_LEAST).min(affordable).min(rows.positions.len());
    let mut sample = Vec::with_capacity(size * params.dim);
    rows.gather(stratified(rows.positions.len(), size), &mut sample);

    let mut quantizer = sys::Quantizer::new(params.dim, metric)?;
    let mut kmeans = sys::KMeans::new(params.dim, lists, metric == Metric::InnerProduct)?;
    for _ in 0..ITERATIONS {
        params.report(0)?;
        kmeans.iterate(&sample, &mut quantizer)?;
    }
    let centroids: Vec<f32> = kmeans.centroids().iter().map(|value| value / rows.scale).collect();
    if centroids.len() != lists * params.dim {
        let message = format!("{} floats for {lists} centroids of {}", centroids.len(), params.dim);
        return Err(IndexError::Faiss { operation: "train cells", code: 0, message });
    }
    Ok((quantizer, centroids))
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
    params.report(params.rows())?;
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

/// The indexed rows as FAISS may see them: finite, with squares that fit `f32`, of length one for cosine.
struct Rows<'a> {
    params: &'a BuildParams<'a>,
    positions: &'a [u32],
    /// Every element is multiplied by this; 1 unless magnitudes are extreme.
    scale: f32,
}

impl<'a> Rows<'a> {
    fn new(params: &'a BuildParams<'a>, positions: &'a [u32]) -> Result<Self, IndexError> {
        let mut largest = 0.0f32;
        for position in positions {
            // Without their sign, floats order as their bits do, NaN and infinity last.
            let bits = params.vector(*position as usize).iter().fold(0, |largest, value| {
                let magnitude = value.to_bits() & !(1 << 31);
                magnitude.max(largest)
            });
            let magnitude = f32::from_bits(bits);
            if !magnitude.is_finite() {
                return Err(IndexError::Shape(format!(
                    "row {position} holds {magnitude}; vectors are checked when they are inserted"
                )));
            }
            largest = largest.max(magnitude);
        }
        let as_they_are = params.metric == Metric::Cosine
            || SAFE_MAGNITUDES.contains(&largest)
            || largest < f32::MIN_POSITIVE;
        Ok(Self { params, positions, scale: if as_they_are { 1.0 } else { 1.0 / largest } })
    }

    /// Appends the rows whose indices into `positions` are given.
    fn gather(&self, indices: impl Iterator<Item = usize>, out: &mut Vec<f32>) {
        for index in indices {
            let row = self.params.vector(self.positions[index] as usize);
            if self.params.metric == Metric::Cosine {
                let norm = distance::norm(row);
                out.extend(row.iter().map(|value| (f64::from(*value) / norm) as f32));
            } else {
                out.extend(row.iter().map(|value| value * self.scale));
            }
        }
    }
}

/// `size` different indices below `rows`, ascending: one drawn at random from each of `size` equal stretches,
/// so that rows inserted in batches of one kind are all represented. The seed is fixed: the same rows give
/// the same index.
fn stratified(rows: usize, size: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x5eed_u64;
    (0..size).map(move |stretch| {
        // Steele et al., "Fast splittable pseudorandom number generators" (2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let random = mixed ^ (mixed >> 31);
        let (start, end) = (stretch * rows / size, (stretch + 1) * rows / size);
        start + (random % (end - start) as u64) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strata_are_different_rows_in_order() {
        for (rows, size) in [(1, 1), (10, 10), (1000, 7), (1001, 1000)] {
            let drawn: Vec<usize> = stratified(rows, size).collect();
            assert_eq!(drawn.len(), size);
            assert!(drawn.is_sorted_by(|a, b| a < b) && drawn.iter().all(|index| *index < rows));
        }
    }

    #[test]
    fn grouping_keeps_every_row_once() {
        let (offsets, positions) = group(&[3, 5, 8, 9, 11], &[2, 0, 2, 2, 0], 4);
        assert_eq!(offsets, [0, 2, 2, 5, 5]);
        assert_eq!(positions, [5, 11, 3, 8, 9]);
    }
}
