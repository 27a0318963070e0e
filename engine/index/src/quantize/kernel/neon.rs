//! The aarch64 kernels for codes of 4 bits an element, and what `eight` shares of them. All ask: `query.len()` is a
//! multiple of 128. The code's length is checked by `code_of`.
//!
//! Four nodes at a time: each register of the query is read once for all four, and their sums are added up together.
//! Levels are 0 to 15, so they are the same numbers as signed bytes.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, vaddq_s32, vaddvq_s32, vandq_u8, vdupq_n_s16, vdupq_n_s32, vdupq_n_u8, vget_low_s8,
    vld1q_s8, vld1q_u8, vmlal_high_s8, vmlal_s8, vpadalq_s16, vpaddq_s32, vreinterpretq_s8_u8, vshrq_n_u8,
    vst1q_s32,
};
use std::arch::asm;

use super::super::encode::LINE_BYTES;
use super::code_of;

/// Bytes of a register.
pub(super) const WIDTH: usize = 16;

/// Fills `$out` by way of `$sums`, which gives each node's products in four sums; codes are `$stride` bytes. A macro
/// and not a function: it is to become part of one that may use the processor's features.
macro_rules! four_at_a_time {
    ($sums:ident, $stride:expr, $codes:ident, $query:ident, $nodes:ident, $out:ident) => {{
        let stride = $stride;
        let (fours, rest) = $nodes.as_chunks::<4>();
        let (out_fours, out_rest) = $out.as_chunks_mut::<4>();
        for (nodes, out) in fours.iter().zip(out_fours) {
            let [a, b, c, d] = $sums(nodes.map(|node| code_of($codes, node, stride)), $query);
            let whole = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
            // SAFETY: four integers fit into four integers.
            unsafe { vst1q_s32(out.as_mut_ptr(), whole) };
        }
        for (node, out) in rest.iter().zip(out_rest) {
            let [sum] = $sums([code_of($codes, *node, stride)], $query);
            *out = vaddvq_s32(sum);
        }
    }};
}
pub(super) use four_at_a_time;

#[target_feature(enable = "neon")]
pub(super) fn long_products(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    four_at_a_time!(sums_of_long_products, query.len() / 2, codes, query, nodes, out);
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_products(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    four_at_a_time!(sums_of_dot_products, query.len() / 2, codes, query, nodes, out);
}

/// Of a line, each 16-bit sum gets eight products of at most 15 · 127 (15,240) before it is widened.
#[inline]
#[target_feature(enable = "neon")]
fn sums_of_long_products<const N: usize>(codes: [&[u8]; N], query: &[i8]) -> [int32x4_t; N] {
    let mut sums = [vdupq_n_s32(0); N];
    for line in (0..query.len() / 2).step_by(LINE_BYTES) {
        let (mut lows, mut highs) = ([vdupq_n_s16(0); N], [vdupq_n_s16(0); N]);
        for at in (line..line + LINE_BYTES).step_by(WIDTH) {
            // SAFETY: `query` has two lines for each of the code, and this is not past the last.
            let (low, high) = unsafe { load_query(query, line, at) };
            for ((code, lows), highs) in codes.iter().zip(&mut lows).zip(&mut highs) {
                // SAFETY: a code has half as many lines as the query, and this is not past the last.
                let (low_bits, high_bits) = unsafe { load_code(code, at) };
                *lows = vmlal_s8(*lows, vget_low_s8(low_bits), vget_low_s8(low));
                *lows = vmlal_high_s8(*lows, low_bits, low);
                *highs = vmlal_s8(*highs, vget_low_s8(high_bits), vget_low_s8(high));
                *highs = vmlal_high_s8(*highs, high_bits, high);
            }
        }
        for ((sum, low), high) in sums.iter_mut().zip(lows).zip(highs) {
            *sum = vpadalq_s16(vpadalq_s16(*sum, low), high);
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sums_of_dot_products<const N: usize>(codes: [&[u8]; N], query: &[i8]) -> [int32x4_t; N] {
    let (mut lows, mut highs) = ([vdupq_n_s32(0); N], [vdupq_n_s32(0); N]);
    for line in (0..query.len() / 2).step_by(LINE_BYTES) {
        for at in (line..line + LINE_BYTES).step_by(WIDTH) {
            // SAFETY: `query` has two lines for each of the code, and this is not past the last.
            let (low, high) = unsafe { load_query(query, line, at) };
            for ((code, lows), highs) in codes.iter().zip(&mut lows).zip(&mut highs) {
                // SAFETY: a code has half as many lines as the query, and this is not past the last.
                let (low_bits, high_bits) = unsafe { load_code(code, at) };
                *lows = add_dot_products(*lows, low_bits, low);
                *highs = add_dot_products(*highs, high_bits, high);
            }
        }
    }
    let mut sums = lows;
    sums.iter_mut().zip(highs).for_each(|(sum, high)| *sum = vaddq_s32(*sum, high));
    sums
}

/// What the low and the high halves of the code's bytes from `at` on are multiplied with. `line` is where the code's
/// line begins: the query's begins at twice that, and the high halves' part 64 further on.
///
/// # Safety
/// `at` is `line` or up to 48 more, and the query does not end before `2 * line + 128`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_query(query: &[i8], line: usize, at: usize) -> (int8x16_t, int8x16_t) {
    // SAFETY: the caller's promise: `line + at` is `2 * line` and up to 48 more.
    unsafe {
        let start = query.as_ptr().add(line + at);
        (vld1q_s8(start), vld1q_s8(start.add(LINE_BYTES)))
    }
}

/// The low and the high halves of 16 bytes.
///
/// # Safety
/// The code does not end before `at + 16`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_code(code: &[u8], at: usize) -> (int8x16_t, int8x16_t) {
    // SAFETY: the caller's promise.
    let bytes = unsafe { vld1q_u8(code.as_ptr().add(at)) };
    let low_bits = vandq_u8(bytes, vdupq_n_u8(15));
    (vreinterpretq_s8_u8(low_bits), vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes)))
}

/// To each of four sums, the products of four pairs of bytes. By hand: the intrinsic, `vdotq_s32`, is not stable yet
/// (rust-lang/rust#117224).
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn add_dot_products(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction, on registers only, that the CPU has where `dotprod` is.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
