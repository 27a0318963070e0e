//! Sparse vectors: casts, arrays, distances, norms and `sparsevec_cmp`.
//!
//! Called by `cast` and `vector_cast` for casts, by `distance`, `vector` and `comparison` for their functions where an
//! argument is a `sparsevec`. A dense vector beside one becomes one, as in pgvector. The distances are computed by
//! `sepal_index`, from the words that a column holds.

use std::{cmp::Ordering, sync::Arc};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, Float64Array, Float64Builder, Int32Array, ListArray, new_null_array,
        },
        buffer::OffsetBuffer,
        compute::{cast, interleave},
        datatypes::{DataType, Field, Float32Type},
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SparseVector, SparseWords, SqlState, SqlType, VectorKind};

use super::{
    cast::from_text,
    constants::{all_constant, answer},
    distance::elements,
    vector::{append, vector_builder},
    vector_cast::to_vectors,
};
use crate::{
    error::{self, carry},
    output::{is_sparse, is_vector, natural_type},
    values::{SparseBuilder, SparseColumn},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    /// `ARRAY['{1:1}/2'::sparsevec, …]`; the planner writes the call.
    Array,
    Compare,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SparseFunction {
    operation: Operation,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [Operation::Array, Operation::Compare].map(function).into()
}

fn function(operation: Operation) -> Arc<ScalarUDF> {
    let signature = match operation {
        Operation::Array => Signature::variadic_any(Volatility::Immutable),
        Operation::Compare => Signature::any(2, Volatility::Immutable),
    };
    Arc::new(ScalarUDF::from(SparseFunction { operation, signature }))
}

/// An array literal of sparse vectors.
pub fn sparse_array_call(vectors: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(function(Operation::Array), vectors))
}

impl ScalarUDFImpl for SparseFunction {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Array => "sepal_sparsevec_array",
            Operation::Compare => "sparsevec_cmp",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.operation {
            Operation::Array => arrow_type(&SqlType::Array(Box::new(SqlType::SparseVec(None)))),
            Operation::Compare => DataType::Int32,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let vectors = args.args.iter().map(|argument| to_sparse(&argument.to_array(rows)?));
        let vectors = vectors.collect::<Result<Vec<ArrayRef>>>()?;
        let results: ArrayRef = match (self.operation, vectors.as_slice()) {
            (Operation::Array, vectors) => arrays(vectors, rows)?,
            (Operation::Compare, [left, right]) => {
                let sign = |order: Ordering| order as i32;
                let orders = orders(left, right)?.into_iter().map(|order| order.map(sign));
                Arc::new(orders.collect::<Int32Array>())
            }
            (Operation::Compare, _) => return Err(carry(Error::bug("sparsevec_cmp takes two arguments"))),
        };
        answer(results, constant)
    }
}

/// Row by row, one array of a value of each.
fn arrays(vectors: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let columns: Vec<&dyn Array> = vectors.iter().map(AsRef::as_ref).collect();
    let places: Vec<(usize, usize)> =
        (0..rows).flat_map(|row| (0..vectors.len()).map(move |column| (column, row))).collect();
    let values = interleave(&columns, &places)?;
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_repeated_length(vectors.len(), rows);
    Ok(Arc::new(ListArray::try_new(item, offsets, values, None)?))
}

/// How the rows of two arrays of sparse vectors, or of what can be such, compare; `None` where one is NULL.
pub(super) fn orders(left: &ArrayRef, right: &ArrayRef) -> Result<Vec<Option<Ordering>>> {
    let rows = 0..left.len();
    let (left, right) = (column(left)?, column(right)?);
    Ok(rows.map(|row| Some(left.get_opt(row)?.cmp(&right.get_opt(row)?))).collect())
}

/// Any array that can be sparse vectors, as such: dense ones and lists of numbers without their zeros, text parsed.
///
/// Errors: 42846 for one that cannot, 22004, 22000, 54000 and those of the text form.
pub(super) fn to_sparse(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        ty if is_sparse(ty) => Ok(Arc::clone(array)),
        ty if is_vector(ty) => {
            let vectors = to_vectors(array, VectorKind::Single)?;
            let vector = |row| elements(&vectors, row).map(|vector| vector.values().to_vec());
            from_dense(array.len(), |row| Ok(vector(row)))
        }
        DataType::Null => Ok(new_null_array(&arrow_type(&SqlType::SparseVec(None)), array.len())),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(array, &DataType::Utf8).map_err(|problem| carry(error::arrow(problem)))?;
            from_text(&text, &SqlType::SparseVec(None))
        }
        other => match natural_type(other) {
            SqlType::Array(element) if element.is_number() => from_lists(array),
            ty => {
                let message = format!("cannot cast type {} to sparsevec", ty.display_name());
                Err(carry(Error::new(SqlState::CannotCoerce, message)))
            }
        },
    }
}

/// `ARRAY[1,0,3]::sparsevec`
fn from_lists(array: &ArrayRef) -> Result<ArrayRef> {
    let floats = DataType::List(Arc::new(Field::new("item", DataType::Float32, true)));
    let lists = cast(array, &floats).map_err(|problem| carry(error::arrow(problem)))?;
    let lists = lists.as_list::<i32>();
    from_dense(lists.len(), |row| {
        if lists.is_null(row) {
            return Ok(None);
        }
        let value = lists.value(row);
        if value.null_count() > 0 {
            return Err(carry(Error::new(SqlState::NullValueNotAllowed, "array must not contain nulls")));
        }
        Ok(Some(value.as_primitive::<Float32Type>().values().to_vec()))
    })
}

