//! `tsquery`: lexemes with operators between them.
//!
//! Kept in the order in which it is evaluated, operands before their operator, so that nothing here recurses: a query
//! of a whole document's words is as deep as it is long. PostgreSQL has the same items in the opposite order.

use bytes::{BufMut, BytesMut};
use sepal_types::{Error, Result, SqlState};

use super::{
    lexemes::quote,
    scan::{Ends, Malformed, is_operator, is_space, word},
    vector::{LONGEST_LEXEME, no_escaped},
};
use crate::values::binary_in::{Reader, incorrect};

/// The greatest distance of a phrase (`MAXENTRYPOS`).
const MOST_DISTANCE: i64 = 16_384;

/// A lexeme that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operand {
    pub text: String,
    pub is_prefix: bool,
    /// Those that count, a bit for each: D is 1, A is 8. None stands for all.
    pub weights: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Word(Operand),
    /// A stop word, which is taken out before the query is there.
    Stop,
    Not,
    And,
    Or,
    /// So many places apart.
    Phrase(u16),
}

/// A query; without items it finds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TsQuery {
    /// Operands before their operator.
    pub items: Vec<Item>,
}

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Operators between words.
    Standard,
    /// Words, quoted phrases, `or` and `-`: nothing is an error.
    Web,
}

/// What becomes of a word of the text: items that leave one operand, from the word, its weights and whether it is a
/// prefix.
pub(crate) type WordAs<'a> = dyn FnMut(&mut Vec<Item>, &str, u8, bool) -> Result<()> + 'a;

/// What waits for its right operand.
enum Pending {
    Open,
    Operator(Item),
}

impl Item {
    /// How tightly it binds.
    const fn priority(&self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Phrase(_) => 3,
            Self::Not => 4,
            Self::Word(_) | Self::Stop => 5,
        }
    }
}

impl TsQuery {
    /// Reads what people write, word for word. Errors: 42601, 22023, 54000.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::read(text, Syntax::Standard, &mut |items, word, weights, is_prefix| {
            items.push(Item::Word(Operand { text: word.to_owned(), is_prefix, weights }));
            Ok(())
        })
    }

    /// Reads a text whose words become what `word_as` makes of them. Errors: 42601, 22023, 54000.
    pub(crate) fn read(text: &str, syntax: Syntax, word_as: &mut WordAs<'_>) -> Result<Self> {
        let reading = Reading { whole: text, rest: text, items: Vec::new(), pending: Vec::new(), open: 0 };
        match syntax {
            Syntax::Standard => reading.standard(word_as),
            Syntax::Web => reading.web(word_as),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn write(&self, out: &mut String) {
        // What has been written of the operands, and the operator that it is.
        let mut written: Vec<(String, &Item)> = Vec::new();
        for item in &self.items {
            let priority = item.priority();
            let text = match item {
                Item::Stop => continue,
                Item::Word(operand) => written_operand(operand),
                Item::Not => {
                    let Some((operand, of)) = written.pop() else { return };
                    format!("!{}", in_parentheses(operand, of.priority() < priority))
                }
                Item::And | Item::Or | Item::Phrase(_) => {
                    let (Some((right, of_right)), Some((left, of_left))) = (written.pop(), written.pop())
                    else {
                        return;
                    };
                    // A phrase on the right is another one than on the left.
                    let ordered = matches!((item, of_right), (Item::Phrase(_), Item::Phrase(_)));
                    let mut text = in_parentheses(left, of_left.priority() < priority);
                    match item {
                        Item::And => text.push_str(" & "),
                        Item::Or => text.push_str(" | "),
                        Item::Phrase(1) => text.push_str(" <-> "),
                        Item::Phrase(distance) => text.push_str(&format!(" <{distance}> ")),
                        _ => {}
                    }
                    text.push_str(&in_parentheses(right, ordered || of_right.priority() < priority));
                    text
                }
            };
            written.push((text, item));
        }
        if let Some((text, _)) = written.pop() {
            out.push_str(&text);
        }
    }

    /// Errors: 22P03, 22021.
    pub(crate) fn from_binary(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let count = reader.i32()?;
        if !(0..=i32::MAX / 16).contains(&count) {
            let message = "invalid size of tsquery";
            return Err(Error::new(SqlState::InvalidBinaryRepresentation, message));
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(match reader.u8()? {
                1 => {
                    let (weights, is_prefix) = (reader.u8()?, reader.u8()? != 0);
                    let text = reader.c_string()?.to_owned();
                    if weights > 15 || text.is_empty() || text.len() > LONGEST_LEXEME {
                        return Err(incorrect());
                    }
                    Item::Word(Operand { text, is_prefix, weights })
                }
                2 => match reader.u8()? {
                    1 => Item::Not,
                    2 => Item::And,
                    3 => Item::Or,
                    4 => Item::Phrase(distance(reader.u16()?.into())?),
                    _ => return Err(incorrect()),
                },
                _ => return Err(incorrect()),
            });
        }
        reader.end()?;
        items.reverse();
        let query = Self { items };
        if query.is_whole() { Ok(query) } else { Err(incorrect()) }
    }

    pub(crate) fn write_binary(&self, out: &mut BytesMut) {
        out.put_i32(i32::try_from(self.items.len()).unwrap_or(i32::MAX));
        for item in self.items.iter().rev() {
            match item {
                Item::Word(operand) => {
                    out.put_u8(1);
                    out.put_u8(operand.weights);
                    out.put_u8(operand.is_prefix.into());
                    out.extend_from_slice(operand.text.as_bytes());
                    out.put_u8(0);
                }
                Item::Not => out.extend_from_slice(&[2, 1]),
                Item::And => out.extend_from_slice(&[2, 2]),
                Item::Or => out.extend_from_slice(&[2, 3]),
                Item::Phrase(distance) => {
                    out.extend_from_slice(&[2, 4]);
                    out.put_u16(*distance);
                }
                Item::Stop => {}
            }
        }
    }

    /// Whether every operator has its operands, and nothing is left over.
    fn is_whole(&self) -> bool {
        let mut operands = 0_usize;
        for item in &self.items {
            let wanted = match item {
                Item::Word(_) | Item::Stop => 0,
                Item::Not => 1,
                Item::And | Item::Or | Item::Phrase(_) => 2,
            };
            if operands < wanted {
                return false;
            }
            operands = operands - wanted + 1;
        }
        operands == usize::from(!self.items.is_empty())
    }
}

fn written_operand(operand: &Operand) -> String {
    let mut text = String::with_capacity(operand.text.len() + 2);
    quote(&operand.text, &mut text);
    if operand.is_prefix || operand.weights != 0 {
        text.push(':');
    }
    if operand.is_prefix {
        text.push('*');
    }
    for (bit, letter) in [(8, 'A'), (4, 'B'), (2, 'C'), (1, 'D')] {
        if operand.weights & bit != 0 {
            text.push(letter);
        }
    }
    text
}

fn in_parentheses(text: String, wanted: bool) -> String {
    if wanted { format!("( {text} )") } else { text }
}

/// A text on its way to a query.
struct Reading<'a> {
    whole: &'a str,
    rest: &'a str,
    items: Vec<Item>,
    pending: Vec<Pending>,
    /// Parentheses.
    open: usize,
}

