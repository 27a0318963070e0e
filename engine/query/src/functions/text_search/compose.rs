//! From a text to a `tsquery`: `to_tsquery`, `plainto_tsquery`, `phraseto_tsquery`, `websearch_to_tsquery`; and from
//! queries to others: `&&`, `||`, `!!`, `<->`, `querytree`.
//!
//! A word of the text may be several lexemes, `fat-cat`, or none. Stop words are put in as such, so that distances
//! count them, and taken out at the end: as src/backend/tsearch/to_tsany.c and utils/adt/tsquery_cleanup.c do.

use sepal_types::Result;

use super::dictionary::Analyzer;
use crate::values::text_search::{Item, Operand, Syntax, TsQuery, distance};

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reading {
    /// All words, somewhere.
    Plain,
    /// All words, one after the other.
    Phrase,
    Standard,
    Web,
}

/// The query that a text is. Errors: 42601, 22023, 54000.
pub(super) fn query(analyzer: &mut Analyzer, text: &str, reading: Reading) -> Result<TsQuery> {
    let between = if reading == Reading::Plain { Item::And } else { Item::Phrase(1) };
    let mut word_as = |items: &mut Vec<Item>, word: &str, weights: u8, is_prefix: bool| -> Result<()> {
        push_lexemes(analyzer, items, word, &between, (weights, is_prefix));
        Ok(())
    };
    let items = match reading {
        Reading::Plain | Reading::Phrase => {
            let mut items = Vec::new();
            word_as(&mut items, text, 0, false)?;
            items
        }
        Reading::Standard => TsQuery::read(text, Syntax::Standard, &mut word_as)?.items,
        Reading::Web => TsQuery::read(text, Syntax::Web, &mut word_as)?.items,
    };
    Ok(TsQuery { items: without_stop_words(items) })
}

/// The lexemes of a text as one operand; a stop word between two of them is one of the items, too.
fn push_lexemes(
    analyzer: &mut Analyzer,
    items: &mut Vec<Item>,
    text: &str,
    between: &Item,
    (weights, is_prefix): (u8, bool),
) {
    let (mut last, mut operands) = (0, 0_usize);
    let mut push = |items: &mut Vec<Item>, item: Item| {
        items.push(item);
        if operands > 0 {
            items.push(between.clone());
        }
        operands += 1;
    };
    analyzer.each_word(text, |place, lexeme| {
        let Some(lexeme) = lexeme else { return };
        if last > 0 {
            (last + 1..place).for_each(|_| push(items, Item::Stop));
        }
        last = place;
        push(items, Item::Word(Operand { text: lexeme.to_owned(), is_prefix, weights }));
    });
    if last == 0 {
        items.push(Item::Stop);
    }
}

/// What is left of an operand, and how much wider it was at its left and right end.
struct Left {
    items: Option<Vec<Item>>,
    before: u32,
    after: u32,
}

/// The items without stop words and the operators that they leave without an operand. The distances around them grow.
fn without_stop_words(items: Vec<Item>) -> Vec<Item> {
    if !items.contains(&Item::Stop) {
        return items;
    }
    let mut done: Vec<Left> = Vec::new();
    for item in items {
        let left = match item {
            Item::Stop => Left { items: None, before: 0, after: 0 },
            Item::Word(_) => Left { items: Some(vec![item]), before: 0, after: 0 },
            Item::Not => match done.pop() {
                Some(mut operand) => {
                    operand.items = operand.items.map(|mut items| {
                        items.push(Item::Not);
                        items
                    });
                    operand
                }
                None => continue,
            },
            Item::And | Item::Or | Item::Phrase(_) => {
                let (Some(right), Some(left)) = (done.pop(), done.pop()) else { continue };
                joined(item, left, right)
            }
        };
        done.push(left);
    }
    done.pop().and_then(|left| left.items).unwrap_or_default()
}

/// An operator over what is left of its operands.
fn joined(operator: Item, left: Left, right: Left) -> Left {
    let own = match operator {
        Item::Phrase(distance) => Some(u32::from(distance)),
        _ => None,
    };
    match (left.items, right.items) {
        (None, None) => {
            let width = match own {
                Some(own) => left.before + own + right.before,
                None => left.before.max(right.before),
            };
            Left { items: None, before: width, after: width }
        }
        (None, items) => {
            let wider = own.map_or(0, |own| left.before + own);
            Left { items, before: wider + right.before, after: right.after }
        }
        (items, None) => {
            let wider = own.map_or(0, |own| own + right.after);
            Left { items, before: left.before, after: left.after + wider }
        }
        (Some(mut items), Some(of_right)) => {
            items.extend(of_right);
            let (operator, before, after) = match own {
                Some(own) => {
                    let distance = u16::try_from(own + left.after + right.before).unwrap_or(u16::MAX);
                    (Item::Phrase(distance), left.before, right.after)
                }
                None => (operator, 0, 0),
            };
            items.push(operator);
            Left { items: Some(items), before, after }
        }
    }
}

/// Two queries as one; an empty one leaves the other.
pub(super) fn both(mut left: TsQuery, right: TsQuery, operator: Item) -> TsQuery {
    match (left.is_empty(), right.is_empty()) {
        (true, _) => right,
        (_, true) => left,
        _ => {
            left.items.extend(right.items);
            left.items.push(operator);
            left
        }
    }
}

/// `left <n> right`. Errors: 22023 for a distance that no phrase has.
pub(super) fn phrase(left: TsQuery, right: TsQuery, places: i64) -> Result<TsQuery> {
    Ok(both(left, right, Item::Phrase(distance(places)?)))
}

pub(super) fn not(mut query: TsQuery) -> TsQuery {
    if !query.is_empty() {
        query.items.push(Item::Not);
    }
    query
}

/// What an index could look for (`querytree`): `T` where that is nothing.
pub(super) fn tree(query: &TsQuery) -> String {
    if query.is_empty() {
        return String::new();
    }
    let mut done: Vec<Option<Vec<Item>>> = Vec::new();
    for item in &query.items {
        let left = match item {
            Item::Word(_) => Some(vec![item.clone()]),
            Item::Stop => None,
            Item::Not => {
                done.pop();
                None
            }
            Item::And | Item::Or | Item::Phrase(_) => {
                let (right, left) = (done.pop().flatten(), done.pop().flatten());
                match (left, right) {
                    (Some(mut left), Some(right)) => {
                        left.extend(right);
                        left.push(item.clone());
                        Some(left)
                    }
                    (one, other) if *item != Item::Or => one.or(other),
                    _ => None,
                }
            }
        };
        done.push(left);
    }
    let mut text = String::new();
    match done.pop().flatten() {
        Some(items) => TsQuery { items }.write(&mut text),
        None => text.push('T'),
    }
    text
}
