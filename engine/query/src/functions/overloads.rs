//! Functions that are computed value by value, with the overloads that Postgres has of them.
//!
//! `numbers`, `digest`, `spans`, `format` and `patterns` hold the functions; here is what they share: which overload a
//! call means, its arguments brought to what that declares, and the column of results. All are strict: a NULL among the
//! arguments makes the result NULL.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float64Array, Int32Array, Int64Array,
            IntervalMonthDayNanoArray, ListBuilder, StringArray, StringBuilder, TimestampMicrosecondArray,
        },
        compute::cast,
        datatypes::{
            DataType, Date32Type, Decimal128Type, Field, FieldRef, Float64Type, Int32Type, Int64Type,
            IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
        },
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use super::{
    cast::convert,
    constants::{all_constant, answer},
    zoned,
};
use crate::{
    error::{carry, undefined_function_call},
    output::{sql_type, typed_field},
    zone::Zone,
};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What an argument or a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bytea,
    Date,
    Float8,
    Int4,
    Int8,
    Interval,
    /// Of any scale; a result's is in its type.
    Numeric,
    Text,
    /// `text[]`
    Texts,
    Timestamp,
    Timestamptz,
}

/// One argument of one call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    Bytes(&'a [u8]),
    Float8(f64),
    Int(i64),
    /// Microseconds; the least and the greatest number are the infinities.
    Instant(i64),
    Interval(IntervalMonthDayNano),
    Numeric(i128, i8),
    Text(&'a str),
}

/// The text among the arguments that is declared at this position.
pub(super) fn text<'a>(given: &[Given<'a>], position: usize) -> &'a str {
    match given.get(position) {
        Some(Given::Text(text)) => text,
        _ => "",
    }
}

/// What a call gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Bytes(Vec<u8>),
    Float8(f64),
    Int(i64),
    /// Also days, where the result is a date.
    Instant(i64),
    Interval(IntervalMonthDayNano),
    Null,
    /// Of the scale of the result's type.
    Numeric(i128),
    Text(String),
    Texts(Vec<Option<String>>),
}

