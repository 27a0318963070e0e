//! Do many, idle and slow clients disturb the others?
//!
//! 200 connections: 50 sit in the middle of a COPY, one asks for gigabytes and does not read, the rest work.
//! Then the limits: one client too many is told so (53300), and a place is free again when somebody leaves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{SinkExt, future::join_all};
use tokio_postgres::Client;

use crate::{
    server::{Login, Server},
    wire::{Wire, bind, execute, kinds, parse, query, sync},
};

const CONNECTIONS: usize = 200;
const IN_COPY: usize = 50;
/// What 200 sessions and one unread result may add to the server's memory.
const MEMORY: u64 = 768 << 20;
/// No small statement takes longer on a busy 2-core machine in a debug build.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_connections_some_idle_in_copy_one_slow() {
    let server = Server::start();
    let key = server.tenant("acme");
    let login = server.login_with(&key);
    let first = login.connect().await.expect("connect");
    first
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, s text, v vector(16)); CREATE TABLE busy (w int, n int)",
        )
        .await
        .expect("tables");
    let before = server.resident_bytes();

    let copying = join_all((0..IN_COPY).map(|n| half_a_copy(&login, n))).await;
    let slow = slow_reader(&login.clone().user("acme"));
    let workers = join_all((0..CONNECTIONS - IN_COPY - 2).map(|_| login.connect())).await;
    let workers: Vec<Client> = workers.into_iter().map(|client| client.expect("connect")).collect();
    let slowest =
        join_all(workers.iter().enumerate().map(|(n, client)| work(client, n))).await.into_iter().max();
    let slowest = slowest.expect("workers");
    assert!(slowest < PATIENCE, "a statement took {slowest:?}");

    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY, "{CONNECTIONS} connections took {} MiB", grown >> 20);
    // The copies in progress are invisible until they end, and then whole.
    let rows: i64 = first.query_one("SELECT count(*) FROM t", &[]).await.expect("count").get(0);
    assert_eq!(rows, 0);
    for copy in copying {
        copy.finish().await;
    }
    let rows: i64 = first.query_one("SELECT count(*) FROM t", &[]).await.expect("count").get(0);
    assert_eq!(rows, i64::try_from(IN_COPY * 2).expect("few"));
    let rows: i64 = first.query_one("SELECT count(*) FROM busy", &[]).await.expect("count").get(0);
    assert_eq!(rows, i64::try_from(workers.len() * 3).expect("few"));
    slow.stop();
    println!("{CONNECTIONS} connections: {} MiB more, slowest statement {slowest:?}", grown >> 20);
}

/// A COPY of which one row has been sent.
struct HalfACopy {
    sink: std::pin::Pin<Box<tokio_postgres::CopyInSink<Bytes>>>,
    second: String,
    _client: Client,
}

async fn half_a_copy(login: &Login, n: usize) -> HalfACopy {
    let client = login.connect().await.expect("connect");
    let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY t (id, s) FROM STDIN").await.expect("COPY"));
    sink.send(Bytes::from(format!("{}\tfirst\n", 2 * n))).await.expect("a row");
    sink.flush().await.expect("flush");
    HalfACopy { sink, second: format!("{}\tsecond\n", 2 * n + 1), _client: client }
}

impl HalfACopy {
    async fn finish(mut self) {
        self.sink.send(Bytes::from(self.second)).await.expect("the second row");
        assert_eq!(self.sink.as_mut().finish().await.expect("the end"), 2);
    }
}

/// A client that has asked for a gigabyte and reads a little now and then.
struct SlowReader {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

fn slow_reader(login: &Login) -> SlowReader {
    let mut wire = Wire::log_in(login);
    wire.send(&query("SELECT repeat('slow', 256) FROM generate_series(1, 1000000) AS s(n)"));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            assert!(wire.message().is_some(), "the slow reader was thrown out");
            thread::sleep(Duration::from_millis(50));
        }
    });
    SlowReader { stop, thread }
}

impl SlowReader {
    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the slow reader was served to the end");
    }
}

