//! One column of a batch, ready to be written row by row.
//!
//! Called by `session` and `copy` for results. The downcast to the typed array happens once per batch, in
//! [`ColumnEncoder::new`]; writing a value is then one match and no lookup. Never allocates per value for
//! fixed-size types and vectors in binary.

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
        FixedSizeListArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
        IntervalMonthDayNanoArray, ListArray, PrimitiveArray, StringArray, Time64MicrosecondArray,
        TimestampMicrosecondArray, make_array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::DataType,
};
use bytes::{BufMut, BytesMut};
use half::f16;
use sepal_types::{EnumType, Error, Result, SqlState, SqlType};

use super::{
    binary_out,
    bit::BitColumn,
    sparse::SparseColumn,
    text_out,
    vector::{Element, VectorColumn},
};
use crate::zone::Zone;

/// A column of a batch with the SQL type that it is described as.
#[derive(Debug)]
pub struct ColumnEncoder {
    nulls: Option<NullBuffer>,
    pub(super) column: Column,
}

/// The typed array, and what its SQL type adds to it.
#[derive(Debug)]
pub(super) enum Column {
    /// Every row is NULL; no row is ever asked for.
    AllNull,
    Array {
        offsets: OffsetBuffer<i32>,
        elements: Box<ColumnEncoder>,
        element_oid: u32,
    },
    Bit(BitColumn),
    Bool(BooleanArray),
    Bytea(BinaryArray),
    Char(StringArray),
    Date(Date32Array),
    Float4(Float32Array),
    Float8(Float64Array),
    HalfVec(VectorColumn<f16>),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Interval(IntervalMonthDayNanoArray),
    Jsonb(StringArray),
    /// `int2vector` and `oidvector`: numbers with spaces between.
    Numbers {
        texts: StringArray,
        element: SqlType,
    },
    Numeric {
        values: Decimal128Array,
        shortest: bool,
    },
    Oid(Int64Array),
    /// `character(n)`, with how many characters it is printed.
    Padded {
        values: StringArray,
        width: usize,
    },
    /// `regclass` and its like: a name, or an oid in digits.
    Reg(StringArray),
    Text(StringArray),
    TsQuery(StringArray),
    TsVector(StringArray),
    Time(Time64MicrosecondArray),
    Timestamp {
        values: TimestampMicrosecondArray,
        /// In which one that has a zone is printed.
        zone: Option<Zone>,
    },
    Uuid(FixedSizeBinaryArray),
    Vector(VectorColumn<f32>),
    SparseVec(SparseColumn),
    Enum {
        /// Places of labels.
        values: FixedSizeBinaryArray,
        ty: EnumType,
    },
    /// An empty value, as a function that returns void gives.
    Void,
    /// Intervals that print in the style of ISO 8601.
    IsoInterval(IntervalMonthDayNanoArray),
}

impl ColumnEncoder {
    /// `array` must have the Arrow type of `ty` (`sepal_storage::arrow_type`); a decimal's scale and a
    /// vector's two list forms may differ. Shares the array's buffers. A `timestamptz` prints in [`Zone::current`].
    ///
    /// Errors: another Arrow type (XX000).
    pub fn new(array: &dyn Array, ty: &SqlType) -> Result<Self> {
        if array.data_type() == &DataType::Null {
            let (column, nulls) = match ty {
                SqlType::Void => (Column::Void, None),
                _ => (Column::AllNull, Some(NullBuffer::new_null(array.len()))),
            };
            return Ok(Self { nulls, column });
        }
        Ok(Self { nulls: array.logical_nulls(), column: Column::new(array, ty)? })
    }

