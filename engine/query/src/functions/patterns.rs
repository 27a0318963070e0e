//! `regexp_match` and `regexp_replace` with Postgres' groups, replacements and options; SIMILAR TO as a regular
//! expression.
//!
//! Expressions are those of the `regex` crate: without back references and lookaround. A group that took no part is
//! NULL in a match, and a replacement refers to groups by `\1` and `\&` alone.

use std::{cell::RefCell, sync::Arc};

use datafusion::logical_expr::ScalarUDF;
use regex::{Captures, Regex, RegexBuilder};
use sepal_types::{Error, SqlState};

use super::overloads::{
    Answer, Given,
    Kind::{Text, Texts},
    Overload, functions as declared,
};

/// Most bytes of a compiled expression.
const MAX_EXPRESSION_BYTES: usize = 4 << 20;

const FUNCTIONS: &[(&str, &[Overload])] = &[
    (
        "regexp_match",
        &[
            Overload::new(&[Text, Text], Texts, |given, _| first_match(given)),
            Overload::new(&[Text, Text, Text], Texts, |given, _| first_match(given)),
        ],
    ),
    (
        "regexp_replace",
        &[
            Overload::new(&[Text, Text, Text], Text, |given, _| replaced(given)),
            Overload::new(&[Text, Text, Text, Text], Text, |given, _| replaced(given)),
        ],
    ),
    (
        "similar_to_escape",
        &[
            Overload::new(&[Text], Text, |given, _| similar(text(given, 0), "\\").map(Answer::Text)),
            Overload::new(&[Text, Text], Text, |given, _| {
                similar(text(given, 0), text(given, 1)).map(Answer::Text)
            }),
        ],
    ),
];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    declared(FUNCTIONS)
}

fn text<'a>(given: &[Given<'a>], position: usize) -> &'a str {
    match given.get(position) {
        Some(Given::Text(text)) => text,
        _ => "",
    }
}

/// What the letters after an expression ask for.
#[derive(Clone, Copy, Default)]
struct Options {
    global: bool,
    ignore_case: bool,
    /// `.` does not match the end of a line.
    dot_stops: bool,
    /// `^` and `$` match at lines.
    lines: bool,
    literal: bool,
    expanded: bool,
}

/// Errors: 22023.
fn options(letters: &str) -> Result<Options, Error> {
    let mut options = Options::default();
    for letter in letters.chars() {
        match letter {
            'g' => options.global = true,
            'i' => options.ignore_case = true,
            'c' => options.ignore_case = false,
            'n' | 'm' => (options.dot_stops, options.lines) = (true, true),
            'p' => (options.dot_stops, options.lines) = (true, false),
            'w' => (options.dot_stops, options.lines) = (false, true),
            's' => (options.dot_stops, options.lines) = (false, false),
            'x' => options.expanded = true,
            't' => options.expanded = false,
            'q' => options.literal = true,
            'e' => {}
            other => {
                let message = format!("invalid regular expression option: \"{other}\"");
                return Err(Error::new(SqlState::InvalidParameterValue, message));
            }
        }
    }
    Ok(options)
}

thread_local! {
    /// The last expression: mostly it is the same for all rows.
    static LAST: RefCell<Option<(String, String, Regex)>> = const { RefCell::new(None) };
}

/// Errors: 2201B, 22023.
fn compiled(pattern: &str, letters: &str) -> Result<Regex, Error> {
    let known = LAST.with_borrow(|last| {
        let (of, with, regex) = last.as_ref()?;
        (of == pattern && with == letters).then(|| regex.clone())
    });
    if let Some(regex) = known {
        return Ok(regex);
    }
    let options = options(letters)?;
    let written = if options.literal { regex::escape(pattern) } else { pattern.to_owned() };
    let regex = RegexBuilder::new(&written)
        .case_insensitive(options.ignore_case)
        .dot_matches_new_line(!options.dot_stops)
        .multi_line(options.lines)
        .ignore_whitespace(options.expanded && !options.literal)
        .size_limit(MAX_EXPRESSION_BYTES)
        .build()
        .map_err(|problem| {
            let message = format!("invalid regular expression: {problem}");
            Error::new(SqlState::InvalidRegularExpression, message)
        })?;
    LAST.set(Some((pattern.to_owned(), letters.to_owned(), regex.clone())));
    Ok(regex)
}

