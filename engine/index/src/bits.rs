//! A dense bit set over row positions: which rows a search may return, which are not NULL.
//!
//! One bit a row, so a segment of a million rows costs 125 KB and a test is one load. Sparse sets belong to
//! the storage side (roaring), which expands them once for all searches. A clone shares its words until one of the
//! two is changed: what a filter lets through is kept and lent to many searches.

use std::{iter::repeat_n, sync::Arc};

/// `len` bits. Bits past `len` in the last word are always zero, so that words can be counted and compared
/// whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits {
    words: Arc<[u64]>,
    len: usize,
}

impl Bits {
    /// All clear.
    pub fn new(len: usize) -> Self {
        Self { words: repeat_n(0, len.div_ceil(64)).collect(), len }
    }

    /// All set.
    pub fn full(len: usize) -> Self {
        let mut bits = Self { words: repeat_n(u64::MAX, len.div_ceil(64)).collect(), len };
        bits.trim();
        bits
    }

    /// From little-endian words, bit 0 of word 0 first: copied out of a `Vec`, shared with an `Arc`. `None` unless
    /// there are exactly as many words as `len` needs and no bit past `len` is set.
    pub fn from_words(words: impl Into<Arc<[u64]>>, len: usize) -> Option<Self> {
        let bits = Self { words: words.into(), len };
        let mut trimmed_tail = bits.words.last().copied().unwrap_or(0);
        if !len.is_multiple_of(64) {
            trimmed_tail &= u64::MAX << (len % 64);
        } else {
            trimmed_tail = 0;
        }
        (bits.words.len() == len.div_ceil(64) && trimmed_tail == 0).then_some(bits)
    }

    /// How many positions there are, set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no positions at all (not: none set).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// False for positions past the end.
    #[inline]
    pub fn get(&self, position: usize) -> bool {
        match self.words.get(position / 64) {
            Some(word) => word >> (position % 64) & 1 == 1,
            None => false,
        }
    }

    /// # Panics
    /// When `position` is past the end: the caller mixed up two segments.
    #[inline]
    pub fn set(&mut self, position: usize) {
        self.check(position);
        self.changed()[position / 64] |= 1 << (position % 64);
    }

    /// Sets many, or clears them.
    ///
    /// # Panics
    /// When a position is past the end: the caller mixed up two segments.
    pub fn set_all(&mut self, positions: &[u32], value: bool) {
        let len = self.len;
        let words = self.changed();
        for position in positions.iter().map(|position| *position as usize) {
            check(position, len);
            match value {
                true => words[position / 64] |= 1 << (position % 64),
                false => words[position / 64] &= !(1 << (position % 64)),
            }
        }
    }

    /// # Panics
    /// When `position` is past the end: the caller mixed up two segments.
    #[inline]
    pub fn clear(&mut self, position: usize) {
        self.check(position);
        self.changed()[position / 64] &= !(1 << (position % 64));
    }

