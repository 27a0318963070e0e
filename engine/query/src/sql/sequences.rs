//! CREATE SEQUENCE, ALTER SEQUENCE, and what ALTER TABLE says of an identity column; also DROP EXPRESSION.
//!
//! sqlparser reads options in one order only and knows nothing of ALTER SEQUENCE; `pg_dump` writes them in another.
//! Recognised and parsed on the tokens; `ddl::sequence` plans them.

use datafusion::sql::sqlparser::{
    ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Value},
    tokenizer::{Token, TokenWithSpan},
};
use sepal_types::{Error, Result, SqlState};

use super::{delivery::cursor::Cursor, tokens};

/// A statement of this family.
#[derive(Clone, Debug)]
pub enum SequenceStatement {
    Create { name: ObjectName, if_not_exists: bool, temporary: bool, options: Vec<SequenceOption> },
    Alter { name: ObjectName, if_exists: bool, change: SequenceChange },
    AlterColumn { table: ObjectName, if_exists: bool, column: String, change: IdentityChange },
}

impl SequenceStatement {
    /// The command tag.
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE SEQUENCE",
            Self::Alter { .. } => "ALTER SEQUENCE",
            Self::AlterColumn { .. } => "ALTER TABLE",
        }
    }
}

/// What ALTER SEQUENCE does.
#[derive(Clone, Debug)]
pub enum SequenceChange {
    Options(Vec<SequenceOption>),
    Rename(String),
    /// OWNER TO, SET LOGGED, SET UNLOGGED
    Nothing,
    SetSchema(String),
}

/// What ALTER COLUMN does to an identity column, or a generated one.
#[derive(Clone, Debug)]
pub enum IdentityChange {
    Add {
        always: bool,
        options: Vec<SequenceOption>,
    },
    Drop {
        if_exists: bool,
    },
    /// SET GENERATED, where that is said, and options.
    Set {
        always: Option<bool>,
        options: Vec<SequenceOption>,
    },
    /// Of a generated column.
    DropExpression {
        if_exists: bool,
    },
}

/// One option, as PostgreSQL's `SeqOptElem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceOption {
    /// The name of a type.
    As(String),
    Cache(i64),
    Cycle(bool),
    Increment(i64),
    /// `None`: NO MAXVALUE.
    MaxValue(Option<i64>),
    MinValue(Option<i64>),
    /// The parts of a name; `None`: NONE.
    OwnedBy(Option<Vec<String>>),
    /// `None`: where the sequence starts.
    Restart(Option<i64>),
    SequenceName(ObjectName),
    Start(i64),
}

/// `None` for any other statement. `words` are the first ones, upper-case.
///
/// Errors: 42601 with the position.
pub(super) fn parse(
    sql: &str,
    words: &[String],
    tokens: &[TokenWithSpan],
) -> Result<Option<SequenceStatement>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut cursor = Cursor::new(sql, tokens);
    match words.as_slice() {
        ["CREATE", "SEQUENCE", ..] | ["CREATE", "TEMP" | "TEMPORARY" | "UNLOGGED", "SEQUENCE", ..] => {
            create(&mut cursor).map(Some)
        }
        ["ALTER", "SEQUENCE", ..] => alter(&mut cursor).map(Some),
        ["ALTER", "TABLE", ..] => alter_column(&mut cursor),
        _ => Ok(None),
    }
}

fn create(cursor: &mut Cursor<'_>) -> Result<SequenceStatement> {
    cursor.expect("CREATE")?;
    cursor.eat("UNLOGGED");
    let temporary = cursor.eat("TEMP") || cursor.eat("TEMPORARY");
    cursor.expect("SEQUENCE")?;
    let if_not_exists = cursor.eat_all(&["IF", "NOT", "EXISTS"]);
    let name = object(cursor)?;
    let options = options(cursor)?;
    cursor.expect_end()?;
    Ok(SequenceStatement::Create { name, if_not_exists, temporary, options })
}

