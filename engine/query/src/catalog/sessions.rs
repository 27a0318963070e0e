//! Sessions as `pg_stat_activity` shows them, and the way to those that `pg_cancel_backend` and `pg_terminate_backend`
//! name.
//!
//! Filled and answered by the session that asks, from its own tenant's sessions only.

use std::{fmt::Debug, net::SocketAddr};

use sepal_types::Result;

/// One row of `pg_stat_activity`.
#[derive(Clone, Debug)]
pub struct SessionRow {
    pub pid: i32,
    pub environment: String,
    /// The id of its key.
    pub user: String,
    pub application: String,
    /// `None` where the asking session's key may not know them.
    pub details: Option<SessionDetails>,
}

/// What a session does. Times are microseconds since 1970-01-01 UTC.
#[derive(Clone, Debug)]
pub struct SessionDetails {
    /// `None` where nobody has said.
    pub client: Option<SocketAddr>,
    pub began_us: i64,
    pub transaction_us: Option<i64>,
    pub query_us: Option<i64>,
    pub changed_us: i64,
    /// `active`, `idle`, `idle in transaction`, `idle in transaction (aborted)`.
    pub state: &'static str,
    /// `wait_event_type` and `wait_event`.
    pub waits: Option<(&'static str, &'static str)>,
    pub query: String,
}

/// What a session may be told by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End the running statement.
    Cancel,
    /// End.
    Terminate,
}

/// The asking session's reach among its tenant's.
pub trait SessionControl: Debug + Send + Sync {
    /// Whether there is such a session; it has been told then. Where there is none, the client gets a warning.
    ///
    /// Errors: 42501.
    fn signal(&self, pid: i32, signal: Signal) -> Result<bool>;
}

/// Nobody is there.
#[derive(Debug)]
pub(crate) struct NoSessions;

impl SessionControl for NoSessions {
    fn signal(&self, _: i32, _: Signal) -> Result<bool> {
        Ok(false)
    }
}
