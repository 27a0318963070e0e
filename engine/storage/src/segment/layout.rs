//! How Arrow columns lie in Parquet, and what parquet-rs is told to make of them.
//!
//! Parquet would store a vector as a three-level list and decode two levels per float, 13 to 19 times slower than
//! a fixed-length byte array, so vectors are stored as their bytes and reinterpreted:
//!
//! | Arrow | Parquet |
//! |---|---|
//! | `FixedSizeList<vector_element: f32, d>` | `FIXED_LEN_BYTE_ARRAY(4 d)`, PLAIN, uncompressed, no dictionary, no statistics |
//! | `FixedSizeList<vector_element: f16, d>` | `FIXED_LEN_BYTE_ARRAY(2 d)`, the same |
//! | `FixedSizeList<bit(n): u8, b>` | `FIXED_LEN_BYTE_ARRAY(b)`, the same |
//! | `List<vector_element: f32>`, of `f16` | `BYTE_ARRAY`, 4 or 2 bytes per element |
//! | `List<sparsevec: i32>` | `BYTE_ARRAY`, 4 bytes per word |
//! | `Interval(MonthDayNano)`, which Parquet lacks | `FIXED_LEN_BYTE_ARRAY(16)`: months i32, days i32, nanoseconds i64 |
//! | everything else | itself, LZ4 |
//!
//! All little-endian.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, FixedSizeListArray, Float16Array,
        Float32Array, Int32Array, IntervalMonthDayNanoArray, ListArray, UInt8Array,
    },
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    compute,
    datatypes::{
        ArrowNativeType, DataType, Field, FieldRef, Float16Type, Float32Type, Int32Type,
        IntervalMonthDayNanoType, IntervalUnit, Schema, UInt8Type,
    },
};
use parquet::{
    basic::{Compression, Encoding},
    file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    schema::types::ColumnPath,
};

use sepal_types::VectorKind;

use super::ROW_ID;
use crate::arrow_types::{bit_type, is_sparse_item, vector_kind};

pub(super) const MAX_ROW_GROUP_ROWS: usize = 1 << 20;
/// parquet-rs holds what it encodes of a row group in memory until that is complete.
pub(super) const MAX_ROW_GROUP_BYTES: usize = 16 << 20;
/// A row group of many columns is larger: what the footer says of each column of one, about a kilobyte, stays in memory
/// with the segment, and nothing counts it.
pub(super) const MAX_COLUMN_BYTES: usize = 128 << 10;
/// Of a page of values of fixed width, but for the last one. A search of more vectors than memory holds opens one for each
/// row that it scores; much smaller ones take longer to open as a whole column.
const PAGE_BYTES: usize = 64 << 10;
const INTERVAL_BYTES: i32 = 16;
/// Of one word of a sparse vector.
const WORD_BYTES: i32 = 4;

// Parquet's encryption allows 32,767 pages per column and row group.
const _: () = assert!(MAX_ROW_GROUP_BYTES.div_ceil(PAGE_BYTES) <= 32_767);
const _: () = assert!(cfg!(target_endian = "little"), "stored vectors are reinterpreted, not converted");

/// Of values of `width` bytes, which is not 0.
pub(super) const fn rows_per_page(width: usize) -> usize {
    PAGE_BYTES.div_ceil(width)
}

/// How parquet-rs encodes a row group of a segment. Nothing of what it makes is written as it is: `encode` seals it.
/// Bloom filters stay off: nobody would read them.
pub(super) fn writer_properties(schema: &Schema) -> WriterPropertiesBuilder {
    let mut builder = WriterProperties::builder()
        .set_bloom_filter_enabled(false)
        .set_compression(Compression::LZ4_RAW)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(None);
    for field in schema.fields() {
        let path = ColumnPath::from(field.name().clone());
        if let DataType::FixedSizeBinary(width) = field.data_type() {
            let width = usize::try_from(*width).unwrap_or(1).max(1);
            builder = builder
                .set_column_encoding(path.clone(), Encoding::PLAIN)
                .set_column_compression(path.clone(), Compression::UNCOMPRESSED)
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path.clone(), EnabledStatistics::None)
                .set_column_data_page_size_limit(path, rows_per_page(width) * width);
        } else if matches!(field.data_type(), DataType::Binary) {
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path, EnabledStatistics::None);
        } else if field.name() == ROW_ID {
            // No two are equal, and nearly all are neighbours.
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    builder
}

