//! What a guest or a destination could try past the rules: secrets in pieces, large ones, many questions, the sessions
//! of others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use sepal_database::connector::{CertificateValue, Fault, FaultKind, SecretValue, Secrets};
use zeroize::Zeroizing;

use super::{
    TOKEN, quota,
    requests::{Setting, echo, get},
};
use crate::{
    call::{HeaderValue, HttpError, HttpRequest, Outside, SecretError},
    egress::{Egress, EgressOptions, Scrubber, scrub::ANCHOR_BYTES},
    sinks::Reach,
};

/// Letters that do not repeat themselves.
fn letters(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // The constants of Knuth's MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + u8::try_from((state >> 33) % 26).unwrap()
    };
    std::iter::repeat_with(&mut next).take(bytes).collect()
}

#[test]
fn a_long_secret_is_taken_out_whole_and_costs_little() {
    let scrubber = Scrubber::default();
    let values = [1, 2, 3].map(|seed| letters(seed, 64 << 10));
    values.iter().for_each(|value| scrubber.learn("key", value));
    assert!(scrubber.automaton_bytes() < 4 << 20, "{} bytes", scrubber.automaton_bytes());
    for value in &values {
        let text = std::str::from_utf8(value).unwrap();
        assert_eq!(scrubber.scrub(&format!("a {text} b")), "a <redacted> b");
        assert_eq!(scrubber.scrub(&format!("a {} b", text.to_uppercase())), "a <redacted> b");
        let encoded = BASE64_STANDARD.encode([b"user:".as_slice(), value].concat());
        assert!(scrubber.scrub(&encoded).len() < 40, "only the ends are left");
    }
}

#[test]
fn long_secrets_that_begin_alike_are_both_known() {
    let scrubber = Scrubber::default();
    let head = letters(1, ANCHOR_BYTES + 10);
    let [one, other] = [2, 3].map(|seed| [head.clone(), letters(seed, 500)].concat());
    scrubber.learn("one", &one);
    scrubber.learn("other", &other);
    for value in [one, other] {
        let text = format!("<{}>", String::from_utf8(value).unwrap());
        assert_eq!(scrubber.scrub(&text), "<<redacted>>");
    }
}

#[test]
fn a_cut_leaves_no_beginning_of_a_secret() {
    let scrubber = Scrubber::default();
    scrubber.learn("token", TOKEN.as_bytes());
    let long = letters(9, 1000);
    scrubber.learn("key", &long);
    // Those before it shrink: what is behind the cut must not come forward.
    let whole = [TOKEN.as_bytes(), b" ", TOKEN.as_bytes(), b" ", &long, b" end"].concat();
    for most in 0..whole.len() {
        let read = whole[..(most + ANCHOR_BYTES).min(whole.len())].to_vec();
        let clean = String::from_utf8(scrubber.scrub_start(read, most)).unwrap();
        assert!("<redacted> <redacted> <redacted> end".starts_with(&clean), "{most}: {clean}");
    }
}

#[tokio::test]
async fn a_response_cut_inside_of_a_secret_shows_none_of_it() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://{address}");
    let outside = Setting::new(std::slice::from_ref(&url)).outside();
    let asked = |most| HttpRequest {
        max_response_bytes: Some(most),
        ..get(&url, vec![("authorization", HeaderValue::Bearer("token".to_owned()))])
    };
    outside.http(asked(0)).await.unwrap();
    let start = seen.lock()[0].find(TOKEN).unwrap();
    for most in start..=start + TOKEN.len() {
        let response = outside.http(asked(u32::try_from(most).unwrap())).await.unwrap();
        let body = String::from_utf8(response.body).unwrap();
        assert!(response.truncated && body.len() <= most, "{most}: {body}");
        let shown = &body[start.min(body.len())..];
        assert!("<redacted>".starts_with(shown) || shown.starts_with("<redacted>"), "{most}: {shown}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_searched_is_withheld() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip",
        "HTTP/1.1 401 Unauthorized\r\nContent-Encoding: identity, br",
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-9/99",
    ] {
        let (address, _) = echo(head).await;
        let url = format!("http://{address}");
        let outside = Setting::new(std::slice::from_ref(&url)).outside();
        let plain = outside.http(get(&url, Vec::new())).await.unwrap();
        assert!(!plain.body.is_empty() && !plain.truncated, "no secret was sent: {head}");
        let bearer = || vec![("authorization", HeaderValue::Bearer("token".to_owned()))];
        // Also afterwards: the destination may have kept it.
        for headers in [bearer(), Vec::new()] {
            let response = outside.http(get(&url, headers)).await.unwrap();
            assert!(response.body.is_empty() && response.truncated, "{head}");
            assert_eq!(response.status, plain.status);
        }
    }
}

