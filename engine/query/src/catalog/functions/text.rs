//! Text and number functions that catalog queries use, for the evaluator. DataFusion has its own.

use arrow::array::StringArray;
use arrow::compute::kernels::regexp::regexp_is_match_scalar;
use sepal_types::{Error, Result, SqlState};

use super::super::CatalogContext;
use super::super::value::Value;
use super::{Function, Returns, int_argument, optional, text_argument};
use crate::functions::fill_template;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("lower", "text", "text", |_, arguments| {
        Ok(text_argument(arguments, 0).to_lowercase().into())
    }),
    Function::new("upper", "text", "text", |_, arguments| {
        Ok(text_argument(arguments, 0).to_uppercase().into())
    }),
    Function::new("length", "text", "integer", length),
    Function::new("char_length", "text", "integer", length),
    Function::new("character_length", "text", "integer", length),
    Function::new("octet_length", "text", "integer", |_, arguments| {
        Ok(text_argument(arguments, 0).len().into())
    }),
    Function::lax("concat", "text...", "text", concat),
    Function::lax("concat_ws", "text, text...", "text", concat_ws),
    Function::new("replace", "text, text, text", "text", |_, arguments| {
        Ok(text_argument(arguments, 0)
            .replace(&text_argument(arguments, 1), &text_argument(arguments, 2))
            .into())
    }),
    Function::new("substr", "text, integer, integer?", "text", substring),
    Function::new("substring", "text, text, integer?", "text", substring),
    Function::new("left", "text, integer", "text", |_, arguments| {
        let text: Vec<char> = text_argument(arguments, 0).chars().collect();
        Ok(text[..edge(text.len(), int_argument(arguments, 1)?)].iter().collect::<String>().into())
    }),
    Function::new("right", "text, integer", "text", |_, arguments| {
        let text: Vec<char> = text_argument(arguments, 0).chars().collect();
        Ok(text[text.len() - edge(text.len(), int_argument(arguments, 1)?)..]
            .iter()
            .collect::<String>()
            .into())
    }),
    Function::new("split_part", "text, text, integer", "text", split_part),
    Function::new("strpos", "text, text", "integer", |_, arguments| {
        Ok(position(&text_argument(arguments, 0), &text_argument(arguments, 1)).into())
    }),
    Function::new("position", "text, text", "integer", |_, arguments| {
        Ok(position(&text_argument(arguments, 1), &text_argument(arguments, 0)).into())
    }),
    Function::new("starts_with", "text, text", "boolean", |_, arguments| {
        Ok(text_argument(arguments, 0).starts_with(&text_argument(arguments, 1)).into())
    }),
    Function::new("btrim", "text, text?", "text", |_, arguments| {
        let characters = trimmed(arguments);
        Ok(text_argument(arguments, 0).trim_matches(|c: char| characters.contains(&c)).into())
    }),
    Function::new("ltrim", "text, text?", "text", |_, arguments| {
        let characters = trimmed(arguments);
        Ok(text_argument(arguments, 0).trim_start_matches(|c: char| characters.contains(&c)).into())
    }),
    Function::new("rtrim", "text, text?", "text", |_, arguments| {
        let characters = trimmed(arguments);
        Ok(text_argument(arguments, 0).trim_end_matches(|c: char| characters.contains(&c)).into())
    }),
    Function::new("repeat", "text, integer", "text", repeat),
    Function::lax("format", "text, text...", "text", format),
    Function::new("ascii", "text", "integer", |_, arguments| {
        Ok(text_argument(arguments, 0).chars().next().map_or(0, u32::from).into())
    }),
    Function::new("text", "text", "text", |_, arguments| Ok(text_argument(arguments, 0).into())),
    Function::polymorphic("abs", "bigint", Returns::First, true, |_, arguments| {
        Ok(match &arguments[0] {
            Value::Int(value) => value.checked_abs().into(),
            other => other.as_float().map(f64::abs).into(),
        })
    }),
    Function::new("round", "double precision, integer?", "double precision", |_, arguments| {
        let places = optional(arguments, 1).and_then(Value::as_int).unwrap_or(0).clamp(-300, 300);
        let factor = 10f64.powi(places as i32);
        Ok(arguments[0].as_float().map(|value| (value * factor).round() / factor).into())
    }),
    Function::new("floor", "double precision", "double precision", |_, arguments| {
        Ok(arguments[0].as_float().map(f64::floor).into())
    }),
    Function::new("ceil", "double precision", "double precision", |_, arguments| {
        Ok(arguments[0].as_float().map(f64::ceil).into())
    }),
    Function::new("hashtext", "text", "integer", |_, arguments| {
        let hash = text_argument(arguments, 0)
            .bytes()
            .fold(5381_i32, |hash, byte| hash.wrapping_mul(33).wrapping_add(i32::from(byte)));
        Ok(hash.into())
    }),
];

fn length(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    Ok(text_argument(arguments, 0).chars().count().into())
}

fn concat(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    Ok(arguments.iter().map(Value::to_text).collect::<String>().into())
}

