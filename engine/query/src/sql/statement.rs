//! Statements as a session sees them: parsed, classified, with their own text.
//!
//! A statement that sqlparser cannot read but Postgres users send is recognised here on its tokens.

use std::{fmt, ops::ControlFlow, sync::Arc};

use datafusion::sql::sqlparser::{
    ast::{self, Visit, Visitor},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Location, Token, TokenWithSpan},
};
use sepal_types::{Error, RelationName, Result, SqlState};

use super::{
    delivery::{self, Delivery},
    depth::check_depth,
    dialect::Postgres,
    history::{self, History},
    maintenance::{self, Maintenance},
    named::{self, Named},
    past, row_locks,
    schemas::{self, SchemaStatement},
    sequences::{self, SequenceStatement},
    tokens,
};

/// One statement of a query string.
#[derive(Clone)]
pub struct Statement {
    pub kind: StatementKind,
    /// The whole query string: error positions count in it. Where a statement of it may hold a secret, stars stand
    /// in place of the characters of that.
    pub sql: Arc<str>,
    /// The query string has no other statement.
    pub alone: bool,
    tokens: Arc<[TokenWithSpan]>,
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("kind", &self.kind)
            .field("sql", &delivery::redact(&self.sql))
            .finish()
    }
}

/// The tag of a statement that may hold a password.
const ALTER_ROLE: &str = "ALTER ROLE";

