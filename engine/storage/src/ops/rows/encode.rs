//! Rows to bytes: a copy of every column's values, nothing else.
//!
//! Called by `ops::encode`, once per insert, in the thread of the session that commits. Gives up as soon as the rows
//! turn out to be too many, before it copies the column that is.

use arrow::{
    array::{Array, AsArray, GenericByteArray},
    buffer::BooleanBuffer,
    datatypes::{BinaryType, ByteArrayType, DataType, Utf8Type},
    downcast_primitive_array,
    record_batch::RecordBatch,
};

use super::types;
use crate::arrow_types::stored_column;

/// Bytes, up to a limit.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
}

/// Appends the rows to `out`. `None` where `out` would be longer than `limit` then, or a column has no type of ours:
/// what was appended until then is no use.
pub(in crate::ops) fn encode(rows: &RecordBatch, limit: usize, out: &mut Vec<u8>) -> Option<()> {
    // Without a column nothing would bear witness to the number of rows.
    if rows.num_columns() == 0 {
        return None;
    }
    let mut writer = Writer { out, limit };
    writer.u32(u32::try_from(rows.num_rows()).ok()?)?;
    writer.put(&u16::try_from(rows.num_columns()).ok()?.to_be_bytes())?;
    for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        writer.u32(stored_column(field.name())?.0)?;
        types::put(array.data_type(), &mut writer)?;
        writer.array(array.as_ref())?;
    }
    Some(())
}

impl Writer<'_> {
    pub(super) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.room(bytes.len())?;
        self.out.extend_from_slice(bytes);
        Some(())
    }

    pub(super) fn u32(&mut self, number: u32) -> Option<()> {
        self.put(&number.to_be_bytes())
    }

    /// Whether so much more fits.
    fn room(&self, bytes: usize) -> Option<()> {
        (self.out.len().checked_add(bytes)? <= self.limit).then_some(())
    }

    fn array(&mut self, array: &dyn Array) -> Option<()> {
        match array.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => self.put(&[0])?,
            Some(nulls) => {
                self.put(&[1])?;
                self.bits(nulls.inner())?;
            }
        }
        self.values(array)
    }

    fn values(&mut self, array: &dyn Array) -> Option<()> {
        match array.data_type() {
            DataType::Boolean => self.bits(array.as_boolean().values()),
            DataType::Utf8 => self.texts(array.as_bytes::<Utf8Type>()),
            DataType::Binary => self.texts(array.as_bytes::<BinaryType>()),
            DataType::FixedSizeBinary(_) => self.put(array.as_fixed_size_binary().value_data()),
            DataType::FixedSizeList(..) => self.array(array.as_fixed_size_list().values().as_ref()),
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                let (first, last) = self.ends(lists.value_offsets())?;
                self.array(lists.values().slice(first, last - first).as_ref())
            }
            _ => downcast_primitive_array!(
                array => self.put(array.values().inner().as_slice()),
                _ => None
            ),
        }
    }

    fn texts<T: ByteArrayType<Offset = i32>>(&mut self, array: &GenericByteArray<T>) -> Option<()> {
        let (first, last) = self.ends(array.value_offsets())?;
        self.put(&array.value_data()[first..last])
    }

    /// Where each value ends, counted from where the first begins. That place, and the last end, as the array counts.
    fn ends(&mut self, offsets: &[i32]) -> Option<(usize, usize)> {
        let (first, ends) = offsets.split_first()?;
        self.room(ends.len().checked_mul(4)?)?;
        for end in ends {
            self.u32(u32::try_from(end - first).ok()?)?;
        }
        let last = ends.last().unwrap_or(first);
        Some((usize::try_from(*first).ok()?, usize::try_from(*last).ok()?))
    }

    fn bits(&mut self, bits: &BooleanBuffer) -> Option<()> {
        let bytes = bits.len().div_ceil(8);
        self.room(bytes)?;
        self.put(bits.sliced().as_slice().get(..bytes)?)?;
        let used = bits.len() % 8;
        if used > 0
            && let Some(last) = self.out.last_mut()
        {
            *last &= (1 << used) - 1;
        }
        Some(())
    }
}