/// An array as Parquet gets it. Vectors and intervals are reinterpreted, not copied.
pub(super) fn to_stored(array: &ArrayRef) -> Result<ArrayRef, String> {
    if let DataType::FixedSizeList(item, _) | DataType::List(item) = array.data_type()
        && let Some(kind) = vector_kind(item)
    {
        return vectors_to_stored(array, kind);
    }
    match array.data_type() {
        DataType::FixedSizeList(item, bytes) if bit_type(item).is_some() => {
            let list = array.as_fixed_size_list();
            let values = list.values().as_primitive::<UInt8Type>().values().inner().clone();
            let stored = FixedSizeBinaryArray::try_new(*bytes, values, list.nulls().cloned());
            Ok(Arc::new(stored.map_err(text)?))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
            let bytes = intervals.values().inner().clone();
            let stored = FixedSizeBinaryArray::try_new(INTERVAL_BYTES, bytes, intervals.nulls().cloned());
            Ok(Arc::new(stored.map_err(text)?))
        }
        DataType::List(item) if is_sparse_item(item) => {
            let list = array.as_list::<i32>();
            lists_to_stored(list, list.values().as_primitive::<Int32Type>().values().inner(), WORD_BYTES)
        }
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let values = to_stored(list.values())?;
            let item = Arc::new(Field::new(item.name(), values.data_type().clone(), item.is_nullable()));
            let stored = ListArray::try_new(item, list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(stored.map_err(text)?))
        }
        _ => Ok(Arc::clone(array)),
    }
}

fn vectors_to_stored(array: &ArrayRef, kind: VectorKind) -> Result<ArrayRef, String> {
    let width = element_bytes(kind);
    if let Some(list) = array.as_fixed_size_list_opt() {
        let bytes = buffer(list.values(), kind).clone();
        let stored = FixedSizeBinaryArray::try_new(list.value_length() * width, bytes, list.nulls().cloned());
        return Ok(Arc::new(stored.map_err(text)?));
    }
    let list = array.as_list::<i32>();
    lists_to_stored(list, buffer(list.values(), kind), width)
}

/// Lists as the bytes of their elements, of which `elements` is the buffer.
fn lists_to_stored(list: &ListArray, elements: &Buffer, width: i32) -> Result<ArrayRef, String> {
    let first = list.value_offsets().first().copied().unwrap_or(0);
    let scale = |offset: &i32| (offset - first).checked_mul(width);
    let offsets: Option<Vec<i32>> = list.value_offsets().iter().map(scale).collect();
    let offsets = offsets.ok_or("more than 2 GiB of vectors in one column")?;
    let bytes = elements.slice(first.as_usize() * width.as_usize());
    let stored = BinaryArray::try_new(OffsetBuffer::new(offsets.into()), bytes, list.nulls().cloned());
    Ok(Arc::new(stored.map_err(text)?))
}

/// Of one element of a vector.
const fn element_bytes(kind: VectorKind) -> i32 {
    match kind {
        VectorKind::Half => 2,
        VectorKind::Single => 4,
    }
}

/// The elements of vectors as bytes.
fn buffer(elements: &ArrayRef, kind: VectorKind) -> &Buffer {
    match kind {
        VectorKind::Half => elements.as_primitive::<Float16Type>().values().inner(),
        VectorKind::Single => elements.as_primitive::<Float32Type>().values().inner(),
    }
}

/// The opposite of [`buffer`].
fn elements(bytes: &Buffer, kind: VectorKind, count: usize) -> Result<ArrayRef, String> {
    Ok(match kind {
        VectorKind::Half => Arc::new(Float16Array::new(reinterpret(bytes, count)?, None)),
        VectorKind::Single => Arc::new(Float32Array::new(reinterpret(bytes, count)?, None)),
    })
}

