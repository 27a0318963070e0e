//! The rows that a search reads: `n × dim` elements, row-major, of one of the types that SQL's vectors have.
//!
//! `query` makes one of a column and hands it to every search. A half-precision element is the very same number as
//! an `f32`, so that a row's distance does not depend on which of the two it is kept as.

use std::borrow::Cow;
use std::cell::RefCell;

use half::{f16, slice::HalfFloatSliceExt};

/// Rows, or one row.
#[derive(Clone, Copy, Debug)]
pub enum Vectors<'a> {
    /// A column of type `vector`.
    F32(&'a [f32]),
    /// A column of type `halfvec`.
    F16(&'a [f16]),
    /// A column of type `vector`, read as `halfvec`: each element counts as the nearest `f16`, ties to even.
    Rounded(&'a [f32]),
}

impl<'a> Vectors<'a> {
    /// Elements, of all rows together.
    pub const fn len(self) -> usize {
        match self {
            Self::F32(elements) | Self::Rounded(elements) => elements.len(),
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
            Self::Rounded(elements) => Self::Rounded(&elements[start..][..count]),
        }
    }

    /// The same vectors, read as `halfvec`.
    #[must_use]
    pub const fn rounded(self) -> Self {
        match self {
            Self::F32(elements) | Self::Rounded(elements) => Self::Rounded(elements),
            Self::F16(elements) => Self::F16(elements),
        }
    }

    /// As `f32`; copied only where they are not. What an index is built from.
    pub fn widened(self) -> Cow<'a, [f32]> {
        match self {
            Self::F32(elements) => Cow::Borrowed(elements),
            Self::F16(elements) => Cow::Owned(elements.to_f32_vec()),
            Self::Rounded(elements) => Cow::Owned(elements.iter().map(|element| rounded(*element)).collect()),
        }
    }

    /// Whether these are the elements of `vector`, bit by bit.
    pub fn equals(self, vector: &[f32]) -> bool {
        let same = |(left, right): (f32, &f32)| left.to_bits() == right.to_bits();
        match self {
            Self::F32(elements) => elements.iter().copied().zip(vector).all(same),
            Self::F16(elements) => elements.iter().map(|element| element.to_f32()).zip(vector).all(same),
            Self::Rounded(elements) => elements.iter().map(|element| rounded(*element)).zip(vector).all(same),
        }
    }
}

fn rounded(element: f32) -> f32 {
    f16::from_f32(element).to_f32()
}

thread_local! {
    /// The row that is being rounded.
    static HALVES: RefCell<Vec<f16>> = const { RefCell::new(Vec::new()) };
}

/// Lends a row's elements rounded to `f16`. `take` rounds nothing itself.
pub(crate) fn with_halves<R>(elements: &[f32], take: impl FnOnce(&[f16]) -> R) -> R {
    HALVES.with_borrow_mut(|halves| {
        halves.resize(elements.len(), f16::ZERO);
        halves.convert_from_f32_slice(elements);
        take(halves.as_slice())
    })
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
