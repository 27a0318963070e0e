//! The same rows over the wire: into a server in this process, and out again.
//!
//! Called by `main`. The server keeps no columns in memory, so that whoever reads opens what is sealed.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use sepal_benches::connection::Connection;

use crate::{DIM, ROUNDS, ROWS, body, server::Server, vector};

/// Less than any column.
const CACHE_BYTES: usize = 1 << 10;
/// Of one CopyData message.
const CHUNK_BYTES: usize = 64 << 10;

/// Seconds, each the median of all rounds.
pub struct Times {
    pub copy_in: f64,
    pub copy_out: f64,
    pub scan: f64,
}

pub fn run(dir: &Path) -> Times {
    let file = binary();
    let server = Server::start(dir, CACHE_BYTES);
    let mut connection = server.connect();
    // The first round is not counted: see `engine/storage/benches/sealing.rs`.
    let mut rounds: Vec<Times> = (0..=ROUNDS).map(|_| round(&mut connection, &file)).skip(1).collect();
    // Before its files go.
    server.runtime.shutdown_timeout(Duration::from_secs(5));
    let mut median = |time: fn(&Times) -> f64| {
        rounds.sort_by(|one, other| time(one).total_cmp(&time(other)));
        time(&rounds[ROUNDS / 2])
    };
    Times {
        copy_in: median(|times| times.copy_in),
        copy_out: median(|times| times.copy_out),
        scan: median(|times| times.scan),
    }
}

/// Into a new table, out of it, and away with it.
fn round(connection: &mut Connection, file: &[u8]) -> Times {
    let rows = ROWS as u64;
    let create = format!("CREATE TABLE items (id bigint, body text, embedding vector({DIM}))");
    connection.query(&create).expect("a table");
    let copy_in = timed(connection, |connection| {
        let copy = "COPY items FROM STDIN (FORMAT binary)";
        let copied = connection.copy_in(copy, file.chunks(CHUNK_BYTES)).expect("COPY FROM");
        assert_eq!(copied, rows, "every row is in");
        connection.query("CHECKPOINT").expect("a checkpoint");
    });
    let copy_out = timed(connection, |connection| {
        let mut bytes = 0;
        let copy = "COPY items TO STDOUT (FORMAT binary)";
        let copied = connection.copy_out(copy, |data| bytes += data.len()).expect("COPY TO");
        assert_eq!((copied, bytes), (rows, file.len()), "every row is out, as it came in");
    });
    let numbers: Vec<String> = vector(7).map(|number| number.to_string()).collect();
    let nearest = format!("SELECT id FROM items ORDER BY embedding <-> '[{}]' LIMIT 10", numbers.join(","));
    let scan = timed(connection, |connection| {
        let found = connection.value(&nearest).expect("a search");
        assert_eq!(found.as_deref(), Some("7"), "a row is nearest to itself");
    });
    connection.query("DROP TABLE items").expect("no table");
    Times { copy_in, copy_out, scan }
}

fn timed(connection: &mut Connection, work: impl FnOnce(&mut Connection)) -> f64 {
    let began = Instant::now();
    work(connection);
    began.elapsed().as_secs_f64()
}

/// The rows as COPY BINARY has them, pgvector's among them: dimensions i16, unused i16, then the elements.
fn binary() -> Vec<u8> {
    let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    let field =
        |out: &mut Vec<u8>, bytes: usize| out.extend(u32::try_from(bytes).expect("a field").to_be_bytes());
    for id in 0..ROWS {
        out.extend(3_i16.to_be_bytes());
        field(&mut out, 8);
        out.extend((id as u64).to_be_bytes());
        let body = body(id);
        field(&mut out, body.len());
        out.extend(body.as_bytes());
        field(&mut out, 4 + 4 * usize::from(DIM));
        out.extend(DIM.to_be_bytes());
        out.extend([0, 0]);
        vector(id).for_each(|number| out.extend(number.to_be_bytes()));
    }
    out.extend((-1_i16).to_be_bytes());
    out
}
