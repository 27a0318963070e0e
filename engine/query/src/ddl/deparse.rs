//! Expressions of indexes as Postgres prints them: `lower((code)::text)`, `((n > 5) AND (name IS NOT NULL))`.
//!
//! Called by CREATE INDEX, which stores the text for the catalogs (`ruleutils.c` is the source of the form). Tools
//! compare it with what they would create. Nothing is evaluated from it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{
        self, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator,
        Value,
    },
    dialect::PostgreSqlDialect,
    tokenizer::{Token, Tokenizer},
};
use sepal_types::{Error, Result, SqlState, SqlType, TableDef};

use super::{create_table::column_type, names::identifier, table_name};
use crate::{
    catalog::{quote_ident, quote_literal},
    functions::text_search_result,
};

/// An expression's text, and its type where that is known: `Unknown` is a string literal's.
pub struct Printed {
    pub text: String,
    pub ty: Option<SqlType>,
}

impl Printed {
    fn new(text: impl Into<String>, ty: impl Into<Option<SqlType>>) -> Self {
        Self { text: text.into(), ty: ty.into() }
    }

    fn is_literal(&self) -> bool {
        self.ty == Some(SqlType::Unknown)
    }

    /// The operand where one of `ty` is wanted: a literal says which type it takes, Postgres compares `varchar` as
    /// `text`, and a number beside one of a wider kind as one of that.
    fn wanted_as(self, ty: Option<&SqlType>) -> String {
        match (&self.ty, ty) {
            (Some(SqlType::Unknown), Some(SqlType::Varchar(_) | SqlType::Unknown) | None) => {
                format!("{}::text", self.text)
            }
            (Some(SqlType::Unknown), Some(ty)) => format!("{}::{}", self.text, bare_name(ty)),
            (Some(SqlType::Varchar(_)), _) => format!("({})::text", self.text),
            (Some(SqlType::Int2 | SqlType::Int4 | SqlType::Int8), Some(SqlType::Numeric(_))) => {
                format!("({})::numeric", self.text)
            }
            (
                Some(SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Numeric(_)),
                Some(SqlType::Float4 | SqlType::Float8),
            ) => format!("({})::double precision", self.text),
            _ => self.text,
        }
    }
}

/// An index's expression or condition. Errors: 42703 for a name that is no column of the table.
pub fn print(def: &TableDef, expr: &Expr) -> Result<Printed> {
    let unknown = ast::visit_expressions(expr, |inner| match column_name(inner) {
        Some(name) if def.column(&name).is_none() => ControlFlow::Break(name),
        _ => ControlFlow::Continue(()),
    });
    match unknown {
        ControlFlow::Break(name) => {
            Err(Error::new(SqlState::UndefinedColumn, format!("column \"{name}\" does not exist")))
        }
        ControlFlow::Continue(()) => Ok(Printer(def).expr(expr)),
    }
}

/// Without length or precision: `character varying`.
pub fn bare_name(ty: &SqlType) -> String {
    let name = ty.display_name();
    name.split('(').next().unwrap_or(&name).to_owned()
}

/// The column that an expression names, folded.
fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(identifier(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(identifier),
        _ => None,
    }
}

struct Printer<'a>(&'a TableDef);

