//! `tsvector`: the lexemes of a document, with their places.
//!
//! Read from what people write, and from the wire; written canonically.

use bytes::{BufMut, BytesMut};
use sepal_types::{Error, Result, SqlState};

use super::{
    lexemes::{LAST_PLACE, Lexemes, MOST_PLACES, Place, quote},
    scan::{Ends, Malformed, is_space, word},
};
use crate::values::binary_in::{Reader, incorrect};

/// Bytes of the longest lexeme (`MAXSTRLEN`), and of all with their places (`MAXSTRPOS`).
pub(super) const LONGEST_LEXEME: usize = 2_046;
const MOST_BYTES: usize = (1 << 20) - 1;

/// One lexeme; its places ascend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lexeme {
    pub text: String,
    pub places: Vec<Place>,
}

/// Lexemes in the order of their bytes, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TsVector {
    pub lexemes: Vec<Lexeme>,
}

impl TsVector {
    /// Reads what people write: lexemes in any order, several times, with places and weights.
    ///
    /// Errors: 42601, 54000.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let syntax = || Error::new(SqlState::SyntaxError, format!("syntax error in tsvector: \"{text}\""));
        let mut rest = text;
        let mut lexemes = Vec::new();
        loop {
            let scanned = word(&mut rest, Ends::Never).map_err(|malformed| match malformed {
                Malformed::NothingEscaped => no_escaped(text),
                Malformed::Syntax => syntax(),
            })?;
            let Some(text_of_lexeme) = scanned else { return Self::of(lexemes) };
            let places = match rest.strip_prefix(':') {
                Some(after) => {
                    rest = after;
                    places(&mut rest, text, &syntax)?
                }
                None => Vec::new(),
            };
            let length = text_of_lexeme.len();
            if length > LONGEST_LEXEME {
                let message = format!("word is too long ({length} bytes, max {LONGEST_LEXEME} bytes)");
                return Err(Error::new(SqlState::ProgramLimitExceeded, message));
            }
            lexemes.push(Lexeme { text: text_of_lexeme, places });
        }
    }

    /// Reads a canonical text.
    pub(crate) fn read(canonical: &str) -> Self {
        let plain = |quoted: &str| {
            if !quoted.contains(['\'', '\\']) {
                return quoted.to_owned();
            }
            let mut characters = quoted.chars();
            let mut text = String::with_capacity(quoted.len());
            while let Some(character) = characters.next() {
                text.push(character);
                if matches!(character, '\'' | '\\') {
                    characters.next();
                }
            }
            text
        };
        let lexeme = |lexeme: super::QuotedLexeme<'_>| Lexeme {
            text: plain(lexeme.quoted),
            places: lexeme.places().collect(),
        };
        Self { lexemes: Lexemes::new(canonical).map(lexeme).collect() }
    }

    /// Of lexemes in any order, perhaps several times. Errors: 54000 they are too long together.
    pub(crate) fn of(mut lexemes: Vec<Lexeme>) -> Result<Self> {
        lexemes.sort_by(|left, right| left.text.cmp(&right.text));
        let mut unique: Vec<Lexeme> = Vec::with_capacity(lexemes.len());
        for lexeme in lexemes {
            match unique.last_mut() {
                Some(last) if last.text == lexeme.text => last.places.extend(lexeme.places),
                _ => unique.push(lexeme),
            }
        }
        let mut bytes = 0;
        for lexeme in &mut unique {
            settle(&mut lexeme.places);
            bytes += lexeme.text.len() + 2 * (lexeme.places.len() + usize::from(!lexeme.places.is_empty()));
        }
        check_bytes(bytes)?;
        Ok(Self { lexemes: unique })
    }

    pub(crate) fn write(&self, out: &mut String) {
        for (number, lexeme) in self.lexemes.iter().enumerate() {
            if number > 0 {
                out.push(' ');
            }
            quote(&lexeme.text, out);
            write_places(&lexeme.places, out);
        }
    }

    /// Errors: 22P03, 22021.
    pub(crate) fn from_binary(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let count = reader.i32()?;
        if !(0..=i32::MAX / 4).contains(&count) {
            let message = "invalid size of tsvector";
            return Err(Error::new(SqlState::InvalidBinaryRepresentation, message));
        }
        let mut lexemes = Vec::new();
        for _ in 0..count {
            let text = reader.c_string()?.to_owned();
            let places = usize::from(reader.u16()?);
            if text.len() > LONGEST_LEXEME || text.is_empty() || places > MOST_PLACES {
                return Err(incorrect());
            }
            let places =
                (0..places).map(|_| reader.u16().map(Place::from_bits)).collect::<Result<Vec<_>>>()?;
            if places.iter().any(|place| place.place() == 0) {
                return Err(incorrect());
            }
            lexemes.push(Lexeme { text, places });
        }
        reader.end()?;
        Self::of(lexemes)
    }

    pub(crate) fn write_binary(&self, out: &mut BytesMut) {
        out.put_i32(i32::try_from(self.lexemes.len()).unwrap_or(i32::MAX));
        for lexeme in &self.lexemes {
            out.extend_from_slice(lexeme.text.as_bytes());
            out.put_u8(0);
            out.put_u16(u16::try_from(lexeme.places.len()).unwrap_or(u16::MAX));
            lexeme.places.iter().for_each(|place| out.put_u16(place.bits()));
        }
    }
}

