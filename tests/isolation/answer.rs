//! What a session said to a statement, as a spec writes it.

use std::fmt;

use futures::TryStreamExt;
use tokio_postgres::{
    Client, Error, Row, SimpleQueryMessage,
    types::{FromSql, Type},
};

/// How a statement reaches the server. They are two ways through it: texts in one message, or Parse, Bind, Execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Simple,
    Extended,
}

impl Protocol {
    pub const BOTH: [Protocol; 2] = [Protocol::Simple, Protocol::Extended];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Simple => "simple",
            Protocol::Extended => "extended",
        })
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No result set, and as many rows changed.
    Done(u64),
    /// Each row as `| 1 | two`.
    Rows(Vec<String>),
    Refused {
        code: String,
        message: String,
    },
    /// The connection broke.
    Lost(String),
}

impl Answer {
    /// Sends one statement and waits for all of its answer.
    pub async fn to(client: &Client, protocol: Protocol, sql: &str) -> Answer {
        let answer = match protocol {
            Protocol::Simple => simple(client, sql).await,
            Protocol::Extended => extended(client, sql).await,
        };
        answer.unwrap_or_else(|error| match error.as_db_error() {
            Some(database) => Answer::Refused {
                code: database.code().code().to_owned(),
                message: database.message().to_owned(),
            },
            None => Answer::Lost(error.to_string()),
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done(rows) => write!(f, "changed {rows}"),
            Answer::Rows(rows) if rows.is_empty() => f.write_str("empty"),
            Answer::Rows(rows) => f.write_str(&rows.join("; ")),
            Answer::Refused { code, message } => write!(f, "error {code} {message}"),
            Answer::Lost(why) => write!(f, "the connection broke: {why}"),
        }
    }
}

async fn simple(client: &Client, sql: &str) -> Result<Answer, Error> {
    let mut rows = None;
    let mut changed = 0;
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::RowDescription(_) => rows = Some(Vec::new()),
            SimpleQueryMessage::Row(row) => {
                let values = (0..row.len()).map(|column| show(row.get(column)));
                rows.get_or_insert_default().push(line(values));
            }
            SimpleQueryMessage::CommandComplete(count) => changed = count,
            _ => {}
        }
    }
    Ok(rows.map_or(Answer::Done(changed), Answer::Rows))
}

async fn extended(client: &Client, sql: &str) -> Result<Answer, Error> {
    let statement = client.prepare(sql).await?;
    let mut stream = Box::pin(client.query_raw(&statement, Vec::<i32>::new()).await?);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(line((0..row.len()).map(|column| binary(&row, column))));
    }
    if statement.columns().is_empty() {
        return Ok(Answer::Done(stream.rows_affected().unwrap_or(0)));
    }
    Ok(Answer::Rows(rows))
}

fn line(values: impl Iterator<Item = String>) -> String {
    format!("| {}", values.collect::<Vec<_>>().join(" | "))
}

fn show(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.to_owned(),
    }
}

fn binary(row: &Row, column: usize) -> String {
    let value: Option<Text> = row.get(column);
    show(value.as_ref().map(|text| text.0.as_str()))
}

/// A value in binary form as its text form would be, of the few types that the specs use.
struct Text(String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Text(match ty.name() {
            "bool" => String::from(if bool::from_sql(ty, raw)? { "t" } else { "f" }),
            "int2" => i16::from_sql(ty, raw)?.to_string(),
            "int4" => i32::from_sql(ty, raw)?.to_string(),
            "int8" => i64::from_sql(ty, raw)?.to_string(),
            "text" | "varchar" | "name" | "void" => std::str::from_utf8(raw)?.to_owned(),
            other => {
                return Err(format!("specs cannot show the type {other} by the extended protocol").into());
            }
        }))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
