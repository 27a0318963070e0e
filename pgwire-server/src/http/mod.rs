//! The HTTP port: health for whoever restarts the process, metrics for Prometheus.
//!
//! | path | answer |
//! |---|---|
//! | `/health/live` | 200 while the process answers at all |
//! | `/health/ready` | 200 while it takes clients, 503 once it drains |
//! | `/metrics` | Prometheus' text format |
//!
//! One request per connection, and [`PATIENCE`] for all of it: nobody holds one of the [`MOST_AT_ONCE`] places for
//! longer, however slowly it sends or reads. Scrapers and probes open a connection each time anyway.
//!
//! Started by `cli::process`. Nothing here names a tenant, a user or a key, so it needs no login; it still
//! listens on loopback unless told otherwise.

mod metrics;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus::Registry;
use sepal_database::Database;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::metrics::DatabaseGauges;

/// From a connection's first byte to its last.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the request's line and headers alone.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// Connections served at once; more wait in the system's queue.
pub const MOST_AT_ONCE: usize = 64;
/// How long answers under way may take once the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the handlers share.
struct Shared {
    registry: Registry,
    gauges: DatabaseGauges,
    database: Arc<Database>,
    stop: CancellationToken,
}

/// Answers until `stop`. The registry already holds the wire's counters; the database's are added here.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    database: Arc<Database>,
    stop: CancellationToken,
) {
    let gauges = match DatabaseGauges::register(&registry) {
        Ok(gauges) => gauges,
        Err(error) => {
            tracing::error!(%error, "the HTTP port does not start: its metrics clash");
            return;
        }
    };
    let shared = Arc::new(Shared { registry, gauges, database, stop: stop.clone() });
    accept(listener, &router(shared), &stop).await;
}

async fn accept(listener: TcpListener, router: &Router, stop: &CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
            (place, accepted) = next(&listener, &places) => match accepted {
                Ok(socket) => {
                    let answered = answer(socket, router.clone());
                    connections.spawn(async move {
                        answered.await;
                        drop(place);
                    });
                }
                // Out of descriptors or a connection that died in the queue: neither may end the listener.
                Err(error) => {
                    tracing::warn!(%error, "the HTTP port: accept failed");
                    sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // The rest is cut off when the set drops.
    let _in_time_or_not = timeout(FAREWELL, all).await;
}

/// The next connection, and its place.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (Option<OwnedSemaphorePermit>, io::Result<TcpStream>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    (place, listener.accept().await.map(|(socket, _)| socket))
}

/// Answers one request.
async fn answer(socket: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    match timeout(PATIENCE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended early"),
        Err(_) => tracing::debug!("an HTTP connection took too long"),
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(render))
        .with_state(shared)
}

async fn live() -> &'static str {
    "live\n"
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn render(State(shared): State<Arc<Shared>>) -> Response {
    shared.gauges.set(&shared.database.metrics());
    match prometheus::TextEncoder::new().encode_to_string(&shared.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
