//! `ARRAY['[1,2]'::vector, …]` and, for VALUES, vectors without dimensions in their Arrow type.
//!
//! The planner calls the first for an array literal that holds a vector, `sql/vectors.rs` the second. A vector's
//! dimensions are part of its Arrow type; a column or an array of them may mix dimensions, so that both give lists
//! of any length.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, Float32Builder, ListBuilder},
        datatypes::{DataType, FieldRef},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction,
    },
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

use super::{
    cast::to_vector_array,
    distance::elements,
    vector::{append, vector_builder},
};
use crate::output::typed_field;

#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorArray {
    /// One vector as it is, rather than an array of all arguments.
    single: bool,
    signature: Signature,
}

impl VectorArray {
    fn new(single: bool) -> Self {
        let signature = if single {
            Signature::any(1, Volatility::Immutable)
        } else {
            Signature::variadic_any(Volatility::Immutable)
        };
        Self { single, signature }
    }

    fn result_type(&self) -> SqlType {
        let vector = SqlType::Vector(None);
        if self.single { vector } else { SqlType::Array(Box::new(vector)) }
    }
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [true, false].map(|single| Arc::new(ScalarUDF::from(VectorArray::new(single)))).into()
}

/// An array literal of vectors.
pub fn vector_array_call(vectors: Vec<Expr>) -> Expr {
    let function = Arc::new(ScalarUDF::from(VectorArray::new(false)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vectors))
}

impl ScalarUDFImpl for VectorArray {
    fn name(&self) -> &str {
        if self.single { "sepal_vector" } else { "sepal_vector_array" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&self.result_type()))
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        let ty = self.result_type();
        Ok(Arc::new(typed_field(self.name(), arrow_type(&ty), &ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args
            .args
            .iter()
            .map(|argument| to_vector_array(&argument.to_array(rows)?))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let array: ArrayRef = if self.single {
            let mut vectors = vector_builder(rows);
            (0..rows).for_each(|row| push(&mut vectors, &columns[0], row));
            Arc::new(vectors.finish())
        } else {
            let mut lists = ListBuilder::new(vector_builder(rows * columns.len()));
            for row in 0..rows {
                columns.iter().for_each(|column| push(lists.values(), column, row));
                lists.append(true);
            }
            Arc::new(lists.finish())
        };
        Ok(if constant {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
        } else {
            ColumnarValue::Array(array)
        })
    }
}

fn push(vectors: &mut ListBuilder<Float32Builder>, column: &ArrayRef, row: usize) {
    match elements(column, row) {
        Some(vector) => append(vectors, vector.values()),
        None => vectors.append(false),
    }
}
