//! JSON made from values: `json_build_object`, `json_build_array`, `to_json`.
//!
//! SQLAlchemy asks for identity options this way. Results are JSON text; keys keep their order, as in
//! Postgres' `json`.

use sepal_types::{Error, Result, SqlState};

use super::super::CatalogContext;
use super::super::value::Value;
use super::Function;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::lax("json_build_object", "any...", "json", object),
    Function::lax("jsonb_build_object", "any...", "jsonb", object),
    Function::lax("json_build_array", "any...", "json", array),
    Function::lax("jsonb_build_array", "any...", "jsonb", array),
    Function::new("to_json", "any", "json", |_, arguments| Ok(render(&arguments[0]).into())),
    Function::new("to_jsonb", "any", "jsonb", |_, arguments| Ok(render(&arguments[0]).into())),
];

fn object(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    if !arguments.len().is_multiple_of(2) {
        let error =
            Error::new(SqlState::InvalidParameterValue, "argument list must have even number of elements");
        return Err(error.with_hint("The arguments of json_build_object() must be keys and values in turn."));
    }
    let pairs: Vec<String> = arguments
        .chunks_exact(2)
        .map(|pair| format!("{} : {}", serde_json::Value::String(pair[0].to_text()), render(&pair[1])))
        .collect();
    Ok(format!("{{{}}}", pairs.join(", ")).into())
}

fn array(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    Ok(render_list(arguments).into())
}

fn render_list(values: &[Value]) -> String {
    let items: Vec<String> = values.iter().map(render).collect();
    format!("[{}]", items.join(", "))
}

/// One value as JSON text.
pub(in crate::catalog) fn render(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Int(_) => value.to_text(),
        Value::Float(number) if number.is_finite() => value.to_text(),
        Value::List(values) | Value::Record(values) => render_list(values),
        Value::Float(_) | Value::Text(_) | Value::Time(_) => {
            serde_json::Value::String(value.to_text()).to_string()
        }
    }
}
