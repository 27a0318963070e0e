//! Arithmetic over `numeric`: Arrow's decimals with room for what comes between, and Postgres' scales.
//!
//! Called by `arithmetic`. A sum keeps the larger scale and a product both, as in Postgres. Where 38 digits do
//! not hold both, and for quotients, at least 16 digits after the point are kept: Arrow's own product of two
//! plain `numeric`s would keep 32 and overflow at a million. Intermediate values have 256 bits.

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Decimal128Array, new_null_array},
        compute::{cast, kernels::arity::try_binary},
        datatypes::{DataType, Decimal128Type, i256},
        error::ArrowError,
    },
    common::Result,
    logical_expr::ColumnarValue,
};
use sepal_types::{Error, SqlState};

use super::{arithmetic::Arithmetic, constants::answer};

/// Digits that an `i128` always holds.
pub(super) const MAX_PRECISION: u8 = 38;
/// Digits after the point that a quotient has at least, as Postgres' `NUMERIC_MIN_SIG_DIGITS`.
const QUOTIENT_SCALE: u8 = 16;
/// Precision and scale of the result of an operator over two of these shapes.
pub(super) fn shape(operator: Arithmetic, left: (u8, u8), right: (u8, u8)) -> (u8, u8) {
    let scale = left.1.max(right.1);
    let whole = left.0.saturating_sub(left.1).max(right.0.saturating_sub(right.1));
    match operator {
        Arithmetic::Add | Arithmetic::Subtract => {
            ((whole.saturating_add(1).saturating_add(scale)).min(MAX_PRECISION), scale)
        }
        Arithmetic::Modulo => (whole.saturating_add(scale).min(MAX_PRECISION), scale),
        Arithmetic::Multiply if u16::from(left.0) + u16::from(right.0) <= u16::from(MAX_PRECISION) => {
            (left.0 + right.0, left.1 + right.1)
        }
        Arithmetic::Multiply => {
            (MAX_PRECISION, scale.max(left.1.saturating_add(right.1).min(QUOTIENT_SCALE)))
        }
        // One digit less than a plain numeric, which would be shown without its trailing zeros.
        Arithmetic::Divide => (MAX_PRECISION - 1, scale.max(QUOTIENT_SCALE)),
    }
}

/// Computes row by row. Errors: 22003 past 38 digits, 22012.
pub(super) fn compute(
    operator: Arithmetic,
    left: &ColumnarValue,
    right: &ColumnarValue,
    precision: u8,
    scale: i8,
) -> Result<ColumnarValue> {
    let scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
    let rows = match (left, right) {
        (ColumnarValue::Array(array), _) | (_, ColumnarValue::Array(array)) => array.len(),
        _ => 1,
    };
    let (left, left_scale) = decimals(&left.to_array(rows)?)?;
    let (right, right_scale) = decimals(&right.to_array(rows)?)?;
    let step = Step::new(operator, left_scale, right_scale, u32::try_from(scale).unwrap_or(0));
    let limit = 10i128.pow(precision.into());
    let values: Decimal128Array = try_binary(&left, &right, |left, right| {
        let divides = matches!(operator, Arithmetic::Divide | Arithmetic::Modulo);
        if divides && right == 0 {
            return Err(ArrowError::DivideByZero);
        }
        step.and_then(|step| step.apply(left, right))
            .filter(|value| -limit < *value && *value < limit)
            .ok_or_else(overflow)
    })?;
    let values: ArrayRef = std::sync::Arc::new(values.with_precision_and_scale(precision, scale)?);
    answer(values, scalar)
}

fn overflow() -> ArrowError {
    let error = Error::new(SqlState::NumericValueOutOfRange, "value overflows numeric format")
        .with_detail("Sepal's numeric keeps 38 digits.");
    ArrowError::ExternalError(Box::new(error))
}

/// Any exact number as decimals and their scale.
fn decimals(array: &ArrayRef) -> Result<(Decimal128Array, u32)> {
    let wanted = match array.data_type() {
        DataType::Decimal128(precision, scale) if *scale >= 0 => DataType::Decimal128(*precision, *scale),
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => DataType::Decimal128(MAX_PRECISION, (*scale).max(0)),
        DataType::Null => {
            let nulls = new_null_array(&DataType::Decimal128(MAX_PRECISION, 0), array.len());
            return Ok((nulls.as_primitive::<Decimal128Type>().clone(), 0));
        }
        _ => DataType::Decimal128(20, 0),
    };
    let array = cast(array, &wanted)?;
    let array = array.as_primitive::<Decimal128Type>().clone();
    let scale = u32::try_from(array.scale()).unwrap_or(0);
    Ok((array, scale))
}

