//! A running server: the database, its three listeners (Postgres, HTTP, admin socket) and their end.
//!
//! `serve`, `dev` and `demo` start one of these. Order matters: configuration errors come before anything is
//! opened, the data directory's lock before the admin socket is touched, and clients are drained before the
//! database closes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use prometheus::Registry;
use sepal_database::{Database, DatabaseOptions, Error, Key, RootStore, SqlState};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Answer, Endpoint, Request, Status, server::AdminSocket},
    backups::Backups,
    config::Config,
    http,
    metrics::WireMetrics,
    plugins,
    root_key::{self, ServerWrappers},
    server::{self, Limits, ServeOptions},
    tls::TlsConfig,
};

use super::{descriptors, failure::Failure, hardened, output, version::VERSION};

/// Files that are open besides those of connections, queries and tenants: segments being read and written,
/// the control database, sockets.
const OTHER_DESCRIPTORS: usize = 256;

/// Temporary files that queries may have open.
const MOST_SPILL_FILES: usize = 1024;

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// A server that accepts clients. Stop it with [`Running::stop`].
pub struct Running {
    pub config: Config,
    pub database: Arc<Database>,
    /// Where Postgres clients connect: with the real port where 0 was asked for.
    pub pg: SocketAddr,
    pub http: SocketAddr,
    backups: Arc<Backups>,
    status: Status,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    /// Starts serving. Everything is ready when this returns.
    pub async fn start(config: Config) -> Result<Self, Failure> {
        let (root_key, root_store) = open_root(&config).await?;
        let tls = tls(&config)?;
        let (limits, spill_files) = limits(&config)?;
        let connectors = plugins::connectors(&config, &root_key).map_err(Failure::configuration)?;
        let mut options = database_options(&config, root_key);
        options.spill_files = spill_files;
        options.max_connections = limits.max_connections_per_tenant.min(limits.max_connections);
        options.root_store = Some(Arc::new(root_store));
        options.connectors = Some(connectors);
        let backup_settings = config.backup_settings()?;
        options.archive_logs = backup_settings.is_some();
        let database = tokio::task::spawn_blocking(move || Database::open(options))
            .await
            .map_err(|error| Failure::failed(format!("opening the database: {error}")))?
            .map_err(cannot_open)?;
        let pg_listener = bind(config.pg_listen, "pg-listen").await?;
        let http_listener = bind(config.http_listen, "http-listen").await?;
        let (pg, http) = (pg_listener.local_addr()?, http_listener.local_addr()?);
        let admin = AdminSocket::bind(&config.data).map_err(|error| {
            Failure::failed(format!("cannot open the admin socket in {}: {error}", config.data.display()))
        })?;
        let registry = Registry::new();
        let metrics = WireMetrics::register(&registry).map_err(|error| Failure::failed(error.to_string()))?;
        let stop = CancellationToken::new();
        let backups = Backups::start(Arc::clone(&database), backup_settings, &registry)?;
        let status = Status {
            version: VERSION.into(),
            http_listen: http.to_string(),
            endpoint: endpoint(&config, pg, tls.is_some())?,
        };
        let serve_options = ServeOptions {
            tls,
            insecure_plaintext: config.insecure_plaintext,
            limits,
            shutdown: stop.clone(),
        };
        let mut tasks = JoinSet::new();
        let served = server::serve(pg_listener, Arc::clone(&database), serve_options, Arc::new(metrics));
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the Postgres port closed");
            }
        });
        tasks.spawn(http::serve(http_listener, registry, Arc::clone(&database), stop.clone()));
        let (patrol, ended) = (Arc::clone(&database).patrol(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = patrol => {}
                () = ended.cancelled() => {}
            }
        });
        let rotating = Arc::clone(&database);
        tasks.spawn(async move {
            // Blocks until the batch under way is done, no longer.
            let resumed = tokio::task::spawn_blocking(move || rotating.resume_root_rotation()).await;
            if let Err(error) = resumed {
                tracing::error!(%error, "the replacement of the root key does not go on");
            }
        });
        let pipelines = Arc::clone(&database);
        // Backups are known by now, and the copies of keys that are there.
        tasks.spawn(async move {
            tokio::join!(pipelines.start_pipelines(), pipelines.finish_destructions());
        });
        tasks.spawn(admin.serve(Arc::clone(&database), Arc::clone(&backups), status.clone(), stop.clone()));
        hardened::warn_of_unlocked_keys();
        tracing::info!(%pg, %http, data = %config.data.display(), config.cache_mib, version = VERSION, "serving");
        Ok(Self { config, database, pg, http, backups, status, stop, tasks })
    }

    /// How clients reach it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.status.endpoint
    }

    /// Asks what the admin socket would be asked.
    pub async fn ask(&self, request: Request) -> Result<Answer, Failure> {
        Ok(admin::handle(request, &self.database, &self.backups, &self.status).await?)
    }

    /// Ends the listeners, drains the clients, closes the database.
    pub async fn stop(mut self) {
        tracing::info!(seconds = self.config.shutdown_seconds, "stopping: waiting for running statements");
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a listener's task failed");
            }
        }
        self.backups.finish().await;
        self.database.shutdown().await;
        tracing::info!("stopped");
    }
}

/// Waits for SIGINT or SIGTERM. From then on a second one ends the process at once.
pub async fn interrupted() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        output::talk("Second signal: ending at once. Acknowledged writes are safe.");
        std::process::exit(1);
    });
    Ok(())
}

