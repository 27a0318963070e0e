//! `OPTIONS (name 'value', …)`, `WITH (name = value, …)`, `ALLOW HOSTS (…)`, and what may stand in them.

use datafusion::sql::sqlparser::tokenizer::Token;
use sepal_types::{Error, Result, SqlState};
use zeroize::Zeroizing;

use super::{
    OptionValue, Options, Reference, Value,
    cursor::{Cursor, text_of},
    is_word,
};
use crate::sql::params;

/// Bytes of a secret's name.
const MAX_NAME_BYTES: usize = 63;

/// The list in parentheses.
pub(super) fn options(cursor: &mut Cursor<'_>) -> Result<Options> {
    let mut options = Options::new();
    cursor.expect_token(&Token::LParen)?;
    if cursor.eat_token(&Token::RParen) {
        return Ok(options);
    }
    loop {
        let name = cursor.name()?;
        cursor.eat_token(&Token::Eq);
        let value = option_value(cursor, &name)?;
        if options.insert(name.clone(), value).is_some() {
            let message = format!("option \"{name}\" provided more than once");
            return Err(Error::new(SqlState::DuplicateObject, message));
        }
        if cursor.eat_token(&Token::RParen) {
            return Ok(options);
        }
        cursor.expect_token(&Token::Comma)?;
    }
}

/// `('https://a.example.com', …)`
pub(super) fn hosts(cursor: &mut Cursor<'_>) -> Result<Vec<String>> {
    let mut hosts = Vec::new();
    cursor.expect_token(&Token::LParen)?;
    if cursor.eat_token(&Token::RParen) {
        return Ok(hosts);
    }
    loop {
        hosts.push(text(cursor)?);
        if cursor.eat_token(&Token::RParen) {
            return Ok(hosts);
        }
        cursor.expect_token(&Token::Comma)?;
    }
}

/// A literal of type text.
pub(super) fn text(cursor: &mut Cursor<'_>) -> Result<String> {
    let Some(text) = cursor.peek().and_then(text_of) else {
        return Err(cursor.unexpected());
    };
    refuse_quoted_reference(cursor, text, "")?;
    cursor.advance();
    Ok(text.to_owned())
}

/// `$1` or a literal: a secret, a key, a component.
pub(super) fn value(cursor: &mut Cursor<'_>) -> Result<Value> {
    let value = match cursor.peek() {
        Some(Token::Placeholder(name)) => {
            let number = params::number(name).filter(|number| (1..=usize::from(u16::MAX)).contains(number));
            let Some(number) = number else {
                let message = format!("there is no parameter {name}");
                return Err(cursor.here(Error::new(SqlState::UndefinedParameter, message)));
            };
            Value::Parameter(number)
        }
        Some(token) => match text_of(token) {
            Some(text) => {
                refuse_quoted_reference(cursor, text, "A secret's own value cannot be a reference. ")?;
                Value::Literal(Zeroizing::new(text.to_owned()))
            }
            None => return Err(cursor.no_value()),
        },
        None => return Err(cursor.unexpected()),
    };
    cursor.advance();
    Ok(value)
}

fn option_value(cursor: &mut Cursor<'_>, name: &str) -> Result<OptionValue> {
    let value = match cursor.peek() {
        Some(Token::Number(..) | Token::Minus | Token::Plus) => return number(cursor),
        Some(token) if is_word(token, "SECRET") || is_word(token, "CERT") => return reference(cursor),
        Some(token) if is_word(token, "TRUE") => OptionValue::Flag(true),
        Some(token) if is_word(token, "FALSE") => OptionValue::Flag(false),
        Some(Token::Placeholder(_)) => {
            let message = format!("option \"{name}\" cannot be a parameter");
            return Err(cursor.here(Error::unsupported(message).with_hint(format!(
                "Write it out. For a secret: CREATE SECRET name AS $1, then {name} SECRET[name]."
            ))));
        }
        _ => return text(cursor).map(OptionValue::Text),
    };
    cursor.advance();
    Ok(value)
}

fn number(cursor: &mut Cursor<'_>) -> Result<OptionValue> {
    let negative = cursor.eat_token(&Token::Minus);
    if !negative {
        cursor.eat_token(&Token::Plus);
    }
    let Some(Token::Number(digits, false)) = cursor.peek() else {
        return Err(cursor.unexpected());
    };
    let Some(number) = digits.parse::<f64>().ok().filter(|number| number.is_finite()) else {
        return Err(cursor.unexpected());
    };
    cursor.advance();
    Ok(OptionValue::Number(if negative { -number } else { number }))
}

/// `SECRET[name]`, `SECRET[name@version]`, `CERT[name]`. The name is read from the text, since it may hold what
/// tokens do not: `a-1b`.
fn reference(cursor: &mut Cursor<'_>) -> Result<OptionValue> {
    let certificate = cursor.is("CERT");
    let malformed = match certificate {
        true => cursor.here(
            Error::new(SqlState::SyntaxError, "this is no reference to a certificate")
                .with_hint("Write CERT[name], without white space in it."),
        ),
        false => cursor
            .here(Error::new(SqlState::SyntaxError, "this is no reference to a secret").with_hint(
            "Write SECRET[name], or SECRET[name@3] for version 3, without white space in it. A name holds \
                 ASCII letters, digits, \"_\" and \"-\".",
        )),
    };
    let Some(reference) = cursor.brackets().and_then(read_reference) else {
        return Err(malformed);
    };
    match (certificate, reference.version) {
        (true, Some(_)) => Err(malformed),
        (true, None) => Ok(OptionValue::Certificate(reference)),
        (false, _) => Ok(OptionValue::Secret(reference)),
    }
}

/// `name`, `"name"`, each with `@version` or without.
fn read_reference(text: &str) -> Option<Reference> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => {
            let (name, rest) = quoted.split_once('"')?;
            (name.to_owned(), rest)
        }
        None => {
            let end = text.find('@').unwrap_or(text.len());
            (text[..end].to_ascii_lowercase(), &text[end..])
        }
    };
    let version = match rest {
        "" => None,
        rest => {
            let digits =
                rest.strip_prefix('@').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
            Some(digits.parse().ok().filter(|version| *version > 0)?)
        }
    };
    is_secret_name(&name).then_some(Reference { name, version })
}

/// As `control` names secrets.
fn is_secret_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A reference in quotes would go out as the text it is. A text that merely holds one is a text.
fn refuse_quoted_reference(cursor: &Cursor<'_>, text: &str, why: &str) -> Result<()> {
    if !reads_as_reference(text) {
        return Ok(());
    }
    let message = "a reference to a secret or a certificate stands in quotes";
    let hint = format!("{why}Write SECRET[name] or CERT[name] without quotes, as the value of an option.");
    Err(cursor.here(Error::new(SqlState::SyntaxError, message).with_hint(hint)))
}

fn reads_as_reference(text: &str) -> bool {
    let text = text.trim().to_ascii_uppercase();
    let rest = text.strip_prefix("SECRET").or_else(|| text.strip_prefix("CERT"));
    let inner = rest.and_then(|rest| rest.trim_start().strip_prefix('[')?.strip_suffix(']'));
    inner.is_some_and(|inner| !inner.contains(['[', ']']))
}
