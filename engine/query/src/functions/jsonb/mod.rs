//! The functions behind the operators of `json` and `jsonb`, and those that SQL calls by name.
//!
//! The planner turns `->`, `@>` and their kin into calls of these (`planner/json_operators.rs`). A `jsonb` is its
//! canonical text, so that most answers are slices of it; nothing here builds a tree. An argument that is not
//! marked as `jsonb` is read as one first: literals, parameters, and what DataFusion forgot the type of.

mod aggregate;
mod argument;
mod build;
mod change;
mod path;
mod read;
mod rows;
#[cfg(test)]
mod tests;
mod text;

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        TypeSignature, Volatility, expr::ScalarFunction,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use self::argument::{Output, Parameter, Value};
use super::{
    argument::Argument,
    constants::{all_constant, answer},
};
use crate::{
    error::carry,
    output::{sql_type, typed_field},
    values::normalize_json,
};

pub use self::{
    aggregate::{add_json_aggregates, plan_json_aggregate},
    rows::{RowsFunction, json_rows},
};

/// Which of the two types a function reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Flavour {
    Json,
    Jsonb,
}

impl Flavour {
    fn sql_type(self) -> SqlType {
        match self {
            Self::Json => SqlType::Json,
            Self::Jsonb => SqlType::Jsonb,
        }
    }

    /// A value that was put together as `json` is written. Errors: those of `jsonb`'s text form.
    fn finish(self, text: String) -> sepal_types::Result<String> {
        match self {
            Self::Json => Ok(text),
            Self::Jsonb => normalize_json(&text),
        }
    }
}

/// How a part of a value is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Json,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    ArrayLength,
    BuildArray,
    BuildObject,
    /// `row_to_json` of names and values.
    BuildRow,
    /// A text that is equal for equal values.
    Comparable,
    Concatenate,
    Contains,
    DeleteIndex,
    DeleteKey,
    DeleteKeys,
    Element(Form),
    Exists,
    ExistsAll,
    ExistsAny,
    Field(Form),
    /// The text as it is, which is known to be the type's: elements of a list.
    Known,
    /// The path as one array, as the operators take it.
    Path(Form),
    Pretty,
    Set,
    /// The path step by step.
    Steps(Form),
    StripNulls,
    ToJson,
    TypeOf,
}

const FUNCTIONS: &[(&str, Operation, Flavour)] = &[
    ("json_array_element", Operation::Element(Form::Json), Flavour::Json),
    ("json_array_element_text", Operation::Element(Form::Text), Flavour::Json),
    ("json_array_length", Operation::ArrayLength, Flavour::Json),
    ("json_build_array", Operation::BuildArray, Flavour::Json),
    ("json_build_object", Operation::BuildObject, Flavour::Json),
    ("json_extract_path", Operation::Steps(Form::Json), Flavour::Json),
    ("json_extract_path_text", Operation::Steps(Form::Text), Flavour::Json),
    ("json_object_field", Operation::Field(Form::Json), Flavour::Json),
    ("json_object_field_text", Operation::Field(Form::Text), Flavour::Json),
    ("json_typeof", Operation::TypeOf, Flavour::Json),
    ("jsonb_array_element", Operation::Element(Form::Json), Flavour::Jsonb),
    ("jsonb_array_element_text", Operation::Element(Form::Text), Flavour::Jsonb),
    ("jsonb_array_length", Operation::ArrayLength, Flavour::Jsonb),
    ("jsonb_build_array", Operation::BuildArray, Flavour::Jsonb),
    ("jsonb_build_object", Operation::BuildObject, Flavour::Jsonb),
    ("jsonb_concat", Operation::Concatenate, Flavour::Jsonb),
    ("jsonb_contains", Operation::Contains, Flavour::Jsonb),
    ("jsonb_delete", Operation::DeleteKey, Flavour::Jsonb),
    ("jsonb_exists", Operation::Exists, Flavour::Jsonb),
    ("jsonb_exists_all", Operation::ExistsAll, Flavour::Jsonb),
    ("jsonb_exists_any", Operation::ExistsAny, Flavour::Jsonb),
    ("jsonb_extract_path", Operation::Steps(Form::Json), Flavour::Jsonb),
    ("jsonb_extract_path_text", Operation::Steps(Form::Text), Flavour::Jsonb),
    ("jsonb_object_field", Operation::Field(Form::Json), Flavour::Jsonb),
    ("jsonb_object_field_text", Operation::Field(Form::Text), Flavour::Jsonb),
    ("jsonb_pretty", Operation::Pretty, Flavour::Jsonb),
    ("jsonb_set", Operation::Set, Flavour::Jsonb),
    ("jsonb_strip_nulls", Operation::StripNulls, Flavour::Jsonb),
    ("jsonb_typeof", Operation::TypeOf, Flavour::Jsonb),
    ("sepal_json_known", Operation::Known, Flavour::Json),
    ("sepal_json_row", Operation::BuildRow, Flavour::Json),
    ("sepal_json_path", Operation::Path(Form::Json), Flavour::Json),
    ("sepal_json_path_text", Operation::Path(Form::Text), Flavour::Json),
    ("sepal_jsonb_comparable", Operation::Comparable, Flavour::Jsonb),
    ("sepal_jsonb_delete_index", Operation::DeleteIndex, Flavour::Jsonb),
    ("sepal_jsonb_delete_keys", Operation::DeleteKeys, Flavour::Jsonb),
    ("sepal_jsonb_known", Operation::Known, Flavour::Jsonb),
    ("sepal_jsonb_path", Operation::Path(Form::Json), Flavour::Jsonb),
    ("sepal_jsonb_path_text", Operation::Path(Form::Text), Flavour::Jsonb),
    ("to_json", Operation::ToJson, Flavour::Json),
    ("to_jsonb", Operation::ToJson, Flavour::Jsonb),
];

