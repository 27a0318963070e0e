//! Casts as Postgres does them, where Arrow's differ: `sepal_cast_<type>(operand[, typmod])`.
//!
//! `sql/rewrite.rs` writes these calls for `CAST`, `::` and typed literals. Text goes through the same parsers
//! and printers as the wire (`values`), so a value reads the same wherever it comes from.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, ListArray, StringArray,
            StringBuilder, new_null_array,
        },
        compute::{CastOptions, cast, cast_with_options},
        datatypes::{DataType, Field, FieldRef, Float32Type},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType, limits::MAX_DIMENSIONS};

use crate::{
    error::{self, carry},
    output::{is_vector, natural_type, sql_type, typed_field},
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
    simple
        .chain(arrays)
        .map(|target| {
            let name = format!("sepal_cast_{}", target.internal_name());
            let signature = Signature::variadic_any(Volatility::Immutable);
            Arc::new(ScalarUDF::from(CastFunction { name, target, signature }))
        })
        .collect()
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
        let data_type = match (&target, args.arg_fields.first()) {
            (SqlType::Vector(None), Some(field)) if is_vector(field.data_type()) => field.data_type().clone(),
            _ => arrow_type(&target),
        };
        // A vector's dimensions are part of its Arrow type: they say more than the cast's target did.
        let shown = if is_vector(&data_type) { natural_type(&data_type) } else { target };
        Ok(Arc::new(typed_field(&self.name, data_type, &shown)))
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
                wanted @ DataType::FixedSizeList(..) if converted.data_type() != wanted => {
                    fix_dimensions(&converted, wanted)
                }
                _ => Ok(converted),
            }
        };
        match args.args.first() {
            Some(ColumnarValue::Scalar(value)) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&convert(&value.to_array()?)?, 0)?))
            }
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(convert(array)?)),
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
        if matches!(self.target, SqlType::Vector(_)) {
            check_modifier(modifier).map_err(carry)?;
        }
        Ok(self.target.clone().with_typmod(modifier))
    }
}

/// pgvector's `vector_typmod_in`.
fn check_modifier(dimensions: i32) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::new(SqlState::InvalidParameterValue, message));
    if dimensions < 1 {
        return refuse("dimensions for type vector must be at least 1".to_owned());
    }
    if usize::try_from(dimensions).is_ok_and(|dimensions| dimensions > MAX_DIMENSIONS) {
        return refuse(format!("dimensions for type vector cannot exceed {MAX_DIMENSIONS}"));
    }
    Ok(())
}

/// Converts an array to a SQL type with Postgres' rules. Errors: Postgres' SQLSTATE and wording.
pub fn convert(array: &ArrayRef, source: &SqlType, target: &SqlType) -> Result<ArrayRef> {
    let wanted = arrow_type(target);
    if array.data_type() == &DataType::Null {
        return Ok(new_null_array(&wanted, array.len()));
    }
    match (array.data_type(), target) {
        (_, SqlType::Vector(dimensions)) => {
            let vectors = to_vector_array(array)?;
            check_vector_dimensions(&vectors, *dimensions)?;
            Ok(vectors)
        }
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, _) => {
            let text = cast(array, &DataType::Utf8).map_err(|problem| carry(error::arrow(problem)))?;
            from_text(&text, target)
        }
        // A boolean prints as t, but its cast to text is the word.
        (DataType::Boolean, SqlType::Text | SqlType::Varchar(_)) => {
            let words = array.as_boolean().iter().map(|value| value.map(|value| value.to_string()));
            let words: ArrayRef = Arc::new(words.collect::<StringArray>());
            from_text(&words, target)
        }
        (
            _,
            SqlType::Text
            | SqlType::Varchar(_)
            | SqlType::Name
            | SqlType::Char
            | SqlType::Json
            | SqlType::Jsonb,
        ) => from_text(&to_text(array, source)?, target),
        (DataType::List(_), SqlType::Array(element)) if matches!(**element, SqlType::Vector(_)) => {
            list_of_vectors(array, source, element)
        }
        (DataType::Float32 | DataType::Float64, SqlType::Int2 | SqlType::Int4 | SqlType::Int8) => {
            round_to_integer(array, target)
        }
        (DataType::Decimal128(_, scale), SqlType::Int2 | SqlType::Int4 | SqlType::Int8) if *scale > 0 => {
            // Arrow truncates to an integer but rounds half away from zero to a smaller scale, as Postgres does.
            let whole =
                cast(array, &DataType::Decimal128(38, 0)).map_err(|problem| carry(error::arrow(problem)))?;
            convert(&whole, source, target)
        }
        _ => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(array, &wanted, &options)
                .map_err(|problem| out_of_range(problem, source, target))
        }
    }
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
        let message = format!("cannot cast type {} to {}", source.display_name(), target.display_name());
        return carry(Error::new(SqlState::CannotCoerce, message));
    }
    carry(error)
}

