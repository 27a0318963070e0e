//! Enums: `sepal_enum(value, 'definition')` reads labels and says again which enum values are of, `sepal_enum_label`
//! prints them; `enum_first`, `enum_last`, `enum_range`.
//!
//! The planner writes the first two (`planner/enums.rs`), with the definition as [`EnumType::marker`] has it: what a
//! field's metadata says is gone once a parameter's value is put in.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayBuilder, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, ListArray,
            StringBuilder, new_null_array,
        },
        buffer::OffsetBuffer,
        compute::cast,
        datatypes::{DataType, FieldRef},
    },
    common::{Result, ScalarValue},
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction, lit,
    },
};
use sepal_storage::{arrow_type, is_enum};
use sepal_types::{EnumType, Error, SqlState, SqlType};

use super::{
    cast::{cannot_cast, from_text},
    constants::{all_constant, answer, of_one},
};
use crate::{
    error::{self, carry},
    output::{sql_type, typed_field},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    First,
    Label,
    Last,
    Range,
    Read,
}

const OPERATIONS: [Operation; 5] =
    [Operation::First, Operation::Label, Operation::Last, Operation::Range, Operation::Read];

#[derive(Debug, PartialEq, Eq, Hash)]
struct EnumFunction {
    operation: Operation,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    OPERATIONS.into_iter().map(function).collect()
}

fn function(operation: Operation) -> Arc<ScalarUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    Arc::new(ScalarUDF::from(EnumFunction { operation, signature }))
}

/// A value as one of this enum, or of its array: a text is read, and places are said to be its.
pub fn enum_call(value: Expr, ty: &SqlType) -> Expr {
    let arguments = vec![value, lit(ty.marker())];
    Expr::ScalarFunction(ScalarFunction::new_udf(function(Operation::Read), arguments))
}

/// The label of a value of this enum, or those of an array of it.
pub fn enum_label_call(value: Expr, ty: &SqlType) -> Expr {
    let arguments = vec![value, lit(ty.marker())];
    Expr::ScalarFunction(ScalarFunction::new_udf(function(Operation::Label), arguments))
}

/// Whether a call is one of those.
pub fn enum_of_call(name: &str) -> bool {
    OPERATIONS.into_iter().any(|operation| operation.name() == name)
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::First => "enum_first",
            Self::Label => "sepal_enum_label",
            Self::Last => "enum_last",
            Self::Range => "enum_range",
            Self::Read => "sepal_enum",
        }
    }
}

