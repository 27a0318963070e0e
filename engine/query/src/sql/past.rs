//! `FROM items FOR SYSTEM_TIME AS OF …` and `FROM items AS OF SNAPSHOT '…'`, in a form that sqlparser reads.
//!
//! Its dialect for Postgres knows neither. On the tokens each clause becomes an argument: `items AS OF SNAPSHOT 'a'` is
//! `items(sepal_as_of_snapshot('0', 'a'))`, and `knn(…) AS OF SNAPSHOT 'a'` gets one argument more. The first text
//! numbers the clauses of a statement, so that whoever resolves their moments ([`moments`]) and whoever plans the
//! tables ([`reference`]) speak of the same ones. As a call of a function such a table is nothing that a way around
//! planning would take for a table of today.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{
        Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Query, SetExpr, Statement,
        TableFactor, Value, Visit, Visitor,
    },
    parser::Parser,
    tokenizer::{Token, TokenWithSpan},
};
use sepal_types::{Error, Result, SqlState};

use super::{
    dialect::Postgres,
    statement::syntax_error,
    tokens::{is_significant, offset},
};

/// The calls that stand for a clause.
const TIME: &str = "sepal_as_of";
const SNAPSHOT: &str = "sepal_as_of_snapshot";

/// Words before the name of a table that is read.
const BEFORE_SOURCE: [&str; 3] = ["FROM", "JOIN", "USING"];
/// Words before the name of a table that is written, made or named otherwise.
const BEFORE_TARGET: [&str; 7] = ["COPY", "EXISTS", "INTO", "ON", "TABLE", "TRUNCATE", "UPDATE"];

/// What stands after AS OF.
#[derive(Clone, Debug, PartialEq)]
pub enum Moment {
    /// An expression of type `timestamptz`, or one that can be cast to it.
    Time(Expr),
    /// A named snapshot: a text or a parameter.
    Snapshot(Expr),
}

impl Moment {
    pub fn expr(&self) -> &Expr {
        match self {
            Self::Time(expr) | Self::Snapshot(expr) => expr,
        }
    }
}

/// A clause, by the places of its tokens.
struct Clause {
    start: usize,
    /// Of the first token of the moment.
    moment: usize,
    end: usize,
    call: &'static str,
}

/// Rewrites every clause. Errors: 42601 and 0A000 for one that stands elsewhere than after a table that is read.
pub(super) fn mark(sql: &str, tokens: &mut Vec<TokenWithSpan>) -> Result<()> {
    let may_have =
        |token: &TokenWithSpan| is_word(&token.token, "SYSTEM_TIME") || is_word(&token.token, "SNAPSHOT");
    if !tokens.iter().any(may_have) {
        return Ok(());
    }
    tokens.retain(is_significant);
    let mut number = 0_usize;
    // The last one first: a moment may be a subquery with a clause of its own.
    for start in (0..tokens.len()).rev() {
        if let Some(clause) = read(sql, tokens, start)? {
            rewrite(sql, tokens, &clause, number)?;
            number += 1;
        }
    }
    Ok(())
}

/// The moment after a table's name: all tokens up to the end. For CREATE TABLE … CLONE.
///
/// Errors: 42601 when something else stands there.
pub(super) fn trailing_moment(sql: &str, tokens: &mut Vec<TokenWithSpan>) -> Result<Option<Moment>> {
    tokens.retain(is_significant);
    let Some(first) = tokens.first() else { return Ok(None) };
    let unexpected = |token: &TokenWithSpan| {
        let message = format!("syntax error at or near \"{}\"", token.token);
        Error::new(SqlState::SyntaxError, message).with_position(offset(sql, token.span.start))
    };
    let Some(clause) = read(sql, tokens, 0)? else { return Err(unexpected(first)) };
    if let Some(token) = tokens.get(clause.end) {
        return Err(unexpected(token));
    }
    let expr = match clause.call {
        SNAPSHOT => snapshot_name(&tokens[clause.moment].token).map(parse_moment),
        _ => Some(parse_moment(tokens[clause.moment..].to_vec())),
    };
    let expr = expr.ok_or_else(|| unexpected(first))?.map_err(|error| syntax_error(sql, tokens, &error))?;
    Ok(Some(if clause.call == SNAPSHOT { Moment::Snapshot(expr) } else { Moment::Time(expr) }))
}

/// The moments of a statement's clauses, by number.
///
/// Errors: 0A000 where the rows of a past table are to be locked; 42601 for a clause elsewhere than after a table.
pub fn moments(statement: &Statement) -> Result<Vec<Moment>> {
    let mut found = Found::default();
    if statement.visit(&mut found).is_break() {
        return Err(Error::unsupported("FOR UPDATE and FOR SHARE cannot be applied to a table of the past")
            .with_hint("Lock the rows as they are now, or leave the locking clause out."));
    }
    found.moments.sort_by_key(|(number, _)| *number);
    if found.moments.iter().enumerate().any(|(place, (number, _))| place != *number) {
        return Err(Error::new(SqlState::SyntaxError, "AS OF stands where no table is read"));
    }
    Ok(found.moments.into_iter().map(|(_, moment)| moment).collect())
}

