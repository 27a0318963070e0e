//! The distance functions and, through the planner, the operators `<->`, `<=>`, `<#>` and `<+>`.
//!
//! Every metric is one function over two vectors with a `float8` result, as in pgvector. A `vector` beside a `halfvec`
//! is rounded to one; either beside a `sparsevec` becomes one (`sparse`). The arithmetic is `sepal_index`'s; DataFusion's
//! own `array_distance` family is not used (it allocates a list per row).

use std::{any::Any, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float64Builder},
        datatypes::{DataType, Float16Type, Float32Type},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use sepal_index::Vectors;
use sepal_types::{Error, Metric, SparseWords, SqlType, VectorKind};

use super::{
    constants::answer,
    sparse::sparse_distances,
    vector_cast::{common_kind, operand, to_vectors},
};
use crate::{
    error::{carry, undefined_function_call, undefined_operator},
    output::{is_sparse, is_vector, natural_type, vector_kind},
};

/// What a distance function computes from the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Variant {
    Plain,
    /// `inner_product` is the positive product; the metric is its negation.
    Negated,
    /// `vector_l2_squared_distance`
    Squared,
}

/// A distance as a SQL function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DistanceFunction {
    name: &'static str,
    metric: Metric,
    variant: Variant,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [
        ("l2_distance", Metric::L2, Variant::Plain),
        ("cosine_distance", Metric::Cosine, Variant::Plain),
        ("l1_distance", Metric::L1, Variant::Plain),
        ("vector_negative_inner_product", Metric::InnerProduct, Variant::Plain),
        ("inner_product", Metric::InnerProduct, Variant::Negated),
        ("vector_l2_squared_distance", Metric::L2, Variant::Squared),
        ("sparsevec_negative_inner_product", Metric::InnerProduct, Variant::Plain),
        ("sparsevec_l2_squared_distance", Metric::L2, Variant::Squared),
    ]
    .into_iter()
    .map(|(name, metric, variant)| {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(ScalarUDF::from(DistanceFunction { name, metric, variant, signature }))
    })
    .collect()
}

/// The name of the function behind an operator.
const fn function_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "cosine_distance",
        Metric::InnerProduct => "vector_negative_inner_product",
        Metric::L1 => "l1_distance",
        Metric::L2 => "l2_distance",
    }
}

/// `left <op> right` as a call.
pub fn distance_call(metric: Metric, left: Expr, right: Expr) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    let function =
        DistanceFunction { name: function_name(metric), metric, variant: Variant::Plain, signature };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), vec![left, right]))
}

/// The metric whose ascending order a call of this function has; `None` for other functions.
pub fn metric_of_function(function: &ScalarUDF) -> Option<Metric> {
    let distance = (function.inner().as_ref() as &dyn Any).downcast_ref::<DistanceFunction>()?;
    // The square root is monotone, so the squared distance orders alike. Dense vectors are what is searched.
    let ascends = distance.variant != Variant::Negated && !distance.takes_sparse();
    ascends.then_some(distance.metric)
}

