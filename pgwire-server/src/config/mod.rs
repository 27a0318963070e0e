//! What a server runs with, and where each value came from.
//!
//! Defaults, then the TOML file, then `SEPAL_*` variables, then flags: the later wins. The file is the one
//! named by `--config` or `SEPAL_CONFIG`, else `sepal.toml` in the data directory. No value here is a
//! secret: keys are named by the file that holds them. Read by every command that starts a server and
//! printed by `sepal config`.

pub mod files;
mod memory;

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Env, Format, Toml},
    value::{Dict, Map, Value},
};
use sepal_database::{EnvNames, HistoryPolicy, SecretSources};
use serde::{Deserialize, Serialize};

use crate::certificates::CertificateFiles;

/// Every setting, with `SEPAL_<NAME>` and `--<name>` for each. Paths are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Where Postgres clients connect; port 0 lets the system choose.
    pub pg_listen: SocketAddr,
    /// Where health and metrics are served.
    pub http_listen: SocketAddr,
    /// The file with the root key; `None`: `root.key` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_key_file: Option<PathBuf>,
    /// The file with the passphrase, PIN or token that the root key's provider asks for; `-`: standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_secret_file: Option<PathBuf>,
    /// PEM certificate chain; `None`: the one that `sepal init` made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// PEM private key of `tls_cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Accept clients without TLS, on a loopback address only.
    pub insecure_plaintext: bool,
    /// Accept TLS 1.2 besides 1.3.
    pub tls12: bool,
    /// Connections in total.
    pub max_connections: u32,
    /// Connections of one tenant.
    pub max_connections_per_tenant: u32,
    /// How long a session waits awake, using a core, for a client that comes back as soon, in microseconds; 0: never.
    pub busy_poll_us: u64,
    /// Memory for opened columns, in MiB. A server's default grows with the machine ([`Config::of_this_machine`]).
    pub cache_mib: u64,
    /// Memory that one tenant's COPYs under way and open transactions may hold, in MiB.
    pub tenant_write_mib: u64,
    /// Of `cache_mib`, what one tenant may hold, in MiB; 0: all of it, while nobody else needs its part.
    pub tenant_cache_mib: u64,
    /// Memory that one tenant's sorts, joins and aggregates may hold, in MiB.
    pub tenant_query_mib: u64,
    /// Memory that those of all tenants may hold together, in MiB.
    pub query_mib: u64,
    /// Disk that one tenant's queries may use for what does not fit into that memory, in MiB; 0: they fail.
    pub tenant_spill_mib: u64,
    /// Committed rows of one tenant that are not flushed yet, in MiB; its writers wait above that.
    pub tenant_memtable_mib: u64,
    /// Those of all tenants, in MiB; who has most is flushed above that.
    pub memtable_mib: u64,
    /// Disk that a tenant without a quota of its own may take, in MiB; 0: as much as there is.
    pub tenant_disk_mib: u64,
    /// What compactions of all tenants may read and write in a second, in MiB, a quarter of it while statements run;
    /// 0: no limit.
    pub compaction_mib_per_second: u64,
    /// Compactions that run at once, and as many index builds in the background; 0: a quarter of the cores.
    pub maintenance_threads: u32,
    /// Memory that index builds of all tenants may take at once beside rows, in MiB; they wait for each other beyond.
    pub index_build_mib: u64,
    /// Open tenants above which those that nobody needs are closed at once.
    pub max_open_tenants: u32,
    /// How long a tenant without sessions and pipelines stays open, in seconds.
    pub idle_tenant_seconds: u64,
    /// How long every tenant's past can be read without a name, in minutes; 0: not at all.
    pub history_minutes: u64,
    /// At most so many checkpoints of a tenant's past, whatever their age.
    pub history_versions: u64,
    /// Disk that one tenant's past may take, named snapshots aside, in MiB; beyond, the oldest of it goes.
    pub history_max_mib: u64,
    /// How long a transaction may hold its snapshot, and a result what it reads, in minutes; 0: for ever.
    pub max_snapshot_minutes: u64,
    /// How long a shutdown waits for running statements, in seconds.
    pub shutdown_seconds: u64,
    /// What secrets are called as environment variables, and what happens when two are called the same.
    pub secret_names: SecretNames,
    /// Secrets may name variables of the server's environment that begin with this; `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env_source: Option<String>,
    /// Secrets may name files below this directory; `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file_root: Option<PathBuf>,
    /// Networks that plugins and sinks may reach although they are not public, as `10.0.0.0/8, ::1/128`.
    pub private_networks: String,
    /// PEM authorities that plugins' and sinks' TLS trusts beside the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_ca_file: Option<PathBuf>,
    /// Where plugins of tenants run.
    pub plugin_isolation: PluginIsolation,
    /// An environment without trust keys takes plugins that nobody signed.
    pub allow_unsigned_plugins: bool,
    /// Plugins that ask for it may see the values of the secrets they are given.
    pub allow_reveal: bool,
    /// Log that one tenant's pipelines may keep from being trimmed, in MiB.
    pub pipeline_retention_mib: u64,
    /// The sink `file` writes below this directory; `None`: there is no such sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink_file_root: Option<PathBuf>,
    /// Where backups go: a directory or `s3://bucket/prefix`; `None`: the server makes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_repository: Option<String>,
    /// When: `daily 03:00` (UTC), `hourly`, `every 6h`, or `off`.
    pub backup_schedule: String,
    /// From one carrying over of the log to the next, in seconds: what a lost machine loses at most.
    pub backup_archive_seconds: u64,
    /// So many backups are kept, and those of so many days.
    pub backup_keep_last: u64,
    pub backup_keep_days: u64,
    /// Restore the newest backup to the side when that was not done for so many days; 0: never.
    pub backup_verify_days: u64,
    /// Warn when no backup was verified for so many days; 0: never.
    pub backup_alert_days: u64,
    /// MiB per second that backups may move; 0: as it goes.
    pub backup_rate_mib: u64,
    /// Which events are logged, as `RUST_LOG` writes it; `None`: `RUST_LOG`, else `info`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    pub log_format: LogFormat,
}

