//! Distance kernels: `sepal_index::distance` and `distances`, each instruction set alone, and a loop as anybody would
//! write it.
//!
//! One query against a block of rows that stays in the second-level cache, so that the kernel is measured and not
//! the memory. An item is a row. `distances` is what a scan calls; it may know the query's length beforehand.

use std::fmt;

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use sepal_index::{KernelLevel, distance, distances};
use sepal_types::Metric;

use crate::numbers::uniform;

const DIMENSIONS: [usize; 4] = [128, 384, 768, 1536];
/// Elements of all rows together: 256 KiB.
const BLOCK: usize = 64 << 10;

struct Case {
    dim: usize,
    way: Way,
}

enum Way {
    /// All rows in one call, by the kernels chosen for this machine.
    Batch,
    /// A call a row, by the same.
    Single,
    /// A call a row, by one instruction set; the one named `scalar` is the reference.
    Level(KernelLevel),
    Naive,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match &self.way {
            Way::Batch => "distances",
            Way::Single => "distance",
            Way::Level(level) => level.name(),
            Way::Naive => "naive",
        };
        write!(f, "{} {way}", self.dim)
    }
}

fn cases() -> Vec<Case> {
    let ways = || {
        let levels = KernelLevel::available().map(Way::Level);
        [Way::Batch, Way::Single, Way::Naive].into_iter().chain(levels)
    };
    DIMENSIONS.into_iter().flat_map(|dim| ways().map(move |way| Case { dim, way })).collect()
}

#[divan::bench(args = cases())]
fn cosine(bencher: Bencher, case: &Case) {
    measure(bencher, Metric::Cosine, case, |a, b| {
        let (mut dot, mut norm_a, mut norm_b) = (0f32, 0f32, 0f32);
        for (x, y) in a.iter().zip(b) {
            dot += x * y;
            norm_a += x * x;
            norm_b += y * y;
        }
        1.0 - f64::from(dot) / (f64::from(norm_a) * f64::from(norm_b)).sqrt()
    });
}

#[divan::bench(args = cases())]
fn inner_product(bencher: Bencher, case: &Case) {
    measure(bencher, Metric::InnerProduct, case, |a, b| {
        -f64::from(a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>())
    });
}

#[divan::bench(args = cases())]
fn l1(bencher: Bencher, case: &Case) {
    measure(bencher, Metric::L1, case, |a, b| {
        f64::from(a.iter().zip(b).map(|(x, y)| (x - y).abs()).sum::<f32>())
    });
}

#[divan::bench(args = cases())]
fn l2(bencher: Bencher, case: &Case) {
    measure(bencher, Metric::L2, case, |a, b| {
        f64::from(a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f32>()).sqrt()
    });
}

fn measure(bencher: Bencher, metric: Metric, case: &Case, naive: impl Fn(&[f32], &[f32]) -> f64) {
    match case.way {
        Way::Batch => {
            let (query, vectors, mut out) = block(case.dim);
            counted(bencher, &vectors, case.dim).bench_local(|| {
                distances(metric, black_box(query.as_slice()), black_box(vectors.as_slice()), &mut out);
                black_box(&mut out);
            });
        }
        Way::Single => row_by_row(bencher, case.dim, |a, b| distance(metric, a, b)),
        Way::Level(level) => row_by_row(bencher, case.dim, |a, b| level.distance(metric, a, b)),
        Way::Naive => row_by_row(bencher, case.dim, naive),
    }
}

fn row_by_row(bencher: Bencher, dim: usize, distance: impl Fn(&[f32], &[f32]) -> f64) {
    let (query, vectors, mut out) = block(dim);
    counted(bencher, &vectors, dim).bench_local(|| {
        let (query, vectors) = (black_box(query.as_slice()), black_box(vectors.as_slice()));
        for (row, out) in vectors.chunks_exact(dim).zip(&mut out) {
            *out = distance(query, row);
        }
        black_box(&mut out);
    });
}

/// A query, rows, and room for their distances.
fn block(dim: usize) -> (Vec<f32>, Vec<f32>, Vec<f64>) {
    let rows = BLOCK / dim;
    (uniform(dim, 1), uniform(rows * dim, 2), vec![0.0; rows])
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, vectors: &[f32], dim: usize) -> Bencher<'a, 'b> {
    bencher.counter(ItemsCount::new(vectors.len() / dim)).counter(BytesCount::new(size_of_val(vectors)))
}
