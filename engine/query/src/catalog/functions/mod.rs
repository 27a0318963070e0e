//! The catalog functions: one table, used by the evaluator and, as scalar UDFs, by DataFusion.
//!
//! A function works on one row's values. Its declaration gives the argument types, which type parameters and
//! count arguments, and its result. `text` and `arrays` are functions that DataFusion has itself; those are
//! the evaluator's only. Nothing here writes or blocks; `recall` searches for as long as it takes, and
//! asks now and then whether it is to stop.

mod arrays;
mod definition;
mod delivery;
mod json;
mod privileges;
mod recall;
mod session;
mod text;
mod types;
mod udf;

use std::collections::HashMap;
use std::sync::LazyLock;

use sepal_types::{Error, Result, SqlState, SqlType};

use super::CatalogContext;
use super::value::Value;

pub(super) use arrays::{element_type, joined};
pub(super) use delivery::{in_order, instant};
pub(super) use json::render;
pub(super) use text::{like, matches};
pub(super) use udf::{udfs, values};

type Call = fn(&CatalogContext, &[Value]) -> Result<Value>;

/// A scalar function.
pub(super) struct Function {
    pub name: &'static str,
    /// `text, integer?, boolean...`: `?` may be left out, `...` repeats.
    pub arguments: &'static str,
    pub returns: Returns,
    /// NULL for any NULL argument, without a call.
    pub strict: bool,
    /// It does something, or much: DataFusion must not call it while it plans.
    pub acts: bool,
    pub call: Call,
}

/// The type of a result.
#[derive(Clone, Copy, Debug)]
pub(super) enum Returns {
    /// As `format_type` prints it.
    Type(&'static str),
    /// That of the first argument.
    First,
}

impl Function {
    const fn new(name: &'static str, arguments: &'static str, returns: &'static str, call: Call) -> Self {
        Self { name, arguments, returns: Returns::Type(returns), strict: true, acts: false, call }
    }

    /// Called also with NULLs.
    const fn lax(name: &'static str, arguments: &'static str, returns: &'static str, call: Call) -> Self {
        Self { name, arguments, returns: Returns::Type(returns), strict: false, acts: false, call }
    }

    /// One that does something, called also with NULLs.
    const fn acting(name: &'static str, arguments: &'static str, returns: &'static str, call: Call) -> Self {
        Self { name, arguments, returns: Returns::Type(returns), strict: false, acts: true, call }
    }

    const fn polymorphic(
        name: &'static str,
        arguments: &'static str,
        returns: Returns,
        strict: bool,
        call: Call,
    ) -> Self {
        Self { name, arguments, returns, strict, acts: false, call }
    }

    /// Whether it takes this many arguments.
    pub fn takes(&self, count: usize) -> bool {
        let declared = self.declared();
        let required = declared.iter().filter(|argument| !argument.ends_with('?')).count();
        let repeats = self.arguments.ends_with("...");
        count >= required && (repeats || count <= declared.len())
    }

    /// The declared type of an argument, for typing a parameter; `None` where any type will do.
    pub fn argument_type(&self, place: usize) -> Option<SqlType> {
        let declared = self.declared();
        let name = declared.get(place).or(declared.last())?;
        SqlType::from_internal_name(name.trim_end_matches("...").trim_end_matches('?'))
    }

    /// The result's type for these argument types.
    pub fn result_type(&self, arguments: &[SqlType]) -> SqlType {
        match self.returns {
            Returns::Type(name) => SqlType::from_internal_name(name).unwrap_or(SqlType::Text),
            Returns::First => arguments.first().cloned().unwrap_or(SqlType::Text),
        }
    }

    /// Calls it on one row.
    pub fn call(&self, context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
        if self.strict && arguments.iter().any(Value::is_null) {
            return Ok(Value::Null);
        }
        (self.call)(context, arguments)
    }

    fn declared(&self) -> Vec<&'static str> {
        self.arguments.split(", ").filter(|argument| !argument.is_empty()).collect()
    }
}

/// Functions that only a Postgres catalog has: DataFusion gets these as UDFs, and a query that calls one is a
/// catalog query.
const CATALOG: [&[Function]; 6] = [
    definition::FUNCTIONS,
    delivery::FUNCTIONS,
    privileges::FUNCTIONS,
    recall::FUNCTIONS,
    session::FUNCTIONS,
    types::FUNCTIONS,
];
/// Functions that DataFusion has too.
const GENERAL: [&[Function]; 3] = [arrays::FUNCTIONS, json::FUNCTIONS, text::FUNCTIONS];

static BY_NAME: LazyLock<HashMap<&'static str, (&'static Function, bool)>> = LazyLock::new(|| {
    let catalog = CATALOG.iter().flat_map(|family| family.iter()).map(|function| (function, true));
    let general = GENERAL.iter().flat_map(|family| family.iter()).map(|function| (function, false));
    catalog.chain(general).map(|(function, of_catalog)| (function.name, (function, of_catalog))).collect()
});

/// The function with this name and whether it is one that only a catalog has.
pub(super) fn function(name: &str) -> Option<(&'static Function, bool)> {
    BY_NAME.get(name).copied()
}

/// Every function that only a catalog has.
pub(super) fn catalog_functions() -> impl Iterator<Item = &'static Function> {
    CATALOG.iter().flat_map(|family| family.iter())
}

/// An argument that may have been left out or be NULL.
fn optional(arguments: &[Value], place: usize) -> Option<&Value> {
    arguments.get(place).filter(|value| !value.is_null())
}

fn text_argument(arguments: &[Value], place: usize) -> String {
    arguments.get(place).map(Value::to_text).unwrap_or_default()
}

/// A whole number, also one written as text.
fn int_argument(arguments: &[Value], place: usize) -> Result<i64> {
    let value = arguments.get(place).unwrap_or(&Value::Null);
    value.as_int().ok_or_else(|| {
        Error::new(
            SqlState::InvalidTextRepresentation,
            format!("invalid input syntax for type integer: \"{}\"", value.to_text()),
        )
    })
}
