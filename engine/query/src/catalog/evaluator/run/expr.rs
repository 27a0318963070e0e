//! Expressions, with SQL's three-valued logic: NULL is unknown.

use std::cmp::Ordering;

use sepal_types::{Error, Result, SqlState};

use super::super::super::functions::{joined, like, matches};
use super::super::super::value::Value;
use super::super::plan::{Arithmetic, Comparison, Expr, Query, Test};
use super::{Frame, Run};

impl Run<'_> {
    pub(super) fn eval(&self, expr: &Expr, frame: &Frame<'_>) -> Result<Value> {
        Ok(match expr {
            Expr::Constant(value) => value.clone(),
            Expr::Column { depth, index } => self.column(*depth, *index, frame)?,
            Expr::Parameter(place) => self.parameters.get(*place).cloned().unwrap_or(Value::Null),
            Expr::Aggregate(place) => frame.aggregates.get(*place).cloned().unwrap_or(Value::Null),
            Expr::Window(place) => frame.windows.get(*place).cloned().unwrap_or(Value::Null),
            Expr::Set(place) => frame.sets.get(*place).cloned().unwrap_or(Value::Null),
            Expr::Once(id, inner) => self.once(*id, inner, frame)?,
            Expr::Cast { value, from, to } => self.cast(self.eval(value, frame)?, from, to)?,
            Expr::Call(function, arguments) => function.call(self.context, &self.all(arguments, frame)?)?,
            Expr::And(..) | Expr::Or(..) | Expr::Not(_) | Expr::Is { .. } | Expr::IsNull { .. } => {
                self.logic(expr, frame)?
            }
            Expr::Test(test, left, right) => {
                let (left, right) = (self.eval(left, frame)?, self.eval(right, frame)?);
                truth(self.test(*test, &left, &right)?)
            }
            Expr::DistinctFrom { left, right, negated } => {
                let same = self.eval(left, frame)? == self.eval(right, frame)?;
                Value::Bool(same == *negated)
            }
            Expr::In { value, list, negated } => {
                let value = self.eval(value, frame)?;
                let list = self.all(list, frame)?;
                let found = self.any_or_all(Test::Compare(Comparison::Eq), &value, &list, false)?;
                truth(found.map(|found| found != *negated))
            }
            Expr::Arithmetic(operator, left, right) => {
                arithmetic(*operator, &self.eval(left, frame)?, &self.eval(right, frame)?)?
            }
            Expr::Negate(value) => match self.eval(value, frame)? {
                Value::Int(value) => value.checked_neg().into(),
                Value::Float(value) => Value::Float(-value),
                _ => Value::Null,
            },
            Expr::Concat(left, right) => {
                let (left, right) = (self.eval(left, frame)?, self.eval(right, frame)?);
                if left.is_null() || right.is_null() {
                    Value::Null
                } else {
                    Value::text(left.to_text() + &right.to_text())
                }
            }
            Expr::JoinLists(left, right) => joined(&self.eval(left, frame)?, &self.eval(right, frame)?),
            Expr::Case { .. } | Expr::Coalesce(_) | Expr::NullIf(..) | Expr::Extreme { .. } => {
                self.choice(expr, frame)?
            }
            Expr::Array(items) => Value::List(self.all(items, frame)?.into()),
            Expr::Row(items) => Value::Record(self.all(items, frame)?.into()),
            Expr::Field(record, place) => match self.eval(record, frame)? {
                Value::Record(fields) => fields.get(*place).cloned().unwrap_or(Value::Null),
                _ => Value::Null,
            },
            Expr::Index { .. } | Expr::Slice { .. } => self.subscript(expr, frame)?,
            Expr::Scalar(_)
            | Expr::Exists { .. }
            | Expr::ArrayOfRows(_)
            | Expr::AnyOrAll { .. }
            | Expr::AnyOrAllRows { .. } => self.subquery(expr, frame)?,
        })
    }

    fn column(&self, depth: usize, index: usize, frame: &Frame<'_>) -> Result<Value> {
        let mut frame = frame;
        for _ in 0..depth {
            frame = frame.outer.ok_or_else(|| Error::bug("a column of a query that is not there"))?;
        }
        // A single group of no rows has no row to read from.
        Ok(frame.row.get(index).cloned().unwrap_or(Value::Null))
    }

    fn once(&self, id: usize, inner: &Expr, frame: &Frame<'_>) -> Result<Value> {
        if let Some(value) = self.constants.borrow().get(&id) {
            return Ok(value.clone());
        }
        let value = self.eval(inner, frame)?;
        self.constants.borrow_mut().insert(id, value.clone());
        Ok(value)
    }

    fn logic(&self, expr: &Expr, frame: &Frame<'_>) -> Result<Value> {
        Ok(match expr {
            Expr::And(left, right) => match self.eval(left, frame)?.as_bool() {
                Some(false) => Value::Bool(false),
                left => match (left, self.eval(right, frame)?.as_bool()) {
                    (_, Some(false)) => Value::Bool(false),
                    (Some(true), Some(true)) => Value::Bool(true),
                    _ => Value::Null,
                },
            },
            Expr::Or(left, right) => match self.eval(left, frame)?.as_bool() {
                Some(true) => Value::Bool(true),
                left => match (left, self.eval(right, frame)?.as_bool()) {
                    (_, Some(true)) => Value::Bool(true),
                    (Some(false), Some(false)) => Value::Bool(false),
                    _ => Value::Null,
                },
            },
            Expr::Not(inner) => truth(self.eval(inner, frame)?.as_bool().map(|value| !value)),
            Expr::Is { value, wanted, negated } => {
                Value::Bool((self.eval(value, frame)?.as_bool() == *wanted) != *negated)
            }
            Expr::IsNull { value, negated } => Value::Bool(self.eval(value, frame)?.is_null() != *negated),
            _ => return Err(Error::bug("not a logical expression")),
        })
    }

    fn choice(&self, expr: &Expr, frame: &Frame<'_>) -> Result<Value> {
        match expr {
            Expr::Case { whens, otherwise } => {
                for (condition, result) in whens {
                    if self.eval(condition, frame)?.as_bool() == Some(true) {
                        return self.eval(result, frame);
                    }
                }
                self.eval(otherwise, frame)
            }
            Expr::Coalesce(values) => {
                for value in values {
                    let value = self.eval(value, frame)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(Value::Null)
            }
            Expr::NullIf(left, right) => {
                let (left, right) = (self.eval(left, frame)?, self.eval(right, frame)?);
                let same = !left.is_null() && left == right;
                Ok(if same { Value::Null } else { left })
            }
            Expr::Extreme { values, largest } => {
                let values = self.all(values, frame)?.into_iter().filter(|value| !value.is_null());
                let found = if *largest { values.max_by(Value::order) } else { values.min_by(Value::order) };
                Ok(found.unwrap_or(Value::Null))
            }
            _ => Err(Error::bug("not a choice")),
        }
    }

    fn subscript(&self, expr: &Expr, frame: &Frame<'_>) -> Result<Value> {
        match expr {
            Expr::Index { list, index, lower } => {
                let (list, index) = (self.eval(list, frame)?, self.eval(index, frame)?);
                let place = index.as_int().and_then(|index| usize::try_from(index - lower).ok());
                let item = place.and_then(|place| list.as_list()?.get(place).cloned());
                Ok(item.unwrap_or(Value::Null))
            }
            Expr::Slice { list, from, to, lower } => {
                let list = self.eval(list, frame)?;
                let Some(items) = list.as_list() else { return Ok(Value::Null) };
                let bound = |at: &Option<Box<Expr>>| match at {
                    Some(at) => self.eval(at, frame).map(|value| value.as_int()),
                    None => Ok(None),
                };
                let start = bound(from)?.map_or(0, |at| usize::try_from(at - lower).unwrap_or(0));
                let end = bound(to)?.map_or(items.len(), |at| usize::try_from(at - lower + 1).unwrap_or(0));
                let end = end.min(items.len());
                Ok(Value::List(items.get(start..end).unwrap_or_default().iter().cloned().collect()))
            }
            _ => Err(Error::bug("not a subscript")),
        }
    }

    fn subquery(&self, expr: &Expr, frame: &Frame<'_>) -> Result<Value> {
        Ok(match expr {
            Expr::Scalar(query) => {
                let rows = self.query(query, Some(frame))?;
                match rows.as_slice() {
                    [] => Value::Null,
                    [row] => row.first().cloned().unwrap_or(Value::Null),
                    _ => {
                        let message = "more than one row returned by a subquery used as an expression";
                        return Err(Error::new(SqlState::CardinalityViolation, message));
                    }
                }
            }
            Expr::Exists { query, negated } => {
                Value::Bool(self.query(query, Some(frame))?.is_empty() == *negated)
            }
            Expr::ArrayOfRows(query) => Value::List(self.first_column(query, frame)?.into()),
            Expr::AnyOrAll { test, left, list, all } => {
                let (left, list) = (self.eval(left, frame)?, self.eval(list, frame)?);
                match list.as_list() {
                    Some(list) => truth(self.any_or_all(*test, &left, list, *all)?),
                    None => Value::Null,
                }
            }
            Expr::AnyOrAllRows { test, left, query, all } => {
                let left = self.eval(left, frame)?;
                truth(self.any_or_all(*test, &left, &self.first_column(query, frame)?, *all)?)
            }
            _ => return Err(Error::bug("not a subquery")),
        })
    }

    fn first_column(&self, query: &Query, frame: &Frame<'_>) -> Result<Vec<Value>> {
        let rows = self.query(query, Some(frame))?;
        Ok(rows.iter().map(|row| row.first().cloned().unwrap_or(Value::Null)).collect())
    }

    /// ANY: true if one is; ALL: false if one is; else unknown if one is unknown.
    fn any_or_all(&self, test: Test, left: &Value, list: &[Value], all: bool) -> Result<Option<bool>> {
        let mut unknown = false;
        for right in list {
            match self.test(test, left, right)? {
                Some(value) if value != all => return Ok(Some(value)),
                Some(_) => {}
                None => unknown = true,
            }
        }
        Ok(if unknown { None } else { Some(all) })
    }

    fn test(&self, test: Test, left: &Value, right: &Value) -> Result<Option<bool>> {
        self.spend()?;
        if left.is_null() || right.is_null() {
            return Ok(None);
        }
        Ok(Some(match test {
            Test::Compare(comparison) => {
                let order = left.order(right);
                match comparison {
                    Comparison::Eq => order == Ordering::Equal,
                    Comparison::Ge => order != Ordering::Less,
                    Comparison::Gt => order == Ordering::Greater,
                    Comparison::Le => order != Ordering::Greater,
                    Comparison::Lt => order == Ordering::Less,
                    Comparison::Ne => order != Ordering::Equal,
                }
            }
            Test::Like { ignore_case, negated, escape } => {
                like(&left.to_text(), &right.to_text(), escape, ignore_case) != negated
            }
            Test::Regex { ignore_case, negated } => {
                matches(&left.to_text(), &right.to_text(), ignore_case)? != negated
            }
        }))
    }
}

