//! Short codes for vectors, and distances estimated from them.
//!
//! Used by `graph` (to walk, and to build) and by `ivf`. A row is centred, rotated (`rotate`) and rounded to 4 bits an
//! element (`encode`), an eighth of its `f32`s, or to 8 where those are too few (`eight`); a query is rounded to 8
//! bits. One integer dot product (`kernel`) and two stored numbers then estimate the distance. An estimate orders
//! candidates; it is never returned to anybody: the caller computes exact distances of the best. `encode` and `eight`
//! say how far off it is.
//!
//! With row `x`, query `q`, centre `c` (the mean of the rows; cosine: of the rows made unit length, as `x`
//! and `q` are then) and `e` the estimate of `<q - c, x - c>`:
//! ```text
//! L2 squared        |q - c|² + |x - c|² - 2 e
//! cosine distance   1 - <q, c> + |c|² - <x, c> - e
//! inner product     -<q, c> - e', where e' estimates <q, x - c>
//! ```
//! The first terms belong to the query (`constant`), the next to the row (`bias`), the last is the row's
//! `factor` times the dot product of levels. The query of an inner product is not centred: it need not lie
//! near the rows.
//!
//! L1 is not here: a rotation does not keep it.

mod aligned;
mod alone;
mod crew;
mod eight;
mod encode;
mod kernel;
mod layout;
mod rotate;
mod stored;
mod width;

use parking_lot::Mutex;
use sepal_types::Metric;

pub(crate) use aligned::{Aligned, prefetch};
pub(crate) use crew::on_threads;
pub(crate) use rotate::mix;
pub(crate) use stored::StoredCodes;
pub(crate) use width::Width;

use crate::distance::{distance, norm};
use crate::permute::permute;
use crate::{BuildParams, IndexError};
use encode::{LINE_ELEMENTS, round_query};
use kernel::Kernel;
use rotate::Rotation;

/// Rows that the centre is averaged over: enough that its error is far below the codes' own.
const CENTRE_ROWS: usize = 16_384;
/// Rows that a thread encodes at a time.
const CHUNK_ROWS: usize = 256;
/// Dot products made in one go, on the stack. A graph node has at most twice `m` = 100 neighbours.
const BATCH: usize = 64;

/// The codes of the rows of one index, by node.
pub(crate) struct Codes {
    codec: Codec,
    /// `nodes × codec.stride()`
    bytes: Aligned<u8>,
    corrections: Vec<Correction>,
}

/// What turns a row's dot product into a distance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Correction {
    pub(crate) factor: f32,
    pub(crate) bias: f32,
}

/// What all codes of an index share.
pub(crate) struct Codec {
    metric: Metric,
    width: Width,
    /// Bytes of a code.
    stride: usize,
    /// `dim` elements.
    centre: Vec<f32>,
    /// Rotated, padded.
    rotated_centre: Vec<f32>,
    centre_square: f32,
    rotation: Rotation,
    kernel: Kernel,
}

/// A query made ready.
pub(crate) struct Query {
    values: Vec<i8>,
    head: QueryHead,
}

/// A query made ready, borrowed: from a [`Query`] or from [`RowQueries`].
#[derive(Clone, Copy)]
pub(crate) struct QueryRef<'a> {
    values: &'a [i8],
    head: QueryHead,
}

/// Every row as a query, for the build, where rows are compared with rows: 1 byte an element, dropped after
/// it.
pub(crate) struct RowQueries {
    values: Aligned<i8>,
    heads: Vec<QueryHead>,
    padded: usize,
}

#[derive(Clone, Copy, Default)]
struct QueryHead {
    /// Half of what one unit of `values` is worth.
    half_unit: f32,
    /// `15 Σ values`: twice what the levels' -7.5 adds up to. Doubled, all stays an integer until the end. With 8 bits
    /// `255 Σ values`, for -127.5.
    top_sum: i32,
    constant: f32,
}

impl Codes {
    /// Whether there are codes for such vectors, and they are shorter than the vectors.
    pub(crate) fn worthwhile(metric: Metric, dim: usize, width: Width) -> bool {
        metric != Metric::L1 && width.stride(dim) < dim * size_of::<f32>()
    }

