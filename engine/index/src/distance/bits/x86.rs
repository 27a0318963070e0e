//! The same code where the compiler may use `popcnt`, and a count of eight words at a time.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_loadu_si512, _mm512_popcnt_epi64,
    _mm512_reduce_add_epi64, _mm512_setzero_si512, _mm512_xor_si512,
};

use super::BitKernels;

pub(super) static POPCNT: BitKernels = BitKernels {
    #[cfg(test)]
    name: "popcnt",
    differing: differing_popcnt,
    common: common_popcnt,
};

pub(super) static AVX512: BitKernels = BitKernels {
    #[cfg(test)]
    name: "avx512vpopcntdq",
    differing: differing_avx512,
    common: common_avx512,
};

/// Bytes of a register.
const WIDTH: usize = 64;

#[target_feature(enable = "popcnt")]
fn differing_popcnt(a: &[u8], b: &[u8]) -> u64 {
    super::differing(a, b)
}

#[target_feature(enable = "popcnt")]
fn common_popcnt(a: &[u8], b: &[u8]) -> (u64, u64, u64) {
    super::common(a, b)
}

#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn differing_avx512(a: &[u8], b: &[u8]) -> u64 {
    let mut sum = _mm512_setzero_si512();
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<WIDTH>(), b.as_chunks::<WIDTH>());
    for (a, b) in a.iter().zip(b).chain(std::iter::once((&filled(rest_a), &filled(rest_b)))) {
        let differing = _mm512_xor_si512(load(a), load(b));
        sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(differing));
    }
    total(sum)
}

#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn common_avx512(a: &[u8], b: &[u8]) -> (u64, u64, u64) {
    let mut sums = [_mm512_setzero_si512(); 3];
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<WIDTH>(), b.as_chunks::<WIDTH>());
    for (a, b) in a.iter().zip(b).chain(std::iter::once((&filled(rest_a), &filled(rest_b)))) {
        let (a, b) = (load(a), load(b));
        sums[0] = _mm512_add_epi64(sums[0], _mm512_popcnt_epi64(_mm512_and_si512(a, b)));
        sums[1] = _mm512_add_epi64(sums[1], _mm512_popcnt_epi64(a));
        sums[2] = _mm512_add_epi64(sums[2], _mm512_popcnt_epi64(b));
    }
    let [common, in_a, in_b] = sums;
    (total(common), total(in_a), total(in_b))
}

/// The last bytes, and zeros.
fn filled(rest: &[u8]) -> [u8; WIDTH] {
    let mut bytes = [0; WIDTH];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; WIDTH]) -> __m512i {
    // SAFETY: the array has the register's 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn total(sum: __m512i) -> u64 {
    _mm512_reduce_add_epi64(sum).cast_unsigned()
}