#[tokio::test]
async fn a_guest_asks_for_no_encoding_and_no_range() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://{address}");
    let outside = Setting::new(std::slice::from_ref(&url)).outside();
    for name in ["accept-encoding", "Range", "If-Range"] {
        let text = HeaderValue::Text("gzip".to_owned());
        let refused = outside.http(get(&url, vec![(name, text)])).await;
        assert!(matches!(refused, Err(HttpError::Denied(_))), "{name}: {refused:?}");
    }
    assert!(seen.lock().is_empty());
    outside.http(get(&url, Vec::new())).await.unwrap();
    assert!(seen.lock()[0].contains("accept-encoding: identity\r\n"));
}

/// Counts what it is asked.
#[derive(Debug, Default)]
struct Counting {
    reveals: Mutex<u32>,
}

#[async_trait]
impl Secrets for Counting {
    async fn secret(&self, name: &str, _: Option<u64>) -> Result<SecretValue, Fault> {
        match name {
            "api_token" => Ok(SecretValue {
                value: Arc::new(Zeroizing::new(TOKEN.as_bytes().to_vec())),
                version: "7".to_owned(),
                allowed_hosts: None,
            }),
            _ => Err(Fault::new(FaultKind::Misconfigured, "there is none")),
        }
    }

    async fn certificate(&self, _: &str) -> Result<CertificateValue, Fault> {
        Err(Fault::new(FaultKind::Misconfigured, "there is none"))
    }

    fn forget(&self, _: &str) {}

    fn note_reveal(&self, _: &str) {
        *self.reveals.lock() += 1;
    }
}

#[tokio::test]
async fn a_guests_loop_is_one_record_of_a_reveal() {
    let counting = Arc::new(Counting::default());
    let mut setting = Setting::new(&[]);
    setting.spec.secrets = Arc::clone(&counting) as Arc<dyn Secrets>;
    setting.spec.reveal = true;
    let outside = setting.outside();
    for _ in 0..1000 {
        assert_eq!(outside.reveal("token").await.unwrap(), TOKEN.as_bytes());
    }
    // A few more where the loop takes more than a second.
    assert!(*counting.reveals.lock() < 100, "{}", counting.reveals.lock());
}

#[tokio::test]
async fn lookups_and_signatures_have_a_rate() {
    let far = Duration::from_secs(10_000);
    let outside = Setting::new(&["https://example.com".to_owned()]).outside();
    outside.source.lookups.take_many(1_000_000, Instant::now(), far).unwrap();
    assert_eq!(outside.secret("token").await, Err(SecretError::Unavailable));
    let bearer = vec![("authorization", HeaderValue::Bearer("token".to_owned()))];
    let throttled = outside.http(get("https://example.com", bearer)).await;
    assert!(matches!(throttled, Err(HttpError::Throttled(_))), "{throttled:?}");

    let outside = Setting::new(&[]).outside();
    let large = vec![7; (1 << 20) + 3];
    let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(TOKEN.as_bytes()).unwrap();
    hmac::Mac::update(&mut mac, &large);
    let expected = hmac::Mac::finalize(mac).into_bytes().to_vec();
    assert_eq!(outside.hmac_sha256("token", b"", &large).await.unwrap(), expected);
    outside.source.hashed.take_many(1_000_000, Instant::now(), far).unwrap();
    assert_eq!(outside.hmac_sha256("token", b"", b"x").await, Err(SecretError::Unavailable));
}

#[test]
fn many_at_once_make_the_next_one_wait() {
    let rate = quota::Rate::per_second(10);
    let start = Instant::now();
    assert_eq!(rate.take_many(30, start, Duration::ZERO), Ok(Duration::ZERO));
    assert_eq!(rate.take(start, Duration::from_secs(1)), Err(Duration::from_millis(2100)));
    assert_eq!(rate.take(start + Duration::from_secs(3), Duration::ZERO), Ok(Duration::ZERO));
}

/// Of a client with this configuration.
fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
    let name = ServerName::try_from("db.example.test").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    client.handshake_kind().unwrap()
}

#[test]
fn a_sink_resumes_no_session_of_another() {
    let made = rcgen::generate_simple_self_signed(vec!["db.example.test".into()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let server = Arc::new(server);
    let options = EgressOptions { extra_roots: vec![certificate], ..EgressOptions::default() };
    let egress = Egress::new(options).unwrap();
    let one = egress.tls();
    assert_eq!(handshake(&one, &server), HandshakeKind::Full);
    assert_eq!(handshake(&one, &server), HandshakeKind::Resumed, "a sink's own session");
    assert_eq!(handshake(&egress.tls(), &server), HandshakeKind::Full);
}
