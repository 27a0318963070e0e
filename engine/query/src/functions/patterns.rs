//! `regexp_match`, `regexp_replace` and their kin with Postgres' groups, replacements and options; SIMILAR TO as a
//! regular expression.
//!
//! Expressions are those of the `regex` crate: without back references and lookaround. A group that took no part is
//! NULL in a match, and a replacement refers to groups by `\1` and `\&` alone.

use std::{cell::RefCell, ops::Range, sync::Arc};

use datafusion::logical_expr::ScalarUDF;
use regex::{Captures, Regex, RegexBuilder};
use sepal_types::{Error, SqlState};

use super::overloads::{
    Answer, Given,
    Kind::{Int4, Text, Texts},
    Overload, functions as declared, text,
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
        "regexp_instr",
        &[
            Overload::new(&[Text, Text], Int4, |given, _| place_of(given)),
            Overload::new(&[Text, Text, Int4], Int4, |given, _| place_of(given)),
            Overload::new(&[Text, Text, Int4, Int4], Int4, |given, _| place_of(given)),
            Overload::new(&[Text, Text, Int4, Int4, Int4], Int4, |given, _| place_of(given)),
            Overload::new(&[Text, Text, Int4, Int4, Int4, Text], Int4, |given, _| place_of(given)),
            Overload::new(&[Text, Text, Int4, Int4, Int4, Text, Int4], Int4, |given, _| place_of(given)),
        ],
    ),
    (
        "regexp_split_to_array",
        &[
            Overload::new(&[Text, Text], Texts, |given, _| split(given)),
            Overload::new(&[Text, Text, Text], Texts, |given, _| split(given)),
        ],
    ),
    (
        "regexp_substr",
        &[
            Overload::new(&[Text, Text], Text, |given, _| part(given)),
            Overload::new(&[Text, Text, Int4], Text, |given, _| part(given)),
            Overload::new(&[Text, Text, Int4, Int4], Text, |given, _| part(given)),
            Overload::new(&[Text, Text, Int4, Int4, Text], Text, |given, _| part(given)),
            Overload::new(&[Text, Text, Int4, Int4, Text, Int4], Text, |given, _| part(given)),
        ],
    ),
    // What `sql/rewrite.rs` makes of `substring(… from pattern)`.
    ("sepal_substring", &[Overload::new(&[Text, Text], Text, |given, _| first_part(given))]),
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

/// Which match is wanted, and what of it: the arguments after the pattern.
struct Wanted {
    /// Characters to skip.
    skipped: i64,
    /// From 1.
    number: i64,
    /// 0 is the match.
    group: usize,
}

impl Wanted {
    /// Errors: 22023.
    fn new(skip_from: Option<i64>, number: Option<i64>, group: Option<i64>) -> Result<Self, Error> {
        let checked = |name: &str, value: i64, least: i64| match value < least {
            true => Err(bad_parameter(name, value)),
            false => Ok(value),
        };
        let group = checked("subexpr", group.unwrap_or(0), 0)?;
        Ok(Self {
            skipped: checked("start", skip_from.unwrap_or(1), 1)? - 1,
            number: checked("n", number.unwrap_or(1), 1)?,
            group: usize::try_from(group).unwrap_or(usize::MAX),
        })
    }

    /// Where in the text it is, in bytes.
    fn find(&self, regex: &Regex, text: &str) -> Option<Range<usize>> {
        let skipped = usize::try_from(self.skipped).unwrap_or(usize::MAX);
        let from = text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(skipped)?;
        let mut at = from;
        for _ in 1..self.number {
            let found = regex.find_at(text, at)?;
            at = match found.is_empty() {
                true => found.end() + text[found.end()..].chars().next()?.len_utf8(),
                false => found.end(),
            };
        }
        regex.captures_at(text, at)?.get(self.group).map(|group| group.range())
    }
}

fn bad_parameter(name: &str, value: i64) -> Error {
    let message = format!("invalid value for parameter \"{name}\": {value}");
    Error::new(SqlState::InvalidParameterValue, message)
}

fn whole(given: &[Given<'_>], position: usize) -> Option<i64> {
    match given.get(position) {
        Some(Given::Int(number)) => Some(*number),
        _ => None,
    }
}

/// Errors: 22023 for `g`, which a function that finds one match, or all, does not know.
fn without_global<'a>(function: &str, letters: &'a str) -> Result<&'a str, Error> {
    if letters.contains('g') {
        let message = format!("{function}() does not support the \"global\" option");
        return Err(Error::new(SqlState::InvalidParameterValue, message));
    }
    Ok(letters)
}

