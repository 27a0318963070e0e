//! Sparse vectors in and out.
//!
//! Called by `column` and `builder`, and by the functions over them. In Arrow they are lists of the words that
//! `sepal_types::SparseWords` reads.
//!
//! ```text
//! dimensions i32 | elements i32 | 0 i32 | elements × index i32, from 0, ascending | elements × f32, big-endian
//! ```

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, ListArray, NullBufferBuilder},
    buffer::OffsetBuffer,
    datatypes::{DataType, Int32Type},
};
use bytes::{BufMut, BytesMut};
use sepal_storage::{arrow_type, is_sparse_item};
use sepal_types::{Error, Result, SparseVector, SparseWords, SqlState, SqlType};

use super::binary_in::{incorrect, insufficient};

/// Most words that one builder gathers (512 MiB), far below where offsets end.
const MAX_WORDS: usize = 1 << 27;

/// The sparse vectors of an array, to be read.
#[derive(Debug)]
pub struct SparseColumn {
    list: ListArray,
}

impl SparseColumn {
    /// `None` for an array of something else.
    pub fn new(array: &dyn Array) -> Option<Self> {
        match array.data_type() {
            DataType::List(item) if is_sparse_item(item) => {
                Some(Self { list: array.as_list_opt::<i32>()?.clone() })
            }
            _ => None,
        }
    }

    /// `row` must not be NULL.
    pub fn get(&self, row: usize) -> SparseWords<'_> {
        let bounds = &self.list.value_offsets()[row..row + 2];
        let words: &[i32] = self.list.values().as_primitive::<Int32Type>().values();
        SparseWords::new(&words[bounds[0].unsigned_abs() as usize..bounds[1].unsigned_abs() as usize])
    }

    /// `None` for NULL.
    pub fn get_opt(&self, row: usize) -> Option<SparseWords<'_>> {
        self.list.is_valid(row).then(|| self.get(row))
    }

    pub(super) fn write_text(&self, row: usize, out: &mut BytesMut) {
        let vector = self.get(row);
        let mut text = String::with_capacity(vector.count() * 16 + 16);
        vector.format(&mut text);
        out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn write_binary(&self, row: usize, out: &mut BytesMut) {
        let vector = self.get(row);
        out.reserve(12 + 8 * vector.count());
        out.put_u32(vector.dimensions());
        out.put_u32(u32::try_from(vector.count()).unwrap_or(u32::MAX));
        out.put_u32(0);
        vector.elements().for_each(|(index, _)| out.put_u32(index));
        vector.elements().for_each(|(_, value)| out.put_f32(value));
    }
}

/// Gathers the sparse vectors of a column.
#[derive(Debug)]
pub struct SparseBuilder {
    words: Vec<i32>,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    declared: Option<u32>,
}

impl SparseBuilder {
    /// `declared`: the dimensions that each has.
    pub fn new(declared: Option<u32>, capacity: usize) -> Self {
        Self { words: Vec::new(), offsets: vec![0], nulls: NullBufferBuilder::new(capacity), declared }
    }

    pub fn append_null(&mut self) {
        self.offsets.extend(self.offsets.last().copied());
        self.nulls.append_null();
    }

    pub(super) fn append_text(&mut self, text: &str) -> Result<()> {
        self.append(&SparseVector::parse(text, self.declared)?)
    }

    pub(super) fn append_binary(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(&read_binary(bytes, self.declared)?)
    }

    /// Errors: 22000 other dimensions than were declared, 54000 too much for one batch.
    pub fn append(&mut self, vector: &SparseVector) -> Result<()> {
        SparseVector::check_expected(vector.dimensions, self.declared)?;
        vector.append_words(&mut self.words);
        let end = i32::try_from(self.words.len()).ok().filter(|_| self.words.len() <= MAX_WORDS);
        let Some(end) = end else {
            let message = "too many vectors in one value or batch";
            return Err(
                Error::new(SqlState::ProgramLimitExceeded, message).with_hint("Send them in smaller pieces.")
            );
        };
        self.offsets.push(end);
        self.nulls.append_non_null();
        Ok(())
    }

    pub fn finish(&mut self) -> Result<ArrayRef> {
        let bug = |problem: &dyn std::fmt::Display| {
            Error::bug(format!("a column of sparse vectors does not fit together: {problem}"))
        };
        let DataType::List(item) = arrow_type(&SqlType::SparseVec(None)) else {
            return Err(bug(&"they are no lists"));
        };
        let words = Arc::new(Int32Array::from(std::mem::take(&mut self.words)));
        let offsets = OffsetBuffer::new(std::mem::replace(&mut self.offsets, vec![0]).into());
        let list = ListArray::try_new(item, offsets, words, self.nulls.finish());
        list.map(|list| Arc::new(list) as ArrayRef).map_err(|problem| bug(&problem))
    }
}

/// pgvector's `sparsevec_recv`, in the order of its checks.
fn read_binary(bytes: &[u8], declared: Option<u32>) -> Result<SparseVector> {
    let (integers, _) = bytes.as_chunks::<4>();
    let [dimensions, count, unused, body @ ..] = integers else {
        return Err(insufficient());
    };
    let [dimensions, count, unused] = [dimensions, count, unused].map(|bytes| i32::from_be_bytes(*bytes));
    let dimensions = SparseVector::check_dimensions(dimensions.into())?;
    let count = SparseVector::check_count(count, dimensions)?;
    SparseVector::check_expected(dimensions, declared)?;
    if unused != 0 {
        let message = format!("expected unused to be 0, not {unused}");
        return Err(Error::new(SqlState::DataException, message));
    }
    let Some((indices, values)) = body.split_at_checked(count) else {
        return Err(insufficient());
    };
    let mut elements: Vec<(u32, f32)> = Vec::with_capacity(count);
    for index in indices {
        let before = elements.last().map(|(index, _)| *index);
        let index = SparseVector::check_index(i32::from_be_bytes(*index).into(), before, dimensions)?;
        elements.push((index, 0.0));
    }
    let Some(values) = values.get(..count) else {
        return Err(insufficient());
    };
    for ((_, value), bytes) in elements.iter_mut().zip(values) {
        *value = f32::from_be_bytes(*bytes);
        SparseVector::check_value(*value)?;
        if *value == 0.0 {
            let message = "binary representation of sparsevec cannot contain zero values";
            return Err(Error::new(SqlState::DataException, message));
        }
    }
    if bytes.len() > 12 + 8 * count {
        return Err(incorrect());
    }
    Ok(SparseVector { dimensions, elements })
}
