//! The x86-64 kernels for codes of 8 bits an element. All ask: `query.len()` is a multiple of 128. The code's length is
//! checked by `code_of`.

use std::arch::x86_64::*;

use super::super::x86::{add_up, add_up_four};
use super::code_of;
use crate::quantize::encode::LINE_BYTES;

/// Both sides are widened to 16 bits first: a sum of two products, up to 255 · 127 each, is past what `vpmaddubsw` can
/// hold.
#[target_feature(enable = "avx2")]
pub(super) fn avx2(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    for (node, out) in nodes.iter().zip(out) {
        let code = code_of(codes, *node, query.len());
        let (mut evens, mut odds) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for at in (0..query.len()).step_by(32) {
            // SAFETY: code and query are equally long, a multiple of 128, and `at + 32` is not past their end.
            let (even, odd) = unsafe { (products(code, query, at), products(code, query, at + 16)) };
            evens = _mm256_add_epi32(evens, even);
            odds = _mm256_add_epi32(odds, odd);
        }
        *out = add_up(_mm256_add_epi32(evens, odds));
    }
}

/// The products of 16 elements, in eight sums of two.
///
/// # Safety
/// Neither code nor query ends before `at + 16`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn products(code: &[u8], query: &[i8], at: usize) -> __m256i {
    // SAFETY: the caller's promise.
    let (bytes, values) = unsafe {
        (_mm_loadu_si128(code.as_ptr().add(at).cast()), _mm_loadu_si128(query.as_ptr().add(at).cast()))
    };
    _mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), _mm256_cvtepi8_epi16(values))
}

#[target_feature(enable = "avx2,avxvnni")]
pub(super) fn avx_vnni(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    for (node, out) in nodes.iter().zip(out) {
        let code = code_of(codes, *node, query.len());
        let mut sums = [_mm256_setzero_si256(); 2];
        for line in (0..query.len()).step_by(LINE_BYTES) {
            for (half, sum) in [line, line + 32].into_iter().zip(&mut sums) {
                // SAFETY: code and query are equally long, a multiple of a line, and reach to the end of this one.
                let (bytes, values) = unsafe {
                    (
                        _mm256_loadu_si256(code.as_ptr().add(half).cast()),
                        _mm256_loadu_si256(query.as_ptr().add(half).cast()),
                    )
                };
                *sum = _mm256_dpbusd_avx_epi32(*sum, bytes, values);
            }
        }
        let [first, second] = sums;
        *out = add_up(_mm256_add_epi32(first, second));
    }
}

/// Four nodes at a time: each line of the query is read once for all four, and their sums are added up together.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn avx512_vnni(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    let stride = query.len();
    let (fours, rest) = nodes.as_chunks::<4>();
    let (out_fours, out_rest) = out.as_chunks_mut::<4>();
    for (nodes, out) in fours.iter().zip(out_fours) {
        let whole = add_up_four(avx512_sums(nodes.map(|node| code_of(codes, node, stride)), query));
        // SAFETY: four integers fit into four integers.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), whole) };
    }
    for (node, out) in rest.iter().zip(out_rest) {
        let [sum] = avx512_sums([code_of(codes, *node, stride)], query);
        *out = _mm512_reduce_add_epi32(sum);
    }
}

/// The products of each code with the query, in 16 sums. All codes are as long as the query.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn avx512_sums<const N: usize>(codes: [&[u8]; N], query: &[i8]) -> [__m512i; N] {
    let mut sums = [_mm512_setzero_si512(); N];
    for line in (0..query.len()).step_by(LINE_BYTES) {
        // SAFETY: the slice reaches to the end of this line: its length is a multiple of one.
        let values = unsafe { _mm512_loadu_si512(query.as_ptr().add(line).cast()) };
        for (code, sum) in codes.iter().zip(&mut sums) {
            // SAFETY: as above: a code is as long as the query.
            let bytes = unsafe { _mm512_loadu_si512(code.as_ptr().add(line).cast()) };
            *sum = _mm512_dpbusd_epi32(*sum, bytes, values);
        }
    }
    sums
}
