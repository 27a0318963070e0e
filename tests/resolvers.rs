//! Do secrets come from where they are kept, and change there?
//!
//! The bundled resolvers `vault` and `aws-secrets` against servers that speak the documented protocols: `vault`, of the
//! tests' own, and `resolvers/aws_secrets.py`, which has AWS' own library judge the signatures. A sink's bearer token
//! shows which value is used; no value and no credential may show anywhere else.

mod aws;
mod vault;

use tokio_postgres::Client;

use crate::{
    http::{Answer, Destination, PATIENCE, Request},
    pipeline_status::{refused, rows, run, until_status, words},
    server::Server,
};

use vault::Vault;

/// A server with a table, and a destination for what is written into it.
struct Scene {
    server: Server,
    client: Client,
    destination: Destination,
}

impl Scene {
    async fn start() -> Scene {
        let server = Server::start();
        let client = server.connect().await;
        run(&client, "CREATE TABLE events (id bigint PRIMARY KEY)").await;
        Scene { server, client, destination: Destination::start("127.0.0.1", |_| Answer::status(204)) }
    }

    /// A stored secret: the value is bound, never written.
    async fn store(&self, name: &str, value: &str) {
        self.client.execute(&format!("CREATE SECRET {name} AS $1"), &[&value]).await.expect(name);
    }

    /// A pipeline into `/name`, whose requests bear the secret of the same name.
    async fn pipeline(&self, name: &str) {
        run(&self.client, &self.sink(name)).await;
        let pipeline = format!(
            "CREATE PIPELINE {name} AS SELECT id FROM events INTO SINK {name} WITH (linger = '20ms')"
        );
        run(&self.client, &pipeline).await;
    }

    fn sink(&self, name: &str) -> String {
        format!(
            "CREATE SINK {name} USING PLUGIN webhook OPTIONS (url '{}', token SECRET[{name}]) ALLOW HOSTS ('{}')",
            self.destination.url(&format!("/{name}")),
            self.destination.origin()
        )
    }

    async fn insert(&self, id: i64) {
        run(&self.client, &format!("INSERT INTO events VALUES ({id})")).await;
    }

    /// Writes a row and gives the token with which it arrived.
    async fn token_of(&self, name: &str, id: i64) -> String {
        self.insert(id).await;
        self.arrival(name, id).await
    }

    async fn arrival(&self, name: &str, id: i64) -> String {
        let row = format!("\"after\":{{\"id\":{id}}}");
        let holds = |request: &Request| request.text().contains(&row);
        let path = format!("/{name}");
        let what = format!("row {id}");
        let requests = self.destination.wait_for(&path, &what, |requests| requests.iter().any(holds)).await;
        let request = requests.iter().find(|request| holds(request)).expect("it was found");
        request.bearer().unwrap_or_default().to_owned()
    }

