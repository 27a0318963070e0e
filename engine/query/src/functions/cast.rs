//! Casts as Postgres does them, where Arrow's differ: `sepal_cast_<type>(operand[, typmod])`.
//!
//! `sql/rewrite.rs` writes these calls for `CAST`, `::` and typed literals. Text goes through the same parsers
//! and printers as the wire (`values`), so a value reads the same wherever it comes from.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float32Array, StringArray, StringBuilder, new_null_array},
        compute::{CastOptions, cast, cast_with_options},
        datatypes::{DataType, FieldRef, Float64Type},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};
use sepal_storage::{arrow_type, is_enum};
use sepal_types::{BitString, Error, SparseVector, SqlState, SqlType};

use super::{
    bit::{bits_to_integers, resize_bits},
    constants::of_one,
    sparse::{check_sparse_dimensions, to_sparse},
    vector_cast::{check_vector_dimensions, fix_dimensions, list_of_vectors, to_vectors},
    zoned::across,
};
use crate::{
    error::{self, carry},
    output::{is_bits, is_sparse, is_vector, natural_type, sql_type, typed_field},
    values,
};

/// One cast target.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CastFunction {
    name: String,
    target: SqlType,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let simple = SqlType::simple_types().filter(|ty| !matches!(ty, SqlType::Unknown | SqlType::Void));
    let arrays = SqlType::simple_types()
        .filter(|ty| !matches!(ty, SqlType::Unknown | SqlType::Void))
        .map(|ty| SqlType::Array(Box::new(ty)));
    simple.chain(arrays).map(|target| Arc::new(cast_function(target))).collect()
}

/// The cast to one type.
pub fn cast_function(target: SqlType) -> ScalarUDF {
    let name = format!("sepal_cast_{}", target.internal_name());
    let signature = Signature::variadic_any(Volatility::Immutable);
    ScalarUDF::from(CastFunction { name, target, signature })
}

impl ScalarUDFImpl for CastFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&self.target))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let target = self.target_with(args.scalar_arguments.get(1).copied().flatten())?;
        // A vector's dimensions are part of its Arrow type: they say more than the cast's target did.
        let shown = match (target.vector_kind(), args.arg_fields.first()) {
            (Some(kind), Some(field)) if target.dimensions().is_none() => {
                kind.sql_type(natural_type(field.data_type()).dimensions())
            }
            _ => target,
        };
        Ok(Arc::new(typed_field(&self.name, arrow_type(&shown), &shown)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let modifier = args.args.get(1).and_then(|argument| match argument {
            ColumnarValue::Scalar(value) => Some(value),
            ColumnarValue::Array(_) => None,
        });
        let target = self.target_with(modifier)?;
        let source = args.arg_fields.first().map_or(SqlType::Text, |field| sql_type(field));
        let convert = |array: &ArrayRef| -> Result<ArrayRef> {
            let converted = convert(array, &source, &target)?;
            match args.return_field.data_type() {
                wanted @ DataType::FixedSizeList(..)
                    if is_vector(wanted) && converted.data_type() != wanted =>
                {
                    fix_dimensions(&converted, wanted)
                }
                _ => Ok(converted),
            }
        };
        match args.args.first() {
            Some(value) => of_one(value, convert),
            None => Err(carry(Error::bug("a cast without an operand"))),
        }
    }
}

impl CastFunction {
    /// Errors: 22023 for dimensions that no vector has.
    fn target_with(&self, modifier: Option<&ScalarValue>) -> Result<SqlType> {
        let Some(Ok(ScalarValue::Int32(Some(modifier)))) =
            modifier.map(|value| value.cast_to(&DataType::Int32))
        else {
            return Ok(self.target.clone());
        };
        if matches!(self.target, SqlType::Bit(_)) {
            BitString::declared(modifier.into()).map_err(carry)?;
        }
        if let Some(kind) = self.target.vector_kind() {
            kind.declared(modifier.into()).map_err(carry)?;
        }
        if self.target.is_sparse() {
            SparseVector::declared(modifier.into()).map_err(carry)?;
        }
        Ok(self.target.clone().with_typmod(modifier))
    }
}

