//! What a destination that refuses, hangs up or is not there does to the rows: nothing.

use std::{collections::BTreeSet, time::Duration};

use tokio_postgres::Client;

use super::{
    dead_letters, destination::Destination, run, secret, status, until_dead_letters, until_status, webhook,
};
use crate::{
    http::{Answer, Request, Taken},
    server::Server,
};

/// A server with `items (id, note)`, empty, and a pipeline `p` to the destination.
async fn piped(destination: &Destination, with: &str) -> (Server, Client) {
    let server = Server::start();
    let client = server.connect().await;
    run(&client, "CREATE TABLE items (id int8 PRIMARY KEY, note text)").await;
    webhook(&client, "hook", destination, "").await;
    let create = format!(
        "CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK hook KEY (id) ENVELOPE UPSERT
         WITH (snapshot = false, linger = '10ms'{with})"
    );
    run(&client, &create).await;
    (server, client)
}

fn id_of(request: &Request) -> &str {
    request.header("webhook-id").expect("an id")
}

/// Keys of the lines that the destination took, in order.
fn keys(destination: &Destination) -> Vec<i64> {
    destination.lines().iter().map(|line| line["key"]["id"].as_i64().expect("an id")).collect()
}

fn statuses(posts: &[Taken]) -> Vec<Option<u16>> {
    posts.iter().map(|taken| taken.status).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_comes_again_as_it_was() {
    let destination = Destination::start();
    let (_server, client) = piped(&destination, "").await;
    let mut attempts = 0;
    destination.now(move |request| {
        attempts += usize::from(request.method == "POST");
        match attempts {
            1 | 2 => Answer::text(503, "come back").at_once(),
            3 => Answer::hang_up(),
            4 => Answer::status(204).after(Duration::from_millis(100)),
            _ => Answer::status(204),
        }
    });
    run(&client, "INSERT INTO items VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
    destination.until("delivered", |destination| !destination.accepted().is_empty()).await;
    run(&client, "INSERT INTO items VALUES (4, 'd')").await;
    destination.until("all delivered", |destination| destination.lines().len() == 4).await;
    assert_eq!(keys(&destination), [1, 2, 3, 4]);
    let posts = destination.posts();
    assert_eq!(statuses(&posts), [Some(503), Some(503), None, Some(204), Some(204)]);
    let first = &posts[0].request;
    for again in &posts[1..4] {
        assert_eq!((id_of(&again.request), &again.request.body), (id_of(first), &first.body));
    }
    assert_ne!(id_of(&posts[4].request), id_of(first));
    let row = until_status(&client, "p", "well again", |row| row.rows_delivered == 4).await;
    assert_eq!((row.state.as_str(), row.last_error, row.rows_dead), ("running", None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_cut_off_is_no_delivery() {
    let destination = Destination::start();
    let (_server, client) = piped(&destination, "").await;
    destination.cut_off(2);
    run(&client, "INSERT INTO items SELECT i, repeat('x', 1000) FROM generate_series(1, 100) AS s(i)").await;
    destination.until("delivered", |destination| destination.lines().len() >= 100).await;
    assert_eq!(keys(&destination), (1..=100_i64).collect::<Vec<_>>());

    destination.stop();
    run(&client, "INSERT INTO items VALUES (101, 'nobody is there')").await;
    let row = until_status(&client, "p", "waiting", |row| {
        row.last_error_code.as_deref() == Some("http.connect") && row.lag_rows == Some(1)
    })
    .await;
    assert!(row.state == "retrying" && row.attempts >= 1, "{row:?}");
    destination.start_again();
    destination.until("delivered", |destination| destination.lines().len() > 100).await;
    assert_eq!(keys(&destination).last(), Some(&101));
    until_status(&client, "p", "well again", |row| row.state == "running" && row.last_error.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_pause_and_lose_nothing() {
    let destination = Destination::start();
    let server = Server::start();
    let client = server.connect().await;
    run(&client, "CREATE TABLE items (id int8 PRIMARY KEY, note text)").await;
    secret(&client, "door", "the-old-key").await;
    webhook(&client, "hook", &destination, ", token SECRET[door], token_header 'X-Api-Key'").await;
    run(
        &client,
        "CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK hook WITH (snapshot = false, linger = '10ms')",
    )
    .await;
    destination.now(|request| match request.header("x-api-key") {
        Some("the-new-key") => Answer::status(200),
        _ => Answer::text(401, "who are you?").at_once(),
    });
    run(&client, "INSERT INTO items VALUES (1, 'a'), (2, 'b')").await;
    let row = until_status(&client, "p", "paused", |row| row.state == "paused").await;
    assert_eq!(row.last_error_code.as_deref(), Some("http.401"), "{row:?}");
    assert!(row.last_error.as_deref().is_some_and(|error| error.contains("who are you?")), "{row:?}");
    assert_eq!((row.rows_dead, row.rows_delivered), (0, 0));
    assert_eq!(destination.posts().len(), 2, "once more with the secret resolved anew, then never");
    run(&client, "INSERT INTO items VALUES (3, 'c')").await;
    until_status(&client, "p", "counting what waits", |row| row.lag_rows == Some(3)).await;
    assert!(dead_letters(&client, "p").await.is_empty());

    client.execute("ALTER SECRET door AS $1", &[&"the-new-key"]).await.expect("a new key");
    run(&client, "ALTER PIPELINE p RESUME").await;
    destination.until("delivered", |destination| destination.lines().len() >= 3).await;
    assert_eq!(keys(&destination), [1, 2, 3]);
    let posts = destination.posts();
    assert_eq!(id_of(&posts[0].request), id_of(&posts[2].request), "the batch is what it was");
    assert_eq!(posts[0].request.body, posts[2].request.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_is_set_aside_and_can_be_sent_again() {
    let destination = Destination::with(refuse_poison);
    let (_server, client) = piped(&destination, "").await;
    run(
        &client,
        "INSERT INTO items VALUES (1, 'a'), (2, 'b'), (3, 'poison'), (4, 'd'), (5, 'e'), (6, 'f'), (7, 'g')",
    )
    .await;
    run(&client, "INSERT INTO items VALUES (8, 'after')").await;
    destination.until("the good rows", |destination| destination.lines().len() >= 7).await;
    assert_eq!(keys(&destination), [1, 2, 4, 5, 6, 7, 8], "in order, each once");
    let letters = until_dead_letters(&client, "p", 1).await;
    let (code, message, op, key, row) = &letters[0];
    assert_eq!((code.as_str(), op.as_str()), ("http.400", "c"));
    assert!(message.contains("no poison, please"), "{message}");
    assert_eq!((key.as_str(), row.as_str()), (r#"{"id":3}"#, r#"{"id":3,"note":"poison"}"#));
    let status = until_status(&client, "p", "done", |row| row.rows_delivered == 7).await;
    assert_eq!((status.state.as_str(), status.rows_dead), ("running", 1));
    check_pieces(&destination);

    // While the destination refuses it, it comes back.
    let later = "SELECT sepal_dlq_replay('p', since => now() + interval '1 hour')";
    assert_eq!(client.query_one(later, &[]).await.expect("a number").get::<_, i64>(0), 0);
    assert_eq!(replay(&client).await, 1);
    let is_replay = |taken: &Taken| id_of(&taken.request).starts_with("dlq-");
    destination.until("tried", |destination| destination.posts().iter().any(is_replay)).await;
    assert_eq!(keys(&destination).len(), 7);
    destination.now(|_| Answer::status(200));
    replay_until_sent(&client).await;
    let last = destination.lines().pop().expect("a line");
    assert_eq!((last["op"].as_str(), last["after"]["note"].as_str()), (Some("c"), Some("poison")));
    assert_eq!(keys(&destination), [1, 2, 4, 5, 6, 7, 8, 3]);
}

/// How many dead letters were marked to be sent again.
async fn replay(client: &Client) -> i64 {
    client.query_one("SELECT sepal_dlq_replay('p')", &[]).await.expect("a number").get(0)
}

/// What was refused again is marked again, until nothing is left.
async fn replay_until_sent(client: &Client) {
    for _ in 0..3000 {
        if dead_letters(client, "p").await.is_empty() {
            return;
        }
        assert!(replay(client).await <= 1, "one row was refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("dead letters stay: {:?}", dead_letters(client, "p").await);
}

fn refuse_poison(request: &Request) -> Answer {
    if request.contains("poison") { Answer::text(400, "no poison, please") } else { Answer::status(200) }
}

/// The whole and its halves have ids of their own, and an id has one body.
fn check_pieces(destination: &Destination) {
    let posts = destination.posts();
    let ids: BTreeSet<&str> = posts.iter().map(|taken| id_of(&taken.request)).collect();
    let bodies: BTreeSet<&[u8]> = posts.iter().map(|taken| taken.request.body.as_slice()).collect();
    assert_eq!((ids.len(), bodies.len()), (posts.len(), posts.len()), "{:?}", statuses(&posts));
    assert!(statuses(&posts).contains(&Some(400)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_does_with_hopeless_rows_as_it_was_told() {
    let destination = Destination::with(refuse_poison);
    let (_server, client) = piped(&destination, ", on_rejected = 'pause'").await;
    run(&client, "INSERT INTO items VALUES (1, 'a'), (2, 'poison')").await;
    let row = until_status(&client, "p", "paused", |row| row.state == "paused").await;
    assert_eq!((row.last_error_code.as_deref(), row.rows_dead), (Some("http.400"), 0));
    assert!(dead_letters(&client, "p").await.is_empty());
    destination.now(|_| Answer::status(200));
    run(&client, "ALTER PIPELINE p RESUME").await;
    destination.until("delivered", |destination| destination.lines().len() >= 2).await;
    assert_eq!(keys(&destination), [1, 2]);

    destination.now(|_| Answer::status(503).at_once());
    run(&client, "ALTER PIPELINE p SET (max_attempts = 2, on_exhausted = 'dlq')").await;
    run(&client, "INSERT INTO items VALUES (3, 'nobody wants it')").await;
    let letters = until_dead_letters(&client, "p", 1).await;
    assert_eq!(letters[0].0, "http.503");
    destination.now(|_| Answer::status(200));
    run(&client, "INSERT INTO items VALUES (4, 'd')").await;
    destination.until("the next", |destination| destination.lines().len() >= 3).await;
    assert_eq!(keys(&destination), [1, 2, 4]);
    assert_eq!(status(&client, "p").await.map(|row| row.state).as_deref(), Some("running"));

    // A wrong address is nobody's data's fault.
    destination.now(|_| Answer::status(404));
    run(&client, "INSERT INTO items VALUES (5, 'e')").await;
    until_status(&client, "p", "paused", |row| row.state == "paused").await;
    assert_eq!(dead_letters(&client, "p").await.len(), 1);
    destination.now(|_| Answer::status(200));
    run(&client, "ALTER PIPELINE p RESUME").await;
    destination.until("delivered", |destination| destination.lines().len() >= 4).await;
    assert_eq!(keys(&destination), [1, 2, 4, 5]);
}
