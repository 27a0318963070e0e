//! A walk over a statement's tokens, with Postgres' words for what does not fit.
//!
//! Used by `parse`, `options` and `pipeline`, and by `sql::history`. An error never repeats a literal, nor what may be
//! the rest of one that was quoted badly.

use datafusion::sql::sqlparser::{
    ast,
    tokenizer::{Token, TokenWithSpan},
};
use sepal_types::{Error, Result, SqlState};

use super::is_word;
use crate::sql::{
    statement::parse_query,
    tokens::{self, Places},
};

/// What an error says in place of a literal.
const HIDDEN: &str = "<redacted>";
/// What may follow a literal, and is therefore no piece of one.
const AFTER_LITERALS: [&str; 10] =
    ["ALLOW", "ENVELOPE", "FORMAT", "FROM", "INTO", "KEY", "OPTIONS", "SET", "SIGNATURE", "WITH"];

pub(in crate::sql) struct Cursor<'a> {
    sql: &'a str,
    /// Without white space and comments.
    tokens: Vec<&'a TokenWithSpan>,
    at: usize,
    places: Places<'a>,
}

impl<'a> Cursor<'a> {
    pub fn new(sql: &'a str, tokens: &'a [TokenWithSpan]) -> Self {
        let tokens = tokens.iter().filter(|token| tokens::is_significant(token)).collect();
        Self { sql, tokens, at: 0, places: Places::new(sql) }
    }

