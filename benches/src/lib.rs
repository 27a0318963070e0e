//! What the benchmarks share: a client that costs next to nothing, a load made of such clients, a destination that
//! costs next to nothing.
//!
//! Used by `wire_load`, `index_load`, `pipeline_load` and `micro`. Links nothing of the product: it speaks to PostgreSQL
//! as well.

use std::{fmt::Display, process::ExitCode};

pub mod connection;
pub mod flags;
pub mod load;
pub mod receiver;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How a benchmark ends: with its report on standard output, or with why there is none. `name`: the program's.
pub fn end(name: &str, outcome: Result<impl Display, Failure>) -> ExitCode {
    match outcome {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