/// A server's cache takes this part of the memory that there is, as PostgreSQL's documentation says of `shared_buffers`
/// (19.4.1). The rest is for queries, writes, builds, and the system's own cache of files.
const CACHE_PART: u64 = 4;
/// Of little memory, too: it is a bound, not what is taken at once.
const LEAST_CACHE_MIB: u64 = 1024;

/// What stands between a plugin and the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PluginIsolation {
    /// A worker process for each tenant, without keys, secrets or network.
    #[default]
    Process,
    /// WASM's own sandbox, in the server's process: for development.
    None,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    Text,
    Json,
}

/// A rule for names of environment variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SecretNames {
    /// `SEPAL_SECRET_`; a secret that would be the variable of another is refused.
    #[default]
    Sepal,
    /// `VF_SECRET_`, as VectorFlow has it; two secrets may be one variable, with a warning.
    Vf,
}

impl SecretNames {
    pub fn rule(self) -> EnvNames {
        match self {
            Self::Sepal => EnvNames::SEPAL,
            Self::Vf => EnvNames::VF,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("sepal-data"),
            pg_listen: SocketAddr::from(([127, 0, 0, 1], 5433)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            root_key_file: None,
            root_secret_file: None,
            tls_cert: None,
            tls_key: None,
            insecure_plaintext: false,
            tls12: false,
            max_connections: 1_000,
            max_connections_per_tenant: 400,
            busy_poll_us: 100,
            cache_mib: LEAST_CACHE_MIB,
            tenant_write_mib: 4096,
            tenant_cache_mib: 0,
            tenant_query_mib: 1024,
            query_mib: 4096,
            tenant_spill_mib: 4096,
            tenant_memtable_mib: 512,
            compaction_mib_per_second: 64,
            maintenance_threads: 0,
            index_build_mib: 4096,
            memtable_mib: 2048,
            tenant_disk_mib: 0,
            max_open_tenants: 1024,
            idle_tenant_seconds: 300,
            history_minutes: 60,
            history_versions: 64,
            history_max_mib: 4096,
            max_snapshot_minutes: 1440,
            shutdown_seconds: 10,
            secret_names: SecretNames::Sepal,
            secret_env_source: None,
            secret_file_root: None,
            private_networks: String::new(),
            plugin_ca_file: None,
            plugin_isolation: PluginIsolation::Process,
            allow_unsigned_plugins: false,
            allow_reveal: false,
            pipeline_retention_mib: 1024,
            sink_file_root: None,
            backup_repository: None,
            backup_schedule: "daily 03:00".into(),
            backup_archive_seconds: 60,
            backup_keep_last: 7,
            backup_keep_days: 30,
            backup_verify_days: 0,
            backup_alert_days: 7,
            backup_rate_mib: 0,
            log: None,
            log_format: LogFormat::Auto,
        }
    }
}

impl Config {
    /// The defaults of a server: those that depend on the machine, too.
    pub fn of_this_machine() -> Self {
        Self { cache_mib: cache_mib(memory::allowed_bytes()), ..Self::default() }
    }