fn alter(cursor: &mut Cursor<'_>) -> Result<SequenceStatement> {
    cursor.eat_all(&["ALTER", "SEQUENCE"]);
    let if_exists = cursor.eat_all(&["IF", "EXISTS"]);
    let name = object(cursor)?;
    let change = if cursor.eat_all(&["RENAME", "TO"]) {
        SequenceChange::Rename(cursor.name()?)
    } else if cursor.eat_all(&["OWNER", "TO"]) {
        cursor.name()?;
        SequenceChange::Nothing
    } else if cursor.eat_all(&["SET", "LOGGED"]) || cursor.eat_all(&["SET", "UNLOGGED"]) {
        SequenceChange::Nothing
    } else if cursor.eat_all(&["SET", "SCHEMA"]) {
        SequenceChange::SetSchema(cursor.name()?)
    } else {
        let options = options(cursor)?;
        if options.is_empty() {
            return Err(cursor.unexpected());
        }
        SequenceChange::Options(options)
    };
    cursor.expect_end()?;
    Ok(SequenceStatement::Alter { name, if_exists, change })
}

/// `ALTER TABLE t ALTER c …` where that is about an identity, and nothing else is.
fn alter_column(cursor: &mut Cursor<'_>) -> Result<Option<SequenceStatement>> {
    cursor.eat_all(&["ALTER", "TABLE"]);
    let if_exists = cursor.eat_all(&["IF", "EXISTS"]);
    cursor.eat("ONLY");
    let Ok(table) = object(cursor) else { return Ok(None) };
    if !cursor.eat("ALTER") {
        return Ok(None);
    }
    cursor.eat("COLUMN");
    let Ok(column) = cursor.name() else { return Ok(None) };
    let Some(change) = identity_change(cursor)? else { return Ok(None) };
    if cursor.peek() == Some(&Token::Comma) {
        return Err(cursor.here(
            Error::unsupported("a change of an identity or an expression beside others is not supported")
                .with_hint("Write an ALTER TABLE of its own for it."),
        ));
    }
    cursor.expect_end()?;
    Ok(Some(SequenceStatement::AlterColumn { table, if_exists, column, change }))
}

fn identity_change(cursor: &mut Cursor<'_>) -> Result<Option<IdentityChange>> {
    if cursor.eat_all(&["DROP", "IDENTITY"]) {
        return Ok(Some(IdentityChange::Drop { if_exists: cursor.eat_all(&["IF", "EXISTS"]) }));
    }
    if cursor.eat_all(&["DROP", "EXPRESSION"]) {
        return Ok(Some(IdentityChange::DropExpression { if_exists: cursor.eat_all(&["IF", "EXISTS"]) }));
    }
    if cursor.eat_all(&["ADD", "GENERATED"]) {
        let always = always(cursor)?;
        cursor.expect("AS")?;
        cursor.expect("IDENTITY")?;
        let mut list = Vec::new();
        if cursor.eat_token(&Token::LParen) {
            list = options(cursor)?;
            cursor.expect_token(&Token::RParen)?;
        }
        return Ok(Some(IdentityChange::Add { always, options: list }));
    }
    let (mut generated, mut list) = (None, Vec::new());
    loop {
        if cursor.is("RESTART") {
            list.extend(option(cursor)?);
        } else if cursor.eat_all(&["SET", "GENERATED"]) {
            generated = Some(always(cursor)?);
        } else if cursor.is("SET") && OPTION_WORDS.iter().any(|word| cursor.is_at(1, word)) {
            cursor.advance();
            list.extend(option(cursor)?);
        } else if generated.is_none() && list.is_empty() {
            return Ok(None);
        } else {
            return Ok(Some(IdentityChange::Set { always: generated, options: list }));
        }
    }
}

fn always(cursor: &mut Cursor<'_>) -> Result<bool> {
    if cursor.eat("ALWAYS") {
        return Ok(true);
    }
    cursor.expect("BY")?;
    cursor.expect("DEFAULT").map(|()| false)
}

const OPTION_WORDS: [&str; 8] =
    ["CACHE", "CYCLE", "INCREMENT", "MAXVALUE", "MINVALUE", "NO", "RESTART", "START"];

/// Options in any order.
///
/// Errors: 42601 also for one that comes twice.
fn options(cursor: &mut Cursor<'_>) -> Result<Vec<SequenceOption>> {
    let mut list: Vec<SequenceOption> = Vec::new();
    loop {
        let before = cursor.here(Error::new(SqlState::SyntaxError, "conflicting or redundant options"));
        let Some(next) = option(cursor)? else { return Ok(list) };
        if list.iter().any(|known| std::mem::discriminant(known) == std::mem::discriminant(&next)) {
            return Err(before);
        }
        list.push(next);
    }
}

