//! PREPARE, DECLARE, FETCH and MOVE, as PostgreSQL's grammar has them (`gram.y`: PrepareStmt, DeclareCursorStmt,
//! FetchStmt).
//!
//! Called by `statement`, which leaves EXECUTE, DEALLOCATE and CLOSE to sqlparser. `database::session` runs them all.
//! Nothing here knows which names there are.

use datafusion::sql::sqlparser::{
    ast,
    parser::Parser,
    tokenizer::{Token, TokenWithSpan},
};
use sepal_types::{Error, Result, SqlState};

use crate::ddl::identifier;

use super::{
    delivery::cursor::Cursor,
    dialect::Postgres,
    rewrite::cast_target,
    statement::{Parsed, StatementKind, parse_one, parse_query, syntax_error},
    tokens::offset,
};

/// Words that begin what can be prepared; a parenthesis does, too.
const PREPARABLE: [&str; 8] = ["DELETE", "INSERT", "MERGE", "SELECT", "TABLE", "UPDATE", "VALUES", "WITH"];
/// Words that begin a cursor's query.
const QUERIES: [&str; 4] = ["SELECT", "TABLE", "VALUES", "WITH"];

/// A statement about something that the session knows by a name.
#[derive(Clone, Debug)]
pub enum Named {
    /// `PREPARE name [(types)] AS statement`
    Prepare {
        name: String,
        /// The oids of the types that are declared; 0 for `unknown`.
        types: Vec<u32>,
        /// With its text: [`super::Statement::to_prepare`].
        statement: Box<ast::Statement>,
    },
    Declare(Declare),
    Fetch(Fetch),
}

/// `DECLARE name [BINARY] [INSENSITIVE] [[NO] SCROLL] CURSOR [WITH HOLD] FOR query`
#[derive(Clone, Debug)]
pub struct Declare {
    pub name: String,
    pub binary: bool,
    pub insensitive: bool,
    /// It may go back. Where nothing is said it may not.
    pub scroll: bool,
    /// It outlives its transaction.
    pub hold: bool,
    /// A query.
    pub query: Box<ast::Statement>,
}

/// `FETCH [direction] [FROM] name`, or MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub name: String,
    pub direction: Direction,
    /// MOVE: the rows are only passed over.
    pub moves: bool,
}

/// Where a FETCH goes from the row that the cursor stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward(Count),
    Backward(Count),
    /// To the row of this number, from 1; from -1 counted from the end; 0 is before the first one.
    Absolute(i64),
    Relative(i64),
}

/// How many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    All,
    Rows(u64),
}

const ONE: Count = Count::Rows(1);

/// `None` for any other statement. `words` are the first ones, upper-case; `tokens` are not repaired yet.
///
/// Errors: 42601 with the position, 42704 for an unknown type, 42P11 for options that exclude each other.
pub(super) fn parse(sql: &str, words: &[String], tokens: &[TokenWithSpan]) -> Result<Option<Parsed>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut cursor = Cursor::new(sql, tokens);
    match words.as_slice() {
        ["PREPARE", "TRANSACTION", ..] => Ok(None),
        ["PREPARE", ..] => prepare(sql, &mut cursor).map(Some),
        ["DECLARE", ..] => declare(sql, &mut cursor).map(Some),
        ["FETCH" | "MOVE", ..] => {
            let fetch = fetch(&mut cursor, words[0] == "MOVE")?;
            Ok(Some((StatementKind::Named(Box::new(Named::Fetch(fetch))), tokens.to_vec())))
        }
        _ => Ok(None),
    }
}

fn prepare(sql: &str, cursor: &mut Cursor<'_>) -> Result<Parsed> {
    cursor.expect("PREPARE")?;
    let name = name(cursor)?;
    let types = if cursor.eat_token(&Token::LParen) { types(sql, cursor)? } else { Vec::new() };
    cursor.expect("AS")?;
    let begins = PREPARABLE.iter().any(|word| cursor.is(word)) || cursor.peek() == Some(&Token::LParen);
    if !begins {
        return Err(cursor.unexpected());
    }
    match parse_one(sql, cursor.rest())? {
        (StatementKind::Sql(statement), tokens) => {
            Ok((StatementKind::Named(Box::new(Named::Prepare { name, types, statement })), tokens))
        }
        (StatementKind::Refused(message), _) => Err(Error::unsupported(message)),
        _ => Err(cursor.unexpected()),
    }
}