/// What was recognised.
#[derive(Clone, Debug)]
pub enum StatementKind {
    Sql(Box<ast::Statement>),
    /// Of secrets, sinks, pipelines and plugins.
    Delivery(Box<Delivery>),
    /// Understood, has no effect in Sepal; answers with this command tag.
    Accepted(&'static str),
    /// `VACUUM`, `ANALYZE`, `REINDEX`, `CHECKPOINT`
    Maintenance(Box<Maintenance>),
    /// `DROP INDEX CONCURRENTLY [IF EXISTS] names`
    DropIndexes {
        names: Vec<RelationName>,
        if_exists: bool,
    },
    /// Of snapshots and clones.
    History(Box<History>),
    /// `LISTEN`, `DO`, …: understood, and not done.
    Refused(&'static str),
    /// Of sequences and identity columns.
    Sequence(Box<SequenceStatement>),
    /// `PREPARE`, `DECLARE`, `FETCH`, `MOVE`
    Named(Box<Named>),
    /// Of schemas and extensions.
    Schema(Box<SchemaStatement>),
    /// `SET CONSTRAINTS {ALL | names} {DEFERRED | IMMEDIATE}`
    SetConstraints {
        /// `None`: ALL.
        names: Option<Vec<String>>,
        deferred: bool,
    },
}

impl Statement {
    /// Where a word of this statement stands in the query string, counted in characters from 1.
    pub fn position_of(&self, name: &str) -> Option<u32> {
        self.tokens.iter().find_map(|token| match &token.token {
            Token::Word(word)
                if word.value == name
                    || (word.quote_style.is_none() && word.value.eq_ignore_ascii_case(name)) =>
            {
                Some(tokens::offset(&self.sql, token.span.start))
            }
            _ => None,
        })
    }

    /// What PREPARE is to prepare: a statement with the text of the whole, in which its positions count.
    pub fn to_prepare(&self) -> Option<Statement> {
        let StatementKind::Named(named) = &self.kind else { return None };
        let Named::Prepare { statement, .. } = named.as_ref() else { return None };
        Some(Statement {
            kind: StatementKind::Sql(statement.clone()),
            sql: Arc::clone(&self.sql),
            alone: false,
            tokens: Arc::clone(&self.tokens),
        })
    }
}

impl StatementKind {
    /// The statement that names tables: its own, or a cursor's query.
    pub fn ast(&self) -> Option<&ast::Statement> {
        match self {
            Self::Sql(statement) => Some(statement.as_ref()),
            Self::Named(named) => match named.as_ref() {
                Named::Declare(declare) => Some(declare.query.as_ref()),
                Named::Prepare { .. } | Named::Fetch(_) => None,
            },
            _ => None,
        }
    }

    /// Whether its text may have to be hidden from whoever sees that it runs.
    fn may_hold_secret(&self) -> bool {
        match self {
            Self::Delivery(_) => true,
            Self::Accepted(tag) => *tag == ALTER_ROLE,
            Self::Sql(statement) => matches!(
                statement.as_ref(),
                ast::Statement::CreateRole(_)
                    | ast::Statement::AlterRole { .. }
                    | ast::Statement::CreateUser(_)
                    | ast::Statement::AlterUser(_)
            ),
            _ => false,
        }
    }
}

/// Splits and parses a query string. No statement at all gives an empty list.
///
/// Errors: 42601 with the position; nothing of the string has run.
pub fn parse_statements(sql: &str) -> Result<Vec<Statement>> {
    let parts = tokens::split(tokens::read(sql)?);
    let parsed: Vec<Parsed> = parts.into_iter().map(|part| parse_one(sql, part)).collect::<Result<_>>()?;
    let text: Arc<str> = match parsed.iter().any(|(kind, _)| kind.may_hold_secret()) {
        true => delivery::mask(sql).into(),
        false => sql.into(),
    };
    let alone = parsed.len() == 1;
    let statement =
        |(kind, tokens): Parsed| Statement { kind, sql: Arc::clone(&text), alone, tokens: tokens.into() };
    Ok(parsed.into_iter().map(statement).collect())
}

/// What a statement is, and its tokens.
pub(super) type Parsed = (StatementKind, Vec<TokenWithSpan>);

pub(super) fn parse_one(sql: &str, tokens: Vec<TokenWithSpan>) -> Result<Parsed> {
    let words = leading_words(&tokens);
    if delivery::is_one(&words, &tokens) {
        let statement = delivery::parse(sql, &tokens)?;
        // Words are enough to find a name by, and the literals may be secrets.
        let words = tokens.into_iter().filter(|token| matches!(token.token, Token::Word(_))).collect();
        return Ok((StatementKind::Delivery(Box::new(statement)), words));
    }
    if let Some(statement) = history::parse(sql, &words, &tokens)? {
        return Ok((StatementKind::History(Box::new(statement)), tokens));
    }
    if let Some(parsed) = named::parse(sql, &words, &tokens)? {
        return Ok(parsed);
    }
    let mut tokens = tokens::repair(tokens);
    if maintenance::is_one(&words) {
        let statement = maintenance::parse(sql, &tokens)?;
        return Ok((StatementKind::Maintenance(Box::new(statement)), tokens));
    }
    if let Some(statement) = schemas::parse(sql, &words, &tokens)? {
        return Ok((StatementKind::Schema(Box::new(statement)), tokens));
    }
    if let Some(statement) = sequences::parse(sql, &words, &tokens)? {
        return Ok((StatementKind::Sequence(Box::new(statement)), tokens));
    }
    let kind = match recognise(&words, &tokens) {
        Some(kind) => kind,
        None => StatementKind::Sql(Box::new(parse_sql(sql, &words, &mut tokens)?)),
    };
    Ok((kind, tokens))
}

/// A query that is part of another statement, from its tokens as [`tokens::read`] gives them.
pub(super) fn parse_query(sql: &str, tokens: Vec<TokenWithSpan>) -> Result<Box<ast::Query>> {
    let words = leading_words(&tokens);
    let mut tokens = tokens::repair(tokens);
    match parse_sql(sql, &words, &mut tokens)? {
        ast::Statement::Query(query) => Ok(query),
        _ => {
            let first = tokens.iter().find(|token| tokens::is_significant(token));
            let near = first.map(|token| token.token.to_string()).unwrap_or_default();
            let start = first.map_or(Location { line: 1, column: 1 }, |token| token.span.start);
            Err(Error::new(SqlState::SyntaxError, format!("syntax error at or near \"{near}\""))
                .with_hint("A query stands here: SELECT … FROM table.")
                .with_position(tokens::offset(sql, start)))
        }
    }
}

/// Has sqlparser parse one statement, after saying in its words what it does not know.
fn parse_sql(sql: &str, words: &[String], tokens: &mut Vec<TokenWithSpan>) -> Result<ast::Statement> {
    past::mark(sql, tokens)?;
    let first = words.first().map(String::as_str);
    match first {
        Some("COPY") => {
            // sqlparser wants the semicolon that ends COPY … FROM STDIN.
            tokens.push(TokenWithSpan::wrap(Token::SemiColon));
            spell_flags(tokens);
        }
        Some("BEGIN" | "SET" | "START") => remove_deferrable(tokens),
        Some("TABLE") => spell_table(tokens),
        Some("ALTER" | "CREATE") => {
            sequences::order_identity_options(tokens);
            if words.get(1).is_some_and(|word| word == "UNLOGGED") {
                remove_unlogged(tokens);
            }
        }
        _ => {}
    }
    row_locks::mark(tokens);
    let overriding = first == Some("INSERT") && remove_overriding(tokens);
    if let Some(token) = tokens.iter_mut().find(|token| tokens::is_significant(token))
        && first == Some("ABORT")
    {
        token.token = Token::make_keyword("ROLLBACK");
    }
    check_depth(tokens)?;
    refuse_missing_relation(sql, tokens)?;
    let mut statement = Parser::new(&Postgres)
        .with_tokens_with_locations(tokens.clone())
        .parse_statements()
        .map_err(|error| syntax_error(sql, tokens, &error))?
        .into_iter()
        .next()
        .ok_or_else(|| Error::new(SqlState::SyntaxError, "syntax error at end of input"))?;
    refuse_sample(&statement, tokens)?;
    if let ast::Statement::Insert(insert) = &mut statement {
        // Hive's INSERT OVERWRITE does not exist here: its flag carries OVERRIDING SYSTEM VALUE.
        insert.overwrite = overriding;
    }
    Ok(statement)
}

/// `TABLE t` is `SELECT * FROM t`.
fn spell_table(tokens: &mut Vec<TokenWithSpan>) {
    let Some(place) = tokens.iter().position(tokens::is_significant) else {
        return;
    };
    let span = tokens[place].span;
    let words = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
    drop(tokens.splice(place..=place, words.map(|token| TokenWithSpan { token, span })));
}

/// DataFusion reads TABLESAMPLE and gives all rows. Errors: 0A000.
fn refuse_sample(statement: &ast::Statement, tokens: &[TokenWithSpan]) -> Result<()> {
    let said = |token: &TokenWithSpan| {
        let Token::Word(word) = &token.token else { return false };
        matches!(word.keyword, Keyword::TABLESAMPLE | Keyword::SAMPLE)
    };
    if !tokens.iter().any(said) {
        return Ok(());
    }
    match Visit::visit(statement, &mut Samples) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::unsupported("TABLESAMPLE is not supported")
            .with_hint("WHERE random() < 0.1 takes a tenth of the rows.")),
    }
}

