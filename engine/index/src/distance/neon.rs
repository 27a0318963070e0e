//! Kernels for NEON, which every aarch64 has: four elements an instruction, eight running sums, the tail by a copy.
//!
//! Eight sums and not four as on x86: large cores load three or four registers a cycle, which keeps up to two
//! multiply-adds of four cycles each under way. Three times eight (`cosine`) still leave eight of the 32 registers.

use std::arch::aarch64::{
    float32x4_t, vabdq_f32, vaddq_f32, vaddvq_f32, vcvt_f32_f16, vdupq_n_f32, vfmaq_f32, vld1_u16, vld1q_f32,
    vreinterpret_f16_u16, vsubq_f32,
};

use half::f16;

use super::{Kernels, RowKernels};

/// Elements of a register.
const WIDTH: usize = 4;
/// Running sums.
const LANES: usize = 8;

pub(super) static KERNELS: Kernels = Kernels { name: "neon", single: for_rows(), half: for_rows(), cosine };

const fn for_rows<R: Row>() -> RowKernels<R> {
    RowKernels { l2_squared: l2_squared::<R>, dot: dot::<R>, l1: l1::<R>, dot_norm: dot_norm::<R> }
}

/// Elements that are `f32` once they are in a register.
trait Row: Copy {
    /// Four of them.
    ///
    /// # Safety
    /// They can be read, and the CPU has NEON.
    unsafe fn load(from: *const Self) -> float32x4_t;

    /// `count` of them, 1 to 3, and zeros.
    ///
    /// # Safety
    /// They can be read, and the CPU has NEON.
    unsafe fn load_some(from: *const Self, count: usize) -> float32x4_t;
}

impl Row for f32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const Self) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }

    /// There are no masked loads before SVE.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load_some(from: *const Self, count: usize) -> float32x4_t {
        let mut some = [0.0; WIDTH];
        // SAFETY: the caller promises `count` elements; the slice below is bounded by the array's own length.
        let given = unsafe { std::slice::from_raw_parts(from, count) };
        some[..count].copy_from_slice(given);
        // SAFETY: the array has four elements.
        unsafe { vld1q_f32(some.as_ptr()) }
    }
}

impl Row for f16 {
    /// Widening is part of NEON since its first version; only arithmetic on `f16` is not.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const Self) -> float32x4_t {
        // SAFETY: the caller's promise: four elements of two bytes.
        unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.cast()))) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load_some(from: *const Self, count: usize) -> float32x4_t {
        let mut some = [Self::ZERO; WIDTH];
        // SAFETY: the caller promises `count` elements; the slice below is bounded by the array's own length.
        let given = unsafe { std::slice::from_raw_parts(from, count) };
        some[..count].copy_from_slice(given);
        // SAFETY: the array has four elements of two bytes.
        unsafe { Self::load(some.as_ptr()) }
    }
}

/// As in `avx512`: `$step` for every four pairs of elements, zeros past the end.
macro_rules! for_each_pair {
    ($a:ident, $b:ident, |$lane:ident, $x:ident, $y:ident| $step:expr) => {{
        let len = $a.len().min($b.len());
        let mut at = 0;
        while at + LANES * WIDTH <= len {
            for_each_pair!(@load 0, $a, $b, at, |$lane, $x, $y| $step);
            for_each_pair!(@load 1, $a, $b, at + WIDTH, |$lane, $x, $y| $step);
            for_each_pair!(@load 2, $a, $b, at + 2 * WIDTH, |$lane, $x, $y| $step);
            for_each_pair!(@load 3, $a, $b, at + 3 * WIDTH, |$lane, $x, $y| $step);
            for_each_pair!(@load 4, $a, $b, at + 4 * WIDTH, |$lane, $x, $y| $step);
            for_each_pair!(@load 5, $a, $b, at + 5 * WIDTH, |$lane, $x, $y| $step);
            for_each_pair!(@load 6, $a, $b, at + 6 * WIDTH, |$lane, $x, $y| $step);
            for_each_pair!(@load 7, $a, $b, at + 7 * WIDTH, |$lane, $x, $y| $step);
            at += LANES * WIDTH;
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

#[target_feature(enable = "neon")]
fn l2_squared<R: Row>(a: &[f32], b: &[R]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| {
        let difference = vsubq_f32(x, y);
        sums[lane] = vfmaq_f32(sums[lane], difference, difference);
    });
    total(sums)
}

#[target_feature(enable = "neon")]
fn dot<R: Row>(a: &[f32], b: &[R]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| sums[lane] = vfmaq_f32(sums[lane], x, y));
    total(sums)
}

#[target_feature(enable = "neon")]
fn l1<R: Row>(a: &[f32], b: &[R]) -> f32 {
    let mut sums = zeros();
    for_each_pair!(a, b, |lane, x, y| sums[lane] = vaddq_f32(sums[lane], vabdq_f32(x, y)));
    total(sums)
}

#[target_feature(enable = "neon")]
fn dot_norm<R: Row>(a: &[f32], b: &[R]) -> (f32, f32) {
    let (mut dots, mut norms) = (zeros(), zeros());
    for_each_pair!(a, b, |lane, x, y| {
        dots[lane] = vfmaq_f32(dots[lane], x, y);
        norms[lane] = vfmaq_f32(norms[lane], y, y);
    });
    (total(dots), total(norms))
}

#[target_feature(enable = "neon")]
fn cosine(a: &[f32], b: &[f32]) -> (f32, f32, f32) {
    let (mut dots, mut norms_a, mut norms_b) = (zeros(), zeros(), zeros());
    for_each_pair!(a, b, |lane, x, y| {
        dots[lane] = vfmaq_f32(dots[lane], x, y);
        norms_a[lane] = vfmaq_f32(norms_a[lane], x, x);
        norms_b[lane] = vfmaq_f32(norms_b[lane], y, y);
    });
    (total(dots), total(norms_a), total(norms_b))
}

#[inline]
#[target_feature(enable = "neon")]
fn zeros() -> [float32x4_t; LANES] {
    [vdupq_n_f32(0.0); LANES]
}

#[inline]
#[target_feature(enable = "neon")]
fn total(sums: [float32x4_t; LANES]) -> f32 {
    let [first, second, third, fourth, fifth, sixth, seventh, eighth] = sums;
    let low = vaddq_f32(vaddq_f32(first, second), vaddq_f32(third, fourth));
    let high = vaddq_f32(vaddq_f32(fifth, sixth), vaddq_f32(seventh, eighth));
    vaddvq_f32(vaddq_f32(low, high))
}
