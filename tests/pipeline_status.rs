//! Pipelines as a client sees them: their status, waiting for it, and what statements about them say.
//!
//! Used by `pipelines`, `plugins`, `resolvers` and `languages`.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow, error::DbError};

use crate::http::PATIENCE;

/// Some columns of a row of `sepal_pipeline_status`.
#[derive(Clone, Debug)]
pub struct Status {
    pub state: String,
    pub phase: String,
    pub lag_rows: Option<i64>,
    pub position: Option<String>,
    pub attempts: i64,
    pub last_error: Option<String>,
    pub last_error_code: Option<String>,
    pub rows_delivered: i64,
    pub rows_dead: i64,
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

/// Runs statements that must succeed.
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

/// `None` for a pipeline that is not there.
pub async fn status(client: &Client, pipeline: &str) -> Option<Status> {
    let sql = format!(
        "SELECT state, phase, lag_rows, position, attempts, last_error, last_error_code, rows_delivered, rows_dead
         FROM sepal_pipeline_status WHERE pipeline = '{pipeline}'"
    );
    let row = client.query_opt(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))?;
    Some(Status {
        state: row.get(0),
        phase: row.get(1),
        lag_rows: row.get(2),
        position: row.get(3),
        attempts: row.get(4),
        last_error: row.get(5),
        last_error_code: row.get(6),
        rows_delivered: row.get(7),
        rows_dead: row.get(8),
    })
}

/// Waits until the view says so.
pub async fn until_status(
    client: &Client,
    pipeline: &str,
    what: &str,
    is: impl Fn(&Status) -> bool,
) -> Status {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = status(client, pipeline).await;
        if let Some(status) = now.as_ref().filter(|status| is(status)) {
            return status.clone();
        }
        assert!(Instant::now() < deadline, "{pipeline} is not {what} after {PATIENCE:?}: {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