    /// The root key's file.
    pub fn root_key_path(&self) -> PathBuf {
        self.root_key_file.clone().unwrap_or_else(|| self.data.join("root.key"))
    }

    /// The certificate that the server shows.
    pub fn certificate_files(&self) -> CertificateFiles {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                CertificateFiles { certificate: certificate.clone(), key: key.clone(), authority: None }
            }
            _ => CertificateFiles::made_in(&self.data),
        }
    }

    /// Addresses outside loopback that a made certificate should cover.
    pub fn certificate_addresses(&self) -> Vec<IpAddr> {
        vec![self.pg_listen.ip()]
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(ConfigError("tls_cert and tls_key belong together: set both, or neither".into()));
        }
        if self.insecure_plaintext && !self.pg_listen.ip().is_loopback() {
            return Err(ConfigError(format!(
                "insecure_plaintext is for loopback only, but pg_listen is {}: listen on 127.0.0.1, or drop \
                 insecure_plaintext and use TLS",
                self.pg_listen
            )));
        }
        if self.max_connections == 0 || self.max_connections_per_tenant == 0 {
            return Err(ConfigError(
                "max_connections and max_connections_per_tenant must be at least 1".into(),
            ));
        }
        if self.pipeline_retention_mib == 0 {
            return Err(ConfigError(
                "pipeline_retention_mib must be at least 1: no pipeline could follow its table".into(),
            ));
        }
        sepal_plugins::egress::parse_networks(&self.private_networks)
            .map_err(|why| ConfigError(format!("private_networks: {why}")))?;
        if self.maintenance_threads > MOST_THREADS {
            return Err(ConfigError(format!(
                "maintenance_threads is {}, but may be {MOST_THREADS} at most: each compaction and index build uses \
                 the cores that are there",
                self.maintenance_threads
            )));
        }
        self.check_budgets()?;
        self.backup_settings()?;
        self.check_secret_sources()
    }

    /// Where 0 does not mean "no limit", it would mean that nothing works.
    fn check_budgets(&self) -> Result<(), ConfigError> {
        for (name, value, otherwise) in [
            ("tenant_write_mib", self.tenant_write_mib, "nothing could be written"),
            ("tenant_query_mib", self.tenant_query_mib, "nothing could be sorted or joined"),
            ("query_mib", self.query_mib, "nothing could be sorted or joined"),
            ("tenant_memtable_mib", self.tenant_memtable_mib, "every write would wait"),
            ("memtable_mib", self.memtable_mib, "every commit would be flushed"),
            ("index_build_mib", self.index_build_mib, "no two indexes could be built at once"),
            ("max_open_tenants", u64::from(self.max_open_tenants), "no tenant could stay open"),
        ] {
            if value == 0 {
                return Err(ConfigError(format!("{name} must be at least 1: {otherwise}")));
            }
        }
        Ok(())
    }

    /// What backups of a server are made by; `None` without a repository.
    pub fn backup_settings(&self) -> Result<Option<sepal_backup::Settings>, ConfigError> {
        let refused = |name: &str, error: sepal_database::Error| {
            let hint = error.hint().map(|hint| format!(". {hint}")).unwrap_or_default();
            ConfigError(format!("{name}: {}{hint}", error.message()))
        };
        let schedule = sepal_backup::Schedule::parse_or_off(&self.backup_schedule)
            .map_err(|error| refused("backup_schedule", error))?;
        if self.backup_archive_seconds == 0 {
            return Err(ConfigError("backup_archive_seconds must be at least 1".into()));
        }
        let Some(repository) = &self.backup_repository else { return Ok(None) };
        Ok(Some(sepal_backup::Settings {
            location: repository.parse().map_err(|error| refused("backup_repository", error))?,
            archive: std::time::Duration::from_secs(self.backup_archive_seconds),
            schedule,
            retention: sepal_backup::Retention {
                keep_last: self.backup_keep_last,
                keep_days: self.backup_keep_days,
                ..sepal_backup::Retention::default()
            },
            verify_days: self.backup_verify_days,
            alert_days: self.backup_alert_days,
            bytes_per_second: Some(self.backup_rate_mib.saturating_mul(1 << 20)),
        }))
    }

    fn check_secret_sources(&self) -> Result<(), ConfigError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if let Some(prefix) = &self.secret_env_source
            && (prefix.is_empty() || !prefix.chars().all(plain))
        {
            return Err(ConfigError(format!(
                "secret_env_source is \"{prefix}\", but must be the beginning of variables' names, such as \
                 APP_SECRET_: an empty one would open the whole environment"
            )));
        }
        if let Some(root) = &self.secret_file_root
            && root.as_os_str().is_empty()
        {
            return Err(ConfigError("secret_file_root is empty: name a directory, or leave it out".into()));
        }
        Ok(())
    }

    /// How much of the past stays, for the database.
    pub fn history(&self) -> HistoryPolicy {
        let minutes = i64::try_from(self.history_minutes).unwrap_or(i64::MAX);
        HistoryPolicy {
            keep_us: minutes.saturating_mul(60_000_000),
            keep_versions: usize::try_from(self.history_versions).unwrap_or(usize::MAX),
            max_bytes: self.history_max_mib.saturating_mul(1 << 20),
        }
    }

    /// How long a snapshot may be held, for the database.
    pub fn max_snapshot_age(&self) -> Option<Duration> {
        let limit = Duration::from_secs(self.max_snapshot_minutes.saturating_mul(60));
        Some(limit).filter(|limit| !limit.is_zero())
    }

    /// Where secrets may come from, for the database.
    pub fn secret_sources(&self) -> SecretSources {
        SecretSources {
            env_prefix: self.secret_env_source.clone(),
            file_root: self.secret_file_root.clone(),
            names: self.secret_names.rule(),
        }
    }
}

