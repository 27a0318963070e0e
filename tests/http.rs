//! An HTTP server of the test's own: what plugins send arrives here, and the test says what is answered.
//!
//! Requests are noted when they have come whole, before they are answered: a sender that dies between the two has
//! delivered and does not know it. [`Destination::stop`] cuts every connection, as a crash does; what was noted stays,
//! as on a disk.
//!
//! HTTP/1.1 over plain sockets, a thread for each connection, bodies with a length only: what the server's client
//! sends. It never links what it judges.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long something may take that will come if all is well: a debug build on a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(120);
const MAX_BODY_BYTES: usize = 64 << 20;

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    /// The lines of NDJSON.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
    }

    pub fn contains(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// `Bearer` and what follows.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }
}

/// A request and the status it was answered with; `None`: it was not answered.
#[derive(Clone, Debug)]
pub struct Taken {
    pub request: Request,
    pub status: Option<u16>,
}

/// What is sent back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Passes before anything is.
    wait: Duration,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// Nothing is sent until the other side hangs up.
    Silent,
    /// The connection is closed at once.
    Closed,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { wait: Duration::ZERO, status, headers: Vec::new(), body: Vec::new(), end: End::Answered }
    }

    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::status(status).body(body)
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::status(status).header("content-type", "application/json").body(body.to_string())
    }

    pub fn never() -> Self {
        Self { end: End::Silent, ..Self::status(0) }
    }

    pub fn hang_up() -> Self {
        Self { end: End::Closed, ..Self::status(0) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The same, later.
    pub fn after(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Asks for the next attempt at once: without it the sender waits for up to a second.
    pub fn at_once(self) -> Self {
        self.header("retry-after", "0")
    }
}

type Script = Box<dyn FnMut(&Request) -> Answer + Send>;

struct Shared {
    script: Mutex<Script>,
    taken: Mutex<Vec<Taken>>,
    connections: AtomicUsize,
    /// So many requests are cut off in the middle of their body.
    cuts: AtomicUsize,
    serving: Mutex<Option<Serving>>,
}

/// From a start to a stop.
struct Serving {
    round: Arc<Round>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Round {
    over: AtomicBool,
    /// Connections that are open, by number.
    open: Mutex<HashMap<usize, TcpStream>>,
}

/// A connection's place in its round, given up however its thread ends.
struct Place<'a>(&'a Round, usize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.0.open).remove(&self.1);
    }
}

/// A server, listening until it is stopped or the process ends.
#[derive(Clone)]
pub struct Destination {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Destination {
    /// On an address of this machine: all of 127.0.0.0/8 is.
    pub fn start(host: &str, script: impl FnMut(&Request) -> Answer + Send + 'static) -> Destination {
        let listener = TcpListener::bind((host, 0)).expect("an address of this machine");
        let shared = Shared {
            script: Mutex::new(Box::new(script)),
            taken: Mutex::default(),
            connections: AtomicUsize::new(0),
            cuts: AtomicUsize::new(0),
            serving: Mutex::default(),
        };
        let address = listener.local_addr().expect("its address");
        let destination = Destination { address, shared: Arc::new(shared) };
        destination.serve(listener);
        destination
    }

    /// From now on this is answered.
    pub fn now(&self, script: impl FnMut(&Request) -> Answer + Send + 'static) {
        *lock(&self.shared.script) = Box::new(script);
    }

    /// The next so many requests end in the middle of their body, and are not noted.
    pub fn cut_off(&self, requests: usize) {
        self.shared.cuts.store(requests, Ordering::SeqCst);
    }