impl ScalarUDFImpl for DistanceFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let takes =
            |ty: &DataType| is_vector(ty) || is_sparse(ty) || matches!(ty, DataType::Utf8 | DataType::Null);
        if arguments.iter().all(takes) {
            return Ok(DataType::Float64);
        }
        let types: Vec<SqlType> = arguments.iter().map(natural_type).collect();
        Err(carry(match (self.variant, types.as_slice()) {
            (Variant::Plain, [left, right]) => undefined_operator(Some(left), self.metric.operator(), right),
            _ => undefined_function_call(self.name, &types),
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        if self.takes_sparse() || types.iter().any(is_sparse) {
            return sparse_distances(&args, |left, right| self.of_sparse(left, right));
        }
        let kind = common_kind(&types);
        match &args.args[..] {
            [ColumnarValue::Array(column), ColumnarValue::Scalar(query)]
            | [ColumnarValue::Scalar(query), ColumnarValue::Array(column)] => {
                Ok(ColumnarValue::Array(self.against_one(column, query, kind)?))
            }
            [left, right] => {
                let scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
                let rows = if scalar { 1 } else { rows };
                let distances = self.pairwise(&left.to_array(rows)?, &right.to_array(rows)?, kind)?;
                answer(distances, scalar)
            }
            _ => Err(carry(Error::bug(format!("{} takes two arguments", self.name)))),
        }
    }
}

impl DistanceFunction {
    /// Whether text is a sparse vector to it, and a dense one becomes one.
    fn takes_sparse(&self) -> bool {
        self.name.starts_with("sparsevec_")
    }

    fn of_sparse(&self, left: SparseWords<'_>, right: SparseWords<'_>) -> f64 {
        match self.variant {
            Variant::Plain => sepal_index::sparse_distance(self.metric, left, right),
            Variant::Negated => -sepal_index::sparse_distance(self.metric, left, right),
            Variant::Squared => sepal_index::sparse_l2_squared(left, right),
        }
    }

    fn against_one(&self, column: &ArrayRef, query: &ScalarValue, kind: VectorKind) -> Result<ArrayRef> {
        let column = to_vectors(column, kind)?;
        let query = operand(&query.to_array()?, kind)?;
        let (rows, query) = (Rows::of(&column)?, elements(&query, 0));
        let mut distances = Float64Builder::with_capacity(column.len());
        for row in 0..column.len() {
            match (rows.get(row), &query) {
                (Some(vector), Some(query)) => {
                    kind.check_same(vector.len(), query.len()).map_err(carry)?;
                    distances.append_value(self.compute(query.values(), vector));
                }
                _ => distances.append_null(),
            }
        }
        Ok(Arc::new(distances.finish()))
    }

    fn pairwise(&self, left: &ArrayRef, right: &ArrayRef, kind: VectorKind) -> Result<ArrayRef> {
        let (left, right) = (operand(left, kind)?, to_vectors(right, kind)?);
        let rows = Rows::of(&right)?;
        let mut distances = Float64Builder::with_capacity(left.len());
        for row in 0..left.len() {
            match (elements(&left, row), rows.get(row)) {
                (Some(left), Some(right)) => {
                    kind.check_same(left.len(), right.len()).map_err(carry)?;
                    distances.append_value(self.compute(left.values(), right));
                }
                _ => distances.append_null(),
            }
        }
        Ok(Arc::new(distances.finish()))
    }

    fn compute(&self, left: &[f32], right: Vectors) -> f64 {
        let distance = sepal_index::distance(self.metric, left, right);
        match self.variant {
            Variant::Plain => distance,
            Variant::Negated => -distance,
            Variant::Squared => distance * distance,
        }
    }
}

/// The vectors of an array as the kernels take them, without an array for each.
struct Rows<'a> {
    array: &'a ArrayRef,
    elements: Vectors<'a>,
}

impl<'a> Rows<'a> {
    fn of(array: &'a ArrayRef) -> Result<Self> {
        let values = match array.as_fixed_size_list_opt() {
            Some(list) => list.values(),
            None => array.as_list::<i32>().values(),
        };
        let elements = match vector_kind(array.data_type()) {
            Some(VectorKind::Half) => Vectors::F16(values.as_primitive::<Float16Type>().values()),
            Some(VectorKind::Single) => Vectors::F32(values.as_primitive::<Float32Type>().values()),
            None => return Err(carry(Error::bug(format!("a distance between {}", array.data_type())))),
        };
        Ok(Self { array, elements })
    }

    /// `None` for NULL.
    fn get(&self, row: usize) -> Option<Vectors<'a>> {
        if self.array.is_null(row) {
            return None;
        }
        let (start, length) = match self.array.as_fixed_size_list_opt() {
            Some(list) => (list.value_offset(row), list.value_length()),
            None => {
                let list = self.array.as_list::<i32>();
                (list.value_offsets()[row], list.value_length(row))
            }
        };
        let (start, length) = (usize::try_from(start).ok()?, usize::try_from(length).ok()?);
        Some(self.elements.slice(start, length))
    }
}

/// One row of an array of `vector`; `None` for NULL.
pub fn elements(
    array: &ArrayRef,
    row: usize,
) -> Option<datafusion::arrow::array::PrimitiveArray<Float32Type>> {
    if array.is_null(row) {
        return None;
    }
    let value = match array.data_type() {
        DataType::FixedSizeList(..) => array.as_fixed_size_list().value(row),
        _ => array.as_list::<i32>().value(row),
    };
    Some(value.as_primitive::<Float32Type>().clone())
}
