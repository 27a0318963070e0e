//! The HTTP port: health for whoever restarts the process, metrics for Prometheus.
//!
//! | path | answer |
//! |---|---|
//! | `/health/live` | 200 while the process answers at all |
//! | `/health/ready` | 200 while it takes clients, 503 once it drains |
//! | `/metrics` | Prometheus' text format |
//!
//! Started by `cli::process`. Nothing here names a tenant, a user or a key, so it needs no login; it still
//! listens on loopback unless told otherwise.

mod metrics;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::Registry;
use sepal_database::Database;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::metrics::DatabaseGauges;

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
    let ended = axum::serve(listener, router(shared)).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = ended {
        tracing::error!(%error, "the HTTP port closed");
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
