//! Tests: comparisons, IS, IN, BETWEEN, LIKE, regular expressions, and functions with a syntax of their own.

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr as Ast, ValueWithSpan};

use super::super::plan::{Comparison, Expr, Test};
use super::super::ty::{Class, Ty};
use super::{Binder, Bound, Stop, Typed, no_operator};

impl Binder<'_> {
    /// IS …, IN, BETWEEN, LIKE, and the functions with a syntax of their own.
    pub(super) fn predicate(&mut self, ast: &Ast) -> Bound<Typed> {
        let expr = match ast {
            Ast::IsNull(value) => Expr::IsNull { value: Box::new(self.expr(value)?.0), negated: false },
            Ast::IsNotNull(value) => Expr::IsNull { value: Box::new(self.expr(value)?.0), negated: true },
            Ast::IsTrue(value) => self.is(value, Some(true), false)?,
            Ast::IsNotTrue(value) => self.is(value, Some(true), true)?,
            Ast::IsFalse(value) => self.is(value, Some(false), false)?,
            Ast::IsNotFalse(value) => self.is(value, Some(false), true)?,
            Ast::IsUnknown(value) => self.is(value, None, false)?,
            Ast::IsNotUnknown(value) => self.is(value, None, true)?,
            Ast::IsDistinctFrom(left, right) => self.distinct(left, right, false)?,
            Ast::IsNotDistinctFrom(left, right) => self.distinct(left, right, true)?,
            Ast::InList { expr, list, negated } => self.in_list(expr, list, *negated)?,
            Ast::Between { expr, negated, low, high } => {
                let from = self.compare(expr, Comparison::Ge, low)?;
                let to = self.compare(expr, Comparison::Le, high)?;
                let both = Expr::And(Box::new(from), Box::new(to));
                if *negated { Expr::Not(Box::new(both)) } else { both }
            }
            Ast::Like { negated, any: false, expr, pattern, escape_char } => {
                let escape = escape(escape_char.as_ref());
                self.text_test(expr, Test::Like { ignore_case: false, negated: *negated, escape }, pattern)?
            }
            Ast::ILike { negated, any: false, expr, pattern, escape_char } => {
                let escape = escape(escape_char.as_ref());
                self.text_test(expr, Test::Like { ignore_case: true, negated: *negated, escape }, pattern)?
            }
            _ => return self.spelled_function(ast),
        };
        Ok((expr, Ty::BOOL))
    }

    /// `position(a IN b)`, `substring(a FROM b)`, `trim(a)`, `floor(a)`.
    fn spelled_function(&mut self, ast: &Ast) -> Bound<Typed> {
        let (name, arguments): (&str, Vec<&Ast>) = match ast {
            Ast::Position { expr, r#in } => ("position", vec![expr, r#in]),
            Ast::Substring { expr, substring_from: Some(from), substring_for, .. } => {
                let mut arguments = vec![expr.as_ref(), from.as_ref()];
                arguments.extend(substring_for.as_deref());
                ("substring", arguments)
            }
            Ast::Trim { trim_where, trim_what, expr, trim_characters: None } => {
                let name = match trim_where {
                    None | Some(ast::TrimWhereField::Both) => "btrim",
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                };
                let mut arguments = vec![expr.as_ref()];
                arguments.extend(trim_what.as_deref());
                (name, arguments)
            }
            Ast::Floor { expr, field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                ("floor", vec![expr])
            }
            Ast::Ceil { expr, field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                ("ceil", vec![expr])
            }
            _ => return Err(Stop::Decline),
        };
        let mut typed = Vec::new();
        for argument in arguments {
            typed.push(self.expr(argument)?);
        }
        self.scalar_function(name, typed)
    }

    fn is(&mut self, value: &Ast, wanted: Option<bool>, negated: bool) -> Bound<Expr> {
        let value = self.condition(value)?;
        Ok(Expr::Is { value: Box::new(value), wanted, negated })
    }

    fn distinct(&mut self, left: &Ast, right: &Ast, negated: bool) -> Bound<Expr> {
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let (left, right, _) = self.meet(left, right, "=")?;
        Ok(Expr::DistinctFrom { left: Box::new(left), right: Box::new(right), negated })
    }

    fn in_list(&mut self, value: &Ast, list: &[Ast], negated: bool) -> Bound<Expr> {
        let (mut value, mut ty) = self.expr(value)?;
        let mut items = Vec::new();
        for item in list {
            items.push(self.expr(item)?);
        }
        // An untyped value takes the type of the first item that has one.
        if ty.is_unknown() {
            let typed = items.iter().map(|(_, ty)| ty).find(|ty| !ty.is_unknown());
            let wanted = typed.cloned().unwrap_or(Ty::TEXT);
            value = self.coerce((value, ty), &wanted)?;
            ty = wanted;
        }
        let mut bound = Vec::new();
        for (item, item_ty) in items {
            if ty.class() == Class::Int && item_ty.class() == Class::Float {
                return Err(Stop::Decline);
            }
            let Some(common) = ty.common(&item_ty) else {
                return Err(no_operator(&ty.name(), "=", &item_ty.name()));
            };
            let wanted = if common == Ty::TEXT { Ty::TEXT } else { ty.clone() };
            bound.push(self.coerce((item, item_ty), &wanted)?);
        }
        Ok(Expr::In { value: Box::new(value), list: bound, negated })
    }

    pub(super) fn compare(&mut self, left: &Ast, comparison: Comparison, right: &Ast) -> Bound<Expr> {
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let (left, right, _) = self.meet(left, right, symbol(comparison))?;
        Ok(Expr::Test(Test::Compare(comparison), Box::new(left), Box::new(right)))
    }

    /// LIKE and the regular-expression operators: both sides as text.
    pub(super) fn text_test(&mut self, left: &Ast, test: Test, right: &Ast) -> Bound<Expr> {
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let (left, right) = (self.coerce(left, &Ty::TEXT)?, self.coerce(right, &Ty::TEXT)?);
        Ok(Expr::Test(test, Box::new(left), Box::new(right)))
    }
}

