//! What the arguments of a call must be.

use datafusion::arrow::datatypes::DataType;
use sepal_types::SqlType;

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

    /// As what it is read.
    pub(super) fn target(self) -> SqlType {
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
