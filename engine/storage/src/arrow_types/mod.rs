//! SQL types in Arrow's terms: the one mapping that batches, chunks, plans and the wire share.
//!
//! `query` builds its schemas with it, storage checks inserted batches against it. It never converts a value.
//!
//! Where several SQL types share one Arrow type, the field's metadata `sepal.type` says which one it is, as
//! `SqlType::marker` prints it. A list whose item is named `vector_element` is a `vector`, or a `halfvec` where
//! the item is a `Float16`; one whose item is named `bit` or `bit(n)` is a bit string; one of `Int32` whose item is
//! named `sparsevec` is one, as the words that `sepal_types::SparseWords` reads, which tell its dimensions. Eight bytes
//! are the place of an enum's label (`sepal_types::EnumType`), of which enum the metadata alone says: its definition.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use sepal_types::{ColumnDef, ColumnId, SparseVector, SqlType, VectorKind};

/// The metadata key of a field that tells its SQL type.
pub const TYPE_METADATA_KEY: &str = "sepal.type";
/// The item name that marks a list of `Float32` as a `vector` and one of `Float16` as a `halfvec`.
pub const VECTOR_ITEM: &str = "vector_element";
/// The item name that marks a list of `Int32` as a `sparsevec`.
const SPARSE_ITEM: &str = SparseVector::NAME;

/// Bytes of the place that an enum's value is.
const PLACE_BYTES: i32 = 8;

/// Digits and scale that a `numeric` without modifier keeps.
const PLAIN_NUMERIC: (u8, i8) = (38, 16);

/// The Arrow type of a column, parameter or result of this SQL type.
pub fn arrow_type(ty: &SqlType) -> DataType {
    match ty {
        SqlType::Bool => DataType::Boolean,
        SqlType::Int2 => DataType::Int16,
        SqlType::Int4 => DataType::Int32,
        SqlType::Int8 | SqlType::Oid => DataType::Int64,
        SqlType::Float4 => DataType::Float32,
        SqlType::Float8 => DataType::Float64,
        SqlType::Numeric(modifier) => {
            let (precision, scale) = modifier.unwrap_or(PLAIN_NUMERIC);
            DataType::Decimal128(precision, scale)
        }
        SqlType::Text
        | SqlType::Bpchar(_)
        | SqlType::Varchar(_)
        | SqlType::Json
        | SqlType::Jsonb
        | SqlType::TsQuery
        | SqlType::TsVector
        | SqlType::Name
        | SqlType::Unknown
        | SqlType::Regclass
        | SqlType::Regtype
        | SqlType::Regproc
        | SqlType::Char
        | SqlType::Int2Vector
        | SqlType::OidVector => DataType::Utf8,
        SqlType::Bit(length) => bits(*length),
        SqlType::Bytea => DataType::Binary,
        SqlType::Uuid => DataType::FixedSizeBinary(16),
        SqlType::Date => DataType::Date32,
        SqlType::Time => DataType::Time64(TimeUnit::Microsecond),
        SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        SqlType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        SqlType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
        SqlType::HalfVec(dimensions) => vectors(VectorKind::Half, *dimensions),
        SqlType::Vector(dimensions) => vectors(VectorKind::Single, *dimensions),
        SqlType::Array(element) => DataType::List(Arc::new(Field::new("item", arrow_type(element), true))),
        SqlType::Void => DataType::Null,
        SqlType::SparseVec(_) => DataType::List(Arc::new(Field::new(SPARSE_ITEM, DataType::Int32, false))),
        SqlType::Enum(_) => DataType::FixedSizeBinary(PLACE_BYTES),
    }
}

/// The list of bytes that a bit string is. Its item's name has the length, so that the type tells it wherever it goes.
/// One byte more stands behind a string of any length: how many bits of the byte before it are none of the string's.
fn bits(length: Option<u32>) -> DataType {
    let item = |name: String| Arc::new(Field::new(name, DataType::UInt8, false));
    match length {
        Some(length) => {
            DataType::FixedSizeList(item(SqlType::Bit(Some(length)).display_name()), bytes_of(length))
        }
        None => DataType::List(item(SqlType::Bit(None).display_name())),
    }
}

/// Bytes of so many bits.
fn bytes_of(bits: u32) -> i32 {
    i32::try_from(bits.div_ceil(8)).unwrap_or(i32::MAX)
}

/// The type of the bit strings that the lists with this item are: [`SqlType::Bit`]. `None` for other lists.
pub fn bit_type(item: &Field) -> Option<SqlType> {
    let length = match item.name().strip_prefix("bit")? {
        "" => None,
        modifier => Some(modifier.strip_prefix('(')?.strip_suffix(')')?.parse().ok()?),
    };
    (*item.data_type() == DataType::UInt8).then_some(SqlType::Bit(length))
}

