//! Rows as FAISS may see them, and the sample of them that it trains on. Used by `ivf` and by this module's build.

use sepal_types::Metric;

use crate::{BuildParams, IndexError, distance};

/// Magnitudes whose squares `f32` holds, summed over 16,000 dimensions, with room to spare.
pub(super) const SAFE_MAGNITUDES: std::ops::RangeInclusive<f32> = 1e-15..=1e15;
/// Sampled rows a list. pgvector takes 50; recall does not rise past that, and the time does.
const SAMPLE_PER_LIST: usize = 64;
/// Bytes that a sample may take unless the lists alone need more.
const SAMPLE_BYTES: usize = 1 << 30;

/// The indexed rows: finite, with squares that fit `f32`, of length one for cosine.
pub(crate) struct Rows<'a> {
    pub(crate) params: &'a BuildParams<'a>,
    pub(crate) positions: &'a [u32],
    /// Every element is multiplied by this; 1 unless magnitudes are extreme.
    pub(crate) scale: f32,
}

impl<'a> Rows<'a> {
    /// # Errors
    /// NaN or infinity in a row is [`IndexError::Shape`].
    pub(crate) fn new(params: &'a BuildParams<'a>, positions: &'a [u32]) -> Result<Self, IndexError> {
        let mut largest = 0.0f32;
        for position in positions {
            let magnitude = largest_magnitude(params.vector(*position as usize));
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
    pub(crate) fn gather(&self, indices: impl Iterator<Item = usize>, out: &mut Vec<f32>) {
        for index in indices {
            let row = self.params.vector(self.positions[index] as usize);
            prepare(self.params.metric, self.scale, row, out);
        }
    }

    /// What `lists` cells are trained on, and no fewer than `least` rows if there are so many: `size × dim`.
    pub(crate) fn sample(&self, lists: usize, least: usize) -> Vec<f32> {
        let (dim, rows) = (self.params.dim, self.positions.len());
        let size = sample_rows(lists, least, rows, dim);
        let mut sample = Vec::with_capacity(size * dim);
        self.gather(stratified(rows, size), &mut sample);
        sample
    }
}

/// How many rows a sample of so many has.
pub(crate) fn sample_rows(lists: usize, least: usize, rows: usize, dim: usize) -> usize {
    let affordable = (SAMPLE_BYTES / (dim.max(1) * size_of::<f32>())).max(lists);
    (lists * SAMPLE_PER_LIST).max(least).min(affordable).min(rows)
}

/// Appends a row, or a query that has a direction, as FAISS may see it.
pub(super) fn prepare(metric: Metric, scale: f32, vector: &[f32], out: &mut Vec<f32>) {
    if metric == Metric::Cosine {
        let norm = distance::norm(vector);
        out.extend(vector.iter().map(|value| (f64::from(*value) / norm) as f32));
    } else {
        out.extend(vector.iter().map(|value| value * scale));
    }
}

/// The greatest of the elements without their sign; NaN or infinity if there is one.
pub(super) fn largest_magnitude(vector: &[f32]) -> f32 {
    // Without their sign, floats order as their bits do, NaN and infinity last.
    let bits = vector.iter().fold(0, |largest, value| (value.to_bits() & !(1 << 31)).max(largest));
    f32::from_bits(bits)
}

/// `size` different indices below `rows`, ascending: one drawn at random from each of `size` equal stretches,
/// so that rows inserted in batches of one kind are all represented. The seed is fixed: the same rows give
/// the same index.
pub(crate) fn stratified(rows: usize, size: usize) -> impl Iterator<Item = usize> {
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
    fn the_largest_magnitude_has_no_sign() {
        assert_eq!(largest_magnitude(&[1.0, -3.0, 2.0]), 3.0);
        assert_eq!(largest_magnitude(&[]), 0.0);
        assert!(largest_magnitude(&[1.0, f32::NEG_INFINITY]).is_infinite());
        assert!(largest_magnitude(&[f32::NAN, f32::INFINITY]).is_nan());
    }
}