fn truth(value: Option<bool>) -> Value {
    value.into()
}

fn arithmetic(operator: Arithmetic, left: &Value, right: &Value) -> Result<Value> {
    if left.is_null() || right.is_null() {
        return Ok(Value::Null);
    }
    let out_of_range = || Error::new(SqlState::NumericValueOutOfRange, "bigint out of range");
    let by_zero = || Error::new(SqlState::DivisionByZero, "division by zero");
    if let (Value::Int(left), Value::Int(right)) = (left, right) {
        let (left, right) = (*left, *right);
        let value = match operator {
            Arithmetic::Add => left.checked_add(right),
            Arithmetic::Subtract => left.checked_sub(right),
            Arithmetic::Multiply => left.checked_mul(right),
            Arithmetic::Divide | Arithmetic::Remainder if right == 0 => return Err(by_zero()),
            Arithmetic::Divide => left.checked_div(right),
            Arithmetic::Remainder => left.checked_rem(right),
            Arithmetic::And => Some(left & right),
            Arithmetic::Or => Some(left | right),
        };
        return value.map(Value::Int).ok_or_else(out_of_range);
    }
    let (Some(left), Some(right)) = (left.as_float(), right.as_float()) else { return Ok(Value::Null) };
    Ok(Value::Float(match operator {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide | Arithmetic::Remainder if right == 0.0 => return Err(by_zero()),
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
        Arithmetic::And | Arithmetic::Or => {
            return Err(Error::new(
                SqlState::UndefinedFunction,
                "operator does not exist for fractions: & or |",
            ));
        }
    }))
}
