//! The worker process: reads calls from its socket, runs them with `host`, asks back over the same socket.
//!
//! The binary calls [`child_main`] when its first argument is [`super::WORKER_ARGUMENT`]. Standard input is the
//! socket. There is no key here, no secret but what a guest was allowed to have, and after [`sandbox`] no file and no
//! network.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    os::{fd::AsFd, unix::net::UnixStream as StdUnixStream},
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::FutureExt;
use parking_lot::Mutex;
use sepal_database::TenantId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    runtime,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    protocol::{self, Answer, Down, Frame, ProtocolError, Question, Up},
    sandbox::{self, Report},
};
use crate::{
    call::{
        Call, CallError, Code, ComponentHash, GuestHost, HttpError, HttpRequest, HttpResponse, Level,
        Outside, Reply, SecretError,
    },
    host::{HostOptions, LocalHost},
};

/// Frames that wait to be written; more make the sender wait.
const QUEUE: usize = 16;
/// Names of metrics that one call may use; the server's own limit is per sink.
const MAX_NAMES: usize = 256;

/// Runs the worker until the server closes the socket.
pub fn child_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sepal {}: {error}", super::WORKER_ARGUMENT);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let socket = StdUnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    // On this thread alone: the sandbox has to come before any other. Guests run on the host's own threads.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (socket, start) = runtime.block_on(async {
        let mut socket = UnixStream::from_std(socket)?;
        let start = protocol::read::<Down>(&mut socket).await?;
        Ok::<_, ProtocolError>((socket, start))
    })?;
    let Some(Down::Start { tenant, limits }) = start else {
        return Err("this is started by the server, which says what to do over standard input".into());
    };
    let mut report = sandbox::confine(&limits);
    let host = Arc::new(LocalHost::new(HostOptions::default())?);
    sandbox::filter_calls(&mut report);
    runtime.block_on(serve(socket.into_split(), tenant, host, report))?;
    Ok(())
}

/// Greets, then runs calls until the other side closes; none where the sandbox does not hold.
pub(super) async fn serve<R, W>(
    (mut reader, mut writer): (R, W),
    tenant: TenantId,
    host: Arc<dyn GuestHost>,
    report: Report,
) -> Result<(), ProtocolError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let refused = report.refusal().is_some();
    Frame::encode(Up::Hello(report))?.write(&mut writer).await?;
    if refused {
        // The server knows why. Here it counts too: this is the process that would not be locked in.
        return Ok(());
    }
    let (frames, mut queue) = mpsc::channel::<Frame>(QUEUE);
    let worker =
        Arc::new(Worker { tenant, host, frames, codes: Mutex::default(), running: Mutex::default() });
    let writing = async {
        while let Some(frame) = queue.recv().await {
            frame.write(&mut writer).await?;
        }
        Ok::<(), ProtocolError>(())
    };
    let reading = async {
        while let Some(message) = protocol::read::<Down>(&mut reader).await? {
            worker.hear(message).await?;
        }
        Ok::<(), ProtocolError>(())
    };
    tokio::select! {
        result = writing => result,
        result = reading => result,
    }
}

struct Worker {
    tenant: TenantId,
    host: Arc<dyn GuestHost>,
    frames: mpsc::Sender<Frame>,
    codes: Mutex<HashMap<ComponentHash, Code>>,
    running: Mutex<HashMap<u64, Running>>,
}

#[derive(Clone)]
struct Running {
    cancelled: CancellationToken,
    answers: Arc<Answers>,
}

/// Who waits for which answer.
type Answers = Mutex<HashMap<u64, oneshot::Sender<Answer>>>;

impl Worker {
    async fn hear(self: &Arc<Self>, message: Down) -> Result<(), ProtocolError> {
        match message {
            Down::Start { .. } => return Err(ProtocolError::OutOfPlace("a second start")),
            Down::Load { hash, world, machine_code } => {
                let code = Code { hash, world, machine_code: machine_code.into() };
                self.codes.lock().insert(hash, code);
            }
            Down::Run { id, hash, call } => self.run(id, hash, *call),
            Down::Answer { id, question, answer } => {
                let running = self.running.lock().get(&id).cloned();
                let waiting = running.and_then(|running| running.answers.lock().remove(&question));
                if let Some(waiting) = waiting {
                    // A call that was cancelled does not wait any more.
                    drop(waiting.send(answer));
                }
            }
            Down::Cancel { id } => {
                if let Some(running) = self.running.lock().remove(&id) {
                    running.cancelled.cancel();
                }
            }
            Down::Ping => self.send(Frame::encode(Up::Pong)).await,
        }
        Ok(())
    }

    fn run(self: &Arc<Self>, id: u64, hash: ComponentHash, call: Call) {
        let running = Running { cancelled: CancellationToken::new(), answers: Arc::default() };
        self.running.lock().insert(id, running.clone());
        let code = self.codes.lock().get(&hash).cloned();
        let outside = Arc::new(RemoteOutside {
            id,
            frames: self.frames.clone(),
            answers: running.answers,
            next: AtomicU64::new(0),
            tally: Mutex::default(),
        });
        let worker = Arc::clone(self);
        tokio::spawn(async move {
            let result = tokio::select! {
                // Dropping the call drops its instance.
                () = running.cancelled.cancelled() => None,
                result = worker.call(code, call, Arc::clone(&outside)) => Some(result),
            };
            worker.running.lock().remove(&id);
            if let Some(result) = result {
                outside.send_tally().await;
                worker.finish(id, result).await;
            }
        });
    }

