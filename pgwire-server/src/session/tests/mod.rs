//! A server on a loopback port and a client that speaks bytes, so that tests can say what no driver would.
//!
//! The trap numbers W1 … W26 name known mistakes of Postgres servers; each test that closes one carries its
//! number.

mod connection;
mod copying;
mod extended;
mod named;
mod others;
mod simple;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use sepal_database::{Database, DatabaseOptions, EnvironmentName, Key, Scopes, TenantName};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::WireMetrics,
    server::{Limits, ServeOptions, serve},
    tls::TlsConfig,
};

const TENANT: &str = "acme";

/// A running server with one tenant and one key.
struct Served {
    address: SocketAddr,
    database: Arc<Database>,
    token: String,
    key_id: String,
    metrics: Arc<WireMetrics>,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
    certificate: Vec<u8>,
    _directory: TempDir,
}

impl Served {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// TLS is on; plaintext from loopback is accepted too, unless `adjust` says otherwise.
    async fn start_with(adjust: impl FnOnce(&mut ServeOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = open_database(&directory);
        let (key_id, token) = new_key(&database, None);
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let tls = TlsConfig::from_pem(
            made.cert.pem().as_bytes(),
            made.signing_key.serialize_pem().as_bytes(),
            false,
        )
        .unwrap();
        let mut options = ServeOptions {
            tls: Some(Arc::new(tls)),
            insecure_plaintext: true,
            limits: Limits { drain_timeout: Duration::from_secs(2), ..Limits::default() },
            shutdown: CancellationToken::new(),
        };
        adjust(&mut options);
        let shutdown = options.shutdown.clone();
        let metrics = Arc::new(WireMetrics::register(&prometheus::Registry::new()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, database.clone(), options, metrics.clone()));
        Self {
            address,
            database,
            token,
            key_id,
            metrics,
            shutdown,
            task,
            certificate: made.cert.der().to_vec(),
            _directory: directory,
        }
    }

    /// A client that has logged in.
    async fn client(&self) -> Client {
        let mut client = self.connect().await;
        client.startup(&[("user", TENANT)]).await;
        assert_eq!(client.next().await, message(b'R', &[0, 0, 0, 3]));
        client.send(b'p', format!("{}\0", self.token).as_bytes()).await;
        let greeting = client.until_ready().await;
        assert_eq!(greeting.first(), Some(&message(b'R', &[0, 0, 0, 0])), "{greeting:?}");
        client
    }

    async fn connect(&self) -> Client {
        Client { socket: TcpStream::connect(self.address).await.unwrap() }
    }

    /// A client that has sent its startup packet and its token, and reads what comes.
    async fn attempt(&self, parameters: &[(&str, &str)], password: &str) -> Vec<Message> {
        let mut client = self.connect().await;
        client.startup(parameters).await;
        let first = client.next().await;
        if first.kind != b'R' {
            return vec![first];
        }
        client.send(b'p', format!("{password}\0").as_bytes()).await;
        client.until_closed_or_ready().await
    }
}

/// Stands for a bug of ours in the middle of a statement.
pub(super) fn panic_if_asked(sql: &str) {
    assert!(sql != "panic", "asked to");
}

fn open_database(directory: &TempDir) -> Arc<Database> {
    let root = Key::random();
    Database::init(directory.path(), root.clone()).unwrap();
    let options = DatabaseOptions::new(directory.path().to_owned(), root, 64 << 20);
    let database = Database::open(options).unwrap();
    database.control().create_tenant(&TenantName::parse(TENANT).unwrap()).unwrap();
    database
}

/// Another key of the tenant: its id and token.
fn new_key(database: &Database, environment: Option<&str>) -> (String, String) {
    let control = database.control();
    let tenant = control.tenant_by_name(TENANT).unwrap().unwrap();
    let (key, token) = control.create_key(tenant.id, environment, Scopes::READ_WRITE, "test", None).unwrap();
    (key.id.to_string(), token.expose().to_owned())
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    kind: u8,
    body: Vec<u8>,
}

fn message(kind: u8, body: &[u8]) -> Message {
    Message { kind, body: body.to_vec() }
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse.
    fn field(&self, code: u8) -> Option<String> {
        assert!(matches!(self.kind, b'E' | b'N'), "{self:?} is no error");
        let field = self.body.split(|byte| *byte == 0).find(|field| field.first() == Some(&code))?;
        Some(String::from_utf8(field[1..].to_vec()).unwrap())
    }

    /// Severity and SQLSTATE of an error.
    fn error(&self) -> (String, String) {
        (self.field(b'V').unwrap(), self.field(b'C').unwrap())
    }

    /// The values of a DataRow as text.
    fn row(&self) -> Vec<Option<String>> {
        assert_eq!(self.kind, b'D', "{}", self.show());
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = i32::from_be_bytes(*length);
            let (value, after) = after.split_at(usize::try_from(length).unwrap_or(0));
            values.push((length >= 0).then(|| String::from_utf8(value.to_vec()).unwrap()));
            rest = after;
        }
        values
    }

