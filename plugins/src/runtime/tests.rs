//! What is refused before anything runs, and how a plugin's sink lives: against a host that answers as it is told.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use sepal_database::connector::{
    BadRow, Batch, BatchSchema, Delivered, Encoding, Envelope, PluginKind, Setting, Tier,
};

use super::*;
use crate::{
    call::{CallError, Code, OpenArgs, Outside, Reply, ResolverAnswer, SessionId, Usage},
    egress::{EgressOptions, EgressSpec},
    manifest::Lifecycle,
    sinks::{Native, tests::NoSecrets},
};

type Answer = Result<(Outcome, Vec<(String, Option<Vec<u8>>)>), CallError>;

/// Gives its answers in order and remembers what it was asked.
#[derive(Debug, Default)]
struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    calls: Mutex<Vec<Call>>,
}

#[async_trait]
impl GuestHost for Scripted {
    async fn call(
        &self,
        _tenant: TenantId,
        _code: &Code,
        call: Call,
        _outside: Arc<dyn Outside>,
    ) -> Result<Reply, CallError> {
        let closes = matches!(call.operation, Operation::Close);
        self.calls.lock().push(call);
        let answer = if closes { None } else { self.answers.lock().pop_front() };
        let (outcome, state_changes) = answer.unwrap_or(Ok((Outcome::Done, Vec::new())))?;
        Ok(Reply { outcome, state_changes, usage: Usage::default() })
    }

    fn forget_tenant(&self, _tenant: TenantId) {}
}

fn runtime(host: &Arc<Scripted>) -> Runtime {
    let egress = Arc::new(Egress::new(EgressOptions::default()).unwrap());
    Runtime::new(RuntimeOptions {
        host: Arc::clone(host) as _,
        compiler: Arc::new(Compiler::in_this_process().unwrap()),
        native: Native::new(Arc::clone(&egress) as _, None),
        egress,
        caps: EffectiveLimits::MOST,
    })
    .unwrap()
}

const TENANT: TenantId = TenantId([3; 16]);

fn spec(options: &[(&str, Setting)], hosts: &[&str]) -> SinkSpec {
    SinkSpec {
        tenant: TENANT,
        environment: "main".to_owned(),
        name: "hook".to_owned(),
        id: "sink-1".to_owned(),
        connector: "plugin:webhook".to_owned(),
        component: None,
        options: options.iter().map(|(name, setting)| ((*name).to_owned(), setting.clone())).collect(),
        allow_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        reveal: false,
        encoding: Encoding::Ndjson,
        envelope: Envelope::Append,
        tier: Tier::AtLeastOnce,
    }
}

fn url() -> (&'static str, Setting) {
    ("url", Setting::Text("https://hooks.example.com/in".to_owned()))
}

const HOST: &str = "https://hooks.example.com:443";

#[test]
fn what_comes_along_is_named() {
    let runtime = runtime(&Arc::default());
    let bundled = runtime.bundled();
    let webhook = bundled.iter().find(|facts| facts.name == "sepal/webhook").unwrap();
    assert_eq!((webhook.kind, webhook.api.as_str()), (PluginKind::Sink, "sepal:plugin@0.1.0"));
    assert_eq!(webhook.sha256.len(), 64);
    assert!(webhook.secrets.contains(&"token".to_owned()));
    assert!(bundled.iter().any(|facts| facts.kind == PluginKind::Resolver));
}

