//! The scan over bit strings: compare, keep the best `k`.

use sepal_types::BitMetric;

use crate::distance::{hamming, jaccard};
use crate::flat::{BLOCK_ROWS, until};
use crate::neighbor::TopK;
use crate::{Bits, Neighbor, Stopped};

/// Bit strings of one length, row-major, each filled up to whole bytes with zeros.
#[derive(Clone, Copy, Debug)]
pub struct BitRows<'a> {
    pub bytes: &'a [u8],
    /// Bytes of one of them, at least 1.
    pub width: usize,
}

impl<'a> BitRows<'a> {
    /// How many there are.
    pub fn len(self) -> usize {
        self.bytes.len() / self.width
    }

    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// # Panics
    /// When there is no such row.
    #[inline]
    pub fn row(self, position: usize) -> &'a [u8] {
        &self.bytes[position * self.width..][..self.width]
    }
}

/// The `k` nearest of the allowed rows, ascending by distance, then by position.
///
/// `allowed` has a bit for each row, and the caller has cleared NULL rows in it. `stopped` is asked every some thousand
/// rows; once it says so, these are the nearest of those compared, which nobody should take for the answer.
///
/// # Panics
/// When `query` has not the rows' width: SQL has compared lengths before.
pub fn search_bits(
    metric: BitMetric,
    rows: BitRows,
    query: &[u8],
    k: usize,
    allowed: Option<&Bits>,
    stopped: &Stopped<'_>,
) -> Vec<Neighbor> {
    assert_eq!(query.len(), rows.width, "a query of another length than the rows");
    match metric {
        BitMetric::Hamming => nearest(rows, k, allowed, stopped, |row| hamming(query, row)),
        BitMetric::Jaccard => nearest(rows, k, allowed, stopped, |row| jaccard(query, row)),
    }
}

fn nearest(
    rows: BitRows,
    k: usize,
    allowed: Option<&Bits>,
    stopped: &Stopped<'_>,
    distance: impl Fn(&[u8]) -> f64,
) -> Vec<Neighbor> {
    if k == 0 {
        return Vec::new();
    }
    let mut top = TopK::new(k, allowed.map_or(rows.len(), Bits::count));
    let mut offer = |position: usize, row: &[u8]| {
        top.offer(Neighbor { position: position as u32, distance: distance(row) });
    };
    match allowed {
        Some(allowed) => {
            let positions = allowed.iter().take_while(|position| *position < rows.len());
            until(stopped, positions).for_each(|position| offer(position, rows.row(position)));
        }
        None => {
            for (first, block) in (0..).step_by(BLOCK_ROWS).zip(rows.bytes.chunks(BLOCK_ROWS * rows.width)) {
                if stopped() {
                    break;
                }
                let rows = block.chunks_exact(rows.width);
                (first..).zip(rows).for_each(|(position, row)| offer(position, row));
            }
        }
    }
    top.into_sorted()
}
