//! Looking along a jsonpath (`jsonpath_exec.c`): lax and strict, three-valued predicates.
//!
//! Values are canonical JSON: slices of the target, of the variables and of the path. Only what is computed is a text
//! of its own, and that is a scalar.

use std::{borrow::Cow, cmp::Ordering};

use sepal_types::{Error, SqlState};

use super::parse::{Comparison, Expr, Path, Predicate, Step};
use crate::{
    functions::jsonb::{
        Flavour,
        read::field,
        text::{Kind, items, kind, members, string},
    },
    values::quote_json,
};

type Item<'a> = Cow<'a, str>;

/// Why a path gives nothing.
pub(super) enum Failure {
    /// Whatever the caller says.
    Hard(Error),
    /// Silenced if the caller wants it; unknown within a predicate.
    Soft(Error),
}

type Found<'a> = Result<Vec<Item<'a>>, Failure>;
/// `None` is unknown.
type Truth = Result<Option<bool>, Error>;

fn soft<T>(state: SqlState, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Soft(Error::new(state, message)))
}

/// The values at a path, in order. `variables` is an object.
pub(super) fn query<'a>(path: &'a Path, target: &'a str, variables: &'a str) -> Found<'a> {
    let walk = Walk { root: target, variables, strict: path.strict };
    walk.values(&path.expr, Place { current: &Cow::Borrowed(target), size: 0 })
}

struct Walk<'a> {
    root: &'a str,
    variables: &'a str,
    strict: bool,
}

/// What `@` and `last` mean.
#[derive(Clone, Copy)]
struct Place<'p, 'a> {
    current: &'p Item<'a>,
    /// The length of the array whose subscripts are looked at.
    size: usize,
}

impl<'a> Walk<'a> {
    fn values(&self, expr: &'a Expr, place: Place<'_, 'a>) -> Found<'a> {
        Ok(vec![match expr {
            Expr::Root => Cow::Borrowed(self.root),
            Expr::Current => place.current.clone(),
            Expr::Last => match place.size.checked_sub(1) {
                Some(last) => Cow::Owned(last.to_string()),
                None => Cow::Borrowed("-1"),
            },
            Expr::Literal(token) => Cow::Borrowed(token.as_str()),
            Expr::Variable(name) => match field(self.variables, name, Flavour::Jsonb) {
                Some(value) => Cow::Borrowed(value),
                None => {
                    let message = format!("could not find jsonpath variable \"{name}\"");
                    return Err(Failure::Hard(Error::new(SqlState::UndefinedObject, message)));
                }
            },
            Expr::Predicate(predicate) => {
                Cow::Borrowed(match self.holds(predicate, place).map_err(Failure::Hard)? {
                    Some(true) => "true",
                    Some(false) => "false",
                    None => "null",
                })
            }
            Expr::Steps(first, steps) => {
                let mut values = self.values(first, place)?;
                for step in steps {
                    let mut next = Vec::new();
                    for value in values {
                        self.step(step, value, place, !self.strict, &mut next)?;
                    }
                    values = next;
                }
                return Ok(values);
            }
        }])
    }

    /// `unwrap`: an array stands for its elements where the step wants something else.
    fn step(
        &self,
        step: &'a Step,
        value: Item<'a>,
        place: Place<'_, 'a>,
        unwrap: bool,
        out: &mut Vec<Item<'a>>,
    ) -> Result<(), Failure> {
        let kind = kind(&value);
        let of_elements = matches!(step, Step::Member(_) | Step::AnyMember | Step::Filter(_));
        // What was computed is a scalar.
        let text = match &value {
            Cow::Borrowed(text) => *text,
            Cow::Owned(_) => "0",
        };
        if unwrap && of_elements && kind == Kind::Array {
            for item in items(text) {
                self.step(step, Cow::Borrowed(item), place, false, out)?;
            }
            return Ok(());
        }
        match step {
            Step::Member(key) => self.member(key, text, kind, out)?,
            Step::AnyMember if kind == Kind::Object => {
                out.extend(members(text).map(|(_, member)| Cow::Borrowed(member)));
            }
            Step::AnyMember => self.refuse_unless_lax(
                SqlState::SqlJsonObjectNotFound,
                "jsonpath wildcard member accessor can only be applied to an object",
            )?,
            Step::AnyElement if kind == Kind::Array => out.extend(items(text).map(Cow::Borrowed)),
            Step::AnyElement => {
                self.refuse_unless_lax(
                    SqlState::SqlJsonArrayNotFound,
                    "jsonpath wildcard array accessor can only be applied to an array",
                )?;
                out.push(value);
            }
            Step::Subscripts(subscripts) => {
                let elements: Vec<Item<'a>> = match kind {
                    Kind::Array => items(text).map(Cow::Borrowed).collect(),
                    _ => {
                        self.refuse_unless_lax(
                            SqlState::SqlJsonArrayNotFound,
                            "jsonpath array accessor can only be applied to an array",
                        )?;
                        vec![value]
                    }
                };
                self.subscripts(subscripts, &elements, place, out)?;
            }
            Step::Filter(predicate) => {
                let inner = Place { current: &value, ..place };
                if self.holds(predicate, inner).map_err(Failure::Hard)? == Some(true) {
                    out.push(value);
                }
            }
            Step::Size => {
                if kind != Kind::Array {
                    let message = "jsonpath item method .size() can only be applied to an array";
                    self.refuse_unless_lax(SqlState::SqlJsonArrayNotFound, message)?;
                }
                let size = if kind == Kind::Array { items(text).count() } else { 1 };
                out.push(Cow::Owned(size.to_string()));
            }
            Step::Type => out.push(Cow::Owned(quote_json(kind.name()))),
        }
        Ok(())
    }

