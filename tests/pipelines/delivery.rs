//! Every committed change arrives, in order, as what it was; and nothing else does.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::SinkExt;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio_postgres::Client;

use super::{destination::Destination, run, secret, status, until_status, webhook};
use crate::{http::Request, server::Server};

const TOKEN: &str = "bearer-of-orders-4711";
const SIGNING_KEY: &str = "the key that both sides know";

/// `u 1 pear 12`: operation, key and the row after; a deletion has none.
fn change(line: &Value) -> String {
    let (op, id) = (line["op"].as_str().expect("an op"), &line["key"]["id"]);
    match &line["after"] {
        Value::Null => format!("{op} {id}"),
        row => {
            assert_eq!(&row["id"], id, "key and row agree: {line}");
            format!("{op} {id} {} {}", row["item"].as_str().expect("an item"), row["total"])
        }
    }
}

/// A destination's lines, step by step.
struct Arrivals<'a> {
    destination: &'a Destination,
    seen: usize,
}

impl Arrivals<'_> {
    /// The next changes are exactly these.
    async fn are(&mut self, expected: &[&str]) -> Vec<Value> {
        let lines = self.next(expected.len()).await;
        assert_eq!(lines.iter().map(change).collect::<Vec<_>>(), expected);
        lines
    }

    /// The next ones are these in some order: of one commit.
    async fn are_among_one_commit(&mut self, expected: &[&str]) {
        let lines = self.next(expected.len()).await;
        let changes: BTreeSet<String> = lines.iter().map(change).collect();
        assert_eq!(changes, expected.iter().map(ToString::to_string).collect());
        let commits: BTreeSet<&str> = lines.iter().map(|line| commit(position(line))).collect();
        assert_eq!(commits.len(), 1, "one commit: {lines:?}");
    }

    async fn next(&mut self, count: usize) -> Vec<Value> {
        let lines = self.destination.until_lines(self.seen + count).await;
        let from = self.seen;
        self.seen += count;
        lines[from..self.seen].to_vec()
    }
}

fn position(line: &Value) -> &str {
    line["pos"].as_str().expect("a position")
}

/// Of a position of the stream.
fn commit(position: &str) -> &str {
    position.split_once('.').expect("commit and index").0
}

#[tokio::test(flavor = "multi_thread")]
async fn every_committed_change_arrives_in_order() {
    let server = Server::start();
    let client = server.connect().await;
    let destination = Destination::start();
    run(
        &client,
        "CREATE TABLE orders (id int8 PRIMARY KEY, item text, total int4, v vector(3));
         INSERT INTO orders VALUES (1, 'apple', 10, '[1,2,3]'), (2, 'pear', 20, NULL), (3, 'plum', NULL, '[0.5,0,-1]')",
    )
    .await;
    secret(&client, "hook_token", TOKEN).await;
    secret(&client, "hook_key", SIGNING_KEY).await;
    webhook(
        &client,
        "hook",
        &destination,
        ", token SECRET[hook_token], signing_key SECRET[hook_key], headers 'X-Source: orders'",
    )
    .await;
    assert!(destination.posts().is_empty(), "CREATE SINK leaves nothing at the destination");
    run(
        &client,
        "CREATE PIPELINE orders_out AS SELECT id, item, total, v FROM orders INTO SINK hook KEY (id)
         FORMAT NDJSON ENVELOPE DEBEZIUM WITH (snapshot = true, linger = '10ms')",
    )
    .await;
    let mut arrivals = Arrivals { destination: &destination, seen: 0 };
    let rows = arrivals.are(&["r 1 apple 10", "r 2 pear 20", "r 3 plum null"]).await;
    assert_eq!((&rows[0]["after"]["v"], &rows[1]["after"]["v"]), (&json!([1, 2, 3]), &Value::Null));
    assert_eq!(rows[2]["after"]["v"], json!([0.5, 0, -1]));
    single_statements(&client, &mut arrivals).await;
    transactions(&client, &mut arrivals).await;
    bulk(&client, &mut arrivals).await;
    let lines = destination.lines();
    assert_eq!(lines.len(), arrivals.seen, "and nothing else: {lines:?}");
    check_positions(&lines);
    check_requests(&destination.accepted());
    let row = until_status(&client, "orders_out", "caught up", |row| row.lag_rows == Some(0)).await;
    assert_eq!((row.state.as_str(), row.phase.as_str(), row.rows_dead), ("running", "stream", 0));
    assert_eq!(usize::try_from(row.rows_delivered).ok(), Some(lines.len()));
    assert_eq!((row.last_error, row.last_error_code), (None, None));
    assert_eq!(row.position.as_deref(), lines.last().map(position));
}

