//! Random words that stand for secrets while a header is put together inside a guest.
//!
//! A library that wants its API key as text gets such a word; when the guest sends a header with one in it, the header
//! becomes parts and `egress` puts the value in on the wire. A word is worth nothing outside of its instance.

use std::fmt::Write;

use sepal_database::sealing::random_bytes;

use crate::call::{HeaderPart, HeaderValue};

const PREFIX: &str = "sepal-secret-";
const DIGITS: usize = 32;
const TOKEN_BYTES: usize = PREFIX.len() + DIGITS;
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
    fn there_is_an_end_to_words() {
        let mut tokens = Tokens::default();
        for user in 0..MAX_TOKENS {
            tokens.word("key", Some(&user.to_string())).unwrap();
        }
        assert_eq!(tokens.word("key", None), None);
    }
}
