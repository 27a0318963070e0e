//! `to_tsvector`, and from vectors to others: `||`, `setweight`, `strip`, `ts_delete`, `ts_filter`, arrays.
//!
//! As src/backend/tsearch/to_tsany.c and utils/adt/tsvector_op.c do it.

use std::ops::Range;

use sepal_types::{Error, Result, SqlState};

use super::dictionary::Analyzer;
use crate::values::text_search::{Lexeme, MOST_PLACES, Place, TsVector, check_bytes, quote, write_places};

/// The last place that is told from others.
const LAST_PLACE: u32 = 16_383;

/// Gathers the words of one document after the other, in room that stays.
#[derive(Default)]
pub(super) struct Gathered {
    lexemes: String,
    words: Vec<(Range<usize>, u32)>,
    places: Vec<Place>,
}

impl Gathered {
    /// Writes a text as a `tsvector`. Errors: 54000.
    pub(super) fn document(&mut self, analyzer: &mut Analyzer, text: &str, out: &mut String) -> Result<()> {
        self.lexemes.clear();
        self.words.clear();
        analyzer.each_word(text, |place, lexeme| {
            if let Some(lexeme) = lexeme {
                let start = self.lexemes.len();
                self.lexemes.push_str(lexeme);
                self.words.push((start..self.lexemes.len(), place.min(LAST_PLACE)));
            }
        });
        let lexemes = &self.lexemes;
        self.words.sort_unstable_by(|(left, at), (right, other)| {
            lexemes[left.clone()].cmp(&lexemes[right.clone()]).then(at.cmp(other))
        });
        let mut bytes = 0;
        for same in
            self.words.chunk_by(|(left, _), (right, _)| lexemes[left.clone()] == lexemes[right.clone()])
        {
            let Some((lexeme, _)) = same.first() else { continue };
            self.places.clear();
            self.places.extend(same.iter().map(|(_, place)| Place::new(*place, 0)));
            self.places.dedup();
            // One fewer than a lexeme may have.
            self.places.truncate(MOST_PLACES - 1);
            bytes += lexeme.len() + 2 * (self.places.len() + 1);
            if !out.is_empty() {
                out.push(' ');
            }
            quote(&lexemes[lexeme.clone()], out);
            write_places(&self.places, out);
        }
        check_bytes(bytes)
    }
}

/// `a || b`: the places of `b` follow those of `a`.
pub(super) fn concatenated(left: TsVector, right: TsVector) -> Result<TsVector> {
    let places = left.lexemes.iter().flat_map(|lexeme| &lexeme.places);
    let shift = places.map(|place| u32::from(place.place())).max().unwrap_or(0);
    let mut lexemes = left.lexemes;
    lexemes.extend(right.lexemes.into_iter().map(|lexeme| {
        let moved = |place: &Place| Place::new(u32::from(place.place()) + shift, place.weight());
        Lexeme { places: lexeme.places.iter().map(moved).collect(), ..lexeme }
    }));
    TsVector::of(lexemes)
}

/// Errors: 22023 for a letter that is no weight.
pub(super) fn weight(letter: &str) -> Result<u8> {
    match letter {
        "A" | "a" => Ok(3),
        "B" | "b" => Ok(2),
        "C" | "c" => Ok(1),
        "D" | "d" => Ok(0),
        _ => {
            let code = letter.bytes().next().unwrap_or(0);
            let message = format!("unrecognized weight: {code}");
            Err(Error::new(SqlState::InvalidParameterValue, message).with_hint("Weights are A, B, C and D."))
        }
    }
}

/// Gives all lexemes a weight, or those that are named.
pub(super) fn weighted(mut vector: TsVector, weight: u8, named: Option<&[String]>) -> TsVector {
    for lexeme in &mut vector.lexemes {
        if named.is_none_or(|named| named.contains(&lexeme.text)) {
            for place in &mut lexeme.places {
                *place = place.weighted(weight);
            }
        }
    }
    vector
}

/// Without places and weights.
pub(super) fn stripped(mut vector: TsVector) -> TsVector {
    vector.lexemes.iter_mut().for_each(|lexeme| lexeme.places.clear());
    vector
}

pub(super) fn without(mut vector: TsVector, named: &[String]) -> TsVector {
    vector.lexemes.retain(|lexeme| !named.contains(&lexeme.text));
    vector
}

/// What has one of these weights, a bit for each.
pub(super) fn filtered(mut vector: TsVector, weights: u8) -> TsVector {
    for lexeme in &mut vector.lexemes {
        lexeme.places.retain(|place| weights & (1 << place.weight()) != 0);
    }
    vector.lexemes.retain(|lexeme| !lexeme.places.is_empty());
    vector
}

/// Of lexemes as they are. Errors: 22004 for a NULL, 2200F for an empty one.
pub(super) fn of_array(texts: &[Option<String>]) -> Result<TsVector> {
    let lexeme = |text: &Option<String>| match text {
        None => Err(Error::new(SqlState::NullValueNotAllowed, "lexeme array may not contain nulls")),
        Some(text) if text.is_empty() => {
            let message = "lexeme array may not contain empty strings";
            Err(Error::new(SqlState::ZeroLengthCharacterString, message))
        }
        Some(text) => Ok(Lexeme { text: text.clone(), places: Vec::new() }),
    };
    TsVector::of(texts.iter().map(lexeme).collect::<Result<_>>()?)
}
