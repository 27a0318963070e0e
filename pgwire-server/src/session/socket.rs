//! A client's socket: plain or TLS, watched by the runtime or asked by its session alone.
//!
//! Made by `startup`, used by `wire`. A session that waits awake takes its plain socket out of the runtime's hands: else
//! each message would also wake the thread that watches for all, which nobody waits for. Whoever has to sleep until the
//! socket is ready gives it back by that alone. Knows nothing of messages.

use std::{
    io::{self, Write},
    mem, net,
    pin::Pin,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// The client's socket.
pub enum Socket {
    Plain(Plain),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket without TLS.
pub enum Plain {
    /// The runtime is told when it is ready.
    Watched(TcpStream),
    /// Nobody is: it is asked.
    Asked(net::TcpStream),
    /// Between the two, if that has failed.
    Gone,
}

impl Socket {
    pub const fn plain(socket: TcpStream) -> Self {
        Self::Plain(Plain::Watched(socket))
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether the client is on this machine, as far as its address tells.
    pub fn is_local(&self) -> bool {
        let peer = self.reference().and_then(|socket| socket.peer_addr().ok()?.as_socket());
        peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
    }

    /// What it is to the system.
    pub fn reference(&self) -> Option<SockRef<'_>> {
        match self {
            Self::Plain(Plain::Watched(socket)) => Some(SockRef::from(socket)),
            Self::Plain(Plain::Asked(socket)) => Some(SockRef::from(socket)),
            Self::Plain(Plain::Gone) => None,
            Self::Tls(socket) => Some(SockRef::from(socket.get_ref().0)),
        }
    }

    /// The socket itself, out of the runtime's hands; `None` with TLS.
    pub fn taken_out(&mut self) -> io::Result<Option<&net::TcpStream>> {
        let Self::Plain(plain) = self else { return Ok(None) };
        if let Plain::Watched(_) = plain
            && let Plain::Watched(socket) = mem::replace(plain, Plain::Gone)
        {
            *plain = Plain::Asked(socket.into_std()?);
        }
        match plain {
            Plain::Asked(socket) => Ok(Some(socket)),
            Plain::Watched(_) | Plain::Gone => Err(gone()),
        }
    }
}

impl Plain {
    /// The socket in the runtime's hands.
    fn watched(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Self::Asked(_) = self
            && let Self::Asked(socket) = mem::replace(self, Self::Gone)
        {
            *self = Self::Watched(TcpStream::from_std(socket)?);
        }
        match self {
            Self::Watched(socket) => Ok(Pin::new(socket)),
            Self::Asked(_) | Self::Gone => Err(gone()),
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => socket.watched()?.poll_read(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => {
                if let Plain::Asked(asked) = socket {
                    match asked.write(buf) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        written => return Poll::Ready(written),
                    }
                }
                socket.watched()?.poll_write(cx, buf)
            }
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // What was written is on its way.
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => {
                ready!(socket.watched()?.poll_shutdown(cx))?;
                Poll::Ready(Ok(()))
            }
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::plain(listener.accept().await.unwrap().0), client)
    }

    #[tokio::test]
    async fn it_changes_hands_and_loses_nothing() {
        let (mut socket, mut client) = pair().await;
        assert!(socket.is_local());
        for turn in 0..3_u8 {
            client.write_all(&[turn, turn + 10]).await.unwrap();
            let mut byte = [0];
            socket.read_exact(&mut byte).await.unwrap();
            assert_eq!(byte, [turn], "it is watched");
            // What is there already when it changes hands is not waited for in vain.
            assert!(socket.taken_out().unwrap().is_some() && socket.is_local());
            socket.write_all(&[turn + 20]).await.unwrap();
            assert!(matches!(socket, Socket::Plain(Plain::Asked(_))), "it writes without the runtime");
            assert_eq!(client.read_u8().await.unwrap(), turn + 20);
            timeout(Duration::from_secs(20), socket.read_exact(&mut byte)).await.unwrap().unwrap();
            assert_eq!(byte, [turn + 10]);
            assert!(matches!(socket, Socket::Plain(Plain::Watched(_))), "who waits gives it back");
        }
    }

    /// More than the system takes at once, to a client that begins to read late.
    #[tokio::test]
    async fn a_client_that_reads_late_gets_everything() {
        let (mut socket, mut client) = pair().await;
        socket.taken_out().unwrap();
        let sent: Vec<u8> = (0..16 << 20).map(|place: u32| place.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            socket.write_all(&sent).await.unwrap();
            socket.shutdown().await.unwrap();
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut found = Vec::new();
        client.read_to_end(&mut found).await.unwrap();
        writer.await.unwrap();
        assert!(found == expected, "{} of {} bytes", found.len(), expected.len());
    }
}
