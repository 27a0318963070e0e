//! Vectors in and out: blocks of `f32` or `f16`, swapped between the machine's order and the wire's in whole slices.
//!
//! Called by `column` and `builder`. The loops over elements have no branch, so that they become byte shuffles:
//! a bulk load of embeddings spends its time here.
//!
//! ```text
//! dimensions u16 | 0 u16 | dimensions × f32 (halfvec: f16), big-endian
//! ```

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, FixedSizeListArray, ListArray, NullBufferBuilder, PrimitiveArray},
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::{ArrowPrimitiveType, DataType, FieldRef, Float16Type, Float32Type},
};
use bytes::{BufMut, BytesMut};
use half::f16;
use sepal_types::{Error, Result, SqlState, VectorElement, check_finite, format_vector, parse_elements};

use super::binary_in::{incorrect, insufficient};

/// Most elements that one builder gathers (512 MiB), far below where offsets end.
const MAX_VALUES: usize = 1 << 27;
/// Columns of fewer floats than this are parameters or small batches, after which nothing more comes.
const MIN_KEPT_VALUES: usize = 1 << 16;

/// What the elements of a column's vectors are.
pub(super) trait Element: VectorElement + arrow::datatypes::ArrowNativeType {
    type Arrow: ArrowPrimitiveType<Native = Self>;
    const BYTES: usize = size_of::<Self>();

    /// Puts elements into `out` in the wire's order, `BYTES` each.
    fn write(elements: &[Self], out: &mut [u8]);

    /// Appends what [`Element::write`] wrote.
    fn read(bytes: &[u8], elements: &mut Vec<Self>);
}

impl Element for f32 {
    type Arrow = Float32Type;

    fn write(elements: &[Self], out: &mut [u8]) {
        let (chunks, _) = out.as_chunks_mut::<4>();
        for (chunk, element) in chunks.iter_mut().zip(elements) {
            *chunk = element.to_be_bytes();
        }
    }

    fn read(bytes: &[u8], elements: &mut Vec<Self>) {
        let (chunks, _) = bytes.as_chunks::<4>();
        elements.extend(chunks.iter().map(|chunk| Self::from_be_bytes(*chunk)));
    }
}

impl Element for f16 {
    type Arrow = Float16Type;

    fn write(elements: &[Self], out: &mut [u8]) {
        let (chunks, _) = out.as_chunks_mut::<2>();
        for (chunk, element) in chunks.iter_mut().zip(elements) {
            *chunk = element.to_be_bytes();
        }
    }

    fn read(bytes: &[u8], elements: &mut Vec<Self>) {
        let (chunks, _) = bytes.as_chunks::<2>();
        elements.extend(chunks.iter().map(|chunk| Self::from_be_bytes(*chunk)));
    }
}

/// The vectors of a column, to be read.
#[derive(Debug)]
pub(super) struct VectorColumn<E: Element> {
    values: ScalarBuffer<E>,
    bounds: Bounds,
}

#[derive(Debug)]
enum Bounds {
    Fixed(usize),
    Varying(OffsetBuffer<i32>),
}

impl<E: Element> VectorColumn<E> {
    pub(super) fn fixed(values: ScalarBuffer<E>, dimensions: usize) -> Self {
        Self { values, bounds: Bounds::Fixed(dimensions) }
    }

    pub(super) fn varying(values: ScalarBuffer<E>, offsets: OffsetBuffer<i32>) -> Self {
        Self { values, bounds: Bounds::Varying(offsets) }
    }

