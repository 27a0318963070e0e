//! `VACUUM`, `ANALYZE`, `REINDEX`, `CHECKPOINT`, with all the forms that PostgreSQL 17 has for them.
//!
//! `statement` recognises them by their first word, because sqlparser knows few of the forms.
//! `database::session::maintenance` runs them. Options that say how PostgreSQL goes about its pages are taken and have
//! no effect.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use sepal_types::{Error, RelationName, Result, SqlState};

use super::tokens;

/// A statement of this family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maintenance {
    /// `tables` empty: all of the environment.
    Vacuum {
        full: bool,
        analyze: bool,
        verbose: bool,
        tables: Vec<NamedTable>,
    },
    Analyze {
        verbose: bool,
        tables: Vec<NamedTable>,
    },
    Reindex {
        verbose: bool,
        concurrently: bool,
        what: Reindexed,
    },
    Checkpoint,
}

/// A table, and those of its columns that ANALYZE is about; none: all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTable {
    pub table: RelationName,
    pub columns: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reindexed {
    Index(RelationName),
    Table(RelationName),
    /// All tables of the environment: `DATABASE [name]`, `SYSTEM`.
    Database(Option<String>),
    Schema(String),
}

const VACUUM_OPTIONS: [&str; 14] = [
    "analyze",
    "buffer_usage_limit",
    "disable_page_skipping",
    "freeze",
    "full",
    "index_cleanup",
    "only_database_stats",
    "parallel",
    "process_main",
    "process_toast",
    "skip_database_stats",
    "skip_locked",
    "truncate",
    "verbose",
];
const ANALYZE_OPTIONS: [&str; 3] = ["buffer_usage_limit", "skip_locked", "verbose"];
const REINDEX_OPTIONS: [&str; 3] = ["concurrently", "tablespace", "verbose"];

/// Whether a statement is of this family, by its first words in capitals.
pub(super) fn is_one(words: &[String]) -> bool {
    let first = words.first().map(String::as_str);
    matches!(first, Some("VACUUM" | "ANALYZE" | "ANALYSE" | "REINDEX" | "CHECKPOINT"))
}

/// Parses a statement of this family. `sql` is the whole query string, where the tokens have their places.
///
/// Errors: 42601 with the position.
pub(super) fn parse(sql: &str, tokens: &[TokenWithSpan]) -> Result<Maintenance> {
    let tokens = tokens.iter().filter(|token| tokens::is_significant(token)).collect();
    let mut walk = Walk { sql, tokens, at: 0 };
    let statement = if walk.eat("VACUUM") {
        vacuum(&mut walk)?
    } else if walk.eat("REINDEX") {
        reindex(&mut walk)?
    } else if walk.eat("CHECKPOINT") {
        Maintenance::Checkpoint
    } else {
        walk.at += 1;
        analyze(&mut walk)?
    };
    if walk.peek().is_some() { Err(walk.unexpected()) } else { Ok(statement) }
}

fn vacuum(walk: &mut Walk<'_>) -> Result<Maintenance> {
    let (full, analyze, verbose);
    if walk.peek() == Some(&Token::LParen) {
        let options = walk.options("VACUUM", &VACUUM_OPTIONS)?;
        (full, analyze, verbose) =
            (options.is_on("full"), options.is_on("analyze"), options.is_on("verbose"));
    } else {
        full = walk.eat("FULL");
        walk.eat("FREEZE");
        verbose = walk.eat("VERBOSE");
        analyze = walk.eat("ANALYZE") || walk.eat("ANALYSE");
    }
    let tables = walk.tables()?;
    if !analyze && tables.iter().any(|table| !table.columns.is_empty()) {
        return Err(Error::unsupported("ANALYZE option must be specified when a column list is provided"));
    }
    Ok(Maintenance::Vacuum { full, analyze, verbose, tables })
}

fn analyze(walk: &mut Walk<'_>) -> Result<Maintenance> {
    let verbose = match walk.peek() {
        Some(Token::LParen) => walk.options("ANALYZE", &ANALYZE_OPTIONS)?.is_on("verbose"),
        _ => walk.eat("VERBOSE"),
    };
    Ok(Maintenance::Analyze { verbose, tables: walk.tables()? })
}