/// Looks for a table of which a sample is wanted.
struct Samples;

impl Visitor for Samples {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &ast::TableFactor) -> ControlFlow<()> {
        match factor {
            ast::TableFactor::Table { sample: Some(_), .. }
            | ast::TableFactor::Derived { sample: Some(_), .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The first words, upper-case, up to the first token that is no word.
fn leading_words(tokens: &[TokenWithSpan]) -> Vec<String> {
    tokens
        .iter()
        .filter(|token| tokens::is_significant(token))
        .map_while(|token| match &token.token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
            _ => None,
        })
        .take(6)
        .collect()
}

fn recognise(words: &[String], tokens: &[TokenWithSpan]) -> Option<StatementKind> {
    let all: Vec<&str> = words.iter().map(String::as_str).collect();
    match all.as_slice() {
        ["DROP", "INDEX", "CONCURRENTLY", rest @ ..] => {
            let if_exists = rest.starts_with(&["IF", "EXISTS"]);
            Some(StatementKind::DropIndexes {
                names: names_after(tokens, if if_exists { 5 } else { 3 }),
                if_exists,
            })
        }
        ["ALTER", "TABLE", ..] if contains_words(tokens, &["SET", "STORAGE"]) => {
            Some(StatementKind::Accepted("ALTER TABLE"))
        }
        ["ALTER", "EXTENSION", "VECTOR" | "PLPGSQL", "UPDATE", ..] => {
            Some(StatementKind::Accepted("ALTER EXTENSION"))
        }
        ["SET", "CONSTRAINTS", rest @ ..] if ends_with(tokens, &["DEFERRED", "IMMEDIATE"]) => {
            let all = matches!(rest, ["ALL", "DEFERRED" | "IMMEDIATE"]);
            Some(StatementKind::SetConstraints {
                names: (!all).then(|| names_before_last(tokens, 2)),
                deferred: ends_with(tokens, &["DEFERRED"]),
            })
        }
        ["ALTER", "DEFAULT", "PRIVILEGES", ..] => Some(StatementKind::Accepted("ALTER DEFAULT PRIVILEGES")),
        ["ALTER", "USER" | "ROLE", ..] => Some(StatementKind::Accepted(ALTER_ROLE)),
        ["UNLISTEN", ..] => Some(StatementKind::Accepted("UNLISTEN")),
        ["LISTEN", ..] => {
            Some(StatementKind::Refused("LISTEN is not supported: Sepal has no notification channels"))
        }
        ["NOTIFY", ..] => {
            Some(StatementKind::Refused("NOTIFY is not supported: Sepal has no notification channels"))
        }
        ["DO", ..] => Some(StatementKind::Refused("DO is not supported: Sepal has no procedural language")),
        ["CREATE", ..] if contains_words(tokens, &["AS", "EXECUTE"]) => {
            Some(StatementKind::Refused("CREATE TABLE AS EXECUTE is not supported"))
        }
        ["UPDATE" | "DELETE", ..] if contains_words(tokens, &["WHERE", "CURRENT", "OF"]) => {
            Some(StatementKind::Refused("WHERE CURRENT OF is not supported: name the row by its key"))
        }
        ["PREPARE", "TRANSACTION", ..] => Some(StatementKind::Refused("prepared transactions are disabled")),
        _ => None,
    }
}

/// Whether the last token is one of these words.
fn ends_with(tokens: &[TokenWithSpan], words: &[&str]) -> bool {
    let last = significant(tokens).next_back().map(|token| token.token.to_string().to_ascii_uppercase());
    last.is_some_and(|last| words.contains(&last.as_str()))
}

fn significant(tokens: &[TokenWithSpan]) -> impl DoubleEndedIterator<Item = &TokenWithSpan> {
    tokens.iter().filter(|token| tokens::is_significant(token))
}

fn identifier(token: &TokenWithSpan) -> Option<String> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_some() => Some(word.value.clone()),
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

/// Comma-separated names after `skip` tokens.
fn names_after(tokens: &[TokenWithSpan], skip: usize) -> Vec<RelationName> {
    let rest: Vec<&TokenWithSpan> = significant(tokens).skip(skip).collect();
    let name = |part: &[&TokenWithSpan]| {
        let mut words = part.iter().rev().filter_map(|token| identifier(token));
        let name = words.next()?;
        Some(RelationName { schema: words.next(), name })
    };
    rest.split(|token| token.token == Token::Comma).filter_map(name).collect()
}

/// The same without the last word of the statement.
fn names_before_last(tokens: &[TokenWithSpan], skip: usize) -> Vec<String> {
    let last = tokens.iter().rposition(tokens::is_significant).unwrap_or(0);
    names_after(&tokens[..last], skip).into_iter().map(|named| named.name).collect()
}

fn contains_words(tokens: &[TokenWithSpan], words: &[&str]) -> bool {
    let all: Vec<&TokenWithSpan> = significant(tokens).collect();
    all.windows(words.len()).any(|window| {
        window.iter().zip(words).all(|(token, word)| {
            matches!(&token.token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
        })
    })
}

/// `[NOT] DEFERRABLE` among the modes of a transaction does not parse. It promises nothing here: a snapshot never
/// waits. A comma beside it goes with it.
fn remove_deferrable(tokens: &mut Vec<TokenWithSpan>) {
    let is_word = |token: &TokenWithSpan, text: &str| matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text));
    if !tokens.iter().any(|token| is_word(token, "TRANSACTION") || is_word(token, "BEGIN")) {
        return;
    }
    while let Some(end) = tokens.iter().position(|token| is_word(token, "DEFERRABLE")) {
        let before = |end: usize| tokens[..end].iter().rposition(tokens::is_significant);
        let is_comma = |at: &usize| tokens[*at].token == Token::Comma;
        let start = before(end).filter(|at| is_word(&tokens[*at], "NOT")).unwrap_or(end);
        let after = (end + 1..tokens.len()).find(|at| tokens::is_significant(&tokens[*at]));
        let (start, end) = match before(start).filter(is_comma) {
            Some(comma) => (comma, end),
            None => (start, after.filter(is_comma).unwrap_or(end)),
        };
        tokens.drain(start..=end);
    }
}

/// CREATE UNLOGGED TABLE makes a table like any other.
fn remove_unlogged(tokens: &mut Vec<TokenWithSpan>) {
    let place = tokens.iter().enumerate().filter(|(_, token)| tokens::is_significant(token)).nth(1);
    if let Some((place, _)) = place {
        tokens.remove(place);
    }
}

/// COPY's `FREEZE on`: sqlparser knows `true` and `false` only.
fn spell_flags(tokens: &mut [TokenWithSpan]) {
    let mut follows = false;
    for token in tokens.iter_mut().filter(|token| tokens::is_significant(token)) {
        let text = match &token.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
            Token::Number(digits, _) => digits.clone(),
            _ => String::new(),
        };
        if follows && matches!(text.as_str(), "on" | "1") {
            token.token = Token::make_keyword("TRUE");
        } else if follows && matches!(text.as_str(), "off" | "0") {
            token.token = Token::make_keyword("FALSE");
        }
        follows = matches!(text.as_str(), "freeze" | "header");
    }
}

