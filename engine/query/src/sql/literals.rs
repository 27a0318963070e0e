//! Number literals with the types that Postgres gives them.
//!
//! Postgres types an integer literal `integer` when it fits, else `bigint`, else `numeric`, and everything with
//! a point or an exponent `numeric`; a minus before a literal belongs to it. DataFusion says Int64, UInt64 or a
//! decimal. Only where the type shows (SELECT lists, what must match them, VALUES) is an integer given its type
//! by an explicit cast: elsewhere DataFusion's own coercion gives the same rows, and scans see plain literals.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, CastKind, DataType, Expr, UnaryOperator, Value, VisitMut, VisitorMut,
};
use sepal_types::SqlType;

use super::rewrite::call;

/// Decimal digits that Sepal's numeric holds.
const MAX_DIGITS: usize = 38;

/// Types the integer literals of one output expression.
pub fn type_integers(expr: &mut Expr) {
    let _ = expr.visit(&mut IntegerTyper { skip: 0 });
}

/// As [`type_integers`], for a list that may hold the ordinals of output columns: those stay bare.
pub fn type_integers_beside_ordinals<'a>(exprs: impl Iterator<Item = &'a mut Expr>) {
    for expr in exprs.filter(|expr| number(expr).is_none()) {
        type_integers(expr);
    }
}

/// `-1` as one literal (`doNegate`, `gram.y`): `-2147483648` is an integer, though `2147483648` is none.
pub fn fold_sign(expr: &mut Expr) {
    if let Expr::UnaryOp { op: sign @ (UnaryOperator::Minus | UnaryOperator::Plus), expr: operand } = &*expr
        && is_power(operand)
    {
        *expr = signed(*sign, operand.as_ref().clone());
    }
    if let Expr::UnaryOp { op: UnaryOperator::Minus, expr: operand } = &*expr
        && let Some(digits) = number(operand)
        && !digits.starts_with('-')
    {
        *expr = Expr::Value(Value::Number(format!("-{digits}"), false).into());
    }
}

const fn is_power(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::PGExp, .. })
}

/// `-2 ^ 2` is 4: to PostgreSQL a sign is the first number's, to sqlparser the power's.
fn signed(sign: UnaryOperator, operand: Expr) -> Expr {
    match operand {
        Expr::BinaryOp { left, op: op @ BinaryOperator::PGExp, right } => {
            Expr::BinaryOp { left: Box::new(signed(sign, *left)), op, right }
        }
        other => Expr::UnaryOp { op: sign, expr: Box::new(other) },
    }
}

/// `LIMIT '10'`, as drivers write it that put values into the text themselves.
pub fn read_count(expr: &mut Expr) {
    if let Expr::Value(value) = &*expr
        && let Value::SingleQuotedString(text) = &value.value
        && let Ok(count) = text.trim().parse::<i64>()
    {
        *expr = Expr::Value(Value::Number(count.to_string(), false).into());
    }
}

/// The digits of a bare number.
pub fn number(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => Some(digits),
            _ => None,
        },
        _ => None,
    }
}

/// Spells a literal that DataFusion would read otherwise: with an exponent, or an integer past `bigint`. What
/// has more digits than `numeric` holds becomes a `float8`.
pub fn spell_number(expr: &mut Expr) {
    let Some(digits) = number(expr) else {
        return;
    };
    let digits = digits.replace('_', "");
    let spelled = if digits.contains(['e', 'E']) {
        match without_exponent(&digits) {
            Some(plain) => plain,
            None => {
                *expr = call("sepal_cast_float8", text(digits), None);
                return;
            }
        }
    } else if digits.parse::<i64>().is_ok() || digits.contains('.') {
        return;
    } else {
        digits
    };
    let length = spelled.trim_start_matches('-').len();
    if spelled.contains('.') {
        *expr = Expr::Value(Value::Number(spelled, false).into());
    } else if length <= MAX_DIGITS
        && spelled.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit())
    {
        let shape = SqlType::Numeric(u8::try_from(length).ok().map(|length| (length, 0)));
        *expr = call("sepal_cast_numeric", text(spelled), Some(shape.typmod()));
    }
}

