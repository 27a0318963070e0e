//! What those who query notice of flushes and compactions: `wire_load background`.
//!
//! p99 of k-NN queries and of lookups by key, first while the server has nothing else to do, then while rows stream
//! into another table and are flushed every so often, so that its segments are merged again and again. `--rows`
//! (50000) and `--dim` (384) of the table that is queried; `--stream-mib` (8) of rows a second into the other one,
//! in COPYs of a second each, with a CHECKPOINT after every two; `--seconds` (20) for each figure, `--clients` (1).
//!
//! What the COPYs themselves take of the processors is in the second figure, too: leave them a core. The bytes that
//! were compacted meanwhile are told: near 0 nothing was measured.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use sepal_benches::{
    Failure,
    connection::{Connection, Target, execution},
    flags::Flags,
    load::Load,
};
use serde_json::{Value, json};

/// What the issue asks for.
const MOST_RATIO: f64 = 1.5;
const BATCH_ROWS: usize = 2_000;
const QUERIES: usize = 200;
const KNN: &str = "SELECT id FROM background_items ORDER BY v <=> $1 LIMIT 10";
const LOOKUP: &str = "SELECT id FROM background_items WHERE id = $1";
const COPIES_BETWEEN_CHECKPOINTS: usize = 2;
const PAUSE: Duration = Duration::from_secs(1);

pub fn run(target: &Target, flags: &Flags) -> Result<Value, Failure> {
    let (rows, dim) = (flags.number("rows", 50_000)?, flags.number("dim", 384)?);
    let stream_bytes = flags.number("stream-mib", 8)? << 20;
    let load = flags.load(1)?;
    let mut connection = Connection::open(target)?;
    make(&mut connection, rows, dim)?;
    let idle = measure(&load, target, rows, dim)?;
    let before = compacted(&mut connection)?;
    let stop = AtomicBool::new(false);
    let busy = thread::scope(|scope| {
        let stream = scope.spawn(|| stream(target, dim, stream_bytes, &stop));
        // Until there is something to merge.
        thread::sleep(PAUSE * 12);
        let busy = measure(&load, target, rows, dim);
        stop.store(true, Ordering::Relaxed);
        let streamed = stream.join().unwrap_or_else(|_| Err("the stream panicked".into()));
        busy.and_then(|busy| Ok((busy, streamed?)))
    });
    let ((knn, lookup), streamed) = busy?;
    let ratio = |busy: f64, idle: f64| json!({ "idle_us": idle, "busy_us": busy, "ratio": busy / idle, "bar": MOST_RATIO });
    Ok(json!({
        "knn_p99": ratio(knn, idle.0),
        "lookup_p99": ratio(lookup, idle.1),
        "ok": knn / idle.0 <= MOST_RATIO && lookup / idle.1 <= MOST_RATIO,
        "streamed_rows": streamed,
        "compacted_bytes": compacted(&mut connection)? - before,
        "write_amplification": connection.value("SELECT write_amplification FROM sepal_storage")?,
    }))
}

fn make(connection: &mut Connection, rows: usize, dim: usize) -> Result<(), Failure> {
    connection.query("DROP TABLE IF EXISTS background_items")?;
    connection.query("DROP TABLE IF EXISTS background_stream")?;
    for (table, key) in [("items", " PRIMARY KEY"), ("stream", "")] {
        connection.query(&format!("CREATE TABLE background_{table} (id bigint{key}, v vector({dim}))"))?;
    }
    for first in (0..rows).step_by(BATCH_ROWS) {
        let bytes = batch(first..rows.min(first + BATCH_ROWS), dim);
        connection
            .copy_in("COPY background_items FROM STDIN (FORMAT binary)", [bytes.as_slice()].into_iter())?;
    }
    connection.query("CREATE INDEX ON background_items USING hnsw (v vector_cosine_ops)")?;
    connection.query("CHECKPOINT")?;
    Ok(())
}

/// p99 in microseconds of k-NN and of lookups.
fn measure(load: &Load, target: &Target, rows: usize, dim: usize) -> Result<(f64, f64), Failure> {
    let knn: Vec<Vec<u8>> =
        (0..QUERIES).map(|query| execution("background", &[&binary_vector(rows + query, dim)])).collect();
    let key = |query: usize| (query * (rows / QUERIES).max(1)) as u64;
    let lookups: Vec<Vec<u8>> =
        (0..QUERIES).map(|query| execution("background", &[&key(query).to_be_bytes()])).collect();
    Ok((p99(load, target, KNN, &knn)?, p99(load, target, LOOKUP, &lookups)?))
}

fn p99(load: &Load, target: &Target, sql: &str, messages: &[Vec<u8>]) -> Result<f64, Failure> {
    let timing = load.run(target, |connection| {
        connection.prepare("background", sql)?;
        Ok(move |connection: &mut Connection, number: usize| {
            connection.round_trip(&messages[number % messages.len()], |_| Ok(()))
        })
    })?;
    Ok(timing.quantile_us(0.99))
}

/// Rows into the other table until it is told to stop. How many.
fn stream(target: &Target, dim: usize, bytes_per_second: usize, stop: &AtomicBool) -> Result<u64, Failure> {
    let mut connection = Connection::open(target)?;
    let rows = (bytes_per_second / (dim * 4 + 16)).max(1);
    let bytes = batch(0..rows, dim);
    let mut copied = 0;
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        copied += connection
            .copy_in("COPY background_stream FROM STDIN (FORMAT binary)", bytes.chunks(256 << 10))?;
        if number % COPIES_BETWEEN_CHECKPOINTS == 0 {
            connection.query("CHECKPOINT")?;
        }
        thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
    }
    Ok(copied)
}

fn compacted(connection: &mut Connection) -> Result<u64, Failure> {
    let bytes = connection.value("SELECT compacted_bytes FROM sepal_storage")?;
    Ok(bytes.ok_or("sepal_storage has no row")?.parse()?)
}

/// COPY BINARY of rows.
fn batch(rows: std::ops::Range<usize>, dim: usize) -> Vec<u8> {
    let mut bytes = b"PGCOPY\n\xff\r\n\0".to_vec();
    bytes.extend_from_slice(&[0; 8]);
    for row in rows {
        let vector = binary_vector(row, dim);
        bytes.extend_from_slice(&2_u16.to_be_bytes());
        bytes.extend_from_slice(&8_u32.to_be_bytes());
        bytes.extend_from_slice(&(row as u64).to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(vector.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&vector);
    }
    bytes.extend_from_slice(&(-1_i16).to_be_bytes());
    bytes
}

/// pgvector's binary form: dimensions, zero, the elements. Some elements stand out, by the row's number.
fn binary_vector(row: usize, dim: usize) -> Vec<u8> {
    let mut bytes = [u16::try_from(dim).unwrap_or(u16::MAX).to_be_bytes(), [0, 0]].concat();
    let mut state = (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for element in 0..dim {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let cluster = if element % 16 == row % 16 { 1.0 } else { 0.0 };
        let noise = (state >> 40) as f32 / (1 << 24) as f32;
        bytes.extend_from_slice(&(cluster + noise).to_be_bytes());
    }
    bytes
}
