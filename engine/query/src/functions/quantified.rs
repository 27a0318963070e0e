//! `a = ANY (array)` and its kin: whether an operator holds for one element, in SQL's three values.
//!
//! The planner writes these calls (`planner/arrays.rs`), also for ALL: what holds for all elements is what is not the
//! case for any. An array with a NULL in it has no certain answer unless another element settles it, which DataFusion's
//! `array_has` does not know.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Datum, ListArray, Scalar, UInt64Array,
        },
        compute::{ilike, kernels::cmp, like, nilike, nlike, or_kleene, take},
        datatypes::DataType,
        error::ArrowError,
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        binary::comparison_coercion,
        expr::ScalarFunction,
        in_list,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};
use sepal_types::{Error, SqlType};

use super::constants::{all_constant, answer};
use crate::{
    error::{carry, undefined_operator},
    output::natural_type,
};

/// The call for `=`: filters of vector searches know it by this name.
pub const ANY_EQUAL: &str = "sepal_any_eq";

/// An operator between the value and an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Test {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    Like,
    NotLike,
    ILike,
    NotILike,
}

/// An operator's symbol, its opposite's, and the name of its call.
const TESTS: [(&str, &str, &str, Test); 10] = [
    ("=", "<>", ANY_EQUAL, Test::Eq),
    ("<>", "=", "sepal_any_ne", Test::NotEq),
    ("<", ">=", "sepal_any_lt", Test::Lt),
    ("<=", ">", "sepal_any_le", Test::LtEq),
    (">", "<=", "sepal_any_gt", Test::Gt),
    (">=", "<", "sepal_any_ge", Test::GtEq),
    ("~~", "!~~", "sepal_any_like", Test::Like),
    ("!~~", "~~", "sepal_any_notlike", Test::NotLike),
    ("~~*", "!~~*", "sepal_any_ilike", Test::ILike),
    ("!~~*", "~~*", "sepal_any_notilike", Test::NotILike),
];

/// `operand <symbol> ANY (list)`, or ALL; `None` for an operator that is not known here.
pub fn quantified(symbol: &str, all: bool, operand: Expr, list: Expr) -> Option<Expr> {
    let entry = |wanted: &str| TESTS.into_iter().find(|(known, ..)| *known == wanted);
    let (_, opposite, ..) = entry(symbol)?;
    let (_, _, name, test) = entry(if all { opposite } else { symbol })?;
    let function = AnyOf { name, test, signature: Signature::user_defined(Volatility::Immutable) };
    let function = Arc::new(ScalarUDF::from(function));
    let call = Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![list, operand]));
    Some(if all { Expr::Not(Box::new(call)) } else { call })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AnyOf {
    name: &'static str,
    test: Test,
    signature: Signature,
}