fn option(cursor: &mut Cursor<'_>) -> Result<Option<SequenceOption>> {
    use SequenceOption as O;
    Ok(Some(if cursor.eat("AS") {
        O::As(cursor.name()?)
    } else if cursor.eat("CACHE") {
        O::Cache(number(cursor)?)
    } else if cursor.eat("CYCLE") {
        O::Cycle(true)
    } else if cursor.eat_all(&["NO", "CYCLE"]) {
        O::Cycle(false)
    } else if cursor.eat("INCREMENT") {
        cursor.eat("BY");
        O::Increment(number(cursor)?)
    } else if cursor.eat_all(&["NO", "MAXVALUE"]) {
        O::MaxValue(None)
    } else if cursor.eat("MAXVALUE") {
        O::MaxValue(Some(number(cursor)?))
    } else if cursor.eat_all(&["NO", "MINVALUE"]) {
        O::MinValue(None)
    } else if cursor.eat("MINVALUE") {
        O::MinValue(Some(number(cursor)?))
    } else if cursor.eat_all(&["OWNED", "BY"]) {
        if cursor.eat("NONE") { O::OwnedBy(None) } else { O::OwnedBy(Some(parts(cursor)?)) }
    } else if cursor.eat_all(&["SEQUENCE", "NAME"]) {
        O::SequenceName(object(cursor)?)
    } else if cursor.eat("START") {
        cursor.eat("WITH");
        O::Start(number(cursor)?)
    } else if cursor.eat("RESTART") {
        let with = cursor.eat("WITH");
        let follows = matches!(cursor.peek(), Some(Token::Number(..) | Token::Minus | Token::Plus));
        O::Restart(if with || follows { Some(number(cursor)?) } else { None })
    } else {
        return Ok(None);
    }))
}

/// Errors: 22003 for what no bigint is.
fn number(cursor: &mut Cursor<'_>) -> Result<i64> {
    let minus = cursor.eat_token(&Token::Minus);
    if !minus {
        cursor.eat_token(&Token::Plus);
    }
    let Some(Token::Number(digits, _)) = cursor.peek() else { return Err(cursor.unexpected()) };
    let text = if minus { format!("-{digits}") } else { digits.clone() };
    let value = text.parse().map_err(|_| {
        let message = format!("value \"{text}\" is out of range for type bigint");
        cursor.here(Error::new(SqlState::NumericValueOutOfRange, message))
    })?;
    cursor.advance();
    Ok(value)
}

fn parts(cursor: &mut Cursor<'_>) -> Result<Vec<String>> {
    let mut parts = vec![cursor.name()?];
    while cursor.eat_token(&Token::Period) {
        parts.push(cursor.name()?);
    }
    Ok(parts)
}

pub(super) fn object(cursor: &mut Cursor<'_>) -> Result<ObjectName> {
    Ok(object_of(parts(cursor)?))
}

/// A name of parts that are folded already.
pub fn object_of(parts: Vec<String>) -> ObjectName {
    ObjectName::from(parts.into_iter().map(|part| Ident::with_quote('"', part)).collect::<Vec<_>>())
}

/// `nextval('items_id_seq'::regclass)` names the sequence without a cast too.
pub(super) fn uncast_sequence(expr: &mut Expr) {
    let Expr::Function(function) = expr else { return };
    let name = function.name.0.last().and_then(|part| part.as_ident()).map(|name| name.value.to_lowercase());
    if !matches!(name.as_deref(), Some("nextval" | "currval" | "setval")) {
        return;
    }
    let FunctionArguments::List(list) = &mut function.args else { return };
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) = list.args.first_mut()
        && let Expr::Cast { expr: inner, data_type, .. } = argument
        && data_type.to_string().eq_ignore_ascii_case("regclass")
    {
        let inner = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.with_empty_span()));
        *argument = inner;
    }
}

