//! What a pipeline takes of the processor when nothing is committed.
//!
//! `--idle-seconds` (20) each. The kernel counts in ticks of 10 ms.

use std::{
    thread,
    time::{Duration, Instant},
};

use sepal_benches::{Failure, connection::Connection, flags::Flags, receiver::Receiver};

use crate::{
    outlet,
    report::{Line, Report},
    rows::{Shape, fill},
    server::Sepal,
};

const NAME: &str = "quiet";
const ROWS: u64 = 1_000;
/// Threads that were needed a moment ago end by themselves meanwhile.
const SETTLE: Duration = Duration::from_secs(15);

pub fn run(sepal: &Sepal, flags: &Flags, report: &mut Report) -> Result<(), Failure> {
    let length = Duration::from_secs(flags.number("idle-seconds", 20)? as u64);
    let receiver = Receiver::start()?;
    let mut connection = Connection::open(&sepal.target())?;
    connection.query(&format!("CREATE TABLE {NAME} ({})", Shape::Narrow.columns()))?;
    fill(&mut connection, NAME, Shape::Narrow, 0..ROWS, ROWS)?;
    let floor = quiet(sepal, length)?;
    outlet::create_sink(&mut connection, NAME, &receiver, "")?;
    outlet::create_pipeline(&mut connection, NAME, NAME, NAME, "linger = '50ms'")?;
    receiver.wait_for(ROWS, Duration::from_secs(60))?;
    outlet::drained(&mut connection, NAME)?;
    let ours = quiet(sepal, length)?;
    report.add(Line {
        what: "CPU of a server with nothing to do, one pipeline".to_owned(),
        unit: "ms/s",
        ours,
        floor,
        bar: "as without",
        note: format!("a tick is {:.1}; its worker is in it", 10.0 / length.as_secs_f64()),
    });
    Ok(())
}

/// CPU time a second, in milliseconds, of the server and its workers.
fn quiet(sepal: &Sepal, length: Duration) -> Result<f64, Failure> {
    thread::sleep(SETTLE);
    let (before, begun) = (sepal.cpu()?, Instant::now());
    thread::sleep(length);
    let used = sepal.cpu()?.since(before);
    Ok((used.server + used.workers) * 1e3 / begun.elapsed().as_secs_f64())
}
