//! Who comes in, and who is thrown out?
//!
//! Logins by SCRAM and by token, wrong ones, revoked ones, and what a read-only key may not do. The answer to
//! "wrong" and to "does not exist" must be the same.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error, config::ChannelBinding};

use crate::{
    server::{Key, Login, Server},
    wire::{PROTOCOL, Wire, kinds, only_error, startup},
};

/// A revoked key must not work longer than this, plus what a busy test machine adds.
const REVOCATION: Duration = Duration::from_millis(1_000);
const PATIENCE: Duration = Duration::from_millis(1_500);

/// SQLSTATE and message of a login that failed.
async fn refusal(login: &Login) -> (String, String) {
    let Err(error) = login.connect().await else { panic!("{} came in", login.user) };
    told(&error)
}

fn told(error: &Error) -> (String, String) {
    let error = error.as_db_error().unwrap_or_else(|| panic!("no answer from the server: {error}"));
    (error.code().code().to_owned(), error.message().to_owned())
}

async fn one(client: &Client) -> Result<i32, Error> {
    Ok(client.query_one("SELECT 1", &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_with_and_without_channel_binding() {
    let login = Server::shared().login();
    for binding in [ChannelBinding::Require, ChannelBinding::Disable, ChannelBinding::Prefer] {
        let mut config = login.config();
        config.channel_binding(binding);
        let client = login.connect_with(&config).await.expect("connect");
        assert_eq!(one(&client).await.expect("SELECT 1"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenants_name_with_the_token_as_password() {
    let login = Server::shared().login().user("dev");
    let client = login.connect().await.expect("connect");
    assert_eq!(one(&client).await.expect("SELECT 1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_database_named_or_the_users_own_name_is_the_default() {
    let login = Server::shared().login();
    let client =
        login.clone().database(&login.user).connect().await.expect("psql sends the user as the database");
    let row = client.query_one("SELECT current_database()::text", &[]).await.expect("query");
    assert_eq!(row.get::<_, String>(0), "default");
    let mut config = tokio_postgres::Config::new();
    config.host("localhost").port(login.port).user(&login.user).password(&login.token);
    config.hostaddr(std::net::Ipv4Addr::LOCALHOST.into()).ssl_mode(tokio_postgres::config::SslMode::Require);
    let client = login.connect_with(&config).await.expect("connect without a database");
    let row = client.query_one("SELECT current_database()::text", &[]).await.expect("query");
    assert_eq!(row.get::<_, String>(0), "default");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_login_gets_the_same_answer() {
    let server = Server::start();
    let acme = server.tenant("acme");
    let rival = server.tenant("rival");
    let good = server.login_with(&acme);
    one(&good.connect().await.expect("the good login")).await.expect("SELECT 1");

    let flip = |token: &str| {
        let mut bytes = token.as_bytes().to_vec();
        let last = bytes.len() - 10;
        bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("letters")
    };
    let with = |user: &str, token: &str| Login { user: user.into(), token: token.into(), ..good.clone() };
    let wrong = [
        ("a flipped letter", with(&acme.id, &flip(&acme.token))),
        ("another tenant's token", with(&acme.id, &rival.token)),
        ("a key id that does not exist", with("Zz9Yy8Xx7Ww6", &acme.token)),
        ("no token at all", with(&acme.id, "password")),
        ("a tenant's name with another's token", with("acme", &rival.token)),
        ("a tenant that does not exist", with("nobody", &acme.token)),
        ("a tenant's name with a flipped token", with("acme", &flip(&acme.token))),
        ("a superuser's name", with("postgres", "postgres")),
        ("an empty password", with("acme", "")),
    ];
    for (name, login) in wrong {
        let Err(error) = login.connect().await else { panic!("{name} came in") };
        // A driver may itself refuse what the server says in SCRAM; then there is no server error to read.
        let Some(error) = error.as_db_error() else { continue };
        assert_eq!(error.code().code(), "28P01", "{name}: {}", error.message());
        assert_eq!(error.severity(), "FATAL", "{name}");
        assert_eq!(
            error.message(),
            format!("password authentication failed for user \"{}\"", login.user),
            "{name}"
        );
        assert_eq!(error.detail(), None, "{name}");
    }
}

/// What is defined under `sepal dev`'s key, as sinks with their right to secrets, goes on after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn the_development_key_outlives_a_restart() {
    let mut server = Server::start();
    let before = server.login();
    server.restart();
    let after = server.login();
    assert_eq!((&after.user, &after.token), (&before.user, &before.token));
    one(&after.connect().await.expect("connect")).await.expect("SELECT 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_bites_on_open_connections_within_a_second() {
    let server = Server::start();
    let key = server.tenant("acme");
    let other = server.key("acme", &["--label", "stays"]);
    let login = server.login_with(&key);
    let busy = login.connect().await.expect("connect");
    let idle = login.connect().await.expect("connect");
    let in_transaction = login.connect().await.expect("connect");
    in_transaction.batch_execute("CREATE TABLE t (a int)").await.expect("table");
    in_transaction.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.expect("begin");
    let stays = server.login_with(&other).connect().await.expect("connect");
    one(&busy).await.expect("before the revocation");

    server.admin(&["key", "revoke", &key.id]);
    let revoked = Instant::now();
    let error = loop {
        match one(&busy).await {
            Ok(_) => assert!(
                revoked.elapsed() < PATIENCE,
                "a revoked key still works after {:?}",
                revoked.elapsed()
            ),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(told(&error).0, "57P01", "{error}");

    tokio::time::sleep(REVOCATION.saturating_sub(revoked.elapsed())).await;
    assert!(in_transaction.batch_execute("COMMIT").await.is_err(), "a commit after the revocation");
    let deadline = Instant::now() + PATIENCE;
    while !idle.is_closed() {
        assert!(Instant::now() < deadline, "an idle connection outlives its key");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(refusal(&login).await.0, "28P01", "a revoked key looks like a wrong one");
    one(&stays).await.expect("the tenant's other key works on");
    let rows = stays.query_one("SELECT count(*) FROM t", &[]).await.expect("count").get::<_, i64>(0);
    assert_eq!(rows, 0, "the transaction of a revoked key is rolled back");
}

#[test]
fn a_revoked_keys_idle_session_is_told_why() {
    let server = Server::start();
    let key = server.tenant("acme");
    let login = Login { user: "acme".into(), token: key.token.clone(), ..server.login() };
    let mut idle = Wire::log_in(&login);
    server.admin(&["key", "revoke", &key.id]);
    let end = idle.until_closed();
    assert_eq!(end.error().state(), "57P01");
    assert_eq!(end.error().field('S').as_deref(), Some("FATAL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_tenant_ends_its_sessions() {
    let server = Server::start();
    let key = server.tenant("acme");
    let login = server.login_with(&key);
    let client = login.connect().await.expect("connect");
    one(&client).await.expect("before");
    server.admin(&["tenant", "drop", "acme", "--yes"]);
    let deadline = Instant::now() + PATIENCE;
    while one(&client).await.is_ok() {
        assert!(Instant::now() < deadline, "a dropped tenant's session goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(refusal(&login).await.0, "28P01");
    assert_eq!(refusal(&login.user("acme")).await.0, "28P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_database_is_3d000_whether_foreign_or_missing() {
    let server = Server::start();
    let acme = server.tenant("acme");
    server.tenant("rival");
    server.key("rival", &["--environment", "secret-plans"]);
    let limited = server.key("acme", &["--environment", "staging"]);
    let answer = |name: &'static str, key: &Key| {
        let login = server.login_with(key).database(name);
        async move {
            let (state, message) = refusal(&login).await;
            assert_eq!(message, format!("database \"{name}\" does not exist"));
            state
        }
    };
    assert_eq!(answer("nope", &acme).await, "3D000");
    assert_eq!(answer("secret-plans", &acme).await, "3D000", "another tenant's environment");
    assert_eq!(answer("default", &limited).await, "3D000", "an environment the key may not enter");
    one(&server.login_with(&limited).connect().await.expect("its own environment")).await.expect("SELECT 1");
    one(&server.login_with(&acme).database("staging").connect().await.expect("all environments"))
        .await
        .expect("1");
}

#[test]
fn plaintext_is_refused_with_28000_and_a_way_out() {
    let login = Server::shared().login();
    let mut wire = Wire::dial(&login);
    wire.send(&startup(PROTOCOL, &[("user", "dev"), ("database", "default")]));
    let end = wire.until_closed();
    assert_eq!(end.error().state(), "28000");
    assert_eq!(end.error().field('S').as_deref(), Some("FATAL"));
    assert!(end.error().field('H').is_some_and(|hint| hint.contains("sslmode")), "{:?}", end.error());
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_on_loopback_when_asked_for() {
    let server = Server::start_with(&["--insecure-plaintext"]);
    let login = server.login();
    one(&login.clone().plaintext().connect().await.expect("plaintext")).await.expect("SELECT 1");
    one(&login.connect().await.expect("TLS still works")).await.expect("SELECT 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_not_trusted() {
    // Not the server's duty but the harness's: a test that trusted anything would prove nothing about TLS.
    let (one, other) = (Server::start(), Server::start());
    let login = Login { authority: other.login().authority, ..one.login() };
    assert!(login.connect().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_key_writes_nothing() {
    let server = Server::start();
    let write = server.tenant("acme");
    let read = server.key("acme", &["--scope", "read"]);
    let writer = server.login_with(&write).connect().await.expect("connect");
    writer
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, v vector(2)); INSERT INTO t VALUES (1, '[1,2]')")
        .await
        .expect("set up");
    let reader = server.login_with(&read).connect().await.expect("connect");
    for sql in [
        "INSERT INTO t VALUES (2, '[1,2]')",
        "INSERT INTO t VALUES (1, '[1,2]') ON CONFLICT DO NOTHING",
        "UPDATE t SET v = '[3,4]'",
        "UPDATE t SET v = '[3,4]' WHERE false",
        "DELETE FROM t",
        "TRUNCATE t",
        "CREATE TABLE u (a int)",
        "CREATE TABLE u AS SELECT 1 AS a",
        "DROP TABLE t",
        "ALTER TABLE t ADD COLUMN b int",
        "CREATE INDEX ON t USING hnsw (v vector_l2_ops)",
        "COPY t FROM STDIN",
        "WITH w AS (SELECT 5 AS x) INSERT INTO t (id) SELECT x FROM w",
    ] {
        let error = reader.simple_query(sql).await.expect_err(sql);
        assert_eq!(told(&error).0, "42501", "{sql}: {error}");
    }
    for sql in
        ["SELECT * FROM t", "EXPLAIN SELECT * FROM t", "SHOW server_version", "BEGIN; SELECT 1; COMMIT"]
    {
        reader.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let error = reader.prepare("DELETE FROM t").await.and(reader.execute("DELETE FROM t", &[]).await);
    assert_eq!(told(&error.expect_err("prepared")).0, "42501");
    let rows = writer.query_one("SELECT count(*) FROM t", &[]).await.expect("count").get::<_, i64>(0);
    assert_eq!(rows, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_a_wrong_key() {
    let server = Server::start();
    server.tenant("acme");
    // The command line counts in minutes, so the shortest life is waited for only where time is plenty.
    let refused = server.try_admin(&["key", "create", "--tenant", "acme", "--expires", "0m"]);
    assert_eq!(refused.status.code(), Some(2), "a key that is dead at birth is wrong usage");
    let missing = server.try_admin(&["key", "create", "--tenant", "nobody"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nobody"));
}

#[test]
fn the_token_is_in_no_answer_and_no_log() {
    let server = Server::start();
    let key = server.tenant("acme");
    let secret = key.token.split('_').nth(4).expect("the secret part").to_owned();
    let login = Login { user: "acme".into(), token: key.token.clone(), ..server.login() };
    let mut wire = Wire::log_in(&login);
    for sql in [
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM pg_roles",
        "SELECT * FROM pg_database",
        "SELECT * FROM pg_settings",
        "SELECT current_user, session_user",
    ] {
        let answer = wire.query(sql);
        assert!(kinds(&answer).ends_with("C Z"), "{sql}: {}", only_error(&answer).describe());
        for message in &answer {
            assert!(!String::from_utf8_lossy(&message.body).contains(&secret), "{sql}");
        }
    }
    let listed = server.admin(&["key", "list", "--tenant", "acme"]).to_string();
    assert!(listed.contains(&key.id));
    assert!(!listed.contains(&secret));
    assert!(!server.log().contains(&secret));
}
