//! What a database is opened with.

use std::{path::PathBuf, sync::Arc};

use sepal_control::EnvNames;
use sepal_crypto::Key;

use crate::connector::Connectors;

/// Everything has a default but where and with which key.
pub struct DatabaseOptions {
    pub data_dir: PathBuf,
    pub root_key: Key,
    /// Bytes that decoded columns and opened indexes of all tenants may hold in memory, together.
    pub cache_bytes: usize,
    /// Bytes that one tenant's sorts, joins and aggregates may hold at once.
    pub query_memory_bytes: usize,
    /// Bytes that one tenant's unfinished writes may hold at once: COPYs under way and open transactions.
    pub write_memory_bytes: usize,
    /// Log bytes of one tenant after which its rows are flushed to segments.
    pub wal_segment_bytes: u64,
    /// Threads for index builds and for one query's scans.
    pub threads: usize,
    /// Log bytes that a tenant's pipelines may keep from being trimmed; one that falls further behind stops.
    pub log_retention_bytes: u64,
    /// Somebody copies tenants' logs away (`backup::OpenLog`): from a tenant's opening on, its log is kept for that.
    pub archive_logs: bool,
    /// What runs plugins and reaches destinations. `None`: statements about plugins and sinks answer 0A000.
    pub connectors: Option<Arc<dyn Connectors>>,
    pub secret_sources: SecretSources,
    /// An environment without trust keys takes plugins that nobody signed: for development.
    pub allow_unsigned_plugins: bool,
    /// Plugins that ask for it may see the values of the secrets they are given.
    pub allow_reveal: bool,
}

/// Where secrets may come from besides the control database, and what they are called as environment variables. The
/// operator decides: a tenant that could name a variable or a file of the server could read it.
#[derive(Clone, Debug, Default)]
pub struct SecretSources {
    /// Variables of the server's environment that begin with this may be named; `None`: none may.
    pub env_prefix: Option<String>,
    /// Files below this directory may be named; `None`: none may.
    pub file_root: Option<PathBuf>,
    pub names: EnvNames,
}

impl DatabaseOptions {
    pub fn new(data_dir: PathBuf, root_key: Key, cache_bytes: usize) -> Self {
        Self {
            data_dir,
            root_key,
            cache_bytes,
            query_memory_bytes: 1 << 30,
            write_memory_bytes: 1 << 30,
            wal_segment_bytes: 64 << 20,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            log_retention_bytes: 1 << 30,
            archive_logs: false,
            connectors: None,
            secret_sources: SecretSources::default(),
            allow_unsigned_plugins: false,
            allow_reveal: false,
        }
    }
}
