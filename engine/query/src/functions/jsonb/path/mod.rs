//! `jsonb_path_exists`, `jsonb_path_match`, `jsonb_path_query_first`, `jsonb_path_query_array`, `@?` and `@@`.
//!
//! A jsonpath is text that is read when it is used: once for a constant. A cast to `jsonpath` only checks it.

mod evaluate;
mod parse;
#[cfg(test)]
mod tests;
mod tokens;

use std::{borrow::Cow, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::Result,
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        TypeSignature, Volatility,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use self::{
    evaluate::{Failure, query},
    parse::{Path, parse},
};
use super::{
    Flavour,
    argument::{Output, Parameter, Value},
    text::{Kind, kind},
};
use crate::{
    error::{carry, undefined_function_call},
    functions::{
        argument::Argument,
        constants::{all_constant, answer},
    },
    output::{sql_type, typed_field},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    /// The path itself.
    Check,
    Exists,
    Match,
    QueryArray,
    QueryFirst,
}

/// With the number of arguments, and whether errors in the data are silenced if nothing is said.
const FUNCTIONS: [(&str, Operation, usize, bool); 7] = [
    ("jsonb_path_exists", Operation::Exists, 4, false),
    ("jsonb_path_exists_opr", Operation::Exists, 2, true),
    ("jsonb_path_match", Operation::Match, 4, false),
    ("jsonb_path_match_opr", Operation::Match, 2, true),
    ("jsonb_path_query_array", Operation::QueryArray, 4, false),
    ("jsonb_path_query_first", Operation::QueryFirst, 4, false),
    ("sepal_cast_jsonpath", Operation::Check, 1, false),
];

pub(super) fn functions() -> impl Iterator<Item = (&'static str, Arc<ScalarUDF>)> {
    FUNCTIONS.into_iter().map(|(name, operation, most, silent)| {
        let least = most.min(2);
        let signature =
            Signature::one_of((least..=most).map(TypeSignature::Any).collect(), Volatility::Immutable);
        (name, Arc::new(ScalarUDF::from(PathFunction { name, operation, silent, signature })))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PathFunction {
    name: &'static str,
    operation: Operation,
    silent: bool,
    signature: Signature,
}

impl PathFunction {
    fn parameter(&self, position: usize) -> Parameter {
        match (self.operation, position) {
            (Operation::Check, _) | (_, 1) => Parameter::Text,
            (_, 0 | 2) => Parameter::Json,
            _ => Parameter::Boolean,
        }
    }

    fn result_type(&self) -> SqlType {
        match self.operation {
            Operation::Check => SqlType::Text,
            Operation::Exists | Operation::Match => SqlType::Bool,
            Operation::QueryArray | Operation::QueryFirst => SqlType::Jsonb,
        }
    }

    /// One row; no argument is NULL.
    fn evaluate<'a>(
        &self,
        path: &'a Path,
        arguments: &'a [Argument],
        row: usize,
    ) -> sepal_types::Result<Value<'a>> {
        let variables = arguments.get(2).map_or("{}", |variables| variables.text(row));
        if kind(variables) != Kind::Object {
            let error = Error::new(SqlState::InvalidParameterValue, "\"vars\" argument is not an object");
            let detail = "Jsonpath parameters should be encoded as key-value pairs of \"vars\" object.";
            return Err(error.with_detail(detail));
        }
        let silent = arguments.get(3).map_or(self.silent, |silent| silent.boolean(row));
        let values = match query(path, arguments[0].text(row), variables) {
            Ok(values) => values,
            Err(Failure::Soft(_)) if silent && self.operation == Operation::QueryArray => Vec::new(),
            Err(Failure::Soft(_)) if silent => return Ok(Value::Null),
            Err(Failure::Soft(error) | Failure::Hard(error)) => return Err(error),
        };
        Ok(match self.operation {
            Operation::Exists => Value::Boolean(!values.is_empty()),
            Operation::Match => match values.as_slice() {
                [value] if kind(value) == Kind::Boolean => Value::Boolean(value.starts_with('t')),
                [value] if kind(value) == Kind::Null => Value::Null,
                _ if silent => Value::Null,
                _ => {
                    let state = SqlState::SingletonSqlJsonItemRequired;
                    return Err(Error::new(state, "single boolean result is expected"));
                }
            },
            Operation::QueryArray => Value::Text(Cow::Owned(format!("[{}]", values.join(", ")))),
            Operation::QueryFirst => values.into_iter().next().map_or(Value::Null, Value::Text),
            Operation::Check => Value::Null,
        })
    }

    fn rows(&self, arguments: &[Argument], rows: usize, output: &mut Output) -> sepal_types::Result<()> {
        let place = usize::from(self.operation != Operation::Check);
        let mut last: Option<(&str, Path)> = None;
        for row in 0..rows {
            if arguments.iter().any(|argument| argument.is_null(row)) {
                output.append(Value::Null)?;
                continue;
            }
            let text = arguments[place].text(row);
            let path = match last.take() {
                Some((same, path)) if same == text => path,
                _ => parse(text)?,
            };
            let (_, path) = last.insert((text, path));
            match self.operation {
                Operation::Check => output.append(Value::Text(Cow::Borrowed(text)))?,
                _ => output.append(self.evaluate(path, arguments, row)?)?,
            }
        }
        Ok(())
    }
}

impl ScalarUDFImpl for PathFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&self.result_type()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let fits =
            |(position, field): (usize, &FieldRef)| self.parameter(position).accepts(field.data_type());
        if !args.arg_fields.iter().enumerate().all(fits) {
            let types: Vec<_> = args.arg_fields.iter().map(|field| sql_type(field)).collect();
            return Err(carry(undefined_function_call(self.name, &types)));
        }
        let ty = self.result_type();
        Ok(Arc::new(typed_field(self.name, arrow_type(&ty), &ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let arguments = args
            .args
            .iter()
            .zip(&args.arg_fields)
            .enumerate()
            .map(|(position, (value, field))| {
                Argument::new(value, field, &self.parameter(position).target(Flavour::Jsonb))
            })
            .collect::<Result<Vec<Argument>>>()?;
        let mut output = Output::new(&self.result_type(), rows);
        self.rows(&arguments, rows, &mut output).map_err(carry)?;
        answer(output.finish(), constant)
    }
}
