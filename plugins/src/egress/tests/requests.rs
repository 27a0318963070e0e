//! Requests against a server of our own: who is asked, what is on the wire, what comes back.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use parking_lot::Mutex;
use sepal_database::{
    TenantId,
    connector::{CertificateValue, Fault, FaultKind, SecretValue, Secrets},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use zeroize::Zeroizing;

use super::TOKEN;
use crate::{
    call::{
        HeaderPart, HeaderValue, HttpError, HttpRequest, Level, Outside, SECRET_WORD_PREFIX, SecretError,
    },
    egress::{Egress, EgressOptions, EgressSpec, HostRule, PluginOutside, Resolve, SlotGrant},
    manifest::{EffectiveLimits, SlotUse},
};

/// A secret per name, each for these hosts.
#[derive(Debug)]
struct FixedSecrets {
    allowed_hosts: Option<Vec<String>>,
    revealed: Mutex<Vec<String>>,
}

#[async_trait]
impl Secrets for FixedSecrets {
    async fn secret(&self, name: &str, _: Option<u64>) -> Result<SecretValue, Fault> {
        match name {
            "api_token" => Ok(SecretValue {
                value: Arc::new(Zeroizing::new(TOKEN.as_bytes().to_vec())),
                version: "7".to_owned(),
                allowed_hosts: self.allowed_hosts.clone(),
            }),
            "away" => Err(Fault::new(FaultKind::Transient, "the vault is away")),
            _ => Err(Fault::new(FaultKind::Misconfigured, "there is none")),
        }
    }

    async fn certificate(&self, _: &str) -> Result<CertificateValue, Fault> {
        Err(Fault::new(FaultKind::Misconfigured, "there is none"))
    }

    fn forget(&self, _: &str) {}

    fn note_reveal(&self, name: &str) {
        self.revealed.lock().push(name.to_owned());
    }
}

/// Answers in turn; the last one stays.
#[derive(Debug)]
struct Scripted {
    answers: HashMap<&'static str, Vec<Vec<&'static str>>>,
    asked: Mutex<usize>,
}

#[async_trait]
impl Resolve for Scripted {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut asked = self.asked.lock();
        *asked += 1;
        let answers = self.answers.get(host).ok_or(io::ErrorKind::NotFound)?;
        let answer = answers.get(*asked - 1).or(answers.last()).unwrap();
        Ok(answer.iter().map(|text| text.parse().unwrap()).collect())
    }
}

/// A server that answers each request with `head`, a blank line and the request's own head.
pub(super) async fn echo(head: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let requests = Arc::clone(&requests);
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                requests.lock().push(text.clone());
                let response = format!("{head}\r\nconnection: close\r\n\r\n{text}");
                let _ = socket.write_all(response.as_bytes()).await;
            });
        }
    });
    (address, seen)
}

/// A server that answers with the body that came.
async fn takes_bodies() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let bodies = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            let body = loop {
                if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break None;
                }
                let text = String::from_utf8_lossy(&request);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.is_some_and(|length| length.parse() == Ok(body.len())) {
                    break Some(body.to_owned());
                }
            };
            let Some(body) = body else { continue };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            bodies.lock().push(body);
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (address, seen)
}

/// A server that waits for nothing, as one that speaks another protocol may.
async fn speaks_first() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            // The other side hangs up when it likes.
            let _ = socket.write_all(b"220 ready for something else\r\n").await;
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    });
    address
}

fn limits() -> EffectiveLimits {
    EffectiveLimits {
        memory_bytes: 1 << 20,
        table_elements: 1,
        instances: 1,
        cpu_per_call_ms: 1000,
        wall_per_call_ms: 30_000,
        hostcall_bytes: 1 << 20,
        response_bytes: 1 << 20,
        requests_per_second: 100,
        concurrent_requests: 8,
        log_lines_per_second: 100,
        metric_series: 2,
        state_bytes: 0,
    }
}

/// For every use there is.
fn grant(secret: &str) -> SlotGrant {
    let uses = match secret {
        "away" => vec![SlotUse::HttpHeader],
        _ => vec![SlotUse::HttpHeader, SlotUse::HttpBody, SlotUse::Hmac, SlotUse::Reveal],
    };
    SlotGrant { secret: secret.to_owned(), version: None, uses }
}

pub(super) struct Setting {
    options: EgressOptions,
    pub(super) spec: EgressSpec,
    secrets: Arc<FixedSecrets>,
}

impl Setting {
    pub(super) fn new(allow: &[String]) -> Self {
        Self::with_hosts(allow, None)
    }