/// Ordinary statements; the longest time one took.
async fn work(client: &Client, worker: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for n in 0..3_i32 {
        let start = Instant::now();
        let worker = i32::try_from(worker).expect("few workers");
        client.execute("INSERT INTO busy VALUES ($1, $2)", &[&worker, &n]).await.expect("insert");
        slowest = slowest.max(start.elapsed());
        let start = Instant::now();
        let row =
            client.query_one("SELECT count(*) FROM busy WHERE w = $1", &[&worker]).await.expect("count");
        assert_eq!(row.get::<_, i64>(0), i64::from(n) + 1);
        slowest = slowest.max(start.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_told_so() {
    let server = Server::start_with(&["--max-connections", "6"]);
    let login = server.login();
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(login.connect().await.expect("a free place"));
    }
    let error = login.connect().await.map(drop).expect_err("one too many");
    let error = error.as_db_error().expect("an answer");
    assert_eq!(error.code().code(), "53300");
    assert_eq!(error.severity(), "FATAL");
    assert!(error.hint().is_some(), "what to do about it");
    for client in &clients {
        client.simple_query("SELECT 1").await.expect("those inside go on");
    }
    clients.pop();
    comes_in(&login).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_at_its_limit_takes_nothing_from_another() {
    let server = Server::start_with(&["--max-connections-per-tenant", "3"]);
    let acme = server.login_with(&server.tenant("acme"));
    let rival = server.login_with(&server.tenant("rival"));
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(acme.connect().await.expect("a free place"));
    }
    let error = acme.connect().await.map(drop).expect_err("one too many");
    assert_eq!(error.as_db_error().expect("an answer").code().code(), "53300");
    rival.connect().await.expect("another tenant's place");
    clients.pop();
    comes_in(&acme).await;
}

/// The server learns of a leaver a moment later.
async fn comes_in(login: &Login) {
    let deadline = Instant::now() + PATIENCE;
    while login.connect().await.is_err() {
        assert!(Instant::now() < deadline, "the place of a client that left is not free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_client_that_vanishes_in_a_transaction_leaves_nothing() {
    let server = Server::start();
    let login = server.login().user("dev");
    let mut watcher = Wire::log_in(&login);
    watcher.query("CREATE TABLE t (a int PRIMARY KEY)");
    for sql in ["BEGIN; INSERT INTO t VALUES (1)", "COPY t FROM STDIN"] {
        let mut wire = Wire::log_in(&login);
        wire.send(&query(sql));
        thread::sleep(Duration::from_millis(200));
        drop(wire);
    }
    // Whatever it held is free: the same key can be written at once, or a moment later.
    let deadline = Instant::now() + PATIENCE;
    while kinds(&watcher.query("INSERT INTO t VALUES (1)")) != "C Z" {
        assert!(Instant::now() < deadline, "the row of a client that vanished is still there");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(kinds(&watcher.query("SELECT * FROM t")), "T D C Z");
}

#[test]
fn memory_is_given_back_when_clients_leave() {
    let server = Server::start();
    let login = server.login().user("dev");
    // One round warms caches and pools; the next ones must not add to it.
    let mut after = Vec::new();
    for _ in 0..4 {
        let wires: Vec<Wire> = (0..40).map(|_| busy(&login)).collect();
        drop(wires);
        thread::sleep(Duration::from_millis(500));
        after.push(server.resident_bytes());
    }
    let grown = after[3].saturating_sub(after[0]);
    assert!(grown < 128 << 20, "memory after each round: {after:?}");
}

fn busy(login: &Login) -> Wire {
    let mut wire = Wire::log_in(login);
    for n in 0..20 {
        wire.send(&parse(&format!("s{n}"), "SELECT repeat('x', $1::int), $2::vector", &[]));
        wire.send(
            &[
                bind("", &format!("s{n}"), &[], &[Some(b"1000"), Some(b"[1,2,3]")], &[]),
                execute("", 0),
                sync(),
            ]
            .concat(),
        );
        assert_eq!(kinds(&wire.until_ready()), "1 2 D C Z");
    }
    wire
}
