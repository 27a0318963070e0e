//! Distances between bit strings, eight bits a byte: how many bits differ, and how little of what is set is common.
//!
//! Called by SQL for `<~>` and `<%>`. Counts are exact, so all ways to them agree: AVX-512 with VPOPCNTDQ, `popcnt`, or
//! plain Rust, decided once. Bits past the end of a string are zero.

use std::sync::OnceLock;

/// Bits in which the strings differ (pgvector's `hamming_distance`).
///
/// # Panics
/// When the lengths differ; SQL has refused that before (`different bit lengths 3 and 4`).
pub fn hamming(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len(), "distance between bit strings of different lengths");
    // SAFETY: the invariant of `BitKernels`.
    let differing = unsafe { (kernels().differing)(a, b) };
    differing as f64
}

/// One minus the share of common bits among those set in either; 1 where none is common (pgvector's
/// `jaccard_distance`).
///
/// # Panics
/// As [`hamming`].
pub fn jaccard(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len(), "distance between bit strings of different lengths");
    // SAFETY: the invariant of `BitKernels`.
    let (common, in_a, in_b) = unsafe { (kernels().common)(a, b) };
    if common == 0 { 1.0 } else { 1.0 - common as f64 / (in_a + in_b - common) as f64 }
}

/// One instruction set's kernels. A table other than `PLAIN` is handed out only by [`available`], once the CPU was
/// asked: holding it means the machine has what its functions need. Both strings have one length.
struct BitKernels {
    #[cfg(test)]
    name: &'static str,
    /// |a xor b|
    differing: unsafe fn(&[u8], &[u8]) -> u64,
    /// |a and b|, |a|, |b|
    common: Counts3,
}

type Counts3 = unsafe fn(&[u8], &[u8]) -> (u64, u64, u64);

static PLAIN: BitKernels = BitKernels {
    #[cfg(test)]
    name: "plain",
    differing,
    common,
};

fn kernels() -> &'static BitKernels {
    static CHOSEN: OnceLock<&'static BitKernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available().next().unwrap_or(&PLAIN))
}

/// The tables that this CPU can run, fastest first.
fn available() -> impl Iterator<Item = &'static BitKernels> {
    #[cfg(target_arch = "x86_64")]
    let wide = [
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vpopcntdq"))
            .then_some(&x86::AVX512),
        is_x86_feature_detected!("popcnt").then_some(&x86::POPCNT),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let wide: [Option<&'static BitKernels>; 0] = [];
    wide.into_iter().flatten().chain(std::iter::once(&PLAIN))
}

#[inline(always)]
fn differing(a: &[u8], b: &[u8]) -> u64 {
    words(a, b).map(|(a, b)| u64::from((a ^ b).count_ones())).sum()
}

#[inline(always)]
fn common(a: &[u8], b: &[u8]) -> (u64, u64, u64) {
    words(a, b).fold((0, 0, 0), |(common, in_a, in_b), (a, b)| {
        let ones = |word: u64| u64::from(word.count_ones());
        (common + ones(a & b), in_a + ones(a), in_b + ones(b))
    })
}

/// Eight bytes of each at a time, the last filled up with zeros.
#[inline(always)]
fn words(a: &[u8], b: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let whole = a.iter().zip(b).map(|(a, b)| (u64::from_le_bytes(*a), u64::from_le_bytes(*b)));
    whole.chain(std::iter::once((word(rest_a), word(rest_b))))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_way_counts_the_same(pairs in prop::collection::vec(any::<(u8, u8)>(), 0..300)) {
            let (a, b): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (at % 8) & 1 == 1;
            let count = |wanted: &dyn Fn(bool, bool) -> bool| {
                (0..8 * a.len()).filter(|at| wanted(bit(&a, *at), bit(&b, *at))).count() as u64
            };
            let expected = (count(&|a, b| a && b), count(&|a, _| a), count(&|_, b| b));
            for kernels in available() {
                // SAFETY: `available` gives only what this CPU has.
                let (differing, common) = unsafe { ((kernels.differing)(&a, &b), (kernels.common)(&a, &b)) };
                prop_assert_eq!(differing, count(&|a, b| a != b), "{}", kernels.name);
                prop_assert_eq!(common, expected, "{}", kernels.name);
            }
        }
    }

    /// What pgvector 0.8 prints for the same operands.
    #[test]
    fn means_what_pgvector_means() {
        assert_eq!(hamming(&[0b1010_0000], &[0b1100_0000]), 2.0);
        assert_eq!(jaccard(&[0b1010_0000], &[0b1100_0000]), 1.0 - 1.0 / 3.0);
        assert_eq!(jaccard(&[0b1100_0000], &[0b0110_0000]), 1.0 - 1.0 / 3.0);
        assert_eq!((jaccard(&[0], &[0]), jaccard(&[], &[]), hamming(&[], &[])), (1.0, 1.0, 0.0));
        assert_eq!(jaccard(&[7, 1], &[7, 1]), 0.0);
    }
}
