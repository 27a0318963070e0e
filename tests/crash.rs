//! What does kill -9 lose?
//!
//! Writers of every kind work at once and note what the server acknowledged; at a random moment the process
//! is killed, started again on the same directory, and asked. Every acknowledged row is there, no
//! transaction is half applied, and the next round goes on with what is there. `SEPAL_CRASH_ROUNDS=100` is the
//! bar; eight rounds are what a developer waits for.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::SinkExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::server::{Key, Server};

/// Numbers of a vector: large enough that a round's COPY fills log segments.
const DIMENSIONS: i64 = 96;
const COPY_ROWS: i64 = 300;
/// Batches that stay from one round to the next.
const KEPT_BATCHES: usize = 30;
const COUNTERS: i64 = 4;
const DOOMED_PER_ROUND: i64 = 200;

/// What the server has acknowledged, over all rounds.
#[derive(Default)]
pub struct Acknowledged {
    /// Ids present in both halves.
    pairs: Mutex<BTreeSet<i64>>,
    /// Lowest count that each counter can have.
    counters: [AtomicI64; COUNTERS as usize],
    /// Increments that were sent, acknowledged or not.
    attempted: [AtomicI64; COUNTERS as usize],
    /// Batches copied in full.
    batches: Mutex<BTreeSet<i64>>,
    /// Batches below this were deleted between rounds.
    first_batch: AtomicI64,
    /// All batches found after a kill, deleted ones included.
    batches_found: AtomicI64,
    /// Ids deleted for good.
    deleted: Mutex<BTreeSet<i64>>,
    next: AtomicI64,
    stop: AtomicBool,
    /// The server may refuse: its disk is being taken away.
    failing: AtomicBool,
    /// Pairs whose answers came then.
    late: Mutex<BTreeSet<i64>>,
}

