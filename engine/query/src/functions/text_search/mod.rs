//! Full-text search: `to_tsvector`, `to_tsquery` and their kin, `@@`, `ts_rank`, and what makes vectors and queries of
//! others.
//!
//! The planner turns operators into calls of these (`planner/text_search.rs`), the AST pass puts the session's
//! configuration in where a call names none (`sql/text_search.rs`): all of them are immutable. A `tsvector` and a
//! `tsquery` are their canonical texts (`values/text_search`). An argument that is not marked as one is read as one
//! first: literals, parameters, and what DataFusion forgot the type of. A constant is made ready once for all rows.

mod argument;
mod compose;
mod cover;
mod dictionary;
mod document;
mod matching;
mod rank;
mod rows;
mod states;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlType};

use self::{argument::Parameter, compose::Reading};
use super::{
    argument::Argument,
    constants::{all_constant, answer},
};
use crate::{
    error::{carry, undefined_function_call},
    output::{sql_type, typed_field},
};

pub use self::dictionary::{configuration as text_search_configuration, text_search_configurations};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    And,
    Concatenate,
    /// The name of a configuration.
    Configuration,
    CoverRank,
    Delete,
    Document,
    Filter,
    FromArray,
    Headline,
    /// The text as it is, which is known to be one: what was chosen from several.
    Known,
    Length,
    Match,
    /// The same of a text that becomes a document on the way: none of them is kept.
    MatchText,
    Nodes,
    Not,
    Or,
    Phrase,
    Query(Reading),
    Rank,
    SetWeight,
    Strip,
    ToArray,
    Tree,
}

const FUNCTIONS: &[(&str, Operation)] = &[
    ("array_to_tsvector", Operation::FromArray),
    ("numnode", Operation::Nodes),
    ("phraseto_tsquery", Operation::Query(Reading::Phrase)),
    ("plainto_tsquery", Operation::Query(Reading::Plain)),
    ("querytree", Operation::Tree),
    ("sepal_cast_regconfig", Operation::Configuration),
    ("sepal_match_text", Operation::MatchText),
    ("sepal_tsquery_known", Operation::Known),
    ("sepal_tsvector_known", Operation::Known),
    ("sepal_tsvector_length", Operation::Length),
    ("setweight", Operation::SetWeight),
    ("strip", Operation::Strip),
    ("to_tsquery", Operation::Query(Reading::Standard)),
    ("to_tsvector", Operation::Document),
    ("ts_delete", Operation::Delete),
    ("ts_filter", Operation::Filter),
    ("ts_headline", Operation::Headline),
    ("ts_match_vq", Operation::Match),
    ("ts_rank", Operation::Rank),
    ("ts_rank_cd", Operation::CoverRank),
    ("tsquery_and", Operation::And),
    ("tsquery_not", Operation::Not),
    ("tsquery_or", Operation::Or),
    ("tsquery_phrase", Operation::Phrase),
    ("tsvector_concat", Operation::Concatenate),
    ("tsvector_to_array", Operation::ToArray),
    ("websearch_to_tsquery", Operation::Query(Reading::Web)),
];

static BY_NAME: LazyLock<HashMap<&'static str, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let function = |&(name, operation): &(&'static str, Operation)| {
        let signature = Signature::variadic_any(Volatility::Immutable);
        (name, Arc::new(ScalarUDF::from(TextSearchFunction { name, operation, signature })))
    };
    FUNCTIONS.iter().map(function).collect()
});

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    BY_NAME.values().map(Arc::clone).collect()
}

/// A call of one of these functions.
pub fn text_search_call(name: &str, arguments: Vec<Expr>) -> Result<Expr> {
    match BY_NAME.get(name) {
        Some(function) => Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), arguments))),
        None => Err(carry(Error::bug(format!("{name} is not registered")))),
    }
}