    /// All connections end, and no more are taken. Nothing where it is stopped already.
    pub fn stop(&self) {
        let Some(Serving { round, listening }) = lock(&self.shared.serving).take() else { return };
        {
            // From here on nothing is noted.
            let _taken = lock(&self.shared.taken);
            round.over.store(true, Ordering::SeqCst);
        }
        for socket in lock(&round.open).values() {
            // The other end may have gone.
            let _ = socket.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which then ends.
        let _ = TcpStream::connect(self.address);
        listening.join().expect("the listener does not panic");
    }

    /// On the port that it had.
    pub fn start_again(&self) {
        self.serve(TcpListener::bind(self.address).expect("the port that it had"));
    }

    fn serve(&self, listener: TcpListener) {
        let (destination, round) = (self.clone(), Arc::new(Round::default()));
        let current = Arc::clone(&round);
        let listening = thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let Ok(copy) = socket.try_clone() else { continue };
                let mut open = lock(&current.open);
                if current.over.load(Ordering::SeqCst) {
                    return;
                }
                let number = destination.shared.connections.fetch_add(1, Ordering::Relaxed);
                open.insert(number, copy);
                drop(open);
                let (destination, round) = (destination.clone(), Arc::clone(&current));
                thread::spawn(move || {
                    let _place = Place(&round, number);
                    destination.converse(&socket, &round);
                });
            }
        });
        let before = lock(&self.shared.serving).replace(Serving { round, listening });
        assert!(before.is_none(), "the destination serves already");
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:port`, as ALLOW HOSTS wants it.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    /// Connections so far, with or without a request.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Requests so far for a path, its query left out.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        let of_path = |request: &&Request| request.path.split('?').next() == Some(path);
        self.all().iter().filter(of_path).cloned().collect()
    }

    pub fn all(&self) -> Vec<Request> {
        self.taken().into_iter().map(|taken| taken.request).collect()
    }

    /// Everything that came, in order.
    pub fn taken(&self) -> Vec<Taken> {
        lock(&self.shared.taken).clone()
    }

    /// Waits until the requests for a path are as `enough` wants them.
    pub async fn wait_for(
        &self,
        path: &str,
        what: &str,
        enough: impl Fn(&[Request]) -> bool,
    ) -> Vec<Request> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let requests = self.requests(path);
            if enough(&requests) {
                return requests;
            }
            if Instant::now() > deadline {
                let seen: Vec<String> =
                    self.all().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
                panic!("{path}: {what} did not come within {PATIENCE:?}; what came:\n{}", seen.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Serves one connection until it ends.
    fn converse(&self, socket: &TcpStream, round: &Round) {
        let _ = socket.set_nodelay(true);
        let mut reader = BufReader::new(socket);
        while let Some(request) = self.next_request(&mut reader) {
            let head_only = request.method == "HEAD";
            // Seen before it is answered: a script may wait for somebody who waits for the request.
            let place = {
                let mut taken = lock(&self.shared.taken);
                if round.over.load(Ordering::SeqCst) {
                    return;
                }
                taken.push(Taken { request: request.clone(), status: None });
                taken.len() - 1
            };
            let answer = {
                let mut script = lock(&self.shared.script);
                (*script)(&request)
            };
            {
                let mut taken = lock(&self.shared.taken);
                if round.over.load(Ordering::SeqCst) {
                    return;
                }
                // Unless all were forgotten meanwhile.
                if let Some(taken) = taken.get_mut(place) {
                    taken.status = (answer.end == End::Answered).then_some(answer.status);
                }
            }
            thread::sleep(answer.wait);
            match answer.end {
                End::Answered => {
                    if write(socket, &answer, head_only).is_err() {
                        return;
                    }
                }
                End::Silent => {
                    // Ends when the other side hangs up.
                    let _ = reader.read(&mut [0; 1]);
                    return;
                }
                End::Closed => return,
            }
        }
    }

    /// The next request; `None` at the end of the connection, or of sense, or where it is cut off.
    fn next_request(&self, reader: &mut impl BufRead) -> Option<Request> {
        let (mut request, length) = read_head(reader)?;
        let one_less = |cuts: usize| cuts.checked_sub(1);
        let cuts = &self.shared.cuts;
        let cut = length > 0 && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        request.body.resize(if cut { length / 2 } else { length }, 0);
        reader.read_exact(&mut request.body).ok()?;
        (!cut).then_some(request)
    }
}

/// A script that panicked has failed its test already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request without its body, and how long that is.
fn read_head(reader: &mut impl BufRead) -> Option<(Request, usize)> {
    let first = line(reader)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    let request = Request { method, path, headers, body: Vec::new() };
    assert_eq!(request.header("transfer-encoding"), None, "a body without its length: {request:?}");
    let length = request.header("content-length").map_or(Some(0), |length| length.parse().ok())?;
    (length <= MAX_BODY_BYTES).then_some((request, length))
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = reader.read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}

fn write(mut socket: &TcpStream, answer: &Answer, head_only: bool) -> std::io::Result<()> {
    let mut out = format!("HTTP/1.1 {} Answer\r\n", answer.status).into_bytes();
    for (name, value) in &answer.headers {
        write!(out, "{name}: {value}\r\n")?;
    }
    // 204 has no body, and says nothing of one.
    if answer.status != 204 {
        write!(out, "content-length: {}\r\n", answer.body.len())?;
    }
    out.extend_from_slice(b"\r\n");
    if !head_only {
        out.extend_from_slice(&answer.body);
    }
    socket.write_all(&out)
}