fn concat_ws(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let Some(separator) = optional(arguments, 0) else { return Ok(Value::Null) };
    let texts: Vec<String> =
        arguments[1..].iter().filter(|value| !value.is_null()).map(Value::to_text).collect();
    Ok(texts.join(&separator.to_text()).into())
}

/// `substring(text, from [, for])`, counted from 1.
fn substring(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let from = int_argument(arguments, 1)?;
    let end = match optional(arguments, 2).and_then(Value::as_int) {
        Some(length) if length < 0 => {
            return Err(Error::new(SqlState::DataException, "negative substring length not allowed"));
        }
        Some(length) => from.saturating_add(length),
        None => i64::MAX,
    };
    let skip = usize::try_from(from.max(1) - 1).unwrap_or(usize::MAX);
    let take = usize::try_from(end.saturating_sub(from.max(1)).max(0)).unwrap_or(usize::MAX);
    Ok(text_argument(arguments, 0).chars().skip(skip).take(take).collect::<String>().into())
}

/// How many characters `left(text, n)` keeps: negative `n` leaves out `-n`.
fn edge(length: usize, count: i64) -> usize {
    let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count < 0 { length.saturating_sub(size) } else { size.min(length) }
}

fn split_part(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let (text, separator) = (text_argument(arguments, 0), text_argument(arguments, 1));
    let parts: Vec<&str> = if separator.is_empty() { vec![&text] } else { text.split(&separator).collect() };
    let place = int_argument(arguments, 2)?;
    let place = if place < 0 { i64::try_from(parts.len()).unwrap_or(0) + place } else { place - 1 };
    let part = usize::try_from(place).ok().and_then(|place| parts.get(place));
    Ok(part.copied().unwrap_or_default().into())
}

/// Characters from 1; 0 when it is not there.
fn position(text: &str, part: &str) -> usize {
    text.find(part).map_or(0, |at| text[..at].chars().count() + 1)
}

fn trimmed(arguments: &[Value]) -> Vec<char> {
    optional(arguments, 1).map_or(vec![' '], |characters| characters.to_text().chars().collect())
}

fn repeat(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let text = text_argument(arguments, 0);
    let count = usize::try_from(int_argument(arguments, 1)?.max(0)).unwrap_or(0);
    if text.len().saturating_mul(count) > 1 << 20 {
        return Err(Error::new(SqlState::ProgramLimitExceeded, "requested length too large"));
    }
    Ok(text.repeat(count).into())
}

fn format(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let Some(template) = optional(arguments, 0) else { return Ok(Value::Null) };
    let text = |value: &Value| (!value.is_null()).then(|| value.to_text());
    let texts: Vec<Option<String>> = arguments[1..].iter().map(text).collect();
    let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
    Ok(fill_template(&template.to_text(), &texts)?.into())
}

/// Whether the text matches the regular expression. psql's `^(name)$` and `^(name.*)$` need no regex engine.
pub(in crate::catalog) fn matches(text: &str, pattern: &str, ignore_case: bool) -> Result<bool> {
    if !ignore_case && let Some(inside) = pattern.strip_prefix("^(").and_then(|rest| rest.strip_suffix(")$"))
    {
        let plain = |part: &str| {
            part.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '<' | '>' | '#'))
        };
        if plain(inside) {
            return Ok(text == inside);
        }
        if let Some(prefix) = inside.strip_suffix(".*")
            && plain(prefix)
        {
            return Ok(text.starts_with(prefix));
        }
    }
    let column = StringArray::from(vec![text]);
    let flags = if ignore_case { Some("i") } else { None };
    let matched = regexp_is_match_scalar(&column, pattern, flags).map_err(|error| {
        Error::new(SqlState::DataException, format!("invalid regular expression: {error}"))
    })?;
    Ok(matched.value(0))
}

/// LIKE. `escape` is the character that takes `%` and `_` literally; `None` for no escape character.
pub(in crate::catalog) fn like(text: &str, pattern: &str, escape: Option<char>, ignore_case: bool) -> bool {
    let fold = |text: &str| if ignore_case { text.to_lowercase() } else { text.to_owned() };
    let text: Vec<char> = fold(text).chars().collect();
    // Each pattern item: a literal, `_` as None, or `%` as a gap before what follows.
    let mut items: Vec<(bool, Option<Option<char>>)> = Vec::new();
    let (mut gap, pattern) = (false, fold(pattern));
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            items.push((std::mem::take(&mut gap), chars.next().map(Some)));
        } else if c == '%' {
            gap = true;
        } else if c == '_' {
            items.push((std::mem::take(&mut gap), Some(None)));
        } else {
            items.push((std::mem::take(&mut gap), Some(Some(c))));
        }
    }
    // Positions in the text that the pattern so far can end at.
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    for (gap, item) in items {
        let Some(item) = item else { continue };
        if gap {
            spread(&mut ends);
        }
        let mut next = vec![false; text.len() + 1];
        for (at, c) in text.iter().enumerate() {
            next[at + 1] = ends[at] && item.is_none_or(|expected| expected == *c);
        }
        ends = next;
    }
    if gap {
        spread(&mut ends);
    }
    ends[text.len()]
}

fn spread(ends: &mut [bool]) {
    let mut reached = false;
    for end in ends {
        reached |= *end;
        *end = reached;
    }
}
