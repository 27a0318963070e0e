//! From the first byte to a startup packet: TLS, GSS refusal, cancel requests, parameters.
//!
//! Called by `session::run` within the startup timeout. Reads exactly as many raw bytes as the protocol says,
//! so nothing sent before the handshake can be taken for something sent through it (CVE-2021-23214).
//!
//! ```text
//! 0x16 …            TLS at once, ALPN "postgresql" required
//! GSSENCRequest     'N', read again
//! SSLRequest        'S' and handshake, or 'N' where TLS is not configured
//! CancelRequest     done without an answer; libpq before 17 sends it unencrypted, so it is taken so too
//! startup packet    over TLS, or over loopback where plaintext is allowed
//! ```

use std::{io, net::SocketAddr};

use futures::FutureExt;
use sepal_database::{Error, SqlState};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{errors::protocol, options, socket::Socket, wire::Wire};
use crate::{
    frame::{self, MAX_STARTUP_BYTES, Startup},
    server::Shared,
};

/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What the client asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub user: String,
    /// The environment, as the client named the database.
    pub database: Option<String>,
    /// Settings, those from `options` included, in the order given.
    pub settings: Vec<(String, String)>,
    /// `_pq_.` options, none of which is known.
    pub unknown_options: Vec<String>,
    pub minor: u16,
}

/// How the first phase ended.
pub enum Opened {
    Client(Wire, Request),
    /// The client must be told why it cannot come in.
    Refused(Wire, Error),
    /// Nothing is to be said.
    Done,
}

/// A decoded packet that owns its text.
enum Packet {
    Cancel { process: i32, secret: i32 },
    GssEnc,
    Ssl,
    Client(Request),
    Refused(Error),
}

/// Negotiates until there is a startup packet.
pub async fn negotiate(shared: &Shared, mut socket: TcpStream, peer: SocketAddr) -> io::Result<Opened> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Ok(Opened::Done);
    }
    if first[0] == TLS_HANDSHAKE {
        return over_tls(shared, socket, true).await;
    }
    let (mut ssl_asked, mut gss_asked) = (false, false);
    loop {
        match read_packet(&mut socket).await? {
            Packet::Ssl if !ssl_asked => {
                ssl_asked = true;
                if shared.options.tls.is_none() {
                    socket.write_all(b"N").await?;
                    continue;
                }
                if has_input(&socket) {
                    shared.metrics.connections_refused.with_label_values(&["tls"]).inc();
                    let error = protocol("received unencrypted data after SSL request").with_detail(
                        "Either the client is broken or somebody sits between it and this server.",
                    );
                    return Ok(Opened::Refused(wire(shared, Socket::plain(socket)), error));
                }
                socket.write_all(b"S").await?;
                return over_tls(shared, socket, false).await;
            }
            Packet::GssEnc if !gss_asked => {
                gss_asked = true;
                socket.write_all(b"N").await?;
            }
            Packet::Ssl | Packet::GssEnc => {
                let error = protocol("encryption was requested twice");
                return Ok(Opened::Refused(wire(shared, Socket::plain(socket)), error));
            }
            Packet::Cancel { process, secret } => {
                cancel(shared, process, secret);
                return Ok(Opened::Done);
            }
            Packet::Refused(error) => {
                return Ok(Opened::Refused(wire(shared, Socket::plain(socket)), error));
            }
            Packet::Client(request) => {
                let wire = wire(shared, Socket::plain(socket));
                if shared.options.insecure_plaintext && peer.ip().to_canonical().is_loopback() {
                    return Ok(Opened::Client(wire, request));
                }
                shared.metrics.connections_refused.with_label_values(&["plaintext"]).inc();
                return Ok(Opened::Refused(wire, plaintext_refused()));
            }
        }
    }
}

fn plaintext_refused() -> Error {
    Error::new(SqlState::InvalidAuthorization, "this server accepts encrypted connections only")
        .with_hint("Connect with TLS: add sslmode=require to the connection string.")
}