static BY_NAME: LazyLock<HashMap<&'static str, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let function = |&(name, operation, flavour): &(&'static str, Operation, Flavour)| {
        let signature = operation.signature();
        (name, Arc::new(ScalarUDF::from(JsonFunction { name, operation, flavour, signature })))
    };
    FUNCTIONS.iter().map(function).chain(path::functions()).collect()
});

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    BY_NAME.values().map(Arc::clone).chain(rows::functions()).collect()
}

/// A call of one of these functions.
pub fn json_call(name: &str, arguments: Vec<Expr>) -> Result<Expr> {
    match BY_NAME.get(name) {
        Some(function) => Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), arguments))),
        None => Err(carry(Error::bug(format!("{name} is not registered")))),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    name: &'static str,
    operation: Operation,
    flavour: Flavour,
    signature: Signature,
}

impl Operation {
    fn signature(self) -> Signature {
        let immutable = Volatility::Immutable;
        match self {
            Self::BuildArray | Self::BuildObject | Self::BuildRow => {
                Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], immutable)
            }
            Self::Set => Signature::one_of(vec![TypeSignature::Any(3), TypeSignature::Any(4)], immutable),
            Self::Steps(_) => Signature::variadic_any(immutable),
            _ => Signature::any(self.parameters().len(), immutable),
        }
    }

    /// What the arguments must be; the last one stands for all that follow.
    fn parameters(self) -> &'static [Parameter] {
        match self {
            Self::ArrayLength | Self::Comparable | Self::Pretty | Self::StripNulls | Self::TypeOf => {
                &[Parameter::Json]
            }
            Self::BuildArray | Self::BuildObject | Self::BuildRow | Self::Known | Self::ToJson => {
                &[Parameter::Any]
            }
            Self::Concatenate | Self::Contains => &[Parameter::Json, Parameter::Json],
            Self::DeleteIndex | Self::Element(_) => &[Parameter::Json, Parameter::Integer],
            Self::DeleteKey | Self::Exists | Self::Field(_) | Self::Steps(_) => {
                &[Parameter::Json, Parameter::Text]
            }
            Self::DeleteKeys | Self::ExistsAll | Self::ExistsAny | Self::Path(_) => {
                &[Parameter::Json, Parameter::Keys]
            }
            Self::Set => &[Parameter::Json, Parameter::Keys, Parameter::Json, Parameter::Boolean],
        }
    }

    fn parameter(self, position: usize) -> Parameter {
        let parameters = self.parameters();
        parameters.get(position).or(parameters.last()).copied().unwrap_or(Parameter::Any)
    }
}

