//! What a snapshot no longer sees of a chunk, and the rest as bits.
//!
//! Made by whoever deletes rows (`snapshot`), finds out what was deleted (`store::load`, `checkpoint`), and read by
//! everybody. It never changes: whoever deletes more makes another. So the bits, which searches combine with their
//! filters, are made once for all snapshots that share it.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use roaring::RoaringBitmap;

/// Positions within one chunk that a snapshot no longer sees.
#[derive(Default)]
pub struct Deletions {
    positions: RoaringBitmap,
    live: OnceLock<Live>,
}

/// The rows of a chunk that a snapshot sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// One bit a row of the chunk, that of row 0 first; those past the last row are clear.
    pub words: Arc<[u64]>,
    /// How many are set.
    pub count: u32,
}

impl Deletions {
    /// The rows of a chunk of `rows` rows that are left; made by the first who asks.
    ///
    /// # Panics
    /// When asked for another number of rows than before: the caller mixed up two chunks.
    pub(super) fn live(&self, rows: u32) -> &Live {
        let live = self.live.get_or_init(|| Live::new(&self.positions, rows));
        assert_eq!(live.words.len(), words(rows), "the deletions of two chunks were mixed up");
        live
    }
}

impl Live {
    fn new(deleted: &RoaringBitmap, rows: u32) -> Self {
        let mut set = vec![u64::MAX; words(rows)];
        if let Some(last) = set.last_mut()
            && !rows.is_multiple_of(64)
        {
            *last = (1 << (rows % 64)) - 1;
        }
        for position in deleted.range(..rows) {
            set[position as usize / 64] &= !(1 << (position % 64));
        }
        let count = set.iter().map(|word| word.count_ones()).sum();
        Self { words: set.into(), count }
    }
}

fn words(rows: u32) -> usize {
    (rows as usize).div_ceil(64)
}

impl Deref for Deletions {
    type Target = RoaringBitmap;

    fn deref(&self) -> &RoaringBitmap {
        &self.positions
    }
}

impl From<RoaringBitmap> for Deletions {
    fn from(positions: RoaringBitmap) -> Self {
        Self { positions, live: OnceLock::new() }
    }
}

impl FromIterator<u32> for Deletions {
    fn from_iter<I: IntoIterator<Item = u32>>(positions: I) -> Self {
        RoaringBitmap::from_iter(positions).into()
    }
}

impl std::fmt::Debug for Deletions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.positions, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_rows_are_all_but_the_deleted() {
        for rows in [0_u32, 1, 63, 64, 65, 200] {
            // One past the end is nobody's.
            let deleted: Deletions = (0..rows).filter(|row| row % 3 == 0).chain([rows]).collect();
            let live = deleted.live(rows);
            let expected: Vec<u32> = (0..rows).filter(|row| row % 3 != 0).collect();
            let is_set = |row: &u32| live.words[*row as usize / 64] >> (row % 64) & 1 == 1;
            assert_eq!((0..rows).filter(is_set).collect::<Vec<_>>(), expected, "{rows} rows");
            assert_eq!(live.count as usize, expected.len());
            let bits: u32 = live.words.iter().map(|word| word.count_ones()).sum();
            assert_eq!(bits, live.count, "nothing is set past the end");
            assert!(Arc::ptr_eq(&live.words, &deleted.live(rows).words), "made once");
        }
    }
}
