//! `@>`, `<@` and `&&` over arrays, as sets of elements: `arraycontains` and `arrayoverlap` of Postgres.
//!
//! The planner writes these calls (`planner/arrays.rs`). A NULL element equals nothing, itself included; DataFusion's
//! `array_has_all` finds it, and takes every array without rows of elements to be in a NULL.

use std::{collections::HashSet, ops::Range, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, ListArray},
        datatypes::DataType,
        row::{Row, RowConverter, Rows, SortField},
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        binary::comparison_coercion, expr::ScalarFunction,
    },
};
use sepal_types::Error;

use super::constants::{all_constant, answer};
use crate::{
    error::{carry, undefined_operator},
    output::natural_type,
};

/// Up to this many pairs are compared one by one.
const FEW_PAIRS: usize = 64;

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArraySets {
    /// All elements of the second array must be in the first, not only one.
    all: bool,
    signature: Signature,
}

/// `left @> right`
pub fn array_contains(left: Expr, right: Expr) -> Expr {
    call(true, left, right)
}

/// `left && right`
pub fn array_overlaps(left: Expr, right: Expr) -> Expr {
    call(false, left, right)
}

fn call(all: bool, left: Expr, right: Expr) -> Expr {
    let function = ArraySets { all, signature: Signature::user_defined(Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), vec![left, right]))
}

impl ScalarUDFImpl for ArraySets {
    fn name(&self) -> &str {
        if self.all { "arraycontains" } else { "arrayoverlap" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    /// Both arrays with elements of one type. Errors: 42883.
    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = arguments else {
            return Err(carry(Error::bug(format!("{} of {} arguments", self.name(), arguments.len()))));
        };
        let common = match (item(left), item(right)) {
            (Some(left), Some(right)) if left == right || right.is_null() => Some(left.clone()),
            (Some(left), Some(right)) if left.is_null() => Some(right.clone()),
            (Some(left), Some(right)) => comparison_coercion(left, right),
            (Some(item), None) if right.is_null() => Some(item.clone()),
            (None, Some(item)) if left.is_null() => Some(item.clone()),
            _ => None,
        };
        let common = common.ok_or_else(|| {
            let symbol = if self.all { "@>" } else { "&&" };
            carry(undefined_operator(Some(&natural_type(left)), symbol, &natural_type(right)))
        })?;
        let list = |given: &DataType| match given {
            DataType::List(field) if *field.data_type() == common => given.clone(),
            _ => DataType::new_list(common.clone(), true),
        };
        Ok(vec![list(left), list(right)])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return Err(carry(Error::bug(format!("{} of {} arguments", self.name(), args.args.len()))));
        };
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
        answer(Arc::new(self.compare(&left, &right)?), constant)
    }
}

fn item(list: &DataType) -> Option<&DataType> {
    match list {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item.data_type())
        }
        _ => None,
    }
}

impl ArraySets {
    fn compare(&self, left: &ArrayRef, right: &ArrayRef) -> Result<BooleanArray> {
        let (Some(left), Some(right)) = (left.as_list_opt::<i32>(), right.as_list_opt::<i32>()) else {
            let types = (left.data_type(), right.data_type());
            return Err(carry(Error::bug(format!("{} of {types:?}", self.name()))));
        };
        let converter = RowConverter::new(vec![SortField::new(left.values().data_type().clone())])?;
        let (left, right) = (Elements::new(left, &converter)?, Elements::new(right, &converter)?);
        let row = |row: usize| {
            (left.lists.is_valid(row) && right.lists.is_valid(row)).then(|| self.holds(&left, &right, row))
        };
        Ok((0..left.lists.len()).map(row).collect())
    }

    fn holds(&self, left: &Elements, right: &Elements, row: usize) -> bool {
        let (own, mut wanted) = (left.range(row), right.range(row));
        let many = own.len().saturating_mul(wanted.len()) > FEW_PAIRS;
        let known: Option<HashSet<Row<'_>>> =
            many.then(|| own.clone().filter_map(|place| left.at(place)).collect());
        let found = |place: usize| {
            let Some(element) = right.at(place) else { return false };
            match &known {
                Some(known) => known.contains(&element),
                None => own.clone().any(|place| left.at(place) == Some(element)),
            }
        };
        if self.all { wanted.all(found) } else { wanted.any(found) }
    }
}

/// A column of arrays with elements that compare as bytes.
struct Elements<'a> {
    lists: &'a ListArray,
    rows: Rows,
}

impl<'a> Elements<'a> {
    fn new(lists: &'a ListArray, converter: &RowConverter) -> Result<Self> {
        let rows = converter.convert_columns(&[Arc::clone(lists.values())])?;
        Ok(Self { lists, rows })
    }

    /// The places of a row's elements.
    fn range(&self, row: usize) -> Range<usize> {
        let offsets = self.lists.value_offsets();
        let place = |offset: i32| usize::try_from(offset).unwrap_or(0);
        place(offsets[row])..place(offsets[row + 1])
    }

    /// An element; `None` for NULL.
    fn at(&self, place: usize) -> Option<Row<'_>> {
        self.lists.values().is_valid(place).then(|| self.rows.row(place))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn null_equals_nothing() {
        let many: Vec<Option<i32>> = (0..100).map(Some).collect();
        let left: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            Some(vec![Some(1), None]),
            Some(vec![]),
            None,
            Some(many.clone()),
        ]));
        let right: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(2), Some(2)]),
            Some(vec![None]),
            Some(vec![]),
            Some(vec![]),
            Some(many.into_iter().rev().chain([Some(200)]).collect()),
        ]));
        let compared = |all, left: &ArrayRef, right: &ArrayRef| {
            let sets = ArraySets { all, signature: Signature::user_defined(Volatility::Immutable) };
            sets.compare(left, right).unwrap().iter().collect::<Vec<_>>()
        };
        assert_eq!(compared(true, &left, &right), [Some(true), Some(false), Some(true), None, Some(false)]);
        assert_eq!(compared(false, &left, &right), [Some(true), Some(false), Some(false), None, Some(true)]);
        assert_eq!(compared(true, &right.slice(4, 1), &left.slice(4, 1)), [Some(true)]);
    }
}
