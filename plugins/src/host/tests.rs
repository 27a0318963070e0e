//! Guests that come with Sepal, run in this process against an outside that is written down here.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use sepal_database::{
    TenantId,
    connector::{BatchSchema, Delivered, Encoding, Envelope, FaultKind},
};
use serde_json::json;
use tokio::sync::OnceCell;

use super::*;
use crate::{
    call::{
        GuestBatch, HeaderValue, HttpError, HttpRequest, HttpResponse, Level, OpenArgs, ResolverAnswer,
        ResolverRequest, SecretError, SinkCall,
    },
    compile::Compiler,
    package::Package,
};

const TENANT: TenantId = TenantId([7; 16]);

/// Answers with the responses it was given, the last one for ever.
#[derive(Debug, Default)]
struct Scripted {
    answers: Mutex<Vec<Result<HttpResponse, HttpError>>>,
    sent: Mutex<Vec<HttpRequest>>,
    secrets_out_of_reach: bool,
    logged: AtomicU32,
}

impl Scripted {
    fn new(answers: Vec<Result<HttpResponse, HttpError>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers), ..Self::default() })
    }

    fn status(status: u16) -> Arc<Self> {
        Self::new(vec![Ok(response(status, &[], b""))])
    }
}

fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> HttpResponse {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HttpResponse { status, headers, body: body.to_vec(), truncated: false }
}

#[async_trait]
impl Outside for Scripted {
    async fn http(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.sent.lock().push(request);
        let mut answers = self.answers.lock();
        if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
    }

    async fn secret(&self, slot: &str) -> Result<String, SecretError> {
        match slot {
            _ if self.secrets_out_of_reach => Err(SecretError::Unavailable),
            "token" | "signing_key" => Ok("1".to_owned()),
            _ => Err(SecretError::NoSuchSlot),
        }
    }

    async fn hmac_sha256(&self, _slot: &str, prefix: &[u8], data: &[u8]) -> Result<Vec<u8>, SecretError> {
        Ok([prefix, data, b"signed"].concat())
    }

    async fn reveal(&self, _slot: &str) -> Result<Vec<u8>, SecretError> {
        Err(SecretError::Unavailable)
    }

    fn log(&self, _level: Level, _message: &str, _fields: &[(String, String)]) {
        self.logged.fetch_add(1, Ordering::Relaxed);
    }

    fn counter_add(&self, _name: &str, _value: u32) {}

    fn gauge_set(&self, _name: &str, _value: f64) {}
}

/// Compiled once for all tests here: it takes longer than they do.
async fn code(name: &str) -> Code {
    static WEBHOOK: OnceCell<Code> = OnceCell::const_new();
    static VAULT: OnceCell<Code> = OnceCell::const_new();
    let cell = if name == "webhook" { &WEBHOOK } else { &VAULT };
    let compiled = cell.get_or_init(|| async {
        let component = crate::bundled::component(name).expect("it is bundled");
        let package = Package::read(component).unwrap();
        let compiler = Arc::new(Compiler::in_this_process().unwrap());
        compiler.code(package.hash, package.world, component.into()).await.unwrap()
    });
    compiled.await.clone()
}

fn host() -> LocalHost {
    LocalHost::new(HostOptions { guests: 4, threads: 2, pooled: true }).unwrap()
}

fn sink_call(config: serde_json::Value) -> SinkCall {
    SinkCall {
        open: OpenArgs {
            config_json: config.to_string(),
            encoding: Encoding::Ndjson,
            envelope: Envelope::Append,
            sink_id: "sink-1".to_owned(),
            worker: 0,
            parallelism: 1,
            attributes: Vec::new(),
        },
        schema: Some(BatchSchema { id: "s1".to_owned(), payload: b"{}".to_vec(), key_columns: Vec::new() }),
        state: BTreeMap::new(),
    }
}

fn batch(payload: &[u8]) -> GuestBatch {
    GuestBatch {
        id: "batch-1".to_owned(),
        schema_id: "s1".to_owned(),
        first: "1.0".to_owned(),
        last: "1.1".to_owned(),
        rows: 2,
        attempt: 1,
        snapshot: false,
        attributes: Vec::new(),
        payload: payload.to_vec(),
    }
}

fn call(operation: Operation) -> Call {
    Call { limits: EffectiveLimits::UNASKED, session: None, continues: false, operation }
}

const ROWS: &[u8] = b"{\"op\":\"c\",\"after\":{\"id\":1}}\n{\"op\":\"c\",\"after\":{\"id\":2}}\n";

