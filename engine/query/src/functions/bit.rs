//! Bit strings: `<~>` and `<%>`, casts between lengths, and `binary_quantize`.
//!
//! The planner writes calls for the operators. The distances are pgvector's, computed by `sepal_index`.

use std::{any::Any, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, Float64Array, Int64Array, new_null_array},
        compute::cast,
        datatypes::{DataType, FieldRef},
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{BitMetric, BitString, Error, SqlState, SqlType};

use super::{
    cast::from_text,
    constants::{all_constant, answer},
    distance::elements,
    vector_cast::{common_kind, operand},
};
use crate::{
    error::{self, carry, undefined_function_call, undefined_operator},
    output::{is_bits, is_vector, natural_type, typed_field},
    values::{BitBuilder, BitColumn},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Hamming,
    Jaccard,
    Quantize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BitFunction {
    name: &'static str,
    operation: Operation,
    signature: Signature,
}

const FUNCTIONS: [(&str, Operation); 3] = [
    ("binary_quantize", Operation::Quantize),
    ("hamming_distance", Operation::Hamming),
    ("jaccard_distance", Operation::Jaccard),
];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    FUNCTIONS.into_iter().map(|(name, operation)| function(name, operation)).collect()
}

fn function(name: &'static str, operation: Operation) -> Arc<ScalarUDF> {
    let arguments = if operation == Operation::Quantize { 1 } else { 2 };
    let signature = Signature::any(arguments, Volatility::Immutable);
    Arc::new(ScalarUDF::from(BitFunction { name, operation, signature }))
}

fn call(wanted: Operation, left: Expr, right: Expr) -> Option<Expr> {
    let (name, operation) = FUNCTIONS.into_iter().find(|(_, operation)| *operation == wanted)?;
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(function(name, operation), vec![left, right])))
}

/// Whether an operator is one of bit strings.
pub fn is_bit_distance(operator: &str) -> bool {
    matches!(operator, "<~>" | "<%>")
}

/// `<~>` or `<%>` as a call; `None` for another operator.
pub fn bit_distance(operator: &str, left: Expr, right: Expr) -> Option<Expr> {
    match operator {
        "<~>" => call(Operation::Hamming, left, right),
        "<%>" => call(Operation::Jaccard, left, right),
        _ => None,
    }
}

/// The metric that a call of this function computes; `None` for other functions.
pub fn bit_metric_of_function(function: &ScalarUDF) -> Option<BitMetric> {
    let function = (function.inner().as_ref() as &dyn Any).downcast_ref::<BitFunction>()?;
    match function.operation {
        Operation::Hamming => Some(BitMetric::Hamming),
        Operation::Jaccard => Some(BitMetric::Jaccard),
        Operation::Quantize => None,
    }
}