/// Whether a type is [`arrow_type`]`(ty)`, which is not made for it: asked of each column that is read.
pub fn has_arrow_type(data_type: &DataType, ty: &SqlType) -> bool {
    let plain = |item: &Field| item.metadata().is_empty();
    let vector = |item: &Field| vector_kind(item) == ty.vector_kind() && !item.is_nullable() && plain(item);
    let bits = |item: &Field| bit_type(item).as_ref() == Some(ty) && !item.is_nullable() && plain(item);
    match (ty, data_type) {
        (
            SqlType::HalfVec(Some(dimensions)) | SqlType::Vector(Some(dimensions)),
            DataType::FixedSizeList(item, length),
        ) => *length == i32::from(*dimensions) && vector(item),
        (SqlType::HalfVec(None) | SqlType::Vector(None), DataType::List(item)) => vector(item),
        (SqlType::Bit(Some(length)), DataType::FixedSizeList(item, bytes)) => {
            *bytes == bytes_of(*length) && bits(item)
        }
        (SqlType::Bit(None), DataType::List(item)) => bits(item),
        (SqlType::SparseVec(_), DataType::List(item)) => {
            is_sparse_item(item) && !item.is_nullable() && plain(item)
        }
        (SqlType::Timestamptz, DataType::Timestamp(TimeUnit::Microsecond, Some(zone))) => &**zone == "UTC",
        (SqlType::Array(element), DataType::List(item)) => {
            item.name() == "item"
                && item.is_nullable()
                && plain(item)
                && has_arrow_type(item.data_type(), element)
        }
        (
            SqlType::Bit(_)
            | SqlType::HalfVec(_)
            | SqlType::SparseVec(_)
            | SqlType::Vector(_)
            | SqlType::Timestamptz
            | SqlType::Array(_),
            _,
        ) => false,
        // Made without an allocation.
        (other, data_type) => *data_type == arrow_type(other),
    }
}

/// A column as a field: its name, [`arrow_type`], nullability, and the metadata that [`sql_type`] reads back.
pub fn arrow_field(column: &ColumnDef) -> Field {
    let field = Field::new(&column.name, arrow_type(&column.ty), !column.not_null);
    if implied(field.data_type()).as_ref() == Some(&column.ty) {
        return field;
    }
    field.with_metadata([(TYPE_METADATA_KEY.to_owned(), column.ty.marker())].into())
}

/// The SQL type of a field that [`arrow_field`] made, or of one whose Arrow type alone decides. `None` for an
/// Arrow type that no SQL type maps to.
pub fn sql_type(field: &Field) -> Option<SqlType> {
    match field.metadata().get(TYPE_METADATA_KEY) {
        Some(name) => SqlType::from_marker(name),
        None => implied(field.data_type()),
    }
}

/// The name of a column inside stored batches and segments, which a rename does not change: `c7`.
pub fn stored_name(column: ColumnId) -> String {
    format!("c{column}")
}

/// The column that a stored name means.
pub(crate) fn stored_column(name: &str) -> Option<ColumnId> {
    name.strip_prefix('c')?.parse().ok().map(ColumnId)
}

fn vectors(kind: VectorKind, dimensions: Option<u16>) -> DataType {
    let element = match kind {
        VectorKind::Half => DataType::Float16,
        VectorKind::Single => DataType::Float32,
    };
    let item = Arc::new(Field::new(VECTOR_ITEM, element, false));
    match dimensions {
        Some(dimensions) => DataType::FixedSizeList(item, i32::from(dimensions)),
        None => DataType::List(item),
    }
}

/// The SQL type that an Arrow type stands for when no metadata says otherwise.
fn implied(data_type: &DataType) -> Option<SqlType> {
    Some(match data_type {
        DataType::Boolean => SqlType::Bool,
        DataType::Int16 => SqlType::Int2,
        DataType::Int32 => SqlType::Int4,
        DataType::Int64 => SqlType::Int8,
        DataType::Float32 => SqlType::Float4,
        DataType::Float64 => SqlType::Float8,
        DataType::Decimal128(precision, scale) => SqlType::Numeric(Some((*precision, *scale))),
        DataType::Utf8 => SqlType::Text,
        DataType::Binary => SqlType::Bytea,
        DataType::FixedSizeBinary(16) => SqlType::Uuid,
        DataType::Date32 => SqlType::Date,
        DataType::Time64(TimeUnit::Microsecond) => SqlType::Time,
        DataType::Timestamp(TimeUnit::Microsecond, None) => SqlType::Timestamp,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => SqlType::Timestamptz,
        DataType::Interval(IntervalUnit::MonthDayNano) => SqlType::Interval,
        DataType::FixedSizeList(item, dimensions) => match vector_kind(item) {
            Some(kind) => kind.sql_type(Some(u16::try_from(*dimensions).ok()?)),
            None => bit_type(item)?,
        },
        DataType::List(item) => match vector_kind(item) {
            Some(kind) => kind.sql_type(None),
            None => match bit_type(item) {
                Some(bits) => bits,
                None if is_sparse_item(item) => SqlType::SparseVec(None),
                None => SqlType::Array(Box::new(implied(item.data_type())?)),
            },
        },
        DataType::Null => SqlType::Void,
        _ => return None,
    })
}

/// Which vectors the lists with this item are; `None` for lists that are arrays.
pub fn vector_kind(item: &Field) -> Option<VectorKind> {
    match item.data_type() {
        _ if item.name() != VECTOR_ITEM => None,
        DataType::Float16 => Some(VectorKind::Half),
        DataType::Float32 => Some(VectorKind::Single),
        _ => None,
    }
}

/// Whether an Arrow type is that of an enum's values.
pub fn is_enum(data_type: &DataType) -> bool {
    *data_type == DataType::FixedSizeBinary(PLACE_BYTES)
}

/// Whether the lists with this item are sparse vectors.
pub fn is_sparse_item(item: &Field) -> bool {
    item.name() == SPARSE_ITEM && *item.data_type() == DataType::Int32
}

#[cfg(test)]
mod tests;