/// The oids of a list of types, up to its parenthesis.
fn types(sql: &str, cursor: &mut Cursor<'_>) -> Result<Vec<u32>> {
    let rest = cursor.rest();
    let mut depth = 0_usize;
    let end = rest.iter().position(|token| match token.token {
        Token::LParen => {
            depth += 1;
            false
        }
        Token::RParen if depth > 0 => {
            depth -= 1;
            false
        }
        Token::RParen => true,
        _ => false,
    });
    let list = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default().to_vec();
    let mut parser = Parser::new(&Postgres).with_tokens_with_locations(list.clone());
    let types = parser
        .parse_comma_separated(Parser::parse_data_type)
        .map_err(|error| syntax_error(sql, &list, &error))?;
    let beyond = parser.peek_token();
    if beyond.token != Token::EOF {
        let message = format!("syntax error at or near \"{}\"", beyond.token);
        return Err(Error::new(SqlState::SyntaxError, message).with_position(offset(sql, beyond.span.start)));
    }
    for _ in &list {
        cursor.advance();
    }
    cursor.expect_token(&Token::RParen)?;
    types.iter().map(oid).collect()
}

fn oid(data_type: &ast::DataType) -> Result<u32> {
    let name = data_type.to_string().to_lowercase();
    if name == "unknown" {
        return Ok(0);
    }
    cast_target(data_type)
        .map(|ty| ty.oid())
        .ok_or_else(|| Error::new(SqlState::UndefinedObject, format!("type \"{name}\" does not exist")))
}

fn declare(sql: &str, cursor: &mut Cursor<'_>) -> Result<Parsed> {
    cursor.expect("DECLARE")?;
    let name = name(cursor)?;
    let (mut binary, mut insensitive, mut asensitive) = (false, false, false);
    let (mut scroll, mut no_scroll) = (false, false);
    loop {
        if cursor.eat("BINARY") {
            binary = true;
        } else if cursor.eat("INSENSITIVE") {
            insensitive = true;
        } else if cursor.eat("ASENSITIVE") {
            asensitive = true;
        } else if cursor.eat_all(&["NO", "SCROLL"]) {
            no_scroll = true;
        } else if cursor.eat("SCROLL") {
            scroll = true;
        } else {
            break;
        }
    }
    cursor.expect("CURSOR")?;
    let hold = cursor.eat_all(&["WITH", "HOLD"]);
    if !hold {
        cursor.eat_all(&["WITHOUT", "HOLD"]);
    }
    cursor.expect("FOR")?;
    if !QUERIES.iter().any(|word| cursor.is(word)) && cursor.peek() != Some(&Token::LParen) {
        return Err(cursor.unexpected());
    }
    if scroll && no_scroll {
        return Err(invalid("cannot specify both SCROLL and NO SCROLL"));
    }
    if insensitive && asensitive {
        return Err(invalid("cannot specify both INSENSITIVE and ASENSITIVE"));
    }
    let tokens = cursor.rest();
    let query = parse_query(sql, tokens.clone())?;
    match query.body.as_ref() {
        ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_) => {
            return Err(Error::unsupported("DECLARE CURSOR takes a query only"));
        }
        ast::SetExpr::Select(select) if select.into.is_some() => {
            return Err(invalid("DECLARE CURSOR must not contain SELECT INTO"));
        }
        _ => {}
    }
    let query = Box::new(ast::Statement::Query(query));
    let declare = Declare { name, binary, insensitive, scroll, hold, query };
    Ok((StatementKind::Named(Box::new(Named::Declare(declare))), tokens))
}

/// A name, folded and cut as all are.
fn name(cursor: &mut Cursor<'_>) -> Result<String> {
    Ok(identifier(&ast::Ident::with_quote('"', cursor.name()?)))
}

