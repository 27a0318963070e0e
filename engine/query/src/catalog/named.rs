//! What `pg_prepared_statements` and `pg_cursors` show: plain rows, made by `database` when one is read. Times are
//! microseconds since 1970-01-01 UTC. The views are in `relations::named`.

use sepal_types::SqlType;

/// The rows of both views, of one session.
#[derive(Clone, Debug, Default)]
pub struct NamedRows {
    pub statements: Vec<PreparedRow>,
    pub cursors: Vec<CursorRow>,
}

/// A row of `pg_prepared_statements`.
#[derive(Clone, Debug)]
pub struct PreparedRow {
    pub name: String,
    /// As the client sent it, without what may be a secret.
    pub statement: String,
    pub prepared_us: i64,
    pub parameters: Vec<SqlType>,
    /// `None` where it returns no rows.
    pub results: Option<Vec<SqlType>>,
    /// By PREPARE, not by the protocol.
    pub from_sql: bool,
}

/// A row of `pg_cursors`.
#[derive(Clone, Debug)]
pub struct CursorRow {
    pub name: String,
    /// As the client sent it, without what may be a secret.
    pub statement: String,
    pub hold: bool,
    pub binary: bool,
    pub scroll: bool,
    pub declared_us: i64,
}