    fn show(&self) -> String {
        format!("{} {}", char::from(self.kind), String::from_utf8_lossy(&self.body))
    }
}

/// The types of messages as a string, such as `1TDCZ`.
fn kinds(messages: &[Message]) -> String {
    messages.iter().map(|message| char::from(message.kind)).collect()
}

/// The first error among messages: severity and SQLSTATE.
fn first_error(messages: &[Message]) -> (String, String) {
    let shown: Vec<String> = messages.iter().map(Message::show).collect();
    messages
        .iter()
        .find(|message| message.kind == b'E')
        .unwrap_or_else(|| panic!("no error in {shown:?}"))
        .error()
}

fn error(code: &str) -> (String, String) {
    ("ERROR".into(), code.into())
}

fn fatal(code: &str) -> (String, String) {
    ("FATAL".into(), code.into())
}

/// A client without a library.
struct Client {
    socket: TcpStream,
}

impl Client {
    async fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    async fn startup(&mut self, parameters: &[(&str, &str)]) {
        self.startup_version(3 << 16, parameters).await;
    }

    async fn startup_version(&mut self, version: u32, parameters: &[(&str, &str)]) {
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap();
        self.raw(&[&length.to_be_bytes()[..], &body].concat()).await;
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        self.raw(&frame(kind, body)).await;
    }

    async fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(b'Q', format!("{sql}\0").as_bytes()).await;
        self.until_ready().await
    }

    /// The same where the connection may be over after it.
    async fn query_to_the_end(&mut self, sql: &str) -> Vec<Message> {
        self.send(b'Q', format!("{sql}\0").as_bytes()).await;
        self.until_closed_or_ready().await
    }

    /// Runs statements that must succeed.
    async fn run(&mut self, sql: &str) -> Vec<Message> {
        let messages = self.query(sql).await;
        let failed = messages.iter().find(|message| message.kind == b'E');
        assert!(failed.is_none(), "{sql}: {}", failed.unwrap().show());
        messages
    }

    async fn read(&mut self) -> Option<Message> {
        let read = async {
            let kind = self.socket.read_u8().await.ok()?;
            let length = self.socket.read_u32().await.ok()? as usize;
            let mut body = vec![0; length - 4];
            self.socket.read_exact(&mut body).await.ok()?;
            Some(Message { kind, body })
        };
        timeout(Duration::from_secs(20), read).await.expect("the server does not answer")
    }

    async fn next(&mut self) -> Message {
        self.read().await.expect("the server closed the connection")
    }

    async fn until_ready(&mut self) -> Vec<Message> {
        let messages = self.until_closed_or_ready().await;
        let shown: Vec<String> = messages.iter().map(Message::show).collect();
        assert_eq!(messages.last().map(|last| last.kind), Some(b'Z'), "closed after {shown:?}");
        messages
    }

    async fn until_closed_or_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.read().await {
            let ready = message.kind == b'Z';
            messages.push(message);
            if ready {
                break;
            }
        }
        messages
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = format!("{name}\0{sql}\0").into_bytes();
    body.extend(u16::try_from(types.len()).unwrap().to_be_bytes());
    types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    frame(b'P', &body)
}

/// Bind with text parameters and text results.
fn bind(portal: &str, statement: &str, values: &[Option<&str>]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        match value {
            None => body.extend((-1i32).to_be_bytes()),
            Some(text) => {
                body.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                body.extend(text.as_bytes());
            }
        }
    }
    body.extend([0, 0]);
    frame(b'B', &body)
}

fn describe(kind: u8, name: &str) -> Vec<u8> {
    frame(b'D', &[&[kind][..], name.as_bytes(), &[0]].concat())
}

fn execute(portal: &str, max_rows: i32) -> Vec<u8> {
    frame(b'E', &[portal.as_bytes(), &[0], &max_rows.to_be_bytes()].concat())
}

fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[&[kind][..], name.as_bytes(), &[0]].concat())
}

fn sync() -> Vec<u8> {
    frame(b'S', b"")
}
