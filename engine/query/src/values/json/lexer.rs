//! Tokens of JSON: strings, numbers, words, and the words of an error about them.
//!
//! Called by the parser in `json`. Messages, details and the excerpt in the context are Postgres'
//! (`src/common/jsonapi.c`).

use sepal_types::{Error, Result, SqlState};

use super::{Parser, canonical};

const MESSAGE: &str = "invalid input syntax for type json";
/// Longest excerpt of a line, in bytes.
const MAX_EXCERPT_BYTES: usize = 50;

/// Bytes that Postgres takes for one word when it reports a bad token.
pub(super) fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

impl Parser<'_> {
    /// `true`, `false` or `null`.
    pub(super) fn word(&mut self) -> Result<()> {
        let start = self.at;
        self.skip_word();
        match &self.text[start..self.at] {
            word @ ("true" | "false" | "null") => {
                let word = word.to_owned();
                self.emit(&word)
            }
            _ => Err(self.bad_token(start)),
        }
    }

    pub(super) fn number(&mut self) -> Result<()> {
        let start = self.at;
        self.take(b'-');
        let mut valid = self.take(b'0') || self.digits();
        if valid && self.take(b'.') {
            valid = self.digits();
        }
        if valid && (self.take(b'e') || self.take(b'E')) {
            let _signed = self.take(b'+') || self.take(b'-');
            valid = self.digits();
        }
        let end = self.at;
        self.skip_word();
        if !valid || self.at != end {
            return Err(self.bad_token(start));
        }
        if self.out.is_some() {
            let number = canonical::number(&self.text[start..end]).into_owned();
            return self.emit(&number);
        }
        Ok(())
    }

    /// A string with its quotes; what is written has its escapes resolved where `jsonb` resolves them.
    pub(super) fn string(&mut self) -> Result<()> {
        let text = self.text;
        let start = self.at;
        self.at += 1;
        self.emit("\"")?;
        let mut run = self.at;
        loop {
            match self.peek() {
                None => return Err(self.bad_token(start)),
                Some(b'"') => {
                    self.emit(&text[run..self.at])?;
                    self.at += 1;
                    return self.emit("\"");
                }
                Some(b'\\') => {
                    self.emit(&text[run..self.at])?;
                    self.at += 1;
                    self.escape(start)?;
                    run = self.at;
                }
                Some(byte) if byte < b' ' => {
                    let detail = format!("Character with value 0x{byte:02x} must be escaped.");
                    return Err(self.refuse(detail, self.at));
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// The token here is not what the grammar wants. A token that is itself broken is reported as that.
    pub(super) fn unexpected(&mut self, expected: &str) -> Error {
        self.out = None;
        let start = self.at;
        let lexed = match self.peek() {
            None => return self.refuse("The input string ended unexpectedly.".to_owned(), start),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(byte) if is_word_byte(byte) => self.word(),
            Some(byte) => {
                self.at += 1;
                match byte {
                    b'{' | b'}' | b'[' | b']' | b',' | b':' => Ok(()),
                    _ => Err(self.bad_token(start)),
                }
            }
        };
        match lexed {
            Ok(()) => {
                let token = &self.text[start..self.at];
                self.refuse(format!("Expected {expected}, but found \"{token}\"."), self.at)
            }
            Err(error) => error,
        }
    }

    /// After a backslash.
    fn escape(&mut self, string: usize) -> Result<()> {
        let Some(byte) = self.peek() else {
            return Err(self.bad_token(string));
        };
        let character = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                let unit = self.hex_unit(string)?;
                return self.unicode(unit, string);
            }
            _ => {
                let escaped = self.text[self.at..].chars().next().unwrap_or_default();
                let end = self.at + escaped.len_utf8();
                return Err(self.refuse(format!("Escape sequence \"\\{escaped}\" is invalid."), end));
            }
        };
        self.at += 1;
        self.emit_character(character)
    }

    /// After `\uXXXX`. `json` keeps the escape as it is, so only `jsonb` minds what it means.
    fn unicode(&mut self, unit: u16, string: usize) -> Result<()> {
        if self.out.is_none() {
            return Ok(());
        }
        if unit == 0 {
            let error = Error::new(SqlState::UntranslatableCharacter, "unsupported Unicode escape sequence");
            return Err(self.located(error.with_detail("\\u0000 cannot be converted to text."), self.at));
        }
        let mut units = vec![unit];
        if (0xd800..0xdc00).contains(&unit) {
            if !self.text[self.at..].starts_with("\\u") {
                return Err(self.lone_surrogate());
            }
            self.at += 2;
            units.push(self.hex_unit(string)?);
        }
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => self.emit_character(character),
            _ => Err(self.lone_surrogate_at(self.at)),
        }
    }

    fn hex_unit(&mut self, string: usize) -> Result<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            let Some(character) = self.text[self.at..].chars().next() else {
                return Err(self.bad_token(string));
            };
            let end = self.at + character.len_utf8();
            let Some(digit) = character.to_digit(16) else {
                let detail = "\"\\u\" must be followed by four hexadecimal digits.".to_owned();
                return Err(self.refuse(detail, end));
            };
            unit = unit << 4 | digit as u16;
            self.at = end;
        }
        Ok(unit)
    }

    fn lone_surrogate(&self) -> Error {
        let next = self.text[self.at..].chars().next().map_or(0, char::len_utf8);
        self.lone_surrogate_at(self.at + next)
    }

    fn lone_surrogate_at(&self, end: usize) -> Error {
        self.refuse("Unicode low surrogate must follow a high surrogate.".to_owned(), end)
    }

    fn emit_character(&mut self, character: char) -> Result<()> {
        if self.out.is_none() {
            return Ok(());
        }
        let mut text = String::new();
        canonical::escape(character, &mut text);
        self.emit(&text)
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at > start
    }

    fn skip_word(&mut self) {
        while self.peek().is_some_and(is_word_byte) {
            self.at += 1;
        }
    }

    fn bad_token(&self, start: usize) -> Error {
        self.refuse(format!("Token \"{}\" is invalid.", &self.text[start..self.at]), self.at)
    }

    fn refuse(&self, detail: String, end: usize) -> Error {
        let error = Error::new(SqlState::InvalidTextRepresentation, MESSAGE).with_detail(detail);
        self.located(error, end)
    }

    /// Adds `JSON data, line 1: …` with the line's text up to `end`.
    fn located(&self, error: Error, end: usize) -> Error {
        let before = &self.text[..end];
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let mut start =
            before.ceil_char_boundary((end + 1).saturating_sub(MAX_EXCERPT_BYTES).max(line_start));
        if start - line_start <= 3 {
            start = line_start;
        }
        let prefix = if start > line_start { "..." } else { "" };
        let cut = self.text.as_bytes().get(end).is_some_and(|byte| !matches!(byte, b'\n' | b'\r'));
        let suffix = if cut { "..." } else { "" };
        error.with_context(format!("JSON data, line {line}: {prefix}{}{suffix}", &before[start..]))
    }
}
