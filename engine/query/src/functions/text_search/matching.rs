//! `tsvector @@ tsquery`: whether a document is what a query asks for.
//!
//! A query is made ready once, a document is gone through once: its lexemes are compared as they are written, and
//! places are read of those alone that a phrase or a weight asks about. The rules for phrases and for documents
//! without places are those of `TS_execute` and `TS_phrase_execute` (src/backend/utils/adt/tsvector_op.c).

use crate::values::text_search::{Item, Lexemes, Place, QuotedLexeme, TsQuery, quote};

/// A lexeme that is looked for, as documents write it.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Quoted, without the quotes around it.
    quoted: String,
    pub is_prefix: bool,
    /// A bit for each weight; 0 is any.
    pub weights: u8,
}

impl Wanted {
    pub(super) fn is(&self, lexeme: &QuotedLexeme<'_>) -> bool {
        if self.is_prefix {
            lexeme.quoted.starts_with(self.quoted.as_str())
        } else {
            lexeme.quoted == self.quoted
        }
    }

    pub(super) fn counts(&self, place: Place) -> bool {
        self.weights == 0 || self.weights & (1 << place.weight()) != 0
    }

    pub(super) fn key(&self) -> &str {
        &self.quoted
    }
}

/// One step of an evaluation.
#[derive(Clone, Copy, Debug)]
enum Step {
    Word(usize),
    Not,
    And,
    Or,
    Phrase(u16),
}

/// What is known of an operand.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// With a weight that counts, or without places.
    pub is_there: bool,
    /// Where its places are not known.
    pub is_unplaced: bool,
    /// Those that count, ascending.
    pub places: Vec<u16>,
}

impl Found {
    fn clear(&mut self) {
        self.is_there = false;
        self.is_unplaced = false;
        self.places.clear();
    }
}

/// A query that is made ready for many documents.
#[derive(Debug)]
pub(super) struct Matcher {
    wanted: Vec<Wanted>,
    /// With whether a step is a part of a phrase, and whether it is the whole of one.
    steps: Vec<(Step, bool, bool)>,
    found: Vec<Found>,
    stack: Vec<Value>,
    /// Whether an operand's places are asked for.
    needs_places: Vec<bool>,
}

/// Where an operand of a phrase ends.
#[derive(Clone, Debug, Default)]
struct Spots {
    answer: Answer,
    places: Vec<i32>,
    /// Everywhere but at these.
    is_negated: bool,
    width: i32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    No,
    Maybe,
    Yes,
}

#[derive(Debug)]
enum Value {
    Truth(bool),
    Spots(Spots),
}

impl Matcher {
    pub(super) fn new(query: &TsQuery) -> Self {
        let (mut wanted, mut steps) = (Vec::new(), Vec::with_capacity(query.items.len()));
        // From the last operator to its operands, which it tells whether they are in a phrase.
        let mut within = vec![false];
        for item in query.items.iter().rev() {
            let inside = within.pop().unwrap_or(false);
            let is_phrase = inside || matches!(item, Item::Phrase(_));
            let step = match item {
                Item::Word(operand) => {
                    let mut quoted = String::with_capacity(operand.text.len() + 2);
                    quote(&operand.text, &mut quoted);
                    let quoted = quoted[1..quoted.len() - 1].to_owned();
                    wanted.push(Wanted { quoted, is_prefix: operand.is_prefix, weights: operand.weights });
                    Step::Word(wanted.len() - 1)
                }
                Item::Not => Step::Not,
                Item::And => Step::And,
                Item::Or => Step::Or,
                Item::Phrase(distance) => Step::Phrase(*distance),
                Item::Stop => continue,
            };
            let operands = match step {
                Step::Word(_) => 0,
                Step::Not => 1,
                Step::And | Step::Or | Step::Phrase(_) => 2,
            };
            within.extend(std::iter::repeat_n(is_phrase, operands));
            steps.push((step, is_phrase, is_phrase && !inside));
        }
        steps.reverse();
        let mut needs_places = vec![false; wanted.len()];
        for (step, is_phrase, _) in &steps {
            if let (Step::Word(word), true) = (step, is_phrase) {
                needs_places[*word] = true;
            }
        }
        let found = vec![Found::default(); wanted.len()];
        Self { wanted, steps, found, stack: Vec::new(), needs_places }
    }

