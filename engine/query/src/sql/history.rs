//! Statements about the past: CREATE SNAPSHOT, DROP SNAPSHOT, CREATE TABLE … CLONE.
//!
//! Recognised and parsed on the tokens; `database::Session` runs them. What a query says of the past is `past`'s.

use datafusion::sql::sqlparser::{
    ast::{Ident, ObjectName},
    tokenizer::{Token, TokenWithSpan},
};
use sepal_types::{Error, Result, SqlState, limits::MAX_IDENTIFIER_BYTES};

use super::{
    delivery::cursor::Cursor,
    past::{Moment, trailing_moment},
    tokens::repair,
};

/// A statement of this family.
#[derive(Clone, Debug)]
pub enum History {
    CreateSnapshot { name: String, if_not_exists: bool, comment: Option<String> },
    DropSnapshot { name: String, if_exists: bool },
    CloneTable(Box<CloneTable>),
}

/// `CREATE TABLE [IF NOT EXISTS] name CLONE source [AS OF …]`
#[derive(Clone, Debug)]
pub struct CloneTable {
    pub name: ObjectName,
    pub if_not_exists: bool,
    pub source: ObjectName,
    /// `None`: as the source is now.
    pub at: Option<Moment>,
}

/// `None` for any other statement. `words` are the first ones, upper-case.
///
/// Errors: 42601 with the position.
pub(super) fn parse(sql: &str, words: &[String], tokens: &[TokenWithSpan]) -> Result<Option<History>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut cursor = Cursor::new(sql, tokens);
    match words.as_slice() {
        ["CREATE", "SNAPSHOT", ..] => {
            cursor.eat_all(&["CREATE", "SNAPSHOT"]);
            create_snapshot(&mut cursor).map(Some)
        }
        ["DROP", "SNAPSHOT", ..] => {
            cursor.eat_all(&["DROP", "SNAPSHOT"]);
            let if_exists = cursor.eat_all(&["IF", "EXISTS"]);
            let name = snapshot_name(&mut cursor)?;
            cursor.expect_end()?;
            Ok(Some(History::DropSnapshot { name, if_exists }))
        }
        ["CREATE", "TABLE", ..] => {
            cursor.eat_all(&["CREATE", "TABLE"]);
            clone_table(sql, &mut cursor)
        }
        _ => Ok(None),
    }
}

fn create_snapshot(cursor: &mut Cursor<'_>) -> Result<History> {
    let if_not_exists = cursor.eat_all(&["IF", "NOT", "EXISTS"]);
    let name = snapshot_name(cursor)?;
    let comment = match cursor.eat("COMMENT") {
        false => None,
        true => {
            let Some(Token::SingleQuotedString(text)) = cursor.peek() else {
                return Err(cursor.unexpected().with_hint("Write the comment as a text: COMMENT '…'."));
            };
            cursor.advance();
            Some(text.clone())
        }
    };
    cursor.expect_end()?;
    Ok(History::CreateSnapshot { name, if_not_exists, comment })
}

/// A name as the clause AS OF SNAPSHOT takes it: a text, or an identifier, in which `-` needs no quotes.
fn snapshot_name(cursor: &mut Cursor<'_>) -> Result<String> {
    let name = match cursor.peek() {
        Some(Token::SingleQuotedString(text)) => {
            cursor.advance();
            text.clone()
        }
        _ => cursor.dashed_name()?,
    };
    if name.is_empty() || name.len() > MAX_IDENTIFIER_BYTES {
        let message =
            format!("the name of a snapshot has 1 to {MAX_IDENTIFIER_BYTES} bytes, not {}", name.len());
        return Err(Error::new(SqlState::InvalidName, message));
    }
    Ok(name)
}

