//! CREATE SCHEMA, ALTER SCHEMA, DROP SCHEMA, ALTER TABLE … SET SCHEMA, CREATE EXTENSION.
//!
//! `statement` recognises them by their first words: sqlparser knows few of the forms. `ddl::plan_schema` plans them.

use datafusion::sql::sqlparser::{
    ast::ObjectName,
    tokenizer::{Token, TokenWithSpan},
};
use sepal_types::{Error, Result};

use super::{delivery::cursor::Cursor, sequences::object};
use crate::ddl::truncate;

/// A statement of this family.
#[derive(Clone, Debug)]
pub enum SchemaStatement {
    Create {
        name: String,
        if_not_exists: bool,
    },
    Drop {
        names: Vec<String>,
        if_exists: bool,
        cascade: bool,
    },
    Rename {
        name: String,
        to: String,
    },
    /// ALTER SCHEMA … OWNER TO, which has no effect.
    Owner {
        name: String,
    },
    /// ALTER TABLE … SET SCHEMA
    Move {
        table: ObjectName,
        if_exists: bool,
        schema: String,
    },
    /// What it brings is built in, and answers to every schema.
    Extension {
        name: String,
        schema: Option<String>,
    },
}

impl SchemaStatement {
    /// The command tag.
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE SCHEMA",
            Self::Drop { .. } => "DROP SCHEMA",
            Self::Rename { .. } | Self::Owner { .. } => "ALTER SCHEMA",
            Self::Move { .. } => "ALTER TABLE",
            Self::Extension { .. } => "CREATE EXTENSION",
        }
    }

    /// Whether it says CASCADE.
    pub const fn cascades(&self) -> bool {
        matches!(self, Self::Drop { cascade: true, .. })
    }
}

/// `None` for any other statement. `words` are the first ones, upper-case.
///
/// Errors: 42601 with the position, 0A000 for what CREATE SCHEMA is to make beside the schema.
pub(super) fn parse(
    sql: &str,
    words: &[String],
    tokens: &[TokenWithSpan],
) -> Result<Option<SchemaStatement>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut cursor = Cursor::new(sql, tokens);
    let statement = match words.as_slice() {
        ["CREATE", "SCHEMA", ..] => create(&mut cursor)?,
        ["DROP", "SCHEMA", ..] => drop_schemas(&mut cursor)?,
        ["ALTER", "SCHEMA", ..] => alter(&mut cursor)?,
        ["CREATE", "EXTENSION", ..] => extension(&mut cursor)?,
        ["ALTER", "TABLE", ..] => return set_schema(&mut cursor),
        _ => return Ok(None),
    };
    cursor.expect_end()?;
    Ok(Some(statement))
}

fn create(cursor: &mut Cursor<'_>) -> Result<SchemaStatement> {
    cursor.eat_all(&["CREATE", "SCHEMA"]);
    let if_not_exists = cursor.eat_all(&["IF", "NOT", "EXISTS"]);
    let named = if cursor.is("AUTHORIZATION") { None } else { Some(name(cursor)?) };
    let owner = if cursor.eat("AUTHORIZATION") { Some(name(cursor)?) } else { None };
    if ["CREATE", "GRANT"].iter().any(|word| cursor.is(word)) {
        return Err(cursor.here(
            Error::unsupported("CREATE SCHEMA with statements in it is not supported")
                .with_hint("Write them after it, with the schema before their names."),
        ));
    }
    let name = named.or(owner).ok_or_else(|| cursor.unexpected())?;
    Ok(SchemaStatement::Create { name, if_not_exists })
}

/// As it is looked up: cut to 63 bytes.
fn name(cursor: &mut Cursor<'_>) -> Result<String> {
    cursor.name().map(|name| truncate(&name))
}

fn drop_schemas(cursor: &mut Cursor<'_>) -> Result<SchemaStatement> {
    cursor.eat_all(&["DROP", "SCHEMA"]);
    let if_exists = cursor.eat_all(&["IF", "EXISTS"]);
    let mut names = vec![name(cursor)?];
    while cursor.eat_token(&Token::Comma) {
        names.push(name(cursor)?);
    }
    let cascade = cursor.eat("CASCADE");
    if !cascade {
        cursor.eat("RESTRICT");
    }
    Ok(SchemaStatement::Drop { names, if_exists, cascade })
}

