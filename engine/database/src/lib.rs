//! The facade of the engine: what a server, an embedder or a test sees of Sepal.
//!
//! # A write's way
//! 1. The server authenticates with [`Database::control`] and asks [`Database::connect`] for a [`Session`]
//!    bound to one [`Principal`]: one tenant, one environment.
//! 2. [`Session::prepare`] plans; [`Session::execute`] runs against the transaction's view and collects
//!    `sepal_storage::Op`s.
//! 3. What it replaces, and the keys it adds, are locked (`locks`) until the transaction ends.
//! 4. At the end of the transaction `TenantStore::commit` makes them durable as one log record and visible.
//! 5. `maintain` flushes to sealed segments, builds their vector indexes and trims the log, in the background.
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
mod background;
pub mod backup;
mod blocking;
mod builds;
mod check;
pub mod connector;
mod database;
mod delivery;
mod directory_lock;
#[cfg(test)]
mod fixtures;
pub mod keys;
mod locks;
mod maintain;
mod options;
mod pipeline;
mod repair;
mod room;
pub mod rotation;
pub mod sealing;
mod session;
mod statistics;
mod tenant;
mod tenants;
#[cfg(test)]
mod tests;
mod usage;
mod write_memory;

pub use check::{CheckListener, CheckProgress, CheckRequest, CheckSummary, Problem, Severity, check};
pub use database::{Database, DatabaseMetrics, PLANNING_STACK};
pub use options::{DatabaseOptions, SecretSources};
pub use repair::{RepairProposal, RepairRequest, Repaired, plan_repair};
pub use session::{
    CancelToken, CopyIn, CopyOut, NamedStatement, NamedStatements, Notice, Outcome, Prepared, RowStream,
    Session, TransactionStatus, snapshot_too_old,
};

pub use sepal_control::{
    ApiKey, AuditAction, AuditCheckpoint, AuditEntry, AuditEvent, AuditReport, Certificate, Control,
    ControlError, ControlOptions, Destroyed, DestructionCertificate, EnvNames, Environment, EnvironmentName,
    Grantable, KeyCacheStats, KeyFileError, KeyFiles, KeyWrapper, MAX_SECRET_BYTES, NewAuditEvent,
    NewCertificate, NewSecret, OPERATOR, PUBLIC, Passphrase, Principal, Provider, RecoveryKey, RecoveryShare,
    RecoveryStatus, Removal, RootKeyError, RootStatus, RootStore, Scope, Scopes, Secret, SecretChange,
    SecretName, SecretOrigin, SecretUse, Tenant, TenantKeyStatus, TenantName, Token, WrapperError, Wrappers,
    check_passphrase, is_sensitive_name, open_recovery_package, root_key,
};
pub use sepal_crypto::{Key, KeyRing, LockedMemory, PassphraseCost, ed25519, locked_memory, scram};
pub use sepal_query::{
    CopyFormat, CopyHeader, CopyKind, Zone,
    output::OutputColumn,
    sql::{Statement, delivery::redact},
    values,
};
pub use sepal_storage::{FileRotation, HistoryPolicy, Loss, arrow_type};
pub use sepal_types::{
    Error, ErrorKind, Metric, Result, SqlState, SqlType, TenantId, check_finite, civil_from_days,
    format_float4, format_float8, format_vector, limits, parse_vector,
};
