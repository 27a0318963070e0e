//! Functions of arrays with Postgres' answers: an empty array has no length, NULL equals NULL, `array_remove` and
//! `array_replace` mean every element, positions are `integer`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int32Builder, ListArray, ListBuilder, Scalar,
            StringArray, new_empty_array,
        },
        buffer::OffsetBuffer,
        compute::{
            concat, filter,
            kernels::{boolean::not, cmp::not_distinct, zip::zip},
        },
        datatypes::{DataType, Field},
    },
    common::Result,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
    },
};
use sepal_types::{Error, SqlType};

use super::{
    cast::convert,
    constants::{all_constant, answer},
};
use crate::{
    error::{carry, undefined_function_call},
    output::{is_bits, is_sparse, is_vector, natural_type},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Dimensions,
    Length,
    /// The first subscript, which is 1.
    Lower,
    NumberOfDimensions,
    Position,
    Positions,
    Remove,
    Replace,
}

const FUNCTIONS: [(&str, Operation); 9] = [
    ("array_dims", Operation::Dimensions),
    ("array_length", Operation::Length),
    ("array_lower", Operation::Lower),
    ("array_ndims", Operation::NumberOfDimensions),
    ("array_position", Operation::Position),
    ("array_positions", Operation::Positions),
    ("array_remove", Operation::Remove),
    ("array_replace", Operation::Replace),
    ("array_upper", Operation::Length),
];

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayFunction {
    name: &'static str,
    operation: Operation,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |(name, operation): (&'static str, Operation)| {
        let arguments = match operation {
            Operation::Dimensions | Operation::NumberOfDimensions => vec![1],
            Operation::Length | Operation::Lower | Operation::Positions | Operation::Remove => vec![2],
            Operation::Position => vec![2, 3],
            Operation::Replace => vec![3],
        };
        let arguments = arguments.into_iter().map(TypeSignature::Any).collect();
        let signature = Signature::one_of(arguments, Volatility::Immutable);
        Arc::new(ScalarUDF::from(ArrayFunction { name, operation, signature }))
    };
    FUNCTIONS.into_iter().map(function).collect()
}

/// The elements' field of a type of arrays; vectors and bit strings are none.
fn element(data_type: &DataType) -> Option<&Arc<Field>> {
    match data_type {
        ty if is_vector(ty) || is_bits(ty) || is_sparse(ty) => None,
        DataType::List(item) => Some(item),
        _ => None,
    }
}

impl ScalarUDFImpl for ArrayFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let Some(item) = arguments.first().and_then(element) else {
            return self.undefined(arguments);
        };
        let elements = match self.operation {
            Operation::Position | Operation::Positions | Operation::Remove => &arguments[1..2],
            Operation::Replace => &arguments[1..],
            Operation::Dimensions | Operation::Length | Operation::Lower | Operation::NumberOfDimensions => {
                &[]
            }
        };
        if !elements.iter().all(|given| is_element(given, item.data_type())) {
            return self.undefined(arguments);
        }
        Ok(match self.operation {
            Operation::Dimensions => DataType::Utf8,
            Operation::Length | Operation::Lower | Operation::NumberOfDimensions | Operation::Position => {
                DataType::Int32
            }
            Operation::Positions => DataType::List(Arc::new(Field::new("item", DataType::Int32, true))),
            Operation::Remove | Operation::Replace => arguments[0].clone(),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (Some(list), Some(item)) = (arrays[0].as_list_opt::<i32>(), element(arrays[0].data_type()))
        else {
            return Err(carry(Error::bug(format!("{} of {}", self.name, arrays[0].data_type()))));
        };
        let given = |position: usize| as_element(&arrays[position], item.data_type());
        let result: ArrayRef = match self.operation {
            Operation::Dimensions => Arc::new(each(list, dimensions).collect::<StringArray>()),
            Operation::NumberOfDimensions => {
                let count = |lengths: Vec<usize>| i32::try_from(lengths.len()).ok();
                Arc::new(each(list, |lengths| lengths.and_then(count)).collect::<Int32Array>())
            }
            Operation::Length | Operation::Lower => {
                let asked = convert(&arrays[1], &natural_type(arrays[1].data_type()), &SqlType::Int4)?;
                let asked = asked.as_primitive::<datafusion::arrow::datatypes::Int32Type>().clone();
                let lengths = (0..list.len()).map(|row| {
                    let dimension = asked.is_valid(row).then(|| asked.value(row))?;
                    let place = usize::try_from(dimension).ok()?.checked_sub(1)?;
                    let length = *lengths(list, row)?.get(place)?;
                    if self.operation == Operation::Lower { Some(1) } else { i32::try_from(length).ok() }
                });
                Arc::new(lengths.collect::<Int32Array>())
            }
            Operation::Position => {
                let from = match arrays.get(2) {
                    Some(from) => Some(convert(from, &natural_type(from.data_type()), &SqlType::Int4)?),
                    None => None,
                };
                position(list, &given(1)?, from.as_ref())?
            }
            Operation::Positions => positions(list, &given(1)?)?,
            Operation::Remove => remove(list, item, &given(1)?)?,
            Operation::Replace => replace(list, item, &given(1)?, &given(2)?)?,
        };
        answer(result, all_constant(&args.args))
    }
}