#[test]
fn a_sink_is_judged_without_reaching_out() {
    let runtime = runtime(&Arc::default());
    runtime.validate(&spec(&[url()], &[HOST])).unwrap();
    runtime.validate(&spec(&[url()], &["https://*.example.com"])).unwrap();
    let by_full_name = SinkSpec { connector: "plugin:sepal/webhook".to_owned(), ..spec(&[url()], &[HOST]) };
    runtime.validate(&by_full_name).unwrap();

    let changed = |change: fn(&mut SinkSpec)| {
        let mut spec = spec(&[url()], &[HOST]);
        change(&mut spec);
        spec
    };
    let cases = [
        (spec(&[url()], &[]), "ALLOW HOSTS ('https://hooks.example.com:443')"),
        (spec(&[url()], &["https://other.example.com"]), "/url: "),
        (spec(&[url()], &["hooks.example.com"]), "hooks.example.com"),
        (spec(&[], &[HOST]), "url"),
        (spec(&[url(), ("tokn", Setting::Flag(true))], &[HOST]), "/tokn: "),
        (spec(&[url(), ("token", Setting::Text("hunter2".to_owned()))], &[HOST]), "/token: "),
        (changed(|spec| spec.encoding = Encoding::ArrowIpcStream), "arrow-ipc-stream"),
        (changed(|spec| spec.tier = Tier::Transactional), "transactional"),
        (changed(|spec| spec.connector = "plugin:vault".to_owned()), "no sink"),
        (changed(|spec| spec.connector = "plugin:none".to_owned()), "sepal/webhook"),
        (changed(|spec| spec.component = Some(Arc::from(&b"\0asm\x01\0\0\0"[..]))), "core module"),
    ];
    for (spec, named) in cases {
        let fault = runtime.validate(&spec).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
        assert!(fault.message.contains(named), "{named}: {fault}");
        assert!(!fault.message.contains("hunter2"), "{fault}");
    }
}

/// Everything of a call of `package` but its operation: no host to reach, no secret to use.
fn prepared(runtime: &Runtime, package: &Package) -> Prepared {
    let limits = EffectiveLimits::UNASKED;
    let egress = EgressSpec {
        tenant: TENANT,
        name: "hook".to_owned(),
        pipeline: String::new(),
        slots: BTreeMap::new(),
        secrets: Arc::new(NoSecrets),
        allow: Vec::new(),
        reveal: false,
        limits,
    };
    let code = Code { hash: package.hash, world: package.world, machine_code: Arc::new([]) };
    Prepared { tenant: TENANT, code, limits, outside: runtime.0.egress.outside(egress) }
}

/// The webhook's sink, with a lifecycle of the test's choice.
fn sink(host: &Arc<Scripted>, lifecycle: Lifecycle, answers: Vec<Answer>) -> PluginSink {
    host.answers.lock().extend(answers);
    let runtime = runtime(host);
    let mut package = Package::read(crate::bundled::component("webhook").unwrap()).unwrap();
    package.manifest.sink.as_mut().unwrap().lifecycle = lifecycle;
    let prepared = prepared(&runtime, &package);
    let open = OpenArgs {
        config_json: "{}".to_owned(),
        encoding: Encoding::Ndjson,
        envelope: Envelope::Append,
        sink_id: "sink-1".to_owned(),
        worker: 0,
        parallelism: 1,
        attributes: Vec::new(),
    };
    PluginSink::new(Arc::clone(&runtime.0), &package, prepared, open)
}

fn batch() -> Batch {
    Batch {
        id: "b".to_owned(),
        schema_id: "s".to_owned(),
        first: "1".to_owned(),
        last: "2".to_owned(),
        rows: 2,
        attempt: 1,
        snapshot: false,
        payload: Bytes::from_static(b"{}\n{}\n"),
    }
}

fn written(delivered: Delivered) -> Answer {
    Ok((Outcome::Written(delivered), Vec::new()))
}

fn last_call(host: &Scripted) -> (Option<SessionId>, bool) {
    let calls = host.calls.lock();
    let call = calls.iter().rev().find(|call| !matches!(call.operation, Operation::Close)).unwrap();
    (call.session, call.continues)
}

