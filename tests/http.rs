//! An HTTP server of the test's own: what plugins send arrives here, and the test says what is answered.
//!
//! HTTP/1.1 over plain sockets, a thread for each connection, bodies with a length only: what the server's client
//! sends. It never links what it judges.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long something may take that will come if all is well: a debug build on a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(120);
const MAX_BODY_BYTES: usize = 64 << 20;

/// A request as it arrived.
#[derive(Clone, Debug)]
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

    /// `Bearer` and what follows.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }
}

/// What is sent back.
#[derive(Clone, Debug)]
pub struct Answer {
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
        Self { status, headers: Vec::new(), body: Vec::new(), end: End::Answered }
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
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
}

/// A server, listening as long as the process lives.
#[derive(Clone)]
pub struct Destination {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
}

impl Destination {
    /// On an address of this machine: all of 127.0.0.0/8 is.
    pub fn start(host: &str, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Destination {
        let listener = TcpListener::bind((host, 0)).expect("an address of this machine");
        let destination = Destination {
            address: listener.local_addr().expect("its address"),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (serving, answer) = (destination.clone(), Arc::new(answer));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let (serving, answer) = (serving.clone(), Arc::clone(&answer));
                thread::spawn(move || serving.converse(&socket, &*answer));
            }
        });
        destination
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
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests so far for a path, its query left out.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        let of_path = |request: &&Request| request.path.split('?').next() == Some(path);
        self.all().iter().filter(of_path).cloned().collect()
    }

    pub fn all(&self) -> Vec<Request> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    fn converse(&self, socket: &TcpStream, answer: &dyn Fn(&Request) -> Answer) {
        let mut reader = BufReader::new(socket);
        while let Some(request) = read(&mut reader) {
            let head_only = request.method == "HEAD";
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            let answer = answer(&request);
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
}

/// The next request; `None` at the end of the connection, or of sense.
fn read(reader: &mut impl BufRead) -> Option<Request> {
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
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(Some(0), |length| length.parse().ok())?;
    if length > MAX_BODY_BYTES {
        return None;
    }
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
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
