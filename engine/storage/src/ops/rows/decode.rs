//! Bytes to rows. The arrays have memory of their own: it outlives the log file's.
//!
//! Called by `ops::decode`, with bytes that authenticated. Still nothing is believed: lengths are compared with the
//! bytes that are there before anything is allocated for them, and Arrow checks every array that is made.

use std::sync::Arc;

use arrow::{
    array::{ArrayData, make_array},
    buffer::{BooleanBuffer, Buffer, NullBuffer},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use sepal_types::ColumnId;

use super::types;
use crate::arrow_types::stored_name;

/// What is left of the bytes.
pub(super) struct Reader<'a>(&'a [u8]);

/// The rows, columns named and typed as in an insert, or why the bytes are none.
pub(in crate::ops) fn decode(body: &[u8]) -> Result<RecordBatch, String> {
    let mut reader = Reader(body);
    let rows = reader.u32()? as usize;
    let columns = reader.u16()?;
    // Every row has a bit at least in every column.
    if columns == 0 || rows.div_ceil(8) > body.len() {
        return Err(format!("{rows} rows of {columns} columns in {} bytes", body.len()));
    }
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for _ in 0..columns {
        let column = ColumnId(reader.u32()?);
        let ty = types::take(&mut reader)?;
        let array = reader.array(&ty, rows).map_err(|why| format!("column {column}: {why}"))?;
        fields.push(Field::new(stored_name(column), ty, true));
        arrays.push(make_array(array));
    }
    if !reader.0.is_empty() {
        return Err(format!("{} bytes after the last column", reader.0.len()));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| error.to_string())
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| format!("{length} bytes expected, {} are left", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_be_bytes(self.fixed()?))
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    pub(super) fn flag(&mut self) -> Result<bool, String> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} where there is 0 or 1")),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "a field of the wrong length".to_owned())
    }

    /// An array of `length` values.
    fn array(&mut self, ty: &DataType, length: usize) -> Result<ArrayData, String> {
        let nulls = if self.flag()? {
            let bits = self.copied(Some(length.div_ceil(8)))?;
            Some(NullBuffer::new(BooleanBuffer::new(bits, 0, length)))
        } else {
            None
        };
        let array = ArrayData::builder(ty.clone()).len(length).nulls(nulls);
        let array = match ty {
            DataType::Boolean => array.add_buffer(self.copied(Some(length.div_ceil(8)))?),
            DataType::Utf8 | DataType::Binary => {
                let (offsets, bytes) = self.offsets(length)?;
                array.add_buffer(offsets).add_buffer(self.copied(Some(bytes))?)
            }
            DataType::FixedSizeBinary(width) => {
                array.add_buffer(self.copied(each(length, usize::try_from(*width).ok()))?)
            }
            DataType::List(item) => {
                let (offsets, items) = self.offsets(length)?;
                array.add_buffer(offsets).add_child_data(self.array(item.data_type(), items)?)
            }
            DataType::FixedSizeList(item, size) => {
                let items = each(length, usize::try_from(*size).ok()).ok_or("lists longer than memory")?;
                array.add_child_data(self.array(item.data_type(), items)?)
            }
            other => array.add_buffer(self.copied(each(length, other.primitive_width()))?),
        };
        array.build().map_err(|error| error.to_string())
    }

    /// The next bytes in memory that Arrow's arrays may have, aligned for any of them. `None`: more than there can be.
    fn copied(&mut self, length: Option<usize>) -> Result<Buffer, String> {
        let length = length.ok_or("values longer than memory")?;
        Ok(Buffer::from_slice_ref(self.take(length)?))
    }

    /// Where `length` values begin and end, as Arrow has it; and where the last one ends.
    fn offsets(&mut self, length: usize) -> Result<(Buffer, usize), String> {
        let bytes = self.take(each(length, Some(4)).ok_or("ends longer than memory")?)?;
        let mut offsets = Vec::with_capacity(length + 1);
        let mut last = 0;
        offsets.push(last);
        for end in bytes.as_chunks::<4>().0 {
            let end = i32::try_from(u32::from_be_bytes(*end)).ok().filter(|end| *end >= last);
            last = end.ok_or_else(|| format!("a value that ends before {last}"))?;
            offsets.push(last);
        }
        let end = usize::try_from(last).map_err(|_| "an end below 0")?;
        Ok((Buffer::from_vec(offsets), end))
    }
}

fn each(values: usize, bytes: Option<usize>) -> Option<usize> {
    values.checked_mul(bytes?)
}
