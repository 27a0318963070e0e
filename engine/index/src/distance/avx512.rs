//! Kernels for AVX-512F: sixteen elements an instruction, four running sums, the tail by a masked load.
//!
//! Four sums cover the latency of a fused multiply-add (4 cycles) at the one a cycle that two loads allow.

use std::arch::x86_64::{
    __m512, _mm512_abs_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps,
    _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

use super::Kernels;

/// Elements of a register.
const WIDTH: usize = 16;

pub(super) static KERNELS: Kernels = Kernels { name: "avx512f", l2_squared, dot, l1, dot_norm, cosine };

/// Runs `$step` for every sixteen pairs of elements, with `$lane` the running sum to use. A macro and not a
/// closure: `$lane` is a constant in each copy, so the sums stay in registers. The missing elements of the
/// last step are zero in both vectors, which adds nothing to any of the sums.
macro_rules! for_each_pair {
    ($a:ident, $b:ident, |$lane:ident, $x:ident, $y:ident| $step:expr) => {{
        let len = $a.len().min($b.len());
        let mut at = 0;
        while at + 4 * WIDTH <= len {
            for_each_pair!(@load 0, $a, $b, at, |$lane, $x, $y| $step);
            for_each_pair!(@load 1, $a, $b, at + WIDTH, |$lane, $x, $y| $step);
            for_each_pair!(@load 2, $a, $b, at + 2 * WIDTH, |$lane, $x, $y| $step);
            for_each_pair!(@load 3, $a, $b, at + 3 * WIDTH, |$lane, $x, $y| $step);
            at += 4 * WIDTH;
        }
        while at + WIDTH <= len {
            for_each_pair!(@load 0, $a, $b, at, |$lane, $x, $y| $step);
            at += WIDTH;
        }
        if at < len {
            let mask = (1u16 << (len - at)) - 1;
            // SAFETY: the mask reads `len - at` elements, and `at < len <= both lengths`.
            let ($x, $y) = unsafe {
                (
                    _mm512_maskz_loadu_ps(mask, $a.as_ptr().add(at)),
                    _mm512_maskz_loadu_ps(mask, $b.as_ptr().add(at)),
                )
            };
            let $lane = 1;
            $step;
        }
    }};
    (@load $index:literal, $a:ident, $b:ident, $at:expr, |$lane:ident, $x:ident, $y:ident| $step:expr) => {{
        // SAFETY: the loop's condition leaves at least `WIDTH` elements from here on in both.
        let ($x, $y) = unsafe {
            (_mm512_loadu_ps($a.as_ptr().add($at)), _mm512_loadu_ps($b.as_ptr().add($at)))
        };
        let $lane = $index;
        $step;
    }};
}

#[target_feature(enable = "avx512f")]
fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| {
        let difference = _mm512_sub_ps(x, y);
        sums[lane] = _mm512_fmadd_ps(difference, difference, sums[lane]);
    });
    total(sums)
}

#[target_feature(enable = "avx512f")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| sums[lane] = _mm512_fmadd_ps(x, y, sums[lane]));
    total(sums)
}

#[target_feature(enable = "avx512f")]
fn l1(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| {
        sums[lane] = _mm512_add_ps(sums[lane], _mm512_abs_ps(_mm512_sub_ps(x, y)));
    });
    total(sums)
}

#[target_feature(enable = "avx512f")]
fn dot_norm(a: &[f32], b: &[f32]) -> (f32, f32) {
    let (mut dots, mut norms) = (zeros(), zeros());
    for_each_pair!(a, b, |lane, x, y| {
        dots[lane] = _mm512_fmadd_ps(x, y, dots[lane]);
        norms[lane] = _mm512_fmadd_ps(y, y, norms[lane]);
    });
    (total(dots), total(norms))
}

#[target_feature(enable = "avx512f")]
fn cosine(a: &[f32], b: &[f32]) -> (f32, f32, f32) {
    let (mut dots, mut norms_a, mut norms_b) = (zeros(), zeros(), zeros());
    for_each_pair!(a, b, |lane, x, y| {
        dots[lane] = _mm512_fmadd_ps(x, y, dots[lane]);
        norms_a[lane] = _mm512_fmadd_ps(x, x, norms_a[lane]);
        norms_b[lane] = _mm512_fmadd_ps(y, y, norms_b[lane]);
    });
    (total(dots), total(norms_a), total(norms_b))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn zeros() -> [__m512; 4] {
    [_mm512_setzero_ps(); 4]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn total(sums: [__m512; 4]) -> f32 {
    let [first, second, third, fourth] = sums;
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(first, second), _mm512_add_ps(third, fourth)))
}