/// The root key and where it is kept. A provider is asked over the network, or a passphrase stretched: off the
/// runtime's threads.
async fn open_root(config: &Config) -> Result<(Key, RootStore), Failure> {
    let settings = config.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let store = root_key::open_store(&settings)?;
        Ok::<_, Error>((root_key::unlock(&settings, &store)?, store))
    });
    opened
        .await
        .map_err(|error| Failure::failed(format!("opening the root key: {error}")))?
        .map_err(cannot_open)
}

fn database_options(config: &Config, root_key: Key) -> DatabaseOptions {
    let mut options = DatabaseOptions::new(config.data.clone(), root_key, in_memory(config.cache_mib));
    set_budgets(&mut options, config);
    options.wrappers = Arc::new(ServerWrappers);
    options.history = config.history();
    options.max_snapshot_age = config.max_snapshot_age();
    options.secret_sources = config.secret_sources();
    options.allow_unsigned_plugins = config.allow_unsigned_plugins;
    options.allow_reveal = config.allow_reveal;
    options
}

/// A root key that does not fit is the operator's configuration; all else is a failure.
pub fn cannot_open(error: Error) -> Failure {
    match error.state() {
        SqlState::InvalidAuthorization => Failure::configuration(error.operator_message()),
        _ => error.into(),
    }
}

fn tls(config: &Config) -> Result<Option<Arc<TlsConfig>>, Failure> {
    let files = config.certificate_files();
    if config.insecure_plaintext && !files.certificate.exists() {
        return Ok(None);
    }
    match TlsConfig::from_files(&files.certificate, &files.key, config.tls12) {
        Ok(tls) => Ok(Some(Arc::new(tls))),
        Err(error) => Err(Failure::configuration(format!(
            "TLS with certificate {} and key {}: {error}. Name your own with --tls-cert and --tls-key",
            files.certificate.display(),
            files.key.display()
        ))),
    }
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format!(
            "cannot listen on {address}: {error}. Choose another address with --{flag}, port 0 for a free one"
        ))
    })
}

fn on_disk(mib: u64) -> u64 {
    mib.saturating_mul(MIB)
}

fn in_memory(mib: u64) -> usize {
    usize::try_from(on_disk(mib)).unwrap_or(usize::MAX)
}

/// What tenants may hold.
fn set_budgets(options: &mut DatabaseOptions, config: &Config) {
    options.tenant_cache_bytes = in_memory(config.tenant_cache_mib);
    options.query_memory_bytes = in_memory(config.tenant_query_mib);
    options.total_query_memory_bytes = in_memory(config.query_mib);
    options.write_memory_bytes = in_memory(config.tenant_write_mib);
    options.spill_bytes = on_disk(config.tenant_spill_mib);
    options.unflushed_bytes = on_disk(config.tenant_memtable_mib);
    options.total_unflushed_bytes = on_disk(config.memtable_mib);
    options.tenant_disk_bytes = on_disk(config.tenant_disk_mib);
    options.log_retention_bytes = on_disk(config.pipeline_retention_mib);
    options.compaction_bytes_per_second = on_disk(config.compaction_mib_per_second);
    if config.maintenance_threads > 0 {
        options.maintenance_threads = config.maintenance_threads as usize;
    }
    options.index_build_bytes = on_disk(config.index_build_mib);
    options.max_open_tenants = config.max_open_tenants as usize;
    options.idle_tenant = Duration::from_secs(config.idle_tenant_seconds);
}

/// How many connections there may be, and temporary files of queries. An open tenant holds its log's descriptor; those
/// of segments are open only while they are read.
///
/// Errors: hardly any connection fits into what this process may open.
fn limits(config: &Config) -> Result<(Limits, usize), Failure> {
    let defaults = Limits::default();
    let wanted = config.max_connections as usize;
    let allowed = match descriptors::raise_limit() {
        Ok(allowed) => allowed,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is not known");
            usize::MAX
        }
    };
    // A small limit is for connections first: of the rest queries and tenants get an eighth each.
    let spill_files = MOST_SPILL_FILES.min(allowed / 8);
    let tenants = (config.max_open_tenants as usize).min(allowed / 8);
    let reserved = defaults.max_logins + http::MOST_AT_ONCE + OTHER_DESCRIPTORS + spill_files + tenants;
    let fit = allowed.saturating_sub(reserved);
    if fit == 0 {
        return Err(Failure::configuration(format!(
            "this process may open {allowed} files, but needs {reserved} besides one per connection: raise the limit \
             (`ulimit -n`, LimitNOFILE= of systemd)"
        )));
    }
    if fit < wanted {
        tracing::warn!(
            max_connections = wanted,
            allowed = fit,
            open_files = allowed,
            "max_connections does not fit into the limit of open files and is lowered: raise `ulimit -n`"
        );
    }
    let limits = Limits {
        max_connections: wanted.min(fit),
        max_connections_per_tenant: config.max_connections_per_tenant as usize,
        drain_timeout: Duration::from_secs(config.shutdown_seconds),
        busy_poll: Duration::from_micros(config.busy_poll_us),
        ..defaults
    };
    Ok((limits, spill_files))
}

fn endpoint(config: &Config, pg: SocketAddr, tls: bool) -> Result<Endpoint, Failure> {
    let authority = match config.certificate_files().authority {
        Some(path) if tls => Some(std::path::absolute(path)?),
        _ => None,
    };
    Ok(Endpoint { host: host_of(pg), port: pg.port(), tls, authority })
}

/// The name under which a client on this machine reaches an address. IPv4 loopback is `localhost`: libpq
/// before version 15 knows no addresses in certificates.
fn host_of(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() || ip == std::net::Ipv4Addr::LOCALHOST => "localhost".into(),
        ip => ip.to_string(),
    }
}
