//! The lexemes of a canonical text, one after the other, without an allocation.
//!
//! For functions that look at every row: what is quoted is compared as it is quoted.

/// The last place that is told from others (`MAXENTRYPOS - 1`).
pub(crate) const LAST_PLACE: u16 = 16_383;
/// Places of one lexeme (`MAXNUMPOS`).
pub(crate) const MOST_PLACES: usize = 256;

/// Where a lexeme stands in its document, from 1, and with which weight: D is 0, A is 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u16);

impl Place {
    pub(crate) fn new(place: u32, weight: u8) -> Self {
        let place = u16::try_from(place).unwrap_or(LAST_PLACE).min(LAST_PLACE);
        Self(place | u16::from(weight & 3) << 14)
    }

    /// From the binary form.
    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    pub(crate) const fn place(self) -> u16 {
        self.0 & LAST_PLACE
    }

    pub(crate) const fn weight(self) -> u8 {
        (self.0 >> 14) as u8
    }

    #[must_use]
    pub(crate) fn weighted(self, weight: u8) -> Self {
        Self(self.place() | u16::from(weight & 3) << 14)
    }
}

/// A lexeme as it is written, without the quotes around it: those within it, and backslashes, stand twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuotedLexeme<'a> {
    pub quoted: &'a str,
    /// `1,2A,7`; empty where no place is known.
    places: &'a str,
}

impl QuotedLexeme<'_> {
    pub(crate) fn has_places(&self) -> bool {
        !self.places.is_empty()
    }

    /// How many places it has.
    pub(crate) fn count(&self) -> usize {
        if self.places.is_empty() { 0 } else { 1 + self.places.bytes().filter(|byte| *byte == b',').count() }
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        let written = self.places.split(',').filter(|place| !place.is_empty());
        written.map(|place| {
            let (mut number, mut weight) = (0_u32, 0);
            for byte in place.bytes() {
                match byte {
                    b'0'..=b'9' => number = number.saturating_mul(10).saturating_add(u32::from(byte - b'0')),
                    b'A' => weight = 3,
                    b'B' => weight = 2,
                    b'C' => weight = 1,
                    _ => {}
                }
            }
            Place::new(number, weight)
        })
    }
}

/// The lexemes of a canonical text.
#[derive(Clone, Debug)]
pub(crate) struct Lexemes<'a>(&'a str);

impl<'a> Lexemes<'a> {
    pub(crate) fn new(canonical: &'a str) -> Self {
        Self(canonical)
    }
}

impl<'a> Iterator for Lexemes<'a> {
    type Item = QuotedLexeme<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let inner = self.0.trim_start_matches(' ').strip_prefix('\'')?;
        let bytes = inner.as_bytes();
        let mut end = 0;
        loop {
            match (bytes.get(end), bytes.get(end + 1)) {
                (None, _) => return None,
                (Some(b'\\'), _) | (Some(b'\''), Some(b'\'')) => end += 2,
                (Some(b'\''), _) => break,
                _ => end += 1,
            }
        }
        let quoted = inner.get(..end)?;
        let rest = inner.get(end + 1..)?;
        let (places, rest) = match rest.strip_prefix(':') {
            Some(after) => after.split_at(after.find(' ').unwrap_or(after.len())),
            None => ("", rest),
        };
        self.0 = rest;
        Some(QuotedLexeme { quoted, places })
    }
}

/// Writes a lexeme with quotes around it.
pub(crate) fn quote(lexeme: &str, out: &mut String) {
    out.push('\'');
    for character in lexeme.chars() {
        if matches!(character, '\'' | '\\') {
            out.push(character);
        }
        out.push(character);
    }
    out.push('\'');
}