/// The number of the clause that a table's arguments end with, and the arguments before it.
pub fn reference(args: &[FunctionArg]) -> Option<(usize, &[FunctionArg])> {
    let (last, before) = args.split_last()?;
    let (_, number, _) = call(last)?;
    Some((number, before))
}

/// The call that a clause became: its function, its number, its moment.
fn call(arg: &FunctionArg) -> Option<(&str, usize, &Expr)> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(function))) = arg else { return None };
    let [name] = function.name.0.as_slice() else { return None };
    let name = name.as_ident()?.value.as_str();
    if name != TIME && name != SNAPSHOT {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    let [
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(number))),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(moment)),
    ] = list.args.as_slice()
    else {
        return None;
    };
    let Value::SingleQuotedString(number) = &number.value else { return None };
    Some((name, number.parse().ok()?, moment))
}

#[derive(Default)]
struct Found {
    moments: Vec<(usize, Moment)>,
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let SetExpr::Select(select) = query.body.as_ref() else { return ControlFlow::Continue(()) };
        let mut tables = select.from.iter().flat_map(|from| {
            std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
        });
        let locked = !query.locks.is_empty() && tables.any(is_past);
        if locked { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { args: Some(args), .. } = factor
            && let Some((function, number, moment)) = args.args.last().and_then(call)
        {
            let moment = moment.clone();
            let moment = if function == TIME { Moment::Time(moment) } else { Moment::Snapshot(moment) };
            self.moments.push((number, moment));
        }
        ControlFlow::Continue(())
    }
}

fn is_past(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Table { args: Some(args), .. } if reference(&args.args).is_some())
}

/// Every table of the past that a query names, with the number of its clause.
pub fn past_tables(query: &Query) -> Vec<(ObjectName, usize)> {
    struct Tables(Vec<(ObjectName, usize)>);
    impl Visitor for Tables {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, args: Some(args), .. } = factor
                && let Some((number, [])) = reference(&args.args)
            {
                self.0.push((name.clone(), number));
            }
            ControlFlow::Continue(())
        }
    }
    let mut tables = Tables(Vec::new());
    let _ = query.visit(&mut tables);
    tables.0
}

fn is_word(token: &Token, text: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text))
}

fn words_at(tokens: &[TokenWithSpan], at: usize, words: &[&str]) -> bool {
    let follows = |(ahead, word): (usize, &&str)| {
        tokens.get(at + ahead).is_some_and(|token| is_word(&token.token, word))
    };
    words.iter().enumerate().all(follows)
}

/// The clause that begins at `start`.
fn read(sql: &str, tokens: &[TokenWithSpan], start: usize) -> Result<Option<Clause>> {
    let at = |place: usize, message: String| {
        let error = Error::new(SqlState::SyntaxError, message);
        match tokens.get(place) {
            Some(token) => error.with_position(offset(sql, token.span.start)),
            None => error.with_position(u32::try_from(sql.chars().count() + 1).unwrap_or(u32::MAX)),
        }
    };
    let standard = words_at(tokens, start, &["FOR", "SYSTEM_TIME"]);
    let as_of = if standard { start + 2 } else { start };
    let follows_standard = start >= 2 && words_at(tokens, start - 2, &["FOR", "SYSTEM_TIME"]);
    if standard && !words_at(tokens, as_of, &["AS", "OF"]) {
        return Err(at(as_of, "FOR SYSTEM_TIME is followed by AS OF".into())
            .with_hint("FOR SYSTEM_TIME AS OF shows one moment; BETWEEN, FROM and ALL are not supported."));
    }
    if words_at(tokens, as_of, &["AS", "OF", "SNAPSHOT"]) && !follows_standard {
        let moment = as_of + 3;
        if tokens.get(moment).and_then(|token| snapshot_name(&token.token)).is_none() {
            return Err(at(moment, "AS OF SNAPSHOT is followed by the name of a snapshot".into())
                .with_hint("Write it as a text: AS OF SNAPSHOT 'name'."));
        }
        if tokens.get(moment + 1).is_some_and(|token| token.token == Token::Minus) {
            return Err(at(moment + 1, "syntax error at or near \"-\"".into())
                .with_hint("Write a name with - in it as a text: AS OF SNAPSHOT 'before-import'."));
        }
        return Ok(Some(Clause { start, moment, end: moment + 1, call: SNAPSHOT }));
    }
    if !standard {
        return Ok(None);
    }
    let moment = as_of + 2;
    let mut parser = Parser::new(&Postgres).with_tokens_with_locations(tokens[moment..].to_vec());
    parser.parse_expr().map_err(|error| syntax_error(sql, tokens, &error))?;
    Ok(Some(Clause { start, moment, end: (moment + parser.index()).min(tokens.len()), call: TIME }))
}