async fn write(
    host: &LocalHost,
    outside: &Arc<Scripted>,
    config: serde_json::Value,
) -> Result<Reply, CallError> {
    let operation = Operation::Write(sink_call(config), batch(ROWS));
    host.call(TENANT, &code("webhook").await, call(operation), Arc::clone(outside) as _).await
}

#[tokio::test]
async fn a_batch_is_posted_as_it_is() {
    let outside = Scripted::status(204);
    let config = json!({ "url": "https://hooks.example.com/in", "token": { "$secret": "token" } });
    let reply = write(&host(), &outside, config).await.unwrap();
    assert!(matches!(reply.outcome, Outcome::Written(Delivered::Durable(bad)) if bad.is_empty()));
    assert!(reply.usage.peak_memory_bytes > 0);
    let sent = outside.sent.lock();
    let [request] = &sent[..] else { panic!("{} requests", sent.len()) };
    assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", "https://hooks.example.com/in"));
    assert_eq!(request.body.as_deref(), Some(ROWS));
    let header = |name: &str| request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    assert_eq!(header("idempotency-key"), Some(&HeaderValue::Text("batch-1".to_owned())));
    assert_eq!(header("authorization"), Some(&HeaderValue::Bearer("token".to_owned())));
    assert!(request.timeout_ms.unwrap() <= EffectiveLimits::UNASKED.wall_per_call_ms);
    assert!(request.max_response_bytes.unwrap() <= EffectiveLimits::UNASKED.response_bytes);
}

#[tokio::test]
async fn what_the_receiver_says_is_classified() {
    let host = host();
    let cases = [
        (500, FaultKind::Transient),
        (429, FaultKind::Transient),
        (401, FaultKind::Unauthorized),
        (404, FaultKind::Misconfigured),
        (400, FaultKind::Rejected),
    ];
    for (status, kind) in cases {
        let outside = Scripted::status(status);
        let reply = write(&host, &outside, json!({ "url": "https://hooks.example.com/in" })).await.unwrap();
        let Outcome::Failed(fault) = reply.outcome else { panic!("{status} is {:?}", reply.outcome) };
        assert_eq!(fault.kind, kind, "{status}: {fault}");
        assert!(reply.state_changes.is_empty());
    }
}

#[tokio::test]
async fn secrets_out_of_reach_lose_nothing() {
    let outside = Arc::new(Scripted { secrets_out_of_reach: true, ..Scripted::default() });
    let config = json!({ "url": "https://hooks.example.com/in", "token": { "$secret": "token" } });
    let reply = write(&host(), &outside, config).await.unwrap();
    let Outcome::Failed(fault) = reply.outcome else { panic!("{:?}", reply.outcome) };
    assert_eq!(fault.kind, FaultKind::Transient, "{fault}");
    assert!(outside.sent.lock().is_empty());
}

#[tokio::test]
async fn limits_end_a_call_and_not_the_host() {
    let host = host();
    let config = json!({ "url": "https://hooks.example.com/in" });
    let operation = || Operation::Write(sink_call(config.clone()), batch(ROWS));
    let limited = |limits: EffectiveLimits| Call { limits, ..call(operation()) };
    let code = code("webhook").await;
    let unasked = EffectiveLimits::UNASKED;
    let cases = [
        EffectiveLimits { memory_bytes: 1 << 16, ..unasked },
        EffectiveLimits { table_elements: 0, ..unasked },
        EffectiveLimits { instances: 1, ..unasked },
        EffectiveLimits { hostcall_bytes: 16, ..unasked },
    ];
    for limits in cases {
        let failed = host.call(TENANT, &code, limited(limits), Scripted::status(200)).await.unwrap_err();
        let told = matches!(failed, CallError::Memory { .. } | CallError::Limit(_) | CallError::Unfit(_));
        assert!(told, "{failed}");
    }
    let reply = host.call(TENANT, &code, call(operation()), Scripted::status(200)).await.unwrap();
    assert!(matches!(reply.outcome, Outcome::Written(_)), "the host is well");
}

/// Never answers.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Outside for Silent {
    async fn http(&self, _request: HttpRequest) -> Result<HttpResponse, HttpError> {
        std::future::pending().await
    }

    async fn secret(&self, _slot: &str) -> Result<String, SecretError> {
        Err(SecretError::NoSuchSlot)
    }

    async fn hmac_sha256(&self, _slot: &str, _prefix: &[u8], _data: &[u8]) -> Result<Vec<u8>, SecretError> {
        Err(SecretError::NoSuchSlot)
    }

    async fn reveal(&self, _slot: &str) -> Result<Vec<u8>, SecretError> {
        Err(SecretError::NoSuchSlot)
    }

    fn log(&self, _level: Level, _message: &str, _fields: &[(String, String)]) {}

    fn counter_add(&self, _name: &str, _value: u32) {}

    fn gauge_set(&self, _name: &str, _value: f64) {}
}

