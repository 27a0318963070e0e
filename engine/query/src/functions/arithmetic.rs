//! `+`, `-`, `*`, `/`, `%` and unary minus over numbers, with Postgres' result types and errors.
//!
//! DataFusion's own operators wrap an integer around and divide a float by zero. The planner replaces them by
//! these functions where it reads the operator (`planner/typing.rs`), so constants fold and rows are computed
//! by the same code. Integers and floats go through Arrow's checked kernels, `numeric` through `numeric.rs`.
//!
//! Result types are those of Postgres' `pg_operator`: the wider integer; `numeric` beside an integer stays
//! `numeric`; `real` beside anything but `real` becomes `double precision`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Datum},
        compute::{
            cast,
            kernels::numeric::{add, div, mul, neg, rem, sub},
        },
        datatypes::{DataType, Float32Type, Float64Type, IntervalUnit},
        error::ArrowError,
    },
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
    physical_expr_common::datum::apply,
};
use sepal_types::{Error, SqlState};

use super::{constants::of_one, numeric};
use crate::{
    error::{carry, undefined_operator},
    output::natural_type,
};

/// An operator over two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    Add,
    Divide,
    Modulo,
    Multiply,
    Subtract,
}

impl Arithmetic {
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Multiply => "*",
            Self::Subtract => "-",
        }
    }

    const fn function_name(self) -> &'static str {
        match self {
            Self::Add => "sepal_add",
            Self::Divide => "sepal_divide",
            Self::Modulo => "sepal_modulo",
            Self::Multiply => "sepal_multiply",
            Self::Subtract => "sepal_subtract",
        }
    }

    fn kernel(self) -> fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Add => add,
            Self::Divide => div,
            Self::Modulo => rem,
            Self::Multiply => mul,
            Self::Subtract => sub,
        }
    }
}

/// `left <operator> right` as a call.
pub fn arithmetic_call(operator: Arithmetic, left: Expr, right: Expr) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    let function = ScalarUDF::from(ArithmeticFunction { operator, signature });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![left, right]))
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::any(1, Volatility::Immutable);
    vec![Arc::new(ScalarUDF::from(Negate { signature }))]
}

/// What a number is to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int2,
    Int4,
    Int8,
    /// Precision and scale.
    Numeric(u8, u8),
    Float4,
    Float8,
}

fn kind(data_type: &DataType) -> Option<Kind> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Kind::Int2,
        DataType::UInt16 | DataType::Int32 => Kind::Int4,
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => Kind::Int8,
        DataType::Float16 | DataType::Float32 => Kind::Float4,
        DataType::Float64 => Kind::Float8,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            Kind::Numeric((*precision).min(numeric::MAX_PRECISION), u8::try_from(*scale).unwrap_or(0))
        }
        _ => return None,
    })
}

/// Precision and scale of any number that `numeric` arithmetic takes.
const fn digits(kind: Kind) -> (u8, u8) {
    match kind {
        Kind::Int2 => (5, 0),
        Kind::Int4 => (10, 0),
        Kind::Numeric(precision, scale) => (precision, scale),
        Kind::Int8 | Kind::Float4 | Kind::Float8 => (20, 0),
    }
}

