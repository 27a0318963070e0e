//! An HTTP server that does as a test says and forgets nothing: the other end of every plugin.
//!
//! Requests are noted when they have come whole, before they are answered: a sender that dies between the two has
//! delivered and does not know it. [`Destination::stop`] cuts every connection, as a crash does; what was noted stays,
//! as on a disk. HTTP/1.1 with `content-length`, nothing else: that is what the product sends.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// How long a test waits for something to arrive. The first batch of a server waits for the plugin's compilation.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a request's head and of its body.
const MOST_BYTES: usize = 64 << 20;

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What a script says to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// The connection ends without an answer.
    Close,
    /// The same, later.
    After(Duration, Box<Reply>),
}

/// A request and the status it was answered with; `None`: it was not answered.
#[derive(Clone, Debug)]
pub struct Taken {
    pub request: Request,
    pub status: Option<u16>,
}

type Script = Box<dyn FnMut(&Request) -> Reply + Send>;

struct Shared {
    script: Mutex<Script>,
    taken: Mutex<Vec<Taken>>,
    /// So many requests are cut off in the middle of their body.
    cuts: AtomicUsize,
}

/// A server on 127.0.0.1, gone when dropped.
pub struct Destination {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Reply {
    pub fn status(status: u16) -> Reply {
        Reply::Answer { status, headers: Vec::new(), body: String::new() }
    }

    pub fn text(status: u16, body: impl Into<String>) -> Reply {
        Reply::Answer { status, headers: Vec::new(), body: body.into() }
    }

    /// Asks for the next attempt at once: without it the sender waits for up to a second.
    pub fn at_once(self) -> Reply {
        match self {
            Reply::Answer { status, mut headers, body } => {
                headers.push(("retry-after", "0".to_owned()));
                Reply::Answer { status, headers, body }
            }
            other => other,
        }
    }
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The lines of NDJSON.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    pub fn contains(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Destination {
    /// Takes everything.
    pub async fn start() -> Destination {
        Self::with(|_| Reply::status(200)).await
    }

    pub async fn with(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Destination {
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            taken: Mutex::default(),
            cuts: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let serving = Some(tokio::spawn(serve(listener, Arc::clone(&shared))));
        Destination { shared, address, serving }
    }

    /// From now on this is answered.
    pub fn now(&self, script: impl FnMut(&Request) -> Reply + Send + 'static) {
        *lock(&self.shared.script) = Box::new(script);
    }

    /// The next so many requests end in the middle of their body, and are not noted.
    pub fn cut_off(&self, requests: usize) {
        self.shared.cuts.store(requests, Ordering::SeqCst);
    }

    /// All connections end, and no more are taken.
    pub async fn stop(&mut self) {
        let serving = self.serving.take().expect("the destination serves");
        serving.abort();
        // Aborted, or it has panicked: that is a fault of the test's.
        if let Err(ended) = serving.await {
            assert!(ended.is_cancelled(), "{ended}");
        }
    }

    /// On the port that it had.
    pub async fn start_again(&mut self) {
        assert!(self.serving.is_none(), "the destination serves already");
        let listener = TcpListener::bind(self.address).await.expect("the port that it had");
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
    }

    /// `http://127.0.0.1:port`
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where `webhook` posts.
    pub fn url(&self) -> String {
        format!("{}/in", self.origin())
    }

    /// Everything that came, in order.
    pub fn taken(&self) -> Vec<Taken> {
        lock(&self.shared.taken).clone()
    }

    /// The posts that have a body, whatever was answered: checks of CREATE SINK have none.
    pub fn posts(&self) -> Vec<Taken> {
        let is_post = |taken: &Taken| taken.request.method == "POST" && !taken.request.body.is_empty();
        self.taken().into_iter().filter(is_post).collect()
    }

    /// How many requests came, whatever they were.
    pub fn count(&self) -> usize {
        lock(&self.shared.taken).len()
    }

    /// The posts that it took.
    pub fn accepted(&self) -> Vec<Request> {
        let good = |taken: &Taken| taken.status.is_some_and(|status| (200..300).contains(&status));
        self.posts().into_iter().filter(good).map(|taken| taken.request).collect()
    }

    /// The lines of the posts that it took.
    pub fn lines(&self) -> Vec<Value> {
        self.accepted().iter().flat_map(Request::lines).collect()
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Destination) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is(self) {
            assert!(Instant::now() < deadline, "not {what} after {PATIENCE:?}; {}", self.summary());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for so many lines in all.
    pub async fn until_lines(&self, count: usize) -> Vec<Value> {
        self.until(&format!("{count} lines"), |destination| destination.lines().len() >= count).await;
        self.lines()
    }

    fn summary(&self) -> String {
        let taken = self.taken();
        let statuses: Vec<Option<u16>> = taken.iter().map(|taken| taken.status).collect();
        let last = taken.last().map(|taken| String::from_utf8_lossy(&taken.request.body).into_owned());
        let most = statuses.len().saturating_sub(20);
        format!("{} requests, the last ones {:?}, the last of all {last:?}", taken.len(), &statuses[most..])
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

/// A script that panicked has failed its test already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections end with this task: the set aborts them when it is dropped.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // The other end may go whenever it likes.
            let _ = converse(stream, &shared).await;
        });
    }
}

async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    while let Some((mut request, length)) = read_head(&mut stream, &mut bytes).await? {
        let cut = length > 0
            && shared
                .cuts
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |cuts| cuts.checked_sub(1))
                .is_ok();
        let wanted = if cut { length / 2 } else { length };
        while bytes.len() < wanted {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        if cut {
            return Ok(());
        }
        request.body = bytes.drain(..length).collect();
        let reply = {
            let mut script = lock(&shared.script);
            (*script)(&request)
        };
        if !answer(&mut stream, shared, request, reply).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Notes the request, answers it; whether the connection goes on.
async fn answer(stream: &mut TcpStream, shared: &Shared, request: Request, reply: Reply) -> io::Result<bool> {
    let is_head = request.method == "HEAD";
    let mut reply = reply;
    let mut wait = Duration::ZERO;
    while let Reply::After(time, then) = reply {
        wait += time;
        reply = *then;
    }
    let status = match &reply {
        Reply::Answer { status, .. } => Some(*status),
        Reply::Close | Reply::After(..) => None,
    };
    lock(&shared.taken).push(Taken { request, status });
    tokio::time::sleep(wait).await;
    let Reply::Answer { status, headers, body } = reply else { return Ok(false) };
    let mut text = format!("HTTP/1.1 {status} As-Told\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    if !is_head {
        text.push_str(&body);
    }
    stream.write_all(text.as_bytes()).await?;
    Ok(true)
}

/// A request without its body, and how long that is; `None` at the connection's end. `bytes` keeps what follows.
async fn read_head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<(Request, usize)>> {
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > MOST_BYTES || stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = bytes.drain(..end + 4).collect();
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let header = |line: &str| {
        line.split_once(':').map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    let request = Request { method, target, headers: lines.filter_map(header).collect(), body: Vec::new() };
    assert_eq!(request.header("transfer-encoding"), None, "a body without its length: {request:?}");
    let length = request.header("content-length").map_or(0, |text| text.parse().expect("a length"));
    assert!(length <= MOST_BYTES, "a body of {length} bytes");
    Ok(Some((request, length)))
}