impl Printer<'_> {
    fn expr(&self, expr: &Expr) -> Printed {
        match expr {
            Expr::Nested(inner) => self.expr(inner),
            Expr::Value(value) => literal(&value.value),
            Expr::Cast { expr, data_type, .. } => self.cast(expr, data_type),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                Printed::new(format!("(NOT {})", self.expr(expr).text), SqlType::Bool)
            }
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
                let inner = self.expr(expr);
                match expr.as_ref() {
                    Expr::Value(_) => {
                        let ty = inner.ty.as_ref().map_or_else(|| "integer".to_owned(), bare_name);
                        Printed::new(format!("'-{}'::{ty}", inner.text), inner.ty)
                    }
                    _ => Printed::new(format!("(- {})", inner.text), inner.ty),
                }
            }
            Expr::IsNull(inner) => self.is(inner, "NULL"),
            Expr::IsNotNull(inner) => self.is(inner, "NOT NULL"),
            Expr::IsTrue(inner) => self.is(inner, "TRUE"),
            Expr::IsNotTrue(inner) => self.is(inner, "NOT TRUE"),
            Expr::IsFalse(inner) => self.is(inner, "FALSE"),
            Expr::IsNotFalse(inner) => self.is(inner, "NOT FALSE"),
            Expr::Like { negated, expr, pattern, escape_char: None, .. } => {
                self.compared(expr, if *negated { "!~~" } else { "~~" }, pattern)
            }
            Expr::ILike { negated, expr, pattern, escape_char: None, .. } => {
                self.compared(expr, if *negated { "!~~*" } else { "~~*" }, pattern)
            }
            Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Expr::Between { expr, negated: false, low, high } => {
                let (low, high) = (self.compared(expr, ">=", low), self.compared(expr, "<=", high));
                Printed::new(format!("({} AND {})", low.text, high.text), SqlType::Bool)
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                let (moment, zone) = (self.expr(timestamp), self.expr(time_zone).wanted_as(None));
                let ty = match moment.ty {
                    Some(SqlType::Timestamptz) => Some(SqlType::Timestamp),
                    _ => Some(SqlType::Timestamptz),
                };
                Printed::new(format!("({} AT TIME ZONE {zone})", moment.text), ty)
            }
            Expr::Function(function) => self.call(function),
            other => match column_name(other).and_then(|name| self.0.column(&name)) {
                Some(column) => Printed::new(quote_ident(&column.name), column.ty.clone()),
                None => Printed::new(format!("({other})"), None),
            },
        }
    }

    fn cast(&self, inner: &Expr, data_type: &ast::DataType) -> Printed {
        let inner = self.expr(inner);
        let ty = column_type(data_type).ok().map(|(ty, _)| ty);
        let written = || match data_type.to_string() {
            quoted if quoted.contains('"') => quoted,
            bare => bare.to_lowercase(),
        };
        let name = ty.as_ref().map_or_else(written, SqlType::display_name);
        match inner.is_literal() {
            true => Printed::new(format!("{}::{name}", inner.text), ty),
            false => Printed::new(format!("({})::{name}", inner.text), ty),
        }
    }

    fn is(&self, inner: &Expr, what: &str) -> Printed {
        Printed::new(format!("({} IS {what})", self.expr(inner).text), SqlType::Bool)
    }

    fn compared(&self, left: &Expr, operator: &str, right: &Expr) -> Printed {
        let (left, right) = (self.expr(left), self.expr(right));
        let (of_left, of_right) = (left.ty.clone(), right.ty.clone());
        let (left, right) = (left.wanted_as(of_right.as_ref()), right.wanted_as(of_left.as_ref()));
        Printed::new(format!("({left} {operator} {right})"), SqlType::Bool)
    }

    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Printed {
        use BinaryOperator as B;
        match op {
            B::And | B::Or => {
                let mut terms = Vec::new();
                self.terms(left, op, &mut terms);
                self.terms(right, op, &mut terms);
                Printed::new(format!("({})", terms.join(&format!(" {op} "))), SqlType::Bool)
            }
            B::Arrow | B::LongArrow | B::HashArrow | B::HashLongArrow => {
                let ty = match op {
                    B::LongArrow | B::HashLongArrow => Some(SqlType::Text),
                    _ => self.expr(left).ty,
                };
                let key = match op {
                    B::HashArrow | B::HashLongArrow => SqlType::Array(Box::new(SqlType::Text)),
                    _ => SqlType::Text,
                };
                let (left, right) = (self.expr(left).text, self.expr(right).wanted_as(Some(&key)));
                Printed::new(format!("({left} {op} {right})"), ty)
            }
            B::StringConcat => {
                let text = self.compared(left, "||", right).text;
                Printed::new(text, SqlType::Text)
            }
            B::Plus | B::Minus | B::Multiply | B::Divide | B::Modulo => {
                let ty = wider(self.expr(left).ty, self.expr(right).ty);
                Printed::new(self.compared(left, &op.to_string(), right).text, ty)
            }
            B::NotEq => self.compared(left, "<>", right),
            _ => self.compared(left, &op.to_string(), right),
        }
    }

    /// `a AND b AND c` is one list in Postgres.
    fn terms(&self, expr: &Expr, op: &BinaryOperator, terms: &mut Vec<String>) {
        match expr {
            Expr::Nested(inner) => self.terms(inner, op, terms),
            Expr::BinaryOp { left, op: inner, right } if inner == op => {
                self.terms(left, op, terms);
                self.terms(right, op, terms);
            }
            other => terms.push(self.expr(other).text),
        }
    }

    fn in_list(&self, expr: &Expr, list: &[Expr], negated: bool) -> Printed {
        let (operator, quantifier) = if negated { ("<>", "ALL") } else { ("=", "ANY") };
        if let [one] = list {
            return self.compared(expr, operator, one);
        }
        let value = self.expr(expr);
        let element = |item: &Expr| {
            let item = self.expr(item);
            match (&value.ty, item.is_literal()) {
                (Some(ty @ SqlType::Varchar(_)), true) => format!("{}::{}", item.text, bare_name(ty)),
                (ty, _) => item.wanted_as(ty.as_ref()),
            }
        };
        let elements: Vec<String> = list.iter().map(element).collect();
        let array = format!("ARRAY[{}]", elements.join(", "));
        let array = match &value.ty {
            Some(SqlType::Varchar(_)) => format!("({array})::text[]"),
            _ => array,
        };
        let text = format!("({} {operator} {quantifier} ({array}))", value.wanted_as(None));
        Printed::new(text, SqlType::Bool)
    }

    fn call(&self, function: &Function) -> Printed {
        let name = table_name(&function.name);
        let arguments: Vec<Printed> = match &function.args {
            FunctionArguments::List(list) => {
                list.args.iter().map(|argument| self.argument(argument)).collect()
            }
            _ => return Printed::new(name.to_uppercase(), None),
        };
        let types: Vec<Option<SqlType>> = arguments.iter().map(|argument| argument.ty.clone()).collect();
        let first = types.iter().flatten().find(|ty| **ty != SqlType::Unknown).cloned();
        let ty = result_type(&name, &types, first.as_ref());
        let coalesce = matches!(name.as_str(), "coalesce" | "greatest" | "least" | "nullif");
        let common = first.as_ref().map_or_else(|| "text".to_owned(), bare_name);
        let configured = arguments.len() == 2 && (name.starts_with("to_ts") || name.ends_with("to_tsquery"));
        let shown = |(place, argument): (usize, Printed)| match (&argument.ty, coalesce) {
            (Some(SqlType::Unknown), false) if configured && place == 0 => {
                format!("{}::regconfig", argument.text)
            }
            (Some(SqlType::Bpchar(_)), false) => format!("({})::text", argument.text),
            (Some(SqlType::Unknown), true) => format!("{}::{common}", argument.text),
            (_, true) => argument.text,
            (_, false) => argument.wanted_as(None),
        };
        let arguments: Vec<String> = arguments.into_iter().enumerate().map(shown).collect();
        let name = if coalesce { name.to_uppercase() } else { quote_ident(&name) };
        Printed::new(format!("{name}({})", arguments.join(", ")), ty)
    }

    fn argument(&self, argument: &FunctionArg) -> Printed {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.expr(expr),
            other => Printed::new(other.to_string(), None),
        }
    }
}