fn escape(character: Option<&ValueWithSpan>) -> Option<char> {
    match character.map(|value| &value.value) {
        Some(ast::Value::SingleQuotedString(text)) => text.chars().next(),
        _ => Some('\\'),
    }
}

/// The test that an operator makes, also when written `OPERATOR(pg_catalog.~)`.
pub(super) fn test_of(operator: &BinaryOperator) -> Option<Test> {
    let regex = |ignore_case, negated| Test::Regex { ignore_case, negated };
    let like = |ignore_case, negated| Test::Like { ignore_case, negated, escape: Some('\\') };
    Some(match operator {
        BinaryOperator::Eq => Test::Compare(Comparison::Eq),
        BinaryOperator::NotEq => Test::Compare(Comparison::Ne),
        BinaryOperator::Lt => Test::Compare(Comparison::Lt),
        BinaryOperator::LtEq => Test::Compare(Comparison::Le),
        BinaryOperator::Gt => Test::Compare(Comparison::Gt),
        BinaryOperator::GtEq => Test::Compare(Comparison::Ge),
        BinaryOperator::PGRegexMatch => regex(false, false),
        BinaryOperator::PGRegexIMatch => regex(true, false),
        BinaryOperator::PGRegexNotMatch => regex(false, true),
        BinaryOperator::PGRegexNotIMatch => regex(true, true),
        BinaryOperator::PGLikeMatch => like(false, false),
        BinaryOperator::PGILikeMatch => like(true, false),
        BinaryOperator::PGNotLikeMatch => like(false, true),
        BinaryOperator::PGNotILikeMatch => like(true, true),
        BinaryOperator::PGCustomBinaryOperator(parts) => match parts.last()?.as_str() {
            "=" => Test::Compare(Comparison::Eq),
            "<>" | "!=" => Test::Compare(Comparison::Ne),
            "<" => Test::Compare(Comparison::Lt),
            "<=" => Test::Compare(Comparison::Le),
            ">" => Test::Compare(Comparison::Gt),
            ">=" => Test::Compare(Comparison::Ge),
            "~" => regex(false, false),
            "~*" => regex(true, false),
            "!~" => regex(false, true),
            "!~*" => regex(true, true),
            "~~" => like(false, false),
            "~~*" => like(true, false),
            "!~~" => like(false, true),
            "!~~*" => like(true, true),
            _ => return None,
        },
        _ => return None,
    })
}

const fn symbol(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => "=",
        Comparison::Ge => ">=",
        Comparison::Gt => ">",
        Comparison::Le => "<=",
        Comparison::Lt => "<",
        Comparison::Ne => "<>",
    }
}
