//! Kernels for AVX-512F: sixteen elements an instruction, four running sums, the tail by a masked load.
//!
//! Four sums cover the latency of a fused multiply-add (4 cycles) at the one a cycle that two loads allow.

use std::arch::x86_64::{
    __m512, _mm256_loadu_si256, _mm512_abs_ps, _mm512_add_ps, _mm512_cvtph_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

use half::f16;

use super::{Kernels, RowKernels};

/// Elements of a register.
const WIDTH: usize = 16;

pub(super) static KERNELS: Kernels =
    Kernels { name: "avx512f", single: for_rows(), half: for_rows(), cosine };

const fn for_rows<R: Row>() -> RowKernels<R> {
    RowKernels { l2_squared: l2_squared::<R>, dot: dot::<R>, l1: l1::<R>, dot_norm: dot_norm::<R> }
}

/// Elements that are `f32` once they are in a register.
trait Row: Copy {
    /// Sixteen of them.
    ///
    /// # Safety
    /// They can be read, and the CPU has AVX-512F.
    unsafe fn load(from: *const Self) -> __m512;

    /// `count` of them, fewer than sixteen, and zeros.
    ///
    /// # Safety
    /// They can be read, and the CPU has AVX-512F.
    unsafe fn load_some(from: *const Self, count: usize) -> __m512;
}

impl Row for f32 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_some(from: *const Self, count: usize) -> __m512 {
        let mask = (1u16 << count) - 1;
        // SAFETY: the mask reads `count` elements, which the caller promises.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Row for f16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise: sixteen elements of two bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    /// A masked load of 16-bit elements needs AVX-512BW; a copy does without.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_some(from: *const Self, count: usize) -> __m512 {
        let mut some = [Self::ZERO; WIDTH];
        // SAFETY: the caller promises `count` elements; the slice below is bounded by the array's own length.
        let given = unsafe { std::slice::from_raw_parts(from, count) };
        some[..count].copy_from_slice(given);
        // SAFETY: the array has sixteen elements of two bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(some.as_ptr().cast())) }
    }
}

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
            // SAFETY: `len - at` elements are left in both, fewer than `WIDTH` as the loop above has ended.
            let ($x, $y) = unsafe {
                (
                    Row::load_some($a.as_ptr().add(at), len - at),
                    Row::load_some($b.as_ptr().add(at), len - at),
                )
            };
            let $lane = 1;
            $step;
        }
    }};
    (@load $index:literal, $a:ident, $b:ident, $at:expr, |$lane:ident, $x:ident, $y:ident| $step:expr) => {{
        // SAFETY: the loop's condition leaves at least `WIDTH` elements from here on in both.
        let ($x, $y) = unsafe { (Row::load($a.as_ptr().add($at)), Row::load($b.as_ptr().add($at))) };
        let $lane = $index;
        $step;
    }};
}

#[target_feature(enable = "avx512f")]
fn l2_squared<R: Row>(a: &[f32], b: &[R]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| {
        let difference = _mm512_sub_ps(x, y);
        sums[lane] = _mm512_fmadd_ps(difference, difference, sums[lane]);
    });
    total(sums)
}

#[target_feature(enable = "avx512f")]
fn dot<R: Row>(a: &[f32], b: &[R]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| sums[lane] = _mm512_fmadd_ps(x, y, sums[lane]));
    total(sums)
}

#[target_feature(enable = "avx512f")]
fn l1<R: Row>(a: &[f32], b: &[R]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| {
        sums[lane] = _mm512_add_ps(sums[lane], _mm512_abs_ps(_mm512_sub_ps(x, y)));
    });
    total(sums)
}

#[target_feature(enable = "avx512f")]
fn dot_norm<R: Row>(a: &[f32], b: &[R]) -> (f32, f32) {
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
