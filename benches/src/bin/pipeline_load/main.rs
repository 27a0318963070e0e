//! What pipelines and plugins cost a running server: `pipeline_load webhook | writers | idle | hostile | all`.
//!
//! Prints a line a measurement: ours, the floor, the ratio, and the bar that the figure is meant to clear. Nothing
//! here fails for a slow figure.
//!
//! ```text
//! pipeline_load webhook --sepal target/release/sepal
//! pipeline_load all     --sepal target/release/sepal --hostile spin.wasm --json out.json
//! ```
//! | mode | ours | floor |
//! |---|---|---|
//! | `webhook` | rows a second, from RESUME to the last row at a receiver | the same requests from a bare loop |
//! | `writers` | statements a second on a table with a pipeline | on the same table without |
//! | `idle` | CPU time of a server whose pipeline has nothing to do | of one without a pipeline |
//! | `hostile` | another tenant's p99 while a plugin loops | while it does not |
//!
//! `--sepal PROGRAM` starts `sepal dev` in a directory of its own below `SEPAL_BENCH_DIR` (or the system's for
//! temporary files); each mode gets a fresh one. `--sepal-flag WORD`, as often as need be, is handed on to it.
//! Without `--sepal`, `webhook` and `writers` use the server that libpq's variables name, which has to permit
//! requests to loopback. Other flags: `--repeat 3`, `--rows`, `--vector-rows`, `--pace-us`, `--batch-bytes`,
//! `--clients`, `--seconds`, `--warm-up`, `--guests`, `--hostile-options`; see each mode's file.

mod hostile;
mod idle;
mod outlet;
mod report;
mod rows;
mod server;
mod webhook;
mod writers;

use std::{fs, process::ExitCode};

use sepal_benches::{Failure, connection::Target, flags::Flags};

use crate::{report::Report, server::Sepal};

const USAGE: &str =
    "usage: pipeline_load webhook|writers|idle|hostile|all [--name value]…  (see the top of its source)";

fn main() -> ExitCode {
    sepal_benches::end("pipeline_load", run())
}

fn run() -> Result<Report, Failure> {
    let mut words = std::env::args().skip(1);
    let mode = words.next().ok_or(USAGE)?;
    let flags = Flags::read(words, USAGE)?;
    let mut report = Report::default();
    match mode.as_str() {
        "webhook" => against_any(&flags, &mut report, webhook::run)?,
        "writers" => against_any(&flags, &mut report, writers::run)?,
        "idle" => idle::run(&own(&flags)?, &flags, &mut report)?,
        "hostile" => hostile::run(&own(&flags)?, &flags, &mut report)?,
        "all" => {
            against_any(&flags, &mut report, webhook::run)?;
            against_any(&flags, &mut report, writers::run)?;
            idle::run(&own(&flags)?, &flags, &mut report)?;
            if flags.get("hostile").is_some() {
                hostile::run(&own(&flags)?, &flags, &mut report)?;
            }
        }
        _ => return Err(USAGE.into()),
    }
    if let Some(path) = flags.get("json") {
        fs::write(path, report.json().to_string())?;
    }
    Ok(report)
}

/// A server of our own if there is a program for it, else the one that is there.
fn against_any(
    flags: &Flags,
    report: &mut Report,
    measure: impl FnOnce(&Target, Option<&Sepal>, &Flags, &mut Report) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if flags.get("sepal").is_none() {
        return measure(&Target::from_environment()?, None, flags, report);
    }
    let sepal = own(flags)?;
    measure(&sepal.target(), Some(&sepal), flags, report)
}

fn own(flags: &Flags) -> Result<Sepal, Failure> {
    Sepal::start(flags.text("sepal")?, flags.all("sepal-flag"))
}
