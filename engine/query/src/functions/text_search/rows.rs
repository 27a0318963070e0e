//! A call row by row.
//!
//! What is made ready for a configuration or a query serves all rows after it that name the same.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float32Builder, Int32Builder, ListBuilder, StringBuilder,
};
use sepal_types::{Error, Result, SqlState};

use super::{
    Operation, compose, cover,
    dictionary::{Analyzer, configuration},
    document::{self, Gathered},
    matching::Matcher,
    rank,
};
use crate::{
    functions::argument::Argument,
    values::text_search::{Item, Lexemes, TsQuery, TsVector},
};

/// Most bytes of text in one batch of results; Arrow's offsets end at 2 GiB.
const MAX_TEXT_BYTES: usize = 1 << 30;

/// The results of a call. A NULL among a row's arguments makes its result NULL.
pub(super) fn compute(operation: Operation, arguments: &[Argument], rows: usize) -> Result<ArrayRef> {
    let present = |row: usize| !arguments.iter().any(|argument| argument.is_null(row));
    match operation {
        Operation::Match => matches(arguments, rows, present),
        Operation::MatchText => matches_texts(arguments, rows, present),
        Operation::Rank | Operation::CoverRank => ranks(operation, arguments, rows, present),
        Operation::Length | Operation::Nodes => {
            let mut results = Int32Builder::with_capacity(rows);
            for row in 0..rows {
                results
                    .append_option(present(row).then(|| count(operation, &arguments[0], row)).transpose()?);
            }
            Ok(Arc::new(results.finish()))
        }
        Operation::ToArray => {
            let mut results = ListBuilder::new(StringBuilder::new());
            for row in 0..rows {
                let is_present = present(row);
                if is_present {
                    for lexeme in TsVector::read(arguments[0].text(row)).lexemes {
                        results.values().append_value(lexeme.text);
                    }
                }
                results.append(is_present);
            }
            Ok(Arc::new(results.finish()))
        }
        _ => texts(operation, arguments, rows, present),
    }
}

fn count(operation: Operation, argument: &Argument, row: usize) -> Result<i32> {
    let count = match operation {
        Operation::Length => Lexemes::new(argument.text(row)).count(),
        _ => TsQuery::parse(argument.text(row))?.items.len(),
    };
    i32::try_from(count).map_err(|_| Error::bug("more lexemes than a tsvector has"))
}

/// The matcher of a query, which is kept for the rows after it.
fn matcher<'a, 'b>(kept: &'a mut Option<(&'b str, Matcher)>, query: &'b str) -> Result<&'a mut Matcher> {
    let ready = match kept.take() {
        Some((same, ready)) if same == query => ready,
        _ => Matcher::new(&TsQuery::parse(query)?),
    };
    Ok(&mut kept.insert((query, ready)).1)
}

fn matches(arguments: &[Argument], rows: usize, present: impl Fn(usize) -> bool) -> Result<ArrayRef> {
    let mut results = BooleanBuilder::with_capacity(rows);
    let mut kept = None;
    for row in 0..rows {
        if present(row) {
            results.append_value(matcher(&mut kept, arguments[1].text(row))?.matches(arguments[0].text(row)));
        } else {
            results.append_null();
        }
    }
    Ok(Arc::new(results.finish()))
}

/// A configuration, texts, and what is looked for. Each text becomes a document in the same room: a filter of a vector
/// search looks at all rows of a segment at once.
fn matches_texts(arguments: &[Argument], rows: usize, present: impl Fn(usize) -> bool) -> Result<ArrayRef> {
    let mut results = BooleanBuilder::with_capacity(rows);
    let (mut kept, mut work, mut document) = (None, Work::default(), String::new());
    for row in 0..rows {
        if !present(row) {
            results.append_null();
            continue;
        }
        document.clear();
        let (analyzer, gathered) = work.analyzer(arguments[0].text(row))?;
        gathered.document(analyzer, arguments[1].text(row), &mut document)?;
        results.append_value(matcher(&mut kept, arguments[2].text(row))?.matches(&document));
    }
    Ok(Arc::new(results.finish()))
}

fn ranks(
    operation: Operation,
    arguments: &[Argument],
    rows: usize,
    present: impl Fn(usize) -> bool,
) -> Result<ArrayRef> {
    let mut results = Float32Builder::with_capacity(rows);
    let mut kept = None;
    for row in 0..rows {
        if !present(row) {
            results.append_null();
            continue;
        }
        let (weights, rest) = match arguments[0].weights(row) {
            Some(given) => (rank::weights(given)?, &arguments[1..]),
            None => (rank::WEIGHTS, arguments),
        };
        let document = rest[0].text(row);
        let method = rest.get(2).map_or(0, |method| method.integer(row));
        let matcher = matcher(&mut kept, rest[1].text(row))?;
        results.append_value(match operation {
            Operation::CoverRank => cover::rank(&weights, matcher, document, method),
            _ => rank::rank(&weights, matcher, document, method),
        });
    }
    Ok(Arc::new(results.finish()))
}

