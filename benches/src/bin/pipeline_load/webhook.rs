//! How fast committed rows get to a webhook, beside how fast the receiver takes the same requests from a bare loop.
//!
//! `--rows` (100,000), `--vector-rows` (20,000), `--repeat` (3, the median counts), `--batch-bytes` (8MiB),
//! `--pace-us` (16: a row takes the slow receiver so long, which makes it one of 62,500 rows a second).
//!
//! Rows are committed while the pipeline rests; the clock runs from RESUME to the last row. The first run's requests
//! are kept and sent again: what that takes is the receiver's own. A receiver that does nothing is faster than any
//! database; how much the host adds to a destination that is not shows the paced one, whose time is its own and not
//! the processor's.

use std::{
    thread,
    time::{Duration, Instant},
};

use sepal_benches::{
    Failure,
    connection::{Connection, Target},
    flags::Flags,
    receiver::{Arrived, Receiver, replay},
};

use crate::{
    outlet,
    report::{Line, Report, median},
    rows::{Shape, fill},
    server::{Cpu, Sepal},
};

/// Without a row for so long something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// After the last row: whether any came twice.
const SETTLE: Duration = Duration::from_millis(300);
const FAST: &str = "≥ 50,000 rows/s";
const SLOW: &str = "ratio ≥ 0.83";

#[derive(Clone, Copy)]
struct Case {
    shape: Shape,
    rows: u64,
    batch_rows: u64,
    source: Source,
    /// With a bearer token and a signature over each body.
    signed: bool,
    /// What a row takes the receiver.
    pace: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The log, with so many rows a commit.
    Commits(u64),
    /// The table as it is when the pipeline begins.
    Snapshot,
}

/// One run.
struct Run {
    seconds: f64,
    arrived: Arrived,
    cpu: Option<Cpu>,
    /// Rows that came more often than once.
    again: u64,
}

pub fn run(
    target: &Target,
    sepal: Option<&Sepal>,
    flags: &Flags,
    report: &mut Report,
) -> Result<(), Failure> {
    let repeat = flags.number("repeat", 3)?.max(1);
    let batch_bytes = flags.get("batch-bytes").unwrap_or("8MiB");
    let mut connection = Connection::open(target)?;
    connection.query("CREATE SECRET IF NOT EXISTS load_token AS 'a-token-of-some-length'")?;
    connection.query("CREATE SECRET IF NOT EXISTS load_key AS 'a-key-of-thirty-two-bytes-length'")?;
    for (number, case) in cases(flags)?.into_iter().enumerate() {
        let bench = Bench {
            receiver: Receiver::start()?,
            name: format!("load_{number}"),
            with: format!("batch_rows = {}, batch_bytes = '{batch_bytes}', linger = '50ms'", case.batch_rows),
            case,
            sepal,
        };
        report.add(bench.measure(&mut connection, repeat)?);
    }
    Ok(())
}

fn cases(flags: &Flags) -> Result<Vec<Case>, Failure> {
    let rows = flags.number("rows", 100_000)? as u64;
    let vector_rows = flags.number("vector-rows", 20_000)? as u64;
    let pace = Duration::from_micros(flags.number("pace-us", 16)? as u64);
    let sizes = [500, 1_000, 5_000];
    let plain = Case {
        shape: Shape::Narrow,
        rows,
        batch_rows: 1_000,
        source: Source::Commits(1_000),
        signed: false,
        pace: Duration::ZERO,
    };
    let vectors = Case { shape: Shape::Vectors, rows: vector_rows, ..plain };
    let mut cases: Vec<Case> = sizes.map(|batch_rows| Case { batch_rows, ..plain }).to_vec();
    cases.push(Case { signed: true, ..plain });
    cases.push(Case { source: Source::Commits(rows), ..plain });
    cases.push(Case { source: Source::Snapshot, ..plain });
    cases.extend(sizes.map(|batch_rows| Case { batch_rows, pace, ..plain }));
    cases.extend(sizes.map(|batch_rows| Case { batch_rows, ..vectors }));
    cases.push(Case { source: Source::Snapshot, ..vectors });
    Ok(cases)
}

struct Bench<'a> {
    receiver: Receiver,
    /// Of the table, the sink and the pipeline.
    name: String,
    with: String,
    case: Case,
    sepal: Option<&'a Sepal>,
}