/// The opposite of [`to_stored`], to the type that the table's definition asks for.
pub(super) fn from_stored(stored: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    if let DataType::FixedSizeList(item, _) | DataType::List(item) = wanted
        && let Some(kind) = vector_kind(item)
    {
        return vectors_from_stored(stored, wanted, item, kind);
    }
    match (stored.data_type(), wanted) {
        (DataType::FixedSizeBinary(_), DataType::FixedSizeList(item, bytes)) if bit_type(item).is_some() => {
            let stored = stored.as_fixed_size_binary();
            let values = reinterpret(stored.values(), stored.len() * bytes.as_usize())?;
            let values = Arc::new(UInt8Array::new(values, None));
            let list = FixedSizeListArray::try_new(Arc::clone(item), *bytes, values, stored.nulls().cloned());
            Ok(Arc::new(list.map_err(text)?))
        }
        (DataType::FixedSizeBinary(INTERVAL_BYTES), DataType::Interval(IntervalUnit::MonthDayNano)) => {
            let bytes = stored.as_fixed_size_binary();
            let values = reinterpret(bytes.values(), bytes.len())?;
            Ok(Arc::new(IntervalMonthDayNanoArray::try_new(values, bytes.nulls().cloned()).map_err(text)?))
        }
        (DataType::Binary, DataType::List(item)) if is_sparse_item(item) => {
            lists_from_stored(stored.as_binary(), item, WORD_BYTES, |bytes, count| {
                Ok(Arc::new(Int32Array::new(reinterpret(bytes, count)?, None)))
            })
        }
        (DataType::List(_), DataType::List(item)) => {
            let list = stored.as_list::<i32>();
            let values = from_stored(list.values(), item.data_type())?;
            let restored =
                ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(restored.map_err(text)?))
        }
        (found, wanted) if found == wanted => Ok(Arc::clone(stored)),
        (_, wanted) => compute::cast(stored, wanted).map_err(text),
    }
}

fn vectors_from_stored(
    stored: &ArrayRef,
    wanted: &DataType,
    item: &FieldRef,
    kind: VectorKind,
) -> Result<ArrayRef, String> {
    match (stored.data_type(), wanted) {
        (DataType::FixedSizeBinary(width), DataType::FixedSizeList(_, dimensions))
            if *width == dimensions * element_bytes(kind) =>
        {
            let bytes = stored.as_fixed_size_binary();
            let values = elements(bytes.values(), kind, bytes.len() * dimensions.as_usize())?;
            let list =
                FixedSizeListArray::try_new(Arc::clone(item), *dimensions, values, bytes.nulls().cloned());
            Ok(Arc::new(list.map_err(text)?))
        }
        (DataType::Binary, DataType::List(_)) => {
            lists_from_stored(stored.as_binary(), item, element_bytes(kind), |bytes, count| {
                elements(bytes, kind, count)
            })
        }
        // A column whose dimensions were declared or dropped since: read as what it was, then cast.
        (DataType::FixedSizeBinary(width), DataType::List(_)) => {
            let was = DataType::FixedSizeList(Arc::clone(item), width / element_bytes(kind));
            compute::cast(&vectors_from_stored(stored, &was, item, kind)?, wanted).map_err(text)
        }
        (DataType::Binary, DataType::FixedSizeList(..)) => {
            let was = DataType::List(Arc::clone(item));
            compute::cast(&vectors_from_stored(stored, &was, item, kind)?, wanted).map_err(text)
        }
        (found, wanted) if found == wanted => Ok(Arc::clone(stored)),
        _ => compute::cast(stored, wanted).map_err(text),
    }
}

/// The opposite of [`lists_to_stored`].
fn lists_from_stored(
    stored: &BinaryArray,
    item: &FieldRef,
    width: i32,
    elements: impl FnOnce(&Buffer, usize) -> Result<ArrayRef, String>,
) -> Result<ArrayRef, String> {
    let first = stored.value_offsets().first().copied().unwrap_or(0);
    let scale = |offset: &i32| (offset - first) / width;
    let offsets: Vec<i32> = stored.value_offsets().iter().map(scale).collect();
    let count = offsets.last().copied().unwrap_or(0).as_usize();
    let values = elements(&stored.values().slice(first.as_usize()), count)?;
    let offsets = OffsetBuffer::new(offsets.into());
    let list = ListArray::try_new(Arc::clone(item), offsets, values, stored.nulls().cloned());
    Ok(Arc::new(list.map_err(text)?))
}

/// Bytes as numbers; copied only where the allocator gave memory that is not aligned for them.
fn reinterpret<T: ArrowNativeType>(bytes: &Buffer, count: usize) -> Result<ScalarBuffer<T>, String> {
    if bytes.len() < count * size_of::<T>() {
        return Err(format!("{} bytes for {count} values of {} bytes", bytes.len(), size_of::<T>()));
    }
    if bytes.as_ptr().align_offset(align_of::<T>()) == 0 {
        return Ok(ScalarBuffer::new(bytes.clone(), 0, count));
    }
    Ok(ScalarBuffer::new(Buffer::from_slice_ref(bytes.as_slice()), 0, count))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
