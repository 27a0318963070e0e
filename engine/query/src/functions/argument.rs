//! The arguments of a call brought to the types that its function declares.
//!
//! Called by functions that compute row after row (`jsonb`, `text_search`). A constant is converted once and kept as
//! one row, whatever the number of rows of the others.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray},
        datatypes::{Field, Float32Type, Int64Type},
    },
    common::Result,
    logical_expr::ColumnarValue,
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

use super::convert;
use crate::output::sql_type;

/// An argument of a call.
pub(super) struct Argument {
    values: Values,
    constant: bool,
}

enum Values {
    Boolean(BooleanArray),
    Integer(Int64Array),
    /// Of whatever type that is a text to Arrow.
    Text(StringArray),
    Texts(Vec<Option<Vec<Option<String>>>>),
    Weights(Vec<Option<Vec<Option<f32>>>>),
}

impl Argument {
    /// `target`: `boolean`, `bigint`, `text[]`, `real[]`, or one that is a text to Arrow.
    ///
    /// Errors: 22P02 and the others of the type's text form.
    pub(super) fn new(value: &ColumnarValue, field: &Field, target: &SqlType) -> Result<Self> {
        let (array, constant) = match value {
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
            ColumnarValue::Array(array) => (Arc::clone(array), false),
        };
        let source = sql_type(field);
        let ready = is_one(&source, target) && array.data_type() == &arrow_type(target);
        let array = if ready { array } else { convert(&array, &source, target)? };
        let values = match target {
            SqlType::Bool => Values::Boolean(array.as_boolean().clone()),
            SqlType::Int8 => Values::Integer(array.as_primitive::<Int64Type>().clone()),
            SqlType::Array(item) if **item == SqlType::Float4 => {
                Values::Weights(lists(&array, |items| items.as_primitive::<Float32Type>().iter().collect()))
            }
            SqlType::Array(_) => Values::Texts(lists(&array, |items| {
                items.as_string::<i32>().iter().map(|item| item.map(ToOwned::to_owned)).collect()
            })),
            _ => Values::Text(array.as_string::<i32>().clone()),
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
            Values::Text(values) => values.is_null(row),
            Values::Texts(values) => values[row].is_none(),
            Values::Weights(values) => values[row].is_none(),
        }
    }

    pub(super) fn boolean(&self, row: usize) -> bool {
        match &self.values {
            Values::Boolean(values) => values.value(self.place(row)),
            _ => unreachable!("the function declares this argument as a boolean"),
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

    /// `None` where it is something else.
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

/// Whether what is a value of the target to Arrow is one: any text may be no document, nor a `json` a `jsonb`.
fn is_one(source: &SqlType, target: &SqlType) -> bool {
    match target {
        SqlType::Json => matches!(source, SqlType::Json | SqlType::Jsonb),
        SqlType::Jsonb | SqlType::TsQuery | SqlType::TsVector => source == target,
        _ => true,
    }
}

fn lists<T>(array: &ArrayRef, read: impl Fn(&ArrayRef) -> Vec<T>) -> Vec<Option<Vec<T>>> {
    let lists = array.as_list::<i32>();
    (0..lists.len()).map(|row| lists.is_valid(row).then(|| read(&lists.value(row)))).collect()
}