    /// Writes rows from `id` on until one arrives with this token; the next id.
    async fn until_token(&self, name: &str, mut id: i64, token: &str) -> i64 {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let found = self.token_of(name, id).await;
            id += 1;
            if found == token {
                return id;
            }
            assert!(std::time::Instant::now() < deadline, "{name} goes on with {found}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    /// None of these is in the log or in a view.
    async fn keeps(&self, secrets: &[&str]) {
        let mut told = self.server.log();
        for view in
            ["sepal_secrets", "sepal_secret_usage", "sepal_resolvers", "sepal_sinks", "sepal_pipeline_status"]
        {
            for row in rows(&self.client, &format!("SELECT * FROM {view}")).await {
                for column in 0..row.len() {
                    told += row.get(column).unwrap_or_default();
                    told.push('\n');
                }
            }
        }
        for secret in secrets {
            assert!(!told.contains(secret), "{secret} was told");
        }
    }
}

/// `CREATE SECRET RESOLVER prod` for a Vault, with more options.
fn vault_resolver(vault: &Vault, options: &str) -> String {
    let origin = vault.http.origin();
    format!(
        "CREATE SECRET RESOLVER prod USING PLUGIN vault OPTIONS (addr '{origin}', {options}) ALLOW HOSTS ('{origin}')"
    )
}

async fn with_token(scene: &Scene, vault: &Vault) {
    scene.store("vault_boot", vault::TOKEN).await;
    run(&scene.client, &vault_resolver(vault, "token SECRET[vault_boot]")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_changes_in_vault_changes_in_the_sink() {
    let (scene, vault) = (Scene::start().await, Vault::start());
    vault.put("hooks/acme", &[("token", "first-canary-Lx8"), ("user", "u")]);
    with_token(&scene, &vault).await;
    let secret = "FROM prod (path 'hooks/acme', field 'token'";
    run(&scene.client, &format!("CREATE SECRET newest {secret}) WITH (refresh = '1s')")).await;
    run(&scene.client, &format!("CREATE SECRET pinned {secret}, version '1') WITH (refresh = '1s')")).await;
    scene.pipeline("newest").await;
    scene.pipeline("pinned").await;
    assert_eq!(scene.token_of("newest", 1).await, "first-canary-Lx8");

    vault.put("hooks/acme", &[("token", "second-canary-Py4"), ("user", "u")]);
    let next = scene.until_token("newest", 2, "second-canary-Py4").await;
    // From then on no row goes with the old one, but where the old one was asked for.
    assert_eq!(scene.token_of("newest", next).await, "second-canary-Py4");
    assert_eq!(scene.arrival("pinned", next).await, "first-canary-Lx8");

    // Every row arrived; what was used is on record, by version.
    let now = until_status(&scene.client, "newest", "all rows", |now| now.rows_delivered == next).await;
    assert_eq!(now.rows_dead, 0, "{now:?}");
    let used = rows(&scene.client, "SELECT version FROM sepal_secret_usage WHERE name = 'newest'").await;
    for version in ["1@2026", "2@2026"] {
        let is_used = used.iter().any(|row| row.get(0).is_some_and(|known| known.starts_with(version)));
        assert!(is_used, "version {version} is not on record");
    }
    scene.keeps(&["first-canary-Lx8", "second-canary-Py4", vault::TOKEN]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_down_is_outlived_for_as_long_as_was_said() {
    let (scene, vault) = (Scene::start().await, Vault::start());
    vault.put("hooks/acme", &[("token", "stale-canary-Hd2")]);
    with_token(&scene, &vault).await;
    for (name, stale) in [("long", "1h"), ("short", "1s")] {
        let with = format!("refresh = '1s', max_stale = '{stale}'");
        run(&scene.client, &format!("CREATE SECRET {name} FROM prod (path 'hooks/acme') WITH ({with})"))
            .await;
        scene.pipeline(name).await;
    }
    assert_eq!(scene.token_of("long", 1).await, "stale-canary-Hd2");
    assert_eq!(scene.arrival("short", 1).await, "stale-canary-Hd2");

    vault.set_down(true);
    let asked = vault.http.connections();
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut id = 2;
    // One goes on with the value it has, the other waits and says what for.
    let waits = loop {
        assert_eq!(scene.token_of("long", id).await, "stale-canary-Hd2");
        id += 1;
        let now = until_status(&scene.client, "short", "a status", |_| true).await;
        if now.state == "retrying" {
            break now;
        }
        assert!(std::time::Instant::now() < deadline, "short goes on: {now:?}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let error = waits.last_error.as_deref().unwrap_or_default();
    assert!(error.contains("secret \"short\" could not be resolved"), "{waits:?}");
    assert!(vault.http.connections() > asked, "vault was asked meanwhile");

    vault.set_down(false);
    let now = until_status(&scene.client, "short", "its rows", |now| now.rows_delivered == id - 1).await;
    assert_eq!(now.rows_dead, 0, "{now:?}");
    scene.keeps(&["stale-canary-Hd2", vault::TOKEN]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vault_refuses_is_said_where_it_is_asked_for() {
    let (scene, vault) = (Scene::start().await, Vault::start());
    vault.put("hooks/acme", &[("token", "refusals-canary-Kw6"), ("user", "u")]);
    scene.store("wrong_token", "hvs.wrong-canary-Ub1").await;
    let told = words(&refused(&scene.client, &vault_resolver(&vault, "token SECRET[wrong_token]")).await);
    assert!(told.contains("403") && told.contains("permission denied"), "{told}");
    let elsewhere = vault_resolver(&vault, "role_id 'r'")
        .replace("HOSTS ('http://127.0.0.1", "HOSTS ('http://elsewhere.example");
    let told = words(&refused(&scene.client, &elsewhere).await);
    assert!(told.contains("is not among the hosts granted"), "{told}");
    let told = words(&refused(&scene.client, &vault_resolver(&vault, "token 'hvs.in-clear-Zr7'")).await);
    assert!(told.contains("in clear") && !told.contains("Zr7"), "{told}");

    with_token(&scene, &vault).await;
    for (name, options, reason) in [
        ("nowhere", "path 'hooks/nobody', field 'token'", "is not where its resolver looks"),
        ("deleted", "path 'hooks/acme', field 'token', version '9'", "is not where its resolver looks"),
        ("fieldless", "path 'hooks/acme', field 'nope'", "has no field nope, but token, user"),
        ("ambiguous", "path 'hooks/acme'", "has the fields token, user"),
        ("climbing", "path '../../sys/seal-status'", "is no path"),
        ("numberless", "path 'hooks/acme', field 'token', version 'x'", "is not a number"),
    ] {
        run(&scene.client, &format!("CREATE SECRET {name} FROM prod ({options})")).await;
        let told = words(&refused(&scene.client, &scene.sink(name)).await);
        assert!(told.contains(reason), "{name}: {told}");
        assert!(!told.contains("Kw6"), "{name}: {told}");
    }
    // What is resolved cannot be what a resolver needs to resolve.
    let other = vault_resolver(&vault, "token SECRET[nowhere]").replace("prod", "other");
    let told = words(&refused(&scene.client, &other).await);
    assert!(told.contains("not stored here"), "{told}");
    scene.keeps(&["refusals-canary-Kw6", "hvs.wrong-canary-Ub1", "Zr7", vault::TOKEN]).await;
}

/// The secret id goes where Vault wants it, into the body, and is written as JSON writes it.
#[tokio::test(flavor = "multi_thread")]
async fn an_approle_logs_in_with_a_secret_id_that_the_plugin_never_sees() {
    const SECRET_ID: &str = "approle \"canary\" \\ Nf9sE";
    let (scene, vault) = (Scene::start().await, Vault::start());
    vault.put("hooks/acme", &[("token", "by-approle-Cj5")]);
    vault.set_role("role-1", SECRET_ID);
    vault.set_namespace("team-a/");
    scene.store("approle", SECRET_ID).await;
    scene.store("other_id", "another-canary-Wm2").await;
    let options = |secret: &str| format!("role_id 'role-1', secret_id SECRET[{secret}], namespace 'team-a/'");
    let told = words(&refused(&scene.client, &vault_resolver(&vault, &options("other_id"))).await);
    assert!(told.contains("refused the role id or the secret id"), "{told}");
    run(&scene.client, &vault_resolver(&vault, &options("approle"))).await;
    run(&scene.client, "CREATE SECRET hook FROM prod (path 'hooks/acme')").await;
    scene.pipeline("hook").await;
    assert_eq!(scene.token_of("hook", 1).await, "by-approle-Cj5");

    let logins = vault.http.requests("/v1/auth/approle/login");
    let last: serde_json::Value =
        serde_json::from_slice(&logins.last().expect("a login").body).expect("JSON");
    assert_eq!(last, serde_json::json!({ "role_id": "role-1", "secret_id": SECRET_ID }));
    assert!(logins.iter().all(|login| login.header("content-type") == Some("application/json")));
    for request in vault.http.all().iter().filter(|request| !request.path.ends_with("/login")) {
        assert!(!request.text().contains("Nf9sE"), "{request:?}");
        let token = request.header("x-vault-token").unwrap_or_default();
        assert!(token.starts_with("hvs.session-"), "{request:?}");
    }
    let asks =
        rows(&scene.client, "SELECT capability FROM sepal_plugin_capabilities WHERE plugin = 'sepal/vault'")
            .await;
    assert!(
        asks.iter().any(|row| row.get(0) == Some("secret secret_id http-body")),
        "it is shown what it asks for"
    );
    scene.keeps(&["Nf9sE", "another-canary-Wm2", "by-approle-Cj5", "hvs.session-"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_given_back_with_its_secret() {
    let (scene, vault) = (Scene::start().await, Vault::start());
    scene.store("vault_boot", vault::TOKEN).await;
    run(&scene.client, &vault_resolver(&vault, "token SECRET[vault_boot], engine 'logical'")).await;
    run(&scene.client, "CREATE SECRET db FROM prod (path 'database/creds/app', field 'password')").await;
    scene.pipeline("db").await;
    let password = scene.token_of("db", 1).await;
    let number = password.strip_prefix("leased-password-").expect("a leased password").to_owned();
    // One lease for all: it is kept for its time.
    assert_eq!(scene.token_of("db", 2).await, password);
    let told = words(&refused(&scene.client, "DROP SECRET db").await);
    assert!(told.contains("sink db"), "{told}");
    assert!(vault.revoked().is_empty());
    run(&scene.client, "DROP SINK db CASCADE").await;
    run(&scene.client, "DROP SECRET db").await;
    assert_eq!(vault.revoked(), [format!("database/creds/app/lease-{number}")]);
    scene.keeps(&["leased-password-", vault::TOKEN]).await;
}