fn literal(value: &Value) -> Printed {
    match value {
        Value::Number(text, _) if text.contains(['.', 'e', 'E']) => {
            Printed::new(text.clone(), SqlType::Numeric(None))
        }
        Value::Number(text, _) if text.parse::<i32>().is_ok() => Printed::new(text.clone(), SqlType::Int4),
        Value::Number(text, _) => Printed::new(format!("'{text}'::bigint"), SqlType::Int8),
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
            Printed::new(quote_literal(text), SqlType::Unknown)
        }
        Value::Boolean(flag) => Printed::new(flag.to_string(), SqlType::Bool),
        other => Printed::new(other.to_string(), None),
    }
}

/// Whether a text that [`print`] made names the column.
pub fn mentions(text: &str, column: &str) -> bool {
    tokens(text).is_some_and(|tokens| (0..tokens.len()).any(|at| names_column(&tokens, at, column)))
}

/// The text with another name for a column.
pub fn renamed(text: &str, from: &str, to: &str) -> String {
    let Some(tokens) = tokens(text) else { return text.to_owned() };
    let shown = |(at, token): (usize, &Token)| match names_column(&tokens, at, from) {
        true => quote_ident(to),
        false => token.to_string(),
    };
    tokens.iter().enumerate().map(shown).collect()
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    Tokenizer::new(&PostgreSqlDialect {}, text).with_unescape(false).tokenize().ok()
}

