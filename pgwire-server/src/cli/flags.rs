//! Flags that several commands share. Each is also a setting of [`crate::config::Config`] under the same name.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use serde::Serialize;

use crate::config::{self, Config, LogFormat, PluginIsolation, SecretNames, Sourced};

use super::failure::Failure;

/// Which data directory.
#[derive(Args, Serialize, Default)]
pub struct DataFlags {
    /// Data directory [default: sepal-data; of dev: sepal-dev; of demo: a temporary one] [env: SEPAL_DATA]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// TOML file with settings [default: sepal.toml in the data directory] [env: SEPAL_CONFIG]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

impl DataFlags {
    /// The data directory that these flags, the environment and the file name.
    pub fn data(&self) -> Result<PathBuf, Failure> {
        Ok(config::load(&Config::default(), self, self.config.as_deref())?.config.data)
    }
}

/// Everything a server can be told.
#[derive(Args, Serialize, Default)]
pub struct ServerFlags {
    #[command(flatten)]
    #[serde(flatten)]
    pub data: DataFlags,
    /// Where Postgres clients connect; port 0 lets the system choose [default: 127.0.0.1:5433]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pg_listen: Option<SocketAddr>,
    /// Where health and metrics are served [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<SocketAddr>,
    /// File with the root key, mode 0600 [default: root.key in the data directory]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_key_file: Option<PathBuf>,
    /// File with the passphrase, PIN or token that opens the root key, mode 0600; - for standard input [default:
    /// systemd's credential sepal-root-secret]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_secret_file: Option<PathBuf>,
    /// PEM certificate chain of your own [default: the one that init made]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// PEM private key of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Accept clients without TLS; only on a loopback address
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    pub insecure_plaintext: bool,
    /// Accept TLS 1.2 besides 1.3 [default: false]
    #[arg(long, value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls12: Option<bool>,
    /// Connections in total [default: 1000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Connections of one tenant [default: 400]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections_per_tenant: Option<u32>,
    /// How long a session waits awake for a client that comes back as soon, in microseconds, the processor of a client
    /// on this machine with it; 0: never [default: 100]
    #[arg(long, value_name = "MICROSECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_poll_us: Option<u64>,
    /// Memory for opened columns of all tenants, in MiB [default: a quarter of the machine's or the control group's
    /// memory, 1024 at least]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_mib: Option<u64>,
    /// Memory that one tenant's COPYs under way and open transactions may hold, in MiB [default: 4096]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_write_mib: Option<u64>,
    #[command(flatten)]
    #[serde(flatten)]
    pub budgets: BudgetFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub history: HistoryFlags,
    /// How long a shutdown waits for running statements [default: 10]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_seconds: Option<u64>,
    /// What secrets are called as environment variables: SEPAL_SECRET_..., or VF_SECRET_... where two may be the
    /// same one [default: sepal]
    #[arg(long, value_name = "RULE", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_names: Option<SecretNames>,
    /// Let secrets name variables of the server's environment that begin with this [default: none]
    #[arg(long, value_name = "PREFIX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env_source: Option<String>,
    /// Let secrets name files below this directory [default: none]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file_root: Option<PathBuf>,
    /// Networks that plugins and sinks may reach although not public, as 10.0.0.0/8,::1/128 [default: none; of dev and
    /// demo: loopback]
    #[arg(long, value_name = "NETWORKS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_networks: Option<String>,
    /// PEM authorities that plugins and sinks trust beside the public ones
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_ca_file: Option<PathBuf>,
    /// Where plugins of tenants run; none is for development [default: process]
    #[arg(long, value_name = "HOW", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_isolation: Option<PluginIsolation>,
    /// Take plugins that nobody signed, where an environment has no trust keys [default: false; of dev: true]
    #[arg(long, value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_unsigned_plugins: Option<bool>,
    /// Let plugins that ask for it see the values of their secrets [default: false]
    #[arg(long, value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_reveal: Option<bool>,
    /// Log that one tenant's pipelines may keep from being trimmed, in MiB [default: 1024]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_retention_mib: Option<u64>,
    /// Let the sink `file` write below this directory [default: none]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink_file_root: Option<PathBuf>,
    /// Where backups go: a directory, or s3://bucket/prefix [default: none are made]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_repository: Option<String>,
    /// When backups are made: "daily 03:00" (UTC), hourly, "every 6h", off [default: daily 03:00]
    #[arg(long, value_name = "WHEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_schedule: Option<String>,
    /// How often the log is carried to the backups: what a lost machine loses at most [default: 60]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_archive_seconds: Option<u64>,
    /// So many of the newest backups are kept [default: 7]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_keep_last: Option<u64>,
    /// Backups of so many days are kept [default: 30]
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_keep_days: Option<u64>,
    /// Try the newest backup by restoring it to the side every so many days [default: 0, never]
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_verify_days: Option<u64>,
    /// Warn when no backup was verified for so many days, 0 for never [default: 7]
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_alert_days: Option<u64>,
    /// MiB per second that backups may move [default: 0, as it goes]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_rate_mib: Option<u64>,
    /// Which events are logged, as RUST_LOG writes it [default: RUST_LOG, else info; of dev and demo: warn] [env:
    /// SEPAL_LOG]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// How log lines look [default: auto, text on a terminal and JSON elsewhere]
    #[arg(long, value_name = "FORMAT", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

/// What tenants may hold.
#[derive(Args, Serialize, Default)]
pub struct BudgetFlags {
    /// Of --cache-mib, what one tenant may hold; 0 for all of it, while nobody else needs its part [default: 0]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_cache_mib: Option<u64>,
    /// Memory for one tenant's sorts, joins and aggregates, in MiB [default: 1024]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_query_mib: Option<u64>,
    /// Memory for those of all tenants together, in MiB [default: 4096]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_mib: Option<u64>,
    /// Disk for what one tenant's queries cannot keep in memory, sealed, in MiB; 0: they fail [default: 4096]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_spill_mib: Option<u64>,
    /// Committed rows of one tenant that are not flushed, in MiB; its writers wait above that [default: 512]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_memtable_mib: Option<u64>,
    /// Those of all tenants, in MiB; who has most is flushed above that [default: 2048]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memtable_mib: Option<u64>,
    /// Disk for a tenant without a quota of its own, in MiB; 0: as much as there is [default: 0]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_disk_mib: Option<u64>,
    /// What compactions may read and write in a second, in MiB, a quarter under load; 0: no limit [default: 64]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction_mib_per_second: Option<u64>,
    /// Compactions at once, and index builds in the background; 0: a quarter of the cores [default: 0]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_threads: Option<u32>,
    /// Memory that index builds of all tenants may take at once beside rows, in MiB [default: 4096]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_build_mib: Option<u64>,
    /// Open tenants above which those that nobody needs are closed at once [default: 1024]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_tenants: Option<u32>,
    /// How long a tenant without sessions and pipelines stays open [default: 300]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_tenant_seconds: Option<u64>,
}

/// How much of the past stays.
#[derive(Args, Serialize, Default)]
pub struct HistoryFlags {
    /// How long every tenant's past can be read without a name [default: 60]
    #[arg(long, value_name = "MINUTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_minutes: Option<u64>,
    /// At most so many checkpoints of a tenant's past, whatever their age [default: 64]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_versions: Option<u64>,
    /// Disk that one tenant's past may take, named snapshots aside, in MiB [default: 4096]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_max_mib: Option<u64>,
    /// How long a transaction may hold its snapshot, and a result what it reads; 0 for ever [default: 1440]
    #[arg(long, value_name = "MINUTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_snapshot_minutes: Option<u64>,
}

impl ServerFlags {
    /// The settings of a command whose own defaults are `defaults`.
    pub fn load(&self, defaults: &Config) -> Result<Sourced, Failure> {
        Ok(config::load(defaults, self, self.data.config.as_deref())?)
    }
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// For commands that print data.
#[derive(Args)]
pub struct JsonFlag {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