async fn single_statements(client: &Client, arrivals: &mut Arrivals<'_>) {
    run(client, "INSERT INTO orders VALUES (4, 'fig', 40), (5, 'kiwi \"5\" ü\n', 50)").await;
    arrivals.are(&["c 4 fig 40", "c 5 kiwi \"5\" ü\n 50"]).await;
    run(client, "UPDATE orders SET total = total + 1 WHERE id = 1").await;
    let updated = arrivals.are(&["u 1 apple 11"]).await;
    assert_eq!(updated[0]["before"]["total"], 10);
    assert_eq!(updated[0]["before"]["v"], json!([1, 2, 3]));
    run(client, "DELETE FROM orders WHERE id = 2").await;
    let deleted = arrivals.are(&["d 2"]).await;
    assert_eq!(deleted[0]["before"]["item"], "pear");
    // A key that changes is another row.
    run(client, "UPDATE orders SET id = 400 WHERE id = 4").await;
    arrivals.are(&["d 4", "c 400 fig 40"]).await;
    run(client, "INSERT INTO orders VALUES (1, 'no', 0) ON CONFLICT DO NOTHING").await;
    let upsert = "INSERT INTO orders VALUES (1, 'apple', 12), (6, 'lime', 60)
                  ON CONFLICT (id) DO UPDATE SET total = excluded.total";
    run(client, upsert).await;
    arrivals.are_among_one_commit(&["u 1 apple 12", "c 6 lime 60"]).await;
    let refused = client.batch_execute("INSERT INTO orders VALUES (7, 'never', 0), (1, 'twice', 0)").await;
    refused.expect_err("a key that is taken");
}

/// What is sent of a transaction is what it comes to, once it is committed.
async fn transactions(client: &Client, arrivals: &mut Arrivals<'_>) {
    run(client, "BEGIN; INSERT INTO orders VALUES (8, 'never', 0); DELETE FROM orders; ROLLBACK").await;
    run(
        client,
        "BEGIN;
         INSERT INTO orders VALUES (9, 'date', 1), (10, 'never', 0);
         UPDATE orders SET total = 90 WHERE id = 9; UPDATE orders SET total = 33 WHERE id = 3;
         DELETE FROM orders WHERE id = 10; DELETE FROM orders WHERE id = 6;
         COMMIT",
    )
    .await;
    arrivals.are_among_one_commit(&["c 9 date 90", "u 3 plum 33", "d 6"]).await;
    run(
        client,
        "BEGIN; INSERT INTO orders VALUES (11, 'sloe', 1); SAVEPOINT here;
         INSERT INTO orders VALUES (12, 'never', 0); UPDATE orders SET total = 0;
         ROLLBACK TO here; COMMIT",
    )
    .await;
    arrivals.are(&["c 11 sloe 1"]).await;
    run(
        client,
        "BEGIN; DELETE FROM orders WHERE id = 11; INSERT INTO orders VALUES (11, 'medlar', 2); COMMIT",
    )
    .await;
    arrivals.are(&["u 11 medlar 2"]).await;
}

