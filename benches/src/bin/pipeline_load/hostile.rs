//! What other tenants notice of a plugin that loops for ever: the latency of a SELECT by key and of a k-NN query.
//!
//! `--hostile FILE` is a packed component whose `check` answers and whose `write` never does; `--hostile-options` are
//! its OPTIONS, as SQL. `--guests` (2) pipelines run it for one tenant while another tenant's clients (`--clients`, 2)
//! measure for `--seconds` (5); `--repeat` (3). A guest that was ended too often stops its pipeline: that is resumed
//! at once, as its owner would. How many processors the guests had meanwhile is in the note: without that the ratio
//! says nothing.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use sepal_benches::{
    Failure,
    connection::{Connection, Target, execution},
    flags::Flags,
    load::{Load, Timing},
};

use crate::{
    outlet,
    report::{Line, Report, median},
    rows::{DIM, Shape, fill, vector},
    server::Sepal,
};

const ROWS: u64 = 10_000;
const QUERIES: u64 = 100;
const LOOK: Duration = Duration::from_millis(100);
/// Until guests run, and until they have stopped.
const SETTLE: Duration = Duration::from_secs(1);
const BAR: &str = "ratio ≤ 1.5";

/// Name and statement; the second takes a vector.
const STATEMENTS: [(&str, &str); 2] = [
    ("SELECT by key", "SELECT name FROM articles WHERE id = $1"),
    ("k-NN, 10 of 10,000", "SELECT id FROM embeddings ORDER BY embedding <=> $1 LIMIT 10"),
];

pub fn run(sepal: &Sepal, flags: &Flags, report: &mut Report) -> Result<(), Failure> {
    let repeat = flags.number("repeat", 3)?.max(1);
    let load = flags.load(2)?;
    let victim = sepal.target();
    let mut connection = Connection::open(&victim)?;
    for (table, shape) in [("articles", Shape::Narrow), ("embeddings", Shape::Vectors)] {
        connection.query(&format!("CREATE TABLE {table} ({})", shape.columns()))?;
        fill(&mut connection, table, shape, 0..ROWS, 1_000)?;
    }
    connection
        .query("CREATE INDEX embeddings_hnsw ON embeddings USING hnsw (embedding vector_cosine_ops)")?;
    let hostile = Hostile::make(sepal.tenant("noisy")?, flags)?;
    for (name, sql) in STATEMENTS {
        let mut latencies = [Vec::new(), Vec::new()];
        let mut processors = Vec::new();
        for _ in 0..repeat {
            latencies[0].push(measure(&load, &victim, sql)?.quantile_us(0.99));
            let during = hostile.while_looping(|| {
                let (before, begun) = (sepal.cpu()?, Instant::now());
                let timing = measure(&load, &victim, sql)?;
                let used = sepal.cpu()?.since(before).workers / begun.elapsed().as_secs_f64();
                Ok((timing, used))
            })?;
            latencies[1].push(during.0.quantile_us(0.99));
            processors.push(during.1);
        }
        let [without, with] = latencies;
        report.add(Line {
            what: format!("p99 beside a loop, {name}, {} clients", load.clients),
            unit: "µs",
            ours: median(with),
            floor: median(without),
            bar: BAR,
            note: format!("the guests used {:.2} processors", median(processors)),
        });
    }
    Ok(())
}

fn measure(load: &Load, target: &Target, sql: &str) -> Result<Timing, Failure> {
    let messages: Vec<Vec<u8>> = (0..QUERIES).map(|query| message(sql, query)).collect();
    let messages = messages.as_slice();
    load.run(target, |connection| {
        connection.prepare("victim", sql)?;
        Ok(move |connection: &mut Connection, number: usize| {
            connection.round_trip(&messages[number % messages.len()], |_| Ok(()))
        })
    })
}

fn message(sql: &str, query: u64) -> Vec<u8> {
    if !sql.contains("<=>") {
        return execution("victim", &[&(query * (ROWS / QUERIES)).to_be_bytes()]);
    }
    // pgvector's binary form: dimensions, zero, the elements.
    let mut binary = [u16::try_from(DIM).unwrap_or(u16::MAX).to_be_bytes(), [0, 0]].concat();
    vector(ROWS + query).for_each(|element| binary.extend_from_slice(&element.to_be_bytes()));
    execution("victim", &[&binary])
}

/// A tenant whose plugin loops.
struct Hostile {
    target: Target,
    pipelines: Vec<String>,
}

impl Hostile {
    /// Everything is there, and rests.
    fn make(target: Target, flags: &Flags) -> Result<Hostile, Failure> {
        let path = flags.text("hostile")?;
        let component = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let options = flags.get("hostile-options").unwrap_or_default();
        let mut connection = Connection::open(&target)?;
        connection.prepare("plugin", "CREATE PLUGIN hostile FROM $1")?;
        connection.round_trip(&execution("plugin", &[&component]), |_| Ok(()))?;
        connection.query("CREATE TABLE bait (id bigint PRIMARY KEY)")?;
        let guests = flags.number("guests", 2)?;
        let pipelines: Vec<String> = (0..guests).map(|guest| format!("loop_{guest}")).collect();
        for name in &pipelines {
            connection.query(&format!("CREATE SINK {name} USING PLUGIN hostile OPTIONS ({options})"))?;
            outlet::create_pipeline(&mut connection, name, "bait", name, "snapshot = false, linger = '0ms'")?;
            outlet::pause(&mut connection, name)?;
        }
        connection.copy_in("COPY bait FROM STDIN", [b"1\n".as_slice()].into_iter())?;
        Ok(Hostile { target, pipelines })
    }

    /// Runs something while the guests loop.
    fn while_looping<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let stop = AtomicBool::new(false);
        let done = thread::scope(|scope| {
            let keeper = scope.spawn(|| self.keep_going(&stop));
            thread::sleep(SETTLE);
            let done = work();
            stop.store(true, Ordering::Relaxed);
            let kept = keeper.join().unwrap_or_else(|_| Err("the keeper panicked".into()));
            kept.and(done)
        });
        let mut connection = Connection::open(&self.target)?;
        for name in &self.pipelines {
            outlet::pause(&mut connection, name)?;
        }
        thread::sleep(SETTLE);
        done
    }

    fn keep_going(&self, stop: &AtomicBool) -> Result<(), Failure> {
        let mut connection = Connection::open(&self.target)?;
        while !stop.load(Ordering::Relaxed) {
            for name in &self.pipelines {
                if outlet::status(&mut connection, name, "state")? == "paused" {
                    connection.query(&format!("ALTER PIPELINE {name} RESUME"))?;
                }
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}