type Compute = fn(&[Given<'_>], i8) -> Result<Answer, Error>;
/// From the precision and scale of each argument, and its value where it is a literal.
type ScaleOf = fn(&[(u8, i8)], &[Option<i64>]) -> i8;

/// One declaration. The number that `compute` gets is the scale of a numeric result.
#[derive(Debug)]
pub(super) struct Overload {
    pub arguments: &'static [Kind],
    pub result: Kind,
    pub compute: Compute,
    /// The scale of a numeric result, by the scales of the arguments and the constants among them.
    pub scale: ScaleOf,
}

impl Overload {
    pub(super) const fn new(arguments: &'static [Kind], result: Kind, compute: Compute) -> Self {
        Self { arguments, result, compute, scale: |_, _| 0 }
    }
}

/// A function and what it is declared for; where several would do, the first is meant.
#[derive(Debug)]
pub(super) struct Overloaded {
    name: &'static str,
    overloads: &'static [Overload],
    signature: Signature,
}

impl PartialEq for Overloaded {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Overloaded {}

impl Hash for Overloaded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The functions of a table of names and declarations.
pub(super) fn functions(table: &'static [(&'static str, &'static [Overload])]) -> Vec<Arc<ScalarUDF>> {
    table
        .iter()
        .map(|&(name, overloads)| {
            let signature = Signature::variadic_any(Volatility::Immutable);
            Arc::new(ScalarUDF::from(Overloaded { name, overloads, signature }))
        })
        .collect()
}

impl ScalarUDFImpl for Overloaded {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let fields: Vec<FieldRef> =
            arguments.iter().map(|ty| Arc::new(Field::new("", ty.clone(), true))).collect();
        let constants = vec![None; fields.len()];
        let args = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &constants };
        Ok(self.return_field_from_args(args)?.data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let overload = self.choose(args.arg_fields)?;
        let shapes: Vec<(u8, i8)> = args.arg_fields.iter().map(|field| shape(field.data_type())).collect();
        let constants: Vec<Option<i64>> =
            args.scalar_arguments.iter().map(|constant| constant.and_then(integer)).collect();
        let ty = match overload.result {
            Kind::Numeric => {
                let scale = (overload.scale)(&shapes, &constants);
                SqlType::Numeric(Some((38, scale.clamp(0, 38))))
            }
            other => target(other),
        };
        Ok(Arc::new(typed_field(self.name, arrow_type(&ty), &ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let overload = self.choose(&args.arg_fields)?;
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args
            .args
            .iter()
            .zip(&args.arg_fields)
            .zip(overload.arguments)
            .map(|((value, field), kind)| Column::read(value, field, *kind))
            .collect::<Result<Vec<Column>>>()?;
        let scale = match args.return_field.data_type() {
            DataType::Decimal128(_, scale) => *scale,
            _ => 0,
        };
        let mut answers = Vec::with_capacity(rows);
        let mut given = Vec::with_capacity(columns.len());
        for row in 0..rows {
            given.clear();
            given.extend(columns.iter().map_while(|column| column.get(row)));
            answers.push(match given.len() == columns.len() {
                true => (overload.compute)(&given, scale).map_err(carry)?,
                false => Answer::Null,
            });
        }
        answer(collect(overload.result, answers, args.return_field.data_type())?, constant)
    }
}

impl Overloaded {
    /// Errors: 42883.
    fn choose(&self, fields: &[FieldRef]) -> Result<&'static Overload> {
        let total = |overload: &&'static Overload| {
            if overload.arguments.len() != fields.len() {
                return None;
            }
            let costs =
                overload.arguments.iter().zip(fields).map(|(kind, field)| cost(*kind, field.data_type()));
            costs.sum::<Option<u32>>()
        };
        let costed = self.overloads.iter().filter_map(|overload| Some((total(&overload)?, overload)));
        // Of equals the first.
        costed.min_by_key(|(cost, _)| *cost).map(|(_, overload)| overload).ok_or_else(|| {
            let types: Vec<SqlType> = fields.iter().map(|field| sql_type(field)).collect();
            carry(undefined_function_call(self.name, &types))
        })
    }
}

/// How far an argument is from what is declared; `None` where it cannot be one. A literal or a parameter comes as text
/// and is read as whatever is declared.
fn cost(kind: Kind, data_type: &DataType) -> Option<u32> {
    Some(match (kind, data_type) {
        (_, DataType::Null) => 1,
        (Kind::Text, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => 0,
        (_, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => 10,
        (
            Kind::Int4,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 | DataType::UInt16 | DataType::Int32,
        ) => 0,
        (Kind::Int8, DataType::Int64 | DataType::UInt32 | DataType::UInt64) => 0,
        // An integer literal that nothing has typed: its value is checked when it is read.
        (Kind::Int4, DataType::Int64) => 4,
        (Kind::Int8, ty) if ty.is_integer() => 1,
        (Kind::Float8, ty) if ty.is_floating() => 0,
        (Kind::Float8, ty) if ty.is_integer() || ty.is_decimal() => 2,
        (Kind::Numeric, ty) if ty.is_decimal() => 0,
        (Kind::Numeric, ty) if ty.is_integer() => 3,
        (Kind::Bytea, DataType::Binary | DataType::LargeBinary | DataType::BinaryView) => 0,
        (Kind::Date, DataType::Date32) => 0,
        (Kind::Timestamptz, DataType::Timestamp(_, Some(_))) => 0,
        (Kind::Timestamp, DataType::Timestamp(_, None)) => 0,
        (Kind::Timestamptz, DataType::Timestamp(_, None) | DataType::Date32) => 1,
        (Kind::Timestamp, DataType::Date32) => 2,
        (Kind::Interval, DataType::Interval(_) | DataType::Duration(_)) => 0,
        (Kind::Interval, DataType::Time32(_) | DataType::Time64(_)) => 1,
        _ => return None,
    })
}

/// The digits and the scale of a number's type.
fn shape(data_type: &DataType) -> (u8, i8) {
    match data_type {
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        _ => (20, 0),
    }
}

fn integer(constant: &ScalarValue) -> Option<i64> {
    match constant.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(value)) => value,
        _ => None,
    }
}

fn target(kind: Kind) -> SqlType {
    match kind {
        Kind::Bytea => SqlType::Bytea,
        Kind::Date => SqlType::Date,
        Kind::Float8 => SqlType::Float8,
        Kind::Int4 => SqlType::Int4,
        Kind::Int8 => SqlType::Int8,
        Kind::Interval => SqlType::Interval,
        Kind::Numeric => SqlType::Numeric(None),
        Kind::Text => SqlType::Text,
        Kind::Texts => SqlType::Array(Box::new(SqlType::Text)),
        Kind::Timestamp => SqlType::Timestamp,
        Kind::Timestamptz => SqlType::Timestamptz,
    }
}

/// An argument's values; a constant is one row, whatever the number of rows of the others.
struct Column {
    values: Values,
    constant: bool,
}

enum Values {
    Bytes(BinaryArray),
    Float8(Float64Array),
    Instant(TimestampMicrosecondArray),
    Int4(Int32Array),
    Int8(Int64Array),
    Interval(IntervalMonthDayNanoArray),
    Numeric(Decimal128Array),
    Text(StringArray),
}

impl Column {
    fn read(value: &ColumnarValue, field: &Field, kind: Kind) -> Result<Self> {
        let (array, constant) = match value {
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
            ColumnarValue::Array(array) => (Arc::clone(array), false),
        };
        let source = sql_type(field);
        let as_kind = |ty: &SqlType| convert(&array, &source, ty);
        let values = match kind {
            Kind::Bytea => Values::Bytes(as_kind(&SqlType::Bytea)?.as_binary::<i32>().clone()),
            Kind::Date | Kind::Timestamp | Kind::Timestamptz => {
                Values::Instant(instants(&array, &source, kind)?)
            }
            Kind::Float8 => Values::Float8(as_kind(&SqlType::Float8)?.as_primitive::<Float64Type>().clone()),
            Kind::Int4 => Values::Int4(as_kind(&SqlType::Int4)?.as_primitive::<Int32Type>().clone()),
            Kind::Int8 => Values::Int8(as_kind(&SqlType::Int8)?.as_primitive::<Int64Type>().clone()),
            Kind::Interval => {
                let spans = match array.data_type() {
                    DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) => {
                        cast(&array, &DataType::Interval(IntervalUnit::MonthDayNano))?
                    }
                    _ => as_kind(&SqlType::Interval)?,
                };
                Values::Interval(spans.as_primitive::<IntervalMonthDayNanoType>().clone())
            }
            Kind::Numeric => {
                let numbers = match array.data_type() {
                    DataType::Decimal128(..) => Arc::clone(&array),
                    ty if ty.is_integer() => as_kind(&SqlType::Numeric(Some((20, 0))))?,
                    _ => as_kind(&SqlType::Numeric(None))?,
                };
                Values::Numeric(numbers.as_primitive::<Decimal128Type>().clone())
            }
            Kind::Text => Values::Text(as_kind(&SqlType::Text)?.as_string::<i32>().clone()),
            Kind::Texts => return Err(carry(Error::bug("no function takes text[] by rows"))),
        };
        Ok(Self { values, constant })
    }

    /// `None` for NULL.
    fn get(&self, row: usize) -> Option<Given<'_>> {
        let row = if self.constant { 0 } else { row };
        Some(match &self.values {
            Values::Bytes(values) => Given::Bytes(values.is_valid(row).then(|| values.value(row))?),
            Values::Float8(values) => Given::Float8(values.is_valid(row).then(|| values.value(row))?),
            Values::Instant(values) => Given::Instant(values.is_valid(row).then(|| values.value(row))?),
            Values::Int4(values) => Given::Int(values.is_valid(row).then(|| values.value(row))?.into()),
            Values::Int8(values) => Given::Int(values.is_valid(row).then(|| values.value(row))?),
            Values::Interval(values) => Given::Interval(values.is_valid(row).then(|| values.value(row))?),
            Values::Numeric(values) => {
                Given::Numeric(values.is_valid(row).then(|| values.value(row))?, values.scale())
            }
            Values::Text(values) => Given::Text(values.is_valid(row).then(|| values.value(row))?),
        })
    }
}

/// Microseconds since 1970; a date's is its midnight. What is to have a zone and has none is of the session's; in UTC
/// that changes no number.
fn instants(array: &ArrayRef, source: &SqlType, kind: Kind) -> Result<TimestampMicrosecondArray> {
    let zone = Zone::current();
    if kind == Kind::Timestamptz
        && !zone.is_utc()
        && matches!(array.data_type(), DataType::Date32 | DataType::Timestamp(_, None))
    {
        return zoned::instants(array, zone);
    }
    let micros = match array.data_type() {
        DataType::Date32 => array.as_primitive::<Date32Type>().unary_opt(|day| match day {
            i32::MAX => Some(i64::MAX),
            i32::MIN => Some(i64::MIN),
            day => i64::from(day).checked_mul(MICROS_PER_DAY),
        }),
        DataType::Timestamp(_, zone) => {
            let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            micros.as_primitive::<TimestampMicrosecondType>().clone()
        }
        _ => {
            let wanted = if kind == Kind::Timestamptz { SqlType::Timestamptz } else { SqlType::Timestamp };
            convert(array, source, &wanted)?.as_primitive::<TimestampMicrosecondType>().clone()
        }
    };
    Ok(micros)
}

fn collect(kind: Kind, answers: Vec<Answer>, wanted: &DataType) -> Result<ArrayRef> {
    Ok(match kind {
        Kind::Bytea => {
            let values = answers.into_iter().map(|answer| match answer {
                Answer::Bytes(value) => Some(value),
                _ => None,
            });
            Arc::new(values.collect::<BinaryArray>())
        }
        Kind::Float8 => {
            let values = answers.into_iter().map(|answer| match answer {
                Answer::Float8(value) => Some(value),
                _ => None,
            });
            Arc::new(values.collect::<Float64Array>())
        }
        Kind::Int4 | Kind::Int8 | Kind::Date => {
            let values = answers.into_iter().map(|answer| match answer {
                Answer::Int(value) | Answer::Instant(value) => Some(value),
                _ => None,
            });
            let numbers: ArrayRef = Arc::new(values.collect::<Int64Array>());
            match kind {
                Kind::Int8 => numbers,
                _ => cast(&cast(&numbers, &DataType::Int32)?, wanted)?,
            }
        }
        Kind::Interval => {
            let values = answers.into_iter().map(|answer| match answer {
                Answer::Interval(value) => Some(value),
                _ => None,
            });
            Arc::new(values.collect::<IntervalMonthDayNanoArray>())
        }
        Kind::Numeric => {
            let values = answers.into_iter().map(|answer| match answer {
                Answer::Numeric(value) => Some(value),
                _ => None,
            });
            let DataType::Decimal128(precision, scale) = wanted else {
                return Err(carry(Error::bug(format!("a number described as {wanted}"))));
            };
            Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(*precision, *scale)?)
        }
        Kind::Text => texts(answers)?,
        Kind::Texts => lists(answers),
        Kind::Timestamp | Kind::Timestamptz => {
            let values = answers.into_iter().map(|answer| match answer {
                Answer::Instant(value) => Some(value),
                _ => None,
            });
            let zone = if kind == Kind::Timestamptz { Some("UTC") } else { None };
            Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone_opt(zone))
        }
    })
}

/// Errors: 54000 when the results of one batch are too long together.
fn texts(answers: Vec<Answer>) -> Result<ArrayRef> {
    const MAX_TEXT_BYTES: usize = 1 << 30;
    let mut values = StringBuilder::with_capacity(answers.len(), 0);
    for answer in answers {
        match answer {
            Answer::Text(text) if values.values_slice().len().saturating_add(text.len()) > MAX_TEXT_BYTES => {
                let message = "the results of a function exceed 1 GiB in one batch";
                return Err(carry(Error::new(SqlState::ProgramLimitExceeded, message)));
            }
            Answer::Text(text) => values.append_value(text),
            _ => values.append_null(),
        }
    }
    Ok(Arc::new(values.finish()))
}

fn lists(answers: Vec<Answer>) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for answer in answers {
        match answer {
            Answer::Texts(texts) => {
                for text in texts {
                    lists.values().append_option(text);
                }
                lists.append(true);
            }
            _ => lists.append(false),
        }
    }
    Arc::new(lists.finish())
}
