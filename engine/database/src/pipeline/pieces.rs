//! The values of a JSON object or array as they were written: no digit of a number is lost, as it would be in a tree of
//! `serde_json`'s.
//!
//! `dead_letters` takes rows apart with it.

use std::collections::HashMap;

use sepal_types::{Error, Result, SqlState};
use serde::{Deserialize, de::IgnoredAny};

pub(super) fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| broken())
}

/// The members of an object by name; the last of a name counts.
pub(super) fn members(text: &str) -> Result<HashMap<String, String>> {
    let mut members = HashMap::new();
    let mut rest = inside(text, '{', '}')?;
    while !rest.is_empty() {
        let (name, after) = value(rest)?;
        let (found, after) = value(after.trim_start().strip_prefix(':').ok_or_else(broken)?)?;
        members.insert(parse(name)?, found.to_owned());
        rest = next(after)?;
    }
    Ok(members)
}

/// The elements of an array.
pub(super) fn elements(text: &str) -> Result<Vec<String>> {
    let mut elements = Vec::new();
    let mut rest = inside(text, '[', ']')?;
    while !rest.is_empty() {
        let (found, after) = value(rest)?;
        elements.push(found.to_owned());
        rest = next(after)?;
    }
    Ok(elements)
}

fn inside(text: &str, open: char, close: char) -> Result<&str> {
    let text = text.trim().strip_prefix(open).and_then(|text| text.strip_suffix(close));
    text.map(str::trim).ok_or_else(broken)
}

/// What follows the comma; nothing at the end.
fn next(after: &str) -> Result<&str> {
    let after = after.trim_start();
    if after.is_empty() {
        return Ok(after);
    }
    after.strip_prefix(',').map(str::trim_start).filter(|rest| !rest.is_empty()).ok_or_else(broken)
}

/// The value at the start, and what comes after it.
fn value(text: &str) -> Result<(&str, &str)> {
    let text = text.trim_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(text.split_at(values.byte_offset())),
        _ => Err(broken()),
    }
}

fn broken() -> Error {
    Error::new(SqlState::DataCorrupted, "the row of a dead letter is not JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_as_they_were_written() {
        let found = members(r#" {"a": 1.00, "b\"c" : [1, {"x": "}"}], "d":null,"e":-0.1e5} "#).unwrap();
        let expected = [("a", "1.00"), ("b\"c", r#"[1, {"x": "}"}]"#), ("d", "null"), ("e", "-0.1e5")]
            .map(|(k, v)| (k.into(), v.into()));
        assert_eq!(found, HashMap::from(expected));
        assert_eq!(
            elements(r#"[12345678901234567890.5,"a,b" , [] ]"#).unwrap(),
            ["12345678901234567890.5", r#""a,b""#, "[]"]
        );
        assert!(members("{}").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", r#"{"a"}"#, r#"{"a":1,}"#, r#"{"a":1 "b":2}"#, "[1]"] {
            assert!(members(text).is_err(), "{text}");
        }
    }
}