    pub fn peek(&self) -> Option<&'a Token> {
        self.peek_at(0)
    }

    /// The token so many places ahead.
    pub fn peek_at(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + ahead).map(|token| &token.token)
    }

    /// The tokens that are left.
    pub fn rest(&self) -> Vec<TokenWithSpan> {
        self.tokens.iter().skip(self.at).map(|token| (*token).clone()).collect()
    }

    /// Whether the next token is this word, unquoted.
    pub fn is(&self, keyword: &str) -> bool {
        self.peek().is_some_and(|token| is_word(token, keyword))
    }

    /// The same of the token so many places ahead.
    pub fn is_at(&self, ahead: usize, keyword: &str) -> bool {
        self.peek_at(ahead).is_some_and(|token| is_word(token, keyword))
    }

    pub fn advance(&mut self) {
        self.at += 1;
    }

    pub fn eat(&mut self, keyword: &str) -> bool {
        self.eat_all(&[keyword])
    }

    /// Takes these words if all of them follow.
    pub fn eat_all(&mut self, keywords: &[&str]) -> bool {
        let follow = keywords
            .iter()
            .enumerate()
            .all(|(ahead, keyword)| self.peek_at(ahead).is_some_and(|token| is_word(token, keyword)));
        if follow {
            self.at += keywords.len();
        }
        follow
    }

    pub fn expect(&mut self, keyword: &str) -> Result<()> {
        if self.eat(keyword) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub fn eat_token(&mut self, token: &Token) -> bool {
        let follows = self.peek() == Some(token);
        if follows {
            self.advance();
        }
        follows
    }

    pub fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Errors: 42601 unless the statement ends here.
    pub fn expect_end(&self) -> Result<()> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// A name as Postgres folds it.
    pub fn name(&mut self) -> Result<String> {
        let Some(Token::Word(word)) = self.peek() else {
            return Err(self.unexpected());
        };
        if word.quote_style.is_some() && word.value.is_empty() {
            return Err(self.here(Error::new(
                SqlState::SyntaxError,
                "zero-length delimited identifier at or near \"\"\"\"",
            )));
        }
        self.advance();
        Ok(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() })
    }

    /// The name of a secret or a certificate: it may hold `-` and begin with a digit without being quoted.
    pub fn dashed_name(&mut self) -> Result<String> {
        if self.at_quoted_name() {
            return self.name();
        }
        Ok(self.glued()?.to_ascii_lowercase())
    }

    /// The id of an API key: its capitals count even where it is not quoted.
    pub fn key_id(&mut self) -> Result<String> {
        if self.at_quoted_name() {
            return self.name();
        }
        self.glued().map(ToOwned::to_owned)
    }

    fn at_quoted_name(&self) -> bool {
        matches!(self.peek(), Some(Token::Word(word)) if word.quote_style.is_some())
    }

    /// A run of ASCII letters, digits, `_` and `-`, which may be several tokens.
    fn glued(&mut self) -> Result<&'a str> {
        let Some(first) = self.tokens.get(self.at) else {
            return Err(self.unexpected());
        };
        let start = self.places.byte(first.span.start);
        let run = self.sql[start..]
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
            .count();
        // Two dashes begin a comment.
        let text = &self.sql[start..start + run];
        let text = text.split("--").next().unwrap_or(text);
        let end = start + text.len();
        let mut reached = start;
        let mut next = self.at;
        while reached < end
            && let Some(token) = self.tokens.get(next)
        {
            reached = self.places.byte(token.span.end);
            next += 1;
        }
        if text.is_empty() || reached != end || !text.starts_with(|first: char| first.is_ascii_alphanumeric())
        {
            return Err(self.unexpected());
        }
        self.at = next;
        Ok(text)
    }

    /// What stands between the brackets of `WORD[…]`, as written; `None` when no bracket touches the word, or none
    /// closes. The next token is the word.
    pub fn brackets(&mut self) -> Option<&'a str> {
        let (word, open) = (self.tokens.get(self.at)?, self.tokens.get(self.at + 1)?);
        if open.token != Token::LBracket || word.span.end != open.span.start {
            return None;
        }
        let length = self.tokens[self.at..].iter().position(|token| token.token == Token::RBracket)?;
        let close = self.tokens[self.at + length];
        let start = self.places.byte(open.span.end);
        let end = self.places.byte(close.span.start);
        self.at += length + 1;
        self.sql.get(start..end)
    }

    /// The query up to `INTO SINK`, parsed and as written.
    pub fn query(&mut self) -> Result<(Box<ast::Query>, String)> {
        let end = self.before_sink()?;
        let part = &self.tokens[self.at..end];
        let (Some(first), Some(last)) = (part.first(), part.last()) else {
            return Err(self.unexpected());
        };
        let (start, stop) = (self.places.byte(first.span.start), self.places.byte(last.span.end));
        let text = self.sql.get(start..stop).unwrap_or_default().to_owned();
        let tokens = part.iter().map(|token| (*token).clone()).collect();
        let query = parse_query(self.sql, tokens);
        self.at = end;
        match query {
            // For sqlparser the query is all there is.
            Err(error) if error.message() == "syntax error at end of input" => Err(self.unexpected()),
            query => Ok((query?, text)),
        }
    }

    /// The place of `INTO SINK`, outside of all parentheses.
    fn before_sink(&mut self) -> Result<usize> {
        let mut depth = 0_usize;
        for (place, token) in self.tokens.iter().enumerate().skip(self.at) {
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                word if depth == 0
                    && is_word(word, "INTO")
                    && self.tokens.get(place + 1).is_some_and(|next| is_word(&next.token, "SINK")) =>
                {
                    return Ok(place);
                }
                _ => {}
            }
        }
        self.at = self.tokens.len();
        Err(self
            .unexpected()
            .with_hint("A pipeline's query is followed by INTO SINK and the name of a sink."))
    }

    /// `syntax error at or near …` of the next token.
    pub fn unexpected(&self) -> Error {
        let Some(token) = self.tokens.get(self.at) else {
            return self.here(Error::new(SqlState::SyntaxError, "syntax error at end of input"));
        };
        let shown = if is_literal(&token.token) || self.may_be_rest_of_literal(&token.token) {
            HIDDEN.to_owned()
        } else {
            token.token.to_string()
        };
        self.here(Error::new(SqlState::SyntaxError, format!("syntax error at or near \"{shown}\"")))
    }

    /// The same where a value should stand: what stands there may be one without its quotes.
    pub fn no_value(&self) -> Error {
        if self.peek().is_none() {
            return self.unexpected();
        }
        let message = format!("syntax error at or near \"{HIDDEN}\"");
        self.here(
            Error::new(SqlState::SyntaxError, message)
                .with_hint("Give the value as a parameter, $1, or as a text in single quotes."),
        )
    }

    /// An error with the position of the next token, or of the end.
    pub fn here(&self, error: Error) -> Error {
        let position = match self.tokens.get(self.at) {
            Some(token) => tokens::offset(self.sql, token.span.start),
            None => u32::try_from(self.sql.chars().count() + 1).unwrap_or(u32::MAX),
        };
        error.with_position(position)
    }

    /// `'it's'` is a literal and a word.
    fn may_be_rest_of_literal(&self, token: &Token) -> bool {
        let before = self.at.checked_sub(1).and_then(|before| self.tokens.get(before));
        let expected = match token {
            Token::Word(_) => AFTER_LITERALS.iter().any(|keyword| is_word(token, keyword)),
            Token::Comma | Token::LParen | Token::RParen | Token::Eq => true,
            _ => false,
        };
        !expected && before.is_some_and(|before| is_literal(&before.token))
    }
}

/// The text of a literal of type text.
pub(super) fn text_of(token: &Token) -> Option<&str> {
    match token {
        Token::SingleQuotedString(text)
        | Token::EscapedStringLiteral(text)
        | Token::NationalStringLiteral(text)
        | Token::UnicodeStringLiteral(text) => Some(text),
        Token::DollarQuotedString(text) => Some(&text.value),
        _ => None,
    }
}

/// Any literal in quotes.
pub(super) fn is_literal(token: &Token) -> bool {
    text_of(token).is_some()
        || matches!(
            token,
            Token::SingleQuotedByteStringLiteral(_)
                | Token::DoubleQuotedByteStringLiteral(_)
                | Token::HexStringLiteral(_)
                | Token::DoubleQuotedString(_)
        )
}
