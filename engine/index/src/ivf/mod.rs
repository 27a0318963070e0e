//! `USING ivfflat`: an inverted file whose cells FAISS finds.
//!
//! The rows are divided into `lists` cells by k-means; a search reads the `probes` cells whose centroids are
//! nearest to the query (Jégou et al., "Product quantization for nearest neighbor search", 2011, section IV;
//! pgvector's ivfflat). Called by [`crate::build`] and [`crate::open`].
//!
//! - `build`: FAISS (`faiss::sys`) trains the centroids on a sample and assigns every row to one.
//! - `codes`: each row's 4-bit code (`quantize`), in the order of the lists, so that a cell is read from end to end; of
//!   8 bits an element where 4 cannot tell the rows apart. There are none where codes are no shorter than vectors (up to
//!   16 dimensions, of 8 bits up to 32) or 8 bits cannot tell the rows apart either.
//! - `search`: our kernels rank the cells and scan the codes in them, or without codes the rows; the best are scored
//!   from the vectors. All cells are read exactly.
//! - `in_place`: the same where the codes were left on disk, or the vectors have to be fetched: which rows are to be
//!   scored from their vectors.
//! - `layout`: the bytes.
//!
//! The lists hold row positions and codes. FAISS's own `IndexIVFFlat` holds a second copy of each vector in them, in
//! memory and in its file, and its file is read by C++ that trusts it; the segment's vectors are at hand in
//! every search, and with them a filter is a bit test before a row is touched instead of a selector object,
//! distances are the exact ones, and no FAISS call is left that could fail in a query. The tests hold the
//! answers against `IndexIVFFlat` over the same cells.
//!
//! Cells are by Euclidean distance for L2 and by inner product with unit centroids for cosine (rows scaled to
//! length one) and inner product, which are FAISS's own choices. L1 has none, here as in pgvector.

mod build;
mod check;
mod codes;
mod in_place;
mod layout;
mod search;

use std::io;
use std::ops::Range;

use sepal_types::Metric;

use crate::calibration::{self, Measured};
use crate::quantize::{Codes, StoredCodes};
use crate::{
    Bits, BuildParams, Candidates, IndexError, Neighbor, SearchParams, Stored, VectorIndex, Vectors, Work,
};

/// The part of the cells that holds nine tenths of the ten nearest on all data at hand.
const CAREFUL_SHARE: usize = 10;

/// `USING ivfflat`.
pub(crate) struct IvfFlat {
    metric: Metric,
    rows: usize,
    dim: usize,
    /// `lists × dim`, row-major.
    centroids: Vec<f32>,
    /// List `i` is `positions[offsets[i]..offsets[i + 1]]`; one more entry than lists, the first is 0.
    offsets: Vec<u32>,
    /// Every held row once.
    positions: Vec<u32>,
    /// The rows in `positions`.
    held: Bits,
    /// By place in `positions`; `None`: a search reads the vectors.
    codes: Option<Codes>,
    /// The same where they stayed on disk.
    left_codes: Option<StoredCodes>,
}

impl IvfFlat {
    /// `positions` are different and below `rows`; `offsets` ascend from 0 to their number.
    fn new(
        metric: Metric,
        (rows, dim): (usize, usize),
        centroids: Vec<f32>,
        offsets: Vec<u32>,
        positions: Vec<u32>,
    ) -> Self {
        let mut held = Bits::new(rows);
        positions.iter().for_each(|position| held.set(*position as usize));
        Self { metric, rows, dim, centroids, offsets, positions, held, codes: None, left_codes: None }
    }

    fn lists(&self) -> usize {
        self.offsets.len() - 1
    }

    fn list(&self, list: usize) -> &[u32] {
        &self.positions[self.places(list)]
    }

    /// Where a list's rows stand in `positions`.
    fn places(&self, list: usize) -> Range<usize> {
        self.offsets[list] as usize..self.offsets[list + 1] as usize
    }
}

/// The metric between queries and centroids.
fn cell_metric(metric: Metric) -> Metric {
    match metric {
        Metric::Cosine | Metric::InnerProduct => Metric::InnerProduct,
        Metric::L1 | Metric::L2 => Metric::L2,
    }
}

impl VectorIndex for IvfFlat {
    fn search(&self, vectors: Vectors, query: &[f32], params: &SearchParams) -> Vec<Neighbor> {
        self.search_counted(vectors, query, params, &mut Work::default())
    }

    fn search_counted(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        work: &mut Work,
    ) -> Vec<Neighbor> {
        assert_eq!(vectors.len(), self.rows * self.dim, "search in another segment's vectors");
        assert_eq!(query.len(), self.dim, "a query of other dimensions than the index");
        self.probe(vectors, query, params, work)
    }

    fn candidates(
        &self,
        stored: Option<&dyn Stored>,
        query: &[f32],
        params: &SearchParams,
    ) -> Result<Option<Candidates>, IndexError> {
        assert_eq!(query.len(), self.dim, "a query of other dimensions than the index");
        self.nominate(stored, query, params)
    }

    fn is_in_place(&self) -> bool {
        self.left_codes.is_some()
    }

    fn leavable_bytes(&self) -> usize {
        self.codes.as_ref().map_or(0, |codes| codes.bytes().len())
    }

    fn effort_for(&self, recall: f64, k: usize) -> Option<usize> {
        let probes = calibration::guess(self.lists().div_ceil(CAREFUL_SHARE), recall, k)?;
        (probes < self.lists()).then_some(probes)
    }

    /// Without the codes that were left elsewhere.
    fn serialize(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        self.encode(&mut bytes).expect("a Vec takes every write");
        bytes
    }

    fn serialized_bytes(&self) -> u64 {
        self.encoded_bytes() as u64
    }

    fn serialize_into(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.encode(out)
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&self.centroids[..])
            + size_of_val(&self.offsets[..])
            + size_of_val(&self.positions[..])
            + size_of_val(self.held.words())
            + self.codes.as_ref().map_or(0, Codes::memory_bytes)
            + self.left_codes.as_ref().map_or(0, StoredCodes::memory_bytes)
    }

    fn len(&self) -> usize {
        self.positions.len()
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.dim)
    }

    fn check(&self, rows: &BuildParams) -> Result<(), IndexError> {
        self.check_cells(rows)
    }
}

impl Measured for IvfFlat {
    /// 1, 2, 3, 4, 6, 8, 12, … and all: so many cells find everything.
    fn efforts(&self, _k: usize) -> Vec<u32> {
        let all = self.lists() as u32;
        let powers = (0..u32::BITS - 1).map(|bit| 1u32 << bit).flat_map(|power| [power, power + power / 2]);
        let mut efforts: Vec<u32> = powers.take_while(|effort| *effort < all).collect();
        // 1 and a half of it are one.
        efforts.dedup();
        efforts.push(all);
        efforts
    }

    fn hits(&self, params: &BuildParams, row: usize, truth: &[Neighbor], efforts: &[u32]) -> Vec<u32> {
        match self.hits_by_codes(params, row, truth, efforts) {
            Some(hits) => hits,
            None => self.hits_by_vectors(params, row, truth, efforts),
        }
    }
}

#[cfg(test)]
mod tests;