/// Whether bytes lie in the socket already. None may before the handshake: the client has to wait for `S`.
fn has_input(socket: &TcpStream) -> bool {
    let mut byte = [0];
    // A peek that is not ready at once has nothing to show.
    matches!(socket.peek(&mut byte).now_or_never(), Some(Ok(1..)))
}

async fn over_tls(shared: &Shared, socket: TcpStream, direct: bool) -> io::Result<Opened> {
    let Some(tls) = &shared.options.tls else {
        return Ok(Opened::Done);
    };
    let accepted = tls.accept(socket, direct).await;
    let mut socket = match accepted {
        Ok(stream) => Socket::Tls(Box::new(stream)),
        Err(error) => {
            shared.metrics.connections_refused.with_label_values(&["tls"]).inc();
            return Err(error);
        }
    };
    Ok(match read_packet(&mut socket).await? {
        Packet::Client(request) => Opened::Client(wire(shared, socket), request),
        Packet::Cancel { process, secret } => {
            cancel(shared, process, secret);
            Opened::Done
        }
        Packet::Refused(error) => Opened::Refused(wire(shared, socket), error),
        Packet::Ssl | Packet::GssEnc => Opened::Refused(
            wire(shared, socket),
            protocol("encryption was requested inside an encrypted connection"),
        ),
    })
}

fn wire(shared: &Shared, socket: Socket) -> Wire {
    Wire::new(socket, shared.metrics.bytes_received.clone(), shared.metrics.bytes_sent.clone())
}

fn cancel(shared: &Shared, process: i32, secret: i32) {
    if shared.cancels.cancel(process, secret) {
        shared.metrics.cancels.inc();
    }
}

/// Reads one packet and not a byte more.
async fn read_packet(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<Packet> {
    let length = socket.read_u32().await?;
    if !(8..=MAX_STARTUP_BYTES).contains(&length) {
        return Ok(Packet::Refused(protocol(format!(
            "invalid length of startup packet: {length}, it must lie between 8 and {MAX_STARTUP_BYTES}"
        ))));
    }
    let mut body = vec![0; length as usize - 4];
    socket.read_exact(&mut body).await?;
    Ok(match frame::startup(&body) {
        Ok(Startup::Cancel { process, secret }) => Packet::Cancel { process, secret },
        Ok(Startup::GssEnc) => Packet::GssEnc,
        Ok(Startup::Ssl) => Packet::Ssl,
        Ok(Startup::Parameters { major: 3, minor, parameters }) => match request(minor, &parameters) {
            Ok(request) => Packet::Client(request),
            Err(error) => Packet::Refused(error),
        },
        Ok(Startup::Parameters { major, minor, .. }) => Packet::Refused(Error::new(
            SqlState::FeatureNotSupported,
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"),
        )),
        Err(rejection) => Packet::Refused(rejection.error().clone()),
    })
}

/// Sorts the parameters of a startup packet.
pub(super) fn request(minor: u16, parameters: &[(&str, &str)]) -> Result<Request, Error> {
    let mut request = Request { minor, ..Request::default() };
    for (name, value) in parameters {
        match *name {
            "user" => (*value).clone_into(&mut request.user),
            "database" if !value.is_empty() => request.database = Some((*value).to_owned()),
            "database" => {}
            "options" => request.settings.extend(options::parse(value)?),
            "client_encoding" => options::check_encoding(value)?,
            "replication" if matches!(*value, "0" | "no" | "off" | "false") => {}
            "replication" => return Err(Error::unsupported("replication connections are not supported")),
            name if name.starts_with("_pq_.") => request.unknown_options.push(name.to_owned()),
            name => request.settings.push((name.to_owned(), (*value).to_owned())),
        }
    }
    if request.user.is_empty() {
        return Err(Error::new(
            SqlState::InvalidAuthorization,
            "no PostgreSQL user name specified in startup packet",
        )
        .with_hint("Log in as an API key's id, or as the tenant with the whole token as password."));
    }
    Ok(request)
}
