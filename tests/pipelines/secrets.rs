//! Who learns a secret? The destination that it is for, and nobody else: no file, no log, no view, no error, no plan.
//!
//! A sink uses the canaries, deliveries fail, destinations echo what they were sent, statements with a secret in them
//! are refused for every reason there is; then the data directory, the log at its most talkative and everything that
//! the server said are searched for them. Who may use a secret, and where one may stand, is asked here too.

use std::fmt::Write;

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio_postgres::Client;

use super::{
    destination::Destination, refused, run, secret, told, until_dead_letters, until_status, webhook,
};
use crate::{
    canary::{hex, search},
    http::{Answer, Request},
    server::{Key, Server},
    tenancy::everything,
};

const BOUND: &str = "canary-bound-Vw3kR8zNq5";
const TYPED: &str = "canary-typed-Jm6xT1bYc0";
const ROTATED: &str = "canary-rotated-Qa9pL4uHd2";
/// In statements that are refused.
const MISPLACED: &str = "canary-misplaced-Hs2eF7gKx6";

/// What must be in nothing, with a name for each.
fn needles(key_pem: &str) -> Vec<(String, Vec<u8>)> {
    let mut needles = Vec::new();
    for text in [BOUND, TYPED, ROTATED, MISPLACED] {
        needles.push((text.to_owned(), text.as_bytes().to_vec()));
        needles.push((format!("{text} in hex"), hex(text.as_bytes())));
        let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        needles.push((format!("{text} in UTF-16"), utf16));
        for shift in 0..3 {
            // Wherever it stands in a longer text, all but its borders is this.
            let shifted = [&b"  "[..shift], text.as_bytes()].concat();
            let encoded = BASE64_STANDARD_NO_PAD.encode(shifted);
            needles.push((
                format!("{text} in base64 {shift}"),
                encoded.as_bytes()[4..encoded.len() - 4].to_vec(),
            ));
        }
    }
    let inside = key_pem.lines().filter(|line| !line.starts_with('-') && line.len() > 16);
    needles.extend(inside.map(|line| ("the certificate's key".to_owned(), line.as_bytes().to_vec())));
    needles
}

/// Self-signed, valid until a year, with its key.
fn certificate(until: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["sink.example.com".to_owned()]).expect("a name");
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    let key = KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

