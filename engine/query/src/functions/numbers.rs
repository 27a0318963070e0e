//! Functions of numbers where DataFusion's answer otherwise than Postgres', or are missing.
//!
//! DataFusion gives NaN or an infinity where Postgres refuses (`ln(0)`, `sqrt(-1)`, `acos(2)`), takes a half away from
//! zero where Postgres takes a `double precision` to even, and keeps the scale of a decimal that is rounded. Over
//! `numeric` the transcendental functions are computed as `double precision`.

use std::sync::Arc;

use datafusion::{arrow::datatypes::i256, logical_expr::ScalarUDF};
use sepal_types::{Error, SqlState};

use super::overloads::{
    Answer, Given,
    Kind::{Float8, Int4, Int8, Numeric, Text},
    Overload, functions as declared,
};

type Answered = Result<Answer, Error>;

/// A function of one `double precision`.
macro_rules! of_float {
    ($compute:ident) => {
        &[Overload::new(&[Float8], Float8, |given, _| $compute(float(&given[0])).map(Answer::Float8))]
    };
}

const FUNCTIONS: &[(&str, &[Overload])] = &[
    ("acos", of_float!(acos)),
    ("acosh", of_float!(acosh)),
    ("asin", of_float!(asin)),
    ("atanh", of_float!(atanh)),
    ("div", &[Overload::new(&[Numeric, Numeric], Numeric, |given, _| quotient(&given[0], &given[1]))]),
    ("exp", of_float!(exp)),
    ("ln", of_float!(ln)),
    (
        "log",
        &[
            Overload::new(&[Float8], Float8, |given, _| log10(float(&given[0])).map(Answer::Float8)),
            Overload::new(&[Float8, Float8], Float8, |given, _| based(float(&given[0]), float(&given[1]))),
        ],
    ),
    ("log10", of_float!(log10)),
    ("pow", POWER),
    ("power", POWER),
    (
        "round",
        &[
            Overload::new(&[Float8], Float8, |given, _| {
                Ok(Answer::Float8(float(&given[0]).round_ties_even()))
            }),
            Overload::new(&[Numeric], Numeric, |given, scale| rescaled(&given[0], 0, scale, true)),
            Overload {
                arguments: &[Numeric, Int4],
                result: Numeric,
                compute: |given, scale| rescaled(&given[0], whole(&given[1]), scale, true),
                scale: asked_scale,
            },
        ],
    ),
    ("scale", &[Overload::new(&[Numeric], Int4, |given, _| Ok(Answer::Int(decimal(&given[0]).1.into())))]),
    (
        "sign",
        &[
            Overload::new(&[Float8], Float8, |given, _| {
                let value = float(&given[0]);
                Ok(Answer::Float8(if value == 0.0 || value.is_nan() { value } else { value.signum() }))
            }),
            Overload::new(&[Numeric], Numeric, |given, _| Ok(Answer::Numeric(decimal(&given[0]).0.signum()))),
        ],
    ),
    ("sqrt", of_float!(sqrt)),
    (
        "to_hex",
        &[
            Overload::new(&[Int4], Text, |given, _| {
                let value = i32::try_from(whole(&given[0])).unwrap_or_default();
                Ok(Answer::Text(format!("{value:x}")))
            }),
            Overload::new(&[Int8], Text, |given, _| Ok(Answer::Text(format!("{:x}", whole(&given[0]))))),
        ],
    ),
    (
        "trunc",
        &[
            Overload::new(&[Float8], Float8, |given, _| Ok(Answer::Float8(float(&given[0]).trunc()))),
            Overload::new(&[Numeric], Numeric, |given, scale| rescaled(&given[0], 0, scale, false)),
            Overload {
                arguments: &[Numeric, Int4],
                result: Numeric,
                compute: |given, scale| rescaled(&given[0], whole(&given[1]), scale, false),
                scale: asked_scale,
            },
        ],
    ),
    ("width_bucket", &[Overload::new(&[Float8, Float8, Float8, Int4], Int4, |given, _| bucket(given))]),
];

