//! A column that is filled value by value from the wire, in text or binary.
//!
//! Called by `copy` for whole columns and by `session` for parameters. Gives arrays of exactly
//! `sepal_storage::arrow_type`, so that a batch of them fits the table without a cast.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder,
        Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder,
        IntervalMonthDayNanoBuilder, NullArray, StringBuilder, Time64MicrosecondBuilder,
        TimestampMicrosecondBuilder,
    },
    datatypes::DataType,
};
use half::f16;
use sepal_storage::arrow_type;
use sepal_types::{EnumType, Error, Result, SqlState, SqlType};

use super::{
    array::ArrayBuilder,
    binary_in::{self, fixed},
    bit::BitBuilder,
    datetime, interval, numeric,
    sparse::SparseBuilder,
    text_in,
    vector::VectorBuilder,
};

/// Most bytes of text or bytea that one builder gathers; Arrow's offsets end at 2 GiB.
const MAX_DATA_BYTES: usize = 1 << 30;

/// Gathers the values of one column.
#[derive(Debug)]
pub struct Builder {
    ty: SqlType,
    rows: usize,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Array(Box<ArrayBuilder>),
    Bit(BitBuilder),
    Bool(BooleanBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    HalfVec(VectorBuilder<f16>),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Interval(IntervalMonthDayNanoBuilder),
    Numeric(Decimal128Builder, numeric::Shape),
    Oid(Int64Builder),
    /// Every type that is kept as text; [`text_in::kept_text`] knows their differences.
    Text(StringBuilder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Timestamptz(TimestampMicrosecondBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Vector(VectorBuilder<f32>),
    Void,
    SparseVec(SparseBuilder),
    /// Places of labels.
    Enum(FixedSizeBinaryBuilder, EnumType),
}

impl Builder {
    /// `capacity`: rows expected; memory is reserved for the fixed-size part of that many.
    pub fn new(ty: &SqlType, capacity: usize) -> Self {
        Self { ty: ty.clone(), rows: 0, values: Values::new(ty, capacity) }
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Memory that a NULL takes, in bytes. A vector's is as large as any value.
    pub fn null_bytes(&self) -> usize {
        match &self.values {
            Values::Bit(bits) => bits.null_bytes(),
            Values::HalfVec(vectors) => vectors.null_bytes(),
            Values::Vector(vectors) => vectors.null_bytes(),
            _ => 16,
        }
    }

    pub fn append_null(&mut self) {
        self.rows += 1;
        match &mut self.values {
            Values::Array(values) => values.append_null(),
            Values::Bit(values) => values.append_null(),
            Values::Bool(values) => values.append_null(),
            Values::Bytea(values) => values.append_null(),
            Values::Date(values) => values.append_null(),
            Values::Float4(values) => values.append_null(),
            Values::Float8(values) => values.append_null(),
            Values::HalfVec(values) => values.append_null(),
            Values::Int2(values) => values.append_null(),
            Values::Int4(values) => values.append_null(),
            Values::Int8(values) | Values::Oid(values) => values.append_null(),
            Values::Interval(values) => values.append_null(),
            Values::Numeric(values, _) => values.append_null(),
            Values::Text(values) => values.append_null(),
            Values::Time(values) => values.append_null(),
            Values::Timestamp(values) | Values::Timestamptz(values) => values.append_null(),
            Values::Uuid(values) => values.append_null(),
            Values::Vector(values) => values.append_null(),
            Values::Void => {}
            Values::SparseVec(values) => values.append_null(),
            Values::Enum(values, _) => values.append_null(),
        }
    }

    /// Appends a value in text form.
    ///
    /// Errors: 22021 not UTF-8; 22P02, 22003, 22007, 22008, 22001, … as the type's input function in Postgres.
    /// After an error the column is not usable.
    pub fn append_text(&mut self, bytes: &[u8]) -> Result<()> {
        let text = text_in::utf8(bytes)?;
        match &mut self.values {
            Values::Array(values) => values.append_text(text)?,
            Values::Bit(values) => values.append_text(text)?,
            Values::Bool(values) => values.append_value(text_in::boolean(text)?),
            Values::Bytea(values) => append_bytea(values, &text_in::bytea(text)?)?,
            Values::Date(values) => values.append_value(datetime::parse_date(text)?),
            Values::Float4(values) => values.append_value(text_in::float4(text)?),
            Values::Float8(values) => values.append_value(text_in::float8(text)?),
            Values::HalfVec(values) => values.append_text(text)?,
            Values::Int2(values) => values.append_value(small_integer(text)?),
            Values::Int4(values) => values.append_value(plain_integer(text)?),
            Values::Int8(values) => {
                values.append_value(text_in::integer(text, "bigint", i64::MIN, i64::MAX)?);
            }
            Values::Interval(values) => values.append_value(interval::parse(text)?),
            Values::Numeric(values, shape) => values.append_value(shape.parse_text(text)?),
            Values::Oid(values) => values.append_value(text_in::oid(text)?),
            Values::Text(values) => append_text(values, &text_in::kept_text(&self.ty, text)?)?,
            Values::Time(values) => values.append_value(datetime::parse_time(text)?),
            Values::Timestamp(values) => values.append_value(datetime::parse_timestamp(text)?),
            Values::Timestamptz(values) => values.append_value(datetime::parse_timestamptz(text)?),
            Values::Uuid(values) => append_uuid(values, text_in::uuid(text)?)?,
            Values::Vector(values) => values.append_text(text)?,
            Values::Void => {}
            Values::SparseVec(values) => values.append_text(text)?,
            Values::Enum(values, ty) => append_label(values, ty, text)?,
        }
        self.rows += 1;
        Ok(())
    }

    /// Appends a value in binary form.
    ///
    /// Errors: 22P03 wrong length or layout; 22021, 22003, 22008, 22000, … as the type's receive function in
    /// Postgres. After an error the column is not usable.
    pub fn append_binary(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.values {
            Values::Array(values) => values.append_binary(bytes)?,
            Values::Bit(values) => values.append_binary(bytes)?,
            Values::Bool(values) => values.append_value(fixed::<1>(bytes)? != [0]),
            Values::Bytea(values) => append_bytea(values, bytes)?,
            Values::Date(values) => {
                values.append_value(datetime::date_from_wire(i32::from_be_bytes(fixed(bytes)?))?);
            }
            Values::Float4(values) => values.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Values::Float8(values) => values.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Values::HalfVec(values) => values.append_binary(bytes)?,
            Values::Int2(values) => values.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Values::Int4(values) => values.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Values::Int8(values) => values.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Values::Interval(values) => values.append_value(interval::parse_binary(bytes)?),
            Values::Numeric(values, shape) => values.append_value(shape.parse_binary(bytes)?),
            Values::Oid(values) => values.append_value(u32::from_be_bytes(fixed(bytes)?).into()),
            Values::Text(values) => append_binary_text(values, &self.ty, bytes)?,
            Values::Time(values) => {
                values.append_value(datetime::time_from_wire(i64::from_be_bytes(fixed(bytes)?))?);
            }
            Values::Timestamp(values) | Values::Timestamptz(values) => {
                values.append_value(datetime::timestamp_from_wire(i64::from_be_bytes(fixed(bytes)?))?);
            }
            Values::Uuid(values) => append_uuid(values, fixed(bytes)?)?,
            Values::Vector(values) => values.append_binary(bytes)?,
            Values::Void => {}
            Values::SparseVec(values) => values.append_binary(bytes)?,
            Values::Enum(values, ty) => append_label(values, ty, text_in::utf8(bytes)?)?,
        }
        self.rows += 1;
        Ok(())
    }

    /// The rows so far, of `sepal_storage::arrow_type`; the builder is empty afterwards.
    ///
    /// Errors: only a bug of ours (XX000).
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let rows = std::mem::take(&mut self.rows);
        Ok(match &mut self.values {
            Values::Array(values) => values.finish()?,
            Values::Bit(values) => values.finish()?,
            Values::Bool(values) => Arc::new(values.finish()),
            Values::Bytea(values) => Arc::new(values.finish()),
            Values::Date(values) => Arc::new(values.finish()),
            Values::Float4(values) => Arc::new(values.finish()),
            Values::Float8(values) => Arc::new(values.finish()),
            Values::HalfVec(values) => values.finish()?,
            Values::Int2(values) => Arc::new(values.finish()),
            Values::Int4(values) => Arc::new(values.finish()),
            Values::Int8(values) | Values::Oid(values) => Arc::new(values.finish()),
            Values::Interval(values) => Arc::new(values.finish()),
            Values::Numeric(values, _) => Arc::new(values.finish()),
            Values::Text(values) => Arc::new(values.finish()),
            Values::Time(values) => Arc::new(values.finish()),
            Values::Timestamp(values) | Values::Timestamptz(values) => Arc::new(values.finish()),
            Values::Uuid(values) => Arc::new(values.finish()),
            Values::Vector(values) => values.finish()?,
            Values::Void => Arc::new(NullArray::new(rows)),
            Values::SparseVec(values) => values.finish()?,
            Values::Enum(values, _) => Arc::new(values.finish()),
        })
    }
}

impl Values {
    fn new(ty: &SqlType, capacity: usize) -> Self {
        let data_type = arrow_type(ty);
        match ty {
            SqlType::Array(element) => Self::Array(Box::new(ArrayBuilder::new(element, data_type, capacity))),
            SqlType::Bit(length) => Self::Bit(BitBuilder::new(data_type, *length, capacity)),
            SqlType::Bool => Self::Bool(BooleanBuilder::with_capacity(capacity)),
            SqlType::Bytea => Self::Bytea(BinaryBuilder::with_capacity(capacity, 0)),
            SqlType::Date => Self::Date(Date32Builder::with_capacity(capacity)),
            SqlType::Float4 => Self::Float4(Float32Builder::with_capacity(capacity)),
            SqlType::Float8 => Self::Float8(Float64Builder::with_capacity(capacity)),
            SqlType::HalfVec(_) => Self::HalfVec(VectorBuilder::new(data_type, capacity)),
            SqlType::Int2 => Self::Int2(Int16Builder::with_capacity(capacity)),
            SqlType::Int4 => Self::Int4(Int32Builder::with_capacity(capacity)),
            SqlType::Int8 => Self::Int8(Int64Builder::with_capacity(capacity)),
            SqlType::Interval => Self::Interval(IntervalMonthDayNanoBuilder::with_capacity(capacity)),
            SqlType::Numeric(modifier) => {
                Self::Numeric(decimals(data_type, capacity), numeric::Shape::new(*modifier))
            }
            SqlType::Oid => Self::Oid(Int64Builder::with_capacity(capacity)),
            SqlType::Time => Self::Time(Time64MicrosecondBuilder::with_capacity(capacity)),
            SqlType::Timestamp => Self::Timestamp(timestamps(data_type, capacity)),
            SqlType::Timestamptz => Self::Timestamptz(timestamps(data_type, capacity)),
            SqlType::Uuid => Self::Uuid(FixedSizeBinaryBuilder::with_capacity(capacity, 16)),
            SqlType::Vector(_) => Self::Vector(VectorBuilder::new(data_type, capacity)),
            SqlType::Void => Self::Void,
            SqlType::SparseVec(declared) => Self::SparseVec(SparseBuilder::new(*declared, capacity)),
            SqlType::Enum(ty) => Self::Enum(FixedSizeBinaryBuilder::with_capacity(capacity, 8), ty.clone()),
            SqlType::Bpchar(_)
            | SqlType::Char
            | SqlType::Int2Vector
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Name
            | SqlType::OidVector
            | SqlType::Regclass
            | SqlType::Regproc
            | SqlType::Regtype
            | SqlType::Text
            | SqlType::TsQuery
            | SqlType::TsVector
            | SqlType::Unknown
            | SqlType::Varchar(_) => Self::Text(StringBuilder::with_capacity(capacity, 0)),
        }
    }
}

fn decimals(data_type: DataType, capacity: usize) -> Decimal128Builder {
    Decimal128Builder::with_capacity(capacity).with_data_type(data_type)
}

fn timestamps(data_type: DataType, capacity: usize) -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::with_capacity(capacity).with_data_type(data_type)
}

fn small_integer(text: &str) -> Result<i16> {
    let value = text_in::integer(text, "smallint", i16::MIN.into(), i16::MAX.into())?;
    i16::try_from(value).map_err(|_| Error::bug("a checked smallint does not fit"))
}

fn plain_integer(text: &str) -> Result<i32> {
    let value = text_in::integer(text, "integer", i32::MIN.into(), i32::MAX.into())?;
    i32::try_from(value).map_err(|_| Error::bug("a checked integer does not fit"))
}

fn append_text(values: &mut StringBuilder, text: &str) -> Result<()> {
    check_data(values.values_slice().len(), text.len())?;
    values.append_value(text);
    Ok(())
}

fn append_binary_text(values: &mut StringBuilder, ty: &SqlType, bytes: &[u8]) -> Result<()> {
    if let Some(text) = binary_in::text_of(ty, bytes)? {
        return append_text(values, &text);
    }
    let bytes = if *ty == SqlType::Jsonb { binary_in::jsonb_body(bytes)? } else { bytes };
    let text = text_in::utf8(bytes)?;
    append_text(values, &text_in::kept_text(ty, text)?)
}

fn append_bytea(values: &mut BinaryBuilder, bytes: &[u8]) -> Result<()> {
    check_data(values.values_slice().len(), bytes.len())?;
    values.append_value(bytes);
    Ok(())
}

fn append_label(values: &mut FixedSizeBinaryBuilder, ty: &EnumType, label: &str) -> Result<()> {
    let place = ty.place(label)?.to_be_bytes();
    values.append_value(place).map_err(|_| Error::bug("an enum's value has another width"))
}

fn append_uuid(values: &mut FixedSizeBinaryBuilder, uuid: [u8; 16]) -> Result<()> {
    values.append_value(uuid).map_err(|problem| Error::bug(format!("a uuid is 16 bytes: {problem}")))
}

fn check_data(present: usize, more: usize) -> Result<()> {
    if present.saturating_add(more) <= MAX_DATA_BYTES {
        return Ok(());
    }
    Err(Error::new(SqlState::ProgramLimitExceeded, "a column holds more than 1 GiB in one value or batch")
        .with_hint("Send the data in smaller pieces."))
}

/// A parameter in text form as an array of length 1; `None` is NULL. Errors: as [`Builder::append_text`].
pub fn decode_text(ty: &SqlType, value: Option<&[u8]>) -> Result<ArrayRef> {
    decode(ty, value, Builder::append_text)
}

/// A parameter in binary form as an array of length 1; `None` is NULL. Errors: as [`Builder::append_binary`].
pub fn decode_binary(ty: &SqlType, value: Option<&[u8]>) -> Result<ArrayRef> {
    decode(ty, value, Builder::append_binary)
}

fn decode(
    ty: &SqlType,
    value: Option<&[u8]>,
    append: fn(&mut Builder, &[u8]) -> Result<()>,
) -> Result<ArrayRef> {
    let mut builder = Builder::new(ty, 1);
    match value {
        Some(bytes) => append(&mut builder, bytes)?,
        None => builder.append_null(),
    }
    builder.finish()
}
