//! `nextval`, `currval`, `lastval`, `setval` over the sequences of serial and identity columns.
//!
//! A sequence is named `<table>_<column>_seq`, as Postgres names it. Numbers are not returned by ROLLBACK.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, Int64Array},
        datatypes::{DataType, Int64Type},
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use sepal_types::{Error, SqlState};

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
        let names = datafusion::arrow::compute::cast(&names.to_array(rows)?, &DataType::Utf8)?;
        let names = names.as_string::<i32>();
        let values = match (self.call, args.args.get(1)) {
            (Call::Set, Some(values)) => {
                Some(datafusion::arrow::compute::cast(&values.to_array(rows)?, &DataType::Int64)?)
            }
            _ => None,
        };
        let mut numbers = Vec::with_capacity(rows);
        for row in 0..rows {
            if names.is_null(row) {
                numbers.push(None);
                continue;
            }
            let name = names.value(row);
            numbers.push(Some(match (self.call, &values) {
                (Call::Current, _) => self.source.current(name).map_err(carry)?,
                (Call::Set, Some(values)) => {
                    let value = values.as_primitive::<Int64Type>().value(row);
                    self.source.set(name, value).map_err(carry)?;
                    value
                }
                _ => self.source.next(name).map_err(carry)?,
            }));
        }
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from(numbers))))
    }
}
