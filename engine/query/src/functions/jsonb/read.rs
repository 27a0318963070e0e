//! Reading `json` and `jsonb`: one part of a value, and what a value holds.
//!
//! `->`, `->>`, `#>`, `#>>`, `@>`, `<@`, `?`, `?|` and `?&` as in PostgreSQL's `jsonfuncs.c` and `jsonb_op.c`.
//! Texts are valid; those of a `jsonb` are canonical.

use std::borrow::Cow;

use sepal_types::{Error, Result, SqlState};

use super::{
    Flavour,
    text::{Kind, items, kind, members, significant, string},
};
use crate::values::normalize_json;

/// The value of a key; `None` if this is no object or has no such key.
pub(super) fn field<'a>(text: &'a str, key: &str, flavour: Flavour) -> Option<&'a str> {
    if kind(text) != Kind::Object {
        return None;
    }
    let mut found = members(text).filter(|(name, _)| string(name) == key).map(|(_, value)| value);
    match flavour {
        // `json` keeps repeated keys, of which the last counts.
        Flavour::Json => found.last(),
        Flavour::Jsonb => found.next(),
    }
}

/// An element by its position from 0, or from the end if negative. A lone `jsonb` scalar is its own only element.
pub(super) fn element(text: &str, index: i64, flavour: Flavour) -> Option<&str> {
    match kind(text) {
        Kind::Array => item(text, index),
        Kind::Object => None,
        _ => (flavour == Flavour::Jsonb && matches!(index, 0 | -1)).then_some(text),
    }
}

/// The value at a path of keys and positions. A NULL step finds nothing.
pub(super) fn path<'a, S: AsRef<str>>(
    text: &'a str,
    steps: &[Option<S>],
    flavour: Flavour,
) -> Option<&'a str> {
    if steps.iter().any(Option::is_none) {
        return None;
    }
    steps.iter().flatten().try_fold(text, |value, step| match kind(value) {
        Kind::Object => field(value, step.as_ref(), flavour),
        Kind::Array => item(value, i64::from(position(step.as_ref())?)),
        _ => None,
    })
}

/// A step of a path as a position in an array.
pub(super) fn position(step: &str) -> Option<i32> {
    step.trim_start().parse().ok()
}

fn item(array: &str, index: i64) -> Option<&str> {
    match usize::try_from(index) {
        Ok(index) => items(array).nth(index),
        Err(_) => {
            let back = usize::try_from(index.unsigned_abs()).ok()?;
            items(array).nth(items(array).count().checked_sub(back)?)
        }
    }
}

/// A part as text: strings without quotes, `null` as NULL, anything else as written.
///
/// Errors: 22P02, 22P05 for an escape in a `json` string that stands for no character.
pub(super) fn plain(part: &str, flavour: Flavour) -> Result<Option<Cow<'_, str>>> {
    Ok(match kind(part) {
        Kind::Null => None,
        Kind::String if flavour == Flavour::Json && part.contains('\\') => {
            let token = normalize_json(part)?;
            Some(Cow::Owned(string(&token).into_owned()))
        }
        Kind::String => Some(string(part)),
        _ => Some(Cow::Borrowed(part)),
    })
}

/// `left @> right`. An array also contains a lone scalar that is one of its elements.
pub(super) fn contains(left: &str, right: &str) -> bool {
    match (kind(left), kind(right)) {
        (Kind::Object, Kind::Object) => members(right).all(|(key, wanted)| {
            let found = field(left, &string(key), Flavour::Jsonb);
            found.is_some_and(|found| kind(found) == kind(wanted) && contains(found, wanted))
        }),
        (Kind::Array, Kind::Array) => items(right)
            .all(|wanted| items(left).any(|found| kind(found) == kind(wanted) && contains(found, wanted))),
        (Kind::Array, scalar) if scalar.is_scalar() => items(left).any(|found| same_scalar(found, right)),
        (scalar, _) if scalar.is_scalar() => same_scalar(left, right),
        _ => false,
    }
}

fn same_scalar(left: &str, right: &str) -> bool {
    match (kind(left), kind(right)) {
        (Kind::Number, Kind::Number) => significant(left) == significant(right),
        (left_kind, right_kind) => left_kind == right_kind && left == right,
    }
}

/// Whether a text is a key of the object, an element of the array, or the string itself.
pub(super) fn exists(text: &str, wanted: &str) -> bool {
    let is_wanted = |value: &str| kind(value) == Kind::String && string(value) == wanted;
    match kind(text) {
        Kind::Object => field(text, wanted, Flavour::Jsonb).is_some(),
        Kind::Array => items(text).any(is_wanted),
        _ => is_wanted(text),
    }
}

/// Errors: 22023 for anything but an array.
pub(super) fn array_length(text: &str) -> Result<i32> {
    let refuse = |what: &str| {
        Err(Error::new(SqlState::InvalidParameterValue, format!("cannot get array length of a {what}")))
    };
    match kind(text) {
        Kind::Array => Ok(i32::try_from(items(text).count()).unwrap_or(i32::MAX)),
        Kind::Object => refuse("non-array"),
        _ => refuse("scalar"),
    }
}