    /// Encodes the rows at `positions` (the position of node 0, of node 1, …) of `params.vectors` in 4 bits an element.
    ///
    /// `None` when the rows leave the range in which `f32` estimates mean anything (lengths past about 1e19).
    ///
    /// # Errors
    /// [`IndexError::Cancelled`] and [`IndexError::Resources`].
    pub(crate) fn build(
        params: &BuildParams,
        positions: &[u32],
    ) -> Result<Option<(Codes, RowQueries)>, IndexError> {
        let codec = Codec::new(params.metric, Width::Four, centre(params, positions));
        let (stride, padded) = (codec.stride(), codec.padded());
        let mut bytes = Aligned::zeroed(positions.len() * stride)?;
        let mut values = Aligned::zeroed(positions.len() * padded)?;
        let mut corrections = vec![Correction::default(); positions.len()];
        let mut heads = vec![QueryHead::default(); positions.len()];
        let chunks = bytes
            .chunks_mut(CHUNK_ROWS * stride)
            .zip(values.chunks_mut(CHUNK_ROWS * padded))
            .zip(corrections.chunks_mut(CHUNK_ROWS))
            .zip(heads.chunks_mut(CHUNK_ROWS))
            .zip(positions.chunks(CHUNK_ROWS));
        let chunks = Mutex::new(chunks);
        on_threads(params.threads, || {
            let mut scratch = vec![0f32; padded];
            loop {
                // Its own statement, so that the lock is not held while encoding.
                let chunk = chunks.lock().next();
                let Some(((((bytes, values), corrections), heads), positions)) = chunk else { break };
                if (params.cancelled)() {
                    break;
                }
                for (index, position) in positions.iter().enumerate() {
                    let row = params.vector(*position as usize);
                    let code = &mut bytes[index * stride..][..stride];
                    let values = &mut values[index * padded..][..padded];
                    (corrections[index], heads[index]) = codec.encode_row(row, code, values, &mut scratch);
                }
            }
        });
        if (params.cancelled)() {
            return Err(IndexError::Cancelled);
        }
        let usable = corrections.iter().all(Correction::is_finite) && heads.iter().all(QueryHead::is_finite);
        let codes = Codes { codec, bytes, corrections };
        Ok(usable.then_some((codes, RowQueries { values, heads, padded })))
    }

    /// From stored parts; `None` when their lengths do not fit together or a number is not finite.
    pub(crate) fn from_parts(
        metric: Metric,
        width: Width,
        centre: Vec<f32>,
        corrections: Vec<Correction>,
        bytes: Aligned<u8>,
    ) -> Option<Self> {
        let codec = Codec::of(metric, width, centre, &corrections)?;
        let fits = corrections.len().checked_mul(codec.stride()) == Some(bytes.len());
        fits.then_some(Self { codec, bytes, corrections })
    }

    /// Bytes of a code for vectors of `dim` elements, with its correction.
    pub(crate) fn bytes_per_code(dim: usize, width: Width) -> usize {
        width.stride(dim) + size_of::<Correction>()
    }

    pub(crate) fn width(&self) -> Width {
        self.codec.width
    }

    pub(crate) fn centre(&self) -> &[f32] {
        &self.codec.centre
    }

    pub(crate) fn corrections(&self) -> &[Correction] {
        &self.corrections
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.bytes() + size_of_val(self.corrections.as_slice()) + self.codec.memory_bytes()
    }

    /// Makes a query ready. `None` when estimates would mean nothing: a cosine without direction, or numbers
    /// past the range of `f32` sums.
    pub(crate) fn query(&self, vector: &[f32]) -> Option<Query> {
        self.codec.query(vector)
    }

    /// `out[i]`: the estimated distance (L2: squared) of `nodes[i]`, which the caller keeps in range.
    #[inline]
    pub(crate) fn score(&self, query: &QueryRef, nodes: &[u32], out: &mut Vec<f32>) {
        self.codec.score(query, (&self.bytes[..], &self.corrections[..]), nodes, out);
    }

    /// Puts the code of node `order[i]` at `i`.
    pub(crate) fn arrange(&mut self, order: &[u32]) {
        let stride = self.codec.stride();
        permute(&mut self.bytes, stride, order);
        permute(&mut self.corrections, 1, order);
    }

