//! How a statement or a connection ends, and how the client is told.
//!
//! Used everywhere in `session`. An [`Error`] from the engine ends the statement; [`End`] ends the connection.

use std::io;

use sepal_database::{Error, SqlState};

use crate::frame::Rejection;

/// Why a connection is over.
#[derive(Debug)]
pub enum End {
    /// The client said goodbye, or is not there any more.
    Gone,
    /// The client must be told, as FATAL.
    Fatal(Error),
}

/// Why a statement, or the connection with it, is over.
#[derive(Debug)]
pub enum Failure {
    Statement(Error),
    Connection(End),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Statement(error)
    }
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        Self::Connection(end)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        tracing::debug!(%error, "connection lost");
        Self::Gone
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Frame(error) => Self::Connection(End::Fatal(error)),
            Rejection::Content(error) => Self::Statement(error),
        }
    }
}

pub fn protocol(message: impl Into<String>) -> Error {
    Error::new(SqlState::ProtocolViolation, message)
}

/// 57P01 at the end of the server's life.
pub fn shutting_down() -> Error {
    Error::new(SqlState::AdminShutdown, "terminating connection due to administrator command")
        .with_hint("The server is shutting down. Reconnect.")
}

/// 57P01 for `pg_terminate_backend`.
pub fn terminated() -> Error {
    Error::new(SqlState::AdminShutdown, "terminating connection due to administrator command")
}

pub fn idle_in_transaction() -> Error {
    Error::new(
        SqlState::IdleInTransactionSessionTimeout,
        "terminating connection due to idle-in-transaction timeout",
    )
}

pub fn statement_timeout() -> Error {
    Error::new(SqlState::QueryCanceled, "canceling statement due to statement timeout")
}

pub fn user_request() -> Error {
    Error::new(SqlState::QueryCanceled, "canceling statement due to user request")
}