    fn with_hosts(allow: &[String], hosts: Option<&[&str]>) -> Self {
        let allowed_hosts = hosts.map(|hosts| hosts.iter().map(ToString::to_string).collect());
        let secrets = Arc::new(FixedSecrets { allowed_hosts, revealed: Mutex::default() });
        let slots = [("token", "api_token"), ("absent", "no_such"), ("away", "away")];
        let spec = EgressSpec {
            tenant: TenantId([7; 16]),
            name: "hook".to_owned(),
            pipeline: "p".to_owned(),
            slots: slots.map(|(slot, name)| (slot.to_owned(), grant(name))).into(),
            secrets: Arc::clone(&secrets) as Arc<dyn Secrets>,
            allow: allow.iter().map(|rule| HostRule::parse(rule).unwrap()).collect(),
            reveal: false,
            limits: limits(),
        };
        let private_networks = vec!["127.0.0.0/8".parse().unwrap()];
        Self { options: EgressOptions { private_networks, ..EgressOptions::default() }, spec, secrets }
    }

    fn resolving(mut self, host: &'static str, answers: &[&[&'static str]]) -> (Self, Arc<Scripted>) {
        let answers = HashMap::from([(host, answers.iter().map(|answer| answer.to_vec()).collect())]);
        let resolver = Arc::new(Scripted { answers, asked: Mutex::new(0) });
        self.options.resolver = Arc::clone(&resolver) as Arc<dyn Resolve>;
        (self, resolver)
    }

    pub(super) fn outside(self) -> Arc<PluginOutside> {
        Egress::new(self.options).unwrap().outside(self.spec)
    }
}

pub(super) fn get(url: impl Into<String>, headers: Vec<(&str, HeaderValue)>) -> HttpRequest {
    HttpRequest {
        method: "GET".to_owned(),
        url: url.into(),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        body: None,
        body_secrets: Vec::new(),
        timeout_ms: None,
        max_response_bytes: None,
    }
}

#[track_caller]
fn assert_denied<T: std::fmt::Debug>(result: Result<T, HttpError>, why: &str) {
    match result {
        Err(HttpError::Denied(message)) => assert!(message.contains(why), "{message}"),
        other => panic!("{other:?} is not a denial because of {why}"),
    }
}