/// The type of the result; `None` when an operand is no number. NULL takes the other operand's type.
fn arithmetic_type(operator: Arithmetic, left: &DataType, right: &DataType) -> Option<DataType> {
    let (left, right) = match (kind(left), kind(right)) {
        (Some(left), Some(right)) => (left, right),
        (Some(known), None) if right.is_null() => (known, known),
        (None, Some(known)) if left.is_null() => (known, known),
        _ => return None,
    };
    Some(match (left, right) {
        (Kind::Float4, Kind::Float4) => DataType::Float32,
        (Kind::Float4 | Kind::Float8, _) | (_, Kind::Float4 | Kind::Float8) => DataType::Float64,
        (Kind::Numeric(..), _) | (_, Kind::Numeric(..)) => {
            let (precision, scale) = numeric::shape(operator, digits(left), digits(right));
            DataType::Decimal128(precision, i8::try_from(scale).unwrap_or(0))
        }
        (Kind::Int8, _) | (_, Kind::Int8) => DataType::Int64,
        (Kind::Int4, _) | (_, Kind::Int4) => DataType::Int32,
        (Kind::Int2, Kind::Int2) => DataType::Int16,
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArithmeticFunction {
    operator: Arithmetic,
    signature: Signature,
}

impl ScalarUDFImpl for ArithmeticFunction {
    fn name(&self) -> &str {
        self.operator.function_name()
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => format!("({left} {} {right})", self.operator.symbol()),
            _ => self.name().to_owned(),
        })
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => {
                format!("({} {} {})", left.schema_name(), self.operator.symbol(), right.schema_name())
            }
            _ => self.name().to_owned(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let (left, right) = (&arguments[0], &arguments[1]);
        arithmetic_type(self.operator, left, right).ok_or_else(|| {
            let (left, right) = (natural_type(left), natural_type(right));
            carry(undefined_operator(Some(&left), self.operator.symbol(), &right))
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return Err(carry(Error::bug(format!("{} takes two arguments", self.name()))));
        };
        match args.return_field.data_type() {
            wanted @ (DataType::Int16 | DataType::Int32 | DataType::Int64) => {
                self.integers(left, right, wanted)
            }
            wanted @ (DataType::Float32 | DataType::Float64) => self.floats(left, right, wanted),
            DataType::Decimal128(precision, scale) => {
                numeric::compute(self.operator, left, right, *precision, *scale)
            }
            other => Err(carry(Error::bug(format!("arithmetic does not give {other}")))),
        }
    }
}

impl ArithmeticFunction {
    fn integers(
        &self,
        left: &ColumnarValue,
        right: &ColumnarValue,
        wanted: &DataType,
    ) -> Result<ColumnarValue> {
        let (left, right) = (left.cast_to(wanted, None)?, right.cast_to(wanted, None)?);
        let kernel = self.operator.kernel();
        apply(&left, &right, |left, right| {
            kernel(left, right).map_err(|problem| integer_overflow(problem, wanted))
        })
    }

    fn floats(
        &self,
        left: &ColumnarValue,
        right: &ColumnarValue,
        wanted: &DataType,
    ) -> Result<ColumnarValue> {
        let (left, right) = (left.cast_to(wanted, None)?, right.cast_to(wanted, None)?);
        let result = apply(&left, &right, self.operator.kernel())?;
        let values = result.to_array(1)?;
        if !all_finite(&values) {
            let (left, right) = (left.to_array(values.len())?, right.to_array(values.len())?);
            self.check_floats(&left, &right, &values).map_err(carry)?;
        }
        Ok(result)
    }

    /// Looks for the row, if any, whose result is infinite or not a number through no fault of its operands.
    fn check_floats(&self, left: &ArrayRef, right: &ArrayRef, result: &ArrayRef) -> Result<(), Error> {
        let double = |array: &ArrayRef| cast(array, &DataType::Float64).map_err(crate::error::arrow);
        let (left, right, result) = (double(left)?, double(right)?, double(result)?);
        let rows = left.as_primitive::<Float64Type>().iter().zip(right.as_primitive::<Float64Type>());
        for ((left, right), result) in rows.zip(result.as_primitive::<Float64Type>()) {
            let (Some(left), Some(right), Some(result)) = (left, right, result) else {
                continue;
            };
            let divides = matches!(self.operator, Arithmetic::Divide | Arithmetic::Modulo);
            if divides && right == 0.0 && !left.is_nan() {
                return Err(Error::new(SqlState::DivisionByZero, "division by zero"));
            }
            if result.is_infinite() && left.is_finite() && right.is_finite() {
                return Err(Error::new(SqlState::NumericValueOutOfRange, "value out of range: overflow"));
            }
        }
        Ok(())
    }
}

fn all_finite(values: &ArrayRef) -> bool {
    match values.data_type() {
        DataType::Float32 => values.as_primitive::<Float32Type>().values().iter().all(|v| v.is_finite()),
        _ => values.as_primitive::<Float64Type>().values().iter().all(|v| v.is_finite()),
    }
}

/// `integer out of range` where Arrow says which numbers overflowed.
fn integer_overflow(problem: ArrowError, wanted: &DataType) -> ArrowError {
    match problem {
        ArrowError::ArithmeticOverflow(_) => {
            let message = format!("{} out of range", natural_type(wanted).display_name());
            ArrowError::ExternalError(Box::new(Error::new(SqlState::NumericValueOutOfRange, message)))
        }
        other => other,
    }
}

/// `sepal_negate(x)`: what `sql/rewrite.rs` makes of a minus before anything but a literal.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Negate {
    signature: Signature,
}

impl ScalarUDFImpl for Negate {
    fn name(&self) -> &'static str {
        "sepal_negate"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &arguments[0] {
            interval @ DataType::Interval(IntervalUnit::MonthDayNano) => Ok(interval.clone()),
            DataType::Null => Ok(DataType::Null),
            argument => arithmetic_type(Arithmetic::Modulo, argument, argument).ok_or_else(|| {
                let operand = natural_type(argument);
                carry(undefined_operator(None, Arithmetic::Subtract.symbol(), &operand))
            }),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let wanted = args.return_field.data_type();
        let Some(value) = args.args.first().filter(|_| !wanted.is_null()) else {
            return Ok(ColumnarValue::Scalar(ScalarValue::Null));
        };
        let value = value.cast_to(wanted, None)?;
        of_one(&value, |array| {
            neg(array.as_ref())
                .map_err(|problem| carry(crate::error::arrow(integer_overflow(problem, wanted))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_types_of_postgres() {
        use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64, Null};
        let cases = [
            (Int16, Int16, Some(Int16)),
            (Int16, Int32, Some(Int32)),
            (Int32, Int64, Some(Int64)),
            (Int32, Null, Some(Int32)),
            (Float32, Float32, Some(Float32)),
            (Float32, Int32, Some(Float64)),
            (Float64, Decimal128(10, 2), Some(Float64)),
            (Decimal128(10, 2), Int32, Some(Decimal128(13, 2))),
            (Decimal128(38, 16), Int64, Some(Decimal128(38, 16))),
            (DataType::Utf8, Int32, None),
        ];
        for (left, right, expected) in cases {
            assert_eq!(arithmetic_type(Arithmetic::Add, &left, &right), expected, "{left} + {right}");
        }
    }
}
