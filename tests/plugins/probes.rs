//! Plugins that try everything: files, sockets, other hosts, other requests, other people's secrets.
//!
//! The guest reports what came of each attempt; what arrived on the wire is compared with it.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use super::{CANARY, HERE, KEY_CANARY, Scene};
use crate::{
    http::{Answer, Request},
    pipeline_status::{rows, until_status},
};

/// What each attempt has to come to: words that its outcome holds.
const EXPECTED: &[(&str, &str)] = &[
    ("variables", "0"),
    ("arguments", "0"),
    ("read file", "refused"),
    ("read process", "refused"),
    ("write file", "refused"),
    ("list root", "refused"),
    ("tcp", "refused"),
    ("udp", "refused"),
    ("look up", "refused"),
    ("another name", "not among the hosts"),
    ("another port", "not among the hosts"),
    ("metadata", "not a public address"),
    ("loopback", "not a public address"),
    ("decimal", "not a public address"),
    ("octal", "not a public address"),
    ("short", "not a public address"),
    ("mapped", "not a public address"),
    ("loopback 6", "not a public address"),
    ("localhost", "an address that is not public"),
    ("localhost.", "an address that is not public"),
    ("redirect", "302, then the request is not allowed: 127.0.0.1 is not a public address"),
    ("file", "not http or https"),
    ("user", "a user name or a password"),
    ("connect", "CONNECT is not allowed"),
    ("trace", "TRACE is not allowed"),
    ("method", "not a token of HTTP"),
    ("value", "control characters"),
    ("name", "is not a header's name"),
    ("host", "the connection's own"),
    ("length", "the connection's own"),
    ("transfer", "the connection's own"),
    ("large header", "more than 65536"),
    ("large url", "more than 8192"),
    ("state", "larger than its manifest asks for"),
    ("no slot", "no secret is bound to nobody"),
    ("empty slot", "no secret is bound to spare"),
    ("in the url", "answered 200"),
    ("in the body", "its use has no \"http-body\""),
    ("key in the body", "answered 200"),
    ("to another host", "may not go to 127.9.9.10"),
    ("word to another host", "may not go to 127.9.9.10"),
    ("without it", "answered 204"),
    ("echo", "authorization: Bearer <redacted>"),
];

/// Sends everywhere else, and sends back what it was told.
fn answer(request: &Request, forbidden: Option<&String>) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    match path {
        "/redirect" => Answer::status(302).header("location", forbidden.map_or("", String::as_str)),
        "/echo" => {
            let lines: Vec<String> =
                request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            Answer::status(200).header("x-echo", request.bearer().unwrap_or_default()).body(lines.join("\n"))
        }
        _ => Answer::status(200),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_reaches_what_it_was_granted_and_nothing_else() {
    let location = Arc::new(OnceLock::new());
    let known = Arc::clone(&location);
    let mut scene = Scene::start(move |request| answer(request, known.get())).await;
    location.set(scene.forbidden.url("/")).expect("it is set once");
    scene.pipeline("probe", "probe", "", "events").await;
    until_status(&scene.client, "probe", "its findings", |now| now.rows_delivered == 1).await;
    let reports = scene.destination.requests("/findings");
    let report = reports.last().expect("the guest has reported");
    let findings: BTreeMap<String, String> = serde_json::from_slice(&report.body).expect("JSON");
    let mut wrong = Vec::new();
    for (attempt, words) in EXPECTED {
        match findings.get(*attempt) {
            Some(found) if found.contains(words) => {}
            found => wrong.push(format!("{attempt}: {found:?} instead of {words:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let expected: Vec<&str> = EXPECTED.iter().map(|(attempt, _)| *attempt).collect();
    let unexpected: Vec<&String> =
        findings.keys().filter(|attempt| !expected.contains(&attempt.as_str())).collect();
    assert!(unexpected.is_empty(), "nobody judged {unexpected:?}");

    // Not even a connection.
    assert_eq!(scene.forbidden.connections(), 0);
    assert!(scene.server.is_running());
    wire(&scene);
    nowhere(&scene, report).await;
}

/// What arrived: secrets where they may be, and no request within a request.
fn wire(scene: &Scene) {
    let requests = scene.destination.all();
    for request in &requests {
        let injected = request.headers.iter().any(|(name, _)| name == "x-injected");
        assert!(!injected, "{request:?}");
        assert!(!request.path.contains(CANARY) && !request.path.contains(KEY_CANARY), "{request:?}");
        assert!(!request.text().contains(CANARY), "{request:?}");
        let carries = request.bearer() == Some(CANARY);
        assert_eq!(carries, request.path == "/echo", "{request:?}");
    }
    // A word in a URL is a word.
    let words = scene.destination.requests("/word");
    assert!(words[0].path.starts_with("/word?sepal-secret-"), "{}", words[0].path);
    assert!(scene.destination.requests("/body").is_empty(), "it was refused");
    let keys = scene.destination.requests("/key");
    assert_eq!(keys[0].text(), format!(r#"{{"v":"{KEY_CANARY}"}}"#));
    for request in scene.other.all() {
        let seen = format!("{request:?}");
        assert!(!seen.contains(CANARY) && !seen.contains("sepal-secret-"), "{seen}");
    }
}

/// The values are nowhere where people look, or the guest.
async fn nowhere(scene: &Scene, report: &Request) {
    let mut told = report.text() + &scene.server.log();
    for view in [
        "sepal_secrets",
        "sepal_secret_usage",
        "sepal_sinks",
        "sepal_pipelines",
        "sepal_pipeline_status",
        "sepal_dead_letters",
        "sepal_plugins",
        "sepal_plugin_capabilities",
        "pg_stat_activity",
    ] {
        for row in rows(&scene.client, &format!("SELECT * FROM {view}")).await {
            for column in 0..row.len() {
                told += row.get(column).unwrap_or_default();
                told.push('\n');
            }
        }
    }
    for canary in [CANARY, KEY_CANARY] {
        assert!(!told.contains(canary), "{canary} was told");
    }
    // The search would have found it: other things of the same rows are there.
    assert!(told.contains("canary") && told.contains(HERE), "{told}");
    let used = rows(&scene.client, "SELECT name FROM sepal_secret_usage").await;
    assert!(used.iter().any(|row| row.get(0) == Some("canary")), "every use is recorded");
}