#[tokio::test]
async fn a_private_address_needs_the_operators_word() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://{address}");
    let allowed = Setting::new(std::slice::from_ref(&url)).outside();
    assert_eq!(allowed.http(get(&url, Vec::new())).await.unwrap().status, 200);

    let mut strict = Setting::new(std::slice::from_ref(&url));
    strict.options.private_networks.clear();
    assert_denied(strict.outside().http(get(&url, Vec::new())).await, "not a public address");

    let other = Setting::new(&["https://example.com".to_owned()]).outside();
    assert_denied(other.http(get(&url, Vec::new())).await, "ALLOW HOSTS");
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_returned() {
    let (address, seen) = echo("HTTP/1.1 302 Found\r\nlocation: /elsewhere").await;
    let url = format!("http://{address}");
    let response =
        Setting::new(std::slice::from_ref(&url)).outside().http(get(&url, Vec::new())).await.unwrap();
    assert_eq!(response.status, 302);
    assert!(response.headers.contains(&("location".to_owned(), "/elsewhere".to_owned())));
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn every_address_of_a_name_is_judged() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://hooks.example.test:{}", address.port());
    let answers: [&[&str]; 3] =
        [&["127.0.0.1", "10.0.0.1"], &["1.1.1.1", "::ffff:169.254.169.254"], &["::1"]];
    for answer in answers {
        let (setting, _) =
            Setting::new(std::slice::from_ref(&url)).resolving("hooks.example.test", &[answer]);
        assert_denied(setting.outside().http(get(&url, Vec::new())).await, "not public");
    }
    let (setting, _) = Setting::new(std::slice::from_ref(&url)).resolving("another.test", &[&["127.0.0.1"]]);
    assert_eq!(setting.outside().http(get(&url, Vec::new())).await, Err(HttpError::Dns));
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_judged_again() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://hooks.example.test:{}", address.port());
    let answers: [&[&str]; 2] = [&["127.0.0.1"], &["10.0.0.1"]];
    let (setting, resolver) =
        Setting::new(std::slice::from_ref(&url)).resolving("hooks.example.test", &answers);
    let outside = setting.outside();
    assert_eq!(outside.http(get(&url, Vec::new())).await.unwrap().status, 200);
    // The connection went to the address that was judged: nobody asked a second time.
    assert_eq!(*resolver.asked.lock(), 1);
    assert_denied(outside.http(get(&url, Vec::new())).await, "not public");
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn secrets_are_on_the_wire_and_nowhere_else() {
    let (address, seen) = echo("HTTP/1.1 200 OK\r\nx-echo: s3cr3t-t0ken/+").await;
    let url = format!("http://{address}");
    let outside = Setting::with_hosts(std::slice::from_ref(&url), Some(&["127.0.0.1"])).outside();
    let slot = || "token".to_owned();
    let parts = vec![HeaderPart::Text("v1 ".to_owned()), HeaderPart::Secret(slot())];
    let headers = vec![
        ("authorization", HeaderValue::Bearer(slot())),
        ("x-plain", HeaderValue::Secret(slot())),
        ("x-basic", HeaderValue::Basic("me".to_owned(), slot())),
        ("x-parts", HeaderValue::Parts(parts)),
    ];
    let response = outside.http(get(&url, headers)).await.unwrap();
    let wire = seen.lock().remove(0);
    let basic = BASE64_STANDARD.encode(format!("me:{TOKEN}"));
    for line in [
        format!("authorization: Bearer {TOKEN}\r\n"),
        format!("x-plain: {TOKEN}\r\n"),
        format!("x-basic: Basic {basic}\r\n"),
        format!("x-parts: v1 {TOKEN}\r\n"),
    ] {
        assert!(wire.contains(&line), "{line:?} in {wire}");
    }
    // The server echoed all of it; the guest sees none.
    let body = String::from_utf8(response.body).unwrap();
    assert!(body.contains("authorization: Bearer <redacted>") && !body.contains(TOKEN), "{body}");
    assert!(!body.contains(&basic[4..]), "{body}");
    assert!(response.headers.contains(&("x-echo".to_owned(), "<redacted>".to_owned())));
    assert_eq!(outside.scrubber().scrub(&format!("failed: {TOKEN}")), "failed: <redacted>");
}

fn with_body(url: &str, text: &str, secrets: &[(&str, &str)]) -> HttpRequest {
    let words = secrets.iter().map(|(word, slot)| ((*word).to_owned(), (*slot).to_owned())).collect();
    let json = HeaderValue::Text("application/json".to_owned());
    HttpRequest {
        method: "POST".to_owned(),
        body: Some(text.as_bytes().to_vec()),
        body_secrets: words,
        ..get(url, vec![("content-type", json)])
    }
}

#[tokio::test]
async fn a_body_holds_secrets_of_slots_that_say_so() {
    let (address, bodies) = takes_bodies().await;
    let url = format!("http://{address}");
    let outside = Setting::with_hosts(std::slice::from_ref(&url), Some(&["127.0.0.1"])).outside();
    let word = format!("{SECRET_WORD_PREFIX}{}", "ab".repeat(16));
    let text = format!(r#"{{"role_id":"r","secret_id":"{word}"}}"#);
    let response = outside.http(with_body(&url, &text, &[(word.as_str(), "token")])).await.unwrap();
    assert_eq!(bodies.lock().remove(0), format!(r#"{{"role_id":"r","secret_id":"{TOKEN}"}}"#));
    // What the server says of it does not reach the guest.
    let echoed = String::from_utf8(response.body).unwrap();
    assert_eq!(echoed, r#"{"role_id":"r","secret_id":"<redacted>"}"#);

    let refused = outside.http(with_body(&url, &text, &[(word.as_str(), "away")])).await;
    assert_denied(refused, "no \"http-body\"");
    let refused = outside.http(with_body(&url, &text, &[("role", "token")])).await;
    assert_denied(refused, "not those of a plugin");
    let elsewhere = Setting::with_hosts(std::slice::from_ref(&url), Some(&["*.example.com"])).outside();
    let refused = elsewhere.http(with_body(&url, &text, &[(word.as_str(), "token")])).await;
    assert_denied(refused, "may not go to 127.0.0.1");
    assert!(bodies.lock().is_empty());
}

#[tokio::test]
async fn many_parts_are_no_way_to_much_memory() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://{address}");
    let outside = Setting::new(std::slice::from_ref(&url)).outside();
    let parts = vec![HeaderPart::Secret("token".to_owned()); 100_000];
    let refused = outside.http(get(&url, vec![("x-many", HeaderValue::Parts(parts))])).await;
    assert_denied(refused, "more than 64 parts");
    let user = "u".repeat(100_000);
    let basic = HeaderValue::Basic(user, "token".to_owned());
    assert_denied(outside.http(get(&url, vec![("x-long", basic)])).await, "more than 65536 bytes");
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn why_a_secret_was_missing_is_told_once() {
    let outside = Setting::new(&[]).outside();
    assert_eq!(outside.secret("absent").await, Err(SecretError::Unavailable));
    assert_eq!(outside.take_trouble().unwrap().message, "there is none");
    assert!(outside.take_trouble().is_none());
}

#[tokio::test]
async fn a_secret_goes_only_where_it_may() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://{address}");
    let with_token = || get(&url, vec![("authorization", HeaderValue::Bearer("token".to_owned()))]);
    let elsewhere = Setting::with_hosts(std::slice::from_ref(&url), Some(&["*.example.com"])).outside();
    assert_denied(elsewhere.http(with_token()).await, "may not go to 127.0.0.1");
    let nowhere = Setting::with_hosts(std::slice::from_ref(&url), Some(&[])).outside();
    assert_denied(nowhere.http(with_token()).await, "may not go to");
    let outside = Setting::new(std::slice::from_ref(&url)).outside();
    let of = |slot: &str| get(&url, vec![("authorization", HeaderValue::Secret(slot.to_owned()))]);
    assert_denied(outside.http(of("no-such-slot")).await, "no secret in a slot");
    assert_denied(outside.http(of("absent")).await, "not to be had");
    assert_eq!(outside.http(of("away")).await, Err(HttpError::Throttled(1000)));
    assert!(seen.lock().is_empty());
    assert_eq!(outside.secret("token").await.as_deref(), Ok("7"));
    assert_eq!(outside.secret("nothing").await, Err(SecretError::NoSuchSlot));
    assert_eq!(outside.secret("away").await, Err(SecretError::Unavailable));
}

#[tokio::test]
async fn plaintext_needs_the_administrators_word() {
    assert_eq!(Setting::new(&[]).outside().reveal("token").await, Err(SecretError::Unavailable));
    let mut setting = Setting::new(&[]);
    setting.spec.reveal = true;
    let secrets = Arc::clone(&setting.secrets);
    assert_eq!(setting.outside().reveal("token").await.unwrap(), TOKEN.as_bytes());
    assert_eq!(*secrets.revealed.lock(), ["api_token"]);
}

#[tokio::test]
async fn a_slot_is_for_what_its_manifest_says() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://{address}");
    let only = |wanted: SlotUse| {
        let mut setting = Setting::new(std::slice::from_ref(&url));
        setting.spec.reveal = true;
        setting.spec.slots.get_mut("token").unwrap().uses = vec![wanted];
        setting.outside()
    };
    let (header, hmac, reveal) = (only(SlotUse::HttpHeader), only(SlotUse::Hmac), only(SlotUse::Reveal));
    let part = || HeaderValue::Parts(vec![HeaderPart::Secret("token".to_owned())]);
    for outside in [&hmac, &reveal] {
        for value in [HeaderValue::Bearer("token".to_owned()), part()] {
            assert_denied(outside.http(get(&url, vec![("authorization", value)])).await, "not for headers");
        }
    }
    assert!(seen.lock().is_empty());
    assert_eq!(header.http(get(&url, vec![("authorization", part())])).await.unwrap().status, 200);
    for outside in [&header, &reveal] {
        assert_eq!(outside.hmac_sha256("token", b"", b"data").await, Err(SecretError::NoSuchSlot));
    }
    assert_eq!(hmac.hmac_sha256("token", b"", b"data").await.unwrap().len(), 32);
    for outside in [&header, &hmac] {
        assert_eq!(outside.reveal("token").await, Err(SecretError::NoSuchSlot));
    }
    assert_eq!(reveal.reveal("token").await.unwrap(), TOKEN.as_bytes());
}

#[tokio::test]
async fn a_secret_for_certain_hosts_stays_with_the_host() {
    let mut setting = Setting::with_hosts(&[], Some(&["*.example.com"]));
    setting.spec.reveal = true;
    let secrets = Arc::clone(&setting.secrets);
    assert_eq!(setting.outside().reveal("token").await, Err(SecretError::Unavailable));
    assert!(secrets.revealed.lock().is_empty());
}

#[tokio::test]
async fn a_signature_is_under_prefix_and_secret() {
    let outside = Setting::new(&[]).outside();
    let joined = format!("AWS4{TOKEN}");
    let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(joined.as_bytes()).unwrap();
    hmac::Mac::update(&mut mac, b"20261122");
    let expected = hmac::Mac::finalize(mac).into_bytes().to_vec();
    assert_eq!(outside.hmac_sha256("token", b"AWS4", b"20261122").await.unwrap(), expected);
}

#[tokio::test]
async fn what_is_no_request_is_not_sent() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://{address}");
    let outside = Setting::new(std::slice::from_ref(&url)).outside();
    let text = |text: &str| HeaderValue::Text(text.to_owned());
    for (name, value) in [
        ("host", "other"),
        ("Content-Length", "3"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
        ("x y", "a"),
        ("x\r\ny", "a"),
        ("x", "a\r\nhost: other"),
        ("x", "a\0"),
        ("", "a"),
    ] {
        assert_denied(outside.http(get(&url, vec![(name, text(value))])).await, "");
    }
    for method in ["CONNECT", "TRACE", "GET /x HTTP/1.1\r\n", ""] {
        let request = HttpRequest { method: method.to_owned(), ..get(&url, Vec::new()) };
        assert_denied(outside.http(request).await, "method");
    }
    for url in ["", "/path", "file:///etc/passwd", "ftp://127.0.0.1/", "http://a:b@127.0.0.1/", "http://"] {
        assert_denied(outside.http(get(url, Vec::new())).await, "URL");
    }
    let large = HttpRequest { body: Some(vec![0; (1 << 20) + 1]), ..get(&url, Vec::new()) };
    assert_denied(outside.http(large).await, "body");
    let basic = HeaderValue::Basic("a:b".to_owned(), "token".to_owned());
    assert_denied(outside.http(get(&url, vec![("authorization", basic)])).await, "colon");
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn a_response_ends_where_it_must() {
    let (address, _) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://{address}");
    let outside = Setting::new(std::slice::from_ref(&url)).outside();
    let request = HttpRequest { max_response_bytes: Some(5), ..get(&url, Vec::new()) };
    let response = outside.http(request).await.unwrap();
    assert_eq!((response.body.as_slice(), response.truncated), (b"GET /".as_slice(), true));
}

#[tokio::test]
async fn nobody_listening_and_no_words_of_http() {
    let (address, _) = echo("HTTP/9").await;
    let early = speaks_first().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let urls = [format!("http://{address}"), format!("http://{closed}"), format!("https://{early}")];
    let outside = Setting::new(&urls).outside();
    let [garbage, nobody, plain] = urls.map(|url| get(url, Vec::new()));
    assert!(matches!(outside.http(garbage).await, Err(HttpError::Protocol(_))));
    assert_eq!(outside.http(nobody).await, Err(HttpError::Connect));
    assert!(matches!(outside.http(plain).await, Err(HttpError::Tls(_))));
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_again() {
    let (address, seen) = echo("HTTP/1.1 200 OK").await;
    let url = format!("http://{address}");
    let mut setting = Setting::new(std::slice::from_ref(&url));
    setting.spec.limits.requests_per_second = 0;
    let outside = setting.outside();
    assert_eq!(outside.http(get(&url, Vec::new())).await, Err(HttpError::Throttled(1000)));
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn metrics_are_kept_when_a_sink_is_opened_again() {
    let (address, _) = echo("HTTP/1.1 404 Not Found").await;
    let url = format!("http://{address}");
    let setting = Setting::new(std::slice::from_ref(&url));
    let (tenant, spec) = (setting.spec.tenant, setting.spec);
    let egress = Egress::new(setting.options).unwrap();
    for _ in 0..2 {
        let outside = egress.outside(spec.clone());
        outside.counter_add("rows", 2);
        outside.gauge_set("depth", 1.5);
        outside.gauge_set("nan", f64::NAN);
        outside.counter_add("a third", 1);
        outside.counter_add("third", 1);
        outside.log(Level::Info, "hello", &[]);
        assert_eq!(outside.http(get(&url, Vec::new())).await.unwrap().status, 404);
    }
    let samples = egress.metrics();
    let values: BTreeMap<&str, f64> = samples.iter().map(|sample| (&*sample.name, sample.value)).collect();
    let expected = [("plugin_depth", 1.5), ("plugin_rows", 4.0), ("sepal_plugin_http_requests_total", 2.0)];
    assert_eq!(values, BTreeMap::from(expected));
    assert!(samples.iter().all(|sample| sample.labels.contains(&("tenant", tenant.to_string()))));
    egress.forget_tenant(tenant);
    assert!(egress.metrics().is_empty());
}