fn cache_mib(memory_bytes: Option<u64>) -> u64 {
    (memory_bytes.unwrap_or(0) / CACHE_PART / (1 << 20)).max(LEAST_CACHE_MIB)
}

/// A configuration that cannot be used; the text says which value, from where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// A [`Config`] that remembers where its values came from.
pub struct Sourced {
    pub config: Config,
    /// Variables of the environment that look like settings and are none.
    pub ignored: Vec<String>,
    figment: Figment,
}

/// Reads the configuration. `flags` holds only what was given on the command line; `defaults` is what the
/// command uses where nothing is said.
pub fn load(defaults: &Config, flags: &impl Serialize, file: Option<&Path>) -> Result<Sourced, ConfigError> {
    let flags = Layer::of("flag", flags)?;
    let defaults = Layer::of("default", defaults)?;
    let names = defaults.values.keys().map(String::as_str).chain(OPTIONAL).collect::<Vec<_>>();
    let environment = Env::prefixed("SEPAL_").only(&names);
    let named = file.map(Path::to_path_buf).or_else(|| std::env::var_os("SEPAL_CONFIG").map(PathBuf::from));
    let toml = match named {
        Some(path) if !path.is_file() => {
            return Err(ConfigError(format!(
                "no configuration file {}: name an existing file with --config or SEPAL_CONFIG",
                path.display()
            )));
        }
        Some(path) => Some(path),
        None => {
            let without_file = Figment::from(&defaults).merge(&environment).merge(&flags);
            let data: PathBuf = without_file.extract_inner("data").map_err(explain)?;
            Some(data.join("sepal.toml")).filter(|path| path.is_file())
        }
    };
    let mut figment = Figment::from(&defaults);
    if let Some(path) = toml {
        figment = figment.merge(Toml::file_exact(path));
    }
    let figment = figment.merge(&environment).merge(&flags);
    let config: Config = figment.extract().map_err(explain)?;
    config.check()?;
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ignored = ignored(variables, &names, config.secret_env_source.as_deref());
    Ok(Sourced { config, ignored, figment })
}

