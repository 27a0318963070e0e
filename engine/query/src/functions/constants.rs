//! Constants in, a constant out: what a function gives where none of its arguments has rows.
//!
//! Called by functions at the end of a call. DataFusion folds what comes as a scalar, and keeps one value of it instead
//! of a batch.

use datafusion::{
    arrow::array::ArrayRef,
    common::{Result, ScalarValue},
    logical_expr::ColumnarValue,
};

/// Whether these arguments are constants alone.
pub fn all_constant(arguments: &[ColumnarValue]) -> bool {
    arguments.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)))
}

/// What a function answers. `constant`: `results` is the one result of constants.
pub fn answer(results: ArrayRef, constant: bool) -> Result<ColumnarValue> {
    Ok(if constant {
        ColumnarValue::Scalar(ScalarValue::try_from_array(&results, 0)?)
    } else {
        ColumnarValue::Array(results)
    })
}

/// A function of one argument.
pub(super) fn of_one(
    argument: &ColumnarValue,
    compute: impl FnOnce(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    match argument {
        ColumnarValue::Array(array) => answer(compute(array)?, false),
        ColumnarValue::Scalar(scalar) => answer(compute(&scalar.to_array()?)?, true),
    }
}