    pub(super) fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    /// Whether the last operator asks for all of its operands.
    pub(super) fn asks_for_all(&self) -> bool {
        matches!(self.steps.last(), Some((Step::And | Step::Phrase(_), _, _)))
    }

    /// Whether a document matches. A query without lexemes matches none.
    pub(super) fn matches(&mut self, document: &str) -> bool {
        if self.steps.is_empty() {
            return false;
        }
        self.found.iter_mut().for_each(Found::clear);
        for lexeme in Lexemes::new(document) {
            for (place, wanted) in self.wanted.iter().enumerate() {
                if wanted.is(&lexeme) {
                    note(&mut self.found[place], wanted, &lexeme, self.needs_places[place]);
                }
            }
        }
        self.evaluate()
    }

    /// The same of operands that somebody has found.
    pub(super) fn holds(&mut self, found: impl Fn(usize, &mut Found)) -> bool {
        for (place, of) in self.found.iter_mut().enumerate() {
            of.clear();
            found(place, of);
        }
        self.evaluate()
    }

    fn evaluate(&mut self) -> bool {
        let mut stack = std::mem::take(&mut self.stack);
        stack.clear();
        for (step, is_phrase, is_whole) in &self.steps {
            let value = match (step, is_phrase) {
                (Step::Word(word), false) => Value::Truth(self.found[*word].is_there),
                (Step::Word(word), true) => Value::Spots(spots(&self.found[*word])),
                (Step::Not, false) => Value::Truth(!truth(stack.pop())),
                (Step::Not, true) => Value::Spots(negated(taken(stack.pop()))),
                (Step::And, false) => {
                    let (right, left) = (truth(stack.pop()), truth(stack.pop()));
                    Value::Truth(left && right)
                }
                (Step::Or, false) => {
                    let (right, left) = (truth(stack.pop()), truth(stack.pop()));
                    Value::Truth(left || right)
                }
                (Step::Or, true) => {
                    let (right, left) = (taken(stack.pop()), taken(stack.pop()));
                    Value::Spots(either(&left, &right))
                }
                (Step::And, true) => {
                    let (right, left) = (taken(stack.pop()), taken(stack.pop()));
                    Value::Spots(together(&left, &right, None))
                }
                (Step::Phrase(distance), _) => {
                    let (right, left) = (taken(stack.pop()), taken(stack.pop()));
                    Value::Spots(together(&left, &right, Some(i32::from(*distance))))
                }
            };
            stack.push(match value {
                // What cannot be told without places is not so.
                Value::Spots(spots) if *is_whole => Value::Truth(spots.answer == Answer::Yes),
                other => other,
            });
        }
        let matches = truth(stack.pop());
        self.stack = stack;
        matches
    }
}

/// What a lexeme of the document says of an operand.
fn note(found: &mut Found, wanted: &Wanted, lexeme: &QuotedLexeme<'_>, needs_places: bool) {
    if !lexeme.has_places() {
        // Whatever the weights are that were asked for.
        found.is_there = true;
        found.is_unplaced = true;
        return;
    }
    if wanted.weights == 0 && !needs_places {
        found.is_there = true;
        return;
    }
    for place in lexeme.places().filter(|place| wanted.counts(*place)) {
        found.is_there = true;
        if !needs_places {
            return;
        }
        found.places.push(place.place());
    }
}

fn truth(value: Option<Value>) -> bool {
    match value {
        Some(Value::Truth(truth)) => truth,
        Some(Value::Spots(spots)) => spots.answer == Answer::Yes,
        None => false,
    }
}

fn taken(value: Option<Value>) -> Spots {
    match value {
        Some(Value::Spots(spots)) => spots,
        _ => Spots::default(),
    }
}

fn spots(found: &Found) -> Spots {
    if found.is_unplaced {
        return Spots { answer: Answer::Maybe, ..Spots::default() };
    }
    if found.places.is_empty() {
        return Spots::default();
    }
    // Lexemes of one prefix may share places.
    let mut places: Vec<i32> = found.places.iter().copied().map(i32::from).collect();
    places.sort_unstable();
    places.dedup();
    Spots { answer: Answer::Yes, places, ..Spots::default() }
}

