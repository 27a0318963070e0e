//! `ARRAY['[1,2]'::vector, …]` and, for VALUES, vectors without dimensions in their Arrow type; of `halfvec` too.
//!
//! The planner calls the first for an array literal that holds a vector, `sql/vectors.rs` the second. A vector's
//! dimensions are part of its Arrow type; a column or an array of them may mix dimensions, so that both give lists
//! of any length.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, Float32Builder, ListArray, ListBuilder},
        buffer::OffsetBuffer,
        datatypes::{DataType, Field, FieldRef},
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{SqlType, VectorKind};

use super::{
    constants::{all_constant, answer},
    distance::elements,
    vector::{append, vector_builder},
    vector_cast::{common_kind, operand, to_vectors},
};
use crate::output::typed_field;

#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorArray {
    /// One vector as it is, of this kind, rather than an array of all arguments.
    single: Option<VectorKind>,
    signature: Signature,
}

impl VectorArray {
    fn new(single: Option<VectorKind>) -> Self {
        let signature = if single.is_some() {
            Signature::any(1, Volatility::Immutable)
        } else {
            Signature::variadic_any(Volatility::Immutable)
        };
        Self { single, signature }
    }

    fn result_type(&self, arguments: &[DataType]) -> SqlType {
        match self.single {
            Some(kind) => kind.sql_type(None),
            None => SqlType::Array(Box::new(common_kind(arguments).sql_type(None))),
        }
    }
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let single = VectorKind::ALL.map(Some);
    single
        .into_iter()
        .chain([None])
        .map(|single| Arc::new(ScalarUDF::from(VectorArray::new(single))))
        .collect()
}

/// An array literal of vectors.
pub fn vector_array_call(vectors: Vec<Expr>) -> Expr {
    let function = Arc::new(ScalarUDF::from(VectorArray::new(None)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vectors))
}

impl ScalarUDFImpl for VectorArray {
    fn name(&self) -> &str {
        match self.single {
            Some(VectorKind::Half) => "sepal_halfvec",
            Some(VectorKind::Single) => "sepal_vector",
            None => "sepal_vector_array",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&self.result_type(arguments)))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let ty = self.result_type(&types);
        Ok(Arc::new(typed_field(self.name(), arrow_type(&ty), &ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        let kind = self.single.unwrap_or_else(|| common_kind(&types));
        let columns = args
            .args
            .iter()
            .map(|argument| operand(&argument.to_array(rows)?, kind))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let mut vectors = vector_builder(rows * columns.len());
        for row in 0..rows {
            columns.iter().for_each(|column| push(&mut vectors, column, row));
        }
        let vectors: ArrayRef = Arc::new(vectors.finish());
        let vectors = to_vectors(&vectors, kind)?;
        let array = match self.single {
            Some(_) => vectors,
            None => {
                let item = Arc::new(Field::new_list_field(vectors.data_type().clone(), true));
                let offsets = OffsetBuffer::from_repeated_length(columns.len(), rows);
                Arc::new(ListArray::try_new(item, offsets, vectors, None)?)
            }
        };
        answer(array, constant)
    }
}

fn push(vectors: &mut ListBuilder<Float32Builder>, column: &ArrayRef, row: usize) {
    match elements(column, row) {
        Some(vector) => append(vectors, vector.values()),
        None => vectors.append(false),
    }
}
