//! Kernels for AVX2 with FMA and F16C, which come together: eight elements an instruction, four running sums, the tail
//! by a masked load.

use std::arch::x86_64::{
    __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadu_si128, _mm_movehdup_ps, _mm_movehl_ps,
    _mm256_add_ps, _mm256_andnot_ps, _mm256_castps256_ps128, _mm256_cvtph_ps, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_maskload_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_sub_ps,
};

use half::f16;

use super::{Kernels, RowKernels};

/// Elements of a register.
const WIDTH: usize = 8;
/// Eight words from `WIDTH - n` on select the first `n` elements.
const MASKS: [i32; 2 * WIDTH] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

pub(super) static KERNELS: Kernels =
    Kernels { name: "avx2+fma", single: for_rows(), half: for_rows(), cosine };

const fn for_rows<R: Row>() -> RowKernels<R> {
    RowKernels { l2_squared: l2_squared::<R>, dot: dot::<R>, l1: l1::<R>, dot_norm: dot_norm::<R> }
}

/// Elements that are `f32` once they are in a register.
trait Row: Copy {
    /// Eight of them.
    ///
    /// # Safety
    /// They can be read, and the CPU has AVX2 and F16C.
    unsafe fn load(from: *const Self) -> __m256;

    /// `count` of them, 1 to 7, and zeros.
    ///
    /// # Safety
    /// They can be read, and the CPU has AVX2 and F16C.
    unsafe fn load_some(from: *const Self, count: usize) -> __m256;
}

impl Row for f32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_some(from: *const Self, count: usize) -> __m256 {
        // SAFETY: `0 < count < WIDTH`, so the mask's eight words lie inside `MASKS` and select `count` elements,
        // which the caller promises; a masked load does not touch the others.
        unsafe {
            let mask = _mm256_loadu_si256(MASKS.as_ptr().add(WIDTH - count).cast());
            _mm256_maskload_ps(from, mask)
        }
    }
}

impl Row for f16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise: eight elements of two bytes.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_some(from: *const Self, count: usize) -> __m256 {
        let mut some = [Self::ZERO; WIDTH];
        // SAFETY: the caller promises `count` elements.
        let given = unsafe { std::slice::from_raw_parts(from, count) };
        some[..count].copy_from_slice(given);
        // SAFETY: the array has eight elements of two bytes.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(some.as_ptr().cast())) }
    }
}

/// As in `avx512`: `$step` for every eight pairs of elements, zeros past the end.
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

#[target_feature(enable = "avx2,fma,f16c")]
fn l2_squared<R: Row>(a: &[f32], b: &[R]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| {
        let difference = _mm256_sub_ps(x, y);
        sums[lane] = _mm256_fmadd_ps(difference, difference, sums[lane]);
    });
    total(sums)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot<R: Row>(a: &[f32], b: &[R]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| sums[lane] = _mm256_fmadd_ps(x, y, sums[lane]));
    total(sums)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn l1<R: Row>(a: &[f32], b: &[R]) -> f32 {
    let sign = _mm256_set1_ps(-0.0);
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| {
        sums[lane] = _mm256_add_ps(sums[lane], _mm256_andnot_ps(sign, _mm256_sub_ps(x, y)));
    });
    total(sums)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_norm<R: Row>(a: &[f32], b: &[R]) -> (f32, f32) {
    let (mut dots, mut norms) = (zeros(), zeros());
    for_each_pair!(a, b, |lane, x, y| {
        dots[lane] = _mm256_fmadd_ps(x, y, dots[lane]);
        norms[lane] = _mm256_fmadd_ps(y, y, norms[lane]);
    });
    (total(dots), total(norms))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn cosine(a: &[f32], b: &[f32]) -> (f32, f32, f32) {
    let (mut dots, mut norms_a, mut norms_b) = (zeros(), zeros(), zeros());
    for_each_pair!(a, b, |lane, x, y| {
        dots[lane] = _mm256_fmadd_ps(x, y, dots[lane]);
        norms_a[lane] = _mm256_fmadd_ps(x, x, norms_a[lane]);
        norms_b[lane] = _mm256_fmadd_ps(y, y, norms_b[lane]);
    });
    (total(dots), total(norms_a), total(norms_b))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn zeros() -> [__m256; 4] {
    [_mm256_setzero_ps(); 4]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn total(sums: [__m256; 4]) -> f32 {
    let [first, second, third, fourth] = sums;
    let eight = _mm256_add_ps(_mm256_add_ps(first, second), _mm256_add_ps(third, fourth));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
