//! The aarch64 kernels for codes of 8 bits an element. All ask: `query.len()` is a multiple of 128. The code's length
//! is checked by `code_of`.
//!
//! Not all of these processors multiply unsigned with signed bytes. So 128 is taken from each element of a code, by
//! its highest bit, and 128 times the sum of the query comes back at the end.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, vaddvq_s32, vdupq_n_s32, vdupq_n_u8, veorq_u8, vget_low_s8, vld1q_s8, vld1q_u8,
    vmlal_high_s8, vmull_s8, vpadalq_s16, vpaddq_s32, vreinterpretq_s8_u8, vst1q_s32,
};

use super::super::neon::{WIDTH, add_dot_products, four_at_a_time};
use super::code_of;

#[target_feature(enable = "neon")]
pub(super) fn long_products(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    four_at_a_time!(sums_of_long_products, query.len(), codes, query, nodes, out);
    give_back(query, out);
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_products(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    four_at_a_time!(sums_of_dot_products, query.len(), codes, query, nodes, out);
    give_back(query, out);
}

/// What was taken from the elements of every code.
#[inline(always)]
fn give_back(query: &[i8], out: &mut [i32]) {
    let taken = 128 * query.iter().map(|value| i32::from(*value)).sum::<i32>();
    out.iter_mut().for_each(|sum| *sum += taken);
}

/// A 16-bit sum gets two products of at most 128 · 127 (32,512) before it is widened.
#[inline]
#[target_feature(enable = "neon")]
fn sums_of_long_products<const N: usize>(codes: [&[u8]; N], query: &[i8]) -> [int32x4_t; N] {
    let mut sums = [vdupq_n_s32(0); N];
    for at in (0..query.len()).step_by(WIDTH) {
        // SAFETY: the query's length is a multiple of `WIDTH`, and this is not past its end.
        let values = unsafe { vld1q_s8(query.as_ptr().add(at)) };
        for (code, sum) in codes.iter().zip(&mut sums) {
            // SAFETY: as above: a code is as long as the query.
            let elements = unsafe { load_code(code, at) };
            let products = vmull_s8(vget_low_s8(elements), vget_low_s8(values));
            *sum = vpadalq_s16(*sum, vmlal_high_s8(products, elements, values));
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sums_of_dot_products<const N: usize>(codes: [&[u8]; N], query: &[i8]) -> [int32x4_t; N] {
    let mut sums = [vdupq_n_s32(0); N];
    for at in (0..query.len()).step_by(WIDTH) {
        // SAFETY: the query's length is a multiple of `WIDTH`, and this is not past its end.
        let values = unsafe { vld1q_s8(query.as_ptr().add(at)) };
        for (code, sum) in codes.iter().zip(&mut sums) {
            // SAFETY: as above: a code is as long as the query.
            let elements = unsafe { load_code(code, at) };
            *sum = add_dot_products(*sum, elements, values);
        }
    }
    sums
}

/// 16 elements less 128.
///
/// # Safety
/// The code does not end before `at + 16`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_code(code: &[u8], at: usize) -> int8x16_t {
    // SAFETY: the caller's promise.
    let bytes = unsafe { vld1q_u8(code.as_ptr().add(at)) };
    vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)))
}
