//! What the arguments of a call must be, and the column of its results.

use std::{borrow::Cow, sync::Arc};

use datafusion::arrow::{
    array::{ArrayRef, BooleanBuilder, Int32Builder, StringBuilder},
    datatypes::DataType,
};
use sepal_types::{Error, SqlState, SqlType};

use super::Flavour;

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

    /// As what it is read.
    pub(super) fn target(self, flavour: Flavour) -> SqlType {
        match self {
            Self::Boolean => SqlType::Bool,
            Self::Integer => SqlType::Int8,
            Self::Json => flavour.sql_type(),
            Self::Keys => SqlType::Array(Box::new(SqlType::Text)),
            Self::Any | Self::Text => SqlType::Text,
        }
    }
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
