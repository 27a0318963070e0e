//! Lists that the planner needs on its way to rows and back: the numbers of a list's elements, series, and the array
//! that a subquery without rows is.
//!
//! Called by plans alone (`planner/lateral_lists.rs`, `sql/array_query.rs`).

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayBuilder, ArrayRef, AsArray, Int64Array, Int64Builder, ListArray, ListBuilder,
            UInt32Array,
        },
        buffer::OffsetBuffer,
        compute::take,
        datatypes::{DataType, Field, FieldRef, Int64Type},
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction,
    },
};
use sepal_types::{Error, SqlState};

use super::constants::{all_constant, answer, of_one};
use crate::error::carry;

/// The function that [`Filled`] is, for the AST pass.
pub const FILLED: &str = "sepal_array_of_rows";

/// Numbers that the series of one batch of rows may have: 128 MiB, which no budget counts.
const MAX_SERIES: usize = 1 << 24;

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::any(1, Volatility::Immutable);
    vec![Arc::new(ScalarUDF::from(Filled { signature }))]
}

/// The numbers from 1 to the length of the longest list of each row, as `bigint[]`.
pub fn ordinals(lists: Vec<Expr>) -> Expr {
    Numbers::Ordinals.call(lists)
}

/// `generate_series(start, stop [, step])` of each row, as `bigint[]`. The arguments are `bigint`.
pub fn series(arguments: Vec<Expr>) -> Expr {
    Numbers::Series.call(arguments)
}

/// Which numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Numbers {
    Ordinals,
    Series,
}

impl Numbers {
    fn call(self, arguments: Vec<Expr>) -> Expr {
        let signature = Signature::variadic_any(Volatility::Immutable);
        let function = Arc::new(ScalarUDF::from(NumbersFunction { numbers: self, signature }));
        Expr::ScalarFunction(ScalarFunction::new_udf(function, arguments))
    }
}

/// A function that gives numbers for each row.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NumbersFunction {
    numbers: Numbers,
    signature: Signature,
}

impl ScalarUDFImpl for NumbersFunction {
    fn name(&self) -> &str {
        match self.numbers {
            Numbers::Ordinals => "sepal_ordinals",
            Numbers::Series => "sepal_series",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|argument| argument.to_array(rows));
        let arrays = arrays.collect::<Result<Vec<ArrayRef>>>()?;
        let lists = match self.numbers {
            Numbers::Ordinals => ordinals_of(rows, &arrays)?,
            Numbers::Series => {
                let columns = arrays.iter().map(|array| array.as_primitive_opt::<Int64Type>());
                let lists = match columns.collect::<Option<Vec<&Int64Array>>>().as_deref() {
                    Some([start, stop]) => series_of(rows, start, stop, None),
                    Some([start, stop, step]) => series_of(rows, start, stop, Some(*step)),
                    _ => Err(Error::bug("a series takes two or three numbers")),
                };
                lists.map_err(carry)?
            }
        };
        answer(lists, constant)
    }
}

fn ordinals_of(rows: usize, arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let mut longest = vec![0_usize; rows];
    for array in arrays {
        for (longest, length) in longest.iter_mut().zip(lengths(array)?) {
            *longest = length.max(*longest);
        }
    }
    let mut ordinals = ListBuilder::new(Int64Builder::new());
    for length in longest {
        ordinals.values().extend((1_i64..).take(length).map(Some));
        ordinals.append(true);
    }
    Ok(Arc::new(ordinals.finish()))
}

