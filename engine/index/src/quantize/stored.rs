//! Codes that stay where they are stored: a search reads those that it scores, some at a time.
//!
//! Used by `ivf`, where those that a search wants lie side by side. The bytes are those of `layout`; what is small of
//! them, and needed for every code, is in memory.

use std::ops::Range;

use super::layout::{Beginning, not_finite};
use super::{Codec, Correction, Query, QueryRef, Width};
use crate::layout::{Header, Reader};
use crate::{IndexError, Stored};

/// Bytes of codes read at once: what storage unseals at once.
const PIECE_BYTES: usize = 1 << 20;

/// The codes of the rows of one index, by place.
pub(crate) struct StoredCodes {
    codec: Codec,
    corrections: Vec<Correction>,
    /// Where the first code lies among the index's bytes.
    start: usize,
}

impl StoredCodes {
    /// What [`super::Codes::read`] reads, but for the codes.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn read(reader: &mut Reader, header: Header, count: usize) -> Result<Self, IndexError> {
        let Beginning { centre, corrections, len } = Beginning::read(reader, header, count)?;
        let codec =
            Codec::of(header.metric, header.width, centre, &corrections).ok_or_else(|| not_finite(reader))?;
        let start = reader.offset();
        reader.skip(len)?;
        Ok(Self { codec, corrections, start })
    }

    pub(crate) fn width(&self) -> Width {
        self.codec.width
    }

    /// Makes a query ready, as [`super::Codes::query`] does.
    pub(crate) fn query(&self, vector: &[f32]) -> Option<Query> {
        self.codec.query(vector)
    }

    /// How many codes to read at once.
    pub(crate) fn at_once(&self) -> usize {
        (PIECE_BYTES / self.codec.stride()).max(1)
    }

    /// Reads the codes at some places.
    ///
    /// # Errors
    /// [`IndexError::Unreadable`]; then `piece` may hold anything.
    pub(crate) fn fetch(
        &self,
        stored: &dyn Stored,
        places: Range<usize>,
        piece: &mut Vec<u8>,
    ) -> Result<(), IndexError> {
        let stride = self.codec.stride();
        piece.resize(places.len() * stride, 0);
        stored.read(self.start + places.start * stride, piece).map_err(IndexError::Unreadable)
    }

    /// `out[i]`: the estimated distance (L2: squared) of `nodes[i]`, counted from the first place of a piece.
    pub(crate) fn score(
        &self,
        query: &QueryRef,
        (first, piece): (usize, &[u8]),
        nodes: &[u32],
        out: &mut Vec<f32>,
    ) {
        self.codec.score(query, (piece, &self.corrections[first..]), nodes, out);
    }

    /// Heap bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(self.corrections.as_slice()) + self.codec.memory_bytes()
    }
}
