//! The wire's counters, in Prometheus' terms. `http` renders the registry they are registered in.
//!
//! Labels never carry a tenant's, user's or key's name: a scrape must not tell who the customers are.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// What the Postgres side counts since the process started.
#[derive(Clone, Debug)]
pub struct WireMetrics {
    /// Connections accepted, whatever became of them.
    pub connections_accepted: IntCounter,
    /// Connections open now, those still logging in included.
    pub connections_open: IntGauge,
    /// Refusals by `reason`: `tls`, `plaintext`, `password`, `environment`, `limit`, `evicted`,
    /// `timeout`, `protocol`.
    pub connections_refused: IntCounterVec,
    /// Statements run, by `protocol`: `simple`, `extended`.
    pub statements: IntCounterVec,
    /// Seconds from Execute (or a simple statement's turn) to its last row in the output buffer.
    pub statement_seconds: Histogram,
    /// Errors sent, by SQLSTATE.
    pub errors: IntCounterVec,
    /// Rows sent in DataRow messages.
    pub rows_sent: IntCounter,
    /// Rows and bytes taken by COPY FROM STDIN.
    pub copy_rows_received: IntCounter,
    pub copy_bytes_received: IntCounter,
    pub bytes_received: IntCounter,
    pub bytes_sent: IntCounter,
    /// Malformed frames: each ended its connection.
    pub protocol_violations: IntCounter,
    /// Cancel requests whose secret matched.
    pub cancels: IntCounter,
    /// Panics caught: each is a bug of ours and ended one connection.
    pub panics: IntCounter,
}

impl WireMetrics {
    /// Creates the counters and registers them; fails if the registry already has them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let labelled = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let connections_open = IntGauge::new("sepal_pg_connections_open", "Postgres connections open now")?;
        registry.register(Box::new(connections_open.clone()))?;
        let seconds = HistogramOpts::new("sepal_pg_statement_seconds", "Seconds per statement")
            .buckets(prometheus::exponential_buckets(0.0001, 4.0, 10)?);
        let statement_seconds = Histogram::with_opts(seconds)?;
        registry.register(Box::new(statement_seconds.clone()))?;
        Ok(Self {
            connections_accepted: counter(
                "sepal_pg_connections_accepted_total",
                "Postgres connections accepted",
            )?,
            connections_open,
            connections_refused: labelled("sepal_pg_connections_refused_total", "Logins refused", "reason")?,
            statements: labelled("sepal_pg_statements_total", "Statements run", "protocol")?,
            statement_seconds,
            errors: labelled("sepal_pg_errors_total", "Errors sent to clients", "sqlstate")?,
            rows_sent: counter("sepal_pg_rows_sent_total", "Rows sent to clients")?,
            copy_rows_received: counter(
                "sepal_pg_copy_rows_received_total",
                "Rows taken by COPY FROM STDIN",
            )?,
            copy_bytes_received: counter(
                "sepal_pg_copy_bytes_received_total",
                "Bytes taken by COPY FROM STDIN",
            )?,
            bytes_received: counter("sepal_pg_bytes_received_total", "Bytes read from Postgres clients")?,
            bytes_sent: counter("sepal_pg_bytes_sent_total", "Bytes written to Postgres clients")?,
            protocol_violations: counter("sepal_pg_protocol_violations_total", "Malformed frames")?,
            cancels: counter("sepal_pg_cancels_total", "Cancel requests that matched")?,
            panics: counter("sepal_pg_panics_total", "Panics caught in sessions")?,
        })
    }
}
