//! A Postgres client that sends any bytes: what no driver would.
//!
//! Used by `frames`, `protocol`, `survivor`, `auth` and `connections`. Blocking, one socket, no state but the
//! stream. Messages to the server are built by hand, so a test can lie about every length and count.
//!
//! ```text
//! type u8 | length u32 (itself and the body) | body
//! ```

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use crate::server::{Login, tls_config};

/// No answer of a living server takes longer, in a debug build on a busy machine.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Protocol 3.0.
pub const PROTOCOL: u32 = 196_608;
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A connection, encrypted or not.
pub struct Wire {
    stream: Stream,
    /// From BackendKeyData.
    pub process: i32,
    pub secret: i32,
    /// From ParameterStatus.
    pub parameters: Vec<(String, String)>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: char,
    pub body: Vec<u8>,
}

/// What a connection ended with: the last error, if any, and everything before it.
#[derive(Debug)]
pub struct End {
    pub messages: Vec<Message>,
}

impl Wire {
    /// A TCP connection on which nothing was said.
    pub fn dial(login: &Login) -> Wire {
        let socket = TcpStream::connect(login.address()).expect("connect");
        socket.set_read_timeout(Some(READ_TIMEOUT)).expect("timeout");
        socket.set_write_timeout(Some(READ_TIMEOUT)).expect("timeout");
        socket.set_nodelay(true).expect("no delay");
        Wire { stream: Stream::Plain(socket), process: 0, secret: 0, parameters: Vec::new() }
    }

    /// Encrypted as the login asks; no startup packet yet.
    pub fn encrypted(login: &Login) -> Wire {
        let mut wire = Wire::dial(login);
        let Some(authority) = &login.authority else { return wire };
        wire.send(&SSL_REQUEST);
        let mut answer = [0];
        wire.read_exact(&mut answer).expect("an answer to SSLRequest");
        assert_eq!(answer, *b"S", "the server refuses TLS");
        let Stream::Plain(socket) = wire.stream else { unreachable!("TLS comes later") };
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(tls_config(authority)), name).expect("TLS");
        wire.stream = Stream::Tls(Box::new(StreamOwned::new(connection, socket)));
        wire
    }

    /// Logged in and ready. The user must be a tenant's name, whose password goes in clear inside TLS.
    pub fn log_in(login: &Login) -> Wire {
        Wire::log_in_with(login, &[])
    }

    /// Logged in with more startup parameters.
    pub fn log_in_with(login: &Login, parameters: &[(&str, &str)]) -> Wire {
        let mut wire = Wire::encrypted(login);
        let mut all = vec![("user", login.user.as_str()), ("database", login.database.as_str())];
        all.extend_from_slice(parameters);
        wire.send(&startup(PROTOCOL, &all));
        let asked = wire.message().expect("an authentication request");
        assert_eq!((asked.kind, &asked.body[..]), ('R', &[0, 0, 0, 3][..]), "{asked:?}");
        wire.send(&frame(b'p', &cstring(&login.token)));
        loop {
            let message = wire.message().expect("the way to ReadyForQuery");
            match message.kind {
                'S' => {
                    let mut texts = message.body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
                    let mut next = || texts.next().expect("two strings").into_owned();
                    wire.parameters.push((next(), next()));
                }
                'K' => {
                    let word =
                        |at: usize| i32::from_be_bytes(message.body[at..at + 4].try_into().expect("4 bytes"));
                    (wire.process, wire.secret) = (word(0), word(4));
                }
                'Z' => return wire,
                'E' => panic!("login refused: {}", message.describe()),
                _ => {}
            }
        }
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sends bytes; a server that has hung up already is no failure of the test.
    pub fn send(&mut self, bytes: &[u8]) {
        let done = match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes).and_then(|()| socket.flush()),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        if let Err(error) = done {
            let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
            assert!(gone.contains(&error.kind()), "send: {error}");
        }
    }

    pub fn set_read_timeout(&mut self, timeout: Duration) {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.get_ref(),
        };
        socket.set_read_timeout(Some(timeout)).expect("timeout");
    }

    pub fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.read_exact(into),
            Stream::Tls(stream) => stream.read_exact(into),
        }
    }

    /// The next message; `None` when the server has closed the connection. Panics when nothing comes.
    pub fn message(&mut self) -> Option<Message> {
        let mut head = [0; 5];
        if let Err(error) = self.read_exact(&mut head) {
            assert!(closed(&error), "waiting for a message: {error}");
            return None;
        }
        let length = u32::from_be_bytes(head[1..].try_into().expect("4 bytes")) as usize;
        assert!((4..1 << 30).contains(&length), "the server sent a length of {length}");
        let mut body = vec![0; length - 4];
        if let Err(error) = self.read_exact(&mut body) {
            assert!(closed(&error), "waiting for a body: {error}");
            return None;
        }
        Some(Message { kind: char::from(head[0]), body })
    }

    /// Whether nothing arrives within `wait`.
    pub fn is_silent_for(&mut self, wait: Duration) -> bool {
        self.set_read_timeout(wait);
        let read = self.read_exact(&mut [0; 1]);
        self.set_read_timeout(READ_TIMEOUT);
        matches!(read, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Messages up to and with ReadyForQuery.
    pub fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.message().unwrap_or_else(|| panic!("closed after {messages:?}"));
            let ready = message.kind == 'Z';
            messages.push(message);
            if ready {
                return messages;
            }
        }
    }

    /// Everything until the server closes the connection.
    pub fn until_closed(&mut self) -> End {
        let mut messages = Vec::new();
        while let Some(message) = self.message() {
            messages.push(message);
        }
        End { messages }
    }

    /// A simple query.
    pub fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(&query(sql));
        self.until_ready()
    }
}