fn alter(cursor: &mut Cursor<'_>) -> Result<SchemaStatement> {
    cursor.eat_all(&["ALTER", "SCHEMA"]);
    let schema = name(cursor)?;
    if cursor.eat_all(&["OWNER", "TO"]) {
        name(cursor)?;
        return Ok(SchemaStatement::Owner { name: schema });
    }
    cursor.expect("RENAME")?;
    cursor.expect("TO")?;
    Ok(SchemaStatement::Rename { name: schema, to: name(cursor)? })
}

fn extension(cursor: &mut Cursor<'_>) -> Result<SchemaStatement> {
    cursor.eat_all(&["CREATE", "EXTENSION"]);
    cursor.eat_all(&["IF", "NOT", "EXISTS"]);
    let extension = name(cursor)?;
    cursor.eat("WITH");
    let mut schema = None;
    loop {
        if cursor.eat("SCHEMA") {
            schema = Some(name(cursor)?);
        } else if cursor.eat("VERSION") {
            // A name, or a text.
            if !matches!(cursor.peek(), Some(Token::Word(_) | Token::SingleQuotedString(_))) {
                return Err(cursor.unexpected());
            }
            cursor.advance();
        } else if !cursor.eat("CASCADE") {
            return Ok(SchemaStatement::Extension { name: extension, schema });
        }
    }
}

fn set_schema(cursor: &mut Cursor<'_>) -> Result<Option<SchemaStatement>> {
    cursor.eat_all(&["ALTER", "TABLE"]);
    let if_exists = cursor.eat_all(&["IF", "EXISTS"]);
    cursor.eat("ONLY");
    let Ok(table) = object(cursor) else { return Ok(None) };
    if !cursor.eat_all(&["SET", "SCHEMA"]) {
        return Ok(None);
    }
    let schema = name(cursor)?;
    cursor.expect_end()?;
    Ok(Some(SchemaStatement::Move { table, if_exists, schema }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{StatementKind, parse_statements};

    fn parsed(sql: &str) -> Result<SchemaStatement> {
        match parse_statements(sql)?.pop().map(|statement| statement.kind) {
            Some(StatementKind::Schema(statement)) => Ok(*statement),
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn every_form_is_understood() {
        for (sql, expected) in [
            ("CREATE SCHEMA a", "Create { name: \"a\", if_not_exists: false }"),
            ("create schema if not exists \"A b\"", "Create { name: \"A b\", if_not_exists: true }"),
            ("CREATE SCHEMA AUTHORIZATION joe", "Create { name: \"joe\", if_not_exists: false }"),
            ("CREATE SCHEMA a AUTHORIZATION joe", "Create { name: \"a\", if_not_exists: false }"),
            ("DROP SCHEMA a RESTRICT", "Drop { names: [\"a\"], if_exists: false, cascade: false }"),
            (
                "DROP SCHEMA IF EXISTS a, B CASCADE;",
                "Drop { names: [\"a\", \"b\"], if_exists: true, cascade: true }",
            ),
            ("ALTER SCHEMA a RENAME TO b", "Rename { name: \"a\", to: \"b\" }"),
            ("ALTER SCHEMA a OWNER TO CURRENT_USER", "Owner { name: \"a\" }"),
            ("CREATE EXTENSION vector", "Extension { name: \"vector\", schema: None }"),
            (
                "CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA extensions VERSION '0.8.0' CASCADE",
                "Extension { name: \"vector\", schema: Some(\"extensions\") }",
            ),
            ("CREATE EXTENSION \"vector\" SCHEMA x", "Extension { name: \"vector\", schema: Some(\"x\") }"),
        ] {
            assert_eq!(format!("{:?}", parsed(sql).unwrap()), expected, "{sql}");
        }
        let moved = parsed("ALTER TABLE IF EXISTS ONLY a.\"T\" SET SCHEMA b").unwrap();
        let SchemaStatement::Move { table, if_exists: true, schema } = moved else { panic!("{moved:?}") };
        assert_eq!((table.to_string().as_str(), schema.as_str()), ("\"a\".\"T\"", "b"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (sql, code, position) in [
            ("CREATE SCHEMA", "42601", Some(14)),
            ("CREATE SCHEMA a b", "42601", Some(17)),
            ("DROP SCHEMA a,", "42601", Some(15)),
            ("ALTER SCHEMA a SET b", "42601", Some(16)),
            ("CREATE SCHEMA a CREATE TABLE t (id int)", "0A000", Some(17)),
        ] {
            let error = parsed(sql).unwrap_err();
            assert_eq!((error.state().code(), error.position()), (code, position), "{sql}");
        }
        let kind = parse_statements("ALTER TABLE t SET (a = 1)").unwrap().pop().unwrap().kind;
        assert!(matches!(kind, StatementKind::Sql(_)));
    }
}