impl Acknowledged {
    fn next(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// From now on an error is no failure of the server's, and an answer does not count: with a power cut nobody would get
    /// it. It may be wrong, because a file system that is shut down in the middle of an fdatasync can let it succeed
    /// (jbd2 waits for a transaction that is no longer there).
    pub fn excuse(&self) {
        self.failing.store(true, Ordering::SeqCst);
    }

    /// Whether an answer that has just come counts.
    fn counts(&self) -> bool {
        !self.failing.load(Ordering::SeqCst)
    }

    /// Writers end with their next statement.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// For the next round.
    pub fn go_on(&self) {
        self.stop.store(false, Ordering::Relaxed);
        self.failing.store(false, Ordering::Relaxed);
    }

    /// In a few words.
    pub fn told(&self) -> String {
        let batches = self.batches.lock().expect("batches").len() as i64;
        format!(
            "{} pairs, {} batches of {COPY_ROWS}, {} deletes acknowledged and found",
            self.pairs.lock().expect("pairs").len(),
            self.batches_found.load(Ordering::Relaxed) + batches,
            self.deleted.lock().expect("deleted").len()
        )
    }
}

fn rounds() -> u64 {
    std::env::var("SEPAL_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_writes_survive_kill_9() {
    let seed = std::env::var("SEPAL_CRASH_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    println!("SEPAL_CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start();
    let key = server.tenant("acme");
    set_up(&connect(&server, &key).await).await;
    let known = Arc::new(Acknowledged::default());
    for round in 0..rounds() {
        let client = connect(&server, &key).await;
        doom(&client, i64::try_from(round).expect("few rounds")).await;
        let moment = Duration::from_millis(random.random_range(20..2_500));
        let writers = start_writers(&server, &key, &known, i64::try_from(round).expect("few rounds")).await;
        tokio::time::sleep(moment).await;
        server.kill();
        end_writers(writers, &known, &format!("round {round}")).await;
        known.go_on();
        server.start_again();
        let client = connect(&server, &key).await;
        check(&client, &known, &format!("round {round}, killed after {moment:?}")).await;
        drop_old_batches(&client, &known).await;
        eprintln!("round {round}: killed after {moment:?}, everything is there");
    }
    println!("{} rounds: {}", rounds(), known.told());
}

pub async fn connect(server: &Server, key: &Key) -> Client {
    server.login_with(key).connect().await.expect("connect")
}

pub async fn set_up(client: &Client) {
    let sql = format!(
        "CREATE TABLE left_half (id int8 PRIMARY KEY, note text);
         CREATE TABLE right_half (id int8 PRIMARY KEY, note text);
         CREATE TABLE counters (id int8 PRIMARY KEY, a int8 NOT NULL, b int8 NOT NULL);
         CREATE TABLE doomed (id int8 PRIMARY KEY, filler text);
         CREATE TABLE copied (batch int8, n int8, v vector({DIMENSIONS}));
         CREATE TABLE churned (id int8, v vector({DIMENSIONS}))"
    );
    client.batch_execute(&sql).await.expect("tables");
    for id in 0..COUNTERS {
        client.execute("INSERT INTO counters VALUES ($1, 0, 0)", &[&id]).await.expect("a counter");
    }
}

/// Rows for this round's deleter.
pub async fn doom(client: &Client, round: i64) {
    let first = round * DOOMED_PER_ROUND;
    let last = first + DOOMED_PER_ROUND - 1;
    let sql =
        format!("INSERT INTO doomed SELECT x, repeat('x', 50) FROM generate_series({first}, {last}) AS s(x)");
    client.batch_execute(&sql).await.expect("doomed rows");
}

/// Each runs until the server is gone. An error while it lives is a failure, and it lives until `stop` or
/// a closed connection.
pub async fn start_writers(server: &Server, key: &Key, known: &Arc<Acknowledged>, round: i64) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for _ in 0..3 {
        writers.spawn(insert_pairs(connect(server, key).await, Arc::clone(known)));
    }
    for counter in 0..COUNTERS {
        writers.spawn(count(connect(server, key).await, Arc::clone(known), counter));
    }
    for _ in 0..2 {
        writers.spawn(copy_batches(connect(server, key).await, Arc::clone(known)));
    }
    writers.spawn(delete(connect(server, key).await, Arc::clone(known), round));
    writers.spawn(index(connect(server, key).await, Arc::clone(known)));
    writers
}

/// Waits until all have noticed that the server is gone. One that failed before had a reason of its own.
pub async fn end_writers(mut writers: JoinSet<()>, known: &Acknowledged, when: &str) {
    known.stop();
    while let Some(ended) = writers.join_next().await {
        if let Err(error) = ended {
            panic!("{when}: a writer failed before the server was gone: {error}");
        }
    }
}

/// Whether a writer should end; panics on an error that the kill does not explain.
fn ended(known: &Acknowledged, client: &Client, error: &tokio_postgres::Error) -> bool {
    // The socket may report the end a moment before the client knows that it is closed.
    let excused = known.failing.load(Ordering::Relaxed);
    assert!(excused || client.is_closed() || error.as_db_error().is_none(), "{error:?}");
    true
}

/// A row in each of two tables, in one transaction.
async fn insert_pairs(client: Client, known: Arc<Acknowledged>) {
    while !known.stopped() {
        let id = known.next();
        let sql = format!(
            "BEGIN; INSERT INTO left_half VALUES ({id}, 'l{id}'); INSERT INTO right_half VALUES ({id}, 'r{id}'); COMMIT"
        );
        match client.batch_execute(&sql).await {
            Ok(()) if !known.counts() => {
                known.late.lock().expect("late").insert(id);
                return;
            }
            Ok(()) => known.pairs.lock().expect("pairs").insert(id),
            Err(error) => return assert!(ended(&known, &client, &error)),
        };
    }
}

/// Adds one to both numbers of a row of its own.
async fn count(client: Client, known: Arc<Acknowledged>, counter: i64) {
    let at = usize::try_from(counter).expect("few counters");
    while !known.stopped() {
        known.attempted[at].fetch_add(1, Ordering::Relaxed);
        match client.execute("UPDATE counters SET a = a + 1, b = b + 1 WHERE id = $1", &[&counter]).await {
            Ok(_) if !known.counts() => return,
            Ok(rows) => {
                assert_eq!(rows, 1, "the counter's row is gone");
                known.counters[at].fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return assert!(ended(&known, &client, &error)),
        }
    }
}

/// Batches that are there in full or not at all.
async fn copy_batches(client: Client, known: Arc<Acknowledged>) {
    while !known.stopped() {
        let batch = known.next();
        match copy_batch(&client, batch).await {
            Ok(_) if !known.counts() => return,
            Ok(rows) => {
                assert_eq!(i64::try_from(rows).expect("few rows"), COPY_ROWS);
                known.batches.lock().expect("batches").insert(batch);
            }
            Err(error) => return assert!(ended(&known, &client, &error)),
        }
    }
}

async fn copy_batch(client: &Client, batch: i64) -> Result<u64, tokio_postgres::Error> {
    let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY copied FROM STDIN").await?);
    for n in 0..COPY_ROWS {
        let numbers: Vec<String> =
            (0..DIMENSIONS).map(|i| ((batch * 31 + n * 7 + i) % 101).to_string()).collect();
        sink.send(Bytes::from(format!("{batch}\t{n}\t[{}]\n", numbers.join(",")))).await?;
    }
    sink.as_mut().finish().await
}

async fn delete(client: Client, known: Arc<Acknowledged>, round: i64) {
    for id in round * DOOMED_PER_ROUND..(round + 1) * DOOMED_PER_ROUND - 10 {
        if known.stopped() {
            return;
        }
        match client.execute("DELETE FROM doomed WHERE id = $1", &[&id]).await {
            Ok(_) if !known.counts() => return,
            Ok(rows) => {
                assert_eq!(rows, 1, "doomed row {id} was not there");
                known.deleted.lock().expect("deleted").insert(id);
            }
            Err(error) => return assert!(ended(&known, &client, &error)),
        }
    }
}

/// Index builds, and a table that is filled and emptied so that segments are compacted.
async fn index(client: Client, known: Arc<Acknowledged>) {
    let fill = format!(
        "INSERT INTO churned SELECT x, ('[' || repeat('0.5,', {}) || x || ']')::vector FROM generate_series(1, 2000) AS s(x)",
        DIMENSIONS - 1
    );
    while !known.stopped() {
        for sql in [
            "DROP INDEX IF EXISTS copied_v",
            &fill,
            "CREATE INDEX copied_v ON copied USING hnsw (v vector_l2_ops) WITH (m = 8, ef_construction = 16)",
            "DELETE FROM churned WHERE id % 3 <> 0",
            "VACUUM",
            "DELETE FROM churned",
        ] {
            if let Err(error) = client.batch_execute(sql).await {
                return assert!(ended(&known, &client, &error), "{sql}");
            }
        }
    }
}

pub async fn check(client: &Client, known: &Acknowledged, at: &str) {
    check_pairs(client, known, at).await;
    check_counters(client, known, at).await;
    check_batches(client, known, at).await;
    check_deleted(client, known, at).await;
    check_search(client, at).await;
}

async fn check_pairs(client: &Client, known: &Acknowledged, at: &str) {
    let ids =
        |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get::<_, i64>(0)).collect::<BTreeSet<_>>();
    let left = ids(client.query("SELECT id FROM left_half WHERE note = 'l' || id", &[]).await.expect("left"));
    let right =
        ids(client.query("SELECT id FROM right_half WHERE note = 'r' || id", &[]).await.expect("right"));
    let half: Vec<_> = left.symmetric_difference(&right).collect();
    assert!(half.is_empty(), "{at}: half-applied transactions: {half:?}");
    let late = std::mem::take(&mut *known.late.lock().expect("late"));
    if !late.is_empty() {
        let untrue: Vec<_> = late.difference(&left).collect();
        eprintln!("{at}: {} inserts were acknowledged after it, untruly {untrue:?}", late.len());
    }
    let acknowledged = known.pairs.lock().expect("pairs").clone();
    let lost: Vec<_> = acknowledged.difference(&left).collect();
    assert!(lost.is_empty(), "{at}: acknowledged inserts are lost: {lost:?}");
    let count = left.len();
    let total: usize = client
        .query_one("SELECT count(*) FROM left_half", &[])
        .await
        .expect("count")
        .get::<_, i64>(0)
        .try_into()
        .expect("a count");
    assert_eq!(total, count, "{at}: rows with wrong text");
}

async fn check_counters(client: &Client, known: &Acknowledged, at: &str) {
    let rows = client.query("SELECT id, a, b FROM counters ORDER BY id", &[]).await.expect("counters");
    assert_eq!(rows.len(), usize::try_from(COUNTERS).expect("few"), "{at}: counters");
    for row in rows {
        let (id, a, b): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let slot = usize::try_from(id).expect("few counters");
        let acknowledged = known.counters[slot].load(Ordering::Relaxed);
        let attempted = known.attempted[slot].load(Ordering::Relaxed);
        assert_eq!(a, b, "{at}: counter {id} is half applied");
        assert!(
            (acknowledged..=attempted).contains(&a),
            "{at}: counter {id} is {a}, not {acknowledged}..={attempted}"
        );
        // An increment in flight at the kill may have been kept: from now on it counts.
        known.counters[slot].store(a, Ordering::Relaxed);
        known.attempted[slot].store(a, Ordering::Relaxed);
    }
}

async fn check_batches(client: &Client, known: &Acknowledged, at: &str) {
    let rows = client
        .query("SELECT batch, count(*), count(DISTINCT n), count(v) FROM copied GROUP BY batch", &[])
        .await
        .expect("batches");
    let mut whole = BTreeSet::new();
    for row in rows {
        let (batch, rows, distinct, vectors): (i64, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!(
            (rows, distinct, vectors),
            (COPY_ROWS, COPY_ROWS, COPY_ROWS),
            "{at}: batch {batch} is half there"
        );
        whole.insert(batch);
    }
    let first = known.first_batch.load(Ordering::Relaxed);
    assert!(whole.first().is_none_or(|batch| *batch >= first), "{at}: deleted batches are back: {whole:?}");
    let mut acknowledged = known.batches.lock().expect("batches");
    let lost: Vec<_> = acknowledged.difference(&whole).copied().collect();
    assert!(lost.is_empty(), "{at}: acknowledged copies are lost: {lost:?}");
    // Those in flight at the kill and kept count from now on, too.
    acknowledged.extend(whole);
}

/// Keeps the table small, so that a hundred rounds take minutes; large deletes also make segments worth merging.
pub async fn drop_old_batches(client: &Client, known: &Acknowledged) {
    let first = {
        let mut batches = known.batches.lock().expect("batches");
        let Some(first) = batches.iter().rev().nth(KEPT_BATCHES).copied() else { return };
        let old = batches.len();
        batches.retain(|batch| *batch > first);
        let dropped = i64::try_from(old - batches.len()).expect("few batches");
        known.batches_found.fetch_add(dropped, Ordering::Relaxed);
        first + 1
    };
    client.execute("DELETE FROM copied WHERE batch < $1", &[&first]).await.expect("delete old batches");
    known.first_batch.store(first, Ordering::Relaxed);
}

async fn check_deleted(client: &Client, known: &Acknowledged, at: &str) {
    let rows = client.query("SELECT id FROM doomed", &[]).await.expect("doomed");
    let alive: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(alive.len(), rows.len(), "{at}: a doomed row is there twice");
    let deleted = known.deleted.lock().expect("deleted");
    let risen: Vec<_> = deleted.intersection(&alive).collect();
    assert!(risen.is_empty(), "{at}: deleted rows are back: {risen:?}");
}

/// What an index finds is what is there, whether its build survived or not; one that did not is gone.
async fn check_search(client: &Client, at: &str) {
    let sql = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    let unfinished: i64 = client.query_one(sql, &[]).await.expect("indexes").get(0);
    assert_eq!(unfinished, 0, "{at}: an index whose build was cut short is left");
    let total: i64 = client.query_one("SELECT count(*) FROM copied", &[]).await.expect("count").get(0);
    let Some(row) =
        client.query_opt("SELECT v::text FROM copied ORDER BY batch DESC, n LIMIT 1", &[]).await.expect("v")
    else {
        return;
    };
    let vector: String = row.get(0);
    let sql = "SELECT (v <-> ($1::text)::vector) FROM copied ORDER BY v <-> ($1::text)::vector LIMIT 50";
    let rows = client.query(sql, &[&vector]).await.expect("search");
    assert_eq!(i64::try_from(rows.len()).expect("few"), total.min(50), "{at}: LIMIT is filled");
    assert!(rows[0].get::<_, f64>(0) < 1e-6, "{at}: the vector itself is the nearest");
}
