//! Pipelines as a client sees them: their status, their dead letters, and waiting for either.
//!
//! Used by `plugins`, `resolvers` and `languages`.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow, error::DbError};

use crate::http::PATIENCE;

/// A row of `sepal_pipeline_status`.
#[derive(Clone, Debug)]
pub struct Status {
    pub state: String,
    pub last_error: String,
    pub last_error_code: String,
    pub rows_delivered: u64,
    pub rows_dead: u64,
}

/// Rows of a simple query.
pub async fn rows(client: &Client, sql: &str) -> Vec<SimpleQueryRow> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect()
}

pub async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// The error that a statement ends with, which must not end the connection.
pub async fn refused(client: &Client, sql: &str) -> DbError {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.as_db_error().unwrap_or_else(|| panic!("{sql}: the connection broke: {error}")).clone()
}

/// Everything that an error tells.
pub fn words(error: &DbError) -> String {
    let more = [error.detail(), error.hint()].into_iter().flatten();
    more.fold(format!("{} {}", error.code().code(), error.message()), |all, part| all + "\n" + part)
}

async fn status(client: &Client, pipeline: &str) -> Status {
    let sql = format!(
        "SELECT state, last_error, last_error_code, rows_delivered, rows_dead
         FROM sepal_pipeline_status WHERE pipeline = '{pipeline}'"
    );
    let rows = rows(client, &sql).await;
    let row = rows.first().unwrap_or_else(|| panic!("{pipeline} has no status"));
    let text = |column: usize| row.get(column).unwrap_or_default().to_owned();
    let number = |column: usize| text(column).parse().unwrap_or_else(|_| panic!("{:?}", text(column)));
    Status {
        state: text(0),
        last_error: text(1),
        last_error_code: text(2),
        rows_delivered: number(3),
        rows_dead: number(4),
    }
}

/// Waits until a pipeline is as `enough` wants it.
pub async fn until(client: &Client, pipeline: &str, what: &str, enough: impl Fn(&Status) -> bool) -> Status {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = status(client, pipeline).await;
        if enough(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "{pipeline}: {what} did not come within {PATIENCE:?}: {now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