impl ArrayFunction {
    /// 42883.
    fn undefined(&self, arguments: &[DataType]) -> Result<DataType> {
        let types: Vec<SqlType> = arguments.iter().map(natural_type).collect();
        Err(carry(undefined_function_call(self.name, &types)))
    }
}

/// Whether a value can be among the elements of an array without losing anything. Text may be a literal.
fn is_element(given: &DataType, item: &DataType) -> bool {
    let text = matches!(given, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let number = |ty: &DataType| ty.is_integer() || ty.is_decimal() || ty.is_floating();
    let narrower =
        (given.is_integer() && number(item)) || (given.is_decimal() && !item.is_integer() && number(item));
    given == item || given.is_null() || text || narrower
}

fn as_element(array: &ArrayRef, item: &DataType) -> Result<ArrayRef> {
    if array.data_type() == item {
        return Ok(Arc::clone(array));
    }
    convert(array, &natural_type(array.data_type()), &natural_type(item))
}

/// How long the row's array is, its first element, and so on; `None` for NULL and where there is no element.
fn lengths(list: &ListArray, row: usize) -> Option<Vec<usize>> {
    let mut lengths = Vec::new();
    let mut values = list.is_valid(row).then(|| list.value(row))?;
    loop {
        if values.is_empty() {
            return None;
        }
        lengths.push(values.len());
        match values.as_list_opt::<i32>().filter(|inner| element(inner.data_type()).is_some()) {
            Some(inner) if inner.is_valid(0) => values = inner.value(0),
            _ => return Some(lengths),
        }
    }
}

fn each<T>(
    list: &ListArray,
    of: impl Fn(Option<Vec<usize>>) -> Option<T>,
) -> impl Iterator<Item = Option<T>> {
    (0..list.len()).map(move |row| of(lengths(list, row)))
}

/// `[1:2][1:3]`
fn dimensions(lengths: Option<Vec<usize>>) -> Option<String> {
    Some(lengths?.iter().map(|length| format!("[1:{length}]")).collect())
}

/// Which elements of a row are the value, as NULL is NULL.
fn equal(list: &ListArray, row: usize, value: &ArrayRef) -> Result<(ArrayRef, BooleanArray)> {
    let elements = list.value(row);
    let equal = not_distinct(&elements, &Scalar::new(value.slice(row, 1)))?;
    Ok((elements, equal))
}

fn position(list: &ListArray, value: &ArrayRef, from: Option<&ArrayRef>) -> Result<ArrayRef> {
    let mut found = Int32Builder::with_capacity(list.len());
    for row in 0..list.len() {
        if list.is_null(row) {
            found.append_null();
            continue;
        }
        let from =
            from.map_or(1, |from| from.as_primitive::<datafusion::arrow::datatypes::Int32Type>().value(row));
        let skipped = usize::try_from(from - 1).unwrap_or(0);
        let (_, equal) = equal(list, row, value)?;
        let place = (skipped..equal.len()).find(|place| equal.value(*place));
        found.append_option(place.and_then(|place| i32::try_from(place + 1).ok()));
    }
    Ok(Arc::new(found.finish()))
}

fn positions(list: &ListArray, value: &ArrayRef) -> Result<ArrayRef> {
    let mut found = ListBuilder::new(Int32Builder::new());
    for row in 0..list.len() {
        if list.is_null(row) {
            found.append(false);
            continue;
        }
        let (_, equal) = equal(list, row, value)?;
        for place in (0..equal.len()).filter(|place| equal.value(*place)) {
            found.values().append_option(i32::try_from(place + 1).ok());
        }
        found.append(true);
    }
    Ok(Arc::new(found.finish()))
}

fn remove(list: &ListArray, item: &Arc<Field>, value: &ArrayRef) -> Result<ArrayRef> {
    rebuilt(list, item, |row| {
        let (elements, equal) = equal(list, row, value)?;
        Ok(filter(&elements, &not(&equal)?)?)
    })
}

fn replace(list: &ListArray, item: &Arc<Field>, old: &ArrayRef, new: &ArrayRef) -> Result<ArrayRef> {
    rebuilt(list, item, |row| {
        let (elements, equal) = equal(list, row, old)?;
        Ok(zip(&equal, &Scalar::new(new.slice(row, 1)), &elements)?)
    })
}

/// The lists with other elements; NULL stays NULL.
fn rebuilt(
    list: &ListArray,
    item: &Arc<Field>,
    row_of: impl Fn(usize) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    let mut rows = Vec::with_capacity(list.len());
    for row in 0..list.len() {
        let empty = list.is_null(row) || list.value_length(row) == 0;
        rows.push(if empty { new_empty_array(item.data_type()) } else { row_of(row)? });
    }
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|row| row.len()));
    let parts: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
    let values = match parts.is_empty() {
        true => new_empty_array(item.data_type()),
        false => concat(&parts)?,
    };
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, list.nulls().cloned())?))
}
