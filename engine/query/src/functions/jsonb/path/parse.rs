//! A jsonpath from its text (`jsonpath_gram.y`).
//!
//! Arithmetic, `.**`, `.keyvalue()`, `.datetime()` and the methods of numbers are read as far as it takes to say that
//! they are not supported.

use regex::{Regex, RegexBuilder};
use sepal_types::{Error, Result, SqlState};

use super::tokens::{Token, Written, tokenize};
use crate::values::{normalize_json, quote_json};

/// Deepest nesting; bounds the stack.
const MAX_DEPTH: usize = 64;
/// Most bytes of a compiled regular expression.
const MAX_EXPRESSION_BYTES: usize = 1 << 20;

/// A path, ready to be looked along.
#[derive(Debug)]
pub(super) struct Path {
    pub strict: bool,
    pub expr: Expr,
}

/// What gives a sequence of values.
#[derive(Debug)]
pub(super) enum Expr {
    Current,
    Last,
    /// As canonical JSON.
    Literal(String),
    Predicate(Box<Predicate>),
    Root,
    Steps(Box<Expr>, Vec<Step>),
    Variable(String),
}

#[derive(Debug)]
pub(super) enum Step {
    AnyElement,
    AnyMember,
    Filter(Predicate),
    Member(String),
    Size,
    /// Each one position, or the first and the last.
    Subscripts(Vec<(Expr, Option<Expr>)>),
    Type,
}

