//! How many bits a code has for an element: four, or eight where four cannot tell the rows apart.
//!
//! Chosen by whoever builds an index (`graph/fit`, `ivf/codes`), kept in its header, and asked once for many codes,
//! never for one.

use super::{eight, encode, padded};

/// Bits of a code's element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Width {
    #[default]
    Four,
    Eight,
}

impl Width {
    pub(crate) fn bits(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Bytes of a code for vectors of `dim` elements.
    pub(crate) fn stride(self, dim: usize) -> usize {
        padded(dim) * self.bits() / 8
    }

    /// The greatest element of a code. Levels are elements less half of it.
    pub(super) fn top(self) -> i32 {
        (1i32 << self.bits()) - 1
    }

    /// Writes the code of a rotated vector of length 1 (or 0), as `encode::encode` and `eight::encode` say.
    pub(super) fn encode(self, unit: &[f32], code: &mut [u8]) -> f32 {
        match self {
            Self::Four => encode::encode(unit, code),
            Self::Eight => eight::encode(unit, code),
        }
    }
}