fn reindex(walk: &mut Walk<'_>) -> Result<Maintenance> {
    let (mut verbose, mut concurrently) = (false, false);
    if walk.peek() == Some(&Token::LParen) {
        let options = walk.options("REINDEX", &REINDEX_OPTIONS)?;
        (verbose, concurrently) = (options.is_on("verbose"), options.is_on("concurrently"));
    }
    let kinds = ["INDEX", "TABLE", "SCHEMA", "DATABASE", "SYSTEM"];
    let Some(kind) = kinds.into_iter().find(|kind| walk.eat(kind)) else { return Err(walk.unexpected()) };
    concurrently |= walk.eat("CONCURRENTLY");
    let what = match kind {
        "INDEX" => Reindexed::Index(walk.qualified_name()?),
        "TABLE" => Reindexed::Table(walk.qualified_name()?),
        "SCHEMA" => Reindexed::Schema(walk.name()?),
        _ if walk.peek().is_none() => Reindexed::Database(None),
        _ => Reindexed::Database(Some(walk.name()?)),
    };
    Ok(Maintenance::Reindex { verbose, concurrently, what })
}

/// Options in parentheses: names in lower case, and whether they are on.
struct Options(Vec<(String, bool)>);

impl Options {
    /// The last one counts.
    fn is_on(&self, name: &str) -> bool {
        self.0.iter().rev().find(|(known, _)| known == name).is_some_and(|(_, on)| *on)
    }
}

/// A walk over the tokens that count.
struct Walk<'a> {
    sql: &'a str,
    tokens: Vec<&'a TokenWithSpan>,
    at: usize,
}

