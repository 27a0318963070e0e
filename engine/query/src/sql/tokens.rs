//! The token post-pass between sqlparser's tokenizer and its parser.
//!
//! sqlparser 0.62 cannot read pgvector's `<+>`, gives `<=>` the precedence of `=`, glues a trailing sign onto an
//! operator (`a>-1`), and does not join string literals over a line break. All are repaired on the tokens, which
//! keeps their positions. The rules for trailing signs and for joined literals are those of PostgreSQL's lexer
//! (`src/backend/parser/scan.l`, operator and quotecontinue).

use datafusion::sql::sqlparser::{
    dialect::PostgreSqlDialect,
    tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace, Word},
};
use sepal_types::{Error, Result, SparseVector, SqlState, VectorKind};

use super::delivery::hides_secret;

/// Tokenizes and repairs. Errors: 42601 with the position of the bad character.
pub fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>> {
    Ok(repair(read(sql)?))
}

/// Tokenizes and joins literals. What sqlparser is to parse wants [`repair`] too.
///
/// Errors: 42601 with the position of the bad character.
pub fn read(sql: &str) -> Result<Vec<TokenWithSpan>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().map_err(|error| {
        let position = offset(sql, error.location);
        Error::new(SqlState::SyntaxError, problem(sql, &error.message, position)).with_position(position)
    })?;
    Ok(join_literals(tokens))
}

/// A quotation that never ends, in Postgres' words: with all that it took in, unless that may be a secret.
fn problem(sql: &str, message: &str, position: u32) -> String {
    if message != "Unterminated string literal" && message != "Unterminated encoded string literal" {
        return message.to_owned();
    }
    if hides_secret(sql) {
        return "unterminated quoted string".to_owned();
    }
    let skipped = usize::try_from(position.saturating_sub(1)).unwrap_or(0);
    let rest: String = sql.chars().skip(skipped).collect();
    format!("unterminated quoted string at or near \"{rest}\"")
}

/// The statements' tokens, without the semicolons and without empty statements.
pub fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    tokens
        .split(|token| token.token == Token::SemiColon)
        .filter(|part| part.iter().any(is_significant))
        .map(<[TokenWithSpan]>::to_vec)
        .collect()
}

/// Not white space or a comment.
pub fn is_significant(token: &TokenWithSpan) -> bool {
    !matches!(token.token, Token::Whitespace(_) | Token::EOF)
}

/// A location as Postgres' `P` field counts: characters from 1.
pub fn offset(sql: &str, location: Location) -> u32 {
    let line_start: usize = sql
        .split_inclusive('\n')
        .take(usize::try_from(location.line.saturating_sub(1)).unwrap_or(0))
        .map(|line| line.chars().count())
        .sum();
    u32::try_from(line_start).unwrap_or(u32::MAX).saturating_add(u32::try_from(location.column).unwrap_or(1))
}

/// Turns locations into byte offsets, in one pass as long as they are asked for in order.
pub struct Places<'a> {
    sql: &'a str,
    byte: usize,
    location: Location,
}

impl<'a> Places<'a> {
    pub fn new(sql: &'a str) -> Self {
        Self { sql, byte: 0, location: Location { line: 1, column: 1 } }
    }

    /// Where in the text a location is; its end for one past it.
    pub fn byte(&mut self, wanted: Location) -> usize {
        if wanted < self.location {
            *self = Self::new(self.sql);
        }
        let sql = self.sql;
        for character in sql[self.byte..].chars() {
            if self.location >= wanted {
                break;
            }
            self.byte += character.len_utf8();
            if character == '\n' {
                self.location = Location { line: self.location.line + 1, column: 1 };
            } else {
                self.location.column += 1;
            }
        }
        self.byte
    }
}

/// What sqlparser reads otherwise than PostgreSQL.
pub fn repair(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut repaired: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        match &token.token {
            Token::Lt => {
                let mut ahead = rest.clone();
                let plus = ahead.next().filter(|next| next.token == Token::Plus && touches(&token, next));
                let gt = plus.and_then(|plus| {
                    ahead.next().filter(|next| next.token == Token::Gt && touches(&plus, next))
                });
                if let Some(gt) = gt {
                    rest = ahead;
                    let span = Span::new(token.span.start, gt.span.end);
                    repaired.push(TokenWithSpan::new(Token::CustomBinaryOperator("<+>".into()), span));
                } else {
                    repaired.push(token);
                }
            }
            Token::Spaceship => {
                repaired.push(TokenWithSpan::new(Token::CustomBinaryOperator("<=>".into()), token.span));
            }
            Token::CustomBinaryOperator(operator) => {
                split_trailing_signs(operator.clone(), token, &mut repaired)
            }
            Token::SingleQuotedString(_) => {
                push_string(token, &mut repaired);
            }
            _ => repaired.push(token),
        }
    }
    repaired
}

/// `'con'`, a line break, `'catenated'` is one literal. Between the parts may stand white space and `--` comments.
fn join_literals(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut joined: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let Token::SingleQuotedString(text) = &token.token else {
            joined.push(token);
            continue;
        };
        match continued(&joined) {
            Some(start) => {
                joined.truncate(start + 1);
                if let Some(first) = joined.last_mut()
                    && let Token::SingleQuotedString(whole) = &mut first.token
                {
                    whole.push_str(text);
                    first.span.end = token.span.end;
                }
            }
            None => joined.push(token),
        }
    }
    joined
}

/// The place of the literal that one after these tokens carries on.
fn continued(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut broken = false;
    for (place, token) in tokens.iter().enumerate().rev() {
        match &token.token {
            Token::Whitespace(Whitespace::Newline | Whitespace::SingleLineComment { .. }) => broken = true,
            Token::Whitespace(Whitespace::Space | Whitespace::Tab) => {}
            Token::SingleQuotedString(_) if broken => return Some(place),
            _ => return None,
        }
    }
    None
}

