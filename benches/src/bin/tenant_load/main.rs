//! What many tenants cost a server that few of them are using: `tenant_load --sepal target/release/sepal`.
//!
//! Makes `--tenants` (10000) of one table each over the wire, starts the server again, and prints one JSON object: how
//! long the start took, what the process holds in memory before anybody came and after everybody has, and how long the
//! first query of a tenant takes that nobody has opened. Bars: 5 seconds, 500 MB.
//!
//! `--port` (5499) must be free; `--rows` (10) per tenant; further flags of the server with `--flag=--name=value`.

mod server;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use sepal_benches::{
    Failure,
    connection::{Connection, Target},
    flags::Flags,
};
use serde_json::{Value, json};

use crate::server::Sepal;

const USAGE: &str = "usage: tenant_load --sepal PROGRAM [--tenants N] [--rows N] [--port N] [--flag=…]…";
/// What the issue asks for.
const MOST_START_SECONDS: f64 = 5.0;
const MOST_IDLE_MB: f64 = 500.0;
/// Between the start and the look at an idle server's memory.
const SETTLE: Duration = Duration::from_secs(5);
/// Tenants between two lines of progress.
const PROGRESS: usize = 1_000;

fn main() -> ExitCode {
    sepal_benches::end("tenant_load", run())
}

fn run() -> Result<Value, Failure> {
    let words = std::env::args().skip(1).flat_map(|word| match word.strip_prefix("--flag=") {
        Some(flag) => vec!["--flag".to_owned(), flag.to_owned()],
        None => vec![word],
    });
    let flags = Flags::read(words, USAGE)?;
    let (tenants, rows) = (flags.number("tenants", 10_000)?, flags.number("rows", 10)?);
    let port = u16::try_from(flags.number("port", 5_499)?).map_err(|_| "--port is a number below 65536")?;
    let mut sepal = Sepal::init(flags.text("sepal")?, port, flags.all("flag").to_vec())?;
    sepal.start()?;
    let made = Instant::now();
    let targets = make(&sepal, tenants, rows)?;
    let made = made.elapsed();
    sepal.stop()?;
    let started = sepal.start()?;
    std::thread::sleep(SETTLE);
    let idle = sepal.resident_mb()?;
    let middle = targets.get(tenants / 2).ok_or("--tenants must be at least 1")?;
    let first = Instant::now();
    count(middle, rows)?;
    let first = first.elapsed();
    let touched = Instant::now();
    for (number, target) in targets.iter().enumerate() {
        count(target, rows)?;
        progress("asked", number, tenants);
    }
    let touched = touched.elapsed();
    let after = sepal.resident_mb()?;
    let started = started.as_secs_f64();
    Ok(json!({
        "tenants": tenants,
        "make_seconds": made.as_secs_f64(),
        "start_seconds": started,
        "start_ok": started <= MOST_START_SECONDS,
        "idle_mb": idle,
        "idle_ok": idle <= MOST_IDLE_MB,
        "first_query_ms": first.as_secs_f64() * 1e3,
        "all_queries_seconds": touched.as_secs_f64(),
        "after_all_mb": after,
    }))
}

/// Each with a key and a table.
fn make(sepal: &Sepal, tenants: usize, rows: usize) -> Result<Vec<Target>, Failure> {
    let mut admin = sepal.admin()?;
    let mut targets = Vec::with_capacity(tenants);
    for number in 0..tenants {
        let target = admin.tenant(&format!("tenant-{number}"))?;
        let mut connection = Connection::open(&target)?;
        connection.query("CREATE TABLE items (id bigint PRIMARY KEY, body text)")?;
        connection.query(&format!(
            "INSERT INTO items SELECT n, 'row ' || n::text FROM generate_series(1, {rows}) AS s(n)"
        ))?;
        targets.push(target);
        progress("made", number, tenants);
    }
    Ok(targets)
}

/// Login, opening of the tenant if need be, and a query.
fn count(target: &Target, rows: usize) -> Result<(), Failure> {
    let counted = Connection::open(target)?.value("SELECT count(*) FROM items")?;
    if counted.as_deref() == Some(rows.to_string().as_str()) {
        return Ok(());
    }
    Err(format!("a tenant has {counted:?} rows instead of {rows}").into())
}

fn progress(what: &str, number: usize, of: usize) {
    if (number + 1).is_multiple_of(PROGRESS) {
        eprintln!("tenant_load: {what} {} of {of}", number + 1);
    }
}