#[derive(Debug)]
pub(super) enum Predicate {
    And(Box<Predicate>, Box<Predicate>),
    Compare(Comparison, Expr, Expr),
    Exists(Expr),
    IsUnknown(Box<Predicate>),
    LikeRegex(Expr, Regex),
    Not(Box<Predicate>),
    Or(Box<Predicate>, Box<Predicate>),
    StartsWith(Expr, Expr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    NotEqual,
}

/// Errors: 22P02, 42601, 2201B for a regular expression; 54001 nested too deep; 0A000 for what is left out.
pub(super) fn parse(text: &str) -> Result<Path> {
    let tokens = tokenize(text)?;
    if tokens.is_empty() {
        let message = format!("invalid input syntax for type jsonpath: \"{text}\"");
        return Err(Error::new(SqlState::InvalidTextRepresentation, message));
    }
    let mut parser = Parser { tokens, at: 0, depth: 0, filters: 0, subscripts: 0 };
    let strict = parser.take_word("strict");
    if !strict {
        parser.take_word("lax");
    }
    let expr = match parser.either()? {
        Node::Expr(expr) => expr,
        Node::Predicate(predicate) => Expr::Predicate(Box::new(predicate)),
    };
    match parser.peek() {
        None => Ok(Path { strict, expr }),
        Some(_) => Err(parser.unexpected()),
    }
}

/// A parenthesis may hold either.
enum Node {
    Expr(Expr),
    Predicate(Predicate),
}

struct Parser {
    tokens: Vec<Written>,
    at: usize,
    depth: usize,
    /// How many filters and subscripts stand around: `@` and `last` mean something within them.
    filters: usize,
    subscripts: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|written| &written.token)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(next)) if *next == sign);
        self.at += usize::from(found);
        found
    }

    /// A word of the grammar, in any case.
    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(next)) if next.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Error {
        let place = match self.tokens.get(self.at) {
            Some(written) => format!("or near \"{}\" of", written.text),
            None => "end of".to_owned(),
        };
        Error::new(SqlState::SyntaxError, format!("syntax error at {place} jsonpath input"))
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            let message = format!("a jsonpath is nested more than {MAX_DEPTH} levels deep");
            return Err(Error::new(SqlState::StatementTooComplex, message));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// `a || b`
    fn either(&mut self) -> Result<Node> {
        self.nested(|parser| parser.joined("||", Self::both, Predicate::Or))
    }

    /// `a && b`
    fn both(&mut self) -> Result<Node> {
        self.joined("&&", Self::comparison, Predicate::And)
    }

    fn joined(
        &mut self,
        sign: &str,
        operand: fn(&mut Self) -> Result<Node>,
        join: fn(Box<Predicate>, Box<Predicate>) -> Predicate,
    ) -> Result<Node> {
        let mut left = match operand(self)? {
            Node::Predicate(left) => left,
            expr => return Ok(expr),
        };
        while self.take(sign) {
            let right = operand(self)?;
            left = join(Box::new(left), Box::new(self.predicate(right)?));
        }
        Ok(Node::Predicate(left))
    }

    fn predicate(&self, node: Node) -> Result<Predicate> {
        match node {
            Node::Predicate(predicate) => Ok(predicate),
            Node::Expr(_) => Err(self.unexpected()),
        }
    }

    fn expr(&self, node: Node) -> Result<Expr> {
        match node {
            Node::Expr(expr) => Ok(expr),
            Node::Predicate(_) => Err(self.unexpected()),
        }
    }

    /// An operand, or what is said of one.
    fn comparison(&mut self) -> Result<Node> {
        if self.take("!") {
            let negated = match self.take_word("exists") {
                true => self.exists()?,
                false => {
                    self.expect("(")?;
                    let inner = self.either()?;
                    let inner = self.predicate(inner)?;
                    self.expect(")")?;
                    inner
                }
            };
            return Ok(Node::Predicate(Predicate::Not(Box::new(negated))));
        }
        if self.take_word("exists") {
            return self.exists().map(Node::Predicate);
        }
        let left = match self.operand()? {
            Node::Expr(left) => left,
            predicate => return Ok(predicate),
        };
        if let Some(comparison) = self.peek().and_then(comparison) {
            self.at += 1;
            let right = self.operand()?;
            let right = self.expr(right)?;
            return Ok(Node::Predicate(Predicate::Compare(comparison, left, right)));
        }
        if self.take_word("starts") {
            if !self.take_word("with") {
                return Err(self.unexpected());
            }
            let initial = match self.peek() {
                Some(Token::String(initial)) => Expr::Literal(quote_json(initial)),
                Some(Token::Variable(name)) => Expr::Variable(name.clone()),
                _ => return Err(self.unexpected()),
            };
            self.at += 1;
            return Ok(Node::Predicate(Predicate::StartsWith(left, initial)));
        }
        if self.take_word("like_regex") {
            let regex = self.regex()?;
            return Ok(Node::Predicate(Predicate::LikeRegex(left, regex)));
        }
        Ok(Node::Expr(left))
    }

    fn exists(&mut self) -> Result<Predicate> {
        self.expect("(")?;
        let inner = self.either()?;
        let inner = self.expr(inner)?;
        self.expect(")")?;
        Ok(Predicate::Exists(inner))
    }

    fn string(&mut self) -> Result<String> {
        let Some(Token::String(string)) = self.peek() else {
            return Err(self.unexpected());
        };
        let string = string.clone();
        self.at += 1;
        Ok(string)
    }

    fn regex(&mut self) -> Result<Regex> {
        let pattern = self.string()?;
        let flags = if self.take_word("flag") { self.string()? } else { String::new() };
        if let Some(unknown) = flags.chars().find(|flag| !"ismxq".contains(*flag)) {
            return Err(Error::new(SqlState::SyntaxError, "invalid input syntax for type jsonpath")
                .with_detail(format!("Unrecognized flag character \"{unknown}\" in LIKE_REGEX predicate.")));
        }
        let literal = flags.contains('q');
        if flags.contains('x') && !literal {
            let message = "XQuery \"x\" flag (expanded regular expressions) is not implemented";
            return Err(Error::unsupported(message));
        }
        let written = if literal { regex::escape(&pattern) } else { pattern };
        RegexBuilder::new(&written)
            .case_insensitive(flags.contains('i'))
            .dot_matches_new_line(flags.contains('s'))
            .multi_line(flags.contains('m'))
            .size_limit(MAX_EXPRESSION_BYTES)
            .build()
            .map_err(|problem| {
                let message = format!("invalid regular expression: {problem}");
                Error::new(SqlState::InvalidRegularExpression, message)
            })
    }

    /// A value and the steps from it; a predicate in parentheses without steps.
    fn operand(&mut self) -> Result<Node> {
        let first = if self.take("(") {
            let inner = self.either()?;
            self.expect(")")?;
            inner
        } else {
            Node::Expr(self.primary()?)
        };
        if matches!(first, Node::Predicate(_)) && self.take_word("is") {
            let inner = self.predicate(first)?;
            return match self.take_word("unknown") {
                true => Ok(Node::Predicate(Predicate::IsUnknown(Box::new(inner)))),
                false => Err(self.unexpected()),
            };
        }
        let mut steps = Vec::new();
        while let Some(step) = self.step()? {
            steps.push(step);
        }
        let operand = match first {
            first if steps.is_empty() => first,
            Node::Expr(expr) => Node::Expr(Expr::Steps(Box::new(expr), steps)),
            Node::Predicate(predicate) => {
                Node::Expr(Expr::Steps(Box::new(Expr::Predicate(Box::new(predicate))), steps))
            }
        };
        match self.peek() {
            Some(Token::Sign(sign @ ("+" | "-" | "*" | "/" | "%"))) if matches!(operand, Node::Expr(_)) => {
                Err(Error::unsupported(format!("\"{sign}\" in a jsonpath is not supported")))
            }
            _ => Ok(operand),
        }
    }

    fn primary(&mut self) -> Result<Expr> {
        let negative = self.take("-");
        if negative && !matches!(self.peek(), Some(Token::Number(_))) {
            return Err(Error::unsupported(
                "a sign before anything but a number is not supported in a jsonpath",
            ));
        }
        let Some(token) = self.peek() else {
            return Err(self.unexpected());
        };
        let expr = match token {
            Token::Number(digits) if negative => Expr::Literal(normalize_json(&format!("-{digits}"))?),
            Token::Number(digits) => Expr::Literal(normalize_json(digits)?),
            Token::String(string) => Expr::Literal(quote_json(string)),
            Token::Variable(name) => Expr::Variable(name.clone()),
            Token::Word(word) if matches!(word.as_str(), "true" | "false" | "null") => {
                Expr::Literal(word.clone())
            }
            Token::Word(word) if word.eq_ignore_ascii_case("last") => {
                if self.subscripts == 0 {
                    let message = "LAST is allowed only in array subscripts";
                    return Err(Error::new(SqlState::SyntaxError, message));
                }
                Expr::Last
            }
            Token::Sign("$") => Expr::Root,
            Token::Sign("@") => {
                if self.filters == 0 {
                    let message = "@ is not allowed in root expressions";
                    return Err(Error::new(SqlState::SyntaxError, message));
                }
                Expr::Current
            }
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(expr)
    }

    fn step(&mut self) -> Result<Option<Step>> {
        if self.take("?") {
            self.expect("(")?;
            self.filters += 1;
            let inner = self.either()?;
            self.filters -= 1;
            let inner = self.predicate(inner)?;
            self.expect(")")?;
            return Ok(Some(Step::Filter(inner)));
        }
        if self.take("[") {
            if self.take("*") {
                self.expect("]")?;
                return Ok(Some(Step::AnyElement));
            }
            self.subscripts += 1;
            let subscripts = self.subscripts()?;
            self.subscripts -= 1;
            return Ok(Some(Step::Subscripts(subscripts)));
        }
        if !self.take(".") {
            return Ok(None);
        }
        if self.take("*") {
            return Ok(Some(Step::AnyMember));
        }
        if self.take("**") {
            return Err(Error::unsupported("\".**\" in a jsonpath is not supported"));
        }
        let key = match self.peek() {
            Some(Token::String(key)) => {
                let step = Step::Member(key.clone());
                self.at += 1;
                return Ok(Some(step));
            }
            Some(Token::Word(key)) => key.clone(),
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        if !self.take("(") {
            return Ok(Some(Step::Member(key)));
        }
        let step = match key.to_lowercase().as_str() {
            "size" => Step::Size,
            "type" => Step::Type,
            "abs" | "ceiling" | "datetime" | "double" | "floor" | "keyvalue" => {
                return Err(Error::unsupported(format!("\".{key}()\" in a jsonpath is not supported")));
            }
            _ => {
                self.at -= 1;
                return Err(self.unexpected());
            }
        };
        self.expect(")")?;
        Ok(Some(step))
    }

    fn subscripts(&mut self) -> Result<Vec<(Expr, Option<Expr>)>> {
        let mut subscripts = Vec::new();
        loop {
            let first = self.operand()?;
            let first = self.expr(first)?;
            let last = match self.take_word("to") {
                true => {
                    let last = self.operand()?;
                    Some(self.expr(last)?)
                }
                false => None,
            };
            subscripts.push((first, last));
            if self.take("]") {
                return Ok(subscripts);
            }
            self.expect(",")?;
        }
    }
}

fn comparison(token: &Token) -> Option<Comparison> {
    match token {
        Token::Sign("==") => Some(Comparison::Equal),
        Token::Sign("!=" | "<>") => Some(Comparison::NotEqual),
        Token::Sign("<") => Some(Comparison::Less),
        Token::Sign("<=") => Some(Comparison::LessOrEqual),
        Token::Sign(">") => Some(Comparison::Greater),
        Token::Sign(">=") => Some(Comparison::GreaterOrEqual),
        _ => None,
    }
}
