//! What a database is opened with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sepal_control::{EnvNames, KeyFiles, RootStore, Wrappers};
use sepal_crypto::Key;
use sepal_storage::HistoryPolicy;

use crate::connector::Connectors;

/// Everything has a default but where and with which key.
pub struct DatabaseOptions {
    pub data_dir: PathBuf,
    pub root_key: Key,
    /// Where the root key is kept, so that it can be replaced. `None`: it cannot.
    pub root_store: Option<Arc<RootStore>>,
    /// Reaches the providers that tenants brought for their keys.
    pub wrappers: Arc<dyn Wrappers>,
    /// Bytes that decoded columns, opened indexes and what filters keep may hold in memory, of all tenants together.
    pub cache_bytes: usize,
    /// Bytes of those caches that one tenant may hold; 0: all of them, while nobody else needs its part.
    pub tenant_cache_bytes: usize,
    /// Bytes that one tenant's sorts, joins and aggregates may hold in memory at once.
    pub query_memory_bytes: usize,
    /// The same of all tenants together.
    pub total_query_memory_bytes: usize,
    /// Bytes that one tenant's queries may put aside on disk, sealed, when they do not fit into memory; 0: they fail.
    pub spill_bytes: u64,
    /// Files that the queries of all tenants may have open for that.
    pub spill_files: usize,
    /// Bytes that one tenant's unfinished writes may hold at once: COPYs under way and open transactions.
    pub write_memory_bytes: usize,
    /// Bytes of one tenant's committed rows that are not flushed yet, above which its writers wait for a flush.
    pub unflushed_bytes: u64,
    /// Bytes of all tenants' together, above which the one with most is flushed.
    pub total_unflushed_bytes: u64,
    /// Bytes that a tenant's files may have, where it has no quota of its own; 0: as many as fit.
    pub tenant_disk_bytes: u64,
    /// Open tenants above which those that nobody needs are closed at once.
    pub max_open_tenants: usize,
    /// A tenant without sessions and pipelines is closed after that.
    pub idle_tenant: Duration,
    /// Log bytes of one tenant after which its rows are flushed to segments.
    pub wal_segment_bytes: u64,
    /// Bytes that compactions of all tenants may read and write in a second; 0: no limit. A quarter while statements
    /// run.
    pub compaction_bytes_per_second: u64,
    /// Compactions that run at once, and as many builds of indexes that segments lack, of all tenants.
    pub maintenance_threads: usize,
    /// Bytes that index builds of all tenants may take at once, beside rows; they wait for each other beyond. One alone
    /// always runs.
    pub index_build_bytes: u64,
    /// Threads for index builds and for one query's scans.
    pub threads: usize,
    /// Log bytes that a tenant's pipelines may keep from being trimmed; one that falls further behind stops.
    pub log_retention_bytes: u64,
    /// How much of every tenant's past stays.
    pub history: HistoryPolicy,
    /// Connections that one tenant may have, for SHOW: whoever lets clients in counts them.
    pub max_connections: usize,
    /// How long a transaction may hold a snapshot, and a result that is being sent what it reads; `None`: for ever.
    pub max_snapshot_age: Option<Duration>,
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
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            data_dir,
            root_key,
            root_store: None,
            wrappers: Arc::new(KeyFiles),
            cache_bytes,
            tenant_cache_bytes: 0,
            query_memory_bytes: 1 << 30,
            total_query_memory_bytes: 4 << 30,
            spill_bytes: 4 << 30,
            spill_files: 1024,
            write_memory_bytes: 1 << 30,
            unflushed_bytes: 512 << 20,
            total_unflushed_bytes: 2 << 30,
            tenant_disk_bytes: 0,
            max_open_tenants: 1024,
            idle_tenant: Duration::from_mins(5),
            wal_segment_bytes: 64 << 20,
            compaction_bytes_per_second: 64 << 20,
            maintenance_threads: (threads / 4).clamp(1, 4),
            index_build_bytes: 4 << 30,
            threads,
            log_retention_bytes: 1 << 30,
            history: HistoryPolicy::default(),
            max_connections: 100,
            max_snapshot_age: Some(Duration::from_hours(24)),
            archive_logs: false,
            connectors: None,
            secret_sources: SecretSources::default(),
            allow_unsigned_plugins: false,
            allow_reveal: false,
        }
    }
}
