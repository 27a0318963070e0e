//! The x86-64 kernels for codes of 4 bits an element, and the ways to add up that `eight` shares. All ask:
//! `query.len()` is a multiple of 128. The code's length is checked by `code_of`.

use std::arch::x86_64::*;

use super::super::encode::LINE_BYTES;
use super::code_of;

/// Two products of at most 15 · 127 make one 16-bit sum; four such sums (15,240) still fit before
/// widening.
#[target_feature(enable = "avx2")]
pub(super) fn avx2(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    let mask = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let stride = query.len() / 2;
    for (node, out) in nodes.iter().zip(out) {
        let code = code_of(codes, *node, stride);
        let mut sum = _mm256_setzero_si256();
        for line in (0..stride).step_by(LINE_BYTES) {
            let mut narrow = _mm256_setzero_si256();
            for half in [line, line + 32] {
                // A line's elements start at twice its byte, and its high ones 64 further on.
                let elements = line + half;
                // SAFETY: both slices reach to the end of this line: the lengths are multiples of a line.
                let (bytes, low, high) = unsafe {
                    (
                        _mm256_loadu_si256(code.as_ptr().add(half).cast()),
                        _mm256_loadu_si256(query.as_ptr().add(elements).cast()),
                        _mm256_loadu_si256(query.as_ptr().add(elements + LINE_BYTES).cast()),
                    )
                };
                let high_bits = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
                narrow = _mm256_add_epi16(narrow, _mm256_maddubs_epi16(_mm256_and_si256(bytes, mask), low));
                narrow = _mm256_add_epi16(narrow, _mm256_maddubs_epi16(high_bits, high));
            }
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(narrow, ones));
        }
        *out = add_up(sum);
    }
}

#[target_feature(enable = "avx2,avxvnni")]
pub(super) fn avx_vnni(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    let mask = _mm256_set1_epi8(15);
    let stride = query.len() / 2;
    for (node, out) in nodes.iter().zip(out) {
        let code = code_of(codes, *node, stride);
        let (mut lows, mut highs) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for line in (0..stride).step_by(LINE_BYTES) {
            for half in [line, line + 32] {
                let elements = line + half;
                // SAFETY: both slices reach to the end of this line: the lengths are multiples of a line.
                let (bytes, low, high) = unsafe {
                    (
                        _mm256_loadu_si256(code.as_ptr().add(half).cast()),
                        _mm256_loadu_si256(query.as_ptr().add(elements).cast()),
                        _mm256_loadu_si256(query.as_ptr().add(elements + LINE_BYTES).cast()),
                    )
                };
                let high_bits = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
                lows = _mm256_dpbusd_avx_epi32(lows, _mm256_and_si256(bytes, mask), low);
                highs = _mm256_dpbusd_avx_epi32(highs, high_bits, high);
            }
        }
        *out = add_up(_mm256_add_epi32(lows, highs));
    }
}

/// Four nodes at a time: each line of the query is read once for all four, and their sums are added up together.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn avx512_vnni(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    let stride = query.len() / 2;
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

/// The products of each code with the query, in 16 sums. All codes are half as long as the query.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn avx512_sums<const N: usize>(codes: [&[u8]; N], query: &[i8]) -> [__m512i; N] {
    let mask = _mm512_set1_epi8(15);
    let (mut lows, mut highs) = ([_mm512_setzero_si512(); N], [_mm512_setzero_si512(); N]);
    for line in (0..query.len() / 2).step_by(LINE_BYTES) {
        // SAFETY: the slice reaches to the end of this line: its length is a multiple of two lines.
        let (low, high) = unsafe {
            (
                _mm512_loadu_si512(query.as_ptr().add(2 * line).cast()),
                _mm512_loadu_si512(query.as_ptr().add(2 * line + LINE_BYTES).cast()),
            )
        };
        for ((code, lows), highs) in codes.iter().zip(&mut lows).zip(&mut highs) {
            // SAFETY: as above: a code has as many lines as the query has pairs of them.
            let bytes = unsafe { _mm512_loadu_si512(code.as_ptr().add(line).cast()) };
            let high_bits = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
            *lows = _mm512_dpbusd_epi32(*lows, _mm512_and_si512(bytes, mask), low);
            *highs = _mm512_dpbusd_epi32(*highs, high_bits, high);
        }
    }
    let mut sums = lows;
    sums.iter_mut().zip(highs).for_each(|(sum, high)| *sum = _mm512_add_epi32(*sum, high));
    sums
}

/// Four nodes' sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
pub(super) fn add_up_four([a, b, c, d]: [__m512i; 4]) -> __m128i {
    // Sums of a and b, and of c and d, alternate; then those of all four, in each quarter.
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let quarters = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let halves = _mm256_add_epi32(_mm512_castsi512_si256(quarters), _mm512_extracti64x4_epi64::<1>(quarters));
    _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_up(sums: __m256i) -> i32 {
    let quarter = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let pair = _mm_add_epi32(quarter, _mm_shuffle_epi32::<0b01_00_11_10>(quarter));
    _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32::<0b10_11_00_01>(pair)))
}
