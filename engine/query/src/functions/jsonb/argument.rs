//! The arguments of a call brought to what the function declares, and the column of its results.
//!
//! A constant argument is converted once and kept as one row, whatever the number of rows of the others.

use std::{borrow::Cow, sync::Arc};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Int32Builder, Int64Array, StringArray,
            StringBuilder,
        },
        datatypes::{DataType, Field, Int64Type},
    },
    common::Result,
    logical_expr::ColumnarValue,
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use super::Flavour;
use crate::{functions::convert, output::sql_type};

/// Most bytes of text in one batch of results; Arrow's offsets end at 2 GiB.
pub(super) const MAX_TEXT_BYTES: usize = 1 << 30;

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Any,
    Boolean,
    Integer,
    Json,
    /// `text[]`
    Keys,
    Text,
}

impl Parameter {
    /// Whether an argument of this Arrow type may stand here. What is text may be a literal or a parameter.
    pub(super) fn accepts(self, data_type: &DataType) -> bool {
        let text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let fits = match self {
            Self::Any => true,
            Self::Boolean => data_type == &DataType::Boolean,
            Self::Integer => data_type.is_integer(),
            Self::Json | Self::Text => text,
            Self::Keys => text || matches!(data_type, DataType::List(_) | DataType::LargeList(_)),
        };
        fits || data_type == &DataType::Null
    }

    fn target(self, flavour: Flavour) -> SqlType {
        match self {
            Self::Boolean => SqlType::Bool,
            Self::Integer => SqlType::Int8,
            Self::Json => flavour.sql_type(),
            Self::Keys => SqlType::Array(Box::new(SqlType::Text)),
            Self::Any | Self::Text => SqlType::Text,
        }
    }
}

/// An argument of a call.
pub(super) struct Argument {
    values: Values,
    constant: bool,
}

enum Values {
    Boolean(BooleanArray),
    Integer(Int64Array),
    Keys(Vec<Option<Vec<Option<String>>>>),
    Text(StringArray),
}

impl Argument {
    /// Errors: 22P02 and the others of the type's text form.
    pub(super) fn new(
        value: &ColumnarValue,
        field: &Field,
        parameter: Parameter,
        flavour: Flavour,
    ) -> Result<Self> {
        let (array, constant) = match value {
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
            ColumnarValue::Array(array) => (Arc::clone(array), false),
        };
        let (source, target) = (sql_type(field), parameter.target(flavour));
        let checked =
            parameter != Parameter::Json || source == SqlType::Jsonb || source == flavour.sql_type();
        let ready = checked && array.data_type() == &arrow_type(&target);
        let array = if ready { array } else { convert(&array, &source, &target)? };
        let values = match parameter {
            Parameter::Boolean => Values::Boolean(array.as_boolean().clone()),
            Parameter::Integer => Values::Integer(array.as_primitive::<Int64Type>().clone()),
            Parameter::Keys => Values::Keys(keys(&array)),
            Parameter::Any | Parameter::Json | Parameter::Text => {
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
            Values::Boolean(values) => values.is_null(row),
            Values::Integer(values) => values.is_null(row),
            Values::Keys(values) => values[row].is_none(),
            Values::Text(values) => values.is_null(row),
        }
    }

    pub(super) fn text(&self, row: usize) -> &str {
        match &self.values {
            Values::Text(values) => values.value(self.place(row)),
            _ => unreachable!("the function declares this argument as text"),
        }
    }

    pub(super) fn integer(&self, row: usize) -> i64 {
        match &self.values {
            Values::Integer(values) => values.value(self.place(row)),
            _ => unreachable!("the function declares this argument as an integer"),
        }
    }

    pub(super) fn boolean(&self, row: usize) -> bool {
        match &self.values {
            Values::Boolean(values) => values.value(self.place(row)),
            _ => unreachable!("the function declares this argument as a boolean"),
        }
    }

    pub(super) fn keys(&self, row: usize) -> &[Option<String>] {
        match &self.values {
            Values::Keys(values) => values[self.place(row)].as_deref().unwrap_or_default(),
            _ => unreachable!("the function declares this argument as text[]"),
        }
    }
}

fn keys(array: &ArrayRef) -> Vec<Option<Vec<Option<String>>>> {
    let lists = array.as_list::<i32>();
    let row = |row: usize| {
        let values = lists.value(row);
        values.as_string::<i32>().iter().map(|key| key.map(ToOwned::to_owned)).collect()
    };
    (0..lists.len()).map(|index| lists.is_valid(index).then(|| row(index))).collect()
}

/// What one row gives.
pub(super) enum Value<'a> {
    Boolean(bool),
    Integer(i32),
    Null,
    Text(Cow<'a, str>),
}

/// The column of results.
pub(super) enum Output {
    Boolean(BooleanBuilder),
    Integer(Int32Builder),
    Text(StringBuilder),
}

impl Output {
    pub(super) fn new(ty: &SqlType, rows: usize) -> Self {
        match ty {
            SqlType::Bool => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            SqlType::Int4 => Self::Integer(Int32Builder::with_capacity(rows)),
            _ => Self::Text(StringBuilder::with_capacity(rows, 0)),
        }
    }

    /// Errors: 54000 when the results of one batch are too long together.
    pub(super) fn append(&mut self, value: Value<'_>) -> sepal_types::Result<()> {
        match (self, value) {
            (Self::Boolean(values), Value::Boolean(value)) => values.append_value(value),
            (Self::Integer(values), Value::Integer(value)) => values.append_value(value),
            (Self::Text(values), Value::Text(value)) => {
                if values.values_slice().len() + value.len() > MAX_TEXT_BYTES {
                    let message = "the results of a jsonb function exceed 1 GiB in one batch";
                    return Err(Error::new(SqlState::ProgramLimitExceeded, message)
                        .with_hint("Select fewer rows at once, or a part of each value."));
                }
                values.append_value(value);
            }
            (Self::Boolean(values), _) => values.append_null(),
            (Self::Integer(values), _) => values.append_null(),
            (Self::Text(values), _) => values.append_null(),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> ArrayRef {
        match self {
            Self::Boolean(mut values) => Arc::new(values.finish()),
            Self::Integer(mut values) => Arc::new(values.finish()),
            Self::Text(mut values) => Arc::new(values.finish()),
        }
    }
}
