//! The listener: accepts sockets, counts them, gives each a task, and drains them at shutdown.
//!
//! Called by `cli`. Knows nothing of the protocol; that is [`crate::session`].

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use sepal_database::Database;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::WireMetrics,
    session::{self, CancelRegistry, Pollers, Seats, Told},
    tls::TlsConfig,
};

/// How long to wait for a place among those that log in before looking again.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// How the Postgres port behaves.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// `None` refuses every client unless `insecure_plaintext` lets loopback ones in.
    pub tls: Option<Arc<TlsConfig>>,
    /// Accept unencrypted logins from loopback addresses. For tests and local trials.
    pub insecure_plaintext: bool,
    pub limits: Limits,
    /// Cancelled by the caller to drain: idle sessions end at once, running statements get `drain_timeout`.
    pub shutdown: CancellationToken,
}

/// What one client, one tenant and all of them may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections that have logged in (53300 beyond).
    pub max_connections: usize,
    /// Connections that are still logging in. Past it the oldest of the address with most of them has to go.
    pub max_logins: usize,
    pub max_connections_per_tenant: usize,
    /// From accept to ReadyForQuery: TLS, startup packet and authentication together.
    pub startup_timeout: Duration,
    /// Largest single message of an authenticated client.
    pub max_message_bytes: u32,
    /// Memory that a tenant's connections together may use for messages above 1 MiB; more have to wait.
    pub tenant_message_bytes: u32,
    /// Named prepared statements per connection (54000 beyond).
    pub max_statements: usize,
    /// Open portals per connection (53000 beyond).
    pub max_portals: usize,
    /// SQL text and parameter values held by a connection's statements and portals (53000 beyond).
    pub max_held_bytes: usize,
    pub drain_timeout: Duration,
    /// How long a session waits awake for a client that comes back as soon; zero: never.
    pub busy_poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1_000,
            max_logins: 256,
            max_connections_per_tenant: 200,
            startup_timeout: Duration::from_secs(10),
            max_message_bytes: 0x3fff_ffff,
            tenant_message_bytes: 0x4000_0000,
            max_statements: 10_000,
            max_portals: 1_000,
            max_held_bytes: 64 << 20,
            drain_timeout: Duration::from_secs(10),
            busy_poll: Duration::from_micros(100),
        }
    }
}

/// What every connection shares.
pub(crate) struct Shared {
    pub database: Arc<Database>,
    pub options: ServeOptions,
    pub metrics: Arc<WireMetrics>,
    pub cancels: Arc<CancelRegistry>,
    pub seats: Arc<Seats>,
    pub pollers: Arc<Pollers>,
    pub told: Told,
    /// Cancelled when the drain has lasted too long: running statements are cancelled too.
    pub stop_now: CancellationToken,
}

/// Accepts connections until `options.shutdown` is cancelled, then drains and returns.
pub async fn serve(
    listener: TcpListener,
    database: Arc<Database>,
    options: ServeOptions,
    metrics: Arc<WireMetrics>,
) -> io::Result<()> {
    let shared = Arc::new(Shared {
        database,
        seats: Arc::new(Seats::new(&options.limits)),
        cancels: Arc::default(),
        pollers: Arc::default(),
        told: Told::default(),
        stop_now: CancellationToken::new(),
        options,
        metrics,
    });
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shared.options.shutdown.cancelled() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => note_end(&shared, ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => admit(&shared, &mut tasks, socket, peer).await,
                // Out of descriptors or a connection that died in the queue: neither may end the listener.
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    drain(&shared, tasks).await;
    Ok(())
}

/// Gives a socket its task. Waits where the pool of those that log in is full of this address' own, all of them
/// fresh: the others wait in the system's queue meanwhile, which is kinder than to refuse a client that opens many
/// connections at once.
async fn admit(shared: &Arc<Shared>, tasks: &mut JoinSet<()>, socket: TcpStream, peer: SocketAddr) {
    shared.metrics.connections_accepted.inc();
    let arrival = loop {
        match shared.seats.arrive(peer.ip(), Instant::now()) {
            Some(arrival) => break arrival,
            None if shared.options.shutdown.is_cancelled() => return,
            None => sleep(FULL_PAUSE).await,
        }
    };
    if let Err(error) = socket.set_nodelay(true).and_then(|()| session::keep_alive(&socket)) {
        tracing::debug!(%error, "socket options");
    }
    let shared = shared.clone();
    tasks.spawn(async move {
        shared.metrics.connections_open.inc();
        let _open = OpenGauge(shared.clone());
        session::run(shared, socket, peer, arrival).await;
    });
}

/// Counts the connection out even when its task panics.
struct OpenGauge(Arc<Shared>);

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.metrics.connections_open.dec();
    }
}

fn note_end(shared: &Shared, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        shared.metrics.panics.inc();
        tracing::error!("a connection's task panicked before its session began");
    }
}

async fn drain(shared: &Shared, mut tasks: JoinSet<()>) {
    let grace = shared.options.limits.drain_timeout;
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            note_end(shared, ended);
        }
    };
    if timeout(grace, all).await.is_ok() {
        return;
    }
    tracing::warn!(connections = tasks.len(), "cancelling the statements that outlived the drain time");
    shared.stop_now.cancel();
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(Duration::from_secs(5), all).await.is_err() {
        tracing::warn!(connections = tasks.len(), "dropping connections that do not end");
        tasks.shutdown().await;
    }
}