const POWER: &[Overload] = &[
    Overload::new(&[Float8, Float8], Float8, |given, _| {
        power(float(&given[0]), float(&given[1])).map(Answer::Float8)
    }),
    Overload {
        arguments: &[Numeric, Numeric],
        result: Numeric,
        compute: |given, scale| decimal_power(&given[0], &given[1], scale),
        scale: |shapes, _| shapes.iter().map(|(_, scale)| *scale).fold(16, i8::max),
    },
];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    declared(FUNCTIONS)
}

/// Digits after the point, where a constant says how many; else those of the argument. What has to stay for the digits
/// before the point is left to them.
fn asked_scale(shapes: &[(u8, i8)], constants: &[Option<i64>]) -> i8 {
    let (precision, scale) = shapes.first().copied().unwrap_or((38, 0));
    // The one of a round carries into another digit.
    let whole = i64::from(precision) - i64::from(scale) + 1;
    let most = (38 - whole).max(scale.into());
    let asked = constants.get(1).copied().flatten().unwrap_or(scale.into());
    i8::try_from(asked.clamp(0, most)).unwrap_or(scale)
}

fn float(given: &Given<'_>) -> f64 {
    match given {
        Given::Float8(value) => *value,
        _ => f64::NAN,
    }
}

fn whole(given: &Given<'_>) -> i64 {
    match given {
        Given::Int(value) => *value,
        _ => 0,
    }
}

fn decimal(given: &Given<'_>) -> (i128, i8) {
    match given {
        Given::Numeric(value, scale) => (*value, *scale),
        _ => (0, 0),
    }
}

fn out_of_range(message: &str) -> Error {
    Error::new(SqlState::NumericValueOutOfRange, message)
}

fn numeric_overflow() -> Error {
    out_of_range("value overflows numeric format").with_hint("A numeric has 38 digits at most.")
}

fn power_error(message: &str) -> Error {
    Error::new(SqlState::InvalidArgumentForPowerFunction, message)
}

fn within(value: f64, least: f64, most: f64) -> Result<f64, Error> {
    match value < least || value > most {
        true => Err(out_of_range("input is out of range")),
        false => Ok(value),
    }
}

/// `was_finite`: an infinite result is an overflow. `zero`: a zero is no underflow.
fn finite(value: f64, was_finite: bool, zero: bool) -> Result<f64, Error> {
    match was_finite {
        true if value.is_infinite() => Err(out_of_range("value out of range: overflow")),
        true if value == 0.0 && !zero => Err(out_of_range("value out of range: underflow")),
        _ => Ok(value),
    }
}

fn logarithm(value: f64, compute: fn(f64) -> f64) -> Result<f64, Error> {
    let problem = |what: &str| {
        let message = format!("cannot take logarithm of {what}");
        Err(Error::new(SqlState::InvalidArgumentForLogarithm, message))
    };
    match value {
        0.0 => problem("zero"),
        value if value < 0.0 => problem("a negative number"),
        value => Ok(compute(value)),
    }
}

fn acos(x: f64) -> Result<f64, Error> {
    within(x, -1.0, 1.0).map(f64::acos)
}

fn acosh(x: f64) -> Result<f64, Error> {
    within(x, 1.0, f64::INFINITY).map(f64::acosh)
}

fn asin(x: f64) -> Result<f64, Error> {
    within(x, -1.0, 1.0).map(f64::asin)
}

fn atanh(x: f64) -> Result<f64, Error> {
    within(x, -1.0, 1.0).map(f64::atanh)
}

fn exp(x: f64) -> Result<f64, Error> {
    finite(x.exp(), x.is_finite(), false)
}

fn ln(x: f64) -> Result<f64, Error> {
    logarithm(x, f64::ln)
}

