//! Secrets inside a request's body: each word of a guest's gives way to the value that it stands for, written as the
//! body's content type needs it.
//!
//! `outside` calls it with values that may go where the body goes. Two passes, so that the result is allocated once
//! and its size is known before.

use aho_corasick::AhoCorasick;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use zeroize::Zeroizing;

use super::{request::denied, scrub::percent_encoded};
use crate::call::{HeaderValue, HttpError};

/// How a value is written, so that none can say more than its place has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As it is.
    Plain,
    /// Inside of a JSON string.
    Json,
    /// A value of `application/x-www-form-urlencoded`.
    Form,
}

impl Spelling {
    /// By the content type. Of a parameter such as the charset nothing depends.
    pub(super) fn of(headers: &[(HeaderName, HeaderValue)]) -> Self {
        let stated = headers.iter().find(|(name, _)| *name == CONTENT_TYPE);
        let Some((_, HeaderValue::Text(text))) = stated else { return Self::Plain };
        let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/x-www-form-urlencoded" => Self::Form,
            // application/json, application/x-ndjson, application/vnd.api+json
            kind if kind.ends_with("json") => Self::Json,
            _ => Self::Plain,
        }
    }

    fn spell(self, value: &Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, HttpError> {
        match self {
            Self::Plain => Ok(value.clone()),
            Self::Form => Ok(percent_encoded(value)),
            Self::Json => {
                let text = std::str::from_utf8(value).map_err(|_| {
                    denied("a secret in a JSON body has to be UTF-8 text: store it as base64".to_owned())
                })?;
                let quoted = serde_json::to_string(text).map(Zeroizing::new);
                let quoted = quoted.map_err(|error| HttpError::Protocol(error.to_string()))?;
                Ok(Zeroizing::new(quoted.as_bytes()[1..quoted.len() - 1].to_vec()))
            }
        }
    }
}

/// The body with a value in the place of each word. Errors: it would have more than `most` bytes.
pub(super) fn with_secrets(
    body: &[u8],
    words: &[(&str, Zeroizing<Vec<u8>>)],
    spelling: Spelling,
    most: u64,
) -> Result<Vec<u8>, HttpError> {
    let values = words.iter().map(|(_, value)| spelling.spell(value)).collect::<Result<Vec<_>, _>>()?;
    let finder = AhoCorasick::new(words.iter().map(|(word, _)| word))
        .map_err(|error| HttpError::Protocol(error.to_string()))?;
    let places: Vec<_> = finder.find_iter(body).collect();
    let size = places.iter().fold(body.len(), |size, place| {
        // What is taken away was counted with the body.
        (size - place.len()).saturating_add(values[place.pattern().as_usize()].len())
    });
    if size as u64 > most {
        return Err(denied(format!(
            "with its secrets the body has {size} bytes, more than the {most} that are allowed"
        )));
    }
    let mut whole = Vec::with_capacity(size);
    let mut from = 0;
    for place in places {
        whole.extend_from_slice(&body[from..place.start()]);
        whole.extend_from_slice(&values[place.pattern().as_usize()]);
        from = place.end();
    }
    whole.extend_from_slice(&body[from..]);
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: &str = "sepal-secret-00112233445566778899aabbccddeeff";

    fn replaced(body: &str, value: &[u8], spelling: Spelling, most: u64) -> Result<String, HttpError> {
        let words = [(WORD, Zeroizing::new(value.to_vec()))];
        with_secrets(body.as_bytes(), &words, spelling, most).map(|whole| String::from_utf8(whole).unwrap())
    }

    #[test]
    fn a_value_stays_in_its_place() {
        let value = b"a\"b\\c&d=\n\xc3\xbc";
        let json = replaced(&format!(r#"{{"x":"{WORD}","y":1}}"#), value, Spelling::Json, 1000).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed, serde_json::json!({ "x": "a\"b\\c&d=\n\u{fc}", "y": 1 }));
        let form = replaced(&format!("x={WORD}&y=1"), value, Spelling::Form, 1000).unwrap();
        assert_eq!(form, "x=a%22b%5Cc%26d%3D%0A%C3%BC&y=1");
        let plain = replaced(&format!("{WORD}{WORD}-{WORD}"), b"v", Spelling::Plain, 1000).unwrap();
        assert_eq!(plain, "vv-v");
        assert_eq!(replaced("nothing", b"v", Spelling::Plain, 7).unwrap(), "nothing");
        assert!(replaced(WORD, b"\xff", Spelling::Json, 1000).is_err(), "JSON is text");
    }

    #[test]
    fn many_words_are_no_way_to_much_memory() {
        let body = WORD.repeat(1000);
        let refused = replaced(&body, &[b'x'; 1 << 20], Spelling::Plain, 1 << 20);
        assert!(matches!(refused, Err(HttpError::Denied(why)) if why.contains("more than the 1048576")));
    }

    #[test]
    fn the_content_type_says_how() {
        let of = |text: &str| Spelling::of(&[(CONTENT_TYPE, HeaderValue::Text(text.to_owned()))]);
        assert_eq!(of("application/json"), Spelling::Json);
        assert_eq!(of("Application/JSON; charset=utf-8"), Spelling::Json);
        assert_eq!(of("application/vnd.api+json"), Spelling::Json);
        assert_eq!(of("application/x-www-form-urlencoded"), Spelling::Form);
        assert_eq!(of("text/plain"), Spelling::Plain);
        assert_eq!(Spelling::of(&[]), Spelling::Plain);
    }
}