fn negated(mut spots: Spots) -> Spots {
    match spots.answer {
        // Nowhere becomes everywhere.
        Answer::No => Spots { answer: Answer::Yes, is_negated: true, ..Spots::default() },
        Answer::Maybe => spots,
        Answer::Yes if spots.places.is_empty() && spots.is_negated => Spots::default(),
        Answer::Yes => {
            spots.is_negated = !spots.is_negated;
            spots
        }
    }
}

/// Which places of two lists, once they are shifted, are wanted.
#[derive(Clone, Copy)]
struct Emit {
    left: bool,
    both: bool,
    right: bool,
}

/// Merges the places of two operands.
fn merged(left: (&[i32], i32), right: (&[i32], i32), emit: Emit) -> Vec<i32> {
    let ((left, left_shift), (right, right_shift)) = (left, right);
    let (mut at_left, mut at_right) = (0, 0);
    let mut places = Vec::new();
    loop {
        let of_left = left.get(at_left).map(|place| place + left_shift);
        let of_right = right.get(at_right).map(|place| place + right_shift);
        let (place, wanted) = match (of_left, of_right) {
            (None, None) => return places,
            (Some(place), Some(other)) if place == other => {
                (at_left, at_right) = (at_left + 1, at_right + 1);
                (place, emit.both)
            }
            (Some(place), other) if other.is_none_or(|other| place < other) => {
                at_left += 1;
                (place, emit.left)
            }
            (_, Some(place)) => {
                at_right += 1;
                (place, emit.right)
            }
            (Some(_), None) => return places,
        };
        if wanted && place > 0 {
            places.push(place);
        }
    }
}

fn settled(places: Vec<i32>, width: i32) -> Spots {
    let answer = if places.is_empty() { Answer::No } else { Answer::Yes };
    Spots { answer, places, is_negated: false, width }
}

fn everywhere_but(places: Vec<i32>, width: i32) -> Spots {
    Spots { answer: Answer::Yes, places, is_negated: true, width }
}

/// A phrase; without a distance AND within one: both end at the same place.
fn together(left: &Spots, right: &Spots, distance: Option<i32>) -> Spots {
    if left.answer == Answer::No || right.answer == Answer::No {
        return Spots::default();
    }
    if left.answer == Answer::Maybe || right.answer == Answer::Maybe {
        return Spots { answer: Answer::Maybe, ..Spots::default() };
    }
    let (left_shift, right_shift, width) = match distance {
        Some(distance) => (distance + right.width, 0, distance + left.width + right.width),
        None => {
            let widest = left.width.max(right.width);
            (widest - left.width, widest - right.width, widest)
        }
    };
    let merge =
        |emit| merged((left.places.as_slice(), left_shift), (right.places.as_slice(), right_shift), emit);
    match (left.is_negated, right.is_negated) {
        (true, true) => everywhere_but(merge(Emit { left: true, both: true, right: true }), width),
        (true, false) => settled(merge(Emit { left: false, both: false, right: true }), width),
        (false, true) => settled(merge(Emit { left: true, both: false, right: false }), width),
        (false, false) => settled(merge(Emit { left: false, both: true, right: false }), width),
    }
}

/// OR within a phrase.
fn either(left: &Spots, right: &Spots) -> Spots {
    if left.answer == Answer::No && right.answer == Answer::No {
        return Spots::default();
    }
    if left.answer == Answer::Maybe || right.answer == Answer::Maybe {
        return Spots { answer: Answer::Maybe, ..Spots::default() };
    }
    let width_of = |spots: &Spots| if spots.answer == Answer::No { 0 } else { spots.width };
    let (left_width, right_width) = (width_of(left), width_of(right));
    let width = left_width.max(right_width);
    let merge = |emit| {
        let (left_shift, right_shift) = (width - left_width, width - right_width);
        merged((left.places.as_slice(), left_shift), (right.places.as_slice(), right_shift), emit)
    };
    match (left.is_negated, right.is_negated) {
        (true, true) => everywhere_but(merge(Emit { left: false, both: true, right: false }), width),
        (true, false) => everywhere_but(merge(Emit { left: true, both: false, right: false }), width),
        (false, true) => everywhere_but(merge(Emit { left: false, both: false, right: true }), width),
        (false, false) => settled(merge(Emit { left: true, both: true, right: true }), width),
    }
}
