//! The server's side of one worker: calls go out, questions come back and are answered.
//!
//! One task writes, one reads. The reader never waits for the writer: each question is answered by a task of its
//! own, of which a call may have only so many. A worker that says something it cannot say, does not answer, or
//! exceeds a call's time by more than the grace is killed; its calls then fail with [`CallError::Gone`]. A call that
//! did not get as far as the worker fails alone.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sepal_database::TenantId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

use super::{
    process::Process,
    protocol::{self, Answer, Down, Frame, ProtocolError, Question, Up},
    sandbox::{Report, SandboxLimits},
};
use crate::call::{Call, CallError, Code, ComponentHash, Outside, Reply};

/// Set-up of the engine and the sandbox.
const START: Duration = Duration::from_secs(30);
/// Beyond a call's own limit, which the worker enforces: loading, waiting for a place, the way there and back.
const GRACE: Duration = Duration::from_secs(10);
/// For the call and its code to be on their way, behind others'.
const HAND_OVER: Duration = Duration::from_secs(20);
/// Frames that wait to be written; more make the sender wait.
const QUEUE: usize = 16;
/// Questions of one call at a time. A guest asks one by one.
const MAX_QUESTIONS: usize = 16;

/// A conversation with one worker.
pub(super) struct Client {
    tenant: TenantId,
    frames: mpsc::Sender<Frame>,
    calls: Arc<Calls>,
    /// What the worker has. Locked while one is being sent, so that no call overtakes its code.
    loaded: tokio::sync::Mutex<HashSet<ComponentHash>>,
    next: AtomicU64,
    started: Instant,
    _ends: DropGuard,
}

/// What writer, reader and callers share.
struct Calls {
    open: Mutex<HashMap<u64, Open>>,
    heard: Mutex<Instant>,
    last_call: Mutex<Instant>,
    /// Cancelled: the conversation is over, for this reason.
    over: CancellationToken,
    reason: Mutex<Option<String>>,
}

/// A call that has not come back.
struct Open {
    done: oneshot::Sender<Result<Reply, CallError>>,
    outside: Arc<dyn Outside>,
    questions: Arc<AtomicU64>,
    /// Cancelled when the call ends: its questions are not answered any more.
    ended: CancellationToken,
}

impl Client {
    /// Greets the worker and waits until it is set up. `process` is killed when the conversation ends.
    pub async fn start<R, W>(
        (mut reader, mut writer): (R, W),
        tenant: TenantId,
        limits: SandboxLimits,
        process: Option<Process>,
    ) -> Result<(Arc<Self>, Report), CallError>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let greeting = async {
            Frame::encode(Down::Start { tenant, limits })?.write(&mut writer).await?;
            match protocol::read::<Up>(&mut reader).await? {
                Some(Up::Hello(report)) => Ok(report),
                Some(_) => Err(ProtocolError::OutOfPlace("a worker that does not greet")),
                None => Err(ProtocolError::OutOfPlace("the end, before a greeting")),
            }
        };
        let report = match tokio::time::timeout(START, greeting).await {
            Ok(Ok(report)) => match report.refusal() {
                None => report,
                Some(why) => return Err(not_started(&why, process).await),
            },
            Ok(Err(error)) => return Err(not_started(&error.to_string(), process).await),
            Err(_) => return Err(not_started("it did not greet in time", process).await),
        };
        let (frames, queue) = mpsc::channel(QUEUE);
        let over = CancellationToken::new();
        let calls = Arc::new(Calls {
            open: Mutex::default(),
            heard: Mutex::new(Instant::now()),
            last_call: Mutex::new(Instant::now()),
            over: over.clone(),
            reason: Mutex::default(),
        });
        tokio::spawn(write_frames(writer, queue, Arc::clone(&calls)));
        tokio::spawn(converse(reader, frames.downgrade(), Arc::clone(&calls), process, tenant));
        let client = Self {
            tenant,
            frames,
            calls,
            loaded: tokio::sync::Mutex::default(),
            next: AtomicU64::new(0),
            started: Instant::now(),
            _ends: over.drop_guard(),
        };
        Ok((Arc::new(client), report))
    }

    pub async fn call(&self, code: &Code, call: Call, outside: Arc<dyn Outside>) -> Result<Reply, CallError> {
        self.call_within(HAND_OVER, code, call, outside).await
    }

    /// [`Self::call`] with another patience for the way to the worker.
    pub async fn call_within(
        &self,
        hand_over: Duration,
        code: &Code,
        call: Call,
        outside: Arc<dyn Outside>,
    ) -> Result<Reply, CallError> {
        let limit_ms = call.limits.wall_per_call_ms;
        let most = Duration::from_millis(limit_ms.into()) + GRACE;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let done = self.calls.open(id, outside)?;
        let _open = OpenCall { client: self, id };
        let sent = async {
            self.load(code).await?;
            self.send(Frame::encode(Down::Run { id, hash: code.hash, call: Box::new(call) })).await
        };
        // A worker that reads nothing at all says nothing either, and is ended for that.
        tokio::time::timeout(hand_over, sent)
            .await
            .map_err(|_| CallError::Gone("the worker process is busy with other calls".to_owned()))??;
        match tokio::time::timeout(most, done).await {
            Ok(result) => result.unwrap_or_else(|_| Err(self.calls.gone())),
            Err(_) => {
                self.end("it did not keep to a call's time limit");
                Err(CallError::Wall { limit_ms })
            }
        }
    }

    async fn load(&self, code: &Code) -> Result<(), CallError> {
        let mut loaded = self.loaded.lock().await;
        if !loaded.contains(&code.hash) {
            self.send(Frame::load(code.hash, code.world, Arc::clone(&code.machine_code))).await?;
            loaded.insert(code.hash);
        }
        Ok(())
    }

    async fn send(&self, frame: Result<Frame, ProtocolError>) -> Result<(), CallError> {
        let frame = frame.map_err(|error| CallError::Limit(format!("the call cannot be sent: {error}")))?;
        self.frames.send(frame).await.map_err(|_| self.calls.gone())
    }

    /// Ends the conversation and the process. Calls fail.
    pub fn end(&self, why: &str) {
        self.calls.end(why);
    }

    pub fn is_over(&self) -> bool {
        self.calls.over.is_cancelled()
    }

    /// How long it has been of use.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// How long there has been no call; `None` while there is one.
    pub fn idle_for(&self) -> Option<Duration> {
        self.calls.open.lock().is_empty().then(|| self.calls.last_call.lock().elapsed())
    }

    /// How long it has said nothing.
    pub fn silent_for(&self) -> Duration {
        self.calls.heard.lock().elapsed()
    }

    /// Asks for a sign of life.
    pub fn ping(&self) {
        if let Ok(ping) = Frame::encode(Down::Ping) {
            // A full queue is no sign of life either: silence will tell.
            drop(self.frames.try_send(ping));
        }
    }
}

