//! Kernels in plain Rust: for machines without AVX2 or NEON, and the measure that the others are tested against.
//!
//! Sixteen running sums instead of one: the additions do not wait for each other, and the compiler turns them
//! into whatever vectors the target's baseline has (SSE2).

use half::f16;

use super::{Kernels, RowKernels};

const LANES: usize = 16;

pub(super) static KERNELS: Kernels = Kernels { name: "scalar", single: for_rows(), half: for_rows(), cosine };

const fn for_rows<E: Element>() -> RowKernels<E> {
    RowKernels { l2_squared: l2_squared::<E>, dot: dot::<E>, l1: l1::<E>, dot_norm: dot_norm::<E> }
}

/// Elements that every `f32` kernel can read.
trait Element: Copy {
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for f16 {
    /// In plain arithmetic: `to_f32` asks the CPU what it can do, for every element.
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32_const()
    }
}

fn l2_squared<E: Element>(a: &[f32], b: &[E]) -> f32 {
    sum(a, b, |x, y| (x - y) * (x - y))
}

fn dot<E: Element>(a: &[f32], b: &[E]) -> f32 {
    sum(a, b, |x, y| x * y)
}

fn l1<E: Element>(a: &[f32], b: &[E]) -> f32 {
    sum(a, b, |x, y| (x - y).abs())
}

/// Two passes: the row is in L1 after the first, and the sums then are those of [`dot`] to the bit.
fn dot_norm<E: Element>(a: &[f32], b: &[E]) -> (f32, f32) {
    let b = &b[..a.len().min(b.len())];
    (dot(a, b), sum(b, b, |x, y| x * y))
}

fn cosine(a: &[f32], b: &[f32]) -> (f32, f32, f32) {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    (dot(a, b), dot(a, a), dot(b, b))
}

#[inline(always)]
fn sum<A: Element, B: Element>(a: &[A], b: &[B], term: impl Fn(f32, f32) -> f32) -> f32 {
    let len = a.len().min(b.len());
    let (a, tail_a) = a[..len].as_chunks::<LANES>();
    let (b, tail_b) = b[..len].as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane].widen(), y[lane].widen());
        }
    }
    for (lane, (x, y)) in tail_a.iter().zip(tail_b).enumerate() {
        sums[lane] += term(x.widen(), y.widen());
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
