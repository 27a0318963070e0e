//! A random rotation in `O(d log d)`: rounds of random signs, each followed by a Hadamard transform of one
//! block.
//!
//! After it, the coordinates of any unit vector look alike (near normal, variance `1 / d`), whatever the data
//! looked like, which is what lets one 4-bit grid serve them all (RaBitQ, Gao and Long, SIGMOD 2024; Ailon
//! and Chazelle's fast Johnson-Lindenstrauss transform). Rows and queries go through the same rotation, so
//! dot products stay what they were.
//!
//! A block is the largest power of two that fits. Where that is not the whole vector, odd rounds transform
//! its head and even ones its tail; they overlap, because a block is longer than half, so four rounds mix
//! all.

/// Signs are drawn from this, so that stored codes fit for ever: changing it is a new format.
const SEED: u64 = 0x5e9a_1c0d_e5ee_d001;
const ROUNDS: usize = 4;
/// The pairs of the transform's first steps lie nearer together than a register is wide: so many elements have all four.
const NEAR: usize = 16;

/// A rotation of vectors of `padded` elements.
pub(crate) struct Rotation {
    padded: usize,
    block: usize,
    /// `ROUNDS × padded`, each 1 or -1, those inside the round's block already divided by the transform's
    /// norm.
    signs: Vec<f32>,
}

impl Rotation {
    /// `padded` is at least 1.
    pub(crate) fn new(padded: usize) -> Self {
        let block = 1 << padded.ilog2();
        let norm = 1.0 / (block as f32).sqrt();
        let mut signs = Vec::with_capacity(ROUNDS * padded);
        for round in 0..ROUNDS {
            let start = block_start(padded, block, round);
            for index in 0..padded {
                let bit = mix(SEED ^ (round * padded + index) as u64) >> 63;
                let sign = if bit == 1 { -1.0 } else { 1.0 };
                signs.push(if (start..start + block).contains(&index) { sign * norm } else { sign });
            }
        }
        Self { padded, block, signs }
    }

    /// Rotates in place. `values` has `padded` elements.
    pub(crate) fn apply(&self, values: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if wide_registers() {
            // SAFETY: this processor has AVX2.
            unsafe { apply_avx2(self, values) };
            return;
        }
        apply(self, values);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.signs.len() * size_of::<f32>()
    }
}

/// One step of SplitMix64 (Steele, Lea and Flood 2014): a number as random as its input is not.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether the compiler's 256-bit versions of the plain loops may run. Elsewhere the plain loops are all there is:
/// on aarch64 the compiler makes NEON of them as they are.
#[cfg(target_arch = "x86_64")]
pub(super) fn wide_registers() -> bool {
    is_x86_feature_detected!("avx2")
}

fn block_start(padded: usize, block: usize, round: usize) -> usize {
    if round.is_multiple_of(2) { 0 } else { padded - block }
}

/// The plain loops again, compiled for 256-bit registers. Same additions in the same order, so the same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn apply_avx2(rotation: &Rotation, values: &mut [f32]) {
    apply(rotation, values);
}

#[inline(always)]
fn apply(rotation: &Rotation, values: &mut [f32]) {
    for (round, signs) in rotation.signs.chunks_exact(rotation.padded).enumerate() {
        for (value, sign) in values.iter_mut().zip(signs) {
            *value *= sign;
        }
        let start = block_start(rotation.padded, rotation.block, round);
        hadamard(&mut values[start..start + rotation.block]);
    }
}

/// The Walsh-Hadamard transform without its norm. The length is a power of two.
#[inline(always)]
fn hadamard(values: &mut [f32]) {
    let (groups, short) = values.as_chunks_mut::<NEAR>();
    for group in groups {
        // Steps and bounds are constants here: the compiler leaves them in registers.
        step::<1>(group);
        step::<2>(group);
        step::<4>(group);
        step::<8>(group);
    }
    let mut half = if short.is_empty() { NEAR } else { 1 };
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// The step of the transform over pairs `HALF` apart, of one group.
#[inline(always)]
fn step<const HALF: usize>(group: &mut [f32; NEAR]) {
    let before = *group;
    for (index, value) in group.iter_mut().enumerate() {
        let other = before[index ^ HALF];
        *value = if index & HALF == 0 { before[index] + other } else { other - before[index] };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Stored codes were rotated with these signs: another sequence is another version of the index bytes.
    #[test]
    fn signs_are_these_for_ever() {
        let rotation = Rotation::new(128);
        let negative = |bits: u64, (index, sign): (usize, &f32)| bits | u64::from(*sign < 0.0) << index;
        assert_eq!(rotation.signs[..64].iter().enumerate().fold(0, negative), 0x4de4_c022_0a1f_71ec);
        assert_eq!((rotation.block, rotation.signs.len()), (128, 4 * 128));
        assert_eq!(Rotation::new(384).block, 256);
    }

    proptest! {
        /// Queries and stored codes meet from different machines.
        #[test]
        fn wider_registers_rotate_to_the_same_bits(
            lines in 1usize..13,
            mut chosen in prop::collection::vec(-1e3f32..1e3, 12 * 128),
        ) {
            chosen.truncate(lines * 128);
            let (rotation, mut plain) = (Rotation::new(chosen.len()), chosen.clone());
            rotation.apply(&mut chosen);
            apply(&rotation, &mut plain);
            prop_assert!(chosen.iter().zip(&plain).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