/// A configuration and the documents that are made with it.
#[derive(Default)]
struct Work {
    name: String,
    analyzer: Option<Analyzer>,
    gathered: Gathered,
}

impl Work {
    fn analyzer(&mut self, name: &str) -> Result<(&mut Analyzer, &mut Gathered)> {
        if self.name != name {
            self.analyzer = None;
        }
        let analyzer = match self.analyzer.take() {
            Some(analyzer) => analyzer,
            None => Analyzer::new(name)?,
        };
        name.clone_into(&mut self.name);
        Ok((self.analyzer.insert(analyzer), &mut self.gathered))
    }
}

/// Vectors, queries and other texts.
fn texts(
    operation: Operation,
    arguments: &[Argument],
    rows: usize,
    present: impl Fn(usize) -> bool,
) -> Result<ArrayRef> {
    let mut results = StringBuilder::with_capacity(rows, 0);
    let (mut work, mut text) = (Work::default(), String::new());
    for row in 0..rows {
        if !present(row) {
            results.append_null();
            continue;
        }
        text.clear();
        write(operation, arguments, row, &mut work, &mut text)?;
        if results.values_slice().len().saturating_add(text.len()) > MAX_TEXT_BYTES {
            let message = "the results of a text search function exceed 1 GiB in one batch";
            return Err(
                Error::new(SqlState::ProgramLimitExceeded, message).with_hint("Select fewer rows at once.")
            );
        }
        results.append_value(&text);
    }
    Ok(Arc::new(results.finish()))
}

/// Writes one row's result; no argument is NULL.
fn write(
    operation: Operation,
    arguments: &[Argument],
    row: usize,
    work: &mut Work,
    out: &mut String,
) -> Result<()> {
    let text = |position: usize| arguments[position].text(row);
    let vector = |position: usize| TsVector::read(text(position));
    let query = |position: usize| TsQuery::parse(text(position));
    match operation {
        Operation::Configuration => out.push_str(configuration(text(0))?),
        Operation::Tree => out.push_str(&compose::tree(&query(0)?)),
        Operation::Document => {
            let (analyzer, gathered) = work.analyzer(text(0))?;
            gathered.document(analyzer, text(1), out)?;
        }
        Operation::Query(reading) => {
            let (analyzer, _) = work.analyzer(text(0))?;
            compose::query(analyzer, text(1), reading)?.write(out);
        }
        Operation::And => compose::both(query(0)?, query(1)?, Item::And).write(out),
        Operation::Or => compose::both(query(0)?, query(1)?, Item::Or).write(out),
        Operation::Not => compose::not(query(0)?).write(out),
        Operation::Phrase => {
            let places = arguments.get(2).map_or(1, |places| places.integer(row));
            compose::phrase(query(0)?, query(1)?, places)?.write(out);
        }
        Operation::Concatenate => document::concatenated(vector(0), vector(1))?.write(out),
        Operation::SetWeight => {
            let named = arguments.get(2).map(|named| names(named, row));
            document::weighted(vector(0), document::weight(text(1))?, named.as_deref()).write(out);
        }
        Operation::Strip => document::stripped(vector(0)).write(out),
        Operation::Delete => document::without(vector(0), &names(&arguments[1], row)).write(out),
        Operation::Filter => {
            let letters = arguments[1].texts(row).unwrap_or_default();
            let mut weights = 0_u8;
            for letter in letters {
                let letter = letter.as_deref().ok_or_else(|| {
                    Error::new(SqlState::NullValueNotAllowed, "weight array may not contain nulls")
                })?;
                weights |= 1_u8 << document::weight(letter)?;
            }
            document::filtered(vector(0), weights).write(out);
        }
        Operation::FromArray => {
            document::of_array(arguments[0].texts(row).unwrap_or_default())?.write(out);
        }
        Operation::CoverRank
        | Operation::Headline
        | Operation::Known
        | Operation::Length
        | Operation::Match
        | Operation::MatchText
        | Operation::Nodes
        | Operation::Rank
        | Operation::ToArray => return Err(Error::bug("this function's results are no texts")),
    }
    Ok(())
}

/// The lexemes that an argument names, one or several.
fn names(argument: &Argument, row: usize) -> Vec<String> {
    match argument.texts(row) {
        Some(texts) => texts.iter().flatten().cloned().collect(),
        None => vec![argument.text(row).to_owned()],
    }
}
