//! Does an index build show itself, and does it leave everybody else alone?
//!
//! While one session builds, others read and write the same table and watch `pg_stat_progress_create_index`.
//! Afterwards the index finds what was written before, during and after the build.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::server::Server;

/// Enough that a build takes a while even on a fast machine.
const ROWS: i64 = 20_000;
const DIMENSIONS: i64 = 96;
/// A statement beside a build may be slower, but must not wait for its end.
const PATIENCE: Duration = Duration::from_secs(3);

/// A row as the progress view shows it.
#[derive(Debug)]
struct Progress {
    phase: String,
    blocks: (i64, i64),
    tuples: (i64, i64),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_build_shows_progress_and_blocks_nobody() {
    let server = Server::start();
    let key = server.tenant("acme");
    let login = server.login_with(&key);
    let builder = login.connect().await.expect("connect");
    fill(&builder).await;
    let watcher = login.connect().await.expect("connect");
    let other = login.connect().await.expect("connect");
    let rival = server.login_with(&server.tenant("rival")).connect().await.expect("connect");
    assert!(progress(&watcher).await.is_none(), "no build has begun");

    let build = tokio::spawn(async move {
        let sql =
            "CREATE INDEX items_v ON items USING hnsw (v vector_l2_ops) WITH (m = 16, ef_construction = 200)";
        builder.batch_execute(sql).await.expect("the build");
    });
    let mut seen: Vec<Progress> = Vec::new();
    let mut slowest = Duration::ZERO;
    let mut written = 0;
    while !build.is_finished() {
        seen.extend(progress(&watcher).await);
        assert!(progress(&rival).await.is_none(), "another tenant sees the build");
        let start = Instant::now();
        written += 1;
        write_and_read(&other, written).await;
        slowest = slowest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    build.await.expect("the build");
    assert!(slowest < PATIENCE, "a statement waited {slowest:?} for the build");
    check_progress(&seen);
    assert!(progress(&watcher).await.is_none(), "the build is over");

    // Rows of before, during and after.
    other
        .execute("INSERT INTO items VALUES (-1000000, $1::text::vector)", &[&vector(-1.0)])
        .await
        .expect("after");
    for (id, first) in
        [(5_i64, 5.0), (-1, 100_001.0), (-written, 100_000.0 + written as f64), (-1_000_000, -1.0)]
    {
        let sql = "SELECT id FROM items ORDER BY v <-> ($1::text)::vector LIMIT 1";
        let found: i64 = other.query_one(sql, &[&vector(first)]).await.expect("search").get(0);
        assert_eq!(found, id, "the row with {first}");
    }
}

/// The first number is the row's own, the others are small.
fn vector(first: f64) -> String {
    let rest: Vec<String> = (1..DIMENSIONS).map(|i| ((i * 7) % 13).to_string()).collect();
    format!("[{first},{}]", rest.join(","))
}

async fn fill(client: &Client) {
    let rest: Vec<String> = (1..DIMENSIONS).map(|i| ((i * 7) % 13).to_string()).collect();
    let sql = format!(
        "CREATE TABLE items (id int8 PRIMARY KEY, v vector({DIMENSIONS}));
         INSERT INTO items SELECT x, ('[' || x || ',{}]')::vector FROM generate_series(1, {ROWS}) AS s(x)",
        rest.join(",")
    );
    client.batch_execute(&sql).await.expect("rows");
}

/// A row that is found at once, by its id and as its own nearest neighbour.
async fn write_and_read(client: &Client, number: i64) {
    let text = vector(100_000.0 + number as f64);
    client
        .execute("INSERT INTO items VALUES ($1, ($2::text)::vector)", &[&-number, &text])
        .await
        .expect("insert");
    let count: i64 = client.query_one("SELECT count(*) FROM items", &[]).await.expect("count").get(0);
    assert_eq!(count, ROWS + number);
    let sql = "SELECT id FROM items ORDER BY v <-> ($1::text)::vector LIMIT 1";
    let nearest: i64 = client.query_one(sql, &[&text]).await.expect("search").get(0);
    assert_eq!(nearest, -number, "a row written during the build");
}

/// The query of ann-benchmarks, with the totals.
async fn progress(client: &Client) -> Option<Progress> {
    let sql = "SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total FROM pg_stat_progress_create_index";
    let rows = client.query(sql, &[]).await.expect("progress");
    assert!(rows.len() <= 1, "one build, {} rows", rows.len());
    rows.first().map(|row| Progress {
        phase: row.get(0),
        blocks: (row.get(1), row.get(2)),
        tuples: (row.get(3), row.get(4)),
    })
}

fn check_progress(seen: &[Progress]) {
    assert!(seen.len() >= 3, "the build was seen {} times", seen.len());
    assert!(
        seen.iter().any(|row| row.phase == "building index: loading tuples"),
        "pgvector's phase: {seen:?}"
    );
    for row in seen {
        assert!(
            row.blocks.0 <= row.blocks.1 && row.tuples.0 <= row.tuples.1,
            "more than all is done: {row:?}"
        );
    }
    for pair in seen.windows(2) {
        if pair[0].phase == pair[1].phase {
            assert!(pair[0].tuples.0 <= pair[1].tuples.0, "progress went back: {pair:?}");
        }
    }
    let steps = seen.iter().map(|row| row.tuples.0).collect::<std::collections::BTreeSet<_>>().len();
    assert!(steps >= 2, "progress never moved: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_leaves_nothing() {
    let server = Server::start();
    let client = server.connect().await;
    fill(&client).await;
    client.batch_execute("SET statement_timeout = 100").await.expect("set");
    let sql =
        "CREATE INDEX items_v ON items USING hnsw (v vector_l2_ops) WITH (m = 32, ef_construction = 400)";
    let error = client.batch_execute(sql).await.expect_err("the build is too long for this");
    assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error}");
    client.batch_execute("RESET statement_timeout").await.expect("reset");
    assert!(progress(&client).await.is_none());
    let indexes: i64 = client
        .query_one("SELECT count(*) FROM pg_indexes WHERE indexname = 'items_v'", &[])
        .await
        .expect("indexes")
        .get(0);
    assert_eq!(indexes, 0, "the index is not in the catalog");
    client
        .batch_execute("CREATE INDEX items_v ON items USING flat (v vector_l2_ops)")
        .await
        .expect("its name is free");
}
