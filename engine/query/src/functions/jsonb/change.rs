//! New `jsonb` values from old ones: `||`, `-`, `jsonb_set`, `jsonb_strip_nulls`, `jsonb_pretty`.
//!
//! Arguments are canonical texts and so are results. Where members are added, the whole is brought into canonical
//! form again: that puts them in order and lets the last of equal keys win.

use std::borrow::Cow;

use sepal_types::{Error, Result, SqlState};

use super::{
    read::position,
    text::{Kind, items, kind, members, string},
};
use crate::values::{normalize_json, quote_json};

fn refuse<T>(message: &str) -> Result<T> {
    Err(Error::new(SqlState::InvalidParameterValue, message))
}

fn array<'a>(items: impl IntoIterator<Item = impl Into<Cow<'a, str>>>) -> String {
    format!("[{}]", joined(items))
}

fn object<'a>(members: impl IntoIterator<Item = impl Into<Cow<'a, str>>>) -> String {
    format!("{{{}}}", joined(members))
}

fn joined<'a>(parts: impl IntoIterator<Item = impl Into<Cow<'a, str>>>) -> String {
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&part.into());
    }
    text
}

fn member(key: &str, value: &str) -> String {
    format!("{key}: {value}")
}

/// `left || right`: two objects are merged, the right one wins; anything else is joined as arrays.
pub(super) fn concatenate(left: &str, right: &str) -> Result<String> {
    if kind(left) == Kind::Object && kind(right) == Kind::Object {
        let both = members(left).chain(members(right)).map(|(key, value)| member(key, value));
        return normalize_json(&object(both));
    }
    Ok(array(elements(left).into_iter().chain(elements(right))))
}

/// The elements of an array; anything else is one element.
fn elements(text: &str) -> Vec<&str> {
    if kind(text) == Kind::Array { items(text).collect() } else { vec![text] }
}

/// Without the members of these keys, or the strings equal to them. Errors: 22023 for a scalar.
pub(super) fn delete_keys(text: &str, keys: &[&str]) -> Result<String> {
    let goes = |token: &str| keys.iter().any(|key| string(token) == *key);
    match kind(text) {
        Kind::Object => {
            Ok(object(members(text).filter(|(key, _)| !goes(key)).map(|(key, value)| member(key, value))))
        }
        Kind::Array => Ok(array(items(text).filter(|item| kind(item) != Kind::String || !goes(item)))),
        _ => refuse("cannot delete from scalar"),
    }
}

/// Without one element, counted from 0 or from the end. Errors: 22023 for anything but an array.
pub(super) fn delete_index(text: &str, index: i64) -> Result<String> {
    match kind(text) {
        Kind::Array => {
            let length = i64::try_from(items(text).count()).unwrap_or(i64::MAX);
            let place = if index < 0 { index.saturating_add(length) } else { index };
            let kept = items(text).zip(0_i64..).filter(|(_, at)| *at != place).map(|(item, _)| item);
            Ok(array(kept))
        }
        Kind::Object => refuse("cannot delete from object using integer index"),
        _ => refuse("cannot delete from scalar"),
    }
}

/// `jsonb_set`: `value` at the path. A missing last step is added if `create`; other missing steps change nothing.
///
/// Errors: 22023 for a scalar; 22004 and 22P02 for a step that is NULL or no position.
pub(super) fn set(text: &str, steps: &[Option<String>], value: &str, create: bool) -> Result<String> {
    if kind(text).is_scalar() {
        return refuse("cannot set path in scalar");
    }
    if steps.is_empty() || (!create && matches!(text, "{}" | "[]")) {
        return Ok(text.to_owned());
    }
    normalize_json(&Setter { steps, value, create }.apply(text, 0)?)
}

struct Setter<'a> {
    steps: &'a [Option<String>],
    value: &'a str,
    create: bool,
}

impl Setter<'_> {
    fn apply(&self, text: &str, level: usize) -> Result<String> {
        if kind(text).is_scalar() {
            return Ok(text.to_owned());
        }
        let Some(step) = &self.steps[level] else {
            let message = format!("path element at position {} is null", level + 1);
            return Err(Error::new(SqlState::NullValueNotAllowed, message));
        };
        match kind(text) {
            Kind::Object => self.in_object(text, step, level),
            _ => self.in_array(text, step, level),
        }
    }

    fn is_last(&self, level: usize) -> bool {
        level + 1 == self.steps.len()
    }

    /// What stands at a step that was found.
    fn replaced(&self, old: &str, level: usize) -> Result<String> {
        if self.is_last(level) { Ok(self.value.to_owned()) } else { self.apply(old, level + 1) }
    }

    fn in_object(&self, text: &str, step: &str, level: usize) -> Result<String> {
        let mut found = false;
        let mut parts = Vec::new();
        for (key, value) in members(text) {
            let here = string(key) == step;
            found |= here;
            parts.push(if here { member(key, &self.replaced(value, level)?) } else { member(key, value) });
        }
        if !found && self.create && self.is_last(level) {
            parts.push(member(&quote_json(step), self.value));
        }
        Ok(object(parts))
    }

    fn in_array(&self, text: &str, step: &str, level: usize) -> Result<String> {
        let Some(index) = position(step) else {
            let message = format!("path element at position {} is not an integer: \"{step}\"", level + 1);
            return Err(Error::new(SqlState::InvalidTextRepresentation, message));
        };
        let mut parts: Vec<String> = items(text).map(ToOwned::to_owned).collect();
        let place = match usize::try_from(index) {
            Ok(place) => Some(place),
            Err(_) => {
                usize::try_from(index.unsigned_abs()).ok().and_then(|back| parts.len().checked_sub(back))
            }
        };
        let creates = self.create && self.is_last(level);
        match place {
            Some(place) if place < parts.len() => parts[place] = self.replaced(&parts[place], level)?,
            Some(_) if creates => parts.push(self.value.to_owned()),
            None if creates => parts.insert(0, self.value.to_owned()),
            _ => {}
        }
        Ok(array(parts))
    }
}

/// Without the members that are `null`, at any depth. Elements of arrays stay.
pub(super) fn strip_nulls(text: &str) -> Cow<'_, str> {
    match kind(text) {
        Kind::Object => {
            let kept = members(text).filter(|(_, value)| kind(value) != Kind::Null);
            Cow::Owned(object(kept.map(|(key, value)| member(key, &strip_nulls(value)))))
        }
        Kind::Array => Cow::Owned(array(items(text).map(strip_nulls))),
        _ => Cow::Borrowed(text),
    }
}

/// With line breaks, four spaces for each level.
pub(super) fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    write_pretty(text, 0, &mut out);
    out
}

fn write_pretty(text: &str, level: usize, out: &mut String) {
    let (brackets, parts): (_, Vec<(Option<&str>, &str)>) = match kind(text) {
        Kind::Object => (['{', '}'], members(text).map(|(key, value)| (Some(key), value)).collect()),
        Kind::Array => (['[', ']'], items(text).map(|item| (None, item)).collect()),
        _ => return out.push_str(text),
    };
    out.push(brackets[0]);
    for (position, (key, value)) in parts.iter().enumerate() {
        out.push_str(if position > 0 { ",\n" } else { "\n" });
        indent(level + 1, out);
        if let Some(key) = key {
            out.push_str(key);
            out.push_str(": ");
        }
        write_pretty(value, level + 1, out);
    }
    out.push('\n');
    indent(level, out);
    out.push(brackets[1]);
}

fn indent(level: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("    ", level));
}
