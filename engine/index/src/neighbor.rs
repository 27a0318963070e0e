//! What a search returns, of one segment and of several, and the heap that keeps the best `k` while it looks.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A row of the segment and how far it is from the query.
#[derive(Clone, Copy, Debug)]
pub struct Neighbor {
    /// Row position in the segment.
    pub position: u32,
    /// As `distance` gives it; smaller is nearer.
    pub distance: f64,
}

impl PartialEq for Neighbor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Neighbor {}

impl PartialOrd for Neighbor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Nearest first, NaN last whatever its sign (0/0 has a set sign bit on x86), equal distances by position.
impl Ord for Neighbor {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.distance.partial_cmp(&other.distance) {
            Some(order) => order,
            None => self.distance.is_nan().cmp(&other.distance.is_nan()),
        }
        .then(self.position.cmp(&other.position))
    }
}

/// A row of one of several segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub neighbor: Neighbor,
    /// Which of the parts searched.
    pub part: u32,
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Nearest first, equal distances by part, then by position.
impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        let Self { neighbor: Neighbor { position, .. }, part } = *other;
        let here = Neighbor { position, ..self.neighbor };
        here.cmp(&other.neighbor)
            .then(self.part.cmp(&part))
            .then(self.neighbor.position.cmp(&other.neighbor.position))
    }
}

/// The `k` smallest of what was offered: a max-heap whose top is the worst one kept.
pub(crate) struct TopK<T: Ord = Neighbor> {
    heap: BinaryHeap<T>,
    k: usize,
}

impl<T: Ord> TopK<T> {
    /// `candidates` bounds how many will be offered: a huge `LIMIT` reserves no more than there are rows.
    pub(crate) fn new(k: usize, candidates: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(k.min(candidates)), k }
    }

    #[inline]
    pub(crate) fn offer(&mut self, candidate: T) {
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }

    /// The greatest of `k` kept ones; `None` while fewer are kept.
    pub(crate) fn worst(&self) -> Option<&T> {
        if self.is_full() { self.heap.peek() } else { None }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.heap.len() >= self.k
    }

    /// Ascending.
    pub(crate) fn into_sorted(self) -> Vec<T> {
        self.heap.into_sorted_vec()
    }
}

/// Maps a float's bits to an integer of the same order; NaN to that of infinity.
#[inline(always)]
pub(crate) fn sortable(score: f32) -> u32 {
    let bits = if score.is_nan() { f32::INFINITY.to_bits() } else { score.to_bits() };
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The float of [`sortable`]'s integer.
#[inline(always)]
pub(crate) fn of_sortable(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits ^ 1 << 31 } else { !bits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nan_of_either_sign_sorts_last() {
        let mut all: Vec<Neighbor> = [f64::NAN, 1.0, -f64::NAN, f64::NEG_INFINITY, -0.0, 0.0, f64::INFINITY]
            .into_iter()
            .enumerate()
            .map(|(position, distance)| Neighbor { position: position as u32, distance })
            .collect();
        all.sort();
        let positions: Vec<u32> = all.iter().map(|neighbor| neighbor.position).collect();
        assert_eq!(positions, [3, 4, 5, 1, 6, 0, 2]);
    }

    proptest! {
        #[test]
        fn keeps_the_k_smallest(values in prop::collection::vec(-5i8..5, 0..60), k in 0usize..70) {
            let mut all: Vec<Neighbor> = values
                .iter()
                .enumerate()
                .map(|(position, value)| Neighbor { position: position as u32, distance: f64::from(*value) })
                .collect();
            let mut top = TopK::new(k, all.len());
            all.iter().for_each(|neighbor| top.offer(*neighbor));
            all.sort();
            all.truncate(k);
            prop_assert_eq!(top.is_full(), values.len() >= k);
            prop_assert_eq!(top.into_sorted(), all);
        }
    }
}
