//! Micro-benchmarks: one module an operation, each beside a floor, which is the least that could be done.
//!
//! Run by `make bench`; `make bench ARGS=wal` runs those whose name contains `wal`. Only what the crates export is
//! measured, as it is built for users. `benches/README.md` says what the figures mean.

mod copy;
mod distance;
mod egress;
mod files;
mod numbers;
mod plugins;
mod search;
#[path = "../server/mod.rs"]
mod server;
mod wal;
mod wire;

use std::process::ExitCode;

use sepal_plugins::worker::{WORKER_ARGUMENT, child_main};

fn main() -> ExitCode {
    // `plugins` runs guests in a worker, which is this program again.
    if std::env::args().nth(1).is_some_and(|argument| argument == WORKER_ARGUMENT) {
        return child_main();
    }
    eprintln!("Distance kernels: {}; files in {}", sepal_index::kernel_level(), files::place().display());
    divan::main();
    plugins::report();
    files::remove();
    ExitCode::SUCCESS
}