/// Variables that begin as settings do and are none: likely mistyped. What else begins so: the file's name, values of
/// secrets, what commands other than the server read.
fn ignored(variables: impl Iterator<Item = String>, names: &[&str], source: Option<&str>) -> Vec<String> {
    let is_known = |name: &str| {
        let other = ["config", "token", "bin"].contains(&name);
        other || ["secret_", "test_"].iter().any(|begin| name.starts_with(begin)) || names.contains(&name)
    };
    let is_ignored = |variable: &String| {
        let value = source.is_some_and(|source| variable.starts_with(source));
        let name = variable.strip_prefix("SEPAL_").map(str::to_ascii_lowercase);
        name.is_some_and(|name| !is_known(&name)) && !value
    };
    let mut ignored: Vec<String> = variables.filter(is_ignored).collect();
    ignored.sort();
    ignored
}

/// Threads for work in the background: more than any machine has cores for.
const MOST_THREADS: u32 = 512;

/// Names without a default value, so that `defaults` does not list them.
const OPTIONAL: [&str; 10] = [
    "root_key_file",
    "root_secret_file",
    "tls_cert",
    "tls_key",
    "secret_env_source",
    "secret_file_root",
    "plugin_ca_file",
    "sink_file_root",
    "backup_repository",
    "log",
];

impl Sourced {
    /// The effective values as TOML, each with its source as a comment. Reading it back gives the same
    /// configuration.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        let table = toml::Table::try_from(&self.config).map_err(|error| ConfigError(error.to_string()))?;
        let lines: Vec<(String, String)> =
            table.iter().map(|(name, value)| (format!("{name} = {value}"), self.source_of(name))).collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for (line, source) in lines {
            let _ = writeln!(out, "{line:width$}  # {source}");
        }
        for name in OPTIONAL.iter().filter(|name| !table.contains_key(**name)) {
            let _ = writeln!(out, "# {name}: not set{}", meaning_of_unset(name));
        }
        Ok(out)
    }

    fn source_of(&self, name: &str) -> String {
        let Some(metadata) = self.figment.find_metadata(name) else { return "default".into() };
        if let Some(path) = metadata.source.as_ref().and_then(|source| source.file_path()) {
            return format!("file {}", path.display());
        }
        match metadata.name.as_ref() {
            "flag" => format!("flag --{}", name.replace('_', "-")),
            "default" => "default".into(),
            _ => format!("environment SEPAL_{}", name.to_ascii_uppercase()),
        }
    }
}

fn meaning_of_unset(name: &str) -> &'static str {
    match name {
        "root_key_file" => " (root.key in the data directory)",
        "root_secret_file" => " (systemd's credential sepal-root-secret, where one is asked for)",
        "tls_cert" => " (tls/server.crt in the data directory)",
        "tls_key" => " (tls/server.key in the data directory)",
        "secret_env_source" => " (no variable may be named)",
        "secret_file_root" => " (no file may be named)",
        "plugin_ca_file" => " (public authorities only)",
        "sink_file_root" => " (no sink writes files)",
        "backup_repository" => " (no backups are made)",
        "log" => " (RUST_LOG, else info)",
        _ => "",
    }
}

/// figment's errors name the key and its source; we add what to do.
fn explain(error: figment::Error) -> ConfigError {
    let mut text = error.into_iter().map(|error| error.to_string()).collect::<Vec<_>>().join("; ");
    text.push_str(". `sepal serve --help` tells what each setting takes");
    ConfigError(text)
}

/// A named set of values.
struct Layer {
    name: &'static str,
    values: Dict,
}

impl Layer {
    fn of(name: &'static str, values: &impl Serialize) -> Result<Self, ConfigError> {
        let value = Value::serialize(values).map_err(explain)?;
        Ok(Self { name, values: value.into_dict().unwrap_or_default() })
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

#[cfg(test)]
mod tests;
