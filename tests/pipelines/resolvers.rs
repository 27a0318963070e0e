//! Secrets that are kept elsewhere: a sink uses what a resolver plugin fetches, and fetches it anew when it is refused.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{destination::Destination, refused, run, secret, until_status, webhook};
use crate::{
    http::{Answer, Request},
    server::Server,
};

/// The value that a Vault of our own has, and its version.
type Kept = Arc<Mutex<(String, u32)>>;

/// Answers as Vault does, to whoever shows its token.
fn vault(kept: &Kept) -> impl FnMut(&Request) -> Answer + Send + use<> {
    let kept = Arc::clone(kept);
    move |request| {
        if request.header("x-vault-token") != Some("a-token-of-vault") {
            return Answer::text(403, json!({ "errors": ["permission denied"] }).to_string());
        }
        let (value, version) = kept.lock().expect("the value").clone();
        match request.path.as_str() {
            "/v1/auth/token/lookup-self" => Answer::text(200, json!({ "data": { "id": "t" } }).to_string()),
            "/v1/secret/data/hooks/orders" => {
                let metadata = json!({ "version": version, "created_time": "2026-01-02T03:04:05Z" });
                let data = json!({ "data": { "token": value, "other": "x" }, "metadata": metadata });
                Answer::text(200, json!({ "data": data }).to_string())
            }
            _ => Answer::text(404, json!({ "errors": [] }).to_string()),
        }
    }
}

fn asked(vault: &Destination) -> usize {
    vault.taken().iter().filter(|taken| taken.request.path.starts_with("/v1/secret/data/")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_from_vault_and_is_fetched_anew_when_refused() {
    let kept: Kept = Arc::new(Mutex::new(("the-first-value".to_owned(), 1)));
    let vault = Destination::with(vault(&kept));
    let destination = Destination::start();
    let server = Server::start();
    let client = server.connect().await;
    let origin = vault.origin();
    let resolver = |name: &str, token: &str| {
        format!(
            "CREATE SECRET RESOLVER {name} USING PLUGIN vault OPTIONS (addr '{origin}', token SECRET[{token}])
             ALLOW HOSTS ('{origin}')"
        )
    };
    secret(&client, "boot", "a-token-of-vault").await;
    secret(&client, "wrong", "not-a-token-of-vault").await;
    let (code, text) = refused(&client, &resolver("v", "wrong")).await;
    assert!(code == "38000" && text.contains("http.403"), "{code}: {text}");
    run(&client, &resolver("v", "boot")).await;
    assert_eq!(refused(&client, "CREATE SECRET door FROM nowhere (path 'a')").await.0, "42704");
    run(&client, "CREATE SECRET door FROM v (path 'hooks/orders', field 'token') WITH (refresh = '1h')")
        .await;
    assert_eq!(asked(&vault), 0, "a value is fetched when it is needed");
    webhook(&client, "hook", &destination, ", token SECRET[door]").await;
    run(
        &client,
        "CREATE TABLE items (id int8 PRIMARY KEY, note text);
         CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK hook WITH (snapshot = false, linger = '10ms')",
    )
    .await;
    for id in 1..=3 {
        run(&client, &format!("INSERT INTO items VALUES ({id}, 'a')")).await;
        destination.until("delivered", |destination| destination.lines().len() == id).await;
    }
    assert_eq!(asked(&vault), 1, "and kept for its time");

    // The value changes there, and the destination knows before Sepal does.
    *kept.lock().expect("the value") = ("the-second-value".to_owned(), 2);
    destination.now(|request| match request.header("authorization") {
        Some("Bearer the-second-value") => Answer::status(200),
        _ => Answer::text(401, "a stale token").at_once(),
    });
    run(&client, "INSERT INTO items VALUES (4, 'a')").await;
    destination.until("delivered", |destination| destination.lines().len() == 4).await;
    let row = until_status(&client, "p", "well", |row| row.rows_delivered == 4).await;
    assert_eq!((row.state.as_str(), row.rows_dead), ("running", 0));
    assert_eq!(asked(&vault), 2);

    let loops = refused(&client, &resolver("w", "door")).await;
    assert_eq!(loops.0, "22023", "a resolver does not wait for a resolver: {}", loops.1);
    assert_eq!(refused(&client, "DROP SECRET RESOLVER v").await.0, "2BP01");
    assert_eq!(refused(&client, "DROP SECRET boot").await.0, "2BP01");
    for sql in ["DROP SINK hook CASCADE", "DROP SECRET door", "DROP SECRET RESOLVER v", "DROP SECRET boot"] {
        run(&client, sql).await;
    }
}