/// A string literal.
pub fn text(text: String) -> Expr {
    Expr::Value(Value::SingleQuotedString(text).into())
}

/// The digits of a number that is read as one of these types: by the type's own parser, not by way of a decimal.
pub fn quoted_number(operand: &Expr, ty: &SqlType) -> Option<Expr> {
    let digits = number(operand)?;
    matches!(ty, SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_)).then(|| text(digits.to_owned()))
}

/// `1.5e-3` as `0.0015`; `None` when that takes more than 38 digits.
fn without_exponent(digits: &str) -> Option<String> {
    let (mantissa, exponent) = digits.split_once(['e', 'E'])?;
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent.parse().ok()?)?;
    let limit = i32::try_from(MAX_DIGITS).ok()?;
    if !(-limit..=limit).contains(&point) {
        return None;
    }
    let (whole, fraction) = match usize::try_from(point) {
        Ok(point) if point >= all.len() => (format!("{all}{}", "0".repeat(point - all.len())), String::new()),
        Ok(point) => (all[..point].to_owned(), all[point..].to_owned()),
        Err(_) => {
            let zeros = usize::try_from(point.unsigned_abs()).ok()?;
            (String::new(), format!("{}{all}", "0".repeat(zeros)))
        }
    };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let fits = whole.len() + fraction.len() <= MAX_DIGITS;
    let point = if fraction.is_empty() { "" } else { "." };
    fits.then(|| format!("{sign}{whole}{point}{fraction}"))
}

/// Inside a window function's call arguments must stay literals (`ntile(4)`), so nothing is touched there.
struct IntegerTyper {
    skip: u32,
}

impl VisitorMut for IntegerTyper {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        fold_sign(expr);
        if is_opaque(expr) {
            self.skip += 1;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if is_opaque(expr) {
            self.skip -= 1;
        } else if self.skip == 0 && fits_int4(expr) {
            *expr = Expr::Cast {
                kind: CastKind::DoubleColon,
                expr: Box::new(expr.clone()),
                data_type: DataType::Integer(None),
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    }
}

fn is_opaque(expr: &Expr) -> bool {
    match expr {
        Expr::Function(function) => function.over.is_some() || takes_literals(&function.name),
        Expr::Cast { .. } | Expr::Interval(_) | Expr::Subquery(_) | Expr::CompoundFieldAccess { .. } => true,
        _ => false,
    }
}

/// Functions of DataFusion that insist on literal arguments.
fn takes_literals(name: &ast::ObjectName) -> bool {
    let name = name.to_string().to_lowercase();
    name.starts_with("approx_")
        || name.starts_with("sepal_")
        || matches!(name.as_str(), "nth_value" | "subvector" | "round" | "trunc")
}

fn fits_int4(expr: &Expr) -> bool {
    number(expr).is_some_and(|digits| digits.parse::<i32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_spelled_as_postgres_reads_them() {
        let cases = [
            ("1e3", "sepal_cast_numeric('1000', 262148)"),
            ("1.5e-3", "0.0015"),
            ("-1.25e1", "-12.5"),
            ("1e-7", "0.0000001"),
            ("1e39", "sepal_cast_float8('1e39')"),
            ("1.7976931348623157e308", "sepal_cast_float8('1.7976931348623157e308')"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775808", "sepal_cast_numeric('9223372036854775808', 1245188)"),
            ("0.10", "0.10"),
        ];
        for (input, output) in cases {
            let mut expr = Expr::Value(Value::Number(input.to_owned(), false).into());
            spell_number(&mut expr);
            assert_eq!(expr.to_string(), output, "{input}");
        }
    }
}
