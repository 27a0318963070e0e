//! What arrives, and in which order.

use super::{ENVIRONMENT, alter, create, database, destination::Destination, status, until_status};
use crate::{
    connector::{Delivered, Envelope},
    fixtures::run,
};

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_first_then_every_change_in_order() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a'), (2, 'b')").await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    assert_eq!(destination.until_changes(2).await, ["r 1 a", "r 2 b"]);
    run(&mut session, "INSERT INTO items VALUES (3, 'c')").await;
    run(&mut session, "UPDATE items SET label = 'B' WHERE id = 2").await;
    run(&mut session, "DELETE FROM items WHERE id = 1").await;
    let changes = destination.until_changes(5).await;
    assert_eq!(changes[2..], ["c 3 c", "u 2 B", "d 1"]);
    let lines = destination.lines();
    assert_eq!(lines[4]["before"]["label"], "a", "a deletion shows what it deleted");
    assert!(lines[3].get("before").is_none(), "append has no row before an update");
    let positions: Vec<&str> = lines.iter().map(|line| line["pos"].as_str().unwrap()).collect();
    assert!(positions[0].starts_with('s') && !positions[2].starts_with('s'));
    assert!(positions[2..].is_sorted(), "{positions:?}");
    until_status(&fixture, "caught up", |row| row.lag_rows == Some(0) && row.rows_delivered == 5).await;
    let row = status(&fixture).await.unwrap();
    assert_eq!((row.state.as_str(), row.phase.as_str(), row.last_error), ("running", "stream", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_its_net_effect() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a')").await;
    create(&fixture, "SELECT id, label FROM items", |def| def.envelope = Envelope::Debezium).await;
    destination.until_changes(1).await;
    run(
        &mut session,
        "BEGIN; UPDATE items SET label = 'b' WHERE id = 1; UPDATE items SET label = 'c' WHERE id = 1;
         INSERT INTO items VALUES (2, 'x'); DELETE FROM items WHERE id = 2; COMMIT",
    )
    .await;
    run(&mut session, "INSERT INTO items VALUES (3, 'end')").await;
    let changes = destination.until_changes(3).await;
    assert_eq!(changes[1..], ["u 1 c", "c 3 end"]);
    assert_eq!(destination.lines()[1]["before"]["label"], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_is_asked_about_both_sides_of_an_update() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    create(&fixture, "SELECT id, label FROM items WHERE label LIKE 'in%'", |def| def.snapshot = false).await;
    for statement in [
        "INSERT INTO items VALUES (1, 'in'), (2, 'out')",
        "UPDATE items SET label = 'in 2' WHERE id = 2",
        "UPDATE items SET label = 'in 1' WHERE id = 1",
        "UPDATE items SET label = 'out' WHERE id = 2",
        "UPDATE items SET label = 'farther out' WHERE id = 2",
        "DELETE FROM items WHERE id = 2",
        "DELETE FROM items WHERE id = 1",
    ] {
        run(&mut session, statement).await;
    }
    let changes = destination.until_changes(5).await;
    assert_eq!(changes, ["c 1 in", "c 2 in 2", "u 1 in 1", "d 2", "d 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_between_those_that_pass_are_left_out() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    create(&fixture, "SELECT id, label FROM items WHERE id % 2 = 0", |def| def.snapshot = false).await;
    run(&mut session, "INSERT INTO items SELECT i, 'x' FROM generate_series(1, 7) AS g(i)").await;
    run(&mut session, "INSERT INTO items VALUES (8, 'y'), (10, 'z')").await;
    let mut changes = destination.until_changes(5).await;
    assert_eq!(changes, ["c 2 x", "c 4 x", "c 6 x", "c 8 y", "c 10 z"]);
    run(&mut session, "DELETE FROM items WHERE id IN (1, 2, 3, 6, 8)").await;
    changes = destination.until_changes(8).await;
    changes[5..].sort();
    assert_eq!(changes[5..], ["d 2", "d 6", "d 8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_snapshot_only_what_comes_after_counts() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items VALUES (1, 'before')").await;
    create(&fixture, "SELECT id, label FROM items", |def| def.snapshot = false).await;
    run(&mut session, "INSERT INTO items VALUES (2, 'after')").await;
    assert_eq!(destination.until_changes(1).await, ["c 2 after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_keeps_what_waits_and_a_reset_begins_anew() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a')").await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    destination.until_changes(1).await;
    alter(&fixture, |def| def.paused = true).await;
    until_status(&fixture, "paused", |row| row.state == "paused").await;
    run(&mut session, "INSERT INTO items VALUES (2, 'b'), (3, 'c')").await;
    until_status(&fixture, "behind", |row| row.lag_rows == Some(2)).await;
    assert_eq!(destination.lines().len(), 1);
    alter(&fixture, |def| (def.paused, def.resumed) = (false, 1)).await;
    assert_eq!(destination.until_changes(3).await[1..], ["c 2 b", "c 3 c"]);
    alter(&fixture, |def| def.generation = 2).await;
    let changes = destination.until_changes(6).await;
    assert_eq!(changes[3..], ["r 1 a", "r 2 b", "r 3 c"]);
    assert_eq!(fixture.tenant().await.pipelines.status(ENVIRONMENT).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_holds_moves_the_position_when_it_is_flushed() {
    let destination = Destination::with(|_| Ok(Delivered::Buffered));
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items SELECT i, 'x' FROM generate_series(1, 25) AS g(i)").await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    destination.until_changes(25).await;
    until_status(&fixture, "flushed", |row| row.rows_delivered == 25 && row.lag_rows == Some(0)).await;
}
