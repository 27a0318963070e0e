//! The facade of the engine: what a server, an embedder or a test sees of Sepal.
//!
//! # A write's way
//! 1. The server authenticates with [`Database::control`] and asks [`Database::connect`] for a [`Session`]
//!    bound to one [`Principal`]: one tenant, one environment.
//! 2. [`Session::prepare`] plans; [`Session::execute`] runs against the transaction's view and collects
//!    `sepal_storage::Op`s.
//! 3. At the end of the transaction `TenantStore::commit` makes them durable as one log record and visible.
//! 4. `maintain` flushes to sealed segments, builds their vector indexes and trims the log, in the background.
//!
//! # A query's way
//! 1. [`Session::prepare`] plans once; [`Session::execute`] points the plan at the transaction's snapshot.
//! 2. What reads only catalogs goes to their evaluator (`sepal_query::catalog`), what reads no table is one row
//!    (`sepal_query::planner::SingleRow`), the plainest k-NN shape runs at once (`sepal_query::vector::FastKnn`),
//!    and the rest goes through DataFusion.
//! 3. [`RowStream::next`] hands out batches of just the described types as the caller pulls.
//!
//! Nothing here knows a socket. No function takes two tenants.

mod backend_pids;
pub mod backup;
mod builds;
pub mod connector;
mod database;
mod delivery;
mod directory_lock;
#[cfg(test)]
mod fixtures;
mod maintain;
mod options;
mod pipeline;
pub mod sealing;
mod session;
mod tenant;
#[cfg(test)]
mod tests;
mod write_memory;

pub use database::{Database, DatabaseMetrics, PLANNING_STACK};
pub use options::{DatabaseOptions, SecretSources};
pub use session::{
    CancelToken, CopyIn, CopyOut, Notice, Outcome, Prepared, RowStream, Session, TransactionStatus,
};

pub use sepal_control::{
    ApiKey, Certificate, Control, ControlError, EnvNames, Environment, EnvironmentName, Grantable,
    KeyCacheStats, MAX_SECRET_BYTES, NewCertificate, NewSecret, OPERATOR, PUBLIC, Principal, RootKeyError,
    Scope, Scopes, Secret, SecretChange, SecretName, SecretOrigin, SecretUse, Tenant, TenantName, Token,
    is_sensitive_name, root_key,
};
pub use sepal_crypto::{Key, ed25519, scram};
pub use sepal_query::{
    CopyFormat, CopyHeader, CopyKind,
    output::OutputColumn,
    sql::{Statement, delivery::redact},
    values,
};
pub use sepal_storage::arrow_type;
pub use sepal_types::{
    Error, ErrorKind, Metric, Result, SqlState, SqlType, TenantId, check_finite, format_float4,
    format_float8, format_vector, limits, parse_vector,
};
