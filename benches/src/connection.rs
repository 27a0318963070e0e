//! A Postgres connection with as little between the loop and the socket as possible.
//!
//! Blocking, one message at a time, rows handed out as slices of the receive buffer. Plain TCP, or TLS by
//! rustls. No types, no allocation per query.

use std::{
    env,
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::Failure;

/// One socket read; an answer with ten rows is a few hundred bytes.
const READ_BYTES: usize = 64 * 1024;

/// Where to connect and as whom.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    user: String,
    password: String,
    database: String,
    tls: Option<Arc<ClientConfig>>,
}

pub struct Connection {
    stream: Stream,
    /// What came and is not yet used: `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Target {
    /// A login without TLS at a port of this machine.
    pub fn local(port: u16, user: &str, password: &str, database: &str) -> Target {
        Target {
            host: "127.0.0.1".to_owned(),
            port,
            user: user.to_owned(),
            password: password.to_owned(),
            database: database.to_owned(),
            tls: None,
        }
    }

    /// As libpq's variables say: `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, and `PGSSLROOTCERT`
    /// for TLS.
    pub fn from_environment() -> Result<Target, Failure> {
        let get = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
        let user = get("PGUSER", "postgres");
        let tls = match env::var_os("PGSSLROOTCERT") {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                let certificate = CertificateDer::from_pem_file(&path)
                    .map_err(|error| format!("{}: {error:?}", path.display()))?;
                roots.add(certificate)?;
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                Some(Arc::new(config))
            }
            None => None,
        };
        Ok(Target {
            host: get("PGHOST", "127.0.0.1"),
            port: get("PGPORT", "5432").parse()?,
            password: get("PGPASSWORD", ""),
            database: get("PGDATABASE", &user),
            user,
            tls,
        })
    }
}