    fn refuse_unless_lax(&self, state: SqlState, message: &str) -> Result<(), Failure> {
        if self.strict { soft(state, message) } else { Ok(()) }
    }

    fn member(&self, key: &str, text: &'a str, kind: Kind, out: &mut Vec<Item<'a>>) -> Result<(), Failure> {
        let state = SqlState::SqlJsonMemberNotFound;
        if kind != Kind::Object {
            return self
                .refuse_unless_lax(state, "jsonpath member accessor can only be applied to an object");
        }
        match field(text, key, Flavour::Jsonb) {
            Some(value) => out.push(Cow::Borrowed(value)),
            None => {
                self.refuse_unless_lax(
                    state,
                    &format!("JSON object does not contain key {}", quote_json(key)),
                )?;
            }
        }
        Ok(())
    }

    fn subscripts(
        &self,
        subscripts: &'a [(Expr, Option<Expr>)],
        elements: &[Item<'a>],
        place: Place<'_, 'a>,
        out: &mut Vec<Item<'a>>,
    ) -> Result<(), Failure> {
        let inner = Place { size: elements.len(), ..place };
        let size = i64::try_from(elements.len()).unwrap_or(i64::MAX);
        for (first, last) in subscripts {
            let first = self.position(first, inner)?;
            let last = match last {
                Some(last) => self.position(last, inner)?,
                None => first,
            };
            if self.strict && (first < 0 || first > last || last >= size) {
                let message = "jsonpath array subscript is out of bounds";
                return soft(SqlState::InvalidSqlJsonSubscript, message);
            }
            let (first, last) = (first.max(0), last.min(size - 1));
            for (element, _) in elements.iter().zip(0_i64..).filter(|(_, at)| (first..=last).contains(at)) {
                out.push(element.clone());
            }
        }
        Ok(())
    }

    /// Errors: softly, when it is no number that is a position.
    fn position(&self, expr: &'a Expr, place: Place<'_, 'a>) -> Result<i64, Failure> {
        let values = self.values(expr, place)?;
        let [number] = values.as_slice() else {
            let message = "jsonpath array subscript is not a single numeric value";
            return soft(SqlState::InvalidSqlJsonSubscript, message);
        };
        if kind(number) != Kind::Number {
            let message = "jsonpath array subscript is not a single numeric value";
            return soft(SqlState::InvalidSqlJsonSubscript, message);
        }
        let whole = number.split_once('.').map_or(&**number, |(whole, _)| whole);
        match whole.parse::<i32>() {
            Ok(position) => Ok(position.into()),
            Err(_) => {
                soft(SqlState::InvalidSqlJsonSubscript, "jsonpath array subscript is out of integer range")
            }
        }
    }

    fn holds(&self, predicate: &'a Predicate, place: Place<'_, 'a>) -> Truth {
        Ok(match predicate {
            Predicate::And(left, right) => match self.holds(left, place)? {
                Some(false) => Some(false),
                left => match self.holds(right, place)? {
                    Some(true) => left,
                    right => right,
                },
            },
            Predicate::Or(left, right) => match self.holds(left, place)? {
                Some(true) => Some(true),
                left => match self.holds(right, place)? {
                    Some(false) => left,
                    right => right,
                },
            },
            Predicate::Not(inner) => self.holds(inner, place)?.map(|holds| !holds),
            Predicate::IsUnknown(inner) => Some(self.holds(inner, place)?.is_none()),
            Predicate::Exists(expr) => self.known(expr, place, false)?.map(|values| !values.is_empty()),
            Predicate::Compare(comparison, left, right) => {
                let (left, right) = (self.known(left, place, true)?, self.known(right, place, true)?);
                self.any(left, right, |left, right| compared(*comparison, left, right))
            }
            Predicate::StartsWith(whole, initial) => {
                let (whole, initial) = (self.known(whole, place, true)?, self.known(initial, place, false)?);
                self.any(whole, initial, |whole, initial| {
                    let strings = kind(whole) == Kind::String && kind(initial) == Kind::String;
                    strings.then(|| string(whole).starts_with(&*string(initial)))
                })
            }
            Predicate::LikeRegex(expr, regex) => {
                let values = self.known(expr, place, true)?;
                self.any(values, Some(vec![Cow::Borrowed("null")]), |value, _| {
                    (kind(value) == Kind::String).then(|| regex.is_match(&string(value)))
                })
            }
        })
    }

    /// The values of an operand; `None` where that fails. `unwrap`: in lax mode the elements of arrays.
    fn known(
        &self,
        expr: &'a Expr,
        place: Place<'_, 'a>,
        unwrap: bool,
    ) -> Result<Option<Vec<Item<'a>>>, Error> {
        let values = match self.values(expr, place) {
            Ok(values) => values,
            Err(Failure::Soft(_)) => return Ok(None),
            Err(Failure::Hard(error)) => return Err(error),
        };
        if self.strict || !unwrap {
            return Ok(Some(values));
        }
        let mut unwrapped = Vec::with_capacity(values.len());
        for value in values {
            match value {
                Cow::Borrowed(text) if kind(text) == Kind::Array => {
                    unwrapped.extend(items(text).map(Cow::Borrowed));
                }
                other => unwrapped.push(other),
            }
        }
        Ok(Some(unwrapped))
    }

