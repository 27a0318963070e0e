//! Exact search: every allowed row's distance is computed.
//!
//! [`search_exact`] is what `query` calls for rows that have no index (memory chunks, small segments, very
//! selective filters) and what tests measure recall against. [`Flat`] is the same behind [`VectorIndex`], for
//! `CREATE INDEX … USING flat`: it stores nothing but which rows it holds, and always answers exactly.

mod layout;
mod search;

use sepal_types::Metric;

use crate::{Bits, BuildParams, IndexError, Neighbor, SearchParams, VectorIndex, Vectors, Work, check};

pub(crate) use search::{BLOCK_ROWS, finish, scan_positions, until};
pub use search::{Stopped, search_exact, search_exact_until};

/// `USING flat`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flat {
    metric: Metric,
    rows: usize,
    dim: usize,
    /// The rows it holds; `None` means all.
    held: Option<Bits>,
    /// How many rows `held` has.
    len: usize,
}

impl Flat {
    /// One pass for cosine, to leave out vectors of length zero; otherwise nothing to do.
    pub(crate) fn build(params: &BuildParams) -> Result<Self, IndexError> {
        let rows = params.rows();
        params.report(0)?;
        let flat = Self::new(params.metric, rows, params.dim, Some(params.indexable()));
        params.report(rows)?;
        Ok(flat)
    }

    fn new(metric: Metric, rows: usize, dim: usize, held: Option<Bits>) -> Self {
        let len = held.as_ref().map_or(rows, Bits::count);
        Self { metric, rows, dim, held: held.filter(|_| len < rows), len }
    }

    fn scan(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        stopped: &Stopped<'_>,
    ) -> Vec<Neighbor> {
        assert_eq!(vectors.len(), self.rows * self.dim, "search in another segment's vectors");
        let (metric, dim, k) = (self.metric, self.dim, params.k);
        match (&self.held, params.allowed) {
            (Some(held), Some(allowed)) => {
                let mut both = held.clone();
                both.and(allowed);
                search_exact_until(metric, dim, vectors, query, k, Some(&both), stopped)
            }
            (held, allowed) => {
                search_exact_until(metric, dim, vectors, query, k, held.as_ref().or(allowed), stopped)
            }
        }
    }
}

impl VectorIndex for Flat {
    fn search(&self, vectors: Vectors, query: &[f32], params: &SearchParams) -> Vec<Neighbor> {
        self.scan(vectors, query, params, &|| false)
    }

    fn search_counted(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        work: &mut Work,
    ) -> Vec<Neighbor> {
        self.search_until(vectors, query, params, &|| false, work)
    }

    fn search_until(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        stopped: &Stopped<'_>,
        work: &mut Work,
    ) -> Vec<Neighbor> {
        let scored = match (&self.held, params.allowed) {
            (_, None) => self.len,
            (None, Some(allowed)) => allowed.count(),
            (Some(held), Some(allowed)) => allowed.count_and(held),
        };
        work.distances += scored as u64;
        self.scan(vectors, query, params, stopped)
    }

    /// It always finds all of them.
    fn effort_for(&self, _recall: f64, _k: usize) -> Option<usize> {
        Some(1)
    }

    fn serialize(&self) -> Vec<u8> {
        self.encode()
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.held.as_ref().map_or(0, |held| size_of_val(held.words()))
    }

    fn len(&self) -> usize {
        self.len
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.dim)
    }

    fn check(&self, rows: &BuildParams) -> Result<(), IndexError> {
        check::same_metric(self.metric, rows)?;
        check::same_rows(self.held.as_ref(), rows)
    }
}

#[cfg(test)]
mod tests;
