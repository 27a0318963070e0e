//! Micro-benchmarks: one module an operation, each beside a floor, which is the least that could be done.
//!
//! Run by `make bench`; `make bench ARGS=wal` runs those whose name contains `wal`. Only what the crates export is
//! measured, as it is built for users. `benches/README.md` says what the figures mean.

mod copy;
mod distance;
mod files;
mod numbers;
mod search;
mod wal;
mod wire;

fn main() {
    eprintln!("Distance kernels: {}; files in {}", sepal_index::kernel_level(), files::place().display());
    divan::main();
    files::remove();
}
