//! `nextval`, `currval`, `lastval`, `setval` over sequences, those of serial and identity columns among them.
//!
//! Numbers are not returned by ROLLBACK.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray},
        compute::cast,
        datatypes::{DataType, Int64Type},
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use sepal_types::{Error, RelationName, SqlState};

use crate::{context::SequenceSource, error::carry};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    Current,
    Last,
    Next,
    Set,
}

#[derive(Debug)]
struct SequenceFunction {
    name: &'static str,
    call: Call,
    source: Arc<dyn SequenceSource>,
    signature: Signature,
}

/// Two calls are the same function when they have the same name: a statement has one source.
impl PartialEq for SequenceFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for SequenceFunction {}

impl std::hash::Hash for SequenceFunction {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The name of a sequence in `'public.items_id_seq'`, `'"Items_id_seq"'`, as Postgres reads a `regclass`.
///
/// Errors: 42602 for what is no name.
pub fn sequence_reference(text: &str) -> sepal_types::Result<RelationName> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            c if quoted => part.push(c),
            c => part.extend(c.to_lowercase()),
        }
    }
    parts.push(part);
    match parts.as_slice() {
        _ if quoted || parts.iter().any(String::is_empty) => {
            Err(Error::new(SqlState::InvalidName, "invalid name syntax"))
        }
        [name] => Ok(RelationName::bare(name)),
        // A part before these is the environment.
        [.., schema, name] => Ok(RelationName::qualified(schema, name)),
        [] => Err(Error::new(SqlState::InvalidName, "invalid name syntax")),
    }
}

/// The four functions over a session's sequences.
pub fn sequence_functions(source: &Arc<dyn SequenceSource>) -> Vec<Arc<ScalarUDF>> {
    [("nextval", Call::Next), ("currval", Call::Current), ("lastval", Call::Last), ("setval", Call::Set)]
        .into_iter()
        .map(|(name, call)| {
            let signature = match call {
                Call::Last => Signature::nullary(Volatility::Volatile),
                _ => Signature::variadic_any(Volatility::Volatile),
            };
            Arc::new(ScalarUDF::from(SequenceFunction { name, call, source: Arc::clone(source), signature }))
        })
        .collect()
}

impl ScalarUDFImpl for SequenceFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        if self.call == Call::Last {
            let last = self.source.last().map_err(carry)?;
            return Ok(ColumnarValue::Array(Arc::new(Int64Array::from(vec![last; rows]))));
        }
        let Some(names) = args.args.first() else {
            return Err(carry(Error::new(
                SqlState::UndefinedFunction,
                format!("function {}() does not exist", self.name),
            )));
        };
        let names = cast(&names.to_array(rows)?, &DataType::Utf8)?;
        let names = names.as_string::<i32>();
        if self.call == Call::Set {
            return self.set_values(names, &args.args[1..]);
        }
        let mut numbers = Vec::with_capacity(rows);
        for row in 0..rows {
            if names.is_null(row) {
                numbers.push(None);
                continue;
            }
            let name = names.value(row);
            let number = match self.call {
                Call::Current => self.source.current(name),
                _ => self.source.next(name),
            };
            numbers.push(Some(number.map_err(carry)?));
        }
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from(numbers))))
    }
}

impl SequenceFunction {
    /// `setval(name, value [, is_called])`; NULL where one of them is NULL, as Postgres' is strict.
    fn set_values(&self, names: &StringArray, rest: &[ColumnarValue]) -> Result<ColumnarValue> {
        let rows = names.len();
        let (Some(values), 1..=2) = (rest.first(), rest.len()) else {
            let message = "function setval() takes a sequence, a value and whether that was handed out";
            return Err(carry(Error::new(SqlState::UndefinedFunction, message)));
        };
        let values = cast(&values.to_array(rows)?, &DataType::Int64)?;
        let values = values.as_primitive::<Int64Type>();
        let called: ArrayRef = match rest.get(1) {
            Some(called) => cast(&called.to_array(rows)?, &DataType::Boolean)?,
            None => Arc::new(BooleanArray::from(vec![true; rows])),
        };
        let called = called.as_boolean();
        let mut numbers = Vec::with_capacity(rows);
        for row in 0..rows {
            let null = names.is_null(row) || values.is_null(row) || called.is_null(row);
            if !null {
                let (name, value) = (names.value(row), values.value(row));
                self.source.set(name, value, called.value(row)).map_err(carry)?;
            }
            numbers.push((!null).then(|| values.value(row)));
        }
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from(numbers))))
    }
}
