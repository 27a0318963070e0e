//! Arrays as vectors: text parsed, lists of numbers converted, `vector`, `halfvec` and `sparsevec` as each other.
//!
//! Called by `cast` for casts and by every function over vectors for its arguments. A function computes with `f32`,
//! whatever it was given ([`operand`]), and rounds what it returns where that is a `halfvec`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, FixedSizeListArray, Float16Array, Float32Array, ListArray,
            PrimitiveArray, new_null_array,
        },
        compute::cast,
        datatypes::{ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type},
    },
    common::Result,
};
use half::{f16, slice::HalfFloatSliceExt};
use sepal_storage::{VECTOR_ITEM, arrow_type};
use sepal_types::{Error, SqlState, SqlType, VectorKind, check_finite, round_to_half};

use super::{
    cast::{convert, from_text},
    sparse::to_dense,
};
use crate::{
    error::{self, carry},
    output::{is_sparse, natural_type, vector_kind},
};

/// The vectors that operands of these types become where they meet. What is no vector yet does not say.
pub fn common_kind<'a>(types: impl IntoIterator<Item = &'a DataType>) -> VectorKind {
    types.into_iter().filter_map(vector_kind).fold(VectorKind::Single, VectorKind::beside)
}

/// Any array that can be vectors of a kind, as such: lists of numbers converted, text parsed.
///
/// Errors: 22003 for a number past the range of half precision, 22004, 22000 and those of the text form.
pub fn to_vectors(array: &ArrayRef, kind: VectorKind) -> Result<ArrayRef> {
    match (vector_kind(array.data_type()), array.data_type()) {
        (Some(found), _) if found == kind => Ok(Arc::clone(array)),
        (Some(VectorKind::Half), _) => widened(array),
        (Some(VectorKind::Single), _) => halved(array),
        (None, ty) if is_sparse(ty) => to_dense(array, kind),
        (None, DataType::Null) => Ok(new_null_array(&arrow_type(&kind.sql_type(None)), array.len())),
        (None, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
            let text = cast(array, &DataType::Utf8).map_err(|problem| carry(error::arrow(problem)))?;
            from_text(&text, &kind.sql_type(None))
        }
        (None, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)) => {
            list_to_vectors(array, kind)
        }
        (None, other) => {
            let message =
                format!("cannot cast type {} to {}", natural_type(other).display_name(), kind.name());
            Err(carry(Error::new(SqlState::CannotCoerce, message)))
        }
    }
}

/// The same as `f32`, after it became vectors of a kind: what a function computes with.
pub fn operand(array: &ArrayRef, kind: VectorKind) -> Result<ArrayRef> {
    to_vectors(&to_vectors(array, kind)?, VectorKind::Single)
}

/// `halfvec` as `vector`: the same numbers.
fn widened(array: &ArrayRef) -> Result<ArrayRef> {
    let halves = elements_of(array).as_primitive::<Float16Type>().values();
    with_elements(array, Arc::new(Float32Array::from(halves.to_f32_vec())))
}

/// `vector` as `halfvec`, rounded. Errors: 22003.
fn halved(array: &ArrayRef) -> Result<ArrayRef> {
    let singles = elements_of(array).as_primitive::<Float32Type>().values();
    let mut halves = vec![f16::ZERO; singles.len()];
    halves.convert_from_f32_slice(singles);
    if halves.iter().any(|half| half.is_infinite()) {
        // Behind a NULL there may be anything.
        for vector in (0..array.len()).filter_map(|row| super::distance::elements(array, row)) {
            vector.values().iter().try_for_each(|value| round_to_half(*value).map(drop)).map_err(carry)?;
        }
    }
    with_elements(array, Arc::new(Float16Array::from(halves)))
}

fn elements_of(array: &ArrayRef) -> &ArrayRef {
    match array.as_fixed_size_list_opt() {
        Some(list) => list.values(),
        None => array.as_list::<i32>().values(),
    }
}

/// The same vectors with other elements.
fn with_elements(array: &ArrayRef, elements: ArrayRef) -> Result<ArrayRef> {
    let item = Arc::new(Field::new(VECTOR_ITEM, elements.data_type().clone(), false));
    let nulls = array.nulls().cloned();
    Ok(match array.as_fixed_size_list_opt() {
        Some(list) => Arc::new(FixedSizeListArray::try_new(item, list.value_length(), elements, nulls)?),
        None => {
            let offsets = array.as_list::<i32>().offsets().clone();
            Arc::new(ListArray::try_new(item, offsets, elements, nulls)?)
        }
    })
}

/// `ARRAY[1,2,3]::vector`: NULL elements are refused with pgvector's words.
fn list_to_vectors(array: &ArrayRef, kind: VectorKind) -> Result<ArrayRef> {
    let floats = DataType::List(Arc::new(Field::new("item", DataType::Float32, true)));
    let lists = cast(array, &floats).map_err(|problem| carry(error::arrow(problem)))?;
    let lists = lists.as_list::<i32>();
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        let value = lists.value(row);
        if value.null_count() > 0 {
            return Err(carry(Error::new(SqlState::NullValueNotAllowed, "array must not contain nulls")));
        }
        kind.check_count(value.len()).map_err(carry)?;
        check_elements(value.as_primitive::<Float32Type>().values(), kind).map_err(carry)?;
    }
    let values = Float32Array::new(lists.values().as_primitive::<Float32Type>().values().clone(), None);
    let item = Arc::new(Field::new(VECTOR_ITEM, DataType::Float32, false));
    let vectors: ArrayRef =
        Arc::new(ListArray::new(item, lists.offsets().clone(), Arc::new(values), lists.nulls().cloned()));
    to_vectors(&vectors, kind)
}

fn check_elements(values: &[f32], kind: VectorKind) -> Result<(), Error> {
    match kind {
        VectorKind::Half => {
            let halves: Vec<f16> =
                values.iter().map(|value| round_to_half(*value)).collect::<Result<_, _>>()?;
            check_finite(&halves)
        }
        VectorKind::Single => check_finite(values),
    }
}

/// `ARRAY['[1]', '[2]']::vector[]`: element by element, as Arrow has no cast from text to a list.
pub fn list_of_vectors(array: &ArrayRef, source: &SqlType, element: &SqlType) -> Result<ArrayRef> {
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
    let DataType::FixedSizeList(_, dimensions) = wanted else {
        return Ok(Arc::clone(array));
    };
    check_vector_dimensions(array, u16::try_from(*dimensions).ok())?;
    match vector_kind(wanted) {
        Some(kind @ VectorKind::Half) => fixed::<Float16Type>(&to_vectors(array, kind)?, wanted),
        _ => fixed::<Float32Type>(&to_vectors(array, VectorKind::Single)?, wanted),
    }
}

fn fixed<E: ArrowPrimitiveType>(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    let DataType::FixedSizeList(item, dimensions) = wanted else {
        return Ok(Arc::clone(array));
    };
    let width = usize::try_from(*dimensions).unwrap_or(0);
    let mut values: Vec<E::Native> = Vec::with_capacity(array.len() * width);
    for row in 0..array.len() {
        if array.is_null(row) {
            values.resize(values.len() + width, E::Native::default());
            continue;
        }
        let vector = match array.as_fixed_size_list_opt() {
            Some(list) => list.value(row),
            None => array.as_list::<i32>().value(row),
        };
        values.extend_from_slice(vector.as_primitive::<E>().values());
    }
    let values = Arc::new(PrimitiveArray::<E>::new(values.into(), None));
    Ok(Arc::new(FixedSizeListArray::new(Arc::clone(item), *dimensions, values, array.logical_nulls())))
}