fn touches(left: &TokenWithSpan, right: &TokenWithSpan) -> bool {
    left.span.end == right.span.start
}

/// `a>-1` arrives as one operator `>-`; PostgreSQL's lexer ends an operator before a trailing sign unless it
/// holds one of `~ ! @ # % ^ & | ` ?`.
fn split_trailing_signs(operator: String, token: TokenWithSpan, repaired: &mut Vec<TokenWithSpan>) {
    let head = operator.trim_end_matches(['+', '-']);
    let keeps_sign = operator.contains(['~', '!', '@', '#', '%', '^', '&', '|', '`', '?']);
    let head_token = match head {
        ">" => Token::Gt,
        "<" => Token::Lt,
        ">=" => Token::GtEq,
        "<=" => Token::LtEq,
        "<>" => Token::Neq,
        "->" => Token::Arrow,
        "->>" => Token::LongArrow,
        "<->" => Token::TwoWayArrow,
        "<=>" => Token::CustomBinaryOperator("<=>".into()),
        _ => {
            repaired.push(token);
            return;
        }
    };
    if keeps_sign || head.len() == operator.len() {
        repaired.push(token);
        return;
    }
    let column = |shift: usize| Location {
        line: token.span.start.line,
        column: token.span.start.column + u64::try_from(shift).unwrap_or(0),
    };
    repaired.push(TokenWithSpan::new(head_token, Span::new(token.span.start, column(head.len()))));
    for (shift, sign) in operator.char_indices().skip(head.len()) {
        let sign = if sign == '+' { Token::Plus } else { Token::Minus };
        repaired.push(TokenWithSpan::new(sign, Span::new(column(shift), column(shift + 1))));
    }
}

/// `vector '[1,2]'`, `halfvec '[1,2]'` and `sparsevec '{1:1}/2'` are typed literals in Postgres; sqlparser reads a
/// column with an alias. Written as a cast.
fn push_string(token: TokenWithSpan, repaired: &mut Vec<TokenWithSpan>) {
    let span = token.span;
    let before = repaired.iter().rposition(is_significant);
    let typed = before.filter(|at| {
        let mut names = VectorKind::ALL.map(VectorKind::name).into_iter().chain([SparseVector::NAME]);
        let is_vector = matches!(&repaired[*at].token, Token::Word(word) if word.quote_style.is_none()
            && names.any(|name| word.value.eq_ignore_ascii_case(name)));
        let opens = repaired[..*at].iter().rev().find(|token| is_significant(token)).is_none_or(|token| {
            matches!(&token.token, Token::Comma | Token::LParen | Token::LBracket)
                || matches!(&token.token, Token::Word(word) if is_select_word(word))
                || matches!(
                    &token.token,
                    Token::CustomBinaryOperator(_)
                        | Token::TwoWayArrow
                        | Token::Eq
                        | Token::Plus
                        | Token::Minus
                        | Token::Mul
                )
        });
        is_vector && opens
    });
    let Some(at) = typed else {
        repaired.push(token);
        return;
    };
    let word = repaired.remove(at);
    repaired.push(token);
    repaired.push(TokenWithSpan::new(Token::DoubleColon, span));
    repaired.push(TokenWithSpan::new(word.token, span));
}

fn is_select_word(word: &Word) -> bool {
    word.quote_style.is_none()
        && ["select", "where", "by", "and", "or", "values", "distinct", "then", "else"]
            .iter()
            .any(|keyword| word.value.eq_ignore_ascii_case(keyword))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::super::dialect::Postgres;
    use super::*;

    fn grouped(expression: &str) -> String {
        let tokens = tokenize(expression).unwrap();
        let expr = Parser::new(&Postgres).with_tokens_with_locations(tokens).parse_expr().unwrap();
        expr.to_string()
    }

    #[test]
    fn operators_read_as_postgres_reads_them() {
        let cases = [
            ("a <+> b", "a <+> b"),
            ("a>-1", "a > -1"),
            ("a>=-1", "a >= -1"),
            ("a<->-b", "a <-> -b"),
            ("a->-1", "a -> -1"),
            ("a->>'b'<>c", "a ->> 'b' <> c"),
            ("vector '[1,2]' <=> b", "'[1,2]'::vector <=> b"),
            ("HALFVEC '[1,2]' <=> b", "'[1,2]'::HALFVEC <=> b"),
            ("sparsevec '{1:1}/2' <=> b", "'{1:1}/2'::sparsevec <=> b"),
            ("'con' -- a comment\n  'cate'\n\n'nated' || 'x'", "'concatenated' || 'x'"),
        ];
        for (input, output) in cases {
            assert_eq!(grouped(input), output);
        }
    }

    #[test]
    fn an_unterminated_string_is_shown() {
        let error = tokenize("SELECT 'open").expect_err("no closing quote");
        assert_eq!(error.message(), "unterminated quoted string at or near \"'open\"");
        assert_eq!(error.position(), Some(8));
    }

    #[test]
    fn an_unterminated_secret_is_not() {
        let error = tokenize("CREATE SECRET a AS 'hunter2").expect_err("no closing quote");
        assert_eq!((error.message(), error.position()), ("unterminated quoted string", Some(20)));
    }

    #[test]
    fn positions_count_characters_over_lines() {
        let sql = "é\nab";
        assert_eq!(offset(sql, Location { line: 2, column: 2 }), 4);
        let mut places = Places::new(sql);
        let bytes = [(1, 2), (2, 2), (1, 1), (9, 9)].map(|at| places.byte(Location::from(at)));
        assert_eq!(bytes, [2, 4, 0, 5]);
    }
}