/// Errors: 22023 for a step of 0, 54000 for too many numbers.
fn series_of(
    rows: usize,
    starts: &Int64Array,
    stops: &Int64Array,
    steps: Option<&Int64Array>,
) -> sepal_types::Result<ArrayRef> {
    let mut lists = ListBuilder::new(Int64Builder::new());
    for row in 0..rows {
        let is_null = |array: &Int64Array| array.is_null(row);
        if is_null(starts) || is_null(stops) || steps.is_some_and(is_null) {
            lists.append(false);
            continue;
        }
        let (stop, step) = (stops.value(row), steps.map_or(1, |steps| steps.value(row)));
        if step == 0 {
            return Err(Error::new(SqlState::InvalidParameterValue, "step size cannot equal zero"));
        }
        let mut next = Some(starts.value(row));
        while let Some(number) =
            next.filter(|number| if step > 0 { *number <= stop } else { *number >= stop })
        {
            if lists.values().len() == MAX_SERIES {
                let message = format!("the series of one batch of rows exceed {MAX_SERIES} numbers");
                return Err(Error::new(SqlState::ProgramLimitExceeded, message)
                    .with_hint("Select fewer rows at once, or shorter series."));
            }
            lists.values().append_value(number);
            next = number.checked_add(step);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

/// Elements of each row's list; 0 of a NULL.
fn lengths(array: &ArrayRef) -> Result<Vec<usize>> {
    let length = |row: usize| -> Option<usize> {
        if array.is_null(row) {
            return Some(0);
        }
        match array.data_type() {
            DataType::List(_) => usize::try_from(array.as_list::<i32>().value_length(row)).ok(),
            DataType::LargeList(_) => usize::try_from(array.as_list::<i64>().value_length(row)).ok(),
            DataType::Null => Some(0),
            _ => None,
        }
    };
    let lengths = (0..array.len()).map(length).collect::<Option<Vec<usize>>>();
    lengths.ok_or_else(|| carry(Error::bug(format!("{} is no list to be numbered", array.data_type()))))
}

/// A list, empty in place of NULL: `array_agg` over no rows is NULL, `ARRAY(SELECT …)` is not.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Filled {
    signature: Signature,
}

impl ScalarUDFImpl for Filled {
    fn name(&self) -> &str {
        FILLED
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        types.first().cloned().ok_or_else(|| carry(Error::bug("an array of rows without its argument")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields.first() {
            Some(field) => Ok(Arc::new(field.as_ref().clone().with_name(self.name()).with_nullable(true))),
            None => Err(carry(Error::bug("an array of rows without its argument"))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(argument) => of_one(argument, filled),
            None => Err(carry(Error::bug("an array of rows without its argument"))),
        }
    }
}

fn filled(array: &ArrayRef) -> Result<ArrayRef> {
    let Some(list) = array.as_list_opt::<i32>().filter(|list| list.null_count() > 0) else {
        return Ok(Arc::clone(array));
    };
    let DataType::List(item) = list.data_type() else { return Ok(Arc::clone(array)) };
    let kept = |row: usize| -> std::ops::Range<i32> {
        let start = list.value_offsets()[row];
        if list.is_null(row) { start..start } else { start..start + list.value_length(row) }
    };
    let positions = (0..list.len()).flat_map(kept).filter_map(|at| u32::try_from(at).ok());
    let values = take(list.values(), &UInt32Array::from_iter_values(positions), None)?;
    let lengths = (0..list.len()).map(|row| kept(row).len());
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, None)?))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    fn list() -> ArrayRef {
        let rows = vec![Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(7)])];
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
    }

    #[test]
    fn a_null_is_an_empty_array() {
        let filled = filled(&list()).unwrap();
        assert_eq!((filled.null_count(), lengths(&filled).unwrap()), (0, vec![2, 0, 0, 1]));
        assert_eq!(filled.as_list::<i32>().value(3).as_primitive::<Int32Type>().value(0), 7);
        assert!(filled.as_list::<i32>().value(0).is_null(1));
    }

    #[test]
    fn series_end_where_numbers_end() {
        let starts = Int64Array::from(vec![Some(1), Some(3), None, Some(i64::MAX - 1)]);
        let stops = Int64Array::from(vec![3, 1, 5, i64::MAX]);
        let up = series_of(4, &starts, &stops, None).unwrap();
        assert_eq!(lengths(&up).unwrap(), [3, 0, 0, 2]);
        assert!(up.is_null(2));
        let down = series_of(2, &starts, &stops, Some(&Int64Array::from(vec![-1, -1]))).unwrap();
        assert_eq!(down.as_list::<i32>().value(1).as_primitive::<Int64Type>().values(), &[3, 2, 1]);
        let still = series_of(1, &starts, &stops, Some(&Int64Array::from(vec![0]))).unwrap_err();
        assert_eq!(still.state(), SqlState::InvalidParameterValue);
        let long = series_of(1, &starts, &Int64Array::from(vec![i64::MAX]), None).unwrap_err();
        assert_eq!(long.state(), SqlState::ProgramLimitExceeded);
    }

    #[test]
    fn a_null_has_no_elements() {
        assert_eq!(lengths(&list()).unwrap(), [2, 0, 0, 1]);
    }
}
