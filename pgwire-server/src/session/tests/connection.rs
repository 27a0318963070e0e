//! Startup, TLS, login, limits, and the ways a connection is ended from outside.

use std::{sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt, time::Instant};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::*;
use crate::frame::{CANCEL_REQUEST, GSSENC_REQUEST, SSL_REQUEST};

fn request(code: u32) -> Vec<u8> {
    [8u32.to_be_bytes(), code.to_be_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn w02_a_malformed_frame_ends_its_connection_and_no_other() {
    let served = Served::start().await;
    let mut other = served.client().await;
    let seeds: [&[u8]; 5] =
        [b"B\0\0\0\x08\0\0\0\x05", b"D\0\0\0\x04", b"E\0\0\0\x05\0", b"Q\0\0\0\x03", b"Q\0\0\0\x06ab"];
    for seed in seeds {
        let mut client = served.client().await;
        client.raw(seed).await;
        let messages = client.until_closed_or_ready().await;
        assert_eq!(first_error(&messages), fatal("08P01"), "{seed:?}");
        assert_eq!(kinds(&messages), "E", "{seed:?}: closed after the error");
    }
    assert_eq!(other.run("select 1").await[1].row(), [Some("1".into())]);
    assert_eq!((served.metrics.protocol_violations.get(), served.metrics.panics.get()), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn w05_nothing_large_is_read_before_authentication() {
    let served = Served::start().await;
    let mut client = served.connect().await;
    client.raw(&10_001u32.to_be_bytes()).await;
    assert_eq!(first_error(&client.until_closed_or_ready().await), fatal("08P01"));
    let mut client = served.connect().await;
    client.startup(&[("user", TENANT)]).await;
    client.next().await;
    client.raw(&[&b"p"[..], &0x3fff_ffffu32.to_be_bytes()].concat()).await;
    assert_eq!(first_error(&client.until_closed_or_ready().await), fatal("08P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn w05_a_large_message_waits_for_the_tenants_budget() {
    let served = Served::start_with(|options| {
        options.limits.max_message_bytes = 4 << 20;
        options.limits.tenant_message_bytes = 4 << 20;
    })
    .await;
    let mut greedy = served.client().await;
    let mut patient = served.client().await;
    // Announced, granted, never sent in full: the other connection's large message has to wait.
    let length = 4u32 << 20;
    greedy.raw(&[&b"Q"[..], &length.to_be_bytes(), b"select"].concat()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sql = format!("select 1 --{}", "x".repeat(2 << 20));
    patient.send(b'Q', format!("{sql}\0").as_bytes()).await;
    let mut byte = [0];
    let waits = timeout(Duration::from_millis(300), patient.socket.peek(&mut byte)).await;
    assert!(waits.is_err(), "the budget was not waited for");
    drop(greedy);
    assert_eq!(kinds(&patient.until_ready().await), "TDCZ");
    let mut client = served.client().await;
    client.raw(&[&b"Q"[..], &(length + 1).to_be_bytes()].concat()).await;
    assert_eq!(first_error(&client.until_closed_or_ready().await), fatal("08P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn w06_nothing_sent_before_the_handshake_counts() {
    let served = Served::start().await;
    let mut client = served.connect().await;
    let mut bytes = request(SSL_REQUEST);
    bytes.extend(frame(b'Q', b"drop table users\0"));
    client.raw(&bytes).await;
    let mut answer = Vec::new();
    client.socket.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&b'E'), "refused, and not with 'S'");
    // Without the extra bytes the same request is granted.
    let mut client = served.connect().await;
    client.raw(&request(SSL_REQUEST)).await;
    assert_eq!(client.socket.read_u8().await.unwrap(), b'S');
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_requests_are_answered_as_postgres_does() {
    let served = Served::start().await;
    let mut client = served.connect().await;
    client.raw(&request(GSSENC_REQUEST)).await;
    assert_eq!(client.socket.read_u8().await.unwrap(), b'N');
    client.raw(&request(GSSENC_REQUEST)).await;
    assert_eq!(first_error(&client.until_closed_or_ready().await), fatal("08P01"));

    let served = Served::start_with(|options| options.tls = None).await;
    let mut client = served.connect().await;
    client.raw(&request(SSL_REQUEST)).await;
    assert_eq!(client.socket.read_u8().await.unwrap(), b'N');
    client.startup(&[("user", TENANT)]).await;
    assert_eq!(client.next().await.kind, b'R', "plaintext from loopback was allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_is_refused_with_a_hint() {
    let served = Served::start_with(|options| options.insecure_plaintext = false).await;
    let mut client = served.connect().await;
    client.startup(&[("user", TENANT)]).await;
    let refusal = client.next().await;
    assert_eq!(refusal.error(), fatal("28000"));
    assert!(refusal.field(b'H').unwrap().contains("sslmode=require"));
}

#[tokio::test(flavor = "multi_thread")]
async fn w07_a_silent_client_is_dropped() {
    let served =
        Served::start_with(|options| options.limits.startup_timeout = Duration::from_millis(200)).await;
    let begun = Instant::now();
    let mut silent = served.connect().await;
    assert!(silent.until_closed_or_ready().await.is_empty());
    let mut half = served.connect().await;
    half.startup(&[("user", TENANT)]).await;
    let messages = half.until_closed_or_ready().await;
    assert_eq!(first_error(&messages), fatal("57014"));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

fn rustls_connector(served: &Served, alpn: bool) -> MakeRustlsConnect {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(served.certificate.clone().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    if alpn {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    MakeRustlsConnect::new(config)
}

async fn driver_login(
    served: &Served,
    user: &str,
    extra: &str,
    alpn: bool,
) -> Result<String, tokio_postgres::Error> {
    let config = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user={user} password={} {extra}",
        served.address.port(),
        served.token
    );
    let (client, connection) = tokio_postgres::connect(&config, rustls_connector(served, alpn)).await?;
    let driver = tokio::spawn(connection);
    let answer = client.query_one("select $1::text", &[&"ok"]).await?.get(0);
    drop(client);
    driver.await.unwrap()?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_plus_and_tokens_work_over_tls() {
    let served = Served::start().await;
    let key_id = served.key_id.clone();
    assert_eq!(driver_login(&served, &key_id, "sslmode=require", false).await.unwrap(), "ok");
    assert_eq!(driver_login(&served, TENANT, "sslmode=require", true).await.unwrap(), "ok");
    let bound = "sslmode=require channel_binding=require";
    assert_eq!(driver_login(&served, &key_id, bound, false).await.unwrap(), "ok");
    assert!(driver_login(&served, TENANT, bound, false).await.is_err(), "a token cannot be bound");
    let direct = "sslmode=require sslnegotiation=direct";
    assert_eq!(driver_login(&served, TENANT, direct, true).await.unwrap(), "ok");
    assert!(driver_login(&served, TENANT, direct, false).await.is_err(), "direct TLS needs ALPN");
}

#[tokio::test(flavor = "multi_thread")]
async fn w19_channel_binding_is_offered_on_tls_only() {
    let served = Served::start().await;
    let mut client = served.connect().await;
    client.startup(&[("user", "AAAAbbbb1234")]).await;
    let offer = client.next().await;
    assert_eq!(offer, message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn w20_every_failed_login_has_the_same_answer() {
    let served = Served::start().await;
    let wrong = {
        let mut token = served.token.clone();
        token.replace_range(token.len() - 10..token.len() - 9, "_");
        token
    };
    let cases = [(TENANT, ""), (TENANT, "x"), (TENANT, &wrong), ("nobody", &served.token), ("nobody", "x")];
    for (user, password) in cases {
        let messages = served.attempt(&[("user", user)], password).await;
        assert_eq!(first_error(&messages), fatal("28P01"));
        let text = messages[0].field(b'M').unwrap();
        assert_eq!(text, format!("password authentication failed for user \"{user}\""));
        assert_eq!(messages[0].field(b'D'), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_does_not_tell_whether_a_key_exists() {
    let served = Served::start().await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut client = served.connect().await;
        client.startup(&[("user", "AAAAbbbb1234")]).await;
        client.next().await;
        let first = b"n,,n=,r=abcdefgh";
        let length = u32::try_from(first.len()).unwrap();
        client.send(b'p', &[b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], first].concat()).await;
        let challenge = client.next().await;
        let text = String::from_utf8(challenge.body[4..].to_vec()).unwrap();
        let (_, salt_and_rounds) = text.split_once(",s=").unwrap();
        answers.push(salt_and_rounds.to_owned());
        let nonce = text.split(',').next().unwrap();
        let proof = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        client.send(b'p', format!("c=biws,{nonce},p={proof}").as_bytes()).await;
        assert_eq!(first_error(&client.until_closed_or_ready().await), fatal("28P01"));
    }
    assert_eq!(answers[0], answers[1], "an unknown key has a salt of its own, always the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_forbidden_environments_look_alike() {
    let served = Served::start().await;
    let missing = served.attempt(&[("user", TENANT), ("database", "nowhere")], &served.token).await;
    assert_eq!(first_error(&missing), fatal("3D000"));
    assert_eq!(missing[0].field(b'M').unwrap(), "database \"nowhere\" does not exist");

    let tenant = served.database.control().tenant_by_name(TENANT).unwrap().unwrap();
    let staging = EnvironmentName::parse("staging").unwrap();
    served.database.control().create_environment(tenant.id, &staging).unwrap();
    let (_, limited) = new_key(&served.database, Some("staging"));
    let forbidden = served.attempt(&[("user", TENANT), ("database", "default")], &limited).await;
    assert_eq!(first_error(&forbidden), fatal("3D000"));
    assert_eq!(forbidden[0].field(b'M').unwrap(), "database \"default\" does not exist");
    for database in ["staging", TENANT] {
        let entered = served.attempt(&[("user", TENANT), ("database", database)], &limited).await;
        assert_eq!(entered.last().unwrap().kind, b'Z', "{database}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w21_w22_startup_parameters_become_settings() {
    let served = Served::start().await;
    let parameters = [
        ("user", TENANT),
        ("options", "-c statement_timeout=4321 --application-name=tests"),
        ("client_encoding", "utf-8"),
    ];
    let mut client = served.connect().await;
    client.startup(&parameters).await;
    client.next().await;
    client.send(b'p', format!("{}\0", served.token).as_bytes()).await;
    let greeting = client.until_ready().await;
    let status = |name: &str| {
        let prefix = format!("{name}\0");
        let found = greeting.iter().find(|one| one.kind == b'S' && one.body.starts_with(prefix.as_bytes()));
        found.map(|one| String::from_utf8(one.body[prefix.len()..one.body.len() - 1].to_vec()).unwrap())
    };
    assert_eq!(status("server_version").as_deref(), Some("17.2"));
    assert_eq!(status("client_encoding").as_deref(), Some("UTF8"));
    assert_eq!(status("integer_datetimes").as_deref(), Some("on"));
    assert_eq!(status("standard_conforming_strings").as_deref(), Some("on"));
    assert_eq!(status("application_name").as_deref(), Some("tests"));
    assert_eq!(kinds(&greeting[greeting.len() - 2..]), "KZ");
    assert_eq!(client.run("show statement_timeout").await[1].row(), [Some("4321ms".into())]);
    let refused = served.attempt(&[("user", TENANT), ("client_encoding", "LATIN1")], "").await;
    assert_eq!(first_error(&refused), fatal("22023"));
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_protocols_are_negotiated_down() {
    let served = Served::start().await;
    let mut client = served.connect().await;
    client.startup_version(3 << 16 | 2, &[("user", TENANT), ("_pq_.future", "1")]).await;
    assert_eq!(client.next().await, message(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.future\0"));
    assert_eq!(client.next().await.kind, b'R');
    let mut client = served.connect().await;
    client.startup_version(2 << 16, &[]).await;
    assert_eq!(first_error(&client.until_closed_or_ready().await), fatal("0A000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_in_total_and_per_tenant() {
    let served = Served::start_with(|options| options.limits.max_connections_per_tenant = 1).await;
    let first = served.client().await;
    let refused = served.attempt(&[("user", TENANT)], &served.token).await;
    assert_eq!(first_error(&refused), fatal("53300"));
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    served.client().await;

    let served = Served::start_with(|options| options.limits.max_connections = 1).await;
    let _first = served.client().await;
    let refused = served.attempt(&[("user", TENANT)], &served.token).await;
    assert_eq!(first_error(&refused), fatal("53300"));
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_sockets_do_not_lock_anybody_out() {
    let served = Served::start_with(|options| {
        options.limits.max_connections = 2;
        options.limits.max_logins = 4;
    })
    .await;
    let mut first = served.client().await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(served.connect().await);
    }
    // Within the grace of each that came before, and nobody's place is taken from those that have logged in.
    let begun = Instant::now();
    let mut second = served.client().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(second.run("select 2").await[1].row(), [Some("2".into())]);
    assert_eq!(first.run("select 1").await[1].row(), [Some("1".into())]);
    assert!(silent[0].until_closed_or_ready().await.is_empty(), "the oldest had to go");
    assert!(served.metrics.connections_refused.with_label_values(&["evicted"]).get() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_at_once_wait_for_each_other() {
    let served = Served::start_with(|options| options.limits.max_logins = 4).await;
    // Opens the tenant, which takes its time.
    let _first = served.client().await;
    let clients = futures::future::join_all((0..40).map(|_| served.client())).await;
    assert_eq!(clients.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn w24_a_revoked_key_ends_idle_sessions_within_a_second() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.run("select 1").await;
    let begun = Instant::now();
    served.database.control().revoke_key(&served.key_id).unwrap();
    let messages = client.until_closed_or_ready().await;
    assert_eq!(first_error(&messages), fatal("57P01"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn w24_a_drain_tells_idle_sessions_and_returns() {
    let served = Served::start().await;
    let mut client = served.client().await;
    served.shutdown.cancel();
    assert_eq!(first_error(&client.until_closed_or_ready().await), fatal("57P01"));
    timeout(Duration::from_secs(5), served.task).await.unwrap().unwrap().unwrap();
}

/// Process id and secret out of the greeting.
async fn cancel_key(client: &mut Client, served: &Served) -> Vec<u8> {
    client.startup(&[("user", TENANT)]).await;
    client.next().await;
    client.send(b'p', format!("{}\0", served.token).as_bytes()).await;
    let greeting = client.until_ready().await;
    greeting.into_iter().find(|message| message.kind == b'K').unwrap().body
}

async fn cancel(served: &Served, key: &[u8]) {
    let mut other = served.connect().await;
    other.raw(&[&16u32.to_be_bytes(), &CANCEL_REQUEST.to_be_bytes(), key].concat()).await;
    assert!(other.until_closed_or_ready().await.is_empty(), "a cancel request is never answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn w09_a_cancel_request_ends_a_statement_that_sends_rows() {
    let served = Served::start().await;
    let mut client = served.connect().await;
    let key = cancel_key(&mut client, &served).await;
    client.send(b'Q', b"select * from generate_series(1, 1000000000)\0").await;
    assert_eq!(client.next().await.kind, b'T');
    assert_eq!(client.next().await.kind, b'D');
    let mut wrong = key.clone();
    wrong[7] ^= 1;
    cancel(&served, &wrong).await;
    assert_eq!(served.metrics.cancels.get(), 0);
    cancel(&served, &key).await;
    let last = loop {
        let message = client.next().await;
        if message.kind != b'D' {
            break message;
        }
    };
    assert_eq!(last.error(), error("57014"));
    assert_eq!(kinds(&client.until_ready().await), "Z");
    assert_eq!(client.run("select 1").await[1].row(), [Some("1".into())], "the next statement runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_place() {
    let served = Served::start_with(|options| options.limits.max_connections_per_tenant = 1).await;
    let mut client = served.client().await;
    client.send(b'Q', b"select count(*) from generate_series(1, 100000000000)\0").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(500)).await;
    served.client().await;
}
