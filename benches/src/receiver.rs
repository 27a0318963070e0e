//! A destination that costs next to nothing: HTTP/1.1 over kept connections, a thread for each.
//!
//! Reads a body, counts its lines, answers 200. It can be slow on purpose, and it can keep the requests: [`replay`]
//! sends the same bytes again over one connection with nothing in between, which is what this destination takes by
//! itself. Used by `pipeline_load` and by `micro/plugins.rs`. Bodies need a content-length.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::Failure;

const FIRST_BYTES: usize = 256 << 10;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Where a request's head and its body stand.
type Parts = (Range<usize>, Range<usize>);

/// Listens until the process ends.
#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    arrived: Condvar,
    /// Time that a row takes the destination, in nanoseconds: it sleeps before it answers.
    row_ns: AtomicU64,
}

/// What came since [`Receiver::begin`].
#[derive(Default)]
struct Tally {
    rows: u64,
    requests: u64,
    bytes: u64,
    last: Option<Instant>,
    recording: Option<Vec<Vec<u8>>>,
}

/// A copy of the tally.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    pub rows: u64,
    pub requests: u64,
    /// Of the bodies.
    pub bytes: u64,
    /// When the last request was answered.
    pub last: Option<Instant>,
}

impl Receiver {
    /// At a free port of this machine.
    pub fn start() -> Result<Receiver, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared: Arc<Shared> = Arc::default();
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    if let Err(error) = Incoming::new(stream).serve(&shared) {
                        eprintln!("receiver: {error}");
                    }
                });
            }
        });
        Ok(Receiver { address, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where to send: `http://127.0.0.1:…`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on a row takes the destination so long; zero: nothing.
    pub fn pace(&self, row: Duration) {
        self.shared.row_ns.store(u64::try_from(row.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts anew. `record`: keeps the requests too.
    pub fn begin(&self, record: bool) {
        *self.shared.tally.lock() = Tally { recording: record.then(Vec::new), ..Tally::default() };
    }

    /// The requests that were kept, with head and body.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.shared.tally.lock().recording.take().unwrap_or_default()
    }

    pub fn arrived(&self) -> Arrived {
        self.shared.tally.lock().arrived()
    }

    /// Waits for so many rows. Errors: none came for as long as `patience`.
    pub fn wait_for(&self, rows: u64, patience: Duration) -> Result<Arrived, Failure> {
        let mut tally = self.shared.tally.lock();
        while tally.rows < rows {
            if self.shared.arrived.wait_for(&mut tally, patience).timed_out() && tally.rows < rows {
                let got = tally.rows;
                return Err(format!("{got} of {rows} rows arrived, then none for {patience:?}").into());
            }
        }
        Ok(tally.arrived())
    }
}

impl Tally {
    fn arrived(&self) -> Arrived {
        Arrived { rows: self.rows, requests: self.requests, bytes: self.bytes, last: self.last }
    }
}

impl Shared {
    fn take(&self, request: &[u8], body: &[u8]) {
        let rows = lines(body);
        let row = Duration::from_nanos(self.row_ns.load(Ordering::Relaxed));
        let pause = row.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX));
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        let mut tally = self.tally.lock();
        tally.rows += rows;
        tally.requests += 1;
        tally.bytes += body.len() as u64;
        tally.last = Some(Instant::now());
        if let Some(recording) = &mut tally.recording {
            recording.push(request.to_vec());
        }
        self.arrived.notify_all();
    }
}

/// A connection and what was read of it: `buffer[..filled]`.
struct Incoming {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Incoming {
    fn new(stream: TcpStream) -> Incoming {
        Incoming { stream, buffer: vec![0; FIRST_BYTES], filled: 0 }
    }

    /// Until the other side closes.
    fn serve(mut self, shared: &Shared) -> Result<(), Failure> {
        self.stream.set_nodelay(true)?;
        while let Some((head, body)) = self.request()? {
            let end = body.end;
            // A HEAD is somebody who looks whether anybody is here.
            if self.buffer.starts_with(b"POST") {
                shared.take(&self.buffer[head.start..end], &self.buffer[body]);
            }
            self.stream.write_all(ANSWER)?;
            self.buffer.copy_within(end..self.filled, 0);
            self.filled -= end;
        }
        Ok(())
    }

    /// Where the next request's head and body are.
    fn request(&mut self) -> Result<Option<Parts>, Failure> {
        let head = loop {
            let read = &self.buffer[..self.filled];
            let end = read.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD);
            if let Some(end) = end {
                break end + END_OF_HEAD.len();
            }
            match self.fill() {
                Ok(0) if self.filled == 0 => return Ok(None),
                Ok(0) => return Err("a connection ended within a request's head".into()),
                Ok(_) => {}
                // Whoever kept it has ended.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let end = head + body_bytes(&self.buffer[..head])?;
        while self.filled < end {
            if self.fill()? == 0 {
                return Err("a connection ended within a request's body".into());
            }
        }
        Ok(Some((0..head, head..end)))
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.filled * 2, 0);
        }
        let read = self.stream.read(&mut self.buffer[self.filled..])?;
        self.filled += read;
        Ok(read)
    }
}

/// Sends recorded requests one after the other over one connection, each once the one before is answered.
pub fn replay(address: SocketAddr, requests: &[Vec<u8>]) -> Result<(), Failure> {
    let mut poster = Poster::connect(address)?;
    requests.iter().try_for_each(|request| poster.send(request))
}

/// The least that a client can be.
pub struct Poster {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Poster {
    pub fn connect(address: SocketAddr) -> Result<Poster, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Poster { stream, answer: vec![0; ANSWER.len()] })
    }

    /// One request of bytes made beforehand, and its answer.
    pub fn send(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(request)?;
        self.stream.read_exact(&mut self.answer)?;
        if self.answer != ANSWER {
            return Err("the receiver answered something else".into());
        }
        Ok(())
    }
}

/// Zero without a content-length: a HEAD.
fn body_bytes(head: &[u8]) -> Result<usize, Failure> {
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    if header("transfer-encoding:").is_some() {
        return Err("a body without a content-length is not read here".into());
    }
    Ok(header("content-length:").map_or(Ok(0), |length| length.trim().parse::<usize>())?)
}

/// Line ends, in pieces whose count fits into a byte: what the compiler makes of that is as fast as memory.
fn lines(bytes: &[u8]) -> u64 {
    const PIECE: usize = 255;
    let count = |piece: &[u8]| piece.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
    bytes.chunks(PIECE).map(|piece| u64::from(count(piece))).sum()
}
