//! Do plugins in Python and JavaScript run?
//!
//! The examples of `plugins/guests` go the way of an author: `sepal plugin pack`, CREATE PLUGIN, a pipeline, a row that
//! arrives. Their toolchains come from PyPI and npm, once, into the user's cache (`./setup test`, or the first build);
//! without them and without a network this is skipped loudly.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::{
    http::{Answer, Destination, Request},
    pipeline_status::{run, until_status},
    server::{Server, binary, repository, run_within, skip},
};

/// npm fetches 340 MB the first time; Python takes its time every time.
const LIMIT: Duration = Duration::from_secs(900);
const TOKEN: &str = "languages-canary-Yh3mP8";

/// The packed component of an example, after changes to its files; `None` if there is no toolchain for it.
fn packed(name: &str, toolchain: &str, changes: &[(&str, &str, &str)]) -> Option<Vec<u8>> {
    let folder = TempDir::new().expect("a temporary directory");
    let project = folder.path().join(name);
    copy(&repository().join("plugins/guests").join(name), &project);
    for (file, from, to) in changes {
        let path = project.join(file);
        let text = fs::read_to_string(&path).expect("a file of the example");
        assert!(text.contains(from), "{file} has no {from:?}");
        fs::write(&path, text.replace(from, to)).expect("write");
    }
    let mut command = Command::new(binary());
    command.args(["plugin", "pack"]).arg(&project);
    let (status, said) = run_within(LIMIT, command);
    if !status.success() {
        assert!(!is_there(toolchain), "sepal plugin pack {name}: {status}\n{said}");
        skip(&format!("{toolchain} could not be fetched, so {name} was not built:\n{said}"));
        return None;
    }
    Some(fs::read(project.join(format!("{name}-0.1.0.wasm"))).expect("the packed component"))
}

/// Whether the toolchain is complete, as far as its program tells.
fn is_there(toolchain: &str) -> bool {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let folders = fs::read_dir(cache.join("sepal/toolchains")).into_iter().flatten().flatten();
    folders.map(|entry| entry.path()).any(|folder| {
        let of_it = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(toolchain));
        let programs = ["bin/componentize-py", "node_modules/.bin/jco"];
        of_it && programs.iter().any(|program| folder.join(program).exists())
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the example").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy");
        }
    }
}

/// A server with the plugin, a token and a table of one row.
async fn scene(component: &[u8]) -> (Server, Client) {
    let server = Server::start();
    let client = server.connect().await;
    client.execute("CREATE PLUGIN example FROM $1", &[&component]).await.expect("the plugin is taken");
    client.execute("CREATE SECRET token AS $1", &[&TOKEN]).await.expect("a secret");
    run(&client, "CREATE TABLE orders (id bigint PRIMARY KEY, total int)").await;
    run(&client, "INSERT INTO orders VALUES (1, 250)").await;
    (server, client)
}

async fn pipeline(client: &Client, destination: &Destination, options: &str) {
    let sink = format!(
        "CREATE SINK there USING PLUGIN example OPTIONS ({options}, token SECRET[token]) ALLOW HOSTS ('{}')",
        destination.origin()
    );
    run(client, &sink).await;
    let pipeline =
        "CREATE PIPELINE there AS SELECT id, total FROM orders INTO SINK there WITH (linger = '20ms')";
    run(client, pipeline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_tells_slack() {
    let slack = Destination::start("127.0.0.1", |_| Answer::json(200, &json!({ "ok": true })));
    // Its address is written in the example; here it is ours.
    let (api, origin) = (slack.url("/api/"), slack.origin());
    let changes = [
        ("app.py", "https://slack.com/api/", api.as_str()),
        ("plugin.toml", "https://slack.com:443", origin.as_str()),
    ];
    let Some(component) = packed("slack-py", "componentize-py", &changes) else { return };
    let (server, client) = scene(&component).await;
    pipeline(&client, &slack, "channel '#orders'").await;
    assert_eq!(slack.requests("/api/auth.test").len(), 1, "CREATE SINK has asked whether the token is good");
    let says = |text: &'static str| {
        move |requests: &[Request]| {
            let bodies =
                requests.iter().filter_map(|request| serde_json::from_slice::<Value>(&request.body).ok());
            let mut texts = bodies.filter_map(|body| body["text"].as_str().map(ToOwned::to_owned));
            texts.any(|all| all.contains(text))
        }
    };
    let path = "/api/chat.postMessage";
    slack.wait_for(path, "the row that was there", says("*new* id: 1, total: 250")).await;
    run(&client, "UPDATE orders SET total = 300 WHERE id = 1").await;
    let requests = slack.wait_for(path, "its change", says("*changed* id: 1, total: 300")).await;
    assert!(requests.iter().all(|request| request.bearer() == Some(TOKEN)));
    let now = until_status(&client, "there", "both", |now| now.rows_delivered == 2).await;
    assert_eq!((now.state.as_str(), now.rows_dead), ("running", 0), "{now:?}");
    assert!(!server.log().contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_calls_a_hook() {
    let Some(component) = packed("webhook-js", "jco", &[]) else { return };
    let busy = AtomicBool::new(true);
    let hook = Destination::start("127.0.0.1", move |request| {
        if request.method == "POST" && busy.swap(false, Ordering::Relaxed) {
            return Answer::status(429).header("retry-after", "1");
        }
        Answer::status(204)
    });
    let (server, client) = scene(&component).await;
    pipeline(&client, &hook, &format!("url '{}'", hook.url("/in"))).await;
    let posts = |requests: &[Request]| requests.iter().filter(|request| request.method == "POST").count();
    let requests = hook.wait_for("/in", "the batch, twice", |requests| posts(requests) >= 2).await;
    let sent: Vec<&Request> = requests.iter().filter(|request| request.method == "POST").collect();
    assert_eq!(sent[0].header("idempotency-key"), sent[1].header("idempotency-key"));
    assert_eq!(sent[0].body, sent[1].body, "the same batch");
    assert!(sent[1].text().contains("\"after\":{\"id\":1,\"total\":250}"), "{}", sent[1].text());
    assert!(requests.iter().all(|request| request.bearer() == Some(TOKEN)));
    run(&client, "INSERT INTO orders VALUES (2, 7)").await;
    hook.wait_for("/in", "another row", |requests| {
        requests.iter().any(|it| it.text().contains("{\"id\":2,"))
    })
    .await;
    let now = until_status(&client, "there", "both", |now| now.rows_delivered == 2).await;
    assert_eq!((now.state.as_str(), now.rows_dead), ("running", 0), "{now:?}");
    assert!(!server.log().contains(TOKEN));
}
