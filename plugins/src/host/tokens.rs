//! Random words that stand for secrets while a request is put together inside a guest.
//!
//! A library that wants its API key as text gets such a word; when the guest sends a header with one in it, the header
//! becomes parts and `egress` puts the value in on the wire. Of a body the words are told beside it: whether a slot's
//! may stand there is `egress`'s to say. A word is worth nothing outside of its instance.

use std::fmt::Write;

use sepal_database::sealing::random_bytes;

use crate::call::{HeaderPart, HeaderValue, SECRET_WORD_BYTES as TOKEN_BYTES, SECRET_WORD_PREFIX as PREFIX};

const DIGITS: usize = TOKEN_BYTES - PREFIX.len();
/// Slots times users of `basic-auth-token`.
const MAX_TOKENS: usize = 64;

#[derive(Debug)]
struct Token {
    word: String,
    slot: String,
    /// `Basic base64(user:secret)` instead of the secret.
    user: Option<String>,
}

/// The words of one instance.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<Token>);

impl Tokens {
    /// The word for a slot's value, always the same within an instance. `None`: there are too many.
    pub(super) fn word(&mut self, slot: &str, user: Option<&str>) -> Option<String> {
        if let Some(token) = self.0.iter().find(|token| token.slot == slot && token.user.as_deref() == user) {
            return Some(token.word.clone());
        }
        if self.0.len() >= MAX_TOKENS {
            return None;
        }
        let mut word = PREFIX.to_owned();
        for byte in random_bytes::<{ DIGITS / 2 }>() {
            // Writing to a String cannot fail.
            let _ = write!(word, "{byte:02x}");
        }
        self.0.push(Token { word: word.clone(), slot: slot.to_owned(), user: user.map(ToOwned::to_owned) });
        Some(word)
    }

    /// A header's text with its words taken out. Words of others stay text.
    pub(super) fn header(&self, text: String) -> HeaderValue {
        if self.0.is_empty() || !text.contains(PREFIX) {
            return HeaderValue::Text(text);
        }
        let mut parts = Vec::new();
        let (mut plain, mut from) = (0, 0);
        while let Some(found) = text[from..].find(PREFIX).map(|found| from + found) {
            from = found + PREFIX.len();
            // `get`: the guest may have put anything behind the prefix, half a character too.
            let word = text.get(found..found + TOKEN_BYTES);
            let Some(token) = word.and_then(|word| self.0.iter().find(|token| token.word == word)) else {
                continue;
            };
            if plain < found {
                parts.push(HeaderPart::Text(text[plain..found].to_owned()));
            }
            parts.push(match &token.user {
                Some(user) => HeaderPart::Basic(user.clone(), token.slot.clone()),
                None => HeaderPart::Secret(token.slot.clone()),
            });
            from = found + TOKEN_BYTES;
            plain = from;
        }
        if parts.is_empty() {
            return HeaderValue::Text(text);
        }
        if plain < text.len() {
            parts.push(HeaderPart::Text(text[plain..].to_owned()));
        }
        HeaderValue::Parts(parts)
    }

    /// The words that a body of text holds, with their slots. Those of `basic-auth-token` are for headers and stay text.
    pub(super) fn of_body(&self, body: &[u8]) -> Vec<(String, String)> {
        let plain = self.0.iter().filter(|token| token.user.is_none());
        let mut plain = plain.peekable();
        if plain.peek().is_none() {
            return Vec::new();
        }
        let Ok(text) = std::str::from_utf8(body) else { return Vec::new() };
        if !text.contains(PREFIX) {
            return Vec::new();
        }
        let held = plain.filter(|token| text.contains(&token.word));
        held.map(|token| (token.word.clone(), token.slot.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_wherever_they_stand() {
        let mut tokens = Tokens::default();
        let key = tokens.word("key", None).unwrap();
        let basic = tokens.word("key", Some("me")).unwrap();
        assert_eq!(tokens.word("key", None).unwrap(), key);
        assert_ne!(key, basic);
        assert_eq!(key.len(), TOKEN_BYTES);

        let text = |text: &str| HeaderPart::Text(text.to_owned());
        let secret = || HeaderPart::Secret("key".to_owned());
        assert_eq!(
            tokens.header(format!("token {key}, again {key}{basic}.")),
            HeaderValue::Parts(vec![
                text("token "),
                secret(),
                text(", again "),
                secret(),
                HeaderPart::Basic("me".to_owned(), "key".to_owned()),
                text("."),
            ])
        );
        assert_eq!(tokens.header(key), HeaderValue::Parts(vec![secret()]));
    }

    #[test]
    fn words_of_others_are_text() {
        let mut tokens = Tokens::default();
        let other = Tokens::default().word("key", None).unwrap();
        tokens.word("key", None).unwrap();
        for plain in
            ["x".to_owned(), other, format!("{PREFIX}é"), format!("{PREFIX}{PREFIX}"), PREFIX.to_owned()]
        {
            assert_eq!(tokens.header(plain.clone()), HeaderValue::Text(plain));
        }
    }

    #[test]
    fn a_body_tells_its_words() {
        let mut tokens = Tokens::default();
        assert!(tokens.of_body(b"{}").is_empty());
        let (key, other) = (tokens.word("key", None).unwrap(), tokens.word("other", None).unwrap());
        let basic = tokens.word("key", Some("me")).unwrap();
        let body = format!(r#"{{"a":"{key}","b":"{basic}","c":"{key}"}}"#);
        assert_eq!(tokens.of_body(body.as_bytes()), [(key, "key".to_owned())]);
        assert!(tokens.of_body(&[other.as_bytes(), &[0xff]].concat()).is_empty(), "this is no text");
        assert!(tokens.of_body(PREFIX.as_bytes()).is_empty());
    }

    #[test]
    fn there_is_an_end_to_words() {
        let mut tokens = Tokens::default();
        for user in 0..MAX_TOKENS {
            tokens.word("key", Some(&user.to_string())).unwrap();
        }
        assert_eq!(tokens.word("key", None), None);
    }
}
