//! What a destination may send, how long it may take, and what of its words is shown.
//!
//! The native sinks run in the server's process: a destination that answers without end, or never, must cost its own
//! pipeline and nothing else. `postgres` and `rolled` use what is here; nothing here knows a protocol.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use sepal_database::connector::{Fault, FaultKind};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::egress::{Scrubber, line};

/// The answers to one batch. Honest ones have a few hundred bytes; a certificate chain some thousand.
const MOST_REPLY_BYTES: u64 = 1 << 20;
/// After that a connection is made anew: what a server may leave in the client's memory, such as the values of
/// parameters, goes with it.
const MOST_CONNECTION_BYTES: u64 = 64 << 20;

/// Counts what one connection receives.
#[derive(Debug, Default)]
pub(super) struct Meter {
    reply: AtomicU64,
    whole: AtomicU64,
}

impl Meter {
    /// The next reply begins.
    pub fn begin(&self) {
        self.reply.store(0, Ordering::Relaxed);
    }

    /// Time for another connection.
    pub fn is_spent(&self) -> bool {
        self.whole.load(Ordering::Relaxed) >= MOST_CONNECTION_BYTES
    }

    fn count(&self, bytes: usize) {
        self.reply.fetch_add(bytes as u64, Ordering::Relaxed);
        self.whole.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.reply.load(Ordering::Relaxed) >= MOST_REPLY_BYTES
    }
}

/// A connection that fails when a reply is too long. It stands below TLS: nothing beyond the limit is decrypted.
#[derive(Debug)]
pub(super) struct Metered {
    stream: TcpStream,
    meter: Arc<Meter>,
}

impl Metered {
    pub fn new(stream: TcpStream, meter: Arc<Meter>) -> Self {
        Self { stream, meter }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.meter.is_full() {
            let problem = format!("the destination sent more than {MOST_REPLY_BYTES} bytes in one reply");
            return Poll::Ready(Err(io::Error::other(problem)));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.meter.count(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Ends what takes too long. Whatever connection it used is not to be used again.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let problem = || {
        let message = format!("the destination took longer than {} s", limit.as_secs());
        Err(Fault::new(FaultKind::NotConnected, message).with_code("sink.timeout"))
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| problem())
}

/// What a destination says may hold anything: it is shown without the sink's secrets, as one line, and cut.
pub(super) fn shown(scrubber: &Scrubber, fault: Fault) -> Fault {
    Fault { message: line(&scrubber.scrub(&fault.message), &[]), ..fault }
}
