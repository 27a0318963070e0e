//! Server and worker, each at its end of a socket, with a host that asks, waits or fails as it is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sepal_database::{TenantId, connector::Delivered};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::Notify,
};

use super::{TENANT, batch, call, code, sink};
use crate::{
    call::{
        Call, CallError, Code, GuestHost, HttpError, HttpRequest, HttpResponse, Level, Operation, Outcome,
        Outside, Reply, SecretError, Usage,
    },
    worker::{
        child,
        client::Client,
        protocol::{Down, Frame, Question, Up, read},
        sandbox::{Report, SandboxLimits},
    },
};

/// Does by operation what its name says below.
#[derive(Debug, Default)]
struct Puppet {
    waiting: Notify,
    dropped: Arc<Notify>,
    calls: AtomicU32,
}

struct TellsWhenDropped(Arc<Notify>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl GuestHost for Puppet {
    async fn call(
        &self,
        tenant: TenantId,
        code: &Code,
        call: Call,
        outside: Arc<dyn Outside>,
    ) -> Result<Reply, CallError> {
        assert_eq!((tenant, code.machine_code.len()), (TENANT, 100_000));
        self.calls.fetch_add(1, Ordering::Relaxed);
        match call.operation {
            Operation::Write(_, batch) => asks_everything(&*outside, batch.payload).await,
            Operation::Flush(_) => {
                let _dropped = TellsWhenDropped(Arc::clone(&self.dropped));
                self.waiting.notify_one();
                std::future::pending().await
            }
            Operation::Close => panic!("told to"),
            _ => Err(CallError::Trap("unreachable executed".to_owned())),
        }
    }

    fn forget_tenant(&self, _: TenantId) {}
}

async fn asks_everything(outside: &dyn Outside, payload: Vec<u8>) -> Result<Reply, CallError> {
    let request = HttpRequest {
        method: "POST".to_owned(),
        url: "https://example.com".to_owned(),
        headers: Vec::new(),
        body: Some(payload),
        body_secrets: Vec::new(),
        timeout_ms: None,
        max_response_bytes: None,
    };
    let response = outside.http(request).await.unwrap();
    assert_eq!(outside.secret("token").await.as_deref(), Ok("v1"));
    assert_eq!(outside.secret("other").await, Err(SecretError::NoSuchSlot));
    assert_eq!(outside.hmac_sha256("token", b"p", b"d").await.unwrap(), b"pd");
    assert_eq!(outside.reveal("token").await, Err(SecretError::Unavailable));
    outside.log(Level::Info, "hello", &[("a".to_owned(), "b".to_owned())]);
    (0..3).for_each(|_| outside.counter_add("rows", 2));
    outside.gauge_set("depth", 0.5);
    Ok(Reply {
        outcome: Outcome::Written(Delivered::RetryRows(vec![u32::from(response.status)])),
        state_changes: vec![("body".to_owned(), Some(response.body))],
        usage: Usage::default(),
    })
}

/// Remembers what it was told.
#[derive(Debug, Default)]
struct Recording {
    told: Mutex<Vec<String>>,
}

#[async_trait]
impl Outside for Recording {
    async fn http(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let body = request.body.unwrap_or_default().into_iter().rev().collect();
        Ok(HttpResponse { status: 201, headers: Vec::new(), body, truncated: false })
    }

    async fn secret(&self, slot: &str) -> Result<String, SecretError> {
        if slot == "token" { Ok("v1".to_owned()) } else { Err(SecretError::NoSuchSlot) }
    }

    async fn hmac_sha256(&self, _: &str, prefix: &[u8], data: &[u8]) -> Result<Vec<u8>, SecretError> {
        Ok([prefix, data].concat())
    }

    async fn reveal(&self, _: &str) -> Result<Vec<u8>, SecretError> {
        Err(SecretError::Unavailable)
    }

    fn log(&self, _: Level, message: &str, fields: &[(String, String)]) {
        self.told.lock().push(format!("{message} {fields:?}"));
    }

    fn counter_add(&self, name: &str, value: u32) {
        self.told.lock().push(format!("{name} +{value}"));
    }

    fn gauge_set(&self, name: &str, value: f64) {
        self.told.lock().push(format!("{name} ={value}"));
    }
}

async fn connected(host: Arc<Puppet>) -> Arc<Client> {
    let (here, there) = tokio::io::duplex(4096);
    let report = Report { missing: vec!["everything".to_owned()], ..Report::default() };
    let answered = report.clone();
    tokio::spawn(async move {
        let (mut reader, writer) = tokio::io::split(there);
        let start = read::<Down>(&mut reader).await.unwrap();
        assert!(matches!(start, Some(Down::Start { tenant: TENANT, .. })));
        // Ends when the client does, whoever notices first.
        let _ = child::serve((reader, writer), TENANT, host, report).await;
    });
    let (client, said) = greet(here).await.unwrap();
    assert_eq!(said, answered);
    client
}

async fn greet(stream: DuplexStream) -> Result<(Arc<Client>, Report), CallError> {
    Client::start(tokio::io::split(stream), TENANT, SandboxLimits::default(), None).await
}

#[tokio::test]
async fn a_guest_asks_and_is_answered() {
    let client = connected(Arc::default()).await;
    let outside = Arc::new(Recording::default());
    for payload in [b"abc".to_vec(), (0..200_000_u32).flat_map(u32::to_le_bytes).collect()] {
        let operation = Operation::Write(sink(), batch(payload.clone()));
        let reply = client.call(&code(), call(operation), outside.clone()).await.unwrap();
        assert!(matches!(&reply.outcome, Outcome::Written(Delivered::RetryRows(rows)) if rows == &[201]));
        let reversed: Vec<u8> = payload.into_iter().rev().collect();
        assert_eq!(reply.state_changes, [("body".to_owned(), Some(reversed))]);
    }
    let told = outside.told.lock().clone();
    assert_eq!(told[..3], [r#"hello [("a", "b")]"#, "rows +6", "depth =0.5"]);
}

#[tokio::test]
async fn many_calls_share_a_worker() {
    let client = connected(Arc::default()).await;
    let calls = (0..20_u8).map(|number| {
        let client = Arc::clone(&client);
        async move {
            let operation = Operation::Write(sink(), batch(vec![number; 10_000]));
            let outside = Arc::new(Recording::default());
            let reply = client.call(&code(), call(operation), outside).await.unwrap();
            assert_eq!(reply.state_changes, [("body".to_owned(), Some(vec![number; 10_000]))]);
        }
    });
    futures::future::join_all(calls).await;
    assert!(client.idle_for().is_some() && !client.is_over());
}

#[tokio::test]
async fn a_failed_call_is_no_end() {
    let client = connected(Arc::default()).await;
    let outside = || Arc::new(Recording::default()) as Arc<dyn Outside>;
    let trap =
        client.call(&code(), call(Operation::CheckResolver { config_json: String::new() }), outside()).await;
    assert_eq!(trap.unwrap_err(), CallError::Trap("unreachable executed".to_owned()));
    let panicked = client.call(&code(), call(Operation::Close), outside()).await;
    assert!(matches!(panicked, Err(CallError::Gone(why)) if why.contains("panicked")));
    let fine = client.call(&code(), call(Operation::Write(sink(), batch(Vec::new()))), outside()).await;
    assert!(fine.is_ok());
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_dropped() {
    let host = Arc::new(Puppet::default());
    let client = connected(Arc::clone(&host)).await;
    let (code, outside) = (code(), Arc::new(Recording::default()));
    tokio::select! {
        result = client.call(&code, call(Operation::Flush(sink())), outside) => panic!("{result:?}"),
        () = host.waiting.notified() => {}
    }
    host.dropped.notified().await;
    assert!(client.idle_for().is_some());
}

#[tokio::test]
async fn the_end_of_a_worker_is_the_end_of_its_calls() {
    let host = Arc::new(Puppet::default());
    let client = connected(Arc::clone(&host)).await;
    let (code, outside) = (code(), Arc::new(Recording::default()));
    let waiting = client.call(&code, call(Operation::Flush(sink())), outside.clone());
    let ending = async {
        host.waiting.notified().await;
        client.end("the test says so");
    };
    let (result, ()) = tokio::join!(waiting, ending);
    assert_eq!(result.unwrap_err(), CallError::Gone("the test says so".to_owned()));
    let later = client.call(&code, call(Operation::Close), outside).await;
    assert_eq!(later.unwrap_err(), CallError::Gone("the test says so".to_owned()));
    assert_eq!(host.calls.load(Ordering::Relaxed), 1);
}

/// A worker that greets, waits for a call and then says `words`.
async fn hostile(words: Vec<Vec<u8>>) -> CallError {
    let (here, mut there) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        assert!(matches!(read::<Down>(&mut there).await, Ok(Some(Down::Start { .. }))));
        Frame::encode(Up::Hello(Report::default())).unwrap().write(&mut there).await.unwrap();
        assert!(matches!(read::<Down>(&mut there).await, Ok(Some(Down::Load { .. }))));
        assert!(matches!(read::<Down>(&mut there).await, Ok(Some(Down::Run { .. }))));
        for words in words {
            // The other side hangs up when it has heard enough.
            let _ = there.write_all(&words).await;
        }
        // Stays until the other side hangs up, reading what comes.
        while let Ok(Some(_)) = read::<Down>(&mut there).await {}
    });
    let (client, _) = greet(here).await.unwrap();
    let outside = Arc::new(Recording::default());
    client.call(&code(), call(Operation::Flush(sink())), outside).await.unwrap_err()
}

#[tokio::test]
async fn a_call_that_is_not_sent_fails_alone() {
    let (here, mut there) = tokio::io::duplex(1 << 10);
    let (read_on, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        assert!(matches!(read::<Down>(&mut there).await, Ok(Some(Down::Start { .. }))));
        Frame::encode(Up::Hello(Report::default())).unwrap().write(&mut there).await.unwrap();
        // Busy: it reads nothing until it is told.
        told.await.unwrap();
        while let Ok(Some(message)) = read::<Down>(&mut there).await {
            let Down::Run { id, .. } = message else { continue };
            let answer = Up::Done { id, result: Err(CallError::Trap("answered".to_owned())) };
            Frame::encode(answer).unwrap().write(&mut there).await.unwrap();
        }
    });
    let (client, _) = greet(here).await.unwrap();
    let outside = || Arc::new(Recording::default()) as Arc<dyn Outside>;
    // The code alone is more than fits into the socket; further calls fill the queue.
    let soon = Duration::from_millis(20);
    let refused = loop {
        let (code, outside) = (code(), outside());
        let sent = client.call_within(soon, &code, call(Operation::Close), outside);
        if let Ok(result) = tokio::time::timeout(soon * 2, sent).await {
            break result.unwrap_err();
        }
        // It went into the queue, where it stays although nobody waits for it.
    };
    assert!(matches!(&refused, CallError::Gone(why) if why.contains("busy")), "{refused}");
    assert!(!client.is_over());
    read_on.send(()).unwrap();
    let answered = client.call(&code(), call(Operation::Close), outside()).await;
    assert_eq!(answered.unwrap_err(), CallError::Trap("answered".to_owned()));
}

async fn bytes_of(message: Up) -> Vec<u8> {
    let mut bytes = Vec::new();
    Frame::encode(message).unwrap().write(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn a_worker_that_says_nonsense_is_ended() {
    let again = bytes_of(Up::Hello(Report::default())).await;
    for words in [vec![vec![0xff; 100]], vec![vec![1, 0, 0, 0, 0, 0, 0, 0, 0x7f]], vec![again]] {
        let error = hostile(words).await;
        assert!(matches!(&error, CallError::Gone(why) if why.contains("was ended")), "{error:?}");
    }
}

#[tokio::test]
async fn what_belongs_to_no_call_is_dropped() {
    let mut words = Vec::new();
    let asked = || Question::Secret("token".to_owned());
    for number in 0..50 {
        words.push(bytes_of(Up::Ask { id: 99, question: number, asked: asked() }).await);
        words.push(bytes_of(Up::Counter { id: 99, name: "n".to_owned(), value: 1 }).await);
        words.push(bytes_of(Up::Done { id: 99, result: Err(CallError::Trap(String::new())) }).await);
    }
    words.push(bytes_of(Up::Done { id: 0, result: Err(CallError::Trap("at last".to_owned())) }).await);
    assert_eq!(hostile(words).await, CallError::Trap("at last".to_owned()));
}

#[tokio::test]
async fn no_guest_runs_where_the_sandbox_does_not_hold() {
    let report = Report { required: vec!["seccomp: not supported".to_owned()], ..Report::default() };
    let (here, mut there) = tokio::io::duplex(1 << 16);
    let answered = Frame::encode(Up::Hello(report.clone())).unwrap();
    answered.write(&mut there).await.unwrap();
    let error = greet(here).await.unwrap_err();
    assert!(matches!(&error, CallError::Gone(why) if why.contains("seccomp: not supported")), "{error:?}");

    // Nor does a worker wait for the server to see it.
    let host = Arc::new(Puppet::default());
    let (mut here, there) = tokio::io::duplex(1 << 20);
    Frame::load([9; 32], code().world, code().machine_code).unwrap().write(&mut here).await.unwrap();
    let run =
        Down::Run { id: 0, hash: [9; 32], call: Box::new(call(Operation::Write(sink(), batch(Vec::new())))) };
    Frame::encode(run).unwrap().write(&mut here).await.unwrap();
    here.shutdown().await.unwrap();
    child::serve(tokio::io::split(there), TENANT, Arc::clone(&host) as _, report).await.unwrap();
    assert!(matches!(read::<Up>(&mut here).await, Ok(Some(Up::Hello(_)))));
    assert!(matches!(read::<Up>(&mut here).await, Ok(None)));
    assert_eq!(host.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_worker_that_does_not_greet_did_not_start() {
    let (here, there) = tokio::io::duplex(4096);
    drop(there);
    let error = greet(here).await.unwrap_err();
    assert!(matches!(&error, CallError::Gone(why) if why.contains("did not start")), "{error:?}");
}