/// Puts the options of `AS IDENTITY (…)` in CREATE TABLE into the order that sqlparser reads.
pub(super) fn order_identity_options(tokens: &mut Vec<TokenWithSpan>) {
    const ORDER: [&str; 6] = ["INCREMENT", "MINVALUE", "MAXVALUE", "START", "CACHE", "CYCLE"];
    let word = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => String::new(),
    };
    let significant = |from: usize, tokens: &[TokenWithSpan]| {
        (from..tokens.len()).find(|at| tokens::is_significant(&tokens[*at]))
    };
    let mut from = 0;
    while let Some(identity) = (from..tokens.len()).find(|at| word(&tokens[*at]) == "IDENTITY") {
        from = identity + 1;
        let before = tokens[..identity].iter().rev().find(|token| tokens::is_significant(token));
        if before.is_none_or(|before| word(before) != "AS") {
            continue;
        }
        let open = significant(from, tokens).filter(|at| tokens[*at].token == Token::LParen);
        let close = open.and_then(|open| (open..tokens.len()).find(|at| tokens[*at].token == Token::RParen));
        let (Some(open), Some(close)) = (open, close) else { continue };
        let mut groups: Vec<(usize, Vec<TokenWithSpan>)> = Vec::new();
        let mut after_no = false;
        for token in tokens[open + 1..close].iter().filter(|token| tokens::is_significant(token)) {
            let text = word(token);
            let rank = ORDER.iter().position(|known| *known == text);
            match (rank, groups.last_mut()) {
                (Some(rank), Some(last)) if after_no => {
                    last.0 = rank;
                    last.1.push(token.clone());
                }
                (None, Some(last)) if text != "NO" => last.1.push(token.clone()),
                (rank, _) => groups.push((rank.unwrap_or(ORDER.len()), vec![token.clone()])),
            }
            after_no = text == "NO";
        }
        groups.sort_by_key(|(rank, _)| *rank);
        drop(tokens.splice(open + 1..close, groups.into_iter().flat_map(|(_, group)| group)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{StatementKind, parse_statements};

    fn parsed(sql: &str) -> Result<SequenceStatement> {
        match parse_statements(sql)?.pop().map(|statement| statement.kind) {
            Some(StatementKind::Sequence(statement)) => Ok(*statement),
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn what_pg_dump_writes_is_read() {
        let options = "START WITH 1 INCREMENT BY 1 NO MINVALUE NO MAXVALUE CACHE 1";
        let created = parsed(&format!("CREATE SEQUENCE public.s AS integer {options};")).unwrap();
        let SequenceStatement::Create { name, options: list, .. } = created else { panic!("{created:?}") };
        assert_eq!((name.to_string().as_str(), list.len()), ("\"public\".\"s\"", 6));
        let sql = format!(
            "ALTER TABLE t ALTER COLUMN n ADD GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME public.x {options})"
        );
        let added = parsed(&sql).unwrap();
        let SequenceStatement::AlterColumn { column, change, .. } = added else { panic!("{added:?}") };
        assert_eq!(column, "n");
        assert!(
            matches!(&change, IdentityChange::Add { always: false, options } if options.len() == 6),
            "{change:?}"
        );
        let owned = parsed("ALTER SEQUENCE public.s OWNED BY public.t.\"Id\"").unwrap();
        let SequenceStatement::Alter { change: SequenceChange::Options(options), .. } = owned else {
            panic!("{owned:?}")
        };
        let dropped = parsed("ALTER TABLE t ALTER g DROP EXPRESSION IF EXISTS").unwrap();
        assert!(
            matches!(
                &dropped,
                SequenceStatement::AlterColumn {
                    change: IdentityChange::DropExpression { if_exists: true },
                    ..
                }
            ),
            "{dropped:?}"
        );
        let parts = ["public", "t", "Id"].map(str::to_owned).to_vec();
        assert_eq!(options, [SequenceOption::OwnedBy(Some(parts))]);
    }

    #[test]
    fn the_rest_of_alter_table_is_left_alone() {
        for sql in [
            "ALTER TABLE t ALTER c SET DEFAULT 1",
            "ALTER TABLE t ALTER c SET NOT NULL",
            "ALTER TABLE t ADD COLUMN c int GENERATED ALWAYS AS IDENTITY (CACHE 1 START WITH 5 NO MINVALUE)",
            "CREATE TABLE t (c int GENERATED BY DEFAULT AS IDENTITY (START 5 INCREMENT 2), d int)",
        ] {
            let kind = parse_statements(sql).unwrap().pop().unwrap().kind;
            assert!(matches!(kind, StatementKind::Sql(_)), "{sql}");
        }
        assert!(parsed("ALTER SEQUENCE s INCREMENT 1 INCREMENT 2").is_err());
    }
}
