//! Bit strings in and out.
//!
//! Called by `column` and `builder`. A string of any length ends, in Arrow, with a byte that tells how many bits of the
//! one before it are none of the string's (`sepal_storage::arrow_type`).
//!
//! ```text
//! bits i32 | ⌈bits/8⌉ bytes, the first bit the highest
//! ```

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeListArray, ListArray, NullBufferBuilder, UInt8Array},
    buffer::OffsetBuffer,
    datatypes::{DataType, FieldRef, UInt8Type},
};
use bytes::{BufMut, BytesMut};
use sepal_storage::bit_type;
use sepal_types::{BitString, Error, Result, SqlState, SqlType};

use super::binary_in::{incorrect, insufficient};

/// Most bytes that one builder gathers, far below where offsets end.
const MAX_BYTES: usize = 1 << 29;

/// The bit strings of an array, to be read.
#[derive(Debug)]
pub struct BitColumn {
    array: ArrayRef,
    /// `None` where every row says its own.
    length: Option<u32>,
}

impl BitColumn {
    /// `None` for an array of something else.
    pub fn new(array: ArrayRef) -> Option<Self> {
        let length = match array.data_type() {
            DataType::FixedSizeList(item, _) | DataType::List(item) => match bit_type(item)? {
                SqlType::Bit(length) => length,
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { array, length })
    }

    /// A row's bytes and how many bits it has. `row` must not be NULL.
    pub fn get(&self, row: usize) -> (&[u8], u32) {
        if let (Some(length), Some(list)) = (self.length, self.array.as_fixed_size_list_opt()) {
            let width = list.value_length().unsigned_abs() as usize;
            let bytes = &list.values().as_primitive::<UInt8Type>().values()[row * width..][..width];
            return (bytes, length);
        }
        let list = self.array.as_list::<i32>();
        let bounds = &list.value_offsets()[row..row + 2];
        let stored = &list.values().as_primitive::<UInt8Type>().values()
            [bounds[0].unsigned_abs() as usize..bounds[1].unsigned_abs() as usize];
        match stored.split_last() {
            Some((unused, bytes)) => {
                let bits = u32::try_from(8 * bytes.len()).unwrap_or(u32::MAX);
                (bytes, bits.saturating_sub(u32::from(*unused)))
            }
            None => (stored, 0),
        }
    }

    /// `None` for NULL.
    pub fn get_opt(&self, row: usize) -> Option<(&[u8], u32)> {
        self.array.is_valid(row).then(|| self.get(row))
    }

    pub(super) fn write_text(&self, row: usize, out: &mut BytesMut) {
        let (bytes, length) = self.get(row);
        let mut text = String::with_capacity(length as usize);
        BitString::format(bytes, length, &mut text);
        out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn write_binary(&self, row: usize, out: &mut BytesMut) {
        let (bytes, length) = self.get(row);
        out.put_u32(length);
        out.extend_from_slice(bytes);
    }
}

/// Gathers the bit strings of a column.
#[derive(Debug)]
pub struct BitBuilder {
    bytes: Vec<u8>,
    nulls: NullBufferBuilder,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Fixed { item: FieldRef, width: i32, length: u32 },
    Varying { item: FieldRef, offsets: Vec<i32> },
}

impl BitBuilder {
    /// `data_type` is the Arrow type of `bit` or, with its length, of `bit(n)`.
    pub fn new(data_type: DataType, length: Option<u32>, capacity: usize) -> Self {
        let layout = match (data_type, length) {
            (DataType::FixedSizeList(item, width), Some(length)) => Layout::Fixed { item, width, length },
            (DataType::List(item), None) => Layout::Varying { item, offsets: vec![0] },
            (other, _) => unreachable!("arrow_type makes bits a list of bytes, not {other}"),
        };
        Self { bytes: Vec::new(), nulls: NullBufferBuilder::new(capacity), layout }
    }

    /// Bytes that a NULL takes.
    pub(super) fn null_bytes(&self) -> usize {
        match &self.layout {
            Layout::Fixed { width, .. } => width.unsigned_abs() as usize,
            Layout::Varying { .. } => 4,
        }
    }

    pub fn append_null(&mut self) {
        match &mut self.layout {
            Layout::Fixed { width, .. } => {
                self.bytes.resize(self.bytes.len() + width.unsigned_abs() as usize, 0);
            }
            Layout::Varying { offsets, .. } => offsets.extend(offsets.last().copied()),
        }
        self.nulls.append_null();
    }

    pub(super) fn append_text(&mut self, text: &str) -> Result<()> {
        let bits = BitString::parse(text)?;
        self.append(&bits.bytes, bits.length)
    }

    pub(super) fn append_binary(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((length, body)) = bytes.split_first_chunk::<4>() else {
            return Err(insufficient());
        };
        let Ok(length) = u32::try_from(i32::from_be_bytes(*length)) else {
            let message = "invalid length in external bit string";
            return Err(Error::new(SqlState::InvalidBinaryRepresentation, message));
        };
        let wanted = length.div_ceil(8) as usize;
        if body.len() < wanted {
            return Err(insufficient());
        }
        if body.len() > wanted {
            return Err(incorrect());
        }
        let mut body = body.to_vec();
        BitString::clear_past(&mut body, length);
        self.append(&body, length)
    }

    /// Appends `length` bits; those past the end are zero. Errors: 22026 another length than the column's.
    pub fn append(&mut self, bytes: &[u8], length: u32) -> Result<()> {
        if self.bytes.len().saturating_add(bytes.len()) > MAX_BYTES {
            let message = "too many bit strings in one value or batch";
            return Err(
                Error::new(SqlState::ProgramLimitExceeded, message).with_hint("Send them in smaller pieces.")
            );
        }
        if let Layout::Fixed { length: declared, .. } = &self.layout {
            BitString::check_length(length, *declared)?;
        }
        self.bytes.extend_from_slice(bytes);
        if let Layout::Varying { offsets, .. } = &mut self.layout {
            let unused = (8 - length % 8) % 8;
            self.bytes.push(u8::try_from(unused).unwrap_or(0));
            offsets.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
        }
        self.nulls.append_non_null();
        Ok(())
    }

    pub fn finish(&mut self) -> Result<ArrayRef> {
        let bytes = Arc::new(UInt8Array::from(std::mem::take(&mut self.bytes)));
        let nulls = self.nulls.finish();
        Ok(match &mut self.layout {
            Layout::Fixed { item, width, .. } => {
                Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *width, bytes, nulls).map_err(bug)?)
            }
            Layout::Varying { item, offsets } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(ListArray::try_new(Arc::clone(item), offsets, bytes, nulls).map_err(bug)?)
            }
        })
    }
}

fn bug(problem: arrow::error::ArrowError) -> Error {
    Error::bug(format!("a column of bit strings does not fit together: {problem}"))
}