impl ScalarUDFImpl for EnumFunction {
    fn name(&self) -> &'static str {
        self.operation.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        let of = SqlType::Enum(EnumType::unknown());
        Ok(match self.operation {
            Operation::Label => DataType::Utf8,
            Operation::Range => arrow_type(&SqlType::Array(Box::new(of))),
            Operation::First | Operation::Last | Operation::Read => arrow_type(&of),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let definition = args.scalar_arguments.get(1).copied().flatten();
        let ty = match self.operation {
            Operation::Label => match named(definition)? {
                SqlType::Array(_) => SqlType::Array(Box::new(SqlType::Text)),
                _ => SqlType::Text,
            },
            Operation::Read => named(definition)?,
            Operation::First | Operation::Last => SqlType::Enum(argument_type(self.name(), args.arg_fields)?),
            Operation::Range => {
                let of = argument_type(self.name(), args.arg_fields)?;
                SqlType::Array(Box::new(SqlType::Enum(of)))
            }
        };
        Ok(Arc::new(typed_field(self.name(), arrow_type(&ty), &ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(value) = args.args.first() else {
            return Err(carry(Error::bug(format!("{} without an argument", self.name()))));
        };
        let definition = || match args.args.get(1) {
            Some(ColumnarValue::Scalar(definition)) => named(Some(definition)),
            _ => named(None),
        };
        match self.operation {
            Operation::Read => {
                let (source, target) = (args.arg_fields.first().map(|field| sql_type(field)), definition()?);
                of_one(value, |array| read(array, &source.unwrap_or(SqlType::Text), &target))
            }
            Operation::Label => match definition()? {
                SqlType::Enum(ty) => of_one(value, |array| labels(array, &ty)),
                SqlType::Array(element) => match *element {
                    SqlType::Enum(ty) => of_one(value, |array| lists_of_labels(array, &ty)),
                    other => Err(without_labels(&other)),
                },
                other => Err(without_labels(&other)),
            },
            Operation::First | Operation::Last => {
                let ty = argument_type(self.name(), &args.arg_fields)?;
                let mut places = ty.labels.iter().map(|label| label.place);
                let place =
                    if self.operation == Operation::First { places.next() } else { places.next_back() };
                let Some(place) = place else {
                    let message = format!("enum {} contains no values", ty.shown());
                    return Err(carry(Error::new(SqlState::ObjectNotInPrerequisiteState, message)));
                };
                let bytes = place.to_be_bytes();
                let width = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
                Ok(ColumnarValue::Scalar(ScalarValue::FixedSizeBinary(width, Some(bytes.to_vec()))))
            }
            Operation::Range => {
                let ty = argument_type(self.name(), &args.arg_fields)?;
                let bounds = ColumnarValue::values_to_arrays(&args.args)?;
                answer(ranges(&ty, &bounds)?, all_constant(&args.args))
            }
        }
    }
}

/// The type that a constant definition says.
fn named(definition: Option<&ScalarValue>) -> Result<SqlType> {
    match definition {
        Some(ScalarValue::Utf8(Some(marker))) => EnumType::from_marker(marker),
        _ => None,
    }
    .ok_or_else(|| carry(Error::bug("a cast to an enum does not say to which")))
}

/// The enum of a function's arguments.
///
/// Errors: 42804 where there is none among them, 42883 for one beside another or beside something else.
fn argument_type(name: &str, fields: &[FieldRef]) -> Result<EnumType> {
    let types: Vec<SqlType> = fields.iter().map(|field| sql_type(field)).collect();
    let undefined = || carry(error::undefined_function_call(name, &types));
    let most = if name == Operation::Range.name() { 2 } else { 1 };
    if fields.len() > most {
        return Err(undefined());
    }
    let mut found: Option<&EnumType> = None;
    for (ty, field) in types.iter().zip(fields) {
        match (ty.enum_type(), found) {
            _ if field.data_type().is_null() => {}
            (None, _) => return Err(undefined()),
            (Some(ty), _) if !ty.is_known() => return Err(carry(EnumType::not_known())),
            (Some(ty), Some(other)) if ty.id != other.id => return Err(undefined()),
            (Some(ty), _) => found = Some(ty),
        }
    }
    found.cloned().ok_or_else(|| {
        let message = "could not determine polymorphic type because input has type unknown";
        carry(Error::new(SqlState::DatatypeMismatch, message))
    })
}

fn read(array: &ArrayRef, source: &SqlType, target: &SqlType) -> Result<ArrayRef> {
    let wanted = arrow_type(target);
    match array.data_type() {
        DataType::Null => Ok(new_null_array(&wanted, array.len())),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(array, &DataType::Utf8).map_err(|problem| carry(error::arrow(problem)))?;
            from_text(&text, target)
        }
        same if *same == wanted => Ok(Arc::clone(array)),
        _ => Err(carry(cannot_cast(source, target))),
    }
}

fn labels(array: &ArrayRef, ty: &EnumType) -> Result<ArrayRef> {
    if array.data_type().is_null() {
        return Ok(new_null_array(&DataType::Utf8, array.len()));
    }
    let mut texts = StringBuilder::with_capacity(array.len(), 0);
    for place in places(array)? {
        match place {
            Some(place) => texts.append_value(ty.label(place).map_err(carry)?),
            None => texts.append_null(),
        }
    }
    Ok(Arc::new(texts.finish()))
}

fn lists_of_labels(array: &ArrayRef, ty: &EnumType) -> Result<ArrayRef> {
    let wanted = arrow_type(&SqlType::Array(Box::new(SqlType::Text)));
    if array.data_type().is_null() {
        return Ok(new_null_array(&wanted, array.len()));
    }
    let (Some(list), DataType::List(item)) = (array.as_list_opt::<i32>(), wanted) else {
        return Err(carry(Error::bug(format!("an array of enums is {}", array.data_type()))));
    };
    let texts = labels(list.values(), ty)?;
    let lists = ListArray::try_new(item, list.offsets().clone(), texts, list.nulls().cloned())?;
    Ok(Arc::new(lists))
}

fn without_labels(ty: &SqlType) -> DataFusionError {
    carry(Error::bug(format!("{} has no labels", ty.display_name())))
}

fn places(array: &ArrayRef) -> Result<Vec<Option<u64>>> {
    if array.data_type().is_null() {
        return Ok(vec![None; array.len()]);
    }
    let values: &FixedSizeBinaryArray = match array.as_fixed_size_binary_opt() {
        Some(values) if is_enum(array.data_type()) => values,
        _ => return Err(carry(Error::bug(format!("an enum's values are {}", array.data_type())))),
    };
    let place = |value: &[u8]| <[u8; 8]>::try_from(value).map(u64::from_be_bytes).unwrap_or(0);
    Ok(values.iter().map(|value| value.map(place)).collect())
}

/// All labels from one bound to the other; a NULL is no bound.
fn ranges(ty: &EnumType, bounds: &[ArrayRef]) -> Result<ArrayRef> {
    let of = SqlType::Array(Box::new(SqlType::Enum(ty.clone())));
    let DataType::List(item) = arrow_type(&of) else {
        return Err(carry(Error::bug("an array is no list")));
    };
    let rows = bounds.first().map_or(1, |array| array.len());
    let bounds: Vec<Vec<Option<u64>>> = bounds.iter().map(places).collect::<Result<_>>()?;
    let mut values = FixedSizeBinaryBuilder::with_capacity(rows * ty.labels.len(), 8);
    let mut lengths = Vec::with_capacity(rows);
    for row in 0..rows {
        // One argument stands for its type alone.
        let (from, to) = match bounds.as_slice() {
            [from, to] => (from[row].unwrap_or(0), to[row].unwrap_or(u64::MAX)),
            _ => (0, u64::MAX),
        };
        let within = ty.labels.iter().map(|label| label.place).filter(|place| (from..=to).contains(place));
        let before = values.len();
        for place in within {
            values.append_value(place.to_be_bytes())?;
        }
        lengths.push(values.len() - before);
    }
    let list =
        ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(values.finish()), None)?;
    Ok(Arc::new(list))
}