/// `1,2A,7`, of which `text` is the whole.
fn places(rest: &mut &str, text: &str, syntax: &dyn Fn() -> Error) -> Result<Vec<Place>> {
    let mut places: Vec<Place> = Vec::new();
    loop {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            return Err(syntax());
        }
        // What no number holds is the last place, too.
        let place = rest[..digits].parse().unwrap_or(u32::from(LAST_PLACE));
        if place == 0 {
            let message = format!("wrong position info in tsvector: \"{text}\"");
            return Err(Error::new(SqlState::SyntaxError, message));
        }
        *rest = &rest[digits..];
        let mut weight = 0;
        let more = loop {
            let Some(c) = rest.chars().next() else { break false };
            if is_space(c) {
                break false;
            }
            *rest = &rest[c.len_utf8()..];
            let given = match c {
                ',' => break true,
                'a' | 'A' | '*' => 3,
                'b' | 'B' => 2,
                'c' | 'C' => 1,
                'd' | 'D' => 0,
                '0'..='9' => continue,
                _ => return Err(syntax()),
            };
            if weight != 0 {
                return Err(syntax());
            }
            weight = given;
        };
        places.push(Place::new(place, weight));
        if !more {
            return Ok(places);
        }
    }
}

/// Places in order, each once, with the greatest weight that it was given; as many as are kept.
fn settle(places: &mut Vec<Place>) {
    places.sort_by_key(|place| (place.place(), std::cmp::Reverse(place.weight())));
    places.dedup_by_key(|place| place.place());
    places.truncate(MOST_PLACES);
}

pub(crate) fn write_places(places: &[Place], out: &mut String) {
    for (number, place) in places.iter().enumerate() {
        out.push(if number == 0 { ':' } else { ',' });
        out.push_str(&place.place().to_string());
        match place.weight() {
            3 => out.push('A'),
            2 => out.push('B'),
            1 => out.push('C'),
            _ => {}
        }
    }
}

/// Errors: 54000.
pub(crate) fn check_bytes(bytes: usize) -> Result<()> {
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    let message = format!("string is too long for tsvector ({bytes} bytes, max {MOST_BYTES} bytes)");
    Err(Error::new(SqlState::ProgramLimitExceeded, message))
}

pub(super) fn no_escaped(text: &str) -> Error {
    Error::new(SqlState::SyntaxError, format!("there is no escaped character: \"{text}\""))
}
