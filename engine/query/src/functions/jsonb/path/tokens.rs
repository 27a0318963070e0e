//! Tokens of a jsonpath (`jsonpath_scan.l`).
//!
//! Called by the parser. A token keeps how it is written, for errors name it.

use sepal_types::{Error, Result, SqlState};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// What has no quotes and is no number: a key, or a word of the grammar.
    Word(String),
    Number(String),
    String(String),
    Variable(String),
    /// An operator or a bracket.
    Sign(&'static str),
}

#[derive(Clone, Debug)]
pub(super) struct Written {
    pub token: Token,
    pub text: String,
}

/// Longer ones first.
const SIGNS: [&str; 31] = [
    "**", "&&", "||", "==", "!=", "<>", "<=", ">=", "$", "@", "?", "%", ".", "[", "]", "{", "}", "(", ")",
    "|", "&", "!", "=", "<", ">", "#", ",", "*", ":", "-", "+",
];

fn is_special(character: char) -> bool {
    "?%$.[]{}()|&!=<>@#,*:-+/\"\\".contains(character)
        || character.is_ascii_whitespace()
        || character == '\u{b}'
}

/// Errors: 42601 for what is no token.
pub(super) fn tokenize(text: &str) -> Result<Vec<Written>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
        if rest.is_empty() {
            return Ok(tokens);
        }
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").ok_or_else(|| refuse("unexpected end of comment"))?.1;
            continue;
        }
        let (token, length) = next(rest)?;
        let (text, after) = rest.split_at(length);
        tokens.push(Written { token, text: text.to_owned() });
        rest = after;
    }
}

fn refuse(message: &str) -> Error {
    Error::new(SqlState::SyntaxError, format!("{message} at end of jsonpath input"))
}

/// The first token, and its bytes.
fn next(text: &str) -> Result<(Token, usize)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (string, length) = string(quoted)?;
        return Ok((Token::String(string), length + 1));
    }
    if let Some(quoted) = text.strip_prefix("$\"") {
        let (name, length) = string(quoted)?;
        return Ok((Token::Variable(name), length + 2));
    }
    if let Some(name) = text.strip_prefix('$') {
        let length = word_end(name);
        if length > 0 {
            return Ok((Token::Variable(name[..length].to_owned()), length + 1));
        }
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return number(text);
    }
    if let Some(sign) = SIGNS.into_iter().find(|sign| text.starts_with(*sign)) {
        return Ok((Token::Sign(sign), sign.len()));
    }
    match word_end(text) {
        0 if text.starts_with('/') => Ok((Token::Sign("/"), 1)),
        0 => Err(Error::new(
            SqlState::SyntaxError,
            format!(
                "syntax error at or near \"{}\" of jsonpath input",
                text.chars().next().unwrap_or_default()
            ),
        )),
        length => Ok((Token::Word(text[..length].to_owned()), length)),
    }
}

fn word_end(text: &str) -> usize {
    text.find(is_special).unwrap_or(text.len())
}

/// Digits, a fraction and an exponent, written as JSON writes them.
fn number(text: &str) -> Result<(Token, usize)> {
    let digits = |from: usize| from + text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let mut end = digits(0);
    if text[end..].starts_with('.') && digits(end + 1) > end + 1 {
        end = digits(end + 1);
    }
    if text[end..].starts_with(['e', 'E']) {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let after = digits(end + 1 + sign);
        if after > end + 1 + sign {
            end = after;
        }
    }
    let trailing = word_end(&text[end..]);
    let leading_zero = end > 1 && text.starts_with('0') && text.as_bytes()[1].is_ascii_digit();
    if trailing > 0 || leading_zero {
        let message = format!(
            "trailing junk after numeric literal at or near \"{}\" of jsonpath input",
            &text[..end + trailing]
        );
        return Err(Error::new(SqlState::SyntaxError, message));
    }
    Ok((Token::Number(text[..end].to_owned()), end))
}

/// What stands up to the closing quote, and its bytes with that quote.
fn string(text: &str) -> Result<(String, usize)> {
    let mut out = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((out, at + 1)),
            '\\' => {
                let Some((_, escaped)) = characters.next() else {
                    break;
                };
                match escaped {
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    'n' => out.push('\n'),
                    'r' => out.push('\r'),
                    't' => out.push('\t'),
                    'v' => out.push('\u{b}'),
                    'u' | 'x' => {
                        let (character, length) = coded(escaped, characters.as_str())?;
                        out.push(character);
                        characters.by_ref().take(length).for_each(drop);
                    }
                    other => out.push(other),
                }
            }
            other => out.push(other),
        }
    }
    Err(refuse("unexpected end of quoted string"))
}

/// The character of `\xHH`, `\uHHHH` (two of them for a pair) or `\u{H…}`, and how many characters say it.
fn coded(kind: char, text: &str) -> Result<(char, usize)> {
    let invalid = || refuse("invalid escape sequence");
    let hex = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| invalid());
    let digits = |from: usize, count: usize| text.get(from..from + count).ok_or_else(invalid);
    let (code, length) = match (kind, text.strip_prefix('{').and_then(|text| text.split_once('}'))) {
        ('x', _) => (hex(digits(0, 2)?)?, 2),
        (_, Some((written, _))) if (1..=6).contains(&written.len()) => (hex(written)?, written.len() + 2),
        _ => match hex(digits(0, 4)?)? {
            high @ 0xd800..=0xdbff if text[4..].starts_with("\\u") => {
                let low = hex(digits(6, 4)?)?;
                let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or_else(invalid)?;
                (0x1_0000 + ((high - 0xd800) << 10) + low, 10)
            }
            code => (code, 4),
        },
    };
    if code == 0 {
        let error = Error::new(SqlState::UntranslatableCharacter, "unsupported Unicode escape sequence");
        return Err(error.with_detail("\\u0000 cannot be converted to text."));
    }
    char::from_u32(code).map(|character| (character, length)).ok_or_else(invalid)
}