#[tokio::test]
async fn a_wait_without_end_has_one() {
    let operation =
        Operation::Write(sink_call(json!({ "url": "https://hooks.example.com/in" })), batch(ROWS));
    let limits = EffectiveLimits { wall_per_call_ms: 20, ..EffectiveLimits::UNASKED };
    let waits = Call { limits, ..call(operation) };
    let failed = host().call(TENANT, &code("webhook").await, waits, Arc::new(Silent)).await.unwrap_err();
    assert_eq!(failed, CallError::Wall { limit_ms: 20 });
}

#[tokio::test]
async fn a_session_is_kept_until_it_is_closed() {
    let host = host();
    let code = code("webhook").await;
    let session = Some(crate::call::SessionId(1));
    let config = json!({ "url": "https://hooks.example.com/in" });
    let within = |continues: bool, operation: Operation| Call { session, continues, ..call(operation) };
    let write = || Operation::Write(sink_call(config.clone()), batch(ROWS));
    let outside = || Scripted::status(200) as Arc<dyn Outside>;

    let gone = host.call(TENANT, &code, within(true, write()), outside()).await.unwrap_err();
    assert!(matches!(gone, CallError::Gone(_)), "nothing was kept yet");
    let first = host.call(TENANT, &code, within(false, write()), outside()).await.unwrap();
    assert!(first.usage.instantiate_us > 0);
    let second = host.call(TENANT, &code, within(true, write()), outside()).await.unwrap();
    assert_eq!(second.usage.instantiate_us, 0, "the same instance");
    host.call(TENANT, &code, within(false, Operation::Close), outside()).await.unwrap();
    host.call(TENANT, &code, within(true, write()), outside()).await.unwrap_err();

    host.call(TENANT, &code, within(false, write()), outside()).await.unwrap();
    host.forget_tenant(TENANT);
    host.call(TENANT, &code, within(true, write()), outside()).await.unwrap_err();
}

#[tokio::test]
async fn sessions_give_way_when_places_are_taken() {
    let host = host();
    let code = code("webhook").await;
    let config = json!({ "url": "https://hooks.example.com/in" });
    for session in 0..20 {
        let operation = Operation::Write(sink_call(config.clone()), batch(ROWS));
        let kept = Call { session: Some(crate::call::SessionId(session)), ..call(operation) };
        host.call(TENANT, &code, kept, Scripted::status(200)).await.unwrap();
    }
    assert!(host.inner.sessions.count() <= 4);
}

#[tokio::test]
async fn a_full_host_says_so() {
    let host = host();
    let taken = Arc::clone(&host.inner.seats).acquire_many_owned(4).await.unwrap();
    let failed = host.inner.seat(Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(&failed, CallError::Gone(why) if why.contains("all 4 places")), "{failed}");
    drop(taken);
    host.inner.seat(Duration::from_secs(60)).await.unwrap();
}

#[tokio::test]
async fn a_call_of_the_wrong_kind_is_refused() {
    let operation = Operation::CheckResolver { config_json: "{}".to_owned() };
    let failed = host().call(TENANT, &code("webhook").await, call(operation), Scripted::status(200)).await;
    assert!(matches!(failed.unwrap_err(), CallError::Unfit(_)));
}

#[tokio::test]
async fn a_resolver_reads_a_secret() {
    let body = br#"{"data":{"data":{"password":"correct horse"},"metadata":{"version":4}}}"#;
    let outside = Scripted::new(vec![Ok(response(200, &[("content-type", "application/json")], body))]);
    let config = json!({ "addr": "https://vault.example.com:8200", "token": { "$secret": "token" } });
    let request = ResolverRequest {
        name: "db".to_owned(),
        options_json: json!({ "path": "apps/db", "field": "password" }).to_string(),
        have_version: None,
    };
    let operation = Operation::Resolve { config_json: config.to_string(), requests: vec![request] };
    let code = code("vault").await;
    assert_eq!(code.world, World::Resolver);
    let reply = host().call(TENANT, &code, call(operation), Arc::clone(&outside) as _).await.unwrap();
    let Outcome::Resolved(answers) = reply.outcome else { panic!("{:?}", reply.outcome) };
    let [ResolverAnswer::Value { value, .. }] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(value, b"correct horse");
    assert!(outside.sent.lock()[0].url.starts_with("https://vault.example.com:8200/v1/secret/"));
}
