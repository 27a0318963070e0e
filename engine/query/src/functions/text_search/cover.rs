//! `ts_rank_cd`: how well a document fits a query, by how short the stretches are that have all of it.
//!
//! Cover density (Clarke, Cormack and Tudhope, 1999) as `calc_rank_cd` computes it in src/backend/utils/adt/tsrank.c. A
//! document's places that the query names are gone through once for each cover.

use super::matching::{Found, Matcher};
use crate::values::text_search::{Lexemes, Place};

const BY_LOG_OF_LENGTH: i64 = 1;
const BY_LENGTH: i64 = 2;
const BY_EXTENT: i64 = 4;
const BY_UNIQUE: i64 = 8;
const BY_LOG_OF_UNIQUE: i64 = 16;
const BY_ITSELF: i64 = 32;

/// A place with a lexeme that the query names, and which of its operands that is.
struct Spot {
    place: Place,
    operands: Vec<usize>,
}

/// A stretch of the document that matches, both ends among its spots.
struct Cover {
    first: usize,
    last: usize,
}

/// The rank of a document. `method`: the bits by which it is made smaller.
pub(super) fn rank(weights: &[f32; 4], matcher: &mut Matcher, document: &str, method: i64) -> f32 {
    let (spots, unique, length) = spots(matcher, document);
    if spots.is_empty() {
        return 0.0;
    }
    let inverse = weights.map(|weight| 1.0 / f64::from(weight));
    let (mut rank, mut distances, mut previous, mut covers) = (0.0_f64, 0.0_f64, 0.0_f64, 0_u32);
    let mut from = 0;
    while let Some(cover) = next_cover(matcher, &spots, &mut from) {
        let within = &spots[cover.first..=cover.last];
        let sum: f64 = within.iter().map(|spot| inverse[usize::from(spot.place.weight())]).sum();
        let (start, end) = (place_of(&spots[cover.first]), place_of(&spots[cover.last]));
        // Of a long document, places at the end are not told apart.
        let spread = i64::try_from(cover.last - cover.first).unwrap_or(0);
        let noise = match (end - start) - spread {
            ..=-1 => spread / 2,
            noise => noise,
        };
        rank += within.len() as f64 / sum / (1 + noise) as f64;
        let middle = (end + start) as f64 / 2.0;
        if covers > 0 && middle > previous {
            distances += 1.0 / (middle - previous);
        }
        previous = middle;
        covers += 1;
    }
    let (length, unique) = (length as f64, unique as f64);
    if method & BY_LOG_OF_LENGTH != 0 {
        rank /= (length + 1.0).ln();
    }
    if method & BY_LENGTH != 0 {
        rank /= length;
    }
    if method & BY_EXTENT != 0 && covers > 0 && distances > 0.0 {
        rank /= f64::from(covers) / distances;
    }
    if method & BY_UNIQUE != 0 {
        rank /= unique;
    }
    if method & BY_LOG_OF_UNIQUE != 0 {
        rank /= (unique + 1.0).ln() / 2_f64.ln();
    }
    if method & BY_ITSELF != 0 {
        rank /= rank + 1.0;
    }
    rank as f32
}

fn place_of(spot: &Spot) -> i64 {
    i64::from(spot.place.place())
}

/// The document's places that the query names, in order; its lexemes and their places.
fn spots(matcher: &Matcher, document: &str) -> (Vec<Spot>, usize, usize) {
    // With the lexeme, so that operands of one lexeme come together.
    let mut named: Vec<(Place, usize, usize)> = Vec::new();
    let (mut unique, mut length) = (0, 0);
    for (number, lexeme) in Lexemes::new(document).enumerate() {
        unique += 1;
        length += lexeme.count().max(1);
        for (operand, wanted) in matcher.wanted().iter().enumerate() {
            if wanted.is(&lexeme) {
                let places = lexeme.places().filter(|place| wanted.counts(*place));
                named.extend(places.map(|place| (place, number, operand)));
            }
        }
    }
    named.sort_by_key(|(place, lexeme, operand)| (place.place(), place.weight(), *lexeme, *operand));
    let mut spots: Vec<Spot> = Vec::new();
    let mut last = None;
    for (place, lexeme, operand) in named {
        match spots.last_mut() {
            Some(spot) if last == Some((place, lexeme)) => spot.operands.push(operand),
            _ => spots.push(Spot { place, operands: vec![operand] }),
        }
        last = Some((place, lexeme));
    }
    (spots, unique, length)
}

/// The next stretch that matches and has none within it that begins later: found by its end, then by its beginning.
fn next_cover(matcher: &mut Matcher, spots: &[Spot], from: &mut usize) -> Option<Cover> {
    while *from < spots.len() {
        let operands = matcher.wanted().len();
        let mut seen = vec![Found::default(); operands];
        let last = (*from..spots.len()).find(|at| {
            see(&mut seen, &spots[*at], false);
            holds(matcher, &seen)
        })?;
        // A match at place 0 there is not.
        if place_of(&spots[last]) == 0 {
            return None;
        }
        let mut seen = vec![Found::default(); operands];
        let first = (*from..=last).rev().find(|at| {
            see(&mut seen, &spots[*at], true);
            holds(matcher, &seen)
        });
        if let Some(first) = first.filter(|first| place_of(&spots[*first]) <= place_of(&spots[last])) {
            *from = first + 1;
            return Some(Cover { first, last });
        }
        *from += 1;
    }
    None
}

/// A spot comes into the stretch, at its end or `at_front`.
fn see(seen: &mut [Found], spot: &Spot, at_front: bool) {
    for operand in &spot.operands {
        let found = &mut seen[*operand];
        found.is_there = true;
        let place = spot.place.place();
        if at_front {
            if found.places.first() != Some(&place) {
                found.places.insert(0, place);
            }
        } else if found.places.last() != Some(&place) {
            found.places.push(place);
        }
    }
}

fn holds(matcher: &mut Matcher, seen: &[Found]) -> bool {
    matcher.holds(|operand, found| found.clone_from(&seen[operand]))
}