async fn bulk(client: &Client, arrivals: &mut Arrivals<'_>) {
    let sink = client.copy_in::<_, Bytes>("COPY orders (id, item, total) FROM STDIN").await.expect("copy");
    let mut sink = Box::pin(sink);
    sink.send(Bytes::from_static(b"20\tquince\t1\n21\tquince\t2\n")).await.expect("send");
    sink.send(Bytes::from_static(b"22\tquince\t3\n")).await.expect("send");
    assert_eq!(sink.as_mut().finish().await.expect("copied"), 3);
    arrivals.are(&["c 20 quince 1", "c 21 quince 2", "c 22 quince 3"]).await;
    run(client, "INSERT INTO orders SELECT i, 'many', i FROM generate_series(1000, 2199) AS s(i)").await;
    let many = arrivals.next(1200).await;
    let expected: Vec<String> = (1000..2200).map(|id| format!("c {id} many {id}")).collect();
    assert_eq!(many.iter().map(change).collect::<Vec<_>>(), expected, "over several batches");
    run(client, "DELETE FROM orders WHERE id >= 1000").await;
    let gone: BTreeSet<String> = arrivals.next(1200).await.iter().map(change).collect();
    assert_eq!(gone, (1000..2200).map(|id| format!("d {id}")).collect());
    run(client, "TRUNCATE orders").await;
    let rest = ["d 1", "d 3", "d 5", "d 9", "d 11", "d 20", "d 21", "d 22", "d 400"];
    arrivals.are_among_one_commit(&rest).await;
}

/// First the snapshot, then commit after commit, each row at a place of its own.
fn check_positions(lines: &[Value]) {
    let positions: Vec<&str> = lines.iter().map(position).collect();
    assert!(positions[..3].iter().all(|position| position.starts_with('s')), "{:?}", &positions[..3]);
    let (snapshot, stream) = positions.split_at(3);
    for part in [snapshot, stream] {
        assert!(part.windows(2).all(|pair| pair[0] < pair[1]), "not ascending: {part:?}");
    }
    for line in lines {
        let time = line["ts"].as_str().expect("a time");
        assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z'), "{time}");
    }
}

fn check_requests(requests: &[Request]) {
    let mut ids = BTreeSet::new();
    for request in requests {
        let header =
            |name: &str| request.header(name).unwrap_or_else(|| panic!("no {name}: {:?}", request.headers));
        assert_eq!(request.path, "/in");
        assert_eq!(header("content-type"), "application/x-ndjson");
        assert_eq!(header("authorization"), format!("Bearer {TOKEN}"));
        assert_eq!(header("x-source"), "orders");
        assert_eq!(header("webhook-id"), header("idempotency-key"));
        assert!(ids.insert(header("webhook-id")), "a batch came twice, and nothing had gone wrong");
        assert_eq!(header("webhook-signature"), signature(request, SIGNING_KEY));
        let then: u64 = header("webhook-timestamp").parse().expect("seconds");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        assert!(now.abs_diff(then) < 300, "signed at {then}, now is {now}");
        assert!(request.lines().len() <= 500, "as many rows as the plugin's manifest says");
    }
}

