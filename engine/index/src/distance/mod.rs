//! Distances between vectors, with pgvector's meaning and at the speed of the machine.
//!
//! Called by every search, by the builders, and by SQL for `<->`, `<#>`, `<=>` and `<+>`. The kernels sum in
//! `f32` as pgvector does (`src/vector.c`); the last step (root, sign, quotient) is in `f64`. Rows of `f16` are
//! widened in registers and summed in the same order, so that their distances are those of the widened rows to the
//! bit.
//!
//! Which kernels run is decided once, at the first call: AVX-512, else AVX2 with FMA, or NEON, else plain Rust. All
//! ways to the same distance ([`distance`], [`distances`], [`Scorer`]) use the same kernels with the same
//! order of additions, so a row has one distance, whichever way it was found.
//!
//! Never checks for NaN or infinity: `sepal_types::check_finite` does, when a vector enters.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bits;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod sparse;

use std::borrow::Cow;
use std::sync::OnceLock;

use half::f16;
use sepal_types::Metric;

use crate::Vectors;
use crate::prefetch::prefetch_lines;
use crate::vectors::with_halves;

pub use bits::{hamming, jaccard};
pub use sparse::{sparse_distance, sparse_l2_squared};

/// The distance from `a` to `b`: Euclidean, negated inner product, taxicab, or one minus the cosine. The
/// cosine is clamped to [-1, 1] and the distance is NaN when a vector has length zero.
///
/// # Panics
/// When the lengths differ; SQL has refused that before (`different vector dimensions 3 and 4`).
pub fn distance<'b>(metric: Metric, a: &[f32], b: impl Into<Vectors<'b>>) -> f64 {
    let b = b.into();
    assert_eq!(a.len(), b.len(), "distance between vectors of different dimensions");
    match b {
        Vectors::F32(b) => kernels().distance(metric, a, b),
        Vectors::F16(_) | Vectors::Rounded(_) => {
            let scorer = Scorer::new(metric, a);
            scorer.finish(scorer.score(b))
        }
    }
}

/// The distances from `query` to each of the `out.len() × query.len()` elements' rows.
///
/// # Panics
/// When `vectors` is not `out.len()` rows of the query's length.
pub fn distances<'v>(metric: Metric, query: &[f32], vectors: impl Into<Vectors<'v>>, out: &mut [f64]) {
    let vectors = vectors.into();
    assert_eq!(vectors.len(), query.len() * out.len(), "one distance a row");
    if query.is_empty() {
        out.fill(distance(metric, query, query));
        return;
    }
    let scorer = Scorer::new(metric, query);
    for (position, out) in out.iter_mut().enumerate() {
        *out = scorer.finish(scorer.score(vectors.row(position, query.len())));
    }
}

/// Which kernels this machine runs: `avx512f`, `avx2+fma`, `neon` or `scalar`.
pub fn kernel_level() -> &'static str {
    kernels().name
}

/// One of the ways to a distance that this machine has. For measuring them against each other: all else calls
/// [`distance`], which takes the fastest.
#[derive(Clone, Copy)]
pub struct KernelLevel(&'static Kernels);

impl KernelLevel {
    /// Fastest first; the last one is plain Rust.
    pub fn available() -> impl Iterator<Item = KernelLevel> {
        available().map(KernelLevel)
    }

    /// As in [`kernel_level`].
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// As [`distance`].
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn distance(self, metric: Metric, a: &[f32], b: &[f32]) -> f64 {
        assert_eq!(a.len(), b.len(), "distance between vectors of different dimensions");
        self.0.distance(metric, a, b)
    }
}

/// One query against many rows. A score orders rows as the distance does but leaves the last monotone step
/// (the root) for those that are kept.
pub(crate) struct Scorer<'q> {
    metric: Metric,
    query: Cow<'q, [f32]>,
    /// The query's squared length, for cosine.
    norm: f32,
    kernels: &'static Kernels,
}

impl<'q> Scorer<'q> {
    pub(crate) fn new(metric: Metric, query: impl Into<Cow<'q, [f32]>>) -> Self {
        let (query, kernels) = (query.into(), kernels());
        let norm = if metric == Metric::Cosine { kernels.single.dot(&query, &query) } else { 0.0 };
        Self { metric, query, norm, kernels }
    }

    /// `row` has the query's length; smaller is nearer.
    #[inline]
    pub(crate) fn score<'r>(&self, row: impl Into<Vectors<'r>>) -> f64 {
        match row.into() {
            Vectors::F32(row) => self.score_by(&self.kernels.single, row),
            Vectors::F16(row) => self.score_by(&self.kernels.half, row),
            Vectors::Rounded(row) => with_halves(row, |row| self.score_by(&self.kernels.half, row)),
        }
    }

    #[inline]
    fn score_by<E>(&self, kernels: &RowKernels<E>, row: &[E]) -> f64 {
        match self.metric {
            Metric::L2 => f64::from(kernels.l2_squared(&self.query, row)),
            Metric::InnerProduct => plain_nan(-f64::from(kernels.dot(&self.query, row))),
            Metric::L1 => f64::from(kernels.l1(&self.query, row)),
            Metric::Cosine => {
                let (dot, norm) = kernels.dot_norm(&self.query, row);
                cosine_distance(dot, self.norm, norm)
            }
        }
    }

    /// A score as a distance.
    #[inline]
    pub(crate) fn finish(&self, score: f64) -> f64 {
        if self.metric == Metric::L2 { score.sqrt() } else { score }
    }
}