fn from_dense(rows: usize, vector: impl Fn(usize) -> Result<Option<Vec<f32>>>) -> Result<ArrayRef> {
    let mut vectors = SparseBuilder::new(None, rows);
    for row in 0..rows {
        match vector(row)? {
            Some(dense) => {
                let sparse = SparseVector::of_dense(dense.into_iter()).map_err(carry)?;
                vectors.append(&sparse).map_err(carry)?;
            }
            None => vectors.append_null(),
        }
    }
    vectors.finish().map_err(carry)
}

/// Sparse vectors with their zeros. Errors: 54000 for more dimensions than a dense vector has, 22003.
pub(super) fn to_dense(array: &ArrayRef, kind: VectorKind) -> Result<ArrayRef> {
    let sparse = column(array)?;
    let mut vectors = vector_builder(array.len());
    for row in 0..array.len() {
        let Some(vector) = sparse.get_opt(row) else {
            vectors.append(false);
            continue;
        };
        let dimensions = vector.dimensions() as usize;
        kind.check_count(dimensions).map_err(carry)?;
        let mut dense = vec![0.0; dimensions];
        for (index, value) in vector.elements() {
            dense[index as usize] = value;
        }
        append(&mut vectors, &dense);
    }
    let vectors: ArrayRef = Arc::new(vectors.finish());
    to_vectors(&vectors, kind)
}

/// pgvector's typmod check. Errors: 22000.
pub(super) fn check_sparse_dimensions(array: &ArrayRef, declared: Option<u32>) -> Result<()> {
    if declared.is_none() {
        return Ok(());
    }
    let vectors = column(array)?;
    (0..array.len())
        .filter_map(|row| vectors.get_opt(row))
        .try_for_each(|vector| SparseVector::check_expected(vector.dimensions(), declared))
        .map_err(carry)
}

fn column(array: &ArrayRef) -> Result<SparseColumn> {
    let vectors = to_sparse(array)?;
    SparseColumn::new(vectors.as_ref()).ok_or_else(|| carry(Error::bug("sparse vectors that are none")))
}

/// What a distance function gives for its two arguments. Errors: 22000 for vectors of different dimensions.
pub(super) fn sparse_distances(
    args: &ScalarFunctionArgs,
    distance: impl Fn(SparseWords<'_>, SparseWords<'_>) -> f64,
) -> Result<ColumnarValue> {
    let [left, right] = args.args.as_slice() else {
        return Err(carry(Error::bug("a distance takes two arguments")));
    };
    let constant = all_constant(&args.args);
    let rows = if constant { 1 } else { args.number_rows };
    let (left, right) = (Side::of(left)?, Side::of(right)?);
    let mut distances = Float64Builder::with_capacity(rows);
    for row in 0..rows {
        match (left.get(row), right.get(row)) {
            (Some(left), Some(right)) => {
                SparseVector::check_same(left.dimensions(), right.dimensions()).map_err(carry)?;
                distances.append_value(distance(left, right));
            }
            _ => distances.append_null(),
        }
    }
    answer(Arc::new(distances.finish()), constant)
}

/// An argument of a distance function.
struct Side {
    vectors: SparseColumn,
    /// One that stands for all rows.
    constant: bool,
}

impl Side {
    fn of(value: &ColumnarValue) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Array(array) => Self { vectors: column(array)?, constant: false },
            ColumnarValue::Scalar(scalar) => Self { vectors: column(&scalar.to_array()?)?, constant: true },
        })
    }

    /// `None` for NULL.
    fn get(&self, row: usize) -> Option<SparseWords<'_>> {
        self.vectors.get_opt(if self.constant { 0 } else { row })
    }
}

/// `l2_norm`
pub(super) fn norms(array: &ArrayRef) -> Result<ArrayRef> {
    let vectors = column(array)?;
    let norms = (0..array.len()).map(|row| vectors.get_opt(row).map(norm));
    Ok(Arc::new(norms.collect::<Float64Array>()))
}

/// `l2_normalize`: a zero vector stays one; an element that becomes too small is left out.
#[expect(clippy::cast_possible_truncation, reason = "a unit vector's elements are float4 by definition")]
pub(super) fn normalized(array: &ArrayRef) -> Result<ArrayRef> {
    let vectors = column(array)?;
    let mut builder = SparseBuilder::new(None, array.len());
    for row in 0..array.len() {
        let Some(vector) = vectors.get_opt(row) else {
            builder.append_null();
            continue;
        };
        let norm = norm(vector);
        let divided = vector.elements().map(|(index, value)| (index, (f64::from(value) / norm) as f32));
        let elements = divided.filter(|(_, value)| *value != 0.0).collect();
        let unit = SparseVector { dimensions: vector.dimensions(), elements };
        builder.append(&unit).map_err(carry)?;
    }
    builder.finish().map_err(carry)
}

fn norm(vector: SparseWords<'_>) -> f64 {
    let squares = vector.elements().map(|(_, value)| f64::from(value) * f64::from(value));
    // The sum of nothing is -0.
    squares.sum::<f64>().abs().sqrt()
}
