//! A new version of a plugin while rows flow: what is under way ends with the old one, the rest goes through the new.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio_postgres::Client;

use super::{Scene, guest};
use crate::{
    http::{Answer, Request},
    pipeline_status::{rows, run, until_status},
};

const NEXT: &[u8; 16] = b"hostile-build-02";
const PATH: &str = "/in";

fn ids(requests: &[Request]) -> BTreeSet<u64> {
    let texts: Vec<String> = requests.iter().map(Request::text).collect();
    let rows = texts.iter().flat_map(|text| text.lines());
    rows.map(|row| {
        let row: serde_json::Value = serde_json::from_str(row).expect("a row");
        row["after"]["id"].as_u64().expect("an id")
    })
    .collect()
}

fn built(requests: &[Request]) -> Vec<&str> {
    requests.iter().filter_map(|request| request.header("x-build")).collect()
}

/// One row after the other; the last one's id.
async fn write_until(client: Client, stop: Arc<AtomicBool>) -> u64 {
    let mut id = 1;
    while !stop.load(Ordering::Relaxed) {
        id += 1;
        run(&client, &format!("INSERT INTO events VALUES ({id}, 'more')")).await;
    }
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_takes_over_while_rows_flow() {
    let scene = Scene::start(|_| Answer::status(204)).await;
    scene.pipeline("flow", "deliver", PATH, "events").await;
    let (stop, stopping) = (Arc::new(AtomicBool::new(false)), scene.server.connect().await);
    let writing = tokio::spawn(write_until(stopping, Arc::clone(&stop)));
    scene.destination.wait_for(PATH, "the first rows", |requests| requests.len() > 2).await;
    let next = guest::rebuilt(&guest::hostile(), NEXT);
    let mut hosts = scene.hosts();
    let next_packed = guest::pack(&next, &guest::manifest("1.1.0", &hosts));
    let update = "ALTER PLUGIN hostile UPDATE TO '1.1.0' FROM $1";
    scene.client.execute(update, &[&next_packed]).await.expect("a new version");
    let is_new = |requests: &[Request]| built(requests).iter().any(|build| build.as_bytes() == NEXT);
    scene.destination.wait_for(PATH, "the new version", is_new).await;
    stop.store(true, Ordering::Relaxed);
    let last = writing.await.expect("rows were written until then");

    let complete = |requests: &[Request]| ids(requests).len() as u64 == last;
    let requests = scene.destination.wait_for(PATH, "every row", complete).await;
    let expected: BTreeSet<u64> = (1..=last).collect();
    assert_eq!(ids(&requests), expected);
    let builds = built(&requests);
    assert_eq!(builds.len(), requests.len(), "every request says by whom");
    let first_new = builds.iter().position(|build| build.as_bytes() == NEXT).expect("the new one delivers");
    assert!(first_new > 0, "the old one has delivered before");
    assert!(builds[first_new..].iter().all(|build| build.as_bytes() == NEXT), "{builds:?}");
    let now =
        until_status(&scene.client, "flow", "its end", |now| u64::try_from(now.rows_delivered) == Ok(last))
            .await;
    assert_eq!((now.state.as_str(), now.rows_dead), ("running", 0), "{now:?}");
    let shown = rows(&scene.client, "SELECT version FROM sepal_plugins WHERE name = 'hostile'").await;
    assert_eq!(shown[0].get(0), Some("1.1.0"));

    // One that asks for more stays out, and the one that is there goes on.
    hosts.push("https://*.example.com".to_owned());
    let mut greedy = guest::manifest("1.2.0", &hosts);
    greedy["capabilities"]["state"] = 1024.into();
    greedy["secrets"]["token"]["use"] = serde_json::json!(["http-header", "http-body"]);
    let greedy = guest::pack(&next, &greedy);
    let error = scene.client.execute("ALTER PLUGIN hostile UPDATE FROM $1", &[&greedy]).await;
    let error = error.expect_err("it asks for more");
    let error = error.as_db_error().expect("an answer");
    assert_eq!(error.code().code(), "42501", "{error:?}");
    let asked = error.detail().unwrap_or_default();
    for more in ["http https://*.example.com", "state 1024", "secret token http-body"] {
        assert!(asked.contains(more), "{more} is not among\n{asked}");
    }
    run(&scene.client, "INSERT INTO events VALUES (1000000, 'after')").await;
    let after = |requests: &[Request]| ids(requests).contains(&1_000_000);
    let requests = scene.destination.wait_for(PATH, "the last row", after).await;
    assert!(built(&requests).last().is_some_and(|build| build.as_bytes() == NEXT));
}