    /// Whether a node's code is this vector's. The processor that made it may have rounded some levels otherwise, by
    /// one; another vector's are different in nearly all.
    pub(crate) fn are_of(&self, node: u32, vector: &[f32]) -> bool {
        let (stride, padded) = (self.codec.stride(), self.codec.padded());
        let (mut code, mut values, mut unit) = (vec![0; stride], vec![0; padded], vec![0.0; padded]);
        self.codec.encode_row(vector, &mut code, &mut values, &mut unit);
        let stored = &self.bytes[node as usize * stride..][..stride];
        let near = |a: u8, b: u8| usize::from(a.abs_diff(b) <= 1);
        let pairs = stored.iter().zip(&code);
        let alike: usize = match self.codec.width {
            // Two to a byte.
            Width::Four => pairs.map(|(a, b)| near(a & 15, b & 15) + near(a >> 4, b >> 4)).sum(),
            Width::Eight => pairs.map(|(a, b)| near(*a, *b)).sum(),
        };
        // 7 of 8 of all levels.
        alike * 8 >= padded * 7
    }

    /// Starts loading a node's code and correction.
    #[inline(always)]
    pub(crate) fn prefetch(&self, node: u32) {
        let stride = self.codec.stride();
        prefetch(&self.bytes, node as usize * stride, stride);
        prefetch(&self.corrections, node as usize, 1);
    }
}

impl Query {
    pub(crate) fn borrow(&self) -> QueryRef<'_> {
        QueryRef { values: &self.values, head: self.head }
    }
}

impl RowQueries {
    /// Node `node`'s row as a query.
    #[inline]
    pub(crate) fn get(&self, node: u32) -> QueryRef<'_> {
        let values = &self.values[node as usize * self.padded..][..self.padded];
        QueryRef { values, head: self.heads[node as usize] }
    }
}

impl Correction {
    fn is_finite(&self) -> bool {
        self.factor.is_finite() && self.bias.is_finite()
    }
}

impl QueryHead {
    fn is_finite(&self) -> bool {
        self.half_unit.is_finite() && self.constant.is_finite()
    }
}

impl Codec {
    fn new(metric: Metric, width: Width, centre: Vec<f32>) -> Self {
        let padded = padded(centre.len());
        let rotation = Rotation::new(padded);
        let mut rotated_centre = centre.clone();
        rotated_centre.resize(padded, 0.0);
        rotation.apply(&mut rotated_centre);
        let centre_square = dot(&centre, &centre);
        let (stride, kernel) = (width.stride(centre.len()), Kernel::best(width));
        Self { metric, width, stride, centre, rotated_centre, centre_square, rotation, kernel }
    }

    /// From stored parts; `None` when a number is not finite.
    fn of(metric: Metric, width: Width, centre: Vec<f32>, corrections: &[Correction]) -> Option<Self> {
        let finite = !centre.is_empty()
            && centre.iter().all(|value| value.is_finite())
            && corrections.iter().all(Correction::is_finite);
        finite.then(|| Self::new(metric, width, centre))
    }

