//! Rows of one chunk: which they are, and how many. Cheap to clone: the bits are shared.
//!
//! What a filter lets through, what is not deleted and what has a vector come as one of these each; a search takes
//! what is in all of them.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, BooleanArray},
    buffer::BooleanBuffer,
};
use sepal_index::Bits;
use sepal_storage::ChunkRef;

/// Some of a chunk's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    bits: Bits,
    count: usize,
}

impl Selected {
    pub fn of(bits: Bits) -> Self {
        let count = bits.count();
        Self { bits, count }
    }

    /// Bits of which so many are set.
    pub fn counted(bits: Bits, count: usize) -> Self {
        debug_assert_eq!(bits.count(), count, "rows were counted wrong");
        Self { bits, count }
    }

    /// The rows at these positions, which are distinct.
    pub fn at(positions: &[u32], rows: usize) -> Self {
        let mut bits = Bits::new(rows);
        bits.set_all(positions, true);
        Self { bits, count: positions.len() }
    }

    /// The rows that are true; NULL is not.
    pub fn passing(passes: &BooleanArray) -> Self {
        match passes.nulls() {
            Some(valid) => Self::set(&(passes.values() & valid.inner())),
            None => Self::set(passes.values()),
        }
    }

    fn set(set: &BooleanBuffer) -> Self {
        let words: Vec<u64> = set.bit_chunks().iter_padded().take(set.len().div_ceil(64)).collect();
        let bits = Bits::from_words(words, set.len()).unwrap_or_else(|| {
            let positions: Vec<u32> = set.set_indices_u32().collect();
            let mut bits = Bits::new(set.len());
            bits.set_all(&positions, true);
            bits
        });
        Self::of(bits)
    }

    /// The rows of a chunk that its snapshot sees; `None` when it sees all.
    pub fn live(reference: &ChunkRef) -> Option<Self> {
        let live = reference.live()?;
        let bits = Bits::from_words(Arc::clone(&live.words), reference.chunk.rows() as usize)
            .expect("storage makes a bit for each row of the chunk");
        Some(Self { bits, count: live.count as usize })
    }

    /// The rows of a column that have a value; `None` when all have.
    pub fn valued(column: &ArrayRef) -> Option<Self> {
        let valid = column.nulls().filter(|nulls| nulls.null_count() > 0)?;
        Some(Self::set(valid.inner()))
    }

    pub fn bits(&self) -> &Bits {
        &self.bits
    }

    pub fn into_bits(self) -> Bits {
        self.bits
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// False for positions past the end.
    pub fn has(&self, position: usize) -> bool {
        self.bits.get(position)
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Self {
        let (bits, count) = self.bits.both(&other.bits);
        Self { bits, count }
    }

    /// What is in one of them, of the same chunk.
    pub fn or(mut self, other: &Self) -> Self {
        self.bits.or(&other.bits);
        Self::of(self.bits)
    }

    /// `None` when these are all rows of the chunk.
    pub fn unless_all(self) -> Option<Self> {
        (self.count < self.bits.len()).then_some(self)
    }

    /// What is in both, where `None` stands for all rows.
    pub fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.and(&other)),
            (one, other) => one.or(other),
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(self.bits.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_and_valid_rows_pass() {
        for rows in [0_usize, 1, 63, 64, 65, 130] {
            let values: BooleanArray = (0..rows)
                .map(|row| match row % 3 {
                    0 => Some(true),
                    1 => Some(false),
                    _ => None,
                })
                .collect();
            for start in [0, rows.min(5)] {
                let sliced = values.slice(start, rows - start);
                let expected: Vec<usize> =
                    (start..rows).filter(|row| row % 3 == 0).map(|row| row - start).collect();
                let found = Selected::passing(&sliced);
                assert_eq!((found.bits().len(), found.count()), (rows - start, expected.len()));
                assert_eq!(found.bits().iter().collect::<Vec<_>>(), expected, "{rows} rows from {start}");
                let column: ArrayRef = Arc::new(sliced);
                let valued = Selected::valued(&column).map(|valued| valued.bits().iter().collect::<Vec<_>>());
                let expected: Vec<usize> =
                    (start..rows).filter(|row| row % 3 != 2).map(|row| row - start).collect();
                let has_null = expected.len() < rows - start;
                assert_eq!(valued, has_null.then_some(expected), "{rows} rows from {start}");
            }
        }
    }

    #[test]
    fn all_is_nothing_to_check() {
        assert_eq!(Selected::of(Bits::full(70)).unless_all(), None);
        assert_eq!(Selected::of(Bits::full(0)).unless_all(), None);
        let some = Selected::at(&[1, 69], 70);
        assert_eq!(some.clone().unless_all(), Some(some.clone()));
        assert_eq!(Selected::both(None, None), None);
        assert_eq!(Selected::both(None, Some(some.clone())), Some(some.clone()));
        let other = Selected::at(&[2, 69], 70);
        assert_eq!(Selected::both(Some(some.clone()), Some(other.clone())), Some(Selected::at(&[69], 70)));
        assert_eq!(some.or(&other), Selected::at(&[1, 2, 69], 70));
    }
}