/// What a function of full-text search gives, for parameters and columns beside it: `None` for any other function.
pub fn text_search_result(name: &str) -> Option<SqlType> {
    let (name, operation) = FUNCTIONS.iter().find(|(function, _)| *function == name)?;
    Some(operation.result(name))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextSearchFunction {
    name: &'static str,
    operation: Operation,
    signature: Signature,
}

impl Operation {
    fn result(self, name: &str) -> SqlType {
        match self {
            Self::Configuration | Self::Headline | Self::Tree => SqlType::Text,
            Self::CoverRank | Self::Rank => SqlType::Float4,
            Self::Length | Self::Nodes => SqlType::Int4,
            Self::Match | Self::MatchText => SqlType::Bool,
            Self::ToArray => SqlType::Array(Box::new(SqlType::Text)),
            Self::And | Self::Not | Self::Or | Self::Phrase | Self::Query(_) => SqlType::TsQuery,
            Self::Known if name == "sepal_tsquery_known" => SqlType::TsQuery,
            Self::Concatenate
            | Self::Delete
            | Self::Document
            | Self::Filter
            | Self::FromArray
            | Self::Known
            | Self::SetWeight
            | Self::Strip => SqlType::TsVector,
        }
    }

    /// What the arguments of a call must be; `None` where it has too few or too many.
    fn parameters(self, fields: &[FieldRef]) -> Option<&'static [Parameter]> {
        use Parameter::{Integer, Query, Text, Texts, Vector, Weights};
        let second = fields.get(1).map(|field| field.data_type());
        let last = fields.last().map(|field| field.data_type());
        let parameters: &'static [Parameter] = match (self, fields.len()) {
            (Self::Configuration, 1) => &[Text],
            (Self::Document | Self::Query(_), 2) => &[Text, Text],
            (Self::FromArray, 1) => &[Texts],
            (Self::Strip | Self::Length | Self::ToArray, 1) => &[Vector],
            (Self::Nodes | Self::Not | Self::Tree, 1) => &[Query],
            (Self::And | Self::Or | Self::Phrase, 2) => &[Query, Query],
            (Self::Phrase, 3) => &[Query, Query, Integer],
            (Self::Match, 2) => &[Vector, Query],
            (Self::MatchText, 3) => &[Text, Text, Query],
            (Self::Concatenate, 2) => &[Vector, Vector],
            (Self::SetWeight, 2) => &[Vector, Text],
            (Self::SetWeight, 3) => &[Vector, Text, Texts],
            (Self::Delete, 2) if second.is_some_and(is_list) => &[Vector, Texts],
            (Self::Delete, 2) => &[Vector, Text],
            (Self::Filter, 2) => &[Vector, Texts],
            (Self::Rank | Self::CoverRank, 2) => &[Vector, Query],
            (Self::Rank | Self::CoverRank, 3) if last.is_some_and(DataType::is_integer) => {
                &[Vector, Query, Integer]
            }
            (Self::Rank | Self::CoverRank, 3) => &[Weights, Vector, Query],
            (Self::Rank | Self::CoverRank, 4) => &[Weights, Vector, Query, Integer],
            _ => return None,
        };
        Some(parameters)
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_))
}

impl ScalarUDFImpl for TextSearchFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&self.operation.result(self.name)))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if self.operation != Operation::Known {
            self.check(args.arg_fields)?;
        }
        let ty = self.operation.result(self.name);
        Ok(Arc::new(typed_field(self.name, arrow_type(&ty), &ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let (Operation::Known, [text]) = (self.operation, args.args.as_slice()) {
            return Ok(text.clone());
        }
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let arguments = self
            .check(&args.arg_fields)?
            .iter()
            .zip(args.args.iter().zip(&args.arg_fields))
            .map(|(parameter, (value, field))| Argument::new(value, field, &parameter.target()))
            .collect::<Result<Vec<Argument>>>()?;
        let results = rows::compute(self.operation, &arguments, rows).map_err(carry)?;
        answer(results, constant)
    }
}

impl TextSearchFunction {
    /// Errors: 42883 for arguments that it does not take, 0A000 for what PostgreSQL does and Sepal does not.
    fn check(&self, fields: &[FieldRef]) -> Result<&'static [Parameter]> {
        if self.operation == Operation::Headline {
            return Err(carry(Error::unsupported("ts_headline() is not supported")));
        }
        let types: Vec<SqlType> = fields.iter().map(|field| sql_type(field)).collect();
        if matches!(self.operation, Operation::Document | Operation::MatchText)
            && matches!(types.get(1), Some(SqlType::Json | SqlType::Jsonb))
        {
            let error = Error::unsupported("to_tsvector() of json and jsonb is not supported");
            return Err(carry(error.with_hint("Cast the value, or a part of it, to text.")));
        }
        let parameters = self.operation.parameters(fields).filter(|parameters| {
            let mut fits = parameters.iter().zip(fields).zip(&types);
            fits.all(|((parameter, field), ty)| parameter.accepts(field.data_type(), ty))
        });
        parameters.ok_or_else(|| carry(undefined_function_call(self.name, &types)))
    }
}