    async fn call(
        &self,
        code: Option<Code>,
        call: Call,
        outside: Arc<RemoteOutside>,
    ) -> Result<Reply, CallError> {
        let Some(code) = code else {
            return Err(CallError::Gone("the worker was not given the component".to_owned()));
        };
        let call = AssertUnwindSafe(self.host.call(self.tenant, &code, call, outside)).catch_unwind();
        call.await.unwrap_or_else(|_| Err(CallError::Gone("the host of plugins panicked".to_owned())))
    }

    /// A reply too large for a frame becomes an error that is not: its caller waits for one or the other.
    async fn finish(&self, id: u64, result: Result<Reply, CallError>) {
        let done = Frame::encode(Up::Done { id, result }).or_else(|error| {
            let result = Err(CallError::Limit(format!("the reply cannot be sent: {error}")));
            Frame::encode(Up::Done { id, result })
        });
        self.send(done).await;
    }

    async fn send(&self, frame: Result<Frame, ProtocolError>) {
        if let Ok(frame) = frame {
            // When the server has gone, the reader ends the process.
            drop(self.frames.send(frame).await);
        }
    }
}

/// [`Outside`] at the other end of the socket.
struct RemoteOutside {
    id: u64,
    frames: mpsc::Sender<Frame>,
    answers: Arc<Answers>,
    next: AtomicU64,
    tally: Mutex<Tally>,
}

/// Metrics are added up and sent with the reply.
#[derive(Default)]
struct Tally {
    counters: BTreeMap<String, u32>,
    gauges: BTreeMap<String, f64>,
}

impl RemoteOutside {
    /// `None` when the question cannot be asked any more.
    async fn ask(&self, asked: Question) -> Option<Answer> {
        let question = self.next.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        self.answers.lock().insert(question, answered);
        let frame = Frame::encode(Up::Ask { id: self.id, question, asked }).ok()?;
        self.frames.send(frame).await.ok()?;
        answer.await.ok()
    }

    async fn ask_bytes(&self, asked: Question) -> Result<Vec<u8>, SecretError> {
        match self.ask(asked).await {
            Some(Answer::Bytes(answer)) => answer,
            _ => Err(SecretError::Unavailable),
        }
    }

    async fn send_tally(&self) {
        let Tally { counters, gauges } = std::mem::take(&mut *self.tally.lock());
        let id = self.id;
        let counters = counters.into_iter().map(|(name, value)| Up::Counter { id, name, value });
        let gauges = gauges.into_iter().map(|(name, value)| Up::Gauge { id, name, value });
        for message in counters.chain(gauges) {
            if let Ok(frame) = Frame::encode(message) {
                // The server has gone: the reader ends the process.
                drop(self.frames.send(frame).await);
            }
        }
    }
}

#[async_trait]
impl Outside for RemoteOutside {
    async fn http(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match self.ask(Question::Http(request)).await {
            Some(Answer::Http(answer)) => answer,
            _ => Err(HttpError::Protocol("the request could not be handed to the server".to_owned())),
        }
    }

    async fn secret(&self, slot: &str) -> Result<String, SecretError> {
        match self.ask(Question::Secret(slot.to_owned())).await {
            Some(Answer::Secret(answer)) => answer,
            _ => Err(SecretError::Unavailable),
        }
    }

    async fn hmac_sha256(&self, slot: &str, prefix: &[u8], data: &[u8]) -> Result<Vec<u8>, SecretError> {
        let (slot, prefix, data) = (slot.to_owned(), prefix.to_vec(), data.to_vec());
        self.ask_bytes(Question::Hmac { slot, prefix, data }).await
    }

    async fn reveal(&self, slot: &str) -> Result<Vec<u8>, SecretError> {
        self.ask_bytes(Question::Reveal(slot.to_owned())).await
    }

    /// Left out when the way is crowded: a guest's log does not hold up its work.
    fn log(&self, level: Level, message: &str, fields: &[(String, String)]) {
        let (message, fields) = (message.to_owned(), fields.to_vec());
        if let Ok(frame) = Frame::encode(Up::Log { id: self.id, level, message, fields }) {
            drop(self.frames.try_send(frame));
        }
    }

    fn counter_add(&self, name: &str, value: u32) {
        let mut tally = self.tally.lock();
        if let Some(sum) = tally.counters.get_mut(name) {
            *sum = sum.saturating_add(value);
        } else if tally.counters.len() < MAX_NAMES {
            tally.counters.insert(name.to_owned(), value);
        }
    }

    fn gauge_set(&self, name: &str, value: f64) {
        let mut tally = self.tally.lock();
        if tally.gauges.contains_key(name) || tally.gauges.len() < MAX_NAMES {
            tally.gauges.insert(name.to_owned(), value);
        }
    }
}

impl fmt::Debug for RemoteOutside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteOutside").field("id", &self.id).finish_non_exhaustive()
    }
}