/// Everything that the server has said, with the question before each answer.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    async fn ask(&mut self, client: &Client, sql: &str) -> &str {
        let answer = everything(client, sql).await;
        self.0.push((sql.to_owned(), answer));
        &self.0.last().expect("an answer").1
    }

    fn check(&self, needles: &[(String, Vec<u8>)]) {
        for (question, answer) in &self.0 {
            for (name, needle) in needles {
                let found = answer.as_bytes().windows(needle.len()).any(|window| window == needle);
                assert!(!found, "{name} in the answer to {question}:\n{answer}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_nowhere_but_at_the_destination() {
    let mut server = Server::start_with(&["--log", "debug"]);
    let key = server.tenant("acme");
    let client = server.login_with(&key).connect().await.expect("connect");
    let destination = Destination::start();
    let (chain, key_pem) = certificate(2099);
    let needles = needles(&key_pem);
    let mut heard = Heard::default();
    client.execute("CREATE CERTIFICATE web AS $1 KEY $2", &[&chain, &key_pem]).await.expect("a certificate");
    deliveries(&client, &destination, &mut heard).await;
    misplaced(&client, &destination, &mut heard).await;
    views(&client, &mut heard).await;
    heard.check(&needles);
    let log = server.log();
    assert!(log.contains("a plugin was called"), "the log is as talkative as it can be");
    let check = |server: &Server, when: &str| {
        let found = search(&server.data(), &[server.log_path()], &needles);
        assert!(found.is_empty(), "after {when}:\n{}", found.join("\n"));
    };
    check(&server, "deliveries");
    drop(client);
    server.kill();
    check(&server, "a kill");
    server.start_again();
    let client = server.login_with(&key).connect().await.expect("connect");
    run(&client, "INSERT INTO items VALUES (5, 'after the kill')").await;
    let arrived =
        |destination: &Destination| destination.accepted().iter().any(|post| post.contains("after the kill"));
    destination.until("delivered after the kill", arrived).await;
    check(&server, "the recovery");
    drop(client);
    server.restart();
    check(&server, "a restart");
}

/// Rows that arrive with the secret, are refused by a destination that shows it around, and arrive with the next one.
async fn deliveries(client: &Client, destination: &Destination, heard: &mut Heard) {
    run(client, "CREATE TABLE items (id int8 PRIMARY KEY, note text)").await;
    secret(client, "bound", BOUND).await;
    run(client, &format!("CREATE SECRET typed AS '{TYPED}'")).await;
    webhook(client, "hook", destination, ", token SECRET[bound], signing_key SECRET[typed]").await;
    run(
        client,
        "CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK hook KEY (id)
         WITH (snapshot = true, linger = '10ms')",
    )
    .await;
    run(client, "INSERT INTO items VALUES (1, 'first')").await;
    destination.until("delivered", |destination| !destination.accepted().is_empty()).await;
    assert!(
        destination.accepted().iter().all(|request| is_bearer(request, BOUND)),
        "the sink uses the secret"
    );

    destination.now(|request| Answer::text(400, echo(request)));
    run(client, "INSERT INTO items VALUES (2, 'refused')").await;
    let letters = until_dead_letters(client, "p", 1).await;
    assert!(letters[0].1.contains("<redacted>"), "the echo came, without the secret: {}", letters[0].1);
    destination.now(|request| Answer::text(503, echo(request)));
    run(client, "INSERT INTO items VALUES (3, 'not now')").await;
    let is_told = |code: &str| code == "http.503";
    until_status(client, "p", "told", |row| row.last_error_code.as_deref().is_some_and(is_told)).await;
    for view in
        ["sepal_pipeline_status", "sepal_dead_letters", "sepal_sink_errors('p')", "sepal_secret_usage"]
    {
        let answer = heard.ask(client, &format!("SELECT * FROM {view}")).await;
        assert!(answer.len() > 100, "{view} has rows: {answer}");
    }

    client.execute("ALTER SECRET bound AS $1", &[&ROTATED]).await.expect("another value");
    destination.now(|_| Answer::status(200));
    run(client, "INSERT INTO items VALUES (4, 'last')").await;
    let arrived = |destination: &Destination| destination.accepted().iter().any(|post| post.contains("last"));
    destination.until("delivered", arrived).await;
    let last = destination.accepted().pop().expect("a request");
    assert!(is_bearer(&last, ROTATED), "a new value is used without a restart: {last:?}");
}

fn is_bearer(request: &Request, token: &str) -> bool {
    request.header("authorization") == Some(format!("Bearer {token}").as_str())
}

/// What it was sent, as some destinations answer.
fn echo(request: &Request) -> String {
    let mut text = "you sent: ".to_owned();
    if let Some(authorization) = request.header("authorization") {
        let _ = write!(text, "{authorization} ({})", BASE64_STANDARD_NO_PAD.encode(authorization));
    }
    text
}

/// Statements with a secret in them where none may be, or that fail for another reason.
async fn misplaced(client: &Client, destination: &Destination, heard: &mut Heard) {
    let url = destination.url();
    let sink = |options: &str| {
        format!(
            "CREATE SINK other USING PLUGIN webhook OPTIONS ({options}) ALLOW HOSTS ('{}')",
            destination.origin()
        )
    };
    for sql in [
        format!("CREATE SECRET bound AS '{MISPLACED}'"),
        format!("CREATE SECRET AS '{MISPLACED}'"),
        format!("CREATE SECRET other '{MISPLACED}'"),
        format!("CREATE SECRET other AS {MISPLACED}"),
        format!("CREATE SECRET other AS \"{MISPLACED}\""),
        format!("CREATE SECRET other AS '{MISPLACED}' AND SO ON"),
        format!("CREATE SECRET other AS '{MISPLACED}' WITH (refresh = '5m')"),
        format!("CREATE SECRET other AS '{MISPLACED}"),
        format!("CREATE SECRET \"no.name\" AS '{MISPLACED}'"),
        format!("ALTER SECRET nowhere AS '{MISPLACED}'"),
        format!("CREATE CERTIFICATE other AS '{MISPLACED}' KEY '{MISPLACED}'"),
        format!("CREATE PLUGIN TRUST KEY other AS '{MISPLACED}'"),
        format!("EXPLAIN CREATE SECRET other AS '{MISPLACED}'"),
        format!("PREPARE other AS CREATE SECRET other AS '{MISPLACED}'"),
        sink(&format!("url '{url}', token '{MISPLACED}'")),
        sink(&format!("url 'http://user:{MISPLACED}@127.0.0.1:1/'")),
        sink(&format!("url '{url}', password '{MISPLACED}'")),
        sink(&format!("url '{url}', headers 'Authorization: Bearer {MISPLACED}'")),
        format!("CREATE SECRET RESOLVER r USING PLUGIN vault OPTIONS (addr '{url}', token '{MISPLACED}')"),
        format!("CREATE SINK other USING postgres OPTIONS (url 'postgres://u:{MISPLACED}@h/d', table 't')"),
    ] {
        let answer = heard.ask(client, &sql).await;
        assert!(answer.contains("SqlState"), "{sql} is refused: {answer}");
    }
    // What a session is doing, while it does that.
    let together = format!("CREATE SECRET other AS '{MISPLACED}'; SELECT * FROM pg_stat_activity");
    heard.ask(client, &together).await;
    run(client, "DROP SECRET other").await;
    let bound = client.execute("CREATE SECRET bound AS $1", &[&MISPLACED]).await.expect_err("it is there");
    heard.0.push(("CREATE SECRET, bound".to_owned(), told(&bound)));
}

/// Whatever there is to look at.
async fn views(client: &Client, heard: &mut Heard) {
    let views = [
        "sepal_secrets",
        "sepal_secret_usage",
        "sepal_certificates",
        "sepal_resolvers",
        "sepal_plugins",
        "sepal_plugin_capabilities",
        "sepal_sinks",
        "sepal_pipelines",
        "sepal_pipeline_status",
        "sepal_dead_letters",
        "pg_stat_activity",
        "pg_stat_database",
        "pg_stat_user_tables",
        "pg_prepared_statements",
        "pg_settings",
        "pg_class",
    ];
    for view in views {
        heard.ask(client, &format!("SELECT * FROM {view}")).await;
        heard.ask(client, &format!("EXPLAIN (VERBOSE) SELECT * FROM {view}")).await;
    }
    for what in [
        "SECRETS",
        "CERTIFICATES",
        "SINKS",
        "PIPELINES",
        "PLUGINS",
        "PLUGIN CAPABILITIES",
        "SECRET RESOLVERS",
        "ALL",
    ] {
        heard.ask(client, &format!("SHOW {what}")).await;
    }
    let sinks = heard.ask(client, "SHOW SINKS").await;
    assert!(sinks.contains("SECRET[bound]") && sinks.contains("SECRET[typed]"), "by their names: {sinks}");
    heard.ask(client, "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM items WHERE note = 'last'").await;
    let used = heard.ask(client, "SELECT name, version, used_by, purpose FROM sepal_secret_usage").await;
    assert!(used.contains("bound|1|sink hook|p") && used.contains("bound|2|sink hook|p"), "{used}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_stands_where_a_secret_may() {
    let server = Server::start();
    let client = server.connect().await;
    let destination = Destination::start();
    secret(&client, "door", "let me in").await;
    run(&client, "CREATE TABLE items (id int8 PRIMARY KEY, note text)").await;
    let origin = destination.origin();
    let sink = |options: &str| {
        format!("CREATE SINK s USING PLUGIN webhook OPTIONS ({options}) ALLOW HOSTS ('{origin}')")
    };
    for (sql, state) in [
        (sink("url SECRET[door]"), "22023"),
        (sink(&format!("url '{origin}', headers SECRET[door]")), "22023"),
        (sink(&format!("url '{origin}', token 'let me in'")), "22023"),
        (sink(&format!("url '{origin}', token true")), "22023"),
        (sink(&format!("url '{origin}', token 'SECRET[door]'")), "42601"),
        (sink(&format!("url '{origin}', token 'Bearer ' || SECRET[door]")), "42601"),
        (sink(&format!("url '{origin}', token SECRET[nowhere]")), "42704"),
        (sink(&format!("url '{origin}', token SECRET[door@2]")), "42704"),
        (sink(&format!("url '{origin}', token CERT[door]")), "42704"),
        ("CREATE SECRET other AS SECRET[door]".to_owned(), "42601"),
        (
            "CREATE PIPELINE p AS SELECT id FROM items INTO SINK s WITH (linger = SECRET[door])".to_owned(),
            "22023",
        ),
    ] {
        let (code, text) = refused(&client, &sql).await;
        assert_eq!(code, state, "{sql}: {text}");
        assert!(!text.contains("let me in"), "{sql}: {text}");
    }
    for sql in [
        "SELECT SECRET[door]",
        "INSERT INTO items VALUES (1, SECRET[door])",
        "SELECT * FROM items WHERE note = SECRET[door]",
        "CREATE TABLE other (id int8, note text DEFAULT SECRET[door])",
    ] {
        let (code, text) = refused(&client, sql).await;
        let told = ["42", "0A"].contains(&&code[..2]);
        assert!(told && !text.contains("let me in"), "{sql}: {code}: {text}");
    }
    assert!(destination.taken().is_empty(), "nothing was tried out");

    // Two secrets may not be one variable for a process that is started with them.
    secret(&client, "\"db-password\"", "one").await;
    let (code, text) = refused(&client, "CREATE SECRET db_password AS 'two'").await;
    assert!(code == "42710" && text.contains("SEPAL_SECRET_DB_PASSWORD"), "{code}: {text}");
    let shown =
        client.query("SELECT name, env_name FROM sepal_secrets ORDER BY name", &[]).await.expect("secrets");
    let shown: Vec<(String, String)> = shown.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [("db-password", "SEPAL_SECRET_DB_PASSWORD"), ("door", "SEPAL_SECRET_DOOR")];
    assert_eq!(shown, expected.map(|(name, variable)| (name.to_owned(), variable.to_owned())));
}

async fn connect(server: &Server, key: &Key) -> Client {
    server.login_with(key).connect().await.expect("connect")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_its_owners_to_give() {
    let server = Server::start();
    let (owners, others) = (server.tenant("acme"), server.key("acme", &[]));
    let (owner, other) = (connect(&server, &owners).await, connect(&server, &others).await);
    let destination = Destination::start();
    run(&owner, "CREATE TABLE items (id int8 PRIMARY KEY, note text)").await;
    secret(&owner, "door", "let me in").await;
    let (url, origin) = (destination.url(), destination.origin());
    let sink = |name: &str, secret: &str| {
        format!(
            "CREATE SINK {name} USING PLUGIN webhook OPTIONS (url '{url}', token SECRET[{secret}])
             ALLOW HOSTS ('{origin}')"
        )
    };
    for sql in [
        sink("hook", "door").as_str(),
        "ALTER SECRET door AS 'mine now'",
        "DROP SECRET door",
        "GRANT USAGE ON SECRET door TO PUBLIC",
    ] {
        assert_eq!(refused(&other, sql).await.0, "42501", "{sql}");
    }
    assert!(destination.taken().is_empty());
    run(&owner, &format!("GRANT USAGE ON SECRET door TO {}", others.id)).await;
    run(&other, &sink("hook", "door")).await;
    run(
        &other,
        "CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK hook WITH (snapshot = false, linger = '10ms')",
    )
    .await;
    run(&other, "INSERT INTO items VALUES (1, 'granted')").await;
    destination.until("delivered", |destination| destination.lines().len() == 1).await;
    assert_eq!(refused(&owner, "DROP SECRET door").await.0, "2BP01", "somebody uses it");

    // A grant that is taken back ends what runs, and what waits stays.
    run(&owner, &format!("REVOKE USAGE ON SECRET door FROM {}", others.id)).await;
    run(&other, "INSERT INTO items VALUES (2, 'revoked')").await;
    let is_denied = |code: &str| code == "secret.denied";
    until_status(&other, "p", "denied", |row| row.last_error_code.as_deref().is_some_and(is_denied)).await;
    assert_eq!(destination.posts().len(), 1, "nothing goes out without it");
    run(&owner, "GRANT USAGE ON SECRET door TO PUBLIC").await;
    run(&owner, "ALTER PIPELINE p RESUME").await;
    destination.until("delivered", |destination| destination.lines().len() == 2).await;

    // A secret may say for itself where it goes.
    let bound = "CREATE SECRET bound AS $1 WITH (allowed_hosts = 'hooks.example.com, *.example.org')";
    owner.execute(bound, &[&"for my host alone"]).await.expect("a secret");
    let before = destination.taken().len();
    let (code, text) = refused(&owner, &sink("elsewhere", "bound")).await;
    assert!(code == "22023" && text.contains("allowed_hosts"), "{code}: {text}");
    assert_eq!(destination.taken().len(), before, "not even tried out");
    run(&owner, "ALTER SECRET bound SET (allowed_hosts = '127.0.0.1')").await;
    run(&owner, &sink("elsewhere", "bound")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_kept_with_their_keys() {
    let server = Server::start();
    let (owners, others) = (server.tenant("acme"), server.key("acme", &[]));
    let (owner, other) = (connect(&server, &owners).await, connect(&server, &others).await);
    let ((chain, key), (renewed, new_key), (expired, old_key)) =
        (certificate(2099), certificate(2098), certificate(2021));
    let create = "CREATE CERTIFICATE web AS $1 KEY $2";
    for (chain, key, why) in
        [(&chain, &new_key, "does not belong"), (&expired, &old_key, "expired"), (&key, &key, "certificate")]
    {
        let error = owner.execute(create, &[chain, key]).await.expect_err(why);
        let text = told(&error);
        assert!(text.contains("22023") && text.contains(why), "{why}: {text}");
    }
    owner.execute(create, &[&chain, &key]).await.expect("a certificate");
    let again = owner.execute(create, &[&chain, &key]).await.expect_err("it is there");
    assert_eq!(again.code().map(tokio_postgres::error::SqlState::code), Some("42710"));
    let alter = "ALTER CERTIFICATE web AS $1 KEY $2";
    let denied = other.execute(alter, &[&renewed, &new_key]).await.expect_err("another's");
    assert_eq!(denied.code().map(tokio_postgres::error::SqlState::code), Some("42501"));
    owner.execute(alter, &[&renewed, &new_key]).await.expect("a renewed one");
    let sql = "SELECT version, subject, sha256, owner FROM sepal_certificates
               WHERE not_after > '2097-06-01' AND not_after < '2098-06-01'";
    let row = owner.query_one(sql, &[]).await.expect("one certificate");
    let shown: (i64, String, String, String) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!((shown.0, shown.2.len()), (2, 64), "{shown:?}");
    assert!(shown.3 == owners.id && shown.1.contains("CN="), "{shown:?}");
    run(&owner, "DROP CERTIFICATE web").await;
    assert_eq!(refused(&owner, "DROP CERTIFICATE web").await.0, "42704");
}