/// `regexp_instr`: 0 where nothing is found.
fn place_of(given: &[Given<'_>]) -> Result<Answer, Error> {
    let wanted = Wanted::new(whole(given, 2), whole(given, 3), whole(given, 6))?;
    let after = match whole(given, 4).unwrap_or(0) {
        end @ (0 | 1) => end == 1,
        other => return Err(bad_parameter("endoption", other)),
    };
    let regex = compiled(text(given, 1), without_global("regexp_instr", text(given, 5))?)?;
    let subject = text(given, 0);
    let place = wanted.find(&regex, subject).map_or(0, |found| {
        let bytes = if after { found.end } else { found.start };
        subject[..bytes].chars().count() as i64 + 1
    });
    Ok(Answer::Int(place))
}

/// `regexp_substr`
fn part(given: &[Given<'_>]) -> Result<Answer, Error> {
    let wanted = Wanted::new(whole(given, 2), whole(given, 3), whole(given, 5))?;
    let regex = compiled(text(given, 1), without_global("regexp_substr", text(given, 4))?)?;
    let subject = text(given, 0);
    let found = wanted.find(&regex, subject);
    Ok(found.map_or(Answer::Null, |found| Answer::Text(subject[found].to_owned())))
}

/// `substring(… from pattern)`: the first group of the first match, or the match where there are none.
fn first_part(given: &[Given<'_>]) -> Result<Answer, Error> {
    let regex = compiled(text(given, 1), "")?;
    let group = usize::from(regex.captures_len() > 1);
    let found = regex.captures(text(given, 0)).and_then(|found| found.get(group));
    Ok(found.map_or(Answer::Null, |found| Answer::Text(found.as_str().to_owned())))
}

/// What lies between matches. One of nothing divides two characters, and counts neither at the ends nor beside another.
fn split(given: &[Given<'_>]) -> Result<Answer, Error> {
    let regex = compiled(text(given, 1), without_global("regexp_split_to_array", text(given, 2))?)?;
    let subject = text(given, 0);
    let (mut parts, mut from) = (Vec::new(), 0);
    for found in regex.find_iter(subject) {
        if found.start() < subject.len() && found.end() > from {
            parts.push(Some(subject[from..found.start()].to_owned()));
            from = found.end();
        }
    }
    parts.push(Some(subject[from..].to_owned()));
    Ok(Answer::Texts(parts))
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

    #[test]
    fn texts_are_split_and_searched_as_in_postgres() {
        let parts = |text: &'static str, pattern: &'static str| match split(&[
            Given::Text(text),
            Given::Text(pattern),
        ]) {
            Ok(Answer::Texts(parts)) => parts.into_iter().flatten().collect::<Vec<_>>().join("|"),
            other => panic!("{other:?}"),
        };
        assert_eq!(parts("hello  world", r"\s+"), "hello|world");
        assert_eq!(parts("the quick", r"\s*"), "t|h|e|q|u|i|c|k");
        assert_eq!(parts(",a,", ","), "|a|", "nothing before the first one, and nothing after the last");
        assert_eq!(parts("", ","), "");
        let place = |more: &[i64]| {
            let texts = [Given::Text("éabcabc"), Given::Text("(a)(b)")];
            let given: Vec<Given<'_>> =
                texts.into_iter().chain(more.iter().map(|number| Given::Int(*number))).collect();
            place_of(&given)
        };
        assert_eq!(place(&[]), Ok(Answer::Int(2)));
        assert_eq!(place(&[1, 2]), Ok(Answer::Int(5)));
        assert_eq!(place(&[3, 1, 1]), Ok(Answer::Int(7)));
        assert_eq!(place(&[1, 3]), Ok(Answer::Int(0)));
        assert_eq!(place(&[100]), Ok(Answer::Int(0)));
        assert!(place(&[0]).is_err() && place(&[1, 1, 2]).is_err());
        let given = [Given::Text("foobar"), Given::Text("o(.)b")];
        assert_eq!(first_part(&given), Ok(Answer::Text("o".to_owned())));
        assert_eq!(part(&given), Ok(Answer::Text("oob".to_owned())));
    }
}