impl ScalarUDFImpl for AnyOf {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    /// The elements and the value in one type. Errors: 42883.
    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [list, operand] = arguments else {
            return Err(carry(Error::bug(format!("{} of {} arguments", self.name, arguments.len()))));
        };
        let undefined = |list: &SqlType| {
            let symbol = TESTS.into_iter().find(|entry| entry.3 == self.test).map_or("=", |entry| entry.0);
            carry(undefined_operator(Some(&natural_type(operand)), symbol, list))
        };
        let item = match list {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                item.data_type()
            }
            DataType::Null => operand,
            other => return Err(undefined(&natural_type(other))),
        };
        let common = if item == operand || operand.is_null() {
            item.clone()
        } else if item.is_null() {
            operand.clone()
        } else {
            comparison_coercion(item, operand).ok_or_else(|| undefined(&natural_type(item)))?
        };
        let list = match list {
            DataType::List(field) if *field.data_type() == common => list.clone(),
            _ => DataType::new_list(common.clone(), true),
        };
        Ok(vec![list, common])
    }

    /// Among constants a list is quicker: it is hashed once.
    fn simplify(&self, mut arguments: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let items = match arguments.first() {
            Some(Expr::Literal(ScalarValue::List(list), _)) if self.test == Test::Eq && list.is_valid(0) => {
                literals(&list.value(0))?
            }
            Some(Expr::ScalarFunction(call)) if self.test == Test::Eq && call.name() == "make_array" => {
                call.args.clone()
            }
            _ => return Ok(ExprSimplifyResult::Original(arguments)),
        };
        Ok(match arguments.pop() {
            Some(operand) => ExprSimplifyResult::Simplified(in_list(operand, items, false)),
            None => ExprSimplifyResult::Original(arguments),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [list, operand] = args.args.as_slice() else {
            return Err(carry(Error::bug(format!("{} of {} arguments", self.name, args.args.len()))));
        };
        let constant = all_constant(&args.args);
        let operand = operand.to_array(if constant { 1 } else { args.number_rows })?;
        let found = match list {
            ColumnarValue::Scalar(list) => {
                let list = list.to_array()?;
                let lists = self.lists(&list)?;
                match lists.is_null(0) {
                    true => BooleanArray::new_null(operand.len()),
                    false => self.among(&lists.value(0), &operand)?,
                }
            }
            ColumnarValue::Array(lists) => self.by_row(self.lists(lists)?, &operand)?,
        };
        answer(Arc::new(found), constant)
    }
}

impl AnyOf {
    fn lists<'a>(&self, array: &'a ArrayRef) -> Result<&'a ListArray> {
        let wrong = || carry(Error::bug(format!("{} of {}", self.name, array.data_type())));
        array.as_list_opt::<i32>().ok_or_else(wrong)
    }

    /// Whether each row's value passes with one of the same elements.
    fn among(&self, items: &ArrayRef, operand: &ArrayRef) -> Result<BooleanArray> {
        let mut found = BooleanArray::from(vec![false; operand.len()]);
        for place in 0..items.len() {
            let one = self.test.holds(operand, &Scalar::new(items.slice(place, 1)))?;
            found = or_kleene(&found, &one)?;
        }
        Ok(found)
    }

    /// Whether each row's value passes with one element of the row's own list.
    fn by_row(&self, lists: &ListArray, operand: &ArrayRef) -> Result<BooleanArray> {
        let length = |row: usize| usize::try_from(lists.value_length(row)).unwrap_or(0);
        let first = lists.value_offsets().first().copied().unwrap_or(0);
        let places: Vec<u64> = (0u64..)
            .zip(0..lists.len())
            .flat_map(|(place, row)| std::iter::repeat_n(place, length(row)))
            .collect();
        let elements = lists.values().slice(usize::try_from(first).unwrap_or(0), places.len());
        let operand = take(operand, &UInt64Array::from(places), None)?;
        let tests = self.test.holds(&operand, &elements)?;
        let mut found = BooleanBuilder::with_capacity(lists.len());
        let mut begin = 0;
        for row in 0..lists.len() {
            let own = tests.slice(begin, length(row));
            begin += length(row);
            let uncertain = lists.is_null(row) || (!own.has_true() && own.null_count() > 0);
            found.append_option((!uncertain).then(|| own.has_true()));
        }
        Ok(found.finish())
    }
}

impl Test {
    fn holds(self, left: &dyn Datum, right: &dyn Datum) -> Result<BooleanArray, ArrowError> {
        match self {
            Test::Eq => cmp::eq(left, right),
            Test::NotEq => cmp::neq(left, right),
            Test::Lt => cmp::lt(left, right),
            Test::LtEq => cmp::lt_eq(left, right),
            Test::Gt => cmp::gt(left, right),
            Test::GtEq => cmp::gt_eq(left, right),
            Test::Like => like(left, right),
            Test::NotLike => nlike(left, right),
            Test::ILike => ilike(left, right),
            Test::NotILike => nilike(left, right),
        }
    }
}

fn literals(items: &ArrayRef) -> Result<Vec<Expr>> {
    let literal = |place| Ok(Expr::Literal(ScalarValue::try_from_array(items, place)?, None));
    (0..items.len()).map(literal).collect()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{array::Int32Array, datatypes::Int32Type};

    use super::*;

    fn function(symbol: &str) -> AnyOf {
        let (_, _, name, test) = TESTS.into_iter().find(|entry| entry.0 == symbol).unwrap();
        AnyOf { name, test, signature: Signature::user_defined(Volatility::Immutable) }
    }

    #[test]
    fn null_elements_leave_the_answer_open() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            Some(vec![Some(2), None]),
            Some(vec![]),
            None,
            Some(vec![Some(3), Some(1)]),
        ]);
        let operand: ArrayRef = Arc::new(Int32Array::from(vec![1; 5]));
        let expected = [Some(true), None, Some(false), None, Some(true)];
        let found = function("=").by_row(&lists, &operand).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        // A part of an array begins elsewhere in its elements.
        let found = function("=").by_row(&lists.slice(1, 4), &operand.slice(1, 4)).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected[1..]);
        for (row, expected) in expected.iter().enumerate().filter(|(row, _)| *row != 3) {
            let found = function("=").among(&lists.value(row), &operand.slice(0, 1)).unwrap();
            assert_eq!(found.iter().collect::<Vec<_>>(), [*expected]);
        }
    }

    #[test]
    fn every_operator_has_its_opposite() {
        for (symbol, opposite, ..) in TESTS {
            let back = TESTS.into_iter().find(|entry| entry.0 == opposite).unwrap();
            assert_eq!(back.1, symbol);
        }
    }
}