/// `INSERT … OVERRIDING {SYSTEM | USER} VALUE` does not parse: it is taken out and noted.
fn remove_overriding(tokens: &mut Vec<TokenWithSpan>) -> bool {
    let is_word = |token: &TokenWithSpan, text: &str| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(text));
    let Some(start) = tokens.iter().position(|token| is_word(token, "OVERRIDING")) else {
        return false;
    };
    let Some(end) = tokens[start..].iter().position(|token| is_word(token, "VALUE")) else {
        return false;
    };
    if end <= 4 {
        tokens.drain(start..=start + end);
    }
    end <= 4
}

/// `FROM WHERE`: sqlparser takes a clause's first word for the name of a table.
fn refuse_missing_relation(sql: &str, tokens: &[TokenWithSpan]) -> Result<()> {
    const CLAUSES: [&str; 8] = ["FROM", "GROUP", "HAVING", "LIMIT", "ON", "ORDER", "UNION", "WHERE"];
    let word = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    };
    let all: Vec<&TokenWithSpan> = significant(tokens).collect();
    let missing = all.windows(2).find(|pair| {
        matches!(word(pair[0]).as_deref(), Some("FROM" | "JOIN"))
            && word(pair[1]).is_some_and(|next| CLAUSES.contains(&next.as_str()))
    });
    match missing {
        None => Ok(()),
        Some(pair) => {
            Err(Error::new(SqlState::SyntaxError, format!("syntax error at or near \"{}\"", pair[1].token))
                .with_position(tokens::offset(sql, pair[1].span.start)))
        }
    }
}

