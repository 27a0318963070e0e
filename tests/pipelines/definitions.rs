//! What can be defined, what is refused, and what depends on what: seen from psql, with a destination that answers.
//!
//! What needs no destination is in `slt/sepal/delivery.slt`.

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{destination::Destination, refused, run, secret, status, webhook};
use crate::{http::Answer, server::Server};

/// `orders`, a secret, a sink `hook` and a pipeline `out`.
async fn start(destination: &Destination) -> (Server, Client) {
    let server = Server::start();
    let client = server.connect().await;
    run(&client, "CREATE TABLE orders (id int8 PRIMARY KEY, item text, total int4, note text)").await;
    secret(&client, "door", "let me in").await;
    webhook(&client, "hook", destination, ", token SECRET[door]").await;
    run(
        &client,
        "CREATE PIPELINE out AS SELECT id, total FROM orders WHERE total > 100 INTO SINK hook
         WITH (linger = '2s', max_attempts = 7, on_rejected = 'pause')",
    )
    .await;
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_stays_and_what_is_there_is_not_made_again() {
    let destination = Destination::start();
    let (_server, client) = start(&destination).await;
    for (sql, state, names) in [
        ("DROP SECRET door", "2BP01", "sink hook"),
        ("DROP SINK hook", "2BP01", "pipeline out"),
        ("DROP TABLE orders", "2BP01", "pipeline out"),
        ("ALTER TABLE orders DROP COLUMN total", "2BP01", "pipeline out"),
        ("ALTER TABLE orders RENAME COLUMN total TO sum", "2BP01", "pipeline out"),
        ("ALTER TABLE orders RENAME TO sales", "2BP01", "pipeline out"),
        ("CREATE SECRET door AS 'x'", "42710", "door"),
        ("CREATE PIPELINE out AS SELECT id FROM orders INTO SINK hook", "42710", "out"),
        ("DROP SINK nowhere", "42704", "nowhere"),
        ("DROP PIPELINE nowhere", "42704", "nowhere"),
        ("ALTER PIPELINE nowhere PAUSE", "42704", "nowhere"),
        ("ALTER PIPELINE out RESUME FROM POSITION 'yesterday'", "22023", "yesterday"),
        ("ALTER PIPELINE out SET (batch_rows = 0)", "22023", "batch_rows"),
        ("VALIDATE SINK nowhere", "42704", "nowhere"),
    ] {
        let (code, text) = refused(&client, sql).await;
        assert_eq!(code, state, "{sql}: {text}");
        assert!(text.contains(names), "{sql}: {text}");
    }
    let again = format!("CREATE SINK hook USING PLUGIN webhook OPTIONS (url '{}')", destination.url());
    assert_eq!(refused(&client, &again).await.0, "42710");
    run(&client, "CREATE PIPELINE IF NOT EXISTS out AS SELECT id FROM orders INTO SINK hook").await;
    run(&client, "ALTER TABLE orders DROP COLUMN note; ALTER TABLE orders ADD COLUMN more text").await;
    run(&client, "DROP SINK hook CASCADE").await;
    assert!(status(&client, "out").await.is_none());
    for sql in ["DROP SECRET door", "DROP TABLE orders", "DROP PIPELINE IF EXISTS out"] {
        run(&client, sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_part_of_the_transaction() {
    let destination = Destination::start();
    let (_server, client) = start(&destination).await;
    run(&client, "BEGIN; DROP PIPELINE out; DROP SINK hook; ROLLBACK").await;
    assert!(status(&client, "out").await.is_some());
    run(&client, "BEGIN; CREATE PIPELINE other AS SELECT id FROM orders INTO SINK hook; ROLLBACK").await;
    assert!(status(&client, "other").await.is_none());
    for sql in ["CREATE SECRET other AS 'x'", "ALTER SECRET door AS 'x'", "DROP SECRET door"] {
        run(&client, "BEGIN").await;
        assert_eq!(refused(&client, sql).await.0, "25001", "{sql}");
        run(&client, "ROLLBACK").await;
    }
    // A row and the pipeline that is to carry it, in one commit.
    run(
        &client,
        "BEGIN; INSERT INTO orders VALUES (1, 'with it', 500);
         CREATE PIPELINE other AS SELECT id, item FROM orders INTO SINK hook WITH (linger = '10ms'); COMMIT",
    )
    .await;
    destination
        .until("delivered", |destination| {
            destination.posts().iter().any(|post| post.request.contains("with it"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_no_pipeline_can_follow_is_refused() {
    let destination = Destination::start();
    let (_server, client) = start(&destination).await;
    for (query, more, state) in [
        ("SELECT id, now() FROM orders", "", "42P17"),
        ("SELECT id FROM orders ORDER BY id", "", "0A000"),
        ("SELECT id FROM orders LIMIT 5", "", "0A000"),
        ("SELECT DISTINCT id FROM orders", "", "0A000"),
        ("SELECT count(*) FROM orders", "", "0A000"),
        ("SELECT item, max(total) FROM orders GROUP BY item", "", "0A000"),
        ("SELECT a.id FROM orders a JOIN orders b ON a.id = b.id", "", "0A000"),
        ("SELECT id FROM orders WHERE id IN (SELECT id FROM orders)", "", "0A000"),
        ("SELECT id FROM orders UNION SELECT id FROM orders", "", "0A000"),
        ("SELECT 1", "", "0A000"),
        ("SELECT id FROM nowhere", "", "42P01"),
        ("SELECT nothing FROM orders", "", "42703"),
        ("SELECT id FROM orders", "KEY (nothing)", "42703"),
        ("SELECT id, item FROM orders", "KEY (item)", "42P10"),
        ("SELECT item FROM orders", "ENVELOPE UPSERT", "42P16"),
        ("SELECT id FROM orders", "FORMAT ARROW", "0A000"),
        ("SELECT id FROM orders", "WITH (delivery = 'transactional')", "0A000"),
        ("SELECT id FROM orders", "WITH (delivery = 'exactly-once')", "0A000"),
        ("SELECT id FROM orders", "WITH (parallelism = 2)", "0A000"),
        ("SELECT id FROM orders", "WITH (linger = '1')", "22023"),
    ] {
        let sql = format!("CREATE PIPELINE p AS {query} INTO SINK hook {more}");
        let (code, text) = refused(&client, &sql).await;
        assert_eq!(code, state, "{sql}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_is_tried_out_before_it_is_one() {
    let destination = Destination::start();
    let (server, client) = start(&destination).await;
    let (url, origin) = (destination.url(), destination.origin());
    let create = |options: &str, hosts: &str| {
        format!("CREATE SINK other USING PLUGIN webhook OPTIONS ({options}) ALLOW HOSTS ({hosts})")
    };
    let (to_url, granted) = (format!("url '{url}'"), format!("'{origin}'"));
    let before = destination.taken().len();
    for (sql, state, says) in [
        (create(&to_url, "'https://hooks.example.com'"), "22023", "ALLOW HOSTS"),
        (create(&to_url, ""), "22023", "ALLOW HOSTS"),
        (create(&to_url, "'127.0.0.1'"), "22023", "scheme"),
        (create("url 'not a url'", &granted), "22023", "url"),
        (create("token SECRET[door]", &granted), "22023", "url"),
        (create(&format!("{to_url}, colour 'red'"), &granted), "22023", "colour"),
        (create(&to_url, &granted).replace("webhook", "nowhere"), "42704", "nowhere"),
        (create(&to_url, &granted).replace("webhook", "vault"), "42809", "resolver"),
        (create(&to_url, &granted).replace("webhook", "webhook VERSION '9'"), "22023", "version"),
        (format!("CREATE SINK other USING kafka OPTIONS ({to_url})"), "0A000", "kafka"),
    ] {
        let (code, text) = refused(&client, &sql).await;
        assert_eq!(code, state, "{sql}: {text}");
        assert!(text.contains(says), "{sql}: {text}");
    }
    assert_eq!(destination.taken().len(), before, "none of these was worth a request");
    destination.now(|_| Answer::status(401));
    let (code, text) = refused(&client, &create(&to_url, &granted)).await;
    assert!(code == "38000" && text.contains("http.401"), "{code}: {text}");
    assert_eq!(refused(&client, "VALIDATE SINK hook").await.0, "38000");
    destination.stop();
    let (code, text) = refused(&client, "VALIDATE SINK hook").await;
    assert!(code == "38000" && text.contains("(http."), "{code}: {text}");
    destination.start_again();
    destination.now(|_| Answer::status(200));
    run(&client, "VALIDATE SINK hook").await;
    assert_eq!(destination.taken().last().map(|taken| taken.request.method.clone()).as_deref(), Some("HEAD"));
    let elsewhere = "ALTER SINK hook OPTIONS (url 'http://127.0.0.1:1/') ALLOW HOSTS ('http://127.0.0.1:1')";
    assert_eq!(refused(&client, elsewhere).await.0, "38000", "nobody is there");
    let row = client.query_one("SELECT options FROM sepal_sinks", &[]).await.expect("a sink");
    assert!(row.get::<_, String>(0).contains(&url), "the sink is what it was");
    let reader = server.key("dev", &["--scope", "read"]);
    let reader = server.login_with(&reader).connect().await.expect("connect");
    for sql in [create(&to_url, &granted).as_str(), "DROP PIPELINE out", "CREATE SECRET other AS 'x'"] {
        assert_eq!(refused(&reader, sql).await.0, "42501", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_shown_as_they_are() {
    let destination = Destination::start();
    let (_server, client) = start(&destination).await;
    let sql = "SELECT name, connector, options, allow_hosts, pipelines FROM sepal_sinks";
    let row = client.query_one(sql, &[]).await.expect("a sink");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("hook", "plugin webhook"));
    let options: Value = serde_json::from_str(row.get(2)).expect("JSON");
    assert_eq!(options, json!({ "url": destination.url(), "token": "SECRET[door]" }));
    assert_eq!(row.get::<_, Vec<String>>(3), [destination.origin()]);
    assert_eq!(row.get::<_, Vec<String>>(4), ["out"]);
    let sql = "SELECT name, query, sink, key, format, envelope, options FROM sepal_pipelines";
    let row = client.query_one(sql, &[]).await.expect("a pipeline");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(2)), ("out", "hook"));
    assert_eq!(row.get::<_, &str>(1), "SELECT id, total FROM orders WHERE total > 100");
    assert_eq!(row.get::<_, Vec<String>>(3), ["id"]);
    assert_eq!((row.get::<_, &str>(4), row.get::<_, &str>(5)), ("NDJSON", "APPEND"));
    let options: Value = serde_json::from_str(row.get(6)).expect("JSON");
    for (name, value) in [
        ("delivery", json!("idempotent")),
        ("linger", json!("2000ms")),
        ("batch_rows", json!(500)),
        ("max_attempts", json!(7)),
        ("on_rejected", json!("pause")),
        ("on_exhausted", json!("pause")),
        ("snapshot", json!(true)),
    ] {
        assert_eq!(options[name], value, "{name} of {options}");
    }
    let bundled = "SELECT name, kind FROM sepal_plugins WHERE bundled ORDER BY name";
    let plugins = client.query(bundled, &[]).await.expect("plugins");
    let plugins: Vec<(String, String)> = plugins.iter().map(|row| (row.get(0), row.get(1))).collect();
    let sinks = ["elasticsearch", "loki", "vector", "webhook"]
        .map(|name| (format!("sepal/{name}"), "sink".to_owned()));
    assert!(sinks.iter().all(|sink| plugins.contains(sink)), "{plugins:?}");
}