fn invalid(message: &str) -> Error {
    Error::new(SqlState::InvalidCursorDefinition, message)
}

fn fetch(cursor: &mut Cursor<'_>, moves: bool) -> Result<Fetch> {
    cursor.advance();
    let direction = direction(cursor)?;
    if !cursor.eat("FROM") {
        cursor.eat("IN");
    }
    let name = name(cursor)?;
    cursor.expect_end()?;
    Ok(Fetch { name, direction, moves })
}

fn direction(cursor: &mut Cursor<'_>) -> Result<Direction> {
    use Direction as D;
    // The last word is the name, whatever it reads.
    if cursor.peek_at(1).is_none() {
        return Ok(D::Forward(ONE));
    }
    Ok(if cursor.eat("NEXT") {
        D::Forward(ONE)
    } else if cursor.eat("PRIOR") {
        D::Backward(ONE)
    } else if cursor.eat("FIRST") {
        D::Absolute(1)
    } else if cursor.eat("LAST") {
        D::Absolute(-1)
    } else if cursor.eat("ABSOLUTE") {
        D::Absolute(signed(cursor)?)
    } else if cursor.eat("RELATIVE") {
        D::Relative(signed(cursor)?)
    } else if cursor.eat("ALL") {
        D::Forward(Count::All)
    } else if cursor.eat("FORWARD") {
        counted(cursor, true)?
    } else if cursor.eat("BACKWARD") {
        counted(cursor, false)?
    } else if at_number(cursor) {
        counted(cursor, true)?
    } else {
        D::Forward(ONE)
    })
}

/// ALL, a number, or nothing for one. A negative number turns the direction.
fn counted(cursor: &mut Cursor<'_>, forward: bool) -> Result<Direction> {
    let (forward, count) = if cursor.eat("ALL") {
        (forward, Count::All)
    } else if at_number(cursor) {
        let number = signed(cursor)?;
        (forward == (number >= 0), Count::Rows(number.unsigned_abs()))
    } else {
        (forward, ONE)
    };
    Ok(if forward { Direction::Forward(count) } else { Direction::Backward(count) })
}

fn at_number(cursor: &Cursor<'_>) -> bool {
    matches!(cursor.peek(), Some(Token::Number(..) | Token::Minus | Token::Plus))
}