/// sqlparser says `Expected: …, found: x at Line: 1, Column: 9`; Postgres says `syntax error at or near "x"`.
pub(super) fn syntax_error(sql: &str, tokens: &[TokenWithSpan], error: &ParserError) -> Error {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => {
            return Error::new(SqlState::ProgramLimitExceeded, "stack depth limit exceeded")
                .with_hint("Split the statement: its expressions are nested too deeply.");
        }
    };
    let detail = text.split(" at Line:").next().unwrap_or(text).to_owned();
    let Some(location) = location_in(text) else {
        let at_end = text.contains("EOF") || text.contains("end of statement");
        let message = if at_end { "syntax error at end of input" } else { "syntax error" };
        return Error::new(SqlState::SyntaxError, message)
            .with_detail(detail)
            .with_position(u32::try_from(sql.chars().count() + 1).unwrap_or(1));
    };
    let near = tokens.iter().find(|token| token.span.start == location).map(|token| token.token.to_string());
    let message = match near {
        Some(near) => format!("syntax error at or near \"{near}\""),
        None => "syntax error".to_owned(),
    };
    Error::new(SqlState::SyntaxError, message)
        .with_detail(detail)
        .with_position(tokens::offset(sql, location))
}

fn location_in(message: &str) -> Option<Location> {
    let (line, column) = message.rsplit_once("Line: ")?.1.split_once(", Column: ")?;
    let digits =
        |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().ok();
    Some(Location { line: digits(line)?, column: digits(column)? }).filter(|location| location.line > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drivers_send_parses() {
        for sql in [
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
            "START TRANSACTION NOT DEFERRABLE, READ ONLY",
            "SET TRANSACTION READ ONLY , NOT DEFERRABLE",
            "COPY t FROM STDIN WITH (FREEZE on)",
            "COPY t FROM STDIN WITH (FORMAT csv, HEADER off, FREEZE 1)",
        ] {
            assert!(parse_statements(sql).is_ok(), "{sql}");
        }
    }
}