impl Message {
    /// A field of an error or notice.
    pub fn field(&self, code: char) -> Option<String> {
        self.body.split(|byte| *byte == 0).find_map(|field| {
            let (first, text) = field.split_first()?;
            (char::from(*first) == code).then(|| String::from_utf8_lossy(text).into_owned())
        })
    }

    /// SQLSTATE of an error.
    pub fn state(&self) -> String {
        assert_eq!(self.kind, 'E', "{self:?} is no error");
        self.field('C').expect("an error has a SQLSTATE")
    }

    pub fn describe(&self) -> String {
        match self.kind {
            'E' | 'N' => format!(
                "{} {}: {}",
                self.field('S').unwrap_or_default(),
                self.field('C').unwrap_or_default(),
                self.field('M').unwrap_or_default()
            ),
            kind => format!("{kind} of {} bytes", self.body.len()),
        }
    }
}

impl End {
    /// The error that the connection ended with.
    pub fn error(&self) -> &Message {
        match self.messages.last() {
            Some(message) if message.kind == 'E' => message,
            other => {
                panic!("the connection ended with {:?}, not with an error", other.map(Message::describe))
            }
        }
    }
}

/// The types of messages, as a word: `T D D C Z`.
pub fn kinds(messages: &[Message]) -> String {
    messages.iter().map(|message| message.kind.to_string()).collect::<Vec<_>>().join(" ")
}

/// The only error among messages.
pub fn only_error(messages: &[Message]) -> &Message {
    let errors: Vec<_> = messages.iter().filter(|message| message.kind == 'E').collect();
    assert_eq!(errors.len(), 1, "one error expected in {}", kinds(messages));
    errors[0]
}

/// A whole message with an honest length.
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a small body");
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

pub fn cstring(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &cstring(sql))
}

pub fn startup(protocol: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = protocol.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(cstring(name));
        body.extend(cstring(value));
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).expect("a small body");
    [&length.to_be_bytes()[..], &body].concat()
}

pub fn cancel_request(process: i32, secret: i32) -> Vec<u8> {
    [&[0, 0, 0, 16, 4, 210, 22, 46][..], &process.to_be_bytes(), &secret.to_be_bytes()].concat()
}

pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = [cstring(name), cstring(sql)].concat();
    body.extend(u16::try_from(types.len()).expect("few types").to_be_bytes());
    for oid in types {
        body.extend(oid.to_be_bytes());
    }
    frame(b'P', &body)
}

/// Bind with these format codes and values (`None`: NULL) and result format codes.
pub fn bind(
    portal: &str,
    statement: &str,
    formats: &[i16],
    values: &[Option<&[u8]>],
    results: &[i16],
) -> Vec<u8> {
    let count = |n: usize| u16::try_from(n).expect("few values").to_be_bytes();
    let mut body = [cstring(portal), cstring(statement)].concat();
    body.extend(count(formats.len()));
    formats.iter().for_each(|code| body.extend(code.to_be_bytes()));
    body.extend(count(values.len()));
    for value in values {
        match value {
            Some(bytes) => {
                body.extend(u32::try_from(bytes.len()).expect("a small value").to_be_bytes());
                body.extend_from_slice(bytes);
            }
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    body.extend(count(results.len()));
    results.iter().for_each(|code| body.extend(code.to_be_bytes()));
    frame(b'B', &body)
}

/// Describe or Close (`kind` D or C) of a statement (`what` S) or portal (P).
pub fn about(kind: u8, what: u8, name: &str) -> Vec<u8> {
    frame(kind, &[&[what], &cstring(name)[..]].concat())
}

pub fn execute(portal: &str, max_rows: i32) -> Vec<u8> {
    frame(b'E', &[&cstring(portal)[..], &max_rows.to_be_bytes()].concat())
}

pub fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

pub fn flush() -> Vec<u8> {
    frame(b'H', &[])
}

fn closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}