/// Whether a cosine with this vector is a number: its squared length is not zero in `f32`.
pub(crate) fn has_direction(vector: &[f32]) -> bool {
    kernels().single.dot(vector, vector) > 0.0
}

/// Euclidean length. In `f64` where the squares leave `f32`, so that 1e30 and 1e-30 have one too.
pub(crate) fn norm(vector: &[f32]) -> f64 {
    let squared = kernels().single.dot(vector, vector);
    if squared.is_normal() {
        return f64::from(squared).sqrt();
    }
    vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt()
}

/// Asks for a row that will be read soon. Rows of a filtered or listed scan lie far apart, where the hardware
/// does not guess them.
#[inline]
pub(crate) fn prefetch<'r>(row: impl Into<Vectors<'r>>) {
    match row.into() {
        Vectors::F32(row) | Vectors::Rounded(row) => prefetch_lines(row, usize::MAX),
        Vectors::F16(row) => prefetch_lines(row, usize::MAX),
    }
}

/// pgvector's `cosine_distance`: the product of the squared lengths and the quotient are in `f64`.
#[inline]
fn cosine_distance(dot: f32, norm_a: f32, norm_b: f32) -> f64 {
    let similarity = f64::from(dot) / (f64::from(norm_a) * f64::from(norm_b)).sqrt();
    plain_nan(1.0 - similarity.clamp(-1.0, 1.0))
}

/// x86 gives 0/0 a sign bit, which a total order would sort before all numbers; Postgres sorts NaN last.
#[inline]
fn plain_nan(distance: f64) -> f64 {
    if distance.is_nan() { f64::NAN } else { distance }
}

type Sum<E> = unsafe fn(&[f32], &[E]) -> f32;
type Sums2<E> = unsafe fn(&[f32], &[E]) -> (f32, f32);
type Sums3 = unsafe fn(&[f32], &[f32]) -> (f32, f32, f32);

/// One instruction set's kernels. All read `min(a.len(), b.len())` elements.
///
/// The fields are private to this module, and a table other than `SCALAR` is handed out only by `available`,
/// once the CPU was asked: holding a `&Kernels` means the machine has what its functions need.
struct Kernels {
    name: &'static str,
    /// For rows of `f32`.
    single: RowKernels<f32>,
    /// For rows of `f16`.
    half: RowKernels<f16>,
    /// Σ ab, Σ a², Σ b²
    cosine: Sums3,
}

/// Those for rows of one type; lives in a [`Kernels`] only.
struct RowKernels<E> {
    /// Σ (a-b)²
    l2_squared: Sum<E>,
    /// Σ ab
    dot: Sum<E>,
    /// Σ |a-b|
    l1: Sum<E>,
    /// Σ ab, Σ b²: the cosine of a query whose length is known.
    dot_norm: Sums2<E>,
}

impl Kernels {
    #[inline]
    fn distance(&self, metric: Metric, a: &[f32], b: &[f32]) -> f64 {
        match metric {
            Metric::L2 => f64::from(self.single.l2_squared(a, b)).sqrt(),
            Metric::InnerProduct => plain_nan(-f64::from(self.single.dot(a, b))),
            Metric::L1 => f64::from(self.single.l1(a, b)),
            Metric::Cosine => {
                let (dot, norm_a, norm_b) = self.cosine(a, b);
                cosine_distance(dot, norm_a, norm_b)
            }
        }
    }

    #[inline]
    fn cosine(&self, a: &[f32], b: &[f32]) -> (f32, f32, f32) {
        // SAFETY: the type's invariant: the CPU has this table's features.
        unsafe { (self.cosine)(a, b) }
    }
}

impl<E> RowKernels<E> {
    #[inline]
    fn l2_squared(&self, a: &[f32], b: &[E]) -> f32 {
        // SAFETY: the invariant of `Kernels`, which this is a part of: the CPU has the table's features.
        unsafe { (self.l2_squared)(a, b) }
    }

    #[inline]
    fn dot(&self, a: &[f32], b: &[E]) -> f32 {
        // SAFETY: the invariant of `Kernels`.
        unsafe { (self.dot)(a, b) }
    }

    #[inline]
    fn l1(&self, a: &[f32], b: &[E]) -> f32 {
        // SAFETY: the invariant of `Kernels`.
        unsafe { (self.l1)(a, b) }
    }

    #[inline]
    fn dot_norm(&self, a: &[f32], b: &[E]) -> (f32, f32) {
        // SAFETY: the invariant of `Kernels`.
        unsafe { (self.dot_norm)(a, b) }
    }
}

#[inline]
fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available().next().unwrap_or(&scalar::KERNELS))
}

/// The tables that this CPU can run, fastest first.
fn available() -> impl Iterator<Item = &'static Kernels> {
    #[cfg(target_arch = "x86_64")]
    let wide = [
        is_x86_feature_detected!("avx512f").then_some(&avx512::KERNELS),
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(&avx2::KERNELS),
    ];
    #[cfg(target_arch = "aarch64")]
    let wide = [std::arch::is_aarch64_feature_detected!("neon").then_some(&neon::KERNELS)];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let wide: [Option<&'static Kernels>; 0] = [];
    wide.into_iter().flatten().chain(std::iter::once(&scalar::KERNELS))
}

#[cfg(test)]
mod tests;
