//! One client's socket with its two buffers: frames are cut from `input`, messages gathered in `out`.
//!
//! Used by `session` only. Everything here may be dropped between two polls without losing bytes, so that it
//! can stand in a `select!`. A large message waits for its tenant's memory budget before it is read, and is
//! read as it comes: nothing is allocated because a length says so.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use prometheus::IntCounter;
use sepal_database::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::socket::Socket;
use crate::frame::{FrameLimits, Progress, Rejection, Severity, error_response, scan, write::whole_messages};

/// The output is sent when it has grown to this.
pub const FLUSH_BYTES: usize = 64 * 1024;
/// Buffers larger than this are given back when empty.
const KEEP_BYTES: usize = 256 * 1024;
/// Messages above this need the tenant's budget.
const FREE_BYTES: usize = 1024 * 1024;
/// So much is read ahead while a statement runs; then the client has to wait.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// Least room offered to one read.
const READ_BYTES: usize = 8 * 1024;

/// One whole message. Its share of the budget returns when it drops.
pub struct Frame {
    pub kind: u8,
    pub body: Bytes,
    _granted: Option<OwnedSemaphorePermit>,
}

/// The socket and its buffers.
pub struct Wire {
    socket: Socket,
    /// Whether the client is on this machine, as far as its address tells.
    is_local: bool,
    input: BytesMut,
    pub out: BytesMut,
    /// Bytes of `out` that are sent already, while a flush is under way.
    sent: usize,
    limits: FrameLimits,
    budget: Option<Arc<Semaphore>>,
    granted: Option<OwnedSemaphorePermit>,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
}

impl Wire {
    /// Starts with the limits of an unauthenticated client.
    pub fn new(socket: Socket, received_bytes: IntCounter, sent_bytes: IntCounter) -> Self {
        let is_local = socket.is_local();
        Self {
            socket,
            is_local,
            input: BytesMut::new(),
            out: BytesMut::new(),
            sent: 0,
            limits: FrameLimits::UNAUTHENTICATED,
            budget: None,
            granted: None,
            received_bytes,
            sent_bytes,
        }
    }

    pub fn is_tls(&self) -> bool {
        self.socket.is_tls()
    }

    /// The processor that the last packet came from, if it is this machine's (`SO_INCOMING_CPU`).
    pub fn client_cpu(&self) -> Option<usize> {
        if !self.is_local {
            return None;
        }
        self.socket.reference()?.cpu_affinity().ok()
    }

    /// Lets an authenticated client send more. `budget` counts KiB.
    pub fn raise_limits(&mut self, limits: FrameLimits, budget: Arc<Semaphore>) {
        self.limits = limits;
        self.budget = Some(budget);
    }

    /// Cuts the next frame out of what has arrived; `None` when it is not whole yet.
    pub fn take_frame(&mut self) -> Result<Option<Frame>, Rejection> {
        match scan(&self.input, self.limits)? {
            Progress::Need(_) => Ok(None),
            Progress::Frame { kind, total } => {
                let body = self.input.split_to(total).freeze().slice(5..);
                if total > KEEP_BYTES {
                    // The rest would keep the large buffer alive for as long as the connection.
                    self.input = BytesMut::from(&self.input[..]);
                }
                Ok(Some(Frame { kind, body, _granted: self.granted.take() }))
            }
        }
    }

    /// The type of the next message, if its first byte has arrived.
    pub fn next_kind(&self) -> Option<u8> {
        self.input.first().copied()
    }

    /// Reads once; 0 means that the client is gone.
    pub async fn fill(&mut self) -> io::Result<usize> {
        let needed = match scan(&self.input, self.limits) {
            Ok(Progress::Need(total)) => total,
            // Whatever is wrong with it, `take_frame` says so.
            Ok(Progress::Frame { .. }) | Err(_) => return Ok(1),
        };
        if needed > FREE_BYTES && self.granted.is_none() {
            self.granted = grant(self.budget.clone(), needed).await;
        }
        // Doubling at most: memory follows what has really arrived.
        let missing = needed - self.input.len();
        self.input.reserve(missing.clamp(READ_BYTES, READ_BYTES.max(self.input.len())));
        self.read().await
    }

    /// Reads while a statement runs, to learn of a client that leaves; waits for ever once enough is buffered.
    pub async fn read_ahead(&mut self) -> io::Result<usize> {
        if self.input.len() >= READ_AHEAD_BYTES {
            return std::future::pending().await;
        }
        self.input.reserve(READ_BYTES);
        self.read().await
    }

    /// Whether all that was read is used.
    pub fn is_between_messages(&self) -> bool {
        self.input.is_empty()
    }

    /// Reads what is there; `None` when nothing is. A plain socket is taken out of the runtime's hands for it, until
    /// somebody has to wait, and asked for as long as `again` says.
    pub fn read_now(&mut self, again: impl Fn() -> bool) -> Option<io::Result<usize>> {
        let socket = match self.socket.taken_out() {
            Ok(Some(socket)) => socket,
            Ok(None) => {
                self.input.reserve(READ_BYTES);
                return self.read().now_or_never();
            }
            Err(error) => return Some(Err(error)),
        };
        let before = self.input.len();
        self.input.resize(before + READ_BYTES, 0);
        let read = loop {
            match (&mut &*socket).read(&mut self.input[before..]) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    if !again() {
                        break None;
                    }
                }
                read => break Some(read),
            }
        };
        let bytes = read.as_ref().and_then(|read| read.as_ref().ok()).map_or(0, |bytes| *bytes);
        self.input.truncate(before + bytes);
        self.received_bytes.inc_by(bytes as u64);
        read
    }

    async fn read(&mut self) -> io::Result<usize> {
        let read = self.socket.read_buf(&mut self.input).await?;
        self.received_bytes.inc_by(read as u64);
        Ok(read)
    }

    /// Sends everything gathered. May be dropped and called again.
    pub async fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            let written = self.socket.write(&self.out[self.sent..]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent += written;
            self.sent_bytes.inc_by(written as u64);
        }
        self.socket.flush().await?;
        self.sent = 0;
        if self.out.capacity() > KEEP_BYTES {
            self.out = BytesMut::new();
        } else {
            self.out.clear();
        }
        Ok(())
    }

    /// Whether the output should be sent before more is gathered.
    pub fn is_full(&self) -> bool {
        self.out.len() >= FLUSH_BYTES
    }

    /// Says why and closes. After a panic `out` may end in half a message, which is cut off; if a flush was
    /// under way nothing can be said any more.
    pub async fn end(mut self, fatal: Option<&Error>) {
        if self.sent == 0 {
            self.out.truncate(whole_messages(&self.out));
            if let Some(error) = fatal {
                error_response(&mut self.out, Severity::Fatal, error);
            }
        }
        // A client that does not read cannot hold the task.
        let goodbye = async {
            self.flush().await?;
            self.socket.shutdown().await?;
            if fatal.is_some() {
                // Closing with unread input would reset the connection and take the message with it.
                let mut unread = [0; 4096];
                while self.socket.read(&mut unread).await? > 0 {}
            }
            io::Result::Ok(())
        };
        let _closed_or_not = timeout(Duration::from_millis(500), goodbye).await;
    }
}

/// Waits until the tenant's budget has room for a message of so many bytes.
async fn grant(budget: Option<Arc<Semaphore>>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    // The budget is never closed, so this only fails if there is none, and then nothing is counted.
    budget?.acquire_many_owned(kib).await.ok()
}
