//! The signs of vectors: one bit an element, whether it is greater than zero, as `binary_quantize` gives them.
//!
//! [`Signs`] holds those of a segment's rows for an index over `binary_quantize(embedding)::bit(n)`, whatever its access
//! method: a thirty-second of the vectors, which a search compares one after the other ([`search_bits`]). Columns of bit
//! strings are searched by the same function, over the column itself. A search by bits reads no vector; one by vectors,
//! which nobody asks for, would be exact.

mod layout;
mod search;

use std::io;

use sepal_types::Metric;

use crate::{
    Bits, BuildParams, IndexError, Neighbor, SearchParams, VectorIndex, Vectors, check, search_exact,
};

pub use search::{BitRows, search_bits};

/// Rows between two looks at whether the build is still wanted.
const REPORTED: usize = 4096;

/// One bit an element of each row.
#[derive(Debug, PartialEq, Eq)]
pub struct Signs {
    rows: usize,
    dim: usize,
    /// The rows that have a vector; `None` means all.
    held: Option<Bits>,
    /// How many rows `held` has.
    len: usize,
    /// `rows × ⌈dim ÷ 8⌉`; zeros for a row without a vector.
    bytes: Vec<u8>,
}

impl Signs {
    /// One pass over the elements.
    pub(crate) fn build(params: &BuildParams) -> Result<Self, IndexError> {
        let (rows, width) = (params.rows(), params.dim.div_ceil(8));
        let held = params.indexable();
        let mut bytes = Vec::with_capacity(rows * width);
        for position in 0..rows {
            if position.is_multiple_of(REPORTED) {
                params.report(position)?;
            }
            match held.get(position) {
                true => append_signs(params.vector(position), &mut bytes),
                false => bytes.resize(bytes.len() + width, 0),
            }
        }
        params.report(rows)?;
        Ok(Self::new(rows, params.dim, Some(held), bytes))
    }

    fn new(rows: usize, dim: usize, held: Option<Bits>, bytes: Vec<u8>) -> Self {
        let len = held.as_ref().map_or(rows, Bits::count);
        Self { rows, dim, held: held.filter(|_| len < rows), len, bytes }
    }

    /// All rows' bit strings, those without a vector included.
    pub fn rows(&self) -> BitRows<'_> {
        BitRows { bytes: &self.bytes, width: self.dim.div_ceil(8) }
    }

    /// The rows that have a vector; `None` means all.
    pub fn held(&self) -> Option<&Bits> {
        self.held.as_ref()
    }
}

/// Appends the signs of a vector, eight to a byte, the first the byte's highest. Those past the end are zero.
pub fn append_signs(vector: &[f32], bytes: &mut Vec<u8>) {
    bytes.extend(vector.chunks(8).map(|eight| {
        eight
            .iter()
            .enumerate()
            .fold(0, |byte, (place, element)| byte | u8::from(*element > 0.0) << (7 - place))
    }));
}

impl VectorIndex for Signs {
    /// By the vectors themselves, as without an index.
    fn search(&self, vectors: Vectors, query: &[f32], params: &SearchParams) -> Vec<Neighbor> {
        assert_eq!(vectors.len(), self.rows * self.dim, "search in another segment's vectors");
        let both = match (&self.held, params.allowed) {
            (Some(held), Some(allowed)) => Some(held.both(allowed).0),
            (held, allowed) => held.as_ref().or(allowed).cloned(),
        };
        search_exact(Metric::L2, self.dim, vectors, query, params.k, both.as_ref())
    }

    /// It always finds all of them.
    fn effort_for(&self, _recall: f64, _k: usize) -> Option<usize> {
        Some(1)
    }

    fn signs(&self) -> Option<&Signs> {
        Some(self)
    }

    fn serialize(&self) -> Vec<u8> {
        let mut bytes = self.encoded_head();
        bytes.extend_from_slice(&self.bytes);
        bytes
    }

    fn serialized_bytes(&self) -> u64 {
        (self.encoded_head().len() + self.bytes.len()) as u64
    }

    fn serialize_into(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.encoded_head())?;
        out.write_all(&self.bytes)
    }

    fn memory_bytes(&self) -> usize {
        let mask = self.held.as_ref().map_or(0, |held| size_of_val(held.words()));
        size_of::<Self>() + mask + self.bytes.capacity()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.dim)
    }

    fn check(&self, rows: &BuildParams) -> Result<(), IndexError> {
        check::same_metric(Metric::L2, rows)?;
        check::same_rows(self.held.as_ref(), rows)?;
        let (own, mut expected) = (self.rows(), Vec::new());
        for position in rows.indexable().iter() {
            expected.clear();
            append_signs(rows.vector(position), &mut expected);
            if own.row(position) != expected {
                return Err(check::disagrees(format!("row {position} has other signs")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
