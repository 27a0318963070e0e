//! Settings in a startup packet: the `options` string and the client's encoding.
//!
//! Called by `session::startup`; no other module reads raw startup parameters.

use sepal_database::{Error, SqlState};

/// Parses `-c name=value`, `-cname=value` and `--name=value`; a backslash keeps a space inside a value. In
/// the long form dashes in names are underscores, as in Postgres.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut settings = Vec::new();
    let mut words = split(text).into_iter();
    while let Some(word) = words.next() {
        let setting = if let Some(long) = word.strip_prefix("--") {
            long.split_once('=').map(|(name, value)| (name.replace('-', "_"), value.to_owned()))
        } else if word == "-c" {
            words.next().as_deref().and_then(assignment)
        } else {
            word.strip_prefix("-c").and_then(assignment)
        };
        match setting {
            Some((name, value)) if !name.is_empty() => settings.push((name, value)),
            _ => {
                return Err(Error::new(
                    SqlState::InvalidParameterValue,
                    format!("invalid startup option: \"{word}\""),
                )
                .with_hint("Options are written \"-c name=value\" or \"--name=value\"."));
            }
        }
    }
    Ok(settings)
}

fn assignment(word: &str) -> Option<(String, String)> {
    word.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.to_owned()))
}

/// Splits at spaces that no backslash precedes; a backslash makes the next character plain.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character.is_ascii_whitespace() {
            if started {
                words.push(std::mem::take(&mut word));
            }
            started = false;
            continue;
        }
        started = true;
        match character {
            '\\' => word.extend(characters.next()),
            plain => word.push(plain),
        }
    }
    if started {
        words.push(word);
    }
    words
}

/// Only UTF-8 is spoken. Spelled `UTF8`, `utf-8`, `'UTF8'` or `unicode`, as Postgres' clients do.
pub fn check_encoding(name: &str) -> Result<(), Error> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if plain.eq_ignore_ascii_case("utf8") || plain.eq_ignore_ascii_case("unicode") {
        return Ok(());
    }
    Err(Error::new(
        SqlState::InvalidParameterValue,
        format!("invalid value for parameter \"client_encoding\": \"{name}\""),
    )
    .with_hint("Set client_encoding to UTF8; no other encoding is spoken."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w21_options_are_parsed() {
        let parsed =
            parse(r" -c hnsw.ef_search=100 -cTimeZone=UTC --statement-timeout=5s -c a=x\ y\\ ").unwrap();
        let expected =
            [("hnsw.ef_search", "100"), ("TimeZone", "UTC"), ("statement_timeout", "5s"), ("a", "x y\\")];
        assert_eq!(parsed, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for wrong in ["-d5", "-c", "-c =1", "--", "word", "-c noequals"] {
            assert_eq!(parse(wrong).unwrap_err().state().code(), "22023", "{wrong}");
        }
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn only_utf8_is_spoken() {
        assert!(["UTF8", "utf-8", "'utf-8'", "UNICODE"].into_iter().all(|name| check_encoding(name).is_ok()));
        assert!(["LATIN1", "SQL_ASCII", ""].into_iter().all(|name| check_encoding(name).is_err()));
    }
}
