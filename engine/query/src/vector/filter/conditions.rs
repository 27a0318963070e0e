//! What a predicate asks of single columns: `user_id = $1`, `status IN (…)`, `day BETWEEN …`, AND and OR of those.
//!
//! Read from the physical predicate when a filter is made; answered by [`super::labels`] where the columns are indexed.
//! Asks for values only, never for NULL: that a condition is *true* is all that a filter wants to know, and of a NULL
//! none of these is. So AND and OR are what sets make of them.

use std::ops::Bound;

use datafusion::{
    arrow::{
        array::Array,
        datatypes::{DataType, Schema, TimeUnit},
    },
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{BinaryExpr, CastExpr, Column, InListExpr, Literal, NotExpr},
    },
    scalar::ScalarValue,
};

use crate::functions::ANY_EQUAL;

/// AND and OR within each other, at most: whoever writes more is evaluated.
const MOST_DEPTH: usize = 64;

/// A value as labels order it, which is the order of the columns that have them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    /// Of integers, dates, timestamps and booleans.
    Whole(i64),
    /// A UUID's bytes, the first one first.
    Wide(u128),
    /// By bytes, as in the collation C.
    Text(Box<str>),
}

/// The values between two bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub from: Bound<Value>,
    pub to: Bound<Value>,
}

/// What must be true of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The value of the column, by its position in the table, is in one of the spans.
    Within {
        column: usize,
        spans: Vec<Span>,
    },
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

impl Span {
    fn only(value: Value) -> Self {
        Self { from: Bound::Included(value.clone()), to: Bound::Included(value) }
    }

    /// What is in both.
    fn and(&self, other: &Self) -> Self {
        let from = match (inner(&self.from), inner(&other.from)) {
            (Some(own), Some(theirs)) if own > theirs || (own == theirs && is_open(&self.from)) => &self.from,
            (Some(_), None) => &self.from,
            _ => &other.from,
        };
        let to = match (inner(&self.to), inner(&other.to)) {
            (Some(own), Some(theirs)) if own < theirs || (own == theirs && is_open(&self.to)) => &self.to,
            (Some(_), None) => &self.to,
            _ => &other.to,
        };
        Self { from: from.clone(), to: to.clone() }
    }
}

fn inner(bound: &Bound<Value>) -> Option<&Value> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

fn is_open(bound: &Bound<Value>) -> bool {
    matches!(bound, Bound::Excluded(_))
}

impl Condition {
    /// `None` for whatever asks for more than values of columns.
    pub fn read(expr: &dyn PhysicalExpr, schema: &Schema) -> Option<Self> {
        Self::read_to(expr, schema, MOST_DEPTH)
    }

    fn read_to(expr: &dyn PhysicalExpr, schema: &Schema, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            let (left, right) = (binary.left().as_ref(), binary.right().as_ref());
            let both = || Some((Self::read_to(left, schema, depth)?, Self::read_to(right, schema, depth)?));
            return match binary.op() {
                Operator::And => both().map(|(left, right)| left.and(right)),
                Operator::Or => both().map(|(left, right)| left.or(right)),
                operator => comparison(left, *operator, right, schema)
                    .or_else(|| comparison(right, operator.swap()?, left, schema)),
            };
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>().filter(|list| !list.negated()) {
            let literals = list.list().iter().map(|item| item.downcast_ref::<Literal>().map(Literal::value));
            return among(list.expr().as_ref(), &literals.collect::<Option<Vec<_>>>()?, schema);
        }
        if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
            return any_of_array(call, schema);
        }
        if let Some(not) = expr.downcast_ref::<NotExpr>() {
            return is_bool(not.arg().as_ref(), schema, false);
        }
        is_bool(expr, schema, true)
    }

    fn and(mut self, other: Self) -> Self {
        if self.narrow(&other) {
            return self;
        }
        let mut all = Vec::new();
        for condition in [self, other] {
            match condition {
                Self::All(conditions) => all.extend(conditions),
                one => all.push(one),
            }
        }
        Self::All(all)
    }

    /// Two bounds of one column become one span; whether these are such.
    pub fn narrow(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Within { column, spans }, Self::Within { column: of, spans: others })
                if *column == *of =>
            {
                match (spans.as_mut_slice(), others.as_slice()) {
                    ([own], [theirs]) => {
                        *own = own.and(theirs);
                        true
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }

    /// Spans of one column are one condition.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Within { column, mut spans },
                Self::Within { column: other_column, spans: other_spans },
            ) if column == other_column => {
                spans.extend(other_spans);
                Self::Within { column, spans }
            }
            (Self::Any(mut any), other) => {
                any.push(other);
                Self::Any(any)
            }
            (one, other) => Self::Any(vec![one, other]),
        }
    }

    /// Calls with each column, perhaps more than once.
    pub fn each_column(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Self::Within { column, .. } => visit(*column),
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().for_each(|condition| condition.each_column(visit));
            }
        }
    }
}