#[tokio::test]
async fn state_goes_along_and_comes_back() {
    let host = Arc::default();
    let changes = vec![("cursor".to_owned(), Some(b"2".to_vec())), ("old".to_owned(), None)];
    let durable = || Outcome::Written(Delivered::Durable(Vec::new()));
    let failed = Outcome::Failed(Fault::new(FaultKind::Transient, "503"));
    let answers = vec![
        Ok((Outcome::Opened(Default::default()), Vec::new())),
        Ok((durable(), changes.clone())),
        Ok((failed, Vec::new())),
        Ok((durable(), Vec::new())),
    ];
    let mut sink = sink(&host, Lifecycle::Stateless, answers);
    sink.open(BTreeMap::from([("old".to_owned(), b"1".to_vec())])).await.unwrap();
    sink.set_schema(&BatchSchema { id: "s".to_owned(), payload: Vec::new(), key_columns: Vec::new() })
        .await
        .unwrap();
    sink.write(&batch()).await.unwrap();
    assert_eq!(sink.take_state_changes(), changes);
    assert_eq!(sink.write(&batch()).await.unwrap_err().kind, FaultKind::Transient);
    sink.write(&batch()).await.unwrap();
    assert!(sink.take_state_changes().is_empty());
    let calls = host.calls.lock();
    let Operation::Write(call, _) = &calls.last().unwrap().operation else { panic!("a write") };
    assert_eq!(call.state, BTreeMap::from([("cursor".to_owned(), b"2".to_vec())]));
    assert_eq!(call.schema.as_ref().unwrap().id, "s");
    assert!(calls.iter().all(|call| call.session.is_none() && !call.continues));
}

#[tokio::test]
async fn a_session_that_holds_rows_is_not_replaced_unnoticed() {
    let host = Arc::default();
    let gone = CallError::Gone("evicted".to_owned());
    let answers = vec![
        written(Delivered::Buffered),
        written(Delivered::Buffered),
        Ok((Outcome::Flushed(Some("2".to_owned())), Vec::new())),
        written(Delivered::Buffered),
        Err(gone),
        written(Delivered::Durable(Vec::new())),
    ];
    let mut sink = sink(&host, Lifecycle::Session, answers);
    sink.write(&batch()).await.unwrap();
    let (first, continues) = last_call(&host);
    assert!(first.is_some() && !continues);
    sink.write(&batch()).await.unwrap();
    assert_eq!(last_call(&host), (first, true));
    assert_eq!(sink.flush().await.unwrap().as_deref(), Some("2"));
    assert_eq!(last_call(&host), (first, true));
    sink.write(&batch()).await.unwrap();
    assert_eq!(last_call(&host), (first, false), "after a flush it holds nothing");
    let fault = sink.write(&batch()).await.unwrap_err();
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::NotConnected, Some("plugin.gone")));
    sink.write(&batch()).await.unwrap();
    let (second, continues) = last_call(&host);
    assert!(second != first && !continues, "the next instance knows nothing");
}

#[tokio::test]
async fn an_instance_ends_after_its_calls_and_after_its_own_errors() {
    let host: Arc<Scripted> = Arc::default();
    let mut answers: Vec<Answer> = (0..1000).map(|_| written(Delivered::Durable(Vec::new()))).collect();
    answers.push(written(Delivered::Durable(Vec::new())));
    answers.push(Ok((Outcome::Failed(Fault::new(FaultKind::Internal, "a bug")), Vec::new())));
    answers.push(written(Delivered::Durable(Vec::new())));
    let mut sink = sink(&host, Lifecycle::Session, answers);
    let mut sessions = Vec::new();
    for _ in 0..1001 {
        sink.write(&batch()).await.unwrap();
        sessions.push(last_call(&host).0);
    }
    sink.write(&batch()).await.unwrap_err();
    sink.write(&batch()).await.unwrap();
    sessions.push(last_call(&host).0);
    let closed = host.calls.lock().iter().filter(|call| matches!(call.operation, Operation::Close)).count();
    assert_eq!(closed, 2);
    sessions.dedup();
    assert_eq!(sessions.len(), 3);
}