/// Takes a call that is no longer waited for off the list, and tells the worker.
struct OpenCall<'a> {
    client: &'a Client,
    id: u64,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        *self.client.calls.last_call.lock() = Instant::now();
        let Some(open) = self.client.calls.open.lock().remove(&self.id) else { return };
        open.ended.cancel();
        let Ok(cancel) = Frame::encode(Down::Cancel { id: self.id }) else { return };
        let Err(mpsc::error::TrySendError::Full(cancel)) = self.client.frames.try_send(cancel) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let frames = self.client.frames.clone();
            // When the worker is gone there is nothing to cancel.
            runtime.spawn(async move { drop(frames.send(cancel).await) });
        }
    }
}

impl Calls {
    fn open(
        &self,
        id: u64,
        outside: Arc<dyn Outside>,
    ) -> Result<oneshot::Receiver<Result<Reply, CallError>>, CallError> {
        let (done, receiver) = oneshot::channel();
        let open = Open { done, outside, questions: Arc::default(), ended: CancellationToken::new() };
        let mut calls = self.open.lock();
        // Under the lock: whoever ends the conversation fails what is in the map afterwards.
        if self.over.is_cancelled() {
            return Err(self.gone());
        }
        *self.last_call.lock() = Instant::now();
        calls.insert(id, open);
        Ok(receiver)
    }

    fn end(&self, why: &str) {
        self.reason.lock().get_or_insert_with(|| why.to_owned());
        self.over.cancel();
    }

    fn gone(&self) -> CallError {
        let reason = self.reason.lock();
        CallError::Gone(reason.as_deref().unwrap_or("the worker process has ended").to_owned())
    }

    fn fail_all(&self) {
        let open: Vec<Open> = self.open.lock().drain().map(|(_, open)| open).collect();
        for call in open {
            call.ended.cancel();
            // A caller that stopped waiting does not mind.
            drop(call.done.send(Err(self.gone())));
        }
    }
}

async fn not_started(why: &str, process: Option<Process>) -> CallError {
    let status = match process {
        Some(process) => {
            process.end().await.map_or_else(|error| error.to_string(), |status| status.to_string())
        }
        None => "no process".to_owned(),
    };
    CallError::Gone(format!("the worker process did not start: {why} ({status})"))
}

async fn write_frames<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut queue: mpsc::Receiver<Frame>,
    calls: Arc<Calls>,
) {
    let writing = async {
        while let Some(frame) = queue.recv().await {
            frame.write(&mut writer).await?;
        }
        Ok::<(), ProtocolError>(())
    };
    let result = tokio::select! {
        result = writing => result,
        () = calls.over.cancelled() => Ok(()),
    };
    if let Err(error) = result {
        calls.end(&format!("it cannot be written to: {error}"));
    }
}

