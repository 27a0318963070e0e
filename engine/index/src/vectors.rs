//! The rows that a search reads: `n × dim` elements, row-major, of one of the types that SQL's vectors have.
//!
//! `query` makes one of a column and hands it to every search. A half-precision element is the very same number as
//! an `f32`, so that a row's distance does not depend on which of the two it is kept as.

use std::borrow::Cow;

use half::{f16, slice::HalfFloatSliceExt};

/// Rows, or one row.
#[derive(Clone, Copy, Debug)]
pub enum Vectors<'a> {
    /// A column of type `vector`.
    F32(&'a [f32]),
    /// A column of type `halfvec`.
    F16(&'a [f16]),
}

impl<'a> Vectors<'a> {
    /// Elements, of all rows together.
    pub const fn len(self) -> usize {
        match self {
            Self::F32(elements) => elements.len(),
            Self::F16(elements) => elements.len(),
        }
    }

    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The `dim` elements of row `position`.
    ///
    /// # Panics
    /// When there is no such row: positions are checked when an index is opened.
    #[inline]
    pub fn row(self, position: usize, dim: usize) -> Self {
        self.slice(position * dim, dim)
    }

    /// `count` elements from `start` on: a row, where rows have different lengths.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    pub fn slice(self, start: usize, count: usize) -> Self {
        match self {
            Self::F32(elements) => Self::F32(&elements[start..][..count]),
            Self::F16(elements) => Self::F16(&elements[start..][..count]),
        }
    }

    /// As `f32`; copied only where they are not. What an index is built from.
    pub fn widened(self) -> Cow<'a, [f32]> {
        match self {
            Self::F32(elements) => Cow::Borrowed(elements),
            Self::F16(elements) => Cow::Owned(elements.to_f32_vec()),
        }
    }

    /// Whether these are the elements of `vector`, bit by bit.
    pub fn equals(self, vector: &[f32]) -> bool {
        let same = |(left, right): (f32, &f32)| left.to_bits() == right.to_bits();
        match self {
            Self::F32(elements) => elements.iter().copied().zip(vector).all(same),
            Self::F16(elements) => elements.iter().map(|element| element.to_f32()).zip(vector).all(same),
        }
    }
}

impl<'a> From<&'a [f32]> for Vectors<'a> {
    fn from(elements: &'a [f32]) -> Self {
        Self::F32(elements)
    }
}

impl<'a> From<&'a Vec<f32>> for Vectors<'a> {
    fn from(elements: &'a Vec<f32>) -> Self {
        Self::F32(elements)
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for Vectors<'a> {
    fn from(elements: &'a [f32; N]) -> Self {
        Self::F32(elements)
    }
}

impl<'a> From<&'a [f16]> for Vectors<'a> {
    fn from(elements: &'a [f16]) -> Self {
        Self::F16(elements)
    }
}