    pub(super) fn write_text(&self, row: usize, out: &mut BytesMut) {
        let vector = self.get(row);
        let mut text = String::with_capacity(vector.len() * 12 + 2);
        format_vector(vector, &mut text);
        out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn write_binary(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        let vector = self.get(row);
        let dimensions = u16::try_from(vector.len())
            .map_err(|_| Error::bug("a stored vector has more than 65,535 dimensions"))?;
        out.put_u16(dimensions);
        out.put_u16(0);
        let start = out.len();
        out.resize(start + vector.len() * E::BYTES, 0);
        E::write(vector, &mut out[start..]);
        Ok(())
    }

    fn get(&self, row: usize) -> &[E] {
        let range: Range<usize> = match &self.bounds {
            Bounds::Fixed(dimensions) => row * dimensions..(row + 1) * dimensions,
            Bounds::Varying(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
        };
        &self.values[range]
    }
}

/// Gathers the vectors of a column.
#[derive(Debug)]
pub(super) struct VectorBuilder<E: Element> {
    values: Vec<E>,
    nulls: NullBufferBuilder,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Fixed { item: FieldRef, dimensions: usize },
    Varying { item: FieldRef, offsets: Vec<i32> },
}

impl<E: Element> VectorBuilder<E> {
    /// `data_type` is the Arrow type of a vector, with or without dimensions.
    pub(super) fn new(data_type: DataType, capacity: usize) -> Self {
        let (layout, floats) = match data_type {
            DataType::FixedSizeList(item, dimensions) => {
                let dimensions = usize::try_from(dimensions).unwrap_or(0);
                (Layout::Fixed { item, dimensions }, capacity.saturating_mul(dimensions))
            }
            DataType::List(item) => (Layout::Varying { item, offsets: vec![0] }, 0),
            other => unreachable!("arrow_type makes a vector a list of floats, not {other}"),
        };
        let values = Vec::with_capacity(floats.min(MAX_VALUES / 128));
        Self { values, nulls: NullBufferBuilder::new(capacity), layout }
    }

    /// Bytes that a NULL takes.
    pub(super) fn null_bytes(&self) -> usize {
        match &self.layout {
            Layout::Fixed { dimensions, .. } => dimensions * E::BYTES,
            Layout::Varying { .. } => 4,
        }
    }

    pub(super) fn append_null(&mut self) {
        match &mut self.layout {
            Layout::Fixed { dimensions, .. } => {
                self.values.resize(self.values.len() + *dimensions, E::default())
            }
            Layout::Varying { offsets, .. } => offsets.extend(offsets.last().copied()),
        }
        self.nulls.append_null();
    }

    pub(super) fn append_text(&mut self, text: &str) -> Result<()> {
        let vector = parse_elements(text)?;
        self.check_dimensions(vector.len())?;
        self.values.extend_from_slice(&vector);
        self.close_row()
    }

    pub(super) fn append_binary(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((&[high, low, unused_high, unused_low], body)) = bytes.split_first_chunk::<4>() else {
            return Err(insufficient());
        };
        let dimensions = usize::from(u16::from_be_bytes([high, low]));
        E::KIND.check_count(dimensions)?;
        self.check_dimensions(dimensions)?;
        let unused = u16::from_be_bytes([unused_high, unused_low]);
        if unused != 0 {
            return Err(Error::new(
                SqlState::DataException,
                format!("expected unused to be 0, not {unused}"),
            ));
        }
        let wanted = dimensions * E::BYTES;
        if body.len() < wanted {
            return Err(insufficient());
        }
        if body.len() > wanted {
            return Err(incorrect());
        }
        let start = self.values.len();
        if start == 0 {
            // A parameter is one vector: no room beyond it.
            self.values.reserve_exact(dimensions);
        }
        E::read(body, &mut self.values);
        if let Err(refused) = check_finite(&self.values[start..]) {
            self.values.truncate(start);
            return Err(refused);
        }
        self.close_row()
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef> {
        // The next batch of a bulk load will be as large: growing into it would copy it twice over.
        let next = if self.values.len() < MIN_KEPT_VALUES { 0 } else { self.values.len() };
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(next));
        let values = Arc::new(PrimitiveArray::<E::Arrow>::new(values.into(), None));
        let nulls = self.nulls.finish();
        Ok(match &mut self.layout {
            Layout::Fixed { item, dimensions } => {
                let dimensions = i32::try_from(*dimensions).map_err(|_| Error::bug("dimensions past i32"))?;
                Arc::new(
                    FixedSizeListArray::try_new(Arc::clone(item), dimensions, values, nulls).map_err(bug)?,
                )
            }
            Layout::Varying { item, offsets } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls).map_err(bug)?)
            }
        })
    }

    fn check_dimensions(&self, found: usize) -> Result<()> {
        match &self.layout {
            Layout::Fixed { dimensions, .. } if *dimensions != found => {
                let message = format!("expected {dimensions} dimensions, not {found}");
                Err(Error::new(SqlState::DataException, message))
            }
            Layout::Fixed { .. } | Layout::Varying { .. } => Ok(()),
        }
    }

    fn close_row(&mut self) -> Result<()> {
        let end = i32::try_from(self.values.len()).ok().filter(|_| self.values.len() <= MAX_VALUES);
        let Some(end) = end else {
            return Err(Error::new(SqlState::ProgramLimitExceeded, "too many vectors in one value or batch")
                .with_hint("Send them in smaller pieces."));
        };
        if let Layout::Varying { offsets, .. } = &mut self.layout {
            offsets.push(end);
        }
        self.nulls.append_non_null();
        Ok(())
    }
}

fn bug(problem: arrow::error::ArrowError) -> Error {
    Error::bug(format!("a column of vectors does not fit together: {problem}"))
}
