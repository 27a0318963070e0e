//! Kernels in plain Rust: for machines without AVX2, and the measure that the others are tested against.
//!
//! Sixteen running sums instead of one: the additions do not wait for each other, and the compiler turns them
//! into whatever vectors the target's baseline has (SSE2, NEON).

use super::Kernels;

const LANES: usize = 16;

pub(super) static KERNELS: Kernels = Kernels { name: "scalar", l2_squared, dot, l1, dot_norm, cosine };

fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |x, y| (x - y) * (x - y))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |x, y| x * y)
}

fn l1(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |x, y| (x - y).abs())
}

/// Two passes: the row is in L1 after the first, and the sums then are those of [`dot`] to the bit.
fn dot_norm(a: &[f32], b: &[f32]) -> (f32, f32) {
    let b = &b[..a.len().min(b.len())];
    (dot(a, b), dot(b, b))
}

fn cosine(a: &[f32], b: &[f32]) -> (f32, f32, f32) {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    (dot(a, b), dot(a, a), dot(b, b))
}

#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let len = a.len().min(b.len());
    let (a, tail_a) = a[..len].as_chunks::<LANES>();
    let (b, tail_b) = b[..len].as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    for (lane, (x, y)) in tail_a.iter().zip(tail_b).enumerate() {
        sums[lane] += term(*x, *y);
    }
    // Halving keeps the rounding error of the last step at four additions.
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}
