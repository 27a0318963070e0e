//! pgvector's vector functions: dimensions, norms, arithmetic, parts; of `vector` and of `halfvec`.
//!
//! The operators `+`, `-`, `*` and `||` over vectors reach the same functions through the planner.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, Float32Builder, Float64Array, Int32Array, ListBuilder},
        datatypes::{DataType, Field},
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use half::f16;
use sepal_storage::{VECTOR_ITEM, arrow_type};
use sepal_types::{Error, SqlState, SqlType, VectorKind, check_finite};

use super::{
    distance::elements,
    sparse::{normalized, norms},
    vector_cast::{common_kind, operand, to_vectors},
};
use crate::{
    error::{carry, undefined_function_call},
    output::{is_sparse, natural_type},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Concatenate,
    Dimensions,
    Multiply,
    Norm,
    Normalize,
    Subtract,
    Subvector,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorFunction {
    name: &'static str,
    operation: Operation,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [
        ("vector_dims", Operation::Dimensions),
        ("l2_norm", Operation::Norm),
        ("vector_norm", Operation::Norm),
        ("l2_normalize", Operation::Normalize),
        ("subvector", Operation::Subvector),
        ("vector_add", Operation::Add),
        ("vector_sub", Operation::Subtract),
        ("vector_mul", Operation::Multiply),
        ("vector_concat", Operation::Concatenate),
    ]
    .into_iter()
    .map(|(name, operation)| {
        let arguments = match operation {
            Operation::Dimensions | Operation::Norm | Operation::Normalize => 1,
            Operation::Subvector => 3,
            _ => 2,
        };
        let signature = Signature::any(arguments, Volatility::Immutable);
        Arc::new(ScalarUDF::from(VectorFunction { name, operation, signature }))
    })
    .collect()
}

impl ScalarUDFImpl for VectorFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        if arguments.iter().any(is_sparse) {
            return self.return_type_of_sparse(arguments);
        }
        let kind = common_kind(arguments);
        // As in pgvector, where a halfvec does not become a vector by itself.
        if self.name == "vector_norm" && kind == VectorKind::Half {
            return Err(carry(undefined_function_call(self.name, &[kind.sql_type(None)])));
        }
        Ok(match self.operation {
            Operation::Dimensions => DataType::Int32,
            Operation::Norm => DataType::Float64,
            _ => arrow_type(&kind.sql_type(None)),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(first) = arrays.first() else {
            return Err(carry(Error::bug(format!("{} without arguments", self.name))));
        };
        if is_sparse(first.data_type()) {
            let norm = self.operation == Operation::Norm;
            return Ok(ColumnarValue::Array(if norm { norms(first)? } else { normalized(first)? }));
        }
        let types: Vec<DataType> = arrays.iter().map(|array| array.data_type().clone()).collect();
        let kind = common_kind(&types);
        let vectors = operand(first, kind)?;
        let result: ArrayRef = match self.operation {
            Operation::Dimensions => Arc::new(
                (0..vectors.len())
                    .map(|row| {
                        elements(&vectors, row).map(|vector| i32::try_from(vector.len()).unwrap_or(i32::MAX))
                    })
                    .collect::<Int32Array>(),
            ),
            Operation::Norm => Arc::new(
                (0..vectors.len())
                    .map(|row| elements(&vectors, row).map(|vector| norm(vector.values())))
                    .collect::<Float64Array>(),
            ),
            Operation::Normalize => to_vectors(&map(&vectors, |_, vector| Ok(normalize(vector)))?, kind)?,
            Operation::Subvector => to_vectors(&self.subvectors(&vectors, &arrays, kind)?, kind)?,
            _ => to_vectors(&self.combine(&vectors, &operand(&arrays[1], kind)?, kind)?, kind)?,
        };
        Ok(ColumnarValue::Array(result))
    }
}

impl VectorFunction {
    /// Errors: 42883 for what pgvector has for dense vectors only.
    fn return_type_of_sparse(&self, arguments: &[DataType]) -> Result<DataType> {
        match (self.name, arguments) {
            ("l2_norm", [_]) => Ok(DataType::Float64),
            ("l2_normalize", [sparse]) => Ok(sparse.clone()),
            _ => {
                let types: Vec<SqlType> = arguments.iter().map(natural_type).collect();
                Err(carry(undefined_function_call(self.name, &types)))
            }
        }
    }

    fn combine(&self, left: &ArrayRef, right: &ArrayRef, kind: VectorKind) -> Result<ArrayRef> {
        let mut builder = vector_builder(left.len());
        for row in 0..left.len() {
            let (Some(left), Some(right)) = (elements(left, row), elements(right, row)) else {
                builder.append(false);
                continue;
            };
            let (left, right) = (left.values(), right.values());
            let pairs = || left.iter().zip(right.iter());
            let mut combined: Vec<f32> = match self.operation {
                Operation::Concatenate => {
                    kind.check_count(left.len() + right.len()).map_err(carry)?;
                    left.iter().chain(right.iter()).copied().collect()
                }
                operation => {
                    kind.check_same(left.len(), right.len()).map_err(carry)?;
                    match operation {
                        Operation::Add => pairs().map(|(a, b)| a + b).collect(),
                        Operation::Subtract => pairs().map(|(a, b)| a - b).collect(),
                        _ => pairs().map(|(a, b)| a * b).collect(),
                    }
                }
            };
            if kind == VectorKind::Half {
                combined.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
            }
            let out_of_range = |what: &str| {
                let message = format!("value out of range: {what}");
                Err(carry(Error::new(SqlState::NumericValueOutOfRange, message)))
            };
            if combined.iter().any(|value| !value.is_finite()) {
                return out_of_range("overflow");
            }
            // A product of two numbers that are not zero is none either, unless it is too small.
            let vanished =
                |((a, b), product): ((&f32, &f32), &f32)| *product == 0.0 && *a != 0.0 && *b != 0.0;
            if self.operation == Operation::Multiply && pairs().zip(&combined).any(vanished) {
                return out_of_range("underflow");
            }
            append(&mut builder, &combined);
        }
        Ok(Arc::new(builder.finish()))
    }

    /// `subvector(v, start, count)`, counted from 1, cut at the ends as pgvector does.
    fn subvectors(&self, vectors: &ArrayRef, arrays: &[ArrayRef], kind: VectorKind) -> Result<ArrayRef> {
        let number = |array: &ArrayRef| datafusion::arrow::compute::cast(array, &DataType::Int32);
        let (starts, counts) = (number(&arrays[1])?, number(&arrays[2])?);
        let starts = datafusion::common::cast::as_int32_array(&starts)?;
        let counts = datafusion::common::cast::as_int32_array(&counts)?;
        let mut builder = vector_builder(vectors.len());
        for row in 0..vectors.len() {
            let vector = elements(vectors, row).filter(|_| starts.is_valid(row) && counts.is_valid(row));
            let Some(vector) = vector else {
                builder.append(false);
                continue;
            };
            let vector = vector.values();
            if counts.value(row) < 1 {
                kind.check_count(0).map_err(carry)?;
            }
            let length = i64::try_from(vector.len()).unwrap_or(i64::MAX);
            let first = i64::from(starts.value(row)).max(1);
            let last = (i64::from(starts.value(row)) + i64::from(counts.value(row)) - 1).min(length);
            if first > last {
                kind.check_count(0).map_err(carry)?;
            }
            let range = usize::try_from(first - 1).unwrap_or(0)..usize::try_from(last).unwrap_or(0);
            append(&mut builder, &vector[range]);
        }
        Ok(Arc::new(builder.finish()))
    }
}

fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt()
}