fn log10(x: f64) -> Result<f64, Error> {
    logarithm(x, f64::log10)
}

fn sqrt(x: f64) -> Result<f64, Error> {
    match x < 0.0 {
        true => Err(power_error("cannot take square root of a negative number")),
        false => Ok(x.sqrt()),
    }
}

/// `log(b, x)`
fn based(base: f64, value: f64) -> Answered {
    let (base, value) = (logarithm(base, f64::ln)?, logarithm(value, f64::ln)?);
    if base == 0.0 {
        return Err(Error::new(SqlState::DivisionByZero, "division by zero"));
    }
    Ok(Answer::Float8(value / base))
}

/// `dpow` in `float.c`.
fn power(base: f64, exponent: f64) -> Result<f64, Error> {
    if base == 0.0 && exponent < 0.0 {
        return Err(power_error("zero raised to a negative power is undefined"));
    }
    if base < 0.0 && base.is_finite() && exponent.is_finite() && exponent.fract() != 0.0 {
        return Err(power_error("a negative number raised to a non-integer power yields a complex result"));
    }
    finite(base.powf(exponent), base.is_finite() && exponent.is_finite(), base == 0.0)
}

/// Exact for whole exponents as far as 38 digits go.
fn decimal_power(base: &Given<'_>, exponent: &Given<'_>, scale: i8) -> Answered {
    let ((base, base_scale), (exponent, exponent_scale)) = (decimal(base), decimal(exponent));
    let one = 10i128.pow(exponent_scale.max(0).unsigned_abs().into());
    if exponent >= 0 && exponent % one == 0 {
        let times = u32::try_from(exponent / one).ok();
        let exact = times.and_then(|times| {
            let scale = u32::try_from(base_scale).ok()?.checked_mul(times)?;
            Some((base.checked_pow(times)?, i8::try_from(scale).ok()?))
        });
        if let Some((value, found)) = exact {
            return rescale(value, found, scale, true).map(Answer::Numeric).ok_or_else(numeric_overflow);
        }
    }
    let double = |value: i128, scale: i8| value as f64 / 10f64.powi(scale.into());
    let value = match power(double(base, base_scale), double(exponent, exponent_scale)) {
        Err(error) if error.message().ends_with("underflow") => 0.0,
        other => other?,
    };
    let scaled = (value * 10f64.powi(scale.into())).round();
    if scaled.abs() >= 1e38 {
        return Err(numeric_overflow());
    }
    Ok(Answer::Numeric(scaled as i128))
}

/// A number brought to `digits` after the point, in the scale of the result.
fn rescaled(number: &Given<'_>, digits: i64, scale: i8, rounds: bool) -> Answered {
    let (value, found) = decimal(number);
    // Fewer digits than any number has leave nothing.
    let digits = i8::try_from(digits.clamp(-40, found.into())).unwrap_or(found);
    let kept = rescale(value, found, digits, rounds).and_then(|kept| rescale(kept, digits, scale, rounds));
    kept.map(Answer::Numeric).ok_or_else(numeric_overflow)
}

/// `None` where 38 digits do not hold it.
fn rescale(value: i128, from: i8, to: i8, rounds: bool) -> Option<i128> {
    let shift = i32::from(to) - i32::from(from);
    let power = 10i128.checked_pow(shift.unsigned_abs());
    let result = match (shift >= 0, power) {
        (true, Some(power)) => value.checked_mul(power)?,
        (true, None) if value == 0 => 0,
        (true, None) => return None,
        (false, None) => 0,
        (false, Some(power)) => {
            let (quotient, rest) = (value / power, value % power);
            let up = rounds && rest.unsigned_abs() >= power.unsigned_abs() - rest.unsigned_abs();
            if up { quotient + value.signum() } else { quotient }
        }
    };
    (result.unsigned_abs() < 10u128.pow(38)).then_some(result)
}

