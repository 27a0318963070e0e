//! Rows for the tests of `ivf` and `faiss`, and what to build from them.

use sepal_types::Metric;

use crate::{Bits, BuildParams};

/// `rows × dim` around a dozen centres, as embeddings of a dozen topics would lie.
pub(crate) fn topics(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    let centres: Vec<f32> = (0..12 * dim).map(|_| uniform()).collect();
    let mut vectors = Vec::with_capacity(rows * dim);
    for row in 0..rows {
        let centre = &centres[row * 7 % 12 * dim..][..dim];
        vectors.extend(centre.iter().map(|value| value + 0.4 * uniform()));
    }
    vectors
}

/// As `topics`, but that topics overlap: rows that 4 bits an element tell apart.
pub(crate) fn scattered(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let (topics, noise) = (topics(rows, dim, seed), topics(rows, dim, seed + 1));
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    topics.iter().zip(noise).map(|(topic, noise)| 0.3 * topic + 0.3 * noise + uniform()).collect()
}

pub(crate) fn params<'a>(
    metric: Metric,
    dim: usize,
    vectors: &'a [f32],
    valid: Option<&'a Bits>,
) -> BuildParams<'a> {
    BuildParams { metric, dim, vectors, valid, threads: 2, progress: &|_, _| (), cancelled: &|| false }
}