/// Converts an array to a SQL type with Postgres' rules. Errors: Postgres' SQLSTATE and wording.
pub fn convert(array: &ArrayRef, source: &SqlType, target: &SqlType) -> Result<ArrayRef> {
    let wanted = arrow_type(target);
    if array.data_type() == &DataType::Null {
        return Ok(new_null_array(&wanted, array.len()));
    }
    if let Some(kind) = target.vector_kind() {
        let vectors = to_vectors(array, kind)?;
        check_vector_dimensions(&vectors, target.dimensions())?;
        return Ok(vectors);
    }
    if let SqlType::SparseVec(declared) = target {
        let vectors = to_sparse(array)?;
        check_sparse_dimensions(&vectors, *declared)?;
        return Ok(vectors);
    }
    if is_enum(array.data_type()) && !is_printable(target) {
        return same_enum(array, source, target);
    }
    if is_sparse(array.data_type()) && !is_printable(target) {
        return Err(carry(cannot_cast(source, target)));
    }
    if let SqlType::Bit(length) = target {
        return resize_bits(array, *length);
    }
    if let (true, SqlType::Int4 | SqlType::Int8) = (is_bits(array.data_type()), target) {
        let integers = bits_to_integers(array, if *target == SqlType::Int4 { 32 } else { 64 }, target)?;
        return Ok(cast(&integers, &wanted)?);
    }
    if cannot_be_text_search(source, target) {
        let message = format!("cannot cast type {} to {}", source.display_name(), target.display_name());
        return Err(carry(Error::new(SqlState::CannotCoerce, message)));
    }
    match (array.data_type(), target) {
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, _) => {
            let text = cast(array, &DataType::Utf8).map_err(|problem| carry(error::arrow(problem)))?;
            from_text(&text, target)
        }
        (DataType::Boolean, SqlType::Text | SqlType::Bpchar(_) | SqlType::Varchar(_)) => {
            from_text(&words_of(array), target)
        }
        (
            _,
            SqlType::Text
            | SqlType::Bpchar(_)
            | SqlType::Varchar(_)
            | SqlType::Name
            | SqlType::Char
            | SqlType::Json
            | SqlType::Jsonb,
        ) => from_text(&to_text(array, source)?, target),
        (DataType::List(_), SqlType::Array(element))
            if element.vector_kind().is_some() || element.is_sparse() =>
        {
            list_of_vectors(array, source, element)
        }
        (DataType::Float32 | DataType::Float64, SqlType::Int2 | SqlType::Int4 | SqlType::Int8) => {
            round_to_integer(array, target)
        }
        (DataType::Float64, SqlType::Float4) => to_real(array),
        (DataType::Decimal128(_, scale), SqlType::Int2 | SqlType::Int4 | SqlType::Int8) if *scale > 0 => {
            // Arrow truncates to an integer but rounds half away from zero to a smaller scale, as Postgres does.
            let whole =
                cast(array, &DataType::Decimal128(38, 0)).map_err(|problem| carry(error::arrow(problem)))?;
            convert(&whole, source, target)
        }
        _ => plainly(array, source, target),
    }
}

/// Places mean labels of one type alone; nothing but text is made of them.
fn same_enum(array: &ArrayRef, source: &SqlType, target: &SqlType) -> Result<ArrayRef> {
    match (source, target) {
        (SqlType::Enum(one), SqlType::Enum(other)) if one.id == other.id => Ok(Arc::clone(array)),
        _ => Err(carry(cannot_cast(source, target))),
    }
}

/// As Arrow does it, but for times: what they become may depend on the session's zone, and they may be infinite.
fn plainly(array: &ArrayRef, source: &SqlType, target: &SqlType) -> Result<ArrayRef> {
    if let Some(moved) = across(array, target)? {
        return Ok(moved);
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, &arrow_type(target), &options)
        .map_err(|problem| out_of_range(problem, source, target))
}

/// A boolean prints as t, but its cast to text is the word.
fn words_of(booleans: &ArrayRef) -> ArrayRef {
    let words = booleans.as_boolean().iter().map(|value| value.map(|value| value.to_string()));
    Arc::new(words.collect::<StringArray>())
}

/// Whether a value that has a cast to nothing else is printed as this type.
const fn is_printable(target: &SqlType) -> bool {
    matches!(target, SqlType::Text | SqlType::Bpchar(_) | SqlType::Varchar(_) | SqlType::Name)
}

/// 42846
pub fn cannot_cast(source: &SqlType, target: &SqlType) -> Error {
    let message = format!("cannot cast type {} to {}", source.display_name(), target.display_name());
    Error::new(SqlState::CannotCoerce, message)
}