/// A zero vector stays a zero vector, as in pgvector.
#[expect(clippy::cast_possible_truncation, reason = "a unit vector's elements are float4 by definition")]
fn normalize(vector: &[f32]) -> Vec<f32> {
    let length = norm(vector);
    if length == 0.0 {
        return vec![0.0; vector.len()];
    }
    vector.iter().map(|value| (f64::from(*value) / length) as f32).collect()
}

pub(super) fn vector_builder(rows: usize) -> ListBuilder<Float32Builder> {
    ListBuilder::with_capacity(Float32Builder::new(), rows).with_field(Field::new(
        VECTOR_ITEM,
        DataType::Float32,
        false,
    ))
}

pub(super) fn append(builder: &mut ListBuilder<Float32Builder>, vector: &[f32]) {
    builder.values().append_slice(vector);
    builder.append(true);
}

fn map(vectors: &ArrayRef, each: impl Fn(usize, &[f32]) -> Result<Vec<f32>>) -> Result<ArrayRef> {
    let mut builder = vector_builder(vectors.len());
    for row in 0..vectors.len() {
        match elements(vectors, row) {
            Some(vector) => {
                let mapped = each(row, vector.values())?;
                check_finite(&mapped).map_err(carry)?;
                append(&mut builder, &mapped);
            }
            None => builder.append(false),
        }
    }
    Ok(Arc::new(builder.finish()))
}
