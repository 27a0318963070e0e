//! A load generator that measures the server and not the client: `wire_load ping | knn | copy | run | background`.
//!
//! Used by `benches/compare/run.py` against Sepal and PostgreSQL alike: same bytes, same transport, same loop. A
//! client is a thread with a blocking socket; a query is one write of a message built beforehand and as few
//! reads as the answer needs. Reads libpq's variables (`PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`);
//! `PGSSLROOTCERT` means TLS. Prints one JSON object. Logs in without a password or with one in clear, so on
//! Sepal the user is the tenant's name.
//!
//! ```text
//! wire_load ping --seconds 5 --clients 2
//! wire_load knn  --sql 'SELECT id FROM items ORDER BY embedding <=> $1 LIMIT $2' --k 10 --dim 384
//!                --queries q.f32 --truth t.i64 --seconds 5 --clients 1 --set 'SET hnsw.ef_search = 40'
//! wire_load copy --sql 'COPY items FROM STDIN (FORMAT binary)' --file rows.pgcopy
//! wire_load run  --sql 'CREATE INDEX …'
//! wire_load background --seconds 20 --clients 1          Sepal only: see background.rs
//! ```
//!
//! `q.f32`: n × dim little-endian f32, row-major. `t.i64`: n × k little-endian i64, the ids of the exact answer.
//! An answer of fewer rows than `--k` is an error; with `--allow-short 1` such queries are counted (`short`) instead.

mod background;
mod knn;

use std::{fs::File, io::Read, process::ExitCode, time::Instant};

use sepal_benches::{
    Failure,
    connection::{self, Connection, Target},
    flags::Flags,
    load::Timing,
};
use serde_json::{Value, json};

use crate::knn::Workload;

const USAGE: &str =
    "usage: wire_load ping|knn|copy|run|background [--name value]…  (see the top of its source)";
/// Bytes of one CopyData message.
const COPY_CHUNK: usize = 256 * 1024;

fn main() -> ExitCode {
    sepal_benches::end("wire_load", run())
}

fn run() -> Result<Value, Failure> {
    let mut words = std::env::args().skip(1);
    let mode = words.next().ok_or(USAGE)?;
    let flags = Flags::read(words, USAGE)?;
    let target = Target::from_environment()?;
    match mode.as_str() {
        "ping" => ping(&target, &flags),
        "knn" => knn(&target, &flags),
        "copy" => copy(&target, &flags),
        "background" => background::run(&target, &flags),
        "run" => {
            let mut connection = connect(&target, &flags)?;
            let start = Instant::now();
            let rows = connection.query(flags.text("sql")?)?;
            Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "rows": rows }))
        }
        _ => Err(USAGE.into()),
    }
}

fn connect(target: &Target, flags: &Flags) -> Result<Connection, Failure> {
    let mut connection = Connection::open(target)?;
    for setting in flags.all("set") {
        connection.query(setting)?;
    }
    Ok(connection)
}

/// Round trips of a prepared statement without parameters.
fn ping(target: &Target, flags: &Flags) -> Result<Value, Failure> {
    let sql = flags.get("sql").unwrap_or("SELECT 1");
    let timing = flags.load(1)?.run(target, |connection| {
        connection.prepare("ping", sql)?;
        let message = connection::execution("ping", &[]);
        Ok(move |connection: &mut Connection, _: usize| connection.round_trip(&message, |_| Ok(())))
    })?;
    Ok(report(&timing))
}

fn knn(target: &Target, flags: &Flags) -> Result<Value, Failure> {
    let workload = Workload::read(
        flags.text("queries")?,
        flags.get("truth"),
        flags.number("dim", 0)?,
        flags.number("k", 10)?,
    )?;
    let sql = flags.text("sql")?;
    let allow_short = flags.number("allow-short", 0)? > 0;
    let answers = workload.answers(&mut connect(target, flags)?, sql, allow_short)?;
    let timing = flags.load(1)?.run(target, |connection| workload.client(connection, sql))?;
    let mut out = report(&timing);
    out["recall"] = json!(answers.recall);
    out["short"] = json!(answers.short);
    Ok(out)
}

fn report(timing: &Timing) -> Value {
    json!({
        "clients": timing.clients,
        "count": timing.latencies.len(),
        "per_second": timing.per_second(),
        "mean_us": timing.mean_us(),
        "p50_us": timing.quantile_us(0.50),
        "p95_us": timing.quantile_us(0.95),
        "p99_us": timing.quantile_us(0.99),
    })
}

/// Sends a file made beforehand, so that only the server's work is measured.
fn copy(target: &Target, flags: &Flags) -> Result<Value, Failure> {
    let mut bytes = Vec::new();
    File::open(flags.text("file")?)?.read_to_end(&mut bytes)?;
    let mut connection = connect(target, flags)?;
    let start = Instant::now();
    let rows = connection.copy_in(flags.text("sql")?, bytes.chunks(COPY_CHUNK))?;
    Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "rows": rows, "bytes": bytes.len() }))
}
