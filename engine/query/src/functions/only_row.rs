//! The value of the one row that a subquery used as an expression may have, out of all that it has.
//!
//! Called by plans alone (`planner/scalar_rows.rs`).

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, UInt32Array},
        compute::take,
        datatypes::{DataType, FieldRef},
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction,
    },
};
use sepal_types::{Error, SqlState};

use super::constants::of_one;
use crate::error::carry;

/// The element of a list of one, NULL of an empty list and of NULL. `field` is the element's.
///
/// Errors, when it is evaluated: 21000 for a list of several.
pub fn only_row(rows: Expr, field: FieldRef) -> Expr {
    // It may fail, and is not to be folded where nobody asks for the row.
    let signature = Signature::any(1, Volatility::Stable);
    let function = ScalarUDF::from(OnlyRow { field, signature });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![rows]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyRow {
    field: FieldRef,
    signature: Signature,
}

impl ScalarUDFImpl for OnlyRow {
    fn name(&self) -> &'static str {
        "sepal_only_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(rows) => of_one(rows, only),
            None => Err(carry(Error::bug("a row of none"))),
        }
    }
}

/// Errors: 21000.
fn only(array: &ArrayRef) -> Result<ArrayRef> {
    let Some(lists) = array.as_list_opt::<i32>() else {
        return Err(carry(Error::bug(format!("{} is no list of rows", array.data_type()))));
    };
    let place = |row: usize| -> Result<Option<u32>> {
        match lists.is_valid(row).then(|| lists.value_length(row)) {
            None | Some(0) => Ok(None),
            Some(1) => Ok(u32::try_from(lists.value_offsets()[row]).ok()),
            Some(_) => {
                let message = "more than one row returned by a subquery used as an expression";
                Err(carry(Error::new(SqlState::CardinalityViolation, message)))
            }
        }
    };
    let places = (0..lists.len()).map(place).collect::<Result<Vec<Option<u32>>>>()?;
    Ok(take(lists.values(), &UInt32Array::from(places), None)?)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{Int32Array, ListArray},
        datatypes::Int32Type,
    };

    use super::*;
    use crate::error::translate;

    #[test]
    fn a_list_of_one_is_its_element() {
        let lists = |rows: Vec<Option<Vec<Option<i32>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
        };
        let some =
            lists(vec![Some(vec![Some(7)]), None, Some(vec![]), Some(vec![None]), Some(vec![Some(8)])]);
        let values = only(&some).unwrap();
        let expected = Int32Array::from(vec![Some(7), None, None, None, Some(8)]);
        assert_eq!(values.as_primitive::<Int32Type>(), &expected);
        assert_eq!(only(&some.slice(4, 1)).unwrap().as_primitive::<Int32Type>().value(0), 8);
        let error = only(&lists(vec![Some(vec![Some(1), Some(1)])])).map_err(translate).unwrap_err();
        assert_eq!(error.state(), SqlState::CardinalityViolation);
    }
}
