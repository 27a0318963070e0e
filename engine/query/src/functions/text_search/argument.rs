//! The arguments of a call brought to what the function declares.
//!
//! A constant is converted once and kept as one row, whatever the number of rows of the others.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int64Array, StringArray},
        datatypes::{DataType, Field, Float32Type, Int64Type},
    },
    common::Result,
    logical_expr::ColumnarValue,
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

use crate::{functions::convert, output::sql_type};

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Integer,
    Query,
    Text,
    /// `text[]`
    Texts,
    Vector,
    /// `real[]`
    Weights,
}

impl Parameter {
    /// Whether an argument of these types may stand here. What is text may be a literal or a parameter.
    pub(super) fn accepts(self, data_type: &DataType, ty: &SqlType) -> bool {
        let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let is_list = matches!(data_type, DataType::List(_) | DataType::LargeList(_));
        let is_marked = matches!(ty, SqlType::Json | SqlType::Jsonb | SqlType::TsQuery | SqlType::TsVector);
        let fits = match self {
            Self::Integer => data_type.is_integer(),
            Self::Query | Self::Text | Self::Vector => is_text && (!is_marked || *ty == self.target()),
            Self::Texts | Self::Weights => is_list || (is_text && !is_marked),
        };
        fits || data_type == &DataType::Null
    }

    fn target(self) -> SqlType {
        match self {
            Self::Integer => SqlType::Int8,
            Self::Query => SqlType::TsQuery,
            Self::Text => SqlType::Text,
            Self::Texts => SqlType::Array(Box::new(SqlType::Text)),
            Self::Vector => SqlType::TsVector,
            Self::Weights => SqlType::Array(Box::new(SqlType::Float4)),
        }
    }
}

/// An argument of a call.
pub(super) struct Argument {
    values: Values,
    constant: bool,
}

enum Values {
    Integer(Int64Array),
    Text(StringArray),
    Texts(Vec<Option<Vec<Option<String>>>>),
    Weights(Vec<Option<Vec<Option<f32>>>>),
}

impl Argument {
    /// Errors: those of the type's text form.
    pub(super) fn new(value: &ColumnarValue, field: &Field, parameter: Parameter) -> Result<Self> {
        let (array, constant) = match value {
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
            ColumnarValue::Array(array) => (Arc::clone(array), false),
        };
        let (source, target) = (sql_type(field), parameter.target());
        let is_known = parameter == Parameter::Text || source == target;
        let array = if is_known && array.data_type() == &arrow_type(&target) {
            array
        } else {
            convert(&array, &source, &target)?
        };
        let values = match parameter {
            Parameter::Integer => Values::Integer(array.as_primitive::<Int64Type>().clone()),
            Parameter::Texts => Values::Texts(lists(&array, |items| {
                items.as_string::<i32>().iter().map(|item| item.map(ToOwned::to_owned)).collect()
            })),
            Parameter::Weights => {
                Values::Weights(lists(&array, |items| items.as_primitive::<Float32Type>().iter().collect()))
            }
            Parameter::Query | Parameter::Text | Parameter::Vector => {
                Values::Text(array.as_string::<i32>().clone())
            }
        };
        Ok(Self { values, constant })
    }

    fn place(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        let row = self.place(row);
        match &self.values {
            Values::Integer(values) => values.is_null(row),
            Values::Text(values) => values.is_null(row),
            Values::Texts(values) => values[row].is_none(),
            Values::Weights(values) => values[row].is_none(),
        }
    }

    pub(super) fn integer(&self, row: usize) -> i64 {
        match &self.values {
            Values::Integer(values) => values.value(self.place(row)),
            _ => unreachable!("the function declares this argument as an integer"),
        }
    }

    pub(super) fn text(&self, row: usize) -> &str {
        match &self.values {
            Values::Text(values) => values.value(self.place(row)),
            _ => unreachable!("the function declares this argument as text"),
        }
    }

    /// `None` where it is one text.
    pub(super) fn texts(&self, row: usize) -> Option<&[Option<String>]> {
        match &self.values {
            Values::Texts(values) => Some(values[self.place(row)].as_deref().unwrap_or_default()),
            _ => None,
        }
    }

    /// `None` where it is something else.
    pub(super) fn weights(&self, row: usize) -> Option<&[Option<f32>]> {
        match &self.values {
            Values::Weights(values) => Some(values[self.place(row)].as_deref().unwrap_or_default()),
            _ => None,
        }
    }
}

fn lists<T>(array: &ArrayRef, read: impl Fn(&ArrayRef) -> Vec<T>) -> Vec<Option<Vec<T>>> {
    let lists = array.as_list::<i32>();
    (0..lists.len()).map(|row| lists.is_valid(row).then(|| read(&lists.value(row)))).collect()
}