#[tokio::test]
async fn what_makes_no_sense_is_the_plugins_fault() {
    let host = Arc::default();
    let bad = BadRow { index: 1, code: None, message: "no".to_owned() };
    let answers = vec![
        written(Delivered::Buffered),
        Ok((Outcome::Flushed(None), Vec::new())),
        Err(CallError::Cpu { limit_ms: 2000 }),
        Err(CallError::Unfit("it imports env".to_owned())),
        written(Delivered::Durable(vec![BadRow { index: 2, ..bad.clone() }])),
        written(Delivered::Durable(vec![bad.clone(), bad.clone()])),
        written(Delivered::RetryRows(vec![0; 3])),
        written(Delivered::Durable(vec![bad.clone()])),
    ];
    let mut sink = sink(&host, Lifecycle::Stateless, answers);
    let expected = [
        (FaultKind::Internal, "plugin.protocol"),
        (FaultKind::Internal, "plugin.protocol"),
        (FaultKind::Internal, "plugin.cpu"),
        (FaultKind::Misconfigured, "plugin.unfit"),
        (FaultKind::Internal, "plugin.protocol"),
        (FaultKind::Internal, "plugin.protocol"),
        (FaultKind::Internal, "plugin.protocol"),
    ];
    for (kind, code) in expected {
        let fault = sink.write(&batch()).await.unwrap_err();
        assert_eq!((fault.kind, fault.code.as_deref()), (kind, Some(code)), "{fault}");
    }
    assert_eq!(sink.write(&batch()).await.unwrap(), Delivered::Durable(vec![bad]));
    assert_eq!(sink.flush().await.unwrap(), None, "a stateless one is not asked");
}

fn resolved(value: &[u8], version: Option<&str>, lease: Option<&str>) -> ResolverAnswer {
    ResolverAnswer::Value {
        value: value.to_vec(),
        version: version.map(ToOwned::to_owned),
        ttl_seconds: None,
        lease_id: lease.map(ToOwned::to_owned),
    }
}

#[test]
fn what_a_resolver_gives_has_a_size_and_keeps_its_secret() {
    let runtime = runtime(&Arc::default());
    let package = Package::read(crate::bundled::component("vault").unwrap()).unwrap();
    let judged = |answers: Vec<ResolverAnswer>| resolver::judged(&prepared(&runtime, &package), answers);
    let good = [
        resolved(b"correct horse", Some("4"), Some("database/creds/app/1")),
        resolved(b"", None, None),
        resolved(&[b'x'; resolver::MAX_VALUE_BYTES], Some(&"v".repeat(resolver::MAX_VERSION_BYTES)), None),
        resolved(b"pass", None, Some(&"l".repeat(resolver::MAX_LEASE_BYTES))),
    ];
    for answer in judged(good.into()) {
        assert!(matches!(answer, ResolveAnswer::Value(_)), "{answer:?}");
    }
    let bad = [
        (resolved(&[b'x'; resolver::MAX_VALUE_BYTES + 1], None, None), "value of 65537 bytes"),
        (resolved(b"x", Some(&"v".repeat(resolver::MAX_VERSION_BYTES + 1)), None), "version of 129 bytes"),
        (resolved(b"x", None, Some(&"l".repeat(resolver::MAX_LEASE_BYTES + 1))), "lease of 1025 bytes"),
        (resolved(b"x", Some("4\n5"), None), "one line"),
        (resolved(b"correct horse", Some("correct horse"), None), "holds a secret"),
        // Base64, as it stands in the header of a request.
        (resolved(b"correct horse", Some("v-Y29ycmVjdCBob3JzZQ=="), None), "holds a secret"),
    ];
    for (answer, problem) in bad {
        let answers = judged(vec![answer]);
        let [ResolveAnswer::Failed(fault)] = &answers[..] else { panic!("{problem}") };
        assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::Internal, Some("plugin.protocol")));
        assert!(fault.message.contains(problem) && !fault.message.contains("horse"), "{fault}");
    }
    let failed = Fault::new(FaultKind::Transient, "cannot parse {password: correct horse}");
    let both = judged(vec![ResolverAnswer::Failed(failed), resolved(b"correct horse", None, None)]);
    let ResolveAnswer::Failed(fault) = &both[0] else { panic!("{both:?}") };
    assert_eq!(fault.message, "cannot parse {password: <redacted>}");
}
