//! What a pipeline costs those who write: the same statements on two tables, one of which has a pipeline.
//!
//! `--clients` (4), `--seconds` (5), `--warm-up` (1), `--repeat` (3). Runs alternate, so that whatever else the
//! machine does meets both; the other table's pipeline has caught up before the next begins. What the pipeline does
//! meanwhile, on the same processors, is in it.

use std::sync::atomic::{AtomicU64, Ordering};

use sepal_benches::{
    Failure,
    connection::{Connection, Target, execution},
    flags::Flags,
    load::Load,
    receiver::Receiver,
};

use crate::{
    outlet,
    report::{Line, Report, median},
    server::Sepal,
};

const CAPTURED: &str = "captured";
const TABLES: [&str; 2] = ["plain", CAPTURED];
/// Rows that are there for updates.
const UPDATED: u64 = 20_000;
const COPIED: u64 = 1_000;
const BODY: &[u8] =
    b"a row of a hundred bytes or so, which is what rows have that are written one by one all day long";
const BAR: &str = "ratio ≥ 0.9";

#[derive(Clone, Copy)]
enum Work {
    /// One row a commit.
    Insert,
    Update,
    /// A thousand rows a commit.
    Copy,
}

impl Work {
    const ALL: [Work; 3] = [Work::Insert, Work::Update, Work::Copy];

    const fn name(self) -> &'static str {
        match self {
            Work::Insert => "INSERT of a row",
            Work::Update => "UPDATE of a row",
            Work::Copy => "COPY of 1,000 rows",
        }
    }
}

/// What a client does over and over.
type Turn<'a> = Box<dyn FnMut(&mut Connection, usize) -> Result<(), Failure> + 'a>;

struct Writers<'a> {
    target: &'a Target,
    load: Load,
    /// The next id that no row has.
    next: AtomicU64,
}

pub fn run(
    target: &Target,
    _sepal: Option<&Sepal>,
    flags: &Flags,
    report: &mut Report,
) -> Result<(), Failure> {
    let receiver = Receiver::start()?;
    let mut connection = Connection::open(target)?;
    let writers = Writers { target, load: flags.load(4)?, next: AtomicU64::new(UPDATED) };
    for table in TABLES {
        connection.query(&format!("CREATE TABLE {table} (id bigint PRIMARY KEY, body text)"))?;
        connection
            .copy_in(&format!("COPY {table} FROM STDIN"), [copy_text(0, UPDATED).as_bytes()].into_iter())?;
    }
    outlet::create_sink(&mut connection, CAPTURED, &receiver, "")?;
    let with = "snapshot = false, batch_rows = 1000, linger = '50ms'";
    outlet::create_pipeline(&mut connection, CAPTURED, CAPTURED, CAPTURED, with)?;
    for work in Work::ALL {
        report.add(writers.measure(&mut connection, work, flags.number("repeat", 3)?.max(1))?);
    }
    connection.query(&format!("DROP SINK {CAPTURED} CASCADE"))?;
    Ok(())
}

impl Writers<'_> {
    fn measure(&self, connection: &mut Connection, work: Work, repeat: usize) -> Result<Line, Failure> {
        let mut rates = [Vec::new(), Vec::new()];
        let mut lag = String::new();
        for _ in 0..repeat {
            for (table, rates) in TABLES.into_iter().zip(&mut rates) {
                let clients = AtomicU64::new(0);
                let prepare = |connection: &mut Connection| {
                    let client = clients.fetch_add(1, Ordering::Relaxed);
                    self.turn(connection, work, table, client)
                };
                rates.push(self.load.run(self.target, prepare)?.per_second());
                if table == CAPTURED {
                    lag = outlet::status(connection, CAPTURED, "lag_rows")?;
                    outlet::drained(connection, CAPTURED)?;
                }
            }
        }
        let [plain, captured] = rates;
        Ok(Line {
            what: format!("writers, {}, {} clients", work.name(), self.load.clients),
            unit: "statements/s",
            ours: median(captured),
            floor: median(plain),
            bar: BAR,
            note: format!("{lag} rows behind at the end of the last run"),
        })
    }

    fn turn<'a>(
        &'a self,
        connection: &mut Connection,
        work: Work,
        table: &str,
        client: u64,
    ) -> Result<Turn<'a>, Failure> {
        let statement = match work {
            Work::Insert => format!("INSERT INTO {table} VALUES ($1, $2)"),
            Work::Update => format!("UPDATE {table} SET body = $2 WHERE id = $1"),
            Work::Copy => {
                let copy = format!("COPY {table} FROM STDIN");
                return Ok(Box::new(move |connection: &mut Connection, _: usize| {
                    let first = self.next.fetch_add(COPIED, Ordering::Relaxed);
                    let rows = copy_text(first, COPIED);
                    connection.copy_in(&copy, [rows.as_bytes()].into_iter()).map(drop)
                }));
            }
        };
        connection.prepare("write", &statement)?;
        // Each client has rows of its own to update: a conflict would be another measurement.
        let clients = self.load.clients as u64;
        let own = UPDATED / clients;
        Ok(Box::new(move |connection: &mut Connection, number: usize| {
            let id = match work {
                Work::Update => number as u64 % own * clients + client % clients,
                Work::Insert | Work::Copy => self.next.fetch_add(1, Ordering::Relaxed),
            };
            connection.round_trip(&execution("write", &[&id.to_be_bytes(), BODY]), |_| Ok(()))
        }))
    }
}

fn copy_text(first: u64, rows: u64) -> String {
    let body = String::from_utf8_lossy(BODY);
    (first..first + rows).map(|id| format!("{id}\t{body}\n")).collect()
}
