//! What does kill -9 do to rows on their way?
//!
//! While rows are committed without a pause, the server, its plugin worker or the destination is killed, again and
//! again. In the end every committed row has arrived and no other; what came twice came as the same batch with the
//! same bytes; and batches came in the order of their commits. `SEPAL_CRASH_ROUNDS` says how often.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::{destination::Destination, run, secret, until_status, webhook, workers};
use crate::server::{Key, Server};

/// Rows that are there when the pipeline is made: the first kill comes while they are on their way.
const EARLIER: i64 = 2_000;
/// The last row of all.
const MARKER: i64 = i64::MAX;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Server,
    Worker,
    Destination,
}

/// How often something is killed.
pub fn rounds() -> usize {
    std::env::var("SEPAL_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

pub fn seeded() -> StdRng {
    let seed = std::env::var("SEPAL_CRASH_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("SEPAL_CRASH_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Rows that are being written, and what was acknowledged of them.
pub struct Load {
    pub acknowledged: Mutex<BTreeSet<i64>>,
    next: AtomicI64,
    stop: AtomicBool,
}

impl Load {
    /// `first`: the lowest id.
    pub fn starting_at(first: i64) -> Arc<Load> {
        let (next, stop) = (AtomicI64::new(first), AtomicBool::new(false));
        Arc::new(Load { acknowledged: Mutex::default(), next, stop })
    }

    /// Two clients insert into `items (id, note)` until they are told to stop or the server is gone.
    pub async fn begin(self: &Arc<Load>, server: &Server, key: &Key) -> JoinSet<()> {
        self.stop.store(false, Ordering::Relaxed);
        let mut writers = JoinSet::new();
        for rows in [1, 7] {
            let client = server.login_with(key).connect().await.expect("connect");
            writers.spawn(Arc::clone(self).insert(client, rows));
        }
        writers
    }

    pub async fn end(&self, mut writers: JoinSet<()>) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = writers.join_next().await {
            ended.expect("a writer fails only with its server");
        }
    }

    async fn insert(self: Arc<Load>, client: Client, rows: i64) {
        while !self.stop.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(rows, Ordering::Relaxed);
            let values: Vec<String> =
                (first..first + rows).map(|id| format!("({id}, 'note {id}')")).collect();
            let sql = format!("INSERT INTO items VALUES {}", values.join(", "));
            match client.batch_execute(&sql).await {
                Ok(()) => self.acknowledged.lock().expect("ids").extend(first..first + rows),
                Err(error) => {
                    assert!(client.is_closed() || error.as_db_error().is_none(), "{error:?}");
                    return;
                }
            }
        }
    }
}

struct Trial {
    server: Server,
    key: Key,
    destination: Destination,
}

impl Trial {
    async fn start() -> Trial {
        let server = Server::start();
        let key = server.tenant("acme");
        let destination = Destination::start();
        let trial = Trial { server, key, destination };
        let client = trial.connect().await;
        run(
            &client,
            &format!(
                "CREATE TABLE items (id int8 PRIMARY KEY, note text);
                 INSERT INTO items SELECT i, 'earlier' FROM generate_series(1, {EARLIER}) AS s(i)"
            ),
        )
        .await;
        secret(&client, "token", "a-token-of-the-hook").await;
        webhook(&client, "hook", &trial.destination, ", token SECRET[token]").await;
        run(
            &client,
            "CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK hook KEY (id) ENVELOPE UPSERT
             WITH (snapshot = true, batch_rows = 50, linger = '5ms')",
        )
        .await;
        trial
    }

    async fn connect(&self) -> Client {
        self.server.login_with(&self.key).connect().await.expect("connect")
    }

    /// Kills, and brings back what does not come back by itself.
    async fn strike(&mut self, victim: Victim, pause: Duration) {
        match victim {
            Victim::Server => {
                self.server.kill();
                self.server.start_again();
            }
            Victim::Worker => {
                let worker = self.worker().await;
                // SAFETY: `kill` takes two integers; the process is a child of our server, looked up just now.
                unsafe { libc::kill(worker, libc::SIGKILL) };
            }
            Victim::Destination => {
                self.destination.stop();
                tokio::time::sleep(pause).await;
                self.destination.start_again();
            }
        }
    }

    /// A killed one comes back with the next batch.
    async fn worker(&self) -> libc::pid_t {
        for _ in 0..3_000 {
            if let [worker] = workers(&self.server)[..] {
                return libc::pid_t::try_from(worker).expect("a process id");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the server has no worker, or several: {:?}", workers(&self.server));
    }
}

async fn survives(victim: Victim) {
    let mut random = seeded();
    let mut trial = Trial::start().await;
    let pid = trial.server.pid();
    let load = Load::starting_at(EARLIER + 1);
    // After each death of a worker the next one starts later, in the end half a minute.
    let rounds = if victim == Victim::Worker { rounds().min(7) } else { rounds() };
    for round in 0..rounds {
        let seen = trial.destination.count();
        let writers = load.begin(&trial.server, &trial.key).await;
        trial.destination.until("at work", |destination| destination.count() > seen).await;
        // The first time at once: most of the snapshot is still to come.
        let moment = Duration::from_millis(if round == 0 { 0 } else { random.random_range(0..700) });
        tokio::time::sleep(moment).await;
        trial.strike(victim, Duration::from_millis(random.random_range(0..300))).await;
        load.end(writers).await;
    }
    if victim != Victim::Server {
        assert!(trial.server.is_running() && trial.server.pid() == pid, "{}", trial.server.log());
    }
    let client = trial.connect().await;
    run(&client, &format!("INSERT INTO items VALUES ({MARKER}, 'the last')")).await;
    let last = format!("{{\"id\":{MARKER}}}");
    let has_last = |destination: &Destination| {
        destination.posts().last().is_some_and(|post| post.request.contains(&last))
    };
    trial.destination.until("at the last row", has_last).await;
    let rows = client.query("SELECT id FROM items", &[]).await.expect("rows");
    let committed: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let acknowledged = load.acknowledged.lock().expect("ids").clone();
    assert!(acknowledged.is_subset(&committed), "what was acknowledged is there");
    check(&trial.destination, &committed);
    let row = until_status(&client, "p", "done", |row| row.lag_rows == Some(0)).await;
    assert_eq!((row.state.as_str(), row.rows_dead), ("running", 0));
    println!("{} rows committed, {} acknowledged", committed.len(), acknowledged.len());
}

/// A batch as it came first.
struct Arrived {
    body: Vec<u8>,
    times: usize,
}

fn check(destination: &Destination, committed: &BTreeSet<i64>) {
    let mut batches: BTreeMap<String, Arrived> = BTreeMap::new();
    let mut batch_of: BTreeMap<i64, String> = BTreeMap::new();
    let mut reached: Option<(bool, String)> = None;
    for post in destination.posts() {
        let id = post.request.header("webhook-id").expect("an id").to_owned();
        if let Some(batch) = batches.get_mut(&id) {
            assert_eq!(batch.body, post.request.body, "batch {id} came with other bytes");
            batch.times += 1;
            continue;
        }
        for line in post.request.lines() {
            let key = line["key"]["id"].as_i64().expect("an id");
            assert!(matches!(line["op"].as_str(), Some("c" | "r")), "{line}");
            if let Some(other) = batch_of.insert(key, id.clone()) {
                panic!("row {key} came in batch {other} and in batch {id}");
            }
            let position = line["pos"].as_str().expect("a position");
            let position = Some((!position.starts_with('s'), position.to_owned()));
            assert!(reached < position, "{position:?} came after {reached:?}");
            reached = position;
        }
        batches.insert(id, Arrived { body: post.request.body, times: 1 });
    }
    let arrived: BTreeSet<i64> = batch_of.into_keys().collect();
    let lost: Vec<_> = committed.difference(&arrived).collect();
    assert!(lost.is_empty(), "{} rows are lost, among them {:?}", lost.len(), &lost[..lost.len().min(10)]);
    let phantoms: Vec<_> = arrived.difference(committed).collect();
    assert!(phantoms.is_empty(), "these were never committed: {phantoms:?}");
    let again: usize = batches.values().map(|batch| batch.times - 1).sum();
    println!("{} batches, {again} of them again", batches.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_of_the_server_loses_no_row() {
    survives(Victim::Server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_of_a_plugin_worker_loses_no_row() {
    survives(Victim::Worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_destination_that_crashes_loses_no_row() {
    survives(Victim::Destination).await;
}
