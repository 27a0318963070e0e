//! What sealing costs who uses a database: rows in and out over the wire, to and from a server in this process.
//!
//! `benches/compare/sealing.py` builds this twice, once with the feature `null-cipher`, runs both in turns and prints the
//! ratio; `engine/storage/benches/sealing.rs` is the same without a server. Alone it prints one JSON object of seconds:
//! `copy_in` (COPY BINARY into an empty table, then CHECKPOINT), `copy_out` (COPY BINARY of all rows) and `scan` (the
//! nearest by an exact search of all rows). What is read is read from files: no cache holds it.
//!
//! `SEPAL_BENCH_DIR`: where to write; on tmpfs an fsync costs nothing. `cargo bench` passes `--bench`, which is ignored.

#[path = "../server/mod.rs"]
mod server;
mod wire;

use std::path::PathBuf;

const DIM: u16 = 384;
const ROWS: usize = 200_000;
const ROUNDS: usize = 5;

fn main() {
    let root = std::env::var_os("SEPAL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(&root).expect("SEPAL_BENCH_DIR can be written");
    let times = wire::run(dir.path());
    println!(
        "{{\"bytes\":{},\"sealed\":{},\"copy_in\":{:.4},\"copy_out\":{:.4},\"scan\":{:.4}}}",
        ROWS * usize::from(DIM) * size_of::<f32>(),
        sepal_crypto::SEALS,
        times.copy_in,
        times.copy_out,
        times.scan,
    );
}

/// What a row says.
fn body(id: usize) -> String {
    format!("row {id}, of which there is something to say")
}

/// Numbers as embeddings are: hardly two alike, nothing that compresses.
fn vector(id: usize) -> impl Iterator<Item = f32> {
    let first = id * usize::from(DIM);
    (first..first + usize::from(DIM))
        .map(|place| (place as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32)
}