    /// How many are set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many are set in both. The shorter set counts as clear past its end.
    pub fn count_and(&self, other: &Bits) -> usize {
        self.words.iter().zip(other.words.iter()).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    /// The set positions, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }

    /// Keeps what is set in both. The shorter set counts as clear past its end.
    pub fn and(&mut self, other: &Bits) {
        for (index, word) in self.changed().iter_mut().enumerate() {
            *word &= other.words.get(index).copied().unwrap_or(0);
        }
    }

    /// What is set in both, and how many that are. As long as `self`; the shorter set counts as clear past its end.
    pub fn both(&self, other: &Bits) -> (Bits, usize) {
        let theirs = other.words.iter().copied().chain(std::iter::repeat(0));
        let mut count = 0;
        let both = self.words.iter().zip(theirs).map(|(own, theirs)| {
            let word = own & theirs;
            count += word.count_ones() as usize;
            word
        });
        let words: Arc<[u64]> = both.collect();
        (Bits { words, len: self.len }, count)
    }

    /// Adds what is set in the other.
    ///
    /// # Panics
    /// When the other has another length: the caller mixed up two segments.
    pub fn or(&mut self, other: &Bits) {
        assert_eq!(self.len, other.len, "two segments were mixed up");
        for (word, added) in self.changed().iter_mut().zip(other.words.iter()) {
            *word |= added;
        }
    }

    /// The words, bit 0 of word 0 first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words, no longer shared with a clone.
    fn changed(&mut self) -> &mut [u64] {
        Arc::make_mut(&mut self.words)
    }

    fn check(&self, position: usize) {
        check(position, self.len);
    }

    fn trim(&mut self) {
        let used = self.len % 64;
        if used != 0
            && let Some(last) = self.changed().last_mut()
        {
            *last &= (1 << used) - 1;
        }
    }
}

fn check(position: usize, len: usize) {
    assert!(position < len, "bit {position} of a set of {len}: two segments were mixed up");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_iterates_what_is_set() {
        for len in [0, 1, 63, 64, 65, 200] {
            let full = Bits::full(len);
            assert_eq!((full.count(), full.len()), (len, len));
            assert_eq!(full.iter().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
            assert_eq!(Bits::new(len).count(), 0);
            assert!(!full.get(len));
        }
        let mut bits = Bits::new(130);
        for position in [0, 63, 64, 129] {
            bits.set(position);
        }
        bits.clear(63);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 64, 129]);
        assert!(bits.get(64) && !bits.get(63) && !bits.get(100_000));
    }

    #[test]
    fn combines_sets() {
        let even = from(100, |position| position % 2 == 0);
        let thirds = from(100, |position| position % 3 == 0);
        let mut both = even.clone();
        both.and(&thirds);
        assert_eq!(both, from(100, |position| position % 6 == 0));
        assert_eq!(even.count_and(&thirds), both.count());
        let mut longer = Bits::full(100);
        longer.and(&Bits::full(64));
        assert_eq!(longer.count(), 64);
        assert_eq!(even.both(&thirds), (both.clone(), 17));
        assert_eq!(Bits::full(100).both(&Bits::full(64)).1, 64);
        both.or(&from(100, |position| position == 1));
        assert_eq!(both, from(100, |position| position % 6 == 0 || position == 1));
        both.set_all(&[3, 99], true);
        both.set_all(&[1, 0], false);
        let expected =
            |position: usize| [3, 99].contains(&position) || (position > 0 && position.is_multiple_of(6));
        assert_eq!(both, from(100, expected));
    }

    #[test]
    fn words_round_trip_and_stray_bits_are_refused() {
        let bits = from(70, |position| position % 7 == 1);
        assert_eq!(Bits::from_words(bits.words().to_vec(), 70), Some(bits.clone()));
        assert_eq!(Bits::from_words(bits.words().to_vec(), 128 + 1), None);
        assert_eq!(Bits::from_words(vec![0_u64, 1 << 6], 70), None);
        assert_eq!(Bits::from_words(Vec::<u64>::new(), 0), Some(Bits::new(0)));
    }

    #[test]
    fn a_clone_shares_its_words_until_one_changes() {
        let words: std::sync::Arc<[u64]> = std::sync::Arc::from([5, 1]);
        let bits = Bits::from_words(std::sync::Arc::clone(&words), 70).unwrap();
        assert_eq!(bits.words().as_ptr(), words.as_ptr());
        let mut other = bits.clone();
        assert_eq!(other.words().as_ptr(), words.as_ptr());
        other.clear(2);
        assert_eq!((bits.iter().collect::<Vec<_>>(), other.count()), (vec![0, 2, 64], 2));
    }

    #[test]
    #[should_panic(expected = "two segments")]
    fn setting_past_the_end_is_a_bug() {
        Bits::new(3).set(3);
    }

    fn from(len: usize, wanted: impl Fn(usize) -> bool) -> Bits {
        let mut bits = Bits::new(len);
        (0..len).filter(|position| wanted(*position)).for_each(|position| bits.set(position));
        bits
    }
}