/// As standardwebhooks.com has it: HMAC-SHA-256 over `id.timestamp.body`.
fn signature(request: &Request, key: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    let header = |name: &str| request.header(name).unwrap_or_default();
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&request.body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_decides_what_a_row_is_for_the_destination() {
    let server = Server::start();
    let client = server.connect().await;
    let destination = Destination::start();
    run(
        &client,
        "CREATE TABLE orders (id int8 PRIMARY KEY, item text, total int4, note text);
         INSERT INTO orders VALUES (1, 'large', 500), (2, 'small', 5)",
    )
    .await;
    webhook(&client, "hook", &destination, ", format 'json'").await;
    run(
        &client,
        "CREATE PIPELINE large AS SELECT id, upper(item) AS item, total * 2 AS total FROM orders WHERE total > 100
         INTO SINK hook KEY (id) ENVELOPE UPSERT WITH (snapshot = true, linger = '10ms')",
    )
    .await;
    let lines = |destination: &Destination| -> Vec<String> {
        let batches = destination.accepted();
        batches
            .iter()
            .flat_map(|batch| batch.json().as_array().expect("an array").clone())
            .map(|line| change(&line))
            .collect()
    };
    destination.until("the snapshot", |destination| lines(destination).len() == 1).await;
    for sql in [
        "INSERT INTO orders VALUES (3, 'new', 300), (4, 'tiny', 1), (5, 'unknown', NULL)",
        "UPDATE orders SET total = 200 WHERE id = 2",
        "UPDATE orders SET total = 201 WHERE id = 2",
        "UPDATE orders SET total = 2 WHERE id = 2",
        "UPDATE orders SET total = 3 WHERE id = 2",
        "DELETE FROM orders WHERE id = 2",
        "UPDATE orders SET note = 'not read' WHERE id = 4",
        "DELETE FROM orders WHERE id = 1",
    ] {
        run(&client, sql).await;
    }
    let expected =
        ["r 1 LARGE 1000", "c 3 NEW 600", "c 2 SMALL 400", "u 2 SMALL 402", "d 2", "d 1"].map(str::to_owned);
    destination.until("all", |destination| lines(destination).len() >= expected.len()).await;
    assert_eq!(lines(&destination), expected);
    let batches = destination.accepted();
    assert_eq!(batches[0].header("content-type"), Some("application/json"));
    let last = batches.last().expect("a batch").json();
    assert!(last[0].get("before").is_none(), "upsert tells of a deletion its key only: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_pauses_goes_back_and_begins_anew() {
    let server = Server::start();
    let client = server.connect().await;
    let destination = Destination::start();
    run(
        &client,
        "CREATE TABLE orders (id int8 PRIMARY KEY, item text, total int4); INSERT INTO orders VALUES (1, 'a', 1)",
    )
    .await;
    webhook(&client, "hook", &destination, "").await;
    run(
        &client,
        "CREATE PIPELINE p AS SELECT * FROM orders INTO SINK hook ENVELOPE UPSERT WITH (linger = '10ms')",
    )
    .await;
    let mut arrivals = Arrivals { destination: &destination, seen: 0 };
    arrivals.are(&["r 1 a 1"]).await;
    run(&client, "INSERT INTO orders VALUES (2, 'b', 2)").await;
    arrivals.are(&["c 2 b 2"]).await;
    let caught_up = until_status(&client, "p", "caught up", |row| row.rows_delivered == 2).await;

    run(&client, "ALTER PIPELINE p PAUSE").await;
    until_status(&client, "p", "paused", |row| row.state == "paused").await;
    run(&client, "INSERT INTO orders VALUES (3, 'c', 3)").await;
    run(&client, "UPDATE orders SET total = 22 WHERE id = 2").await;
    until_status(&client, "p", "counting what waits", |row| row.lag_rows == Some(2)).await;
    assert_eq!(destination.lines().len(), 2, "paused is paused");
    run(&client, "ALTER PIPELINE p RESUME").await;
    arrivals.are(&["c 3 c 3", "u 2 b 22"]).await;

    let position = caught_up.position.expect("a position");
    run(&client, &format!("ALTER PIPELINE p RESUME FROM POSITION '{position}'")).await;
    arrivals.are(&["c 3 c 3", "u 2 b 22"]).await;

    run(&client, "ALTER PIPELINE p RESET").await;
    let rows = arrivals.next(3).await;
    let anew: BTreeSet<String> = rows.iter().map(change).collect();
    assert_eq!(anew, BTreeSet::from(["r 1 a 1", "r 2 b 22", "r 3 c 3"].map(str::to_owned)));
    run(&client, "INSERT INTO orders VALUES (4, 'd', 4)").await;
    arrivals.are(&["c 4 d 4"]).await;

    run(&client, "DROP PIPELINE p").await;
    run(&client, "INSERT INTO orders VALUES (5, 'e', 5)").await;
    assert!(status(&client, "p").await.is_none());
    // A new one of the same name is another one. Its first line comes after whatever the old one might still send.
    run(
        &client,
        "CREATE PIPELINE p AS SELECT * FROM orders WHERE id > 5 INTO SINK hook WITH (linger = '10ms')",
    )
    .await;
    run(&client, "INSERT INTO orders VALUES (6, 'f', 6)").await;
    let last = arrivals.next(1).await;
    assert_eq!(last[0]["key"]["id"], 6, "nothing of what was committed after DROP");
}