impl Connection {
    pub fn open(target: &Target) -> Result<Connection, Failure> {
        let mut socket = TcpStream::connect((target.host.as_str(), target.port))?;
        socket.set_nodelay(true)?;
        let stream = match &target.tls {
            Some(config) => {
                socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47])?;
                let mut answer = [0];
                socket.read_exact(&mut answer)?;
                if answer != *b"S" {
                    return Err("the server refuses TLS".into());
                }
                let name = ServerName::try_from(target.host.clone())?;
                let session = ClientConnection::new(Arc::clone(config), name)?;
                Stream::Tls(Box::new(StreamOwned::new(session, socket)))
            }
            None => Stream::Plain(socket),
        };
        let mut connection = Connection { stream, buffer: vec![0; READ_BYTES], start: 0, end: 0 };
        connection.log_in(target)?;
        Ok(connection)
    }

    fn log_in(&mut self, target: &Target) -> Result<(), Failure> {
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for text in ["user", &target.user, "database", &target.database] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4)?;
        self.send(&[&length.to_be_bytes()[..], &body].concat())?;
        loop {
            let (kind, body) = self.message()?;
            match (kind, body.get(..4)) {
                (b'R', Some([0, 0, 0, 0])) => {}
                (b'R', Some([0, 0, 0, 3])) => {
                    self.send(&frame(b'p', &[target.password.as_bytes(), &[0]].concat()))?
                }
                (b'R', other) => {
                    return Err(format!(
                        "authentication {other:?} is not known here: use a tenant's name as PGUSER"
                    )
                    .into());
                }
                (b'Z', _) => return Ok(()),
                _ => {}
            }
        }
    }

    /// A simple query; the number of rows.
    pub fn query(&mut self, sql: &str) -> Result<u64, Failure> {
        let mut rows = 0;
        let message = frame(b'Q', &[sql.as_bytes(), &[0]].concat());
        self.round_trip(&message, |_| {
            rows += 1;
            Ok(())
        })?;
        Ok(rows)
    }

    /// The first column of the first row as text; `None` without a row, or for NULL.
    pub fn value(&mut self, sql: &str) -> Result<Option<String>, Failure> {
        let mut found = None;
        let mut is_first = true;
        let message = frame(b'Q', &[sql.as_bytes(), &[0]].concat());
        self.round_trip(&message, |row| {
            if std::mem::take(&mut is_first) {
                found = first_column(row)?;
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Prepares a statement whose parameters the server infers.
    pub fn prepare(&mut self, name: &str, sql: &str) -> Result<(), Failure> {
        let parse = frame(b'P', &[name.as_bytes(), &[0], sql.as_bytes(), &[0, 0, 0]].concat());
        self.round_trip(&[parse, frame(b'S', &[])].concat(), |_| Ok(()))
    }

    /// Sends a message and reads up to ReadyForQuery; `row` gets each DataRow's body.
    pub fn round_trip(
        &mut self,
        message: &[u8],
        mut row: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.send(message)?;
        let mut failed = None;
        loop {
            match self.message() {
                Ok((b'D', body)) => row(body)?,
                Ok((b'Z', _)) => return failed.map_or(Ok(()), Err),
                Ok(_) => {}
                // The server says ReadyForQuery after an error, too.
                Err(error) if error.downcast_ref::<io::Error>().is_none() => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
    }

    /// COPY … FROM STDIN; the number of rows.
    pub fn copy_in<'a>(&mut self, sql: &str, chunks: impl Iterator<Item = &'a [u8]>) -> Result<u64, Failure> {
        self.send(&frame(b'Q', &[sql.as_bytes(), &[0]].concat()))?;
        while self.message()?.0 != b'G' {}
        for chunk in chunks {
            let length = u32::try_from(chunk.len() + 4)?;
            self.send(&[&b"d"[..], &length.to_be_bytes(), chunk].concat())?;
        }
        self.send(&frame(b'c', &[]))?;
        let mut rows = 0;
        loop {
            let (kind, body) = self.message()?;
            if kind == b'C' {
                rows = rows_of(body);
            } else if kind == b'Z' {
                return Ok(rows);
            }
        }
    }

    /// COPY … TO STDOUT; the number of rows. `data` gets each CopyData's body.
    pub fn copy_out(&mut self, sql: &str, mut data: impl FnMut(&[u8])) -> Result<u64, Failure> {
        self.send(&frame(b'Q', &[sql.as_bytes(), &[0]].concat()))?;
        let mut rows = 0;
        loop {
            match self.message()? {
                (b'd', body) => data(body),
                (b'C', body) => rows = rows_of(body),
                (b'Z', _) => return Ok(rows),
                _ => {}
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes)?,
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    /// The next message's type and body; an ErrorResponse is an `Err` with the server's words.
    fn message(&mut self) -> Result<(u8, &[u8]), Failure> {
        self.fill(5)?;
        let at = self.start;
        let kind = self.buffer[at];
        let length = [1, 2, 3, 4].map(|offset| self.buffer[at + offset]);
        let total = u32::from_be_bytes(length) as usize + 1;
        self.fill(total)?;
        // `fill` may have moved the bytes to the front.
        let at = self.start;
        self.start += total;
        let body = &self.buffer[at + 5..at + total];
        if kind == b'E' {
            return Err(words(body).into());
        }
        Ok((kind, body))
    }

    /// Reads until `wanted` bytes are there.
    fn fill(&mut self, wanted: usize) -> Result<(), Failure> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        while self.end - self.start < wanted {
            if self.start + wanted > self.buffer.len() || self.end == self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
                let room = self.buffer.len().max(wanted + READ_BYTES);
                self.buffer.resize(room, 0);
            }
            let free = &mut self.buffer[self.end..];
            let read = match &mut self.stream {
                Stream::Plain(socket) => socket.read(free)?,
                Stream::Tls(stream) => stream.read(free)?,
            };
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.end += read;
        }
        Ok(())
    }
}

/// The number that a CommandComplete ends in.
fn rows_of(body: &[u8]) -> u64 {
    let tag = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body));
    tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Bind with binary parameters and binary results, Execute, Sync: one message to send over and over.
pub fn execution(statement: &str, parameters: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(statement.as_bytes());
    body.extend_from_slice(&[0, 0, 1, 0, 1]);
    let short = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes();
    body.extend_from_slice(&short(parameters.len()));
    for parameter in parameters {
        body.extend_from_slice(&u32::try_from(parameter.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(parameter);
    }
    body.extend_from_slice(&[0, 1, 0, 1]);
    [frame(b'B', &body), frame(b'E', &[0, 0, 0, 0, 0]), frame(b'S', &[])].concat()
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// Of a DataRow in text.
fn first_column(row: &[u8]) -> Result<Option<String>, Failure> {
    let length = row.get(2..6).ok_or("a row without a column")?;
    let length = i32::from_be_bytes(length.try_into()?);
    // NULL is -1.
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let value = row.get(6..6 + length).ok_or("a row shorter than its column")?;
    Ok(Some(String::from_utf8_lossy(value).into_owned()))
}

/// SQLSTATE and message of an ErrorResponse.
fn words(body: &[u8]) -> String {
    let field = |code: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let text = fields.find_map(|field| field.strip_prefix(&[code]));
        String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
    };
    format!("{}: {}", field(b'C'), field(b'M'))
}