/// A snapshot's name as tokens of an expression: a text, a parameter, or an identifier, which becomes a text.
fn snapshot_name(token: &Token) -> Option<Vec<TokenWithSpan>> {
    let token = match token {
        Token::SingleQuotedString(_) | Token::Placeholder(_) => token.clone(),
        Token::Word(word) if word.quote_style.is_some() => Token::SingleQuotedString(word.value.clone()),
        Token::Word(word) => Token::SingleQuotedString(word.value.to_lowercase()),
        _ => return None,
    };
    Some(vec![TokenWithSpan::wrap(token)])
}

fn parse_moment(tokens: Vec<TokenWithSpan>) -> Result<Expr, datafusion::sql::sqlparser::parser::ParserError> {
    Parser::new(&Postgres).with_tokens_with_locations(tokens).parse_expr()
}

/// Puts the call in the clause's place.
fn rewrite(sql: &str, tokens: &mut Vec<TokenWithSpan>, clause: &Clause, number: usize) -> Result<()> {
    let open = check_place(tokens, clause.start)
        .map_err(|error| error.with_position(offset(sql, tokens[clause.start].span.start)))?;
    let span = tokens[clause.start].span;
    let token = |token: Token| TokenWithSpan::new(token, span);
    let mut written = match open {
        Place::Table => vec![token(Token::LParen)],
        // In place of the call's closing parenthesis.
        Place::Call => vec![token(Token::Comma)],
    };
    written.extend([
        token(Token::make_word(clause.call, None)),
        token(Token::LParen),
        token(Token::SingleQuotedString(number.to_string())),
        token(Token::Comma),
    ]);
    match clause.call {
        SNAPSHOT => written.extend(snapshot_name(&tokens[clause.moment].token).unwrap_or_default()),
        _ => written.extend_from_slice(&tokens[clause.moment..clause.end]),
    }
    written.extend([token(Token::RParen), token(Token::RParen)]);
    let start = match open {
        Place::Table => clause.start,
        Place::Call => clause.start - 1,
    };
    tokens.splice(start..clause.end, written);
    Ok(())
}

/// What a clause follows.
enum Place {
    Table,
    Call,
}

/// Errors: 42601 where no table's name precedes, 0A000 where the table is not read.
fn check_place(tokens: &[TokenWithSpan], start: usize) -> Result<Place> {
    let misplaced = || {
        Error::new(SqlState::SyntaxError, "AS OF stands where no table's name precedes it").with_hint(
            "It follows the name right away, before an alias: FROM items FOR SYSTEM_TIME AS OF '…' AS i.",
        )
    };
    let before = &tokens[..start];
    let place = match before.last().map(|token| &token.token) {
        Some(Token::RParen) => Place::Call,
        Some(Token::Word(_)) => Place::Table,
        _ => return Err(misplaced()),
    };
    let name = match place {
        Place::Table => before,
        Place::Call => {
            let open = opening(before).ok_or_else(misplaced)?;
            match open.last() {
                Some(function) if is_word(&function.token, "knn") => open,
                _ => return Err(misplaced()),
            }
        }
    };
    // A qualified name: its parts and the points between them.
    let mut first = name.len() - 1;
    while first >= 2 && name[first - 1].token == Token::Period {
        first -= 2;
    }
    let word_before = |places: usize, words: &[&str]| {
        let token = first.checked_sub(places).and_then(|at| name.get(at));
        token.is_some_and(|token| words.iter().any(|word| is_word(&token.token, word)))
    };
    let deleted = word_before(1, &["FROM"]) && word_before(2, &["DELETE"]);
    if deleted || word_before(1, &BEFORE_TARGET) {
        return Err(Error::unsupported("AS OF is for tables that are read: the past cannot be changed")
            .with_hint("Take rows from it: INSERT INTO … SELECT … FROM items FOR SYSTEM_TIME AS OF '…'."));
    }
    let listed =
        first.checked_sub(1).is_some_and(|at| matches!(name[at].token, Token::Comma | Token::LParen));
    if listed || word_before(1, &BEFORE_SOURCE) { Ok(place) } else { Err(misplaced()) }
}

/// What precedes the parenthesis that the last token closes.
fn opening(tokens: &[TokenWithSpan]) -> Option<&[TokenWithSpan]> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().rev() {
        match token.token {
            Token::RParen => depth += 1,
            Token::LParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&tokens[..at]);
        }
    }
    None
}

#[cfg(test)]
mod tests;