/// Reads until the end, then ends everything.
async fn converse<R: AsyncRead + Unpin>(
    mut reader: R,
    frames: mpsc::WeakSender<Frame>,
    calls: Arc<Calls>,
    process: Option<Process>,
    tenant: TenantId,
) {
    let reading = async {
        while let Some(message) = protocol::read::<Up>(&mut reader).await? {
            *calls.heard.lock() = Instant::now();
            calls.hear(message, &frames)?;
        }
        Ok::<(), ProtocolError>(())
    };
    let result = tokio::select! {
        result = reading => result,
        () = calls.over.cancelled() => Ok(()),
    };
    // What ended from our side has its reason already and is no surprise.
    let surprise = !calls.over.is_cancelled();
    let pid = process.as_ref().and_then(Process::id);
    let status = match process {
        Some(process) => {
            process.end().await.map_or_else(|error| error.to_string(), |status| status.to_string())
        }
        None => "no process".to_owned(),
    };
    calls.end(&match result {
        Ok(()) => format!("the worker process ended ({status})"),
        Err(error) => format!("the worker process was ended: {error}"),
    });
    if surprise {
        tracing::warn!(%tenant, pid, reason = %calls.gone(), "a plugin worker is gone; the next call starts a new one");
    } else {
        tracing::debug!(%tenant, pid, reason = %calls.gone(), "a plugin worker was ended");
    }
    calls.fail_all();
}

impl Calls {
    /// Takes one message of the worker's. What belongs to a call that has ended meanwhile is dropped.
    fn hear(&self, message: Up, frames: &mpsc::WeakSender<Frame>) -> Result<(), ProtocolError> {
        match message {
            Up::Hello(_) => return Err(ProtocolError::OutOfPlace("a second greeting")),
            Up::Pong => {}
            Up::Done { id, result } => {
                if let Some(open) = self.open.lock().remove(&id) {
                    open.ended.cancel();
                    // A caller that stopped waiting does not mind.
                    drop(open.done.send(result));
                }
            }
            Up::Ask { id, question, asked } => return self.ask(id, question, asked, frames),
            Up::Log { id, level, message, fields } => {
                if let Some(outside) = self.outside(id) {
                    outside.log(level, &message, &fields);
                }
            }
            Up::Counter { id, name, value } => {
                if let Some(outside) = self.outside(id) {
                    outside.counter_add(&name, value);
                }
            }
            Up::Gauge { id, name, value } => {
                if let Some(outside) = self.outside(id) {
                    outside.gauge_set(&name, value);
                }
            }
        }
        Ok(())
    }

    fn outside(&self, id: u64) -> Option<Arc<dyn Outside>> {
        self.open.lock().get(&id).map(|open| Arc::clone(&open.outside))
    }

    fn ask(
        &self,
        id: u64,
        question: u64,
        asked: Question,
        frames: &mpsc::WeakSender<Frame>,
    ) -> Result<(), ProtocolError> {
        let (outside, ended, waiting) = match self.open.lock().get(&id) {
            Some(open) => (Arc::clone(&open.outside), open.ended.clone(), Arc::clone(&open.questions)),
            None => return Ok(()),
        };
        let Some(frames) = frames.upgrade() else { return Ok(()) };
        if waiting.fetch_add(1, Ordering::Relaxed) >= MAX_QUESTIONS as u64 {
            return Err(ProtocolError::OutOfPlace("more questions than a call may ask at once"));
        }
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                answer = answer(&*outside, asked) => {
                    let frame = Frame::encode(Down::Answer { id, question, answer });
                    // A worker that asks and does not read: its answers wait here, and are counted as long as they do.
                    let room = frames.reserve().await;
                    // Before the answer is out, so that the next question finds its place free.
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    match (frame, room) {
                        (Ok(frame), Ok(room)) => room.send(frame),
                        // When the worker is gone nobody waits for it.
                        (Ok(_), Err(_)) => {}
                        (Err(error), _) => tracing::error!(%error, "an answer to a plugin cannot be sent"),
                    }
                }
            }
        });
        Ok(())
    }
}

async fn answer(outside: &dyn Outside, asked: Question) -> Answer {
    match asked {
        Question::Http(request) => Answer::Http(outside.http(request).await),
        Question::Secret(slot) => Answer::Secret(outside.secret(&slot).await),
        Question::Hmac { slot, prefix, data } => {
            let prefix = Zeroizing::new(prefix);
            Answer::Bytes(outside.hmac_sha256(&slot, &prefix, &data).await)
        }
        Question::Reveal(slot) => Answer::Bytes(outside.reveal(&slot).await),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("tenant", &self.tenant)
            .field("calls", &self.calls.open.lock().len())
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}