/// One operator with its powers of ten worked out.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Both sides brought to the larger scale first; the right one is taken off.
    Difference(i128, i128),
    /// The product divided by this.
    Product(i256),
    /// The dividend multiplied by this.
    Quotient(i256),
    Remainder(i128, i128),
    Sum(i128, i128),
}

impl Step {
    /// `None` when a power of ten is past 256 bits: nothing but zero could be computed.
    fn new(operator: Arithmetic, left: u32, right: u32, scale: u32) -> Option<Step> {
        let power = |exponent: u32| 10i128.checked_pow(exponent);
        let wide = |exponent: u32| i256::from_i128(10).checked_pow(exponent);
        let common = left.max(right);
        Some(match operator {
            Arithmetic::Add => Step::Sum(power(common - left)?, power(common - right)?),
            Arithmetic::Subtract => Step::Difference(power(common - left)?, power(common - right)?),
            Arithmetic::Modulo => Step::Remainder(power(common - left)?, power(common - right)?),
            Arithmetic::Multiply => Step::Product(wide((left + right).saturating_sub(scale))?),
            Arithmetic::Divide => Step::Quotient(wide((scale + right).saturating_sub(left))?),
        })
    }

    /// `None`: the result has more digits than an `i128`.
    fn apply(self, left: i128, right: i128) -> Option<i128> {
        match self {
            Step::Sum(by_left, by_right) => {
                left.checked_mul(by_left)?.checked_add(right.checked_mul(by_right)?)
            }
            Step::Difference(by_left, by_right) => {
                left.checked_mul(by_left)?.checked_sub(right.checked_mul(by_right)?)
            }
            Step::Remainder(by_left, by_right) => {
                left.checked_mul(by_left)?.checked_rem(right.checked_mul(by_right)?)
            }
            Step::Product(divisor) if divisor == i256::ONE => left.checked_mul(right),
            Step::Product(divisor) => {
                let product = i256::from_i128(left).checked_mul(i256::from_i128(right))?;
                rounded_quotient(product, divisor)
            }
            Step::Quotient(factor) => {
                let dividend = i256::from_i128(left).checked_mul(factor)?;
                rounded_quotient(dividend, i256::from_i128(right))
            }
        }
    }
}

/// Rounds half away from zero, as Postgres' `numeric` does.
fn rounded_quotient(dividend: i256, divisor: i256) -> Option<i128> {
    let quotient = dividend.checked_div(divisor)?;
    let remainder = dividend.checked_rem(divisor)?.checked_abs()?;
    let rest = divisor.checked_abs()?.checked_sub(remainder)?;
    if remainder < rest {
        return quotient.to_i128();
    }
    if dividend.is_negative() == divisor.is_negative() {
        quotient.checked_add(i256::ONE)?.to_i128()
    } else {
        quotient.checked_sub(i256::ONE)?.to_i128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_and_products_round_half_away_from_zero() {
        let divide = |left, right, scale| {
            Step::new(Arithmetic::Divide, 0, 0, scale).and_then(|step| step.apply(left, right))
        };
        assert_eq!(divide(10, 3, 4), Some(33_333));
        assert_eq!(divide(-20, 3, 1), Some(-67));
        assert_eq!(divide(1, -2, 0), Some(-1));
        assert_eq!(divide(1, 4, 0), Some(0));
        let multiply =
            |left, right| Step::new(Arithmetic::Multiply, 2, 2, 3).and_then(|step| step.apply(left, right));
        assert_eq!(multiply(15, 5), Some(8));
        assert_eq!(multiply(-15, 5), Some(-8));
    }

    #[test]
    fn two_plain_numerics_multiply_without_overflow() {
        let plain = (38, 16);
        assert_eq!(shape(Arithmetic::Multiply, plain, plain), plain);
        let million = 10i128.pow(6 + 16);
        let step = Step::new(Arithmetic::Multiply, 16, 16, 16);
        assert_eq!(step.and_then(|step| step.apply(million, million)), Some(10i128.pow(12 + 16)));
    }
}