/// `None` for a CREATE TABLE of another kind.
fn clone_table(sql: &str, cursor: &mut Cursor<'_>) -> Result<Option<History>> {
    let if_not_exists = cursor.eat_all(&["IF", "NOT", "EXISTS"]);
    let Some(name) = object_name(cursor) else { return Ok(None) };
    if !cursor.eat("CLONE") {
        return Ok(None);
    }
    let Some(source) = object_name(cursor) else {
        return Err(cursor.unexpected().with_hint("CLONE is followed by the name of a table."));
    };
    let at = trailing_moment(sql, &mut repair(cursor.rest()))?;
    Ok(Some(History::CloneTable(Box::new(CloneTable { name, if_not_exists, source, at }))))
}

/// `items` or `public.items`.
fn object_name(cursor: &mut Cursor<'_>) -> Option<ObjectName> {
    let mut parts = Vec::new();
    loop {
        let Some(Token::Word(word)) = cursor.peek() else { return None };
        parts.push(Ident { value: word.value.clone(), quote_style: word.quote_style, ..Ident::new("") });
        cursor.advance();
        if !cursor.eat_token(&Token::Period) {
            return Some(ObjectName::from(parts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StatementKind, parse_statements};
    use super::*;

    fn parsed(sql: &str) -> History {
        match parse_statements(sql).unwrap().pop().unwrap().kind {
            StatementKind::History(history) => *history,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn snapshots_are_named_as_one_likes() {
        for (sql, expected) in [
            ("CREATE SNAPSHOT nightly", "nightly"),
            ("CREATE SNAPSHOT before-2026-11-22 COMMENT 'why'", "before-2026-11-22"),
            ("CREATE SNAPSHOT IF NOT EXISTS \"A b\"", "A b"),
            ("CREATE SNAPSHOT 'It''s'", "It's"),
        ] {
            let History::CreateSnapshot { name, .. } = parsed(sql) else { panic!("{sql}") };
            assert_eq!(name, expected);
        }
        let History::CreateSnapshot { comment, .. } = parsed("CREATE SNAPSHOT a COMMENT 'why'") else {
            panic!()
        };
        assert_eq!(comment.as_deref(), Some("why"));
        assert!(matches!(parsed("DROP SNAPSHOT IF EXISTS a"), History::DropSnapshot { if_exists: true, .. }));
    }

    #[test]
    fn clones_have_a_moment_or_none() {
        let clone = |sql: &str| match parsed(sql) {
            History::CloneTable(clone) => clone,
            other => panic!("{sql}: {other:?}"),
        };
        let plain = clone("CREATE TABLE IF NOT EXISTS a CLONE public.\"B\"");
        assert_eq!((plain.if_not_exists, plain.source.to_string()), (true, "public.\"B\"".into()));
        assert_eq!(plain.at, None);
        let named = clone("CREATE TABLE a CLONE b AS OF SNAPSHOT nightly");
        assert!(matches!(named.at, Some(Moment::Snapshot(name)) if name.to_string() == "'nightly'"));
        let timed = clone("CREATE TABLE a CLONE b FOR SYSTEM_TIME AS OF now() - interval '1 day'");
        assert!(matches!(timed.at, Some(Moment::Time(_))));
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        for sql in [
            "CREATE SNAPSHOT",
            "CREATE SNAPSHOT a b",
            "CREATE SNAPSHOT a COMMENT b",
            "DROP SNAPSHOT IF EXISTS",
            "CREATE TABLE a CLONE",
            "CREATE TABLE a CLONE b WITH DATA",
            "CREATE TABLE a CLONE b AS OF SNAPSHOT 'x' y",
        ] {
            let error = parse_statements(sql).expect_err(sql);
            assert_eq!(error.state(), SqlState::SyntaxError, "{sql}");
            assert!(error.position().is_some(), "{sql}");
        }
        let long = format!("CREATE SNAPSHOT {}", "a".repeat(64));
        assert_eq!(parse_statements(&long).expect_err("too long").state(), SqlState::InvalidName);
    }

    #[test]
    fn other_tables_are_left_alone() {
        for sql in ["CREATE TABLE clone (id int)", "CREATE TABLE a (clone int)", "CREATE TABLE a AS SELECT 1"]
        {
            let kind = parse_statements(sql).unwrap().pop().unwrap().kind;
            assert!(matches!(kind, StatementKind::Sql(_)), "{sql}");
        }
    }
}