impl<'a> Walk<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at).map(|token| &token.token)
    }

    fn eat(&mut self, keyword: &str) -> bool {
        let is_keyword = |word: &Word| word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword);
        let follows = matches!(self.peek(), Some(Token::Word(word)) if is_keyword(word));
        self.at += usize::from(follows);
        follows
    }

    fn eat_token(&mut self, token: &Token) -> bool {
        let follows = self.peek() == Some(token);
        self.at += usize::from(follows);
        follows
    }

    fn name(&mut self) -> Result<String> {
        let Some(Token::Word(word)) = self.peek() else { return Err(self.unexpected()) };
        self.at += 1;
        Ok(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() })
    }

    /// `[database.][schema.]name`; the database is not looked at.
    fn qualified_name(&mut self) -> Result<RelationName> {
        let (mut schema, mut name) = (None, self.name()?);
        while self.eat_token(&Token::Period) {
            schema = Some(std::mem::replace(&mut name, self.name()?));
        }
        Ok(RelationName { schema, name })
    }

    /// `table [(column, …)], …`, or nothing.
    fn tables(&mut self) -> Result<Vec<NamedTable>> {
        let mut tables = Vec::new();
        if self.peek().is_none() {
            return Ok(tables);
        }
        loop {
            let table = self.qualified_name()?;
            let mut columns = Vec::new();
            if self.eat_token(&Token::LParen) {
                columns.push(self.name()?);
                while self.eat_token(&Token::Comma) {
                    columns.push(self.name()?);
                }
                if !self.eat_token(&Token::RParen) {
                    return Err(self.unexpected());
                }
            }
            tables.push(NamedTable { table, columns });
            if !self.eat_token(&Token::Comma) {
                return Ok(tables);
            }
        }
    }

    /// `(name [value], …)`.
    fn options(&mut self, statement: &str, known: &[&str]) -> Result<Options> {
        self.at += 1;
        let mut options = Vec::new();
        loop {
            let at = self.at;
            let name = self.name()?;
            let name = if name == "analyse" { "analyze".to_owned() } else { name };
            if !known.contains(&name.as_str()) {
                self.at = at;
                let message = format!("unrecognized {statement} option \"{name}\"");
                return Err(self.here(Error::new(SqlState::SyntaxError, message)));
            }
            let on = match self.peek() {
                Some(Token::Comma | Token::RParen) => true,
                _ => self.value(&name)?,
            };
            options.push((name, on));
            if self.eat_token(&Token::RParen) {
                return Ok(Options(options));
            }
            if !self.eat_token(&Token::Comma) {
                return Err(self.unexpected());
            }
        }
    }

    /// Options that are not on or off are what they are for PostgreSQL only.
    fn value(&mut self, option: &str) -> Result<bool> {
        let text = match self.peek() {
            Some(Token::Word(word)) => word.value.to_ascii_lowercase(),
            Some(Token::Number(digits, _)) => digits.clone(),
            Some(Token::SingleQuotedString(text)) => text.to_ascii_lowercase(),
            _ => return Err(self.unexpected()),
        };
        let free = matches!(option, "buffer_usage_limit" | "index_cleanup" | "parallel" | "tablespace");
        let on = match text.as_str() {
            "true" | "on" | "1" => true,
            "false" | "off" | "0" => false,
            _ if free => true,
            _ => {
                let message = format!("{option} requires a Boolean value");
                return Err(self.here(Error::new(SqlState::SyntaxError, message)));
            }
        };
        self.at += 1;
        Ok(on)
    }

    fn unexpected(&self) -> Error {
        let message = match self.peek() {
            Some(token) => format!("syntax error at or near \"{token}\""),
            None => "syntax error at end of input".to_owned(),
        };
        self.here(Error::new(SqlState::SyntaxError, message))
    }

    fn here(&self, error: Error) -> Error {
        let position = match self.tokens.get(self.at) {
            Some(token) => tokens::offset(self.sql, token.span.start),
            None => u32::try_from(self.sql.chars().count() + 1).unwrap_or(u32::MAX),
        };
        error.with_position(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{StatementKind, parse_statements};

    fn parsed(sql: &str) -> Maintenance {
        let statements = parse_statements(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        match statements.into_iter().next().map(|statement| statement.kind) {
            Some(StatementKind::Maintenance(statement)) => *statement,
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn name(text: &str) -> RelationName {
        match text.split_once('.') {
            Some((schema, name)) => RelationName::qualified(schema, name),
            None => RelationName::bare(text),
        }
    }

    fn tables(names: &[&str]) -> Vec<NamedTable> {
        names.iter().map(|text| NamedTable { table: name(text), columns: Vec::new() }).collect()
    }

    #[test]
    fn every_form_is_understood() {
        let vacuum = |full, analyze, verbose, names: &[&str]| {
            let tables = tables(names);
            Maintenance::Vacuum { full, analyze, verbose, tables }
        };
        assert_eq!(parsed("VACUUM"), vacuum(false, false, false, &[]));
        assert_eq!(parsed("vacuum full items"), vacuum(true, false, false, &["items"]));
        assert_eq!(
            parsed("VACUUM FULL FREEZE VERBOSE ANALYZE a, public.\"B\""),
            vacuum(true, true, true, &["a", "public.B"])
        );
        assert_eq!(
            parsed("VACUUM (FULL, ANALYZE false, VERBOSE on, PARALLEL 4, INDEX_CLEANUP auto) a"),
            vacuum(true, false, true, &["a"])
        );
        assert_eq!(parsed("ANALYZE"), Maintenance::Analyze { verbose: false, tables: Vec::new() });
        let columns = vec![NamedTable { table: name("a"), columns: vec!["x".into(), "y".into()] }];
        assert_eq!(
            parsed("ANALYZE (VERBOSE, SKIP_LOCKED) a (x, Y)"),
            Maintenance::Analyze { verbose: true, tables: columns }
        );
        let reindex = |concurrently, what| Maintenance::Reindex { verbose: false, concurrently, what };
        assert_eq!(parsed("REINDEX INDEX i"), reindex(false, Reindexed::Index(name("i"))));
        assert_eq!(
            parsed("REINDEX TABLE CONCURRENTLY public.t"),
            reindex(true, Reindexed::Table(name("public.t")))
        );
        assert_eq!(
            parsed("REINDEX (CONCURRENTLY) DATABASE d"),
            reindex(true, Reindexed::Database(Some("d".into())))
        );
        assert_eq!(parsed("REINDEX SYSTEM"), reindex(false, Reindexed::Database(None)));
        assert_eq!(parsed("checkpoint"), Maintenance::Checkpoint);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let cases = [
            ("VACUUM (FULLY) a", "unrecognized VACUUM option \"fully\"", 9),
            ("VACUUM (FULL maybe) a", "full requires a Boolean value", 14),
            ("VACUUM a b", "syntax error at or near \"b\"", 10),
            ("VACUUM (FULL a", "full requires a Boolean value", 14),
            ("VACUUM a,", "syntax error at end of input", 10),
            ("ANALYZE (FULL) a", "unrecognized ANALYZE option \"full\"", 10),
            ("REINDEX a", "syntax error at or near \"a\"", 9),
            ("REINDEX INDEX", "syntax error at end of input", 14),
            ("CHECKPOINT now", "syntax error at or near \"now\"", 12),
        ];
        for (sql, message, position) in cases {
            let error = parse_statements(sql).expect_err(sql);
            assert_eq!((error.message(), error.position()), (message, Some(position)), "{sql}");
        }
        let error = parse_statements("VACUUM a (x)").expect_err("columns");
        assert_eq!(error.message(), "ANALYZE option must be specified when a column list is provided");
    }
}
