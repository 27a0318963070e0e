//! A slice that its parts share: cutting it copies nothing.
//!
//! What events have besides their columns, which Arrow shares likewise. A large commit is cut batch by batch, and
//! copying what is left each time would cost the square of its size.

use std::{fmt, ops::Deref, sync::Arc};

/// See the module.
#[derive(Clone)]
pub struct Shared<T> {
    whole: Arc<[T]>,
    from: usize,
    to: usize,
}

impl<T> Shared<T> {
    /// A part. Panics beyond the end, as slices do.
    pub fn part(&self, offset: usize, length: usize) -> Self {
        let from = self.from + offset;
        let to = from + length;
        assert!(to <= self.to, "{length} from {offset} on of {}", self.len());
        Self { whole: Arc::clone(&self.whole), from, to }
    }
}

impl<T> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.whole[self.from..self.to]
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl<T> From<Vec<T>> for Shared<T> {
    fn from(whole: Vec<T>) -> Self {
        Self { from: 0, to: whole.len(), whole: whole.into() }
    }
}

impl<T> FromIterator<T> for Shared<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::from(Vec::from_iter(items))
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_part_is_where_it_should_be() {
        let whole: Shared<u32> = (0..10).collect();
        let part = whole.part(2, 6).part(1, 3);
        assert_eq!(*part, [3, 4, 5]);
        assert_eq!(part.as_ptr(), whole[3..].as_ptr(), "nothing is copied");
        assert!(whole.part(10, 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "4 from 0 on of 3")]
    fn a_part_does_not_reach_beyond_its_own_end() {
        let whole: Shared<u32> = (0..10).collect();
        whole.part(0, 3).part(0, 4);
    }
}
