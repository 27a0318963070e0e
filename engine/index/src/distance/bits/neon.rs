//! Counts for NEON, which every aarch64 has: the bits of each of 64 bytes, summed before they are widened.

use std::arch::aarch64::{
    uint8x16_t, uint32x4_t, vaddq_u8, vaddvq_u64, vandq_u8, vcntq_u8, vdupq_n_u64, veorq_u8, vld1q_u8,
    vpadalq_u32, vpaddlq_u8, vpaddlq_u16,
};

use super::BitKernels;

pub(super) static KERNELS: BitKernels = BitKernels {
    #[cfg(test)]
    name: "neon",
    differing,
    common,
};

/// Bytes of a block: four registers.
const BLOCK: usize = 64;

type Block = [uint8x16_t; 4];

#[target_feature(enable = "neon")]
fn differing(a: &[u8], b: &[u8]) -> u64 {
    let mut sum = vdupq_n_u64(0);
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<BLOCK>(), b.as_chunks::<BLOCK>());
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (load(a), load(b));
        sum = vpadalq_u32(sum, ones([0, 1, 2, 3].map(|at| veorq_u8(a[at], b[at]))));
    }
    vaddvq_u64(sum) + super::differing(rest_a, rest_b)
}

#[target_feature(enable = "neon")]
fn common(a: &[u8], b: &[u8]) -> (u64, u64, u64) {
    let mut sums = [vdupq_n_u64(0); 3];
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<BLOCK>(), b.as_chunks::<BLOCK>());
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (load(a), load(b));
        sums[0] = vpadalq_u32(sums[0], ones([0, 1, 2, 3].map(|at| vandq_u8(a[at], b[at]))));
        sums[1] = vpadalq_u32(sums[1], ones(a));
        sums[2] = vpadalq_u32(sums[2], ones(b));
    }
    let [common, in_a, in_b] = sums;
    let rest = super::common(rest_a, rest_b);
    (vaddvq_u64(common) + rest.0, vaddvq_u64(in_a) + rest.1, vaddvq_u64(in_b) + rest.2)
}

/// Set bits of a block, in four sums. A byte of four registers has 32 at the most.
#[inline]
#[target_feature(enable = "neon")]
fn ones(block: Block) -> uint32x4_t {
    let [first, second, third, fourth] = block;
    let low = vaddq_u8(vcntq_u8(first), vcntq_u8(second));
    let high = vaddq_u8(vcntq_u8(third), vcntq_u8(fourth));
    vpaddlq_u16(vpaddlq_u8(vaddq_u8(low, high)))
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; BLOCK]) -> Block {
    let start = bytes.as_ptr();
    // SAFETY: the array has four registers' 64 bytes; a load needs no alignment.
    unsafe { [vld1q_u8(start), vld1q_u8(start.add(16)), vld1q_u8(start.add(32)), vld1q_u8(start.add(48))] }
}
