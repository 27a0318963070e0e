//! A dense bit set over row positions: which rows a search may return, which are not NULL.
//!
//! One bit a row, so a segment of a million rows costs 125 KB and a test is one load. Sparse sets belong to
//! the storage side (roaring); they are expanded once a query.

/// `len` bits. Bits past `len` in the last word are always zero, so that words can be counted and compared
/// whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// All clear.
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// All set.
    pub fn full(len: usize) -> Self {
        let mut bits = Self { words: vec![u64::MAX; len.div_ceil(64)], len };
        bits.trim();
        bits
    }

    /// From little-endian words, bit 0 of word 0 first. `None` unless there are exactly as many words as
    /// `len` needs and no bit past `len` is set.
    pub fn from_words(words: Vec<u64>, len: usize) -> Option<Self> {
        let bits = Self { words, len };
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
        self.words[position / 64] |= 1 << (position % 64);
    }

    /// # Panics
    /// When `position` is past the end: the caller mixed up two segments.
    #[inline]
    pub fn clear(&mut self, position: usize) {
        self.check(position);
        self.words[position / 64] &= !(1 << (position % 64));
    }

    /// How many are set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many are set in both. The shorter set counts as clear past its end.
    pub fn count_and(&self, other: &Bits) -> usize {
        self.words.iter().zip(&other.words).map(|(a, b)| (a & b).count_ones() as usize).sum()
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
        for (index, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(index).copied().unwrap_or(0);
        }
    }

    /// Clears what is set in `other`.
    pub fn and_not(&mut self, other: &Bits) {
        for (word, taken) in self.words.iter_mut().zip(&other.words) {
            *word &= !taken;
        }
    }

    /// The words, bit 0 of word 0 first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    fn check(&self, position: usize) {
        assert!(position < self.len, "bit {position} of a set of {}: two segments were mixed up", self.len);
    }

    fn trim(&mut self) {
        let used = self.len % 64;
        if used != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << used) - 1;
        }
    }
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
        let mut rest = even.clone();
        rest.and_not(&thirds);
        assert_eq!(rest, from(100, |position| position % 2 == 0 && position % 3 != 0));
        let mut longer = Bits::full(100);
        longer.and(&Bits::full(64));
        assert_eq!(longer.count(), 64);
    }

    #[test]
    fn words_round_trip_and_stray_bits_are_refused() {
        let bits = from(70, |position| position % 7 == 1);
        assert_eq!(Bits::from_words(bits.words().to_vec(), 70), Some(bits.clone()));
        assert_eq!(Bits::from_words(bits.words().to_vec(), 128 + 1), None);
        assert_eq!(Bits::from_words(vec![0, 1 << 6], 70), None);
        assert_eq!(Bits::from_words(vec![], 0), Some(Bits::new(0)));
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
