//! What does a pipeline cost that has nothing to do? Nothing that the system's clock can see.

use std::{fs, time::Duration};

use super::{destination::Destination, run, until_status, webhook, workers};
use crate::server::Server;

const WINDOW: Duration = Duration::from_secs(5);
/// Ticks of a hundredth of a second; what the system itself does may take some.
const TOLERANCE: u64 = 5;

/// Processor time of a process so far, of all its threads, in clock ticks. 0 for one that has ended.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may hold anything: the third field is first, `utime` and `stime` are the 14th and 15th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum()
}

/// What the server and its workers use in a while.
async fn used(server: &Server) -> u64 {
    let processes = || [vec![server.pid()], workers(server)].concat();
    let total = || processes().into_iter().map(ticks).sum::<u64>();
    let before = total();
    tokio::time::sleep(WINDOW).await;
    total().saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_without_work_does_nothing() {
    let server = Server::start();
    let client = server.connect().await;
    let destination = Destination::start();
    run(&client, "CREATE TABLE items (id int8 PRIMARY KEY, note text); INSERT INTO items VALUES (1, 'a')")
        .await;
    let without = used(&server).await;
    webhook(&client, "hook", &destination, "").await;
    for name in ["p", "q", "r"] {
        run(
            &client,
            &format!(
                "CREATE PIPELINE {name} AS SELECT id, note FROM items INTO SINK hook WITH (linger = '1ms')"
            ),
        )
        .await;
    }
    run(&client, "INSERT INTO items VALUES (2, 'b')").await;
    destination.until_lines(6).await;
    for name in ["p", "q", "r"] {
        until_status(&client, name, "done", |row| row.rows_delivered == 2 && row.phase == "stream").await;
    }
    // The machine may have been busy with something else: one quiet window of three is enough.
    let mut with = Vec::new();
    for _ in 0..3 {
        with.push(used(&server).await);
        if with.last().is_some_and(|ticks| *ticks <= without + TOLERANCE) {
            assert_eq!(destination.lines().len(), 6);
            return;
        }
    }
    panic!("in {WINDOW:?} the server used {with:?} ticks with idle pipelines, {without} without");
}