impl ScalarUDFImpl for JsonFunction {
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
        let fits = |(position, field): (usize, &FieldRef)| {
            self.operation.parameter(position).accepts(field.data_type())
        };
        if !args.arg_fields.iter().enumerate().all(fits) {
            return Err(carry(self.undefined(args.arg_fields)));
        }
        let ty = self.result_type();
        Ok(Arc::new(typed_field(self.name, arrow_type(&ty), &ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let (Operation::Known, [text]) = (self.operation, args.args.as_slice()) {
            return Ok(text.clone());
        }
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let mut output = Output::new(&self.result_type(), rows);
        match self.operation {
            Operation::BuildArray | Operation::BuildObject | Operation::BuildRow | Operation::ToJson => {
                self.build(&args, rows, &mut output)?;
            }
            _ => {
                let arguments = self.arguments(&args)?;
                for row in 0..rows {
                    let value = if arguments.iter().any(|argument| argument.is_null(row)) {
                        Value::Null
                    } else {
                        self.evaluate(&arguments, row).map_err(carry)?
                    };
                    output.append(value).map_err(carry)?;
                }
            }
        }
        let array = output.finish();
        answer(array, constant)
    }
}

impl JsonFunction {
    fn result_type(&self) -> SqlType {
        match self.operation {
            Operation::ArrayLength => SqlType::Int4,
            Operation::Contains | Operation::Exists | Operation::ExistsAll | Operation::ExistsAny => {
                SqlType::Bool
            }
            Operation::Comparable | Operation::Pretty | Operation::TypeOf => SqlType::Text,
            Operation::Element(Form::Text)
            | Operation::Field(Form::Text)
            | Operation::Path(Form::Text)
            | Operation::Steps(Form::Text) => SqlType::Text,
            _ => self.flavour.sql_type(),
        }
    }

    fn undefined(&self, fields: &[FieldRef]) -> Error {
        let types: Vec<String> = fields.iter().map(|field| sql_type(field).display_name()).collect();
        crate::error::undefined_function(&format!("{}({})", self.name, types.join(", ")))
    }

    fn arguments(&self, args: &ScalarFunctionArgs) -> Result<Vec<Argument>> {
        args.args
            .iter()
            .zip(&args.arg_fields)
            .enumerate()
            .map(|(position, (value, field))| {
                Argument::new(value, field, &self.operation.parameter(position).target(self.flavour))
            })
            .collect()
    }

    fn build(&self, args: &ScalarFunctionArgs, rows: usize, output: &mut Output) -> Result<()> {
        let mut sources = Vec::with_capacity(args.args.len());
        for (value, field) in args.args.iter().zip(&args.arg_fields) {
            sources.push(match value {
                ColumnarValue::Scalar(scalar) => build::Source::new(&scalar.to_array()?, field, true)?,
                ColumnarValue::Array(array) => build::Source::new(array, field, false)?,
            });
        }
        for row in 0..rows {
            let text = match self.operation {
                Operation::BuildArray => build::array(&sources, row, self.flavour),
                Operation::BuildObject => build::object(&sources, row, self.flavour),
                Operation::BuildRow => build::row(&sources, row),
                _ => match sources.first().filter(|source| !source.is_null(row)) {
                    Some(source) => build::value(source, row, self.flavour),
                    None => {
                        output.append(Value::Null).map_err(carry)?;
                        continue;
                    }
                },
            };
            output.append(Value::Text(Cow::Owned(text.map_err(carry)?))).map_err(carry)?;
        }
        Ok(())
    }

    /// One row; no argument is NULL.
    fn evaluate<'a>(&self, arguments: &'a [Argument], row: usize) -> sepal_types::Result<Value<'a>> {
        let flavour = self.flavour;
        let json = arguments[0].text(row);
        let second = || &arguments[1];
        let keys = || second().texts(row).unwrap_or_default();
        let owned = |text: String| Value::Text(Cow::Owned(text));
        Ok(match self.operation {
            Operation::ArrayLength => Value::Integer(read::array_length(json)?),
            Operation::Comparable => Value::Text(text::comparable(json)),
            Operation::Concatenate => owned(change::concatenate(json, second().text(row))?),
            Operation::Contains => Value::Boolean(read::contains(json, second().text(row))),
            Operation::DeleteIndex => owned(change::delete_index(json, second().integer(row))?),
            Operation::DeleteKey => owned(change::delete_keys(json, &[second().text(row)])?),
            Operation::DeleteKeys => {
                let keys: Vec<&str> = keys().iter().flatten().map(String::as_str).collect();
                owned(change::delete_keys(json, &keys)?)
            }
            Operation::Element(form) => {
                self.part(form, read::element(json, second().integer(row), flavour))?
            }
            Operation::Exists => Value::Boolean(read::exists(json, second().text(row))),
            Operation::ExistsAll => {
                Value::Boolean(keys().iter().flatten().all(|key| read::exists(json, key)))
            }
            Operation::ExistsAny => {
                Value::Boolean(keys().iter().flatten().any(|key| read::exists(json, key)))
            }
            Operation::Field(form) => self.part(form, read::field(json, second().text(row), flavour))?,
            Operation::Path(form) => self.part(form, read::path(json, keys(), flavour))?,
            Operation::Pretty => owned(change::pretty(json)),
            Operation::Set => {
                let create = arguments.get(3).is_none_or(|argument| argument.boolean(row));
                owned(change::set(json, keys(), arguments[2].text(row), create)?)
            }
            Operation::Steps(form) => {
                let steps: Vec<Option<&str>> =
                    arguments[1..].iter().map(|step| Some(step.text(row))).collect();
                self.part(form, read::path(json, &steps, flavour))?
            }
            Operation::StripNulls => Value::Text(change::strip_nulls(json)),
            Operation::TypeOf => Value::Text(Cow::Borrowed(text::kind(json).name())),
            Operation::BuildArray
            | Operation::BuildObject
            | Operation::BuildRow
            | Operation::Known
            | Operation::ToJson => {
                return Err(Error::new(SqlState::InternalError, "these take their arguments as they are"));
            }
        })
    }

    fn part<'a>(&self, form: Form, part: Option<&'a str>) -> sepal_types::Result<Value<'a>> {
        let text = match (form, part) {
            (_, None) => None,
            (Form::Json, Some(part)) => Some(Cow::Borrowed(part)),
            (Form::Text, Some(part)) => read::plain(part, self.flavour)?,
        };
        Ok(text.map_or(Value::Null, Value::Text))
    }
}