    /// `out[i]`: the estimated distance (L2: squared) of `nodes[i]`, whose code and correction are at its number.
    #[inline]
    fn score(
        &self,
        query: &QueryRef,
        (bytes, all): (&[u8], &[Correction]),
        nodes: &[u32],
        out: &mut Vec<f32>,
    ) {
        out.clear();
        out.resize(nodes.len(), 0.0);
        let QueryHead { half_unit, top_sum, constant } = query.head;
        let (mut dots, mut corrections) = ([0i32; BATCH], [Correction::default(); BATCH]);
        for (nodes, out) in nodes.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let dots = &mut dots[..nodes.len()];
            self.kernel.dots(bytes, query.values, nodes, dots);
            // Gathered first: what is then left is the same arithmetic on each, which the compiler makes wide.
            for (correction, node) in corrections.iter_mut().zip(nodes) {
                *correction = all[*node as usize];
            }
            for ((out, dot), Correction { factor, bias }) in out.iter_mut().zip(dots).zip(&corrections) {
                *out = constant + bias + factor * ((2 * *dot - top_sum) as f32 * half_unit);
            }
        }
    }

    /// Heap bytes held.
    fn memory_bytes(&self) -> usize {
        (self.centre.len() + self.rotated_centre.len()) * size_of::<f32>() + self.rotation.bytes()
    }

    fn padded(&self) -> usize {
        self.rotated_centre.len()
    }

    #[inline(always)]
    fn stride(&self) -> usize {
        self.stride
    }

    /// Writes a row's code, and the row as a query. `unit` is room for `padded` elements.
    fn encode_row(
        &self,
        row: &[f32],
        code: &mut [u8],
        values: &mut [i8],
        unit: &mut [f32],
    ) -> (Correction, QueryHead) {
        let length = self.centred(row, unit);
        self.rotation.apply(unit);
        let per_level = length * self.width.encode(unit, code);
        let correction = match self.metric {
            Metric::L2 => Correction { factor: -2.0 * per_level, bias: length * length },
            Metric::Cosine => {
                Correction { factor: -per_level, bias: -dot(row, &self.centre) * self.inverse_length(row) }
            }
            _ => Correction { factor: -per_level, bias: 0.0 },
        };
        if self.metric != Metric::InnerProduct {
            return (correction, self.head(row, length, unit, values));
        }
        // An inner product's query is not centred; a rotation is linear, so the centre can come back
        // afterwards.
        for (value, centre) in unit.iter_mut().zip(&self.rotated_centre) {
            *value = *value * length + centre;
        }
        (correction, self.head(row, 1.0, unit, values))
    }

    fn query(&self, vector: &[f32]) -> Option<Query> {
        let mut unit = vec![0f32; self.padded()];
        let length = if self.metric == Metric::InnerProduct {
            unit[..vector.len()].copy_from_slice(vector);
            make_unit(&mut unit)
        } else {
            self.centred(vector, &mut unit)
        };
        self.rotation.apply(&mut unit);
        let mut values = vec![0i8; unit.len()];
        let head = self.head(vector, length, &unit, &mut values);
        head.is_finite().then_some(Query { values, head })
    }

    /// `rotated` times `length` is the query, centred or not, in the codes' space.
    fn head(&self, query: &[f32], length: f32, rotated: &[f32], values: &mut [i8]) -> QueryHead {
        let half_unit = 0.5 * length * round_query(rotated, values);
        let top_sum = self.width.top() * values.iter().map(|value| i32::from(*value)).sum::<i32>();
        let constant = match self.metric {
            Metric::L2 => length * length,
            Metric::Cosine => {
                1.0 - dot(query, &self.centre) * self.inverse_length(query) + self.centre_square
            }
            _ => -dot(query, &self.centre),
        };
        QueryHead { half_unit, top_sum, constant }
    }

    /// Writes `vector - centre` (cosine: the vector made unit length first), made unit length and padded with
    /// zeros, to `unit`; returns its length.
    fn centred(&self, vector: &[f32], unit: &mut [f32]) -> f32 {
        let scale = if self.metric == Metric::Cosine { self.inverse_length(vector) } else { 1.0 };
        let (used, padding) = unit.split_at_mut(vector.len());
        for ((value, element), centre) in used.iter_mut().zip(vector).zip(&self.centre) {
            *value = element * scale - centre;
        }
        padding.fill(0.0);
        make_unit(unit)
    }

    fn inverse_length(&self, vector: &[f32]) -> f32 {
        (1.0 / norm(vector)) as f32
    }
}

/// Divides by the length and returns it; zeros stay zeros.
fn make_unit(values: &mut [f32]) -> f32 {
    let length = norm(values);
    if length > 0.0 {
        let inverse = 1.0 / length;
        values.iter_mut().for_each(|value| *value = (f64::from(*value) * inverse) as f32);
    }
    length as f32
}

/// The mean of up to [`CENTRE_ROWS`] rows, evenly spaced; cosine: of the rows made unit length.
fn centre(params: &BuildParams, positions: &[u32]) -> Vec<f32> {
    let mut sums = vec![0f64; params.dim];
    let step = positions.len().div_ceil(CENTRE_ROWS).max(1);
    let mut count = 0f64;
    for position in positions.iter().step_by(step) {
        let row = params.vector(*position as usize);
        let scale = if params.metric == Metric::Cosine { 1.0 / norm(row) } else { 1.0 };
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value) * scale;
        }
        count += 1.0;
    }
    sums.iter().map(|sum| (sum / count.max(1.0)) as f32).collect()
}

/// Elements of a code: whole cache lines.
fn padded(dim: usize) -> usize {
    dim.next_multiple_of(LINE_ELEMENTS)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    -distance(Metric::InnerProduct, a, b) as f32
}

#[cfg(test)]
mod tests;