/// As in PostgreSQL what does not fit into an integer is no number here.
fn signed(cursor: &mut Cursor<'_>) -> Result<i64> {
    let minus = cursor.eat_token(&Token::Minus);
    if !minus {
        cursor.eat_token(&Token::Plus);
    }
    let Some(Token::Number(digits, _)) = cursor.peek() else { return Err(cursor.unexpected()) };
    let Ok(number) = digits.parse::<i32>() else { return Err(cursor.unexpected()) };
    cursor.advance();
    Ok(if minus { -i64::from(number) } else { i64::from(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse_statements;

    fn named(sql: &str) -> Result<Named> {
        match parse_statements(sql)?.pop().map(|statement| statement.kind) {
            Some(StatementKind::Named(named)) => Ok(*named),
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn code(sql: &str) -> &'static str {
        parse_statements(sql).expect_err(sql).state().code()
    }

    #[test]
    fn every_direction_is_read() {
        use Direction as D;
        let cases = [
            ("FETCH c", D::Forward(ONE)),
            ("FETCH next", D::Forward(ONE)),
            ("FETCH NEXT FROM c", D::Forward(ONE)),
            ("FETCH FROM c", D::Forward(ONE)),
            ("FETCH IN c", D::Forward(ONE)),
            ("FETCH PRIOR c", D::Backward(ONE)),
            ("FETCH FIRST FROM c", D::Absolute(1)),
            ("FETCH LAST IN c", D::Absolute(-1)),
            ("FETCH ABSOLUTE -3 c", D::Absolute(-3)),
            ("FETCH RELATIVE +2 FROM c", D::Relative(2)),
            ("FETCH 2000 FROM c", D::Forward(Count::Rows(2000))),
            ("FETCH -2 c", D::Backward(Count::Rows(2))),
            ("FETCH 0 c", D::Forward(Count::Rows(0))),
            ("FETCH ALL c", D::Forward(Count::All)),
            ("FETCH FORWARD FROM c", D::Forward(ONE)),
            ("FETCH FORWARD 100 FROM c", D::Forward(Count::Rows(100))),
            ("FETCH FORWARD ALL FROM c", D::Forward(Count::All)),
            ("FETCH BACKWARD c", D::Backward(ONE)),
            ("FETCH BACKWARD -7 c", D::Forward(Count::Rows(7))),
            ("FETCH BACKWARD ALL IN c", D::Backward(Count::All)),
        ];
        for (sql, direction) in cases {
            let moves = sql.replacen("FETCH", "MOVE", 1);
            for (sql, moves) in [(sql, false), (moves.as_str(), true)] {
                let Named::Fetch(fetch) = named(sql).unwrap() else { panic!("{sql}") };
                assert_eq!((fetch.direction, fetch.moves), (direction, moves), "{sql}");
            }
        }
        for sql in [
            "FETCH",
            "FETCH FROM",
            "FETCH 1",
            "FETCH 3000000000 FROM c",
            "FETCH NEXT 2 FROM c",
            "FETCH c d e",
        ] {
            assert_eq!(code(sql), "42601", "{sql}");
        }
    }

    #[test]
    fn cursors_are_declared() {
        let declared = |sql: &str| match named(sql).unwrap() {
            Named::Declare(declare) => declare,
            other => panic!("{other:?}"),
        };
        let plain = declared("DECLARE \"My c\" CURSOR FOR SELECT 1");
        assert_eq!(
            (plain.name.as_str(), plain.scroll, plain.hold, plain.binary),
            ("My c", false, false, false)
        );
        let all = declared("DECLARE C BINARY INSENSITIVE SCROLL CURSOR WITH HOLD FOR VALUES (1), (2)");
        assert_eq!((all.name.as_str(), all.scroll, all.hold, all.binary), ("c", true, true, true));
        let none = declared("DECLARE c ASENSITIVE NO SCROLL CURSOR WITHOUT HOLD FOR (SELECT 1)");
        assert!(!none.scroll && !none.hold && !none.insensitive);
        assert_eq!(code("DECLARE c SCROLL NO SCROLL CURSOR FOR SELECT 1"), "42P11");
        assert_eq!(code("DECLARE c INSENSITIVE ASENSITIVE CURSOR FOR SELECT 1"), "42P11");
        assert_eq!(code("DECLARE c CURSOR FOR SELECT 1 INTO t"), "42P11");
        for sql in
            ["DECLARE c CURSOR FOR", "DECLARE c CURSOR FOR UPDATE t SET a = 1", "DECLARE c FOR SELECT 1"]
        {
            assert_eq!(code(sql), "42601", "{sql}");
        }
    }

    #[test]
    fn statements_are_prepared_with_types_or_without() {
        let types = |sql: &str| match named(sql).unwrap() {
            Named::Prepare { types, .. } => types,
            other => panic!("{other:?}"),
        };
        assert!(types("PREPARE a AS SELECT $1").is_empty());
        assert_eq!(
            types("prepare a (int, text, numeric(10, 2), unknown) as values ($1, $2, $3, $4)"),
            [23_u32, 25, 1700, 0]
        );
        assert_eq!(types("PREPARE a(int[]) AS DELETE FROM t WHERE a = ANY ($1)"), [1007_u32]);
        assert_eq!(code("PREPARE a (nothing) AS SELECT $1"), "42704");
        for sql in [
            "PREPARE a",
            "PREPARE a () AS SELECT 1",
            "PREPARE a (int text) AS SELECT 1",
            "PREPARE a AS BEGIN",
        ] {
            assert_eq!(code(sql), "42601", "{sql}");
        }
        let statement = parse_statements("PREPARE a AS SELECT 1").unwrap().remove(0);
        let inner = statement.to_prepare().unwrap();
        assert!(matches!(&inner.kind, StatementKind::Sql(_)) && inner.sql == statement.sql && !inner.alone);
    }
}
