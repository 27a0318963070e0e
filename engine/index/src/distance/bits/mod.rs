//! Distances between bit strings, eight bits a byte: how many bits differ, and how little of what is set is common.
//!
//! Called by SQL for `<~>` and `<%>`. Counts are exact, so all ways to them agree: AVX-512 with VPOPCNTDQ, AVX2,
//! `popcnt`, NEON, or plain Rust, decided once. Bits past the end of a string are zero.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

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
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("popcnt"))
        .then_some(&x86::AVX512),
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")).then_some(&x86::AVX2),
        is_x86_feature_detected!("popcnt").then_some(&x86::POPCNT),
    ];
    #[cfg(target_arch = "aarch64")]
    let wide = [std::arch::is_aarch64_feature_detected!("neon").then_some(&neon::KERNELS)];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
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

#[cfg(test)]
mod tests;