/// The groups of the first match, or the match where there are none.
fn first_match(given: &[Given<'_>]) -> Result<Answer, Error> {
    let letters = text(given, 2);
    if letters.contains('g') {
        return Err(Error::new(
            SqlState::InvalidParameterValue,
            "regexp_match() does not support the \"global\" option",
        )
        .with_hint("Use the regexp_matches function instead."));
    }
    let regex = compiled(text(given, 1), letters)?;
    let Some(found) = regex.captures(text(given, 0)) else {
        return Ok(Answer::Null);
    };
    let from = usize::from(found.len() > 1);
    let groups = found.iter().skip(from).map(|group| group.map(|group| group.as_str().to_owned()));
    Ok(Answer::Texts(groups.collect()))
}

fn replaced(given: &[Given<'_>]) -> Result<Answer, Error> {
    let letters = text(given, 3);
    let regex = compiled(text(given, 1), letters)?;
    let replacement = text(given, 2);
    let limit = usize::from(!letters.contains('g'));
    let replace = |found: &Captures<'_>| expanded(replacement, found);
    Ok(Answer::Text(regex.replacen(text(given, 0), limit, replace).into_owned()))
}

/// `\1` to `\9` are groups, `\&` is the match, `\\` a backslash.
fn expanded(replacement: &str, found: &Captures<'_>) -> String {
    let mut out = String::new();
    let mut chars = replacement.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('&') => out.push_str(&found[0]),
            Some(digit @ '1'..='9') => {
                let group = digit.to_digit(10).and_then(|digit| found.get(digit as usize));
                out.push_str(group.map_or("", |group| group.as_str()));
            }
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
    }
    out
}

/// The regular expression that a pattern of SIMILAR TO is (`similar_escape_internal`).
///
/// Errors: 22025 for an escape of more than one character.
fn similar(pattern: &str, escape: &str) -> Result<String, Error> {
    let mut escapes = escape.chars();
    let escape = escapes.next();
    if escapes.next().is_some() {
        return Err(Error::new(SqlState::InvalidEscapeSequence, "invalid escape string")
            .with_hint("Escape string must be empty or one character."));
    }
    let mut out = "^(?s:".to_owned();
    let (mut in_class, mut escaped) = (false, false);
    for char in pattern.chars() {
        if escaped {
            out.push_str(&regex::escape(char.encode_utf8(&mut [0; 4])));
            escaped = false;
            continue;
        }
        match char {
            _ if Some(char) == escape => escaped = true,
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '\\' if in_class => out.push_str("\\\\"),
            _ if in_class => out.push(char),
            '[' => {
                in_class = true;
                out.push('[');
            }
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '\\' | '.' | '^' | '$' => out.extend(['\\', char]),
            _ => out.push(char),
        }
    }
    out.push_str(")$");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_similar_to_match_as_in_postgres() {
        let cases = [
            ("abc", "_b_", true),
            ("abc", "(a|b)%", true),
            ("abc", "a", false),
            ("a.c", "a.c", true),
            ("abc", "a.c", false),
            ("a%c", "a\\%c", true),
            ("", "", true),
            ("a^", "a^", true),
            ("ab", "a|ab", true),
            ("abab", "(ab){2}", true),
            ("foobar", "foo[a-c]_r", true),
            ("a\nb", "a_b", true),
            ("xab", "x|ab", false),
        ];
        for (text, pattern, expected) in cases {
            let regex = compiled(&similar(pattern, "\\").expect("a pattern"), "").expect("an expression");
            assert_eq!(regex.is_match(text), expected, "{text} SIMILAR TO {pattern}");
        }
        assert!(similar("a", "##").is_err());
    }

    #[test]
    fn groups_and_replacements_are_those_of_postgres() {
        let given =
            |texts: &'static [&'static str]| texts.iter().map(|text| Given::Text(text)).collect::<Vec<_>>();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(first_match(&given(&["abc", "(a)(z)?"])), Ok(Answer::Texts(vec![some("a"), None])));
        assert_eq!(first_match(&given(&["a\nb", "a.b"])), Ok(Answer::Texts(vec![some("a\nb")])));
        assert!(first_match(&given(&["abc", "b", "g"])).is_err());
        let replaces: [(&'static [&'static str], &str); 4] = [
            (&["abcabc", "b", "[\\&]"], "a[b]cabc"),
            (&["abcabc", "b", "$0", "g"], "a$0ca$0c"),
            (&["abc", "(b)", "<\\1>"], "a<b>c"),
            (&["abc", "b", "\\\\"], "a\\c"),
        ];
        for (texts, expected) in replaces {
            assert_eq!(replaced(&given(texts)), Ok(Answer::Text(expected.to_owned())), "{texts:?}");
        }
        assert_eq!(compiled("(", "").expect_err("not closed").state().code(), "2201B");
    }
}
