//! Chance from a seed: `SplitMix64` (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
//!
//! Of our own, ten lines, so that a seed means the same history whatever becomes of other crates. Not for keys.

use parking_lot::Mutex;

use crate::Random;

#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1; 0 for 0. The bias of the remainder does not matter here.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.draw() % n }
    }

    pub(super) fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap_or(0)
    }

    /// Yes once in `n`; never for 0.
    pub(super) fn once_in(&mut self, n: u64) -> bool {
        n > 0 && self.draw().is_multiple_of(n)
    }

    /// Another one, so that what one part draws does not shift what the other draws.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.draw())
    }
}

/// Names of files. One for all runs of a store: names must not repeat over restarts.
pub(super) struct Names(Mutex<Dice>);

impl Names {
    pub(super) const fn new(dice: Dice) -> Self {
        Self(Mutex::new(dice))
    }
}

impl Random for Names {
    fn bytes(&self) -> [u8; 16] {
        let mut dice = self.0.lock();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&dice.draw().to_be_bytes());
        bytes[8..].copy_from_slice(&dice.draw().to_be_bytes());
        bytes
    }
}
