//! Statement text that may be kept or logged: without what may be a secret.
//!
//! Works on tokens, not on statements: also what does not parse is shown somewhere. Of `CREATE` and `ALTER` of
//! secrets, certificates and trust keys every literal goes, of sinks every option: a password hides in a URL as well
//! as in an option of its name, and the views show the options. Of roles, which Sepal does not have and whose passwords
//! clients send nevertheless, what follows `PASSWORD` goes. What follows a literal without a break is taken for
//! the rest of one that was quoted badly, and all of a string that has no tokens, since a quotation does not end, goes
//! from the name on.

use std::{borrow::Cow, ops::Range};

use datafusion::sql::sqlparser::{
    dialect::PostgreSqlDialect,
    tokenizer::{Token, TokenWithSpan, Tokenizer},
};

use super::{cursor::is_literal, is_word};
use crate::sql::tokens::{Places, is_significant};

const REPLACEMENT: &str = "'<redacted>'";
/// What may have a literal that must not be shown.
const KINDS: [&str; 6] = ["SECRET", "CERTIFICATE", "TRUST", "SINK", "ROLE", "USER"];
const VERBS: [&str; 2] = ["CREATE", "ALTER"];
/// `CREATE OR REPLACE PLUGIN TRUST KEY`
const WORDS_BETWEEN: usize = 3;

/// The text with `'<redacted>'` in place of what may be a secret.
pub fn redact(sql: &str) -> Cow<'_, str> {
    let hidden = hidden(sql);
    if hidden.is_empty() {
        return Cow::Borrowed(sql);
    }
    Cow::Owned(replaced(sql, &hidden, |_| REPLACEMENT.to_owned()))
}

/// The text with stars in place of what may be a secret, of as many characters and lines: positions in it hold.
pub(in crate::sql) fn mask(sql: &str) -> String {
    let stars = |secret: &str| secret.chars().map(|c| if c == '\n' { c } else { '*' }).collect::<String>();
    replaced(sql, &hidden(sql), stars)
}

/// Whether a text that has no tokens may hold a secret.
pub(in crate::sql) fn hides_secret(sql: &str) -> bool {
    after_name(sql).is_some()
}

fn replaced(sql: &str, hidden: &[Range<usize>], replacement: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut from = 0;
    for range in hidden {
        out.push_str(&sql[from..range.start]);
        out.push_str(&replacement(&sql[range.clone()]));
        from = range.end;
    }
    out.push_str(&sql[from..]);
    out
}

/// The bytes to hide, in order, apart from each other.
fn hidden(sql: &str) -> Vec<Range<usize>> {
    // Nearly every statement: no tokens are made for it.
    let Some(after_name) = after_name(sql) else {
        return Vec::new();
    };
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location() else {
        return std::iter::once(after_name..sql.len()).collect();
    };
    let mut ranges = Vec::new();
    let mut places = Places::new(sql);
    for statement in tokens.split(|token| token.token == Token::SemiColon) {
        let tokens: Vec<&TokenWithSpan> = statement.iter().filter(|token| is_significant(token)).collect();
        hide(&tokens, &mut places, &mut ranges);
    }
    ranges
}

/// Hides what one statement must not show.
fn hide(tokens: &[&TokenWithSpan], places: &mut Places<'_>, ranges: &mut Vec<Range<usize>>) {
    let Some((kind, first)) = kind_of(tokens) else {
        return;
    };
    let Some(last) = tokens.last() else {
        return;
    };
    if matches!(kind, "ROLE" | "USER") {
        hide_passwords(&tokens[first..], places, ranges);
        return;
    }
    // Of a sink, the parentheses after OPTIONS that are open.
    let mut depth = 0_usize;
    let mut place = first;
    while let Some(token) = tokens.get(place) {
        let next = tokens.get(place + 1);
        if kind == "SINK" {
            match &token.token {
                Token::LParen if depth > 0 || is_word(&tokens[place - 1].token, "OPTIONS") => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        let shown = kind == "SINK" && depth == 0;
        // A value without its quotes, or with others.
        let bare = next.filter(|next| {
            takes_value(kind, &token.token) && !is_literal(&next.token) && !is_parameter(&next.token)
        });
        if let Some(bare) = bare {
            ranges.push(places.byte(bare.span.start)..places.byte(last.span.end));
            return;
        }
        if is_literal(&token.token) && !shown {
            let start = places.byte(token.span.start);
            let broken = next.is_some_and(|next| {
                next.span.start == token.span.end && !matches!(next.token, Token::Comma | Token::RParen)
            });
            let end = if broken { last.span.end } else { token.span.end };
            ranges.push(start..places.byte(end));
            if broken {
                return;
            }
        }
        place += 1;
    }
}

/// Hides everything after the first `PASSWORD` of a role: one that is quoted badly has no end.
fn hide_passwords(tokens: &[&TokenWithSpan], places: &mut Places<'_>, ranges: &mut Vec<Range<usize>>) {
    let password = tokens.iter().position(|token| is_word(&token.token, "PASSWORD"));
    let after = password.and_then(|at| tokens.get(at + 1..)).unwrap_or_default();
    if let (Some(first), Some(last)) = (after.first(), after.last()) {
        ranges.push(places.byte(first.span.start)..places.byte(last.span.end));
    }
}

/// What kind of thing is created or altered, and the place after that word.
fn kind_of(tokens: &[&TokenWithSpan]) -> Option<(&'static str, usize)> {
    let verb = tokens.iter().position(|token| VERBS.iter().any(|verb| is_word(&token.token, verb)))?;
    let mut words = tokens.iter().enumerate().skip(verb + 1).take(WORDS_BETWEEN + 1);
    words.find_map(|(place, token)| {
        KINDS.iter().find(|kind| is_word(&token.token, kind)).map(|kind| (*kind, place + 1))
    })
}

/// Whether a value follows this word.
fn takes_value(kind: &str, token: &Token) -> bool {
    match kind {
        "SINK" => false,
        "CERTIFICATE" => is_word(token, "AS") || is_word(token, "KEY"),
        _ => is_word(token, "AS"),
    }
}

fn is_parameter(token: &Token) -> bool {
    matches!(token, Token::Placeholder(_))
}

/// Where the first thing that may be a secret can begin: after a verb, a kind and a name.
fn after_name(sql: &str) -> Option<usize> {
    let find = |words: &[&str], from: usize| {
        words.iter().filter_map(|word| find_ignoring_case(sql.as_bytes(), word.as_bytes(), from)).min()
    };
    let kind = find(&KINDS, find(&VERBS, 0)?)?;
    let rest = &sql[kind..];
    let space = rest.len() - rest.trim_start().len();
    let name: usize = rest[space..]
        .chars()
        .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
        .map(char::len_utf8)
        .sum();
    let after = kind + space + name;
    let gap = sql[after..].len() - sql[after..].trim_start().len();
    Some(after + gap)
}

/// The place after the first occurrence of an ASCII word.
fn find_ignoring_case(text: &[u8], word: &[u8], from: usize) -> Option<usize> {
    let found = text[from..].windows(word.len()).position(|window| window.eq_ignore_ascii_case(word));
    found.map(|at| from + at + word.len())
}