/// `column <op> literal`
fn comparison(
    column: &dyn PhysicalExpr,
    operator: Operator,
    literal: &dyn PhysicalExpr,
    schema: &Schema,
) -> Option<Condition> {
    let (column, ty) = operand(column, schema)?;
    let literal = literal.downcast_ref::<Literal>()?.value();
    let spans = match (operator, value(literal, &ty)?) {
        (Operator::Eq, Some(value)) => vec![Span::only(value)],
        (Operator::NotEq, Some(value)) => vec![below(value.clone()), above(value)],
        (Operator::Lt, Some(value)) => vec![below(value)],
        (Operator::LtEq, Some(value)) => vec![Span { from: Bound::Unbounded, to: Bound::Included(value) }],
        (Operator::Gt, Some(value)) => vec![above(value)],
        (Operator::GtEq, Some(value)) => vec![Span { from: Bound::Included(value), to: Bound::Unbounded }],
        // No row is anything beside NULL.
        (
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq,
            None,
        ) => Vec::new(),
        _ => return None,
    };
    Some(Condition::Within { column, spans })
}

fn below(value: Value) -> Span {
    Span { from: Bound::Unbounded, to: Bound::Excluded(value) }
}

fn above(value: Value) -> Span {
    Span { from: Bound::Excluded(value), to: Bound::Unbounded }
}

/// `column IN (literals)`; a NULL among them equals nothing.
fn among(column: &dyn PhysicalExpr, literals: &[&ScalarValue], schema: &Schema) -> Option<Condition> {
    let (column, ty) = operand(column, schema)?;
    let values = literals.iter().map(|literal| value(literal, &ty)).collect::<Option<Vec<_>>>()?;
    Some(Condition::Within { column, spans: values.into_iter().flatten().map(Span::only).collect() })
}

/// `column = ANY (literal)`, which is planned as a call.
fn any_of_array(call: &ScalarFunctionExpr, schema: &Schema) -> Option<Condition> {
    let [array, column] = call.args() else { return None };
    let ScalarValue::List(list) = array.downcast_ref::<Literal>()?.value() else { return None };
    if call.fun().name() != ANY_EQUAL || list.is_null(0) {
        return None;
    }
    let items = list.value(0);
    let values: Vec<ScalarValue> = (0..items.len())
        .map(|position| ScalarValue::try_from_array(&items, position))
        .collect::<Result<_, _>>()
        .ok()?;
    among(column.as_ref(), &values.iter().collect::<Vec<_>>(), schema)
}

/// `flag`, or with `wanted` false `NOT flag`.
fn is_bool(expr: &dyn PhysicalExpr, schema: &Schema, wanted: bool) -> Option<Condition> {
    let (column, ty) = operand(expr, schema)?;
    let spans = vec![Span::only(Value::Whole(wanted.into()))];
    (ty == DataType::Boolean).then_some(Condition::Within { column, spans })
}

/// A column, and what it is compared as: by itself, or in a wider type that keeps values and order as they are.
fn operand(expr: &dyn PhysicalExpr, schema: &Schema) -> Option<(usize, DataType)> {
    let stored = |column: &Column| {
        let ty = schema.fields().get(column.index())?.data_type().clone();
        has_labels(&ty).then_some((column.index(), ty))
    };
    if let Some(column) = expr.downcast_ref::<Column>() {
        return stored(column);
    }
    let cast = expr.downcast_ref::<CastExpr>()?;
    let (column, from) = stored(cast.expr().downcast_ref::<Column>()?)?;
    let to = cast.cast_type();
    let is_wider = matches!(
        (&from, to),
        (DataType::Int16, DataType::Int32 | DataType::Int64)
            | (DataType::Int32, DataType::Int64)
            | (DataType::Utf8, DataType::LargeUtf8 | DataType::Utf8View)
    );
    is_wider.then(|| (column, to.clone()))
}

/// Whether labels are made for a stored column of this type.
pub(super) fn has_labels(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::FixedSizeBinary(16)
            | DataType::Utf8
    )
}

/// A literal of exactly this type: `Some(None)` for NULL, `None` for one that is of another type.
fn value(literal: &ScalarValue, ty: &DataType) -> Option<Option<Value>> {
    if literal.data_type() != *ty {
        return None;
    }
    if literal.is_null() {
        return Some(None);
    }
    let value = match literal {
        ScalarValue::Boolean(Some(value)) => Value::Whole((*value).into()),
        ScalarValue::Int16(Some(value)) => Value::Whole((*value).into()),
        ScalarValue::Int32(Some(value)) | ScalarValue::Date32(Some(value)) => Value::Whole((*value).into()),
        ScalarValue::Int64(Some(value)) | ScalarValue::TimestampMicrosecond(Some(value), _) => {
            Value::Whole(*value)
        }
        ScalarValue::FixedSizeBinary(_, Some(bytes)) => {
            Value::Wide(u128::from_be_bytes(bytes.as_slice().try_into().ok()?))
        }
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => Value::Text(text.as_str().into()),
        _ => return None,
    };
    Some(Some(value))
}