impl Reading<'_> {
    fn standard(mut self, word_as: &mut WordAs<'_>) -> Result<TsQuery> {
        let mut is_first = true;
        'operands: loop {
            self.rest = self.rest.trim_start_matches(is_space);
            match self.rest.chars().next() {
                None if is_first => return Ok(TsQuery::default()),
                None => {
                    let message = format!("no operand in tsquery: \"{}\"", self.whole);
                    return Err(Error::new(SqlState::SyntaxError, message));
                }
                Some('!') => {
                    self.rest = &self.rest[1..];
                    self.operator(Item::Not);
                }
                Some('(') => {
                    self.rest = &self.rest[1..];
                    self.pending.push(Pending::Open);
                    self.open += 1;
                }
                Some(':') => return Err(self.syntax()),
                Some(_) => {
                    let Some(word) = self.word(Ends::Operators)? else { return Err(self.syntax()) };
                    let (weights, is_prefix) = self.weights();
                    self.push(&word, weights, is_prefix, word_as)?;
                    loop {
                        match self.infix()? {
                            Infix::Close => self.close(),
                            Infix::Operator(operator) => {
                                self.operator(operator);
                                is_first = false;
                                continue 'operands;
                            }
                            Infix::End => return Ok(self.end()),
                        }
                    }
                }
            }
            is_first = false;
        }
    }

    fn web(mut self, word_as: &mut WordAs<'_>) -> Result<TsQuery> {
        let mut is_first = true;
        loop {
            // An operand.
            match self.rest.chars().next() {
                None if is_first => return Ok(TsQuery::default()),
                // There has to be one after an operator.
                None => {
                    self.items.push(Item::Stop);
                    return Ok(self.end());
                }
                Some('-') => {
                    self.rest = &self.rest[1..];
                    self.operator(Item::Not);
                    is_first = false;
                    continue;
                }
                Some('"') => {
                    let quoted = &self.rest[1..];
                    let length = quoted.find('"').unwrap_or(quoted.len());
                    self.rest = quoted.get(length + 1..).unwrap_or_default();
                    self.push(&quoted[..length], 0, false, word_as)?;
                }
                Some(c) if is_operator(c) => {
                    self.rest = &self.rest[1..];
                    is_first = false;
                    continue;
                }
                Some(c) if is_space(c) => {
                    self.rest = &self.rest[1..];
                    continue;
                }
                Some(_) => {
                    let Some(word) = self.word(Ends::Web)? else { return Err(self.syntax()) };
                    self.push(&word, 0, false, word_as)?;
                }
            }
            is_first = false;
            // An operator.
            self.rest = self.rest.trim_start_matches(is_space);
            if self.rest.is_empty() {
                return Ok(self.end());
            }
            let or = after_or(self.rest);
            self.rest = or.unwrap_or(self.rest);
            self.operator(if or.is_some() { Item::Or } else { Item::And });
        }
    }

    fn syntax(&self) -> Error {
        Error::new(SqlState::SyntaxError, format!("syntax error in tsquery: \"{}\"", self.whole))
    }

    fn word(&mut self, ends: Ends) -> Result<Option<String>> {
        word(&mut self.rest, ends).map_err(|malformed| match malformed {
            Malformed::NothingEscaped => no_escaped(self.whole),
            Malformed::Syntax => self.syntax(),
        })
    }

    fn push(&mut self, word: &str, weights: u8, is_prefix: bool, word_as: &mut WordAs<'_>) -> Result<()> {
        let before = self.items.len();
        word_as(&mut self.items, word, weights, is_prefix)?;
        let too_long =
            |item: &Item| matches!(item, Item::Word(operand) if operand.text.len() > LONGEST_LEXEME);
        if self.items[before..].iter().any(too_long) {
            let message = format!("word is too long in tsquery: \"{}\"", self.whole);
            return Err(Error::new(SqlState::ProgramLimitExceeded, message));
        }
        Ok(())
    }

    /// `:*AB` after a word.
    fn weights(&mut self) -> (u8, bool) {
        let (mut weights, mut is_prefix) = (0, false);
        let Some(after) = self.rest.strip_prefix(':') else { return (weights, is_prefix) };
        self.rest = after;
        while let Some(c) = self.rest.chars().next() {
            match c {
                'a' | 'A' => weights |= 8,
                'b' | 'B' => weights |= 4,
                'c' | 'C' => weights |= 2,
                'd' | 'D' => weights |= 1,
                '*' => is_prefix = true,
                _ => break,
            }
            self.rest = &self.rest[1..];
        }
        (weights, is_prefix)
    }

    fn infix(&mut self) -> Result<Infix> {
        self.rest = self.rest.trim_start_matches(is_space);
        let infix = match self.rest.chars().next() {
            None if self.open > 0 => return Err(self.syntax()),
            None => return Ok(Infix::End),
            Some('&') => Infix::Operator(Item::And),
            Some('|') => Infix::Operator(Item::Or),
            Some(')') if self.open > 0 => Infix::Close,
            Some('<') => {
                let end = self.rest.find('>').ok_or_else(|| self.syntax())?;
                let distance = match &self.rest[1..end] {
                    "-" => 1,
                    digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                        distance(digits.parse().unwrap_or(i64::MAX))?
                    }
                    _ => return Err(self.syntax()),
                };
                self.rest = &self.rest[end + 1..];
                return Ok(Infix::Operator(Item::Phrase(distance)));
            }
            Some(_) => return Err(self.syntax()),
        };
        self.rest = &self.rest[1..];
        Ok(infix)
    }

    /// Takes an operator; those before it that bind at least as tightly have their operands now.
    fn operator(&mut self, operator: Item) {
        // NOT stands before its operand.
        if operator != Item::Not {
            self.settle(operator.priority());
        }
        self.pending.push(Pending::Operator(operator));
    }

    fn settle(&mut self, priority: u8) {
        while let Some(Pending::Operator(operator)) = self
            .pending
            .pop_if(|pending| matches!(pending, Pending::Operator(of) if of.priority() >= priority))
        {
            self.items.push(operator);
        }
    }

    fn close(&mut self) {
        self.settle(0);
        self.pending.pop();
        self.open = self.open.saturating_sub(1);
    }

    fn end(mut self) -> TsQuery {
        self.settle(0);
        TsQuery { items: self.items }
    }
}

/// What stands after an operand.
enum Infix {
    Close,
    End,
    Operator(Item),
}

/// What follows `or` between two operands, if that is what it is.
fn after_or(text: &str) -> Option<&str> {
    let word = text.get(..2).filter(|word| word.eq_ignore_ascii_case("or"))?;
    let rest = &text[word.len()..];
    let next = rest.chars().next()?;
    if matches!(next, '-' | '_') || next.is_alphanumeric() {
        return None;
    }
    let behind = rest[next.len_utf8()..].trim_start_matches(is_space);
    (!behind.is_empty()).then_some(behind)
}

/// Errors: 22023.
pub(crate) fn distance(places: i64) -> Result<u16> {
    u16::try_from(places).ok().filter(|_| (0..=MOST_DISTANCE).contains(&places)).ok_or_else(|| {
        let message = format!(
            "distance in phrase operator must be an integer value between zero and {MOST_DISTANCE} inclusive"
        );
        Error::new(SqlState::InvalidParameterValue, message)
    })
}