impl ScalarUDFImpl for BitFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.check_arguments(arguments)?;
        Ok(match self.operation {
            Operation::Hamming | Operation::Jaccard => DataType::Float64,
            Operation::Quantize => {
                let dimensions = arguments.first().and_then(|ty| natural_type(ty).dimensions());
                arrow_type(&SqlType::Bit(dimensions.map(u32::from)))
            }
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let data_type = self.return_type(&types)?;
        let ty = natural_type(&data_type);
        Ok(Arc::new(typed_field(self.name, data_type, &ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result: ArrayRef = match (self.operation, arrays.as_slice()) {
            (Operation::Quantize, [vectors]) => quantize(vectors, args.return_field.data_type())?,
            (operation, [left, right]) => {
                let rows = left.len();
                distances(operation, &bit_column(left)?, &bit_column(right)?, rows)?
            }
            _ => return Err(carry(Error::bug(format!("{} with {} arguments", self.name, arrays.len())))),
        };
        answer(result, all_constant(&args.args))
    }
}

impl BitFunction {
    /// Errors: 42883 as Postgres words it for the operator.
    fn check_arguments(&self, arguments: &[DataType]) -> Result<()> {
        let taken = |ty: &DataType| match self.operation {
            Operation::Quantize => is_vector(ty) || matches!(ty, DataType::Utf8 | DataType::Null),
            Operation::Hamming | Operation::Jaccard => takes_bits(ty),
        };
        if arguments.iter().all(taken) {
            return Ok(());
        }
        let types: Vec<SqlType> = arguments.iter().map(natural_type).collect();
        Err(carry(match (self.operation, types.as_slice()) {
            (Operation::Hamming, [left, right]) => undefined_operator(Some(left), "<~>", right),
            (Operation::Jaccard, [left, right]) => undefined_operator(Some(left), "<%>", right),
            _ => undefined_function_call(self.name, &types),
        }))
    }
}

/// Whether a function of bit strings takes arguments of this type; text is read as one.
pub(super) fn takes_bits(ty: &DataType) -> bool {
    is_bits(ty) || matches!(ty, DataType::Utf8 | DataType::Null)
}

fn distances(operation: Operation, left: &BitColumn, right: &BitColumn, rows: usize) -> Result<ArrayRef> {
    let pairs = (0..rows).map(|row| left.get_opt(row).zip(right.get_opt(row)));
    let distances = pairs.map(|pair| pair.map(|(left, right)| distance(operation, left, right)).transpose());
    Ok(Arc::new(distances.collect::<Result<Float64Array>>()?))
}

/// Errors: 22000 for strings of different lengths.
fn distance(operation: Operation, (left, bits): (&[u8], u32), (right, others): (&[u8], u32)) -> Result<f64> {
    check_same_length(bits, others)?;
    Ok(match operation {
        Operation::Jaccard => sepal_index::jaccard(left, right),
        _ => sepal_index::hamming(left, right),
    })
}

fn check_same_length(bits: u32, others: u32) -> Result<()> {
    if bits == others {
        return Ok(());
    }
    let message = format!("different bit lengths {bits} and {others}");
    Err(carry(Error::new(SqlState::DataException, message)))
}

/// The bytes of the first of an array of bit strings, for comparing rows of so many bits with it; `None` for NULL.
///
/// Errors: 22000 for a string of another length, 42846 for what is no bit string.
pub fn bits_beside(array: &ArrayRef, length: u32) -> Result<Option<Vec<u8>>> {
    let column = bit_column(array)?;
    let Some((bytes, found)) = column.get_opt(0) else { return Ok(None) };
    check_same_length(length, found)?;
    Ok(Some(bytes.to_vec()))
}

/// One bit a dimension: whether it is greater than zero.
fn quantize(vectors: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    let vectors = operand(vectors, common_kind([vectors.data_type()]))?;
    let SqlType::Bit(length) = natural_type(wanted) else {
        return Err(carry(Error::bug(format!("binary_quantize gives bits, not {wanted}"))));
    };
    let mut bits = BitBuilder::new(wanted.clone(), length, vectors.len());
    let mut bytes = Vec::new();
    for row in 0..vectors.len() {
        let Some(vector) = elements(&vectors, row) else {
            bits.append_null();
            continue;
        };
        bytes.clear();
        sepal_index::append_signs(vector.values(), &mut bytes);
        bits.append(&bytes, u32::try_from(vector.len()).unwrap_or(u32::MAX)).map_err(carry)?;
    }
    bits.finish().map_err(carry)
}

/// Any array that can be bit strings, as such.
///
/// Errors: 42846 for one that cannot.
pub fn to_bits(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        ty if is_bits(ty) => Ok(Arc::clone(array)),
        DataType::Null => Ok(new_null_array(&arrow_type(&SqlType::Bit(None)), array.len())),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(array, &DataType::Utf8).map_err(|problem| carry(error::arrow(problem)))?;
            from_text(&text, &SqlType::Bit(None))
        }
        other => {
            let message = format!("cannot cast type {} to bit", natural_type(other).display_name());
            Err(carry(Error::new(SqlState::CannotCoerce, message)))
        }
    }
}

/// An explicit cast: cut, or filled up with zeros, at the end.
pub fn resize_bits(array: &ArrayRef, length: Option<u32>) -> Result<ArrayRef> {
    convert_bits(array, length, |bytes, _, length| Ok(BitString::resized(bytes, length)))
}

/// Bits as the binary digits of an integer of `width` bits, of which the first is the sign (`bittoint4`).
///
/// Errors: 22003 for a longer string.
pub(super) fn bits_to_integers(array: &ArrayRef, width: u32, target: &SqlType) -> Result<ArrayRef> {
    let column = bit_column(array)?;
    let integer = |(bytes, length): (&[u8], u32)| {
        if length > width {
            let message = format!("{} out of range", target.display_name());
            return Err(carry(Error::new(SqlState::NumericValueOutOfRange, message)));
        }
        let digits = bytes.iter().fold(0_u64, |digits, byte| digits << 8 | u64::from(*byte));
        // The last byte is filled up with zeros.
        let digits = digits >> ((8 - length % 8) % 8);
        Ok(if width == 32 { i64::from((digits as u32).cast_signed()) } else { digits.cast_signed() })
    };
    let integers = (0..array.len()).map(|row| column.get_opt(row).map(integer).transpose());
    Ok(Arc::new(integers.collect::<Result<Int64Array>>()?))
}

/// An assignment. Errors: 22026 for a string of another length.
pub fn assign_bits(array: &ArrayRef, length: u32) -> Result<ArrayRef> {
    convert_bits(array, Some(length), |bytes, found, length| {
        BitString::check_length(found, length)?;
        Ok(bytes.to_vec())
    })
}

fn convert_bits(
    array: &ArrayRef,
    length: Option<u32>,
    each: impl Fn(&[u8], u32, u32) -> Result<Vec<u8>, Error>,
) -> Result<ArrayRef> {
    let array = to_bits(array)?;
    let Some(length) = length else {
        return Ok(array);
    };
    let wanted = arrow_type(&SqlType::Bit(Some(length)));
    if *array.data_type() == wanted {
        return Ok(array);
    }
    let rows = array.len();
    let column = bit_column(&array)?;
    let mut bits = BitBuilder::new(wanted, Some(length), rows);
    for row in 0..rows {
        match column.get_opt(row) {
            Some((bytes, found)) => {
                let bytes = each(bytes, found, length).map_err(carry)?;
                bits.append(&bytes, length).map_err(carry)?;
            }
            None => bits.append_null(),
        }
    }
    bits.finish().map_err(carry)
}

pub(super) fn bit_column(array: &ArrayRef) -> Result<BitColumn> {
    let bits = to_bits(array)?;
    BitColumn::new(bits).ok_or_else(|| carry(Error::bug("an array of bits that is none")))
}