/// A `tsvector` and a `tsquery` are made of text alone, and only by functions of one another.
fn cannot_be_text_search(source: &SqlType, target: &SqlType) -> bool {
    let is_text = source.is_text() || *source == SqlType::Void;
    matches!(target, SqlType::TsQuery | SqlType::TsVector) && source != target && !is_text
}

/// Postgres rounds half to even (`rint`) where Arrow truncates.
fn round_to_integer(array: &ArrayRef, target: &SqlType) -> Result<ArrayRef> {
    let floats = cast(array, &DataType::Float64).map_err(|problem| carry(error::arrow(problem)))?;
    let rounded: datafusion::arrow::array::Float64Array =
        floats.as_primitive::<datafusion::arrow::datatypes::Float64Type>().unary(f64::round_ties_even);
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&rounded, &arrow_type(target), &options)
        .map_err(|problem| out_of_range(problem, &SqlType::Float8, target))
}

/// Errors: 22003 for what is too large or too small.
fn to_real(array: &ArrayRef) -> Result<ArrayRef> {
    let problem = |kind: &str| {
        let message = format!("value out of range: {kind}");
        carry(Error::new(SqlState::NumericValueOutOfRange, message))
    };
    let reals: Float32Array = array.as_primitive::<Float64Type>().try_unary(|value| {
        let real = value as f32;
        if real.is_infinite() && value.is_finite() {
            return Err(problem("overflow"));
        }
        if real == 0.0 && value != 0.0 { Err(problem("underflow")) } else { Ok(real) }
    })?;
    Ok(Arc::new(reals))
}

fn out_of_range(
    problem: datafusion::arrow::error::ArrowError,
    source: &SqlType,
    target: &SqlType,
) -> datafusion::error::DataFusionError {
    let error = error::arrow(problem);
    let too_large = error.message().contains("Can't cast value") || error.message().contains("too large");
    if let SqlType::Numeric(Some((precision, scale))) = target
        && too_large
    {
        let whole = i16::from(*precision) - i16::from(*scale);
        let bound = if whole == 0 { "1".to_owned() } else { format!("10^{whole}") };
        return carry(Error::new(SqlState::NumericValueOutOfRange, "numeric field overflow").with_detail(
            format!(
                "A field with precision {precision}, scale {scale} must round to an absolute value less than {bound}."
            ),
        ));
    }
    if target.is_number() && too_large {
        let message = format!("{} out of range", target.display_name());
        return carry(Error::new(SqlState::NumericValueOutOfRange, message));
    }
    if error.message().contains("not supported") {
        return carry(cannot_cast(source, target));
    }
    carry(error)
}

/// Parses text with the wire's parser of the type.
pub(super) fn from_text(text: &ArrayRef, target: &SqlType) -> Result<ArrayRef> {
    let strings = text.as_string::<i32>();
    let truncate = match target {
        // An explicit cast truncates silently; only assignment refuses (SQL:1992, as Postgres).
        SqlType::Bpchar(Some(length)) | SqlType::Varchar(Some(length)) => usize::try_from(*length).ok(),
        _ => None,
    };
    let mut builder = values::Builder::new(target, strings.len());
    for value in strings {
        match value {
            None => builder.append_null(),
            Some(value) => {
                let value = match truncate.and_then(|length| value.char_indices().nth(length)) {
                    Some((end, _)) => &value[..end],
                    None => value,
                };
                builder.append_text(value.as_bytes()).map_err(carry)?;
            }
        }
    }
    builder.finish().map_err(carry)
}

/// Prints with the wire's printer of the type.
fn to_text(array: &ArrayRef, source: &SqlType) -> Result<ArrayRef> {
    let natural = natural_type(array.data_type());
    let ty = if arrow_type(source) == *array.data_type() { source } else { &natural };
    let conformed = crate::output::conform_array(array, ty).map_err(carry)?;
    let encoder = values::ColumnEncoder::new(conformed.as_ref(), ty).map_err(carry)?;
    let mut out = bytes::BytesMut::new();
    let mut text = StringBuilder::with_capacity(conformed.len(), conformed.len() * 8);
    for row in 0..conformed.len() {
        if conformed.is_null(row) {
            text.append_null();
            continue;
        }
        out.clear();
        encoder.text(row, &mut out).map_err(carry)?;
        text.append_value(String::from_utf8_lossy(&out));
    }
    Ok(Arc::new(text.finish()))
}
