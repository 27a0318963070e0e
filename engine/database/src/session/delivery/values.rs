//! The values of a statement: bound, or written in its text.
//!
//! A secret's value is text or bytes, whichever the client bound. What leaves here is wiped when dropped.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use sepal_crypto::unhex;
use sepal_query::sql::delivery::{Delivery, SecretSource, Value};
use sepal_types::{Error, Result, SqlState, SqlType};
use zeroize::Zeroizing;

/// What was bound to a statement.
#[derive(Clone, Copy)]
pub struct Bound<'a>(&'a [ArrayRef]);

/// The types of a statement's parameters: text unless the client declared `bytea`; `bytea` for a plugin's bytes and
/// signature unless it declared text.
///
/// Errors: 42804 for any other declared type.
pub fn parameter_types(statement: &Delivery, declared: &[u32]) -> Result<Vec<SqlType>> {
    let binary = binary_parameters(statement);
    (0..statement.parameters())
        .map(|at| match declared.get(at).copied().and_then(SqlType::from_oid) {
            None | Some(SqlType::Unknown) if binary.contains(&(at + 1)) => Ok(SqlType::Bytea),
            None | Some(SqlType::Unknown | SqlType::Text | SqlType::Varchar(_)) => Ok(SqlType::Text),
            Some(SqlType::Bytea) => Ok(SqlType::Bytea),
            Some(other) => Err(Error::new(
                SqlState::DatatypeMismatch,
                format!("parameter ${} must be text or bytea, not {}", at + 1, other.display_name()),
            )),
        })
        .collect()
}

/// The numbers of the parameters that are a plugin's bytes or their signature.
fn binary_parameters(statement: &Delivery) -> Vec<usize> {
    let values = match statement {
        Delivery::CreatePlugin { component, signature, .. }
        | Delivery::UpdatePlugin { component, signature, .. } => [Some(component), signature.as_ref()],
        _ => [None, None],
    };
    values
        .into_iter()
        .flatten()
        .filter_map(|value| match value {
            Value::Parameter(number) => Some(*number),
            Value::Literal(_) => None,
        })
        .collect()
}

/// Whether a secret stands in the statement's text.
pub fn is_in_text(source: &SecretSource) -> bool {
    matches!(source, SecretSource::Value(Value::Literal(_)))
}

impl<'a> Bound<'a> {
    pub fn new(parameters: &'a [ArrayRef]) -> Self {
        Self(parameters)
    }

    /// A value's bytes; of text its UTF-8. `what`: for the error, "the secret's value".
    ///
    /// Errors: 22004 NULL; 42P02 a parameter that was not bound.
    pub fn bytes(&self, value: &Value, what: &str) -> Result<Zeroizing<Vec<u8>>> {
        let number = match value {
            Value::Literal(text) => return Ok(Zeroizing::new(text.as_bytes().to_vec())),
            Value::Parameter(number) => *number,
        };
        let missing = || Error::new(SqlState::UndefinedParameter, format!("there is no parameter ${number}"));
        let array = number.checked_sub(1).and_then(|at| self.0.get(at)).ok_or_else(missing)?;
        if array.is_empty() || array.is_null(0) {
            return Err(Error::new(SqlState::NullValueNotAllowed, format!("{what} is null"))
                .with_hint(format!("Bind a value to ${number}.")));
        }
        match array.data_type() {
            DataType::Binary => Ok(Zeroizing::new(array.as_binary::<i32>().value(0).to_vec())),
            DataType::Utf8 => Ok(Zeroizing::new(array.as_string::<i32>().value(0).as_bytes().to_vec())),
            other => Err(Error::bug(format!("{what} came as {other}"))),
        }
    }

    /// A value that is text in any case.
    pub fn text(&self, value: &Value, what: &str) -> Result<Zeroizing<String>> {
        let bytes = self.bytes(value, what)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| {
            Error::new(SqlState::CharacterNotInRepertoire, format!("{what} is not UTF-8 text"))
        })?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// A plugin's bytes: bound as `bytea`, or in its text form, `\x0061736d…`.
    ///
    /// Errors: 22P02 for text that is not hexadecimal.
    pub fn component(&self, value: &Value) -> Result<Arc<[u8]>> {
        let bytes = self.bytes(value, "the plugin's component")?;
        match bytes.strip_prefix(b"\\x") {
            None => Ok(Arc::from(bytes.as_slice())),
            Some(digits) => unhex(digits).map(|bytes| Arc::from(bytes.as_slice())).ok_or_else(|| {
                Error::new(SqlState::InvalidTextRepresentation, "the plugin's component is not hexadecimal")
                    .with_hint("Bind the file's bytes as bytea: CREATE PLUGIN name FROM $1.")
            }),
        }
    }

    /// The same for a signature, which is also taken as base64.
    pub fn signature(&self, value: &Value) -> Result<Zeroizing<Vec<u8>>> {
        let bytes = self.bytes(value, "the plugin's signature")?;
        let digits = bytes.strip_prefix(b"\\x").and_then(unhex);
        Ok(digits.unwrap_or(bytes))
    }
}
