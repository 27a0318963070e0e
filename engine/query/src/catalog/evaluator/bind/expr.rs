//! Expressions: from the AST to typed, resolved ones. Called by `query` and `from`; runs nothing.

use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, BinaryOperator, Expr as Ast, Ident, Subscript, UnaryOperator, ValueWithSpan,
};
use sepal_types::{Error, SqlState};

use super::super::super::value::Value;
use super::super::plan::{Arithmetic, Comparison, Expr, Test};
use super::super::ty::{Class, Ty};
use super::predicate::test_of;
use super::{Binder, Bound, Stop, Typed, fold};

impl Binder<'_> {
    pub(super) fn expr(&mut self, ast: &Ast) -> Bound<Typed> {
        match ast {
            Ast::Identifier(name) => self.column(std::slice::from_ref(name)),
            Ast::CompoundIdentifier(parts) => self.column(parts),
            Ast::Value(value) => self.literal(value),
            Ast::Nested(inner) | Ast::Collate { expr: inner, .. } => self.expr(inner),
            Ast::Cast { expr, data_type, format: None, .. } => self.cast(expr, data_type),
            Ast::TypedString(typed) => {
                let literal = Ast::Value(typed.value.clone());
                self.cast(&literal, &typed.data_type)
            }
            Ast::BinaryOp { left, op, right } => self.binary(left, op, right),
            Ast::UnaryOp { op, expr } => self.unary(*op, expr),
            Ast::Function(function) => self.function(ast, function),
            Ast::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            Ast::Array(array) => {
                let mut items = Vec::new();
                for item in &array.elem {
                    items.push(self.expr(item)?);
                }
                let (items, ty) = self.meet_all(items)?;
                Ok((Expr::Array(items), ty.array()))
            }
            Ast::Tuple(items) => {
                let (mut values, mut types) = (Vec::new(), Vec::new());
                for (place, item) in items.iter().enumerate() {
                    let (value, ty) = self.expr(item)?;
                    let ty = if ty.is_unknown() { Ty::TEXT } else { ty };
                    values.push(value);
                    types.push((format!("f{}", place + 1), ty));
                }
                Ok((Expr::Row(values), Ty::Record(types.into())))
            }
            Ast::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            Ast::Subquery(_) | Ast::Exists { .. } | Ast::InSubquery { .. } => self.subquery(ast),
            Ast::AnyOp { left, compare_op, right, .. } => self.any_or_all(left, compare_op, right, false),
            Ast::AllOp { left, compare_op, right } => self.any_or_all(left, compare_op, right, true),
            _ => self.predicate(ast),
        }
    }

    fn literal(&mut self, value: &ValueWithSpan) -> Bound<Typed> {
        use ast::Value as Literal;
        Ok(match &value.value {
            Literal::Null => (Expr::Constant(Value::Null), Ty::UNKNOWN),
            Literal::Boolean(value) => (Expr::Constant(Value::Bool(*value)), Ty::BOOL),
            Literal::Number(text, _) => match text.parse::<i64>() {
                Ok(value) => {
                    let ty = if i32::try_from(value).is_ok() { Ty::INT4 } else { Ty::INT8 };
                    (Expr::Constant(Value::Int(value)), ty)
                }
                // A numeric, which the values here do not have: 0.1 + 0.2 is 0.3, and not nearly so.
                Err(_) => return Err(Stop::Decline),
            },
            Literal::SingleQuotedString(text)
            | Literal::EscapedStringLiteral(text)
            | Literal::UnicodeStringLiteral(text) => (Expr::Constant(Value::text(text)), Ty::UNKNOWN),
            Literal::DollarQuotedString(text) => (Expr::Constant(Value::text(&text.value)), Ty::UNKNOWN),
            Literal::Placeholder(name) => {
                let number: usize =
                    name.strip_prefix('$').and_then(|digits| digits.parse().ok()).ok_or(Stop::Decline)?;
                let place = number.checked_sub(1).ok_or(Stop::Decline)?;
                if place >= usize::from(u16::MAX) {
                    return Err(Stop::Decline);
                }
                if self.parameters.len() <= place {
                    self.parameters.resize(place + 1, None);
                }
                (Expr::Parameter(place), self.parameter_type_of_values(place))
            }
            _ => return Err(Stop::Decline),
        })
    }

    /// The type in which a parameter's value arrives: reg* ones are text until they are looked up.
    fn parameter_type_of_values(&self, place: usize) -> Ty {
        let ty = self.parameter_type(place);
        if ty.reg().is_some() { Ty::TEXT } else { ty }
    }

    fn unary(&mut self, operator: UnaryOperator, value: &Ast) -> Bound<Typed> {
        match operator {
            UnaryOperator::Not => Ok((Expr::Not(Box::new(self.condition(value)?)), Ty::BOOL)),
            UnaryOperator::Plus => self.expr(value),
            UnaryOperator::Minus => {
                let (value, ty) = self.expr(value)?;
                match ty.class() {
                    Class::Int | Class::Float => Ok((Expr::Negate(Box::new(value)), ty)),
                    _ => Err(Stop::Decline),
                }
            }
            _ => Err(Stop::Decline),
        }
    }

    fn binary(&mut self, left: &Ast, operator: &BinaryOperator, right: &Ast) -> Bound<Typed> {
        if let Some(test) = test_of(operator) {
            let expr = match test {
                Test::Compare(comparison) => self.compare(left, comparison, right)?,
                Test::Like { .. } | Test::Regex { .. } => self.text_test(left, test, right)?,
            };
            return Ok((expr, Ty::BOOL));
        }
        let operator = match operator {
            BinaryOperator::PGCustomBinaryOperator(parts) => match parts.last().map(String::as_str) {
                Some("||") => &BinaryOperator::StringConcat,
                Some("+") => &BinaryOperator::Plus,
                Some("-") => &BinaryOperator::Minus,
                _ => return Err(Stop::Decline),
            },
            other => other,
        };
        let arithmetic = match operator {
            BinaryOperator::And => {
                let (left, right) = (self.condition(left)?, self.condition(right)?);
                return Ok((Expr::And(Box::new(left), Box::new(right)), Ty::BOOL));
            }
            BinaryOperator::Or => {
                let (left, right) = (self.condition(left)?, self.condition(right)?);
                return Ok((Expr::Or(Box::new(left), Box::new(right)), Ty::BOOL));
            }
            BinaryOperator::StringConcat => return self.concat(left, right),
            BinaryOperator::Plus => Arithmetic::Add,
            BinaryOperator::Minus => Arithmetic::Subtract,
            BinaryOperator::Multiply => Arithmetic::Multiply,
            BinaryOperator::Divide => Arithmetic::Divide,
            BinaryOperator::Modulo => Arithmetic::Remainder,
            BinaryOperator::BitwiseAnd => Arithmetic::And,
            BinaryOperator::BitwiseOr => Arithmetic::Or,
            _ => return Err(Stop::Decline),
        };
        self.arithmetic(arithmetic, left, right)
    }

    fn arithmetic(&mut self, operator: Arithmetic, left: &Ast, right: &Ast) -> Bound<Typed> {
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let numeric = |ty: &Ty| matches!(ty.class(), Class::Int | Class::Float | Class::Unknown);
        if !numeric(&left.1) || !numeric(&right.1) || (left.1.is_unknown() && right.1.is_unknown()) {
            return Err(Stop::Decline);
        }
        let (left, right, ty) = self.meet(left, right, "+")?;
        Ok((Expr::Arithmetic(operator, Box::new(left), Box::new(right)), ty))
    }

    /// `||`: arrays, elements and arrays, or text.
    fn concat(&mut self, left: &Ast, right: &Ast) -> Bound<Typed> {
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let lists = (left.1.class() == Class::List, right.1.class() == Class::List);
        if lists == (false, false) {
            let (left, right) = (self.coerce(left, &Ty::TEXT)?, self.coerce(right, &Ty::TEXT)?);
            return Ok((Expr::Concat(Box::new(left), Box::new(right)), Ty::TEXT));
        }
        let ty = if lists.0 { left.1.clone() } else { right.1.clone() };
        let element = ty.element().ok_or(Stop::Decline)?;
        let mut sides = Vec::new();
        for (side, is_list) in [(left, lists.0), (right, lists.1)] {
            sides.push(if is_list || side.1.is_unknown() {
                let wanted = if is_list { side.1.clone() } else { ty.clone() };
                self.coerce(side, &wanted)?
            } else {
                Expr::Array(vec![self.coerce(side, &element)?])
            });
        }
        let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else { return Err(Stop::Decline) };
        Ok((Expr::JoinLists(Box::new(left), Box::new(right)), ty))
    }

    fn case(
        &mut self,
        operand: Option<&Ast>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&Ast>,
    ) -> Bound<Typed> {
        let (mut tests, mut results) = (Vec::new(), Vec::new());
        for when in conditions {
            tests.push(match operand {
                Some(operand) => self.compare(operand, Comparison::Eq, &when.condition)?,
                None => self.condition(&when.condition)?,
            });
            results.push(self.expr(&when.result)?);
        }
        results.push(match otherwise {
            Some(otherwise) => self.expr(otherwise)?,
            None => (Expr::Constant(Value::Null), Ty::UNKNOWN),
        });
        let (mut results, ty) = self.meet_all(results)?;
        let otherwise = results.pop().ok_or(Stop::Decline)?;
        Ok((
            Expr::Case { whens: tests.into_iter().zip(results).collect(), otherwise: Box::new(otherwise) },
            ty,
        ))
    }

    /// `list[1]`, `list[1:2]`, `(record).field`.
    fn access(&mut self, root: &Ast, chain: &[AccessExpr]) -> Bound<Typed> {
        let ((mut value, mut ty), chain) = match dotted(root, chain) {
            Some(names) => self.dotted_column(&names, chain)?,
            None => (self.expr(root)?, chain),
        };
        for access in chain {
            match access {
                AccessExpr::Dot(Ast::Identifier(name)) => {
                    let Ty::Record(fields) = &ty else { return Err(Stop::Decline) };
                    let name = fold(name);
                    let place = fields.iter().position(|(field, _)| *field == name).ok_or_else(|| {
                        let message = format!("column \"{name}\" not found in data type record");
                        Error::new(SqlState::UndefinedColumn, message)
                    })?;
                    let field = fields[place].1.clone();
                    (value, ty) = (Expr::Field(Box::new(value), place), field);
                }
                AccessExpr::Subscript(Subscript::Index { index }) => {
                    let element = ty.element().ok_or(Stop::Decline)?;
                    let index = self.expr(index)?;
                    let index = Box::new(self.coerce(index, &Ty::INT8)?);
                    let lower = ty.lower_bound();
                    (value, ty) = (Expr::Index { list: Box::new(value), index, lower }, element);
                }
                AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride: None }) => {
                    let mut bound = |at: &Option<Ast>| -> Bound<Option<Box<Expr>>> {
                        let Some(at) = at else { return Ok(None) };
                        let typed = self.expr(at)?;
                        Ok(Some(Box::new(self.coerce(typed, &Ty::INT8)?)))
                    };
                    let (from, to) = (bound(lower_bound)?, bound(upper_bound)?);
                    let element = ty.element().ok_or(Stop::Decline)?;
                    let lower = ty.lower_bound();
                    (value, ty) = (Expr::Slice { list: Box::new(value), from, to, lower }, element.array());
                }
                _ => return Err(Stop::Decline),
            }
        }
        Ok((value, ty))
    }

    /// `table.column[1]` is parsed as `table` with `.column` and `[1]` on it: the longest run of names that is
    /// a column is taken as one, and the rest of the chain is left.
    fn dotted_column<'c>(
        &mut self,
        names: &[Ident],
        chain: &'c [AccessExpr],
    ) -> Bound<(Typed, &'c [AccessExpr])> {
        let dots = chain.iter().take_while(|access| matches!(access, AccessExpr::Dot(_))).count();
        let bare = names.len() - dots;
        for taken in (1..=dots).rev() {
            if let Ok(column) = self.column(&names[..bare + taken]) {
                return Ok((column, &chain[taken..]));
            }
        }
        Ok((self.column(&names[..bare])?, chain))
    }

    fn subquery(&mut self, ast: &Ast) -> Bound<Typed> {
        match ast {
            Ast::Subquery(query) => {
                let query = self.query(query)?;
                let [column] = query.columns.as_slice() else {
                    return Err(
                        Error::new(SqlState::SyntaxError, "subquery must return only one column").into()
                    );
                };
                let ty = column.ty.clone();
                Ok((Expr::Scalar(Box::new(query)), ty))
            }
            Ast::Exists { subquery, negated } => {
                let query = Box::new(self.query(subquery)?);
                Ok((Expr::Exists { query, negated: *negated }, Ty::BOOL))
            }
            Ast::InSubquery { expr, subquery, negated } => {
                let left = self.expr(expr)?;
                let (test, all) = if *negated { (Comparison::Ne, true) } else { (Comparison::Eq, false) };
                self.rows_test(left, Test::Compare(test), subquery, all)
            }
            _ => Err(Stop::Decline),
        }
    }

    /// `value test ANY (query)`.
    fn rows_test(&mut self, left: Typed, test: Test, query: &ast::Query, all: bool) -> Bound<Typed> {
        let query = self.query(query)?;
        let [column] = query.columns.as_slice() else { return Err(Stop::Decline) };
        let ty = column.ty.clone();
        if left.1.common(&ty).is_none() {
            return Err(super::no_operator(&left.1.name(), "=", &ty.name()));
        }
        let left = Box::new(self.coerce(left, if ty.is_unknown() { &Ty::TEXT } else { &ty })?);
        Ok((Expr::AnyOrAllRows { test, left, query: Box::new(query), all }, Ty::BOOL))
    }

    fn any_or_all(&mut self, left: &Ast, operator: &BinaryOperator, right: &Ast, all: bool) -> Bound<Typed> {
        let test = test_of(operator).ok_or(Stop::Decline)?;
        let left = self.expr(left)?;
        let bare = strip_parentheses(right);
        if let Ast::Subquery(query) = bare {
            return self.rows_test(left, test, query, all);
        }
        let (list, list_ty) = self.expr(bare)?;
        let (left, list) = if let Some(element) = list_ty.element() {
            let wanted = if element.is_unknown() { Ty::TEXT } else { element };
            if left.1.common(&wanted).is_none() {
                return Err(super::no_operator(&left.1.name(), "= ANY", &list_ty.name()));
            }
            (self.coerce(left, &wanted)?, list)
        } else {
            // A literal `'{…}'` or a parameter is an array of what stands on the left.
            let ty = if left.1.is_unknown() { Ty::TEXT } else { left.1.clone() };
            let array = ty.array();
            (self.coerce(left, &ty)?, self.coerce((list, list_ty), &array)?)
        };
        Ok((Expr::AnyOrAll { test, left: Box::new(left), list: Box::new(list), all }, Ty::BOOL))
    }
}

/// The names of the root and of the dots that follow it, when it is a bare name with a dot after it.
fn dotted(root: &Ast, chain: &[AccessExpr]) -> Option<Vec<Ident>> {
    let mut names = match root {
        Ast::Identifier(name) => vec![name.clone()],
        Ast::CompoundIdentifier(names) => names.clone(),
        _ => return None,
    };
    let bare = names.len();
    for access in chain {
        match access {
            AccessExpr::Dot(Ast::Identifier(name)) => names.push(name.clone()),
            AccessExpr::Dot(_) => return None,
            AccessExpr::Subscript(_) => break,
        }
    }
    (names.len() > bare).then_some(names)
}

fn strip_parentheses(ast: &Ast) -> &Ast {
    match ast {
        Ast::Nested(inner) => strip_parentheses(inner),
        other => other,
    }
}
