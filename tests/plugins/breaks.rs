//! Plugins that do not end well: each is contained, says why in its pipeline's status, and is nobody else's trouble.

use super::{CANARY, KEY_CANARY, Scene, goes_on, guest, honest};
use crate::{
    http::{Answer, Request},
    pipeline_status::{Status, refused, rows, run, until_status, words},
};

/// How a mode's pipeline has to end.
enum End {
    /// It waits for a person, with one of these codes and with these words.
    Paused(&'static [&'static str], &'static str),
    /// Its row is a dead letter, and it goes on.
    Dead(&'static str),
    /// Whatever it did has harmed nobody, and counts as delivered.
    Delivered,
}

use End::{Dead, Delivered, Paused};

/// Mode, path at the destination, end. A name per pipeline is made of the place in this list.
const CASES: &[(&str, &str, End)] = &[
    ("loop", "/in", Paused(&["plugin.cpu"], "CPU time")),
    // How much of it is the guest's own time depends on the machine.
    ("host-calls", "/in", Paused(&["plugin.cpu", "plugin.wall"], "the plugin ")),
    ("sleep", "/in", Paused(&["plugin.wall"], "longer than 5000 ms")),
    ("deliver", "/never", Paused(&["plugin.wall", "http.timeout"], "")),
    ("memory", "/in", Paused(&["plugin.memory"], "bytes of memory")),
    ("stack", "/in", Dead("plugin.trap")),
    ("panic", "/in", Dead("plugin.trap")),
    ("unreachable", "/in", Dead("plugin.trap")),
    ("exit", "/in", Dead("plugin.trap")),
    ("handles", "/in", Paused(&["plugin.limit", "plugin.wall"], "the plugin ")),
    ("large-body", "/in", Paused(&["http.denied"], "the body has ")),
    ("large-message", "/in", Paused(&["hostile"], "mmmm")),
    ("many-requests", "/many", Paused(&["hostile"], "throttled")),
    ("log", "/in", Delivered),
    ("lie", "/in", Delivered),
    ("row-beyond", "/in", Paused(&["plugin.protocol"], "names row 1 of a batch of 1")),
    ("row-twice", "/in", Paused(&["plugin.protocol"], "names 2 rows of a batch of 1")),
    ("bad-flood", "/in", Paused(&["plugin.protocol", "plugin.limit"], "")),
    ("retry-beyond", "/in", Paused(&["plugin.protocol"], "names row 8 of a batch of 1")),
    ("retry-for-ever", "/in", Paused(&["sink.partial"], "a part of the batch")),
    ("buffered", "/in", Paused(&["plugin.protocol"], "stateless")),
    ("no such mode", "/in", Paused(&["misconfigured"], "no mode")),
];

/// Longest message of an error, in bytes, with room for what the host says around it.
const MESSAGE_BYTES: usize = 5 << 10;
/// A guest that writes 100,000 lines gets a hundred a second into the server's log, and is gone after some seconds.
const LOG_BYTES: usize = 8 << 20;

fn answer(request: &Request) -> Answer {
    if request.path == "/never" { Answer::never() } else { Answer::status(204) }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_plugin_does_reaches_beyond_its_pipeline() {
    let mut scene = Scene::start(answer).await;
    let neighbour_key = scene.server.tenant("neighbour");
    let neighbour = scene.server.login_with(&neighbour_key).connect().await.expect("connect");
    honest(&scene.client, &scene.destination, "/honest").await;
    honest(&neighbour, &scene.destination, "/neighbour").await;
    let pid = scene.server.pid();
    for (number, (mode, path, _)) in CASES.iter().enumerate() {
        scene.pipeline(&format!("p{number}"), mode, path, "events").await;
    }
    // All of them are at it at once; after each that has ended, rows of others arrive.
    for (number, (mode, _, end)) in CASES.iter().enumerate() {
        ended(&scene, &format!("p{number}"), mode, end).await;
        let id = i64::try_from(number).expect("a few") + 1;
        goes_on(&scene.client, &scene.destination, "/honest", id).await;
        goes_on(&neighbour, &scene.destination, "/neighbour", id).await;
    }
    assert!(scene.server.is_running(), "{}", scene.server.log());
    assert_eq!(scene.server.pid(), pid);
    assert_eq!(scene.forbidden.connections(), 0);
    let many = scene.destination.requests("/many").len();
    // One attempt, a burst of 50 and 50 a second more for as long as it may take.
    assert!((1..400).contains(&many), "{many} requests of 400");
    let log = scene.server.log();
    assert!(log.len() < LOG_BYTES, "{} bytes of log", log.len());
    for canary in [CANARY, KEY_CANARY] {
        assert!(!log.contains(canary), "{canary} is in the log");
    }
}

async fn ended(scene: &Scene, name: &str, mode: &str, end: &End) {
    let client = &scene.client;
    match end {
        Paused(codes, text) => {
            let now = until_status(client, name, mode, |now| now.state == "paused").await;
            let (code, error) = (now.last_error_code.as_deref(), now.last_error.as_deref());
            assert!(code.is_some_and(|code| codes.contains(&code)), "{mode}: {now:?}");
            let error = error.unwrap_or_default();
            assert!(error.contains(text), "{mode}: {now:?}");
            assert!(error.len() <= MESSAGE_BYTES, "{mode}: {} bytes", error.len());
            assert_eq!((now.rows_delivered, now.rows_dead), (0, 0), "{mode}: {now:?}");
        }
        Dead(code) => {
            until_status(client, name, mode, |now| now.rows_dead == 1 && now.state == "running").await;
            let letters = rows(client, &format!("SELECT code, row FROM sepal_sink_errors('{name}')")).await;
            assert_eq!(letters.len(), 1, "{mode}");
            assert_eq!(letters[0].get(0), Some(*code), "{mode}");
            assert!(letters[0].get(1).is_some_and(|row| row.contains("one")), "{mode}: the row is kept");
        }
        Delivered => {
            let done = |now: &Status| now.rows_delivered == 1 && now.state == "running";
            assert_eq!(until_status(client, name, mode, done).await.rows_dead, 0, "{mode}");
        }
    }
}

/// One row over which a plugin traps is set aside; a plugin that traps over every row is at fault itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_traps_over_everything_loses_nothing() {
    let scene = Scene::start(answer).await;
    run(&scene.client, "CREATE TABLE many (id bigint PRIMARY KEY, note text)").await;
    let values: Vec<String> = (0..40).map(|id| format!("({id}, 'note')")).collect();
    run(&scene.client, &format!("INSERT INTO many VALUES {}", values.join(", "))).await;
    scene.pipeline("panics", "panic", "/in", "many").await;
    let now = until_status(&scene.client, "panics", "its end", |now| now.state == "paused").await;
    assert_eq!(now.last_error_code.as_deref(), Some("plugin.trap"), "{now:?}");
    assert_eq!((now.rows_delivered, now.rows_dead), (0, 0), "{now:?}");
    // Mended, it delivers all of them.
    let mended = scene.sink("panics", "deliver", "/mended");
    let options = mended.find("OPTIONS").expect("OPTIONS");
    run(&scene.client, &format!("ALTER SINK panics {}", &mended[options..])).await;
    run(&scene.client, "ALTER PIPELINE panics RESUME").await;
    let now = until_status(&scene.client, "panics", "40 rows", |now| now.rows_delivered == 40).await;
    assert_eq!(now.rows_dead, 0, "{now:?}");
}

/// What is wrong before there is a row is an answer to the statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_cannot_be_is_refused() {
    let scene = Scene::start(answer).await;
    let told = words(&refused(&scene.client, &scene.sink("s", "check-loop", "/in")).await);
    assert!(told.contains("CPU time"), "{told}");
    let told = words(&refused(&scene.client, &scene.sink("s", "check-panic", "/in")).await);
    assert!(told.contains("trapped"), "{told}");
    let told = words(&refused(&scene.client, &scene.sink("s", "deliver', more 'x", "/in")).await);
    assert!(told.contains("/more: the plugin has no such option"), "{told}");
    let ungranted =
        scene.sink("s", "deliver", "/in").replace(&format!("('{}', ", scene.destination.origin()), "(");
    let told = words(&refused(&scene.client, &ungranted).await);
    assert!(told.contains("is not among the hosts granted"), "{told}");
    let in_clear = scene.sink("s", "deliver", "/in").replace("SECRET[canary]", "'in-clear-Jd83'");
    let told = words(&refused(&scene.client, &in_clear).await);
    assert!(told.contains("secret") && !told.contains("in-clear-Jd83"), "{told}");

    let mut manifest = guest::manifest("1.0.0", &[]);
    manifest["plugin"]["name"] = "test/table".into();
    manifest["config"]["schema"] = serde_json::json!({
        "type": "object", "additionalProperties": false, "properties": {},
    });
    manifest["secrets"] = serde_json::json!({});
    manifest["capabilities"] = serde_json::json!({});
    guest::install(&scene.client, "large_table", &guest::pack(&guest::table(), &manifest)).await;
    let told = words(&refused(&scene.client, "CREATE SINK t USING PLUGIN large_table").await);
    assert!(told.contains("table"), "{told}");

    honest(&scene.client, &scene.destination, "/honest").await;
    goes_on(&scene.client, &scene.destination, "/honest", 1).await;
    assert!(!scene.server.log().contains("in-clear-Jd83"));
}