/// `div(a, b)`: the whole part of the quotient.
fn quotient(left: &Given<'_>, right: &Given<'_>) -> Answered {
    let ((left, left_scale), (right, right_scale)) = (decimal(left), decimal(right));
    if right == 0 {
        return Err(Error::new(SqlState::DivisionByZero, "division by zero"));
    }
    let aligned = |value: i128, scale: i8, other: i8| {
        let more = u32::from(other.saturating_sub(scale).max(0).unsigned_abs());
        i256::from_i128(10).checked_pow(more).and_then(|power| i256::from_i128(value).checked_mul(power))
    };
    let whole = aligned(left, left_scale, right_scale)
        .zip(aligned(right, right_scale, left_scale))
        .and_then(|(left, right)| left.checked_div(right)?.to_i128());
    whole.map(Answer::Numeric).ok_or_else(numeric_overflow)
}

/// `width_bucket(operand, low, high, count)`
fn bucket(given: &[Given<'_>]) -> Answered {
    let (operand, low, high, count) =
        (float(&given[0]), float(&given[1]), float(&given[2]), whole(&given[3]));
    let refuse =
        |message: &str| Err(Error::new(SqlState::InvalidArgumentForWidthBucketFunction, message.to_owned()));
    if count <= 0 {
        return refuse("count must be greater than zero");
    }
    if operand.is_nan() || low.is_nan() || high.is_nan() {
        return refuse("operand, lower bound, and upper bound cannot be NaN");
    }
    if low.is_infinite() || high.is_infinite() {
        return refuse("lower and upper bounds must be finite");
    }
    if low == high {
        return refuse("lower bound cannot equal upper bound");
    }
    // Counted from the lower bound, which may be the greater number.
    let (place, width) = if low < high { (operand - low, high - low) } else { (low - operand, low - high) };
    let bucket = if place < 0.0 {
        0
    } else if place >= width {
        count + 1
    } else {
        ((place / width * count as f64) as i64 + 1).min(count)
    };
    match i32::try_from(bucket) {
        Ok(bucket) => Ok(Answer::Int(bucket.into())),
        Err(_) => Err(out_of_range("integer out of range")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_and_cut_at_a_digit() {
        let cases = [
            ((1789, 3), 2, 2, true, 179),
            ((1789, 3), 2, 2, false, 178),
            ((-25, 1), 0, 0, true, -3),
            ((15, 1), 3, 3, true, 1500),
            ((1250, 0), -2, 0, true, 1300),
            ((1250, 0), -2, 0, false, 1200),
            ((1250, 0), -99, 0, true, 0),
        ];
        for ((value, found), digits, scale, rounds, expected) in cases {
            let answer = rescaled(&Given::Numeric(value, found), digits, scale, rounds);
            assert_eq!(answer, Ok(Answer::Numeric(expected)), "{value} of {found} to {digits}");
        }
        let least = Given::Numeric(10i128.pow(37), 0);
        assert!(rescaled(&least, 0, 5, true).is_err());
        assert_eq!(asked_scale(&[(38, 16), (20, 0)], &[None, Some(20)]), 16);
        assert_eq!(asked_scale(&[(4, 3), (20, 0)], &[None, Some(2)]), 2);
    }

    #[test]
    fn powers_of_decimals_are_exact_where_they_can_be() {
        let power = |base, exponent| decimal_power(&base, &exponent, 16);
        let ten = 10i128.pow(16);
        assert_eq!(power(Given::Numeric(20, 1), Given::Numeric(3, 0)), Ok(Answer::Numeric(8 * ten)));
        assert_eq!(power(Given::Numeric(4, 0), Given::Numeric(5, 1)), Ok(Answer::Numeric(2 * ten)));
        assert!(power(Given::Numeric(0, 0), Given::Numeric(-1, 0)).is_err());
        assert!(power(Given::Numeric(10, 0), Given::Numeric(40, 0)).is_err());
    }
}