/// Parses text with the wire's parser of the type.
fn from_text(text: &ArrayRef, target: &SqlType) -> Result<ArrayRef> {
    let strings = text.as_string::<i32>();
    let truncate = match target {
        // An explicit cast truncates silently; only assignment refuses (SQL:1992, as Postgres).
        SqlType::Varchar(Some(length)) => usize::try_from(*length).ok(),
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

/// Any array that can be a vector, as one: vectors unchanged, lists of numbers converted, text parsed.
pub fn to_vector_array(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        ty if is_vector(ty) => Ok(Arc::clone(array)),
        DataType::Null => Ok(new_null_array(&arrow_type(&SqlType::Vector(None)), array.len())),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(array, &DataType::Utf8).map_err(|problem| carry(error::arrow(problem)))?;
            from_text(&text, &SqlType::Vector(None))
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => list_to_vector(array),
        other => Err(carry(Error::new(
            SqlState::CannotCoerce,
            format!("cannot cast type {} to vector", natural_type(other).display_name()),
        ))),
    }
}

/// `ARRAY[1,2,3]::vector`: NULL elements are refused with pgvector's words.
fn list_to_vector(array: &ArrayRef) -> Result<ArrayRef> {
    let floats = DataType::List(Arc::new(Field::new("item", DataType::Float32, true)));
    let lists = cast(array, &floats).map_err(|problem| carry(error::arrow(problem)))?;
    let lists = lists.as_list::<i32>();
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        let value = lists.value(row);
        if value.null_count() > 0 {
            return Err(carry(Error::new(SqlState::NullValueNotAllowed, "array must not contain nulls")));
        }
        if value.is_empty() {
            return Err(carry(Error::new(SqlState::DataException, "vector must have at least 1 dimension")));
        }
        sepal_types::check_finite(value.as_primitive::<Float32Type>().values()).map_err(carry)?;
    }
    let item = match arrow_type(&SqlType::Vector(None)) {
        DataType::List(item) => item,
        other => return Err(carry(Error::bug(format!("a vector without dimensions is stored as {other}")))),
    };
    let values = lists.values().as_primitive::<Float32Type>();
    let values = Float32Array::new(values.values().clone(), None);
    Ok(Arc::new(ListArray::new(item, lists.offsets().clone(), Arc::new(values), lists.nulls().cloned())))
}

/// `ARRAY['[1]', '[2]']::vector[]`: element by element, as Arrow has no cast from text to a list.
fn list_of_vectors(array: &ArrayRef, source: &SqlType, element: &SqlType) -> Result<ArrayRef> {
    let lists = array.as_list::<i32>();
    let item = match source {
        SqlType::Array(item) => item.as_ref().clone(),
        _ => natural_type(lists.values().data_type()),
    };
    let vectors = convert(lists.values(), &item, element)?;
    let item = Arc::new(Field::new_list_field(vectors.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(item, lists.offsets().clone(), vectors, lists.nulls().cloned())?))
}

/// pgvector's typmod check.
pub fn check_vector_dimensions(array: &ArrayRef, dimensions: Option<u16>) -> Result<()> {
    let Some(expected) = dimensions.map(usize::from) else {
        return Ok(());
    };
    let refuse = |found: usize| {
        Err(carry(Error::new(
            SqlState::DataException,
            format!("expected {expected} dimensions, not {found}"),
        )))
    };
    match array.data_type() {
        DataType::FixedSizeList(_, found) => {
            let found = usize::try_from(*found).unwrap_or(0);
            if found == expected || array.null_count() == array.len() { Ok(()) } else { refuse(found) }
        }
        _ => {
            let lists = array.as_list::<i32>();
            let mut lengths = (0..lists.len())
                .filter(|row| lists.is_valid(*row))
                .map(|row| usize::try_from(lists.value_length(row)).unwrap_or(0));
            match lengths.find(|found| *found != expected) {
                Some(found) => refuse(found),
                None => Ok(()),
            }
        }
    }
}

/// A vector array as one of fixed dimensions; every non-NULL row has them already.
pub fn fix_dimensions(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    let DataType::FixedSizeList(item, dimensions) = wanted else {
        return Ok(Arc::clone(array));
    };
    check_vector_dimensions(array, u16::try_from(*dimensions).ok())?;
    let width = usize::try_from(*dimensions).unwrap_or(0);
    let mut values = Vec::with_capacity(array.len() * width);
    for row in 0..array.len() {
        match super::distance::elements(array, row) {
            Some(vector) => values.extend_from_slice(vector.values()),
            None => values.resize(values.len() + width, 0.0),
        }
    }
    let values = Arc::new(Float32Array::from(values));
    Ok(Arc::new(FixedSizeListArray::new(Arc::clone(item), *dimensions, values, array.logical_nulls())))
}