impl Bench<'_> {
    fn measure(&self, connection: &mut Connection, repeat: usize) -> Result<Line, Failure> {
        self.set_up(connection)?;
        self.receiver.pace(self.case.pace);
        let mut runs = Vec::with_capacity(repeat);
        let mut requests = Vec::new();
        for number in 0..repeat {
            self.receiver.begin(number == 0);
            runs.push(self.once(connection, number as u64)?);
            if number == 0 {
                requests = self.receiver.recorded();
            }
        }
        connection.query(&format!("DROP SINK {} CASCADE", self.name))?;
        let mut floors = Vec::with_capacity(repeat);
        for _ in 0..repeat {
            self.receiver.begin(false);
            let begun = Instant::now();
            replay(self.receiver.address(), &requests)?;
            let arrived = self.receiver.arrived();
            floors.push(arrived.rows as f64 / until(begun, arrived));
        }
        Ok(self.line(runs, median(floors)))
    }

    fn set_up(&self, connection: &mut Connection) -> Result<(), Failure> {
        let (name, shape) = (&self.name, self.case.shape);
        connection.query(&format!("CREATE TABLE {name} ({})", shape.columns()))?;
        let secrets = ", token SECRET[load_token], signing_key SECRET[load_key]";
        let options = if self.case.signed { secrets } else { "" };
        outlet::create_sink(connection, name, &self.receiver, options)?;
        if self.case.source == Source::Snapshot {
            return fill(connection, name, shape, 0..self.case.rows, 10_000);
        }
        let with = format!("snapshot = false, {}", self.with);
        outlet::create_pipeline(connection, name, name, name, &with)
    }

    /// From the statement that lets it run to the last row.
    fn once(&self, connection: &mut Connection, number: u64) -> Result<Run, Failure> {
        let Case { shape, rows, source, .. } = self.case;
        let name = &self.name;
        if let Source::Commits(per_commit) = source {
            outlet::pause(connection, name)?;
            fill(connection, name, shape, number * rows..(number + 1) * rows, per_commit)?;
        }
        let before = self.sepal.map(Sepal::cpu).transpose()?;
        let begun = Instant::now();
        match source {
            Source::Commits(_) => {
                connection.query(&format!("ALTER PIPELINE {name} RESUME"))?;
            }
            Source::Snapshot => {
                let with = format!("snapshot = true, {}", self.with);
                outlet::create_pipeline(connection, name, name, name, &with)?;
            }
        }
        let arrived = self.receiver.wait_for(rows, PATIENCE).map_err(|error| {
            let why = outlet::status(connection, name, "last_error").unwrap_or_default();
            format!("{error}; last_error: {why:?}")
        })?;
        let seconds = until(begun, arrived);
        let after = self.sepal.map(Sepal::cpu).transpose()?;
        thread::sleep(SETTLE);
        let again = self.receiver.arrived().rows - rows;
        if source == Source::Snapshot {
            connection.query(&format!("DROP PIPELINE {name}"))?;
        }
        let cpu = before.zip(after).map(|(before, after)| after.since(before));
        Ok(Run { seconds, arrived, cpu, again })
    }

    fn line(&self, mut runs: Vec<Run>, floor: f64) -> Line {
        let Case { shape, batch_rows, source, signed, pace, rows } = self.case;
        runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        let again: u64 = runs.iter().map(|run| run.again).sum();
        let run = &runs[runs.len() / 2];
        let requests = run.arrived.requests as f64;
        let (ours_ms, floor_ms) = (run.seconds * 1e3 / requests, rows as f64 / floor * 1e3 / requests);
        let mut note = format!(
            "{:.0} rows a request, {ours_ms:.2} ms each, of which the receiver {floor_ms:.2}; {:.0} MB/s",
            run.arrived.rows as f64 / requests,
            run.arrived.bytes as f64 / run.seconds / 1e6,
        );
        if let Some(cpu) = run.cpu {
            note += &format!("; CPU: server {:.2} s, workers {:.2} s", cpu.server, cpu.workers);
        }
        if again > 0 {
            note += &format!("; {again} rows came again");
        }
        let source = match source {
            Source::Snapshot => ", snapshot",
            Source::Commits(commit) if commit >= rows => ", one commit",
            Source::Commits(_) => "",
        };
        let signed = if signed { ", signed" } else { "" };
        let slow = if pace.is_zero() { String::new() } else { format!(", receiver {pace:?}/row") };
        let what = format!("webhook, {}, {batch_rows} a batch{source}{signed}{slow}", shape.name());
        let bar = match (shape, pace.is_zero()) {
            (Shape::Narrow, true) => FAST,
            (Shape::Narrow, false) => SLOW,
            (Shape::Vectors, _) => "",
        };
        Line { what, unit: "rows/s", ours: rows as f64 / run.seconds, floor, bar, note }
    }
}

/// Seconds until the last request was answered.
fn until(begun: Instant, arrived: Arrived) -> f64 {
    arrived.last.map_or(f64::NAN, |last| last.saturating_duration_since(begun).as_secs_f64())
}