    /// Its intervals, those in arrays too, print as `P1DT2H` if `iso_8601` says so.
    #[must_use]
    pub fn with_intervals(mut self, iso_8601: bool) -> Self {
        if !iso_8601 {
            return self;
        }
        self.column = match self.column {
            Column::Interval(values) => Column::IsoInterval(values),
            Column::Array { offsets, elements, element_oid } => {
                let elements = Box::new(elements.with_intervals(iso_8601));
                Column::Array { offsets, elements, element_oid }
            }
            other => other,
        };
        self
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends a non-NULL row's text form, without a length.
    pub fn text(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        text_out::write(&self.column, row, out)
    }

    /// Appends a non-NULL row's binary form, without a length.
    pub fn binary(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        binary_out::write(&self.column, row, out)
    }

    /// Appends a row as DataRow carries it, in text: `length i32 | bytes`, length -1 for NULL.
    pub fn text_field(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        self.field(row, out, text_out::write)
    }

    /// Appends a row as DataRow and COPY carry it, in binary: `length i32 | bytes`, length -1 for NULL.
    pub fn binary_field(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        self.field(row, out, binary_out::write)
    }

    fn field(
        &self,
        row: usize,
        out: &mut BytesMut,
        write: fn(&Column, usize, &mut BytesMut) -> Result<()>,
    ) -> Result<()> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        write(&self.column, row, out)?;
        let Ok(length) = i32::try_from(out.len() - start - 4) else {
            out.truncate(start);
            return Err(Error::new(
                SqlState::ProgramLimitExceeded,
                "a value is larger than a field can be (2 GiB)",
            )
            .with_hint("Select a part of it, for example with substr()."));
        };
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

impl Column {
    fn new(array: &dyn Array, ty: &SqlType) -> Result<Self> {
        Ok(match ty {
            SqlType::Array(element) => {
                let list: ListArray = typed(array, ty)?;
                let elements = ColumnEncoder::new(list.values().as_ref(), element)?;
                Self::Array {
                    offsets: list.offsets().clone(),
                    elements: Box::new(elements),
                    element_oid: element.oid(),
                }
            }
            SqlType::Bit(_) => {
                let bits = BitColumn::new(make_array(array.to_data()));
                Self::Bit(bits.ok_or_else(|| mismatch(array, ty))?)
            }
            SqlType::Bpchar(length) => {
                let width = length.map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
                Self::Padded { values: typed(array, ty)?, width }
            }
            SqlType::Bool => Self::Bool(typed(array, ty)?),
            SqlType::Bytea => Self::Bytea(typed(array, ty)?),
            SqlType::Char => Self::Char(typed(array, ty)?),
            SqlType::Date => Self::Date(typed(array, ty)?),
            SqlType::Float4 => Self::Float4(typed(array, ty)?),
            SqlType::Float8 => Self::Float8(typed(array, ty)?),
            SqlType::HalfVec(_) => Self::HalfVec(vectors(array, ty)?),
            SqlType::Int2 => Self::Int2(typed(array, ty)?),
            SqlType::Int2Vector => Self::Numbers { texts: typed(array, ty)?, element: SqlType::Int2 },
            SqlType::Int4 => Self::Int4(typed(array, ty)?),
            SqlType::Int8 => Self::Int8(typed(array, ty)?),
            SqlType::Interval => Self::Interval(typed(array, ty)?),
            SqlType::Jsonb => Self::Jsonb(typed(array, ty)?),
            SqlType::Numeric(modifier) => {
                Self::Numeric { values: typed(array, ty)?, shortest: modifier.is_none() }
            }
            SqlType::Oid => Self::Oid(typed(array, ty)?),
            SqlType::OidVector => Self::Numbers { texts: typed(array, ty)?, element: SqlType::Oid },
            SqlType::Regclass | SqlType::Regproc | SqlType::Regtype => Self::Reg(typed(array, ty)?),
            SqlType::Json | SqlType::Name | SqlType::Text | SqlType::Unknown | SqlType::Varchar(_) => {
                Self::Text(typed(array, ty)?)
            }
            SqlType::TsQuery => Self::TsQuery(typed(array, ty)?),
            SqlType::TsVector => Self::TsVector(typed(array, ty)?),
            SqlType::Time => Self::Time(typed(array, ty)?),
            SqlType::Timestamp => Self::Timestamp { values: typed(array, ty)?, zone: None },
            SqlType::Timestamptz => {
                Self::Timestamp { values: typed(array, ty)?, zone: Some(Zone::current()) }
            }
            SqlType::Uuid => Self::Uuid(uuids(array, ty)?),
            SqlType::Vector(_) => Self::Vector(vectors(array, ty)?),
            SqlType::Void => Self::Void,
            SqlType::SparseVec(_) => {
                Self::SparseVec(SparseColumn::new(array).ok_or_else(|| mismatch(array, ty))?)
            }
            SqlType::Enum(of) => Self::Enum { values: typed(array, ty)?, ty: of.clone() },
        })
    }
}

/// The label of an enum's value.
///
/// Errors: 0A000 where it is not known which enum's it is.
pub(super) fn label<'a>(values: &FixedSizeBinaryArray, ty: &'a EnumType, row: usize) -> Result<&'a str> {
    let place: [u8; 8] =
        values.value(row).try_into().map_err(|_| Error::bug("an enum's value has another width"))?;
    ty.label(u64::from_be_bytes(place))
}

fn typed<T: Clone + 'static>(array: &dyn Array, ty: &SqlType) -> Result<T> {
    array.as_any().downcast_ref::<T>().cloned().ok_or_else(|| mismatch(array, ty))
}

fn mismatch(array: &dyn Array, ty: &SqlType) -> Error {
    Error::bug(format!("a column described as {} holds Arrow {}", ty.display_name(), array.data_type()))
}

fn uuids(array: &dyn Array, ty: &SqlType) -> Result<FixedSizeBinaryArray> {
    match array.data_type() {
        DataType::FixedSizeBinary(16) => typed(array, ty),
        _ => Err(mismatch(array, ty)),
    }
}

fn vectors<E: Element>(array: &dyn Array, ty: &SqlType) -> Result<VectorColumn<E>> {
    let elements = |values: &ArrayRef| {
        typed::<PrimitiveArray<E::Arrow>>(values.as_ref(), ty).map(|elements| elements.values().clone())
    };
    if let Some(list) = array.as_any().downcast_ref::<FixedSizeListArray>() {
        let dimensions = usize::try_from(list.value_length()).map_err(|_| mismatch(array, ty))?;
        return Ok(VectorColumn::fixed(elements(list.values())?, dimensions));
    }
    let list: ListArray = typed(array, ty)?;
    Ok(VectorColumn::varying(elements(list.values())?, list.offsets().clone()))
}

/// Appends one value's text form. `row` must not be NULL. For many rows, resolve a [`ColumnEncoder`] once.
pub fn encode_text(array: &dyn Array, row: usize, ty: &SqlType, out: &mut BytesMut) -> Result<()> {
    ColumnEncoder::new(array, ty)?.text(row, out)
}

/// Appends one value's binary form. `row` must not be NULL. For many rows, resolve a [`ColumnEncoder`] once.
pub fn encode_binary(array: &dyn Array, row: usize, ty: &SqlType, out: &mut BytesMut) -> Result<()> {
    ColumnEncoder::new(array, ty)?.binary(row, out)
}
