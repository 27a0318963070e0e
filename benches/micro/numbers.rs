//! Numbers that are the same in every run: no measurement may depend on luck.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, FixedSizeListArray, Float32Array},
    datatypes::DataType,
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

/// Vectors of one cluster differ by this much of the distance between clusters.
const SPREAD: f32 = 0.5;
const CLUSTERS: usize = 100;

/// Evenly spread over -1 to 1 (SplitMix64).
pub fn uniform(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The upper 24 bits, which a float holds exactly.
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// `rows × dim`, row-major, in clusters as embeddings are. Equal `dim` gives equal clusters for any `seed`.
pub fn clustered(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let centres = uniform(CLUSTERS * dim, 1);
    let mut out = uniform(rows * dim, seed);
    for (row, vector) in out.chunks_exact_mut(dim).enumerate() {
        let cluster = row % CLUSTERS;
        for (value, centre) in vector.iter_mut().zip(&centres[cluster * dim..]) {
            *value = centre + SPREAD * *value;
        }
    }
    out
}

/// A column of type `vector(dim)`.
pub fn vector_array(rows: usize, dim: u16, seed: u64) -> ArrayRef {
    let DataType::FixedSizeList(item, size) = arrow_type(&SqlType::Vector(Some(dim))) else {
        unreachable!("a vector with dimensions is a list of fixed size")
    };
    let values = Float32Array::from(uniform(rows * usize::from(dim), seed));
    Arc::new(FixedSizeListArray::new(item, size, Arc::new(values), None))
}
