//! JSON: checking `json`, and bringing `jsonb` into its one text form, as Postgres prints it.
//!
//! Called by `text_in` and by `functions/jsonb`. `jsonb` is kept as that text: members sorted by key length, then
//! bytes, the last of equal keys; `": "` and `", "` between; escapes resolved; numbers without exponent. Numbers
//! keep their digits, so that nothing is rounded to a float. The parser builds no tree: it writes as it reads and
//! reorders an object's text when the object ends, so that memory stays within a small multiple of the input.

mod canonical;
mod lexer;

use sepal_types::{Error, Result, SqlState};

/// Deepest nesting; bounds the stack.
const MAX_DEPTH: usize = 512;
/// Most bytes of a `jsonb` (Postgres' JENTRY_OFFLENMASK).
const MAX_JSONB_BYTES: usize = 268_435_455;

/// Checks that the text is one JSON value. Errors: 22P02; 54000 nested too deep.
pub(super) fn validate(text: &str) -> Result<()> {
    Parser { text, at: 0, depth: 0, out: None }.document()
}

/// The text of the value as `jsonb` prints it. Errors: as [`validate`]; 22P05 for `\u0000`; 54000 too large.
pub(crate) fn normalize(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    Parser { text, at: 0, depth: 0, out: Some(&mut out) }.document()?;
    Ok(out)
}

/// A string as a JSON token, with its quotes and Postgres' escapes.
pub(crate) fn quote(text: &str) -> String {
    let mut token = String::with_capacity(text.len() + 2);
    token.push('"');
    for character in text.chars() {
        canonical::escape(character, &mut token);
    }
    token.push('"');
    token
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Where the canonical text goes; `None` only checks.
    out: Option<&'a mut String>,
}

/// A member of an object, as byte positions in the canonical text.
struct Member {
    key: usize,
    key_end: usize,
    end: usize,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<()> {
        self.value()?;
        self.skip_spaces();
        if self.peek().is_some() {
            return Err(self.unexpected("end of input"));
        }
        Ok(())
    }

    fn value(&mut self) -> Result<()> {
        self.skip_spaces();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(byte) if lexer::is_word_byte(byte) => self.word(),
            _ => Err(self.unexpected("JSON value")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<()>) -> Result<()> {
        if self.depth == MAX_DEPTH {
            let message = format!("JSON is nested more than {MAX_DEPTH} levels deep");
            return Err(Error::new(SqlState::ProgramLimitExceeded, message).with_hint("Store it as text."));
        }
        self.depth += 1;
        self.at += 1;
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<()> {
        self.emit("[")?;
        self.skip_spaces();
        if self.take(b']') {
            return self.emit("]");
        }
        loop {
            self.value()?;
            self.skip_spaces();
            if self.take(b']') {
                return self.emit("]");
            }
            if !self.take(b',') {
                return Err(self.unexpected("\",\" or \"]\""));
            }
            self.emit(", ")?;
        }
    }

    fn object(&mut self) -> Result<()> {
        self.emit("{")?;
        let start = self.written();
        let mut members: Vec<Member> = Vec::new();
        let mut expected_key = "string or \"}\"";
        self.skip_spaces();
        if self.take(b'}') {
            return self.emit("}");
        }
        loop {
            self.skip_spaces();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected(expected_key));
            }
            expected_key = "string";
            let key = self.written();
            self.string()?;
            let key_end = self.written();
            self.skip_spaces();
            if !self.take(b':') {
                return Err(self.unexpected("\":\""));
            }
            self.emit(": ")?;
            self.value()?;
            if self.out.is_some() {
                members.push(Member { key, key_end, end: self.written() });
            }
            self.skip_spaces();
            if self.take(b'}') {
                if let Some(out) = self.out.as_deref_mut() {
                    canonical::sort_members(out, start, &members);
                }
                return self.emit("}");
            }
            if !self.take(b',') {
                return Err(self.unexpected("\",\" or \"}\""));
            }
            self.emit(", ")?;
        }
    }

    fn emit(&mut self, text: &str) -> Result<()> {
        let Some(out) = self.out.as_deref_mut() else {
            return Ok(());
        };
        if out.len() + text.len() > MAX_JSONB_BYTES {
            let message = format!("total size of jsonb exceeds the maximum of {MAX_JSONB_BYTES} bytes");
            return Err(Error::new(SqlState::ProgramLimitExceeded, message).with_hint("Store it as text."));
        }
        out.push_str(text);
        Ok(())
    }

    fn written(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}