/// Keywords are printed in capitals, and names of types follow `::` or a word of theirs.
fn names_column(tokens: &[Token], at: usize, column: &str) -> bool {
    let Token::Word(word) = &tokens[at] else { return false };
    if word.value != column || (word.quote_style.is_none() && quote_ident(column) != column) {
        return false;
    }
    let mut before = tokens[..at].iter().rev().filter(|token| !matches!(token, Token::Whitespace(_)));
    let in_type = match before.next() {
        Some(Token::DoubleColon) => true,
        Some(Token::Word(word)) => word.value.chars().all(|c| c.is_ascii_lowercase()),
        _ => false,
    };
    !in_type && tokens.get(at + 1) != Some(&Token::LParen)
}

/// Of numbers that are added.
fn wider(left: Option<SqlType>, right: Option<SqlType>) -> Option<SqlType> {
    const ORDER: [SqlType; 6] = [
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Numeric(None),
        SqlType::Float4,
        SqlType::Float8,
    ];
    let place = |ty: Option<SqlType>| {
        let ty = match ty? {
            SqlType::Numeric(_) => SqlType::Numeric(None),
            other => other,
        };
        ORDER.iter().position(|known| *known == ty)
    };
    match (place(left.clone()), place(right)) {
        (Some(left), Some(right)) => ORDER.get(left.max(right)).cloned(),
        _ => left,
    }
}

/// Of the functions that indexes are made over; text for the others.
fn result_type(name: &str, arguments: &[Option<SqlType>], first: Option<&SqlType>) -> Option<SqlType> {
    match name {
        "length" | "char_length" | "character_length" | "octet_length" | "array_length" | "cardinality"
        | "jsonb_array_length" | "position" | "strpos" | "ascii" => Some(SqlType::Int4),
        "coalesce" | "greatest" | "least" | "nullif" | "abs" => first.cloned(),
        "date_trunc" => arguments.get(1).cloned().flatten(),
        "starts_with" => Some(SqlType::Bool),
        other => text_search_result(other).or(Some(SqlType::Text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_renamed_where_its_name_stands_for_it() {
        let text = "(((zone)::timestamp without time zone AT TIME ZONE 'zone'::text) > zone(zone))";
        assert!(mentions(text, "zone"));
        assert!(!mentions(text, "time"));
        let expected = "(((\"Z\")::timestamp without time zone AT TIME ZONE 'zone'::text) > zone(\"Z\"))";
        assert_eq!(renamed(text, "zone", "Z"), expected);
        assert_eq!(renamed(expected, "Z", "at"), text.replace("(zone)", "(at)"));
        assert_eq!(renamed("(a = 'it''s'::text)", "a", "b"), "(b = 'it''s'::text)");
    }
}
