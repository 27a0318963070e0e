//! The other plugins that come along, each against a server that does as its own does: Vector's `http_server`, Loki's
//! push API, the bulk API of Elasticsearch.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{destination::Destination, run, secret, sink, until_dead_letters, until_status};
use crate::{
    http::{Answer, Request},
    server::Server,
};

async fn start() -> (Server, Client) {
    let server = Server::start();
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE events (id int8 PRIMARY KEY, level text, line text, placed timestamptz);
         INSERT INTO events VALUES (1, 'info', 'it begins', '2026-01-02 03:04:05.000006+00')",
    )
    .await;
    (server, client)
}

/// A user and a password, as `authorization` carries them.
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn vector_gets_events() {
    let destination = Destination::start();
    let (_server, client) = start().await;
    secret(&client, "door", "open sesame").await;
    sink(&client, "v", "vector", &destination.url(), ", user 'sepal', password SECRET[door]").await;
    run(
        &client,
        "CREATE PIPELINE p AS SELECT id, line FROM events INTO SINK v WITH (snapshot = true, linger = '10ms')",
    )
    .await;
    destination.until_lines(1).await;
    run(&client, "INSERT INTO events (id, line) VALUES (2, 'second')").await;
    run(&client, "UPDATE events SET line = 'it began' WHERE id = 1").await;
    run(&client, "DELETE FROM events WHERE id = 2").await;
    let events = destination.until_lines(4).await;
    let told: Vec<Value> = events
        .iter()
        .map(|event| json!([event["_sepal"]["op"], event["_sepal"]["key"]["id"], event["id"], event["line"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["insert", 1, 1, "it begins"]),
            json!(["insert", 2, 2, "second"]),
            json!(["update", 1, 1, "it began"]),
            json!(["delete", 2, 2, "second"]),
        ]
    );
    for request in destination.accepted() {
        assert_eq!(request.header("authorization"), Some(basic("sepal", "open sesame").as_str()));
        for event in request.lines() {
            assert!(event["_sepal"]["pos"].is_string() && event["_sepal"]["batch"].is_string(), "{event}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loki_gets_streams() {
    let destination = Destination::start();
    let (_server, client) = start().await;
    secret(&client, "door", "loki-token-0815").await;
    let options =
        ", labels 'job=sepal,env=test', label_columns 'level', line_column 'line', time_column 'placed',
                   org_id 'acme', token SECRET[door]";
    sink(&client, "l", "loki", &destination.origin(), options).await;
    run(
        &client,
        "CREATE PIPELINE p AS SELECT level, line, placed FROM events INTO SINK l
         WITH (snapshot = true, linger = '200ms')",
    )
    .await;
    destination.until("the snapshot", |destination| !pushes(destination).is_empty()).await;
    let at = "'2026-01-02 03:04:06+00'";
    let rows = format!("(2, 'warn', 'odd', {at}), (3, 'info', 'fine', {at}), (4, 'info', 'fine too', {at})");
    run(&client, &format!("INSERT INTO events VALUES {rows}")).await;
    destination.until("the rest", |destination| pushes(destination).len() == 2).await;
    let pushed = pushes(&destination);
    let (first, second) = ("1767323045000006000", "1767323046000000000");
    assert_eq!(
        pushed[0]["streams"],
        json!([{ "stream": { "job": "sepal", "env": "test", "level": "info" }, "values": [[first, "it begins"]] }])
    );
    assert_eq!(
        pushed[1]["streams"],
        json!([
            { "stream": { "job": "sepal", "env": "test", "level": "info" },
              "values": [[second, "fine"], [second, "fine too"]] },
            { "stream": { "job": "sepal", "env": "test", "level": "warn" }, "values": [[second, "odd"]] },
        ])
    );
    for request in destination.accepted() {
        assert_eq!(request.path, "/loki/api/v1/push");
        assert_eq!(request.header("x-scope-orgid"), Some("acme"));
        assert_eq!(request.header("authorization"), Some("Bearer loki-token-0815"));
    }
}

/// Bodies that have streams: the check of CREATE SINK pushes none.
fn pushes(destination: &Destination) -> Vec<Value> {
    let bodies = destination.accepted().into_iter().map(|request| request.json());
    bodies.filter(|body| body["streams"].as_array().is_some_and(|streams| !streams.is_empty())).collect()
}

/// An index: documents by id.
type Documents = Arc<Mutex<BTreeMap<String, Value>>>;

/// Answers a bulk request as Elasticsearch does. Documents whose line says so are refused, for good (`malformed`), or
/// the first time that they come (`busy`).
fn bulk(documents: &Documents) -> impl FnMut(&Request) -> Answer + Send + use<> {
    let documents = Arc::clone(documents);
    let mut was_busy = false;
    move |request| {
        if request.method == "HEAD" {
            return Answer::status(404);
        }
        let mut documents = documents.lock().expect("documents");
        let mut lines = request.lines().into_iter();
        let (mut items, mut errors) = (Vec::new(), false);
        while let Some(action) = lines.next() {
            let (kind, target) =
                action.as_object().and_then(|object| object.iter().next()).expect("an action");
            assert_eq!(target["_index"], "events");
            let id = target["_id"].as_str().expect("an id").to_owned();
            let document = if kind == "index" { lines.next().expect("a document") } else { Value::Null };
            let line = document["line"].as_str().unwrap_or_default();
            let answer = if line == "malformed" {
                json!({ "status": 400, "error": { "type": "mapper_parsing_exception", "reason": "cannot parse" } })
            } else if line == "busy" && !std::mem::replace(&mut was_busy, true) {
                json!({ "status": 429, "error": { "type": "es_rejected_execution_exception", "reason": "busy" } })
            } else if kind == "index" {
                documents.insert(id, document);
                json!({ "status": 201 })
            } else {
                json!({ "status": if documents.remove(&id).is_some() { 200 } else { 404 } })
            };
            errors |= answer.get("error").is_some();
            items.push(json!({ kind.as_str(): answer }));
        }
        Answer::text(200, json!({ "errors": errors, "items": items }).to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_says_of_each_document_what_became_of_it() {
    let documents = Documents::default();
    let destination = Destination::with(bulk(&documents));
    let (_server, client) = start().await;
    secret(&client, "door", "encoded-api-key").await;
    sink(&client, "e", "elasticsearch", &destination.origin(), ", index 'events', api_key SECRET[door]")
        .await;
    run(
        &client,
        "CREATE PIPELINE p AS SELECT id, level, line FROM events INTO SINK e KEY (id) ENVELOPE UPSERT
         WITH (snapshot = true, linger = '100ms')",
    )
    .await;
    until_status(&client, "p", "past the snapshot", |row| row.rows_delivered == 1).await;
    run(
        &client,
        "INSERT INTO events (id, line) VALUES (2, 'good'), (3, 'busy'), (4, 'malformed'), (5, 'good too')",
    )
    .await;
    let letters = until_dead_letters(&client, "p", 1).await;
    let (code, message, _, key, _) = &letters[0];
    assert_eq!((code.as_str(), key.as_str()), ("elasticsearch.mapper_parsing_exception", r#"{"id":4}"#));
    assert!(message.contains("cannot parse"), "{message}");
    let posts = destination.accepted();
    let ids = |request: &Request| -> Vec<String> {
        let actions = request.lines();
        let targets = actions.iter().filter_map(|line| line["index"]["_id"].as_str());
        targets.map(str::to_owned).collect()
    };
    assert_eq!(
        posts.iter().map(ids).collect::<Vec<_>>(),
        [vec!["1"], vec!["2", "3", "4", "5"], vec!["3", "4"]]
    );
    run(&client, "UPDATE events SET line = 'better' WHERE id = 2").await;
    run(&client, "DELETE FROM events WHERE id IN (1, 4)").await;
    let row = until_status(&client, "p", "done", |row| row.rows_delivered == 7).await;
    assert_eq!((row.state.as_str(), row.rows_dead, row.last_error), ("running", 1, None));
    let documents = documents.lock().expect("documents");
    let lines: Vec<(&str, &str)> = documents
        .iter()
        .map(|(id, document)| (id.as_str(), document["line"].as_str().expect("a line")))
        .collect();
    assert_eq!(lines, [("2", "better"), ("3", "busy"), ("5", "good too")]);
    for request in destination.accepted() {
        assert_eq!(request.header("authorization"), Some("ApiKey encoded-api-key"));
        assert!(request.path.starts_with("/_bulk"), "{}", request.path);
    }
}
