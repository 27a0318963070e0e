//! `ts_rank`: how well a document fits a query, by how often and how near to one another the lexemes stand.
//!
//! The formulas, their order and their precision are those of `calc_rank` in src/backend/utils/adt/tsrank.c, so that
//! the results are the same to the bit wherever the C library's `exp`, `log` and `sqrt` are.

use sepal_types::{Error, Result, SqlState};

use super::matching::{Matcher, Wanted};
use crate::values::text_search::{Lexemes, Place, QuotedLexeme};

/// Of D, C, B and A.
pub(super) const WEIGHTS: [f32; 4] = [0.1, 0.2, 0.4, 1.0];
/// The place of a lexeme whose places are not known, and the distance to it.
const UNPLACED: u32 = 16_383;
const FAR: i32 = 16_384;

const BY_LOG_OF_LENGTH: i64 = 1;
const BY_LENGTH: i64 = 2;
const BY_UNIQUE: i64 = 8;
const BY_LOG_OF_UNIQUE: i64 = 16;
const BY_ITSELF: i64 = 32;

/// A lexeme's places; `None` where they are not known.
type Entry = Option<Vec<Place>>;

/// The weights of a call: those below 0 are the usual ones. Errors: 2202E, 22004, 22023.
pub(super) fn weights(given: &[Option<f32>]) -> Result<[f32; 4]> {
    if given.len() < WEIGHTS.len() {
        return Err(Error::new(SqlState::ArraySubscriptError, "array of weight is too short"));
    }
    let mut weights = WEIGHTS;
    for (weight, given) in weights.iter_mut().zip(given) {
        let given = given.ok_or_else(|| {
            Error::new(SqlState::NullValueNotAllowed, "array of weight must not contain nulls")
        })?;
        if given > 1.0 {
            return Err(Error::new(SqlState::InvalidParameterValue, "weight out of range"));
        }
        if given >= 0.0 {
            *weight = given;
        }
    }
    Ok(weights)
}

/// What of a document a rank is made of.
pub(super) struct Document {
    /// By distinct operand, in their order: the lexemes that are it.
    entries: Vec<Vec<Entry>>,
    /// Lexemes, and their places.
    pub unique: usize,
    pub length: usize,
}

/// The operands that are different texts, in order.
pub(super) fn distinct(matcher: &Matcher) -> Vec<&Wanted> {
    let mut wanted: Vec<&Wanted> = matcher.wanted().iter().collect();
    wanted.sort_by(|left, right| left.key().cmp(right.key()));
    wanted.dedup_by(|left, right| left.key() == right.key());
    wanted
}

/// The rank of a document. `method`: the bits by which it is made smaller.
pub(super) fn rank(weights: &[f32; 4], matcher: &Matcher, document: &str, method: i64) -> f32 {
    let wanted = distinct(matcher);
    let document = Document::new(&wanted, document);
    if document.unique == 0 || wanted.is_empty() {
        return 0.0;
    }
    let mut rank = if matcher.asks_for_all() && wanted.len() > 1 {
        rank_of_all(weights, &document.entries)
    } else {
        rank_of_any(weights, &document.entries)
    };
    if rank < 0.0 {
        rank = 1e-20;
    }
    let (length, unique) = (document.length as f64, document.unique as f64);
    if method & BY_LOG_OF_LENGTH != 0 {
        rank = (f64::from(rank) / ((length + 1.0).ln() / 2_f64.ln())) as f32;
    }
    if method & BY_LENGTH != 0 && document.length > 0 {
        rank /= document.length as f32;
    }
    if method & BY_UNIQUE != 0 {
        rank /= document.unique as f32;
    }
    if method & BY_LOG_OF_UNIQUE != 0 {
        rank = (f64::from(rank) / ((unique + 1.0).ln() / 2_f64.ln())) as f32;
    }
    if method & BY_ITSELF != 0 {
        rank /= rank + 1.0;
    }
    rank
}

impl Document {
    pub(super) fn new(wanted: &[&Wanted], document: &str) -> Self {
        let mut entries: Vec<Vec<Entry>> = vec![Vec::new(); wanted.len()];
        let (mut unique, mut length) = (0, 0);
        for lexeme in Lexemes::new(document) {
            unique += 1;
            length += lexeme.count().max(1);
            for (operand, found) in wanted.iter().zip(&mut entries) {
                if operand.is(&lexeme) {
                    found.push(entry(&lexeme));
                }
            }
        }
        Self { entries, unique, length }
    }
}

fn entry(lexeme: &QuotedLexeme<'_>) -> Entry {
    lexeme.has_places().then(|| lexeme.places().collect())
}

/// How much two lexemes that far apart have to do with one another.
fn nearness(distance: i32) -> f32 {
    if distance > 100 {
        return 1e-30;
    }
    (1.0 / (1.005 + 0.05 * (f64::from(distance as f32) / 1.5 - 2.0).exp())) as f32
}

fn rank_of_all(weights: &[f32; 4], operands: &[Vec<Entry>]) -> f32 {
    let unplaced = [Place::new(UNPLACED, 0)];
    let weight = |place: &Place| weights[usize::from(place.weight())];
    // Of each operand before, the last lexeme that is it.
    let mut before: Vec<Option<(&[Place], bool)>> = Vec::new();
    let mut rank = -1.0_f32;
    for lexemes in operands {
        let mut last = None;
        for entry in lexemes {
            let (places, is_placed) = match entry {
                Some(places) => (places.as_slice(), true),
                None => (unplaced.as_slice(), false),
            };
            for (others, others_placed) in before.iter().flatten() {
                for place in places {
                    for other in *others {
                        let apart = i32::from(place.place()) - i32::from(other.place());
                        let mut distance = apart.abs();
                        if distance == 0 && is_placed && *others_placed {
                            continue;
                        }
                        if distance == 0 {
                            distance = FAR;
                        }
                        let product = weight(place) * weight(other) * nearness(distance);
                        let current = f64::from(product).sqrt() as f32;
                        rank = if rank < 0.0 {
                            current
                        } else {
                            (1.0 - (1.0 - f64::from(rank)) * (1.0 - f64::from(current))) as f32
                        };
                    }
                }
            }
            last = Some((places, is_placed));
        }
        before.push(last);
    }
    rank
}

fn rank_of_any(weights: &[f32; 4], operands: &[Vec<Entry>]) -> f32 {
    let unplaced = [Place::new(0, 0)];
    let mut rank = 0.0_f32;
    for entry in operands.iter().flatten() {
        let places = entry.as_deref().unwrap_or(&unplaced);
        let (mut sum, mut greatest, mut at) = (0.0_f32, -1.0_f32, 0);
        for (number, place) in places.iter().enumerate() {
            let weight = weights[usize::from(place.weight())];
            sum += weight / square(number + 1);
            if weight > greatest {
                (greatest, at) = (weight, number);
            }
        }
        // The sum of 1/i² is π²/6.
        let of_lexeme = greatest + sum - greatest / square(at + 1);
        rank = (f64::from(rank) + f64::from(of_lexeme) / 1.644_934_066_85) as f32;
    }
    rank / operands.len() as f32
}

fn square(number: usize) -> f32 {
    (number * number) as f32
}