    /// Whether any pair passes: in lax mode the first that does decides, in strict mode one that is unknown.
    fn any(
        &self,
        left: Option<Vec<Item<'a>>>,
        right: Option<Vec<Item<'a>>>,
        passes: impl Fn(&str, &str) -> Option<bool>,
    ) -> Option<bool> {
        let (left, right) = (left?, right?);
        let (mut found, mut unknown) = (false, false);
        for (left, right) in left.iter().flat_map(|left| right.iter().map(move |right| (left, right))) {
            match passes(left, right) {
                None if self.strict => return None,
                None => unknown = true,
                Some(true) if !self.strict => return Some(true),
                Some(true) => found = true,
                Some(false) => {}
            }
        }
        if found || !unknown { Some(found) } else { None }
    }
}

fn compared(comparison: Comparison, left: &str, right: &str) -> Option<bool> {
    let order = match (kind(left), kind(right)) {
        (Kind::Null, Kind::Null) => Ordering::Equal,
        (Kind::Boolean, Kind::Boolean) => left.starts_with('t').cmp(&right.starts_with('t')),
        (Kind::Number, Kind::Number) => numbers(left, right),
        (Kind::String, Kind::String) => string(left).cmp(&string(right)),
        // Of different kinds, `null` is just not equal.
        (Kind::Null, _) | (_, Kind::Null) => return Some(comparison == Comparison::NotEqual),
        _ => return None,
    };
    Some(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::NotEqual => order.is_ne(),
    })
}

/// Numbers of a `jsonb`: digits without exponent, as many as there are.
fn numbers(left: &str, right: &str) -> Ordering {
    let parts = |number: &str| {
        let digits = number.trim_start_matches('-');
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let negative = number.starts_with('-') && !(whole.is_empty() && fraction.is_empty());
        (negative, whole.to_owned(), fraction.to_owned())
    };
    let (left, right) = (parts(left), parts(right));
    let size = || {
        let whole = left.1.len().cmp(&right.1.len()).then_with(|| left.1.cmp(&right.1));
        whole.then_with(|| left.2.cmp(&right.2))
    };
    match (left.0, right.0) {
        (false, false) => size(),
        (true, true) => size().reverse(),
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
    }
}
